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

from fusionjax.config import schema
from fusionjax.data.batches import StepSource, steps_of, stream
from fusionjax.data.inputs import Inputs
from fusionjax.data.shop import TEST, VALID
from fusionjax.errors import UserError
from fusionjax.evaluation.tasks import MAIN_METRIC, evaluate_model, selection, tasks_of
from fusionjax.inference import Encoder
from fusionjax.models.joint import JointModel
from fusionjax.runs import RunFolder
from fusionjax.training import parallel
from fusionjax.training.checkpoint import Checkpoints
from fusionjax.training.log import Bar, MetricsLog
from fusionjax.training.optimiser import build_optimiser
from fusionjax.training.state import TrainState, catalogue, create, layout
from fusionjax.training.step import build_step

Say = Callable[[str], None]


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


def train(config: schema.Run, inputs: Inputs, run: RunFolder, say: Say = print) -> Trained:
    """Trains to the end, from the newest checkpoint if there is one.

    Raises:
      UserError: batches that cannot be split over the devices; nothing to train on.
      NonFiniteLoss: with the step and the objective.
      Interrupted: after SIGTERM, once the state is saved.
    """
    mesh = parallel.build_mesh()
    parallel.check_divisible(config, mesh)
    model = build_model(config, inputs)
    source = StepSource(inputs, config, steps=2**31 - 1)
    if not source.makers:
        raise UserError("objectives: every weight is 0, there is nothing to train")
    total = steps_of(config, source)
    for split in (VALID, TEST):  # a task that cannot be measured is said now, not after training
        tasks_of(config, inputs, split)
    optimiser = build_optimiser(config.train.optimiser, total)
    # Created under jit: the same program on every device, no host copy of the tables.
    fresh = jax.jit(
        lambda: create(model, optimiser, config.seed),
        out_shardings=jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec()),
    )()
    parameters = sum(leaf.size for leaf in jax.tree.leaves(fresh.params))

    checkpoints, memory, state = Checkpoints(run.checkpoints), Memory(), fresh
    try:
        restored = checkpoints.restore(fresh)
        batches = stream(source)
        if restored is None:
            state = refreshed(state, model, inputs, config, mesh)
        else:
            state, remembered = restored
            memory = Memory(**remembered)
            batches.set_state(memory.data)
            say(f"resuming at step {int(state.step)} of {total}")
        del fresh
        loop = _Loop(config, inputs, run, model, mesh, checkpoints, memory, total, say)
        with _sigterm() as stop:
            loop.run(state, batches, build_step(model, optimiser, config), stop)
    finally:
        checkpoints.close()
    return Trained(loop.last_step, memory.best_step, memory.stopped, parameters)


class _Loop:
    """One process's pass through the steps."""

    def __init__(
        self,
        config: schema.Run,
        inputs: Inputs,
        run: RunFolder,
        model: JointModel,
        mesh: Any,
        checkpoints: Checkpoints,
        memory: Memory,
        total: int,
        say: Say,
    ) -> None:
        self.config, self.inputs, self.run_folder, self.model, self.mesh = config, inputs, run, model, mesh
        self.checkpoints, self.memory, self.total, self.say = checkpoints, memory, total, say
        self.validate_every = config.train.validate_every or max(1, math.ceil(total / 10))
        self.checkpoint_every = config.train.checkpoint_every or self.validate_every
        self.pending: list[tuple[int, dict[str, jax.Array]]] = []
        """Metrics still on the device: reading one a step would stop the device each time."""
        self.last_step = 0

    def run(self, state: TrainState, batches: Any, step_fn: Any, stop: threading.Event) -> None:
        train, places = self.config.train, parallel.replicate(catalogue(self.inputs), self.mesh)
        step = self.last_step = int(state.step)
        log = MetricsLog(self.run_folder, step)
        try:
            with Bar(self.total, step, self.say) as bar:
                while step < self.total and not self.memory.stopped:
                    batch = parallel.shard_batch(next(batches), self.mesh, train.accumulate)
                    state, metrics = step_fn(state, batch, places)
                    step = self.last_step = step + 1
                    self.pending.append((step, metrics))
                    bar.step(step)
                    validates = step % self.validate_every == 0 or step == self.total
                    stopping = stop.is_set()  # read once: what comes later counts in the next step, which saves
                    if step % train.log_every == 0 or validates or stopping:
                        self.flush(log, bar)
                    every = self.config.text.refresh_every
                    if validates or (every and step % every == 0):
                        state = refreshed(state, self.model, self.inputs, self.config, self.mesh)
                    if validates:
                        self.validate(state, step, log)
                    if validates or step % self.checkpoint_every == 0 or stopping:
                        self.flush(log, bar)
                        self.memory.data = batches.get_state()
                        self.checkpoints.save(state, dataclasses.asdict(self.memory))
                    if stopping:
                        break
            if stop.is_set():
                raise Interrupted(f"stopped by SIGTERM after step {step}; the same command goes on from there")
        finally:
            log.close()

    def flush(self, log: MetricsLog, bar: Bar) -> None:
        """Reads the metrics of the steps since the last time, checks them, logs those whose turn it is."""
        for step, metrics in self.pending:
            row = {name: float(value) for name, value in metrics.items()}
            for name, value in row.items():
                if not math.isfinite(value):
                    where = name.removeprefix("loss/") if name.startswith("loss/") else None
                    bad = where or next((n[5:] for n, v in row.items() if n.startswith("loss/") and not math.isfinite(v)), name)
                    kept = self.checkpoints.latest_step()
                    raise NonFiniteLoss(
                        f"step {step}: objective '{bad}' is not finite ({value}); last good checkpoint: "
                        f"{'none yet' if kept is None else f'step {kept}'}. Lower train.optimiser.learning_rate or its weight"
                    )
            if step % self.config.train.log_every == 0 or step == self.total:
                log.write({"step": step, "kind": "train", **row})
                log.throughput(step, bar.rate)
                bar.loss(row["loss"])
        self.pending.clear()

    def validate(self, state: TrainState, step: int, log: MetricsLog) -> None:
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
        log.write({"step": step, "kind": "valid", "selected": value, "best": better, **_finite(flat)})
        shown = "  ".join(f"{task} {metric} {results[task].metrics[metric]:.4f}" for task, metric in _headline(results))
        self.say(f"step {step}: validation {value:.4f}{' (best)' if better else ''}  {shown}")


def _headline(results: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield from ((task, MAIN_METRIC[task]) for task in results)


def _finite(row: dict[str, float]) -> dict[str, float]:
    return {name: float(value) for name, value in row.items() if np.isfinite(value)}


@contextmanager
def _sigterm() -> Iterator[threading.Event]:
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
