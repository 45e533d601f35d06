"""Variance of a mean over examples × training seeds, the law it is judged by, and the power of that.

Why this model and this law: see `fusionjax.evaluation.statistics`.
"""

import dataclasses

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

Array = NDArray[np.float64]

_MOST_FREEDOM = 200.0
"""Student's t with more degrees of freedom than this is computed with this many: the quadrature below resolves no more."""
_MOST_AT_ONCE = 4096
"""Critical distances sought at once: each takes 320 nodes."""


def crossed_values(values: ArrayLike) -> Array:
    """[..., S, n], with an example that is undefined for one seed undefined for all."""
    values = np.asarray(values, np.float64)
    if values.ndim < 2 or not values.shape[-1] or not values.shape[-2]:
        raise ValueError(f"expected values of shape [..., seeds, examples], got {values.shape}")
    if np.isinf(values).any():
        raise ValueError("values: infinite; a metric undefined for an example is NaN")
    undefined = np.isnan(values).any(axis=-2, keepdims=True)
    return np.where(undefined, np.nan, values) if undefined.any() else values


def defined_mean(values: Array, axis: int) -> Array:
    """Mean of what is defined; NaN, without a warning, where nothing is."""
    defined = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.where(defined, values, 0.0).sum(axis=axis) / defined.sum(axis=axis)


# ------------------------------------------------------------------------------------------------------------- variance
@dataclasses.dataclass(frozen=True)
class Variance:
    """Estimated parts of the variance of a mean over seeds and examples. Arrays of the leading shape; NaN: not estimable."""

    examples: Array
    """Of the mean over examples for these very seeds: V(example means) / n. Holds a and the interaction."""
    seeds: Array
    """Of the mean over seeds for these very examples: V(seed means) / S, an estimate of b. NaN with one seed."""
    interaction: Array
    """sigma²_interaction / (n S), which is in both of the above. NaN with one seed."""
    freedom: Array
    """Degrees of freedom of `seeds`; 0 with one seed."""
    n: Array
    """Examples that are defined."""
    n_seeds: int

    @property
    def pure(self) -> Array:
        """a: of the examples alone; with one seed `examples`, since the interaction is unknown."""
        return np.where(self.freedom > 0, np.maximum(self.examples - self.interaction, 0.0), self.examples)

    @property
    def drawn(self) -> Array:
        """b as estimated; 0 with one seed."""
        return np.where(self.freedom > 0, self.seeds, 0.0)

    def planned(self, n: int | None = None, n_seeds: int | None = None) -> "Variance":
        """Of a study with more (or fewer) examples or seeds, from the parts as estimated here; of at least two seeds."""
        if min(self.n_seeds, n_seeds or self.n_seeds) < 2:
            raise ValueError(
                f"planned: from {self.n_seeds} to {n_seeds or self.n_seeds} seeds; seeds vary, at least 2 are needed"
            )
        more = 1.0 if n is None else n / self.n
        most = 1.0 if n_seeds is None else n_seeds / self.n_seeds
        interaction = self.interaction / (more * most)
        return Variance(
            examples=self.pure / more + interaction,
            seeds=np.maximum(self.seeds - self.interaction, 0.0) / most + interaction,
            interaction=interaction,
            freedom=self.freedom if n_seeds is None else self.freedom * (n_seeds - 1) / (self.n_seeds - 1),
            n=self.n if n is None else np.full_like(self.n, n),
            n_seeds=self.n_seeds if n_seeds is None else n_seeds,
        )


def crossed_variance(values: ArrayLike) -> Variance:
    """Variance of the mean of `values` [..., S, n] by the mean squares of a two-way layout without replication."""
    values = crossed_values(values)
    shape, s = values.shape[:-2], values.shape[-2]
    parts = np.full((4, int(np.prod(shape))), np.nan)
    # A column at a time: temporaries stay small, and undefined examples are simply left out.
    for column, cells in enumerate(values.reshape(-1, *values.shape[-2:])):
        cells = cells[:, ~np.isnan(cells[0])]
        n = parts[3, column] = cells.shape[1]
        if n < 2:
            continue
        by_example, by_seed = cells.mean(axis=0), cells.mean(axis=1)
        parts[0, column] = by_example.var(ddof=1) / n
        if s > 1:
            residual = cells - by_example - by_seed[:, None] + by_example.mean()
            parts[1, column] = by_seed.var(ddof=1) / s
            parts[2, column] = (residual**2).sum() / ((n - 1) * (s - 1)) / (n * s)
    examples, seeds, interaction, n = (part.reshape(shape) for part in parts)
    return Variance(examples, seeds, interaction, np.full(shape, s - 1.0), n, s)


# ------------------------------------------------------------------------------------------------------ Behrens and Fisher
def _chi(freedom: Array, nodes: int) -> tuple[Array, Array]:
    """Nodes u [nodes] and weights [..., nodes] for expectations over sqrt(chi²[freedom] / freedom).

    The trapezoidal rule in log u: exponentially exact for smooth integrands that vanish at both ends.
    """
    freedom = np.clip(freedom, 1.0, _MOST_FREEDOM)[..., None]
    # Below, the density falls as u^freedom: what is left out is some 1e-12.
    x = np.linspace(-28.0 / min(freedom.min(initial=4.0), 4.0), 2.5, nodes)
    weight = np.exp(freedom * x - freedom * np.exp(2 * x) / 2 + freedom / 2)  # the last term against underflow
    return np.exp(x), weight / weight.sum(axis=-1, keepdims=True)


