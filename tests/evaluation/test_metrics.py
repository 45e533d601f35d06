"""Metrics against values worked by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusionjax.errors import UserError
from fusionjax.evaluation import metrics
from fusionjax.evaluation.ranking import Ragged
from fusionjax.evaluation.scores import Examples


def one(count: int) -> Ragged:
    return Ragged.of([list(range(count))])


def test_single_targets_by_hand() -> None:
    targets, ranks = Ragged.of([[5], [5], [5], [5]]), np.array([1.0, 2.0, 10.0, 10.5])
    assert metrics.reciprocal_rank(targets, ranks).tolist() == [1.0, 0.5, 0.1, 1 / 10.5]
    assert metrics.hits(targets, ranks, 10).tolist() == [1.0, 1.0, 1.0, 0.0]
    assert metrics.recall(targets, ranks, 1).tolist() == [1.0, 0.0, 0.0, 0.0]
    expected = [1.0, 1 / np.log2(3), 1 / np.log2(11), 0.0]
    np.testing.assert_allclose(metrics.ndcg(targets, ranks, 10), expected, rtol=1e-12)


def test_several_targets_by_hand() -> None:
    # Three targets at 1, 4, 12; cut-off 10 finds two of three.
    targets, ranks = one(3), np.array([4.0, 1.0, 12.0])
    assert metrics.reciprocal_rank(targets, ranks).tolist() == [1.0]
    assert metrics.recall(targets, ranks, 10).tolist() == [2 / 3]
    gained, ideal = 1 + 1 / np.log2(5), 1 + 1 / np.log2(3) + 1 / np.log2(4)
    np.testing.assert_allclose(metrics.ndcg(targets, ranks, 10), [gained / ideal], rtol=1e-12)
    # With cut-off 2 the ideal, too, holds only two.
    np.testing.assert_allclose(metrics.ndcg(targets, ranks, 2), [1 / (1 + 1 / np.log2(3))], rtol=1e-12)


def test_graded_ndcg_by_hand_in_both_forms() -> None:
    # Judged grades 3, 2, 0, 1 at ranks 2, 1, 3, 11: the last is outside the cut-off but inside the ideal.
    targets, ranks, grades = one(4), np.array([2.0, 1.0, 3.0, 11.0]), np.array([3, 2, 0, 1])
    linear = (2 / 1 + 3 / np.log2(3)) / (3 / 1 + 2 / np.log2(3) + 1 / 2)
    np.testing.assert_allclose(metrics.ndcg(targets, ranks, 10, grades), [linear], rtol=1e-12)
    np.testing.assert_allclose(linear, 0.8176, atol=5e-4)  # 3.8928 / 4.7619
    exponential = (3 / 1 + 7 / np.log2(3)) / (7 / 1 + 3 / np.log2(3) + 1 / 2)
    np.testing.assert_allclose(metrics.ndcg(targets, ranks, 10, grades, exponential=True), [exponential], rtol=1e-12)
    np.testing.assert_allclose(exponential, 0.7896, atol=5e-4)  # 7.4165 / 9.3928


def test_undefined_rows_are_nan_and_left_out_of_the_mean() -> None:
    targets, ranks = Ragged.of([[1], [], [2]]), np.array([2.0, 4.0])
    for values in (
        metrics.reciprocal_rank(targets, ranks),
        metrics.hits(targets, ranks, 1),
        metrics.recall(targets, ranks, 3),
        metrics.ndcg(targets, ranks, 3),
        metrics.ndcg(targets, ranks, 3, np.array([1, 2])),
    ):
        assert np.isnan(values).tolist() == [False, True, False]
    assert np.isnan(metrics.ndcg(targets, ranks, 3, np.array([0, 2]))).tolist() == [True, True, False]
    assert metrics.mean(np.array([0.5, np.nan, 0.25])) == 0.375
    assert np.isnan(metrics.mean(np.array([np.nan])))


def test_ties_across_the_cut_off_never_exceed_one() -> None:
    # Three targets tie at places 1 to 3: mean rank 2, all within cut-off 2, more than two places can hold.
    assert metrics.ndcg(one(3), np.array([2.0, 2.0, 2.0]), 2).tolist() == [1.0]


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(1, 30)), min_size=1, max_size=12, unique_by=lambda pair: pair[1]))
def test_ndcg_equals_a_loop_and_the_ideal_order_is_one(judged: list[tuple[int, int]]) -> None:
    grades, ranks = np.array([pair[0] for pair in judged]), np.array([float(pair[1]) for pair in judged])
    targets = one(len(judged))
    for exponential in (False, True):
        gain = (lambda grade: 2**grade - 1) if exponential else (lambda grade: grade)
        gained = sum(gain(grade) / np.log2(1 + rank) for grade, rank in judged if rank <= 10)
        ideal = sum(
            gain(grade) / np.log2(2 + place) for place, grade in enumerate(sorted(grades.tolist(), reverse=True)) if place < 10
        )
        found = metrics.ndcg(targets, ranks, 10, grades, exponential=exponential)
        best = np.empty(len(judged))
        best[np.argsort(-grades, kind="stable")] = 1 + np.arange(len(judged))
        if ideal == 0:
            assert np.isnan(found).all()
        else:
            np.testing.assert_allclose(found, [gained / ideal], rtol=1e-12)
            assert metrics.ndcg(targets, best, 10, grades, exponential=exponential).tolist() == [1.0]


def test_wrong_input_is_refused() -> None:
    with pytest.raises(ValueError, match="2 ranks for 1 targets"):
        metrics.recall(one(1), np.array([1.0, 2.0]), 1)
    with pytest.raises(ValueError, match="start at 1, not 0"):
        metrics.recall(one(1), np.array([0.0]), 1)
    with pytest.raises(ValueError, match="start at 1, not nan"):
        metrics.recall(one(1), np.array([np.nan]), 1)
    with pytest.raises(ValueError, match="grades must be at least 0, not -1"):
        metrics.ndcg(one(1), np.array([1.0]), 1, np.array([-1]))


def test_coverage_counts_distinct_products_within_k() -> None:
    shown = np.array([[0, 1, 2], [1, 3, -1]])
    assert metrics.coverage(shown, 8, 1) == 2 / 8
    assert metrics.coverage(shown, 8, 3) == 4 / 8


def test_segments_hold_a_third_of_the_events_each() -> None:
    # 12 events. In order: 4 (before it 0), 3 (4 ≥ 12/3), 2 (7), 1 (9 ≥ 24/3), 1, 1; then none.
    counts = np.array([1, 4, 0, 2, 3, 1, 1, 0])
    names = [metrics.SEGMENTS[code] for code in metrics.popularity_segments(counts)]
    assert names == ["tail", "head", "cold", "middle", "middle", "tail", "tail", "cold"]
    assert metrics.popularity_segments(np.zeros(2, int)).tolist() == [metrics.COLD, metrics.COLD]


# ---------------------------------------------------------------------------------------------------------------- by name
def test_average_precision_by_hand() -> None:
    # Targets at 1, 4, 12: precisions 1, 2/4, 3/12.
    targets, ranks = one(3), np.array([4.0, 1.0, 12.0])
    np.testing.assert_allclose(metrics.average_precision(targets, ranks), [(1 + 0.5 + 0.25) / 3], rtol=1e-12)
    np.testing.assert_allclose(metrics.average_precision(targets, ranks, 10), [(1 + 0.5) / 3], rtol=1e-12)
    np.testing.assert_allclose(metrics.average_precision(targets, ranks, 2), [1 / 2], rtol=1e-12)  # at most two are asked for
    assert metrics.average_precision(one(2), np.array([1.5, 1.5]))[0] == 1.0  # tied at the top
    assert np.isnan(metrics.average_precision(one(0), np.zeros(0))[0])


def _two_triples(candidates: np.ndarray | None) -> Examples:
    return Examples("link_prediction", np.arange(2), np.array([0, 2, 4]), np.arange(4), candidates=candidates)


def test_metrics_of_link_prediction_by_name() -> None:
    asked, ranks = _two_triples(np.array([11, 21, 11, 21])), np.array([1.0, 5.0, 2.0, 10.0])
    names = ("mr", "mrr@4", "hits@5", "amri", "map", "precision@5")
    found = {name: metrics.mean(values) for name, values in metrics.per_example(asked, ranks, names=names).items()}
    # Others above: 0, 4, 1, 9; by chance 5, 10, 5, 10.
    expected = {"mr": 4.5, "mrr@4": (1 + 0.5) / 4, "hits@5": 0.75, "amri": 1 - 14 / 30, "precision@5": 3 / 20}
    assert found == pytest.approx({**expected, "map": (1 + 0.2 + 0.5 + 0.1) / 4}, abs=1e-12)
    with pytest.raises(ValueError, match="amri needs the number of candidates"):
        metrics.per_example(_two_triples(None), ranks, names=["amri"])
    perfect = metrics.per_example(asked, np.ones(4), names=["amri"])["amri"]
    assert perfect.tolist() == [1.0, 1.0]


def test_random_scores_have_an_adjusted_index_of_zero() -> None:
    random = np.random.default_rng(0)
    n = 4000
    candidates = random.integers(2, 500, 2 * n)
    ranks = np.floor(random.random(2 * n) * candidates) + 1
    asked = Examples("link_prediction", np.arange(n), np.arange(n + 1) * 2, np.zeros(2 * n, int), candidates=candidates)
    values = metrics.per_example(asked, ranks, names=["amri"])["amri"]
    assert abs(values.mean()) < 4 * values.std() / np.sqrt(n)


def test_search_counts_what_is_relevant() -> None:
    asked = Examples("search", np.arange(1), np.array([0, 3]), np.arange(3), np.array([0.0, 2.0, 1.0]))
    found = metrics.per_example(asked, np.array([1.0, 2.0, 4.0]), names=["map", "mr", "recall@2", "ndcg@5"])
    assert (found["map"][0], found["mr"][0], found["recall@2"][0]) == (0.5, 3.0, 0.5)
    np.testing.assert_allclose(found["ndcg@5"], (2 / np.log2(3) + 1 / np.log2(5)) / (2 + 1 / np.log2(3)))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("hit@5", r"no metric 'hit@5'; did you mean 'hits@\d+'\?"),
        ("hits", "no metric 'hits': it needs a cut-off, such as hits@10"),
        ("mr@10", "no metric 'mr@10': it has no cut-off: mr"),
        ("ndcg@0", "its cut-off must be a whole number from 1, such as ndcg@10"),
        ("ndcg@x", "its cut-off must be a whole number"),
        ("map@05", "its cut-off must be a whole number"),
        ("ndgc@10", r"no metric 'ndgc@10'; did you mean 'ndcg@10'\?"),
    ],
)
def test_a_metric_that_there_is_not(name: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        metrics.check_name("search", name)


def test_directions() -> None:
    assert not metrics.higher_is_better("mr") and metrics.higher_is_better("amri") and metrics.higher_is_better("mrr/tail")
    assert not metrics.higher_is_better("mr/unseen") and metrics.higher_is_better("triples")
