"""The demo shop: synthetic, bilingual, of any size. See README.md in this folder for what it is and is not."""

from typing import Any

import tensorflow_datasets as tfds

from fusionjax.config import schema
from fusionjax.data.shop import Shop
from fusionjax.data.sources.demo_shop.generate import GroundTruth, generate
from fusionjax.data.tables import ShopBuilder

__all__ = ["DemoShopBuilder", "GroundTruth", "generate"]


class DemoShopBuilder(ShopBuilder):
    name = "demo_shop"
    SUMMARY = "Synthetic bilingual (zh/en) shop of any size: products, graph, users, events, queries, judgments."
    VERSION = tfds.core.Version("1.0.0")

    @classmethod
    def key(cls, config: schema.Data) -> dict[str, Any]:
        return config.demo_shop.model_dump(mode="json")

    def read(self, dl_manager: tfds.download.DownloadManager) -> Shop:
        del dl_manager  # nothing is downloaded
        return generate(self.source.demo_shop)[0]