def mixed_tail(distance: Array, a: Array, b: Array, freedom: Array) -> Array:
    """P(|sqrt(a) Z + sqrt(b) t[freedom]| >= distance): given the denominator u of t, a normal law of variance a + b / u²."""
    u, weight = _chi(freedom, 320)
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.abs(distance)[..., None] * u / np.sqrt(a[..., None] * u**2 + b[..., None])
        p = np.minimum((weight * 2 * special.ndtr(-z)).sum(axis=-1), 1.0)
    # No variance at all: any difference is certain, no difference is none.
    return np.where(a + b > 0, p, np.where(np.isnan(a + b + distance), np.nan, (distance == 0) * 1.0))


def mixed_critical(a: Array, b: Array, freedom: Array, alpha: float) -> Array:
    """The distance whose `mixed_tail` is `alpha`, by bisection between the two laws it lies between."""
    a, b, freedom = np.broadcast_arrays(a, b, freedom)
    if a.size > _MOST_AT_ONCE:
        blocks = [np.array_split(part.reshape(-1), -(-a.size // _MOST_AT_ONCE)) for part in (a, b, freedom)]
        found = [mixed_critical(x, y, df, alpha) for x, y, df in zip(*blocks, strict=True)]
        return np.concatenate(found).reshape(a.shape)
    z = special.ndtri(1 - alpha / 2)
    t = special.stdtrit(np.clip(freedom, 1.0, _MOST_FREEDOM), 1 - alpha / 2)
    low, high = np.zeros(a.shape), z * np.sqrt(a) + t * np.sqrt(b)
    for _ in range(44):
        middle = (low + high) / 2
        above = mixed_tail(middle, a, b, freedom) > alpha
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return (low + high) / 2


# ---------------------------------------------------------------------------------------------------------------- power
def _power_nodes(variance: Variance, alpha: float) -> tuple[Array, Array, Array]:
    """Critical distances [..., nodes] over the seeds' variance that may come out, their weights, and the true deviation."""
    # The seeds' variance is at least that of the interaction, however near their means happened to be.
    a, b = variance.pure, np.where(variance.freedom > 0, np.maximum(variance.drawn, variance.interaction), 0.0)
    floor = special.ndtri(1 - alpha / 2) * np.sqrt(a + np.where(variance.freedom > 0, variance.interaction, 0.0))
    u, weight = _chi(variance.freedom, 96)
    kept = np.flatnonzero((weight > 1e-9).reshape(-1, len(u)).any(axis=0))
    critical = mixed_critical(a[..., None], b[..., None] * u[kept] ** 2, variance.freedom[..., None], alpha)
    return np.maximum(critical, floor[..., None]), weight[..., kept], np.sqrt(a + b)


def _power(effect: Array, critical: Array, weight: Array, deviation: Array) -> Array:
    with np.errstate(divide="ignore", invalid="ignore"):
        above = special.ndtr((effect[..., None] - critical) / deviation[..., None])
        below = special.ndtr((-effect[..., None] - critical) / deviation[..., None])
    return (weight * (above + below)).sum(axis=-1)


def power(effect: ArrayLike, variance: Variance, alpha: float = 0.05) -> Array:
    """Probability that `compare` finds a true difference `effect` at level `alpha`, if the variance is as estimated.

    Args:
      effect: a difference in units of the metric; broadcasts with the arrays of `variance`.
      variance: of the difference: `Comparisons.variance`, or of a planned study by its `planned(n, n_seeds)`.
      alpha: two-sided; with a correction over m comparisons e.g. 0.05 / m (then take enough `randomisations`).
    """
    return _power(np.asarray(effect, np.float64), *_power_nodes(variance, alpha))


def minimum_detectable_effect(differences: ArrayLike | Variance, alpha: float = 0.05, power: float = 0.8) -> Array:
    """The smallest true difference this design finds with probability `power` at level `alpha` (Bloom, Evaluation Review 1995).

    Args:
      differences: [..., S, n] row − reference, or their `Variance`.

    Returns:
      [...] in units of the metric; NaN where the variance is not estimable.
    """
    if not alpha < power < 1:
        raise ValueError(f"power {power} and alpha {alpha}: expected 0 < alpha < power < 1")
    variance = differences if isinstance(differences, Variance) else crossed_variance(differences)
    critical, weight, deviation = _power_nodes(variance, alpha)
    low, high = np.zeros(deviation.shape), critical.max(axis=-1) + 40 * deviation
    for _ in range(60):
        middle = (low + high) / 2
        enough = _power(middle, critical, weight, deviation) >= power
        low, high = np.where(enough, low, middle), np.where(enough, middle, high)
    return np.where(np.isnan(deviation), np.nan, high)
