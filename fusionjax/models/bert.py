"""BERT's encoder (Devlin et al. 2019), architecture-exact, as a Flax Linen module.

Post-norm blocks, learned positions, token types, exact GELU, LayerNorm epsilon 1e-12: the parameter tree can hold a Hugging
Face checkpoint one to one. Dropout sits after each sub-layer and the embeddings; attention probabilities are not dropped, so
that the fused attention of `jax.nn.dot_product_attention` serves training too.

Axis letters, here and everywhere: b batch, l tokens, d width, h heads, k head width, f feed-forward, p shared space,
e entities, r relations, n negatives.
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


@dataclasses.dataclass(frozen=True)
class BertConfig:
    vocab_size: int
    width: int = 128
    layers: int = 2
    heads: int = 4
    feed_forward: int = 512
    max_positions: int = 512
    token_types: int = 2
    dropout: float = 0.1
    layer_norm_eps: float = 1e-12
    initializer_range: float = 0.02


class _Dense(nn.Module):
    """A dense layer with BERT's initialiser."""

    features: int
    std: float
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        return nn.Dense(self.features, dtype=self.dtype, kernel_init=nn.initializers.normal(self.std), name="dense")(x)


class BertEmbeddings(nn.Module):
    config: BertConfig
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, tokens: Int[Array, "b l"], deterministic: bool) -> Float[Array, "b l d"]:
        c = self.config
        init = nn.initializers.normal(c.initializer_range)
        word = nn.Embed(c.vocab_size, c.width, embedding_init=init, dtype=self.dtype, name="word_embeddings")(tokens)
        place = nn.Embed(c.max_positions, c.width, embedding_init=init, dtype=self.dtype, name="position_embeddings")(
            jnp.arange(tokens.shape[1])[None]
        )
        kind = nn.Embed(c.token_types, c.width, embedding_init=init, dtype=self.dtype, name="token_type_embeddings")(
            jnp.zeros((1, 1), jnp.int32)
        )
        x = nn.LayerNorm(c.layer_norm_eps, dtype=self.dtype, name="layer_norm")(word + (place + kind))
        return nn.Dropout(c.dropout)(x, deterministic=deterministic)


class BertLayer(nn.Module):
    config: BertConfig
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Float[Array, "b l d"], mask: Bool[Array, "b 1 1 l"], deterministic: bool) -> Float[Array, "b l d"]:
        c = self.config
        split = (*x.shape[:2], c.heads, c.width // c.heads)
        query, key, value = (
            _Dense(c.width, c.initializer_range, self.dtype, name=name)(x).reshape(split) for name in ("query", "key", "value")
        )
        mixed = jax.nn.dot_product_attention(query, key, value, mask=mask).reshape(x.shape)
        mixed = _Dense(c.width, c.initializer_range, self.dtype, name="attention_output")(mixed)
        mixed = nn.Dropout(c.dropout)(mixed, deterministic=deterministic)
        x = nn.LayerNorm(c.layer_norm_eps, dtype=self.dtype, name="attention_norm")(x + mixed)
        inner = nn.gelu(_Dense(c.feed_forward, c.initializer_range, self.dtype, name="intermediate")(x), approximate=False)
        inner = _Dense(c.width, c.initializer_range, self.dtype, name="output")(inner)
        inner = nn.Dropout(c.dropout)(inner, deterministic=deterministic)
        return nn.LayerNorm(c.layer_norm_eps, dtype=self.dtype, name="output_norm")(x + inner)


class Bert(nn.Module):
    """Token rows (0 = padding) → last hidden state.

    Args of the call:
      tokens: int [b, l].
      deterministic: False drops out; needs the `dropout` random stream.

    Returns:
      float [b, l, d]; rows at padding are meaningless.
    """

    config: BertConfig
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, tokens: Int[Array, "b l"], deterministic: bool = True) -> Float[Array, "b l d"]:
        mask = (tokens != 0)[:, None, None, :]
        x = BertEmbeddings(self.config, self.dtype, name="embeddings")(tokens, deterministic)
        for layer in range(self.config.layers):
            x = BertLayer(self.config, self.dtype, name=f"layer_{layer}")(x, mask, deterministic)
        return x


def pool(hidden: Float[Array, "b l d"], tokens: Int[Array, "b l"], how: str) -> Float[Array, "b d"]:
    """`mean` of the rows that are not padding (none: zeros), or the first row (`cls`); float32."""
    hidden = hidden.astype(jnp.float32)
    if how == "cls":
        return hidden[:, 0]
    mask = (tokens != 0).astype(jnp.float32)[:, :, None]
    return (hidden * mask).sum(1) / jnp.maximum(mask.sum(1), 1.0)
