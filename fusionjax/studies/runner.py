"""Does what of a study is missing, and only that: claims cells, starts their processes, stores what they found.

What is done is what has a record in `scores/`; the claims only keep workers from doing the same cell twice. So a study may be
stopped, killed, extended by a row or a seed, cloned without its run folders, and goes on.
"""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fusionjax.config import changed_keys, load_values, schema
from fusionjax.config.naming import NAMING
from fusionjax.errors import UserError
from fusionjax.evaluation.scores import load_scores
from fusionjax.files import write_json
from fusionjax.runs import RunFolder, now
from fusionjax.studies.cell import COST, DONE, INTERRUPTED
from fusionjax.studies.claims import BEAT, Claims
from fusionjax.studies.folder import Record, StudyFolder
from fusionjax.studies.plan import BASELINES, Cell, Plan, slug
from fusionjax.training.loop import cannot_share

Say = Callable[[str], None]
_POLL = 0.2


@dataclasses.dataclass
class Job:
    """Cells that one child process does, and the process."""

    kind: str
    row: str
    cells: list[Cell]
    claims: list[int]
    folders: list[Path]
    process: subprocess.Popen[bytes]
    started: float
    file: Path
    log: Path

    @property
    def label(self) -> str:
        if self.kind == BASELINES:
            return BASELINES
        return f"{self.row}, seed{'s' if len(self.cells) > 1 else ''} {', '.join(str(cell.seed) for cell in self.cells)}"


def check(plan: Plan, folder: StudyFolder) -> list[Record]:
    """Records that belong to no planned cell (rows or seeds taken out of the study): kept, and not used.

    Raises:
      UserError: a planned cell was done with another config, so the base or an axis has changed; or the data differ.
    """
    planned = {folder.record_file(cell.digest) for cell in plan.cells}
    by_place = {(cell.row, cell.seed): cell for cell in plan.cells}
    others, problems = [], []
    for record in folder.records():
        if folder.record_file(record["digest"]) in planned:
            continue
        others.append(record)
        cell = by_place.get((record["row"], record["seed"]))
        if cell is not None and not folder.has(cell.digest):
            changes = _changes(record["config"], cell.config)
            problems.append(
                f"row '{cell.row}', seed {cell.seed} was run with another config: {changes}. Restore it, name the row anew, or "
                f"remove {folder.record_file(record['digest'])} to run it again"
            )
    if problems:
        rest = f"\n… and {len(problems) - 5} more cells" if len(problems) > 5 else ""
        raise UserError("\n".join(problems[:5]) + rest)
    _one_data(plan, folder)
    return others


def _changes(old: dict[str, Any], new: schema.Run) -> str:
    try:
        changes = changed_keys(load_values(old, "its record"), new)
    except UserError:  # the schema itself has changed since
        return "its keys are no longer those of a run config"
    shown = [
        f"{key}: {was!r} then, {now!r} now" for key, was, now in changes if key not in ("data.source_dir", "data.cache_dir")
    ]
    return "; ".join(shown[:5])


def data_key(config: dict[str, Any]) -> str:
    """What determines the data's fingerprint: the `data` section without places, controls and what is made of the graph."""
    kept = {key: value for key, value in config["data"].items() if key not in ("source_dir", "cache_dir", "controls", "graph")}
    if not kept.get("plugins"):
        kept.pop("plugins", None)  # records from before there were any
    kept["split"] = {key: value for key, value in kept.get("split", {}).items() if key != "unseen_entities"}
    return json.dumps(kept, sort_keys=True)


def _one_data(plan: Plan, folder: StudyFolder) -> None:
    seen: dict[str, Record] = {}
    for cell in plan.distinct():
        if not folder.has(cell.digest):
            continue
        record = folder.record(cell.digest)
        first = seen.setdefault(data_key(record["config"]), record)
        if first["fingerprint"] != record["fingerprint"]:
            raise UserError(
                f"{folder.path}: cells were run on different data: '{first['row']}' seed {first['seed']} has fingerprint "
                f"{first['fingerprint'][:12]}, '{record['row']}' seed {record['seed']} has {record['fingerprint'][:12]}"
            )


