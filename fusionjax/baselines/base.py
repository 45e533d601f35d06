"""What a baseline is: a simple method that sees the training data, and is tuned on validation and never on test.

A baseline ranks through the same functions as a model. Hyper-parameters are chosen from a small grid by the task's main
metric on (a fixed sample of) the **validation** examples; the choice stands in `Result.settings`. Without validation examples,
or with more than `TUNE_MOST_PRODUCTS` products, the first entry of the grid is used.
"""

import abc
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np

from fusionjax.evaluation.metrics import Result
from fusionjax.evaluation.ranking import Ragged

TUNE_EXAMPLES = 1000
"""Validation queries or users on which a grid is compared (a fixed sample where there are more)."""
TUNE_MOST_PRODUCTS = 200_000
Settings = Mapping[str, float | int]
Measure = Callable[[Any, Any], Result]
"""(scorer, examples) -> what it gets on them: the task's own."""


@dataclasses.dataclass(frozen=True)
class Catalogue:
    """What may be known about products."""

    n_products: int
    texts: Sequence[str] | None = None
    """One a product."""
    train_counts: np.ndarray | None = None
    """int [n_products]: training events."""
    queries: Sequence[str] = ()
    """One text a query, in the order of the query rows."""
    histories: Ragged | None = None
    """Products of each user's **training** events, oldest first."""


@dataclasses.dataclass(frozen=True)
class TrainTriples:
    """What may be known about a graph."""

    triples: np.ndarray
    """int [n, 3] (head, relation, tail): training triples."""
    n_entities: int


Known = TypeVar("Known", Catalogue, TrainTriples)


class Baseline(abc.ABC, Generic[Known]):
    """One method on one run's training data.

    A new one is a file with a subclass, and a line in `baselines.BASELINES` or an entry point in `fusionjax.baselines`.
    """

    grid: ClassVar[tuple[Settings, ...]] = ({},)
    """Settings to choose from, the default first; `scorer` takes them as keywords."""
    fixed: ClassVar[Settings] = {}
    """What is said about the method besides what was chosen."""

    def __init__(self, known: Known, seed: int = 0) -> None:
        self.known, self.seed = known, seed

    @classmethod
    def possible(cls, known: Known) -> bool:
        """Whether the data have what the method needs."""
        return True

    @abc.abstractmethod
    def scorer(self, examples: Any, **settings: Any) -> Any:
        """What the task measures: scores for the examples of one split."""

    def measured(self, measure: Measure, test: Any, valid: Any | None, quality: str) -> Result:
        """The result on `test`, with the settings of the highest `quality` on `valid` (the first of equals)."""
        settings, chosen_by = self.grid[0], "default"
        if len(self.grid) > 1 and valid is not None:
            reached = [measure(self.scorer(valid, **entry), valid).metrics[quality] for entry in self.grid]
            settings, chosen_by = self.grid[int(np.argmax(np.nan_to_num(reached, nan=-1.0)))], f"validation {quality}"
        result = measure(self.scorer(test, **settings), test)
        if len(self.grid) == 1:
            return result
        return dataclasses.replace(result, settings={**settings, **self.fixed, "chosen_by": chosen_by})


def tuning_sample(n: int, seed: int = 0) -> np.ndarray:
    """At most `TUNE_EXAMPLES` of n rows, ascending, always the same."""
    if n <= TUNE_EXAMPLES:
        return np.arange(n)
    return np.sort(np.random.Generator(np.random.Philox(seed)).choice(n, TUNE_EXAMPLES, replace=False))
