"""Negatives, drawn on the device: no host work and no copy in the inner loop. A sampler is a function, named in `SAMPLERS`."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from fusionjax.config.schema import Negatives
from fusionjax.objectives.link_prediction.graph import TrainGraph
from fusionjax.registry import Registry


class Drawn(NamedTuple):
    """What a sampler is told."""

    shape: tuple[int, int]
    """(queries or chunks, candidates of each)."""
    relation: Int[Array, "q"]
    """Of each query; for samplers whose draws are not shared."""
    of_head: Bool[Array, "q"]
    """Whether a query asks for its head."""
    graph: TrainGraph
    n_entities: int


Sampler = Callable[[Array, Drawn], Int[Array, "c n"]]
"""(key, what is asked for) -> candidate entities [c, n], drawn on the device."""


def uniform(key: Array, asked: Drawn) -> Int[Array, "c n"]:
    """All entities alike."""
    return below(key, asked.shape, asked.n_entities)


def by_degree(key: Array, asked: Drawn) -> Int[Array, "c n"]:
    """In proportion to a power of the degree, by the alias method."""
    cell = below(key, asked.shape, asked.n_entities)
    toss = jax.random.uniform(jax.random.fold_in(key, 1), asked.shape)
    return jnp.where(toss < asked.graph.alias[cell], cell, asked.graph.alias_other[cell])


def typed(key: Array, asked: Drawn) -> Int[Array, "c n"]:
    """From the entities that the query's relation has at that end in training."""
    graph = asked.graph
    row = asked.relation + jnp.where(asked.of_head, (graph.typed_offsets.shape[0] - 1) // 2, 0)
    start, stop = graph.typed_offsets[row], graph.typed_offsets[row + 1]
    toss = jax.random.uniform(key, asked.shape)
    # float32 is exact up to 16 M, enough for one relation's ends
    place = (toss * (stop - start)[:, None]).astype(jnp.int32)
    return graph.typed[jnp.minimum(start[:, None] + place, stop[:, None] - 1)]


_OWN: dict[str, Sampler] = {"uniform": uniform, "degree": by_degree, "typed": typed}
SAMPLERS: Registry[Sampler] = Registry("fusionjax.samplers", Callable, _OWN, instances=True)


def draw(
    key: Array,
    shape: tuple[int, int],
    relation: Int[Array, "q"],
    of_head: Bool[Array, "q"],
    graph: TrainGraph,
    n_entities: int,
    config: Negatives,
) -> Int[Array, "c n"]:
    """Candidate entities by the sampler of the config; see `Drawn`."""
    return SAMPLERS[config.sampler](key, Drawn(shape, relation, of_head, graph, n_entities))


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
