"""The loss of the product graph against loops over plain numbers, and against values worked by hand."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from tests.losses.loops import LN2, cross_entropy, log_sigmoid, normal, objectives

link_prediction: Any = jax.jit(objectives.link_prediction, static_argnums=3)  # whole: op by op is slower to compile


def test_link_prediction_by_hand() -> None:
    none = jnp.zeros((1, 1), bool)
    # Two equal scores: a coin.
    assert float(link_prediction(jnp.array([3.0]), jnp.array([[3.0]]), none)) == pytest.approx(LN2, rel=1e-6)
    # e^1 / (e^1 + e^0 + e^0)
    loss = link_prediction(jnp.array([1.0]), jnp.zeros((1, 2)), jnp.zeros((1, 2), bool))
    assert float(loss) == pytest.approx(math.log(math.e + 2) - 1, rel=1e-6)
    # −(log σ(0) + log σ(−0)) / 2
    loss = link_prediction(jnp.zeros(1), jnp.zeros((1, 1)), none, 1.0)
    assert float(loss) == pytest.approx(LN2, rel=1e-6)


def test_link_prediction_softmax_is_the_loop() -> None:
    positive, negative = normal(5), normal(5, 7, seed=1)
    known = normal(5, 7, seed=2) > 0.5
    loop = np.mean([cross_entropy(p, list(row[~mask])) for p, row, mask in zip(positive, negative, known, strict=True)])
    assert float(link_prediction(positive, negative, known)) == pytest.approx(float(loop), rel=1e-5)


def test_link_prediction_self_adversarial_is_equation_5() -> None:
    """Sun et al. (2019): −log σ(positive) − Σ p_i log σ(−negative_i), p = softmax(α · negative); here halved."""
    positive, negative, alpha = normal(4), normal(4, 6, seed=1), 0.7
    known = normal(4, 6, seed=2) > 0.5
    loop = []
    for p, row, mask in zip(positive, negative, known, strict=True):
        kept = row[~mask]
        share = np.exp(alpha * kept) / np.exp(alpha * kept).sum()
        loop.append(-(log_sigmoid(p) + sum(s * log_sigmoid(-n) for s, n in zip(share, kept, strict=True))) / 2)
    loss = link_prediction(positive, negative, known, alpha)
    assert float(loss) == pytest.approx(float(np.mean(loop)), rel=1e-5)


def test_self_adversarial_weights_are_constants() -> None:
    """The gradient flows through the scores alone: it is that of the formula with the weights held fixed."""
    negative, alpha = jnp.array([[0.3, -0.8, 1.1]]), 2.0
    known = jnp.zeros((1, 3), bool)
    gradient = jax.grad(lambda n: link_prediction(jnp.zeros(1), n, known, alpha))(negative)
    share = jax.nn.softmax(alpha * negative)
    assert np.allclose(gradient, share * jax.nn.sigmoid(negative) / 2, atol=1e-6)


def test_known_corruptions_count_for_nothing() -> None:
    positive, negative, known = normal(3), normal(3, 4, seed=1), np.zeros((3, 4), bool)
    known[:, 2] = True
    for alpha in (0.0, 1.0):
        without = link_prediction(positive, np.delete(negative, 2, axis=1), np.delete(known, 2, axis=1), alpha)
        masked = lambda n, alpha=alpha: link_prediction(positive, n, known, alpha)  # noqa: E731
        value, gradient = jax.jit(jax.value_and_grad(masked))(negative)
        assert float(value) == pytest.approx(float(without), rel=1e-6)
        assert np.all(np.asarray(gradient)[:, 2] == 0)


def test_all_corruptions_known_leaves_nothing_to_lose() -> None:
    loss = link_prediction(jnp.zeros(2), jnp.zeros((2, 3)), jnp.ones((2, 3), bool))
    assert float(loss) == 0.0


def test_gradients_are_finite_at_extreme_scores() -> None:
    known = jnp.zeros((2, 2), bool)
    for alpha in (0.0, 1.0):
        loss = lambda p, n, alpha=alpha: link_prediction(p, n, known, alpha)  # noqa: E731
        step = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))
        for p, n in ((-1e4, 1e4), (1e4, -1e4)):
            value, gradients = step(np.full(2, p, np.float32), np.full((2, 2), n, np.float32))
            assert np.isfinite(value)
            assert all(np.all(np.isfinite(gradient)) for gradient in gradients)


def test_gradients_agree_with_differences() -> None:
    scores = jnp.asarray(normal(4)), jnp.asarray(normal(4, 5, seed=2))
    loss = lambda p, n: link_prediction(p, n, jnp.zeros((4, 5), bool))  # noqa: E731
    check_grads(loss, scores, order=1, modes=("rev",), atol=2e-2, rtol=2e-2)
