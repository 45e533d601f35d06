"""What training is handed to measure a run on validation."""

from collections.abc import Mapping
from typing import Any

from fusionjax.config import schema
from fusionjax.data.inputs import Inputs
from fusionjax.data.shop import TEST, VALID
from fusionjax.evaluation.metrics import Result
from fusionjax.evaluation.tasks import MAIN_METRIC, check_select, evaluate_model, selection, tasks_of
from fusionjax.inference import Encoder
from fusionjax.models.joint import JointModel


class Evaluator:
    """The tasks of a run on its validation examples."""

    def __init__(self, config: schema.Run, inputs: Inputs, model: JointModel) -> None:
        """Raises `UserError`: a task cannot be measured, or `train.select` names none that is."""
        self.config, self.inputs, self.model = config, inputs, model
        for split in (VALID, TEST):  # said now, not after training
            tasks_of(config, inputs, split)
        check_select(config.train, tasks_of(config, inputs, VALID))

    def validate(self, params: Any, bank: Any) -> Mapping[str, Result]:
        encoder = Encoder(self.model, params, self.config.evaluation.batch_size)
        return evaluate_model(encoder, bank, self.inputs, self.config, VALID, self.config.evaluation.max_valid)

    def selected(self, results: Mapping[str, Result]) -> float:
        return selection(self.config.train, dict(results))

    def headline(self, results: Mapping[str, Result]) -> list[tuple[str, str, float]]:
        return [(task, MAIN_METRIC[task], result.metrics[MAIN_METRIC[task]]) for task, result in results.items()]
