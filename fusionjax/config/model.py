"""`model`: entity vectors, product tower, user tower, and the space they share."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from fusionjax import names, registry
from fusionjax.config.section import Known, NonNegative, Positive, Rate, Section

ScorerName = Annotated[str, Known(registry.SCORERS, names.SCORERS)]


class Init(Section):
    """How the tables start."""

    name: Literal["paper", "xavier_normal", "xavier_uniform", "normal", "uniform"] = "normal"
    """`paper`: as the scorer's authors do. `xavier_*`: of a table as a matrix (rows + columns)."""
    scale: Annotated[float, Field(gt=0.0)] = 0.1
    """normal: standard deviation; uniform: from −scale to scale; the others are multiplied by it."""


class Dropout(Section):
    entity: Rate = 0.0
    """Of the numbers of the vector of the entity given."""
    relation: Rate = 0.0
    input: Rate = 0.0
    """RESCAL, TuckER, ConvE: of what goes into the scorer, …"""
    feature: Rate = 0.0
    """… of RESCAL's and TuckER's relation matrices and ConvE's feature maps (whole maps), …"""
    hidden: Rate = 0.0
    """… of what is compared with the entities."""


class Convolution(Section):
    """ConvE only."""

    height: Positive | None = None
    """Rows of the image an entity's vector is laid out in; none: the divisor of `dim` nearest to its root."""
    filters: Positive = 32
    kernel: Positive = 3


class EntityText(Section):
    """Entities' names and descriptions, encoded once by a pretrained encoder; a learned projection leads to entity vectors."""

    use: Literal["none", "replace", "add", "align"] = "none"
    """replace: an entity is its text alone, so one unseen in training has a vector too; add: text plus its row of the table;
    align: the table alone is scored, and drawn to the text (InfoNCE, `align`)."""
    checkpoint: str | None = None
    """Folder or hub id, as `text.checkpoint`."""
    hidden: Annotated[int, Field(ge=0)] = 0
    """Width of the projection's hidden layer; 0: linear."""
    align: NonNegative = 0.1
    """Weight of the alignment loss."""
    temperature: Annotated[float, Field(gt=0.0)] = 0.05

    @model_validator(mode="after")
    def _some_checkpoint(self) -> "EntityText":
        if self.use != "none" and self.checkpoint is None:
            raise ValueError("checkpoint: name an encoder")
        return self


class Entity(Section):
    """The vectors of entities and relations, and how they score a triple; a product's entity vector is also its behaviour
    embedding."""

    scorer: ScorerName = "transe"
    dim: Annotated[int, Field(ge=2)] = 128
    """Real numbers an entity; ComplEx and RotatE read them as dim / 2 complex ones, SimplE as two halves, QuatE as dim / 4
    quaternions. A relation has as many, RotatE half, PairRE twice, RESCAL dim²."""
    relation_dim: Positive | None = None
    """TuckER only; none: `dim`."""
    norm: Literal[1, 2] = 2
    """TransE only: L1 or L2 distance."""
    margin: NonNegative = 9.0
    """TransE, RotatE, PairRE: score = margin − distance."""
    behaviour: bool = True
    """Learn entity rows from next products and queries too; false: from the graph (and alignment) alone."""
    convolution: Convolution = Convolution()
    init: Init = Init()
    dropout: Dropout = Dropout()
    text: EntityText = EntityText()
    literals: bool = False
    """Add a learned projection of the entities' numbers (standardised, with a mark where one is missing) to their vectors."""

    @model_validator(mode="after")
    def _dim_can_be_cut(self) -> "Entity":
        parts = names.SCORERS[self.scorer].parts if self.scorer in names.SCORERS else 1  # a plug-in's says so when it is made
        if self.dim % parts:
            raise ValueError(f"dim: {self.scorer} needs a multiple of {parts}, got {self.dim}")
        height = self.convolution.height
        if self.scorer == "conve" and height and self.dim % height:
            raise ValueError(f"convolution.height: {height} does not divide dim {self.dim}")
        if self.scorer == "conve" and self.text.use == "align":
            raise ValueError("text.use: align: not for conve, whose entity rows hold a bias")
        return self


class Product(Section):
    """Product tower: gated fusion of text and entity vectors."""

    sources: tuple[Literal["text", "entity"], ...] = ("text", "entity")
    """What a product vector is made of."""
    source_dropout: Rate = 0.1
    """While training, chance that one of two sources is hidden, so that the vector survives its absence (cold products)."""

    @model_validator(mode="after")
    def _some_source(self) -> "Product":
        if not self.sources or len(set(self.sources)) != len(self.sources):
            raise ValueError(f"sources {list(self.sources)} must name 'text', 'entity' or both, once each")
        return self


class User(Section):
    """User tower: a causal transformer over recent events, and the profile."""

    history: Positive = 50
    """Most recent events read."""
    layers: Positive = 2
    heads: Positive = 2
    dropout: Rate = 0.2
    kind: bool = True
    """Tell views from clicks, carts and purchases."""
    recency: bool = True
    """Tell how long before the moment of prediction each event was (logarithmic buckets)."""
    profile: bool = True
    """Use the profile fields where the shop has them."""


class Model(Section):
    dim: Positive = 64
    """Width of the shared space in which all towers meet and cosines are taken."""
    heads: Literal["learned", "none"] = "learned"
    """What leads from text vectors to the shared space: learned projections; none: text vectors are the shared space (`dim` is
    not read, products are made of text alone), as sentence encoders are used and trained."""
    entity: Entity = Entity()
    product: Product = Product()
    user: User = User()

    @model_validator(mode="after")
    def _no_heads_reads_text(self) -> "Model":
        if self.heads == "none" and self.product.sources != ("text",):
            raise ValueError(f"heads none needs product.sources [text], got {list(self.product.sources)}")
        return self

    @model_validator(mode="after")
    def _heads_divide_dim(self) -> "Model":
        if self.dim % self.user.heads:
            raise ValueError(f"dim {self.dim} is not a multiple of user.heads {self.user.heads}")
        return self
