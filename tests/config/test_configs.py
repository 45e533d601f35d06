"""Every config in configs/ is valid, and its resolved form is the same run."""

from pathlib import Path

import pytest

from fusionjax.config import dump_run, load_run

CONFIGS = sorted((Path(__file__).parents[2] / "configs").rglob("*.yaml"))


def test_the_demo_has_its_config() -> None:
    assert "quickstart.yaml" in [path.name for path in CONFIGS]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_config_loads_and_round_trips(path: Path, tmp_path: Path) -> None:
    run = load_run(path)
    resolved = tmp_path / "config.yaml"
    resolved.write_text(dump_run(run), encoding="utf-8")
    assert load_run(resolved) == run
