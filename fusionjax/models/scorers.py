"""Graph-embedding scorers: one function each over (head, relation, tail) that broadcasts; higher is more plausible.

`head`, `tail` are float [..., d], `relation` float [..., k] with k = `relation_width(name, d)`; leading axes broadcast, so
`h[:, None], r[:, None], entities[None]` scores every tail. A new scorer is one function and one line in `SCORERS`.

Where the algebra allows it, a score is an inner product or a distance between the tail and a query made of head and relation
(and between the head and one made of relation and tail): `QUERIES`. Then `score_tails` and `score_heads` are matrix products
that hold nothing larger than [b, n]; else they broadcast.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

Score = Callable[[Array, Array, Array], Array]
Query = Callable[[Array, Array], Array]


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
    return margin - _root((difference * difference).sum(-1))


def distmult(head: Float[Array, "... d"], relation: Float[Array, "... d"], tail: Float[Array, "... d"]) -> Float[Array, "..."]:
    """Σ h r t (Yang et al. 2015); cannot tell a relation from its inverse."""
    return (head * relation * tail).sum(-1)


def complex_(head: Float[Array, "... d"], relation: Float[Array, "... d"], tail: Float[Array, "... d"]) -> Float[Array, "..."]:
    """Re⟨h, r, conj(t)⟩ (Trouillon et al. 2016); the first half of d is the real part, the second the imaginary one."""
    hr, hi = jnp.split(head, 2, -1)
    rr, ri = jnp.split(relation, 2, -1)
    tr, ti = jnp.split(tail, 2, -1)
    return ((hr * rr - hi * ri) * tr + (hr * ri + hi * rr) * ti).sum(-1)


def simple(head: Float[Array, "... d"], relation: Float[Array, "... d"], tail: Float[Array, "... d"]) -> Float[Array, "..."]:
    """½ (Σ h₁ r₁ t₂ + Σ t₁ r₂ h₂) (SimplE, Kazemi and Poole 2018).

    An entity's first half stands for it as head, the second as tail; a relation's second half is its inverse.
    """
    h1, h2 = jnp.split(head, 2, -1)
    r1, r2 = jnp.split(relation, 2, -1)
    t1, t2 = jnp.split(tail, 2, -1)
    return (h1 * r1 * t2 + t1 * r2 * h2).sum(-1) / 2


def rotate(
    head: Float[Array, "... d"], relation: Float[Array, "... k"], tail: Float[Array, "... d"], *, margin: float = 0.0
) -> Float[Array, "..."]:
    """margin − Σ |h e^{iθ} − t|, the sum over complex numbers (RotatE, Sun et al. 2019).

    Args:
      relation: the k = d / 2 angles θ in radians.
      head, tail: real parts, then imaginary ones.
    """
    hr, hi = jnp.split(head, 2, -1)
    tr, ti = jnp.split(tail, 2, -1)
    cos, sin = jnp.cos(relation), jnp.sin(relation)
    real, imaginary = hr * cos - hi * sin - tr, hr * sin + hi * cos - ti
    return margin - _root(real * real + imaginary * imaginary).sum(-1)


def rescal(head: Float[Array, "... d"], relation: Float[Array, "... k"], tail: Float[Array, "... d"]) -> Float[Array, "..."]:
    """hᵀ R t (Nickel et al. 2011); a relation is the d × d matrix R, row after row (k = d²)."""
    return jnp.einsum("...i,...ij,...j->...", head, _square(relation), tail)


def quate(head: Float[Array, "... d"], relation: Float[Array, "... d"], tail: Float[Array, "... d"]) -> Float[Array, "..."]:
    """⟨h ⊗ r/|r|, t⟩: the Hamilton product with unit quaternions (QuatE, Zhang et al. 2019). d: four parts, real one first."""
    return (_hamilton(head, _unit(relation)) * tail).sum(-1)


def pairre(
    head: Float[Array, "... d"], relation: Float[Array, "... k"], tail: Float[Array, "... d"], *, margin: float = 0.0
) -> Float[Array, "..."]:
    """margin − ‖h/‖h‖ ∘ r₁ − t/‖t‖ ∘ r₂‖₁ (PairRE, Chao et al. 2021); a relation is r₁, then r₂ (k = 2 d)."""
    r1, r2 = jnp.split(relation, 2, -1)
    return margin - jnp.abs(_on_sphere(head) * r1 - _on_sphere(tail) * r2).sum(-1)


SCORERS: dict[str, Callable[..., Array]] = {
    "transe": transe,
    "distmult": distmult,
    "complex": complex_,
    "simple": simple,
    "rotate": rotate,
    "rescal": rescal,
    "quate": quate,
    "pairre": pairre,
}
_DISTANCES = ("transe", "rotate", "pairre")
"""Scorers that take a margin."""


def scorer(name: str, *, norm: int = 2, margin: float = 0.0) -> Score:
    """The scorer of that name; `norm` is TransE's, `margin` that of all distances.

    Raises:
      ValueError: no such scorer.
    """
    if name not in SCORERS:
        raise ValueError(f"no scorer '{name}'; valid: {', '.join(SCORERS)}")
    settings: dict[str, float] = {"margin": margin} if name in _DISTANCES else {}
    return partial(SCORERS[name], **settings, **({"norm": norm} if name == "transe" else {}))


def relation_width(name: str, d: int) -> int:
    """Numbers a relation has beside entities of d numbers.

    Raises:
      ValueError: d cannot be split as the scorer wants it.
    """
    parts = {"complex": 2, "simple": 2, "rotate": 2, "quate": 4}.get(name, 1)
    if d % parts:
        raise ValueError(f"{name}: entities of {d} numbers; must be a multiple of {parts}")
    return {"rotate": d // 2, "rescal": d * d, "pairre": 2 * d}.get(name, d)


# ------------------------------------------------------------------------------------------------------ one against all
class Queries(NamedTuple):
    """A score as comparison of an entity with a query."""

    of_tails: Query
    """(head, relation) → what tails are compared with, [..., d]."""
    of_heads: Query
    """(relation, tail) → what heads are compared with."""
    compare: Literal["product", "distance"] = "product"


def _complex_times(a: Array, b: Array) -> Array:
    ar, ai = jnp.split(a, 2, -1)
    br, bi = jnp.split(b, 2, -1)
    return jnp.concatenate([ar * br - ai * bi, ar * bi + ai * br], -1)


def _complex_conjugate(a: Array) -> Array:
    real, imaginary = jnp.split(a, 2, -1)
    return jnp.concatenate([real, -imaginary], -1)


def _simple_tails(head: Array, relation: Array) -> Array:
    h1, h2 = jnp.split(head, 2, -1)
    r1, r2 = jnp.split(relation, 2, -1)
    return jnp.concatenate([r2 * h2, h1 * r1], -1) / 2


def _simple_heads(relation: Array, tail: Array) -> Array:
    r1, r2 = jnp.split(relation, 2, -1)
    t1, t2 = jnp.split(tail, 2, -1)
    return jnp.concatenate([r1 * t2, t1 * r2], -1) / 2


QUERIES: dict[str, Queries] = {
    "transe": Queries(lambda head, relation: head + relation, lambda relation, tail: tail - relation, "distance"),
    "distmult": Queries(lambda head, relation: head * relation, lambda relation, tail: relation * tail),
    "complex": Queries(_complex_times, lambda relation, tail: _complex_times(_complex_conjugate(relation), tail)),
    "simple": Queries(_simple_tails, _simple_heads),
    "rescal": Queries(
        lambda head, relation: jnp.einsum("...i,...ij->...j", head, _square(relation)),
        lambda relation, tail: jnp.einsum("...ij,...j->...i", _square(relation), tail),
    ),
    "quate": Queries(
        lambda head, relation: _hamilton(head, _unit(relation)),
        lambda relation, tail: _hamilton(tail, _quaternion_conjugate(_unit(relation))),
    ),
}
"""Scorers that are matrix products; TransE with L2 only."""


def score_tails(
    name: str,
    head: Float[Array, "b d"],
    relation: Float[Array, "b k"],
    entities: Float[Array, "n d"],
    *,
    norm: int = 2,
    margin: float = 0.0,
) -> Float[Array, "b n"]:
    """Scores of all entities as tails; equal to the scorer's up to rounding (L2: relative to the vectors' lengths)."""
    if _is_product(name, norm):
        return _compared(QUERIES[name].of_tails(head, relation), entities, QUERIES[name].compare, margin)
    return scorer(name, norm=norm, margin=margin)(head[:, None], relation[:, None], entities[None])


def score_heads(
    name: str,
    relation: Float[Array, "b k"],
    tail: Float[Array, "b d"],
    entities: Float[Array, "n d"],
    *,
    norm: int = 2,
    margin: float = 0.0,
) -> Float[Array, "b n"]:
    """The same of all entities as heads."""
    if _is_product(name, norm):
        return _compared(QUERIES[name].of_heads(relation, tail), entities, QUERIES[name].compare, margin)
    return scorer(name, norm=norm, margin=margin)(entities[None], relation[:, None], tail[:, None])


def _is_product(name: str, norm: int) -> bool:
    return name in QUERIES and not (name == "transe" and norm == 1)


def _compared(query: Array, entities: Array, compare: str, margin: float) -> Array:
    products = query @ entities.T
    if compare == "product":
        return products
    squares = (query * query).sum(-1)[:, None] + (entities * entities).sum(-1)[None]
    return margin - _root(squares - 2 * products)


# ------------------------------------------------------------------------------------------------------------- algebra
def _root(square: Array) -> Array:
    """With a gradient at 0, and of what rounding made negative."""
    return jnp.sqrt(jnp.maximum(square, 1e-12))


def _square(relation: Array) -> Array:
    d = round(relation.shape[-1] ** 0.5)
    return relation.reshape(*relation.shape[:-1], d, d)


def _on_sphere(x: Array) -> Array:
    return x / _root((x * x).sum(-1, keepdims=True))


def _unit(quaternions: Array) -> Array:
    parts = jnp.split(quaternions, 4, -1)
    length = _root(sum((part * part for part in parts), jnp.zeros_like(parts[0])))
    return jnp.concatenate([part / length for part in parts], -1)


def _quaternion_conjugate(quaternions: Array) -> Array:
    a, b, c, d = jnp.split(quaternions, 4, -1)
    return jnp.concatenate([a, -b, -c, -d], -1)


def _hamilton(left: Array, right: Array) -> Array:
    a, b, c, d = jnp.split(left, 4, -1)
    e, f, g, h = jnp.split(right, 4, -1)
    parts = (
        a * e - b * f - c * g - d * h,
        a * f + b * e + c * h - d * g,
        a * g - b * h + c * e + d * f,
        a * h + b * g - c * f + d * e,
    )
    return jnp.concatenate(parts, -1)
