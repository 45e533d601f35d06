"""Filtered ranks on a graph small enough to work out by hand."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusionjax.evaluation import counting
from fusionjax.evaluation.link_prediction import KnownTrue, RankingPlan, evaluate_link_prediction
from fusionjax.evaluation.metrics import Result

# Entities 0 … 4, relations 0, 1.
TRAIN = np.array([[0, 0, 1], [0, 0, 2], [3, 0, 2], [1, 1, 4]])
VALID = np.array([[0, 0, 4]])
TEST = np.array([[0, 0, 3], [3, 1, 4]])
KNOWN = KnownTrue.of(TRAIN, VALID, TEST)


def entity_number(params: Any, anchor: jax.Array, relation: jax.Array, candidates: jax.Array) -> jax.Array:
    """The higher an entity's number, the more plausible."""
    return jnp.broadcast_to(candidates[None].astype(jnp.float32), (len(anchor), len(candidates)))


def number_of_params(params: Any, anchor: jax.Array, relation: jax.Array, candidates: jax.Array) -> jax.Array:
    return entity_number(params, anchor, relation, candidates) + params


def constant(params: Any, anchor: jax.Array, relation: jax.Array, candidates: jax.Array) -> jax.Array:
    return jnp.zeros((len(anchor), len(candidates)))


def dot_tails(params: Any, head: jax.Array, relation: jax.Array, candidates: jax.Array) -> jax.Array:
    return (params["entity"][head] * params["relation"][relation]) @ candidates.T


def shifted_heads(params: Any, tail: jax.Array, relation: jax.Array, candidates: jax.Array) -> jax.Array:
    return (params["entity"][tail] + params["relation"][relation]) @ candidates.T


def ranks(found: Result, side: str) -> np.ndarray:
    assert found.ranks is not None
    return found.ranks[("tail", "head").index(side) :: 2]


def test_known_true_answers_from_every_split() -> None:
    tails, heads = KNOWN.tails(np.array([0, 1, 2, 3]), np.array([0, 1, 0, 7])), KNOWN.heads(np.array([0, 1]), np.array([2, 4]))
    assert [tails[i].tolist() for i in range(4)] == [[1, 2, 3, 4], [4], [], []]
    assert [heads[i].tolist() for i in range(2)] == [[0, 3], [1, 3]]
    assert len(KnownTrue.of(np.zeros((0, 3))).tails(np.array([0]), np.array([0]))[0]) == 0
    twice = KnownTrue.of(TRAIN, TRAIN)
    assert twice.tails(np.array([0]), np.array([0]))[0].tolist() == [1, 2]


@pytest.mark.parametrize("block", [5, 2])
def test_filtered_ranks_by_hand(block: int) -> None:
    found = evaluate_link_prediction(entity_number, entity_number, TEST, KNOWN, 5, params=None, batch_size=4, block=block)
    # (0, 0, ?): 1, 2, 4 are known, so 3 has only 0 for a rival: rank 1 (unfiltered 2).  (3, 1, ?): 4 is the highest: rank 1.
    assert ranks(found, "tail").tolist() == [1.0, 1.0]
    # (?, 0, 3): only 0 is known; 1, 2, 3, 4 all beat it: rank 5.  (?, 1, 4): 1 is known and left out; 4 beats 3: rank 2.
    assert ranks(found, "head").tolist() == [5.0, 2.0]
    np.testing.assert_allclose(found.metrics["mrr"], (1 + 1 + 1 / 5 + 1 / 2) / 4)
    np.testing.assert_allclose(found.metrics["mrr/head"], (1 / 5 + 1 / 2) / 2)
    assert found.metrics["mrr/tail"] == 1.0
    assert (found.metrics["hits@1"], found.metrics["hits@3"], found.metrics["hits@10"]) == (2 / 4, 3 / 4, 1.0)
    assert found.per_example["hits@1"].tolist() == [0.5, 0.5] and found.metrics["triples"] == 2.0


