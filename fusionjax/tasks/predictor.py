"""What tasks ask of a model, and the answers of a run's."""

import functools
from typing import Any, NamedTuple, Protocol

import jax.numpy as jnp
import numpy as np

from fusionjax.data.inputs import Inputs
from fusionjax.evaluation.link_prediction import TripleScore
from fusionjax.evaluation.triples import inductive_vectors, score_triples, triple_scores
from fusionjax.inference import Encoder, features_of
from fusionjax.losses import normalise
from fusionjax.models.entities import GRAPH, EntityModel


class TripleScorers(NamedTuple):
    """Scores of all tails and heads of a batch of triples, as `evaluation.link_prediction` takes them."""

    tails: TripleScore
    heads: TripleScore
    params: Any
    candidates: Any


class Predictor(Protocol):
    """A model with its parameters. It answers what its objectives have taught it; tasks ask for nothing else."""

    def unit_products(self) -> np.ndarray:
        """float32 [n_products, p], of length 1."""
        ...

    def queries(self, rows: np.ndarray) -> np.ndarray:
        """float32 [n, p]: unit vectors of the shop's queries with these numbers."""
        ...

    def users(self, user: np.ndarray, before: np.ndarray) -> np.ndarray:
        """float32 [n, p]: unit vectors of users after the events that come before event row `before`, int [n]."""
        ...

    def triple_scorers(self) -> TripleScorers: ...

    def score_triples(self, triples: np.ndarray) -> np.ndarray:
        """float32 [n], of int32 [n, 3]; higher is more plausible."""
        ...


class RunPredictor:
    """The model of a run on its inputs.

    Args:
      encoder: the model with its parameters.
      bank: text vectors of all products, encoded with the same parameters.
      raw: product vectors, if they are already known.
    """

    def __init__(self, encoder: Encoder, bank: Any, inputs: Inputs, raw: np.ndarray | None = None) -> None:
        self.encoder, self.bank, self.inputs, self._raw = encoder, bank, inputs, raw

    @functools.cached_property
    def raw(self) -> np.ndarray:
        """float32 [n_products, p]: product vectors as the user tower reads them, not of unit length."""
        return self.encoder.products(self.bank, self.inputs) if self._raw is None else self._raw

    @functools.cached_property
    def _unit(self) -> np.ndarray:
        return np.asarray(normalise(jnp.asarray(self.raw)))

    def unit_products(self) -> np.ndarray:
        return self._unit

    def queries(self, rows: np.ndarray) -> np.ndarray:
        assert self.inputs.query_tokens is not None
        return self.encoder.queries(self.inputs.query_tokens[rows])

    def users(self, user: np.ndarray, before: np.ndarray) -> np.ndarray:
        assert self.inputs.sequences is not None
        return self.encoder.users(self.raw, self.inputs.sequences, user, before, self.inputs.profile)

    @property
    def _entities(self) -> EntityModel:
        entities = self.encoder.model.layout.entities
        assert entities is not None
        return entities

    def triple_scorers(self) -> TripleScorers:
        params = self.encoder.params[GRAPH]
        entities = inductive_vectors(self._entities, params, features_of(self.inputs))
        given = {"entities": entities, "relations": params["relations"], "shared": params.get("shared", {})}
        return TripleScorers(*triple_scores(self._entities), given, entities)

    def score_triples(self, triples: np.ndarray) -> np.ndarray:
        return score_triples(self._entities, self.encoder.params[GRAPH], features_of(self.inputs), triples)
