"""Two baselines: what others took last, and vectors drawn at random."""

from typing import Any

import numpy as np

from fusionjax.baselines import Baseline, Catalogue
from fusionjax.baselines.popularity import PopularityScorer


class Latest(Baseline[Catalogue]):
    """Ranks products by how many users took them as the last of their training events."""

    @classmethod
    def possible(cls, known: Catalogue) -> bool:
        return known.histories is not None

    def scorer(self, examples: Any) -> PopularityScorer:
        histories = self.known.histories
        assert histories is not None
        last = histories.values[histories.offsets[1:][histories.lengths() > 0] - 1]
        return PopularityScorer(np.bincount(last, minlength=self.known.n_products))


class RandomVectors(Baseline[Catalogue]):
    """Product vectors without any meaning."""

    def scorer(self, examples: Any) -> np.ndarray:
        drawn = np.random.default_rng(self.seed).normal(size=(self.known.n_products, 8))
        return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
