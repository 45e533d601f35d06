"""ModernBERT (Warner et al. 2024): pre-norm blocks, rotary positions, gated feed-forward, alternately local attention.

Padding is never read and its rows mean nothing, so an input with and without padding gives the same (the reference's unpadded
semantics); packed rows (`text`, `position`) compute no padding at all.
"""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from fusionjax.models.bert import readable
from fusionjax.models.layers import ACTIVATIONS, Dense, Lora, Norm, attend


@dataclasses.dataclass(frozen=True)
class ModernBertConfig:
    vocab_size: int
    width: int
    layers: int
    heads: int
    feed_forward: int
    local: tuple[bool, ...]
    """For each layer, whether its attention is local."""
    window: int = 64
    """Local attention reads tokens at most this far away, to either side."""
    max_positions: int = 8192
    theta: float = 160_000.0
    """Base of the rotary frequencies, whole layers …"""
    local_theta: float = 10_000.0
    """… and local ones."""
    dropout: float = 0.0
    """After embeddings, attention and feed-forward."""
    layer_norm_eps: float = 1e-5
    norm_bias: bool = False
    attention_bias: bool = False
    mlp_bias: bool = False
    head_bias: bool = False
    """Of the masked-words head's dense layer."""
    decoder_bias: bool = True
    activation: str = "gelu"
    head_activation: str = "gelu"
    initializer_range: float = 0.02
    remat: bool = False
    lora: Lora | None = None

    @property
    def max_length(self) -> int:
        return self.max_positions


def rotate(x: Float[Array, "b l h k"], position: Int[Array, "b l"], theta: float) -> Float[Array, "b l h k"]:
    """Rotary position embedding (Su et al. 2021), halves paired as in GPT-NeoX, in float32."""
    half = x.shape[-1] // 2
    # On the host, each step rounded to float32 as the reference does: compiled, the last bit differs, and at position 8,000 the
    # last bit of a frequency is 5e-4 of an angle.
    exponent = np.arange(0, x.shape[-1], 2, dtype=np.float32) / np.float32(x.shape[-1])
    frequency = np.float32(1.0) / (theta ** exponent.astype(np.float64)).astype(np.float32)
    angle = position.astype(jnp.float32)[:, :, None, None] * frequency[None, None, None, :]
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    first, second = x[..., :half].astype(jnp.float32), x[..., half:].astype(jnp.float32)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1).astype(x.dtype)


class ModernBertLayer(nn.Module):
    config: ModernBertConfig
    dtype: jnp.dtype
    number: int

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b l d"],
        mask: Bool[Array, "b 1 l l"],
        length: Int[Array, "b"] | None,
        position: Int[Array, "b l"],
        deterministic: bool,
    ) -> Float[Array, "b l d"]:
        c = self.config
        local = c.local[self.number]
        theta = c.local_theta if local else c.theta

        def dense(name: str, features: int, bias: bool) -> Dense:
            return Dense(features, c.initializer_range, self.dtype, bias, c.lora, name=name)

        # The embeddings are normed already: the first block has no norm of its own.
        y = x if self.number == 0 else Norm(c.layer_norm_eps, self.dtype, c.norm_bias, name="attention_norm")(x)
        qkv = dense("qkv", 3 * c.width, c.attention_bias)(y).reshape(*x.shape[:2], 3, c.heads, c.width // c.heads)
        query, key = rotate(qkv[:, :, 0], position, theta), rotate(qkv[:, :, 1], position, theta)
        if local:
            near = jnp.abs(position[:, :, None] - position[:, None, :]) <= c.window
            mask, length = mask & near[:, None], None
        mixed = attend(query, key, qkv[:, :, 2], mask, length).reshape(x.shape)
        mixed = dense("attention_output", c.width, c.attention_bias)(mixed)
        x = x + nn.Dropout(c.dropout)(mixed, deterministic=deterministic)
        y = Norm(c.layer_norm_eps, self.dtype, c.norm_bias, name="output_norm")(x)
        inner, gate = jnp.split(dense("intermediate", 2 * c.feed_forward, c.mlp_bias)(y), 2, axis=-1)
        inner = nn.Dropout(c.dropout)(ACTIVATIONS[c.activation](inner) * gate, deterministic=deterministic)
        return x + dense("output", c.width, c.mlp_bias)(inner)


class ModernBert(nn.Module):
    """Token rows → last hidden state. The call's arguments are those of `encoder.encode_tokens`."""

    config: ModernBertConfig
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
        c = self.config
        mask, length = readable(tokens, text)
        if position is None:
            position = jnp.broadcast_to(jnp.arange(tokens.shape[1])[None], tokens.shape)
        init = nn.initializers.normal(c.initializer_range)
        embed = nn.Embed(c.vocab_size, c.width, embedding_init=init, dtype=self.dtype, name="word_embeddings")
        x = Norm(c.layer_norm_eps, self.dtype, c.norm_bias, name="embedding_norm")(embed(jnp.maximum(tokens, 0)))
        x = nn.Dropout(c.dropout)(x, deterministic=deterministic)
        layer = nn.remat(ModernBertLayer, static_argnums=(5,)) if c.remat else ModernBertLayer
        for number in range(c.layers):
            x = layer(c, self.dtype, number, name=f"layer_{number}")(x, mask, length, position, deterministic)
        return Norm(c.layer_norm_eps, self.dtype, c.norm_bias, name="final_norm")(x)
