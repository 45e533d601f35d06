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
from jaxtyping import Array, Float, Int

from fusionjax.config.kge import Kge
from fusionjax.kge import objective
from fusionjax.kge.graph import TrainGraph
from fusionjax.kge.model import Features, GraphModel, Params
from fusionjax.kge.objective import Hyper, Vectors
from fusionjax.kge.optimiser import descend, descend_rows, rule

DENSE_ENTITIES = 80
"""A question's own candidates are picked from its scores of all entities, by one matrix product, up to this many times as many
entities as candidates: a gathered row costs about as much as that many rows of a matrix product (measured on CPUs)."""

State = dict[str, Any]
"""`params`, `opt` (optimiser state of `entities` and of the rest), `step` int32 []: steps done."""
Epoch = Callable[[State, TrainGraph, Features, Hyper, Array, Array], tuple[State, dict[str, Array]]]


@dataclasses.dataclass(frozen=True)
class Way:
    """How a batch is computed; static under jit."""

    against: str
    """all, picked (drawn candidates out of scores of all), gathered (vectors of drawn candidates)."""
    rows: bool
    """Only the rows of a batch are updated."""
    longest: int = 0
    """Of the known-true index."""


def way_of(model: GraphModel, config: Kge, graph: TrainGraph) -> Way:
    """The cheapest way to compute what the config asks for."""
    if config.training != "negatives":
        return Way("all", False)
    longest = int(np.diff(np.asarray(graph.known_offsets)).max(initial=0))
    settings, width = config.negatives, model.n_entities
    dense = config.optimiser.rows != "on" and not (config.penalty.name != "none" and not config.penalty.weighted)
    if dense and not settings.shared and model.scorer.product and width <= DENSE_ENTITIES * settings.number:
        return Way("picked", False, longest)
    questions = config.batch_size * (1 if config.reciprocal or settings.questions != "both" else 2)
    touched = 2 * questions + (questions // settings.shared if settings.shared else questions) * settings.number
    rows = model.has_table and (config.optimiser.rows == "on" or (config.optimiser.rows == "auto" and touched < width))
    return Way("gathered", rows, longest)


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


def order(seed: int, epoch: int, n: int, batch_size: int) -> np.ndarray:
    """The examples of an epoch in random order, int32 [steps, b]; −1 fills up the last batch.

    Drawn on the host: sorting random keys on a CPU device takes longer than training on a small graph.
    """
    shuffled = np.random.Generator(np.random.Philox([seed, epoch])).permutation(n).astype(np.int32)
    steps = -(-n // batch_size)
    return np.concatenate([shuffled, np.full(steps * batch_size - n, -1, np.int32)]).reshape(steps, batch_size)


def build_epoch(model: GraphModel, config: Kge, way: Way) -> Epoch:
    """`(state, graph, features, hyper, order int32 [steps, b], key) → (state, sums)`: pure, to be jitted or vmapped.

    The order is a pass over the triples, or a piece of one. The sums: `loss` and its parts, over the steps.
    """
    of = rule(config.optimiser)

    def parts_of(
        params: Params,
        features: Features,
        graph: TrainGraph,
        hyper: Hyper,
        index: Int[Array, "b"],
        key: Array,
        rows: Float[Array, "m w"] | None,
        numbers: Int[Array, "m"] | None,
        asked: objective.Questions,
        drawn: tuple[Array, Array] | None,
    ) -> tuple[Array, dict[str, Array]]:
        """(loss, its parts). `rows`: the table's rows of all entities the batch touches, in the order anchors, answers,
        candidates; None: from the whole table."""
        of_anchor, of_relation, inside = jax.random.split(key, 3)
        shared = params.get("shared")
        q = asked.anchor.shape[0]
        entities = None
        if way.against == "gathered":
            assert numbers is not None and drawn is not None
            given = rows if rows is not None else (params["entities"][numbers] if model.has_table else None)
            found = model.compose(given, params, features, numbers)
            anchor, answer = found[:q], found[q : 2 * q]
        else:
            entities = model.vectors(params, features)
            anchor, answer = entities[asked.anchor], entities[asked.answer]
            found = entities
        relation = params["relations"][asked.relation]
        vectors = Vectors(anchor, relation, answer)
        dropped = vectors
        if config.dropout.entity:
            dropped = dropped._replace(anchor=objective.drop(anchor, hyper["drop_entity"], of_anchor))
        if config.dropout.relation:
            dropped = dropped._replace(relation=objective.drop(relation, hyper["drop_relation"], of_relation))

        if way.against == "gathered":
            assert drawn is not None
            corrupt = found[2 * q :].reshape(*drawn[0].shape, -1)
            each = objective.against_drawn(model, config, hyper, asked, dropped, corrupt, drawn[1], shared, inside)
        elif way.against == "picked":
            assert drawn is not None and entities is not None
            scores = model.score_all(dropped.anchor, dropped.relation, asked.of_head, entities, shared, inside)
            picked = jnp.take_along_axis(scores, jnp.concatenate([asked.answer[:, None], drawn[0]], 1), axis=1)
            each = objective.loss_of_questions(config, hyper, picked[:, 0], picked[:, 1:], drawn[1])
        else:
            assert entities is not None
            labels = _labels(graph, index, model.n_entities) if config.training == "k_vs_all" else None
            each = objective.against_all(model, config, hyper, asked, dropped, entities, labels, shared, inside)
        parts = {"link_prediction": (each * asked.weight).sum() / jnp.maximum(asked.weight.sum(), 1.0)}
        if config.penalty.name != "none":
            parts["penalty"] = objective.penalty(model, config, hyper, params, vectors, asked)
        if config.relation_prediction:
            parts["relation_prediction"] = hyper["relation_prediction"] * objective.relation_loss(model, params, vectors, asked)
        if model.text == "align":
            table = rows[:q] if rows is not None else params["entities"][asked.anchor]
            parts["alignment"] = hyper["align"] * objective.alignment(model, hyper, params, features, table, asked.anchor)
        return sum(parts.values(), jnp.zeros(())), parts

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
        key = jax.random.fold_in(key, number)
        of_side, of_draw, of_loss = jax.random.split(key, 3)
        weight = (chosen >= 0).astype(jnp.float32)
        index = jnp.maximum(chosen, 0)
        if config.training == "k_vs_all":
            anchor, relation, of_head = (graph.questions[index, column] for column in range(3))
            asks = None if config.reciprocal else of_head == 1
            asked = objective.Questions(anchor, relation, anchor, asks, None, weight)
        else:
            asked = objective.ask(config, graph, index, weight, of_side)
        drawn = numbers = None
        if config.training == "negatives":
            drawn = objective.candidates(model, config, graph, asked, of_draw, way.longest)
            numbers = jnp.concatenate([asked.anchor, asked.answer, drawn[0].reshape(-1)])
        given = (features, graph, hyper, index, of_loss)
        rate = hyper["learning_rate"]
        if not way.rows:
            (loss, parts), gradients = jax.value_and_grad(
                lambda p: parts_of(p, *given, None, numbers, asked, drawn), has_aux=True
            )(params)
            table, rest = _apart(params)
            of_table, of_rest = _apart(gradients)
            rest, opt_rest = descend(of, rest, of_rest, opt["rest"], rate)
            opt_table = opt["entities"]
            if table is not None:
                table, opt_table = descend(of, table, of_table, opt_table, rate)
            return (_together(table, rest), {"entities": opt_table, "rest": opt_rest}, scratch), {"loss": loss, **parts}
        assert numbers is not None
        table, rest = _apart(params)
        # The barrier makes the rows an array of their own: fused into what reads them, each number would be looked up alone.
        rows = lax.optimization_barrier(table.at[numbers].get(mode="promise_in_bounds"))
        (loss, parts), (of_rest, of_rows) = jax.value_and_grad(
            lambda r, v: parts_of(r, *given, v, numbers, asked, drawn), argnums=(0, 1), has_aux=True
        )(rest, rows)
        rest, opt_rest = descend(of, rest, of_rest, opt["rest"], rate)
        table, opt_table, scratch = descend_rows(of, table, of_rows, numbers, opt["entities"], rate, scratch)
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


def examples_of(config: Kge, graph: TrainGraph) -> int:
    """What an epoch passes over once: triples (inverses too), or questions."""
    return len(graph.questions if config.training == "k_vs_all" else graph.triples)


def _labels(graph: TrainGraph, index: Int[Array, "b"], n_entities: int) -> Array:
    bits = graph.labels[index]
    unpacked = (bits[:, :, None] >> jnp.arange(8, dtype=jnp.uint8)[None, None]) & 1
    return unpacked.reshape(len(index), -1)[:, :n_entities] == 1


def _apart(params: Params) -> tuple[Any, Params]:
    """(the entity table or None, all else)."""
    return params.get("entities"), {name: part for name, part in params.items() if name != "entities"}


def _together(table: Any, rest: Params) -> Params:
    return rest if table is None else {"entities": table, **rest}
