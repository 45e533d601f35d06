"""The table people watch while a study runs: rows × seeds, each cell's state, and the time left."""

import time
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from fusionjax.reporting.tables import number
from fusionjax.runs import RunFolder
from fusionjax.studies.estimate import from_records, readable
from fusionjax.studies.folder import Record
from fusionjax.studies.plan import BASELINES
from fusionjax.studies.runner import Runner

_EVERY = 1.0


class Watch:
    """Redraws the table on a terminal once a second; elsewhere stays silent (the runner says what starts and ends)."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)
        self.live = Live(console=self.console, auto_refresh=False, transient=True) if self.console.is_terminal else None
        self.drawn = 0.0

    def __enter__(self) -> "Watch":
        if self.live:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.live:
            self.live.stop()

    def say(self, line: str) -> None:
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def __call__(self, runner: Runner) -> None:
        if self.live and time.monotonic() - self.drawn >= _EVERY:
            self.drawn = time.monotonic()
            self.live.update(status(runner), refresh=True)


def status(runner: Runner) -> Group:
    """The table of a study as a worker sees it, and one line of what is left."""
    plan, folder = runner.plan, runner.folder
    task, metrics = next(iter(plan.study.tasks.items()))
    running = {cell.digest: job for job in runner.jobs for cell in job.cells if job.kind != BASELINES}
    held = runner.claims.live()
    records: list[Record] = []
    left = []
    table = Table(title=f"{task} {metrics[0]} on validation", title_style="", header_style="bold", pad_edge=False)
    table.add_column("row")
    for seed in plan.study.seeds:
        table.add_column(f"seed {seed}", justify="right")
    for row in plan.rows:
        cells = []
        for seed in plan.study.seeds:
            cell = plan.cell(row, seed)
            if folder.has(cell.digest):
                records.append(record := folder.record(cell.digest))
                value = record["valid"].get(task, {}).get(metrics[0])
                cells.append(Text("done" if value is None else number(value), "green"))
                continue
            left.append(cell)
            if cell.digest in running:
                cells.append(Text(_progress(runner, cell), "cyan"))
            elif folder.failure_file(cell.digest).exists():
                cells.append(Text("failed", "red"))
            elif cell.digest in held:
                cells.append(Text(f"at {held[cell.digest][1].rsplit(':', 1)[0]}", "cyan"))
            else:
                cells.append(Text("·", "dim"))
        table.add_row(row, *cells)
    done = len(plan.cells) - len(left)
    line = f"{done} of {len(plan.cells)} cells"
    found = from_records([cell for cell in {cell.digest: cell for cell in left}.values()], records)
    if found is not None and left:
        line += f"; about {readable(found.seconds / max(runner.workers, 1))} left"
    return Group(table, Text(line))


def _progress(runner: Runner, cell: Any) -> str:
    rows = RunFolder(runner.folder.runs / cell.name).metrics()
    epoch, epochs = next((row["epoch"] for row in reversed(rows) if "epoch" in row), 0), cell.config.train.epochs
    if epoch and epochs:
        return f"{100 * epoch / epochs:.0f} %"
    step = rows[-1]["step"] if rows else 0
    total = cell.config.train.steps
    return f"{100 * step // total} %" if total else f"step {step}"
