"""What the printed tables of a study show, before anything is said about Markdown, LaTeX or a terminal.

For each task: the main table (rows × metrics, baselines in a block above), a table of differences from the reference for each
metric, the contrasts the study names, and for each segment one table of values and one of differences.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence

from fusionjax.reporting.tables import MISSING, has_direction, metric_label, task_label
from fusionjax.studies.analysis import Analysis, Comparison, Entry, Table

MARK = "†"
EXAMPLES = {"recommendation": "users", "search": "queries", "link_prediction": "triples", "triple_classification": "triples"}
CORRECTIONS = {"holm": "Holm", "benjamini_hochberg": "Benjamini-Hochberg"}
MOST_LABELS = 6
"""Labels of a segment in a printed table; those with most examples. The CSV has all."""
_DIGITS = 4


@dataclasses.dataclass(frozen=True)
class Cell:
    """`text ± spread`, with a mark if significant. `place`: 1 best and 2 second best of its column, 0 neither."""

    text: str
    spread: str = ""
    marked: bool = False
    place: int = 0


@dataclasses.dataclass(frozen=True)
class Block:
    """Rows between two rules."""

    title: str
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]


@dataclasses.dataclass(frozen=True)
class Grid:
    """One printed table.

    `name` is unique within the study and fit for a file. `columns` are the headings of the cells, without that of the names.
    """

    name: str
    caption: str
    columns: tuple[str, ...]
    blocks: tuple[Block, ...]
    notes: tuple[str, ...]


# --------------------------------------------------------------------------------------------------------------- numbers
def number(value: float | None) -> str:
    """A metric: `0.0523`."""
    return MISSING if value is None else f"{value:z.{_DIGITS}f}"


def signed(value: float | None) -> str:
    """A difference: `+0.0123`."""
    return MISSING if value is None else f"{value:+z.{_DIGITS}f}"


def p_value(p: float) -> str:
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def interval(comparison: Comparison) -> str:
    return f"[{signed(comparison.low)}, {signed(comparison.high)}]"


def slug(name: str) -> str:
    """A name as part of a file name or a LaTeX label: ASCII letters, digits and hyphens."""
    return re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-").lower() or "x"


# ----------------------------------------------------------------------------------------------------------------- grids
def grids(analysis: Analysis) -> list[Grid]:
    """Every table of the study: task by task the main table, the differences, the contrasts, the segments."""
    found: list[Grid] = []
    for task, metrics in analysis.tasks().items():
        found.append(results_grid(analysis, task))
        found += [differences_grid(analysis, task, metric) for metric in metrics]
        if any(contrast.task == task for contrast in analysis.contrasts):
            found.append(contrasts_grid(analysis, task))
        for segment in analysis.segments(task):
            found += [segment_grid(analysis, task, segment), segment_differences_grid(analysis, task, segment)]
    names: set[str] = set()
    for place, grid in enumerate(found):
        name, copy = grid.name, 2
        while name in names:
            name, copy = f"{grid.name}-{copy}", copy + 1
        names.add(name)
        found[place] = dataclasses.replace(grid, name=name)
    return found


def results_grid(analysis: Analysis, task: str) -> Grid:
    """Rows × metrics: mean ± standard deviation over seeds."""
    tables = [analysis.table(task, metric) for metric in analysis.tasks()[task]]
    return Grid(
        slug(task),
        f"{task_label(task).capitalize()}: test results",
        tuple(_heading(table) for table in tables),
        _blocks(analysis, tables, _value_cells),
        (
            _counted(analysis, tables),
            *_mark_notes(analysis, tables),
            *_best_notes(tables),
            *_nothing_notes(analysis, tables),
        ),
    )


def differences_grid(analysis: Analysis, task: str, metric: str) -> Grid:
    """Each row minus the reference: difference, 95 % interval, corrected p, effect size."""
    table = analysis.table(task, metric)
    blocks = []
    for title, names in _parts(analysis):
        rows = tuple((_row_name(analysis, name, [table]), _comparison_cells(table.entries[name].comparison)) for name in names)
        rows = tuple(row for row, name in zip(rows, names, strict=True) if name != analysis.reference)
        if rows:
            blocks.append(Block(title, rows))
    return Grid(
        f"{slug(task)}-{slug(metric)}-differences",
        f"{_title(task, metric)}: difference from {analysis.reference}",
        ("Difference", "95 % interval", "p (corrected)", "Effect size"),
        tuple(blocks),
        (_paired(analysis, task, [metric]), *_mark_notes(analysis, [table]), *_nothing_notes(analysis, [table])),
    )


def contrasts_grid(analysis: Analysis, task: str) -> Grid:
    """The pairs of rows that the study names, one block a metric."""
    blocks = []
    for metric in analysis.tasks()[task]:
        chosen = [contrast for contrast in analysis.contrasts if (contrast.task, contrast.metric) == (task, metric)]
        rows = tuple((f"{found.first} vs. {found.second}", _comparison_cells(found.comparison)) for found in chosen)
        if rows:
            blocks.append(Block(metric_label(metric), rows))
    marked = any(cell.marked for block in blocks for _, cells in block.rows for cell in cells)
    method, alpha = CORRECTIONS[analysis.settings["correction"]], analysis.settings["alpha"]
    pairs = len({(found.first, found.second) for found in analysis.contrasts})
    notes = (
        [f"{MARK} p < {alpha:g} after {method} correction over {pairs} contrast{'s' if pairs > 1 else ''}."] if marked else []
    )
    return Grid(
        f"{slug(task)}-contrasts",
        f"{task_label(task).capitalize()}: contrasts between rows",
        ("Difference", "95 % interval", "p (corrected)", "Effect size"),
        tuple(blocks),
        (_paired(analysis, task, analysis.tasks()[task]), *notes),
    )


def segment_grid(analysis: Analysis, task: str, segment: str) -> Grid:
    """Rows × labels of a segment, the task's main metric."""
    tables, left_out = _labels(analysis, task, segment)
    return Grid(
        f"{slug(task)}-by-{slug(segment)}",
        f"{_title(task, tables[0].metric)} by {task_label(segment)}",
        tuple(_label_heading(table) for table in tables),
        _blocks(analysis, tables, _value_cells),
        (
            _counted(analysis, tables),
            *_mark_notes(analysis, tables),
            *_best_notes(tables),
            *_nothing_notes(analysis, tables),
            *left_out,
        ),
    )


