"""The tables follow from the stored scores, and whatever was changed by hand is named."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from fusionjax import cli
from tests.studies.small import STUDY, write


@pytest.fixture(scope="module")
def once(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("reported") / "study"
    shutil.copytree(finished, home, ignore=shutil.ignore_patterns("runs"))
    assert cli.main(["study", "report", str(home)]) == 0
    return home


@pytest.fixture
def reported(once: Path, tmp_path: Path) -> Path:
    """A clone of a finished study with its report."""
    return Path(shutil.copytree(once, tmp_path / "study"))


def verify(home: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    capsys.readouterr()
    code = cli.main(["study", "verify", str(home)])
    return code, capsys.readouterr().err


def test_an_untouched_clone_verifies_and_its_report_is_whole(reported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify(reported, capsys) == (0, "")
    names = {path.name for path in reported.iterdir()}
    assert names >= {"report.md", "report.html", "analysis.json", "methods.md", "references.bib", "model_card.md"}
    assert list((reported / "tables").glob("*.tex")) and list((reported / "tables").glob("*.csv"))
    assert list((reported / "plots").glob("bars-*.png"))


def test_without_a_report_verification_asks_for_one(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = verify(copy, capsys)
    assert code == 1 and "analysis.json: missing; write it with: fusionjax study report" in said


def test_a_number_changed_in_a_table_is_found(reported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = reported / "tables" / "seeds.csv"
    lines = file.read_text(encoding="utf-8").splitlines()
    lines[1] = lines[1][:-1] + ("1" if lines[1][-1] != "1" else "2")
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    code, said = verify(reported, capsys)
    assert code == 1 and "tables/seeds.csv: differs from what the scores give (line 2:" in said and len(said.splitlines()) == 1


def test_changed_ranks_are_found_in_metrics_and_tables(reported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = sorted((reported / "scores" / "cells").glob("*.npz"))[0]
    with np.load(file) as found:
        arrays = {name: found[name] for name in found.files}
    name = next(name for name in arrays if "recommendation" in name)
    arrays[name] = np.where(arrays[name] > 3, arrays[name] - 1, arrays[name])
    np.savez(file, **arrays)
    code, said = verify(reported, capsys)
    assert code == 1 and "in its record" in said and "by its scores" in said and "analysis.json: differs" in said


def test_a_changed_config_no_longer_has_its_digest(reported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = sorted((reported / "scores" / "cells").glob("*.json"))[0]
    record = json.loads(file.read_text(encoding="utf-8"))
    record["config"]["model"]["user"]["dropout"] = 0.123
    file.write_text(json.dumps(record), encoding="utf-8")
    code, said = verify(reported, capsys)
    assert code == 1 and "its config does not have its digest" in said


def test_a_missing_seed_is_named_and_left_out_of_nothing_silently(reported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(reported, STUDY.replace("seeds: [0, 1]", "seeds: [0, 1, 2]"))
    code, said = verify(reported, capsys)
    assert code == 1 and "row 'real', seed 2: no scores" in said and "row 'tails_shuffled', seed 2: no scores" in said
    assert cli.main(["study", "report", str(reported)]) == 0
    report = (reported / "report.md").read_text(encoding="utf-8")
    assert "**Incomplete.** 2 of 6 cells are missing" in report and "**real**, seed 2: not run" in report


def test_plan_and_status_say_what_is_done(reported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(reported, STUDY.replace("seeds: [0, 1]", "seeds: [0, 1, 2]"))
    assert cli.main(["study", "plan", str(reported), "--no-probe"]) == 0
    out = capsys.readouterr().out
    assert "6 cells, 6 of them different" in out and "2 to do" in out and "from 4 finished cells" in out
    assert cli.main(["study", "status", str(reported)]) == 0
    assert "4 of 6 cells" in capsys.readouterr().out
