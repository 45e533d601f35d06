"""Training of a run, or of several that differ in little: one journal each, and the driver that fits what they train.

A run whose only objective is link prediction is trained by compiled epochs over batches made on the device (`epochs`), all
others by a compiled step for each batch that the host makes (`steps`). Runs of one graph that differ in their seed, or in
numbers of the loss, share one program; others are trained one after the other and share what is compiled.
"""

import contextlib
import threading
from collections.abc import Callable, Sequence
from typing import Any, get_args

from fusionjax.config import schema
from fusionjax.data.inputs import Inputs
from fusionjax.errors import NonFiniteLoss, UserError
from fusionjax.models.joint import JointModel
from fusionjax.objectives.link_prediction.loss import hyper_of
from fusionjax.objectives.link_prediction.objective import LinkPrediction
from fusionjax.objectives.towers import catalogue
from fusionjax.runs import RunFolder
from fusionjax.training import parallel
from fusionjax.training.checkpoint import Checkpoints
from fusionjax.training.epochs import Stack, by_epochs
from fusionjax.training.journal import Evaluator, Journal, OnValidation, Pace, Say, Trained, prefixed, sigterm
from fusionjax.training.optimiser import Optimiser
from fusionjax.training.state import layout
from fusionjax.training.steps import Steps, run_steps
from fusionjax.training.stream import StepSource, steps_of
from fusionjax.training.teacher import taught
from fusionjax.training.trackers import Trackers

Outcome = Trained | NonFiniteLoss
Evaluators = Callable[[schema.Run, Inputs, JointModel], Evaluator]
"""Makes what measures a run on validation; raises `UserError` for a task or metric that cannot be measured."""


def train(
    configs: Sequence[schema.Run],
    inputs: Sequence[Inputs],
    homes: Sequence[RunFolder],
    evaluators: Evaluators,
    say: Say = print,
    trackers: Sequence[Trackers] = (),
    on_validation: OnValidation | None = None,
) -> list[Outcome]:
    """Trains every run to its end, from its newest checkpoint if there is one.

    Args:
      configs: one a run, equal but for what `check_together` allows.
      inputs: one a run; the same object where the runs share their data.
      homes, trackers: one a run (trackers may be left out).
      on_validation: of a lone run: told each step and value; training ends where it returns true.

    Returns:
      For each run how training ended; of several runs the error where the loss was not finite, which stops that run alone.

    Raises:
      UserError: settings that do not fit the data, or differ too much; nothing to train on.
      NonFiniteLoss: of a lone run, with step and objective.
      Interrupted: after SIGTERM, once the states are saved.
    """
    check_together(configs)
    inputs = [taught(own, config, say) for config, own in zip(configs, inputs, strict=True)]
    runs = _Runs(configs, inputs, homes, evaluators, say, trackers, on_validation)
    with contextlib.ExitStack() as stack, sigterm() as stop:
        if not by_epochs(configs[0]):
            return runs.by_steps(stack, stop)
        shared = all(own is inputs[0] for own in inputs)
        groups = [list(range(len(configs)))] if shared else [[place] for place in range(len(configs))]
        return [outcome for group in groups for outcome in runs.by_epochs(group, stack, stop)]


