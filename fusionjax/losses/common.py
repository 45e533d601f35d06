"""What the losses share."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

NEGATIVE = -1e9
"""A logit that is masked out of a softmax."""


def normalise(x: Float[Array, "... p"]) -> Float[Array, "... p"]:
    """Unit length along the last axis; the zero vector stays zero (and keeps a finite gradient)."""
    return x * jax.lax.rsqrt(jnp.maximum((x * x).sum(-1, keepdims=True), 1e-12))


def mean_of_valid(losses: Float[Array, "..."], valid: Bool[Array, "..."]) -> Float[Array, ""]:
    """Mean of `losses` where `valid`; 0 if nowhere."""
    weight = valid.astype(losses.dtype)
    return (losses * weight).sum() / jnp.maximum(weight.sum(), 1.0)
