"""The known triples, sorted twice, so that the answers to a question are found by binary search in memory-mapped arrays."""

import dataclasses
from pathlib import Path

import numpy as np

from fusionjax.retrieval.names import load_array, save_array


@dataclasses.dataclass(frozen=True)
class Known:
    by_head: np.ndarray
    """int32 [3, n]: head, relation, tail of every triple, in that order; rows are contiguous, so that each can be searched."""
    by_tail: np.ndarray
    """int32 [3, n]: tail, relation, head, likewise."""

    @classmethod
    def of(cls, triples: np.ndarray) -> "Known":
        """From int [n, 3] (head, relation, tail), repetitions allowed."""
        head, relation, tail = np.asarray(triples, np.int32).reshape(-1, 3).T
        return cls(_sorted(head, relation, tail), _sorted(tail, relation, head))

    def tails(self, head: int, relation: int) -> np.ndarray:
        """int32: known tails, sorted."""
        return _found(self.by_head, head, relation)

    def heads(self, relation: int, tail: int) -> np.ndarray:
        """int32: known heads, sorted."""
        return _found(self.by_tail, tail, relation)

    def has(self, head: int, relation: int, tail: int) -> bool:
        tails = self.tails(head, relation)
        place = int(np.searchsorted(tails, tail))
        return place < len(tails) and int(tails[place]) == tail

    def save(self, folder: Path, stem: str) -> None:
        for side in ("by_head", "by_tail"):
            save_array(folder / f"{stem}.{side}.npy", getattr(self, side))

    @classmethod
    def load(cls, folder: Path, stem: str) -> "Known":
        return cls(*(load_array(folder / f"{stem}.{side}.npy") for side in ("by_head", "by_tail")))


def _sorted(first: np.ndarray, second: np.ndarray, third: np.ndarray) -> np.ndarray:
    rows = np.lexsort((third, second, first))
    return np.stack([first[rows], second[rows], third[rows]])


def _found(table: np.ndarray, first: int, second: int) -> np.ndarray:
    start, stop = np.searchsorted(table[0], [first, first + 1])
    inside = table[1, start:stop]
    low, high = np.searchsorted(inside, [second, second + 1])
    return np.asarray(table[2, start + low : start + high])
