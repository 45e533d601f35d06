"""Many comparisons at once: corrected p-values, and the Friedman test with Nemenyi's critical difference."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Array = NDArray[np.float64]


def _adjusted(p: ArrayLike | Sequence[float | None], adjust: Callable[[Array], Array]) -> Array:
    """Applies `adjust`, a function of sorted p-values, to those that are there; NaN or None stays NaN and does not count."""
    p = np.asarray(p, np.float64)
    given = ~np.isnan(p)
    known = p[given]
    if ((known < 0) | (known > 1)).any():
        raise ValueError(f"p-values from {known.min():g} to {known.max():g}, expected within 0 … 1")
    adjusted = np.full(p.shape, np.nan)
    if known.size:
        order = np.argsort(known, kind="stable")
        result = np.empty_like(known)
        result[order] = np.minimum(adjust(known[order]), 1.0)
        adjusted[given] = result
    return adjusted


def holm(p: ArrayLike | Sequence[float | None]) -> Array:
    """Adjusted p-values that hold the probability of any false positive (Holm, Scandinavian Journal of Statistics 1979).

    Any shape; NaN or None (not compared) is passed through as NaN and not counted.
    """
    return _adjusted(p, lambda known: np.maximum.accumulate(known * np.arange(known.size, 0, -1)))


def benjamini_hochberg(p: ArrayLike | Sequence[float | None]) -> Array:
    """Adjusted p-values that hold the expected share of false positives among positives (Benjamini & Hochberg, JRSS B 1995).

    Any shape; NaN or None (not compared) is passed through as NaN and not counted.
    """

    def step_up(known: Array) -> Array:
        return np.minimum.accumulate((known * known.size / np.arange(1, known.size + 1))[::-1])[::-1]

    return _adjusted(p, step_up)


@dataclasses.dataclass(frozen=True)
class Friedman:
    """What a critical-difference diagram shows. Rank 1 is the best row."""

    mean_ranks: Array
    """[rows]"""
    p: float
    """That all rows are equal: the F form of Iman & Davenport (1980)."""
    statistic: float
    """Friedman's chi-squared, corrected for ties, with rows − 1 degrees of freedom."""
    critical_difference: float
    """Mean ranks further apart than this differ (Nemenyi 1963)."""
    groups: tuple[tuple[int, ...], ...]
    """Maximal sets of two or more rows, best first, in which no two differ; overlapping as they may."""
    blocks: int
    """Blocks that were used: those defined for all rows."""


def nemenyi_quantile(rows: int, alpha: float = 0.05) -> float:
    """q_alpha of Demšar 2006, table 5a: the studentised range of `rows` normal means, divided by the square root of 2."""
    return float(stats.studentized_range.ppf(1 - alpha, rows, np.inf)) / 2**0.5


def friedman(scores: ArrayLike, alpha: float = 0.05) -> Friedman:
    """Friedman test and Nemenyi critical difference (Demšar, Statistical Comparisons of Classifiers, JMLR 2006).

    Blocks must be independent: data sets or examples, not the folds or seeds of one data set.

    Args:
      scores: [blocks, rows], higher is better; equal scores share their mean rank. Blocks with a NaN are left out.

    Raises:
      ValueError: fewer than two rows, or fewer than two blocks that are defined for all rows.
    """
    scores = np.asarray(scores, np.float64)
    if scores.ndim != 2 or scores.shape[1] < 2:
        raise ValueError(f"Friedman test: scores of shape {scores.shape}, expected [blocks, at least 2 rows]")
    scores = scores[~np.isnan(scores).any(axis=1)]
    blocks, rows = scores.shape
    if blocks < 2:
        raise ValueError(f"Friedman test: {blocks} blocks defined for all {rows} rows, expected at least 2")
    ranks = stats.rankdata(-scores, axis=1)
    mean_ranks = ranks.mean(axis=0)
    # Where all is tied within blocks there is nothing to tell rows apart by: statistic 0.
    spread = ((ranks - (rows + 1) / 2) ** 2).sum()
    statistic = float(blocks * (rows - 1) * blocks * ((mean_ranks - (rows + 1) / 2) ** 2).sum() / spread) if spread else 0.0
    left = blocks * (rows - 1) - statistic
    f = (blocks - 1) * statistic / left if left > 1e-9 else np.inf
    distance = nemenyi_quantile(rows, alpha) * (rows * (rows + 1) / (6 * blocks)) ** 0.5
    return Friedman(
        mean_ranks=mean_ranks,
        p=float(stats.f.sf(f, rows - 1, (rows - 1) * (blocks - 1))),
        statistic=statistic,
        critical_difference=distance,
        groups=_groups(mean_ranks, distance),
        blocks=blocks,
    )


def _groups(mean_ranks: Array, distance: float) -> tuple[tuple[int, ...], ...]:
    order = np.argsort(mean_ranks, kind="stable")
    groups: list[tuple[int, ...]] = []
    reach = 0
    for start in range(len(order)):
        end = start
        while end < len(order) and mean_ranks[order[end]] - mean_ranks[order[start]] <= distance:
            end += 1
        if end - start > 1 and end > reach:
            groups.append(tuple(int(row) for row in order[start:end]))
        reach = max(reach, end)
    return tuple(groups)
