"""Recommendation: seen products, segments, item-kNN against loops."""

import math
from typing import Any

import numpy as np
import pytest

from fusionjax.evaluation import baselines
from fusionjax.evaluation.baselines import ItemKNNScorer, RandomScorer, latest_distinct, recommendation_baselines, similarities
from fusionjax.evaluation.ranking import Ragged
from fusionjax.evaluation.recommendation import Cases, evaluate_recommendation
from fusionjax.evaluation.scores import per_example


class Table:
    def __init__(self, table: Any) -> None:
        self.table = np.asarray(table, np.float32)
        self.n_candidates = self.table.shape[1]

    def scores(self, rows: np.ndarray) -> np.ndarray:
        return self.table[rows]


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
    found = evaluate_recommendation(Table(DOWN), np.array([0]), targets, Ragged.of([[0, 1, 2, 3, 4]]), COUNTS, ks=(1, 2))
    # Of the seen, the targets 2 and 4 stay and compete: first and second.
    assert found.metrics["mrr"] == 1.0 and found.metrics["recall@2"] == 1.0 and found.metrics["recall@1"] == 0.5
    assert found.metrics["coverage@2"] == 2 / 12
    free = evaluate_recommendation(Table(DOWN), np.array([0]), targets, None, COUNTS, ks=(1, 2))
    assert free.metrics["mrr"] == 1 / 3 and free.metrics["coverage@1"] == 1 / 12


def test_coverage_of_a_constant_scorer_is_small_and_its_rank_is_the_middle() -> None:
    users = np.arange(6)
    found = evaluate_recommendation(Table(np.zeros((6, 12))), users, Ragged.of([[u] for u in users]), None, COUNTS)
    assert found.metrics["coverage@10"] == 10 / 12 and found.metrics["mrr"] == 1 / 6.5


def test_nan_names_the_task() -> None:
    with pytest.raises(ValueError, match="recommendation: 1 of 1 rows have NaN"):
        evaluate_recommendation(Table(np.full((1, 12), np.nan)), np.array([0]), Ragged.of([[1]]), None, COUNTS)


def test_latest_distinct_keeps_the_last_of_repeated_products() -> None:
    kept = latest_distinct(Ragged.of([[3, 1, 3, 2, 1], [], [5, 5]]))
    assert [kept[i].tolist() for i in range(3)] == [[3, 2, 1], [], [5]]
    assert len(latest_distinct(Ragged.of([])).values) == 0


def _loop_similarities(histories: list[list[int]], n: int, neighbours: int, shrink: float) -> np.ndarray:
    users = [{u for u, history in enumerate(histories) if p in history} for p in range(n)]
    table = np.zeros((n, n))
    for i in range(n):
        row = {}
        for j in range(n):
            common = len(users[i] & users[j])
            if i != j and common:
                row[j] = common / (math.sqrt(len(users[i]) * len(users[j])) + shrink)
        for j in sorted(row, key=lambda j: (-row[j], j))[:neighbours]:
            table[i, j] = row[j]
    return table


@pytest.mark.parametrize(("neighbours", "shrink"), [(3, 0.0), (3, 7.0), (50, 2.0), (1, 0.0)])
def test_item_knn_equals_loops(neighbours: int, shrink: float) -> None:
    random = np.random.default_rng(1)
    n = 15
    histories = [random.integers(0, n, random.integers(0, 8)).tolist() for _ in range(30)]
    expected = _loop_similarities(histories, n, neighbours, shrink)
    similar = similarities(Ragged.of(histories), n, neighbours, shrink)
    np.testing.assert_allclose(similar.toarray(), expected, rtol=1e-6)

    asked = [[4, 2, 4, 9], [], [1]]
    scores = ItemKNNScorer(similar, Ragged.of(asked), 0.5).scores(np.array([2, 0, 1]))
    assert scores.dtype == np.float32
    votes = [expected[1], 0.25 * expected[2] + 0.5 * expected[4] + expected[9], np.zeros(n)]
    np.testing.assert_allclose(scores, votes, rtol=1e-6)


