"""A file of triples, one a line → numbers, strictly and fast: 20 million lines in well under a minute, a block at a time.

What is odd but harmless (CRLF, a byte order mark, blank lines) is accepted, counted and said; anything else that does not fit
is an error with file and line. A name is the exact bytes between two separators.
"""

import dataclasses
import io
import tarfile
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np

from fusionjax.config import schema
from fusionjax.data.shop import text_column
from fusionjax.errors import UserError

SEPARATORS = {"tab": b"\t", "space": b" ", "comma": b","}
PUBLISHED = schema.TriplesFiles()
"""How the published sets are written: tabs, head relation tail, no header."""

_BLOCK = 1 << 24
_NEWLINE = 10
_BOM = b"\xef\xbb\xbf"


class _BadName(Exception):
    pass


class _Numbers(dict[bytes, int]):
    """Names numbered as they appear. What makes a name unusable is looked at once a name, not once a line."""

    def __missing__(self, name: bytes) -> int:
        if not name or name != name.strip():
            raise _BadName(name)
        number = self[name] = len(self)
        return number


class Vocabulary:
    """Entities and relations of all files of one graph."""

    def __init__(self) -> None:
        self.entity = _Numbers()
        self.relation = _Numbers()

    def entities(self) -> np.ndarray:
        return text_column(name.decode() for name in self.entity)

    def relations(self) -> np.ndarray:
        return text_column(name.decode() for name in self.relation)


@dataclasses.dataclass(frozen=True)
class TriplesFile:
    """A file as read: `triples` is int32 [n, 3] (head, relation, tail) in numbers of the vocabulary, in order of the file."""

    name: str
    triples: np.ndarray
    skipped: tuple[int, ...]
    """Lines that hold no triple, ascending: the header and blank ones."""
    notes: tuple[str, ...]

    def line(self, row: int) -> int:
        """Where a row stands, counted from 1."""
        line = row + 1
        for skipped in self.skipped:
            line += skipped <= line
        return line

    def place(self, row: int) -> str:
        return f"{self.name}, line {self.line(row)}"


def read_triples(
    path: Path, vocabulary: Vocabulary, layout: schema.TriplesFiles = PUBLISHED, name: str | None = None
) -> TriplesFile:
    """Reads a file; the vocabulary grows by its names. Messages call it `name`, by default that of the file.

    Raises:
      UserError: the file is not there, is empty, is not UTF-8; a line has not three columns, has an empty name, or a name with
        white space at its ends. With the line.
    """
    try:
        with path.open("rb") as stream:
            return _Reader(name or path.name, vocabulary, layout).read(stream)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None


def read_members(
    path: Path, members: tuple[str, ...], vocabulary: Vocabulary, layout: schema.TriplesFiles = PUBLISHED
) -> list[TriplesFile]:
    """Reads files of triples out of a tar archive, in the order asked for; errors as `read_triples`."""
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(path, "r:*") as archive:
            for member in archive:
                name = member.name.removeprefix("./")
                if name in members and (stream := archive.extractfile(member)) is not None:
                    found[name] = stream.read()
    except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
        raise UserError(f"{path}: not a readable tar archive ({error})") from None
    for name in members:
        if name not in found:
            raise UserError(f"{path}: holds no {name}")
    return [_Reader(name, vocabulary, layout).read(io.BytesIO(found[name])) for name in members]