def segment_differences_grid(analysis: Analysis, task: str, segment: str) -> Grid:
    """Rows × labels of a segment: difference from the reference with its interval."""
    tables, left_out = _labels(analysis, task, segment)
    blocks = []
    for title, names in _parts(analysis):
        others = [name for name in names if name != analysis.reference]
        rows = tuple(
            (_row_name(analysis, name, tables), tuple(_difference_cell(table.entries[name]) for table in tables))
            for name in others
        )
        if rows:
            blocks.append(Block(title, rows))
    return Grid(
        f"{slug(task)}-by-{slug(segment)}-differences",
        f"{_title(task, tables[0].metric)} by {task_label(segment)}: difference from {analysis.reference}",
        tuple(_label_heading(table) for table in tables),
        tuple(blocks),
        (
            _paired(analysis, task, [tables[0].metric]),
            *_mark_notes(analysis, tables),
            *_nothing_notes(analysis, tables),
            *left_out,
        ),
    )


def data_sets_grid(analyses: Mapping[str, Analysis], task: str, metric: str, ranks: Mapping[str, float], note: str) -> Grid:
    """Rows × data sets, and the mean rank of each row over them; what is significant is so within its column."""
    tables = [analysis.table(task, metric) for analysis in analyses.values()]
    first = next(iter(analyses.values()))
    simple = dict.fromkeys(name for analysis in analyses.values() for name in analysis.baselines)
    every = dataclasses.replace(first, baselines=tuple(simple))
    shown = [
        dataclasses.replace(table, entries={name: Entry(None, None) for name in (*simple, *first.rows)} | table.entries)
        for table in tables
    ]
    best = min(ranks.values(), default=0.0)
    last = {name: Cell(f"{rank:.2f}", place=int(rank == best)) for name, rank in ranks.items()}
    blocks = [
        Block(
            block.title,
            tuple(
                (label, (*cells, last.get(name, Cell(MISSING)))) for name, (label, cells) in zip(names, block.rows, strict=True)
            ),
        )
        for block, (_, names) in zip(_blocks(every, shown, _value_cells), _parts(every), strict=True)
    ]
    seeds = len(first.settings["seeds"])
    return Grid(
        f"{slug(task)}-{slug(metric)}",
        f"{_title(task, metric)}: every data set",
        (*(f"{name} (n = {table.examples:,})" for name, table in zip(analyses, tables, strict=True)), "Mean rank"),
        tuple(blocks),
        (
            f"Mean ± standard deviation over {seeds} seeds; n: {EXAMPLES.get(task, 'examples')}.",
            *_mark_notes(every, tables),
            *_best_notes(tables),
            note,
        ),
    )


