"""Scores of queries' own candidates, one candidate of every query at a time.

All at once they are [q, n, w] numbers, written and read again several times over: more bytes than anything else a step moves.
Here [q, w] rows are looked up, scored and forgotten, and looked up again in the backward pass; they never leave the cache.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

ScoreOne = Callable[[Any, Float[Array, "q w"]], Float[Array, "q"]]
"""(context of the queries, an entity vector for each) → scores; one object at each call, or it compiles anew."""


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def score_candidates(
    score_one: ScoreOne,
    context: Any,
    table: Float[Array, "e w"],
    numbers: Int[Array, "q n"],
) -> Float[Array, "q n"]:
    """Scores of the entities with these numbers.

    Args:
      score_one: how one candidate of each query is scored.
      context: what it knows of the queries (queries; or sources and relations); differentiated.
      table: entity vectors; differentiated.
    """
    return _forwards(score_one, context, table, numbers)[0]


def _look_up(table: Array, chosen: Array) -> Array:
    # The barrier makes the rows an array of their own: fused into what reads them, each number would be looked up alone.
    return lax.optimization_barrier(table.at[chosen].get(mode="promise_in_bounds"))


def _forwards(score_one: ScoreOne, context: Any, table: Array, numbers: Array) -> tuple[Array, Any]:
    def turn(_: None, chosen: Array) -> tuple[None, Array]:
        return None, score_one(context, _look_up(table, chosen))

    return lax.scan(turn, None, numbers.T)[1].T, (context, table, numbers)


def _backwards(score_one: ScoreOne, kept: Any, gradient: Array) -> tuple[Any, Array, None]:
    context, table, numbers = kept

    def turn(carry: tuple[Any, Array], x: tuple[Array, Array]) -> tuple[tuple[Any, Array], None]:
        of_context, of_table = carry
        chosen, own = x
        _, pull = jax.vjp(score_one, context, _look_up(table, chosen))
        more, of_rows = pull(own)
        return (jax.tree.map(jnp.add, of_context, more), of_table.at[chosen].add(of_rows, mode="promise_in_bounds")), None

    start = jax.tree.map(jnp.zeros_like, context), jnp.zeros_like(table)
    (of_context, of_table), _ = lax.scan(turn, start, (numbers.T, gradient.T))
    return of_context, of_table, None


score_candidates.defvjp(_forwards, _backwards)
