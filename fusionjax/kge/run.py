"""Runs of graph embedding: train, then measure the best parameters once on test, beside the simple methods."""

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np

from fusionjax.config import schema
from fusionjax.errors import UserError
from fusionjax.evaluation.link_prediction import KnownTrue
from fusionjax.kge.evaluate import Ranking
from fusionjax.kge.inputs import GraphInputs
from fusionjax.kge.model import GraphModel, Params, graph_model
from fusionjax.kge.predictor import GraphPredictor
from fusionjax.kge.train import train_graphs
from fusionjax.runs import RunFolder
from fusionjax.tasks.base import Triples, sample
from fusionjax.tasks.evaluator import Evaluator
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

    def predictor(self, inputs: GraphInputs) -> GraphPredictor:
        return GraphPredictor(self.model, self.params, inputs.features)


def load_best(config: schema.Run, inputs: GraphInputs, home: RunFolder) -> Best:
    """From the run's checkpoints. Raises `UserError` if there are none, or of another model."""
    model = graph_model(config.kge, len(inputs.graph.entities), len(inputs.graph.relations), inputs.features)
    checkpoints = Checkpoints(home.checkpoints, writing=False)
    try:
        step, params, _ = checkpoints.load_best(jax.eval_shape(lambda: model.init(jax.random.key(0))))
    finally:
        checkpoints.close()
    return Best(model, params, step)


def evaluator(config: schema.Run, inputs: GraphInputs) -> Evaluator:
    """The tasks of a run on a graph alone."""
    graph = inputs.graph
    false = graph.valid_negatives, graph.test_negatives
    every = config.evaluation.model_copy(update={"tasks": None})  # a graph alone is measured on all it can do
    triples = Triples(inputs.train, graph.valid, graph.test, graph.known, len(graph.entities), *false)
    return Evaluator(config.model_copy(update={"evaluation": every}), inputs.rows, triples, {TASK})
