"""Negatives, drawn on the device: no host work and no copy in the inner loop."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from fusionjax.config.schema import Negatives
from fusionjax.objectives.link_prediction.graph import TrainGraph


def draw(
    key: Array,
    shape: tuple[int, int],
    relation: Int[Array, "q"],
    of_head: Bool[Array, "q"],
    graph: TrainGraph,
    n_entities: int,
    config: Negatives,
) -> Int[Array, "c n"]:
    """Candidate entities.

    Args:
      shape: (queries or chunks, candidates of each).
      relation, of_head: of each query; typed candidates only, which are never shared.
    """
    if config.sampler == "degree":
        cell = below(key, shape, n_entities)
        toss = jax.random.uniform(jax.random.fold_in(key, 1), shape)
        return jnp.where(toss < graph.alias[cell], cell, graph.alias_other[cell])
    if config.sampler == "typed":
        row = relation + jnp.where(of_head, (graph.typed_offsets.shape[0] - 1) // 2, 0)
        start, stop = graph.typed_offsets[row], graph.typed_offsets[row + 1]
        toss = jax.random.uniform(key, shape)
        place = (toss * (stop - start)[:, None]).astype(
            jnp.int32
        )  # float32 is exact up to 16 M, enough for one relation's ends
        return graph.typed[jnp.minimum(start[:, None] + place, stop[:, None] - 1)]
    return below(key, shape, n_entities)


def below(key: Array, shape: tuple[int, ...], n: int) -> Int[Array, "..."]:
    """Uniform numbers from 0 to n − 1, n < 2³¹: ⌊n · x / 2³²⌋ of 32 random bits x, whose chances differ by less than 2⁻³².

    `jax.random.randint` draws twice as many bits, and divides: half of what drawing takes a CPU.
    """
    bits = jax.random.bits(key, shape, jnp.uint32)
    high, low = bits >> 16, bits & 0xFFFF
    n_high, n_low = n >> 16, n & 0xFFFF
    middle = high * jnp.uint32(n_low) + ((low * jnp.uint32(n_low)) >> 16)
    carry = (low * jnp.uint32(n_high) + (middle & 0xFFFF)) >> 16
    return (high * jnp.uint32(n_high) + (middle >> 16) + carry).astype(jnp.int32)


def is_known(row: Int[Array, "q"], candidates: Int[Array, "q n"], graph: TrainGraph, longest: int) -> Bool[Array, "q n"]:
    """Whether each candidate is a true target in training: bisection in the query's row of the known-true index.

    Args:
      row: of each query in `graph.known_offsets`.
      longest: length of the index's longest row (static: the number of halvings follows from it).
    """
    low = jnp.broadcast_to(graph.known_offsets[row][:, None], candidates.shape)
    end = graph.known_offsets[row + 1][:, None]
    high = jnp.broadcast_to(end, candidates.shape)
    for _ in range(max(longest, 1).bit_length()):
        middle = (low + high) // 2
        right = (graph.known[jnp.minimum(middle, graph.known.shape[0] - 1)] < candidates) & (middle < high)
        low, high = jnp.where(right, middle + 1, low), jnp.where(right, high, middle)
    return (low < end) & (graph.known[jnp.minimum(low, graph.known.shape[0] - 1)] == candidates)
