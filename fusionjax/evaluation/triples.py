"""Scores of triples by a trained model: of all entities for a batch of queries, and of single triples."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fusionjax.models.entities import Between, EntityModel, Features, Params


@functools.partial(jax.jit, static_argnums=0)
def inductive_vectors(model: EntityModel, params: Params, features: Features) -> Any:
    """float32 [e, w]: entity vectors to measure with; of entities unseen in training, what their text and numbers give."""
    return model.inductive(params, features)


@functools.lru_cache(maxsize=64)
def triple_scores(model: EntityModel) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """(score of every tail, score of every head) of a batch of sources: one object a model, so that it compiles once.

    With reciprocal relations heads are tails of the inverse relation.
    """
    inverse = model.n_relations // 2

    def tails(given: Any, head: Any, relation: Any, candidates: Any) -> Any:
        between = Between(relation, given["relations"])
        return model.score_all(given["entities"][head], between, None, candidates, given["shared"])

    def heads(given: Any, tail: Any, relation: Any, candidates: Any) -> Any:
        source = given["entities"][tail]
        if model.reciprocal:
            between = Between(relation + inverse, given["relations"])
            return model.score_all(source, between, None, candidates, given["shared"])
        of_head = jnp.ones(tail.shape, bool)
        return model.score_all(source, Between(relation, given["relations"]), of_head, candidates, given["shared"])

    return tails, heads


def score_triples(
    model: EntityModel, params: Params, features: Features, triples: np.ndarray, batch_size: int = 4096
) -> np.ndarray:
    """float32 [n]: the score of each triple; with reciprocal relations the mean of both directions."""
    with jax.default_matmul_precision("highest"):
        entities = inductive_vectors(model, params, features)
        found = [np.zeros(0, np.float32)]
        for start in range(0, len(triples), batch_size):
            found.append(np.asarray(_scores(model, params, entities, jnp.asarray(triples[start : start + batch_size]))))
    return np.concatenate(found)


@functools.partial(jax.jit, static_argnums=0)
def _scores(model: EntityModel, params: Params, entities: Any, triples: Any) -> Any:
    head, relation, tail = triples.T
    shared, relations = params.get("shared"), params["relations"]
    tails = entities[tail]
    forth = _each(model, entities[head], Between(relation, relations), tails, shared)
    if not model.reciprocal:
        return forth
    back = _each(model, tails, Between(relation + model.n_relations // 2, relations), entities[head], shared)
    return (forth + back) / 2


def _each(model: EntityModel, source: Any, relation: Between, target: Any, shared: Any) -> Any:
    if model.scorer.product:
        return model.scorer.compare_each(model.query_vectors(source, relation, None, shared), target)
    return model.scorer.score(source, relation.vectors(), target, shared)
