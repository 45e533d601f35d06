"""Ranks against a plain loop: ties, exclusions, blocks, NaN, memory and compilations."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.extend.core import jaxprs_in_params

from fusionjax.evaluation import counting, ranking
from fusionjax.evaluation.counting import Exclusions
from fusionjax.evaluation.ranking import (
    DeviceScorer,
    HostScorer,
    Plan,
    Ragged,
    VectorScorer,
    dot_product,
    rank_rows,
    target_ranks,
    top_k,
)


def given_scores(queries: jax.Array, candidates: jax.Array) -> jax.Array:
    """The score matrix itself is the query; candidates are column numbers."""
    return queries[:, candidates]


class Table:
    """A host scorer over a fixed matrix."""

    def __init__(self, table: np.ndarray) -> None:
        self.table, self.n_candidates = table, table.shape[1]

    def scores(self, rows: np.ndarray) -> np.ndarray:
        return self.table[rows]


def loop_rank(scores: np.ndarray, target: int, excluded: set[int]) -> float:
    """Mean of the best and the worst place `target` can take in a sorted list."""
    rivals = [scores[c] for c in range(len(scores)) if c != target and c not in excluded]
    best = 1 + sum(s > scores[target] for s in rivals)
    worst = 1 + sum(s >= scores[target] for s in rivals)
    return (best + worst) / 2


def loop_top(scores: np.ndarray, k: int, excluded: set[int]) -> list[int]:
    allowed = [c for c in range(len(scores)) if c not in excluded]
    chosen = sorted(allowed, key=lambda c: (-scores[c], c))[:k]
    return chosen + [-1] * (k - len(chosen))


def columns(n: int) -> jax.Array:
    return jnp.arange(n, dtype=jnp.int32)


@st.composite
def problems(draw: Any) -> tuple[np.ndarray, list[list[int]], list[list[int]], int]:
    # Few shapes, for each is a compilation: everything in one block, a last block that overlaps, one candidate.
    b, (n, block) = 3, draw(st.sampled_from([(11, 20), (11, 4), (1, 3)]))
    candidate = st.integers(0, n - 1)
    scores = draw(st.lists(st.lists(st.integers(-2, 2), min_size=n, max_size=n), min_size=b, max_size=b))
    targets = draw(st.lists(st.lists(candidate, min_size=0, max_size=2), min_size=b, max_size=b))
    excluded = draw(st.lists(st.lists(candidate, min_size=0, max_size=n), min_size=b, max_size=b))
    return np.array(scores, np.float32), targets, excluded, block


@settings(max_examples=60)
@given(problems())
def test_ranks_and_top_equal_a_loop(problem: tuple[np.ndarray, list[list[int]], list[list[int]], int]) -> None:
    scores, targets, excluded, block = problem
    b, n = scores.shape
    wanted, barred = (Ragged.of(rows).padded(width) for rows, width in ((targets, 2), (excluded, 11)))
    ranks = target_ranks(given_scores, scores, columns(n), wanted, barred, block=block)
    for i in range(b):
        expected = [loop_rank(scores[i], target, set(excluded[i])) for target in targets[i]]
        assert ranks[i, : len(expected)].tolist() == expected
        assert np.isnan(ranks[i, len(expected) :]).all()
    _, best = top_k(given_scores, scores, columns(n), 5, barred, block=block)
    assert best.tolist() == [loop_top(scores[i], 5, set(excluded[i])) for i in range(b)]


@settings(max_examples=60)
@given(problems())
def test_rank_rows_equals_a_loop(problem: tuple[np.ndarray, list[list[int]], list[list[int]], int]) -> None:
    scores, targets, excluded, block = problem
    found = rank_rows(
        Table(scores), np.arange(len(scores)), Ragged.of(targets), Ragged.of(excluded), batch_size=2, block=block, top=3
    )
    pairs = [(i, target) for i, row in enumerate(targets) for target in row]
    assert found.ranks.tolist() == [loop_rank(scores[i], target, set(excluded[i])) for i, target in pairs]
    assert found.top.tolist() == [loop_top(scores[i], 3, set(excluded[i])) for i in range(len(scores))]


@pytest.mark.parametrize("most", [1 << 24, 50])
def test_exclusions_shared_by_rows_and_held_in_sections(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    random = np.random.default_rng(6)
    table = random.integers(-2, 3, (30, 300)).astype(np.float32)
    lists = Ragged.of([[], [5, 9], random.choice(300, 280, replace=False)])  # longer than is looked at together
    row = random.integers(0, 3, 30)
    targets = Ragged.of([random.integers(0, 300, 1 + i % 3) for i in range(30)])
    monkeypatch.setattr(ranking, "_MOST_EXCLUSIONS", most)
    plan = Plan.of(targets, lists, 300, excluded_row=row, batch_size=8)
    assert (len(plan.sections) > 1) == (most <= 50)
    for block in (300, 70):
        found = rank_rows(Table(table), np.arange(30), targets, lists, excluded_row=row, batch_size=8, block=block, top=4)
        pairs = [(i, value) for i in range(30) for value in targets[i].tolist()]
        assert found.ranks.tolist() == [loop_rank(table[i], value, set(lists[row[i]].tolist())) for i, value in pairs]
        assert found.top.tolist() == [loop_top(table[i], 4, set(lists[row[i]].tolist())) for i in range(30)]
        assert (found.counts.optimistic + found.counts.pessimistic == 2 * found.ranks).all()


@pytest.mark.parametrize(("n", "most", "size"), [(0, 8, 1), (5, 8, 5), (9, 8, 3), (555, 512, 192), (1000, 512, 512), (3, 2, 1)])
def test_batches_share_their_rows_evenly(n: int, most: int, size: int) -> None:
    plan = Plan.of(Ragged.of([[0]] * n), None, 1, batch_size=most)
    assert {len(batch.positions) for batch in plan.batches} <= {size}
    assert sum(batch.n for batch in plan.batches) == n and max((batch.n for batch in plan.batches), default=0) <= most


@pytest.mark.parametrize(("n", "block"), [(1, 1), (1, 8), (7, 3), (100, 32), (100, 100)])
def test_constant_scorer_gets_the_middle_rank(n: int, block: int) -> None:
    ranks = target_ranks(given_scores, np.zeros((2, n), np.float32), columns(n), [[0], [n - 1]], block=block)
    assert ranks.tolist() == [[(n + 1) / 2], [(n + 1) / 2]]


def test_one_candidate_and_no_rivals_left() -> None:
    assert target_ranks(given_scores, np.array([[5.0]]), columns(1), [[0]]).tolist() == [[1.0]]
    scores = np.array([[1.0, 9.0, 9.0]])
    assert target_ranks(given_scores, scores, columns(3), [[0]], [[1, 2]]).tolist() == [[1.0]]


def test_an_excluded_target_is_ranked_but_does_not_compete_with_another() -> None:
    scores = np.array([[3.0, 2.0, 1.0, 3.0]], np.float32)
    # 0 is excluded: it still has a rank of its own (tied with 3), and 2 is beaten by 1 and 3 only.
    assert target_ranks(given_scores, scores, columns(4), [[0, 2]], [[0, -1]]).tolist() == [[1.5, 3.0]]


def test_an_exclusion_given_twice_counts_once() -> None:
    scores = np.array([[3.0, 2.0, 1.0]], np.float32)
    assert target_ranks(given_scores, scores, columns(3), [[2]], [[0, 0, 0]], block=2).tolist() == [[2.0]]


@pytest.mark.parametrize(("n", "width", "block"), [(101, 17, 101), (101, 17, 40), (257, 64, 100), (50, 5, 7), (33, 3, 32)])
def test_equal_vectors_tie_exactly_wherever_they_stand(n: int, width: int, block: int) -> None:
    """The target's score and its rivals' come from one code path: copies in any block and column are ties, not near misses."""
    random = np.random.default_rng(n)
    vectors = random.standard_normal((n, width)).astype(np.float32)
    copies = np.arange(0, n, 3)
    vectors[copies] = vectors[0]
    queries = random.standard_normal((9, width)).astype(np.float32)
    ranks = target_ranks(dot_product, queries, vectors, np.tile(copies[:8], (9, 1)), block=block)
    assert (ranks == ranks[:, :1]).all()
    reference = queries.astype(np.float64) @ vectors.astype(np.float64).T
    greater = (np.delete(reference, copies, axis=1) > reference[:, :1]).sum(axis=1)
    assert ranks[:, 0].tolist() == (1 + greater + (len(copies) - 1) / 2).tolist()


@pytest.mark.parametrize("block", [16, 200])
def test_the_next_float_is_not_a_tie(block: int) -> None:
    scores = np.full((1, 150), 0.1, np.float32)
    scores[0, 140] = np.nextafter(np.float32(0.1), np.float32(1.0))
    ranks = target_ranks(given_scores, scores, columns(150), [[140, 3]], block=block)
    assert ranks.tolist() == [[1.0, 2 + 148 / 2]]


def test_infinite_scores_are_ranked() -> None:
    scores = np.array([[-np.inf, np.inf, 0.0, np.inf, -np.inf]], np.float32)
    assert target_ranks(given_scores, scores, columns(5), [[0, 1, 2]], block=2).tolist() == [[4.5, 1.5, 3.0]]


@pytest.mark.parametrize("block", [3, 64])
def test_nan_names_task_and_row(block: int) -> None:
    table = np.zeros((6, 10), np.float32)
    table[4, 7] = np.nan
    with pytest.raises(ValueError, match=r"search: 1 of 3 rows have NaN scores, the first is row 4"):
        rank_rows(Table(table), np.array([3, 4, 5]), Ragged.of([[0]] * 3), batch_size=8, block=block, task="search")
    with pytest.raises(ValueError, match="recommendation: 1 of 6 rows have NaN"):
        top_k(given_scores, table, columns(10), 2, np.zeros((6, 0)), block=block, task="recommendation")


def test_wrong_numbers_and_lengths_are_refused() -> None:
    table = Table(np.zeros((2, 4), np.float32))
    with pytest.raises(ValueError, match="there are 4 candidates"):
        rank_rows(table, np.arange(2), Ragged.of([[0], [4]]))
    with pytest.raises(ValueError, match="2 rows, 1 rows of targets"):
        rank_rows(table, np.arange(2), Ragged.of([[0]]))
    with pytest.raises(ValueError, match="one leading length"):
        target_ranks(given_scores, np.zeros((1, 0)), columns(0), [[0]])
    with pytest.raises(ValueError, match="expected"):
        rank_rows(_WrongShape(), np.arange(2), Ragged.of([[0], [0]]))


class _WrongShape:
    n_candidates = 4

    def scores(self, rows: np.ndarray) -> np.ndarray:
        return np.zeros((len(rows), 3))


def test_both_forms_of_scorer_agree() -> None:
    random = np.random.default_rng(3)
    queries, candidates = random.integers(-2, 3, (40, 4)), random.integers(-2, 3, (90, 4))
    queries, candidates = queries.astype(np.float32), candidates.astype(np.float32)  # small integers: sums are exact
    vectors, table = VectorScorer(queries, candidates), Table(queries @ candidates.T)
    assert isinstance(vectors, DeviceScorer)
    assert isinstance(table, HostScorer) and not isinstance(table, DeviceScorer)
    targets = Ragged.of([random.integers(0, 90, 2) for _ in range(40)])
    seen = Ragged.of([random.integers(0, 90, 1 + i % 15) for i in range(40)])
    results = [
        rank_rows(scorer, np.arange(40), targets, seen, batch_size=16, block=block, top=7)
        for scorer in (vectors, table)
        for block in (90, 32)
    ]
    for other in results[1:]:
        np.testing.assert_array_equal(other.ranks, results[0].ranks)
        np.testing.assert_array_equal(other.top, results[0].top)
    assert (results[0].ranks % 1 == 0.5).any()  # the case has ties


def test_a_pytree_of_candidates_is_sliced_leaf_by_leaf() -> None:
    def score(queries: jax.Array, candidates: dict[str, jax.Array]) -> jax.Array:
        return queries @ candidates["vector"].T + candidates["bias"][None]

    random = np.random.default_rng(4)
    queries = random.integers(-3, 4, (5, 2)).astype(np.float32)
    candidates = {"vector": random.integers(-3, 4, (23, 2)).astype(np.float32), "bias": np.arange(23, dtype=np.float32)}
    scores = queries @ candidates["vector"].T + candidates["bias"]
    ranks = target_ranks(score, queries, candidates, np.full((5, 1), 11), block=5)
    assert ranks[:, 0].tolist() == [loop_rank(row, 11, set()) for row in scores]


def test_compilations_are_few_and_repeat_calls_add_none() -> None:
    random = np.random.default_rng(5)
    n, users = 1000, 700
    candidates = random.standard_normal((n, 8)).astype(np.float32)
    queries = random.standard_normal((users, 8)).astype(np.float32)
    lengths = np.minimum(random.zipf(1.3, users), 250)
    lengths[:3] = 0
    seen = Ragged.of([random.choice(n, size=length, replace=False) for length in lengths])
    targets = Ragged.of(random.integers(0, n, (users, 1)))

    def run(rows: np.ndarray) -> None:
        scorer = VectorScorer(queries, candidates)
        rank_rows(scorer, rows, targets.take(rows), seen.take(rows), batch_size=32, block=512)

    def compiled() -> int:
        return getattr(counting.count, "_cache_size")()  # noqa: B009 — jit has it, its type does not

    before = compiled()
    run(np.arange(users))
    added = compiled() - before
    assert added == 1  # for all lengths of exclusions from 0 to 250
    run(np.arange(users))
    assert compiled() - before == added
    run(np.arange(300))
    assert compiled() - before <= 2


def _shapes(jaxpr: Any) -> list[tuple[int, ...]]:
    """Shapes of everything a program makes on the way, inner programs included."""
    found = []
    for equation in jaxpr.eqns:
        found += [variable.aval.shape for variable in equation.outvars]
        for inner in jaxprs_in_params(equation.params):
            found += _shapes(inner)
    return found


@pytest.mark.parametrize("many", [4, 64])
def test_memory_is_bounded_by_batch_times_block(many: int) -> None:
    b, t, x, n, d, block = 32, many, 64, 100_000, 8, 512
    queries, vectors, targets = jnp.zeros((b, d)), jnp.zeros((n, d)), jnp.zeros((t, b), jnp.int32)
    excluded = Exclusions(jnp.zeros(b * x, jnp.int32), jnp.arange(b) * x, jnp.arange(1, b + 1) * x)
    count = lambda *given: counting.count(dot_product, *given, jnp.int32(t), excluded, block=block)  # noqa: E731
    top = lambda queries, candidates, _: counting.top(dot_product, queries, candidates, excluded, k=20, block=block)  # noqa: E731
    for program in (count, top):
        shapes = _shapes(jax.make_jaxpr(program)(queries, vectors, targets).jaxpr)
        assert max(np.prod(shape) for shape in shapes) <= b * block
        assert (b, block) in shapes  # the walk does see the inner programs
        compiled = jax.jit(program).lower(queries, vectors, targets).compile()
        assert (
            compiled.memory_analysis().temp_size_in_bytes <= 8 * 4 * b * block
        )  # n · d would be 6 times, b · n 24 times as much


def test_ragged() -> None:
    ragged = Ragged.of([[3, 1, 3], [], [2]])
    assert len(ragged) == 3 and ragged[0].tolist() == [3, 1, 3] and ragged.rows().tolist() == [0, 0, 0, 2]
    assert [row.tolist() for row in (ragged.take(np.array([2, 0, 2]))[i] for i in range(3))] == [[2], [3, 1, 3], [2]]
    assert ragged.padded(4).tolist() == [[3, 1, 3, -1], [-1] * 4, [2, -1, -1, -1]]
    distinct = ragged.distinct()
    assert [distinct[i].tolist() for i in range(3)] == [[1, 3], [], [2]]
    rest = ragged.without(Ragged.of([[3], [5], [7]]))
    assert [rest[i].tolist() for i in range(3)] == [[1], [], [2]]
    pairs = Ragged.from_pairs(np.array([2, 0, 2]), np.array([9, 8, 7]), 3)
    assert [pairs[i].tolist() for i in range(3)] == [[8], [], [9, 7]]
    assert len(Ragged.of([])) == 0 and len(Ragged.of([[], []]).distinct()) == 2
    with pytest.raises(ValueError, match="expected within 0 … 1"):
        Ragged.from_pairs(np.array([2]), np.array([0]), 2)
    with pytest.raises(ValueError, match="decrease"):
        Ragged(np.array([0, 2, 1, 3]), np.array([1, 2, 3]))
