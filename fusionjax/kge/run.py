"""Runs of graph embedding: train, then measure the best parameters once on test, beside the simple methods."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from fusionjax.config import schema
from fusionjax.data.shop import TRAIN
from fusionjax.errors import UserError
from fusionjax.evaluation import baselines
from fusionjax.evaluation.link_prediction import KnownTrue
from fusionjax.evaluation.metrics import Result
from fusionjax.evaluation.tasks import sample
from fusionjax.kge.evaluate import Ranking
from fusionjax.kge.inputs import GraphInputs
from fusionjax.kge.model import GraphModel, Params, graph_model
from fusionjax.kge.train import train_graphs
from fusionjax.runs import RunFolder
from fusionjax.training.checkpoint import Checkpoints
from fusionjax.training.loop import NonFiniteLoss, OnValidation, Say, Trained
from fusionjax.training.trackers import Trackers

TASK = "link_prediction"


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

    model: GraphModel
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


def measure(best: Best, inputs: GraphInputs, config: schema.Run) -> tuple[dict[str, Any], dict[str, Result]]:
    """({split: {task: metrics}} of validation and test, task → result on test)."""
    settings, found = config.evaluation, {}
    test: dict[str, Result] = {}
    for name, triples, most in (
        ("valid", inputs.graph.valid, settings.max_valid),
        ("test", inputs.graph.test, settings.max_test),
    ):
        found[name] = {}
        if not len(triples):
            continue
        rows = sample(np.arange(len(triples)), most)
        result = _ranking(inputs, triples[rows], settings).result(best.model, best.params, inputs.features)
        found[name][TASK] = dict(result.metrics)
        if name == "test":
            test[TASK] = numbered(result, rows)
    return found, test


def measure_baselines(inputs: GraphInputs, config: schema.Run) -> dict[str, dict[str, Result]]:
    """Task → simple method → result on test."""
    graph, settings = inputs.graph, config.evaluation
    if not len(graph.test):
        return {}
    rows = sample(np.arange(len(graph.test)), settings.max_test)
    found = baselines.link_prediction_baselines(
        inputs.rows.graph.triples(TRAIN),
        graph.test[rows],
        KnownTrue.of(graph.known),
        len(graph.entities),
        batch_size=settings.batch_size,
        block=settings.block,
    )
    return {TASK: {name: numbered(result, rows) for name, result in found.items()}}


def numbered(result: Result, numbers: np.ndarray) -> Result:
    """The result with its examples named by their row numbers."""
    assert result.examples is not None
    return dataclasses.replace(result, examples=dataclasses.replace(result.examples, example=numbers[result.examples.example]))
