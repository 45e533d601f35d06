"""A folder of tables → a `Shop`: finds the files, maps their columns, checks rows and joins the tables."""

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fusionjax.config import schema
from fusionjax.data.shop import (
    SPLITS,
    UNASSIGNED,
    Events,
    Judgments,
    Products,
    Queries,
    Shop,
    Triples,
    Users,
    text_column,
)
from fusionjax.data.sources.files.problems import Problems
from fusionjax.data.sources.files.read import SUFFIXES, RawTable, read_table
from fusionjax.data.sources.files.validate import DROPPED, UNKNOWN, Rows, first_rows
from fusionjax.errors import UserError, nearest

Log = Callable[[str], None]
DEFAULT_KIND = "view"
_MAX_KINDS = 127


class _Spec(NamedTuple):
    required: tuple[str, ...]
    optional: tuple[str, ...] = ()
    further: bool = False
    """Every other column of the file is kept (product attributes, user profile)."""

    @property
    def names(self) -> tuple[str, ...]:
        return self.required + self.optional


SPECS = {
    "products": _Spec(("id",), ("title", "description", "brand", "category", "price"), further=True),
    "triples": _Spec(("head", "relation", "tail"), ("split",)),
    "users": _Spec(("id",), further=True),
    "events": _Spec(("user", "product"), ("kind", "time", "query", "split")),
    "queries": _Spec(("id", "text")),
    "judgments": _Spec(("query", "product", "grade"), ("split",)),
}
TABLES = tuple(SPECS)
"""Parts of a shop that a folder may hold; names of entities and the like come with source `triples`."""


def read_folder(source_dir: Path, config: schema.Files, log: Log = print, name: str = "files") -> Shop:
    """Reads a shop from a folder of CSV, TSV, JSON Lines or Parquet tables.

    A part without a file is absent, with three exceptions, each printed: users, products and queries that events or judgments
    name are derived from these where they have no table of their own. An event's query is the id of a query, or else a text,
    which becomes a query of its own. Events without a time count 0, 1, 2, … in file order; without a kind they are views.

    Args:
      source_dir: the folder.
      config: column names, encoding, what to do with malformed rows.
      log: takes lines to print.
      name: the shop's name.

    Errors:
      UserError: no folder, no tables, a file or column that cannot be used; or malformed rows (all of them, by reason, with
        file, line and count), unless `config.on_bad_row` is `skip`.
    """
    folder = Path(source_dir)
    paths = find_tables(folder, log)
    problems = Problems(config.on_bad_row == "skip")
    raws = ((part, read_table(path, config.encoding, problems)) for part, path in paths.items())
    return join_tables(raws, config.columns, problems, log, name, folder, tuple(paths))


def join_tables(
    raws: Iterable[tuple[str, RawTable]],
    columns: Mapping[Any, dict[str, str]],
    problems: Problems,
    log: Log,
    name: str,
    where: Any,
    parts: Sequence[str],
) -> Shop:
    """Checks tables, whose parts are `parts`, one after the other and joins them; args and errors as `read_folder`.

    Args:
      columns: for each part, our column name → the table's, where they differ.
      where: what errors call the tables together.
    """
    for part in columns:
        if part not in parts:
            raise UserError(f"data.files.columns.{part}: {where} has no table '{part}'")
    tables = {part: Rows(_mapped(raw, part, columns.get(part, {}), log), problems) for part, raw in raws}
    shop = _Join(tables, log).shop(name)
    problems.finish(where, log)
    return shop


