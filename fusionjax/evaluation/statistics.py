"""Intervals, tests and power for a metric of examples × training seeds: `values[..., seed, example]`, any leading axes.

Both are samples: other users could have come, and another seed could have been drawn. They are crossed, since every seed is
measured on the same examples. A mean over S seeds and n examples therefore has the variance of a two-way random model

    Var = a + b,    a = sigma²_example / n,    b = sigma²_seed / S + sigma²_interaction / (n S)

(Cornfield & Tukey 1956; the crossed clusters of Cameron, Gelbach & Miller, JBES 2011). `a` is known well, from thousands of
examples; `b` only from the means of the S seeds, S − 1 degrees of freedom. So it is judged by sqrt(a) Z + sqrt(b) t[S − 1],
the law of Behrens and Fisher, which errs on the safe side (Robinson, Annals of Statistics 1976). Satterthwaite's t, as in the
quasi-F of Clark (1973), was tried and set aside: with three seeds it rejects up to 7 % at a nominal 5 % and 3 % at 0.5 %, where
corrected tests live. A difference must also pass the randomisation test over examples, which supposes no normal law and guards
against three seeds that agree by luck: p is the larger of the two. In simulations a nominal 5 % is 1 to 5 %, the least
where the seeds do not differ but the interaction dominates. A test that exploits three seeds further cannot hold its level:
the seeds' means alone say how much seeds differ.

With one seed nothing can be said about others: results are `conditional` on that seed, which no text about them may omit.
An example counts in a column where it is defined (not NaN) for every seed.
"""

import dataclasses

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from fusionjax.evaluation.multiple import Friedman, benjamini_hochberg, friedman, holm, nemenyi_quantile
from fusionjax.evaluation.resampling import bootstrap_means, randomisation_test
from fusionjax.evaluation.variance import (
    Variance,
    crossed_values,
    crossed_variance,
    defined_mean,
    minimum_detectable_effect,
    mixed_tail,
    power,
)

__all__ = [
    "Comparisons",
    "Friedman",
    "Variance",
    "benjamini_hochberg",
    "bootstrap_means",
    "compare",
    "crossed_variance",
    "friedman",
    "hierarchical_bootstrap",
    "holm",
    "minimum_detectable_effect",
    "nemenyi_quantile",
    "power",
    "randomisation_test",
    "seed_means",
]

Array = NDArray[np.float64]


def seed_means(values: ArrayLike) -> Array:
    """Mean over examples for every seed, [..., S]: its mean is the estimate, its `std(ddof=1)` the spread over seeds."""
    return defined_mean(crossed_values(values), -1)


# ------------------------------------------------------------------------------------------------------------ intervals
def _interval(means: Array, mean: Array, variance: Variance, level: float, seed: int) -> tuple[Array, Array]:
    """See `hierarchical_bootstrap`; `means` [R, ...] are those of resampled examples."""
    tails = [(1 - level) / 2, (1 + level) / 2]
    resamples = len(means)
    usable = np.isfinite(mean) & np.isfinite(variance.examples)
    deviation = np.where(usable, means - mean, 0.0)
    conditional = _quantile(deviation, tails)
    # Strata of equal probability in random order: Student's tail is hit evenly, not by the luck of 2,000 draws.
    strata = (np.random.Generator(np.random.Philox(seed).jumped()).permutation(resamples) + 0.5) / resamples
    student = special.stdtrit(np.clip(variance.freedom, 1.0, None), strata.reshape(-1, *(1,) * mean.ndim))
    with np.errstate(invalid="ignore", divide="ignore"):
        shrunk = np.where(variance.examples > 0, np.sqrt(variance.pure / variance.examples), 0.0)
        both = _quantile(np.where(usable, deviation * shrunk + student * np.sqrt(variance.drawn), 0.0), tails)
    low, high = np.minimum(conditional[0], both[0]), np.maximum(conditional[1], both[1])
    return np.where(usable, mean + low, np.nan), np.where(usable, mean + high, np.nan)


def _quantile(deviation: Array, tails: list[float]) -> Array:
    # nanquantile goes column by column in Python: only where a resample missed every defined example.
    return np.nanquantile(deviation, tails, axis=0) if np.isnan(deviation).any() else np.quantile(deviation, tails, axis=0)


def hierarchical_bootstrap(values: ArrayLike, resamples: int, seed: int, level: float = 0.95) -> tuple[Array, Array]:
    """Interval of the mean over seeds and examples that covers the choice of both.

    Examples are resampled, the same for all columns and seeds (the pigeonhole bootstrap of Owen, Annals of Applied Statistics
    2007). Resampling the seeds as well would count the interaction three times and, with 3 seeds, make their part too narrow
    by sqrt(2/3) and without tails: in simulations 95 % are 77 %. Instead the deviation of the examples is shrunk to their
    own part `a`, and the seeds' part is a parametric bootstrap, sqrt(b) t[S − 1]. The interval holds at least that of
    resampled examples alone, which is all there is with one seed.

    Args:
      values: [..., S, n].
      resamples: of the examples, e.g. 2000.

    Returns:
      low, high [...]; NaN with fewer than two defined examples.
    """
    values = crossed_values(values)
    by_example = values.mean(axis=-2)
    means = bootstrap_means(by_example, resamples, seed)
    return _interval(means, defined_mean(by_example, -1), crossed_variance(values), level, seed)


