"""Optimiser steps on whole tables, or on the rows a batch touched alone: then a step costs the same however many entities.

The rule is one optax transformation of element-wise state, so that it does to some rows what it does to a whole table. Adagrad
is then exactly what it is on the whole table, for rows without a gradient stand still there too. Adam is lazy: moments of
rows left out do not decay (as torch's SparseAdam).
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from fusionjax.config.kge import Optimiser


def rule(config: Optimiser) -> optax.GradientTransformation:
    """Gradients → directions, to be multiplied by −learning rate.

    torch's Adagrad starts its sum of squares at 0 and divides by √s + 1e-10; optax's starts at 0.1 and divides by √(s + 1e-7).
    An epsilon of 1e-20 inside the root is torch's 1e-10 outside it, up to rounding, wherever either counts at all.
    """
    match config.name:
        case "adagrad_torch":
            return optax.scale_by_rss(initial_accumulator_value=0.0, eps=1e-20)
        case "adagrad_optax":
            return optax.scale_by_rss(initial_accumulator_value=0.1, eps=1e-7)
        case "adam":
            return optax.scale_by_adam()
        case "sgd":
            return optax.identity()


def descend(
    of: optax.GradientTransformation, params: Any, gradients: Any, state: optax.OptState, rate: Array
) -> tuple[Any, optax.OptState]:
    """(parameters, state) after a step on all of them."""
    directions, state = of.update(gradients, state)
    return jax.tree.map(lambda value, direction: value - rate * direction, params, directions), state


def one_of_equal(numbers: Int[Array, "m"], scratch: Int[Array, "e"]) -> tuple[Int[Array, "m"], Int[Array, "e"]]:
    """(the place of one row for each row, the same for equal rows; scratch).

    Args:
      numbers: of rows of a table of e, as often as they occur.
      scratch: any numbers; comes back changed. It tells equal rows apart without sorting them or clearing anything.
    """
    scratch = scratch.at[numbers].set(jnp.arange(len(numbers), dtype=jnp.int32), mode="promise_in_bounds")
    return scratch[numbers], scratch


def descend_rows(
    of: optax.GradientTransformation,
    table: Float[Array, "e w"],
    gradients: Float[Array, "m w"],
    numbers: Int[Array, "m"],
    places: Int[Array, "m"],
    state: optax.OptState,
    rate: Array,
) -> tuple[Float[Array, "e w"], optax.OptState]:
    """(table, state) after a step on some rows, in place where the table is donated or carried by a loop.

    Args:
      numbers, places: of the rows, and by `one_of_equal`.
      gradients: those of rows that stand for equal ones; the others are not read.
    """
    m, e = len(numbers), len(table)
    target = jnp.where(places == jnp.arange(m), numbers, e)  # the others fall outside, and are dropped

    def is_rows(leaf: Array) -> bool:
        return leaf.shape[:1] == (e,)

    own = jax.tree.map(lambda leaf: leaf.at[numbers].get(mode="promise_in_bounds") if is_rows(leaf) else leaf, state)
    directions, own = of.update(gradients, own)
    table = table.at[target].add(-rate * jnp.asarray(directions), mode="drop")
    state = jax.tree.map(lambda leaf, new: leaf.at[target].set(new, mode="drop") if is_rows(leaf) else new, state, own)
    return table, state