# ----------------------------------------------------------------------------------------------------------------- parts
def _title(task: str, metric: str) -> str:
    return f"{task_label(task).capitalize()}, {metric_label(metric)}"


def _parts(analysis: Analysis) -> list[tuple[str, tuple[str, ...]]]:
    """Blocks of a table: what is simple stands first."""
    return [(title, names) for title, names in (("Baselines", analysis.baselines), ("Models", analysis.rows)) if names]


def _blocks(analysis: Analysis, tables: Sequence[Table], cells: Callable[[Table], dict[str, Cell]]) -> tuple[Block, ...]:
    columns = [cells(table) for table in tables]
    return tuple(
        Block(title, tuple((_row_name(analysis, name, tables), tuple(column[name] for column in columns)) for name in names))
        for title, names in _parts(analysis)
    )


def _row_name(analysis: Analysis, name: str, tables: Sequence[Table]) -> str:
    """With a remark where the row is the reference, or some of its seeds are missing."""
    estimates = [estimate for table in tables if (estimate := table.entries[name].estimate) is not None]
    asked = len(analysis.settings["seeds"])
    remarks = ["reference"] if name == analysis.reference else []
    if name in analysis.rows and estimates and estimates[0].seeds < asked:
        remarks.append(f"{estimates[0].seeds} of {asked} seeds")
    return f"{name} ({', '.join(remarks)})" if remarks else name


def _value_cells(table: Table) -> dict[str, Cell]:
    """Mean ± std of every entry; best and second best by what is printed."""
    printed = {name: number(entry.estimate.mean) for name, entry in table.entries.items() if entry.estimate is not None}
    ranked = sorted(set(printed.values()), key=float, reverse=table.higher_is_better)
    if not has_direction(table.metric) or len(ranked) < 2:
        ranked = []
    best = dict(zip(ranked, (1, 2) if len(ranked) > 2 else (1,), strict=False))
    cells = {}
    for name, entry in table.entries.items():
        estimate, comparison = entry.estimate, entry.comparison
        spread = number(estimate.std) if estimate is not None and estimate.std is not None else ""
        marked = comparison is not None and comparison.significant
        text = printed.get(name, MISSING)
        cells[name] = Cell(text, spread, marked, best.get(text, 0))
    return cells


def _comparison_cells(comparison: Comparison | None) -> tuple[Cell, ...]:
    if comparison is None:
        return (Cell(MISSING),) * 4
    return (
        Cell(signed(comparison.difference), marked=comparison.significant),
        Cell(interval(comparison)),
        Cell(p_value(comparison.p_adjusted)),
        Cell(MISSING if comparison.effect_size is None else f"{comparison.effect_size:+z.2f}"),
    )


def _difference_cell(entry: Entry) -> Cell:
    comparison = entry.comparison
    if comparison is None:
        return Cell(MISSING)
    return Cell(f"{signed(comparison.difference)} {interval(comparison)}", marked=comparison.significant)


