"""Amazon Beauty 5-core: time-ordered purchases, titles, and a product graph over the same ASINs.

The purchases are the "Beauty" of S3-Rec, P5 and TIGER; the graph is PGPR's (Xian et al. 2019); both derive from the Amazon
product data of 2014 (McAuley et al. 2015), which carries no licence grant: for research runs. The files are named, pinned to a
commit and checksummed in `amazon_beauty_checksums.tsv`; they are downloaded, or read from `data.source_dir`.

How the files join: `sequential_data.txt` holds `user item item …`, ids from 1, oldest first, and `datamaps.json` maps the ids
to ASINs; `item_id_to_int.json` and `products_lookup.csv` lead from ASIN to title; line n of each `*_p_*.txt.gz` belongs to
product n of `product.txt.gz`, its numbers are line numbers in the tail's vocabulary.

What becomes what: products in the order of their ids, brand as a column; categories and product-product relations as given
triples (the categories of a product are not reliably a path); each position of a user's sequence is one purchase at time 0, 1,
2, … . Splits are left open: `data.split` decides. There are no queries, prices or descriptions.
"""

import csv
import gzip
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds

from fusionjax.config import schema
from fusionjax.data.shop import UNASSIGNED, Events, Products, Shop, Triples, Users, text_column
from fusionjax.data.sources import pinned
from fusionjax.data.tables import ShopBuilder
from fusionjax.errors import UserError

FILES = pinned.pins("amazon_beauty")

BASE_FILES = (
    "sequential_data.txt",
    "datamaps.json",
    "products_lookup.csv",
    "item_id_to_int.json",
    "product.txt.gz",
    "brand.txt.gz",
    "brand_p_b.txt.gz",
    "category.txt.gz",
    "category_p_c.txt.gz",
)


def relation_file(relation: str) -> str:
    return f"{relation}_p_p.txt.gz"


def needed_files(relations: Iterable[str]) -> tuple[str, ...]:
    """The files a shop with these product-product relations is read from."""
    relations = list(relations)
    return (*BASE_FILES, *(["related_product.txt.gz"] if relations else []), *map(relation_file, relations))


class AmazonBeautyBuilder(ShopBuilder):
    name = "amazon_beauty"
    SUMMARY = "Amazon Beauty 5-core: 22,363 users' purchases of 12,101 products with titles, brands and a product graph."
    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar = {"1.0.0": "First."}
    url_infos = pinned.url_infos("amazon_beauty")

    @classmethod
    def key(cls, config: schema.Data) -> dict[str, Any]:
        relations = config.amazon_beauty.relations
        return {"relations": list(relations), "files": {name: FILES[name].sha256 for name in needed_files(relations)}}

    def read(self, dl_manager: tfds.download.DownloadManager) -> Shop:
        relations = self.source.amazon_beauty.relations
        files = {name: FILES[name] for name in needed_files(relations)}
        paths = pinned.locate(self.name, files, self.source, dl_manager)
        return parse(paths, relations)


