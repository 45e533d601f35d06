"""Shops on disk: one TFDS builder a data set, one builder config a table, one example a row (of graphs: a block of rows).

How to add a data set: subclass `ShopBuilder` in `fusionjax/data/sources/`, name it in `sources/__init__.py`:

    class MyShop(ShopBuilder):
        name = "my_shop"                       # what `data.name` says
        SUMMARY = "One line for `fusionjax data list`."
        VERSION = tfds.core.Version("1.0.0")   # raise it when `read` gives other data for the same `key`

        @classmethod
        def key(cls, config: schema.Data) -> dict[str, Any]:
            # JSON: all that determines the raw data: parameters, names and SHA-256 of source files, column mapping

        def read(self, dl_manager: tfds.download.DownloadManager) -> Shop:
            # the raw shop, from `self.source` (a `schema.Data`); parts the source lacks are None, rows in source order
            # what people should know of it (rows dropped, oddities kept) goes into `self.notes`, a line each

The rest is here: `build_tables` reads the source once and writes every part it has; `shop_from_tables` reads it back, equal
column by column (same `Shop.fingerprint()`). Files are array_record, in source order, in one TFDS split `rows` (the shop's own
train/valid/test is the column `split`). Dtypes are those of `COLUMNS`, and `Events.kind` is int8. Nothing imports TensorFlow.
Raw data only: cleaning and splitting come after, in `prepare.py`, so that other choices there need no rebuild.
"""

import abc
import contextlib
import dataclasses
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_pb2

from fusionjax.config import schema
from fusionjax.data import blocks
from fusionjax.data.shop import PARTS, Events, Judgments, Products, Queries, Shop, Triples, Users, text_column
from fusionjax.errors import UserError
from fusionjax.files import write_json

ROWS = "rows"
"""The only TFDS split."""

MANIFEST = "shop.json"
"""Written last: names the parts a folder holds. A folder without it is not a shop."""

TEXT = np.object_
COLUMNS: dict[str, dict[str, type[np.generic]]] = {
    "products": {"id": TEXT, "title": TEXT, "description": TEXT, "brand": TEXT, "category": TEXT, "price": np.float32},
    "triples": {"head": TEXT, "relation": TEXT, "tail": TEXT, "split": np.int8},
    "users": {"id": TEXT},
    "events": {
        "user": np.int32,
        "product": np.int32,
        "kind": TEXT,
        "time": np.int64,
        "query": np.int32,
        "split": np.int8,
    },
    "queries": {"id": TEXT, "text": TEXT},
    "judgments": {"query": np.int32, "product": np.int32, "grade": np.float32, "split": np.int8},
}
"""Columns of tables stored by row. References are row numbers, except that events bear the kind's name. Tables about graphs are
in `blocks.COLUMNS`; triples stand here as they were stored before, names in each row, because such caches are still read."""

EXTRA = {"products": "attributes", "users": "profile"}
"""Tables with further text columns: stored as one sequence a row, their names in the TFDS metadata (`columns`)."""

_UNIQUE = {("products", "id"), ("products", "title"), ("products", "description"), ("users", "id")}
_UNIQUE |= {("queries", "id"), ("queries", "text")}
_BLOCK = 4096


class PartAbsent(Exception):
    """The source has no such table; `build_tables` skips it."""


class ShopBuilder(tfds.core.GeneratorBasedBuilder):
    """Base of all data sets; see the module docstring for what a subclass defines.

    Args:
      config: the table, one of `PARTS`.
      source: the `data` section of the run config; default: all defaults.
      memo: shared by the builders of one shop, so that its source is read once and not once a table.
      data_dir: where the tables lie.
    """

    VERSION = tfds.core.Version("1.0.0")
    SUMMARY: ClassVar[str] = ""
    BUILDER_CONFIGS: ClassVar = [
        tfds.core.BuilderConfig(name=part, description=f"The shop's {part}, one example a row.") for part in PARTS
    ]

    def __init__(
        self,
        *,
        source: schema.Data | None = None,
        memo: dict[str, Shop] | None = None,
        data_dir: Any = None,
        config: Any = None,
        version: Any = None,
    ) -> None:
        self.source = source if source is not None else schema.Data(name=self.name)
        self._memo: dict[str, Shop] = {} if memo is None else memo
        self.notes: list[str] = []  # kept in the manifest and said at each `prepare`, from the cache too
        super().__init__(data_dir=data_dir, config=config, version=version)
        state: dict[str, Any] = self._original_state
        state["source"] = self.source

    @classmethod
    @abc.abstractmethod
    def key(cls, config: schema.Data) -> dict[str, Any]:
        """All that determines the raw data, as JSON. Raises `UserError` where `config` names nothing readable."""

    @abc.abstractmethod
    def read(self, dl_manager: tfds.download.DownloadManager) -> Shop:
        """Reads the raw shop. Raises `UserError` for what a person can mend (file, line, expected)."""

    @property
    def part(self) -> str:
        """The table this builder writes."""
        return str(self.builder_config_name)

    def _info(self) -> tfds.core.DatasetInfo:
        features: dict[str, Any]
        if self.part in blocks.COLUMNS:
            features = blocks.features(self.part)
        else:
            features = {
                name: tfds.features.Text() if dtype is TEXT else tfds.features.Scalar(dtype)
                for name, dtype in COLUMNS[self.part].items()
            }
        if self.part in EXTRA:
            features[EXTRA[self.part]] = tfds.features.Sequence(tfds.features.Text())
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.SUMMARY,
            features=tfds.features.FeaturesDict(features),
            metadata=tfds.core.MetadataDict(),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        if "shop" not in self._memo:
            self._memo["shop"] = self.read(dl_manager)
        table = getattr(self._memo["shop"], self.part)
        if table is None:
            raise PartAbsent(self.part)
        if not len(table):
            raise UserError(f"data set '{self.name}': table {self.part} is empty; leave it out")
        metadata: Any = self.info.metadata
        metadata.update(_names(table))
        return {ROWS: self._generate_examples(table)}

    def _generate_examples(self, table: Any) -> Iterator[tuple[int, dict[str, Any]]]:
        if self.part in blocks.COLUMNS:
            yield from blocks.examples(self.part, table)
            return
        columns = _stored_columns(self.part, table)
        names = list(columns)
        for row, values in enumerate(zip(*columns.values(), strict=True)):
            yield row, dict(zip(names, values, strict=True))


