"""Malformed rows: gathered by file and reason, then raised together as one error or dropped with a printed count."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

from fusionjax.errors import UserError

SHOWN = 5
"""Rows of each reason whose places are named."""


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a row stands: line of a text file (the header is line 1), or row of a Parquet file (the first is 1)."""

    file: str
    unit: str
    number: int

    def __str__(self) -> str:
        return f"{self.file}:{self.number}" if self.unit == "line" else f"{self.file}:{self.unit} {self.number}"


@dataclasses.dataclass
class _Reason:
    count: int = 0
    first: str = ""
    places: list[Place] = dataclasses.field(default_factory=list)

    def text(self, reason: str) -> str:
        """`products.csv:3: price is not a number: 'abc' (7 rows: lines 3, 4, 9, 12, 20, …)`."""
        text = f"{self.places[0]}: {reason}{self.first}"
        if self.count == 1:
            return text
        numbers = ", ".join(str(place.number) for place in self.places) + (", …" if self.count > len(self.places) else "")
        return f"{text} ({self.count} rows: {self.places[0].unit}s {numbers})"


class Problems:
    """Collects malformed rows of all tables.

    Args:
      skip: the config's `on_bad_row: skip`; otherwise `finish` raises.
    """

    def __init__(self, skip: bool) -> None:
        self.skip = skip
        self._reasons: dict[tuple[str, str], _Reason] = {}
        self._rows: dict[str, set[int]] = {}

    def add(self, place: Place, reason: str, detail: str = "") -> None:
        """Notes that the row at `place` is malformed for `reason`; `detail` is what stands there instead."""
        noted = self._reasons.setdefault((place.file, reason), _Reason())
        if not noted.count:
            noted.first = f": {detail}" if detail else ""
        if len(noted.places) < SHOWN:
            noted.places.append(place)
        noted.count += 1
        self._rows.setdefault(place.file, set()).add(place.number)

    def dropped(self, file: str) -> int:
        """Malformed rows of `file`."""
        return len(self._rows.get(file, ()))

    def reasons(self, file: str) -> list[str]:
        """One text a reason, in the order in which they were found."""
        return [noted.text(reason) for (name, reason), noted in self._reasons.items() if name == file]

    def require_rows(self, file: str, kept: int) -> None:
        """Raises `UserError` if dropping its malformed rows leaves `file` empty."""
        if self.skip and not kept and self.dropped(file):
            raise UserError(f"{file}: every row is malformed:\n" + "\n".join(f"  {text}" for text in self.reasons(file)))

    def finish(self, folder: Path | str, log: Callable[[str], None]) -> None:
        """Raises one `UserError` with every reason, or prints what was dropped.

        Errors:
          UserError: there are malformed rows and the config does not say to skip them.
        """
        if not self._rows:
            return
        if not self.skip:
            total, files = sum(map(len, self._rows.values())), len(self._rows)
            lines = [f"  {text}" for file in self._rows for text in self.reasons(file)]
            head = f"{folder}: {total} malformed row{'s' * (total > 1)} in {files} file{'s' * (files > 1)}"
            raise UserError("\n".join([f"{head} (data.files.on_bad_row=skip drops such rows):", *lines]))
        for file, rows in self._rows.items():
            log(f"{file}: dropped {len(rows)} malformed row{'s' * (len(rows) > 1)}")
            for text in self.reasons(file):
                log(f"  {text}")
