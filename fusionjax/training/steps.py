"""The driver of runs of several objectives: one compiled step for each batch that the host makes.

The order is batch → step → log → refresh → validate → checkpoint; the metrics of a step are read when they are written, so the
device never waits for the host in between.
"""

import dataclasses
import functools
import math
import threading
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array

from fusionjax.config import schema
from fusionjax.data.inputs import Inputs
from fusionjax.errors import Interrupted
from fusionjax.inference import Encoder
from fusionjax.models.joint import JointModel
from fusionjax.objectives.link_prediction.loss import hyper_of
from fusionjax.objectives.link_prediction.strategies import Strategy, strategy_of
from fusionjax.objectives.towers import Catalogue, Lookups, catalogue
from fusionjax.training import parallel
from fusionjax.training.journal import Journal, Pace
from fusionjax.training.log import Bar
from fusionjax.training.loss import joint_loss
from fusionjax.training.optimiser import Optimiser, SparseRows, one_of_equal, table_apart, with_table
from fusionjax.training.state import TrainState, create
from fusionjax.training.stream import StepSource, stream
from fusionjax.training.tuning import pretrained

Metrics = dict[str, jax.Array]
Step = Callable[[TrainState, Any, Catalogue, jax.Array, Any], tuple[TrainState, Metrics]]


def build_step(
    model: JointModel,
    optimiser: Optimiser,
    config: schema.Run,
    strategy: Strategy | None = None,
    epoch: int = 1,
    mesh: Mesh | None = None,
) -> Step:
    """`step(state, batch, constants, key, numbers) -> (state, metrics)`, compiled, its state donated: once for each set of
    objectives that meet in a step and each history bucket.

    Metrics are device scalars: `loss`, `gradient_norm` and `loss/OBJECTIVE`. Randomness is `fold_in(key, step)`, where `key` is
    the run's `jax.random.key(seed)`: a resumed run draws what an uninterrupted one draws. The seed is in the key alone, so that
    runs that differ in nothing else share one program.

    Args:
      strategy: of link prediction, where that is an objective.
      epoch: steps of an epoch, over which `train.average` counts.
      mesh: devices over which the rows of a batch are spread.
    """
    accumulate, keep = config.train.accumulate, config.train.average
    loss = functools.partial(joint_loss, model=model, config=config, strategy=strategy, mesh=mesh)

    def dense(params: Any, bank: Array, batch: Any, key: Array, constants: Catalogue, numbers: Any) -> Any:
        """(loss, losses, bank, gradient, no rows)."""
        of = jax.value_and_grad(lambda p: loss(p, bank, batch, key, constants, numbers), has_aux=True)
        (value, (losses, bank)), gradient = of(params)
        return value, losses, bank, gradient, None

    def sparse(params: Any, bank: Array, batch: Any, key: Array, constants: Catalogue, numbers: Any) -> Any:
        """The same, the gradient of the entity table only of the rows that were looked up, and which these are."""
        table, rest = table_apart(params)

        def of(rest: Any, moves: list[Array] | None) -> Any:
            lookups = Lookups(moves)
            value, more = loss(with_table(rest, table), bank, batch, key, constants, numbers, lookups=lookups)
            return value, (more, lookups.ids)

        widths = jax.eval_shape(lambda: of(rest, None)[1][1])
        moves = [jnp.zeros((ids.size, table.shape[1]), table.dtype) for ids in widths]
        (value, ((losses, bank), ids)), (gradient, moved) = jax.value_and_grad(of, (0, 1), has_aux=True)(rest, moves)
        return value, losses, bank, with_table(gradient, jnp.concatenate(moved)), jnp.concatenate(ids)

    def by_rows(state: TrainState, batch: Any, constants: Catalogue, numbers: Any) -> bool:
        """Whether the step touches fewer rows of the entity table than it has, or is to be sparse in any case."""
        table = table_apart(state.params)[0]
        wanted = config.train.optimiser.rows
        if table is None or wanted == "dense":
            return False
        one = jax.tree.map(lambda part: part[0], batch) if accumulate > 1 else batch
        lookups = Lookups(None)
        jax.eval_shape(lambda: loss(state.params, state.bank, one, jax.random.key(0), constants, numbers, lookups=lookups))
        return not lookups.whole and (wanted == "sparse" or accumulate * sum(each.size for each in lookups.ids) < len(table))

    def gradients(of: Any, state: TrainState, batch: Any, key: Array, constants: Catalogue, numbers: Any) -> Any:
        if accumulate == 1:
            return of(state.params, state.bank, batch, key, constants, numbers)

        def body(carry: Any, micro: Any) -> Any:
            bank, total = carry
            part, batch = micro
            found = of(state.params, bank, batch, jax.random.fold_in(key, part), constants, numbers)
            loss, losses, bank, gradient, ids = found
            table, rest = table_apart(gradient) if ids is not None else (None, gradient)
            return (bank, jax.tree.map(jnp.add, total, rest)), (loss, losses, table, ids)

        rest = table_apart(state.params)[1] if of is sparse else state.params
        start = (state.bank, jax.tree.map(jnp.zeros_like, rest))
        (bank, total), (loss, losses, table, ids) = jax.lax.scan(body, start, (jnp.arange(accumulate), batch))
        mean = jax.tree.map(lambda x: x.mean(), (loss, losses))
        if ids is not None:
            total, ids = with_table(total, table.reshape(-1, table.shape[-1])), ids.reshape(-1)
        return *mean, bank, jax.tree.map(lambda x: x / accumulate, total), ids

    def step(state: TrainState, batch: Any, constants: Catalogue, key: jax.Array, numbers: Any) -> tuple[TrainState, Metrics]:
        drawn = jax.random.fold_in(key, state.step)
        of = sparse if by_rows(state, batch, constants, numbers) else dense
        loss, losses, bank, gradient, ids = gradients(of, state, batch, drawn, constants, numbers)
        rows = None
        if ids is not None:
            table, (of_rows, rest) = table_apart(state.params)[0], table_apart(gradient)
            assert table is not None and of_rows is not None
            places, _ = one_of_equal(ids, jnp.zeros(len(table), jnp.int32))
            gradient = with_table(rest, jnp.zeros_like(of_rows).at[places].add(of_rows, mode="promise_in_bounds"))
            rows = SparseRows(ids, places)
        params, opt_state, norm = optimiser.update(state.params, gradient, state.opt_state, numbers["rates"], state.step, rows)
        average = state.average
        if keep is not None:
            each = math.log(keep) / epoch  # as 1 − its power: that of a long epoch is 1 in float32
            share = math.expm1(each) / jnp.expm1(each * (state.step + 1))
            average = jax.tree.map(lambda old, new: old + share * (new - old), average, params)
        metrics = {"loss": loss, "gradient_norm": norm, **{f"loss/{name}": value for name, value in losses.items()}}
        return TrainState(state.step + 1, params, opt_state, bank, average), metrics

    return jax.jit(step, donate_argnums=0)


