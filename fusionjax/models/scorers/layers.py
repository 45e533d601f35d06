"""The two layers inside scorers: dropout and layer normalisation."""

import jax
from jaxtyping import Array, Float


def dropout(
    x: Float[Array, "..."], rate: float, key: Array | None, shape: tuple[int, ...] | None = None
) -> Float[Array, "..."]:
    """Zeroes numbers with chance `rate` and enlarges the others to keep the mean; the array itself without a key.

    Args:
      shape: of the mask, where it broadcasts against `x` (whole feature maps); none: that of `x`.
    """
    if key is None or not rate:
        return x
    keep = jax.random.bernoulli(key, 1 - rate, x.shape if shape is None else shape)
    return x * (keep / (1 - rate))


def layer_norm(x: Float[Array, "..."], axes: tuple[int, ...]) -> Float[Array, "..."]:
    """Mean 0 and variance 1 over `axes` (Ba et al. 2016), without scale and offset."""
    centred = x - x.mean(axes, keepdims=True)
    return centred * jax.lax.rsqrt((centred * centred).mean(axes, keepdims=True) + 1e-5)
