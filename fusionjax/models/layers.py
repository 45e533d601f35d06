"""What every encoder family is made of: dense layers (with or without LoRA), layer norm, attention, activations."""

import dataclasses
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "gelu": lambda x: nn.gelu(x, approximate=False),
    "gelu_new": lambda x: nn.gelu(x, approximate=True),
    "gelu_pytorch_tanh": lambda x: nn.gelu(x, approximate=True),
    "relu": nn.relu,
    "silu": nn.silu,
}
"""By the names checkpoints use."""


@dataclasses.dataclass(frozen=True)
class Lora:
    """Low-rank adaptation (Hu et al. 2022): W x + (alpha / rank) B A x, with B starting at zero."""

    rank: int
    alpha: float
    targets: tuple[str, ...] = ("query", "value")
    """Names of the dense layers that get one; ModernBERT's `qkv` is one layer."""


class _Kernel(nn.Module):
    """Only the parameters of a dense layer, so that several can be multiplied at once."""

    features: int
    std: float
    bias: bool

    @nn.compact
    def __call__(self, width: int) -> tuple[Array, Array | None]:
        kernel = self.param("kernel", nn.initializers.normal(self.std), (width, self.features))
        return kernel, self.param("bias", nn.initializers.zeros, (self.features,)) if self.bias else None


class Dense(nn.Module):
    """A dense layer with BERT's initialiser. Parameters: `dense/kernel` [in, out], `dense/bias`, `lora_a`, `lora_b`."""

    features: int
    std: float
    dtype: jnp.dtype
    bias: bool = True
    lora: Lora | None = None

    @nn.compact
    def parts(self, x: Float[Array, "... i"]) -> tuple[Array, Array | None, Array | None]:
        """(kernel, bias, what LoRA adds for `x`), in the computation's dtype."""
        kernel, bias = _Kernel(self.features, self.std, self.bias, name="dense")(x.shape[-1])
        added = None
        if self.lora is not None and self.name in self.lora.targets:
            down = self.param("lora_a", nn.initializers.normal(0.02), (x.shape[-1], self.lora.rank)).astype(self.dtype)
            up = self.param("lora_b", nn.initializers.zeros, (self.lora.rank, self.features)).astype(self.dtype)
            added = (x @ down) @ (up * (self.lora.alpha / self.lora.rank))
        return kernel.astype(self.dtype), None if bias is None else bias.astype(self.dtype), added

    def __call__(self, x: Float[Array, "... i"]) -> Float[Array, "... o"]:
        x = x.astype(self.dtype)
        kernel, bias, added = self.parts(x)
        y = x @ kernel
        if bias is not None:
            y = y + bias.reshape((1,) * (y.ndim - 1) + (-1,))
        return y if added is None else y + added


def together(layers: list[Dense], x: Float[Array, "... i"]) -> list[Float[Array, "... o"]]:
    """Several dense layers of one input as one matrix product: three thin products keep the cores less busy than a wide one."""
    x = x.astype(layers[0].dtype)
    parts = [layer.parts(x) for layer in layers]
    y = x @ jnp.concatenate([kernel for kernel, _, _ in parts], axis=1)
    if all(bias is not None for _, bias, _ in parts):
        bias = jnp.concatenate([bias for _, bias, _ in parts if bias is not None])
        y = y + bias.reshape((1,) * (y.ndim - 1) + (-1,))
    ends = [sum(layer.features for layer in layers[: place + 1]) for place in range(len(layers) - 1)]
    out = jnp.split(y, ends, axis=-1)
    return [part if added is None else part + added for part, (_, _, added) in zip(out, parts, strict=True)]


class Norm(nn.Module):
    """Layer norm, computed in float32 whatever comes in, given back in `dtype`."""

    eps: float
    dtype: jnp.dtype
    bias: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "... d"]) -> Float[Array, "... d"]:
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        shift = self.param("bias", nn.initializers.zeros, (x.shape[-1],)) if self.bias else None
        x = x.astype(jnp.float32)
        x = x - x.mean(-1, keepdims=True)
        lead = (1,) * (x.ndim - 1) + (-1,)
        # Not E[x²] − E[x]²: pretrained encoders have a few huge features, and float32 loses the difference.
        y = x * (jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + self.eps) * scale.reshape(lead))
        return (y if shift is None else y + shift.reshape(lead)).astype(self.dtype)


def attend(
    query: Float[Array, "b l h k"],
    key: Float[Array, "b l h k"],
    value: Float[Array, "b l h k"],
    mask: Bool[Array, "b 1 l l"],
    length: Int[Array, "b"] | None,
) -> Float[Array, "b l h k"]:
    """Softmax attention (softmax in float32), fused by cuDNN where it can be: a GPU, half precision, whole rows.

    Args:
      mask: what each token may read.
      length: tokens of each row, where `mask` says nothing but that (they stand first); else None.
    """
    backend = jax.default_backend()
    if backend == "cpu":
        return _attend_on_cpu(query, key, value, mask)
    if length is not None and query.dtype in (jnp.bfloat16, jnp.float16) and backend == "gpu":
        length = jnp.maximum(length, 1)
        return jax.nn.dot_product_attention(
            query, key, value, query_seq_lengths=length, key_value_seq_lengths=length, implementation="cudnn"
        )
    return jax.nn.dot_product_attention(query, key, value, mask=mask)


def _attend_on_cpu(query: Array, key: Array, value: Array, mask: Array) -> Array:
    """`jax.nn.dot_product_attention` for cores: passes over the l × l scores are what costs there.

    One fewer: the softmax is divided out of the answer [l, k] instead of the scores [l, l].
    """
    dtype = query.dtype
    query, key, value = (x.transpose(0, 2, 1, 3) for x in (query * query.shape[-1] ** -0.5, key, value))
    scores = jnp.einsum("bhqk,bhlk->bhql", query, key, preferred_element_type=jnp.float32)
    scores = jnp.where(mask, scores, jnp.finfo(jnp.float32).min / 2)
    scores = jnp.exp(scores - jax.lax.stop_gradient(scores.max(-1, keepdims=True)))
    mixed = jnp.einsum("bhql,bhlk->bhqk", scores.astype(dtype), value, preferred_element_type=jnp.float32)
    return (mixed / scores.sum(-1)[..., None]).astype(dtype).transpose(0, 2, 1, 3)
