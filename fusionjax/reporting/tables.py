"""Terminal tables: the results of a run beside its baselines, and what a shop holds.

`results` is what results.json holds: `{"valid": {TASK: {METRIC: number}}, "test": {TASK: {METRIC: number}}, "baselines":
{TASK: {NAME: {METRIC: number}}}}`; every level may be missing, and the baselines belong to the test split.
"""

import math
import numbers
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fusionjax.data.clean import Effect, render_effects

if TYPE_CHECKING:
    from fusionjax.data.prepare import Description

THIS_RUN = "this run"
MISSING = "—"
SEGMENTS = ("head", "middle", "tail", "cold")
METRICS: dict[str, tuple[str, ...]] = {
    "link_prediction": ("mrr", "hits@1", "hits@3", "hits@10"),
    "triple_classification": ("accuracy", "f1", "precision", "recall"),
    "search": ("ndcg@10", "ndcg_exp@10", "mrr", "recall@100"),
    "recommendation": (
        *("recall@10", "ndcg@10", "recall@20", "ndcg@20", "coverage@10"),
        *(f"recall@10/{segment}" for segment in SEGMENTS),
    ),
}
"""The columns of each task's table. A task that is not named here is shown with all its metrics."""
MAIN_METRIC = {
    "link_prediction": "mrr",
    "triple_classification": "accuracy",
    "search": "ndcg@10",
    "recommendation": "ndcg@10",
}
"""The one number of a task, where there is room for only one."""
SEGMENT_NOTE = (
    "Head and middle: the most popular products, with the first and second third of all training events; "
    "tail: the other third; cold: products without training events."
)
COVERAGE_NOTE = "Coverage is no merit by itself, so no best is marked."
_DIGITS = 4
_MOST_RELATIONS = 15

Row = tuple[str, Mapping[str, float]]


# -------------------------------------------------------------------------------------------------------------- results
def tasks_in(results: Mapping[str, Any], split: str = "test") -> list[str]:
    """Tasks with a number of the run or, in the test split, of a baseline: known ones first, in the order of `METRICS`."""
    found = [task for task in results.get(split) or {} if results[split][task]]
    if split == "test":
        found += [task for task, rows in (results.get("baselines") or {}).items() if any(rows.values()) and task not in found]
    return [task for task in METRICS if task in found] + sorted(task for task in found if task not in METRICS)


def rows_of(results: Mapping[str, Any], task: str, split: str = "test") -> list[Row]:
    """`(name, metrics)` of the joint model, always first, and of each baseline, best first by the task's main metric."""
    baselines = (results.get("baselines") or {}).get(task) or {} if split == "test" else {}
    main = main_metric(results, task, split)
    ordered = sorted(baselines.items(), key=lambda row: (-(value_of(row[1], main) or 0.0), row[0]))
    return [(THIS_RUN, ((results.get(split) or {}).get(task)) or {}), *ordered]


def metrics_of(results: Mapping[str, Any], task: str, split: str = "test") -> list[str]:
    """The metrics to show of a task: `METRICS`, or all that the run or a baseline has a number for."""
    if task in (results.get("metrics") or {}):
        return list(results["metrics"][task])
    if task in METRICS:
        return list(METRICS[task])
    rows = [((results.get(split) or {}).get(task)) or {}]
    rows += list(((results.get("baselines") or {}).get(task) or {}).values()) if split == "test" else []
    names = dict.fromkeys(name for row in rows for name in row)
    return [name for name in names if any(value_of(row, name) is not None for row in rows)]


def main_metric(results: Mapping[str, Any], task: str, split: str = "test") -> str:
    """`MAIN_METRIC`, or the first metric of a task that has none."""
    return MAIN_METRIC.get(task) or next(iter(metrics_of(results, task, split)), "")


def value_of(metrics: Mapping[str, Any], name: str) -> float | None:
    """The number, or `None` where it is missing, NaN or infinite."""
    value = metrics.get(name)
    return float(value) if isinstance(value, numbers.Real) and math.isfinite(value) else None


def number(value: float | None) -> str:
    return MISSING if value is None else f"{value:.{_DIGITS}f}"


def task_label(task: str) -> str:
    return task.replace("_", " ")


def metric_label(metric: str) -> str:
    """As papers write it: `ndcg@10` → `NDCG@10`, `recall@10/head` → `Recall@10 (head)`."""
    base, _, segment = metric.partition("/")
    name, at, k = base.partition("@")
    known = {"ndcg_exp": "NDCG-exp", "mr": "Mean rank"}
    known |= {short: short.upper() for short in ("mrr", "ndcg", "map", "amri", "f1")}
    return known.get(name, name.replace("_", " ").capitalize()) + at + k + (f" ({segment})" if segment else "")


