"""The numbers of a study's plots, taken out of its records and tables; drawing them is `studies/plots.py` and `diagrams.py`."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fusionjax.evaluation.metrics import per_example
from fusionjax.evaluation.statistics import friedman
from fusionjax.reporting.tables import metric_label, task_label
from fusionjax.studies import diagrams, plots
from fusionjax.studies.analysis import Analysis, Table
from fusionjax.studies.facts import graph_rows
from fusionjax.studies.grids import EXAMPLES, slug
from fusionjax.studies.importance import draw_history, draw_importances, read_traces

if TYPE_CHECKING:
    from fusionjax.studies.collect import Collected

MOST_LABELS = 9
"""Labels of a segment in a picture, those with most examples: two lines of panels with the one of all."""
MOST_RANKED = 25
"""Methods in a diagram of ranks."""


@dataclasses.dataclass(frozen=True)
class Picture:
    """A PNG of the study: `plots/NAME.png`."""

    name: str
    section: str
    """`bars`, `differences`, `segments`, `curves`, `cost`, `grid`, `ranks` or `search`."""
    task: str
    alt: str
    caption: str
    segment: str = ""
    """Of section `segments`: as text."""


def write_plots(collected: "Collected", analysis: Analysis, folder: Path) -> list[Picture]:
    """Draws every picture that the study has numbers for into `folder`, and removes those of an earlier state."""
    for old in (
        path
        for kind in ("bars", "segments", "cost", "grid", "ranks", "curves", "search")
        for path in folder.glob(f"{kind}*.png")
    ):
        old.unlink()
    found: list[Picture | None] = []
    for task, (metric, *_) in analysis.tasks().items():
        table = analysis.table(task, metric)
        found.append(_bars(analysis, table, folder))
        found.append(_differences(analysis, table, None, folder))
        found += [_differences(analysis, table, segment, folder) for segment in analysis.segments(task)]
        found.append(_cost(collected, table, folder))
        found.append(_grid(collected, table, folder))
        found.append(_ranks(collected, analysis, task, metric, folder))
    found.append(_curves(collected, analysis, folder))
    found += _search(collected, folder)
    return [picture for picture in found if picture is not None]


def label_of(table: Table) -> str:
    """`NDCG@10, recommendation`."""
    return f"{metric_label(table.metric)}, {task_label(table.task)}"


def _bars(analysis: Analysis, table: Table, folder: Path) -> Picture | None:
    rows = [name for name in table.entries if name not in analysis.baselines]

    def strength(name: str) -> float:
        estimate = table.entries[name].estimate
        return table.gain(estimate.mean) if estimate else -np.inf

    baselines = sorted((name for name in table.entries if name in analysis.baselines), key=lambda name: (-strength(name), name))
    bars = []
    for name in [*rows, *baselines]:
        estimate, comparison = table.entries[name].estimate, table.entries[name].comparison
        kind = "reference" if name == analysis.reference else "baseline" if name in baselines else "row"
        mark = "" if comparison is None or not comparison.significant else "▲" if table.gain(comparison.difference) > 0 else "▼"
        if estimate is None:
            bars.append(plots.Bar(name, None, kind=kind))
        else:
            bars.append(plots.Bar(name, estimate.mean, estimate.low, estimate.high, kind, mark))
    name = f"bars-{slug(table.task)}"
    if not plots.bars(bars, f"{label_of(table)} (test)", folder / f"{name}.png"):
        return None
    return Picture(
        name,
        "bars",
        table.task,
        f"Bars of {label_of(table)} on the test split for each row and baseline, with 95 % intervals.",
        f"Test {label_of(table)}, mean over seeds with its 95 % interval; the reference in green, baselines in grey. "
        "▲ ▼: significantly better or worse than the reference.",
    )


def _differences(analysis: Analysis, table: Table, segment: str | None, folder: Path) -> Picture | None:
    rows = [name for name in table.entries if name != analysis.reference and name not in analysis.baselines]
    tables = {"all": table}
    if segment is not None:
        labels = analysis.segments(table.task)[segment]
        found = {label: analysis.table(table.task, table.metric, (segment, label)) for label in labels}
        kept = sorted(labels, key=lambda label: -found[label].examples)[:MOST_LABELS]
        tables |= {label: found[label] for label in labels if label in kept}
    unit = EXAMPLES.get(table.task, "examples")
    panels = {f"{label}\n{each.examples:,} {unit}": [_difference(each, row) for row in rows] for label, each in tables.items()}
    name = f"segments-{slug(table.task)}-" + ("all" if segment is None else slug(segment))
    axis = f"{metric_label(table.metric)}: difference from {analysis.reference}"
    if segment is not None:
        axis += f", by {task_label(segment)}"
    if not plots.differences(rows, panels, axis, folder / f"{name}.png", table.higher_is_better):
        return None
    by = "" if segment is None else f" by {task_label(segment)}"
    return Picture(
        name,
        "differences" if segment is None else "segments",
        table.task,
        f"Points with intervals: each row's difference from the reference in {label_of(table)}{by}.",
        f"{label_of(table)}{by}: difference from the reference with its 95 % interval. Round and coloured: significant after "
        "correction within its panel; grey diamonds: not significant."
        + ("" if segment is None else " Each panel has its own scale."),
        "" if segment is None else task_label(segment),
    )


def _difference(table: Table, row: str) -> plots.Difference:
    comparison = table.entries[row].comparison if row in table.entries else None
    if comparison is None:
        return plots.Difference(None)
    return plots.Difference(comparison.difference, comparison.low, comparison.high, comparison.significant)


def _curves(collected: "Collected", analysis: Analysis, folder: Path) -> Picture | None:
    panels = {}
    for task, (metric, *_) in analysis.tasks().items():
        key = f"{task}/{metric}"
        curves = []
        for row in collected.rows:
            by_step: dict[int, list[float]] = {}
            for seed in collected.seeds:
                for point in collected.records.get((row, seed), {}).get("curve") or ():
                    if point.get(key) is not None:
                        by_step.setdefault(int(point["step"]), []).append(float(point[key]))
            steps = sorted(by_step)
            if steps:
                ends = [(float(np.mean(by_step[s])), min(by_step[s]), max(by_step[s])) for s in steps]
                mean, low, high = (list(column) for column in zip(*ends, strict=True))
                curves.append(plots.Curve(row, steps, mean, low, high))
        panels[f"{metric_label(metric)}, {task_label(task)}"] = curves
    if not plots.learning_curves(panels, analysis.reference, folder / "curves.png"):
        return None
    return Picture(
        "curves",
        "curves",
        "",
        "Lines of each task's main validation metric over the steps, one line a row.",
        "Main metric on validation by step: mean over seeds, band from lowest to highest; the reference in black.",
    )


def time_of(collected: "Collected") -> tuple[str, str, float]:
    """(key of the record, label of the axis, divisor): core-minutes, which other work on the machine changes little, where all
    ran on processors; else minutes by the clock."""
    records = [collected.records[key] for key in collected.records if key[1] is not None]
    on_cpu = all(str(name).lower().startswith("cpu") for record in records for name in record.get("devices") or ("cpu",))
    if on_cpu and records and all(record.get("cpu_seconds") for record in records):
        return "cpu_seconds", "core-minutes a run", 60.0
    return "seconds", "minutes a run", 60.0


def mean_of(collected: "Collected", row: str, key: str) -> float | None:
    """Mean over the measured seeds of a number of the records."""
    found: list[Any] = [collected.records[row, seed].get(key) for seed in collected.seeds if (row, seed) in collected.records]
    return float(np.mean(found)) if found and all(value is not None for value in found) else None


def _cost(collected: "Collected", table: Table, folder: Path) -> Picture | None:
    key, label, unit = time_of(collected)
    points = []
    for row in collected.rows:
        estimate = table.entries[row].estimate if row in table.entries else None
        if estimate is not None:
            time, memory = mean_of(collected, row, key), mean_of(collected, row, "peak_memory_bytes")
            scaled = (None if time is None else time / unit, None if memory is None else memory / 2**30)
            points.append(plots.Cost(row, estimate.mean, *scaled))
    name = f"cost-{slug(table.task)}"
    if not plots.pareto(points, label_of(table), label, folder / f"{name}.png", table.higher_is_better):
        return None
    together = collected.study.together and len(collected.seeds) > 1 and graph_rows(collected)
    shared = " Seeds trained in one process share its time; its memory is that of all of them." if together else ""
    return Picture(
        name,
        "cost",
        table.task,
        f"Points: {label_of(table)} of each row against its time and its peak memory.",
        f"{label_of(table)} against {label} and peak memory of the process, means over seeds. Green: no other row is "
        f"at least as good for less.{shared}",
    )


def _grid(collected: "Collected", table: Table, folder: Path) -> Picture | None:
    """Only of a study with two axes whose rows are exactly told apart by them, in more than one line and column."""
    axes = list(dict.fromkeys(axis for values in collected.axis_values.values() for axis in values))
    if len(axes) != 2:
        return None
    places = {row: (values.get(axes[0], ""), values.get(axes[1], "")) for row, values in collected.axis_values.items()}
    sizes = [len({place[side] for place in places.values()}) for side in (0, 1)]
    if len(set(places.values())) != len(places) or len(places) != sizes[0] * sizes[1] or min(sizes) < 2:
        return None
    values: dict[tuple[str, str], tuple[float | None, float | None]] = {}
    for row, place in places.items():
        estimate = table.entries[row].estimate if row in table.entries else None
        values[place] = (None, None) if estimate is None else (estimate.mean, estimate.std)
    name = f"grid-{slug(table.task)}"
    if not diagrams.heat_map(values, (axes[0], axes[1]), label_of(table), folder / f"{name}.png"):
        return None
    return Picture(
        name,
        "grid",
        table.task,
        f"Heat map of {label_of(table)} over the two axes of the study; the numbers are in the table.",
        f"{label_of(table)} over the grid: mean and, below it, standard deviation over seeds.",
    )


def _ranks(collected: "Collected", analysis: Analysis, task: str, metric: str, folder: Path) -> Picture | None:
    """Blocks are examples, which are independent of each other as seeds × segments of the same users would not be."""
    columns: dict[str, np.ndarray] = {}
    for row in (*analysis.rows, *analysis.baselines):
        seeds: Sequence[int | None] = (None,) if row in analysis.baselines else collected.seeds
        found = [collected.values[row, seed][task] for seed in seeds if task in collected.values.get((row, seed), {})]
        if found:
            measured = [per_example(collected.examples[task], each, names=[metric])[metric] for each in found]
            columns[row] = np.mean(measured, axis=0)
    if not 2 <= len(columns) <= MOST_RANKED:
        return None
    scores = np.stack(list(columns.values()), axis=1)
    scores = scores[~np.isnan(scores).any(axis=1)]
    if len(scores) < 2:
        return None
    higher = analysis.table(task, metric).higher_is_better
    result = friedman(scores if higher else -scores, analysis.settings["alpha"])
    tied = float((scores == scores[:, :1]).all(axis=1).mean())
    unit, names = EXAMPLES.get(task, "examples"), list(columns)
    drawn = diagrams.critical_difference(
        dict(zip(names, result.mean_ranks.tolist(), strict=True)),
        [[names[place] for place in group] for group in result.groups],
        result.critical_difference,
        f"mean rank by {metric_label(metric)} over {result.blocks:,} {unit}; 1 is best",
        folder / f"ranks-{slug(task)}.png",
    )
    if not drawn:
        return None
    test = "p < 0.001" if result.p < 0.001 else f"p = {result.p:.3f}"
    return Picture(
        f"ranks-{slug(task)}",
        "ranks",
        task,
        f"Critical-difference diagram: mean rank of each row and baseline by {metric_label(metric)}, {task_label(task)}.",
        f"Mean ranks by {metric_label(metric)} (Friedman test: {test}); a bar joins methods that Nemenyi's test at "
        f"{analysis.settings['alpha']:g} does not tell apart. Each of the {unit} is a block and ranks the methods by its mean "
        f"over seeds, equal ones sharing theirs; {100 * tied:.0f} % of the {unit} tie all methods. This speaks of these "
        "trained models: unlike the tables it does not allow for another choice of seeds.",
    )


def _search(collected: "Collected", folder: Path) -> list[Picture]:
    traces, found = read_traces(collected), []
    if draw_importances(collected, traces, folder / "search-importance.png"):
        alt = "Bars: share of the validation metric's variance that each searched key explains, a panel a row."
        caption = (
            "How much of the variance on validation each searched key explains over the space (fANOVA of Hutter, Hoos and "
            "Leyton-Brown, 2014), from the complete trials of each row. With few trials these shares are rough."
        )
        found.append(Picture("search-importance", "search", "", alt, caption))
    if draw_history(traces, folder / "search-history.png"):
        alt = "Lines: the best value on validation by number of trials, one line a row."
        caption = "Best value on validation so far by number of trials; every row has the same budget and the same space."
        found.append(Picture("search-history", "search", "", alt, caption))
    return found
