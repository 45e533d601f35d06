"""Graph-embedding scorers: one function each over (head, relation, tail) that broadcasts; higher is more plausible.

`head`, `relation`, `tail` are float [..., d]; leading axes broadcast, so `h[:, None], r[:, None], entities[None]` scores every
tail. A new scorer is one function and one line in `scorer`.
"""

from collections.abc import Callable
from functools import partial

import jax.numpy as jnp
from jaxtyping import Array, Float

Scorer = Callable[[Array, Array, Array], Array]


def transe(
    head: Float[Array, "... d"],
    relation: Float[Array, "... d"],
    tail: Float[Array, "... d"],
    *,
    norm: int = 2,
    margin: float = 0.0,
) -> Float[Array, "..."]:
    """margin − ‖h + r − t‖ (Bordes et al. 2013), L1 or L2.

    The root of the L2 norm is taken of at least 1e-12, where its gradient still exists (h + r = t).
    """
    difference = head + relation - tail
    if norm == 1:
        return margin - jnp.abs(difference).sum(-1)
    return margin - jnp.sqrt(jnp.maximum((difference * difference).sum(-1), 1e-12))


def complex_(head: Float[Array, "... d"], relation: Float[Array, "... d"], tail: Float[Array, "... d"]) -> Float[Array, "..."]:
    """Re⟨h, r, conj(t)⟩ (Trouillon et al. 2016); the first half of d is the real part, the second the imaginary one."""
    hr, hi = jnp.split(head, 2, -1)
    rr, ri = jnp.split(relation, 2, -1)
    tr, ti = jnp.split(tail, 2, -1)
    return ((hr * rr - hi * ri) * tr + (hr * ri + hi * rr) * ti).sum(-1)


def scorer(name: str, *, norm: int = 2, margin: float = 0.0) -> Scorer:
    """The scorer of that name.

    Raises:
      ValueError: no such scorer.
    """
    scorers: dict[str, Scorer] = {"transe": partial(transe, norm=norm, margin=margin), "complex": complex_}
    if name not in scorers:
        raise ValueError(f"no scorer '{name}'; valid: {', '.join(scorers)}")
    return scorers[name]
