"""The BERT block and its families (BERT, RoBERTa, XLM-R, DistilBERT), architecture-exact, as Flax Linen modules.

Devlin et al. 2019; Liu et al. 2019; Conneau et al. 2020; Sanh et al. 2019. Post-norm blocks, learned positions, token types:
the parameter tree holds a Hugging Face checkpoint one to one (`fusionjax/hub/families.py`). Dropout sits after each sub-layer
and the embeddings; attention probabilities are not dropped, so that fused attention serves training too.

Axis letters, here and everywhere: b batch, l tokens, d width, h heads, k head width, f feed-forward, p shared space,
e entities, r relations, n negatives, v vocabulary.
"""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from fusionjax.models.layers import ACTIVATIONS, Dense, Lora, Norm, attend, together


@dataclasses.dataclass(frozen=True)
class BertConfig:
    vocab_size: int
    width: int = 128
    layers: int = 2
    heads: int = 4
    feed_forward: int = 512
    max_positions: int = 512
    """Rows of the position table."""
    token_types: int = 2
    """Rows of the token-type table, of which only the first is used; 0: none (DistilBERT)."""
    dropout: float = 0.1
    layer_norm_eps: float = 1e-12
    initializer_range: float = 0.02
    position_offset: int = 0
    """Row of the position table that the first token reads: RoBERTa's begin behind its padding token's number."""
    activation: str = "gelu"
    head_activation: str | None = None
    """Of the masked-words head; None: `activation`. RoBERTa's is gelu, whatever its layers use."""
    remat: bool = False
    """Compute each layer again in the backward pass instead of keeping what it computed."""
    lora: Lora | None = None

    @property
    def max_length(self) -> int:
        """Tokens a text may have."""
        return self.max_positions - self.position_offset


class BertEmbeddings(nn.Module):
    config: BertConfig
    dtype: jnp.dtype

    @nn.compact
    def __call__(
        self, tokens: Int[Array, "b l"], position: Int[Array, "b l"] | None, deterministic: bool
    ) -> Float[Array, "b l d"]:
        c = self.config
        init = nn.initializers.normal(c.initializer_range)
        word = nn.Embed(c.vocab_size, c.width, embedding_init=init, dtype=self.dtype, name="word_embeddings")(tokens)
        if position is None:
            position = jnp.arange(tokens.shape[1])[None]
        place = nn.Embed(c.max_positions, c.width, embedding_init=init, dtype=self.dtype, name="position_embeddings")(
            position + c.position_offset
        )
        if c.token_types:
            kinds = nn.Embed(c.token_types, c.width, embedding_init=init, dtype=self.dtype, name="token_type_embeddings")
            place = place + kinds(jnp.zeros((1, 1), jnp.int32))
        x = Norm(c.layer_norm_eps, self.dtype, name="layer_norm")(word + place)
        return nn.Dropout(c.dropout)(x, deterministic=deterministic)


class BertLayer(nn.Module):
    config: BertConfig
    dtype: jnp.dtype

    @nn.compact
    def __call__(
        self, x: Float[Array, "b l d"], mask: Bool[Array, "b 1 l l"], length: Int[Array, "b"] | None, deterministic: bool
    ) -> Float[Array, "b l d"]:
        c = self.config

        def dense(name: str, features: int) -> Dense:
            return Dense(features, c.initializer_range, self.dtype, lora=c.lora, name=name)

        split = (*x.shape[:2], c.heads, c.width // c.heads)
        query, key, value = together([dense(name, c.width) for name in ("query", "key", "value")], x)
        mixed = attend(query.reshape(split), key.reshape(split), value.reshape(split), mask, length).reshape(x.shape)
        mixed = dense("attention_output", c.width)(mixed)
        mixed = nn.Dropout(c.dropout)(mixed, deterministic=deterministic)
        x = Norm(c.layer_norm_eps, self.dtype, name="attention_norm")(x + mixed)
        inner = ACTIVATIONS[c.activation](dense("intermediate", c.feed_forward)(x))
        inner = dense("output", c.width)(inner)
        inner = nn.Dropout(c.dropout)(inner, deterministic=deterministic)
        return Norm(c.layer_norm_eps, self.dtype, name="output_norm")(x + inner)


class Bert(nn.Module):
    """Token rows → last hidden state. The call's arguments are those of `encoder.encode_tokens`."""

    config: BertConfig
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self,
        tokens: Int[Array, "b l"],
        deterministic: bool = True,
        *,
        text: Int[Array, "b l"] | None = None,
        position: Int[Array, "b l"] | None = None,
    ) -> Float[Array, "b l d"]:
        mask, length = readable(tokens, text)
        x = BertEmbeddings(self.config, self.dtype, name="embeddings")(jnp.maximum(tokens, 0), position, deterministic)
        layer = nn.remat(BertLayer, static_argnums=(4,)) if self.config.remat else BertLayer
        for number in range(self.config.layers):
            x = layer(self.config, self.dtype, name=f"layer_{number}")(x, mask, length, deterministic)
        return x


def readable(
    tokens: Int[Array, "b l"], text: Int[Array, "b l"] | None
) -> tuple[Bool[Array, "b 1 l l"], Int[Array, "b"] | None]:
    """(what each token may read: the tokens of its own text, tokens of each row or None where rows hold several texts)."""
    here = tokens >= 0
    if text is None:
        return here[:, None, None, :], here.sum(1, dtype=jnp.int32)
    return ((text[:, :, None] == text[:, None, :]) & here[:, None, :])[:, None], None


def pool(hidden: Float[Array, "b l d"], tokens: Int[Array, "b l"], how: str) -> Float[Array, "b d"]:
    """One vector a row, float32; `how` as sentence-transformers names it, padding (−1) left out.

    `mean` (of no token: zeros), `cls` (the first row), `max`, `mean_sqrt_len_tokens`, `weightedmean` (weights 1, 2, …: SGPT,
    Muennighoff 2022), `lasttoken`. Several, joined by `+`, are concatenated.
    """
    if "+" in how:
        return jnp.concatenate([pool(hidden, tokens, one) for one in how.split("+")], axis=1)
    hidden = hidden.astype(jnp.float32)
    here = tokens >= 0
    mask = here.astype(jnp.float32)[:, :, None]
    if how == "cls":
        return hidden[:, 0]
    if how == "mean":
        return (hidden * mask).sum(1) / jnp.maximum(mask.sum(1), 1.0)
    if how == "max":
        return jnp.where(here[:, :, None], hidden, -1e9).max(1)
    if how == "mean_sqrt_len_tokens":
        return (hidden * mask).sum(1) / jnp.sqrt(jnp.maximum(mask.sum(1), 1.0))
    if how == "weightedmean":
        weight = mask * jnp.arange(1, tokens.shape[1] + 1, dtype=jnp.float32)[None, :, None]
        return (hidden * weight).sum(1) / jnp.maximum(weight.sum(1), 1.0)
    if how == "lasttoken":
        last = jnp.maximum(here.sum(1) - 1, 0)
        return jnp.take_along_axis(hidden, last[:, None, None], axis=1)[:, 0]
    raise ValueError(f"pooling '{how}' is none of {', '.join(POOLINGS)}")


POOLINGS = ("mean", "cls", "max", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
