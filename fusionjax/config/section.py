"""What all sections of a config are made of."""

from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Positive = Annotated[int, Field(ge=1)]
NonNegative = Annotated[float, Field(ge=0.0)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Rate = Annotated[float, Field(ge=0.0, lt=1.0)]


class Section(BaseModel):
    """Frozen; refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True)


class Objective(Section):
    # What an objective needs of the data. It stands here, and not with the batches and the loss, so that `data/`, which may
    # not import `objectives/`, can read it; it is no key of a config.
    shop_parts: ClassVar[tuple[str | tuple[str, ...], ...]] = ("products",)
    """Parts of the shop without which there is nothing to train on; of a tuple of parts any one is enough."""
    reads_text: ClassVar[bool] = False
    """Reads texts, whatever products are made of (`model.product.sources`)."""
    reads_product_text: ClassVar[bool] = False
    """Reads products' text vectors from the bank, whatever products are made of."""
    reads_entities: ClassVar[bool] = False
    """Reads the entity table, whatever products are made of."""
    trains_products_of: ClassVar[Literal["triples", "events", "queries"] | None] = None
    """The training rows that say which products' entity rows it trains; none: it trains no product's."""

    weight: Annotated[float, Field(ge=0.0)] = 1.0
    """Weight in the joint loss; 0 removes the objective and its cost."""
    batch_size: Positive = 256
    every: Positive = 1
    """Takes part in every n-th step …"""
    offset: Annotated[int, Field(ge=0)] = 0
    """… beginning with this one (0 ≤ offset < every): objectives with different offsets alternate."""
    begin: Share = 0.0
    """Takes part from this share of the run's steps on …"""
    end: Share = 1.0
    """… until this one (begin < end): objectives may follow each other."""

    @model_validator(mode="after")
    def _offset_within_every(self) -> "Objective":
        if self.offset >= self.every:
            raise ValueError(f"offset {self.offset} must be smaller than every {self.every}")
        if self.begin >= self.end:
            raise ValueError(f"begin {self.begin:g} must be smaller than end {self.end:g}")
        return self
