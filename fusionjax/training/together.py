"""Several seeds of one small run in one program: their states stacked, each step a step of all (`parallel.each_run`).

A step of a small graph costs a device little more than its launch, and a program is compiled once instead of once a seed. Each
seed keeps its own random draws, batches, validations, best checkpoint and run folder, which a lone run could go on from; its
losses are those of a lone run up to rounding.

A stack has the same members from its first step to its last (a *leg*). A leg ends where a seed leaves, by patience or a
non-finite loss, and where one joins: seeds whose newest checkpoints differ in step, because a process was killed while it
saved or a seed was added later, start with those furthest behind, and the others join when their step is reached. So no step
of a checkpoint is done twice, and the stack's size, on which rounding may depend, differs for those steps alone.
"""

import contextlib
import dataclasses
import math
import threading
from collections.abc import Sequence
from typing import Any

import grain
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from fusionjax.config import schema
from fusionjax.data.inputs import Inputs
from fusionjax.errors import UserError
from fusionjax.objectives.towers import catalogue
from fusionjax.runs import RunFolder
from fusionjax.training import parallel
from fusionjax.training.checkpoint import Checkpoints
from fusionjax.training.log import Bar
from fusionjax.training.loop import (
    Interrupted,
    Journal,
    Memory,
    NonFiniteLoss,
    Say,
    Trained,
    build_model,
    creator,
    plan,
    prefixed,
    sigterm,
)
from fusionjax.training.optimiser import build_optimiser
from fusionjax.training.step import Step, step_of
from fusionjax.training.stream import Batch, StepSource, stream
from fusionjax.training.trackers import Trackers

Outcome = Trained | NonFiniteLoss


def can_run_together(config: schema.Run) -> str | None:
    """Why seeds of this run cannot be trained in one program; `None`: they can."""
    if config.objectives.link_prediction.weight <= 0:
        return "objectives.link_prediction.weight is 0: only graphs are trained together"
    for name in config.objectives.used():
        if name != "link_prediction":
            return f"objectives.{name}.weight is not 0: only graphs are trained together"
    if "text" in config.model.product.sources:
        return "model.product.sources has 'text': only graphs are trained together"
    if config.train.epochs is not None and config.data.controls != schema.Controls():
        return "train.epochs with data.controls: seeds may differ in their number of steps; give train.steps"
    return None


def train_together(
    configs: Sequence[schema.Run],
    inputs: Sequence[Inputs],
    runs: Sequence[RunFolder],
    say: Say = print,
    trackers: Sequence[Trackers] = (),
) -> list[Outcome]:
    """Trains every seed to its end, from its newest checkpoint if there is one.

    Args:
      configs: one a seed, equal in all but the seed.
      inputs: one a seed; the same object, unless the data depend on the seed.
      trackers: one a seed, or none at all.

    Returns:
      For each seed how training ended; the error where its loss was not finite, which stops that seed alone.

    Raises:
      UserError: as `train`; or the seeds' data differ in size.
      Interrupted: after SIGTERM, once every state is saved.
    """
    if any(config.model_copy(update={"seed": configs[0].seed}) != configs[0] for config in configs):
        raise ValueError("configs that differ in more than the seed cannot be trained together")
    if reason := can_run_together(configs[0]):
        raise UserError(reason)
    mesh = parallel.build_mesh()
    planned = [plan(config, own, mesh) for config, own in zip(configs, inputs, strict=True)]
    models = [build_model(config, own) for config, own in zip(configs, inputs, strict=True)]
    total = planned[0][1]
    if any(model != models[0] for model in models) or any(steps != total for _, steps in planned):
        raise UserError("the seeds' graphs differ in size (data.controls): they cannot be trained together")
    optimiser = build_optimiser(configs[0].train.optimiser, total)
    create = creator(models[0], optimiser, mesh)
    step = step_of(models[0], optimiser, configs[0])
    together = _Together(mesh, step, total, configs[0].train.accumulate, say)
    with contextlib.ExitStack() as stack, sigterm() as stop:
        members = []
        for config, own, run, (source, _) in zip(configs, inputs, runs, planned, strict=True):
            tracked = trackers[len(members)] if trackers else None
            checkpoints = Checkpoints(run.checkpoints)
            stack.callback(checkpoints.close)
            tell = prefixed(say, f"seed {config.seed}")
            memory, state = Memory(), create(config.seed)
            restored = checkpoints.restore(state)
            if restored is not None:
                state, memory = restored[0], Memory(**restored[1])
                tell(f"resuming at step {int(state.step)} of {total}")
            journal = Journal(config, own, run, models[0], checkpoints, memory, total, tell, trackers=tracked)
            members.append(_Member(journal, source, state, int(state.step)))
            stack.enter_context(journal.opened(members[-1].step))
        parameters = sum(leaf.size for leaf in jax.tree.leaves(members[0].state.params)) if members else 0
        together.run(members, stop)
    return [member.failure or member.trained(parameters) for member in members]


@dataclasses.dataclass
class _Member:
    """One seed. While it is in a leg its state is a slice of the stack, and `state` is out of date."""

    journal: Journal
    source: StepSource
    state: Any
    step: int
    failure: NonFiniteLoss | None = None

    @property
    def trains(self) -> bool:
        """Whether it has steps left to do."""
        return self.failure is None and not self.journal.memory.stopped and self.step < self.journal.total

    def record(self, step: int, row: dict[str, float], rate: float) -> None:
        """Writes a step's metrics; a loss that is not finite fails this seed."""
        if self.failure is not None:
            return
        try:
            self.journal.record(step, row, rate)
        except NonFiniteLoss as error:
            self.failure = error
            self.journal.say(f"stopped, the others go on: {error}")

    def trained(self, parameters: int) -> Trained:
        memory = self.journal.memory
        return Trained(self.step, memory.best_step, memory.stopped, parameters)


