"""A metric of ranks: rank-biased precision (Moffat and Zobel 2008) of readers who go on with chance 0.8."""

import numpy as np

from fusionjax.evaluation.metrics import Asked, Metric


def _rbp(asked: Asked, k: int) -> np.ndarray:
    gained = 0.2 * 0.8 ** (asked.first - 1.0)
    each = np.bincount(asked.relevant.rows(), gained, len(asked.relevant))
    return np.where(asked.relevant.lengths() > 0, each, np.nan)


rbp = Metric(_rbp, "none")
