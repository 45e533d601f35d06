"""Link prediction: a triple's tail is predicted from its head and relation, and its head from its tail and relation."""

import dataclasses
import functools
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from fusionjax.config import schema
from fusionjax.data.inputs import Inputs
from fusionjax.data.shop import TRAIN
from fusionjax.errors import UserError
from fusionjax.models.entities import GRAPH
from fusionjax.objectives.base import Entry, Objective
from fusionjax.objectives.link_prediction.examples import Examples, batch_of
from fusionjax.objectives.link_prediction.graph import train_graph
from fusionjax.objectives.link_prediction.strategies import entities_of, loss_of, renumbered
from fusionjax.objectives.towers import Towers


class LinkPrediction(Objective):
    """Training triples of the graph, or its queries.

    A batch is `chosen`: int32 [b · n], places among the examples of an epoch (−1 fills up the last batch); the rest of it, the
    negatives too, is drawn on the device.
    """

    name = "link_prediction"

    def __init__(self, inputs: Inputs, config: schema.Run) -> None:
        links, graph = config.objectives.link_prediction, inputs.graph
        triples = graph.triples(TRAIN)
        if not len(triples):
            raise UserError("objectives.link_prediction: the graph has no training triple (see data.graph)")
        try:
            self.graph = train_graph(triples, len(graph.entities), len(graph.relations), links)
        except ValueError as error:
            raise UserError(f"objectives.link_prediction.{error}") from None
        self.examples, self.seed = Examples.of(links, self.graph), config.seed
        self.order = functools.lru_cache(maxsize=2)(self.examples.order)

    @property
    def steps_per_epoch(self) -> int:
        return self.examples.steps

    def batch(self, index: int) -> Entry:
        epoch, place = divmod(index, self.examples.steps)
        return {"chosen": self.order(self.seed, epoch)[place]}

    @staticmethod
    def loss(towers: Towers, batch: dict[str, Array]) -> Float[Array, ""]:
        """The named loss, its penalty, and what else `objectives.link_prediction` and `model.entity.text` weigh."""
        links, entities = towers.config.objectives.link_prediction, towers.model.layout.entities
        graph, features, strategy = towers.catalogue.graph, towers.catalogue.features, towers.strategy
        assert entities is not None and graph is not None and strategy is not None
        made = batch_of(entities, links, strategy, graph, batch["chosen"], towers.next_key())
        params: Any = towers.params[GRAPH]
        if towers.lookups is None:
            strategy = dataclasses.replace(strategy, rows=False)
        elif strategy.rows:
            ids = entities_of(strategy, made)
            params = params | {"entities": towers.lookups(params["entities"], ids)}
            made = renumbered(strategy, made, jnp.arange(len(ids), dtype=jnp.int32))
            features = features.of(ids)
        elif entities.has_table:
            towers.lookups.whole = True
        return loss_of(entities, links, strategy, params, features, towers.numbers, made, towers.next_key())[0]