class _Reader:
    def __init__(self, name: str, vocabulary: Vocabulary, layout: schema.TriplesFiles) -> None:
        self.name, self.vocabulary, self.layout = name, vocabulary, layout
        self.separator = SEPARATORS[layout.separator]
        self.line = 1  # the first of the next block
        self.crlf = 0
        self.bom = False
        self.skipped: list[int] = []
        self.blank = 0
        self.blocks: list[np.ndarray] = []

    def read(self, stream: BinaryIO) -> TriplesFile:
        rest = b""
        while block := stream.read(_BLOCK):
            block = rest + block
            end = block.rfind(b"\n") + 1
            rest = block[end:]
            if end:
                self._block(block[:end])
        if rest:
            self._block(rest + b"\n")
        triples = np.concatenate(self.blocks) if self.blocks else np.empty((0, 3), np.int32)
        if not len(triples):
            raise UserError(f"{self.name}: no triples, expected lines of {self._expected()}")
        return TriplesFile(self.name, triples, tuple(self.skipped), tuple(self._notes()))

    def _notes(self) -> list[str]:
        found = [
            (self.bom, "begins with a byte order mark: left out"),
            (self.crlf, f"{self.crlf:,} line ends are CRLF: none of it is part of a name"),
            (self.blank, f"blank lines skipped: {self.blank:,}"),
        ]
        return [f"{self.name}: {text}" for holds, text in found if holds]

    def _expected(self) -> str:
        return f"3 columns ({', '.join(self.layout.columns)}) separated by one {self.layout.separator} each"

    def _block(self, block: bytes) -> None:
        """Whole lines, each with its end."""
        first = self.line
        try:
            block.decode()
        except UnicodeDecodeError as error:
            line = first + block.count(b"\n", 0, error.start)
            strange = block[error.start : error.start + 4].hex(" ")
            raise UserError(f"{self.name}, line {line}: not UTF-8, bytes {strange}") from None
        if first == 1 and block.startswith(_BOM):
            self.bom, block = True, block[len(_BOM) :]
        if b"\r" in block:
            self.crlf += block.count(b"\r\n")
            block = block.replace(b"\r\n", b"\n")
        self.line += block.count(b"\n")
        if first == 1 and self.layout.header:
            self.skipped.append(1)
            block, first = block[block.index(b"\n") + 1 :], 2
        block, lines = self._without_blank_lines(block, first)
        if not block:
            return
        fields = block[:-1].replace(self.separator, b"\n").split(b"\n")
        columns = {name: fields[place::3] for place, name in enumerate(self.layout.columns)}
        n = len(columns["head"])
        ends = [b""] * (2 * n)
        ends[0::2], ends[1::2] = columns["head"], columns["tail"]
        try:
            entity = np.fromiter(map(self.vocabulary.entity.__getitem__, ends), np.int32, 2 * n)
            relation = np.fromiter(map(self.vocabulary.relation.__getitem__, columns["relation"]), np.int32, n)
        except _BadName as error:
            raise self._bad_name(error.args[0], columns, lines) from None
        self.blocks.append(np.stack([entity[0::2], relation, entity[1::2]], axis=1))

    def _without_blank_lines(self, block: bytes, first: int) -> tuple[bytes, np.ndarray]:
        """The lines that hold something, and their numbers; each has three columns."""
        letters = np.frombuffer(block, np.uint8)
        ends = np.flatnonzero(letters == _NEWLINE)
        separators = np.flatnonzero(letters == self.separator[0])
        lines = np.arange(first, first + len(ends))
        other = np.flatnonzero(np.diff(np.searchsorted(separators, ends), prepend=0) != 2)
        if not len(other):
            return block, lines
        starts = np.concatenate([[0], ends[:-1] + 1])
        for place in other.tolist():
            text = block[starts[place] : ends[place]]
            if text.strip():
                count = text.count(self.separator) + 1
                shown = text[:80].decode(errors="ignore")
                raise UserError(f"{self.name}, line {lines[place]}: expected {self._expected()}, got {count}: {shown!r}")
        self.blank += len(other)
        self.skipped += lines[other].tolist()
        kept = np.setdiff1d(np.arange(len(ends)), other)
        return b"".join(block[starts[place] : ends[place] + 1] for place in kept.tolist()), lines[kept]

    def _bad_name(self, name: bytes, columns: dict[str, list[bytes]], lines: np.ndarray) -> UserError:
        """The first place where the name stands."""
        places = ((columns[column].index(name), column) for column in columns if name in columns[column])
        row, column = min(places)
        where = f"{self.name}, line {lines[row]}: {column}"
        if not name:
            return UserError(f"{where} is empty, expected {self._expected()}")
        return UserError(f"{where} {name[:80].decode(errors='ignore')!r} begins or ends with white space")
