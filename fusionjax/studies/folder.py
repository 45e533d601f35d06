"""A study's folder: what is committed (scores) and what is not (run folders, the journal of who does what).

| place | holds | committed |
| --- | --- | --- |
| study.yaml, the base config | the question | yes |
| scores/cells/DIGEST.json | the record of a finished cell: config, commit, data, cost, metrics, learning curve | yes |
| scores/cells/DIGEST.npz | its rank of every test target, or its values of every test example | yes |
| scores/examples/TASK.npz | how many targets each user, query or triple has, and its segments; not which targets | yes |
| scores/baselines.json, .npz | the same of the simple methods | yes |
| scores/failures/DIGEST.json | a cell that failed, and its error | yes |
| search/ | traces of the search and what it chose | yes |
| report.md, tables/, plots/, … | the report | yes |
| report.html | the same with its pictures inside, made anew by `study report` | no |
| runs/ | run folders, logs, the journal | no |

A study of several data sets has all this once for each, in DATA_SET/; beside its study.yaml stand report.md, analysis.json and
tables/ of what joins them (`data_sets.py`).

A cell's files are named by the digest of what it computes, so folders filled on several machines merge by copying. Values are
written before the record: where there is a record, there are its values. Files keep the names they were given: a record of an
older version is found by what its config is today, and read with its config in today's keys (`config/upgrade.py`).
"""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from fusionjax.config import load_values
from fusionjax.config.naming import NAMING, cell_digest
from fusionjax.errors import UserError
from fusionjax.evaluation.scores import Examples, load_examples, save_examples, save_values
from fusionjax.evaluation.scores import load_values as load_scored
from fusionjax.files import write_json

Record = dict[str, Any]
ByTask = dict[str, np.ndarray]
"""Task → ranks of its targets, or plain values of its examples."""


@dataclasses.dataclass(frozen=True)
class StudyFolder:
    path: Path
    older: dict[str, str] = dataclasses.field(default_factory=dict, compare=False, repr=False)
    """Digest by today's rule → name of the file, of records that an older rule named; filled as they are met."""
    looked_at: set[str] = dataclasses.field(default_factory=set, compare=False, repr=False)

    @property
    def name(self) -> str:
        """The study's; of the folder of one of its data sets, `STUDY/DATA_SET`."""
        home = self.path.resolve()
        outer = home.parent
        return f"{outer.name}/{home.name}" if _holds_study(outer) and not _holds_study(home) else home.name

    @property
    def scores(self) -> Path:
        return self.path / "scores"

    @property
    def runs(self) -> Path:
        return self.path / "runs"

    @property
    def search(self) -> Path:
        return self.path / "search"

    @property
    def cells(self) -> Path:
        return self.scores / "cells"

    def record_file(self, digest: str) -> Path:
        """Where the record of a cell with this digest is, or is to be."""
        file = self.cells / f"{digest[:16]}.json"
        if file.exists() or not self.cells.is_dir():
            return file
        for name in os.listdir(self.cells):
            if name.endswith(".json") and name not in self.looked_at:
                self.looked_at.add(name)
                record = _read(self.cells / name)
                if record.get("naming", 1) != NAMING and (found := _digest(record, self.cells / name)) is not None:
                    self.older[found] = name
        older = self.cells / self.older.get(digest, file.name)
        return older if older.exists() else file

    def failure_file(self, digest: str) -> Path:
        return self.scores / "failures" / f"{digest[:16]}.json"

    def examples_file(self, task: str) -> Path:
        return self.scores / "examples" / f"{task}.npz"

    def has(self, digest: str) -> bool:
        return self.record_file(digest).exists()

    def records(self) -> list[Record]:
        """Of every finished cell, planned or not, in the order of their files' names."""
        return [_today(_read(file), file) for file in sorted(self.cells.glob("*.json"))]

    def record(self, digest: str) -> Record:
        """With the config in today's keys."""
        file = self.record_file(digest)
        return _today(_read(file), file)

    def stored(self, digest: str) -> Record:
        """The record as it was written."""
        return _read(self.record_file(digest))

    def values(self, digest: str) -> ByTask:
        return load_scored(self.record_file(digest).with_suffix(".npz"))

    def failures(self) -> list[Record]:
        return [_read(file) for file in sorted((self.scores / "failures").glob("*.json"))]

    def baselines(self) -> tuple[Record, dict[str, ByTask]] | None:
        """(their record, name → task → values), if they have been measured."""
        file = self.scores / "baselines.json"
        if not file.exists():
            return None
        by_name: dict[str, ByTask] = {}
        for key, values in load_scored(file.with_suffix(".npz")).items():
            task, name = key.split("/", 1)
            by_name.setdefault(name, {})[task] = values
        return _today(_read(file), file), by_name

    def examples(self) -> dict[str, Examples]:
        return {file.stem: load_examples(file) for file in sorted((self.scores / "examples").glob("*.npz"))}

    def save_cell(self, digest: str, record: Record, values: ByTask) -> None:
        file = self.record_file(digest)
        file.parent.mkdir(parents=True, exist_ok=True)
        save_values(file.with_suffix(".npz"), values)
        write_json(file, record)
        self.failure_file(digest).unlink(missing_ok=True)

    def save_baselines(self, record: Record, by_task: dict[str, ByTask]) -> None:
        """`by_task`: task → name → values."""
        file = self.scores / "baselines.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        save_values(
            file.with_suffix(".npz"),
            {f"{task}/{name}": values for task, found in by_task.items() for name, values in found.items()},
        )
        write_json(file, record)

    def save_examples(self, examples: Examples) -> None:
        file = self.examples_file(examples.task)
        file.parent.mkdir(parents=True, exist_ok=True)
        save_examples(file, examples)

    def save_failure(self, digest: str, failure: Record) -> None:
        file = self.failure_file(digest)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, failure)


def _holds_study(folder: Path) -> bool:
    return (folder / "study.yaml").exists()


def _read(file: Path) -> Record:
    return json.loads(file.read_text(encoding="utf-8"))


def _today(record: Record, file: Path) -> Record:
    """A record with its config in today's keys; as it is where it is not (any longer) the config of a run."""
    if "config" not in record:
        return record
    try:
        config = load_values(record["config"], str(file)).model_dump(mode="json", exclude={"track"})
    except UserError:
        return record
    return {**record, "config": config}


def _digest(record: Record, file: Path) -> str | None:
    """By today's rule; `None` where the config is not (any longer) that of a run."""
    try:
        return cell_digest(load_values(record["config"], str(file)))
    except (UserError, KeyError):
        return None
