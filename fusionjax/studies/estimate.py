"""What a study will cost: from cells that are finished, else from a short probe of the reference row."""

import dataclasses
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fusionjax.reporting.report import duration as readable
from fusionjax.studies.folder import Record
from fusionjax.studies.plan import Cell, Plan

__all__ = ["Estimate", "estimate", "from_records", "probe", "readable"]

_PROBE_STEPS = 20


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Of the cells still to do: seconds if one is done after another, bytes of the largest, and what this rests on."""

    seconds: float
    peak_memory_bytes: int
    basis: str


def from_records(missing: Sequence[Cell], records: Sequence[Record]) -> Estimate | None:
    """A cell costs what its row's finished seeds cost (median), and where there is none what all finished cells cost.

    Costs are taken per step, so rows that train longer count for more. `None` if no finished cell has a cost.
    """
    known = [record for record in records if record.get("seconds") and record.get("steps")]
    if not known:
        return None
    by_row: dict[str, list[float]] = {}
    for record in known:
        by_row.setdefault(record["row"], []).append(record["seconds"] / record["steps"])
    typical = statistics.median(rate for rates in by_row.values() for rate in rates)
    steps = statistics.median(record["steps"] for record in known)
    seconds = sum(statistics.median(by_row.get(cell.row, [typical])) * (cell.config.train.steps or steps) for cell in missing)
    peak = max(record.get("peak_memory_bytes", 0) for record in known)
    return Estimate(seconds, peak, f"{len(known)} finished cells")


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
        for place, steps in enumerate((_PROBE_STEPS, 3 * _PROBE_STEPS)):
            longer = config.model_copy(update={"train": train.model_copy(update={"steps": steps, "validate_every": steps})})
            job = Path(scratch) / f"{place}.json"
            folder = Path(scratch) / f"run-{place}"
            described = [{"config": longer.model_dump(mode="json"), "folder": str(folder)}]
            job.write_text(
                json.dumps({"kind": "run", "study": "probe", "row": cell.row, "cells": described, "fingerprint": fingerprint}),
                encoding="utf-8",
            )
            subprocess.run([sys.executable, "-m", "fusionjax.studies.cell", str(job)], check=True, capture_output=True)
            costs.append(json.loads((folder / "cost.json").read_text(encoding="utf-8")))
    first, second = costs
    step = max(second["seconds"] - first["seconds"], 0.0) / (2 * _PROBE_STEPS)
    return {
        "step": step,
        "fixed": max(second["seconds"] - 3 * _PROBE_STEPS * step, 0.0),
        "peak_memory_bytes": second["peak_memory_bytes"],
    }


def estimate(plan: Plan, missing: Sequence[Cell], records: Sequence[Record], may_probe: bool = True) -> Estimate | None:
    """Time and memory of the missing cells; `None` if there is nothing to go by."""
    if not missing:
        return Estimate(0.0, 0, "nothing is missing")
    found = from_records(missing, records)
    if found is not None or not may_probe:
        return found
    cell = plan.cell(plan.study.reference, plan.study.seeds[0])
    cost = probe(cell)
    seconds = sum(cost["fixed"] + cost["step"] * (each.config.train.steps or 1000) for each in missing)
    basis = f"a probe of row '{cell.row}', {3 * _PROBE_STEPS} steps; other rows taken as equal"
    return Estimate(seconds, cost["peak_memory_bytes"], basis)
