"""Link prediction: every entity is ranked as the tail and as the head of each held-out triple."""

import dataclasses
from typing import Any

import jax
import numpy as np

from fusionjax.baselines import TrainTriples, measure_baselines
from fusionjax.config import schema
from fusionjax.data.shop import TEST, TRAIN
from fusionjax.evaluation.link_prediction import RankingPlan, evaluate_scorers
from fusionjax.evaluation.metrics import Result, mean, per_example
from fusionjax.evaluation.ranking import Scorer
from fusionjax.evaluation.sampled import estimates_of
from fusionjax.evaluation.segments import SEEN, seen_segment
from fusionjax.tasks.base import Data, Task, numbered, sample
from fusionjax.tasks.predictor import Predictor

_SCORE_FLOATS = 1 << 25
"""Largest number of floats in a block of triple scores (128 MiB): batch × block."""


@dataclasses.dataclass(frozen=True)
class TriplesToRank:
    triples: np.ndarray
    """int32 [n, 3]."""
    rows: np.ndarray
    """int [n]: their positions among the triples of the split."""
    plan: RankingPlan
    block: int
    train: np.ndarray
    """int32 [m, 3]: says which entities are unseen."""
    names: tuple[str, ...]


class LinkPrediction(Task[TriplesToRank]):
    name = "link_prediction"
    objective = "link_prediction"
    main = "mrr"
    parts = ("triples",)
    segments = ("seen", "direction", "relation", "relation_category", "degree", "popularity")

    def main_of(self, config: schema.Run) -> str:
        # Where entities are held out, what is chosen is what answers for them.
        return "mrr/unseen" if config.data.split.unseen_entities else self.main

    def count(self, data: Data, split: int) -> int:
        return int((data.inputs.graph.split == split).sum())

    def examples(self, data: Data, split: int) -> TriplesToRank:
        size, n_entities = data.size, data.n_entities
        rows = sample(np.arange(self.count(data, split)), data.most(split))
        triples = data.triples(split)[rows]
        # One block that holds all entities is scored once, more blocks twice: rather a smaller batch than a smaller block.
        block = min(size["block"], n_entities)
        batch = max(1, min(size["batch_size"], _SCORE_FLOATS // block))
        plan = RankingPlan.of(triples, data.known, n_entities, batch_size=batch)
        return TriplesToRank(triples, rows, plan, block, data.triples(TRAIN), self.names(data.config))

    def measure(self, predictor: Predictor, examples: TriplesToRank) -> Result:
        """If an answer is unseen in training, there are also the metrics of seen and unseen answers apart (`mrr/unseen`, …)."""
        with jax.default_matmul_precision("highest"):  # ranks compare scores that lie close together
            tails, heads, params, candidates = predictor.triple_scorers()
            found = examples.plan.evaluate(tails, heads, params, candidates, names=examples.names, block=examples.block)
        return numbered(_apart(found, examples), examples.rows)

    def baselines(self, data: Data, test: TriplesToRank) -> dict[str, Result]:
        known = TrainTriples(data.triples(TRAIN), data.n_entities)

        def measure(scorers: tuple[Scorer, Scorer], to_rank: TriplesToRank) -> Result:
            found = evaluate_scorers(*scorers, to_rank.triples, data.known, data.n_entities, names=to_rank.names, **data.size)
            return numbered(found, to_rank.rows)

        return measure_baselines(self.name, known, measure, test, more=data.more_baselines(self.name))

    def intervals(self, data: Data, result: Result) -> dict[str, dict[str, float]]:
        assert result.examples is not None
        if len(result.examples) == self.count(data, TEST):
            return {}
        estimates: dict[str, Any] = estimates_of(result, self.count(data, TEST))
        return {
            name: {"standard_error": one.standard_error, "low": one.low, "high": one.high} for name, one in estimates.items()
        }


def _apart(result: Result, examples: TriplesToRank) -> Result:
    assert result.examples is not None and result.ranks is not None
    segment = seen_segment(result.examples, examples.train, examples.plan.n_entities)
    if segment is None:
        return result
    asked = dataclasses.replace(result.examples, segments={**result.examples.segments, "seen": segment})
    more = {
        f"{name}/{label}": mean(values)
        for label in SEEN
        for name, values in per_example(asked, result.ranks, ("seen", label), examples.names).items()
    }
    return dataclasses.replace(result, metrics={**result.metrics, **more}, examples=asked)
