"""Exact ranking on device in bounded memory, metrics, and baselines measured the same way.

Works on arrays and callables; knows nothing of models or training.
"""

from fusionjax.evaluation.baselines import link_prediction_baselines, recommendation_baselines, search_baselines
from fusionjax.evaluation.classification import Classified, Labelled, classification_baselines, classify, corrupted
from fusionjax.evaluation.link_prediction import KnownTrue, RankingPlan, evaluate_link_prediction
from fusionjax.evaluation.metrics import Result
from fusionjax.evaluation.ranking import (
    Counts,
    DeviceScorer,
    HostScorer,
    Ragged,
    Scorer,
    VectorScorer,
    rank_rows,
    target_ranks,
    top_k,
)
from fusionjax.evaluation.recommendation import Cases, evaluate_recommendation
from fusionjax.evaluation.sampled import Estimate, Sampled, rank_among_some, rank_some
from fusionjax.evaluation.search import Judged, evaluate_search

__all__ = [
    "Cases",
    "Classified",
    "Counts",
    "DeviceScorer",
    "Estimate",
    "HostScorer",
    "Judged",
    "KnownTrue",
    "Labelled",
    "Ragged",
    "RankingPlan",
    "Result",
    "Sampled",
    "Scorer",
    "VectorScorer",
    "classification_baselines",
    "classify",
    "corrupted",
    "evaluate_link_prediction",
    "evaluate_recommendation",
    "evaluate_search",
    "link_prediction_baselines",
    "rank_among_some",
    "rank_rows",
    "rank_some",
    "recommendation_baselines",
    "search_baselines",
    "target_ranks",
    "top_k",
]
