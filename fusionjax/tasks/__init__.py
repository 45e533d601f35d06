"""What a model is measured on. A task is one file: its examples, metrics, baselines, segments, and how an example is shown."""

from typing import Any

from fusionjax.tasks.base import Task
from fusionjax.tasks.link_prediction import LinkPrediction
from fusionjax.tasks.recommendation import Recommendation
from fusionjax.tasks.search import Search
from fusionjax.tasks.triple_classification import TripleClassification

TASKS: dict[str, Task[Any]] = {
    "link_prediction": LinkPrediction(),
    "triple_classification": TripleClassification(),
    "search": Search(),
    "recommendation": Recommendation(),
}
"""Name → task, in the order in which results show them."""

__all__ = ["TASKS", "Task"]
