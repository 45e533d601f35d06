"""`text`: the text encoder and its tokeniser."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from fusionjax.config.section import Positive, Rate, Section


class Lora(Section):
    """Low-rank adaptation, for `text.tune: lora`."""

    rank: Positive = 8
    alpha: Annotated[float, Field(gt=0.0)] = 16.0
    """What the adapters add is scaled by alpha / rank."""
    targets: tuple[str, ...] = ("query", "value", "qkv")
    """Dense layers that get one: query, key, value (ModernBERT: qkv), attention_output, intermediate, output."""

    @model_validator(mode="after")
    def _known_targets(self) -> "Lora":
        known = ("query", "key", "value", "qkv", "attention_output", "intermediate", "output")
        for target in self.targets:
            if target not in known:
                raise ValueError(f"target '{target}' is none of {', '.join(known)}")
        return self


class Text(Section):
    """The BERT encoder and its tokeniser, shared by product and query towers."""

    checkpoint: str | None = None
    """Folder or hub id of a Hugging Face or sentence-transformers checkpoint (BERT, RoBERTa, XLM-R, DistilBERT, ModernBERT) to
    start from, with its tokeniser and pooling; none: trained from scratch. With one, `vocab_size`, `lowercase`, `layers`,
    `width`, `heads`, `feed_forward` and `pooling` are not read."""
    fields: tuple[Literal["title", "description", "brand", "category"], ...] = ("title", "description")
    """Product fields joined into the product's text."""
    vocab_size: Annotated[int, Field(ge=100)] = 8000
    """Size of the WordPiece vocabulary learnt from the training texts."""
    lowercase: bool = True
    max_length: Annotated[int, Field(ge=4, le=8192)] = 32
    """Tokens kept of a product's text or a query, [CLS] and [SEP] included."""
    layers: Positive = 2
    width: Positive = 128
    heads: Positive = 4
    feed_forward: Positive = 512
    dropout: Rate = 0.1
    pooling: Literal["mean", "cls"] = "mean"
    live: Positive = 256
    """Products whose text is encoded with gradient in a step; the other rows of the text bank are reused as last encoded."""
    refresh_every: Annotated[int, Field(ge=0)] = 200
    """Steps between re-encodings of the whole text bank; 0: only at the start and at validation."""
    query_prompt: str = ""
    """Put before each query; E5 wants `query: `."""
    product_prompt: str = ""
    """Put before each product text; E5 wants `passage: `."""
    tune: Literal["full", "frozen", "last", "lora"] = "full"
    """What of the encoder is trained: all; nothing (the text bank is encoded once); the last `tune_layers` layers; low-rank
    adapters beside its dense layers."""
    tune_layers: Positive = 2
    """`tune: last` only."""
    lora: Lora = Lora()
    chunk: Annotated[int, Field(ge=0)] = 0
    """Texts encoded at a time within a step, and again in its backward pass (gradient caching, Gao et al. 2021): memory is set
    by the chunk, loss and gradients are those of the whole batch. 0: all at once."""
    pack: bool = False
    """Lay a step's texts end to end in rows of one length, instead of each in a row of its own, padded to the shop's longest
    text: no padding is computed, but a program is compiled for each of a few numbers of rows. Worth it with a large encoder.
    Where rows cannot be packed (`chunk`, poolings other than mean and cls) they are cut to a few lengths instead."""
    remat: bool = False
    """Compute each encoder layer again in the backward pass instead of keeping its activations."""

    @model_validator(mode="after")
    def _heads_divide_width(self) -> "Text":
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        return self
