"""What a run writes while it trains, by whichever driver: checked metrics, validations, the best parameters, checkpoints.

What a run remembers between processes is `TrainState` (parameters, optimiser, bank, step) and `Memory`. Randomness is a
function of seed and step, batches likewise, so a run that is killed and started again ends with the bits of one that was not.
"""

import dataclasses
import math
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from fusionjax.config import schema
from fusionjax.errors import NaNScore, NonFiniteLoss
from fusionjax.evaluation.metrics import Result
from fusionjax.runs import RunFolder
from fusionjax.training.checkpoint import Checkpoints
from fusionjax.training.log import MetricsLog
from fusionjax.training.state import TrainState
from fusionjax.training.trackers import Trackers

Say = Callable[[str], None]
OnValidation = Callable[[int, float], bool]
"""Called with the step and its validation value after each validation; training ends if it returns true."""


class Evaluator(Protocol):
    """What training is handed to measure a state on validation."""

    def validate(self, params: Any, bank: Any) -> Mapping[str, Result]:
        """Task → result; nothing where there are no validation examples."""
        ...

    def selected(self, results: Mapping[str, Result]) -> float:
        """The number by which the best checkpoint is chosen; higher is better."""
        ...

    def headline(self, results: Mapping[str, Result]) -> list[tuple[str, str, float]]:
        """(task, its main metric, value) of each task, for people."""
        ...


@dataclasses.dataclass
class Memory:
    """What a resumed run must know besides the state; JSON, saved with each checkpoint."""

    data: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Position of the batches."""
    rate_scale: float = 1.0
    """What the plateau schedule has left of the learning rates."""
    best: float | None = None
    best_step: int = 0
    since_best: int = 0
    on_plateau: int = 0
    stopped: bool = False
    ended: int | None = None
    """The step at which it stopped early."""
    sums: dict[str, float] = dataclasses.field(default_factory=dict)
    """Losses of the epoch that is under way, where a checkpoint lies within one."""


@dataclasses.dataclass(frozen=True)
class Trained:
    """How training ended. The best parameters are in the run's checkpoints."""

    steps: int
    best_step: int
    stopped_early: bool
    parameters: int


@dataclasses.dataclass(frozen=True)
class Pace:
    """When a run logs, validates and saves, in steps."""

    total: int
    log_every: int
    validate_every: int
    checkpoint_every: int
    epoch: int
    """Steps of an epoch."""

    @classmethod
    def of(cls, train: schema.Train, total: int, epoch: float) -> "Pace":
        """Args: `total` steps of the run, `epoch` steps of an epoch."""
        epoch = max(1, math.ceil(epoch))
        validate = train.validate_every_epochs * epoch or train.validate_every or max(1, math.ceil(total / 10))
        return cls(total, train.log_every, validate, train.checkpoint_every or validate, epoch)

    def logs(self, step: int) -> bool:
        """Whether the losses of this step are written."""
        return step % self.log_every == 0 or step == self.total

    def validates(self, step: int) -> bool:
        return step % self.validate_every == 0 or step == self.total

    def saves(self, step: int) -> bool:
        return self.validates(step) or step % self.checkpoint_every == 0