# -------------------------------------------------------------------------------------------------------------- parse
def parse(paths: Mapping[str, Path], relations: Iterable[str]) -> Shop:
    """Reads the files (name → path; all of `needed_files(relations)`) into a raw shop.

    Raises `UserError` with file and line where a file does not fit the others.
    """
    maps = json.loads(paths["datamaps.json"].read_text(encoding="utf-8"))
    asins = _by_number(maps["id2item"], paths["datamaps.json"], "id2item")
    users = _by_number(maps["id2user"], paths["datamaps.json"], "id2user")
    row = {asin: number for number, asin in enumerate(asins)}
    titles = _titles(paths)
    graph_asins = _lines(paths["product.txt.gz"])
    if sorted(graph_asins) != sorted(asins):
        raise UserError(f"{paths['product.txt.gz']}: its products are not those of {paths['datamaps.json']}")

    brands = _lines(paths["brand.txt.gz"])
    brand = dict.fromkeys(asins, "")
    for line, tails in _adjacency(paths["brand_p_b.txt.gz"], len(graph_asins), len(brands)):
        if len(tails) > 1:
            raise UserError(f"{paths['brand_p_b.txt.gz']}, line {line + 1}: {len(tails)} brands, expected at most one")
        if tails:
            brand[graph_asins[line]] = brands[tails[0]]

    heads: list[str] = []
    names: list[str] = []
    tails_: list[str] = []

    def add(relation: str, file: str, vocabulary: list[str], *, only_products: bool) -> None:
        for line, tails in _adjacency(paths[file], len(graph_asins), len(vocabulary)):
            for tail in tails:
                if not only_products or vocabulary[tail] in row:
                    heads.append(graph_asins[line])
                    names.append(relation)
                    tails_.append(vocabulary[tail])

    categories = [f"category:{name}" for name in _lines(paths["category.txt.gz"])]
    add("category", "category_p_c.txt.gz", categories, only_products=False)
    relations = list(relations)
    if relations:
        related = _lines(paths["related_product.txt.gz"])
        for relation in relations:
            add(relation, relation_file(relation), related, only_products=True)

    return Shop(
        name="amazon_beauty",
        products=Products.of(asins, title=[titles[asin] for asin in asins], brand=[brand[asin] for asin in asins]),
        triples=Triples.of(heads, names, tails_),
        users=Users(text_column(users)),
        events=_events(paths["sequential_data.txt"], len(users), len(asins)),
    )


def _by_number(names: Mapping[str, str], path: Path, key: str) -> list[str]:
    """Names by ids 1 … n."""
    try:
        return [names[str(number)] for number in range(1, len(names) + 1)]
    except KeyError as error:
        raise UserError(f"{path}: {key} has no id {error.args[0]}, expected 1 to {len(names)}") from None


def _titles(paths: Mapping[str, Path]) -> dict[str, str]:
    """ASIN → title, '' if blank."""
    numbers = json.loads(paths["item_id_to_int.json"].read_text(encoding="utf-8"))
    path = paths["products_lookup.csv"]
    by_number: dict[int, str] = {}
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        for record in reader:
            try:
                by_number[int(record["global_product_id"])] = (record["name"] or "").strip()
            except (KeyError, ValueError):
                raise UserError(
                    f"{path}, line {reader.line_num}: expected columns global_product_id (a number), name"
                ) from None
    return {asin: by_number.get(number, "") for asin, number in numbers.items()}


def _lines(path: Path) -> list[str]:
    with gzip.open(path, "rt", encoding="utf-8", newline="\n") as file:
        return [line.rstrip("\r\n") for line in file]


def _adjacency(path: Path, n_heads: int, n_tails: int) -> Iterable[tuple[int, list[int]]]:
    """(line, tails) of each head; checks both ranges."""
    lines = _lines(path)
    if len(lines) != n_heads:
        raise UserError(f"{path}: {len(lines)} lines, expected {n_heads} (one a product)")
    for number, line in enumerate(lines):
        try:
            tails = [int(word) for word in line.split()]
        except ValueError:
            raise UserError(f"{path}, line {number + 1}: expected numbers, found {line[:40]!r}") from None
        if any(not 0 <= tail < n_tails for tail in tails):
            raise UserError(f"{path}, line {number + 1}: a number is outside 0 to {n_tails - 1}")
        yield number, tails


def _events(path: Path, n_users: int, n_products: int) -> Events:
    """One purchase a position, user by user."""
    users: list[int] = []
    products: list[int] = []
    times: list[int] = []
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            try:
                user, *items = (int(word) - 1 for word in line.split())
            except ValueError:
                raise UserError(f"{path}, line {number}: expected `user item item …`, found {line[:40]!r}") from None
            if not 0 <= user < n_users or any(not 0 <= item < n_products for item in items):
                raise UserError(f"{path}, line {number}: a user is outside 1 to {n_users} or an item outside 1 to {n_products}")
            users.extend([user] * len(items))
            products.extend(items)
            times.extend(range(len(items)))
    return Events(
        kinds=("purchase",),
        user=np.asarray(users, np.int32),
        product=np.asarray(products, np.int32),
        kind=np.zeros(len(users), np.int8),
        time=np.asarray(times, np.int64),
        query=np.full(len(users), -1, np.int32),
        split=np.full(len(users), UNASSIGNED, np.int8),
    )