def has_direction(metric: str) -> bool:
    """Whether more is better. Coverage is a property, not a merit: random recommendations cover everything."""
    return not metric.startswith("coverage")


def best_rows(rows: Iterable[Row], metric: str) -> set[str]:
    """Names of the rows with the highest value as printed; none if there is nothing to compare or all are equal."""
    values = {name: round(value, _DIGITS) for name, metrics in rows if (value := value_of(metrics, metric)) is not None}
    if not has_direction(metric) or len(set(values.values())) < 2:
        return set()
    return {name for name, value in values.items() if value == max(values.values())}


def results_table(results: Mapping[str, Any], *, split: str = "test", width: int = 80) -> Table:
    """One table a task, below each other: the joint model, then the baselines; the best of each column in bold.

    Args:
      results: see the module.
      split: `test` (with baselines) or `valid`.
      width: of the terminal in characters. A task with more columns than fit is folded: the segments of recommendation move to
        a second table, and if that is not enough, columns follow in further ones.
    """
    page = Table.grid()
    page.add_column()
    for task in tasks_in(results, split):
        rows = rows_of(results, task, split)
        for place, columns in enumerate(_fold(rows, metrics_of(results, task, split), width)):
            table = _columns(rows, columns)
            table.title = Text(f"{task} · {split}" + (" (continued)" if place else ""), style="bold")
            if page.row_count:
                page.add_row("")
            page.add_row(table)
    return page


def _columns(rows: list[Row], metrics: list[str]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title_justify="left", show_edge=False, pad_edge=False)
    table.add_column("", no_wrap=False)
    best = {metric: best_rows(rows, metric) for metric in metrics}
    for metric in metrics:
        base, _, segment = metric.partition("/")
        table.add_column(Text(f"{base}\n{segment}" if segment else base), justify="right", no_wrap=True)
    for name, values in rows:
        cells = [Text(number(value_of(values, metric)), style="bold" if name in best[metric] else "") for metric in metrics]
        table.add_row(Text(name), *cells)
    return table


def _fold(rows: list[Row], metrics: list[str], width: int) -> list[list[str]]:
    """Groups of columns that each fit in `width`."""
    ruler = Console(width=1000, file=None)

    def fits(columns: list[str]) -> bool:
        return ruler.measure(_columns(rows, columns)).maximum <= width

    if fits(metrics):
        return [metrics]
    groups: list[list[str]] = []
    for part in ([name for name in metrics if "/" not in name], [name for name in metrics if "/" in name]):
        current: list[str] = []
        for name in part:
            if current and not fits([*current, name]):
                groups.append(current)
                current = []
            current.append(name)
        if current:
            groups.append(current)
    return groups


def print_results(results: Mapping[str, Any], console: Console | None = None) -> None:
    """Prints `results_table` of the test split, or of validation where nothing was tested, as wide as the terminal."""
    console = console or Console(highlight=False)
    split = next((split for split in ("test", "valid") if tasks_in(results, split)), None)
    if split is None:
        console.print("no results")
        return
    console.print(results_table(results, split=split, width=console.width))
    shown = [metric for task in tasks_in(results, split) for metric in metrics_of(results, task, split)]
    if any("/" in metric for metric in shown):
        console.print(f"\n{SEGMENT_NOTE} {COVERAGE_NOTE}")
    for note in interval_notes(results):
        console.print(f"\n{note}")


def interval_notes(results: Mapping[str, Any]) -> list[str]:
    """A sentence for each task that was measured on a sample of its test examples: where the numbers of all of them lie."""
    notes = []
    for task, found in results.get("intervals", {}).items():
        shown = [f"{metric_label(name)} {number(one['low'])} to {number(one['high'])}" for name, one in found.items()]
        notes.append(
            f"{task_label(task).capitalize()} was measured on a sample of the test examples (evaluation.max_test); all of them "
            f"would give, with 95 % confidence, {', '.join(shown)}."
        )
    return notes


