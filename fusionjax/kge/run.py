"""Runs of graph embedding: train, then measure the best parameters once on test, beside the simple methods."""

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np

from fusionjax.config import schema
from fusionjax.data.shop import TRAIN
from fusionjax.errors import UserError
from fusionjax.evaluation import baselines
from fusionjax.evaluation.classification import Labelled, classification_baselines, classify
from fusionjax.evaluation.link_prediction import KnownTrue
from fusionjax.evaluation.metrics import Result
from fusionjax.evaluation.sampled import estimates_of
from fusionjax.evaluation.tasks import numbered, sample
from fusionjax.kge.evaluate import Ranking, score_triples
from fusionjax.kge.inputs import GraphInputs
from fusionjax.models.entities import EntityModel, Params, graph_model
from fusionjax.kge.train import train_graphs
from fusionjax.runs import RunFolder
from fusionjax.training.checkpoint import Checkpoints
from fusionjax.training.loop import NonFiniteLoss, OnValidation, Say, Trained
from fusionjax.training.trackers import Trackers

TASK = "link_prediction"
CLASSIFICATION = "triple_classification"


def train(
    configs: Sequence[schema.Run],
    inputs: GraphInputs,
    homes: Sequence[RunFolder],
    say: Say = print,
    trackers: Sequence[Trackers] = (),
    on_validation: OnValidation | None = None,
) -> list[Trained | NonFiniteLoss]:
    """Trains runs that share a graph, several in one program. Args, returns and errors: see `train_graphs`."""
    graph, evaluation = inputs.graph, configs[0].evaluation
    if configs[0].train.select not in ("mean", f"{TASK}/mrr"):
        raise UserError(f"train.select: '{configs[0].train.select}': graph embedding is selected by {TASK}/mrr")
    ranking = None
    if len(graph.valid):
        rows = sample(np.arange(len(graph.valid)), evaluation.max_valid)
        ranking = _ranking(inputs, graph.valid[rows], evaluation)
    sizes = (len(graph.entities), len(graph.relations))
    return train_graphs(configs, inputs.train, sizes, inputs.features, ranking, homes, say, trackers, on_validation)


def _ranking(inputs: GraphInputs, triples: np.ndarray, evaluation: schema.Evaluation) -> Ranking:
    known = KnownTrue.of(inputs.graph.known)
    n_entities = len(inputs.graph.entities)
    return Ranking.of(triples, known, inputs.train, n_entities, evaluation.batch_size, evaluation.block)


@dataclasses.dataclass(frozen=True)
class Best:
    """The best parameters of a run."""

    model: EntityModel
    params: Params
    step: int


def load_best(config: schema.Run, inputs: GraphInputs, home: RunFolder) -> Best:
    """From the run's checkpoints. Raises `UserError` if there are none, or of another model."""
    model = graph_model(config.kge, len(inputs.graph.entities), len(inputs.graph.relations), inputs.features)
    checkpoints = Checkpoints(home.checkpoints, writing=False)
    try:
        step, params, _ = checkpoints.load_best(jax.eval_shape(lambda: model.init(jax.random.key(0))))
    finally:
        checkpoints.close()
    return Best(model, params, step)


@dataclasses.dataclass(frozen=True)
class Measured:
    """What `measure` found."""

    valid: dict[str, dict[str, float]]
    """Task → metrics."""
    test: dict[str, dict[str, float]]
    ranked: dict[str, Result]
    """Task → ranks on test."""
    intervals: dict[str, dict[str, dict[str, float]]]
    """Where `evaluation.max_test` samples the test triples: task → metric → standard error and 95 % interval of the number that
    all of them would give."""


def measure(best: Best, inputs: GraphInputs, config: schema.Run) -> Measured:
    """Ranks validation and test triples; and where the data have false triples, tells true ones from them."""
    settings, graph = config.evaluation, inputs.graph
    found = Measured({}, {}, {}, {})
    if len(graph.valid):
        rows = sample(np.arange(len(graph.valid)), settings.max_valid)
        result = _ranking(inputs, graph.valid[rows], settings).result(best.model, best.params, inputs.features)
        found.valid[TASK] = dict(result.metrics)
    if len(graph.test):
        rows = sample(np.arange(len(graph.test)), settings.max_test)
        result = _ranking(inputs, graph.test[rows], settings).result(best.model, best.params, inputs.features)
        found.test[TASK], found.ranked[TASK] = dict(result.metrics), numbered(result, rows)
        if len(rows) < len(graph.test):
            estimates = estimates_of(result, len(graph.test))
            found.intervals[TASK] = {
                name: {"standard_error": one.standard_error, "low": one.low, "high": one.high}
                for name, one in estimates.items()
            }
    pairs = _true_and_false(inputs)
    if pairs is not None:
        valid, test = ([score_triples(best.model, best.params, inputs.features, part) for part in pair] for pair in pairs)
        labelled = [
            Labelled.of(scores[0], pair[0][:, 1], scores[1], pair[1][:, 1])
            for scores, pair in zip((valid, test), pairs, strict=True)
        ]
        found.test[CLASSIFICATION] = classify(*labelled).metrics()
        logistic = classify(*labelled, by="logistic").metrics()  # as CoDEx's own figures are made
        found.test[CLASSIFICATION] |= {f"{name}/logistic": logistic[name] for name in ("accuracy", "f1")}
    return found


def _true_and_false(inputs: GraphInputs) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]] | None:
    """((true, false) of validation, (true, false) of test)."""
    graph = inputs.graph
    if graph.valid_negatives is None or graph.test_negatives is None:
        return None
    return (graph.valid, graph.valid_negatives), (graph.test, graph.test_negatives)


def measure_baselines(inputs: GraphInputs, config: schema.Run) -> dict[str, dict[str, Result]]:
    """Task → simple method → result on test."""
    graph, settings = inputs.graph, config.evaluation
    train, found = inputs.rows.graph.triples(TRAIN), {}
    if len(graph.test):
        rows = sample(np.arange(len(graph.test)), settings.max_test)
        ranked = baselines.link_prediction_baselines(
            train,
            graph.test[rows],
            KnownTrue.of(graph.known),
            len(graph.entities),
            batch_size=settings.batch_size,
            block=settings.block,
        )
        found[TASK] = {name: numbered(result, rows) for name, result in ranked.items()}
    pairs = _true_and_false(inputs)
    if pairs is not None:
        classified = classification_baselines(train, *pairs)
        found[CLASSIFICATION] = {name: Result(one.metrics(), {}) for name, one in classified.items()}
    return found
