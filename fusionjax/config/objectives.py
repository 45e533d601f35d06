"""`objectives`: what the towers are trained for, each with its weight, its batches and its turns."""

import itertools
import math
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SerializeAsAny, WithJsonSchema, model_validator

from fusionjax.config import plugins
from fusionjax.config.link_prediction import LinkPrediction
from fusionjax.config.section import Objective, Positive, Rate, Section


class Alignment(Objective):
    """A product's text vector and its entity vector find each other (InfoNCE in both directions)."""

    reads_text = True
    reads_product_text = True
    reads_entities = True


class HardNegatives(Section):
    """Products that look relevant to a query and are not: further negatives of every query in the batch."""

    file: str | None = None
    """Table (.tsv, .csv, .parquet) with columns `query` and `product`, ids of the shop."""
    from_file: Annotated[int, Field(ge=0)] = 0
    """Drawn from the file for each query of the batch."""
    mined: Annotated[int, Field(ge=0)] = 0
    """Nearest wrong products of each query by the model as it is, among the text bank."""
    mine_from: Positive = 65536
    """Products looked at in a step, drawn anew; all, if the shop has no more."""
    margin: Annotated[float, Field(ge=0.0, le=2.0)] = 0.05
    """A mined product is left out if its cosine is above that of the query's own product less this: it is likely relevant, only
    not judged. Known positives never count."""

    @model_validator(mode="after")
    def _file_is_read(self) -> "HardNegatives":
        if (self.file is None) != (self.from_file == 0):
            raise ValueError("file and from_file go together: how many of which file?")
        return self


class QueryProduct(Objective):
    """A query and a product judged relevant, or bought after it, find each other among the batch."""

    shop_parts = ("products", "queries")
    reads_text = True
    trains_products_of = "queries"

    loss: Literal["info_nce", "siglip", "triplet"] = "info_nce"
    """info_nce: softmax over the batch; siglip: each pair judged alone, with a learned bias; triplet: hinge on cosines."""
    directions: Literal["both", "forth"] = "both"
    """info_nce only: query → product and product → query, or the first alone (multiple negatives ranking)."""
    triplet_margin: Annotated[float, Field(gt=0.0, le=2.0)] = 0.2
    triplet_hardest: bool = False
    """triplet only: the nearest negative alone, instead of the mean over all."""
    matryoshka: tuple[Positive, ...] = ()
    """Widths of prefixes of the vectors on which the loss is taken too (the mean over them); none: whole vectors only."""
    hard_negatives: HardNegatives = HardNegatives()

    min_grade: Annotated[float, Field(gt=0.0)] = 1.0
    """Judgments of at least this grade are positives."""
    from_events: bool = True
    """Training events that carry a query are positives too."""
    from_titles: Rate = 0.3
    """Share of the batch whose query is a random part of a product's own text (inverse cloze task, Lee et al. 2019): teaches
    words that no training query holds, and cold products."""


class MaskedWords(Objective):
    """The encoder predicts hidden words of the catalogue's texts: a warm-up (`end: 0.2`), or beside the other objectives."""

    reads_text = True

    weight: Annotated[float, Field(ge=0.0)] = 0.0
    batch_size: Positive = 64
    share: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.15
    """Words asked for: of these 80 % read as [MASK], 10 % as any word, 10 % as themselves (Devlin et al. 2019)."""


class Distillation(Objective):
    """The encoder's vectors of product texts become those of a teacher."""

    reads_text = True

    weight: Annotated[float, Field(ge=0.0)] = 0.0
    batch_size: Positive = 128
    teacher: str | None = None
    """Folder or hub id of a checkpoint; its vectors are computed once."""
    loss: Literal["cosine", "kl"] = "cosine"
    """cosine: of the same width, each vector to its own; kl: of any width, the similarities within the batch."""
    matryoshka: tuple[Positive, ...] = ()
    """Widths of prefixes, as for query_product."""

    @model_validator(mode="after")
    def _some_teacher(self) -> "Distillation":
        if self.weight > 0 and self.teacher is None:
            raise ValueError("teacher: name a checkpoint")
        return self


class NextProduct(Objective):
    """A user's history points at the next product, at every position."""

    shop_parts = ("products", "users", "events")
    trains_products_of = "events"

    batch_size: Positive = 128
    softmax: Literal["full", "sampled"] = "full"
    """Over the whole catalogue, or over the batch's own next products and `negatives` with logQ correction."""
    negatives: Positive = 512
    """`sampled` only: uniformly drawn negatives shared by the batch."""


def _sections(values: Any) -> Any:
    if not isinstance(values, dict):
        return values
    for name in values:
        if name in Objectives.model_fields:
            raise ValueError(f"'{name}' is an objective of ours: its keys stand under objectives.{name}")
    return {name: plugins.section_of(name, each) for name, each in values.items()}


class Objectives(Section):
    link_prediction: LinkPrediction = LinkPrediction()
    alignment: Alignment = Alignment()
    query_product: QueryProduct = QueryProduct()
    next_product: NextProduct = NextProduct()
    masked_words: MaskedWords = MaskedWords()
    distillation: Distillation = Distillation()
    temperature: Annotated[float, Field(gt=0.0, le=1.0)] = 0.05
    """Start of the learned temperatures of the cosine objectives."""
    plugins: Annotated[
        dict[str, SerializeAsAny[Objective]],
        BeforeValidator(_sections),
        WithJsonSchema({"type": "object", "additionalProperties": {"type": "object"}}),
    ] = Field(default={})
    """Objectives of plug-ins by name, each with its own section: `weight`, `batch_size`, `every`, … and keys of its own."""

    def every(self) -> dict[str, Objective]:
        """All objectives by name, in the order in which they stand here, plug-ins' last."""
        return {**{name: each for name, each in self if isinstance(each, Objective)}, **self.plugins}

    def used(self) -> dict[str, Objective]:
        """Those with a weight."""
        return {name: each for name, each in self.every().items() if each.weight > 0}

    @model_validator(mode="after")
    def _every_step_trains_something(self) -> "Objectives":
        used = list(self.used().values())
        # Between two neighbouring begins or ends the same objectives take turns. Rounding moves these marks, not their order,
        # so what holds for every stretch here holds for a run of any length.
        marks = sorted({0.0, 1.0, *(mark for each in used for mark in (each.begin, each.end))}) if used else []
        for start, stop in itertools.pairwise(marks):
            present = [each for each in used if each.begin <= start and stop <= each.end]
            where = "" if (start, stop) == (0.0, 1.0) else f" between {start:.4g} and {stop:.4g} of the run"
            if not present:
                raise ValueError(f"no objective takes part{where}: see begin and end of those with a weight")
            for step in range(min(math.lcm(*(each.every for each in present)), 1000)):
                if not any(step % each.every == each.offset for each in present):
                    cycle = f" of {math.lcm(*(each.every for each in present))}" if where else ""
                    raise ValueError(
                        f"no objective takes part in step {step}{cycle}{where}: see every and offset of those with a weight"
                    )
        return self
