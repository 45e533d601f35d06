"""Token rows of texts of many lengths, so that little of what is computed is padding and few shapes are compiled.

Three ways, on the host, in whole arrays:

- `buckets`: texts of similar length in one batch, padded to the next of a few lengths;
- `packed`: several texts in one row, each reading only itself; padding is what no text fits into;
- `mixed`: short texts packed, long ones in buckets. A packed row computes the attention of all its tokens to all others and
  hides most of it: next to nothing in a row of 64 tokens, more than the padding saved in one of 512.
"""

import bisect
import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

LENGTHS = (8, 12, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512)
"""Padded lengths of buckets; beyond: multiples of 512."""
ROW_LENGTHS = (64, 128, 256, 512)
"""Lengths of packed rows; beyond: multiples of 512."""
SHORT = 64
"""Tokens up to which `mixed` packs a text."""
SMALL = 8
"""A batch is full or an eighth of it: a single query must not cost what a batch costs."""


@dataclasses.dataclass(frozen=True)
class Ragged:
    """Token lists of n texts, flat: text i owns `tokens[offsets[i]:offsets[i + 1]]`."""

    tokens: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        return np.diff(self.offsets)

    @classmethod
    def of_lists(cls, lists: Sequence[Sequence[int]]) -> "Ragged":
        offsets = np.zeros(len(lists) + 1, np.int64)
        np.cumsum([len(each) for each in lists], out=offsets[1:])
        tokens = np.fromiter((token for each in lists for token in each), np.int32, int(offsets[-1]))
        return cls(tokens, offsets)

    @classmethod
    def of_rows(cls, rows: np.ndarray) -> "Ragged":
        """From padded rows int32 [n, l]; padding is negative and stands behind."""
        here = rows >= 0
        offsets = np.concatenate([[0], np.cumsum(here.sum(1))])
        return cls(rows[here].astype(np.int32), offsets)

    def take(self, rows: np.ndarray) -> "Ragged":
        """Texts `rows`, in that order."""
        lengths = self.lengths[rows]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        place = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
        return Ragged(self.tokens[np.repeat(self.offsets[rows], lengths) + place], offsets)

    def padded(self, rows: np.ndarray, length: int, size: int) -> np.ndarray:
        """Texts `rows` as int32 [size, length], −1 where there is none."""
        out = np.full((size, length), -1, np.int32)
        lengths = self.lengths[rows]
        place = np.repeat(np.arange(len(rows)), lengths)
        column = np.arange(len(place)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        out[place, column] = self.tokens[np.repeat(self.offsets[rows], lengths) + column]
        return out


@dataclasses.dataclass(frozen=True)
class Batch:
    """What one call of an encoder reads. Row i of the answer is text `texts[i]`; answers beyond `texts` mean nothing."""

    texts: np.ndarray
    tokens: np.ndarray
    """int32 [b, l], −1 = padding."""
    text: np.ndarray | None = None
    """Packed: int32 [b, l], the place in `texts` a token belongs to, −1 = none."""
    position: np.ndarray | None = None
    """Packed: int32 [b, l], the token's place in its text."""
    places: int = 0
    """Packed: how many answers the call gives."""


def buckets(texts: Ragged, budget: int, longest: int) -> Iterator[Batch]:
    """Batches of texts of similar length.

    Args:
      budget: tokens a batch holds at most (one text at least).
      longest: tokens of the longest text there can be; bounds the shapes.
    """
    lengths = texts.lengths
    order = np.argsort(lengths, kind="stable")
    cuts = _cuts(LENGTHS, longest)
    bucket = np.searchsorted(cuts, lengths[order])
    for number in np.unique(bucket):
        length, rows = int(cuts[number]), order[bucket == number]
        full = max(1, budget // length)
        for part in np.split(rows, range(full, len(rows), full)):
            size = full if len(part) > full // SMALL else max(1, full // SMALL)
            yield Batch(part, texts.padded(part, length, size))


def packed(texts: Ragged, budget: int, longest: int) -> Iterator[Batch]:
    """Batches of rows that hold several texts each: the longest first, each in the fullest row it fits into.

    Args: as `buckets`.
    """
    lengths = texts.lengths
    cuts = _cuts(ROW_LENGTHS, longest)
    # Short texts fill the shortest rows; one that needs a longer row shares it with others of its kind.
    kind = np.searchsorted(cuts, lengths)
    for number in np.unique(kind):
        length, rows = int(cuts[number]), np.flatnonzero(kind == number)
        if number + 1 < len(cuts) and len(rows) > 1 and lengths[rows].mean() > 0.55 * length:
            length = int(cuts[number + 1])  # texts of more than half a row leave the rest of it empty
        row, start = fit(lengths[rows], length)
        full = max(1, budget // length)
        small = max(1, full // SMALL)
        places = {size: max(1, size * length // 8) for size in (full, small)}
        order = np.lexsort((start, row))
        rows, row, start = rows[order], row[order], start[order]
        n_rows, begin = int(row[-1]) + 1, 0
        while begin < len(rows):
            first = row[begin]
            size = full if n_rows - first > small else small
            # Very short texts: as many as there are places; the next batch goes on in the same row.
            end = min(int(np.searchsorted(row, first + size)), begin + places[size])
            batch = pack(texts, rows[begin:end], row[begin:end] - first, start[begin:end], length, size)
            yield dataclasses.replace(batch, places=places[size])
            begin = end


def mixed(texts: Ragged, budget: int, longest: int) -> Iterator[Batch]:
    """Batches of packed rows of the texts of up to `SHORT` tokens, then buckets of the others.

    Args: as `buckets`.
    """
    short = texts.lengths <= SHORT
    for plan, rows, limit in (
        (packed, np.flatnonzero(short), min(longest, 2 * SHORT)),
        (buckets, np.flatnonzero(~short), longest),
    ):
        for batch in plan(texts.take(rows), budget, limit):
            yield dataclasses.replace(batch, texts=rows[batch.texts])


def pack(texts: Ragged, rows: np.ndarray, row: np.ndarray, start: np.ndarray, length: int, size: int) -> Batch:
    tokens = np.full((size, length), -1, np.int32)
    text, position = tokens.copy(), np.zeros_like(tokens)
    lengths = texts.lengths[rows]
    owner = np.repeat(np.arange(len(rows)), lengths)
    place = np.arange(len(owner)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    at = row[owner], start[owner] + place
    tokens[at] = texts.tokens[texts.offsets[rows][owner] + place]
    text[at], position[at] = owner, place
    return Batch(rows, tokens, text, position, len(rows))


def fit(lengths: np.ndarray, capacity: int) -> tuple[np.ndarray, np.ndarray]:
    """(row, first column) of each text: best fit, the longest first. Rows by the space left are in `capacity` + 1 stacks."""
    row, start = np.zeros(len(lengths), np.int64), np.zeros(len(lengths), np.int64)
    open_rows: list[list[int]] = [[] for _ in range(capacity + 1)]
    count = 0
    spaces: list[int] = []  # spaces with an open row, ascending
    for text in np.argsort(-lengths, kind="stable").tolist():
        need = int(lengths[text])
        place = bisect.bisect_left(spaces, need)
        if place == len(spaces):
            chosen, space = count, capacity
            count += 1
        else:
            space = spaces[place]
            chosen = open_rows[space].pop()
            if not open_rows[space]:
                spaces.pop(place)
        row[text], start[text] = chosen, capacity - space
        left = space - need
        if left > 0:
            if not open_rows[left]:
                bisect.insort(spaces, left)
            open_rows[left].append(chosen)
    return row, start


def _cuts(lengths: tuple[int, ...], longest: int) -> np.ndarray:
    """The lengths up to the first that holds `longest`."""
    beyond = range(1024, longest + 512, 512)
    every = [*lengths, *beyond]
    stop = next(place for place, cut in enumerate(every) if cut >= longest)
    return np.array([*every[:stop], longest if longest < every[stop] else every[stop]])
