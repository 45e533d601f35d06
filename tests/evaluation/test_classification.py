"""Triple classification by hand and against loops."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusionjax.evaluation.classification import (
    Labelled,
    best_threshold,
    classify,
    corrupted,
)
from fusionjax.evaluation.link_prediction import KnownTrue


def labelled(*rows: tuple[float, int, bool]) -> Labelled:
    score, relation, true = zip(*rows, strict=True)
    return Labelled(np.array(score), np.array(relation), np.array(true))


def test_by_hand() -> None:
    valid = labelled((1.0, 0, False), (2.0, 0, True), (3.0, 0, True), (5.0, 1, False), (6.0, 1, False), (9.0, 1, True))
    # Relation 0: between 1 and 2; relation 1: between 6 and 9. All together: above 1 are three true, two false: 4 of 6 are
    # right, above 6 one true: 4 of 6 as well, and as far from the end: the lower.
    test = labelled(
        (1.6, 0, True), (1.4, 0, True), (1.6, 0, False), (7.0, 1, False), (8.0, 1, True), (1.6, 7, True), (0.0, 7, False)
    )
    found = classify(valid, test)
    assert found.thresholds == {0: 1.5, 1: 7.5} and found.fallback == 1.5
    assert found.called_true.tolist() == [True, False, True, False, True, True, False]
    assert found.correct.tolist() == [True, False, False, True, True, True, True]
    assert found.accuracy == 5 / 7 and found.precision == 3 / 4 and found.recall == 3 / 4 and found.f1 == 3 / 4
    assert found.negatives == "given" and found.metrics()["f1"] == 0.75


def test_extreme_thresholds() -> None:
    assert best_threshold(np.array([1.0, 2.0]), np.array([True, True])) == -np.inf
    assert best_threshold(np.array([1.0, 2.0]), np.array([False, False])) == np.inf
    assert best_threshold(np.array([2.0, 2.0, 2.0]), np.array([True, True, False])) == -np.inf  # equal scores are not parted
    big = np.finfo(np.float64).max
    assert 0 < best_threshold(np.array([big / 2, big]), np.array([False, True])) < big
    near = np.nextafter(1.0, 2.0)
    assert best_threshold(np.array([1.0, near]), np.array([False, True])) == 1.0  # and 1.0 is not above it
    nothing = classify(labelled((1.0, 0, False)), labelled((5.0, 0, True), (4.0, 1, False)))
    assert (nothing.f1, nothing.accuracy) == (0.0, 0.5) and not nothing.called_true.any()
    everything = classify(labelled((1.0, 0, True)), labelled((-np.inf, 0, True)))
    assert everything.accuracy == 1.0


@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=1, max_size=12))
def test_no_threshold_is_better(rows: list[tuple[int, bool]]) -> None:
    score, true = np.array([row[0] for row in rows], float), np.array([row[1] for row in rows])

    def right(threshold: float) -> int:
        return int(((score > threshold) == true).sum())

    assert right(best_threshold(score, true)) == max(right(cut) for cut in [-np.inf, np.inf, *np.arange(-4, 4) + 0.5])


def test_wrong_columns_are_refused() -> None:
    good = labelled((1.0, 0, True))
    with pytest.raises(ValueError, match="2 scores, 1 relations"):
        classify(Labelled(np.zeros(2), np.zeros(1), np.zeros(2, bool)), good)
    with pytest.raises(ValueError, match="test: 1 of 1 scores are NaN"):
        classify(good, labelled((np.nan, 0, True)))
    with pytest.raises(ValueError, match="0 of test"):
        classify(good, Labelled(np.zeros(0), np.zeros(0), np.zeros(0, bool)))


def test_one_threshold_for_all() -> None:
    valid = labelled((1.0, 0, False), (2.0, 0, True), (3.0, 1, True), (9.0, 1, False))
    test = labelled((1.7, 1, True), (1.0, 0, False))
    found = classify(valid, test, by="all")
    assert found.thresholds == {} and found.fallback == 1.5 and found.accuracy == 1.0 and found.by == "all"
    even = labelled(*((float(x), x % 3, x > 0) for x in range(-5, 7) if x != 0), (-6.0, 0, False))
    platt = classify(even, labelled((0.5, 0, True), (-0.5, 7, False)), by="logistic")
    assert abs(platt.fallback) < 1e-3 and platt.accuracy == 1.0  # by symmetry at 0
    backwards = labelled((1.0, 0, True), (2.0, 0, False), (0.5, 0, True))
    assert classify(backwards, test, by="logistic").fallback == -np.inf
    for true in (True, False):
        assert classify(labelled((1.0, 0, true)), test, by="logistic").fallback == (-np.inf if true else np.inf)


def test_corrupted_triples_are_false_and_differ_in_one_end() -> None:
    random = np.random.default_rng(3)
    triples = np.unique(np.stack([random.integers(0, high, 400) for high in (12, 2, 12)], axis=1), axis=0)  # 3 of 4 are known
    known = KnownTrue.of(triples)
    found = corrupted(triples, known, 12, seed=1)
    true = set(map(tuple, triples.tolist()))
    assert not true & set(map(tuple, found.tolist()))
    changed = found != triples
    assert (changed.sum(axis=1) == 1).all() and not changed[:, 1].any()
    assert 0.3 < changed[:, 0].mean() < 0.7
    assert (corrupted(triples, known, 12, seed=1) == found).all() and (corrupted(triples, known, 12, seed=2) != found).any()
    assert found.min() >= 0 and found[:, [0, 2]].max() < 12


def test_corruptions_are_uniform_over_what_is_false() -> None:
    triples = np.array([[0, 0, 1]] * 6000)
    known = KnownTrue.of(np.array([[0, 0, 1], [0, 0, 3], [2, 0, 1]]))
    found = corrupted(triples, known, 5, seed=0)
    tails, heads = found[found[:, 2] != 1][:, 2], found[found[:, 0] != 0][:, 0]
    assert set(tails.tolist()) == {0, 2, 4} and set(heads.tolist()) == {1, 3, 4}
    for ends in (tails, heads):
        assert abs(np.unique(ends, return_counts=True)[1] / len(ends) - 1 / 3).max() < 0.03


def test_a_full_end_is_left_alone() -> None:
    triples = np.array([[0, 0, 0], [0, 0, 1]])  # every tail of (0, 0) is true
    found = corrupted(triples, KnownTrue.of(triples), 2, seed=5)
    assert found.tolist() == [[1, 0, 0], [1, 0, 1]]
    with pytest.raises(ValueError, match=r"\[0, 0, 0\] is true with every head and every tail"):
        corrupted(triples[:1], KnownTrue.of(triples[:1]), 1)
