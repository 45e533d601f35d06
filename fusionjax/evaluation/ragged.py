"""Rows of different length as two flat arrays."""

import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Ragged:
    """Rows of different length: row i is `values[offsets[i]:offsets[i + 1]]` (CSR)."""

    offsets: np.ndarray
    values: np.ndarray

    def __post_init__(self) -> None:
        if len(self.offsets) < 1 or self.offsets[0] != 0 or self.offsets[-1] != len(self.values):
            raise ValueError(f"Ragged: offsets must run from 0 to {len(self.values)}, the number of values")
        if (np.diff(self.offsets) < 0).any():
            raise ValueError("Ragged: offsets decrease")

    @classmethod
    def of(cls, rows: Iterable[Any]) -> "Ragged":
        """From a list of lists of row numbers."""
        rows = [np.asarray(row, np.int32).reshape(-1) for row in rows]
        values = np.concatenate(rows) if rows else np.zeros(0, np.int32)
        return cls(np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64), values)

    @classmethod
    def from_pairs(cls, row: np.ndarray, value: np.ndarray, n_rows: int) -> "Ragged":
        """Groups parallel columns by `row`; within a row the order of the input is kept."""
        row = np.asarray(row)
        if len(row) and not 0 <= row.min() <= row.max() < n_rows:
            raise ValueError(f"Ragged.from_pairs: rows from {row.min()} to {row.max()}, expected within 0 … {n_rows - 1}")
        order = np.argsort(row, kind="stable")
        offsets = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=n_rows))]).astype(np.int64)
        return cls(offsets, np.asarray(value, np.int32)[order])

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> np.ndarray:
        return self.values[self.offsets[row] : self.offsets[row + 1]]

    def lengths(self) -> np.ndarray:
        return np.diff(self.offsets)

    def rows(self) -> np.ndarray:
        """The row number of every value."""
        return np.repeat(np.arange(len(self)), self.lengths())

    def take(self, rows: np.ndarray) -> "Ragged":
        """The given rows, in that order."""
        rows = np.asarray(rows, np.int64)
        lengths = self.lengths()[rows]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        source = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths) + np.repeat(self.offsets[rows], lengths)
        return Ragged(offsets, self.values[source])

    def distinct(self) -> "Ragged":
        """Every row sorted, without repetition."""
        rows = self.rows()
        if ((np.diff(self.values) > 0) | (np.diff(rows) > 0)).all():
            return self
        span = np.int64(1) + self.values.max(initial=0)
        pairs = np.unique(rows * span + self.values)
        return Ragged.from_pairs(pairs // span, pairs % span, len(self))

    def without(self, other: "Ragged") -> "Ragged":
        """The values of each row that the same row of `other` lacks."""
        if len(self) != len(other):
            raise ValueError(f"Ragged.without: {len(self)} rows against {len(other)}")
        span = 1 + max(self.values.max(initial=0), other.values.max(initial=0))
        keep = ~np.isin(self.rows() * np.int64(span) + self.values, other.rows() * np.int64(span) + other.values)
        return Ragged.from_pairs(self.rows()[keep], self.values[keep], len(self))

    def padded(self, width: int) -> np.ndarray:
        """`int32 [rows, width]`, −1 where a row is shorter."""
        table = np.full((len(self), width), -1, np.int32)
        table[np.arange(width)[None] < self.lengths()[:, None]] = self.values
        return table
