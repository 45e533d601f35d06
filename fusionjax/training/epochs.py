"""The driver of runs whose only objective is link prediction: an epoch is one compiled program over batches a device makes.

The triples, the sampler and the parameters are on the device; the host gives the order of the triples and reads a few sums when
an epoch is over. Several runs that differ in their seed (or in numbers of the loss) are one stack of states
(`parallel.each_run`); each keeps its own random draws, journal and run folder.
"""

import contextlib
import dataclasses
import functools
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Int

from fusionjax.config import schema
from fusionjax.errors import Interrupted
from fusionjax.models.entities import GRAPH, EntityModel, Features
from fusionjax.models.joint import JointModel
from fusionjax.objectives.link_prediction.examples import batch_of
from fusionjax.objectives.link_prediction.graph import TrainGraph
from fusionjax.objectives.link_prediction.loss import hyper_of
from fusionjax.objectives.link_prediction.objective import LinkPrediction
from fusionjax.objectives.link_prediction.strategies import Strategy, entities_of, loss_of, renumbered, strategy_of
from fusionjax.objectives.towers import Catalogue
from fusionjax.training import parallel
from fusionjax.training.journal import Journal, Say
from fusionjax.training.log import Bar
from fusionjax.training.optimiser import Optimiser, SparseRows, one_of_equal
from fusionjax.training.state import TrainState, create

PIECE = 1000
"""Steps of a program at most: a longer epoch is cut, so that the progress bar moves and SIGTERM is heard."""
Numbers = Mapping[str, Any]
"""`rates` of the groups of parameters, and what `hyper_of` names: float32 []."""
Epoch = Callable[[TrainState, TrainGraph, Features, Numbers, Array, Array], tuple[TrainState, dict[str, Array]]]


def by_epochs(config: schema.Run) -> bool:
    """Whether this driver trains the run."""
    links, train = config.objectives.link_prediction, config.train
    plain = (links.every, links.begin, links.end) == (1, 0.0, 1.0)
    return config.only_objective == "link_prediction" and plain and (train.accumulate, train.precision) == (1, "float32")


def build_epoch(entities: EntityModel, links: schema.LinkPrediction, strategy: Strategy, optimiser: Optimiser) -> Epoch:
    """`(state, graph, features, numbers, order int32 [steps, b], key) → (state, sums)`: pure, to be jitted or vmapped.

    The order is an epoch, or a piece of one. The sums: `loss` and its parts, over the steps.
    """

    def step(
        carry: tuple[Any, Any, Array],
        x: tuple[Array, Array],
        graph: TrainGraph,
        features: Features,
        numbers: Numbers,
        key: Array,
    ) -> tuple[tuple[Any, Any, Array], dict[str, Array]]:
        params, opt, scratch = carry
        chosen, number = x
        of_batch, of_loss = jax.random.split(jax.random.fold_in(key, number))
        batch, own, rows = batch_of(entities, links, strategy, graph, chosen, of_batch), params[GRAPH], None
        if strategy.rows:
            # The batch's entities stand for all: what follows is as for a graph of these.
            ids = entities_of(strategy, batch)
            places, scratch = one_of_equal(ids, scratch)
            rows = SparseRows(ids, places)
            batch, features = renumbered(strategy, batch, places), features.of(ids)
            # The barrier makes the rows an array of their own: fused into what reads them, each is looked up alone.
            own = own | {"entities": lax.optimization_barrier(own["entities"].at[ids].get(mode="promise_in_bounds"))}
        (loss, parts), gradient = jax.value_and_grad(
            lambda p: loss_of(entities, links, strategy, p, features, numbers, batch, of_loss), has_aux=True
        )(own)
        if links.weight != 1:
            loss, gradient = jax.tree.map(lambda part: links.weight * part, (loss, gradient))
        params, opt, _ = optimiser.update(params, {GRAPH: gradient}, opt, numbers["rates"], number, rows)
        return (params, opt, scratch), {"loss": loss, **parts}

    def epoch(
        state: TrainState, graph: TrainGraph, features: Features, numbers: Numbers, chosen: Int[Array, "s b"], key: Array
    ) -> tuple[TrainState, dict[str, Array]]:
        scratch = jnp.zeros(entities.n_entities if strategy.rows else 0, jnp.int32)
        turn = functools.partial(step, graph=graph, features=features, numbers=numbers, key=key)
        at = state.step + jnp.arange(len(chosen), dtype=jnp.int32)
        (params, opt, _), parts = lax.scan(turn, (state.params, state.opt_state, scratch), (chosen, at))
        sums = jax.tree.map(lambda values: values.sum(), parts)
        return dataclasses.replace(state, params=params, opt_state=opt, step=state.step + len(chosen)), sums

    return epoch