# --------------------------------------------------------------------------------------------------------------- files
def find_tables(folder: Path, log: Log = print) -> dict[str, Path]:
    """The file of each part that has one, in the order of `TABLES`.

    Errors:
      UserError: no such folder, no table in it, two files of one table, a format or name that is nearly but not quite right.
    """
    if not folder.exists():
        raise UserError(f"data.source_dir: no folder '{folder}'")
    if not folder.is_dir():
        raise UserError(f"data.source_dir: '{folder}' is a file, expected the folder that holds the tables")
    found: dict[str, Path] = {}
    unreadable: dict[str, Path] = {}
    strangers: list[Path] = []
    for path in sorted(folder.iterdir()):
        part, _, ending = path.name.lower().partition(".")
        if part not in TABLES:
            strangers.append(path)
        elif path.is_dir() or f".{ending}" not in SUFFIXES:
            unreadable[part] = path
        elif part in found:
            raise UserError(f"{folder}: both {found[part].name} and {path.name} hold table '{part}'; keep one")
        else:
            found[part] = path
    for part, path in unreadable.items():
        if part not in found:
            what = "a folder" if path.is_dir() else "of unknown format"
            raise UserError(f"{path.name} is {what}; expected {part} in one file, as {', '.join(SUFFIXES)}")
        log(f"{path.name}: ignored, {found[part].name} holds table '{part}'")
    for path in strangers:
        if not path.name.lower().endswith(SUFFIXES):
            continue
        close = difflib.get_close_matches(
            path.name.lower().partition(".")[0], [part for part in TABLES if part not in found], 1, 0.7
        )
        if close:
            raise UserError(f"{path.name} is no table; did you mean '{close[0]}{path.name[path.name.index('.') :]}'?")
        log(f"{path.name}: no table of a shop, ignored (tables: {', '.join(TABLES)})")
    if not found:
        raise UserError(f"{folder}: no tables; expected at least one of {', '.join(TABLES)} as {', '.join(SUFFIXES)}")
    return {part: found[part] for part in TABLES if part in found}


def _mapped(raw: RawTable, part: str, mapping: dict[str, str], log: Log) -> RawTable:
    """The table under our column names."""
    spec, key = SPECS[part], f"data.files.columns.{part}"
    for ours, theirs in mapping.items():
        if ours not in spec.names and not spec.further:
            raise UserError(f"{key}.{ours}: {part} have no column '{ours}'{nearest(ours, spec.names)}")
        if theirs not in raw.columns:
            raise UserError(f"{key}.{ours}: {raw.file} has no column '{theirs}'{nearest(theirs, raw.columns)}")
    columns: dict[str, list[str]] = {}
    for ours in spec.names:
        theirs = mapping.get(ours, ours)
        if theirs in raw.columns:
            columns[ours] = raw.columns[theirs]
        elif ours in spec.required:
            where = f"{raw.file}:1" if not raw.typed else raw.file
            raise UserError(f"{where}: no column '{ours}'{nearest(ours, raw.columns)} (other names are mapped in {key})")
    ours_of = {theirs: ours for ours, theirs in mapping.items() if ours not in spec.names}
    used = {mapping.get(ours, ours) for ours in spec.names}
    for theirs, values in raw.columns.items():
        if theirs in ours_of or (spec.further and theirs not in used and theirs not in spec.names):
            columns[ours_of.get(theirs, theirs)] = values
        elif theirs not in used:
            log(f"{raw.file}: column '{theirs}' ignored")
    return RawTable(raw.file, raw.unit, raw.typed, raw.lines, columns)