def numbers_of(config: schema.Run, rates: Mapping[str, float]) -> dict[str, Any]:
    """What a compiled step takes as arguments: the learning rates and the numbers of link prediction's loss."""
    return {"rates": rates, **hyper_of(config.objectives.link_prediction, config.model.entity)}


class Steps:
    """The compiled parts that runs of one config share, whatever their seed."""

    def __init__(self, config: schema.Run, model: JointModel, optimiser: Optimiser, pace: Pace, mesh: Mesh) -> None:
        self.config, self.model, self.optimiser, self.pace, self.mesh = config, model, optimiser, pace, mesh
        everywhere = NamedSharding(mesh, PartitionSpec())
        # Under jit: the same program on every device and for every seed, no host copy of the tables.
        fresh = functools.partial(create, model, optimiser, config.train.average is not None)
        self.create = jax.jit(fresh, out_shardings=everywhere)
        self.steps: dict[Strategy | None, Step] = {}

    def step(self, constants: Catalogue) -> Step:
        strategy, entities = None, self.model.layout.entities
        if constants.graph is not None and entities is not None:
            links, rows = self.config.objectives.link_prediction, self.config.train.optimiser.rows
            strategy = strategy_of(entities, links, constants.graph, rows)
        if strategy not in self.steps:
            self.steps[strategy] = build_step(self.model, self.optimiser, self.config, strategy, self.pace.epoch, self.mesh)
        return self.steps[strategy]


