"""The best of many scores, exactly and without sorting them all."""

import numpy as np


def best_rows(scores: np.ndarray, k: int) -> np.ndarray:
    """Rows of the k highest scores, best first, equal ones by row; those of −inf are left out.

    Args:
      scores: float [n], no NaN.
      k: at least 1.
    """
    n = len(scores)
    if k < n:
        least = np.partition(scores, n - k)[n - k]
        above = np.flatnonzero(scores > least)
        level = np.flatnonzero(scores == least)[: k - len(above)]
        rows = np.concatenate([above, level])
    else:
        rows = np.arange(n)
    rows = rows[scores[rows] > -np.inf]
    return rows[np.lexsort((rows, -scores[rows]))]
