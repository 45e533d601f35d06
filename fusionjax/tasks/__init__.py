"""What a model is measured on. A task is one file: its examples, metrics, baselines, segments, and how an example is shown.

One from outside the package is an entry point in the group `fusionjax.tasks`; it is measured where `evaluation.tasks` names it.
"""

from typing import Any

from fusionjax.registry import Registry
from fusionjax.tasks.base import Task
from fusionjax.tasks.link_prediction import LinkPrediction
from fusionjax.tasks.recommendation import Recommendation
from fusionjax.tasks.search import Search
from fusionjax.tasks.triple_classification import TripleClassification

_OWN: dict[str, Task[Any]] = {
    "link_prediction": LinkPrediction(),
    "triple_classification": TripleClassification(),
    "search": Search(),
    "recommendation": Recommendation(),
}
TASKS: Registry[Task[Any]] = Registry("fusionjax.tasks", Task, _OWN, instances=True)
"""Name → task, in the order in which results show them."""

__all__ = ["TASKS", "Task"]
