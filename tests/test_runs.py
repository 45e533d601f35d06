"""The run folder: found again by the same config, refused to another, written whole, read back even after a kill."""

import json
from pathlib import Path

import pytest

from fusionjax import runs
from fusionjax.config import load_run, schema
from fusionjax.errors import UserError

CONFIG = schema.Run()


def test_the_same_config_leads_to_the_same_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    first = runs.open_run(CONFIG, None, "name")
    assert first.path.parent == Path("runs") and first.path.name.startswith("name-")
    assert runs.open_run(schema.Run(), None, "name") == first
    other = runs.open_run(schema.Run(seed=1), None, "name")
    assert other != first and sorted(path.name for path in Path("runs").iterdir()) == sorted([first.path.name, other.path.name])
    assert first.config() == CONFIG and load_run(first.config_file) == CONFIG


def test_a_chosen_folder(tmp_path: Path) -> None:
    run = runs.open_run(CONFIG, tmp_path / "deep" / "down", "name")
    assert run.path == tmp_path / "deep" / "down" and run.config() == CONFIG
    (tmp_path / "empty").mkdir()
    runs.open_run(CONFIG, tmp_path / "empty", "name")
    assert [path.name for path in run.path.iterdir()] == ["config.yaml"]


def test_another_config_names_what_differs(tmp_path: Path) -> None:
    runs.open_run(CONFIG, tmp_path / "run", "name")
    changed = schema.Run.model_validate({"seed": 4, "train": {"steps": 5}})
    with pytest.raises(
        UserError, match=r"run holds a run of another config \(seed: 0 there, 4 now; train\.steps: 1000 there, 5 now\)"
    ):
        runs.open_run(changed, tmp_path / "run", "name")
    assert runs.RunFolder(tmp_path / "run").config() == CONFIG  # untouched


def test_what_is_no_run_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    for path in (tmp_path, tmp_path / "notes.txt"):
        with pytest.raises(UserError, match="exists and is not a run folder; use another --run-dir"):
            runs.open_run(CONFIG, path, "name")
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    with pytest.raises(UserError, match=r"cannot write there"):
        runs.open_run(CONFIG, tmp_path / "notes.txt" / "below", "name")
    with pytest.raises(UserError, match=r"no run there \(config\.yaml is missing\)"):
        runs.RunFolder(tmp_path).config()


def test_metrics_after_a_kill(tmp_path: Path) -> None:
    run = runs.RunFolder(tmp_path)
    assert run.metrics() == [] and run.provenance() == {}
    run.metrics_file.write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "lo', encoding="utf-8")
    assert run.metrics() == [{"step": 1, "loss": 2.0}]


def test_provenance_of_a_run_that_begins() -> None:
    record = runs.provenance(schema.Run(seed=9), "ab" * 32, {"name": "files"})
    assert record["seed"] == 9 and record["fingerprint"] == "ab" * 32 and record["data"] == {"name": "files"}
    assert record["devices"] == ["cpu:cpu"] * 4
    assert {"python", "jax", "flax", "optax", "numpy", "grain"} <= record["versions"].keys()
    assert "not installed" not in record["versions"].values()
    assert json.loads(json.dumps(record)) == record


def test_outside_a_checkout_there_is_no_commit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Installed inside somebody else's repository, or without git: no commit is better than a wrong one."""
    monkeypatch.setattr(runs, "__file__", str(tmp_path / "site-packages" / "fusionjax" / "runs.py"))
    (tmp_path / "site-packages" / "fusionjax").mkdir(parents=True)
    record = runs.provenance(CONFIG, "", {})
    assert record["commit"] is None and record["dirty"] is None
    monkeypatch.setenv("PATH", str(tmp_path))
    assert runs.provenance(CONFIG, "", {})["commit"] is None
