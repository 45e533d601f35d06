"""Losses of the next product against loops over plain numbers, against each other, and against values worked by hand."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from tests.losses.loops import cross_entropy, normal, objectives

# Whole: op by op is slower to compile.
softmax_over_catalogue: Any = jax.jit(objectives.softmax_over_catalogue)
sampled_softmax: Any = jax.jit(objectives.sampled_softmax)


def test_softmax_over_catalogue() -> None:
    logits, target = normal(4, 9), np.array([3, 0, -1, 8])
    valid = target >= 0
    loop = np.mean([cross_entropy(row[t], list(np.delete(row, t))) for row, t in zip(logits, target, strict=True) if t >= 0])
    assert float(softmax_over_catalogue(logits, target, valid)) == pytest.approx(float(loop), rel=1e-5)
    uniform = softmax_over_catalogue(jnp.zeros((1, 9)), jnp.array([4]), jnp.array([True]))
    assert float(uniform) == pytest.approx(math.log(9), rel=1e-6)
    assert float(softmax_over_catalogue(logits, np.full(4, -1), np.zeros(4, bool))) == 0.0


def sampled(logits: np.ndarray, target: np.ndarray, candidate: np.ndarray, log_q: np.ndarray, valid: np.ndarray) -> float:
    safe = np.maximum(target, 0)
    return float(
        sampled_softmax(
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
    full = float(softmax_over_catalogue(logits, target, valid))
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
        sampled_softmax(
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
    full = float(softmax_over_catalogue(logits, target, valid))

    def loss(log_q: np.ndarray) -> float:
        own = np.zeros(1, np.float32)  # the target itself is there once, for certain
        return float(sampled_softmax(logits[0, target], logits[:, candidate], target, candidate, own, log_q[candidate], valid))

    corrected = loss(np.log(draws * share).astype(np.float32))
    assert corrected == pytest.approx(full, rel=0.02)
    assert abs(loss(np.full(n, math.log(draws / n), np.float32)) - full) > 0.1 * full


def test_sampled_softmax_leaves_out_accidental_hits() -> None:
    logits, target, valid = normal(1, 4), np.array([1]), np.array([True])
    q = np.zeros(4, np.float32)
    without = sampled(logits, target, np.array([0, 3]), q, valid)
    assert sampled(logits, target, np.array([0, 1, 3, 1]), q, valid) == pytest.approx(without, rel=1e-6)
    assert sampled(logits, target, np.array([1, 1]), q, valid) == 0.0


def test_gradients_agree_with_differences() -> None:
    own, others, valid = jnp.asarray(normal(4)), jnp.asarray(normal(4, 5, seed=2)), jnp.array([True, True, True, False])
    target, candidate, q = jnp.array([0, 2, 1, -1]), jnp.array([0, 3, 4, 1, 2]), jnp.zeros(5)
    cases = [
        (lambda n: softmax_over_catalogue(n, target, valid), (others,)),
        (lambda p, n: sampled_softmax(p, n, target, candidate, q[:4], q, valid), (own, others)),
    ]
    for loss, arguments in cases:
        check_grads(loss, arguments, order=1, modes=("rev",), atol=2e-2, rtol=2e-2)
