"""A study runs what is missing and only that: killed, resumed, extended, failed, shared by workers."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fusionjax import cli
from fusionjax.errors import UserError
from fusionjax.runs import RunFolder
from fusionjax.studies.collect import collect
from fusionjax.studies.folder import StudyFolder
from fusionjax.studies.plan import make_plan
from fusionjax.studies.runner import check
from fusionjax.studies.verify import reproduce
from tests.studies.small import BASE, STUDY, run, stored, write


def test_every_cell_is_run_and_stored_with_its_origin(finished: Path) -> None:
    plan, folder = make_plan(finished), StudyFolder(finished)
    found = collect(plan, folder)
    assert (
        not found.missing and not found.failures and set(found.values) == {(row, seed) for row in plan.rows for seed in (0, 1)}
    )
    record = found.records["real", 1]
    assert (record["row"], record["seed"], record["steps"]) == ("real", 1, 6)
    assert len(record["fingerprint"]) == 64 and record["peak_memory_bytes"] > 2**26 and record["cpu_seconds"] > 0.5
    results = RunFolder(finished / record["run"]).results()
    assert record["test"] == results["test"] and [row["step"] for row in record["curve"]] == [3, 6]
    assert str(finished) not in json.dumps(record), "a record must not hold folders of this machine"
    assert found.examples["recommendation"].segments["popularity"].labels


def test_nothing_is_run_twice(finished: Path) -> None:
    before = stored(finished)
    said, _ = run(finished)
    assert said == [] and stored(finished) == before


def test_a_clone_without_run_folders_is_extended_by_a_seed_and_a_row(copy: Path) -> None:
    before = stored(copy)
    study = STUDY.replace("seeds: [0, 1]", "seeds: [1, 2]").replace("tails_shuffled]", "none]")
    write(copy, study)
    said, _ = run(copy)
    started = {line.removeprefix("started ") for line in said if line.startswith("started")}
    assert started == {"real, seed 2", "none, seed 1", "none, seed 2"}
    after = stored(copy)
    assert all(after[name] == content for name, content in before.items() if not name.startswith(("recomm", "link_p")))
    assert not collect(make_plan(copy), StudyFolder(copy)).missing


def test_killed_workers_and_children_lose_nothing(tmp_path: Path, finished: Path) -> None:
    """The worker is killed with its children at work; the next one goes on, and ends with the same scores."""
    home = write(tmp_path / "study", STUDY.replace("[real, tails_shuffled]", "[real]"))
    command = [sys.executable, "-m", "fusionjax.cli", "study", "run", str(home), "--workers", "2"]
    worker = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(home.glob("runs/*/checkpoints/latest/*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    worker.kill()
    worker.wait()
    done_before = set((home / "scores" / "cells").glob("*.json"))
    said, plan = run(home)
    assert len([line for line in said if line.startswith("finished")]) == 2 - len(done_before)
    assert not collect(plan, StudyFolder(home)).missing
    mine, theirs = stored(home), stored(finished)
    assert set(mine) < set(theirs)
    assert all(mine[name] == theirs[name] for name in mine if name.endswith(".npz")), "not the scores of an undisturbed study"


def test_sigterm_saves_and_exits(tmp_path: Path) -> None:
    home = write(tmp_path / "study", base=BASE.replace("steps: 6", "steps: 4000"))
    command = [sys.executable, "-m", "fusionjax.cli", "study", "run", str(home)]
    worker = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not list(home.glob("runs/*/checkpoints/latest/*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    worker.send_signal(signal.SIGTERM)
    out, err = worker.communicate(timeout=60)
    assert worker.returncode == 0 and "its state is saved" in err and "0 of 4 cells done, 0 failed" in out
    jobs = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert str(home) not in jobs, "a child outlived its worker"


def test_a_failed_cell_is_recorded_and_stops_no_other(copy: Path) -> None:
    study = STUDY.replace(
        "graph: [real, tails_shuffled]", "rate: {sane: {}, mad: {train.optimiser.learning_rate.tables: 1e30}}"
    )
    write(copy, study.replace("reference: real", "reference: sane").replace("seeds: [0, 1]", "seeds: [0]"))
    shutil.rmtree(copy / "scores")
    said, plan = run(copy)
    failures = StudyFolder(copy).failures()
    assert [failure["row"] for failure in failures] == ["mad"]
    assert "is not finite" in failures[0]["error"] and any(line.startswith("FAILED mad") for line in said)
    found = collect(plan, StudyFolder(copy))
    assert set(found.missing) == {("mad", 0)} == set(found.failures)
    assert run(copy)[0] == [], "a failed cell is not tried again unasked"
    assert len([line for line in run(copy, retry=True)[0] if line.startswith("FAILED")]) == 1


def test_a_changed_base_is_refused_by_name(copy: Path) -> None:
    write(copy, base=BASE.replace("steps: 6", "steps: 8"))
    with pytest.raises(UserError, match=r"row 'real', seed 0 was run with another config: train.steps: 6 then, 8 now"):
        check(make_plan(copy), StudyFolder(copy))
    assert cli.main(["study", "run", str(copy)]) == 2


def test_changed_data_are_refused(copy: Path) -> None:
    file = sorted((copy / "scores" / "cells").glob("*.json"))[0]
    record = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(record | {"fingerprint": "0" * 64}), encoding="utf-8")
    with pytest.raises(UserError, match="cells were run on different data"):
        check(make_plan(copy), StudyFolder(copy))
    # A new cell sees it too, before it trains.
    file.write_text(json.dumps(record), encoding="utf-8")
    for file in (copy / "scores" / "cells").glob("*.json"):
        record = json.loads(file.read_text(encoding="utf-8"))
        file.write_text(json.dumps(record | {"fingerprint": "0" * 64}), encoding="utf-8")
    write(copy, STUDY.replace("seeds: [0, 1]", "seeds: [0, 1, 2]").replace("[real, tails_shuffled]", "[real]"))
    said, _ = run(copy)
    assert any("the data has changed (fingerprint" in line for line in said)


def test_rows_taken_out_are_kept_and_not_used(copy: Path) -> None:
    write(copy, STUDY.replace("[real, tails_shuffled]", "[real]"))
    plan, folder = make_plan(copy), StudyFolder(copy)
    assert {record["row"] for record in check(plan, folder)} == {"tails_shuffled"}
    assert collect(plan, folder).rows == ("real",)


def test_damaged_scores_are_named(copy: Path) -> None:
    file = sorted((copy / "scores" / "cells").glob("*.npz"))[0]
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(UserError, match=file.name):
        collect(make_plan(copy), StudyFolder(copy))


def test_a_cell_run_again_gives_the_stored_ranks(finished: Path) -> None:
    found = reproduce(make_plan(finished), StudyFolder(finished), "real", 1, lambda _: None)
    assert found.largest() == 0.0 and set(found.equal_ranks.values()) == {1.0}
    assert ("recommendation", "ndcg@10") in found.metrics
    with pytest.raises(UserError, match="no row 'rael'; did you mean 'real'"):
        reproduce(make_plan(finished), StudyFolder(finished), "rael", 1, lambda _: None)


def test_two_workers_share_a_study(tmp_path: Path) -> None:
    home = write(tmp_path / "study", STUDY.replace("seeds: [0, 1]", "seeds: [0]"))
    command = [sys.executable, "-m", "fusionjax.cli", "study", "run", str(home)]
    workers = [subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [worker.communicate(timeout=240)[1] for worker in workers]
    started = [line for text in said for line in text.splitlines() if line.startswith("started")]
    assert sorted(started) == sorted(set(started)) and len(started) == 2, said
    assert all(worker.returncode == 0 for worker in workers) and os.listdir(home / "scores" / "cells")
