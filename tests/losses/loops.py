"""The losses once more, as loops over plain numbers in double precision, and what their tests share."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fusionjax import losses as module

objectives: Any = module  # NumPy arrays do as well as the JAX arrays of the annotations
LN2 = math.log(2.0)


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.Generator(np.random.Philox(seed)).normal(size=shape).astype(np.float32)


def log_sigmoid(x: float) -> float:
    return -math.log1p(math.exp(-x)) if x > 0 else x - math.log1p(math.exp(x))


def cross_entropy(own: float, others: list[float]) -> float:
    """−log of the softmax share of `own`."""
    return -math.log(math.exp(own) / (math.exp(own) + sum(math.exp(other) for other in others)))


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a.astype(np.float64), b.astype(np.float64)
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def mean(losses: list[float]) -> float:
    """0 of nothing."""
    return sum(losses) / max(len(losses), 1)


def pairs_loop(
    left: np.ndarray,
    right: np.ndarray,
    positives: np.ndarray | None,
    valid: np.ndarray,
    negatives: np.ndarray | None = None,
    hidden_negatives: np.ndarray | None = None,
) -> list[tuple[float, list[float]]]:
    """Of each valid row on the left: the cosine of its own partner, and those of everything it counts as a negative."""
    rows, found = np.flatnonzero(valid), []
    for i in rows:
        others = [cosine(left[i], right[j]) for j in rows if j != i and (positives is None or not positives[i, j])]
        for k in range(0 if negatives is None else len(negatives)):
            if hidden_negatives is None or not hidden_negatives[i, k]:
                others.append(cosine(left[i], negatives[k]))  # pyright: ignore[reportOptionalSubscript]
        found.append((cosine(left[i], right[i]), others))
    return found


def info_nce_loop(
    left: np.ndarray,
    right: np.ndarray,
    scale: float,
    positives: np.ndarray | None,
    valid: np.ndarray,
    *further: np.ndarray | None,
    directions: str = "both",
) -> float:
    def softmax(pairs: list[tuple[float, list[float]]]) -> float:
        return mean([cross_entropy(scale * own, [scale * other for other in others]) for own, others in pairs])

    forth = softmax(pairs_loop(left, right, positives, valid, *further))
    if directions == "forth":
        return forth
    return (forth + softmax(pairs_loop(right, left, None if positives is None else positives.T, valid))) / 2


def siglip_loop(
    left: np.ndarray,
    right: np.ndarray,
    scale: float,
    bias: float,
    positives: np.ndarray | None,
    valid: np.ndarray,
    *further: np.ndarray | None,
) -> float:
    return mean(
        [
            -log_sigmoid(scale * own + bias) - sum(log_sigmoid(-scale * other - bias) for other in others)
            for own, others in pairs_loop(left, right, positives, valid, *further)
        ]
    )


def triplet_loop(
    left: np.ndarray,
    right: np.ndarray,
    positives: np.ndarray | None,
    valid: np.ndarray,
    margin: float,
    *further: np.ndarray | None,
    hardest: bool = False,
) -> float:
    losses = []
    for own, others in pairs_loop(left, right, positives, valid, *further):
        hinges = [max(0.0, margin - own + other) for other in others]
        losses.append(max(hinges, default=0.0) if hardest else mean(hinges))
    return mean(losses)


def kl_loop(
    left: np.ndarray,
    right: np.ndarray,
    teacher_left: np.ndarray,
    teacher_right: np.ndarray,
    scale: float,
    teacher_scale: float,
    valid: np.ndarray,
) -> float:
    rows, losses = np.flatnonzero(valid), []
    for i in rows:
        teacher = np.array([math.exp(teacher_scale * cosine(teacher_left[i], teacher_right[j])) for j in rows])
        student = np.array([math.exp(scale * cosine(left[i], right[j])) for j in rows])
        teacher, student = teacher / teacher.sum(), student / student.sum()
        losses.append(float((teacher * np.log(teacher / student)).sum()))
    return mean(losses)


def agree_with_differences(loop: Callable[[dict[str, Any]], float], at: dict[str, Any], gradient: dict[str, Any]) -> None:
    """A gradient by argument is that of the loop, by differences in double precision along two directions of each argument."""
    point = {key: np.asarray(of, np.float64) for key, of in at.items()}
    for seed in (10, 20):
        for place, (key, of) in enumerate(point.items()):
            direction = normal(*of.shape, seed=seed + place).astype(np.float64)
            ahead, behind = (loop(point | {key: of + sign * 1e-5 * direction}) for sign in (1, -1))
            slope = float((np.asarray(gradient[key]) * direction).sum())
            assert slope == pytest.approx((ahead - behind) / 2e-5, rel=1e-3, abs=1e-5), key
