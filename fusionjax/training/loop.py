"""The training loop: next batch → step → log → refresh → validate → checkpoint, resumable at any step.

What the loop remembers between processes is `TrainState` (parameters, optimiser, bank, step) and `Memory`. Randomness is a
function of seed and step, batches likewise, so a run that is killed and started again ends with the bits of one that was not.
"""

import dataclasses
import math
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np
import optax

from fusionjax.config import schema
from fusionjax.data.batches import StepSource, steps_of, stream
from fusionjax.data.inputs import Inputs
from fusionjax.data.shop import TEST, VALID
from fusionjax.errors import UserError
from fusionjax.inference import Encoder
from fusionjax.models.joint import JointModel
from fusionjax.runs import RunFolder
from fusionjax.tasks.evaluator import MAIN_METRIC, check_select, evaluate_model, selection, tasks_of
from fusionjax.training import parallel
from fusionjax.training.checkpoint import Checkpoints
from fusionjax.training.log import Bar, MetricsLog
from fusionjax.training.optimiser import build_optimiser
from fusionjax.training.state import TrainState, catalogue, create, layout
from fusionjax.training.step import Step, build_step
from fusionjax.training.teacher import taught
from fusionjax.training.trackers import Trackers
from fusionjax.training.tuning import pretrained

Say = Callable[[str], None]
OnValidation = Callable[[int, float], bool]
"""Called with the step and its validation value after each validation; training ends if it returns true."""


class NonFiniteLoss(RuntimeError):
    """Training diverged; the checkpoints written before stay."""


class Interrupted(RuntimeError):
    """SIGTERM came: the state is saved, the run can go on later."""


@dataclasses.dataclass
class Memory:
    """What a resumed loop must know besides the state; JSON, saved with each checkpoint."""

    data: dict[str, Any] = dataclasses.field(default_factory=dict)
    best: float | None = None
    best_step: int = 0
    since_best: int = 0
    stopped: bool = False


@dataclasses.dataclass(frozen=True)
class Trained:
    """How training ended. The best parameters are in the run's checkpoints."""

    steps: int
    best_step: int
    stopped_early: bool
    parameters: int


def build_model(config: schema.Run, inputs: Inputs) -> JointModel:
    return JointModel(layout(config, inputs))


def refreshed(state: TrainState, model: JointModel, inputs: Inputs, config: schema.Run, mesh: Any) -> TrainState:
    """The state with every row of the text bank encoded anew by its own parameters."""
    if not model.layout.uses_bank:
        return state
    assert inputs.product_tokens is not None
    vectors = Encoder(model, state.params, config.evaluation.batch_size).text(inputs.product_tokens)
    return dataclasses.replace(state, bank=parallel.replicate(vectors, mesh))


def train(
    config: schema.Run,
    inputs: Inputs,
    run: RunFolder,
    say: Say = print,
    on_validation: OnValidation | None = None,
    trackers: Trackers | None = None,
) -> Trained:
    """Trains to the end, from the newest checkpoint if there is one.

    Raises:
      UserError: batches that cannot be split over the devices; nothing to train on.
      NonFiniteLoss: with the step and the objective.
      Interrupted: after SIGTERM, once the state is saved.
    """
    mesh = parallel.build_mesh()
    inputs = taught(inputs, config, say)
    source, total = plan(config, inputs, mesh)
    model = build_model(config, inputs)
    optimiser = run_optimiser(config, model, total)
    fresh = creator(model, optimiser, mesh)(config.seed)
    parameters = sum(leaf.size for leaf in jax.tree.leaves(fresh.params))

    checkpoints, memory, state = Checkpoints(run.checkpoints), Memory(), fresh
    try:
        restored = checkpoints.restore(fresh)
        batches = stream(source)
        if restored is None:
            state = dataclasses.replace(state, params=pretrained(state.params, config.text))
            state = refreshed(state, model, inputs, config, mesh)
        else:
            state, remembered = restored
            memory = Memory(**remembered)
            batches.set_state(memory.data)
            say(f"resuming at step {int(state.step)} of {total}")
        del fresh
        journal = Journal(config, inputs, run, model, checkpoints, memory, total, say, on_validation, trackers)
        with sigterm() as stop:
            last = _run(journal, state, batches, build_step(model, optimiser, config, mesh), mesh, stop)
    finally:
        checkpoints.close()
    return Trained(last, memory.best_step, memory.stopped, parameters)


def plan(config: schema.Run, inputs: Inputs, mesh: Any) -> tuple[StepSource, int]:
    """(the batches by step, the number of steps), once it is known that the run can be trained and measured.

    Raises:
      UserError: batches that cannot be split over the devices; nothing to train on; a task that cannot be measured.
    """
    parallel.check_divisible(config, mesh)
    source = StepSource(inputs, config, steps=2**31 - 1, devices=mesh.size)
    if not source.makers:
        raise UserError("objectives: every weight is 0, there is nothing to train")
    for split in (VALID, TEST):  # said now, not after training
        tasks_of(config, inputs, split)
    check_select(config.train, tasks_of(config, inputs, VALID))
    return source, steps_of(config, source)


def run_optimiser(config: schema.Run, model: JointModel, total: int) -> optax.GradientTransformation:
    encoder = model.layout.encoder
    return build_optimiser(config.train.optimiser, total, config.text, encoder.layers if encoder is not None else 0)


def creator(model: JointModel, optimiser: optax.GradientTransformation, mesh: Any) -> Callable[[int], TrainState]:
    """`seed -> fresh state`, under jit: the same program on every device and for every seed, no host copy of the tables."""
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    return jax.jit(lambda seed: create(model, optimiser, seed), out_shardings=everywhere)


