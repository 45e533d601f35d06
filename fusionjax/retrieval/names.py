"""A column of strings on disk: loading a million of them must cost nothing, and finding one must not need a dictionary.

`STEM.utf8.npy` holds all bytes, `STEM.offsets.npy` where each string begins, `STEM.order.npy` the rows sorted by their bytes.
The arrays are memory-mapped; a name is found by binary search.
"""

import difflib
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np

_HINTS = 3
_FEW = 20_000
"""Up to as many names, all are compared with a name that is not there; of more only those near it in the sorted order."""
_NEIGHBOURS = 200


def load_array(file: Path) -> np.ndarray:
    """A `.npy` file, memory-mapped; never anything that is pickled."""
    return np.asarray(np.load(file, mmap_mode="r", allow_pickle=False))


def save_array(file: Path, array: np.ndarray) -> None:
    np.save(file, np.ascontiguousarray(array), allow_pickle=False)


class Names(Sequence[str]):
    """Strings by row, and rows by string.

    Args:
      data: uint8 [bytes], all strings in UTF-8, one behind the other.
      offsets: int64 [n + 1]: string i is `data[offsets[i]:offsets[i + 1]]`.
      order: int32 [n], the rows sorted by their bytes, equal ones by row; made when it is first needed if not given.
    """

    def __init__(self, data: np.ndarray, offsets: np.ndarray, order: np.ndarray | None = None) -> None:
        self.data, self.offsets, self._order = data, offsets, order

    @classmethod
    def of(cls, values: Sequence[str] | np.ndarray) -> "Names":
        encoded = [value.encode("utf-8", "surrogatepass") for value in values]
        offsets = np.zeros(len(encoded) + 1, np.int64)
        np.cumsum([len(each) for each in encoded], out=offsets[1:])
        return cls(np.frombuffer(b"".join(encoded), np.uint8), offsets)

    @property
    def order(self) -> np.ndarray:
        if self._order is None:
            encoded = [self._bytes(row) for row in range(len(self))]
            self._order = np.array(sorted(range(len(self)), key=encoded.__getitem__), np.int32)
        return self._order

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @overload
    def __getitem__(self, row: int | np.integer) -> str: ...
    @overload
    def __getitem__(self, row: slice) -> list[str]: ...
    def __getitem__(self, row: Any) -> Any:
        if isinstance(row, slice):
            return [self[each] for each in range(*row.indices(len(self)))]
        if not -len(self) <= row < len(self):
            raise IndexError(row)
        return self._bytes(int(row) % len(self)).decode("utf-8", "surrogatepass")

    def __iter__(self) -> Iterator[str]:
        return iter(self[:])

    def _bytes(self, row: int) -> bytes:
        return self.data[self.offsets[row] : self.offsets[row + 1]].tobytes()

    def row(self, name: str) -> int | None:
        """The first row that holds `name`; None if none does."""
        place = self._place(name)
        if place == len(self):
            return None
        row = int(self.order[place])
        return row if self[row] == name else None

    def _place(self, name: str) -> int:
        wanted = name.encode("utf-8", "surrogatepass")
        return bisect_left(range(len(self)), wanted, key=lambda place: self._bytes(int(self.order[place])))

    def nearest(self, name: str) -> list[str]:
        """The few names most like `name`, best first; may be none."""
        if len(self) <= _FEW:
            candidates = set(self)
        else:
            # What differs from a name in its end lies near it in the order; what lacks or swaps a letter is tried out.
            place = self._place(name)
            near = range(max(0, place - _NEIGHBOURS), min(len(self), place + _NEIGHBOURS))
            candidates = {self[self.order[each]] for each in near}
            candidates |= {each for each in _mended(name) if self.row(each) is not None}
        return difflib.get_close_matches(name, sorted(candidates), n=_HINTS, cutoff=0.5)

    def hint(self, name: str) -> str:
        """The end of an error about a name that is not there: what may have been meant, or which names there are."""
        close = [f"'{each}'" for each in self.nearest(name)]
        if close:
            return f"; did you mean {' or '.join(filter(None, [', '.join(close[:-1]), close[-1]]))}?"
        shown = sorted(self[:12])
        return f"; valid: {', '.join(shown)}{', …' if len(self) > len(shown) else ''}"

    def save(self, folder: Path, stem: str) -> None:
        for part in ("data", "offsets", "order"):
            save_array(folder / f"{stem}.{_ENDINGS[part]}.npy", getattr(self, part))

    @classmethod
    def load(cls, folder: Path, stem: str) -> "Names":
        return cls(*(load_array(folder / f"{stem}.{_ENDINGS[part]}.npy") for part in ("data", "offsets", "order")))


_ENDINGS = {"data": "utf8", "offsets": "offsets", "order": "order"}


def _mended(name: str) -> set[str]:
    """The name in other case, without one of its letters, and with two neighbours swapped."""
    without = {name[:at] + name[at + 1 :] for at in range(len(name))}
    swapped = {name[:at] + name[at + 1] + name[at] + name[at + 2 :] for at in range(len(name) - 1)}
    return {name.upper(), name.lower(), name.strip()} | without | swapped
