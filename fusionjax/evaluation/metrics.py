"""Metrics from ranks, in plain NumPy.

Ranks are realistic ranks (`ranking`), so a tied target may have a half rank. It then counts as within k if its mean rank
is at most k, and is discounted at its mean rank. Where several targets of one query tie across the cut-off this could exceed
what any order reaches, so NDCG is capped at 1.

NDCG comes in two forms: `ndcg@k` with linear gain (gain = grade; trec_eval, Järvelin & Kekäläinen 2002) and `ndcg_exp@k` with
gain 2^grade − 1 (Burges et al. 2005). Both divide by the ideal order of **all** judged products of the query, retrieved or not.

A metric that is undefined for an example (no relevant product, no target in the segment) is NaN there and left out of the mean.
"""

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from fusionjax.evaluation.ragged import Ragged

if TYPE_CHECKING:  # scores computes with the functions below
    from fusionjax.evaluation.scores import Examples

HEAD, MIDDLE, TAIL, COLD = 0, 1, 2, 3
SEGMENTS = ("head", "middle", "tail", "cold")


@dataclasses.dataclass(frozen=True)
class Result:
    """What an evaluation found.

    `metrics`: name → mean, and counts such as `queries`. `per_example`: the arrays behind the means, aligned with
    `examples.example` (NaN = undefined). `settings`: what was chosen on the way (a baseline's hyper-parameters). `examples`:
    what was asked. `ranks`: `float64`, realistic rank of every target, aligned with `examples.target`: with these two,
    `scores.per_example` gives the metrics again, also of any segment. `tied`: how many candidates score as high as each
    target, where known: its rank is `ranks - tied / 2` if all ties are won, `ranks + tied / 2` if all are lost.
    """

    metrics: dict[str, float]
    per_example: dict[str, np.ndarray]
    settings: dict[str, float | int | str] = dataclasses.field(default_factory=dict)
    examples: "Examples | None" = None
    ranks: np.ndarray | None = None
    tied: np.ndarray | None = None


def mean(values: np.ndarray) -> float:
    """Mean over the examples for which the metric is defined; NaN if there are none."""
    defined = ~np.isnan(values)
    return float(np.mean(values[defined], dtype=np.float64)) if defined.any() else float("nan")


def _per_row(targets: Ragged, weights: np.ndarray) -> np.ndarray:
    """Sum of a value a target, per row."""
    return np.bincount(targets.rows(), weights=np.asarray(weights, np.float64), minlength=len(targets))


def _divide(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """The quotient, NaN where the denominator is 0."""
    return np.divide(numerator, denominator, out=np.full(len(numerator), np.nan), where=denominator > 0)


def _check(targets: Ragged, ranks: np.ndarray) -> None:
    if len(ranks) != len(targets.values):
        raise ValueError(f"{len(ranks)} ranks for {len(targets.values)} targets")
    if len(ranks) and not ranks.min() >= 1:
        raise ValueError(f"ranks start at 1, not {ranks.min()}")


def reciprocal_rank(targets: Ragged, ranks: np.ndarray) -> np.ndarray:
    """1 / rank of each row's best target; its mean is MRR."""
    _check(targets, ranks)
    best = np.full(len(targets), np.inf)
    np.minimum.at(best, targets.rows(), ranks)
    return np.where(targets.lengths() > 0, 1.0 / best, np.nan)


def hits(targets: Ragged, ranks: np.ndarray, k: int) -> np.ndarray:
    """1 for each row with a target of rank ≤ k, else 0."""
    _check(targets, ranks)
    return np.where(targets.lengths() > 0, (_per_row(targets, ranks <= k) > 0).astype(np.float64), np.nan)


def recall(targets: Ragged, ranks: np.ndarray, k: int) -> np.ndarray:
    """Share of each row's targets with rank ≤ k (the denominator is all targets, also where they are more than k)."""
    _check(targets, ranks)
    return _divide(_per_row(targets, ranks <= k), targets.lengths())


def ndcg(
    targets: Ragged, ranks: np.ndarray, k: int, grades: np.ndarray | None = None, *, exponential: bool = False
) -> np.ndarray:
    """NDCG@k of each row.

    Args:
        targets: the judged products of each row (only its shape is used).
        ranks: rank of each of them among all products.
        k: cut-off of both the ranking and the ideal.
        grades: grade ≥ 0 of each judged product; none: all 1 (binary relevance).
        exponential: gain 2^grade − 1 instead of grade.

    Returns:
        `float64 [rows]`; NaN where no judged product has a positive gain.
    """
    _check(targets, ranks)
    grades = np.ones(len(ranks)) if grades is None else np.asarray(grades, np.float64)
    if len(grades) and not grades.min() >= 0:
        raise ValueError(f"grades must be at least 0, not {grades.min()}")
    gains = np.exp2(grades) - 1.0 if exponential else grades
    rows = targets.rows()
    by_rank = np.lexsort((ranks, rows))  # both sums run down the list, so that the ideal order gives exactly 1
    gained = _per_row(targets, np.where(ranks <= k, gains / np.log2(1.0 + ranks), 0.0)[by_rank])
    best_first = np.lexsort((-gains, rows))  # rows stay together, so position − offset is the place in the ideal order
    place = 1 + np.arange(len(rows)) - np.repeat(targets.offsets[:-1], targets.lengths())
    ideal = _per_row(targets, np.where(place <= k, gains[best_first] / np.log2(1.0 + place), 0.0))
    return np.minimum(_divide(gained, ideal), 1.0)


def coverage(recommended: np.ndarray, n_products: int, k: int) -> float:
    """Share of the catalogue that appears in anyone's first k of `recommended [users, ≥ k]` (−1 = nothing)."""
    shown = recommended[:, :k]
    return len(np.unique(shown[shown >= 0])) / n_products


def popularity_segments(train_counts: np.ndarray) -> np.ndarray:
    """Segment code of each product, from its number of **training** events.

    Products are ordered by count, most popular first (ties by row number). A product is `HEAD` if those before it have
    less than a third of all training events, `MIDDLE` if less than two thirds, else `TAIL`; without any training event `COLD`.
    """
    counts = np.asarray(train_counts, np.int64)
    order = np.argsort(-counts, kind="stable")
    before = np.empty(len(counts), np.int64)
    before[order] = np.cumsum(counts[order]) - counts[order]
    total = counts.sum()
    segments = np.where(3 * before < total, HEAD, np.where(3 * before < 2 * total, MIDDLE, TAIL))
    return np.where(counts == 0, COLD, segments).astype(np.int8)
