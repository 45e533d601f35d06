"""Alignment: a product's text vector and its entity vector find each other among the batch."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from fusionjax import losses
from fusionjax.config import schema
from fusionjax.data.inputs import Inputs
from fusionjax.errors import UserError
from fusionjax.objectives.base import Entry, Objective
from fusionjax.objectives.sampling import Shuffle
from fusionjax.objectives.towers import Towers


class Alignment(Objective):
    """Products that have both a text and a learnt entity row.

    A batch is `product`: int32 [b].
    """

    name = "alignment"

    def __init__(self, inputs: Inputs, config: schema.Run) -> None:
        self.products = np.flatnonzero(inputs.has_text & inputs.has_entity).astype(np.int32)
        if not len(self.products):
            raise UserError("objectives.alignment: no product has both a text and an edge or event to learn its entity from")
        self.shuffle = Shuffle(len(self.products), config.objectives.alignment.batch_size, config.seed, self.name)

    def batch(self, index: int) -> Entry:
        return {"product": self.products[self.shuffle.rows(index)]}

    @staticmethod
    def live_products(batch: Entry) -> dict[int, np.ndarray]:
        return {1: batch["product"]}

    @staticmethod
    def loss(towers: Towers, batch: dict[str, Array]) -> Float[Array, ""]:
        """InfoNCE in both directions, with a learned temperature."""
        rows = batch["product"]
        text, entity = towers.apply("text_side", towers.bank[rows]), towers.apply("entity_side", towers.entities(rows))
        same = rows[:, None] == rows[None, :]
        return losses.info_nce(text, entity, towers.apply("scale", "alignment"), same, jnp.ones(rows.shape, bool))