def test_a_constant_scorer_gets_the_middle_of_what_is_left() -> None:
    found = evaluate_link_prediction(constant, constant, TEST, KNOWN, 5, params=None)
    assert ranks(found, "tail").tolist() == [1.5, 3.0]  # 2 and 5 candidates left
    assert ranks(found, "head").tolist() == [3.0, 2.5]  # 5 and 4


def test_all_three_tie_rules() -> None:
    found = evaluate_link_prediction(constant, constant, TEST, KNOWN, 5, params=None)
    assert found.tied is not None and found.tied.tolist() == [1, 4, 4, 3]
    assert found.metrics["mrr/optimistic"] == 1.0
    np.testing.assert_allclose(found.metrics["mrr/pessimistic"], np.mean([1 / 2, 1 / 5, 1 / 5, 1 / 4]))
    distinct = evaluate_link_prediction(entity_number, entity_number, TEST, KNOWN, 5, params=None)
    assert distinct.metrics["mrr/optimistic"] == distinct.metrics["mrr"] == distinct.metrics["mrr/pessimistic"]


@pytest.mark.parametrize("n", [1, 6])
def test_a_constant_scorer_gets_the_middle_of_all(n: int) -> None:
    triples = np.array([[0, 0, n - 1], [0, 0, n - 1]])  # a triple given twice is ranked twice
    found = evaluate_link_prediction(constant, constant, triples, KnownTrue.of(triples), n, params=None)
    assert ranks(found, "tail").tolist() == ranks(found, "head").tolist() == [(n + 1) / 2] * 2


@st.composite
def graphs(draw: Any) -> tuple[np.ndarray, np.ndarray, int]:
    n = draw(st.sampled_from([1, 2, 7]))
    triple = st.tuples(st.integers(0, n - 1), st.integers(0, 1), st.integers(0, n - 1))
    test = draw(st.lists(triple, min_size=1, max_size=8))  # repetitions too
    train = draw(st.lists(triple, max_size=30))  # often everything is known
    return np.array(test), np.array(train, np.int64).reshape(-1, 3), draw(st.integers(0, 2))


@settings(max_examples=40)
@given(graphs())
def test_a_plan_ranks_as_a_loop_does(graph: tuple[np.ndarray, np.ndarray, int]) -> None:
    test, train, seed = graph
    n, random = 7, np.random.default_rng(seed)
    params = {
        "entity": jnp.asarray(random.integers(-1, 2, (n, 4)), jnp.float32),
        "relation": jnp.asarray(random.integers(-1, 2, (2, 4)), jnp.float32),
    }
    plan = RankingPlan.of(test, KnownTrue.of(train, test), n, batch_size=8)
    counts = plan.ranks(dot_tails, shifted_heads, params, params["entity"])
    table = np.asarray(params["entity"])
    true = {tuple(triple) for triple in [*test.tolist(), *train.tolist()]}
    for i, (h, r, t) in enumerate(test.tolist()):
        for side, target, query, other in (
            (0, t, table[h] * np.asarray(params["relation"])[r], {e for e in range(n) if (h, r, e) in true}),
            (1, h, table[t] + np.asarray(params["relation"])[r], {e for e in range(n) if (e, r, t) in true}),
        ):
            scores = table @ query
            rivals = [scores[e] for e in range(n) if e != target and e not in other]
            greater, equal = sum(s > scores[target] for s in rivals), sum(s == scores[target] for s in rivals)
            assert (counts.greater[i, side], counts.equal[i, side]) == (greater, equal)


