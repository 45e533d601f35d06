"""From the stored scores of a study to estimates, intervals and comparisons: everything its tables and plots show.

A **table** is one task × metric, over all examples or over one label of a segment. Each row of the study and each baseline is
an **entry** of it: an estimate (mean over seeds of the mean over examples) and a comparison with the reference, paired by seed
and example (`evaluation.statistics`). A baseline has no seeds: its one set of values stands against each seed of the reference.
All comparisons of one table are one family for the correction of p-values; a table of a segment is a family of its own.
Segments are analysed for the main (first) metric of a task only: more tables are more chances to find something by luck.
"""

import dataclasses
import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fusionjax.errors import UserError, nearest
from fusionjax.evaluation.metrics import higher_is_better, per_example
from fusionjax.evaluation.scores import Examples
from fusionjax.studies.comparisons import (
    POWER,
    Comparison,
    Estimate,
    Key,
    Values,
    compare_all,
    correct,
    defined_mean,
    detectable_difference,
    estimate_all,
)

if TYPE_CHECKING:
    from fusionjax.studies.collect import Collected

RANDOMISATIONS = 10_000
"""Random sign flips at least: p is never below 1 / (1 + this), which a correction multiplies by the number of comparisons."""
_NUMBERS = 1 << 23
"""Numbers (rows × seeds × examples × tables) that are analysed in one go: 64 MiB, several times over."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """`estimate` is None: not measured. `comparison` is None: the reference itself, or one of the two was not measured."""

    estimate: Estimate | None
    comparison: Comparison | None


@dataclasses.dataclass(frozen=True)
class Table:
    task: str
    metric: str
    segment: tuple[str, str] | None
    """(segment, label), or None for all examples."""
    entries: dict[str, Entry]
    """Rows in planned order, then baselines."""
    minimum_detectable: float | None
    """Where no model differs significantly from the reference (simple methods aside): the difference that would be found with
    power `POWER`, whichever row it is in."""
    examples: int
    values: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)
    """Row → seed (as text; "" for a baseline) → mean over examples."""
    higher_is_better: bool = True
    unit: str = ""
    """Of the numbers: `nats`, `EUR`; none: pure numbers."""

    def gain(self, difference: float) -> float:
        """How much better, where a row lies by `difference` above another."""
        return difference if self.higher_is_better else -difference


@dataclasses.dataclass(frozen=True)
class Contrast:
    """`first` minus `second`, two rows the study names; all contrasts of a task × metric are one family."""

    task: str
    metric: str
    first: str
    second: str
    comparison: Comparison | None


@dataclasses.dataclass(frozen=True)
class Analysis:
    reference: str
    rows: tuple[str, ...]
    baselines: tuple[str, ...]
    tables: tuple[Table, ...]
    settings: dict[str, Any]
    """alpha, correction, resamples, randomisations, seed, seeds, power: JSON values."""
    contrasts: tuple[Contrast, ...] = ()

    def table(self, task: str, metric: str, segment: tuple[str, str] | None = None) -> Table:
        """Raises `UserError` if there is no such table."""
        for table in self.tables:
            if (table.task, table.metric, table.segment) == (task, metric, segment):
                return table
        names = [_name(table.task, table.metric, table.segment) for table in self.tables]
        wanted = _name(task, metric, segment)
        raise UserError(f"the study has no table {wanted}{nearest(wanted, names)}")

    def tasks(self) -> dict[str, list[str]]:
        """Task → metrics, the main one first."""
        found: dict[str, list[str]] = {}
        for table in self.tables:
            if table.segment is None:
                found.setdefault(table.task, []).append(table.metric)
        return found

    def segments(self, task: str) -> dict[str, list[str]]:
        """Segment → labels that the task has tables of."""
        found: dict[str, list[str]] = {}
        for table in self.tables:
            if table.task == task and table.segment is not None:
                found.setdefault(table.segment[0], []).append(table.segment[1])
        return found


def _name(task: str, metric: str, segment: tuple[str, str] | None) -> str:
    return " × ".join([task, metric, *(segment or ())])


# ------------------------------------------------------------------------------------------------------------- analysing
def analyse(collected: "Collected") -> Analysis:
    """All tables of a study; the same scores give the same floats.

    Raises:
      UserError: the study asks for a metric that a task does not have.
    """
    study = collected.study
    settings = {
        "alpha": study.statistics.alpha,
        "correction": study.statistics.correction,
        "resamples": study.statistics.resamples,
        "randomisations": max(study.statistics.resamples, RANDOMISATIONS),
        "seed": study.statistics.seed,
        "seeds": list(collected.seeds),
        "power": POWER,
    }
    tables: list[Table] = []
    contrasts: list[Contrast] = []
    for task, metrics in study.tasks.items():
        if task not in collected.examples:
            continue  # nothing has been measured on it yet
        examples = collected.examples[task]
        cells = max(1, sum(task in found for found in collected.values.values()))
        together = max(1, _NUMBERS // (cells * max(1, len(examples))))
        parts = _segments(examples, study.segments)
        values = _measured(collected, task, None, metrics)
        contrasts += _contrasts(collected, task, values, settings)
        while values:
            while parts and len(values) < together:
                values |= _measured(collected, task, parts.pop(0), metrics[:1])
            tables += _tables(collected, task, values, settings)
            values = _measured(collected, task, parts.pop(0), metrics[:1]) if parts else {}
    return Analysis(
        collected.reference, tuple(collected.rows), tuple(collected.baselines), tuple(tables), settings, tuple(contrasts)
    )


def _segments(examples: Examples, names: Iterable[str]) -> list[tuple[str, str]]:
    """The labels that occur, of each asked segment that the task has."""
    found: list[tuple[str, str]] = []
    for name in dict.fromkeys(names):
        segment = examples.segments.get(name)
        if segment is not None:
            found += [(name, label) for code, label in enumerate(segment.labels) if (segment.codes == code).any()]
    return found


def _measured(collected: "Collected", task: str, segment: tuple[str, str] | None, metrics: Sequence[str]) -> dict[Key, Values]:
    """Metrics of every row and baseline that was measured."""
    found: dict[Key, Values] = {(metric, segment): {} for metric in metrics}
    cells = [(row, seed) for row in collected.rows for seed in collected.seeds] + [(row, None) for row in collected.baselines]
    for row, seed in cells:
        own = collected.values.get((row, seed), {}).get(task)
        if own is None:
            continue
        try:
            computed = per_example(collected.examples[task], own, segment, metrics)
        except (UserError, ValueError) as error:
            raise UserError(f"tasks.{task}: {error}") from None
        for metric in metrics:
            found[metric, segment].setdefault(row, {})[seed] = computed[metric]
    return found


def _tables(collected: "Collected", task: str, values: dict[Key, Values], settings: dict[str, Any]) -> list[Table]:
    rows, reference = [*collected.rows, *collected.baselines], collected.reference
    estimates = estimate_all(values, settings)
    compared = compare_all(values, [(row, reference) for row in rows if row != reference], settings)
    tables = []
    for key, measured in values.items():
        pairs = {row: compared[key, row, reference] for row in rows if (key, row, reference) in compared}
        comparisons = correct(pairs, settings)
        models = [row for row in collected.rows if row in pairs] or list(pairs)
        detectable = None
        if models and not any(comparisons[row].significant for row in models):
            detectable = detectable_difference([pairs[row] for row in models], len(pairs), settings)
        arrays = [array for seeds in measured.values() for array in seeds.values()]
        entries = {row: Entry(estimates.get((key, row)), comparisons.get(row)) for row in rows}
        examples = int((~np.isnan(arrays[0])).sum()) if arrays else 0
        measures = collected.examples[task].measures
        unit = next((one.unit for one in measures if one.name == key[0]), "")
        better = higher_is_better(key[0], measures)
        tables.append(Table(task, *key, entries, detectable, examples, _seed_values(measured), better, unit))
    return tables


def _seed_values(measured: Values) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for row, seeds in measured.items():
        means = {"" if seed is None else str(seed): defined_mean(array) for seed, array in seeds.items()}
        found[row] = {seed: mean for seed, mean in means.items() if mean is not None}
    return found


def _contrasts(collected: "Collected", task: str, values: dict[Key, Values], settings: dict[str, Any]) -> list[Contrast]:
    pairs = list(dict.fromkeys((first, second) for first, second in collected.study.contrasts))
    compared = compare_all(values, pairs, settings)
    found = []
    for key in values:
        family = correct({pair: compared[key, *pair] for pair in pairs if (key, *pair) in compared}, settings)
        found += [Contrast(task, key[0], *pair, family.get(pair)) for pair in pairs]
    return found


# ------------------------------------------------------------------------------------------------------------------ JSON
def to_json(analysis: Analysis) -> str:
    """The analysis as text, `from_json` gives an equal one back."""
    data = dataclasses.asdict(analysis)
    for table in data["tables"]:  # those that came later stand only where they say something
        for key, usual in (("higher_is_better", True), ("unit", "")):
            if table[key] == usual:
                del table[key]
    return json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def from_json(text: str) -> Analysis:
    """Raises `UserError` if the text is no analysis."""
    try:
        data = json.loads(text)
        return Analysis(
            reference=data["reference"],
            rows=tuple(data["rows"]),
            baselines=tuple(data["baselines"]),
            tables=tuple(_table_from(table) for table in data["tables"]),
            settings=data["settings"],
            contrasts=tuple(
                Contrast(**{**found, "comparison": _comparison_from(found["comparison"])}) for found in data["contrasts"]
            ),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"not an analysis of a study: {error}") from error


def _table_from(data: dict[str, Any]) -> Table:
    entries = {
        row: Entry(Estimate(**found["estimate"]) if found["estimate"] else None, _comparison_from(found["comparison"]))
        for row, found in data["entries"].items()
    }
    return Table(**{**data, "segment": tuple(data["segment"]) if data["segment"] else None, "entries": entries})


def _comparison_from(data: dict[str, Any] | None) -> Comparison | None:
    return Comparison(**data) if data else None
