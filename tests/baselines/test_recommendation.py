"""Simple recommenders: item-kNN against loops, tuned on validation."""

import math
from typing import Any

import numpy as np
import pytest

from fusionjax.baselines import Catalogue, item_knn, measure_baselines, tuning_sample
from fusionjax.baselines.item_knn import ItemKNN, ItemKNNScorer, latest_distinct, similarities
from fusionjax.baselines.random import RandomScorer
from fusionjax.evaluation.metrics import Result
from fusionjax.evaluation.ranking import Ragged
from fusionjax.evaluation.recommendation import Cases, evaluate_recommendation


def measured(
    train: Ragged, n: int, test: Cases, valid: Cases | None = None, titles: list[str] | None = None, k: int = 10
) -> dict[str, Result]:
    counts = np.bincount(train.values, minlength=n)

    def measure(scorer: Any, cases: Cases) -> Result:
        names, rows = (f"recall@{k}", f"ndcg@{k}"), np.arange(len(cases.targets))
        return evaluate_recommendation(scorer, rows, cases.targets, cases.history, counts, names=names)

    known = Catalogue(n, titles, counts, histories=train)
    return measure_baselines("recommendation", known, measure, test, valid, f"ndcg@{k}")


def grid(*entries: tuple[float, int, float]) -> tuple[dict[str, float], ...]:
    return tuple(dict(zip(("shrink", "neighbours", "decay"), entry, strict=True)) for entry in entries)


def test_tuning_sample() -> None:
    assert tuning_sample(1000).tolist() == list(range(1000))
    some = tuning_sample(5000, 3)
    assert len(np.unique(some)) == 1000 and (np.diff(some) > 0).all() and (some == tuning_sample(5000, 3)).all()


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
    monkeypatch.setattr(item_knn, "_BLOCK_PAIRS", 200)
    parts = similarities(train, 40, 5, 1.0)
    assert whole.nnz > 0
    np.testing.assert_array_equal(whole.toarray(), parts.toarray())


def test_item_knn_cuts_long_histories_to_their_latest(monkeypatch: pytest.MonkeyPatch) -> None:
    train = Ragged.of([[0, 1, 2, 3, 4, 5, 6, 7], [0, 1]])
    assert similarities(train, 8, 8, 0.0)[0, 7] > 0
    monkeypatch.setattr(item_knn, "MOST_PAIRS", 30)  # 8² + 2² = 68 → 4² + 2² = 20
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
    results = measured(train, 20, test, valid, titles, k=4)
    assert list(results) == ["random", "popularity", "item_knn", "bm25"]
    # Four products of a user's taste are unseen: whoever knows the taste finds the target among four.
    assert results["item_knn"].metrics["recall@4"] == 1.0
    assert results["bm25"].metrics["recall@4"] > 0.9
    assert results["popularity"].metrics["recall@4"] < 0.6 and results["random"].metrics["recall@4"] < 0.6
    settings = results["item_knn"].settings
    assert {name: settings[name] for name in ("shrink", "neighbours", "decay")} in item_knn.GRID
    assert settings["chosen_by"] == "validation ndcg@4" and results["bm25"].settings["history"] == 5
    printed = capfd.readouterr()
    assert printed.out == "" and printed.err == ""


def test_baselines_without_validation_or_titles_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    train, test, valid, _ = _shop()
    plain = measured(train, 20, test)
    assert list(plain) == ["random", "popularity", "item_knn"] and plain["item_knn"].settings["chosen_by"] == "default"
    monkeypatch.setattr(ItemKNN, "grid", grid((0.0, 20, 1.0), (5.0, 3, 0.5)))
    first, second = (measured(train, 20, test, valid)["item_knn"] for _ in range(2))
    assert first.metrics == second.metrics and first.settings == second.settings


def test_item_knn_is_tuned_on_validation_and_not_on_test(monkeypatch: pytest.MonkeyPatch) -> None:
    # 0 goes with 2, 1 with 3. Validation: what follows is kin of the latest product; test: of the one before, and conversely.
    monkeypatch.setattr(ItemKNN, "grid", grid((0.0, 5, 1.5), (0.0, 5, 0.5)))
    train = Ragged.of([[0, 2], [0, 2], [1, 3], [1, 3]])
    history = Ragged.of([[0, 1]])
    latest, before = Cases(history, Ragged.of([[3]])), Cases(history, Ragged.of([[2]]))
    assert measured(train, 4, before, latest)["item_knn"].settings["decay"] == 0.5
    assert measured(train, 4, latest, before)["item_knn"].settings["decay"] == 1.5


def test_latest_distinct_keeps_the_last_of_repeated_products() -> None:
    kept = latest_distinct(Ragged.of([[3, 1, 3, 2, 1], [], [5, 5]]))
    assert [kept[i].tolist() for i in range(3)] == [[3, 2, 1], [], [5]]
    assert len(latest_distinct(Ragged.of([])).values) == 0