# ------------------------------------------------------------------------------------------------------ table → rows
def _names(table: Any) -> dict[str, Any]:
    """What a table holds besides its rows: names of further columns, vocabularies."""
    if isinstance(table, Products):
        return {"columns": list(table.attributes)}
    if isinstance(table, Users):
        return {"columns": list(table.profile)}
    if isinstance(table, Events):
        return {"kinds": list(table.kinds)}
    return {}


def _stored_columns(part: str, table: Any) -> dict[str, list[Any]]:
    """The columns of `COLUMNS` as lists of Python values, checked so that they come back exactly as they went."""
    arrays = dict(table.columns())
    if isinstance(table, Events):
        arrays["kind"] = text_column(table.kinds)[table.kind]
    for name, dtype in COLUMNS[part].items():
        if arrays[name].dtype != dtype:
            raise ValueError(f"{part}.{name} has dtype {arrays[name].dtype}, expected {np.dtype(dtype)}")
    columns = {name: arrays[name].tolist() for name in COLUMNS[part]}
    if part in EXTRA:
        extra = [column.tolist() for column in getattr(table, EXTRA[part]).values()]
        columns[EXTRA[part]] = list(zip(*extra, strict=True)) if extra else [()] * len(table)
    return columns


# ------------------------------------------------------------------------------------------------------ rows → table
def _read_columns(part: str, builder: Any) -> dict[str, Any]:
    """Reads a table back in blocks. Texts that repeat (brand, category, kinds, …) share one `str` object each.

    Decodes the example protos here: TFDS's own NumPy decoder takes four times as long.
    """
    data = builder.as_data_source(ROWS, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES)
    metadata: Any = builder.info.metadata
    specs, extra = COLUMNS[part], EXTRA.get(part)
    texts: dict[str, list[str]] = {name: [] for name, dtype in specs.items() if dtype is TEXT}
    numbers = {name: np.empty(len(data), dtype) for name, dtype in specs.items() if dtype is not TEXT}
    extras: list[list[str]] = [[] for _ in metadata["columns"]] if extra else []
    shared = _Texts()
    parse = tf_example_pb2.Example.FromString  # pyright: ignore[reportAttributeAccessIssue]
    for start in range(0, len(data), _BLOCK):
        records = data.__getitems__(list(range(start, min(start + _BLOCK, len(data)))))
        rows = [parse(record).features.feature for record in records]
        for name, column in texts.items():
            values = [row[name].bytes_list.value[0] for row in rows]
            column.extend(
                [value.decode() for value in values] if (part, name) in _UNIQUE else [shared[value] for value in values]
            )
        for name, column in numbers.items():
            if np.issubdtype(column.dtype, np.floating):
                column[start : start + len(rows)] = [row[name].float_list.value[0] for row in rows]
            else:
                column[start : start + len(rows)] = [row[name].int64_list.value[0] for row in rows]
        if extras:
            values = [row[extra].bytes_list.value for row in rows]
            for place, column in enumerate(extras):
                column.extend([shared[value[place]] for value in values])
    return {**{name: text_column(column) for name, column in texts.items()}, **numbers, "extras": extras}


class _Texts(dict[bytes, str]):
    """UTF-8 → `str`, the same object for the same text."""

    def __missing__(self, value: bytes) -> str:
        text = self[value] = value.decode()
        return text