def _labels(analysis: Analysis, task: str, segment: str) -> tuple[list[Table], list[str]]:
    """(tables of the labels to print, a note on those left out)."""
    metric = analysis.tasks()[task][0]
    tables = [analysis.table(task, metric, (segment, label)) for label in analysis.segments(task)[segment]]
    if len(tables) <= MOST_LABELS:
        return tables, []
    largest = sorted(range(len(tables)), key=lambda place: -tables[place].examples)[:MOST_LABELS]
    note = f"The {MOST_LABELS} largest of {len(tables)} groups; results.csv has all."
    return [table for place, table in enumerate(tables) if place in largest], [note]


def _label_heading(table: Table) -> str:
    return f"{table.segment[1] if table.segment else 'all'} (n = {table.examples:,})"


# ----------------------------------------------------------------------------------------------------------------- notes
def _counted(analysis: Analysis, tables: Sequence[Table]) -> str:
    seeds = len(analysis.settings["seeds"])
    what = EXAMPLES.get(tables[0].task, "examples")
    spread = f"Mean ± standard deviation over {seeds} seeds" if seeds > 1 else "One seed, so no spread is known"
    if tables[0].segment is None:
        return f"{spread}; {max(table.examples for table in tables):,} {what}."
    return f"{spread}; n: {what}."


def _heading(table: Table) -> str:
    return metric_label(table.metric) + (f" ({table.unit})" if table.unit else "")


def _paired(analysis: Analysis, task: str, metrics: Sequence[str]) -> str:
    seeds = len(analysis.settings["seeds"])
    over = f"examples and {seeds} seeds" if seeds > 1 else "examples; one seed, so they hold for that seed alone"
    lower = [metric for metric in metrics if not analysis.table(task, metric).higher_is_better]
    better = "Positive: better"
    if lower:
        labels = ", ".join(map(metric_label, lower))
        better = "Negative: better" if len(lower) == len(metrics) else f"Positive: better (of {labels}: worse)"
    return f"{better}. Intervals (95 %) and two-sided p-values, paired, over {over}."


def _mark_notes(analysis: Analysis, tables: Sequence[Table]) -> list[str]:
    """What the mark means, if there is one."""
    families = [[found for entry in table.entries.values() if (found := entry.comparison) is not None] for table in tables]
    if not any(found.significant for family in families for found in family):
        return []
    sizes = sorted({len(family) for family in families if family})
    count = f"{sizes[0]}" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
    method, alpha = CORRECTIONS[analysis.settings["correction"]], analysis.settings["alpha"]
    over = f"{count} comparison{'s' if sizes[-1] > 1 else ''}" + (" of each column" if len(tables) > 1 else "")
    alone = "" if any(found.seeds > 1 for family in families for found in family) else " (for this seed alone)"
    return [f"{MARK} differs from {analysis.reference}{alone}: p < {alpha:g} after {method} correction over {over}."]


def _best_notes(tables: Sequence[Table]) -> list[str]:
    places = {cell.place for table in tables for cell in _value_cells(table).values()}
    return ["Bold: best of a column" + ("; underlined: second best." if 2 in places else ".")] if 1 in places else []


def _nothing_notes(analysis: Analysis, tables: Sequence[Table]) -> list[str]:
    """For each table in which no model differs from the reference: what the study could have found."""
    notes = []
    power = analysis.settings["power"]
    for table in tables:
        found = {row: entry.comparison for row, entry in table.entries.items() if entry.comparison is not None}
        models = [comparison for row, comparison in found.items() if row in analysis.rows]
        if not found or any(comparison.significant for comparison in models or found.values()):
            continue
        name = table.segment[1] if table.segment else metric_label(table.metric)
        among = " between models" if any(comparison.significant for comparison in found.values()) else ""
        least = table.minimum_detectable
        design = f"; this design detects differences of at least {number(least)} with {100 * power:g} % power" if least else ""
        notes.append((f"{name}: " if len(tables) > 1 else "") + f"no difference{among} is significant{design}.")
    return notes
