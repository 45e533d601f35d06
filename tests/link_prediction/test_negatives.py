"""Negatives: what each sampler may draw and how often, and that known-true ones are told."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusionjax.evaluation.ranking import Ragged
from fusionjax.objectives.link_prediction.graph import TrainGraph
from fusionjax.objectives.link_prediction.negatives import below, draw, is_known
from tests.link_prediction.made import ENTITIES, RELATIONS, Made, made, triples

SHAPE = (200, 100)


def drawn(sampler: str, relation: int = 0, of_head: bool = False, shape: tuple[int, int] = SHAPE, seed: int = 0) -> np.ndarray:
    at = graph_with(sampler)
    asked = jnp.full(shape[0], relation), jnp.full(shape[0], of_head)
    return np.asarray(draw(jax.random.key(seed), shape, *asked, at.graph, ENTITIES, at.links.negatives))


@functools.cache
def graph_with(sampler: str) -> Made:
    return made("scorer=distmult", "training=negatives", "reciprocal=false", f"negatives.sampler={sampler}")


def assert_frequencies(found: np.ndarray, chance: np.ndarray) -> None:
    """Within five standard deviations, each."""
    n = found.size
    counts = np.bincount(found.reshape(-1), minlength=len(chance))
    assert counts.sum() == n and len(counts) == len(chance)
    assert np.all(np.abs(counts - n * chance) <= 5 * np.sqrt(n * chance * (1 - chance)) + 1e-3)


def test_uniform_draws_are_all_entities_alike() -> None:
    found = drawn("uniform")
    assert found.shape == SHAPE and found.dtype == np.int32
    assert_frequencies(found, np.full(ENTITIES, 1 / ENTITIES))


@pytest.mark.parametrize("n", [1, 2, 21, 65_535, 65_536, 65_537, 1_000_000, 2**31 - 1])
def test_numbers_below_another_are_exact(n: int) -> None:
    bits = np.asarray(jax.random.bits(jax.random.key(1), (20_000,), jnp.uint32))
    assert below(jax.random.key(1), (20_000,), n).tolist() == [int(x) * n >> 32 for x in bits]


def test_draws_in_proportion_to_a_power_of_the_degree() -> None:
    weight = np.bincount(triples()[:, [0, 2]].reshape(-1), minlength=ENTITIES) ** 0.75
    found = drawn("degree")
    assert found.shape == SHAPE and found.dtype == np.int32
    assert_frequencies(found, weight / weight.sum())
    assert not np.allclose(weight / weight.sum(), 1 / ENTITIES, rtol=0.2)  # else this would not tell it from uniform


@pytest.mark.parametrize("of_head", [False, True])
def test_typed_draws_are_what_the_relation_has_at_that_end(of_head: bool) -> None:
    for relation in range(RELATIONS):
        rows = triples()[triples()[:, 1] == relation]
        ends = np.unique(rows[:, 0 if of_head else 2])
        found = drawn("typed", relation, of_head)
        chance = np.zeros(ENTITIES)
        chance[ends] = 1 / len(ends)
        assert_frequencies(found, chance)


def test_typed_draws_of_a_batch_follow_each_query() -> None:
    at = graph_with("typed")
    relation, of_head = jnp.array([2, 2, 3, 3]), jnp.array([False, True, False, True])
    found = draw(jax.random.key(1), (4, 300), relation, of_head, at.graph, ENTITIES, at.links.negatives)
    expected = [set(range(4)), set(range(4, ENTITIES)), {0, 2, 4, 6}, {0, 1, 2, 3}]
    assert [set(row) for row in np.asarray(found).tolist()] == expected


@pytest.mark.parametrize("sampler", ["uniform", "degree", "typed"])
def test_draws_are_a_function_of_the_key(sampler: str) -> None:
    small = (8, 8)
    assert np.array_equal(drawn(sampler, shape=small), drawn(sampler, shape=small))
    assert not np.array_equal(drawn(sampler, shape=small), drawn(sampler, shape=small, seed=1))


told: Any = jax.jit(is_known, static_argnums=3)


@settings(max_examples=60)
@given(
    rows=st.lists(st.sets(st.integers(0, 30), max_size=20), min_size=6, max_size=6),
    asked=st.lists(st.integers(0, 5), min_size=4, max_size=4),
    seed=st.integers(0, 99),
)
def test_known_targets_are_told_as_a_set_would(rows: list[set[int]], asked: list[int], seed: int) -> None:
    """Rows of any length, empty ones too; one size of program for all examples: unused places are filled up."""
    index = Ragged.of([sorted(row) for row in rows])
    values = np.concatenate([index.values, np.full(121 - len(index.values), 99, np.int32)])  # behind the last row
    graph = _with_known(index.offsets, values)
    candidates = np.random.Generator(np.random.Philox(seed)).integers(0, 31, (4, 25))
    found = told(jnp.array(asked), jnp.asarray(candidates), graph, 20)
    expected = [[each in rows[row] for each in those] for row, those in zip(asked, candidates.tolist(), strict=True)]
    assert np.asarray(found).tolist() == expected


@pytest.mark.parametrize("length", [2, 3, 4, 7, 8, 9])
def test_as_many_halvings_as_the_longest_row_needs(length: int) -> None:
    """Both ends of the longest row, and the row before and after it, are told apart."""
    rows = [[0, 1], list(range(10, 10 + length)), [], [5]]
    index = Ragged.of(rows)
    graph = _with_known(index.offsets, index.values)
    candidates = jnp.tile(jnp.arange(40)[None], (4, 1))
    found = told(jnp.arange(4), candidates, graph, length)
    assert [np.flatnonzero(row).tolist() for row in np.asarray(found)] == rows


def _with_known(offsets: np.ndarray, values: np.ndarray) -> TrainGraph:
    parts = {name: jnp.zeros(0) for name in TrainGraph.__dataclass_fields__}
    return TrainGraph(**{**parts, "known_offsets": jnp.asarray(offsets, jnp.int32), "known": jnp.asarray(values)})
