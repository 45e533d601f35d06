"""Triple classification without learning: all are true, or those whose ends the relation has often."""

import abc
from collections.abc import Callable
from typing import Any

import numpy as np

from fusionjax.baselines.base import Baseline, TrainTriples

Score = Callable[[np.ndarray], np.ndarray]
"""Triples int [n, 3] -> scores float64 [n], or bool [n] where it is decided without a threshold."""


class AlwaysTrue(Baseline[TrainTriples]):
    """Calls every triple true; no thresholds: where most validation triples are false these would call none true."""

    def scorer(self, examples: Any) -> Score:
        return lambda triples: np.ones(len(triples), bool)


class _Frequency(Baseline[TrainTriples]):
    def scorer(self, examples: Any) -> Score:
        return self.score

    @abc.abstractmethod
    def score(self, triples: np.ndarray) -> np.ndarray: ...

    def count(self, triples: np.ndarray, end: int) -> np.ndarray:
        """float64 [n]: training triples with the same relation and the same entity in column `end`."""
        train = np.asarray(self.known.triples, np.int64)
        key, times = np.unique(train[:, 1] << 32 | train[:, end], return_counts=True)
        asked = np.asarray(triples, np.int64)
        wanted = asked[:, 1] << 32 | asked[:, end]
        if not len(key):
            return np.zeros(len(wanted))
        place = np.minimum(np.searchsorted(key, wanted), len(key) - 1)
        return np.where(key[place] == wanted, times[place], 0).astype(np.float64)


class TailFrequency(_Frequency):
    """Training triples with this relation and tail."""

    def score(self, triples: np.ndarray) -> np.ndarray:
        return self.count(triples, 2)


class EndFrequency(_Frequency):
    """Training triples with this relation and tail, times those with this relation and head (each + 1)."""

    def score(self, triples: np.ndarray) -> np.ndarray:
        return np.log1p(self.count(triples, 2)) + np.log1p(self.count(triples, 0))
