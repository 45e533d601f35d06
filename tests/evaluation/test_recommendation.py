"""Recommendation: seen products, segments, item-kNN against loops."""

import math
from typing import Any

import numpy as np
import pytest

from fusionjax.evaluation.metrics import per_example
from fusionjax.evaluation.ranking import Ragged
from fusionjax.evaluation.recommendation import evaluate_recommendation


class Table:
    def __init__(self, table: Any) -> None:
        self.table = np.asarray(table, np.float32)
        self.n_candidates = self.table.shape[1]

    def scores(self, rows: np.ndarray) -> np.ndarray:
        return self.table[rows]


CUT = ("mrr", "recall@1", "ndcg@1", "recall@2", "ndcg@2")
DOWN = np.tile(np.arange(12, 0, -1), (10, 1))  # product p has rank p + 1 for everyone
COUNTS = np.array([4, 3, 2, 1, 1, 1, 0, 0, 0, 0, 0, 0])  # head 0 · middle 1, 2 · tail 3, 4, 5 · cold 6 …


@pytest.mark.parametrize("block", [12, 5])
def test_by_hand(block: int) -> None:
    targets = Ragged.of([[3], [0, 11], [], [6]])
    seen = Ragged.of([[0, 1, 0], [1], [2], []])
    found = evaluate_recommendation(Table(DOWN), np.array([7, 2, 4, 9]), targets, seen, COUNTS, batch_size=2, block=block)
    # User 7: 0 and 1 seen, so 3 is second. User 2: 0 first, 11 eleventh (1 is gone). User 9: 6 is seventh.
    assert found.examples is not None and found.examples.example.tolist() == [7, 2, 9] and found.ranks is not None
    assert found.examples.target.tolist() == [3, 0, 11, 6] and found.ranks.tolist() == [2.0, 1.0, 11.0, 7.0]
    assert found.per_example["mrr"].tolist() == [1 / 2, 1.0, 1 / 7]
    assert found.per_example["recall@10"].tolist() == [1.0, 0.5, 1.0]
    np.testing.assert_allclose(found.per_example["ndcg@10"], [1 / math.log2(3), 1 / (1 + 1 / math.log2(3)), 1 / 3], rtol=1e-12)
    assert found.metrics["recall@20"] == 1.0 and found.metrics["users"] == 3.0
    # The first ten of 7: 2 … 11; of 2: 0, 2 … 10; of 9: 0 … 9.
    assert found.metrics["coverage@10"] == 12 / 12
    names = ("head", "middle", "tail", "cold")
    assert [found.metrics[f"users/{name}"] for name in names] == [1.0, 0.0, 1.0, 2.0]
    assert found.metrics["recall@10/head"] == 1.0 and found.metrics["recall@10/tail"] == 1.0
    assert found.metrics["recall@10/cold"] == 0.5 and "recall@10/middle" not in found.metrics
    tail = per_example(found.examples, found.ranks, ("popularity", "tail"))
    assert np.isnan(tail["recall@10"]).tolist() == [False, True, True]
    np.testing.assert_allclose(found.metrics["ndcg@10/cold"], (0 + 1 / 3) / 2)


def test_seen_targets_stay_and_nothing_is_excluded_without_seen() -> None:
    targets = Ragged.of([[2, 4]])
    found = evaluate_recommendation(Table(DOWN), np.array([0]), targets, Ragged.of([[0, 1, 2, 3, 4]]), COUNTS, names=CUT)
    # Of the seen, the targets 2 and 4 stay and compete: first and second.
    assert found.metrics["mrr"] == 1.0 and found.metrics["recall@2"] == 1.0 and found.metrics["recall@1"] == 0.5
    assert found.metrics["coverage@2"] == 2 / 12
    free = evaluate_recommendation(Table(DOWN), np.array([0]), targets, None, COUNTS, names=CUT)
    assert free.metrics["mrr"] == 1 / 3 and free.metrics["coverage@1"] == 1 / 12


def test_coverage_of_a_constant_scorer_is_small_and_its_rank_is_the_middle() -> None:
    users = np.arange(6)
    found = evaluate_recommendation(Table(np.zeros((6, 12))), users, Ragged.of([[u] for u in users]), None, COUNTS)
    assert found.metrics["coverage@10"] == 10 / 12 and found.metrics["mrr"] == 1 / 6.5


def test_nan_names_the_task() -> None:
    with pytest.raises(ValueError, match="recommendation: 1 of 1 rows have NaN"):
        evaluate_recommendation(Table(np.full((1, 12), np.nan)), np.array([0]), Ragged.of([[1]]), None, COUNTS)