class Journal:
    """What one run writes while it trains: its metrics, checked; validations; checkpoints with what the loop remembers."""

    def __init__(
        self,
        config: schema.Run,
        inputs: Inputs,
        run: RunFolder,
        model: JointModel,
        checkpoints: Checkpoints,
        memory: Memory,
        total: int,
        say: Say,
        on_validation: OnValidation | None = None,
        trackers: Trackers | None = None,
    ) -> None:
        self.config, self.inputs, self.run_folder, self.model = config, inputs, run, model
        self.checkpoints, self.memory, self.total, self.say = checkpoints, memory, total, say
        self.on_validation, self.trackers = on_validation, trackers
        self.validate_every = config.train.validate_every or max(1, math.ceil(total / 10))
        self.checkpoint_every = config.train.checkpoint_every or self.validate_every

    @contextmanager
    def opened(self, step: int) -> Iterator[MetricsLog]:
        """The metrics file, without the rows after `step`, for as long as the block runs."""
        self.log = MetricsLog(self.run_folder, step, self.trackers)
        try:
            yield self.log
        finally:
            self.log.close()

    def logs(self, step: int) -> bool:
        """Whether the losses of this step are written."""
        return step % self.config.train.log_every == 0 or step == self.total

    def validates(self, step: int) -> bool:
        return step % self.validate_every == 0 or step == self.total

    def saves(self, step: int) -> bool:
        return self.validates(step) or step % self.checkpoint_every == 0

    def record(self, step: int, row: dict[str, float], rate: float) -> None:
        """Checks a step's metrics, and logs them if it is their turn; `rate`: steps a second."""
        for name, value in row.items():
            if not math.isfinite(value):
                where = name.removeprefix("loss/") if name.startswith("loss/") else None
                bad = where or next((n[5:] for n, v in row.items() if n.startswith("loss/") and not math.isfinite(v)), name)
                kept = self.checkpoints.latest_step()
                raise NonFiniteLoss(
                    f"step {step}: objective '{bad}' is not finite ({value}); last good checkpoint: "
                    f"{'none yet' if kept is None else f'step {kept}'}. Lower train.optimiser.learning_rate or its weight"
                )
        if self.logs(step):
            self.log.write({"step": step, "kind": "train", **row})
            self.log.throughput(step, rate)

    def save(self, state: TrainState, data: dict[str, Any]) -> None:
        """A checkpoint to resume from; `data`: position of the batches."""
        self.memory.data = data
        self.checkpoints.save(state, dataclasses.asdict(self.memory))

    def validate(self, state: TrainState, step: int) -> None:
        """Measures on validation, keeps the best, counts patience."""
        encoder = Encoder(self.model, state.params, self.config.evaluation.batch_size)
        most = self.config.evaluation.max_valid
        results = evaluate_model(encoder, state.bank, self.inputs, self.config, VALID, most)
        value, memory = selection(self.config.train, results), self.memory
        # Without anything to validate on the last parameters are the best ones.
        better = memory.best is None or value > memory.best or not results
        if better:
            memory.best, memory.best_step, memory.since_best = value, step, 0
            self.checkpoints.save_best(state, {"selected": value, "step": step})
        else:
            memory.since_best += 1
            memory.stopped = bool(self.config.train.patience) and memory.since_best >= self.config.train.patience
        flat = {f"{task}/{name}": number for task, result in results.items() for name, number in result.metrics.items()}
        self.log.write({"step": step, "kind": "valid", "selected": value, "best": better, **_finite(flat)})
        shown = "  ".join(f"{task} {metric} {results[task].metrics[metric]:.4f}" for task, metric in _headline(results))
        self.say(f"step {step}: validation {value:.4f}{' (best)' if better else ''}  {shown}")
        if self.on_validation is not None and self.on_validation(step, value):
            memory.stopped = True


def _run(journal: Journal, state: TrainState, batches: Any, step_fn: Step, mesh: Any, stop: threading.Event) -> int:
    """One process's pass through the steps; returns the last one."""
    config, inputs, total = journal.config, journal.inputs, journal.total
    places = parallel.replicate(catalogue(inputs), mesh)
    key = parallel.replicate(jax.random.key(config.seed), mesh)
    step = int(state.step)
    pending: list[tuple[int, dict[str, jax.Array]]] = []  # still on the device: reading one a step would stop it each time
    with journal.opened(step), Bar(total, step, journal.say) as bar:
        if not total and journal.memory.best is None:  # nothing to train: the model is measured as it starts
            journal.validate(state, step)
        while step < total and not journal.memory.stopped:
            batch = parallel.shard_batch(next(batches), mesh, config.train.accumulate)
            state, metrics = step_fn(state, batch, places, key)
            step += 1
            pending.append((step, metrics))
            bar.step(step)
            validates = journal.validates(step)
            stopping = stop.is_set()  # read once: what comes later counts in the next step, which saves
            if journal.logs(step) or journal.saves(step) or stopping:
                for done, values in pending:
                    row = {name: float(value) for name, value in values.items()}
                    journal.record(done, row, bar.rate)
                    if journal.logs(done):
                        bar.loss(row["loss"])
                pending.clear()
            every = config.text.refresh_every
            if (validates or (every and step % every == 0)) and config.text.tune != "frozen":
                state = refreshed(state, journal.model, inputs, config, mesh)
            if validates:
                journal.validate(state, step)
            if journal.saves(step) or stopping:
                journal.save(state, batches.get_state())
            if stopping:
                break
    if stop.is_set():
        raise Interrupted(f"stopped by SIGTERM after step {step}; the same command goes on from there")
    return step


def _headline(results: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield from ((task, MAIN_METRIC[task]) for task in results)


def _finite(row: dict[str, float]) -> dict[str, float]:
    return {name: float(value) for name, value in row.items() if np.isfinite(value)}


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
