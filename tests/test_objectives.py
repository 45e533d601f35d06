"""Losses against loops over plain numbers, and against values worked by hand."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from fusionjax import objectives as module

objectives: Any = module  # NumPy arrays do as well as the JAX arrays of the annotations
LN2 = math.log(2.0)


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.Generator(np.random.Philox(seed)).normal(size=shape).astype(np.float32)


def log_sigmoid(x: float) -> float:
    return -math.log1p(math.exp(-x)) if x > 0 else x - math.log1p(math.exp(x))


def cross_entropy(own: float, others: list[float]) -> float:
    """−log of the softmax share of `own`."""
    return -math.log(math.exp(own) / (math.exp(own) + sum(math.exp(other) for other in others)))


# ------------------------------------------------------------------------------------------------------- link prediction
def test_link_prediction_by_hand() -> None:
    none = jnp.zeros((1, 1), bool)
    # Two equal scores: a coin.
    assert float(objectives.link_prediction(jnp.array([3.0]), jnp.array([[3.0]]), none)) == pytest.approx(LN2, rel=1e-6)
    # e^1 / (e^1 + e^0 + e^0)
    loss = objectives.link_prediction(jnp.array([1.0]), jnp.zeros((1, 2)), jnp.zeros((1, 2), bool))
    assert float(loss) == pytest.approx(math.log(math.e + 2) - 1, rel=1e-6)
    # −(log σ(0) + log σ(−0)) / 2
    loss = objectives.link_prediction(jnp.zeros(1), jnp.zeros((1, 1)), none, self_adversarial=1.0)
    assert float(loss) == pytest.approx(LN2, rel=1e-6)


def test_link_prediction_softmax_is_the_loop() -> None:
    positive, negative = normal(5), normal(5, 7, seed=1)
    known = normal(5, 7, seed=2) > 0.5
    loop = np.mean([cross_entropy(p, list(row[~mask])) for p, row, mask in zip(positive, negative, known, strict=True)])
    assert float(objectives.link_prediction(positive, negative, known)) == pytest.approx(float(loop), rel=1e-5)


def test_link_prediction_self_adversarial_is_equation_5() -> None:
    """Sun et al. (2019): −log σ(positive) − Σ p_i log σ(−negative_i), p = softmax(α · negative); here halved."""
    positive, negative, alpha = normal(4), normal(4, 6, seed=1), 0.7
    known = normal(4, 6, seed=2) > 0.5
    loop = []
    for p, row, mask in zip(positive, negative, known, strict=True):
        kept = row[~mask]
        share = np.exp(alpha * kept) / np.exp(alpha * kept).sum()
        loop.append(-(log_sigmoid(p) + sum(s * log_sigmoid(-n) for s, n in zip(share, kept, strict=True))) / 2)
    loss = objectives.link_prediction(positive, negative, known, alpha)
    assert float(loss) == pytest.approx(float(np.mean(loop)), rel=1e-5)


def test_self_adversarial_weights_are_constants() -> None:
    """The gradient flows through the scores alone: it is that of the formula with the weights held fixed."""
    negative, alpha = jnp.array([[0.3, -0.8, 1.1]]), 2.0
    known = jnp.zeros((1, 3), bool)
    gradient = jax.grad(lambda n: objectives.link_prediction(jnp.zeros(1), n, known, alpha))(negative)
    share = jax.nn.softmax(alpha * negative)
    assert np.allclose(gradient, share * jax.nn.sigmoid(negative) / 2, atol=1e-6)


def test_known_corruptions_count_for_nothing() -> None:
    positive, negative, known = normal(3), normal(3, 4, seed=1), np.zeros((3, 4), bool)
    known[:, 2] = True
    for alpha in (0.0, 1.0):
        without = objectives.link_prediction(positive, np.delete(negative, 2, axis=1), np.delete(known, 2, axis=1), alpha)
        masked = lambda n, alpha=alpha: objectives.link_prediction(positive, n, known, alpha)  # noqa: E731
        assert float(masked(negative)) == pytest.approx(float(without), rel=1e-6)
        assert np.all(np.asarray(jax.grad(masked)(jnp.asarray(negative)))[:, 2] == 0)


def test_all_corruptions_known_leaves_nothing_to_lose() -> None:
    loss = objectives.link_prediction(jnp.zeros(2), jnp.zeros((2, 3)), jnp.ones((2, 3), bool))
    assert float(loss) == 0.0


# --------------------------------------------------------------------------------------------------------------- InfoNCE
def info_nce_loop(left: np.ndarray, right: np.ndarray, scale: float, positives: np.ndarray, valid: np.ndarray) -> float:
    cosine = np.array([[a @ b / np.linalg.norm(a) / np.linalg.norm(b) for b in right] for a in left]) * scale
    total = 0.0
    rows = np.flatnonzero(valid)
    for i in rows:
        rivals = [j for j in rows if j != i]
        total += cross_entropy(cosine[i, i], [cosine[i, j] for j in rivals if not positives[i, j]])
        total += cross_entropy(cosine[i, i], [cosine[j, i] for j in rivals if not positives[j, i]])
    return total / (2 * max(len(rows), 1))


def test_info_nce_by_hand() -> None:
    """Orthogonal pairs at scale 1: each row's own cosine is 1, the other's 0, so the loss is log(1 + e⁻¹)."""
    eye = jnp.array([[2.0, 0.0], [0.0, 0.5]])
    yes = jnp.ones(2, bool)
    loss = objectives.info_nce(eye, eye, jnp.float32(1.0), jnp.zeros((2, 2), bool), yes)
    assert float(loss) == pytest.approx(math.log1p(math.exp(-1.0)), rel=1e-6)
    # The other row is known to match too: no negative is left.
    assert float(objectives.info_nce(eye, eye, jnp.float32(1.0), jnp.ones((2, 2), bool), yes)) == 0.0
    # Known one way only, left 0 with right 1: forth 0 loses nothing, back 1 loses nothing.
    one_way = jnp.array([[False, True], [False, False]])
    loss = objectives.info_nce(eye, eye, jnp.float32(1.0), one_way, yes)
    assert float(loss) == pytest.approx(math.log1p(math.exp(-1.0)) / 2, rel=1e-6)


@pytest.mark.parametrize("scale", [1.0, 20.0])
def test_info_nce_is_the_loop(scale: float) -> None:
    left, right = normal(6, 5), normal(6, 5, seed=1)
    positives, valid = normal(6, 6, seed=2) > 0.8, np.array([True, True, False, True, True, False])
    for known, rows in ((np.zeros((6, 6), bool), np.ones(6, bool)), (positives, np.ones(6, bool)), (positives, valid)):
        loss = objectives.info_nce(left, right, jnp.float32(scale), known, rows)
        assert float(loss) == pytest.approx(info_nce_loop(left, right, scale, known, rows), rel=1e-4)


def test_info_nce_marks_on_the_diagonal_change_nothing() -> None:
    left, right, yes = normal(4, 3), normal(4, 3, seed=1), np.ones(4, bool)
    with_own = objectives.info_nce(left, right, jnp.float32(5.0), np.eye(4, dtype=bool), yes)
    assert float(with_own) == float(objectives.info_nce(left, right, jnp.float32(5.0), np.zeros((4, 4), bool), yes))


def test_info_nce_ignores_lengths_and_invalid_rows() -> None:
    left, right, none = normal(4, 3), normal(4, 3, seed=1), np.zeros((4, 4), bool)
    valid = np.array([True, True, True, False])

    def loss(left: np.ndarray, right: np.ndarray) -> float:
        return float(objectives.info_nce(left, right, jnp.float32(5.0), none, valid))

    assert loss(left * 7, right * 0.1) == pytest.approx(loss(left, right), rel=1e-5)
    changed = left.copy()
    changed[3] += 10
    assert loss(changed, right) == loss(left, right)
    assert float(objectives.info_nce(left, right, jnp.float32(5.0), none, np.zeros(4, bool))) == 0.0


# ---------------------------------------------------------------------------------------------------------- next product
def test_softmax_over_catalogue() -> None:
    logits, target = normal(4, 9), np.array([3, 0, -1, 8])
    valid = target >= 0
    loop = np.mean([cross_entropy(row[t], list(np.delete(row, t))) for row, t in zip(logits, target, strict=True) if t >= 0])
    assert float(objectives.softmax_over_catalogue(logits, target, valid)) == pytest.approx(float(loop), rel=1e-5)
    uniform = objectives.softmax_over_catalogue(jnp.zeros((1, 9)), jnp.array([4]), jnp.array([True]))
    assert float(uniform) == pytest.approx(math.log(9), rel=1e-6)
    assert float(objectives.softmax_over_catalogue(logits, np.full(4, -1), np.zeros(4, bool))) == 0.0


def sampled(logits: np.ndarray, target: np.ndarray, candidate: np.ndarray, log_q: np.ndarray, valid: np.ndarray) -> float:
    safe = np.maximum(target, 0)
    return float(
        objectives.sampled_softmax(
            logits[np.arange(len(target)), safe],
            logits[:, np.maximum(candidate, 0)],
            target,
            candidate,
            log_q[safe],
            log_q[np.maximum(candidate, 0)],
            valid,
        )
    )


def test_sampled_softmax_of_everything_is_the_full_one() -> None:
    logits, target = normal(5, 8), np.array([0, 7, 3, 3, -1])
    valid, candidate = target >= 0, np.arange(8)
    full = float(objectives.softmax_over_catalogue(logits, target, valid))
    # Every product drawn once, equally likely: whatever the constant.
    for q in (0.0, -2.5):
        assert sampled(logits, target, candidate, np.full(8, q, np.float32), valid) == pytest.approx(full, rel=1e-5)
    # A product drawn k times and corrected by log k stands for one; numbers of −1 stand for none.
    times = np.array([1, 2, 3, 1, 2, 1, 1, 2])
    candidate = np.concatenate([np.repeat(np.arange(8), times), [-1, -1]])
    log_q = np.log(times).astype(np.float32)
    own = log_q[np.maximum(target, 0)]
    # The target's own draws are left out, so its own term is counted as drawn once.
    got = float(
        objectives.sampled_softmax(
            logits[np.arange(5), np.maximum(target, 0)],
            logits[:, np.maximum(candidate, 0)],
            target,
            candidate,
            np.zeros_like(own),
            log_q[np.maximum(candidate, 0)],
            valid,
        )
    )
    assert got == pytest.approx(full, rel=1e-5)


def test_log_q_correction_removes_the_bias_of_a_skewed_sampler() -> None:
    """Many draws with popularity: the corrected loss meets the full softmax, the uncorrected one misses it clearly."""
    n, draws = 12, 20000
    generator = np.random.Generator(np.random.Philox(5))
    share = np.arange(1, n + 1, dtype=np.float64) ** 2
    share /= share.sum()
    logits = np.sort(normal(1, n, seed=3))  # popular products score high
    target, valid = np.array([2]), np.array([True])
    candidate = generator.choice(n, draws, p=share)
    full = float(objectives.softmax_over_catalogue(logits, target, valid))

    def loss(log_q: np.ndarray) -> float:
        own = np.zeros(1, np.float32)  # the target itself is there once, for certain
        return float(
            objectives.sampled_softmax(logits[0, target], logits[:, candidate], target, candidate, own, log_q[candidate], valid)
        )

    corrected = loss(np.log(draws * share).astype(np.float32))
    assert corrected == pytest.approx(full, rel=0.02)
    assert abs(loss(np.full(n, math.log(draws / n), np.float32)) - full) > 0.1 * full


def test_sampled_softmax_leaves_out_accidental_hits() -> None:
    logits, target, valid = normal(1, 4), np.array([1]), np.array([True])
    q = np.zeros(4, np.float32)
    without = sampled(logits, target, np.array([0, 3]), q, valid)
    assert sampled(logits, target, np.array([0, 1, 3, 1]), q, valid) == pytest.approx(without, rel=1e-6)
    assert sampled(logits, target, np.array([1, 1]), q, valid) == 0.0


# -------------------------------------------------------------------------------------------------------------- gradients
def test_normalise() -> None:
    assert np.allclose(objectives.normalise(jnp.array([[3.0, 4.0], [0.0, 0.0]])), [[0.6, 0.8], [0.0, 0.0]], atol=1e-6)


def test_gradients_are_finite_at_zero_vectors() -> None:
    zero, none, yes = jnp.zeros((3, 4)), jnp.zeros((3, 3), bool), jnp.ones(3, bool)
    loss = lambda left, right: objectives.info_nce(left, right, jnp.float32(20.0), none, yes)  # noqa: E731
    for left, right in ((zero, zero), (zero, jnp.asarray(normal(3, 4)))):
        value, gradients = jax.value_and_grad(loss, argnums=(0, 1))(left, right)
        assert np.isfinite(value)
        assert all(np.all(np.isfinite(gradient)) for gradient in gradients)


def test_gradients_are_finite_at_extreme_scores() -> None:
    known = jnp.zeros((2, 2), bool)
    for alpha in (0.0, 1.0):
        loss = lambda p, n, alpha=alpha: objectives.link_prediction(p, n, known, alpha)  # noqa: E731
        for p, n in ((-1e4, 1e4), (1e4, -1e4)):
            value, gradients = jax.value_and_grad(loss, argnums=(0, 1))(jnp.full(2, p), jnp.full((2, 2), n))
            assert np.isfinite(value)
            assert all(np.all(np.isfinite(gradient)) for gradient in gradients)


def test_gradients_agree_with_differences() -> None:
    left, right, positive, negative = (
        jnp.asarray(x) for x in (normal(4, 3), normal(4, 3, seed=1), normal(4), normal(4, 5, seed=2))
    )
    known, valid = jnp.asarray(normal(4, 4, seed=3) > 0.8), jnp.array([True, True, True, False])
    target, candidate, q = jnp.array([0, 2, 1, -1]), jnp.array([0, 3, 4, 1, 2]), jnp.zeros(5)
    cases = [
        (lambda a, b: objectives.info_nce(a, b, jnp.float32(3.0), known, valid), (left, right)),
        (lambda p, n: objectives.link_prediction(p, n, jnp.zeros((4, 5), bool)), (positive, negative)),
        (lambda n: objectives.softmax_over_catalogue(n, target, valid), (negative,)),
        (lambda p, n: objectives.sampled_softmax(p, n, target, candidate, q[:4], q, valid), (positive, negative)),
    ]
    for loss, arguments in cases:
        check_grads(loss, arguments, order=1, modes=("rev",), atol=2e-2, rtol=2e-2)
