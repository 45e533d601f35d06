"""A graph-embedding model as tasks ask it."""

import dataclasses

import numpy as np

from fusionjax.kge.evaluate import _vectors, score_triples, triple_scores
from fusionjax.kge.model import Features, GraphModel, Params
from fusionjax.tasks.predictor import TripleScorers


@dataclasses.dataclass(frozen=True)
class GraphPredictor:
    """Entities unseen in training answer by their text and numbers, where they have any."""

    model: GraphModel
    params: Params
    features: Features

    def triple_scorers(self) -> TripleScorers:
        entities = _vectors(self.model)(self.params, self.features)
        given = {"entities": entities, "relations": self.params["relations"], "shared": self.params.get("shared", {})}
        return TripleScorers(*triple_scores(self.model), given, entities)

    def score_triples(self, triples: np.ndarray) -> np.ndarray:
        """float32 [n]: with reciprocal relations the mean of both directions."""
        return score_triples(self.model, self.params, self.features, triples)

    def unit_products(self) -> np.ndarray:
        raise NotImplementedError("a graph alone has no product tower")

    def queries(self, rows: np.ndarray) -> np.ndarray:
        raise NotImplementedError("a graph alone has no query tower")

    def users(self, user: np.ndarray, before: np.ndarray) -> np.ndarray:
        raise NotImplementedError("a graph alone has no user tower")
