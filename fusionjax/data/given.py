"""Shops handed over in Python: a folder of tables, or the tables themselves; how a run's config names them, and where they lie.

A `Shop` that comes from here remembers its origin. A run trained on it stores where its tables are, so that it resumes and is
measured again from its own folder alone: tables in memory are written into the run's cache under their content's fingerprint.
"""

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fusionjax.config import schema
from fusionjax.data.shop import Shop
from fusionjax.data.sources.files.folder import SPECS, Log, join_tables, read_folder
from fusionjax.data.sources.files.problems import Problems
from fusionjax.data.sources.files.read import RawTable, arrow_columns, without_unstorable
from fusionjax.errors import UserError, nearest
from fusionjax.files import whole_folder, write_json

MANIFEST = "manifest.json"


@dataclasses.dataclass(frozen=True)
class Folder:
    """Tables in files."""

    path: Path
    files: schema.Files

    def settings(self, cache: Path) -> dict[str, Any]:
        """Dotted config keys that name these data; nothing is written."""
        del cache
        return _settings(self.path, self.files)


@dataclasses.dataclass(frozen=True)
class Tables:
    """Tables in memory, every value as text."""

    raws: Mapping[str, RawTable]
    files: schema.Files

    def fingerprint(self) -> str:
        """SHA-256 over names and values of all columns."""
        digest = hashlib.sha256()
        for part, raw in self.raws.items():
            for name, values in raw.columns.items():
                digest.update(f"{part}\x1f{name}\x1f{len(values)}\x1e".encode())
                digest.update("\x1f".join(values).encode())
        return digest.hexdigest()

    def settings(self, cache: Path) -> dict[str, Any]:
        """Dotted config keys that name these data, which are written into the cache unless they lie there already."""
        folder = cache / f"tables-{self.fingerprint()[:16]}"
        if not (folder / MANIFEST).exists():
            self._write(folder)
        return _settings(folder, self.files)

    def _write(self, folder: Path) -> None:
        import pyarrow
        import pyarrow.parquet

        try:
            with whole_folder(folder) as temporary:
                for part, raw in self.raws.items():
                    columns = {name: pyarrow.array(values, pyarrow.large_string()) for name, values in raw.columns.items()}
                    pyarrow.parquet.write_table(pyarrow.table(columns), temporary / f"{part}.parquet")
                rows = {part: len(raw) for part, raw in self.raws.items()}
                write_json(temporary / MANIFEST, {"fingerprint": self.fingerprint(), "tables": rows})
        except OSError as error:
            raise UserError(
                f"{folder}: cannot write the tables there ({error.strerror}); set data.cache_dir or FUSIONJAX_CACHE"
            ) from error


def _settings(folder: Path, files: schema.Files) -> dict[str, Any]:
    settings = {f"data.files.{key}": value for key, value in files.model_dump(mode="json").items()}
    return {"data.name": "files", "data.source_dir": str(folder.absolute()), **settings}


def files_settings(columns: Mapping[str, Mapping[str, str]] | None, on_bad_row: str, encoding: str) -> schema.Files:
    for part in columns or {}:
        if part not in SPECS:
            raise UserError(f"columns: no table '{part}'{nearest(part, SPECS)}")
    if on_bad_row not in ("error", "skip"):
        raise UserError(f"on_bad_row: expected 'error' or 'skip', got {on_bad_row!r}")
    values = {"columns": dict(columns or {}), "encoding": encoding, "on_bad_row": on_bad_row}
    return schema.Files.model_validate(values)


def shop_from_folder(folder: Path, files: schema.Files, log: Log) -> Shop:
    """See `Shop.from_folder`."""
    shop = read_folder(folder, files, log=log)
    return dataclasses.replace(shop, origin=Folder(folder, files))


def shop_from_tables(given: Mapping[str, Any], files: schema.Files, log: Log) -> Shop:
    """See `Shop.from_tables`."""
    raws = {part: _raw(part, given[part]) for part in SPECS if given.get(part) is not None}
    if not raws:
        raise UserError(f"Shop.from_tables: no tables; expected at least one of {', '.join(SPECS)}")
    problems = Problems(files.on_bad_row == "skip")
    checked = ((part, without_unstorable(raw, problems)) for part, raw in raws.items())
    shop = join_tables(checked, files.columns, problems, log, "files", "Shop.from_tables", tuple(raws))
    return dataclasses.replace(shop, origin=Tables(raws, files))


def _raw(part: str, table: Any) -> RawTable:
    found = arrow_columns(part, _arrow(part, table))
    if not len(found):
        raise UserError(f"{part}: no rows; leave a table you lack out")
    return found


def _arrow(part: str, table: Any) -> Any:
    """A pandas DataFrame, anything that hands its columns to Arrow (polars, …), or a mapping of columns as `pyarrow.Table`."""
    import pyarrow

    if isinstance(table, pyarrow.Table):
        return table
    try:
        if type(table).__module__.partition(".")[0] == "pandas" and hasattr(table, "columns"):
            named = any(name is not None for name in table.index.names)  # such an index is a column; another counts rows
            return pyarrow.Table.from_pandas(table, preserve_index=named)
        if hasattr(table, "__arrow_c_stream__"):
            return pyarrow.table(table)
    except (pyarrow.ArrowException, TypeError) as error:
        raise UserError(f"{part}: not a table whose columns can be read: {str(error).splitlines()[0]}") from error
    if not isinstance(table, Mapping):
        got = type(table).__name__
        raise UserError(f"{part}: expected a DataFrame, a pyarrow table or a mapping of columns, got {got}")
    return _of_columns(part, table)


def _of_columns(part: str, columns: Mapping[str, Any]) -> Any:
    import pyarrow

    arrays: dict[str, Any] = {}
    for name, values in columns.items():
        if isinstance(values, str | bytes) or not hasattr(values, "__iter__"):
            raise UserError(f"{part}: column '{name}': expected a list of values, got {type(values).__name__}")
        try:
            arrays[str(name)] = pyarrow.array(list(values), from_pandas=True)  # NaN among texts: missing
        except (pyarrow.ArrowException, TypeError, OverflowError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"{part}: column '{name}': values of one type are expected: {reason}") from error
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        shown = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise UserError(f"{part}: the columns differ in length: {shown}")
    return pyarrow.table(arrays)