# ---------------------------------------------------------------------------------------------------------- comparisons
@dataclasses.dataclass(frozen=True)
class Comparisons:
    """Rows against a reference, arrays of the leading shape; NaN where fewer than two examples are defined for both."""

    difference: Array
    """Row − reference: positive where the row is better, for a metric where more is better."""
    low: Array
    high: Array
    """`hierarchical_bootstrap` interval of the difference."""
    p: Array
    """Two-sided, not corrected: the larger of the two below; with one seed the first."""
    p_examples: Array
    """Randomisation test over examples of the difference averaged over seeds: for these seeds only."""
    p_seeds: Array
    """Crossed-variance test over examples and seeds; NaN with one seed."""
    effect_size: Array
    """Cohen's d_z: mean over standard deviation, over examples, of the difference averaged over seeds. NaN without spread."""
    relative: Array
    """Difference over the mean of the reference; NaN where that is 0."""
    variance: Variance
    """Of the difference, for `power` and `minimum_detectable_effect`."""
    conditional: bool
    """One seed only: p and interval hold for this seed, not for the training procedure."""


def compare(
    row: ArrayLike,
    reference: ArrayLike,
    *,
    paired: bool = True,
    resamples: int = 2000,
    randomisations: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
) -> Comparisons:
    """Compares rows with a reference on the same examples.

    Args:
      row: [..., S, n]; leading axes broadcast with those of `reference`.
      reference: [..., S or 1, n]. One of two sides with a single seed against several (a baseline without training) is fixed:
        its own seed, if it has one, is not accounted for.
      paired: seed s of one belongs to seed s of the other (it drew the same data, order or graph). Otherwise the seeds of both
        vary on their own: up to twice the degrees of freedom (with three seeds, at an alpha of 0.003 as after a correction, the
        detectable difference is up to 60 % smaller), and on the safe side if equal seeds help or hurt both alike. Choose
        before seeing results.
      resamples: of the bootstrap.
      randomisations: random sign flips; p is at least 1 / (1 + randomisations).
    """
    row, reference = crossed_values(row), crossed_values(reference)
    if row.shape[-1] != reference.shape[-1]:
        raise ValueError(f"compare: {row.shape[-1]} examples of the row, {reference.shape[-1]} of the reference")
    s, other = row.shape[-2], reference.shape[-2]
    if paired and 1 not in (s, other) and s != other:
        raise ValueError(f"compare: {s} seeds of the row, {other} of the reference; paired seeds must be the same")
    if paired or 1 in (s, other):
        differences = crossed_values(row - reference)
        by_example = differences.mean(axis=-2)
        variance = crossed_variance(differences)
    else:
        by_example = row.mean(axis=-2) - reference.mean(axis=-2)
        variance = _unpaired(row, reference, by_example)
    difference = defined_mean(by_example, -1)
    usable = np.isfinite(variance.examples)
    low, high = _interval(bootstrap_means(by_example, resamples, seed), difference, variance, level, seed)
    p_examples = np.where(usable, randomisation_test(by_example, randomisations, seed), np.nan)
    conditional = variance.n_seeds == 1
    p_seeds = np.full(difference.shape, np.nan)
    if not conditional:
        p_seeds = mixed_tail(difference, variance.pure, variance.drawn, variance.freedom)
    spread = np.sqrt(variance.examples * variance.n)
    against = np.where(np.isnan(by_example)[..., None, :], np.nan, reference).mean(axis=-2)
    base = defined_mean(against, -1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return Comparisons(
            difference=np.where(usable, difference, np.nan),
            low=low,
            high=high,
            p=np.fmax(p_examples, p_seeds),
            p_examples=p_examples,
            p_seeds=p_seeds,
            effect_size=np.where(spread > 0, difference / spread, np.nan),
            relative=np.where(usable & (base != 0), difference / base, np.nan),
            variance=variance,
            conditional=conditional,
        )


def _unpaired(row: Array, reference: Array, by_example: Array) -> Variance:
    """Of a difference of means over the same examples but over seeds drawn apart: the seeds' parts add up (Welch 1947)."""
    undefined = np.isnan(by_example)[..., None, :]
    first, second = (crossed_variance(np.where(undefined, np.nan, side)) for side in (row, reference))
    seeds, n_seeds = first.seeds + second.seeds, min(first.n_seeds, second.n_seeds)
    with np.errstate(divide="ignore", invalid="ignore"):
        freedom = seeds**2 / (first.seeds**2 / first.freedom + second.seeds**2 / second.freedom)
    return Variance(
        examples=crossed_variance(by_example[..., None, :]).examples,
        seeds=seeds,
        interaction=first.interaction + second.interaction,
        freedom=np.where(seeds > 0, freedom, n_seeds - 1.0),
        n=first.n,
        n_seeds=n_seeds,
    )
