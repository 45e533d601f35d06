"""The shop: every table a data source may bring, columnar, in NumPy.

A table is a frozen dataclass of equally long columns. Text columns are `object` arrays of `str` ('' = missing), references
to another table are `int32` row numbers, prices are `float32` (NaN = missing), splits are `int8` codes into `SPLITS`.
Every part of a `Shop` may be absent: a graph alone is a valid shop. Asking for an absent part is a `UserError`.

Data flows: source → `Shop` (raw) → `clean.clean` → `split.assign_splits` → `graph.build_graph` and the training streams.
"""

import dataclasses
import hashlib
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fusionjax.errors import UserError

SPLITS = ("train", "valid", "test")
TRAIN, VALID, TEST = 0, 1, 2
_LOG = logging.getLogger(__name__)
UNASSIGNED = -1
"""Split code of a row whose source fixes no split; `split.assign_splits` replaces it."""

PARTS = (
    *("products", "triples", "users", "events", "queries", "judgments"),
    *("entities", "relations", "negatives", "literals"),  # about the graph of `triples`; added later, so they come last
)
"""The tables, in the order in which later ones refer to earlier ones."""


def text_column(values: Any) -> np.ndarray:
    """Returns `values` as a one-dimensional `object` array of `str`."""
    values = list(values)
    column = np.empty(len(values), dtype=object)
    column[:] = values
    return column


@dataclasses.dataclass(frozen=True)
class _Table:
    """Equally long columns; subclasses name them."""

    def __post_init__(self) -> None:
        lengths = {name: len(column) for name, column in self.columns().items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"{type(self).__name__}: columns differ in length: {lengths}")

    def columns(self) -> dict[str, np.ndarray]:
        """Every column by name; extra columns (attributes, profile) as `attributes.NAME`."""
        found: dict[str, np.ndarray] = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, np.ndarray) and field.name not in self.vocabularies():
                found[field.name] = value
            elif isinstance(value, Mapping):
                found.update({f"{field.name}.{name}": column for name, column in value.items()})
        return found

    @classmethod
    def vocabularies(cls) -> tuple[str, ...]:
        """Fields that are name lists the columns index, not columns themselves."""
        return ()

    def __len__(self) -> int:
        return len(next(iter(self.columns().values())))

    def take(self, rows: np.ndarray) -> Any:
        """The same table with only `rows` (an index or boolean array), in that order."""
        changes: dict[str, Any] = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, np.ndarray) and field.name not in self.vocabularies():
                changes[field.name] = value[rows]
            elif isinstance(value, Mapping):
                changes[field.name] = {name: column[rows] for name, column in value.items()}
        return dataclasses.replace(self, **changes)


@dataclasses.dataclass(frozen=True)
class Products(_Table):
    """What the shop sells. `category` is a path written `A > B > C`; `attributes` holds every further column as text."""

    id: np.ndarray
    title: np.ndarray
    description: np.ndarray
    brand: np.ndarray
    category: np.ndarray
    price: np.ndarray
    attributes: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(cls, id: Any, **columns: Any) -> "Products":
        """Builds the table from ids and whichever columns exist; absent ones are empty (price: NaN)."""
        ids = text_column(id)
        blank = np.full(len(ids), "", dtype=object)
        attributes = {name: text_column(values) for name, values in (columns.pop("attributes", None) or {}).items()}
        price = columns.pop("price", None)
        texts = {
            name: text_column(columns.pop(name)) if columns.get(name) is not None else blank
            for name in ("title", "description", "brand", "category")
        }
        unknown = [name for name, values in columns.items() if values is not None]
        if unknown:
            raise ValueError(f"Products.of: unknown columns {unknown}")
        prices = np.full(len(ids), np.nan, np.float32) if price is None else np.asarray(price, np.float32)
        return cls(id=ids, price=prices, attributes=attributes, **texts)


