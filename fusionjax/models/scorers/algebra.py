"""Complex numbers and quaternions as real vectors, and roots with a gradient at 0.

A complex vector of d / 2 numbers is its real parts, then its imaginary ones; a quaternion vector of d / 4 numbers its four
parts, the real one first.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float


def root(square: Float[Array, "..."]) -> Float[Array, "..."]:
    """√ of at least 1e-12, so that the gradient exists at 0 and for what rounding made negative (there it is 0)."""
    return jnp.sqrt(jnp.maximum(square, 1e-12))


def length(x: Float[Array, "... d"]) -> Float[Array, "... 1"]:
    """L2 norm of the last axis, which stays."""
    return root((x * x).sum(-1, keepdims=True))


def moduli(x: Float[Array, "... d"], parts: int) -> Float[Array, "... d/parts"]:
    """Absolute values of complex numbers (2 parts) or quaternions (4)."""
    each = x.reshape(*x.shape[:-1], parts, x.shape[-1] // parts)
    return root((each * each).sum(-2))


def complex_times(a: Float[Array, "... d"], b: Float[Array, "... d"]) -> Float[Array, "... d"]:
    ar, ai = jnp.split(a, 2, -1)
    br, bi = jnp.split(b, 2, -1)
    return jnp.concatenate([ar * br - ai * bi, ar * bi + ai * br], -1)


def complex_conjugate(a: Float[Array, "... d"]) -> Float[Array, "... d"]:
    real, imaginary = jnp.split(a, 2, -1)
    return jnp.concatenate([real, -imaginary], -1)


def hamilton(left: Float[Array, "... d"], right: Float[Array, "... d"]) -> Float[Array, "... d"]:
    """The product left ⊗ right of quaternions; it does not commute."""
    a, b, c, d = jnp.split(left, 4, -1)
    e, f, g, h = jnp.split(right, 4, -1)
    parts = (
        a * e - b * f - c * g - d * h,
        a * f + b * e + c * h - d * g,
        a * g - b * h + c * e + d * f,
        a * h + b * g - c * f + d * e,
    )
    return jnp.concatenate(parts, -1)


def quaternion_conjugate(quaternions: Float[Array, "... d"]) -> Float[Array, "... d"]:
    a, b, c, d = jnp.split(quaternions, 4, -1)
    return jnp.concatenate([a, -b, -c, -d], -1)


def unit_quaternions(quaternions: Float[Array, "... d"]) -> Float[Array, "... d"]:
    """Each divided by its modulus."""
    size = moduli(quaternions, 4)
    return quaternions / jnp.concatenate([size] * 4, -1)
