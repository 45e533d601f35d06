"""Whether a study's tables follow from its stored scores, and whether a cell run again gives what is stored."""

import dataclasses
import json
import math
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from fusionjax.config.naming import digest_by_its_rule
from fusionjax.errors import UserError
from fusionjax.evaluation.metrics import mean, per_example
from fusionjax.evaluation.scores import load_scores
from fusionjax.files import write_json
from fusionjax.runs import RunFolder
from fusionjax.studies.analysis import analyse, to_json
from fusionjax.studies.collect import Collected
from fusionjax.studies.folder import StudyFolder
from fusionjax.studies.plan import Plan, slug
from fusionjax.studies.tables import write_tables
from fusionjax.tasks import TASKS

ANALYSIS = "analysis.json"
_ROUNDING = 1e-9


def verify(plan: Plan, collected: Collected) -> list[str]:
    """What does not fit, one line each; nothing if all does.

    Recomputes every cell's metrics from its values, every digest from its config, and the analysis and all tables from the
    scores, and compares them with what the folder holds.
    """
    folder = collected.folder
    problems = [f"row '{row}', seed {seed}: no scores" for row, seed in collected.missing]
    for (row, seed), record in collected.records.items():
        if seed is None:
            continue
        where = f"row '{row}', seed {seed}"
        if digest_by_its_rule(folder.stored(record["digest"]), where) != record["digest"]:
            problems.append(f"{where}: its config does not have its digest {record['digest'][:12]}")
        for task, values in collected.values[row, seed].items():
            names = [name for name in record["test"][task] if TASKS[task].gives(name)]
            for metric, each in per_example(collected.examples[task], values, names=names).items():
                stored, found = record["test"][task][metric], mean(each)
                if stored is not None and not math.isclose(stored, found, rel_tol=0.0, abs_tol=_ROUNDING):
                    problems.append(f"{where}: {task} {metric} is {stored} in its record, {found} by its scores")
    with tempfile.TemporaryDirectory() as scratch:
        again = Path(scratch)
        analysis = analyse(collected)
        (again / ANALYSIS).write_text(to_json(analysis), encoding="utf-8")
        files = [again / ANALYSIS, *write_tables(collected, analysis, again)]
        problems += different(folder.path, again, files)
    return problems


def different(home: Path, again: Path, files: Iterable[Path]) -> list[str]:
    """What the files written `again` differ in from those of the same names in `home`, one line each."""
    problems = []
    for file in files:
        name = file.relative_to(again)
        there = home / name
        if not there.exists():
            problems.append(f"{name}: missing; write it with: fusionjax study report {home}")
        elif there.read_bytes() != file.read_bytes():
            problems.append(f"{name}: differs from what the scores give{_first_difference(there, file)}")
    return problems


def _first_difference(there: Path, found: Path) -> str:
    old, new = (file.read_text(encoding="utf-8", errors="replace").splitlines() for file in (there, found))
    for line, (a, b) in enumerate(zip(old, new, strict=False), 1):
        if a != b:
            return f" (line {line}: '{a.strip()[:80]}' there, '{b.strip()[:80]}' now)"
    return f" ({len(old)} lines there, {len(new)} now)"


@dataclasses.dataclass(frozen=True)
class Reproduced:
    """A cell run again beside what is stored: (task, metric) → (stored, found), and the share of equal values by task."""

    metrics: dict[tuple[str, str], tuple[float, float]]
    equal_ranks: dict[str, float]
    different: list[str]
    """Versions and the like in which the two runs differ."""

    def largest(self) -> float:
        return max((abs(a - b) for a, b in self.metrics.values()), default=0.0)


def reproduce(plan: Plan, folder: StudyFolder, row: str, seed: int, say: Callable[[str], None]) -> Reproduced:
    """Runs one finished cell again, from nothing, and compares.

    Raises:
      UserError: no such cell, it is not finished, the data have changed, or the run fails.
    """
    cell = plan.cell(row, seed)
    if not folder.has(cell.digest):
        raise UserError(f"{folder.path}: row '{row}', seed {seed} has not been run: there is nothing to compare with")
    record = folder.record(cell.digest)
    place = folder.runs / f"reproduced-{slug(cell.name)}"
    if (place / "results.json").exists():  # of an earlier time: it would prove nothing
        shutil.rmtree(place)
    job = folder.runs / "jobs" / f"{place.name}.json"
    job.parent.mkdir(parents=True, exist_ok=True)
    described = [{"config": cell.config.model_dump(mode="json"), "folder": str(place.absolute())}]
    study = folder.name
    write_json(job, {"kind": "run", "study": study, "row": row, "cells": described, "fingerprint": record["fingerprint"]})
    say(f"running row '{row}', seed {seed} again in {place}")
    code = subprocess.run([sys.executable, "-m", "fusionjax.studies.cell", str(job.absolute())], check=False).returncode
    error = job.with_suffix(".error.json")
    if code:
        raise UserError(
            json.loads(error.read_text(encoding="utf-8"))["error"] if error.exists() else f"the run ended with exit code {code}"
        )
    home = RunFolder(place)
    stored, results = folder.values(cell.digest), home.results()["test"]
    metrics = {
        (task, metric): (record["test"][task][metric], results[task][metric])
        for task in record["test"]
        for metric in record["test"][task]
        if record["test"][task][metric] is not None and results.get(task, {}).get(metric) is not None
    }
    equal = {}
    for task, values in stored.items():
        _, found = load_scores(home.scores / f"{task}.npz")
        equal[task] = float(np.mean(values == found["model"]))
    now = home.provenance()
    different = [
        f"{key}: {record[key]} then, {now[key]} now"
        for key in ("commit", "devices", "platform")
        if record.get(key) != now.get(key)
    ]
    different += [
        f"{name}: {version} then, {now['versions'].get(name)} now"
        for name, version in (record.get("versions") or {}).items()
        if now["versions"].get(name) != version
    ]
    return Reproduced(metrics, equal, different)
