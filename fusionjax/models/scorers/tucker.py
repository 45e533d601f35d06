"""TuckER."""

import jax
import jax.numpy as jnp
from jaxtyping import Array

from fusionjax.models.scorers.base import Shared
from fusionjax.models.scorers.layers import dropout
from fusionjax.models.scorers.matrices import Matrices
from fusionjax.names import SCORERS


class TuckER(Matrices):
    """W ×₁ r ×₂ h ×₃ t (Balažević et al. 2019): RESCAL whose matrices are mixed from the slices of one core W [k, d, d].

    The score is linear in all three, so heads can be asked for like tails; the authors' batch normalisation before and after
    the product, which would end that, is left out. Their three dropouts are there. Paper's start: Xavier normal tables, the
    core uniform within ±1.
    """

    name = "tucker"
    facts = SCORERS["tucker"]

    @property
    def relation_width(self) -> int:
        return self.sizes.relation_dim or self.sizes.dim

    @property
    def shared_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"core": (self.relation_width, self.sizes.dim, self.sizes.dim)}

    def init_shared(self, key: Array) -> dict[str, Array]:
        return {"core": jax.random.uniform(key, self.shared_shapes["core"], minval=-1.0, maxval=1.0)}

    def relation_matrices(self, relation: Array, shared: Shared | None = None, key: Array | None = None) -> Array:
        core = self._needed(shared)["core"]
        # Flat, so that the core's gradient is a plain product, in the core's own layout: a CPU updates it six times as fast.
        matrices = (relation @ core.reshape(core.shape[0], -1)).reshape(*relation.shape[:-1], *core.shape[1:])
        return dropout(matrices, self.sizes.dropout.feature_map, key)

    def _times(self, x: Array, relation: Array, shared: Shared | None, key: Array | None, back: bool) -> Array:
        if key is not None and self.sizes.dropout.feature_map:
            return super()._times(x, relation, shared, key, back)
        core = self._needed(shared)["core"]
        # As many products as by way of the matrices, but nothing larger than [b, k, d].
        return jnp.einsum("...k,kij,...j->...i" if back else "...k,kij,...i->...j", relation, core, x)