class Stack:
    """One run, or several in one program; a lone run's state has no leading axis."""

    def __init__(
        self,
        journals: Sequence[Journal],
        model: JointModel,
        optimiser: Optimiser,
        objective: LinkPrediction,
        constants: Catalogue,
        say: Say,
    ) -> None:
        config = journals[0].config
        links, entities = config.objectives.link_prediction, model.layout.entities
        assert entities is not None
        self.journals, self.optimiser, self.say = journals, optimiser, say
        self.pace, self.keep = journals[0].pace, config.train.average
        self.examples = objective.examples
        self.alone = len(journals) == 1
        self.place = parallel.Placement.of(len(journals), links.batch_size)
        epoch = build_epoch(entities, links, strategy_of(entities, links, objective.graph, optimiser.config.rows), optimiser)
        fresh: Any = functools.partial(create, model, optimiser, self.keep is not None)
        if not self.alone:
            epoch = parallel.each_run(epoch, (0, None, None, 0, 0, 0), apart=self.place.apart)
            fresh = jax.vmap(fresh)
        self.graph, self.features = self.place.everywhere((objective.graph, constants.features))
        self.epoch, self.create = jax.jit(epoch, donate_argnums=0), jax.jit(fresh)
        self.take = jax.jit(lambda tree, row: jax.tree.map(lambda leaf: leaf[row], tree))
        self.blend = jax.jit(lambda old, new, share: jax.tree.map(lambda a, b: a + share * (b - a), old, new))
        self.sums: dict[str, Any] = {}

    def run(self, stop: threading.Event) -> None:
        """Epoch by epoch until no run goes on; one whose loss is not finite stops alone.

        Raises:
          Interrupted: after SIGTERM, once the states are saved.
        """
        seeds = [journal.config.seed for journal in self.journals]
        self.state: TrainState = self.create(jnp.int32(seeds[0]) if self.alone else jnp.asarray(seeds, jnp.int32))
        done, total = self._resume(), self.pace.total
        self.state = self.place.states(self.state)
        keys = [jax.random.key(seed) for seed in seeds]
        self.keys = self.place.states(keys[0] if self.alone else jnp.stack(keys))
        with contextlib.ExitStack() as stack, Bar(total, done, self.say) as bar:
            for journal in self.journals:
                stack.enter_context(journal.opened(done))
            if not total:  # nothing to train: the model is measured as it starts
                self._validate(0)
            while done < total and any(journal.trains for journal in self.journals) and not stop.is_set():
                done = self._epoch(done, bar, stop)
        if stop.is_set() and done < total:
            raise Interrupted(f"stopped by SIGTERM after step {done} of {total}; the same command goes on from there")
        self.done = done

    @property
    def parameters(self) -> int:
        """Of one run."""
        return sum(leaf.size for leaf in jax.tree.leaves(self.state.params)) // len(self.journals)

    def _epoch(self, done: int, bar: Bar, stop: threading.Event) -> int:
        """The rest of an epoch, and what follows it; returns the steps done."""
        steps, total = self.pace.epoch, self.pace.total
        at = done // steps
        orders = [self.examples.order(journal.config.seed, at) for journal in self.journals]
        chosen = self.place.orders(orders[0] if self.alone else np.stack(orders))
        end = min((at + 1) * steps, total)
        while done < end and not stop.is_set():
            # A run of so many steps may be validated within an epoch.
            piece = min(PIECE, end - done, self.pace.validate_every - done % self.pace.validate_every)
            part = chosen[..., done % steps : done % steps + piece, :]
            self.state, more = self.epoch(self.state, self.graph, self.features, self._numbers(), part, self.keys)
            self.sums = {name: self.sums.get(name, 0.0) + value for name, value in more.items()}
            done += piece
            bar.step(done)
            if done < end and self.pace.validates(done):
                break
        if done % steps == 0 or done == total:
            self._record(done, bar)
            self._average(-(-done // steps))
        if self.pace.validates(done):
            self._validate(done)
            self._save()
        elif stop.is_set():
            self._save()
        return done

    def _average(self, epochs: int) -> None:
        """Epoch k of n counts for `average`^(n − k), over the sum of these; where the parameters started counts for nothing."""
        if self.keep is not None:
            share = (1 - self.keep) / (1 - self.keep**epochs)
            average = self.blend(self.state.average, self.state.params, share)
            self.state = dataclasses.replace(self.state, average=average)

    def _numbers(self) -> Numbers:
        base = [
            {
                "rates": journal.rates(self.optimiser.base_rates() | {"tables": own.train.optimiser.learning_rate.tables}),
                **hyper_of(own.objectives.link_prediction, own.model.entity),
            }
            for journal in self.journals
            for own in [journal.config]
        ]
        if self.alone:
            return self.place.states(jax.tree.map(jnp.float32, base[0]))
        return self.place.states(jax.tree.map(lambda *each: jnp.asarray(each, jnp.float32), *base))

    # ------------------------------------------------------------------------------------------------- what follows it
    def _record(self, done: int, bar: Bar) -> None:
        """Losses of an epoch, of every run."""
        steps = (done - 1) % self.pace.epoch + 1
        means = {name: np.atleast_1d(np.asarray(value)) / steps for name, value in self.sums.items()}
        self.sums = {}
        for place, journal in enumerate(self.journals):
            if not journal.trains:
                continue
            row = {("loss" if name == "loss" else f"loss/{name}"): float(value[place]) for name, value in means.items()}
            journal.check(done, row)
            if journal.failure is None:
                journal.record(done, {"epoch": done // self.pace.epoch, **row}, bar.rate)
            else:
                self._failed(journal)
        losses = means["loss"][np.isfinite(means["loss"])]
        if len(losses):
            bar.loss(float(losses.mean()))

    def _validate(self, done: int) -> None:
        for place, journal in enumerate(self.journals):
            if journal.trains:
                state = self._member(place)
                journal.validate(
                    dataclasses.replace(state, params=state.params if state.average is None else state.average), done
                )
                if journal.failure is not None:
                    self._failed(journal)

    def _failed(self, journal: Journal) -> None:
        assert journal.failure is not None
        if self.alone:
            raise journal.failure
        journal.say(f"stopped, the others go on: {journal.failure}")

    def _member(self, place: int) -> TrainState:
        return self.state if self.alone else self.take(self.state, place)

    # ------------------------------------------------------------------------------------------------------ checkpoints
    def _save(self) -> None:
        sums = {name: np.atleast_1d(np.asarray(value)) for name, value in self.sums.items()}
        for place, journal in enumerate(self.journals):
            journal.memory.sums = {name: float(value[place]) for name, value in sums.items()}
            journal.save(self._member(place))

    def _resume(self) -> int:
        """Restores every run at the newest step that all have; returns it. A run that is ahead goes back a checkpoint."""
        step = max(set.intersection(*(journal.checkpoints.steps() for journal in self.journals)), default=0)
        if not step:
            return 0
        states: list[Any] = [journal.restore(self._member(place), step) for place, journal in enumerate(self.journals)]
        sums = [{name: np.float32(value) for name, value in journal.memory.sums.items()} for journal in self.journals]
        self.sums = sums[0] if self.alone else {name: jnp.stack([own[name] for own in sums]) for name in sums[0]}
        self.state = states[0] if self.alone else jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
        self.say(f"resuming at step {step} of {self.pace.total}")
        return step
