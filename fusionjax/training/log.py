"""Where the numbers of a run go while it trains: metrics.jsonl, TensorBoard event files, and the progress bar."""

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from tensorboardX import SummaryWriter

from fusionjax.files import write_whole
from fusionjax.runs import RunFolder
from fusionjax.training.trackers import Trackers


class MetricsLog:
    """Appends rows to metrics.jsonl and TensorBoard, and hands them to the trackers.

    Rows carry no times, so that two equal runs write equal files. On resuming, rows after the restored step are cut off: the
    run will write them again. The trackers are handed the earlier rows too, and take what they lack; closing them is left to
    their owner.
    """

    def __init__(self, run: RunFolder, resumed_at: int, trackers: Trackers | None = None) -> None:
        _truncate(run.metrics_file, resumed_at)
        self.file = run.metrics_file.open("a", encoding="utf-8")
        self.board = SummaryWriter(str(run.path / "tensorboard"), purge_step=resumed_at + 1 if resumed_at else None)
        self.trackers = trackers
        if trackers is not None and trackers.workers:
            for row in run.metrics():
                trackers.write(row)

    def write(self, row: dict[str, Any]) -> None:
        self.file.write(json.dumps(row) + "\n")
        self.file.flush()
        for name, value in row.items():
            if name not in ("step", "kind") and not isinstance(value, str) and math.isfinite(value):
                self.board.add_scalar(f"{row['kind']}/{name}", value, row["step"])
        if self.trackers is not None:
            self.trackers.write(row)

    def throughput(self, step: int, steps_per_second: float) -> None:
        """Speed goes to TensorBoard only: it differs between equal runs."""
        self.board.add_scalar("speed/steps_per_second", steps_per_second, step)

    def close(self) -> None:
        self.file.close()
        self.board.close()


def _truncate(file: Path, step: int) -> None:
    """Keeps the whole lines of steps up to `step`."""
    if not file.exists():
        return
    kept = []
    for line in file.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(line)["step"] > step:
                break
        except (json.JSONDecodeError, KeyError, TypeError):
            break  # a line cut short by a kill
        kept.append(line + "\n")
    write_whole(file, "".join(kept))


class Bar:
    """Progress with loss, rate and time left on a terminal; a line now and then elsewhere."""

    def __init__(self, total: int, done: int, say: Callable[[str], None]) -> None:
        self.console = Console(stderr=True)
        self.total, self.done, self.say = total, done, say
        self.started, self.first, self.spoke = time.monotonic(), done, time.monotonic()
        self.progress = Progress(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[loss]}"),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self.task = self.progress.add_task("training", total=total, completed=done, loss="", rate="")

    def __enter__(self) -> "Bar":
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    @property
    def rate(self) -> float:
        """Steps per second since the start of this process's training."""
        return (self.done - self.first) / max(time.monotonic() - self.started, 1e-9)

    def step(self, step: int) -> None:
        self.done = step
        self.progress.update(self.task, completed=step)

    def loss(self, loss: float) -> None:
        self.progress.update(self.task, loss=f"loss {loss:.4f}", rate=f"{self.rate:.1f} steps/s")
        if not self.console.is_terminal and time.monotonic() - self.spoke > 10.0:
            self.spoke = time.monotonic()
            left = (self.total - self.done) / max(self.rate, 1e-9)
            self.say(f"step {self.done}/{self.total}  loss {loss:.4f}  {self.rate:.1f} steps/s  {left:.0f} s left")