def test_a_plan_serves_every_model_and_compiles_once() -> None:
    random = np.random.default_rng(1)
    n = 50
    triples = np.stack([random.integers(0, high, 300) for high in (n, 2, 5)], axis=1)  # many ask the same
    models = [
        {name: jnp.asarray(random.integers(-2, 3, (rows, 4)), jnp.float32) for name, rows in (("entity", n), ("relation", 2))}
        for _ in range(3)
    ]
    plan = RankingPlan.of(triples[:120], KnownTrue.of(triples), n, batch_size=16)
    assert len(plan.sides[1].first) < 60
    found = [plan.ranks(dot_tails, shifted_heads, model, model["entity"], block=20) for model in models]
    size = getattr(counting.count, "_cache_size")()  # noqa: B009
    for model, counts in zip(models, found, strict=True):
        again = plan.evaluate(dot_tails, shifted_heads, model, model["entity"], block=20)
        assert again.ranks is not None and again.ranks.tolist() == counts.realistic.reshape(-1).tolist()
    assert getattr(counting.count, "_cache_size")() == size  # noqa: B009
    stacked = jax.tree.map(lambda *parts: jnp.stack(parts), *models)
    together = plan.ranks_of_stacked(dot_tails, shifted_heads, stacked, stacked["entity"], block=20)
    assert together.greater.shape == (3, 120, 2)
    for i, counts in enumerate(found):
        assert (together.greater[i] == counts.greater).all() and (together.equal[i] == counts.equal).all()
    alone = plan.ranks_of_stacked(number_of_params, number_of_params, jnp.arange(3.0), block=20)  # candidates by number
    assert (alone.greater[0] == alone.greater[2]).all()
    with pytest.raises(ValueError, match="49 rows for 50 entities"):
        plan.ranks(dot_tails, shifted_heads, models[0], models[0]["entity"][1:])


def test_nan_names_the_triple() -> None:
    def broken(params: Any, anchor: jax.Array, relation: jax.Array, candidates: jax.Array) -> jax.Array:
        return jnp.where((relation == 1)[:, None], jnp.nan, constant(params, anchor, relation, candidates))

    with pytest.raises(ValueError, match=r"link_prediction \(head\): 1 of 2 rows have NaN scores, the first is row 1"):
        evaluate_link_prediction(constant, broken, TEST, KNOWN, 5, params=None)


def test_one_entity_has_rank_one() -> None:
    triple = np.array([[0, 0, 0]])
    found = evaluate_link_prediction(constant, constant, triple, KnownTrue.of(triple), 1, params=None)
    assert found.metrics["mrr"] == 1.0


def test_equals_a_loop_over_triples_and_entities() -> None:
    random = np.random.default_rng(0)
    n, relations = 60, 3
    triples = np.unique(np.stack([random.integers(0, high, 500) for high in (n, relations, n)], axis=1), axis=0)
    random.shuffle(triples)
    test = triples[:70]
    params = {"entity": random.integers(-2, 3, (n, 4)), "relation": random.integers(-1, 2, (relations, 4))}
    params = {name: jnp.asarray(table, jnp.float32) for name, table in params.items()}  # small integers: exact, many ties
    given_all: dict[str, Any] = dict(params=params, candidates=params["entity"], batch_size=16)
    found = evaluate_link_prediction(dot_tails, shifted_heads, test, KnownTrue.of(triples), n, block=25, **given_all)

    true = set(map(tuple, triples.tolist()))
    entity, relation = np.asarray(params["entity"]), np.asarray(params["relation"])

    def rank(scores: np.ndarray, target: int, others: set[int]) -> float:
        rivals = [scores[e] for e in range(n) if e != target and e not in others]
        return 1 + sum(s > scores[target] for s in rivals) + sum(s == scores[target] for s in rivals) / 2

    for i, (h, r, t) in enumerate(test.tolist()):
        tail = rank(entity @ (entity[h] * relation[r]), t, {e for e in range(n) if (h, r, e) in true})
        head = rank(entity @ (entity[t] + relation[r]), h, {e for e in range(n) if (e, r, t) in true})
        assert (ranks(found, "tail")[i], ranks(found, "head")[i]) == (tail, head)
    whole = evaluate_link_prediction(dot_tails, shifted_heads, test, KnownTrue.of(triples), n, **given_all)
    assert whole.metrics == found.metrics


def test_wrong_triples_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected \[n, 3\]"):
        evaluate_link_prediction(constant, constant, np.zeros((2, 2)), KNOWN, 5, params=None)
    with pytest.raises(ValueError, match="expected within 0 … 4"):
        evaluate_link_prediction(constant, constant, np.array([[0, 0, 5]]), KNOWN, 5, params=None)
