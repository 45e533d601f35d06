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

from fusionjax.config.schema import LinkPrediction
from fusionjax.kge import objective
from fusionjax.objectives.link_prediction.graph import TrainGraph
from fusionjax.models.entities import Features, EntityModel, Params
from fusionjax.objectives.link_prediction.loss import Hyper
from fusionjax.kge.optimiser import descend, descend_rows, one_of_equal, rule
from fusionjax.objectives.link_prediction.strategies import Batch, Strategy, entities_of, loss_of, renumbered

State = dict[str, Any]
"""`params`, `opt` (optimiser state of `entities` and of the rest), `step` int32 []: steps done."""
Epoch = Callable[[State, TrainGraph, Features, Hyper, Array, Array], tuple[State, dict[str, Array]]]


def init_state(model: EntityModel, config: LinkPrediction, seed: Any) -> State:
    """A fresh state; `seed` may be traced."""
    params = model.init(jax.random.key(seed))
    table, rest = _apart(params)
    of = rule(config.optimiser)
    return {
        "params": params,
        "opt": {"entities": of.init(table) if table is not None else (), "rest": of.init(rest)},
        "step": jnp.zeros((), jnp.int32),
    }


def build_epoch(model: EntityModel, config: LinkPrediction, strategy: Strategy) -> Epoch:
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
        batch = _batch(model, config, strategy, graph, chosen, of_batch)
        table, rest = _apart(params)
        rate, opt_table, numbers, places = hyper["learning_rate"], opt["entities"], None, None
        if strategy.rows:
            # The batch's entities stand for all: what follows is as for a graph of these.
            numbers = entities_of(strategy, batch)
            places, scratch = one_of_equal(numbers, scratch)
            batch, features = renumbered(strategy, batch, places), jax.tree.map(lambda part: part[numbers], features)
            # The barrier makes the rows an array of their own: fused into what reads them, each number is looked up alone.
            params = _together(lax.optimization_barrier(table.at[numbers].get(mode="promise_in_bounds")), rest)
        (loss, parts), gradients = jax.value_and_grad(
            lambda p: loss_of(model, config, strategy, p, features, hyper, batch, of_loss), has_aux=True
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
        scratch = jnp.zeros(model.n_entities if strategy.rows else 0, jnp.int32)
        turn = functools.partial(step, graph=graph, features=features, hyper=hyper, key=key)
        carry = (state["params"], state["opt"], scratch)
        steps = len(chosen)
        numbers = state["step"] + jnp.arange(steps, dtype=jnp.int32)
        (params, opt, _), parts = lax.scan(turn, carry, (chosen, numbers))
        sums = jax.tree.map(lambda values: values.sum(), parts)
        return {"params": params, "opt": opt, "step": state["step"] + steps}, sums

    return epoch


def _apart(params: Params) -> tuple[Any, Params]:
    """(the entity table or None, all else)."""
    return params.get("entities"), {name: part for name, part in params.items() if name != "entities"}


def _together(table: Any, rest: Params) -> Params:
    return rest if table is None else {"entities": table, **rest}
