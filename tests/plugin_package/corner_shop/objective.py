"""An objective: products of one brand find each other among the batch."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from fusionjax import losses
from fusionjax.config import schema
from fusionjax.data.inputs import Inputs
from fusionjax.errors import UserError
from fusionjax.objectives import Objective
from fusionjax.objectives.sampling import Shuffle
from fusionjax.objectives.towers import Towers


class SameBrandSection(schema.Objective):
    """What stands under `objectives.plugins.same_brand`; weight, batch_size, every, … are there already."""

    reads_products = True

    temperature: schema.Share = 0.1


class SameBrand(Objective):
    """A batch is `product`, `brand`: int32 [b]; a product's positives are the others of its brand."""

    name = "same_brand"
    section = SameBrandSection

    def __init__(self, inputs: Inputs, config: schema.Run) -> None:
        brands, self.brand = np.unique(inputs.shop.products.brand.astype(str), return_inverse=True)
        self.products = np.flatnonzero(brands[self.brand] != "").astype(np.int32)
        if not len(self.products):
            raise UserError("objectives.plugins.same_brand: no product has a brand")
        size = config.objectives.plugins[self.name].batch_size
        self.shuffle = Shuffle(len(self.products), size, config.seed, self.name)

    def batch(self, index: int) -> dict[str, np.ndarray]:
        product = self.products[self.shuffle.rows(index)]
        return {"product": product, "brand": self.brand[product].astype(np.int32)}

    @staticmethod
    def loss(towers: Towers, batch: dict[str, Array]) -> Float[Array, ""]:
        """Cross-entropy of the products of one brand among the batch (Khosla et al. 2020)."""
        unit = losses.normalise(towers.products(batch["product"]))
        others = ~jnp.eye(len(unit), dtype=bool)
        settings: Any = towers.config.objectives.plugins["same_brand"]
        scores = unit @ unit.T / settings.temperature
        log_share = scores - jnp.log(jnp.where(others, jnp.exp(scores), 0.0).sum(1, keepdims=True))
        same = others & (batch["brand"][:, None] == batch["brand"][None])
        return -(jnp.where(same, log_share, 0.0).sum(1) / jnp.maximum(same.sum(1), 1)).mean()
