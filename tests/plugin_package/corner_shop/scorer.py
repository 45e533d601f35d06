"""A scorer: DistMult whose heads are shifted by one, so that a relation is not its own inverse."""

import jax.numpy as jnp
from jaxtyping import Array

from fusionjax.models.scorers import Scorer, Shared
from fusionjax.names import ScorerFacts


class ShiftMult(Scorer):
    """Σ h[i − 1] r[i] t[i]."""

    name = "shift_mult"
    facts = ScorerFacts("ShiftMult", "of the corner shop", kind="bilinear", dura=True)

    def tail_query(self, head: Array, relation: Array, shared: Shared | None = None, key: Array | None = None) -> Array:
        return jnp.roll(head, 1, -1) * relation

    def head_query(self, relation: Array, tail: Array, shared: Shared | None = None, key: Array | None = None) -> Array:
        return jnp.roll(relation * tail, -1, -1)
