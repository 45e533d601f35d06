"""Statistics against worked values, published tables, naive loops, scipy, and simulation with fixed seeds."""

import itertools
import re
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from fusionjax.evaluation import resampling, statistics
from fusionjax.evaluation.statistics import Variance
from fusionjax.evaluation.variance import mixed_critical, mixed_tail

TRIALS = 2000
N = 300


def at_most(level: float, trials: int = TRIALS) -> float:
    """Where a rate of `level` lies within three binomial standard errors."""
    return level + 3 * (level * (1 - level) / trials) ** 0.5


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(seed))


def normal(s: int, example: float, seed: float, noise: float, trials: int = TRIALS, key: int = 0) -> np.ndarray:
    """Differences [trials, s, N] of mean 0 with these standard deviations over examples, seeds and both."""
    draw = generator(key)
    cells = example * draw.normal(size=(trials, 1, N)) + noise * draw.normal(size=(trials, s, N))
    return cells + seed * draw.normal(size=(trials, s, 1))


def hits(s: int, seed: float, key: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Two equally good models' rare hits [TRIALS, s, N] on the same users; a training seed moves all its users together."""
    draw = generator(key)
    user = 1.2 * draw.normal(size=(TRIALS, 1, N))

    def model() -> np.ndarray:
        own = 0.7 * draw.normal(size=(TRIALS, 1, N)) + 0.7 * draw.normal(size=(TRIALS, s, N))
        return (user + own + seed * draw.normal(size=(TRIALS, s, 1)) > 2.4).astype(np.float64)

    return model(), model()


def compared(row: np.ndarray, reference: np.ndarray | float = 0.0, **options) -> statistics.Comparisons:
    reference = np.broadcast_to(reference, row.shape) if np.ndim(reference) == 0 else np.asarray(reference)
    return statistics.compare(row, reference, **{"resamples": 400, "randomisations": 500, **options})


def example_variance(s: int, n: int, example: float, seed: float, noise: float) -> Variance:
    """The true one of `normal`."""
    shared = noise**2 / (n * s)
    parts = (example**2 / n + shared, seed**2 / s + shared, shared, s - 1.0, n)
    return Variance(*(np.asarray(part, np.float64) for part in parts), n_seeds=s)


# ----------------------------------------------------------------------------------------------------------- simulation
@pytest.mark.parametrize("s", [3, 5])
@pytest.mark.parametrize(
    ("example", "seed", "noise", "least"),
    [(1.0, 0.0, 0.2, 0.03), (1.0, 0.0, 1.0, 0.01), (1.0, 0.06, 0.5, 0.01), (1.0, 0.3, 0.5, 0.03)],
    ids=["no seed variance", "interaction only", "weak seed variance", "strong seed variance"],
)
def test_level_and_coverage_with_normal_differences(s: int, example: float, seed: float, noise: float, least: float) -> None:
    result = compared(normal(s, example, seed, noise))
    assert least <= (result.p <= 0.05).mean() <= at_most(0.05)
    assert (result.p <= 0.005).mean() <= at_most(0.005)
    covered = (result.low <= 0) & (result.high >= 0)
    assert 1 - at_most(0.05) - 0.005 <= covered.mean() <= 1 - least + 0.005
    # The interval and the test are two sides of one thing.
    assert (covered == (result.p > 0.05)).mean() > 0.98


@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("s", [3, 5])
@pytest.mark.parametrize("seed", [0.0, 0.3], ids=["no seed variance", "strong seed variance"])
def test_level_with_rare_hits(s: int, seed: float, paired: bool) -> None:
    result = compared(*hits(s, seed), paired=paired)
    assert 0.01 <= (result.p <= 0.05).mean() <= at_most(0.05)
    assert ((result.low <= 0) & (result.high >= 0)).mean() >= 1 - at_most(0.05)


def test_ignoring_the_seeds_would_not_hold_the_level() -> None:
    result = compared(normal(3, 1.0, 0.3, 0.5))
    assert (result.p_examples <= 0.05).mean() > 0.4


def test_unpaired_seeds_that_move_together_stay_on_the_safe_side() -> None:
    shared = 0.3 * generator(7).normal(size=(TRIALS, 3, 1))
    first, second = normal(3, 1.0, 0.1, 0.5, key=1) + shared, normal(3, 1.0, 0.1, 0.5, key=2) + shared
    assert (compared(first, second, paired=False).p <= 0.05).mean() <= at_most(0.05)


@pytest.mark.parametrize("s", [3, 5])
def test_interval_of_a_mean_covers_it(s: int) -> None:
    for seed in (0.0, 0.5):
        values = 2 + normal(s, 1.0, seed, 0.3)
        low, high = statistics.hierarchical_bootstrap(values, 400, 0)
        assert 0.93 <= ((low <= 2) & (high >= 2)).mean() <= 0.975


@pytest.mark.parametrize(
    ("s", "example", "seed", "noise", "effect"),
    [(3, 1.0, 0.0, 0.5, 0.2), (3, 1.0, 0.1, 1.0, 0.4), (5, 1.0, 0.3, 0.5, 0.5), (5, 0.3, 0.0, 1.0, 0.1)],
)
def test_power_is_as_computed(s: int, example: float, seed: float, noise: float, effect: float) -> None:
    variance = example_variance(s, N, example, seed, noise)
    found = compared(effect + normal(s, example, seed, noise), resamples=2).p
    expected = statistics.power(effect, variance, 0.05)
    assert 0.3 < expected < 0.95
    assert abs((found <= 0.05).mean() - expected) < 0.035
    assert abs((found <= 0.01).mean() - statistics.power(effect, variance, 0.01)) < 0.035


def test_computed_power_at_no_effect_is_the_level() -> None:
    """Where the interaction dominates, passing both tests is rarer than passing one; either direction counts."""
    variance = example_variance(3, N, 0.3, 0.0, 1.0)
    level = statistics.power(0.0, variance)
    assert 0.01 < level < 0.025
    assert abs((compared(normal(3, 0.3, 0.0, 1.0), resamples=2).p <= 0.05).mean() - level) < 0.01
    assert statistics.power(-0.2, variance) == pytest.approx(float(statistics.power(0.2, variance)), rel=1e-12)


@pytest.mark.parametrize(("example", "noise"), [(0.3, 1.0), (1.0, 1.0), (1.0, 0.1)])
def test_the_interval_is_as_wide_as_the_test_says(example: float, noise: float) -> None:
    result = compared(normal(3, example, 0.05, noise, trials=50), resamples=2000)
    part = result.variance
    conditional = 1.96 * np.sqrt(part.examples)
    half = np.maximum(mixed_critical(part.pure, part.drawn, part.freedom, 0.05), conditional)
    assert ((result.high - result.low) / 2 / half).mean() == pytest.approx(1, abs=0.03)


def test_the_minimum_detectable_effect_is_detected_with_its_power() -> None:
    variance = example_variance(3, N, 1.0, 0.1, 0.5)
    effect = statistics.minimum_detectable_effect(variance, 0.05, 0.8)
    assert statistics.power(effect, variance, 0.05) == pytest.approx(0.8, abs=1e-6)
    found = compared(effect + normal(3, 1.0, 0.1, 0.5), resamples=2).p
    assert abs((found <= 0.05).mean() - 0.8) < 0.035


# ------------------------------------------------------------------------------------------------------------ direction
@pytest.mark.parametrize("paired", [True, False])
def test_a_better_row_has_a_positive_difference_and_swapping_flips_it(paired: bool) -> None:
    reference = 0.3 + normal(3, 0.1, 0.01, 0.1, trials=1)[0]
    better = 0.4 + normal(3, 0.1, 0.01, 0.1, trials=1, key=1)[0]
    up, down = compared(better, reference, paired=paired), compared(reference, better, paired=paired)
    assert up.difference == pytest.approx(better.mean() - reference.mean())
    assert 0 < up.low < up.difference < up.high
    assert down.low < down.difference < down.high < 0
    assert (up.difference, up.effect_size) == (-down.difference, -down.effect_size)
    assert up.p == down.p < 0.01
    assert up.relative == pytest.approx(up.difference / reference.mean())


def test_both_directions_are_tested() -> None:
    result = compared(np.stack([normal(3, 1, 0, 0.1, trials=1)[0] + shift for shift in (0.5, -0.5, 0.0)]))
    assert (result.p[:2] < 0.01).all() and result.p[2] > 0.05
    assert np.sign(result.difference[:2]).tolist() == [1, -1]


def test_effect_size_by_hand() -> None:
    result = compared(np.array([[1.0, 2.0, 3.0, 4.0], [3.0, 4.0, 5.0, 2.0]]), np.ones((2, 4)))
    # Averaged over seeds 1, 2, 3, 2: mean 2, standard deviation sqrt(2/3).
    assert result.difference == 2 and result.relative == 2
    assert result.effect_size == pytest.approx(2 / (2 / 3) ** 0.5)


# ------------------------------------------------------------------------------------------------------------ edge cases
def test_equal_rows_do_not_differ() -> None:
    values = normal(3, 1.0, 0.1, 0.5, trials=1)[0]
    result = compared(values, values)
    assert (result.difference, result.low, result.high, result.p) == (0, 0, 0, 1)
    assert np.isnan(result.effect_size)


def test_seeds_that_agree_by_luck_prove_nothing() -> None:
    """The seeds' means coincide, so the crossed variance is next to 0; over the examples there is nothing."""
    row = np.zeros((3, 60))
    row[0, 0] = row[1, 1] = row[2, 2] = 1.0
    result = compared(row)
    assert result.p_seeds < 0.001 and result.p > 0.2
    assert result.low <= 0 < result.high


def test_one_seed_is_conditional() -> None:
    values = 0.1 + normal(1, 1.0, 0.0, 0.0, trials=3)
    result = compared(values)
    assert result.conditional and np.isnan(result.p_seeds).all()
    np.testing.assert_array_equal(result.p, resampling.randomisation_test(values[:, 0], 500, 0))
    assert statistics.power(0.2, result.variance) == pytest.approx(stats.norm.sf(1.96 - 0.2 * N**0.5), abs=0.06)
    with pytest.raises(ValueError, match="at least 2"):
        result.variance.planned(n_seeds=3)


def test_a_baseline_with_one_run_is_fixed() -> None:
    rows, baseline = normal(3, 1.0, 0.2, 0.5, trials=4), generator(3).normal(size=(1, N))
    fixed, repeated = compared(rows, baseline), compared(rows, np.repeat(baseline, 3, axis=0))
    assert not fixed.conditional
    np.testing.assert_allclose(fixed.p, repeated.p)
    np.testing.assert_allclose(compared(baseline, rows).difference, -fixed.difference)
    with pytest.raises(ValueError, match=re.escape("3 seeds of the row, 2 of the reference")):
        compared(rows, np.zeros((2, N)))
    assert compared(rows, np.zeros((2, N)), paired=False).p.shape == (4,)
    with pytest.raises(ValueError, match="300 examples of the row, 9 of"):
        compared(rows, np.zeros((3, 9)))


@pytest.mark.parametrize("paired", [True, False])
def test_undefined_examples_are_as_if_they_were_not_there(paired: bool) -> None:
    rows, reference = normal(3, 1.0, 0.2, 0.5, trials=2), normal(3, 1.0, 0.2, 0.5, trials=1, key=1)[0]
    keep = generator(5).random(N) < 0.5
    sparse = np.where(keep, rows, np.nan)
    result, dense = compared(sparse, reference, paired=paired), compared(rows[..., keep], reference[:, keep], paired=paired)
    for name in ("difference", "effect_size", "relative", "p_seeds"):
        np.testing.assert_allclose(getattr(result, name), getattr(dense, name), rtol=1e-10)
    np.testing.assert_allclose(result.p_examples, dense.p_examples, atol=0.07)
    np.testing.assert_allclose(result.high - result.low, dense.high - dense.low, rtol=0.15)
    assert (result.variance.n == keep.sum()).all()
    np.testing.assert_allclose(statistics.seed_means(sparse), rows[..., keep].mean(axis=-1))


def test_too_few_examples_give_nan() -> None:
    rows = np.full((3, 3, 4), np.nan)
    rows[1, :, 0] = 1.0  # one example
    rows[2, :2] = 1.0  # defined for two of three seeds
    result = compared(rows)
    for name in ("difference", "low", "high", "p", "effect_size", "relative"):
        assert np.isnan(getattr(result, name)).all(), name
    assert np.isnan(statistics.minimum_detectable_effect(rows)).all()
    assert np.isnan(np.array(statistics.hierarchical_bootstrap(rows, 50, 0))).all()
    with pytest.raises(ValueError, match="infinite"):
        statistics.hierarchical_bootstrap(np.full((2, 3), np.inf), 10, 0)
    with pytest.raises(ValueError, match=re.escape("expected values of shape [..., seeds, examples], got (3,)")):
        statistics.crossed_variance(np.zeros(3))


def test_a_rare_segment_has_an_interval() -> None:
    """Two of 300 examples: one resample in seven draws neither."""
    values = np.full((2, 3, N), np.nan)
    values[:, :, :2] = [[0.0, 1.0], [0.5, 0.5], [1.0, 1.0]]
    low, high = statistics.hierarchical_bootstrap(values, 400, 0)
    assert (low < 2 / 3).all() and (high > 2 / 3).all()


# ----------------------------------------------------------------------------------------------------------- resampling
def test_bootstrap_is_a_naive_loop() -> None:
    values = generator(1).normal(size=(2, 3, 40))
    values[0, 1, 5:30] = np.nan
    draw = generator(9)
    naive = [np.nanmean(values[..., draw.integers(0, 40, size=40)], axis=-1) for _ in range(25)]
    for chunk in (None, 1, 7):
        np.testing.assert_allclose(resampling.bootstrap_means(values, 25, 9, chunk), naive, rtol=1e-12)


def test_the_same_seed_gives_the_same_result() -> None:
    rows = normal(3, 1.0, 0.2, 0.5, trials=3)
    first, again, other = compared(rows), compared(rows), compared(rows, seed=1)
    for name in ("low", "high", "p"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
    assert (first.low != other.low).all()
    # A column does not depend on those beside it, but for the order of sums.
    np.testing.assert_allclose(compared(rows[1:2]).low, first.low[1:2], rtol=1e-9)
    np.testing.assert_allclose(compared(rows[1:2]).p, first.p[1:2], rtol=1e-9)


@pytest.mark.parametrize("values", [[0.3, -0.1, 0.5, 0.2, -0.4, 0.9, 0.1, 0.6, -0.2, 0.8], [1, 1, 0, 1, -1, 1, 0, 1, 1, 0]])
def test_randomisation_agrees_with_enumeration_and_scipy(values: list[float]) -> None:
    differences = np.array(values, np.float64)
    flips = np.array(list(itertools.product([-1.0, 1.0], repeat=10)))
    exact = (np.abs(flips @ differences) >= abs(differences.sum()) - 1e-9).mean()
    resamples = 20_000
    found = resampling.randomisation_test(differences, resamples, 0)
    assert abs(found - exact) < 4 * (exact * (1 - exact) / resamples) ** 0.5
    permuted = stats.permutation_test(
        (differences, np.zeros(10)), lambda x, y: (x - y).mean(), permutation_type="samples", n_resamples=1024
    )
    assert exact == pytest.approx(permuted.pvalue, abs=1e-12)


def test_randomisation_never_gives_zero() -> None:
    assert resampling.randomisation_test(np.ones(200), 99, 0) == 0.01
    assert np.isnan(resampling.randomisation_test(np.full(200, np.nan), 99, 0))


# --------------------------------------------------------------------------------------------------- variance and power
def test_crossed_variance_is_unbiased() -> None:
    found, true = statistics.crossed_variance(normal(3, 1.0, 0.2, 0.5)), example_variance(3, N, 1.0, 0.2, 0.5)
    for name in ("examples", "seeds", "interaction", "pure"):
        assert getattr(found, name).mean() == pytest.approx(float(getattr(true, name)), rel=0.08), name


def test_the_law_between_normal_and_student() -> None:
    x, one, none = np.array([0.5, 2.0, 4.303, 31.6]), np.ones(4), np.zeros(4)
    for freedom in (1.0, 2.0, 4.0, 50.0):
        np.testing.assert_allclose(mixed_tail(x, none, one, one * freedom), 2 * stats.t.sf(x, freedom), rtol=1e-8, atol=1e-11)
        np.testing.assert_allclose(mixed_tail(x, one, none, one * freedom), 2 * stats.norm.sf(x), rtol=1e-8, atol=1e-200)
    draw = generator(2)
    drawn = np.abs(draw.normal(size=400_000) * 0.6 + draw.standard_t(2, size=400_000) * 0.8)
    for alpha in (0.05, 0.005):
        critical = mixed_critical(np.array(0.36), np.array(0.64), np.array(2.0), alpha)
        assert (drawn > critical).mean() == pytest.approx(alpha, rel=0.05)


def test_more_examples_more_seeds_and_a_weaker_correction_detect_less() -> None:
    variance = statistics.crossed_variance(normal(3, 1.0, 0.1, 0.5, trials=1)[0] + 0.05)

    def mde(n: int, s: int, alpha: float = 0.05) -> float:
        return float(statistics.minimum_detectable_effect(variance.planned(n, s), alpha))

    assert mde(N, 3) == pytest.approx(float(statistics.minimum_detectable_effect(variance)))
    assert mde(100, 3) > mde(N, 3) > mde(3000, 3)
    assert mde(N, 2) > mde(N, 3) > mde(N, 5) > mde(N, 10)
    assert mde(N, 3, 0.001) > mde(N, 3, 0.01) > mde(N, 3)
    levels = statistics.power([0.0, 0.1, 0.2, 0.4], variance)
    assert (np.diff(levels) > 0).all() and levels[0] <= 0.05
    with pytest.raises(ValueError, match="alpha < power < 1"):
        statistics.minimum_detectable_effect(variance, 0.05, 1.0)


# -------------------------------------------------------------------------------------------------- many comparisons
def test_holm_by_hand() -> None:
    # Sorted .005 .01 .03 .04 times 4 3 2 1, never falling.
    np.testing.assert_allclose(statistics.holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(statistics.holm([0.01, None, 0.04, np.nan, 0.6]), [0.03, np.nan, 0.08, np.nan, 0.6])
    np.testing.assert_allclose(statistics.holm([0.9, 0.8]), [1.0, 1.0])


def test_benjamini_hochberg_by_hand_and_by_scipy() -> None:
    # Sorted .005 .01 .03 .04 times 4/1 4/2 4/3 4/4, never rising backwards.
    np.testing.assert_allclose(statistics.benjamini_hochberg([0.01, 0.04, 0.03, 0.005]), [0.02, 0.04, 0.04, 0.02])
    p = generator(4).random((3, 17)) ** 2
    np.testing.assert_allclose(statistics.benjamini_hochberg(p), stats.false_discovery_control(p.reshape(-1)).reshape(3, 17))
    np.testing.assert_allclose(statistics.benjamini_hochberg([None, 0.02, 0.5]), [np.nan, 0.04, 0.5])


@pytest.mark.parametrize("correct", [statistics.holm, statistics.benjamini_hochberg])
def test_corrections_of_nothing_and_of_no_probability(correct: Callable) -> None:
    assert correct([]).shape == (0,)
    assert np.isnan(correct([None, None])).all()
    assert correct([0.03]) == 0.03
    with pytest.raises(ValueError, match="expected within 0 … 1"):
        correct([0.1, 1.2])


def test_nemenyi_quantiles_are_the_published_ones() -> None:
    """Demšar 2006, table 5a, two to ten classifiers; he rounds, or the studentised range of his day, to one unit."""
    five = [1.960, 2.343, 2.569, 2.728, 2.850, 2.949, 3.031, 3.102, 3.164]
    ten = [1.645, 2.052, 2.291, 2.459, 2.589, 2.693, 2.780, 2.855, 2.920]
    np.testing.assert_allclose([statistics.nemenyi_quantile(k, 0.05) for k in range(2, 11)], five, atol=0.0015)
    np.testing.assert_allclose([statistics.nemenyi_quantile(k, 0.10) for k in range(2, 11)], ten, atol=0.0015)


def test_friedman_ranks_groups_and_agrees_with_scipy() -> None:
    draw = generator(6)
    scores = np.round(draw.normal([0.0, 2.0, 0.1, 1.9, 4.0], size=(60, 5)), 1)
    scores[0, 0] = scores[0, 1]
    result = statistics.friedman(scores)
    expected = stats.friedmanchisquare(*scores.T)
    assert result.statistic == pytest.approx(expected.statistic)
    assert result.p < 1e-10
    assert result.critical_difference == pytest.approx(2.728 * (5 * 6 / (6 * 60)) ** 0.5, rel=1e-3)
    assert result.mean_ranks.argmin() == 4  # the highest scores have rank 1
    assert [set(group) for group in result.groups] == [{1, 3}, {0, 2}]
    # As Demšar works it: 14 data sets, mean ranks as published, k = 4, CD 1.25.
    assert statistics.nemenyi_quantile(4) * (4 * 5 / (6 * 14)) ** 0.5 == pytest.approx(1.25, abs=0.01)


def test_friedman_of_undefined_and_equal_blocks() -> None:
    scores = np.array([[1.0, 2.0, 3.0], [np.nan, 9.0, 1.0], [1.0, 2.0, 3.0], [2.0, 1.0, 3.0]])
    result = statistics.friedman(scores)
    assert result.blocks == 3
    np.testing.assert_allclose(result.mean_ranks, [8 / 3, 7 / 3, 1])
    equal = statistics.friedman(np.ones((5, 3)))
    assert (equal.statistic, equal.p, equal.groups) == (0, 1, ((0, 1, 2),))
    for wrong in (np.ones((5, 1)), np.ones(4), scores[:2]):
        with pytest.raises(ValueError, match="Friedman test"):
            statistics.friedman(wrong)


def test_overlapping_groups() -> None:
    """Rows 0 and 1, and 1 and 2, cannot be told apart; 0 and 2 can."""
    draw = generator(8)
    result = statistics.friedman(draw.normal([0.0, 0.25, 0.5], size=(80, 3)))
    assert result.groups == ((2, 1), (1, 0))
