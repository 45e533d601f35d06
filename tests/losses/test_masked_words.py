"""The loss of masked words against a loop over plain numbers, and against values worked by hand."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from tests.losses.loops import LN2, cross_entropy, mean, normal, objectives

masked_words: Any = jax.jit(objectives.masked_words)  # whole: op by op is slower to compile
step: Any = jax.jit(jax.value_and_grad(objectives.masked_words))
WORDS = 9
LOGITS, TARGET = normal(2, 3, WORDS), np.array([[3, -1, 0], [WORDS - 1, 3, -1]])


def test_masked_words_by_hand() -> None:
    # Words all alike: one in nine.
    assert float(masked_words(jnp.zeros((1, WORDS)), jnp.array([4]))) == pytest.approx(math.log(WORDS), rel=1e-6)
    # Shares 2/4, 1/4, 1/4; the mean is over the two places asked, not over the three there are.
    logits = jnp.array([[LN2, 0.0, 0.0]] * 3)
    loss = masked_words(logits, jnp.array([0, 2, -1]))
    assert float(loss) == pytest.approx((LN2 + 2 * LN2) / 2, rel=1e-6)


def test_masked_words_is_the_loop_at_any_number_of_places() -> None:
    asked = [(logits, word) for logits, word in zip(LOGITS.reshape(-1, WORDS), TARGET.reshape(-1), strict=True) if word >= 0]
    loop = mean([cross_entropy(float(logits[word]), list(np.delete(logits, word))) for logits, word in asked])
    for places in ((2, 3), (6,), (1, 3, 2)):
        loss = masked_words(LOGITS.reshape(*places, WORDS), TARGET.reshape(places))
        assert float(loss) == pytest.approx(loop, rel=1e-5)
    first, word = asked[0]
    loop = cross_entropy(float(first[word]), list(np.delete(first, word)))
    assert float(masked_words(first, np.array(word))) == pytest.approx(loop, rel=1e-5)


def test_places_not_asked_neither_count_nor_learn() -> None:
    value, gradient = step(LOGITS, TARGET)
    asked = TARGET >= 0
    share = np.exp(LOGITS) / np.exp(LOGITS).sum(-1, keepdims=True)
    expected = (share - np.eye(WORDS)[np.maximum(TARGET, 0)]) * asked[..., None] / asked.sum()
    assert np.allclose(gradient, expected, atol=1e-6)
    assert np.all(np.asarray(gradient)[~asked] == 0)
    moved = np.where(asked[..., None], LOGITS, -LOGITS)
    assert float(step(moved, TARGET)[0]) == float(value)


def test_nothing_asked_is_nothing_lost() -> None:
    value, gradient = step(LOGITS, np.full((2, 3), -1))
    assert float(value) == 0.0
    assert not np.any(gradient)


def test_the_softmax_of_bfloat16_scores_is_in_float32() -> None:
    rough = jnp.asarray(normal(4, 300), jnp.bfloat16)
    target = np.array([0, 7, 299, -1])
    loss = masked_words(rough, target)
    assert loss.dtype == jnp.float32
    assert float(loss) == float(masked_words(rough.astype(jnp.float32), target))
    assert step(rough, target)[1].dtype == jnp.bfloat16


def test_extreme_scores_keep_finite_gradients() -> None:
    value, gradient = step(LOGITS * np.float32(1e4), TARGET)
    assert np.isfinite(value)
    assert np.all(np.isfinite(gradient))


def test_gradients_agree_with_differences() -> None:
    loss = lambda logits: masked_words(logits, TARGET)  # noqa: E731
    check_grads(loss, (jnp.asarray(LOGITS),), order=1, modes=("rev",), atol=2e-2, rtol=2e-2)
