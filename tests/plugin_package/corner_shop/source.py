"""A source: a made-up corner shop, whose customers stay with their brand."""

from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from fusionjax.config import schema
from fusionjax.data.shop import UNASSIGNED, Events, Products, Shop, Triples, Users, text_column
from fusionjax.data.tables import ShopBuilder
from fusionjax.errors import UserError

BRANDS = ("Acme", "Birch", "Clover", "Dove")


class CornerShopBuilder(ShopBuilder):
    name = "corner_shop"
    SUMMARY = "A made-up corner shop: products of four brands, and customers who stay with theirs."
    VERSION = tfds.core.Version("1.0.0")

    @classmethod
    def key(cls, config: schema.Data) -> dict[str, Any]:
        """Options under `data.plugins.corner_shop`: `products` and `users`."""
        given = {"products": 60, "users": 80, **config.plugins.get("corner_shop", {})}
        if set(given) != {"products", "users"} or not all(isinstance(n, int) and n >= 20 for n in given.values()):
            raise UserError(f"data.plugins.corner_shop: expected products and users, numbers from 20, got {given}")
        return given

    def read(self, dl_manager: tfds.download.DownloadManager) -> Shop:
        key, draw = self.key(self.source), np.random.default_rng(0)
        n, m, each = key["products"], key["users"], 12
        ids = [f"p{row}" for row in range(n)]
        brand = [BRANDS[row % len(BRANDS)] for row in range(n)]
        bought = draw.integers(0, n // len(BRANDS), (m, each)) * len(BRANDS) + draw.integers(0, len(BRANDS), (m, 1))
        return Shop(
            name=self.name,
            products=Products.of(
                ids, title=[f"{b} {i}" for b, i in zip(brand, ids, strict=True)], brand=brand, price=range(1, n + 1)
            ),
            triples=Triples.of(ids, ["made_near"] * n, [ids[(row + 4) % n] for row in range(n)]),
            users=Users(id=text_column(f"u{row}" for row in range(m))),
            events=Events(
                kinds=("purchase",),
                user=np.repeat(np.arange(m, dtype=np.int32), each),
                product=bought.reshape(-1).astype(np.int32),
                kind=np.zeros(m * each, np.int8),
                time=np.arange(m * each, dtype=np.int64),
                query=np.full(m * each, -1, np.int32),
                split=np.full(m * each, UNASSIGNED, np.int8),
            ),
        )
