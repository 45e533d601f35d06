"""Sampled evaluation against full ranking."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fusionjax.evaluation.link_prediction import KnownTrue, RankingPlan
from fusionjax.evaluation.sampled import estimates_of, mean_of_sample

N = 80


def dot(params: Any, anchor: jax.Array, relation: jax.Array, candidates: jax.Array) -> jax.Array:
    return (params["entity"][anchor] + params["relation"][relation]) @ candidates.T


def graph() -> tuple[np.ndarray, KnownTrue, dict[str, Any]]:
    random = np.random.default_rng(0)
    entity, relation = random.integers(-2, 3, (N, 6)), random.integers(-1, 2, (2, 6))  # small integers: ties
    entity, relation = entity.astype(np.float32), relation.astype(np.float32)
    triples = []
    for head, of in itertools.product(range(N), range(2)):
        score = (entity[head] + relation[of]) @ entity.T + 4 * random.gumbel(size=N)
        triples += [(head, of, tail) for tail in np.argsort(-score)[:2]]
    params = {"entity": jnp.asarray(entity), "relation": jnp.asarray(relation)}
    return np.array(triples), KnownTrue.of(np.array(triples)), {"params": params, "candidates": params["entity"]}


def some_rows(n: int, size: int, seed: int) -> np.ndarray:
    return np.sort(np.random.Generator(np.random.Philox(seed)).permutation(n)[:size])


def test_the_mean_of_a_sample_by_hand() -> None:
    found = mean_of_sample(np.array([1.0, 2.0, 6.0]), 12)
    error = np.sqrt(7.0) / np.sqrt(3) * np.sqrt(0.75)
    np.testing.assert_allclose(found[:4], (3.0, error, 3 - 4.302653 * error, 3 + 4.302653 * error), rtol=1e-6)
    assert found.n == 3 and found.population == 12
    whole = mean_of_sample(np.array([1.0, 2.0, 6.0]), 3)
    assert whole.standard_error == 0 and whole.low == whole.high == 3
    assert np.isnan(mean_of_sample(np.array([0.5]), 9).standard_error)
    assert mean_of_sample(np.array([0.0, 1.0, 1.0]), 9).high == 1.0
    for wrong in (np.zeros(0), np.zeros(10)):
        with pytest.raises(ValueError, match="from 9"):
            mean_of_sample(wrong, 9)


def test_intervals_of_sampled_questions_cover() -> None:
    values = 1 / np.random.default_rng(1).integers(1, 60, 1000)
    inside = 0
    for seed in range(300):
        found = mean_of_sample(values[some_rows(1000, 200, seed)], 1000)
        inside += found.low <= values.mean() <= found.high
    assert 0.91 <= inside / 300 <= 0.985


def test_sampled_questions_are_those_of_the_full_ranking() -> None:
    triples, known, model = graph()
    full = RankingPlan.of(triples, known, N).evaluate(dot, dot, **model)
    rows = some_rows(len(triples), 120, 3)
    found = RankingPlan.of(triples[rows], known, N).evaluate(dot, dot, **model)
    np.testing.assert_array_equal(found.per_example["mrr"], full.per_example["mrr"][rows])
    estimates = estimates_of(found, len(triples))
    for name in ("mrr", "hits@1", "hits@10"):
        estimate = estimates[name]
        assert estimate.value == found.metrics[name] and estimate.population == len(triples)
        assert abs(estimate.value - full.metrics[name]) < 4 * estimate.standard_error
    everything = estimates_of(full, len(triples))
    assert everything["mrr"].low == everything["mrr"].value == full.metrics["mrr"]
