"""Estimates and comparisons of many columns at once: rows of a study that have the same number of seeds share their resamples.

Numbers are rounded here, before anything is made of them: the same scores give the same digits on every machine.
"""

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import numpy as np

from fusionjax.evaluation import statistics
from fusionjax.evaluation.statistics import Variance

POWER = 0.8
"""With which a minimum detectable difference would be found."""
_DECIMALS = 10
"""That are kept of every number: sums in another order, on another processor, differ in the sixteenth."""
Key = tuple[str, tuple[str, str] | None]
"""(metric, segment) of a table."""
Values = dict[str, dict[int | None, np.ndarray]]
"""Row → seed (None: a baseline) → metric of every example, `float64 [examples]`, NaN where it is undefined."""

_Name = TypeVar("_Name", str, tuple[str, str])


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Mean of a metric over seeds and examples; its interval covers the choice of both."""

    mean: float
    std: float | None
    """Sample standard deviation of the seeds' means; none with fewer than two seeds."""
    low: float | None
    high: float | None
    """95 % interval over examples × seeds (`statistics.hierarchical_bootstrap`); none with fewer than two examples."""
    seeds: int
    """How many were measured; 1 for a baseline."""
    examples: int
    """For which the metric is defined."""


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A row against another (the reference, unless it is a contrast), paired by seed and example."""

    difference: float
    """This row's mean minus the other's, over the seeds both have."""
    low: float
    high: float
    p: float
    """Two-sided."""
    p_adjusted: float
    """Corrected over the family."""
    effect_size: float | None
    """Cohen's d_z over examples; none where the differences do not vary."""
    significant: bool
    seeds: int = 1
    """Of the comparison. With one, interval and p hold for that seed, not for the training procedure."""


def estimate_all(values: dict[Key, Values], settings: dict[str, Any]) -> dict[tuple[Key, str], Estimate]:
    """(table, row) → estimate; not in the result: nothing is defined."""
    groups: dict[int, list[tuple[Key, str]]] = {}
    for key, measured in values.items():
        for row, seeds in measured.items():
            groups.setdefault(len(seeds), []).append((key, row))
    found: dict[tuple[Key, str], Estimate] = {}
    for count, names in groups.items():
        stacked = np.stack([np.stack(list(values[key][row].values())) for key, row in names])
        low, high = statistics.hierarchical_bootstrap(stacked, settings["resamples"], settings["seed"])
        means = statistics.seed_means(stacked)
        for place, name in enumerate(names):
            mean = rounded(means[place].mean())
            if mean is not None:
                std = rounded(means[place].std(ddof=1)) if count > 1 else None
                examples = int((~np.isnan(stacked[place, 0])).sum())
                found[name] = Estimate(mean, std, rounded(low[place]), rounded(high[place]), count, examples)
    return found


@dataclasses.dataclass(frozen=True)
class Pair:
    """One column of `statistics.Comparisons`."""

    difference: float
    low: float
    high: float
    p: float
    effect_size: float | None
    variance: Variance
    seeds: int


def compare_all(
    values: dict[Key, Values], pairs: Sequence[tuple[str, str]], settings: dict[str, Any]
) -> dict[tuple[Key, str, str], Pair]:
    """(table, row, other) → the pair, on the seeds both have; not in the result: no such seed, or fewer than two examples."""
    groups: dict[int, list[tuple[tuple[Key, str, str], np.ndarray, np.ndarray]]] = {}
    for key, measured in values.items():
        for row, other in pairs:
            sides = _paired(measured.get(row, {}), measured.get(other, {}))
            if sides is not None:
                groups.setdefault(len(sides[0]), []).append(((key, row, other), *sides))
    found: dict[tuple[Key, str, str], Pair] = {}
    for count, columns in groups.items():
        compared = statistics.compare(
            np.stack([left for _, left, _ in columns]),
            np.stack([right for _, _, right in columns]),
            resamples=settings["resamples"],
            randomisations=settings["randomisations"],
            seed=settings["seed"],
        )
        for place, (name, _, _) in enumerate(columns):
            numbers = [rounded(part[place]) for part in (compared.difference, compared.low, compared.high, compared.p)]
            difference, low, high, p = numbers
            if difference is not None and low is not None and high is not None and p is not None:
                effect = rounded(compared.effect_size[place])
                found[name] = Pair(difference, low, high, p, effect, _column(compared.variance, place), count)
    return found


def _paired(row: dict[int | None, np.ndarray], other: dict[int | None, np.ndarray]) -> tuple[np.ndarray, np.ndarray] | None:
    """Both sides [seeds in common, examples]; a baseline is repeated for every seed of the other side."""
    if not row or not other:
        return None
    seeds = [seed for seed in row if seed in other]
    if None in row and None not in other:
        seeds, row = list(other), dict.fromkeys(other, row[None])
    elif None in other and None not in row:
        seeds, other = list(row), dict.fromkeys(row, other[None])
    return (np.stack([row[seed] for seed in seeds]), np.stack([other[seed] for seed in seeds])) if seeds else None


def _column(variance: Variance, place: int) -> Variance:
    """Of one column alone, still an array."""
    names = ("examples", "seeds", "interaction", "freedom", "n")
    return dataclasses.replace(variance, **{name: getattr(variance, name)[place : place + 1] for name in names})


def correct(pairs: dict[_Name, Pair], settings: dict[str, Any]) -> dict[_Name, Comparison]:
    """With p-values corrected over all of them."""
    adjust = {"holm": statistics.holm, "benjamini_hochberg": statistics.benjamini_hochberg}[settings["correction"]]
    adjusted = adjust([pair.p for pair in pairs.values()])
    found = {}
    for (name, pair), corrected in zip(pairs.items(), adjusted, strict=True):
        p = min(1.0, round(float(corrected), _DECIMALS))
        found[name] = Comparison(
            pair.difference, pair.low, pair.high, pair.p, p, pair.effect_size, p < settings["alpha"], pair.seeds
        )
    return found


def detectable_difference(pairs: Iterable[Pair], comparisons: int, settings: dict[str, Any]) -> float | None:
    """Of the pair that is hardest to tell apart, at the strictest level the correction asks for."""
    found = [statistics.minimum_detectable_effect(pair.variance, settings["alpha"] / comparisons, POWER)[0] for pair in pairs]
    return max((x for x in map(rounded, found) if x is not None), default=None)


def defined_mean(array: np.ndarray) -> float | None:
    """Mean over the examples for which a metric is defined."""
    defined = array[~np.isnan(array)]
    return rounded(defined.mean()) if len(defined) else None


def rounded(value: Any) -> float | None:
    """A plain float, None where it is not finite; minus zero is zero."""
    return round(float(value), _DECIMALS) + 0.0 if math.isfinite(value) else None
