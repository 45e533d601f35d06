"""One face for all encoder families: build, pool (padded or packed rows), and the masked-words head."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from fusionjax.models.bert import Bert, BertConfig, pool
from fusionjax.models.layers import ACTIVATIONS, Dense, Norm
from fusionjax.models.modernbert import ModernBert, ModernBertConfig

EncoderConfig = BertConfig | ModernBertConfig


def build(config: EncoderConfig, dtype: jnp.dtype = jnp.float32, name: str | None = None) -> Bert | ModernBert:
    """The module of a config. Its call:

    Args:
      tokens: int [b, l]; −1 = padding, behind the tokens.
      deterministic: False drops out; needs the `dropout` random stream.
      text, position: int [b, l], for packed rows: number of the text a token belongs to (−1: none), its place in that text.

    Returns:
      float [b, l, d]; rows at padding are meaningless.
    """
    return ModernBert(config, dtype, name=name) if isinstance(config, ModernBertConfig) else Bert(config, dtype, name=name)


def pool_packed(
    hidden: Float[Array, "b l d"], text: Int[Array, "b l"], position: Int[Array, "b l"], n: int, how: str
) -> Float[Array, "n d"]:
    """`pool` for packed rows: one vector for each of the texts 0 … n − 1 (one that no token belongs to: zeros).

    Only `mean` and `cls`.
    """
    flat = hidden.astype(jnp.float32).reshape(-1, hidden.shape[-1])
    place = jnp.where(text < 0, n, text).reshape(-1)
    if how == "cls":
        place = jnp.where(position.reshape(-1) == 0, place, n)
    elif how != "mean":
        raise ValueError(f"pooling '{how}' of packed rows is not built: mean or cls")
    total = jax.ops.segment_sum(flat, place, n + 1)[:n]
    if how == "cls":
        return total
    count = jax.ops.segment_sum(jnp.ones(place.shape, jnp.float32), place, n + 1)[:n]
    return total / jnp.maximum(count, 1.0)[:, None]


class MaskedWords(nn.Module):
    """Hidden rows → logits over the vocabulary: dense, activation, norm, product with the word embeddings (tied), bias."""

    config: EncoderConfig
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, hidden: Float[Array, "... d"], words: Float[Array, "v d"]) -> Float[Array, "... v"]:
        c = self.config
        modern = isinstance(c, ModernBertConfig)
        x = Dense(c.width, c.initializer_range, self.dtype, not modern or c.head_bias, name="transform")(hidden)
        x = ACTIVATIONS[c.head_activation or c.activation](x)
        x = Norm(c.layer_norm_eps, self.dtype, not modern or c.norm_bias, name="norm")(x)
        logits = (x @ words.astype(self.dtype).T).astype(jnp.float32)
        if not modern or c.decoder_bias:
            bias = self.param("bias", nn.initializers.zeros, (c.vocab_size,))
            logits = logits + bias.reshape((1,) * (logits.ndim - 1) + (-1,))
        return logits


def words_of(params: dict) -> Array:
    """The word embeddings [v, d] of an encoder's parameters."""
    tree = params.get("embeddings", params)
    return tree["word_embeddings"]["embedding"]


__all__ = ["EncoderConfig", "MaskedWords", "build", "pool", "pool_packed", "words_of"]
