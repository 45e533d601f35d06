"""What a task is, and what it is given."""

import abc
import dataclasses
import functools
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np

from fusionjax.config import schema
from fusionjax.data.inputs import Inputs
from fusionjax.data.shop import TEST, VALID
from fusionjax.errors import UserError
from fusionjax.evaluation.link_prediction import KnownTrue
from fusionjax.evaluation.metrics import Result, check_name, default_names
from fusionjax.evaluation.scores import Measure
from fusionjax.tasks.predictor import Predictor

_SAMPLE_SEED = 7
Prepared = TypeVar("Prepared")
"""Examples of a split, made ready once a run."""


@dataclasses.dataclass(frozen=True)
class Data:
    """What a run is measured on."""

    config: schema.Run
    inputs: Inputs

    def triples(self, split: int) -> np.ndarray:
        """int32 [n, 3] (head, relation, tail) of a split; those of training as `data.controls` leave them."""
        return self.inputs.graph.triples(split)

    @property
    def n_entities(self) -> int:
        return len(self.inputs.graph.entities)

    @functools.cached_property
    def known(self) -> KnownTrue:
        """All that is true, of every split: what filtered ranks leave out."""
        return KnownTrue.of(self.inputs.real.graph.triples())

    @property
    def size(self) -> dict[str, int]:
        """`batch_size` and `block`: what is scored at once."""
        return {"batch_size": self.config.evaluation.batch_size, "block": self.config.evaluation.block}

    def more_baselines(self, task: str) -> tuple[str, ...]:
        """Plug-ins' baselines of a task that the config names, as task/name."""
        return self.config.evaluation.plugins.of("baselines", task)

    def most(self, split: int) -> int:
        """Examples of a task at most; 0: all."""
        return {VALID: self.config.evaluation.max_valid, TEST: self.config.evaluation.max_test}[split]


class Task(abc.ABC, Generic[Prepared]):
    """One task. A new one is a file with a subclass, and a line in `tasks.TASKS` or an entry point in `fusionjax.tasks`."""

    name: ClassVar[str]
    objective: ClassVar[str | None]
    """A model can do the task if it was trained on this objective; None: any model."""
    main: ClassVar[str]
    """The metric that chooses checkpoints and settings, higher is better."""
    parts: ClassVar[tuple[str, ...]]
    """Of a shop, that it needs."""
    segments: ClassVar[tuple[str, ...]]
    """Names of groups of its examples or targets that `evaluation.segments` or the task itself makes."""
    measures: ClassVar[tuple[Measure, ...]] = ()
    """Plain values of an example; none: ranks."""
    metrics: ClassVar[tuple[str, ...]] = ()
    """What is computed where nobody says what; none: `evaluation.metrics.default_names`."""
    protocol: ClassVar[str] = ""
    """A plug-in's: how it is measured, as half a sentence for the methods section of a study."""
    validated: ClassVar[bool] = True
    """Whether it is measured at validations too."""

    def main_of(self, config: schema.Run) -> str:
        """The main metric of a run."""
        return self.main

    @abc.abstractmethod
    def count(self, data: Data, split: int) -> int:
        """How many examples there are."""

    @abc.abstractmethod
    def examples(self, data: Data, split: int) -> Prepared:
        """Examples of a split, at most `data.most(split)`: all that does not depend on the model."""

    @abc.abstractmethod
    def measure(self, predictor: Predictor, examples: Prepared) -> Result:
        """What a model gets on them."""

    @abc.abstractmethod
    def baselines(self, data: Data, test: Prepared) -> dict[str, Result]:
        """Simple method → result on the test examples, its settings chosen on validation."""

    def intervals(self, data: Data, result: Result) -> dict[str, dict[str, float]]:
        """Metric → `standard_error`, `low`, `high`: what all test examples would give, where a sample was measured."""
        return {}

    def show(self, predictor: Predictor, data: Data, most: int = 6, k: int = 5) -> list[Any]:
        """A few test examples for the report, drawn once at random, with the k best of what the model returns."""
        return []

    def names(self, config: schema.Run) -> tuple[str, ...]:
        """The metrics of a run: those of `evaluation.metrics`, or the default ones; and those by which it is selected.

        Raises:
          UserError: there is no such metric.
        """
        usual = self.metrics or default_names(self.name, self.measures)
        chosen = config.evaluation.metrics.get(self.name, usual)
        task, _, metric = config.train.select.partition("/")
        wanted = [*chosen, self.main, *([metric] if task == self.name and "/" not in metric else [])]
        for name in chosen:
            try:
                self.check(name)
            except UserError as error:
                raise UserError(f"evaluation.metrics.{self.name}: {error}") from None
        return tuple(dict.fromkeys(name for name in wanted if self.gives(name)))

    def check(self, metric: str) -> None:
        """Raises `UserError`, with the nearest name, if stored values of the task do not give a metric."""
        check_name(self.name, metric, self.measures)

    def gives(self, metric: str) -> bool:
        try:
            self.check(metric)
        except UserError:
            return False
        return True


def sample(rows: np.ndarray, most: int) -> np.ndarray:
    """At most `most` of the rows (0: all), always the same ones, in order."""
    if not most or len(rows) <= most:
        return rows
    return np.sort(np.random.Generator(np.random.Philox(_SAMPLE_SEED)).choice(rows, most, replace=False))


def numbered(result: Result, numbers: np.ndarray) -> Result:
    """The result with its examples, so far positions in a list of cases, named by their row numbers."""
    assert result.examples is not None
    examples = dataclasses.replace(result.examples, example=numbers[result.examples.example])
    return dataclasses.replace(result, examples=examples)


@dataclasses.dataclass(frozen=True)
class Shown:
    """A product that a model returned: its title, the cosine it was ranked by, and a note (`grade 3`, `taken`)."""

    title: str
    score: float
    note: str = ""
