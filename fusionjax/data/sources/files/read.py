"""Files → columns of text: CSV, TSV, JSON Lines, Parquet. Knows formats, not shops.

Every value becomes text ('' = missing), so that one check serves all formats and one shop reads equal from each. What is wrong
with a whole file (encoding, header, truncation) raises; what is wrong with one row is noted in `Problems` and the row left out.
"""

import codecs
import csv
import dataclasses
import gzip
import json
import zlib
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fusionjax.data.sources.files.problems import Place, Problems
from fusionjax.errors import UserError

SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet", ".csv.gz", ".tsv.gz", ".jsonl.gz")
_CHUNK = 1 << 16


@dataclasses.dataclass
class RawTable:
    """One file as text columns of equal length.

    `lines` holds, for each row, the line on which it begins (the row number in Parquet). `typed`: the format tells numbers from
    text, so a NaN in it is a missing value and not the word.
    """

    file: str
    unit: str
    typed: bool
    lines: np.ndarray
    columns: dict[str, list[str]]

    def __len__(self) -> int:
        return len(self.lines)

    def place(self, row: int) -> Place:
        return Place(self.file, self.unit, int(self.lines[row]))

    def text(self, name: str) -> list[str]:
        """A column read as text: NaN of a typed format is missing."""
        column = self.columns[name]
        return ["" if value == "NaN" else value for value in column] if self.typed else column


def read_table(path: Path, encoding: str, problems: Problems) -> RawTable:
    """Reads one file of any format in `SUFFIXES`.

    Errors:
      UserError: the file cannot be read as a table at all: unreadable, truncated, wrong encoding, doubled header, no rows.
    """
    name = path.name.lower()
    if name.endswith(".parquet"):
        raw = _read_parquet(path)
    else:
        text = _decode(path, _bytes(path), encoding)
        if not text.strip():
            raise UserError(f"{path.name}: the file is empty; a table needs a header and rows, a table you lack needs no file")
        if ".jsonl" in name:
            raw = _read_jsonl(path.name, text, problems)
        else:
            raw = _read_delimited(path.name, text, "\t" if ".tsv" in name else ",", problems)
    if not len(raw) and not problems.dropped(path.name):
        raise UserError(f"{path.name}: no rows after the header; a table you lack needs no file")
    return without_unstorable(raw, problems)


# --------------------------------------------------------------------------------------------------------------- bytes
def _bytes(path: Path) -> bytes:
    try:
        data = path.read_bytes()
        return gzip.decompress(data) if path.name.lower().endswith(".gz") else data
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path.name}: cannot be read: {error}") from error


def _decode(path: Path, data: bytes, encoding: str) -> str:
    try:
        codec = codecs.lookup(encoding).name
        text = data.decode(encoding)
    except LookupError:
        raise UserError(
            f"data.files.encoding: '{encoding}' is no text encoding; for example utf-8, utf-16, gb18030, cp1252"
        ) from None
    except UnicodeDecodeError as error:
        codec = codecs.lookup(encoding).name
        wide = codec.startswith(("utf-16", "utf-32"))
        bad = [] if wide else _bad_lines(data, encoding)
        line = bad[0] if bad else data[: error.start].decode(encoding, "replace").count("\n") + 1
        found = f"byte 0x{error.object[error.start]:02x} is not {encoding}"
        count = f"{len(bad)} such line{'s' * (len(bad) > 1)}; " if bad else ""
        raise UserError(f"{path.name}:{line}: {found} ({count}name the file's encoding in data.files.encoding)") from None
    return text.removeprefix("\ufeff")


def _bad_lines(data: bytes, encoding: str) -> list[int]:
    bad = []
    for number, line in enumerate(data.split(b"\n"), start=1):
        try:
            line.decode(encoding)
        except UnicodeDecodeError:
            bad.append(number)
    return bad


# --------------------------------------------------------------------------------------------------------- CSV and TSV
class _Lines:
    """Lines of `text` with their ends, split at `\\n` only, with a position to which reading can return."""

    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0

    def __iter__(self) -> Iterator[str]:
        text = self.text
        while self.at < len(text):
            start = self.at
            self.at = text.find("\n", start) + 1 or len(text)
            yield text[start : self.at]