def run_steps(journal: Journal, parts: Steps, inputs: Inputs, source: StepSource, stop: threading.Event) -> tuple[int, int]:
    """Trains one run to its end, from its newest checkpoint if there is one.

    Returns:
      (the last step, the number of parameters).

    Raises:
      NonFiniteLoss: with the step and the objective.
      Interrupted: after SIGTERM, once the state is saved.
    """
    config, model, mesh, pace = journal.config, parts.model, parts.mesh, journal.pace
    batches = stream(source)
    state = parts.create(config.seed)
    parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    restored = journal.restore(state)
    if restored is None:
        params = pretrained(state.params, config.text)
        average = None if state.average is None else jax.tree.map(jnp.copy, params)
        state = refreshed(dataclasses.replace(state, params=params, average=average), model, inputs, config, mesh)
    else:
        state = restored
        batches.set_state(journal.memory.data)
        journal.say(f"resuming at step {int(state.step)} of {pace.total}")
    constants = catalogue(inputs, source.graph)
    step_fn, places = parts.step(constants), parallel.replicate(constants, mesh)
    key, numbers = parallel.replicate(jax.random.key(config.seed), mesh), _placed_numbers(journal, parts)
    step, total = int(state.step), pace.total
    pending: list[tuple[int, Metrics]] = []  # still on the device: reading one a step would stop it each time
    with journal.opened(step), Bar(total, step, journal.say) as bar:
        if not total and journal.memory.best is None:  # nothing to train: the model is measured as it starts
            journal.validate(state, step)
        while step < total and journal.trains:
            batch = parallel.shard_batch(next(batches), mesh, config.train.accumulate)
            state, metrics = step_fn(state, batch, places, key, numbers)
            step += 1
            pending.append((step, metrics))
            bar.step(step)
            validates, stopping = pace.validates(step), stop.is_set()  # read once: what comes later counts in the next step
            if pace.logs(step) or pace.saves(step) or stopping:
                _write(journal, pending, bar)
            every = config.text.refresh_every
            if (validates or (every and step % every == 0)) and config.text.tune != "frozen":
                state = refreshed(state, model, inputs, config, mesh)
            if validates:
                journal.validate(_averaged(state, model, inputs, config, mesh), step)
                numbers = _placed_numbers(journal, parts)
            if journal.failure is not None:
                raise journal.failure
            if pace.saves(step) or stopping:
                journal.memory.data = batches.get_state()
                journal.save(state)
            if stopping:
                break
    if stop.is_set():
        raise Interrupted(f"stopped by SIGTERM after step {step}; the same command goes on from there")
    return step, parameters


def _placed_numbers(journal: Journal, parts: Steps) -> Any:
    numbers = numbers_of(journal.config, journal.rates(parts.optimiser.base_rates()))
    return parallel.replicate(jax.tree.map(np.float32, numbers), parts.mesh)


def _write(journal: Journal, pending: list[tuple[int, Metrics]], bar: Bar) -> None:
    """Reads and checks the metrics of the steps since the last time, and logs those whose turn it is."""
    for step, values in pending:
        row = {name: float(value) for name, value in values.items()}
        journal.check(step, row)
        if journal.failure is not None:
            raise journal.failure
        if journal.pace.logs(step):
            journal.record(step, row, bar.rate)
            bar.loss(row["loss"])
    pending.clear()


def refreshed(state: TrainState, model: JointModel, inputs: Inputs, config: schema.Run, mesh: Any) -> TrainState:
    """The state with every row of the text bank encoded anew by its own parameters."""
    if not model.layout.uses_bank:
        return state
    assert inputs.product_tokens is not None
    vectors = Encoder(model, state.params, config.evaluation.batch_size).text(inputs.product_tokens)
    return dataclasses.replace(state, bank=parallel.replicate(vectors, mesh))


def _averaged(state: TrainState, model: JointModel, inputs: Inputs, config: schema.Run, mesh: Any) -> TrainState:
    """What is validated: the average of the parameters with a bank of its own, where one is kept."""
    if state.average is None:
        return state
    return refreshed(dataclasses.replace(state, params=state.average), model, inputs, config, mesh)
