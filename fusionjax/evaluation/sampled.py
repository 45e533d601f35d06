"""What a sample of test examples says of all of them: an unbiased number, and how sure it is.

Some of the test triples are each ranked among *all* entities, so n of N cost n / N. Ranks among a sample of the *candidates*
would be another thing: far too high, and able to order two models wrongly (Krichene and Rendle, On Sampled Metrics for Item
Recommendation, KDD 2020).
"""

from typing import NamedTuple

import numpy as np
import scipy.special

from fusionjax.evaluation.metrics import Result

LEVEL = 0.95


class Estimate(NamedTuple):
    """A number, its standard error and its 95 % interval; from `n` of `population` examples."""

    value: float
    standard_error: float
    low: float
    high: float
    n: int
    population: int


def mean_of_sample(values: np.ndarray, population: int) -> Estimate:
    """The mean of a population, from a simple random sample without repetition.

    Standard error s / √n · √(1 − n / N) (Cochran, Sampling Techniques, 1977), interval by Student's t. Values within 0 … 1 have
    intervals within 0 … 1. Of one value the error is NaN; if all values are equal it is 0, which is too bold for a small n.
    """
    values = np.asarray(values, np.float64)
    n = len(values)
    if not 1 <= n <= population:
        raise ValueError(f"a sample of {n} from {population}")
    value = float(values.mean())
    spread = float(values.std(ddof=1)) if n > 1 else float("nan")
    error = 0.0 if n == population else spread / n**0.5 * (1 - n / population) ** 0.5
    return _estimate(value, error, n - 1, n, population, bounded=bool((values >= 0).all() and (values <= 1).all()))


def _estimate(value: float, error: float, freedom: int, n: int, population: int, *, bounded: bool) -> Estimate:
    reach = 0.0 if error == 0 else float(scipy.special.stdtrit(max(freedom, 1), (1 + LEVEL) / 2)) * error
    low, high = value - reach, value + reach
    return Estimate(value, error, max(low, 0.0) if bounded else low, min(high, 1.0) if bounded else high, n, population)


def estimates_of(result: Result, population: int) -> dict[str, Estimate]:
    """Of every metric of a link prediction result on a random sample of `population` triples.

    A triple, with the mean of its two directions, is one example: its two ranks are not independent.
    """
    return {name: mean_of_sample(values, population) for name, values in result.per_example.items()}
