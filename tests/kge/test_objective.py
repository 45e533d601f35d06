"""What a batch asks, what its queries are held against, and every part of its loss against loops over plain numbers."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fusionjax.kge import objective
from fusionjax.models.entities import Between, Features
from fusionjax.objectives.link_prediction.loss import Queries, Vectors
from tests.kge.made import ENTITIES, RELATIONS, Made, made, normal, triples
from tests.losses.loops import cosine, cross_entropy

INDEX = np.array([0, 25, 60, 50, 44, 0])
WEIGHT = np.array([1, 1, 1, 1, 1, 0], np.float32)
B = len(INDEX)
KEY = jax.random.key(5)


@functools.cache
def negatives(*overrides: str) -> Made:
    return made("scorer=distmult", "training=negatives", *overrides)


def asked_of(at: Made, key: Any = KEY) -> Queries:
    return objective.ask(at.config, at.graph, jnp.asarray(INDEX), jnp.asarray(WEIGHT), key)


def as_triples(asked: Queries) -> np.ndarray:
    """int [q, 3]: the triple each query was made of."""
    of_head = np.zeros(len(asked.source), bool) if asked.of_head is None else np.asarray(asked.of_head)
    source, relation, target = (np.asarray(part) for part in asked[:3])
    return np.stack([np.where(of_head, target, source), relation, np.where(of_head, source, target)], 1)


# ----------------------------------------------------------------------------------------------------------- queries
def test_with_reciprocal_relations_all_ask_for_the_tail() -> None:
    asked = asked_of(negatives())
    assert asked.of_head is None and asked.known_row is None
    assert np.array_equal(as_triples(asked), triples()[INDEX]) and np.array_equal(asked.weight, WEIGHT)


def test_both_ask_for_the_tail_then_for_the_head() -> None:
    for overrides in ((), ("training=one_vs_all",)):
        asked = asked_of(negatives("reciprocal=false", *overrides))
        assert np.asarray(asked.of_head).tolist() == [False] * B + [True] * B
        assert np.array_equal(as_triples(asked), np.tile(triples()[INDEX], (2, 1)))
        assert np.asarray(asked.weight).tolist() == [*WEIGHT, *WEIGHT]


def test_one_asks_for_either_end_of_each_triple_evenly() -> None:
    at = negatives("reciprocal=false", "negatives.queries=one")
    many = jnp.zeros(4000, jnp.int32)
    asked = objective.ask(at.config, at.graph, many, jnp.ones(4000), KEY)
    assert asked.of_head is not None and 0.45 < float(jnp.mean(asked.of_head)) < 0.55
    assert np.array_equal(as_triples(asked), np.tile(triples()[:1], (4000, 1)))
    other = objective.ask(at.config, at.graph, many, jnp.ones(4000), jax.random.key(6))
    assert other.of_head is not None and not np.array_equal(other.of_head, asked.of_head)


def test_bernoulli_asks_for_heads_as_often_as_the_relation_has_tails_a_head() -> None:
    """Relation 2 leads 17 heads to 4 tails: 4 / 21 of its queries are for heads."""
    at = negatives("reciprocal=false", "negatives.queries=bernoulli")
    for row, share in ((45, 4 / 21), (0, 0.5)):
        asked = objective.ask(at.config, at.graph, jnp.full(4000, row), jnp.ones(4000), KEY)
        assert asked.of_head is not None and float(jnp.mean(asked.of_head)) == pytest.approx(share, abs=0.04)
        assert np.array_equal(as_triples(asked), np.tile(triples()[row : row + 1], (4000, 1)))


@pytest.mark.parametrize("overrides", [(), ("reciprocal=false",), ("reciprocal=false", "negatives.queries=one")])
def test_known_rows_are_those_of_the_question(overrides: tuple[str, ...]) -> None:
    at = negatives("negatives.filtered=true", *overrides)
    asked = asked_of(at)
    offsets, values = np.asarray(at.graph.known_offsets), np.asarray(at.graph.known)
    every = np.asarray(at.graph.triples)
    of_head = [False] * len(asked.source) if asked.of_head is None else np.asarray(asked.of_head).tolist()
    for source, relation, side, row in zip(*map(np.asarray, asked[:2]), of_head, np.asarray(asked.known_row), strict=True):
        given, wanted = (2, 0) if side else (0, 2)
        true = every[(every[:, given] == source) & (every[:, 1] == relation)][:, wanted]
        assert values[offsets[row] : offsets[row + 1]].tolist() == sorted(set(true.tolist()))


# ---------------------------------------------------------------------------------------------------------- candidates
@pytest.mark.parametrize("shared", [0, 3])
@pytest.mark.parametrize("filtered", [False, True])
def test_true_answers_among_the_candidates_count_for_nothing(filtered: bool, shared: int) -> None:
    settings = f"negatives={{number: 40, filtered: {str(filtered).lower()}, shared: {shared}}}"
    at = negatives("reciprocal=false", "batch_size=6", settings)
    asked = asked_of(at)
    drawn, nothing = objective.candidates(at.model, at.config, at.graph, asked, KEY, at.way.longest)
    assert drawn.shape == ((2 * B // shared if shared else 2 * B), 40) and nothing.shape == (2 * B, 40)
    true = {tuple(row) for row in triples().tolist()}
    hidden = 0
    for q, (head, relation, tail) in enumerate(as_triples(asked).tolist()):
        for place, candidate in enumerate(np.asarray(drawn)[q // shared if shared else q].tolist()):
            corrupt = (candidate, relation, tail) if q >= B else (head, relation, candidate)
            expected = corrupt in true if filtered else corrupt == (head, relation, tail)
            assert bool(nothing[q, place]) == expected
            hidden += expected
    assert hidden > 10


# ------------------------------------------------------------------------------------------------------ against them all
@pytest.mark.parametrize(
    ("scorer", "smoothing"),
    [
        *(("complex", 0.0), ("complex", 0.3), ("transe", 0.3), ("conve", 0.0)),
        *(("transe norm=1", 0.3), ("rotate", 0.0), ("pairre reciprocal=false", 0.3)),
    ],
)
def test_block_by_block_is_the_whole(scorer: str, smoothing: float) -> None:
    """21 entities in blocks of 8: the last is not full."""
    found = []
    for block in (0, 8):
        at = made(*f"scorer={scorer}".split(), f"block={block}", f"loss.label_smoothing={smoothing}")
        params, asked = at.state()["params"], asked_of(at)

        def loss(params: Any, at: Made = at, asked: Queries = asked) -> Any:
            given = asked, vectors_of(params, asked), params["entities"], None, params.get("shared"), KEY
            each = objective.against_all(at.model, at.config, at.hyper, *given)
            return (each * asked.weight).sum(), each

        found.append(jax.jit(jax.value_and_grad(loss, has_aux=True))(params))
    ((_, whole), gradients), ((_, blocks), others) = found
    assert whole.shape == asked_of(at).target.shape and np.allclose(blocks, whole, rtol=1e-5, atol=1e-5)
    for a, b in zip(jax.tree.leaves(others), jax.tree.leaves(gradients), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


# -------------------------------------------------------------------------------------------------------------- penalty
def vectors_of(params: Any, asked: Queries) -> Vectors:
    between = Between(asked.relation, params["relations"])
    return Vectors(params["entities"][asked.source], between, params["entities"][asked.target])


def penalty_of(*overrides: str) -> tuple[float, Any, Queries]:
    at = made("scorer=distmult", "reciprocal=false", *overrides)
    params, asked = at.state()["params"], asked_of(at)
    found = objective.penalty(at.model, at.config, at.hyper, params, vectors_of(params, asked), asked)
    return float(found), jax.tree.map(np.asarray, params), asked


def moduli(vector: np.ndarray) -> np.ndarray:
    return np.hypot(vector[:4], vector[4:])


@pytest.mark.parametrize(
    ("name", "scorer", "sizes", "power"),
    [("l2", "distmult", np.abs, 2), ("n3", "distmult", np.abs, 3), ("n3", "complex", moduli, 3), ("l2", "complex", moduli, 2)],
)
def test_penalty_of_the_triples_of_a_batch(name: str, scorer: str, sizes: Any, power: int) -> None:
    found, params, asked = penalty_of(f"scorer={scorer}", f"penalty={{name: {name}, entity: 0.3, relation: 0.2}}")
    total = 0.0
    for source, relation, target, weight in zip(*map(np.asarray, (*asked[:3], asked.weight)), strict=True):
        ends = sum((sizes(params["entities"][row]) ** power).sum() for row in (source, target))
        total += weight * (0.3 * ends + 0.2 * (sizes(params["relations"][relation]) ** power).sum())
    assert found == pytest.approx(total / np.asarray(asked.weight).sum(), rel=1e-5)


def test_penalty_of_whole_tables() -> None:
    found, params, _ = penalty_of("penalty={name: n3, entity: 0.3, relation: 0.2, weighted: false}")
    expected = 0.3 * (np.abs(params["entities"]) ** 3).sum() + 0.2 * (np.abs(params["relations"]) ** 3).sum()
    assert found == pytest.approx(expected, rel=1e-5)


def test_penalty_of_questions_without_an_answer_holds_anchors() -> None:
    found, params, asked = penalty_of("training=k_vs_all", "penalty={name: l2, entity: 0.5}")
    squares = (params["entities"][np.asarray(asked.source)] ** 2).sum(1)
    assert found == pytest.approx(0.5 * float((squares * asked.weight).sum() / asked.weight.sum()), rel=1e-5)


@pytest.mark.parametrize(
    ("scorer", "head", "relation", "tail", "expected"),
    [
        # h r = (2 −3), t = (5 1), r t = (10 −3), h = (1 1): 13 + 26 + 109 + 2.
        ("distmult", [1.0, 1.0], [2.0, -3.0], [5.0, 1.0], 150.0),
        # h r = (1 + 2i)(3 − i) = 5 + 5i, t = 2 + 4i, conj(r) t = (3 + i)(2 + 4i) = 2 + 14i, h: 50 + 20 + 200 + 5.
        ("complex", [1.0, 2.0], [3.0, -1.0], [2.0, 4.0], 275.0),
    ],
)
@pytest.mark.parametrize("of_head", [None, False, True])
def test_dura_by_hand(
    scorer: str, head: list[float], relation: list[float], tail: list[float], expected: float, of_head: bool | None
) -> None:
    """The same whichever end is asked for."""
    at = made(f"scorer={scorer}", "dim=2", "reciprocal=false", "penalty={name: dura, entity: 0.5}")
    params = {"entities": jnp.array([head, tail]), "relations": jnp.array([relation])}
    source = jnp.array([int(of_head or False)])
    side = None if of_head is None else jnp.array([of_head])
    asked = Queries(source, jnp.array([0]), 1 - source, side, None, jnp.ones(1))
    found = objective.penalty(at.model, at.config, at.hyper, params, vectors_of(params, asked), asked)
    assert float(found) == 0.5 * expected


@pytest.mark.parametrize("reciprocal", ["true", "false"])
@pytest.mark.parametrize("scorer", ["distmult", "complex", "simple", "rescal"])
def test_dura_is_what_the_squared_distances_to_the_queries_penalise(scorer: str, reciprocal: str) -> None:
    """−‖query − t‖² = 2 score − ‖query‖² − ‖t‖², on either side (Zhang et al. 2020, eq. 3)."""
    at = made(f"scorer={scorer}", f"reciprocal={reciprocal}", "penalty={name: dura, entity: 0.3}")
    params, asked = at.state()["params"], asked_of(at)
    found = objective.penalty(at.model, at.config, at.hyper, params, vectors_of(params, asked), asked)
    by, total = at.model.scorer, 0.0
    for (head, relation, tail), weight in zip(as_triples(asked), np.asarray(asked.weight), strict=True):
        h, r, t = params["entities"][head], params["relations"][relation], params["entities"][tail]
        away = ((by.tail_query(h, r) - t) ** 2).sum() + ((by.head_query(r, t) - h) ** 2).sum()
        total += float(weight * (away + 4 * by.score(h, r, t)))
    assert float(found) == pytest.approx(0.3 * total / float(asked.weight.sum()), rel=1e-4)


# -------------------------------------------------------------------------------------------------- relations, alignment
@pytest.mark.parametrize("reciprocal", ["true", "false"])
@pytest.mark.parametrize("scorer", ["transe", "transe norm=1", "distmult", "complex", "simple", "rescal", "tucker"])
def test_relations_are_foretold_from_both_ends(scorer: str, reciprocal: str) -> None:
    at = made(*f"scorer={scorer}".split(), "margin=2", f"reciprocal={reciprocal}", "relation_prediction=1")
    params, asked = at.state()["params"], asked_of(at)
    found = objective.relation_loss(at.model, params, vectors_of(params, asked), asked)
    heads, numbers, tails = as_triples(asked).T
    every = at.model.scorer.score(
        params["entities"][heads][:, None], params["relations"][None], params["entities"][tails][:, None], params.get("shared")
    )
    assert every.shape == (len(heads), RELATIONS * (2 if reciprocal == "true" else 1))
    total = 0.0
    for row, own, weight in zip(np.asarray(every, np.float64), numbers, np.asarray(asked.weight), strict=True):
        total += weight * cross_entropy(row[own], np.delete(row, own).tolist())
    assert float(found) == pytest.approx(total / np.asarray(asked.weight).sum(), rel=1e-4)


def test_alignment_is_the_loop() -> None:
    """Rows and texts of the batch's entities, both ways; one that stands twice is no negative of itself, a filling of none."""
    text = normal(ENTITIES, 5, seed=8)
    features = Features(jnp.asarray(text), jnp.zeros((ENTITIES, 0)), jnp.ones(ENTITIES))
    at = made("scorer=distmult", "text={use: align, checkpoint: x, temperature: 0.4}", features=features)
    params = at.state()["params"]
    numbers, weight = np.array([3, 8, 3, 12, 0, 0]), jnp.array([1.0, 1, 1, 1, 1, 0])
    rows = np.asarray(params["entities"])[numbers]
    rows[5] = 9.0
    found = objective.alignment(at.model, at.hyper, params, at.features, jnp.asarray(rows), jnp.asarray(numbers), weight)
    numbers = np.array([3, 8, 3, 12, 0])
    projected = text @ np.asarray(params["text"]["out"])
    losses = []
    for i, number in enumerate(numbers):
        others = [j for j, other in enumerate(numbers) if other != number]
        pairs = [cosine(rows[i], projected[numbers[j]]) / 0.4 for j in others]
        turned = [cosine(rows[j], projected[number]) / 0.4 for j in others]
        own = cosine(rows[i], projected[number]) / 0.4
        losses += [cross_entropy(own, pairs), cross_entropy(own, turned)]
    assert float(found) == pytest.approx(float(np.mean(losses)), rel=1e-4)


