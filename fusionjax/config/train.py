"""`train`: how long, how often measured, and by which optimiser."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from fusionjax.config.section import NonNegative, Positive, Rate, Section

RuleName = Literal["adamw", "adam", "adagrad_torch", "adagrad_optax", "sgd"]


class LearningRate(Section):
    encoder: Annotated[float, Field(ge=0.0)] = 5e-4
    tables: Annotated[float, Field(ge=0.0)] = 5e-3
    """What belongs to entities and relations: their tables, weights a scorer shares between them, projections of their
    texts and numbers."""
    heads: Annotated[float, Field(ge=0.0)] = 1e-3
    """All else."""


class Rules(Section):
    """The rule of a group of parameters, where it is another than `name`; the groups are those of `learning_rate`."""

    encoder: RuleName | None = None
    tables: RuleName | None = None
    heads: RuleName | None = None


class Optimiser(Section):
    name: RuleName = "adamw"
    """Rule of every group of parameters that has none of its own in `rules`. Adagrad's sum of squares starts at 0 in torch, at
    0.1 in optax: at small learning rates two different methods."""
    rules: Rules = Rules()
    learning_rate: LearningRate = LearningRate()
    rows: Literal["dense", "sparse", "auto"] = "dense"
    """Of the entity table: dense: each step updates all of it; sparse: only the rows of its batch, so that a step costs the
    same however many entities there are (Adam then is lazy: moments of rows left out stand still); auto: whichever is
    cheaper."""
    layer_decay: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Each encoder layer's rate is this times that of the layer above it, the embeddings' below the first layer's."""
    schedule: Literal["constant", "linear", "cosine", "plateau"] = "cosine"
    """plateau: multiplied by `factor` after more than `wait` validations without a better one."""
    factor: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.95
    """`schedule: plateau` only."""
    wait: Annotated[int, Field(ge=0)] = 1
    """`schedule: plateau` only."""
    warmup_share: Rate = 0.05
    """Share of the steps over which the rate grows from 0."""
    weight_decay: NonNegative = 0.01
    """adamw only; not on tables, biases and norms."""
    clip_norm: NonNegative = 1.0
    """Largest global gradient norm; 0: no clipping."""


class Train(Section):
    steps: Annotated[int, Field(ge=0)] | None = None
    """Optimiser steps. Either this or `epochs`. 0: nothing is trained, the model is measured as it starts (a checkpoint's text
    vectors, with `model.heads: none`)."""
    epochs: Annotated[float, Field(gt=0.0)] | None = None
    """Epochs: rounds over the largest objective's training examples. Either this or `steps`."""
    accumulate: Positive = 1
    """Micro-batches whose gradients are averaged into one step."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the computation; parameters and the optimiser stay float32."""
    optimiser: Optimiser = Optimiser()
    log_every: Positive = 20
    validate_every: Annotated[int, Field(ge=0)] = 0
    """Steps between validations; 0: ten times over the run."""
    validate_every_epochs: Annotated[int, Field(ge=0)] = 0
    """Epochs between validations, instead of `validate_every`; 0: that one counts."""
    checkpoint_every: Annotated[int, Field(ge=0)] = 0
    """Steps between checkpoints; 0: at each validation."""
    patience: Annotated[int, Field(ge=0)] = 0
    """Stop after this many validations without a better one; 0: never."""
    average: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None
    """Validate, keep and test a moving average of the parameters as each epoch leaves them (Polyak and Juditsky 1992), the
    share of what was there before, so 0.9 is about the last ten epochs; none: the parameters themselves. Training never sees
    it."""
    select: str = "mean"
    """Validation metric that picks the best checkpoint: `TASK/METRIC`, or `mean` of each task's own (see README)."""

    @model_validator(mode="after")
    def _steps_or_epochs(self) -> "Train":
        if self.steps is not None and self.epochs is not None:
            raise ValueError("give steps or epochs, not both (set the other to null)")
        if self.steps is None and self.epochs is None:
            raise ValueError("give steps or epochs")
        return self
