"""Search: every product ranked, graded judgments, BM25."""

import math

import numpy as np
import pytest

from fusionjax.evaluation.ranking import VectorScorer
from fusionjax.evaluation.search import Judged, evaluate_search


def judged(*rows: tuple[int, int, float]) -> Judged:
    query, product, grade = zip(*rows, strict=True)
    return Judged(np.array(query), np.array(product), np.array(grade))


class Table:
    def __init__(self, table: np.ndarray) -> None:
        self.table, self.n_candidates = table.astype(np.float32), table.shape[1]

    def scores(self, rows: np.ndarray) -> np.ndarray:
        return self.table[rows]


SCORES = np.array(
    [
        [9, 8, 7, 6, 5, 4, 3, 2, 1, 0, -1, -2],  # product p has rank p + 1
        [0] * 12,
        [-2, -1, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9],  # product p has rank 12 − p
    ]
)


@pytest.mark.parametrize("block", [12, 5])
def test_by_hand(block: int) -> None:
    # The rows come mixed, query 1 is not judged; unjudged products stand in between and are not removed.
    found = evaluate_search(
        Table(SCORES), judged((2, 10, 1), (0, 1, 2), (0, 11, 1), (0, 0, 0), (2, 3, 3)), batch_size=2, block=block
    )
    assert found.examples is not None and found.examples.example.tolist() == [0, 2] and found.ranks is not None
    assert found.examples.target.tolist() == [1, 11, 0, 10, 3] and found.ranks.tolist() == [2.0, 12.0, 1.0, 2.0, 9.0]
    # Query 0: grade 2 at rank 2, 1 at 12, 0 at 1.  Query 2: grade 1 at rank 2, 3 at 9.
    log = math.log2
    linear = [(2 / log(3)) / (2 + 1 / log(3)), (1 / log(3) + 3 / log(10)) / (3 + 1 / log(3))]
    np.testing.assert_allclose(found.per_example["ndcg@10"], linear, rtol=1e-12)
    exponential = [(3 / log(3)) / (3 + 1 / log(3)), (1 / log(3) + 7 / log(10)) / (7 + 1 / log(3))]
    np.testing.assert_allclose(found.per_example["ndcg_exp@10"], exponential, rtol=1e-12)
    assert found.per_example["mrr"].tolist() == [0.5, 0.5]
    assert found.per_example["recall@10"].tolist() == [0.5, 1.0]
    assert found.metrics["recall@100"] == 1.0 and found.metrics["hits@1"] == 0.0 and found.metrics["queries"] == 2.0
    np.testing.assert_allclose(found.metrics["ndcg@10"], np.mean(linear))


def test_relevant_grade_moves_mrr_and_recall_only() -> None:
    rows = judged((0, 1, 2), (0, 4, 3), (2, 10, 1))
    loose, strict = evaluate_search(Table(SCORES), rows), evaluate_search(Table(SCORES), rows, relevant_grade=3)
    assert loose.metrics["ndcg@10"] == strict.metrics["ndcg@10"]
    assert loose.per_example["mrr"].tolist() == [0.5, 0.5]
    assert strict.per_example["mrr"][0] == 1 / 5 and np.isnan(strict.per_example["mrr"][1])
    assert strict.metrics["mrr"] == 1 / 5 and strict.metrics["queries"] == 1.0


def test_a_constant_scorer_is_not_rewarded() -> None:
    found = evaluate_search(Table(SCORES), judged((1, 0, 1)))
    assert found.metrics["mrr"] == 1 / 6.5


def test_vectors_and_their_score_matrix_agree() -> None:
    random = np.random.default_rng(0)
    queries, products = random.integers(-2, 3, (20, 3)).astype(np.float32), random.integers(-2, 3, (50, 3)).astype(np.float32)
    chosen = np.stack([random.choice(50, 4, replace=False) for _ in range(20)])
    rows = Judged(np.repeat(np.arange(20), 4), chosen.reshape(-1), random.integers(0, 4, 80))
    vectors = evaluate_search(VectorScorer(queries, products), rows, batch_size=8, block=16)
    table = evaluate_search(Table(queries @ products.T), rows, batch_size=8, block=16)
    assert vectors.metrics == table.metrics


def test_wrong_judgments_are_refused() -> None:
    with pytest.raises(ValueError, match="1 of 3 judgments repeat"):
        evaluate_search(Table(SCORES), judged((0, 1, 2), (2, 1, 2), (0, 1, 1)))
    with pytest.raises(ValueError, match="grades must be at least 0"):
        evaluate_search(Table(SCORES), judged((0, 1, -1)))
    with pytest.raises(ValueError, match="there are 12 candidates"):
        evaluate_search(Table(SCORES), judged((0, 12, 1)))
