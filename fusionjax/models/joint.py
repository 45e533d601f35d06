"""The joint model: one parameter tree, one method for each thing a tower computes.

`Layout` is static and says which parts exist; a part that no objective and no product source needs has no parameters.
"""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from fusionjax.models import encoder
from fusionjax.models.entities import EntityModel
from fusionjax.models.towers import ProductTower, QueryTower, UserTower


@dataclasses.dataclass(frozen=True)
class Layout:
    """Sizes and switches; everything `JointModel` needs to be built, hashable, plain."""

    dim: int
    sources: tuple[str, ...]
    n_products: int
    entities: EntityModel | None
    """Entities and relations; their parameters stand beside those of the towers, which are handed entity vectors."""
    encoder: encoder.EncoderConfig | None
    pooling: str
    max_length: int
    align: bool
    query: bool
    user: bool
    history: int
    user_layers: int
    user_heads: int
    user_dropout: float
    n_kinds: int
    profile_sizes: tuple[int, ...]
    recency: bool
    temperature: float
    bfloat16: bool = False
    heads: bool = True
    """Learned projections into the shared space; without them text vectors are the shared space."""
    siglip: bool = False
    masked_words: bool = False
    reads_products: bool = False
    """An objective of a plug-in reads product vectors."""

    @property
    def uses_bank(self) -> bool:
        """Whether products' text vectors are needed at all."""
        return self.has_products and ("text" in self.sources or self.align)

    @property
    def has_products(self) -> bool:
        """Whether anything is trained that compares product vectors, so that they mean something."""
        return self.n_products > 0 and (self.align or self.query or self.user or self.reads_products or not self.heads)


class JointModel(nn.Module):
    layout: Layout

    def setup(self) -> None:
        at = self.layout
        dtype = jnp.bfloat16 if at.bfloat16 else jnp.float32
        if at.encoder is not None:
            self.encoder = encoder.build(at.encoder, dtype)
        if at.masked_words and at.encoder is not None:
            self.masked_words = encoder.MaskedWords(at.encoder, dtype)
        if at.has_products and at.heads:
            self.product = ProductTower(at.dim, at.sources, at.align, dtype)
        if at.query and at.heads:
            self.query = QueryTower(at.dim, "text" in at.sources, dtype)
        if at.user:
            self.user = UserTower(
                at.dim,
                at.history,
                at.user_layers,
                at.user_heads,
                at.user_dropout,
                at.n_kinds,
                at.profile_sizes,
                at.recency,
                dtype,
            )
        start = nn.initializers.constant(-jnp.log(at.temperature))
        for name, trained in (("alignment", at.align), ("query_product", at.query), ("next_product", at.user)):
            if trained:
                setattr(self, f"{name}_log_scale", self.param(f"{name}_log_scale", start, ()))

        if at.siglip:
            self.query_product_bias = self.param("query_product_bias", nn.initializers.constant(-10.0), ())

    def scale(self, objective: str) -> Float[Array, ""]:
        """1 / the learned temperature of an objective, at most 100 (as CLIP bounds it)."""
        return jnp.exp(jnp.minimum(getattr(self, f"{objective}_log_scale"), jnp.log(100.0)))

    def bias(self) -> Float[Array, ""]:
        """The learned bias of SigLIP's pairs."""
        return self.query_product_bias

    def hidden(self, tokens: Int[Array, "b l"], deterministic: bool = True) -> Float[Array, "b l d"]:
        """Last hidden state of token rows."""
        return self.encoder(tokens, deterministic)

    def word_logits(self, hidden: Float[Array, "b m d"]) -> Float[Array, "b m v"]:
        """Scores of every word at places whose last hidden state is given, float32."""
        return self.masked_words(hidden, encoder.words_of(dict(self.encoder.variables["params"])))

    def encode(self, tokens: Int[Array, "b l"], deterministic: bool = True) -> Float[Array, "b d"]:
        """Pooled text vectors of token rows, float32."""
        return encoder.pool(self.encoder(tokens, deterministic), tokens, self.layout.pooling)

    def encode_packed(
        self,
        tokens: Int[Array, "r m"],
        text: Int[Array, "r m"],
        position: Int[Array, "r m"],
        n: int,
        deterministic: bool = True,
    ) -> Float[Array, "n d"]:
        """Pooled text vectors of packed rows of n texts, float32."""
        hidden = self.encoder(tokens, deterministic, text=text, position=position)
        return encoder.pool_packed(hidden, text, position, n, self.layout.pooling)

    def products(
        self,
        text: Float[Array, "b d"] | None,
        entity: Float[Array, "b e"] | None,
        has_text: Bool[Array, "b"],
        has_entity: Bool[Array, "b"],
    ) -> Float[Array, "b p"]:
        """Product vectors from text and entity vectors; a source the tower does not read may be None. Not normalised."""
        if not self.layout.heads:
            if text is None:
                raise ValueError("without heads products are their text vectors")
            return jnp.where(has_text[:, None], text, 0.0)
        return self.product(text, entity, has_text, has_entity)

    def text_side(self, text: Float[Array, "b d"] | None) -> Float[Array, "b p"]:
        """The text's part of a product vector, for alignment."""
        if text is None:
            raise ValueError("this layout has no text encoder")
        return self.product.side("text", text, jnp.ones(text.shape[0], bool))

    def entity_side(self, entity: Float[Array, "b e"] | None) -> Float[Array, "b p"]:
        """The entity's part of a product vector, for alignment."""
        if entity is None:
            raise ValueError("this layout has no entities")
        return self.product.side("entity", entity, jnp.ones(entity.shape[0], bool))

    def queries(self, text: Float[Array, "b d"]) -> Float[Array, "b p"]:
        """Query vectors from text vectors. Not normalised."""
        if not self.layout.heads:
            return text
        return self.query(text, self.text_side(text) if "text" in self.layout.sources else None)

    def users(
        self,
        products: Float[Array, "b l p"],
        kind: Int[Array, "b l"],
        time: Int[Array, "b l"],
        valid: Bool[Array, "b l"],
        profile: Int[Array, "b f"],
        deterministic: bool = True,
    ) -> Float[Array, "b m p"]:
        """User vectors after 0 … l events. Not normalised."""
        return self.user(products, kind, time, valid, profile, deterministic)

    def __call__(self) -> None:
        """Touches every part once, so that `init` creates all parameters."""
        at = self.layout
        yes = jnp.ones(1, bool)
        text = self.encode(jnp.ones((1, at.max_length), jnp.int32)) if at.encoder is not None else None
        entity = jnp.zeros((1, at.entities.scorer.entity_width)) if at.entities is not None else None
        if at.has_products:
            products = self.products(text, entity, yes, yes)
            if at.align:
                self.text_side(text)
                self.entity_side(entity)
            if at.user:
                sequence = jnp.broadcast_to(products[:, None], (1, at.history, at.dim))
                zeros = jnp.zeros((1, at.history), jnp.int32)
                self.users(sequence, zeros, zeros, zeros == 0, jnp.zeros((1, len(at.profile_sizes)), jnp.int32))
        if at.query and text is not None:
            self.queries(text)
        if at.masked_words and at.encoder is not None:
            self.word_logits(jnp.zeros((1, 1, at.encoder.width)))