@dataclasses.dataclass(frozen=True)
class Triples(_Table):
    """A knowledge graph as the source gives it.

    `head` and `tail` index `entities`, `relation` indexes `relations`. An entity that bears a product's id is that product.
    """

    entities: np.ndarray
    relations: np.ndarray
    head: np.ndarray
    relation: np.ndarray
    tail: np.ndarray
    split: np.ndarray

    @classmethod
    def vocabularies(cls) -> tuple[str, ...]:
        return ("entities", "relations")

    @classmethod
    def of(cls, head: Any, relation: Any, tail: Any, split: Any = None) -> "Triples":
        """Builds the table from names (text) of heads, relations and tails; vocabularies in order of first appearance."""
        head, relation, tail = list(head), list(relation), list(tail)
        entity_row = {
            name: row for row, name in enumerate(dict.fromkeys(x for pair in zip(head, tail, strict=True) for x in pair))
        }
        relation_row = {name: row for row, name in enumerate(dict.fromkeys(relation))}
        return cls(
            entities=text_column(entity_row),
            relations=text_column(relation_row),
            head=np.fromiter((entity_row[name] for name in head), np.int32, len(head)),
            relation=np.fromiter((relation_row[name] for name in relation), np.int32, len(relation)),
            tail=np.fromiter((entity_row[name] for name in tail), np.int32, len(tail)),
            split=np.full(len(head), UNASSIGNED, np.int8) if split is None else np.asarray(split, np.int8),
        )


@dataclasses.dataclass(frozen=True)
class Users(_Table):
    """Who buys. `profile` holds the profile fields (country, age group, …) as text."""

    id: np.ndarray
    profile: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Events(_Table):
    """What users did, in the order of the source (equal times keep it).

    `user`, `product`, `query` are row numbers (`query` −1 = none), `kind` indexes `kinds`, `time` is in whole seconds (or any
    whole number that grows).
    """

    kinds: tuple[str, ...]
    user: np.ndarray
    product: np.ndarray
    kind: np.ndarray
    time: np.ndarray
    query: np.ndarray
    split: np.ndarray


@dataclasses.dataclass(frozen=True)
class Queries(_Table):
    """What users type."""

    id: np.ndarray
    text: np.ndarray


@dataclasses.dataclass(frozen=True)
class Judgments(_Table):
    """How relevant a product is to a query: `grade` ≥ 0, higher is better. All judgments of a query share one split."""

    query: np.ndarray
    product: np.ndarray
    grade: np.ndarray
    split: np.ndarray


@dataclasses.dataclass(frozen=True)
class Entities(_Table):
    """What is known of the graph's entities in words: `id` is a name in `Triples.entities`. May be a subset of them."""

    id: np.ndarray
    name: np.ndarray
    description: np.ndarray


@dataclasses.dataclass(frozen=True)
class Relations(_Table):
    """Readable names of relations: `id` is a name in `Triples.relations`. May be a subset of them."""

    id: np.ndarray
    name: np.ndarray


@dataclasses.dataclass(frozen=True)
class Literals(_Table):
    """Numbers about entities (price, year): `entity` is a name in `Triples.entities`, `attribute` says what `value` is."""

    entity: np.ndarray
    attribute: np.ndarray
    value: np.ndarray


