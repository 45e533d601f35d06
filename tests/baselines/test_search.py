"""Simple search: BM25 by hand, tuned on validation."""

import math

import numpy as np
import pytest

from fusionjax.baselines import Catalogue, measure_baselines
from fusionjax.baselines.bm25 import GRID, BM25Scorer, Vocabulary, tokenise
from fusionjax.baselines.popularity import PopularityScorer
from fusionjax.evaluation.metrics import Result
from fusionjax.evaluation.search import Judged, evaluate_search


def measured(
    products: list[str], queries: list[str], counts: np.ndarray | None, test: Judged, valid: Judged | None = None
) -> dict[str, Result]:
    known = Catalogue(len(products), products, counts, queries)
    return measure_baselines("search", known, evaluate_search, test, valid, "ndcg@10", seed=3)


def judged(*rows: tuple[int, int, float]) -> Judged:
    query, product, grade = zip(*rows, strict=True)
    return Judged(np.array(query), np.array(product), np.array(grade))


def test_tokens() -> None:
    assert tokenise("Ｎｉｋｅ Air-Max_90, 红色运动鞋！") == (
        ["nike", "air", "max", "90", "红", "色", "运", "动", "鞋", "红色", "色运", "运动", "动鞋"]
    )
    assert tokenise("T恤 café") == ["t", "恤", "café"]
    assert tokenise("ワンピース") == ["ワ", "ン", "ピ", "ー", "ス", "ワン", "ンピ", "ピー", "ース"]
    assert tokenise(" -- ") == []


def test_bm25_by_hand() -> None:
    vocabulary = Vocabulary(["red shoe shoe", "red dress", "blue hat for rain"])
    scorer = BM25Scorer(vocabulary, [vocabulary.query("red shoe unheard"), vocabulary.query("nothing")], k1=1.5, b=0.75)

    def weight(term_frequency: int, length: int, documents: int) -> float:
        """Lucene's BM25: ln(1 + (N − n + ½) / (n + ½)) · tf / (tf + k1 (1 − b + b · length / mean length)), mean length 3."""
        idf = math.log(1 + (3 - documents + 0.5) / (documents + 0.5))
        return idf * term_frequency / (term_frequency + 1.5 * (0.25 + 0.75 * length / 3))

    expected = [[weight(1, 3, 2) + weight(2, 3, 1), weight(1, 2, 2), 0.0], [0.0] * 3]
    np.testing.assert_allclose(scorer.scores(np.array([0, 1])), expected, rtol=1e-6)


def test_bm25_with_empty_products() -> None:
    vocabulary = Vocabulary(["", "red", ""])
    assert (BM25Scorer(vocabulary, [vocabulary.query("red")], 1.5, 0.75).scores(np.array([0]))[0] > 0).tolist() == [0, 1, 0]
    silent = Vocabulary(["", "!"])
    assert BM25Scorer(silent, [silent.query("red")], 1.5, 0.75).scores(np.array([0])).tolist() == [[0.0, 0.0]]


def test_baselines(capfd: pytest.CaptureFixture[str]) -> None:
    products = ["red shoe", "blue shoe", "red hat", "green hat", "black coat with a very long name of many words red"]
    queries = ["red hat", "blue", "coat", "red"]
    test, valid = judged((0, 2, 2), (1, 1, 1)), judged((2, 4, 1), (3, 0, 1), (3, 2, 1))
    results = measured(products, queries, np.array([5, 4, 3, 2, 1]), test, valid)
    assert list(results) == ["random", "popularity", "bm25"]
    assert results["bm25"].metrics["mrr"] == 1.0
    assert results["popularity"].metrics["mrr"] == (1 / 3 + 1 / 2) / 2
    settings = results["bm25"].settings
    assert {"k1": settings["k1"], "b": settings["b"]} in GRID and settings["chosen_by"] == "validation ndcg@10"
    untuned = measured(products, queries, None, test)
    assert list(untuned) == ["random", "bm25"] and untuned["bm25"].settings == {"k1": 1.5, "b": 0.75, "chosen_by": "default"}
    again = measured(products, queries, np.array([5, 4, 3, 2, 1]), test, valid)
    assert {name: result.metrics for name, result in again.items()} == {name: r.metrics for name, r in results.items()}
    printed = capfd.readouterr()
    assert printed.out == "" and printed.err == ""


def test_bm25_is_tuned_on_validation_and_not_on_test() -> None:
    # Length normalisation helps where short products are relevant and hurts where long ones are. Validation and test disagree.
    products = ["red shoe", *[f"red thing {i}" for i in range(6)], "red red " + " ".join(f"w{i}" for i in range(12))]
    queries = ["red", "red"]
    short, long = judged((0, 0, 1)), judged((1, 7, 1))
    for_short = measured(products, queries, None, long, short)["bm25"].settings
    for_long = measured(products, queries, None, short, long)["bm25"].settings
    assert float(for_short["b"]) > float(for_long["b"])


def test_popularity_is_the_same_for_all() -> None:
    found = evaluate_search(PopularityScorer(np.array([1, 3, 2])), judged((0, 0, 1), (1, 1, 1)), block=2)
    assert found.per_example["mrr"].tolist() == [1 / 3, 1.0]
