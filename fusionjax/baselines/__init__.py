"""Simple, honest methods under the models' own protocol: what a model has to beat. One file a method.

One from outside the package is an entry point `TASK/NAME` in the group `fusionjax.baselines`; it is measured where
`evaluation.plugins.baselines` names it.
"""

from collections.abc import Sequence
from typing import Any

from fusionjax.baselines.base import Baseline, Catalogue, Measure, TrainTriples, tuning_sample
from fusionjax.baselines.bm25 import HistoryBM25, QueryBM25
from fusionjax.baselines.entity_frequency import EntityFrequency
from fusionjax.baselines.item_knn import ItemKNN
from fusionjax.baselines.popularity import Popularity
from fusionjax.baselines.random import Random, RandomEntities
from fusionjax.baselines.triples import AlwaysTrue, EndFrequency, TailFrequency
from fusionjax.evaluation.metrics import Result
from fusionjax.registry import Registry

__all__ = ["BASELINES", "Baseline", "Catalogue", "TrainTriples", "baselines_of", "measure_baselines", "tuning_sample"]

_OWN: dict[str, type[Baseline[Any]]] = {
    "search/random": Random,
    "search/popularity": Popularity,
    "search/bm25": QueryBM25,
    "recommendation/random": Random,
    "recommendation/popularity": Popularity,
    "recommendation/item_knn": ItemKNN,
    "recommendation/bm25": HistoryBM25,
    "link_prediction/random": RandomEntities,
    "link_prediction/popularity": EntityFrequency,
    "triple_classification/always_true": AlwaysTrue,
    "triple_classification/tail_frequency": TailFrequency,
    "triple_classification/end_frequency": EndFrequency,
}
BASELINES: Registry[type[Baseline[Any]]] = Registry("fusionjax.baselines", Baseline, _OWN)
"""Task/name → class."""


def baselines_of(task: str, more: Sequence[str] = ()) -> dict[str, type[Baseline[Any]]]:
    """Name → class, of one task: ours, and those of `more` (task/name)."""
    chosen = dict.fromkeys([*BASELINES, *more])
    return {key.split("/", 1)[1]: BASELINES[key] for key in chosen if key.startswith(f"{task}/")}


def measure_baselines(
    task: str,
    known: Any,
    measure: Measure,
    test: Any,
    valid: Any | None = None,
    quality: str = "",
    seed: int = 0,
    more: Sequence[str] = (),
) -> dict[str, Result]:
    """Name → result on `test`, of every baseline of the task whose needs the data meet.

    Args:
      known: what training has, a `Catalogue` or `TrainTriples`.
      measure: the task's own way to measure a scorer.
      valid: examples by which settings are chosen; None: the defaults.
      quality: the metric by which they are chosen.
      more: baselines of plug-ins, as task/name (`evaluation.plugins.of("baselines", task)`).
    """
    return {
        name: method(known, seed).measured(measure, test, valid, quality)
        for name, method in baselines_of(task, more).items()
        if method.possible(known)
    }
