"""The tables of a study as Markdown, in the terminal, and as files: LaTeX (`latex.py`) and tidy CSV.

`results.csv` has a line for every entry of every table, `seeds.csv` one for every seed; both hold all digits that are stable
between machines. The same analysis gives the same bytes.
"""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from fusionjax.errors import UserError
from fusionjax.files import write_whole
from fusionjax.studies import latex
from fusionjax.studies.analysis import Analysis
from fusionjax.studies.grids import CORRECTIONS, EXAMPLES, MARK, Block, Cell, Grid, grids, number, p_value, signed, slug
from fusionjax.studies.markdown import escape
from fusionjax.studies.published import published_grids

if TYPE_CHECKING:
    from fusionjax.studies.collect import Collected

__all__ = [
    "CORRECTIONS",
    "EXAMPLES",
    "MARK",
    "Block",
    "Cell",
    "Grid",
    "grids",
    "markdown",
    "number",
    "p_value",
    "print_tables",
    "signed",
    "slug",
    "terminal",
    "write_tables",
]

COLUMNS = (
    *("task", "metric", "segment", "label", "row", "seeds", "mean", "std", "low", "high"),
    *("difference", "diff_low", "diff_high", "p", "p_adjusted", "effect_size"),
)
_ESTIMATE = ("seeds", "mean", "std", "low", "high")
_COMPARISON = ("difference", "low", "high", "p", "p_adjusted", "effect_size")
SEED_COLUMNS = ("task", "metric", "segment", "label", "row", "seed", "value")


# -------------------------------------------------------------------------------------------------------------- Markdown
def markdown(grid: Grid) -> str:
    """The grid as a table of GitHub's Markdown with its notes below; the caption is left to the page."""
    lines = [_line(["", *(escape(column) for column in grid.columns)]), _line(["---", *("---:" for _ in grid.columns)])]
    for block in grid.blocks:
        if len(grid.blocks) > 1:
            lines.append(_line([f"*{escape(block.title)}*", *("" for _ in grid.columns)]))
        lines += [_line([escape(name), *map(_markdown_cell, cells)]) for name, cells in block.rows]
    notes = "\\\n".join(escape(note) for note in grid.notes)  # a backslash ends a line of a paragraph
    return "\n".join([*lines, "", notes]).rstrip() + "\n"


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _markdown_cell(cell: Cell) -> str:
    text = escape(cell.text)
    text = {0: text, 1: f"**{text}**", 2: f"<u>{text}</u>"}[cell.place]
    return text + (f" ± {cell.spread}" if cell.spread else "") + (f" {MARK}" if cell.marked else "")


# -------------------------------------------------------------------------------------------------------------- terminal
def terminal(grid: Grid) -> RenderableType:
    """The grid for a rich console."""
    table = RichTable(box=box.SIMPLE_HEAD, title=Text(grid.caption, style="bold"), title_justify="left", show_edge=False)
    table.add_column("", overflow="fold")
    for column in grid.columns:
        table.add_column(Text(column), justify="right")
    for block in grid.blocks:
        for name, cells in block.rows:
            table.add_row(Text(name), *map(_terminal_cell, cells))
        table.add_section()
    return Group(table, *(Text(note, style="dim") for note in grid.notes))


def _terminal_cell(cell: Cell) -> Text:
    text = Text(cell.text, style={0: "", 1: "bold", 2: "underline"}[cell.place])
    text.append(f" ± {cell.spread}" if cell.spread else "", style="not bold not underline")
    return text.append(MARK if cell.marked else " ", style="not bold not underline")


def print_tables(analysis: Analysis, console: Console | None = None, *, every: bool = False) -> None:
    """Prints the main table of each task, or all tables."""
    console = console or Console(highlight=False)
    tasks = {slug(task) for task in analysis.tasks()}
    for grid in grids(analysis):
        if every or grid.name in tasks:
            console.print(terminal(grid))
            console.print()


# ------------------------------------------------------------------------------------------------------------------- CSV
def results_csv(analysis: Analysis) -> str:
    """A line for every row of every table; empty: not measured, not compared, or all examples (segment and label)."""
    lines = []
    for table in analysis.tables:
        for row, entry in table.entries.items():
            estimate, comparison = entry.estimate, entry.comparison
            values = [getattr(estimate, name) for name in _ESTIMATE] if estimate else [0, *[None] * 4]
            against = [getattr(comparison, name, None) for name in _COMPARISON]
            lines.append((table.task, table.metric, *(table.segment or ("", "")), row, *values, *against))
    return _csv(COLUMNS, lines)


def seeds_csv(analysis: Analysis) -> str:
    """A line for every row and seed of every table; a baseline has no seed."""
    lines = [
        (table.task, table.metric, *(table.segment or ("", "")), row, seed, value)
        for table in analysis.tables
        for row, seeds in table.values.items()
        for seed, value in seeds.items()
    ]
    return _csv(SEED_COLUMNS, lines)


def _csv(columns: Sequence[str], lines: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(["" if value is None else value for value in line] for line in lines)
    return text.getvalue()


# ----------------------------------------------------------------------------------------------------------------- files
def write_tables(collected: "Collected", analysis: Analysis, folder: Path) -> list[Path]:
    """Writes `tables/` in the study's folder: results.csv, seeds.csv, one .tex a table and all.tex, which holds them all.

    Args:
      collected: what the analysis was made of.
      folder: of the study.

    Returns:
      The files written. LaTeX tables of an earlier state that are no longer made are removed.

    Raises:
      UserError: the folder cannot be written to.
    """
    if tuple(collected.rows) != analysis.rows:
        raise ValueError(f"the analysis has the rows {analysis.rows}, the study {tuple(collected.rows)}")
    shown = [*grids(analysis), *published_grids(collected.study.published, analysis)]
    texts = {"results.csv": results_csv(analysis), "seeds.csv": seeds_csv(analysis)}
    texts |= {f"{grid.name}.tex": latex.table(grid) for grid in shown}
    texts["all.tex"] = latex.document([grid.name for grid in shown], collected.study.question)
    home = folder / "tables"
    try:
        home.mkdir(parents=True, exist_ok=True)
        for old in sorted(home.glob("*.tex")):
            if old.name not in texts and old.read_text(encoding="utf-8", errors="replace").startswith(latex.WRITTEN):
                old.unlink()
        for name, text in texts.items():
            write_whole(home / name, text)
    except OSError as error:
        raise UserError(f"{home}: cannot write there: {error.strerror}") from error
    return [home / name for name in texts]
