"""Sampled evaluation against full ranking."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fusionjax.evaluation.link_prediction import KnownTrue, RankingPlan
from fusionjax.evaluation.sampled import (
    estimates_from_candidates,
    estimates_of,
    mean_of_sample,
    rank_among_some,
    rank_some,
    some_rows,
)

N = 80


def dot(params: Any, anchor: jax.Array, relation: jax.Array, candidates: jax.Array) -> jax.Array:
    return (params["entity"][anchor] + params["relation"][relation]) @ candidates.T


def broken(params: Any, anchor: jax.Array, relation: jax.Array, candidates: jax.Array) -> jax.Array:
    return dot(params, anchor, relation, candidates) * jnp.nan


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
    found = rank_some(dot, dot, triples, known, N, size=120, seed=3, **model)
    assert found.kind == "questions" and found.result is not None and found.result.examples is not None
    rows = found.result.examples.example
    assert len(np.unique(rows)) == 120 and (rows == some_rows(len(triples), 120, 3)).all()
    np.testing.assert_array_equal(found.result.per_example["mrr"], full.per_example["mrr"][rows])
    for name in ("mrr", "hits@1", "hits@10"):
        estimate = found.estimates[name]
        assert estimate.value == found.result.metrics[name] and estimate.population == len(triples)
        assert abs(estimate.value - full.metrics[name]) < 4 * estimate.standard_error
    everything = estimates_of(full, len(triples))
    assert everything["mrr"].low == everything["mrr"].value == full.metrics["mrr"]


def test_all_candidates_give_the_full_ranking() -> None:
    triples, known, model = graph()
    counts = RankingPlan.of(triples, known, N).ranks(dot, dot, **model)
    found = rank_among_some(dot, dot, triples, known, N, size=N, batch_size=16, **model)
    assert found.kind == "candidates" and found.result is None
    ranks = counts.realistic.reshape(-1)
    np.testing.assert_allclose(found.estimates["mean_rank"].value, ranks.mean())
    halves = np.concatenate([np.floor(ranks), np.ceil(ranks)])  # a tie is half of each
    for name, exact in (("mrr", (1 / halves).mean()), ("hits@10", (halves <= 10).mean())):
        np.testing.assert_allclose(found.estimates[f"sampled/{name}"].value, exact)
        np.testing.assert_allclose(found.estimates[name].value, exact, atol=1e-6)


@pytest.mark.parametrize("peaked", [False, True])
def test_estimates_from_candidates_cover_where_ranks_among_them_are_far_off(peaked: bool) -> None:
    random = np.random.default_rng(2)
    n, size, n_groups, q = 1000, 150, 20, 400
    inside = {"mrr": 0, "hits@1": 0, "hits@10": 0, "mean_rank": 0}
    for _ in range(25):
        if peaked:  # a good model: 4 of 10 first, the others anywhere
            above = np.where(random.random(q) < 0.4, 0, random.integers(0, n // 4, q))
        else:  # evenly over the logarithm of the rank
            above = np.minimum(np.exp(random.uniform(0, np.log(n), q)) - 1, n - 1).astype(int)
        seen = random.hypergeometric(above, n - above, size).astype(float)
        found = estimates_from_candidates(seen, np.arange(q) % n_groups, n, size)
        # What is estimated is the mean over these q questions; the interval also holds the luck of drawing them.
        truth = {"mrr": (1 / (1 + above)).mean(), "hits@1": (above == 0).mean(), "hits@10": (above < 10).mean()}
        truth["mean_rank"] = 1 + above.mean()
        for name, value in truth.items():
            inside[name] += found[name].low <= value <= found[name].high
        assert found["sampled/mrr"].value > truth["mrr"] and found["sampled/hits@10"].value > truth["hits@10"]
        assert found["mrr"].high - found["mrr"].low < 0.25  # and still says something
    assert min(inside.values()) >= 22


def test_a_made_graph_end_to_end() -> None:
    triples, known, model = graph()
    counts = RankingPlan.of(triples, known, N).ranks(dot, dot, **model)
    found = rank_among_some(dot, dot, triples, known, N, size=40, seed=1, **model).estimates
    truth = {"mrr": (1 / counts.realistic).mean(), "mean_rank": counts.realistic.mean()}
    for name, value in truth.items():
        assert abs(found[name].value - value) < 4 * found[name].standard_error
    again = rank_among_some(dot, dot, triples, known, N, size=40, seed=1, **model).estimates
    assert again == found


def test_a_constant_scorer_is_in_the_middle() -> None:
    triples, known, _ = graph()
    same = lambda params, anchor, relation, candidates: jnp.zeros((len(anchor), len(candidates)))  # noqa: E731
    found = rank_among_some(same, same, triples, known, N, size=20, params=None).estimates["mean_rank"]
    assert abs(found.value - (N + 1) / 2) < 2  # known answers do not compete


def test_what_cannot_be_sampled_is_refused() -> None:
    triples, known, model = graph()
    for size in (0, N + 1):
        with pytest.raises(ValueError, match=f"{size} candidates of {N}"):
            rank_among_some(dot, dot, triples, known, N, size=size, **model)
    with pytest.raises(ValueError, match="rows have NaN"):
        rank_among_some(dot, broken, triples, known, N, size=5, **model)
