"""What others have published beside what a study measured: the same method, data, split and protocol, by the study's word."""

from collections.abc import Mapping, Sequence

from fusionjax.config.study import Published
from fusionjax.reporting.tables import MISSING, metric_label, task_label
from fusionjax.studies.analysis import Analysis
from fusionjax.studies.grids import Block, Cell, Grid, number, signed, slug


def published_grids(published: Mapping[str, Sequence[Published]], analysis: Analysis) -> list[Grid]:
    """For each task with published numbers a table: for each row and source, each metric's published value, ours, and ours
    minus theirs."""
    grids = []
    for task, metrics in analysis.tasks().items():
        told = {row: [(one.source, found) for one in given if (found := _of(one, task))] for row, given in published.items()}
        shown = [metric for metric in metrics if any(metric in found for given in told.values() for _, found in given)]
        if not shown:
            continue
        rows, sources = [], []
        for row, given in told.items():
            for source, found in given:
                if source not in sources:
                    sources.append(source)
                cells = [cell for metric in shown for cell in _cells(analysis, task, metric, row, found.get(metric))]
                rows.append((f"{row} [{sources.index(source) + 1}]", tuple(cells)))
        columns = [name for metric in shown for name in (f"{metric_label(metric)} published", "ours", "ours − published")]
        notes = [f"[{place}] {source}" for place, source in enumerate(sources, 1)]
        grids.append(
            Grid(
                f"{slug(task)}-published",
                f"{task_label(task).capitalize()}: published results beside ours",
                tuple(columns),
                (Block("", tuple(rows)),),
                ("Ours: test, mean ± standard deviation over seeds.", *notes),
            )
        )
    return grids


def _of(one: Published, task: str) -> Mapping[str, float]:
    return next((found for name, found in one.values.items() if name == task), {})


def _cells(analysis: Analysis, task: str, metric: str, row: str, value: float | None) -> tuple[Cell, Cell, Cell]:
    entry = analysis.table(task, metric).entries.get(row)
    estimate = entry.estimate if entry is not None else None
    theirs = Cell(MISSING if value is None else f"{value:.3f}")
    if estimate is None:
        return theirs, Cell(MISSING), Cell(MISSING)
    ours = Cell(number(estimate.mean), "" if estimate.std is None else number(estimate.std))
    return theirs, ours, Cell(MISSING if value is None else signed(estimate.mean - value))
