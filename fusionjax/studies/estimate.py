"""What a study will cost: from cells that are finished, else from a short probe of the reference row."""

import dataclasses
import json
import math
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fusionjax.config import schema
from fusionjax.reporting.report import duration as readable
from fusionjax.studies.folder import Record
from fusionjax.studies.plan import Cell, Plan

__all__ = ["Estimate", "estimate", "from_records", "probe", "readable"]

_PROBE_STEPS = 20
_PROBE_EPOCHS, _QUICK = 20, 60.0
"""Epochs of a probe where one epoch and its validation take fewer seconds than `_QUICK`; else 2."""


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Of the cells still to do: seconds if one is done after another, bytes of the largest, and what this rests on."""

    seconds: float
    peak_memory_bytes: int
    basis: str


def from_records(missing: Sequence[Cell], records: Sequence[Record]) -> Estimate | None:
    """A cell costs what its row's finished seeds cost (median), and where there is none what all finished cells cost.

    Costs are taken per step (per epoch of a run that counts epochs), so rows that train longer count for more. `None` if
    no finished cell has a cost.
    """
    known = [record for record in records if record.get("seconds") and record.get("steps")]
    if not known:
        return None
    by_row: dict[str, list[float]] = {}
    for record in known:
        by_row.setdefault(record["row"], []).append(record["seconds"] / record["steps"])
    joint = [record for record in known if not _epochs(record)]
    typical = statistics.median(rate for rates in by_row.values() for rate in rates)
    steps = statistics.median(record["steps"] for record in joint or known)
    seconds = 0.0
    for cell in missing:
        if _counts_epochs(cell.config):
            seconds += _graph_seconds(cell, known)
        else:
            seconds += statistics.median(by_row.get(cell.row, [typical])) * (cell.config.train.steps or steps)
    peak = max(record.get("peak_memory_bytes", 0) for record in known)
    return Estimate(seconds, peak, f"{len(known)} finished cells")


def _counts_epochs(config: schema.Run) -> bool:
    """Whether a run is as long as so many epochs and is validated after so many."""
    return config.train.epochs is not None and config.train.validate_every_epochs > 0


def _epochs(record: Record) -> float | None:
    """Epochs of a finished run that counts them; `None` of any other."""
    train = (record.get("config") or {}).get("train") or {}
    if not train.get("epochs") or not train.get("validate_every_epochs"):
        return None
    curve = record.get("curve") or []
    if not curve:
        return float(train["epochs"])
    first = min(train["validate_every_epochs"], train["epochs"])  # epochs until the first validation
    return record["steps"] * first / curve[0]["step"]


def _graph_seconds(cell: Cell, known: Sequence[Record]) -> float:
    """What finished seeds of the row cost, early stopping included; else an epoch costs what it costs other such rows."""
    own = [record["seconds"] for record in known if record["row"] == cell.row]
    if own:
        return statistics.median(own)
    epochs = [record["seconds"] / count for record in known if (count := _epochs(record))]
    if not epochs:
        return statistics.median(record["seconds"] for record in known)
    return statistics.median(epochs) * (cell.config.train.epochs or 0.0)


def probe(cell: Cell, fingerprint: str | None = None) -> dict[str, Any]:
    """Trains a cell for a few steps in a process of its own.

    Returns:
      seconds before the first step and after the last (`fixed`), seconds a step (`step`), `peak_memory_bytes`.
    """
    train = cell.config.train.model_copy(
        update={"steps": _PROBE_STEPS, "epochs": None, "validate_every": _PROBE_STEPS, "checkpoint_every": 0, "log_every": 1}
    )
    config = cell.config.model_copy(update={"train": train})
    with tempfile.TemporaryDirectory() as scratch:
        costs = []
        for steps in (_PROBE_STEPS, 3 * _PROBE_STEPS):
            longer = config.model_copy(update={"train": train.model_copy(update={"steps": steps, "validate_every": steps})})
            costs.append(_cost_of(longer, cell, fingerprint, Path(scratch) / f"{steps}"))
    first, second = costs
    step = max(second["seconds"] - first["seconds"], 0.0) / (2 * _PROBE_STEPS)
    return {
        "step": step,
        "fixed": max(second["seconds"] - 3 * _PROBE_STEPS * step, 0.0),
        "peak_memory_bytes": second["peak_memory_bytes"],
    }


def probe_graph(cell: Cell, fingerprint: str | None = None) -> dict[str, Any]:
    """Trains a cell that counts epochs for a few of them, each time in a process of its own.

    Returns:
      seconds before the first epoch and after the last (`fixed`), of an epoch (`epoch`), of a validation (`validation`),
      `peak_memory_bytes`, `epochs` of the longest.
    """

    def cost(epochs: int, validate_every: int, place: Path) -> dict[str, Any]:
        changes = {"epochs": float(epochs), "validate_every_epochs": validate_every, "patience": 0}
        train = cell.config.train.model_copy(update=changes)
        return _cost_of(cell.config.model_copy(update={"train": train}), cell, fingerprint, place)

    with tempfile.TemporaryDirectory() as scratch:
        started = cost(1, 1, Path(scratch) / "compiling")  # what is compiled here is kept for the others
        many = _PROBE_EPOCHS if started["seconds"] < _QUICK else 2
        one = cost(1, 1, Path(scratch) / "one")
        trained = cost(many, many, Path(scratch) / "trained")
        validated = cost(many, 1, Path(scratch) / "validated")
    epoch = max(trained["seconds"] - one["seconds"], 0.0) / (many - 1)
    validation = max(validated["seconds"] - trained["seconds"], 0.0) / (many - 1)
    return {
        "epoch": epoch,
        "validation": validation,
        "fixed": max(one["seconds"] - epoch - validation, 0.0),
        "peak_memory_bytes": validated["peak_memory_bytes"],
        "epochs": many,
    }


def _cost_of(config: schema.Run, cell: Cell, fingerprint: str | None, place: Path) -> dict[str, Any]:
    """What running a config in `place` costs."""
    job = place.with_suffix(".json")
    described = [{"config": config.model_dump(mode="json"), "folder": str(place)}]
    job.write_text(
        json.dumps({"kind": "run", "study": "probe", "row": cell.row, "cells": described, "fingerprint": fingerprint}),
        encoding="utf-8",
    )
    subprocess.run([sys.executable, "-m", "fusionjax.studies.cell", str(job)], check=True, capture_output=True)
    return json.loads((place / "cost.json").read_text(encoding="utf-8"))


def estimate(plan: Plan, missing: Sequence[Cell], records: Sequence[Record], may_probe: bool = True) -> Estimate | None:
    """Time and memory of the missing cells; `None` if there is nothing to go by."""
    if not missing:
        return Estimate(0.0, 0, "nothing is missing")
    found = from_records(missing, records)
    if found is not None or not may_probe:
        return found
    cell = plan.cell(plan.study.reference, plan.study.seeds[0])
    if _counts_epochs(cell.config):
        cost = probe_graph(cell)
        lengths = [(each.config.train.epochs or 0.0, each.config.train.validate_every_epochs or 1) for each in missing]
        seconds = sum(
            cost["fixed"] + cost["epoch"] * epochs + cost["validation"] * math.ceil(epochs / every) for epochs, every in lengths
        )
        basis = f"a probe of row '{cell.row}', {cost['epochs']} epochs; other rows taken as equal but for their epochs"
        return Estimate(seconds, cost["peak_memory_bytes"], basis)
    cost = probe(cell)
    seconds = sum(cost["fixed"] + cost["step"] * (each.config.train.steps or 1000) for each in missing)
    basis = f"a probe of row '{cell.row}', {3 * _PROBE_STEPS} steps; other rows taken as equal"
    return Estimate(seconds, cost["peak_memory_bytes"], basis)
