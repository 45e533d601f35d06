"""Triple classification: true triples are told from false ones, by thresholds chosen on validation."""

import dataclasses
from collections.abc import Callable

import numpy as np

from fusionjax.baselines import TrainTriples, measure_baselines
from fusionjax.data.shop import TEST, TRAIN, VALID
from fusionjax.evaluation.classification import By, Classified, Labelled, classify, decided
from fusionjax.evaluation.metrics import Result, per_example
from fusionjax.evaluation.scores import CORRECT, Examples, Segment
from fusionjax.tasks.base import Data, Task
from fusionjax.tasks.predictor import Predictor

Score = Callable[[np.ndarray], np.ndarray]
"""Triples int32 [n, 3] -> scores [n]; bool: decided without a threshold."""


@dataclasses.dataclass(frozen=True)
class TriplesToTell:
    """(true, false) triples, int32 [n, 3]: `valid` for the thresholds, `test` to measure."""

    valid: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]
    asked: Examples
    """The test triples: first the true, then the false ones."""
    names: tuple[str, ...]


class TripleClassification(Task[TriplesToTell]):
    name = "triple_classification"
    objective = "link_prediction"
    main = "accuracy"
    parts = ("triples", "negatives")
    segments = ("relation",)
    measures = (CORRECT,)
    validated = False  # validation triples choose the thresholds

    def count(self, data: Data, split: int) -> int:
        false = data.inputs.false_triples
        if VALID not in false or TEST not in false:
            return 0
        return len(data.triples(split)) + len(false[split])

    def examples(self, data: Data, split: int) -> TriplesToTell:
        assert split == TEST
        valid, test = ((data.triples(part), data.inputs.false_triples[part]) for part in (VALID, TEST))
        label = np.repeat([1, 0], [len(part) for part in test])
        codes, place = np.unique(np.concatenate(test)[:, 1], return_inverse=True)
        relation = Segment(
            tuple(str(data.inputs.graph.relations[code]) for code in codes), place.astype(np.int16), of="example"
        )
        row = np.arange(len(label))
        asked = Examples(
            self.name, row, np.arange(len(row) + 1), label, label.astype(float), {"relation": relation}, measures=self.measures
        )
        return TriplesToTell(valid, test, asked, self.names(data.config))

    def measure(self, predictor: Predictor, examples: TriplesToTell) -> Result:
        scored = _scored(predictor.score_triples, examples)
        result = _result(classify(*scored), examples)
        logistic = classify(*scored, by="logistic").metrics()  # as CoDEx's own figures are made
        more = {f"{name}/logistic": logistic[name] for name in ("accuracy", "f1") if name in examples.names}
        return dataclasses.replace(result, metrics={**result.metrics, **more})

    def baselines(self, data: Data, test: TriplesToTell) -> dict[str, Result]:
        known, more = TrainTriples(data.triples(TRAIN), data.n_entities), data.more_baselines(self.name)
        return measure_baselines(self.name, known, measure_score, test, more=more)


def measure_score(score: Score, examples: TriplesToTell, by: By = "relation") -> Result:
    """What a scoring function gets; thresholds `by` relation unless it decides by itself."""
    called = score(np.concatenate(examples.test))
    if called.dtype == bool:
        return _result(decided(called, examples.asked.target == 1), examples)
    return _result(classify(*_scored(score, examples), by=by), examples)


def _scored(score: Score, examples: TriplesToTell) -> tuple[Labelled, Labelled]:
    """Scores of the validation and the test triples."""
    valid, test = (
        Labelled.of(score(true), true[:, 1], score(false), false[:, 1]) for true, false in (examples.valid, examples.test)
    )
    return valid, test


def _result(found: Classified, examples: TriplesToTell) -> Result:
    values = found.correct.astype(np.float64)[:, None]
    metrics, names = found.metrics(), examples.names
    each = per_example(examples.asked, values, names=names)
    return Result({name: metrics[name] for name in names}, each, examples=examples.asked, values=values)
