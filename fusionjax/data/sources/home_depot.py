"""Home Depot product search: what people typed, and how well products answer it by the judgment of human raters.

The training file of Kaggle's "Home Depot Product Search Relevance" (2016), under the rules of that competition (academic use;
redistribution restricted): for research runs. The file is pinned to a commit and checksummed in `home_depot_checksums.tsv`; it
is downloaded, or read from `data.source_dir`.

What becomes what, one row of `train.csv` a judgment:

- Products: `product_uid` and `product_title`, in order of first appearance. 15 products bear two titles: the first counts.
  The 54,667 products have only 53,474 different titles: those that share one no reader of titles can tell apart.
- Queries: the distinct texts of `search_term`, exactly as typed, in order of first appearance. Two pairs differ in white space
  only, which `data.clean` then makes equal.
- Grades: **relevance − 1**. Relevance is the mean of the raters' 1 (irrelevant), 2 (partially relevant) and 3 (perfect match);
  grades here start at 0, because NDCG takes them as gains. So grade ≥ 1, what search metrics and training take as relevant
  unless told otherwise, is relevance ≥ 2, "partially relevant or better": 84 % of the judgments.
- A product judged twice for a query has the mean of both grades; in the pinned file none is.

Some 6 products a query are judged; metrics take all others as irrelevant, as they must: figures are low in absolute terms, but
models can be compared by them. Splits are left open: `data.split` decides, by query. There are no users, events or graph.

Characters: the file is neither UTF-8 nor Latin-1. Its UTF-8 was once read as Windows-1252 and then saved as Mac Roman, with `_`
for what Mac Roman lacks; `CHARACTERS` undoes that, so that `30°` is what it was.
"""

import csv
import io
import re
import statistics
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds

from fusionjax.config import schema
from fusionjax.data.shop import UNASSIGNED, Judgments, Products, Queries, Shop, text_column
from fusionjax.data.sources import pinned
from fusionjax.data.tables import ShopBuilder
from fusionjax.errors import UserError

FILES = pinned.pins("home_depot")

FILE = "train.csv.zip"
MEMBER = "train.csv"
COLUMNS = ("product_uid", "product_title", "search_term", "relevance")
"""Those that are read; the file has `id` too."""

CHARACTERS = {
    b"\xe5\xa1": "°",
    b"\xe8_": "°",  # was U+02DA, a ring above; always a degree sign by its context, and NFKC would tear it apart
    b"\xe5\xca": "\u00a0",
    b"\xe5_": "²",
    b"\x89\xdb\x90": "\u2010",  # hyphen
    b"\x89\xdb\xd2": "\u2013",  # en dash
    b"\x89\xdb\xf7": "\u2018",  # quotation marks
    b"\x89\xdb\xaa": "\u2019",
    b"\x89\xdb\xdc": "\u200b",  # zero-width space
    b"\x89\xe3\xa2": "™",
    b"\x95\xc8\xc0": "\ufeff",
}
"""What each run of bytes beyond ASCII in the file was."""

_RUNS = re.compile(b"|".join(map(re.escape, CHARACTERS)))


class HomeDepotBuilder(ShopBuilder):
    name = "home_depot"
    SUMMARY = "Home Depot product search: 74,067 human judgments of 54,667 products' titles on 11,795 queries."
    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar = {"1.0.0": "First."}
    url_infos = pinned.url_infos("home_depot")

    @classmethod
    def key(cls, config: schema.Data) -> dict[str, Any]:
        return {"files": {FILE: FILES[FILE].sha256}}

    def read(self, dl_manager: tfds.download.DownloadManager) -> Shop:
        return parse(pinned.locate(self.name, FILES, self.source, dl_manager)[FILE])


# -------------------------------------------------------------------------------------------------------------- parse
def parse(path: Path) -> Shop:
    """Reads the zip into a raw shop. Raises `UserError` with file and line where it is not what the module docstring says."""
    titles: dict[str, str] = {}
    queries: dict[str, int] = {}
    relevance: dict[tuple[str, str], list[float]] = {}
    for product, title, query, value in _rows(path):
        titles.setdefault(product, title)
        queries.setdefault(query, len(queries))
        relevance.setdefault((query, product), []).append(value)
    product_row = {product: row for row, product in enumerate(titles)}
    width = len(str(len(queries) - 1))
    return Shop(
        name="home_depot",
        products=Products.of(titles, title=titles.values()),
        queries=Queries(id=text_column(f"q{row:0{width}d}" for row in queries.values()), text=text_column(queries)),
        judgments=Judgments(
            query=np.fromiter((queries[query] for query, _ in relevance), np.int32, len(relevance)),
            product=np.fromiter((product_row[product] for _, product in relevance), np.int32, len(relevance)),
            grade=np.fromiter((statistics.fmean(values) - 1 for values in relevance.values()), np.float32, len(relevance)),
            split=np.full(len(relevance), UNASSIGNED, np.int8),
        ),
    )


def _rows(path: Path) -> Iterator[tuple[str, str, str, float]]:
    """Product, title, query and relevance of each row, checked."""
    where = f"{path}: {MEMBER}"
    reader = csv.DictReader(io.StringIO(_text(path), newline=""), strict=True)
    empty = True
    try:
        missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
        if missing:
            found = ", ".join(reader.fieldnames or ()) or "nothing"
            raise UserError(f"{where}, line 1: no column {', '.join(missing)} (found: {found})")
        for record in reader:
            line = f"{where}, line {reader.line_num}"
            if None in record or None in record.values():
                raise UserError(f"{line}: expected {len(reader.fieldnames or ())} fields")
            product, title, query, given = (record[name] for name in COLUMNS)
            for name, text in zip(COLUMNS, (product, title, query), strict=False):
                if not text.strip():
                    raise UserError(f"{line}: {name} is empty")
            try:
                value = float(given)
            except ValueError:
                value = float("nan")
            if not 1 <= value <= 3:
                raise UserError(f"{line}: relevance {given[:40]!r}, expected a number from 1 to 3")
            empty = False
            yield product, title, query, value
    except csv.Error as error:
        raise UserError(f"{where}, line {reader.reader.line_num}: {error}") from None
    if empty:
        raise UserError(f"{where}: no judgments")


def _text(path: Path) -> str:
    """The text of `train.csv`, its characters mended."""
    try:
        with zipfile.ZipFile(path) as archive:
            data = archive.read(MEMBER)
    except KeyError:
        raise UserError(f"{path}: holds no {MEMBER}") from None
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise UserError(f"{path}: not a readable zip file ({error})") from None
    data = _RUNS.sub(lambda run: CHARACTERS[run[0]].encode(), data)
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        strange = data[error.start : error.start + 4].hex(" ")
        raise UserError(f"{path}: {MEMBER}, line {line}: unknown character, bytes {strange}") from None
