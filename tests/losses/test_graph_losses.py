"""Losses of graph embedding, one number a question: against loops over plain numbers, values worked by hand, and extremes."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from fusionjax.losses import graph
from tests.losses.loops import LN2, cross_entropy, log_sigmoid, normal

Q, N, E = 5, 7, 6
losses: Any = graph  # NumPy arrays do as well as the JAX arrays of the annotations
ANSWER = np.array([0, 5, 2, 2, 3])
LABELS = normal(Q, E, seed=5) > 0.3
LABELS[:, 1], LABELS[3] = True, False  # everyone has an answer but one
NEGATIVES = {
    "softmax": losses.softmax_over_negatives,
    "bce": losses.sigmoid_over_negatives,
    "margin": lambda p, n, known: losses.margin_ranking(p, n, known, 0.6),
    "self_adversarial": lambda p, n, known: losses.self_adversarial_sigmoid(p, n, known, 0.7),
}
OVER_ALL = {"softmax": losses.softmax_over_all, "bce": losses.sigmoid_over_all}
OVER_ANSWERS = {"softmax": losses.softmax_over_answers, "bce": losses.sigmoid_over_answers}


def negatives_loop(name: str, own: float, kept: list[float]) -> float:
    """Of one question, whose known corruptions are left out."""
    mean = lambda values: sum(values) / max(len(values), 1)  # noqa: E731
    match name:
        case "softmax":
            return cross_entropy(own, kept)
        case "bce":
            return -log_sigmoid(own) - mean([log_sigmoid(-each) for each in kept])
        case "margin":
            return mean([max(0.0, 0.6 - own + each) for each in kept])
    weights = [math.exp(0.7 * each) for each in kept]
    return -(log_sigmoid(own) + sum(w * log_sigmoid(-each) for w, each in zip(weights, kept, strict=True)) / sum(weights)) / 2


@pytest.mark.parametrize("name", NEGATIVES)
def test_against_negatives_is_the_loop(name: str) -> None:
    positive, negative, known = normal(Q), normal(Q, N, seed=1), normal(Q, N, seed=2) > 0.5
    found = jax.jit(NEGATIVES[name])(positive, negative, known)
    expected = [
        negatives_loop(name, float(p), [float(each) for each in row[~mask]])
        for p, row, mask in zip(positive, negative, known, strict=True)
    ]
    assert found.shape == (Q,) and np.asarray(found) == pytest.approx(expected, rel=1e-5)


def test_against_negatives_by_hand() -> None:
    none = jnp.zeros((1, 2), bool)
    positive, negative = jnp.array([1.0]), jnp.array([[0.0, -2.0]])
    # softplus(−1) + (softplus(0) + softplus(−2)) / 2
    expected = math.log1p(math.exp(-1)) + (LN2 + math.log1p(math.exp(-2))) / 2
    assert float(losses.sigmoid_over_negatives(positive, negative, none)[0]) == pytest.approx(expected, rel=1e-6)
    # (max(0, 2 − 1 + 0) + max(0, 2 − 1 − 2)) / 2
    assert float(losses.margin_ranking(positive, negative, none, 2.0)[0]) == pytest.approx(0.5)
    # temperature 0 weighs all negatives alike
    expected = (math.log1p(math.exp(-1)) + (LN2 + math.log1p(math.exp(-2))) / 2) / 2
    assert float(losses.self_adversarial_sigmoid(positive, negative, none, 0.0)[0]) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", NEGATIVES)
def test_known_corruptions_have_no_part(name: str) -> None:
    """Neither in the value nor in the gradient, whatever their score; all corruptions of the second question are known."""
    positive, negative, known = normal(2), normal(2, 4, seed=1), np.zeros((2, 4), bool)
    known[0, 1], known[1] = True, True
    both = jax.jit(jax.value_and_grad(lambda n: NEGATIVES[name](positive, n, known).sum()))
    value, gradient = both(negative)
    other, _ = both(np.where(known, 50.0, negative).astype(np.float32))
    assert float(other) == pytest.approx(float(value), rel=1e-5)
    assert np.all(np.asarray(gradient)[known] == 0) and np.any(np.asarray(gradient)[0] != 0) and np.all(np.isfinite(gradient))


def all_loop(name: str, row: np.ndarray, answers: list[int], smoothing: float) -> float:
    scores = [float(each) for each in row]
    if name == "softmax":
        target = [(1 - smoothing) * (i in answers) / max(len(answers), 1) + smoothing / E for i in range(E)]
        normaliser = math.log(sum(math.exp(each) for each in scores))
        return normaliser - sum(t * each for t, each in zip(target, scores, strict=True))
    target = [(1 - smoothing) * (i in answers) + smoothing / E for i in range(E)]
    return -sum(t * log_sigmoid(s) + (1 - t) * log_sigmoid(-s) for t, s in zip(target, scores, strict=True))


@pytest.mark.parametrize("smoothing", [None, 0.0, 0.2])
@pytest.mark.parametrize("name", OVER_ALL)
def test_over_all_is_the_loop(name: str, smoothing: float | None) -> None:
    scores = normal(Q, E, seed=3)
    found = OVER_ALL[name](scores, ANSWER, smoothing)
    expected = [all_loop(name, row, [int(a)], smoothing or 0.0) for row, a in zip(scores, ANSWER, strict=True)]
    assert np.asarray(found) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("smoothing", [None, 0.2])
@pytest.mark.parametrize("name", OVER_ANSWERS)
def test_over_answers_is_the_loop(name: str, smoothing: float | None) -> None:
    scores = normal(Q, E, seed=3)
    found = OVER_ANSWERS[name](scores, LABELS, smoothing)
    rows = zip(scores, LABELS, strict=True)
    expected = [all_loop(name, row, np.flatnonzero(mask).tolist(), smoothing or 0.0) for row, mask in rows]
    assert np.asarray(found) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", OVER_ALL)
def test_one_answer_alone_is_the_same_either_way(name: str) -> None:
    scores = normal(Q, E, seed=3)
    labels = np.arange(E)[None] == ANSWER[:, None]
    assert np.allclose(OVER_ALL[name](scores, ANSWER, 0.1), OVER_ANSWERS[name](scores, labels, 0.1), rtol=1e-5)


def test_over_all_by_hand() -> None:
    scores, answer = jnp.zeros((1, 4)), jnp.array([2])
    assert float(losses.softmax_over_all(scores, answer)[0]) == pytest.approx(math.log(4), rel=1e-6)
    assert float(losses.sigmoid_over_all(scores, answer)[0]) == pytest.approx(4 * LN2, rel=1e-6)
    # Softmax of (ln 3, 0): 3/4, 1/4. Half of the target spread over both: ¾ on the first.
    scores, answer = jnp.array([[math.log(3.0), 0.0]]), jnp.array([0])
    expected = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert float(losses.softmax_over_all(scores, answer, 0.5)[0]) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("size", [0.0, 1e4, -1e4])
def test_gradients_are_finite_at_ties_and_extremes(size: float) -> None:
    """All scores alike, however large; then the true one as far below the others as can be."""
    known = np.zeros((Q, N), bool)
    positive, negative = np.full(Q, size, np.float32), np.full((Q, N), size, np.float32)
    for of in NEGATIVES.values():
        for shift in (0.0, 1e4):
            value, gradients = jax.value_and_grad(lambda p, n, of=of: of(p, n, known).sum(), argnums=(0, 1))(
                positive, negative + shift
            )
            assert np.isfinite(value) and all(np.all(np.isfinite(each)) for each in gradients)
    scores = np.full((Q, E), size, np.float32)
    for of, target in ((OVER_ALL, ANSWER), (OVER_ANSWERS, LABELS)):
        for each in of.values():
            value, gradient = jax.value_and_grad(lambda s, each=each, target=target: each(s, target, 0.1).sum())(scores)
            assert np.isfinite(value) and np.all(np.isfinite(gradient))


def test_gradients_agree_with_differences() -> None:
    known = jnp.zeros((Q, N), bool)
    positive, negative, scores = jnp.asarray(normal(Q)), jnp.asarray(normal(Q, N, seed=1)), jnp.asarray(normal(Q, E, seed=3))
    smooth = {"modes": ("rev",), "order": 1, "atol": 2e-2, "rtol": 2e-2}
    check_grads(lambda p, n: losses.sigmoid_over_negatives(p, n, known).sum(), (positive, negative), **smooth)
    for name in OVER_ALL:
        check_grads(lambda s, name=name: OVER_ALL[name](s, ANSWER, 0.1).sum(), (scores,), **smooth)
        check_grads(lambda s, name=name: OVER_ANSWERS[name](s, LABELS, 0.1).sum(), (scores,), **smooth)


def test_margin_counts_up_to_the_margin_and_no_further() -> None:
    gradient = jax.grad(lambda n: losses.margin_ranking(jnp.array([1.0]), n, jnp.zeros((1, 3), bool), 0.5).sum())
    assert np.asarray(gradient(jnp.array([[0.4, 0.6, 2.0]]))).tolist() == [[0.0, pytest.approx(1 / 3), pytest.approx(1 / 3)]]
