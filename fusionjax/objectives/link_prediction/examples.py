"""What an epoch of link prediction goes over, and the batch a device makes of it."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from fusionjax.config.schema import LinkPrediction
from fusionjax.models.entities import EntityModel
from fusionjax.objectives.link_prediction import loss
from fusionjax.objectives.link_prediction.graph import TrainGraph
from fusionjax.objectives.link_prediction.strategies import Batch, Strategy


@dataclasses.dataclass(frozen=True)
class Examples:
    """What an epoch passes over once: triples (inverses too), or queries, or their turns."""

    number: int
    batch_size: int
    query: np.ndarray | None = None
    """int [number]: triples of one query are asked together, up to …"""
    together: int = 1
    """… so many at once."""

    @classmethod
    def of(cls, config: LinkPrediction, graph: TrainGraph) -> "Examples":
        if config.training == "one_vs_all" and config.loss.targets:
            return cls(len(graph.triples), config.batch_size, np.asarray(graph.query_of), config.loss.targets)
        several = config.training == "k_vs_all"
        parts = graph.query_of if several and config.loss.targets else graph.queries if several else graph.triples
        return cls(len(parts), config.batch_size)

    @functools.cached_property
    def rows(self) -> int:
        """Queries asked in a pass."""
        if self.query is None:
            return self.number
        return int((-(-np.bincount(self.query) // self.together)).sum())

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
        if self.query is None:
            table[: self.number, 0] = shuffled
        else:
            asked = self.query[shuffled]
            shuffled = shuffled[np.argsort(asked, kind="stable")]  # triples of a query side by side, in random order
            count = np.bincount(asked)
            count = count[count > 0]
            place = np.arange(self.number) - np.repeat(count.cumsum() - count, count)
            before = -(-count // self.together)
            row = np.repeat(before.cumsum() - before, count) + place // self.together
            table[random.permutation(self.rows)[row], place % self.together] = shuffled
        return table.reshape(self.steps, -1)


def batch_of(
    model: EntityModel, config: LinkPrediction, strategy: Strategy, graph: TrainGraph, chosen: Int[Array, "b"], key: Array
) -> Batch:
    of_side, of_draw = jax.random.split(key)
    weight, index = (chosen >= 0).astype(jnp.float32), jnp.maximum(chosen, 0)
    if config.training == "one_vs_all" and config.loss.targets:
        return _together_asked(graph, index.reshape(-1, config.loss.targets), weight.reshape(-1, config.loss.targets))
    if config.training == "k_vs_all":
        if config.loss.targets:
            index = graph.query_of[index]
            weight = weight * graph.targets[index]
        source, relation, of_head = (graph.queries[index, column] for column in range(3))
        asks = None if config.reciprocal else of_head == 1
        # There is no one target: the source stands in its place, and nothing reads it.
        asked = loss.Queries(source, relation, source, asks, None, weight)
        pairs = _pairs(config, graph, len(chosen), of_draw) if config.relation_prediction else None
        return Batch(asked, None, None, _labels(graph, index, model.n_entities), pairs)
    asked = loss.ask(config, graph, index, weight, of_side)
    if config.training == "one_vs_all":
        return Batch(asked, None, None, None)
    drawn, nothing = loss.candidates(model, config, graph, asked, of_draw, strategy.longest)
    return Batch(asked, drawn, nothing, None)


def _together_asked(graph: TrainGraph, index: Int[Array, "b n"], there: Array) -> Batch:
    """Queries with some of their targets each."""
    triples = graph.triples[index]
    source, relation, target = (triples[:, 0, column] for column in range(3))
    asked = loss.Queries(source, relation, target, None, None, there.sum(1))
    pairs = loss.Queries(*triples.reshape(-1, 3).T, of_head=None, known_row=None, weight=there.reshape(-1))
    share = there / jnp.maximum(asked.weight, 1.0)[:, None]
    return Batch(asked, None, None, loss.Targets(triples[:, :, 2], share), pairs)


def _pairs(config: LinkPrediction, graph: TrainGraph, b: int, key: Array) -> loss.Queries:
    """Triples drawn at random, as many as a batch of `b` stands for in the mean."""
    n = len(graph.triples)
    index = jax.random.randint(key, (-(-b * n // Examples.of(config, graph).number),), 0, n)
    return loss.ask(config, graph, index, jnp.ones(index.shape), key)


def _labels(graph: TrainGraph, index: Int[Array, "b"], n_entities: int) -> Array:
    bits = graph.labels[index]
    unpacked = (bits[:, :, None] >> jnp.arange(8, dtype=jnp.uint8)[None, None]) & 1
    return unpacked.reshape(len(index), -1)[:, :n_entities] == 1
