"""Products by compiled loops, and how XLA calls them: right at every shape, by several threads, and many at once."""

import os
import subprocess
import sys
import threading
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusionjax.kernels.looped import available, looped_products

pytestmark = pytest.mark.skipif(not available(), reason="needs numba and a CPU")


def drawn(q: int, e: int, w: int, n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Queries, entities, numbers, and what the products weigh."""
    random = np.random.Generator(np.random.Philox(seed))
    query, entities, weight = (random.normal(size=shape).astype(np.float32) for shape in ((q, w), (e, w), (q, n)))
    return query, entities, random.integers(0, e, (q, n)).astype(np.int32), weight


def by_loops(query: Any, entities: Any, numbers: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(products, gradients of Σ weight · product for queries and for entities), in float64."""
    scores, of_query, of_entities = np.zeros(numbers.shape), np.zeros(query.shape), np.zeros(entities.shape)
    for i, row in enumerate(numbers):
        for j, e in enumerate(row):
            scores[i, j] = sum(float(a) * float(b) for a, b in zip(query[i], entities[e], strict=True))
            of_query[i] += float(weight[i, j]) * entities[e]
            of_entities[e] += float(weight[i, j]) * query[i]
    return scores, of_query, of_entities


@jax.jit
def ours(query: Any, entities: Any, numbers: Any, weight: Any) -> tuple[Any, Any, Any]:
    scores, pull = jax.vjp(lambda q, e: looped_products(q, e, numbers), query, entities)
    return scores, *pull(weight)


@settings(max_examples=12, deadline=None)
@given(q=st.integers(1, 9), e=st.integers(1, 7), w=st.integers(1, 37), n=st.integers(1, 9), seed=st.integers(0, 99))
def test_products_and_gradients_are_the_loops(q: int, e: int, w: int, n: int, seed: int) -> None:
    """Fewer queries or entities than threads, rows of no whole number of registers, candidates that occur twice."""
    at = drawn(q, e, w, n, seed)
    for found, expected in zip(ours(*at), by_loops(*at), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_an_entity_that_nothing_asks_about_has_no_gradient() -> None:
    query, entities, _, weight = drawn(5, 4, 8, 3)
    of_entities = ours(query, entities, np.full((5, 3), 2, np.int32), weight)[2]
    assert np.all(np.asarray(of_entities)[[0, 1, 3]] == 0) and np.all(np.asarray(of_entities)[2] != 0)


def test_what_is_not_a_number_stays_so() -> None:
    query, entities, numbers, weight = drawn(3, 4, 16, 4)
    query[1, 5] = np.nan
    scores, of_query, of_entities = (np.asarray(part) for part in ours(query, entities, numbers, weight))
    assert np.isnan(scores[1]).all()
    assert np.isfinite(scores[[0, 2]]).all()
    assert np.isfinite(of_query).all() and np.isnan(of_entities[numbers[1], 5]).all()


def test_under_vmap_and_in_a_loop() -> None:
    """Seeds trained side by side are vmapped, an epoch is a scan."""
    several = [drawn(6, 5, 20, 4, seed) for seed in range(3)]
    stacked = [np.stack(part) for part in zip(*several, strict=True)]
    together = jax.jit(jax.vmap(ours))(*stacked)
    turns = jax.jit(lambda *x: jax.lax.scan(lambda carry, row: (carry, ours(*row)), 0, x)[1])(*stacked)
    for place, at in enumerate(several):
        for found, turn, expected in zip(together, turns, by_loops(*at), strict=True):
            np.testing.assert_allclose(found[place], expected, rtol=1e-4, atol=1e-4)
            np.testing.assert_allclose(turn[place], expected, rtol=1e-4, atol=1e-4)


def test_many_calls_at_once() -> None:
    """More callers than XLA has threads, each of them waiting for helpers: nothing hangs, nothing is mixed up."""
    several = [drawn(40, 30, 24, 8, seed) for seed in range(8)]
    expected = [np.asarray(ours(*at)[2]) for at in several]
    wrong: list[int] = []

    def call(place: int) -> None:
        for _ in range(30):
            if not np.array_equal(np.asarray(ours(*several[place])[2]), expected[place]):
                wrong.append(place)

    threads = [threading.Thread(target=call, args=(place,), daemon=True) for place in range(len(several))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert not wrong


def test_without_numba_there_are_other_strategies() -> None:
    program = (
        "import sys; sys.modules['numba'] = None\n"
        "from fusionjax.kernels import looped\n"
        "from tests.link_prediction.made import made\n"
        "assert not looped.available()\n"
        "at = made('scorer=distmult', 'training=negatives', 'negatives.number=2')\n"
        "assert at.strategy.against == 'picked'\n"
        "at.epochs()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, env=os.environ | {"JAX_PLATFORMS": "cpu"}
    )
    assert done.returncode == 0, done.stderr