class _Runs:
    def __init__(
        self,
        configs: Sequence[schema.Run],
        inputs: Sequence[Inputs],
        homes: Sequence[RunFolder],
        evaluators: Evaluators,
        say: Say,
        trackers: Sequence[Trackers],
        on_validation: OnValidation | None,
    ) -> None:
        self.configs, self.inputs, self.homes, self.evaluators = configs, inputs, homes, evaluators
        self.say, self.trackers, self.on_validation = say, trackers, on_validation

    def journal(self, place: int, model: JointModel, pace: Pace, stack: contextlib.ExitStack) -> Journal:
        config, home = self.configs[place], self.homes[place]
        checkpoints = Checkpoints(home.checkpoints)
        stack.callback(checkpoints.close)
        name = f"seed {config.seed}" if len({one.seed for one in self.configs}) > 1 else home.path.name
        say = self.say if len(self.configs) == 1 else prefixed(self.say, name)
        trackers = self.trackers[place] if self.trackers else None
        evaluator = self.evaluators(config, self.inputs[place], model)
        return Journal(config, home, checkpoints, evaluator, pace, say, self.on_validation, trackers)

    def ended(self, journal: Journal, error: NonFiniteLoss) -> Outcome:
        if len(self.configs) == 1:
            raise error
        journal.say(f"stopped, the others go on: {error}")
        return error

    def by_epochs(self, places: Sequence[int], stack: contextlib.ExitStack, stop: threading.Event) -> list[Outcome]:
        """Runs of one graph, in one program."""
        config, inputs = self.configs[places[0]], self.inputs[places[0]]
        model, objective = JointModel(layout(config, inputs)), LinkPrediction(inputs, config)
        epoch = objective.steps_per_epoch
        pace = Pace.of(config.train, steps_of(config, epoch), epoch)
        journals = [self.journal(place, model, pace, stack) for place in places]
        running = Stack(
            journals, model, _optimiser(config, model, pace.total), objective, catalogue(inputs, objective.graph), self.say
        )
        try:
            running.run(stop)
        except NonFiniteLoss as error:
            return [self.ended(journals[0], error)]
        return [journal.failure or journal.trained(running.done, running.parameters) for journal in journals]

    def by_steps(self, stack: contextlib.ExitStack, stop: threading.Event) -> list[Outcome]:
        """Runs of several objectives, one after the other."""
        mesh = parallel.build_mesh()
        parallel.check_divisible(self.configs[0], mesh)
        parts: Steps | None = None
        found: list[Outcome] = []
        for place, (config, inputs) in enumerate(zip(self.configs, self.inputs, strict=True)):
            source = StepSource(inputs, config, steps=2**31 - 1, devices=mesh.size)
            if not source.objectives:
                raise UserError("objectives: every weight is 0, there is nothing to train")
            model = JointModel(layout(config, inputs))
            pace = Pace.of(config.train, source.total, source.epoch)
            journal = self.journal(place, model, pace, stack)
            if parts is None or parts.model != model or parts.pace != pace:
                parts = Steps(config, model, _optimiser(config, model, pace.total), pace, mesh)
            try:
                last, parameters = run_steps(journal, parts, inputs, source, stop)
                found.append(journal.trained(last, parameters))
            except NonFiniteLoss as error:
                found.append(self.ended(journal, error))
        return found


def _optimiser(config: schema.Run, model: JointModel, steps: int) -> Optimiser:
    encoder = model.layout.encoder
    return Optimiser(config.train.optimiser, config.text, encoder.layers if encoder is not None else 0, steps)


def cannot_share(config: schema.Run) -> str | None:
    """Why runs of this config that differ in their seed cannot be trained in one program; None: they can."""
    if not by_epochs(config):
        return "only runs whose sole objective is link_prediction are trained together"
    if config.data.controls != schema.Controls():
        return "data.controls: the seeds' graphs differ"
    return None


def check_together(configs: Sequence[schema.Run]) -> None:
    """Raises `UserError` unless the runs differ in seeds and in numbers of the loss alone."""
    first = configs[0]
    for config in configs[1:]:
        if _without_numbers(config) != _without_numbers(first):
            known = ", ".join(get_args(schema.SettingName))
            raise UserError(f"runs trained in one program may differ in seed and in {known} only")
        ours, theirs = (hyper_of(one.objectives.link_prediction, one.model.entity) for one in (first, config))
        for name, value in ours.items():
            if (value == 0) != (theirs[name] == 0):
                raise UserError(f"runs trained in one program: {name} is 0 in one and not in the other")


def _without_numbers(config: schema.Run) -> dict[str, Any]:
    values = config.model_dump(mode="json", exclude={"track", "seed"})
    for key in get_args(schema.SettingName):
        *parts, last = key.split(".")
        here = values
        for part in parts:
            here = here[part]
        here.pop(last)
    return values
