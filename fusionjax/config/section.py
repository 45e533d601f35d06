"""What all sections of a config are made of."""

from collections.abc import Collection
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, GetJsonSchemaHandler, model_validator
from pydantic_core import PydanticCustomError, core_schema

from fusionjax import registry

Positive = Annotated[int, Field(ge=1)]
NonNegative = Annotated[float, Field(ge=0.0)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Rate = Annotated[float, Field(ge=0.0, lt=1.0)]


class Known:
    """Of a text: it is one of our own names, the name of a plug-in, or a dotted name. Nothing is imported.

    Editors are shown the known names.
    """

    def __init__(self, group: str, own: Collection[str], bare: bool = False) -> None:
        """`group`: of entry points; `own`: our names; `bare`: plug-ins' are `TASK/NAME`, here without their task."""
        self.group, self.own, self.bare = group, tuple(own), bare

    def names(self) -> tuple[str, ...]:
        found = registry.known(self.group, self.own)
        return tuple(dict.fromkeys(name.rpartition("/")[2] for name in found)) if self.bare else found

    def check(self, name: str) -> str:
        if name not in self.own and name not in self.names() and not registry.is_dotted(name):
            raise PydanticCustomError("unknown_name", "no such name")  # told by the names in the JSON schema
        return name

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"enum": list(self.names()), "type": "string"}


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
    reads_products: ClassVar[bool] = False
    """Reads product vectors: of a plug-in, since ours are known to."""
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
