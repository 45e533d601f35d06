"""Every key of a run config: its type, range, default and meaning.

A run is shop × towers × weighted objectives × optimiser × evaluation; a graph alone is a run whose only objective with a weight
is link prediction. All models are frozen and refuse unknown keys; reading YAML, `extends` and dotted overrides is
`config/load.py`. Descriptions here become the JSON Schema editors show. A file a section; this one holds the whole, what must
fit between sections, and every section's name.
"""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from fusionjax import names
from fusionjax.config.data import (
    AmazonBeauty,
    Clean,
    Controls,
    Data,
    DemoShop,
    Files,
    Graph,
    Split,
    TriplesFiles,
    Wikidata5m,
)
from fusionjax.config.evaluation import Evaluation, TaskName
from fusionjax.config.link_prediction import LinkPrediction, Loss, Negatives, Penalty
from fusionjax.config.model import (
    Convolution,
    Dropout,
    Entity,
    EntityText,
    Init,
    Model,
    Product,
    ScorerName,
    User,
)
from fusionjax.config.objectives import (
    Alignment,
    Distillation,
    HardNegatives,
    MaskedWords,
    NextProduct,
    Objectives,
    QueryProduct,
)
from fusionjax.config.section import NonNegative, Objective, Positive, Rate, Section, Share
from fusionjax.config.text import Lora, Text
from fusionjax.config.track import Track
from fusionjax.config.train import LearningRate, Optimiser, RuleName, Rules, Train

__all__ = [
    "VERSION",
    "Alignment",
    "AmazonBeauty",
    "Clean",
    "Controls",
    "Convolution",
    "Data",
    "DemoShop",
    "Distillation",
    "Dropout",
    "Entity",
    "EntityText",
    "Evaluation",
    "Files",
    "Graph",
    "HardNegatives",
    "Init",
    "LearningRate",
    "LinkPrediction",
    "Lora",
    "Loss",
    "MaskedWords",
    "Model",
    "Negatives",
    "NextProduct",
    "NonNegative",
    "Objective",
    "Objectives",
    "Optimiser",
    "Penalty",
    "Positive",
    "Product",
    "QueryProduct",
    "Rate",
    "RuleName",
    "Rules",
    "Run",
    "ScorerName",
    "Section",
    "SettingName",
    "Share",
    "Split",
    "TaskName",
    "Text",
    "Track",
    "Train",
    "TriplesFiles",
    "User",
    "Wikidata5m",
    "check_scorer",
]

VERSION = 2
"""Of the schema. It rises with every default that changes and every key that is renamed (`config/upgrade.py`)."""
SettingName = Literal[
    "train.optimiser.learning_rate.tables",
    "objectives.link_prediction.loss.margin",
    "objectives.link_prediction.loss.temperature",
    "objectives.link_prediction.loss.label_smoothing",
    "objectives.link_prediction.relation_prediction",
    "objectives.link_prediction.penalty.entity",
    "objectives.link_prediction.penalty.relation",
    "model.entity.dropout.entity",
    "model.entity.dropout.relation",
    "model.entity.text.align",
    "model.entity.text.temperature",
]
"""Numbers that a compiled program takes as arguments, so that runs that differ in them alone can share one."""


class Run(Section):
    """One run: what `fusionjax train` takes."""

    version: Literal[2] = VERSION
    """Of the schema this file's keys are of; a file that does not say may also use older keys, but not both for one thing."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**31)], ...] = ()
    """Train once with each of these instead of `seed`, in one program where that is possible (graphs alone): a run folder each
    under that of the run, and their mean and spread."""
    settings: tuple[dict[SettingName, NonNegative], ...] = ()
    """Graphs alone: trained in one program, each with these numbers instead (`{train.optimiser.learning_rate.tables: 0.2}`);
    the one with the best validation MRR goes on to test. For small graphs, which leave a device room."""
    data: Data = Data()
    text: Text = Text()
    model: Model = Model()
    objectives: Objectives = Objectives()
    train: Train = Train(steps=1000)
    evaluation: Evaluation = Evaluation()
    track: Track = Track()

    @property
    def only_objective(self) -> str | None:
        """Name of the objective that alone has a weight; None where several have."""
        names = list(self.objectives.used())
        return names[0] if len(names) == 1 else None

    @model_validator(mode="after")
    def _parts_fit(self) -> "Run":
        if self.model.heads == "none" and self.objectives.alignment.weight > 0:
            raise ValueError("model.heads: none has no projections for objectives.alignment; set its weight to 0")
        if self.text.tune != "full" and self.text.checkpoint is None:
            raise ValueError(
                f"text.tune: {self.text.tune} needs text.checkpoint: an encoder from scratch must be trained in full"
            )
        return self

    @model_validator(mode="after")
    def _scorer_fits_objective(self) -> "Run":
        scorer = self.model.entity.scorer
        if scorer in names.SCORERS:  # of a plug-in's, `training.state` asks when it makes it
            check_scorer(scorer, names.SCORERS[scorer], self.objectives.link_prediction)
        return self


def check_scorer(scorer: str, facts: names.ScorerFacts, links: LinkPrediction) -> None:
    """Raises `ValueError` if a scorer does not do what link prediction asks for."""
    if links.weight == 0:
        return
    if not facts.two_sided and not links.reciprocal:
        raise ValueError(
            f"model.entity.scorer: {scorer} predicts tails only: it needs objectives.link_prediction.reciprocal: true"
        )
    if links.penalty.name == "dura" and not facts.dura:
        allowed = ", ".join(name for name, each in names.SCORERS.items() if each.dura)
        raise ValueError(f"objectives.link_prediction.penalty.name: dura is for {allowed}, got model.entity.scorer: {scorer}")
    if links.relation_prediction and not facts.predicts_relations:
        raise ValueError(
            f"objectives.link_prediction.relation_prediction: not with model.entity.scorer: {scorer}, "
            "whose score is no product with the relation"
        )