def test_item_knn_in_blocks_equals_one_block(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(2)
    train = Ragged.of([random.integers(0, 40, 9) for _ in range(60)])
    whole = similarities(train, 40, 5, 1.0)
    monkeypatch.setattr(baselines, "_KNN_BLOCK_PAIRS", 200)
    parts = similarities(train, 40, 5, 1.0)
    assert whole.nnz > 0
    np.testing.assert_array_equal(whole.toarray(), parts.toarray())


def test_item_knn_cuts_long_histories_to_their_latest(monkeypatch: pytest.MonkeyPatch) -> None:
    train = Ragged.of([[0, 1, 2, 3, 4, 5, 6, 7], [0, 1]])
    assert similarities(train, 8, 8, 0.0)[0, 7] > 0
    monkeypatch.setattr(baselines, "KNN_MOST_PAIRS", 30)  # 8² + 2² = 68 → 4² + 2² = 20
    cut = similarities(train, 8, 8, 0.0).toarray()
    assert (cut > 0).sum() == 4 * 3 + 2 and cut[4, 7] == 1.0 and cut[0, 1] == 1.0 and cut[0, 7] == 0.0


def test_similarities_without_any_co_occurrence() -> None:
    assert similarities(Ragged.of([[0], [2]]), 3, 5, 0.0).nnz == 0
    assert similarities(Ragged.of([[], []]), 3, 5, 0.0).shape == (3, 3)


def test_random_depends_on_seed_and_row_only() -> None:
    scorer = RandomScorer(6, seed=4)
    whole = scorer.scores(np.arange(5))
    np.testing.assert_array_equal(scorer.scores(np.array([3, 1])), whole[[3, 1]])
    assert len(np.unique(whole)) == whole.size
    assert (RandomScorer(6, seed=5).scores(np.arange(5)) != whole).all()


def _shop() -> tuple[Ragged, Cases, Cases, list[str]]:
    """Two tastes: users keep to products 0 … 9 or 10 … 19; titles tell them apart."""
    random = np.random.default_rng(0)
    sequences = [(random.permutation(10)[:7] + 10 * (user % 2)).tolist() for user in range(60)]
    titles = [f"{'red' if p < 10 else 'blue'} thing{p}" for p in range(20)]
    train = Ragged.of([row[:-2] for row in sequences])
    valid = Cases(train, Ragged.of([[row[-2]] for row in sequences]))
    test = Cases(Ragged.of([row[:-1] for row in sequences]), Ragged.of([[row[-1]] for row in sequences]))
    return train, test, valid, titles


def test_baselines_find_the_tastes(capfd: pytest.CaptureFixture[str]) -> None:
    train, test, valid, titles = _shop()
    results = recommendation_baselines(train, 20, test, valid, titles=titles, ks=(4, 10))
    assert list(results) == ["random", "popularity", "item_knn", "bm25"]
    # Four products of a user's taste are unseen: whoever knows the taste finds the target among four.
    assert results["item_knn"].metrics["recall@4"] == 1.0
    assert results["bm25"].metrics["recall@4"] > 0.9
    assert results["popularity"].metrics["recall@4"] < 0.6 and results["random"].metrics["recall@4"] < 0.6
    settings = results["item_knn"].settings
    assert (settings["shrink"], settings["neighbours"], settings["decay"]) in baselines.KNN_GRID
    assert settings["chosen_by"] == "validation ndcg@4" and results["bm25"].settings["history"] == 5
    printed = capfd.readouterr()
    assert printed.out == "" and printed.err == ""


def test_baselines_without_validation_or_titles_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    train, test, valid, _ = _shop()
    plain = recommendation_baselines(train, 20, test)
    assert list(plain) == ["random", "popularity", "item_knn"] and plain["item_knn"].settings["chosen_by"] == "default"
    monkeypatch.setattr(baselines, "TUNE_EXAMPLES", 10)
    monkeypatch.setattr(baselines, "KNN_GRID", ((0.0, 20, 1.0), (5.0, 3, 0.5)))
    first, second = (recommendation_baselines(train, 20, test, valid)["item_knn"] for _ in range(2))
    assert first.metrics == second.metrics and first.settings == second.settings


def test_item_knn_is_tuned_on_validation_and_not_on_test(monkeypatch: pytest.MonkeyPatch) -> None:
    # 0 goes with 2, 1 with 3. Validation: what follows is kin of the latest product; test: of the one before, and conversely.
    monkeypatch.setattr(baselines, "KNN_GRID", ((0.0, 5, 1.5), (0.0, 5, 0.5)))
    train = Ragged.of([[0, 2], [0, 2], [1, 3], [1, 3]])
    history = Ragged.of([[0, 1]])
    latest, before = Cases(history, Ragged.of([[3]])), Cases(history, Ragged.of([[2]]))
    assert recommendation_baselines(train, 4, before, latest)["item_knn"].settings["decay"] == 0.5
    assert recommendation_baselines(train, 4, latest, before)["item_knn"].settings["decay"] == 1.5