def _records(text: str, delimiter: str) -> Iterator[tuple[int, list[str] | csv.Error]]:
    """Yields each record with the line on which it begins. After a broken one, reading goes on below its first line."""
    lines, before = _Lines(text), 0
    while True:
        reader = csv.reader(lines, delimiter=delimiter, strict=True)
        seen, start = 0, lines.at
        try:
            for row in reader:
                yield before + seen + 1, row
                seen, start = reader.line_num, lines.at
            return
        except csv.Error as error:
            before += seen + 1
            yield before, error
            lines.at = start
            next(iter(lines))


def _broken(error: csv.Error) -> str:
    message = str(error)
    if "unexpected end" in message:
        return "a quote opens and is never closed"
    if "expected after" in message:
        return 'a quote opens at the start of a field and does not close at its end (inside quotes, write " as "")'
    if "field limit" in message:
        return f"a field is longer than {csv.field_size_limit()} characters (a quote that is not closed?)"
    if "new-line character" in message:
        return "a carriage return in a field without quotes"
    return message


def _read_delimited(file: str, text: str, delimiter: str, problems: Problems) -> RawTable:
    records = _records(text, delimiter)
    line, header = next(records)
    while isinstance(header, list) and not any(field.strip() for field in header):
        line, header = next(records)  # `text` is not blank, so a record that is not blank follows
    if isinstance(header, csv.Error):
        raise UserError(f"{file}:{line}: header: {_broken(header)}")
    header = [field.strip() for field in header]
    _check_header(file, line, header)
    width = len(header)
    columns: list[list[str]] = [[] for _ in header]
    lines, chunk, blank = array("q"), [], []
    for line, row in records:
        if isinstance(row, csv.Error):
            problems.add(Place(file, "line", line), _broken(row))
        elif len(row) == width and (width > 1 or row[0].strip()):
            # Blank lines at the end of a file are harmless; between rows they may be a row lost.
            for number in blank:
                problems.add(Place(file, "line", number), "blank line")
            blank.clear()
            lines.append(line)
            chunk.append(row)
            if len(chunk) == _CHUNK:
                _extend(columns, chunk)
        elif not row or (len(row) == 1 and not row[0].strip()):
            blank.append(line)
        else:
            problems.add(Place(file, "line", line), f"expected {width} columns", f"found {len(row)}")
    _extend(columns, chunk)
    return RawTable(file, "line", False, np.array(lines, np.int64), dict(zip(header, columns, strict=True)))


def _extend(columns: list[list[str]], chunk: list[list[str]]) -> None:
    for column, values in zip(columns, zip(*chunk, strict=True), strict=False):
        column.extend(values)
    chunk.clear()


def _check_header(file: str, line: int, header: list[str]) -> None:
    for place, name in enumerate(header):
        if not name:
            raise UserError(
                f"{file}:{line}: column {place + 1} of the header has no name (a row index? write the file without it)"
            )
        if name in header[:place]:
            raise UserError(f"{file}:{line}: the header names column '{name}' twice")


# ---------------------------------------------------------------------------------------------------------- JSON Lines
class _DoubledKey(ValueError):
    pass


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise _DoubledKey(next(name for name in names if names.count(name) > 1))
    return found


