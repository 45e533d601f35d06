"""What measures a run: its tasks with their examples, prepared once, handed to training and asked at every validation."""

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from fusionjax.config import schema
from fusionjax.data.inputs import Inputs
from fusionjax.data.shop import SPLITS, TEST, VALID
from fusionjax.errors import UserError, nearest
from fusionjax.evaluation.metrics import Result, higher_is_better
from fusionjax.evaluation.scores import Scores, scores_of
from fusionjax.evaluation.segments import segments_of
from fusionjax.inference import Encoder
from fusionjax.models.joint import JointModel
from fusionjax.tasks import TASKS
from fusionjax.tasks.base import Data
from fusionjax.tasks.predictor import Predictor, RunPredictor


class Evaluator:
    """The tasks of one run.

    Args:
      config: of the run.
      inputs: what it reads.
    """

    def __init__(self, config: schema.Run, inputs: Inputs) -> None:
        self.config = config
        self.data = Data(config, inputs)
        self._examples: dict[tuple[str, int], Any] = {}
        self._tasks: dict[int, tuple[str, ...]] = {}

    def tasks(self, split: int = TEST) -> tuple[str, ...]:
        """Tasks the run is measured on: the named ones, or all that the shop has examples for and the model is trained for.

        Raises:
          UserError: a named task lacks its objective or its examples; `evaluation.metrics` names what there is not.
        """
        if split not in self._tasks:
            named = self.config.evaluation.tasks or ()
            every = dict.fromkeys([*TASKS, *named])  # a plug-in's task only where it is named
            measured = [name for name in every if split == TEST or TASKS[name].validated]
            self._tasks[split] = tuple(name for name in measured if self._possible(name, split))
        return self._tasks[split]

    def _possible(self, name: str, split: int) -> bool:
        task, named, reasons = TASKS[name], self.config.evaluation.tasks, []
        if task.objective is not None and task.objective not in self.config.objectives.used():
            reasons.append(f"objectives.{task.objective}.weight is 0")
        if name not in TASKS.own:  # of ours `build_inputs` has asked
            self.data.inputs.shop.require(*task.parts, purpose=f"evaluation.tasks: {name}")
        if not task.count(self.data, split):
            reasons.append(f"the shop has no {SPLITS[split]} examples for it")
        if reasons and named and name in named:
            raise UserError(f"evaluation.tasks: {name} cannot be measured: {'; '.join(reasons)}")
        if reasons or (named and name not in named):
            return False
        task.names(self.config)
        return True

    def check(self) -> None:
        """Raises `UserError` for what cannot be measured, before the first step and not after training."""
        self.tasks(TEST)
        check_select(self.config.train, self.tasks(VALID))

    def examples(self, task: str, split: int) -> Any:
        """Those of a task, prepared when they are first asked for."""
        if (task, split) not in self._examples:
            self._examples[task, split] = TASKS[task].examples(self.data, split)
        return self._examples[task, split]

    def validate(self, predictor: Predictor) -> dict[str, Result]:
        """Task → result on validation."""
        return self._measure(predictor, VALID)

    def test(self, predictor: Predictor) -> dict[str, Result]:
        """Task → result on test."""
        return self._measure(predictor, TEST)

    def _measure(self, predictor: Predictor, split: int) -> dict[str, Result]:
        return {name: TASKS[name].measure(predictor, self.examples(name, split)) for name in self.tasks(split)}

    def baselines(self) -> dict[str, dict[str, Result]]:
        """Task → simple method → result on test."""
        return {name: TASKS[name].baselines(self.data, self.examples(name, TEST)) for name in self.tasks(TEST)}

    def intervals(self, results: Mapping[str, Result]) -> dict[str, dict[str, dict[str, float]]]:
        """Of test results, where `evaluation.max_test` samples the examples: task → metric → standard error and 95 % interval
        of the number that all of them would give."""
        found = {name: TASKS[name].intervals(self.data, result) for name, result in results.items()}
        return {name: intervals for name, intervals in found.items() if intervals}

    def selected(self, results: Mapping[str, Result]) -> float:
        """See `selection`."""
        return selection(self.config, results)

    def headline(self, results: Mapping[str, Result]) -> list[tuple[str, str, float]]:
        """(task, its main metric, value) of each task, for people."""
        mains = {task: TASKS[task].main_of(self.config) for task in results}
        return [(task, mains[task], result.metrics[mains[task]]) for task, result in results.items()]

    def scores(self, model: Mapping[str, Result], simple: Mapping[str, Mapping[str, Result]]) -> dict[str, Scores]:
        """Test examples with all their segments, and everyone's values.

        Args:
          model: task → result, named `model` in the scores.
          simple: task → baseline → result.
        """
        found = {}
        for task in dict.fromkeys(name for name in (*TASKS, *model, *simple) if name in model or name in simple):
            results = {"model": model[task]} if task in model else {}
            examples, values = scores_of({**results, **simple.get(task, {})})
            more = self.config.evaluation.plugins.of("segments", task)
            segments = {**examples.segments, **segments_of(examples, self.data.inputs.uncontrolled(), TEST, more=more)}
            found[task] = Scores(dataclasses.replace(examples, segments=segments), values)
        return found

    def show(self, predictor: Predictor) -> dict[str, list[Any]]:
        """Task → a few test examples for the report."""
        return {name: TASKS[name].show(predictor, self.data) for name in self.tasks(TEST)}


class Validation:
    """The evaluator as training is handed it: of a model whose parameters change."""

    def __init__(self, config: schema.Run, inputs: Inputs, model: JointModel) -> None:
        """Raises `UserError` for what cannot be measured, before the first step and not after training."""
        self.tasks, self.model = Evaluator(config, inputs), model
        self.tasks.check()
        self.selected, self.headline = self.tasks.selected, self.tasks.headline

    def validate(self, params: Any, bank: Any) -> dict[str, Result]:
        encoder = Encoder(self.model, params, self.tasks.config.evaluation.batch_size)
        return self.tasks.validate(RunPredictor(encoder, bank, self.tasks.data.inputs))


# ------------------------------------------------------------------------------------------------------------- selection
def check_select(config: schema.Train, tasks: Collection[str]) -> None:
    """Raises `UserError` if `train.select` names a task that is not measured: before the first step, not at a validation."""
    task = config.select.partition("/")[0]
    if config.select != "mean" and task not in tasks:
        raise UserError(f"train.select: '{config.select}': no task '{task}' is measured{nearest(task, tasks)}")


def selection(config: schema.Run, results: Mapping[str, Result]) -> float:
    """The number by which the best checkpoint is chosen, higher is better; `mean` leaves undefined metrics out.

    Of a metric of which less is better (`mr`) the negative.

    Raises:
      UserError: `train.select` names a task or metric that was not measured, or is undefined on the validation examples.
    """
    if config.train.select == "mean":
        values = [result.metrics.get(TASKS[task].main_of(config), np.nan) for task, result in results.items()]
        defined = [value for value in values if np.isfinite(value)]
        return float(np.mean(defined)) if defined else 0.0
    check_select(config.train, results)
    task, _, metric = config.train.select.partition("/")
    if metric not in results[task].metrics:
        raise UserError(
            f"train.select: '{config.train.select}': {task} has no metric '{metric}'{nearest(metric, results[task].metrics)}"
        )
    value = results[task].metrics[metric]
    if not np.isfinite(value):
        raise UserError(f"train.select: '{config.train.select}': {metric} is undefined on the validation examples of {task}")
    return value if higher_is_better(metric, TASKS[task].measures) else -value