class Journal:
    """Of one run. `failure` says why it ended, where its loss was not finite."""

    def __init__(
        self,
        config: schema.Run,
        home: RunFolder,
        checkpoints: Checkpoints,
        evaluator: Evaluator,
        pace: Pace,
        say: Say,
        on_validation: OnValidation | None = None,
        trackers: Trackers | None = None,
    ) -> None:
        self.config, self.home, self.checkpoints, self.evaluator = config, home, checkpoints, evaluator
        self.pace, self.say, self.on_validation, self.trackers = pace, say, on_validation, trackers
        self.memory = Memory()
        self.failure: NonFiniteLoss | None = None

    @property
    def trains(self) -> bool:
        """Whether the run goes on."""
        return self.failure is None and not self.memory.stopped

    def restore(self, like: TrainState, step: int | None = None) -> TrainState | None:
        """The newest state, or that of a step, and its memory; None: there is none."""
        restored = self.checkpoints.restore(like, step)
        if restored is None:
            return None
        self.memory = Memory(**restored[1])
        return restored[0]

    @contextmanager
    def opened(self, step: int) -> Iterator[None]:
        """The metrics file, without the rows after `step`, for as long as the block runs."""
        self.log = MetricsLog(self.home, step, self.trackers)
        try:
            yield
        finally:
            self.log.close()

    def rates(self, base: Mapping[str, float]) -> dict[str, float]:
        """Learning rates of the groups as the plateau schedule has left them."""
        return {group: rate * self.memory.rate_scale for group, rate in base.items()}

    def check(self, step: int, row: Mapping[str, float]) -> None:
        """Fails the run if a loss is not finite, naming the objective or its part."""
        bad = [name for name, value in row.items() if not math.isfinite(value)]
        if bad:
            part = next((name for name in bad if name.startswith("loss/")), bad[0])
            self.fail(step, f"{part.removeprefix('loss/')} is not finite ({row[part]})")

    def record(self, step: int, row: Mapping[str, float], rate: float) -> None:
        """Logs a step's (or an epoch's) checked metrics; `rate`: steps a second."""
        self.log.write({"step": step, "kind": "train", **row})
        self.log.throughput(step, rate)

    def fail(self, step: int, what: str) -> None:
        kept = self.checkpoints.latest_step()
        self.failure = NonFiniteLoss(
            f"step {step}: {what}; last good checkpoint: {'none yet' if kept is None else f'step {kept}'}. "
            "Lower train.optimiser.learning_rate or the objective's weight"
        )

    def save(self, state: TrainState) -> None:
        """A checkpoint to resume from."""
        if self.failure is None:
            self.checkpoints.save(state, dataclasses.asdict(self.memory))

    def validate(self, state: TrainState, step: int) -> None:
        """Measures on validation, keeps the best, lowers the rates on a plateau, counts patience.

        Args:
          state: with the parameters to measure and to keep, and their text bank.
        """
        if not _finite(state.params):  # since the last steps, whose losses may still have been
            return self.fail(step, "a parameter is not finite")
        try:
            results = self.evaluator.validate(state.params, state.bank)
        except NaNScore as error:
            return self.fail(step, f"validation: {error}")
        value, memory = self.evaluator.selected(results), self.memory
        better = self._count(value, step, nothing_to_compare=not results)
        if better:
            self.checkpoints.save_best(state, {"selected": value, "step": step})
        self._say_and_log(step, value, better, results)
        if self.on_validation is not None and self.on_validation(step, value):
            memory.stopped = True
        if memory.stopped:
            memory.ended = step

    def _count(self, value: float, step: int, nothing_to_compare: bool) -> bool:
        """Whether the value is the best yet; what follows for patience and the learning rates."""
        memory, train = self.memory, self.config.train
        # Without anything to validate on the last parameters are the best ones.
        if memory.best is None or value > memory.best or nothing_to_compare:
            memory.best, memory.best_step, memory.since_best, memory.on_plateau = value, step, 0, 0
            return True
        memory.since_best += 1
        memory.on_plateau += 1
        if train.optimiser.schedule == "plateau" and memory.on_plateau > train.optimiser.wait:
            memory.rate_scale, memory.on_plateau = memory.rate_scale * train.optimiser.factor, 0
        memory.stopped = bool(train.patience) and memory.since_best >= train.patience
        return False

    def _say_and_log(self, step: int, value: float, better: bool, results: Mapping[str, Result]) -> None:
        row: dict[str, Any] = {"step": step, "kind": "valid", "selected": value, "best": better}
        if self.config.train.optimiser.schedule == "plateau":
            row["rate_scale"] = self.memory.rate_scale
        for task, result in results.items():
            row |= {f"{task}/{name}": float(number) for name, number in result.metrics.items() if math.isfinite(number)}
        self.log.write(row)
        at = f"step {step}" if step % self.pace.epoch else f"step {step} (epoch {step // self.pace.epoch})"
        shown = "  ".join(f"{task} {metric} {number:.4f}" for task, metric, number in self.evaluator.headline(results))
        self.say(f"{at}: validation {value:.4f}{' (best)' if better else ''}  {shown}")

    def trained(self, step: int, parameters: int) -> Trained:
        memory = self.memory
        return Trained(memory.ended or step, memory.best_step, memory.stopped, parameters)


@jax.jit
def _finite(tree: Any) -> jax.Array:
    return jnp.all(jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]))


def prefixed(say: Say, name: str) -> Say:
    """Says lines of one of several runs (`seed 3`)."""
    return lambda line: say(f"{name}: {line}")


@contextmanager
def sigterm() -> Iterator[threading.Event]:
    """An event that SIGTERM sets, while the block runs (in the main thread; elsewhere it never comes)."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    before = signal.signal(signal.SIGTERM, lambda *_: event.set())
    try:
        yield event
    finally:
        signal.signal(signal.SIGTERM, before)