_PLAIN: dict[str, type] = {"products": Products, "users": Users, "queries": Queries, "judgments": Judgments}
"""Tables that are their columns, nothing else."""


def _table(part: str, builder: tfds.core.DatasetBuilder) -> Any:
    metadata: Any = builder.info.metadata
    stored: Any = builder.info.features
    if part in blocks.COLUMNS and blocks.COLUMNS[part].keys() <= set(stored):
        return blocks.read(part, builder, ROWS)
    columns = _read_columns(part, builder)
    extras = columns.pop("extras")
    if part in EXTRA:
        columns[EXTRA[part]] = dict(zip(metadata["columns"], map(text_column, extras), strict=True))
    if part in _PLAIN:
        return _PLAIN[part](**columns)
    if part == "events":
        kinds = tuple(metadata["kinds"])
        code = {kind: row for row, kind in enumerate(kinds)}
        columns["kind"] = np.fromiter((code[kind] for kind in columns["kind"]), np.int8, len(columns["kind"]))
        return Events(kinds=kinds, **columns)
    return _triples(columns, metadata)


def _triples(columns: dict[str, Any], metadata: Any) -> Triples:
    """Triples stored by row, as they were before blocks; entities are named where their order is not that of the rows."""
    table = Triples.of(columns["head"], columns["relation"], columns["tail"], columns["split"])
    relations, entities = text_column(metadata["relations"]), metadata["entities"]
    changes: dict[str, Any] = {"relations": relations, "relation": _renumber(table.relation, table.relations, relations)}
    if entities is not None:
        entities = text_column(entities)
        changes.update(
            entities=entities,
            head=_renumber(table.head, table.entities, entities),
            tail=_renumber(table.tail, table.entities, entities),
        )
    return dataclasses.replace(table, **changes)


def _renumber(codes: np.ndarray, names: np.ndarray, new_names: np.ndarray) -> np.ndarray:
    """The same references, counted in another vocabulary."""
    place = {name: row for row, name in enumerate(new_names)}
    return np.fromiter((place[name] for name in names), np.int32, len(names))[codes]


# ------------------------------------------------------------------------------------------------------- whole shops
def build_tables(
    builder_class: type[ShopBuilder],
    source: schema.Data,
    data_dir: Path,
    *,
    download_dir: Path,
    extra: dict[str, Any] | None = None,
    log: Callable[[str], Any] = print,
) -> Shop:
    """Reads the source once, writes every table it has under `data_dir`, last the manifest. Returns the raw shop.

    `data_dir` must be empty or absent; `extra` is kept in the manifest. `log` hears of each table. Raises what `read` raises.
    """
    memo: dict[str, Shop] = {}
    written: list[str] = []
    notes: list[str] = []
    download = tfds.download.DownloadConfig(force_checksums_validation=True, try_download_gcs=False)
    for part in PARTS:
        builder = builder_class(config=part, source=source, memo=memo, data_dir=data_dir)
        try:
            # TFDS prints, and draws three nested bars a table; `log` says what is worth knowing.
            tfds.display_progress_bar(False)
            with contextlib.redirect_stdout(io.StringIO()):
                builder.download_and_prepare(file_format="array_record", download_dir=download_dir, download_config=download)
        except PartAbsent:
            continue
        finally:
            notes += builder.notes
        written.append(part)
        log(f"  {part}: {len(getattr(memo['shop'], part)):,} rows")
    shop = memo.get("shop")
    if shop is None or not written:
        raise UserError(f"data set '{builder_class.name}' holds no table")
    manifest = {
        "name": shop.name,
        "builder": builder_class.name,
        "version": str(builder_class.VERSION),
        "parts": shop.counts(),
        "fingerprint": shop.fingerprint(),
        **({"notes": notes} if notes else {}),
        **(extra or {}),
    }
    write_json(data_dir / MANIFEST, manifest)
    return shop


def read_manifest(data_dir: Path) -> dict[str, Any] | None:
    """What `build_tables` wrote last, or `None` where it has not finished."""
    path = data_dir / MANIFEST
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def shop_from_tables(data_dir: Path) -> Shop:
    """Reads back the shop that `build_tables` wrote in `data_dir`, equal to it in every column.

    Raises `UserError` if the folder is unfinished, or its content no longer has the fingerprint it was written with.
    """
    manifest = read_manifest(data_dir)
    if manifest is None:
        raise UserError(f"{data_dir} holds no prepared shop ({MANIFEST} is missing)")
    parts: dict[str, Any] = {}
    for part in manifest["parts"]:
        folder = data_dir / manifest["builder"] / part / manifest["version"]
        parts[part] = _table(part, tfds.builder_from_directory(folder))
    shop = Shop(name=manifest["name"], **parts)
    if shop.fingerprint() != manifest["fingerprint"]:
        raise UserError(f"prepared shop in {data_dir} has changed since it was written: delete the folder and prepare it again")
    return shop