class _Stacked(grain.sources.RandomAccessDataSource):
    """Item s is the batches of step s of all members, stacked: made ahead by the threads of one stream."""

    def __init__(self, sources: Sequence[StepSource]) -> None:
        self.sources = sources

    def __len__(self) -> int:
        return len(self.sources[0])

    def __getitem__(self, step: int) -> Batch:
        return jax.tree.map(lambda *leaves: np.stack(leaves), *(source[step] for source in self.sources))


class _Together:
    def __init__(self, mesh: Mesh, step: Step, total: int, accumulate: int, say: Say) -> None:
        self.mesh, self.total, self.say = mesh, total, say
        self.micro = 1 if accumulate > 1 else 0
        self.step = step
        self.compiled: dict[bool, Step] = {}
        everywhere = NamedSharding(mesh, PartitionSpec())
        self.stack = jax.jit(lambda *trees: jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees))
        self.take = jax.jit(lambda tree, row: jax.tree.map(lambda leaf: leaf[row], tree), out_shardings=everywhere)

    def run(self, members: list[_Member], stop: threading.Event) -> None:
        """Leg by leg until no seed has steps left."""
        first = min((member.step for member in members if member.trains), default=self.total)
        with Bar(self.total, first, self.say) as bar:
            while (training := [member for member in members if member.trains]) and not stop.is_set():
                start = min(member.step for member in training)
                until = min((member.step for member in training if member.step > start), default=self.total)
                self.leg([member for member in training if member.step == start], until, bar, stop)
        if stop.is_set():
            at = ", ".join(f"{member.journal.config.seed}: {member.step}" for member in members)
            raise Interrupted(f"stopped by SIGTERM (seed: step): {at}; the same command goes on from there")

    def leg(self, members: list[_Member], until: int, bar: Bar, stop: threading.Event) -> None:
        """Steps of one stack, until step `until`, or a member leaves it, or SIGTERM."""
        journal, step = members[0].journal, members[0].step  # when to log, validate and save is the same for all
        split, spread, step_fn = self.placement(len(members))
        state = jax.device_put(self.stack(*(member.state for member in members)), spread)
        for member in members:
            member.state = None
        places = jax.device_put(self.stack(*(catalogue(member.journal.inputs) for member in members)), spread)
        keys = jax.device_put(jnp.stack([jax.random.key(member.journal.config.seed) for member in members]), spread)
        batches = stream(_Stacked([member.source for member in members]))
        if step:
            batches.set_state(journal.memory.data)
        pending: list[tuple[int, dict[str, jax.Array]]] = []
        leaving = False
        while step < until and not leaving:
            state, metrics = step_fn(state, jax.device_put(next(batches), split), places, keys)
            step += 1
            pending.append((step, metrics))
            bar.step(step)
            stopping = stop.is_set()  # read once: what comes later counts in the next step, which saves
            saves = journal.saves(step) or stopping
            if journal.logs(step) or saves or step == until:
                _flush(members, pending, bar)
                leaving = any(member.failure for member in members) or stopping
            if saves:
                for row, member in enumerate(members):
                    if member.failure is None:
                        own = self.take(state, row)
                        if journal.validates(step):
                            member.journal.validate(own, step)
                        member.journal.save(own, batches.get_state())
                        leaving |= member.journal.memory.stopped
        for row, member in enumerate(members):
            member.step = step
            if member.trains:  # the others are done with, their last states saved
                member.state, member.journal.memory.data = self.take(state, row), batches.get_state()

    def placement(self, seeds: int) -> tuple[NamedSharding, NamedSharding, Step]:
        """Where batches and all else go, and the compiled step: whole seeds to each device if they divide evenly (nothing is
        exchanged then), else every batch is split over the devices as in a lone run."""
        whole = seeds % self.mesh.size == 0
        axis = (parallel.AXIS,)
        split = PartitionSpec(*(axis if whole else (None,) * (1 + self.micro) + axis))
        spread = PartitionSpec(*axis) if whole else PartitionSpec()
        if whole not in self.compiled:
            # Not where a batch is split: CPU devices that exchange inside a loop can wait for each other for ever.
            apart = whole and self.mesh.devices.flat[0].platform == "cpu"
            step: Any = parallel.each_run(self.step, (0, 0, 0, 0), apart=apart)
            if whole:
                step = jax.shard_map(step, mesh=self.mesh, in_specs=spread, out_specs=spread)
            self.compiled[whole] = jax.jit(step, donate_argnums=0)
        return NamedSharding(self.mesh, split), NamedSharding(self.mesh, spread), self.compiled[whole]


def _flush(members: list[_Member], pending: list[tuple[int, dict[str, jax.Array]]], bar: Bar) -> None:
    """Reads the metrics of the steps since the last time and hands each seed its own."""
    for step, values in jax.device_get(pending):
        for row, member in enumerate(members):
            member.record(step, {name: float(value[row]) for name, value in values.items()}, bar.rate)
        loss = float(np.mean(values["loss"]))
        if members[0].journal.logs(step) and math.isfinite(loss):
            bar.loss(loss)
    pending.clear()
