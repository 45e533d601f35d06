"""`evaluation`: which tasks are measured, and how."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from fusionjax import names, registry
from fusionjax.config.section import Known, Positive, Section
from fusionjax.errors import nearest

TaskName = Annotated[str, Known(registry.TASKS, names.TASKS)]


class EvaluationPlugins(Section):
    """What plug-ins add to a run's evaluation, each as `TASK/NAME`; what is not named here is not measured."""

    baselines: tuple[str, ...] = ()
    segments: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _of_a_task(self) -> "EvaluationPlugins":
        for group, chosen in ((registry.BASELINES, self.baselines), (registry.SEGMENTS, self.segments)):
            valid = registry.known(group, ())
            for name in chosen:
                if name not in valid and not ("/" in name and registry.is_dotted(name)):
                    kind = group.rpartition(".")[2]
                    raise ValueError(f"{kind}: no plug-in '{name}'{nearest(name, valid) if valid else '; none is installed'}")
        return self

    def of(self, kind: Literal["baselines", "segments"], task: str) -> tuple[str, ...]:
        """The named ones of a task, with its name before the slash."""
        return tuple(name for name in getattr(self, kind) if name.partition("/")[0] == task)


class Evaluation(Section):
    tasks: tuple[TaskName, ...] | None = None
    """Tasks to measure; none given: each task of ours the shop has data for and the model can do. A plug-in's is
    measured where it is named here."""
    batch_size: Positive = 256
    """Queries, users or triples ranked at once; bounds memory together with `block`."""
    block: Positive = 65536
    """Products or entities scored at once."""
    max_valid: Annotated[int, Field(ge=0)] = 0
    """Use at most this many queries, users or triples at a validation (a fixed random sample); 0: all."""
    max_test: Annotated[int, Field(ge=0)] = 0
    """The same for the final test; 0: all. Sampled results are marked in results.json."""
    exclude_seen: bool = True
    """Recommendation: never recommend what the user's history holds."""
    baselines: bool = True
    metrics: dict[TaskName, tuple[str, ...]] = Field(default={})
    """Task → metrics, such as `hits@5`, `recall@50`, `map`, `amri`; a task not named has its usual ones."""
    plugins: EvaluationPlugins = EvaluationPlugins()