@dataclasses.dataclass(frozen=True)
class Shop:
    """All that is known of one shop. Any part may be `None`; `require` says so clearly.

    `negatives` are triples known to be false, for triple classification, each in validation or test. Their own vocabularies
    are subsets of those of `triples`; an entity or relation that `triples` lacks is a `UserError`.
    """

    name: str
    products: Products | None = None
    triples: Triples | None = None
    users: Users | None = None
    events: Events | None = None
    queries: Queries | None = None
    judgments: Judgments | None = None
    entities: Entities | None = None
    relations: Relations | None = None
    negatives: Triples | None = None
    literals: Literals | None = None
    origin: Any = dataclasses.field(default=None, repr=False, compare=False)
    """Where a shop that was handed over in Python lies (`data.given`); None: `data.name` says it."""

    @classmethod
    def from_folder(
        cls,
        path: str | Path,
        *,
        columns: Mapping[str, Mapping[str, str]] | None = None,
        on_bad_row: Literal["error", "skip"] = "error",
        encoding: str = "utf-8",
        log: Callable[[str], None] = _LOG.info,
    ) -> "Shop":
        """Reads a folder of tables (`products`, `events`, …) as CSV, TSV, JSON Lines or Parquet.

        Args:
          columns: for each table, our column name → the file's, where they differ.
          on_bad_row: "skip" leaves malformed rows out and tells `log`; "error" raises with all of them.
          log: told what was derived, ignored or left out, a line each.

        Raises:
          UserError: no such folder, no tables, or what is malformed in them: file, line, what was expected.
        """
        from fusionjax.data import given

        return given.shop_from_folder(Path(path).expanduser(), given.files_settings(columns, on_bad_row, encoding), log)

    @classmethod
    def from_tables(
        cls,
        *,
        products: Any = None,
        events: Any = None,
        users: Any = None,
        queries: Any = None,
        judgments: Any = None,
        triples: Any = None,
        columns: Mapping[str, Mapping[str, str]] | None = None,
        on_bad_row: Literal["error", "skip"] = "error",
        log: Callable[[str], None] = _LOG.info,
    ) -> "Shop":
        """Takes tables in memory: pandas or other DataFrames, pyarrow tables, or mappings of columns; any may be left out.

        They have the columns that files of these names have: products `id` (title, description, brand, category, price, …);
        events `user, product` (kind, time, query, split); users `id`, …; queries `id, text`; judgments `query, product, grade`
        (split); triples `head, relation, tail` (split). A run trained on the shop writes them into its cache.

        Args:
          columns, on_bad_row, log: as in `from_folder`.

        Raises:
          UserError: what is malformed: table, row, what was expected.
        """
        from fusionjax.data import given

        tables = {
            **{"products": products, "events": events, "users": users},
            **{"queries": queries, "judgments": judgments, "triples": triples},
        }
        return given.shop_from_tables(tables, given.files_settings(columns, on_bad_row, "utf-8"), log)

    def __post_init__(self) -> None:
        if self.negatives is None:
            return
        self.require("triples", purpose="negatives")
        for what in ("entities", "relations"):
            known = set(getattr(self.triples, what))
            strange = [name for name in getattr(self.negatives, what) if name not in known]
            if strange:
                raise UserError(
                    f"shop '{self.name}': negatives name {len(strange)} {what} that its triples lack, '{strange[0]}' first"
                )
        wrong = int(np.sum((self.negatives.split != VALID) & (self.negatives.split != TEST)))
        if wrong:
            raise UserError(f"shop '{self.name}': {wrong} negatives are in neither validation nor test")

    def has(self, *parts: str) -> bool:
        return all(getattr(self, part) is not None for part in parts)

    def require(self, *parts: str, purpose: str) -> None:
        """Raises `UserError` naming the parts this shop lacks and what they are needed for."""
        missing = [part for part in parts if getattr(self, part) is None]
        if missing:
            present = ", ".join(part for part in PARTS if self.has(part)) or "nothing"
            raise UserError(f"shop '{self.name}' has no {' and no '.join(missing)}, which {purpose} needs (it has: {present})")

    def counts(self) -> dict[str, int]:
        """Rows of each part that exists."""
        return {part: len(getattr(self, part)) for part in PARTS if self.has(part)}

    def fingerprint(self) -> str:
        """SHA-256 over every table's columns and vocabularies: two shops with one fingerprint hold the same data."""
        digest = hashlib.sha256()
        for part in PARTS:
            table = getattr(self, part)
            if table is None:
                continue
            fields = dict(table.columns())
            fields.update({name: getattr(table, name) for name in table.vocabularies()})
            if isinstance(table, Events):
                fields["kinds"] = text_column(table.kinds)
            for name in sorted(fields):
                column = fields[name]
                digest.update(f"{part}.{name}:{len(column)};".encode())
                if column.dtype == object:
                    digest.update("\x1f".join(column.tolist()).encode("utf-8", "surrogatepass"))
                else:
                    digest.update(np.ascontiguousarray(column).tobytes())
        return digest.hexdigest()
