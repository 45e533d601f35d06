"""Scorers that are a margin minus a distance."""

from math import pi
from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array

from fusionjax.models.scorers.algebra import complex_times, length, moduli, root
from fusionjax.models.scorers.base import Scorer, Shared
from fusionjax.models.scorers.initialise import Init, uniform
from fusionjax.names import SCORERS


class TransE(Scorer):
    """margin − ‖h + r − t‖ (Bordes et al. 2013), L1 or L2.

    Paper's start: uniform within ±6/√d, then unit length. (That entities return to unit length at each step is not done.)
    """

    name = "transe"
    facts = SCORERS["transe"]

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sizes.norm not in (1, 2):
            raise ValueError(f"transe: norm {self.sizes.norm}; must be 1 or 2")

    @property
    def compare(self) -> Literal["distance"] | None:
        return "distance" if self.sizes.norm == 2 else None

    def tail_query(self, head: Array, relation: Array, shared: Shared | None = None, key: Array | None = None) -> Array:
        return head + relation

    def inverse(self, relation: Array) -> Array:
        return -relation

    def compare_each(self, query: Array, entity: Array) -> Array:
        if self.sizes.norm == 1:
            return self.sizes.margin - jnp.abs(query - entity).sum(-1)
        return super().compare_each(query, entity)

    def _paper_entities(self, key: Array, n: int) -> Array:
        table = uniform(key, (n, self.sizes.dim), 6 / self.sizes.dim**0.5)
        return table / length(table)

    def _paper_relations(self, key: Array, n: int) -> Array:
        return self._paper_entities(key, n)


class RotatE(Scorer):
    """margin − Σ |h e^{iθ} − t|, the sum over complex numbers (Sun et al. 2019).

    A relation is the d / 2 angles θ in radians. Paper's start: entities uniform within ±(margin + 2) / (d / 2); angles are
    uniform within ±π whatever the initialiser, for a table of small angles would start as a table of identities.
    """

    name = "rotate"
    facts = SCORERS["rotate"]

    @property
    def relation_width(self) -> int:
        return self.sizes.dim // 2

    @property
    def compare(self) -> Literal["distance"] | None:
        return None

    def score(self, head: Array, relation: Array, tail: Array, shared: Shared | None = None) -> Array:
        hr, hi = jnp.split(head, 2, -1)
        tr, ti = jnp.split(tail, 2, -1)
        cos, sin = jnp.cos(relation), jnp.sin(relation)
        real, imaginary = hr * cos - hi * sin - tr, hr * sin + hi * cos - ti
        return self.sizes.margin - root(real * real + imaginary * imaginary).sum(-1)

    def factors(self, head: Array, relation: Array, tail: Array) -> tuple[Array, Array, Array]:
        return moduli(head, 2), jnp.ones_like(relation), moduli(tail, 2)

    def _paper_entities(self, key: Array, n: int) -> Array:
        return uniform(key, (n, self.sizes.dim), (self.sizes.margin + 2) / (self.sizes.dim / 2))

    def init_relations(self, key: Array, n: int, how: Init) -> Array:
        return uniform(key, (n, self.relation_width), pi)


class RotatEL2(RotatE):
    """margin − ‖h e^{iθ} − t‖₂: RotatE with the length of the whole difference, as PyKEEN has it.

    Turning keeps lengths, so that one against all is a matrix product, which RotatE's own sum of moduli is not.
    """

    name = "rotate_l2"
    facts = SCORERS["rotate_l2"]

    @property
    def compare(self) -> Literal["distance"]:
        return "distance"

    def score(self, head: Array, relation: Array, tail: Array, shared: Shared | None = None) -> Array:
        return self.compare_each(self.tail_query(head, relation), tail)

    def tail_query(self, head: Array, relation: Array, shared: Shared | None = None, key: Array | None = None) -> Array:
        return complex_times(head, jnp.concatenate([jnp.cos(relation), jnp.sin(relation)], -1))

    def inverse(self, relation: Array) -> Array:
        return -relation


class PairRE(Scorer):
    """margin − ‖h/‖h‖ ∘ r₁ − t/‖t‖ ∘ r₂‖₁ (Chao et al. 2021); a relation is r₁, then r₂.

    Paper's start: both tables uniform within ±(margin + 2) / d.
    """

    name = "pairre"
    facts = SCORERS["pairre"]

    @property
    def relation_width(self) -> int:
        return 2 * self.sizes.dim

    @property
    def compare(self) -> None:
        return None

    def score(self, head: Array, relation: Array, tail: Array, shared: Shared | None = None) -> Array:
        r1, r2 = jnp.split(relation, 2, -1)
        return self.sizes.margin - jnp.abs(head / length(head) * r1 - tail / length(tail) * r2).sum(-1)

    def _paper_entities(self, key: Array, n: int) -> Array:
        return uniform(key, (n, self.entity_width), (self.sizes.margin + 2) / self.sizes.dim)

    def _paper_relations(self, key: Array, n: int) -> Array:
        return uniform(key, (n, self.relation_width), (self.sizes.margin + 2) / self.sizes.dim)