class Runner:
    """One worker process with `workers` cells at a time."""

    def __init__(self, plan: Plan, folder: StudyFolder, claims: Claims, workers: int, say: Say, retry: bool = False) -> None:
        self.plan, self.folder, self.claims, self.workers, self.say = plan, folder, claims, workers, say
        self.retry = retry
        self.tried: set[str] = set()
        """Cells this worker has already begun: none is begun twice in one go."""
        self.jobs: list[Job] = []
        self.stop = threading.Event()
        self.beaten = time.monotonic()

    def run(self, show: Callable[["Runner"], None]) -> int:
        """Until nothing is missing that another worker does not hold; returns the number of failed cells.

        Args:
          show: called several times a second, for the live table.
        """
        before = {number: signal.signal(number, lambda *_: self.stop.set()) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            while True:
                self._reap()
                if self.stop.is_set():
                    self._end_children()
                    return self.failed()
                while len(self.jobs) < self.workers and self._start_next():
                    pass
                if not self.jobs:
                    return self.failed()
                if time.monotonic() - self.beaten > BEAT:
                    self.claims.beat([number for job in self.jobs for number in job.claims])
                    self.beaten = time.monotonic()
                show(self)
                time.sleep(_POLL)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def failed(self) -> int:
        return sum(self.folder.failure_file(cell.digest).exists() for cell in self.plan.distinct())

    # ---------------------------------------------------------------------------------------------------------- choosing
    def missing(self) -> list[Cell]:
        """Cells without a record that have not failed (before this worker's own attempt, with `retry`)."""
        return [
            cell
            for cell in self.plan.distinct()
            if not self.folder.has(cell.digest)
            and cell.digest not in self.tried
            and (self.retry or not self.folder.failure_file(cell.digest).exists())
        ]

    def _start_next(self) -> bool:
        missing = self.missing()
        for cell in missing:
            group = [cell]
            if self.plan.study.together and cannot_share(cell.config) is None:
                group = [other for other in missing if other.row == cell.row]
            claimed = [(each, number) for each in group if (number := self.claims.claim(each.digest)) is not None]
            # Another worker may have finished it between the look and the claim.
            for each, number in list(claimed):
                if self.folder.has(each.digest):
                    self.claims.give_up(number)
                    claimed.remove((each, number))
            if claimed:
                self._start("run", cell.row, [each for each, _ in claimed], [number for _, number in claimed])
                return True
        if self.plan.study.baselines and self.folder.baselines() is None and BASELINES not in self.tried:
            number = self.claims.claim(BASELINES)
            if number is not None:
                self._start(
                    BASELINES, BASELINES, [self.plan.cell(self.plan.study.reference, self.plan.study.seeds[0])], [number]
                )
                return True
        return False

    def _start(self, kind: str, row: str, cells: list[Cell], claims: list[int]) -> None:
        names = [BASELINES] if kind == BASELINES else [cell.name for cell in cells]
        folders = [self.folder.runs / name for name in names]
        jobs = self.folder.runs / "jobs"
        jobs.mkdir(parents=True, exist_ok=True)
        file, log = jobs / f"{slug(names[0])}.json", jobs / f"{slug(names[0])}.log"
        file.with_suffix(".error.json").unlink(missing_ok=True)
        described = [
            {"config": cell.config.model_dump(mode="json"), "folder": str(place.absolute())}
            for cell, place in zip(cells, folders, strict=True)
        ]
        write_json(
            file,
            {
                "kind": kind,
                "study": self.folder.name,
                "row": row,
                "cells": described,
                "fingerprint": self._expected(cells[0]),
            },
        )
        with log.open("ab") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "fusionjax.studies.cell", str(file.absolute())],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for this worker, which then asks its children to save and stop
            )
        self.tried |= {BASELINES} if kind == BASELINES else {cell.digest for cell in cells}
        job = Job(kind, row, cells, claims, folders, process, time.monotonic(), file, log)
        self.jobs.append(job)
        self.say(f"started {job.label}")

    def _expected(self, cell: Cell) -> str | None:
        """The fingerprint that finished cells on the same data have."""
        key = data_key(cell.config.model_dump(mode="json"))
        for record in self.folder.records():
            if data_key(record["config"]) == key:
                return record["fingerprint"]
        return None

    # ---------------------------------------------------------------------------------------------------------- storing
    def _reap(self) -> None:
        for job in list(self.jobs):
            code = job.process.poll()
            if code is None:
                continue
            self.jobs.remove(job)
            stopped = code in (INTERRUPTED, -signal.SIGTERM, -signal.SIGINT)
            for cell, place, number in zip(job.cells, job.folders, job.claims, strict=True):
                try:
                    if job.kind == BASELINES and code == DONE:
                        self._store_baselines(RunFolder(place))
                    elif job.kind != BASELINES and (place / "results.json").exists() and not stopped:
                        self._store(cell, RunFolder(place))
                    else:
                        raise UserError(self._error(job, place, code))
                except UserError as error:
                    self.claims.give_up(number)
                    if stopped:
                        self.say(f"stopped {job.label}: its state is saved")
                    else:
                        self._fail(job, cell, str(error))
                    continue
                self.claims.done(number, _selected(RunFolder(place)))
            if code == DONE:
                self.say(f"finished {job.label} in {time.monotonic() - job.started:.0f} s")

    def _error(self, job: Job, place: Path, code: int) -> str:
        alone = RunFolder(place).provenance().get("failure")  # of one of several seeds trained together
        if code == DONE and alone:
            return alone
        file = job.file.with_suffix(".error.json")
        if file.exists():
            return json.loads(file.read_text(encoding="utf-8"))["error"]
        lines = job.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        last = lines[-1] if lines else "no output"
        return f"killed by signal {-code} (9: out of memory?)" if code < 0 else f"exit code {code}: {last}"

    def _fail(self, job: Job, cell: Cell, error: str) -> None:
        self.say(f"FAILED {job.label}: {error} (log: {job.log})")
        if job.kind == BASELINES:
            raise UserError(f"the baselines cannot be measured: {error}")
        failure = {"row": cell.row, "seed": cell.seed, "digest": cell.digest, "naming": NAMING, "error": error, "when": now()}
        self.folder.save_failure(cell.digest, failure)

    def _store(self, cell: Cell, home: RunFolder) -> None:
        values, record = {}, record_of(cell, home, self.folder.path)
        known, is_reference = self.folder.examples(), cell.row == self.plan.study.reference
        for file in sorted(home.scores.glob("*.npz")):
            examples, found = load_scores(file)
            task = examples.task
            if task in known and known[task].digest() != examples.digest():
                reason = (
                    f"its {len(examples.example):,} test examples of {task} are not the {len(known[task].example):,} of the "
                    "study's other cells"
                )
                if is_reference:
                    raise UserError(f"{reason}: has the data or the evaluation changed? They cannot stand in one table")
                record.setdefault("not_comparable", {})[task] = reason
                self.say(f"row '{cell.row}', seed {cell.seed}: {reason}: {task} is left out of the table")
                continue
            # Segments are those of the reference's data: a control changes degrees and counts.
            if task not in known or is_reference:
                self.folder.save_examples(examples)
            values[task] = found["model"]
        self.folder.save_cell(cell.digest, record, values)

    def _store_baselines(self, home: RunFolder) -> None:
        by_task = {}
        for file in sorted(home.scores.glob("*.npz")):
            examples, found = load_scores(file)
            if examples.task not in self.folder.examples():
                self.folder.save_examples(examples)
            by_task[examples.task] = found
        config = self.plan.cell(self.plan.study.reference, self.plan.study.seeds[0]).config
        self.folder.save_baselines({"row": BASELINES, **_facts(config, home), **home.results()}, by_task)

    def _end_children(self) -> None:
        for job in self.jobs:
            job.process.terminate()
        self.say(f"stopping: {len(self.jobs)} cells save their state")
        deadline = time.monotonic() + 120.0
        while self.jobs and time.monotonic() < deadline:
            self._reap()
            time.sleep(_POLL)
        for job in self.jobs:
            os.killpg(job.process.pid, signal.SIGKILL)


