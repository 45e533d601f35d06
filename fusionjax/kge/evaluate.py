"""Filtered ranks of a trained model, and its scores of single triples."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fusionjax.evaluation.link_prediction import KnownTrue, RankingPlan
from fusionjax.evaluation.metrics import Result, mean, per_example
from fusionjax.evaluation.segments import SEEN, seen_segment
from fusionjax.kge.model import Between, Features, GraphModel, Params


@dataclasses.dataclass(frozen=True)
class Ranking:
    """Triples to rank, prepared once."""

    plan: RankingPlan
    block: int
    train: np.ndarray
    """int32 [n, 3]: says which entities are unseen."""

    @classmethod
    def of(
        cls, triples: np.ndarray, known: KnownTrue, train: np.ndarray, n_entities: int, batch_size: int, block: int
    ) -> "Ranking":
        return cls(RankingPlan.of(triples, known, n_entities, batch_size=batch_size), block, train)

    def result(self, model: GraphModel, params: Params, features: Features) -> Result:
        """Both directions, every entity ranked; entities unseen in training by their text and numbers where they have any.

        If an answer is unseen, there are also the metrics of seen and unseen answers apart (`mrr/unseen`, …).
        """
        with jax.default_matmul_precision("highest"):  # a GPU would multiply with ten bits after the point
            entities = _vectors(model)(params, features)
            tails, heads = triple_scores(model)
            given = {"entities": entities, "relations": params["relations"], "shared": params.get("shared", {})}
            return self._apart(self.plan.evaluate(tails, heads, given, entities, block=self.block))

    def _apart(self, result: Result) -> Result:
        assert result.examples is not None and result.ranks is not None
        segment = seen_segment(result.examples, self.train, self.plan.n_entities)
        if segment is None:
            return result
        examples = dataclasses.replace(result.examples, segments={**result.examples.segments, "seen": segment})
        more = {
            f"{name}/{label}": mean(values)
            for label in SEEN
            for name, values in per_example(examples, result.ranks, ("seen", label)).items()
        }
        return dataclasses.replace(result, metrics={**result.metrics, **more}, examples=examples)

    def metrics(self, model: GraphModel, params: Params, features: Features) -> dict[str, float]:
        return dict(self.result(model, params, features).metrics)


@functools.lru_cache(maxsize=64)
def _vectors(model: GraphModel) -> Callable[..., Any]:
    return jax.jit(model.inductive)


@functools.lru_cache(maxsize=64)
def triple_scores(model: GraphModel) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """(score of every tail, score of every head) of a batch of anchors: one object a model, so that it compiles once.

    With reciprocal relations heads are tails of the inverse relation.
    """
    inverse = model.n_relations // 2

    def tails(given: Any, head: Any, relation: Any, candidates: Any) -> Any:
        between = Between(relation, given["relations"])
        return model.score_all(given["entities"][head], between, None, candidates, given["shared"])

    def heads(given: Any, tail: Any, relation: Any, candidates: Any) -> Any:
        anchor = given["entities"][tail]
        if model.reciprocal:
            between = Between(relation + inverse, given["relations"])
            return model.score_all(anchor, between, None, candidates, given["shared"])
        of_head = jnp.ones(tail.shape, bool)
        return model.score_all(anchor, Between(relation, given["relations"]), of_head, candidates, given["shared"])

    return tails, heads


def score_triples(
    model: GraphModel, params: Params, features: Features, triples: np.ndarray, batch_size: int = 4096
) -> np.ndarray:
    """float32 [n]: the score of each triple; with reciprocal relations the mean of both directions."""
    with jax.default_matmul_precision("highest"):
        entities = _vectors(model)(params, features)
        found = [np.zeros(0, np.float32)]
        for start in range(0, len(triples), batch_size):
            found.append(np.asarray(_scores(model, params, entities, jnp.asarray(triples[start : start + batch_size]))))
    return np.concatenate(found)


@functools.partial(jax.jit, static_argnums=0)
def _scores(model: GraphModel, params: Params, entities: Any, triples: Any) -> Any:
    head, relation, tail = triples.T
    shared, relations = params.get("shared"), params["relations"]
    tails = entities[tail]
    forth = _each(model, entities[head], Between(relation, relations), tails, shared)
    if not model.reciprocal:
        return forth
    back = _each(model, tails, Between(relation + model.n_relations // 2, relations), entities[head], shared)
    return (forth + back) / 2


def _each(model: GraphModel, anchor: Any, relation: Between, answer: Any, shared: Any) -> Any:
    if model.scorer.product:
        return model.scorer.compare_each(model.queries(anchor, relation, None, shared), answer)
    return model.scorer.score(anchor, relation.vectors(), answer, shared)
