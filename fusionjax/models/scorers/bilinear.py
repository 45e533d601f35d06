"""Scorers linear in head and in tail: an inner product of the tail with a query, and of the head with another."""

from math import pi

import jax
import jax.numpy as jnp
from jaxtyping import Array

from fusionjax.models.scorers.algebra import (
    complex_conjugate,
    complex_times,
    hamilton,
    moduli,
    quaternion_conjugate,
    unit_quaternions,
)
from fusionjax.models.scorers.base import Scorer, Shared
from fusionjax.models.scorers.initialise import uniform
from fusionjax.names import SCORERS


class DistMult(Scorer):
    """Σ h r t (Yang et al. 2015); cannot tell a relation from its inverse."""

    name = "distmult"
    facts = SCORERS["distmult"]

    def tail_query(self, head: Array, relation: Array, shared: Shared | None = None, key: Array | None = None) -> Array:
        return head * relation

    def inverse(self, relation: Array) -> Array:
        return relation


class ComplEx(Scorer):
    """Re⟨h, r, conj(t)⟩ (Trouillon et al. 2016); the first half of d is the real part, the second the imaginary one.

    Paper's start: normal with standard deviation 1e-3, that of Lacroix et al. (2018).
    """

    name = "complex"
    facts = SCORERS["complex"]

    def tail_query(self, head: Array, relation: Array, shared: Shared | None = None, key: Array | None = None) -> Array:
        return complex_times(head, relation)

    def inverse(self, relation: Array) -> Array:
        return complex_conjugate(relation)

    def factors(self, head: Array, relation: Array, tail: Array) -> tuple[Array, Array, Array]:
        return moduli(head, 2), moduli(relation, 2), moduli(tail, 2)

    def _paper_entities(self, key: Array, n: int) -> Array:
        return 1e-3 * jax.random.normal(key, (n, self.entity_width))

    def _paper_relations(self, key: Array, n: int) -> Array:
        return 1e-3 * jax.random.normal(key, (n, self.relation_width))


class SimplE(Scorer):
    """½ (Σ h₁ r₁ t₂ + Σ t₁ r₂ h₂) (Kazemi and Poole 2018).

    An entity's first half stands for it as head, the second as tail; a relation's second half is its inverse. Paper's start:
    uniform within ±6/√(d / 2), as in the authors' code.
    """

    name = "simple"
    facts = SCORERS["simple"]

    def tail_query(self, head: Array, relation: Array, shared: Shared | None = None, key: Array | None = None) -> Array:
        h1, h2 = jnp.split(head, 2, -1)
        r1, r2 = jnp.split(relation, 2, -1)
        return jnp.concatenate([r2 * h2, h1 * r1], -1) / 2

    def inverse(self, relation: Array) -> Array:
        return jnp.concatenate(jnp.split(relation, 2, -1)[::-1], -1)

    def _paper_entities(self, key: Array, n: int) -> Array:
        return uniform(key, (n, self.sizes.dim), 6 / (self.sizes.dim / 2) ** 0.5)

    def _paper_relations(self, key: Array, n: int) -> Array:
        return self._paper_entities(key, n)


class QuatE(Scorer):
    """⟨h ⊗ r/|r|, t⟩, the Hamilton product with unit quaternions (Zhang et al. 2019); d is four parts, the real one first.

    Paper's start: m (cos θ + u sin θ), m uniform within ±1/√(d / 2), θ within ±π, u a random direction without real part.
    """

    name = "quate"
    facts = SCORERS["quate"]

    def tail_query(self, head: Array, relation: Array, shared: Shared | None = None, key: Array | None = None) -> Array:
        return hamilton(head, unit_quaternions(relation))

    def inverse(self, relation: Array) -> Array:
        return quaternion_conjugate(relation)

    def factors(self, head: Array, relation: Array, tail: Array) -> tuple[Array, Array, Array]:
        return moduli(head, 4), moduli(relation, 4), moduli(tail, 4)

    def _paper_entities(self, key: Array, n: int) -> Array:
        of_size, of_angle, of_axis = jax.random.split(key, 3)
        quarter = self.sizes.dim // 4
        size = uniform(of_size, (n, quarter), (2 * quarter) ** -0.5)
        angle = uniform(of_angle, (n, quarter), pi)
        axis = jax.random.uniform(of_axis, (3, n, quarter))  # within 0 … 1, as the paper has it
        axis = axis / jnp.linalg.norm(axis, axis=0, keepdims=True)
        return jnp.concatenate([size * jnp.cos(angle), *(size * jnp.sin(angle) * part for part in axis)], -1)

    def _paper_relations(self, key: Array, n: int) -> Array:
        return self._paper_entities(key, n)
