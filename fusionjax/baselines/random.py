"""Chance: uniform scores, for every task that ranks."""

from typing import Any

import numpy as np

from fusionjax.baselines.base import Baseline, Catalogue, TrainTriples


class RandomScorer:
    """Uniform scores; a row's depend on nothing but `seed`, `stream` and the row's number."""

    def __init__(self, n_candidates: int, seed: int, stream: int = 0) -> None:
        self.n_candidates, self._key = n_candidates, 8 * seed + stream

    def scores(self, rows: np.ndarray) -> np.ndarray:
        table = np.empty((len(rows), self.n_candidates), np.float32)
        for i, row in enumerate(rows):
            source = np.random.Philox(key=np.array([self._key, row], np.uint64))
            np.random.Generator(source).random(dtype=np.float32, out=table[i])
        return table


class Random(Baseline[Catalogue]):
    """Ranks products at random."""

    def scorer(self, examples: Any) -> RandomScorer:
        return RandomScorer(self.known.n_products, self.seed)


class RandomEntities(Baseline[TrainTriples]):
    """Ranks entities at random, tails and heads independently."""

    def scorer(self, examples: Any) -> tuple[RandomScorer, RandomScorer]:
        n = self.known.n_entities
        return RandomScorer(n, self.seed, 1), RandomScorer(n, self.seed, 2)