# ---------------------------------------------------------------------------------------------------------------- join
class _Join:
    """Turns checked tables into a shop; `rows_of` holds the row of every known id, by part."""

    def __init__(self, tables: dict[str, Rows], log: Log) -> None:
        self.tables, self.log = tables, log
        self.rows_of: dict[str, dict[str, int]] = {}
        self.query_of_text: dict[str, int] = {}
        self.new_queries: list[str] = []

    def shop(self, name: str) -> Shop:
        """Tables in an order in which ids are known before they are referred to."""
        makers = {
            "products": self._products,
            "users": self._users,
            "queries": self._queries,
            "events": self._events,
            "judgments": self._judgments,
            "triples": self._triples,
        }
        parts = {part: make(self.tables[part]) for part, make in makers.items() if part in self.tables}
        for part in ("products", "users"):
            if part not in parts and part in self.rows_of:
                ids = list(self.rows_of[part])
                self.log(f"no table of {part}: {len(ids)} {part} derived from events and judgments, ids only")
                parts[part] = Products.of(ids) if part == "products" else Users(text_column(ids))
        if self.new_queries:
            texts = text_column(self.new_queries)
            given = parts.get("queries")
            self.log(f"{len(texts)} quer{'ies' if len(texts) > 1 else 'y'} derived from texts that are no query's id")
            parts["queries"] = (
                Queries(np.concatenate([given.id, texts]), np.concatenate([given.text, texts]))
                if given
                else Queries(texts, texts)
            )
        return Shop(name=name, **parts)

    # --------------------------------------------------------------------------------------------- tables that bear ids
    def _register(self, part: str, rows: Rows, first: dict[str, int]) -> np.ndarray:
        keep = rows.keep()
        new_row = np.full(len(rows.raw), DROPPED, np.int64)
        new_row[keep] = np.arange(len(keep))
        self.rows_of[part] = dict(zip(first, new_row[list(first.values())].tolist(), strict=True))
        return keep

    def _further(self, part: str, rows: Rows) -> dict[str, np.ndarray]:
        return {name: text_column(rows.raw.text(name)) for name in rows.raw.columns if name not in SPECS[part].names}

    def _products(self, rows: Rows) -> Products:
        ids, first = rows.unique("id", "product")
        texts = {name: rows.raw.text(name) for name in ("title", "description", "brand") if rows.has(name)}
        category = rows.categories("category") if rows.has("category") else None
        price = rows.numbers("price", missing=True) if rows.has("price") else None
        table = Products.of(ids, **texts, category=category, price=price, attributes=self._further("products", rows))
        return table.take(self._register("products", rows, first))

    def _users(self, rows: Rows) -> Users:
        ids, first = rows.unique("id", "user")
        return Users(text_column(ids), self._further("users", rows)).take(self._register("users", rows, first))

    def _queries(self, rows: Rows) -> Queries:
        ids, first = rows.unique("id", "query")
        texts = rows.raw.text("text")
        for row, text in enumerate(texts):
            if not text.strip():
                rows.flag(row, "empty query text")
        table = Queries(text_column(ids), text_column(texts)).take(self._register("queries", rows, first))
        for row, text in enumerate(table.text):
            self.query_of_text.setdefault(text.strip(), row)
        return table

    # ------------------------------------------------------------------------------------------ tables that refer to ids
    def _refer(self, rows: Rows, columns: Mapping[str, tuple[str, Sequence[str]]]) -> list[np.ndarray]:
        """Row numbers of ids: `columns` maps our column name → (part, ids). Parts without a table grow by what stands here."""
        found = {
            column: rows.references(column, values, self.rows_of[part], part)
            for column, (part, values) in columns.items()
            if part in self.tables
        }
        # Only rows that stand may found a user or product of their own, so these come last.
        good = np.flatnonzero(~rows.bad)
        for column, (part, values) in columns.items():
            if column not in found:
                known = self.rows_of.setdefault(part, {})
                for value in first_rows(values[row] for row in good.tolist()):
                    known.setdefault(value, len(known))
                found[column] = np.fromiter((known.get(value, UNKNOWN) for value in values), np.int32, len(values))
        return [found[column] for column in columns]

    def _query_row(self, text: str) -> int:
        """The query of that text; a new one where none is."""
        row = self.query_of_text.get(text)
        if row is None:
            row = len(self.new_queries) + len(self.rows_of.get("queries", ()))
            self.query_of_text[text] = row
            self.new_queries.append(text)
        return row

    def _events(self, rows: Rows) -> Events:
        users, products = rows.names("user"), rows.names("product")
        kinds = [kind.strip().lower() or DEFAULT_KIND for kind in rows.raw.text("kind")] if rows.has("kind") else []
        time = rows.times("time") if rows.has("time") else np.arange(len(rows.raw))
        split = _splits(rows)
        if (split != UNASSIGNED).any():
            for row in np.flatnonzero((split == UNASSIGNED) & ~rows.bad):
                rows.flag(int(row), f"empty split where other events have one (expected {', '.join(SPLITS)})")
        queries = [query.strip() for query in rows.raw.text("query")] if rows.has("query") else []
        ids = self.rows_of.get("queries", {})
        for row, query in enumerate(queries):
            if ids.get(query) == DROPPED and rows.problems.skip:
                rows.flag(row, "query whose own row in queries is malformed", f"'{query}'")
        user, product = self._refer(rows, {"user": ("users", users), "product": ("products", products)})
        keep = rows.keep()
        query = np.full(len(keep), -1, np.int32)
        if queries:
            texts = (queries[row] for row in keep)
            rows_of = ((-1 if not text else ids[text] if text in ids else self._query_row(text)) for text in texts)
            query = np.fromiter(rows_of, np.int32, len(keep))
        kind_code = first_rows(kinds[row] for row in keep) if kinds else {DEFAULT_KIND: 0}
        if len(kind_code) > _MAX_KINDS:
            raise UserError(
                f"{rows.raw.file}: {len(kind_code)} kinds of events, at most {_MAX_KINDS}; is 'kind' the right column?"
            )
        kind = (
            np.fromiter((kind_code[kinds[row]] for row in keep), np.int8, len(keep)) if kinds else np.zeros(len(keep), np.int8)
        )
        return Events(
            kinds=tuple(kind_code),
            user=user[keep],
            product=product[keep],
            kind=kind,
            time=time[keep].astype(np.int64),
            query=query,
            split=split[keep],
        )

    def _judgments(self, rows: Rows) -> Judgments:
        queries, products = rows.names("query"), rows.names("product")
        grade = rows.numbers("grade", missing=False)
        split = _splits(rows)
        columns = {"product": ("products", products)}
        if "queries" in self.tables:
            columns["query"] = ("queries", queries)

        def repeated(earlier: int, row: int) -> None:
            place, pair = rows.raw.place(earlier), f"query '{queries[row]}', product '{products[row]}'"
            if grade[row] == grade[earlier]:
                rows.flag(row, "duplicate judgment", f"{pair} stands at {place} already")
            else:
                rows.flag(row, "conflicting judgments", f"{pair} has grade {grade[row]:g}, but {grade[earlier]:g} at {place}")

        rows.once(zip(queries, products, strict=True), repeated)
        split_of: dict[str, tuple[int, int]] = {}
        for row in np.flatnonzero((split != UNASSIGNED) & ~rows.bad):
            code, earlier = split_of.setdefault(queries[row], (int(split[row]), int(row)))
            if code != split[row]:
                there = f"query '{queries[row]}' is {SPLITS[split[row]]} here, {SPLITS[code]} at {rows.raw.place(earlier)}"
                rows.flag(int(row), "one query's judgments in two splits", there)
        # A query's split holds for those of its judgments that name none.
        split = np.fromiter((split_of.get(query, (UNASSIGNED, 0))[0] for query in queries), np.int8, len(queries))
        product, *query = self._refer(rows, columns)
        keep = rows.keep()
        query_row = (
            query[0][keep] if query else np.fromiter((self._query_row(queries[row]) for row in keep), np.int32, len(keep))
        )
        return Judgments(query=query_row, product=product[keep], grade=grade[keep], split=split[keep])

    def _triples(self, rows: Rows) -> Triples:
        names = [rows.names(column) for column in ("head", "relation", "tail")]
        split = _splits(rows)
        repeats: list[int] = []

        def repeated(earlier: int, row: int) -> None:
            if split[row] == split[earlier]:
                repeats.append(row)
            else:
                rows.flag(row, "one triple in two splits", f"{rows.raw.place(earlier)} has it too")

        rows.once(zip(*names, strict=True), repeated)
        keep = rows.keep()
        if repeats:
            keep = np.setdiff1d(keep, repeats)
            self.log(f"{rows.raw.file}: {len(repeats)} repeated triple{'s' * (len(repeats) > 1)} dropped")
        return Triples.of(*([column[row] for row in keep] for column in names), split=split[keep])


def _splits(rows: Rows) -> np.ndarray:
    return rows.splits("split") if rows.has("split") else np.full(len(rows.raw), UNASSIGNED, np.int8)