def record_of(cell: Cell, home: RunFolder, study: Path) -> Record:
    """What is kept of a finished cell besides its values."""
    results = home.results()
    return {
        "row": cell.row,
        "seed": cell.seed,
        "digest": cell.digest,
        **_facts(cell.config, home),
        "valid": results["valid"],
        "test": results["test"],
        "curve": [
            {key: value for key, value in row.items() if key in ("step", "selected") or _main(key)}
            for row in home.metrics()
            if row["kind"] == "valid"
        ],
        "run": os.path.relpath(home.path, study),
    }


def _main(key: str) -> bool:
    """Of the validation metrics only those that curves are drawn of: the folder is committed."""
    return "/" in key and key.rsplit("/", 1)[1] in ("mrr", "ndcg@10", "recall@10")


def _facts(config: schema.Run, home: RunFolder) -> Record:
    """Where numbers come from and what they cost; nothing of the machine's folders."""
    found = home.provenance()
    kept = ("fingerprint", "commit", "dirty", "versions", "devices", "platform", "started", "finished", "steps", "best_step")
    data = config.data.model_copy(update={"source_dir": None, "cache_dir": None})
    return {
        "naming": NAMING,
        "config": config.model_copy(update={"data": data}).model_dump(mode="json", exclude={"track"}),
        **{key: found.get(key) for key in (*kept, "parameters")},
        **({"plugins": found["plugins"]} if "plugins" in found else {}),
        **_cost(home),
    }


def _cost(home: RunFolder) -> dict[str, Any]:
    file = home.path / COST
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}


def _selected(home: RunFolder) -> float:
    best = [row["selected"] for row in home.metrics() if row["kind"] == "valid" and row["best"]]
    return best[-1] if best else 0.0


def orphans(records: Sequence[Record]) -> str:
    """One line about records that no planned cell uses."""
    names = sorted({f"{record['row']} seed {record['seed']}" for record in records})
    return f"{len(names)} finished cells are no longer part of the study and are left out: {', '.join(names[:6])}"


__all__ = ["Job", "Runner", "check", "data_key", "orphans", "record_of"]
