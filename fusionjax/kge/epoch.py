"""A pass over the training triples as one compiled program: draw, score, differentiate, update, for every batch in turn.

The triples, the sampler and the parameters are on the device; the host gives the order of the triples and reads a few sums
when the pass is over.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Int

from fusionjax.config.kge import Kge
from fusionjax.kge import objective
from fusionjax.kge.graph import TrainGraph
from fusionjax.kge.model import Features, GraphModel, Params
from fusionjax.kge.objective import Hyper
from fusionjax.kge.optimiser import descend, descend_rows, one_of_equal, rule
from fusionjax.kge.ways import Batch, Way, entities_of, loss_of, renumbered

State = dict[str, Any]
"""`params`, `opt` (optimiser state of `entities` and of the rest), `step` int32 []: steps done."""
Epoch = Callable[[State, TrainGraph, Features, Hyper, Array, Array], tuple[State, dict[str, Array]]]


def init_state(model: GraphModel, config: Kge, seed: Any) -> State:
    """A fresh state; `seed` may be traced."""
    params = model.init(jax.random.key(seed))
    table, rest = _apart(params)
    of = rule(config.optimiser)
    return {
        "params": params,
        "opt": {"entities": of.init(table) if table is not None else (), "rest": of.init(rest)},
        "step": jnp.zeros((), jnp.int32),
    }


@dataclasses.dataclass(frozen=True)
class Examples:
    """What an epoch passes over once: triples (inverses too), or questions, or their turns."""

    number: int
    batch_size: int
    question: np.ndarray | None = None
    """int [number]: triples of one question are asked together, up to …"""
    together: int = 1
    """… so many at once."""

    @classmethod
    def of(cls, config: Kge, graph: TrainGraph) -> "Examples":
        if config.training == "one_vs_all" and config.loss.answers:
            return cls(len(graph.triples), config.batch_size, np.asarray(graph.question_of), config.loss.answers)
        several = config.training == "k_vs_all"
        parts = graph.question_of if several and config.loss.answers else graph.questions if several else graph.triples
        return cls(len(parts), config.batch_size)

    @functools.cached_property
    def rows(self) -> int:
        """Questions asked in a pass."""
        if self.question is None:
            return self.number
        return int((-(-np.bincount(self.question) // self.together)).sum())

    @property
    def steps(self) -> int:
        return -(-self.rows // self.batch_size)

    def order(self, seed: int, epoch: int) -> np.ndarray:
        """The examples of an epoch in random order, int32 [steps, b · together]; −1 fills up.

        Drawn on the host: sorting random keys on a CPU device takes longer than training on a small graph.
        """
        random = np.random.Generator(np.random.Philox([seed, epoch]))
        shuffled = random.permutation(self.number).astype(np.int32)
        table = np.full((self.steps * self.batch_size, self.together), -1, np.int32)
        if self.question is None:
            table[: self.number, 0] = shuffled
        else:
            asked = self.question[shuffled]
            shuffled = shuffled[np.argsort(asked, kind="stable")]  # triples of a question side by side, in random order
            count = np.bincount(asked)
            count = count[count > 0]
            place = np.arange(self.number) - np.repeat(count.cumsum() - count, count)
            before = -(-count // self.together)
            row = np.repeat(before.cumsum() - before, count) + place // self.together
            table[random.permutation(self.rows)[row], place % self.together] = shuffled
        return table.reshape(self.steps, -1)


def build_epoch(model: GraphModel, config: Kge, way: Way) -> Epoch:
    """`(state, graph, features, hyper, order int32 [steps, b], key) → (state, sums)`: pure, to be jitted or vmapped.

    The order is a pass over the triples, or a piece of one. The sums: `loss` and its parts, over the steps.
    """
    of = rule(config.optimiser)

    def step(
        carry: tuple[Params, Any, Array],
        x: tuple[Array, Array],
        graph: TrainGraph,
        features: Features,
        hyper: Hyper,
        key: Array,
    ) -> tuple[tuple[Params, Any, Array], dict[str, Array]]:
        params, opt, scratch = carry
        chosen, number = x
        of_batch, of_loss = jax.random.split(jax.random.fold_in(key, number))
        batch = _batch(model, config, way, graph, chosen, of_batch)
        table, rest = _apart(params)
        rate, opt_table, numbers, places = hyper["learning_rate"], opt["entities"], None, None
        if way.rows:
            # The batch's entities stand for all: what follows is as for a graph of these.
            numbers = entities_of(way, batch)
            places, scratch = one_of_equal(numbers, scratch)
            batch, features = renumbered(way, batch, places), jax.tree.map(lambda part: part[numbers], features)
            # The barrier makes the rows an array of their own: fused into what reads them, each number is looked up alone.
            params = _together(lax.optimization_barrier(table.at[numbers].get(mode="promise_in_bounds")), rest)
        (loss, parts), gradients = jax.value_and_grad(
            lambda p: loss_of(model, config, way, p, features, hyper, batch, of_loss), has_aux=True
        )(params)
        of_table, of_rest = _apart(gradients)
        if numbers is not None and places is not None:
            table, opt_table = descend_rows(of, table, of_table, numbers, places, opt_table, rate)
        elif table is not None:
            table, opt_table = descend(of, table, of_table, opt_table, rate)
        rest, opt_rest = descend(of, rest, of_rest, opt["rest"], rate)
        return (_together(table, rest), {"entities": opt_table, "rest": opt_rest}, scratch), {"loss": loss, **parts}

    def epoch(
        state: State, graph: TrainGraph, features: Features, hyper: Hyper, chosen: Int[Array, "s b"], key: Array
    ) -> tuple[State, dict[str, Array]]:
        scratch = jnp.zeros(model.n_entities if way.rows else 0, jnp.int32)
        turn = functools.partial(step, graph=graph, features=features, hyper=hyper, key=key)
        carry = (state["params"], state["opt"], scratch)
        steps = len(chosen)
        numbers = state["step"] + jnp.arange(steps, dtype=jnp.int32)
        (params, opt, _), parts = lax.scan(turn, carry, (chosen, numbers))
        sums = jax.tree.map(lambda values: values.sum(), parts)
        return {"params": params, "opt": opt, "step": state["step"] + steps}, sums

    return epoch


def _batch(model: GraphModel, config: Kge, way: Way, graph: TrainGraph, chosen: Int[Array, "b"], key: Array) -> Batch:
    of_side, of_draw = jax.random.split(key)
    weight, index = (chosen >= 0).astype(jnp.float32), jnp.maximum(chosen, 0)
    if config.training == "one_vs_all" and config.loss.answers:
        return _together_asked(graph, index.reshape(-1, config.loss.answers), weight.reshape(-1, config.loss.answers))
    if config.training == "k_vs_all":
        if config.loss.answers:
            index = graph.question_of[index]
            weight = weight * graph.answers[index]
        anchor, relation, of_head = (graph.questions[index, column] for column in range(3))
        asks = None if config.reciprocal else of_head == 1
        # There is no one answer: the anchor stands in its place, and nothing reads it.
        asked = objective.Questions(anchor, relation, anchor, asks, None, weight)
        pairs = _pairs(config, graph, len(chosen), of_draw) if config.relation_prediction else None
        return Batch(asked, None, None, _labels(graph, index, model.n_entities), pairs)
    asked = objective.ask(config, graph, index, weight, of_side)
    if config.training == "one_vs_all":
        return Batch(asked, None, None, None)
    drawn, nothing = objective.candidates(model, config, graph, asked, of_draw, way.longest)
    return Batch(asked, drawn, nothing, None)


def _together_asked(graph: TrainGraph, index: Int[Array, "b n"], there: Array) -> Batch:
    """Questions with some of their answers each."""
    triples = graph.triples[index]
    anchor, relation, answer = (triples[:, 0, column] for column in range(3))
    asked = objective.Questions(anchor, relation, answer, None, None, there.sum(1))
    pairs = objective.Questions(*triples.reshape(-1, 3).T, of_head=None, known_row=None, weight=there.reshape(-1))
    share = there / jnp.maximum(asked.weight, 1.0)[:, None]
    return Batch(asked, None, None, objective.Answers(triples[:, :, 2], share), pairs)


def _pairs(config: Kge, graph: TrainGraph, b: int, key: Array) -> objective.Questions:
    """Triples drawn at random, as many as a batch of `b` stands for in the mean."""
    n = len(graph.triples)
    index = jax.random.randint(key, (-(-b * n // Examples.of(config, graph).number),), 0, n)
    return objective.ask(config, graph, index, jnp.ones(index.shape), key)


def _labels(graph: TrainGraph, index: Int[Array, "b"], n_entities: int) -> Array:
    bits = graph.labels[index]
    unpacked = (bits[:, :, None] >> jnp.arange(8, dtype=jnp.uint8)[None, None]) & 1
    return unpacked.reshape(len(index), -1)[:, :n_entities] == 1


def _apart(params: Params) -> tuple[Any, Params]:
    """(the entity table or None, all else)."""
    return params.get("entities"), {name: part for name, part in params.items() if name != "entities"}


def _together(table: Any, rest: Params) -> Params:
    return rest if table is None else {"entities": table, **rest}