def test_dropout_keeps_the_mean() -> None:
    x = jnp.asarray(1 + normal(200, 50) ** 2)
    dropped = np.asarray(objective.drop(x, jnp.float32(0.3), KEY))
    kept = dropped != 0
    assert kept.mean() == pytest.approx(0.7, abs=0.02)
    np.testing.assert_allclose(dropped[kept], np.asarray(x)[kept] / 0.7, rtol=1e-6)
    assert dropped.mean() == pytest.approx(float(x.mean()), rel=0.02)
    assert np.array_equal(objective.drop(x, jnp.float32(0.0), KEY), x)


# ---------------------------------------------------------------------------------------------------------------- logQ
def test_logq_makes_a_sample_stand_for_all_entities() -> None:
    """A query's own target is drawn once, and counts for nothing; 4 negatives stand for 20 other entities."""
    config = negatives("negatives={number: 4, logq: true}").config
    positive, negative = normal(2), normal(2, 4, seed=1)
    nothing = np.array([[False, True, False, False], [False] * 4])
    found = objective.loss_of_queries(
        config, {}, jnp.asarray(positive), jnp.asarray(negative), jnp.asarray(nothing), ENTITIES
    )
    others = (np.exp(negative) * ~nothing).sum(1) * (ENTITIES - 1) / 4
    assert np.allclose(found, np.log(np.exp(positive) + others) - positive, rtol=1e-5)


def test_logq_of_every_other_entity_is_the_loss_against_all() -> None:
    scores, target = normal(ENTITIES), 7
    config = negatives(f"negatives={{number: {ENTITIES - 1}, logq: true}}").config
    rest = np.delete(scores, target)[None]
    nothing = jnp.zeros(rest.shape, bool)
    found = objective.loss_of_queries(config, {}, jnp.asarray(scores[[target]]), jnp.asarray(rest), nothing, ENTITIES)
    assert float(found[0]) == pytest.approx(cross_entropy(scores[target], rest[0]), rel=1e-5)
