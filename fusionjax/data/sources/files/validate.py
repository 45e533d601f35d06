"""Row checks: columns of text → typed columns, with every malformed row noted.

`Rows` wraps one raw table: each method reads one column, notes the rows it cannot accept and returns a value for every row;
`keep` then says which rows stand.
"""

import math
import re
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta

import numpy as np

from fusionjax.data.shop import SPLITS, UNASSIGNED
from fusionjax.data.sources.files.problems import Problems
from fusionjax.data.sources.files.read import RawTable
from fusionjax.errors import nearest

UNKNOWN, DROPPED = -2, -1
"""Row numbers of an id that no row bears, and of one whose own row is malformed."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND = timedelta(seconds=1)
_EMPTY_LEVEL = re.compile(r"(?:^|>)\s*(?:>|$)")
_LEVELS = re.compile(r"\s*>\s*")


def seconds(text: str) -> int:
    """Whole seconds of a number (fractions are cut towards the past) or of an ISO 8601 date or time (UTC where no zone stands).

    Errors:
      ValueError: neither, or beyond 64 bits.
    """
    if text[4:5] != "-":
        try:
            value = int(text)
        except ValueError:
            value = _floor(text)
        if value is not None:
            if "_" in text or not -(2**63) <= value < 2**63:
                raise ValueError(text)
            return value
    moment = datetime.fromisoformat(text)
    return ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - _EPOCH) // _SECOND


def _floor(text: str) -> int | None:
    try:
        return math.floor(float(text))
    except OverflowError:  # inf; nan is a ValueError
        raise ValueError(text) from None
    except ValueError:
        return None


class Rows:
    """One raw table under validation.

    Args:
      raw: columns under our names.
      problems: where malformed rows are noted.
    """

    def __init__(self, raw: RawTable, problems: Problems) -> None:
        self.raw, self.problems = raw, problems
        self.bad = np.zeros(len(raw), bool)

    def has(self, name: str) -> bool:
        return name in self.raw.columns

    def flag(self, row: int, reason: str, detail: str = "") -> None:
        """Notes one malformed row."""
        self.problems.add(self.raw.place(row), reason, detail)
        self.bad[row] = True

    def keep(self) -> np.ndarray:
        """Row numbers that stand; raises `UserError` if none does."""
        kept = np.flatnonzero(~self.bad)
        self.problems.require_rows(self.raw.file, len(kept))
        return kept

    # ------------------------------------------------------------------------------------------------------------ text
    def names(self, column: str) -> list[str]:
        """Ids, relations, kinds: white space around them trimmed, empty ones malformed."""
        values = [value.strip() for value in self.raw.text(column)]
        if not all(values):
            for row, value in enumerate(values):
                if not value:
                    self.flag(row, f"empty {column}")
        return values

    def unique(self, column: str, what: str) -> tuple[list[str], dict[str, int]]:
        """Ids of which each may stand once: the ids, and the row of each (the first where they repeat)."""
        values = self.names(column)
        first: dict[str, int] = {}
        for row, value in enumerate(values):
            earlier = first.setdefault(value, row)
            if earlier != row and value:
                self.flag(row, f"duplicate {what} id", f"'{value}' stands at {self.raw.place(earlier)} already")
        first.pop("", None)
        return values, first

    def categories(self, column: str) -> list[str]:
        """Category paths, levels separated by exactly ` > `; an empty level is malformed."""
        known: dict[str, str | None] = {"": ""}
        found: list[str] = []
        for row, value in enumerate(self.raw.text(column)):
            if value not in known:
                path = value.strip()
                known[value] = None if path and _EMPTY_LEVEL.search(path) else _LEVELS.sub(" > ", path)
            path = known[value]
            if path is None:
                self.flag(row, "category with an empty level (expected A > B > C)", f"'{value}'")
            found.append(path or "")
        return found

    # --------------------------------------------------------------------------------------------------------- numbers
    def numbers(self, column: str, missing: bool) -> np.ndarray:
        """float32 [rows], finite and at least 0. `missing`: an empty one is NaN, otherwise it is malformed."""
        found = np.full(len(self.raw), np.nan)
        for row, text in enumerate(self.raw.columns[column]):
            try:
                found[row] = value = float(text)
            except ValueError:
                if text.strip():
                    self.flag(row, f"{column} is not a number", f"'{text}'")
                elif not missing:
                    self.flag(row, f"empty {column}")
                continue
            if "_" in text:
                self.flag(row, f"{column} is not a number", f"'{text}'")
            elif not abs(value) < 3.4e38:
                self.flag(row, f"{column} is not finite", f"'{text}'")
            elif value < 0:
                self.flag(row, f"{column} is negative", f"'{text}'")
        found[self.bad] = np.nan
        return found.astype(np.float32)

    def times(self, column: str) -> np.ndarray:
        """int64 [rows], see `seconds`."""
        found = np.zeros(len(self.raw), np.int64)
        for row, text in enumerate(self.raw.columns[column]):
            try:
                found[row] = seconds(text.strip())
            except ValueError:
                self.flag(row, "time is neither seconds nor ISO 8601", f"'{text}'")
        return found

    def splits(self, column: str) -> np.ndarray:
        """int8 [rows]: codes into `SPLITS`, `UNASSIGNED` where empty."""
        known = {"": UNASSIGNED, **{name: code for code, name in enumerate(SPLITS)}}
        found = np.full(len(self.raw), UNASSIGNED, np.int8)
        for row, text in enumerate(self.raw.text(column)):
            name = text.strip().lower()
            if name in known:
                found[row] = known[name]
            else:
                self.flag(row, f"unknown split (expected {', '.join(SPLITS)})", f"'{text}'{nearest(name, SPLITS)}")
        return found

    # ------------------------------------------------------------------------------------------------------ references
    def references(self, column: str, values: Sequence[str], known: dict[str, int], what: str) -> np.ndarray:
        """int32 [rows]: the row each id names; ids that name none are malformed, empty ones were noted before."""
        rows = np.fromiter((known.get(value, UNKNOWN) for value in values), np.int32, len(values))
        for row in np.flatnonzero(rows < 0).tolist():
            if not values[row]:
                continue
            if rows[row] == UNKNOWN:
                self.flag(row, f"unknown {column} (no such id in {what})", f"'{values[row]}'")
            elif self.problems.skip:
                self.flag(row, f"{column} whose own row in {what} is malformed", f"'{values[row]}'")
        return rows

    def once(self, keys: Iterable[object], clash: Callable[[int, int], None]) -> None:
        """Calls `clash(earlier row, row)` for every row that stands whose key an earlier one bears."""
        first: dict[object, int] = {}
        bad = self.bad.tolist()
        for row, key in enumerate(keys):
            if not bad[row]:
                earlier = first.setdefault(key, row)
                if earlier != row:
                    clash(earlier, row)


def first_rows(values: Iterable[str]) -> dict[str, int]:
    """Distinct non-empty values in order of first appearance, numbered from 0."""
    return {value: row for row, value in enumerate(dict.fromkeys(value for value in values if value))}
