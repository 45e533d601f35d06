"""What tasks ask of a model, and the joint model's answers."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from fusionjax.data.inputs import Inputs
from fusionjax.evaluation.link_prediction import TripleScore
from fusionjax.inference import Encoder
from fusionjax.losses import normalise
from fusionjax.models.scorers import Scorer


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


class JointPredictor:
    """The joint model on the inputs of a run.

    Args:
      encoder: the model with its parameters.
      bank: text vectors of all products, encoded with the same parameters.
      raw: product vectors, if they are already known.
    """

    def __init__(self, encoder: Encoder, bank: Any, inputs: Inputs, raw: np.ndarray | None = None) -> None:
        self.encoder, self.bank, self.inputs, self._raw = encoder, bank, inputs, raw

    @functools.cached_property
    def raw(self) -> np.ndarray:
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

    def triple_scorers(self) -> TripleScorers:
        params = self._triple_params()
        return TripleScorers(*_triple_scores(self.encoder.model.layout.triples), params, params["entities"])

    def score_triples(self, triples: np.ndarray, batch_size: int = 4096) -> np.ndarray:
        scorer, params, found = self.encoder.model.layout.triples, self._triple_params(), [np.zeros(0, np.float32)]
        for start in range(0, len(triples), batch_size):
            found.append(np.asarray(_scores(scorer, params, jnp.asarray(triples[start : start + batch_size]))))
        return np.concatenate(found)

    def _triple_params(self) -> dict[str, Any]:
        return {name: self.encoder.params[name]["embedding"] for name in ("entities", "relations")}


@functools.lru_cache(maxsize=16)
def _triple_scores(scorer: Scorer) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """(score of every tail, score of every head) of a batch of anchors: one object a scorer, so that it compiles once.

    Both take the scorer's parameters: `entities`, `relations` and, if it has some, `shared`.
    """

    def tails(params: Any, head: Any, relation: Any, candidates: Any) -> Any:
        return scorer.score_tails(params["entities"][head], params["relations"][relation], candidates, params.get("shared"))

    def heads(params: Any, tail: Any, relation: Any, candidates: Any) -> Any:
        return scorer.score_heads(params["relations"][relation], params["entities"][tail], candidates, params.get("shared"))

    return tails, heads


@functools.partial(jax.jit, static_argnums=0)
def _scores(scorer: Scorer, params: Any, triples: Any) -> Any:
    head, relation, tail = triples.T
    entities = params["entities"]
    return scorer.score(entities[head], params["relations"][relation], entities[tail], params.get("shared"))
