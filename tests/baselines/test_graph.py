"""Simple methods on a graph: counting the relation's ends."""

import dataclasses
from types import SimpleNamespace
from typing import Any

import numpy as np

from fusionjax.baselines import TrainTriples, measure_baselines
from fusionjax.baselines.triples import EndFrequency, TailFrequency
from fusionjax.evaluation.classification import Classified, Labelled, classify
from fusionjax.evaluation.link_prediction import KnownTrue, evaluate_scorers
from fusionjax.evaluation.metrics import Result
from fusionjax.evaluation.scores import CORRECT, Examples
from fusionjax.tasks.triple_classification import TriplesToTell, measure_score

# Entities 0 … 4, relations 0, 1.
TRAIN = np.array([[0, 0, 1], [0, 0, 2], [3, 0, 2], [1, 1, 4]])
TEST = np.array([[0, 0, 3], [3, 1, 4]])
KNOWN = KnownTrue.of(TRAIN, np.array([[0, 0, 4]]), TEST)


def ranked() -> dict[str, Result]:
    def measure(scorers: Any, asked: Any) -> Result:
        tails, heads = scorers
        return evaluate_scorers(tails, heads, asked.triples, KNOWN, 5)

    return measure_baselines("link_prediction", TrainTriples(TRAIN, 5), measure, SimpleNamespace(triples=TEST), seed=1)


def test_entities_are_counted_by_relation_in_training_only() -> None:
    results = ranked()
    assert list(results) == ["random", "popularity"]
    ranks = results["popularity"].ranks
    assert ranks is not None
    # Tails of relation 0 in train: 1 once, 2 twice. (0, 0, ?): rivals of 3 are 0 alone, both never seen: tie.
    # Tails of relation 1: 4 once, first.
    assert ranks[::2].tolist() == [1.5, 1.0]
    # Heads of relation 0: 0 twice, 3 once: 0 leads. Heads of relation 1: 1 once but known and left out; the four others tie.
    assert ranks[1::2].tolist() == [1.0, 2.5]
    assert ranked()["random"].metrics == results["random"].metrics


# -------------------------------------------------------------------------------------------------------- classification
SEEN = TrainTriples(np.array([[0, 0, 1], [2, 0, 1], [3, 0, 4], [0, 1, 1]]), 7)
VALID_PAIR = np.array([[5, 0, 1], [3, 0, 4]]), np.array([[5, 0, 6], [0, 0, 2]])
TEST_PAIR = np.array([[6, 0, 1], [6, 1, 2]]), np.array([[2, 0, 4], [6, 0, 3]])


def to_tell() -> TriplesToTell:
    label = np.array([1, 1, 0, 0])
    asked = Examples("triple_classification", np.arange(4), np.arange(5), label, label.astype(float), measures=(CORRECT,))
    return TriplesToTell(VALID_PAIR, TEST_PAIR, asked, ("accuracy", "f1", "precision", "recall"))


def classified(method: EndFrequency | TailFrequency, by: Any = "relation") -> Classified:
    parts = [Labelled.of(method.score(a), a[:, 1], method.score(b), b[:, 1]) for a, b in (VALID_PAIR, TEST_PAIR)]
    return classify(*parts, by=by)


def test_triples_are_told_by_counts() -> None:
    found = measure_baselines("triple_classification", SEEN, measure_score, to_tell())
    assert list(found) == ["always_true", "tail_frequency", "end_frequency"]
    assert found["always_true"].metrics == {"accuracy": 0.5, "f1": 2 / 3, "precision": 0.5, "recall": 1.0}
    values = found["always_true"].values
    assert values is not None and values.tolist() == [[1.0], [1.0], [0.0], [0.0]]
    # Valid: tails seen 2, 1, 0, 0 times: the threshold is 1/2. Test: 2, then (relation 1, tail 2) never, 1, 0.
    tails, ends = TailFrequency(SEEN), EndFrequency(SEEN)
    assert classified(tails).thresholds == {0: 0.5}
    assert classified(tails).called_true.tolist() == [True, False, True, False]
    values = found["tail_frequency"].values
    assert values is not None and values[:, 0].tolist() == [1.0, 0.0, 0.0, 1.0]
    for by in ("all", "logistic"):
        assert classified(tails, by).thresholds == {}
    # Triples of the end's relation only: (5, 0) 0 and (·, 0, 1) 2; (3, 0) 1 and (·, 0, 4) 1; 0 and 0; (0, 0) 1 and 0.
    expected = np.log([3, 4, 1, 2])
    np.testing.assert_allclose(classified(ends).thresholds[0], (expected[0] + expected[3]) / 2)


def test_all_are_true_also_where_most_validation_triples_are_false() -> None:
    more = dataclasses.replace(to_tell(), valid=(VALID_PAIR[0][:1], np.concatenate([VALID_PAIR[1]] * 3)))
    found = measure_baselines("triple_classification", SEEN, measure_score, more)["always_true"]
    assert found.metrics["recall"] == 1.0