def _read_jsonl(file: str, text: str, problems: Problems) -> RawTable:
    # Numbers keep the digits they are written with: an id 007.0 or 1e3 is a name, not a quantity.
    decode = json.JSONDecoder(parse_float=str, parse_int=str, parse_constant=str, object_pairs_hook=_object).decode
    lines, rows, blank = array("q"), [], []
    names: dict[str, None] = {}
    for number, line in enumerate(_Lines(text), start=1):
        place = Place(file, "line", number)
        if not line.strip():
            blank.append(place)
            continue
        for earlier in blank:
            problems.add(earlier, "blank line")
        blank.clear()
        try:
            row = decode(line)
        except json.JSONDecodeError as error:
            problems.add(place, "malformed JSON", f"{error.msg} at column {error.colno}")
            continue
        except _DoubledKey as error:
            problems.add(place, "an object names a key twice", f"'{error}'")
            continue
        except RecursionError:
            problems.add(place, "nested value where text or a number is expected")
            continue
        if not isinstance(row, dict):
            problems.add(place, "expected a JSON object", f"found {line.strip()[:40]}")
            continue
        nested = next((name for name, value in row.items() if isinstance(value, (dict, list))), None)
        if nested is not None:
            problems.add(place, "nested value where text or a number is expected", f"key '{nested}'")
            continue
        names.update(dict.fromkeys(row))
        lines.append(number)
        rows.append(row)
    columns = {name: [_scalar(row.get(name)) for row in rows] for name in names}
    return RawTable(file, "line", True, np.array(lines, np.int64), columns)


def _scalar(value: Any) -> str:
    if isinstance(value, str):
        return value
    return "" if value is None else "true" if value else "false"


# ------------------------------------------------------------------------------------------------------------- Parquet
def _read_parquet(path: Path) -> RawTable:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.ParquetFile(path).read()
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{path.name}: no readable Parquet file: {str(error).splitlines()[0]}") from error
    return arrow_columns(path.name, table)


def arrow_columns(file: str, table: Any) -> RawTable:
    """A `pyarrow.Table` as columns of text; `file` is what errors call it.

    Errors:
      UserError: a column stands twice, or is of a type that is no text, number, truth value, date or time.
    """
    if len(set(table.column_names)) < table.num_columns:
        doubled = next(name for name in table.column_names if table.column_names.count(name) > 1)
        raise UserError(f"{file}: the schema names column '{doubled}' twice")
    columns = {name: _arrow_text(file, name, table.column(name)) for name in table.column_names}
    return RawTable(file, "row", True, np.arange(1, table.num_rows + 1), columns)


def _arrow_text(file: str, name: str, column: Any) -> list[str]:
    import pyarrow

    kind = column.type
    try:
        if pyarrow.types.is_dictionary(kind):
            column, kind = column.cast(kind.value_type), kind.value_type
        if pyarrow.types.is_temporal(kind) and (pyarrow.types.is_timestamp(kind) or pyarrow.types.is_date(kind)):
            # ISO 8601 in UTC; nanoseconds are more than an event's time can hold.
            column = column.cast(pyarrow.timestamp("us"), safe=False) if pyarrow.types.is_date(kind) else column
            column = column.cast(pyarrow.timestamp("us", tz="UTC"), safe=False)
        values = column.cast(pyarrow.large_string()).to_pylist()
    except (pyarrow.ArrowException, UnicodeDecodeError):
        raise UserError(f"{file}: column '{name}' has type {kind}, expected text, number, truth value, date or time") from None
    if pyarrow.types.is_floating(kind):
        return ["" if value is None else "NaN" if value in ("nan", "-nan") else value for value in values]
    return ["" if value is None else value for value in values]


# --------------------------------------------------------------------------------------------------------- every format
def _storable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def without_unstorable(raw: RawTable, problems: Problems) -> RawTable:
    """Leaves out rows with what no later stage can store: NUL characters, half surrogate pairs (possible in JSON escapes)."""
    bad = np.zeros(len(raw), bool)
    for name, column in raw.columns.items():
        joined = "".join(column)
        if "\0" not in joined and _storable(joined):
            continue
        for row, value in enumerate(column):
            if "\0" in value:
                problems.add(raw.place(row), "NUL character", f"column '{name}'")
                bad[row] = True
            elif not _storable(value):
                problems.add(raw.place(row), "half of a surrogate pair, which is no character", f"column '{name}'")
                bad[row] = True
    if not bad.any():
        return raw
    keep = np.flatnonzero(~bad)
    columns = {name: [column[row] for row in keep] for name, column in raw.columns.items()}
    return dataclasses.replace(raw, lines=raw.lines[keep], columns=columns)