def print_seeds(results: Mapping[str, Any], console: Console | None = None, split: str = "test") -> None:
    """Prints each seed's own numbers, a table a task, and below them mean ± standard deviation (see `fusionjax.seeds`)."""
    console = console or Console(highlight=False)
    for task in tasks_in(results, split):
        metrics = metrics_of(results, task, split)
        table = Table(box=box.SIMPLE_HEAD, title_justify="left", show_edge=False, pad_edge=False)
        table.title = Text(f"{task} · {split}, by seed", style="bold")
        table.add_column("seed", no_wrap=True)
        for name in metrics:
            table.add_column(Text(name), justify="right", no_wrap=True)
        for seed, own in results["seeds"].items():
            table.add_row(seed, *(number(value_of(own[split].get(task, {}), name)) for name in metrics))
        mean, spread = results[split][task], results.get("spread", {}).get(split, {}).get(task, {})
        table.add_row("mean ± sd", *(f"{number(value_of(mean, name))} ± {number(value_of(spread, name))}" for name in metrics))
        console.print("")
        console.print(table)


def print_settings(results: Mapping[str, Any], console: Console | None = None) -> None:
    """Prints the settings a run chose from, best on validation first (see `fusionjax.settings`)."""
    table = Table(box=box.SIMPLE_HEAD, title_justify="left", show_edge=False, pad_edge=False)
    table.title = Text("settings, by validation", style="bold")
    for name in ("setting", "validation MRR"):
        table.add_column(name, justify="left" if name == "setting" else "right")
    ordered = sorted(results["settings"], key=lambda row: -(row["validation_mrr"] or 0.0))
    for row in ordered:
        shown = ", ".join(f"{key} {value:g}" for key, value in row["setting"].items())
        table.add_row(Text(shown, style="bold" if row["chosen"] else ""), number(row["validation_mrr"]))
    (console or Console(highlight=False)).print("", table, sep="\n")


# ----------------------------------------------------------------------------------------------------------- description
def print_effects(effects: list[Effect], console: Console | None = None) -> None:
    """Prints what cleaning did, a line a step."""
    (console or Console(highlight=False)).print(Text(render_effects(effects)))


def print_description(description: "Description", console: Console | None = None) -> None:
    """Prints what a shop holds (`fusionjax data describe`)."""
    console = console or Console(highlight=False)
    console.print(Text(description.name, style="bold"), Text(description.summary))
    console.print(Text(f"fingerprint {description.fingerprint}", style="dim"))
    _heading(console, "rows")
    split_names = list(dict.fromkeys(name for counts in description.splits.values() for name in counts))
    counts = [
        (part, count, *(description.splits.get(part, {}).get(name) for name in split_names))
        for part, count in description.counts.items()
    ]
    console.print(_counts(("part", "all", *split_names), counts))
    if description.relations:
        names = list(dict.fromkeys(name for row in description.relations.values() for name in row))
        ordered = sorted(description.relations.items(), key=lambda row: (-sum(row[1].values()), row[0]))
        rest = ordered[_MOST_RELATIONS:]
        shown = [(name, *(row.get(split) for split in names)) for name, row in ordered[:_MOST_RELATIONS]]
        if rest:
            shown.append((f"… {len(rest)} more", *(sum(row.get(split, 0) for _, row in rest) for split in names)))
        _heading(console, "relations")
        console.print(_counts(("relation", *names), shown))
    if description.popularity:
        _heading(console, "popularity")
        for name, share in description.popularity.items():
            what = (
                "products without any event"
                if name == "untouched"
                else f"events on the {name.removeprefix('top_')} most popular"
            )
            console.print(Text(f"  {share:7.1%}  {what}"))
    for title, values in (
        ("events of a user", {name: f"{value:,.4g}" for name, value in description.events_per_user.items()}),
        ("events by kind", {name: f"{value:,}" for name, value in description.kinds.items()}),
        ("graph", {name: f"{value:,}" for name, value in description.graph.items()}),
        ("titles by language", {name: f"{value:,}" for name, value in description.languages.items()}),
    ):
        if values:
            _heading(console, title)
            console.print(Text("  " + " · ".join(f"{name} {value}" for name, value in values.items())))
    if description.cleaning:
        _heading(console, "cleaning")
        print_effects(description.cleaning, console)
    for part, rows in description.samples.items():
        _heading(console, f"samples of {part}")
        for row in rows:
            cells = Text("  ")
            for name, cell in row.items():
                if cell:
                    cells.append(f"{name} ", style="dim")
                    cells.append(f"{cell}   ")
            console.print(cells, overflow="ellipsis", no_wrap=True)


def _heading(console: Console, title: str) -> None:
    console.print()
    console.print(Text(title, style="bold"))


def _counts(header: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    for place, name in enumerate(header):
        table.add_column(Text(name), justify="right" if place else "left", overflow="fold")
    for name, *values in rows:
        table.add_row(Text(str(name)), *(Text(MISSING if value is None else f"{value:,}") for value in values))
    return table
