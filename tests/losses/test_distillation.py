"""Distillation losses against loops over plain numbers, and against values worked by hand."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.losses.loops import LN2, agree_with_differences, cosine, kl_loop, mean, normal, objectives

B = 6
STUDENT, TEACHER = normal(B, 5), normal(B, 5, seed=1)
OTHER = normal(B, 5, seed=2)
WIDE_LEFT, WIDE_RIGHT = normal(B, 8, seed=3), normal(B, 8, seed=4)
VALID, YES = np.array([True, True, False, True, True, False]), np.ones(B, bool)
SCALE, TEACHER_SCALE = np.float32(3.0), np.float32(5.0)
ONE = np.float32(1.0)

# Whole: op by op is slower to compile.
cosine_distillation: Any = jax.jit(objectives.cosine_distillation)
cosine_step: Any = jax.jit(jax.value_and_grad(objectives.cosine_distillation, argnums=(0, 1)))
kl_distillation: Any = jax.jit(objectives.kl_distillation)
kl_step: Any = jax.jit(jax.value_and_grad(objectives.kl_distillation, argnums=tuple(range(6))))


# ----------------------------------------------------------------------------------------------------------------- cosine
def test_cosine_distillation_by_hand() -> None:
    student = jnp.array([[2.0, 0.0], [2.0, 0.0], [2.0, 0.0], [6.0, 8.0]])
    teacher = jnp.array([[0.5, 0.0], [0.0, 3.0], [-1.0, 0.0], [0.0, 1.0]])
    for row, value in enumerate((0.0, 1.0, 2.0, 0.2)):
        loss = cosine_distillation(student, teacher, jnp.arange(4) == row)
        assert float(loss) == pytest.approx(value, abs=1e-6)


def test_cosine_distillation_is_the_loop_and_half_the_squared_error_of_unit_vectors() -> None:
    for valid in (YES, VALID):
        loss = float(cosine_distillation(STUDENT, TEACHER, valid))
        rows = np.flatnonzero(valid)
        assert loss == pytest.approx(mean([1 - cosine(STUDENT[i], TEACHER[i]) for i in rows]), rel=1e-5)
        a, b = (x[rows] / np.linalg.norm(x[rows], axis=1, keepdims=True) for x in (STUDENT, TEACHER))
        assert loss == pytest.approx(float(((a - b) ** 2).sum(axis=1).mean()) / 2, rel=1e-5)


def test_cosine_distillation_of_a_student_that_equals_its_teacher_up_to_length_is_zero() -> None:
    loss, (gradient, _) = cosine_step(STUDENT * 3, STUDENT, YES)
    assert float(loss) == pytest.approx(0.0, abs=1e-6)
    assert np.allclose(gradient, 0.0, atol=1e-6)


def test_cosine_distillation_teaches_the_student_alone_and_of_valid_rows_alone() -> None:
    value, (student, teacher) = cosine_step(STUDENT, TEACHER, VALID)
    assert not np.any(teacher)
    assert list(np.any(np.asarray(student) != 0, axis=1)) == list(VALID)
    moved = np.where(VALID[:, None], STUDENT, 9)
    assert float(cosine_step(moved, TEACHER, VALID)[0]) == float(value)
    assert float(cosine_step(STUDENT, TEACHER, ~YES)[0]) == 0.0


def test_cosine_distillation_has_finite_gradients_at_zero_vectors() -> None:
    for student, teacher in ((STUDENT * 0, TEACHER), (STUDENT, TEACHER * 0), (STUDENT * 0, TEACHER * 0)):
        value, (gradient, _) = cosine_step(student, teacher, YES)
        assert float(value) == pytest.approx(1.0, abs=1e-6)
        assert np.all(np.isfinite(gradient))


# --------------------------------------------------------------------------------------------------------------------- KL
def test_kl_distillation_by_hand() -> None:
    """A teacher that finds all rows alike; a student of orthogonal rows at scale 1: shares e/(e + 1) and 1/(e + 1)."""
    student, teacher, yes = jnp.array([[2.0, 0.0], [0.0, 0.5]]), jnp.array([[1.0, 1.0, 1.0]] * 2), jnp.ones(2, bool)
    from_teacher = math.log(math.e + 1) - 0.5 - LN2  # Σ ½ log(½ / share)
    loss = kl_distillation(student, student, teacher, teacher, ONE, ONE, yes)
    assert float(loss) == pytest.approx(from_teacher, rel=1e-5)
    # The other way round: the divergence is not symmetric.
    from_student = LN2 + math.e / (math.e + 1) - math.log(math.e + 1)  # Σ share log(2 · share)
    loss = kl_distillation(teacher, teacher, student, student, ONE, ONE, yes)
    assert float(loss) == pytest.approx(from_student, rel=1e-5)


def test_kl_distillation_is_the_loop_also_for_a_teacher_of_another_width() -> None:
    for valid in (YES, VALID):
        for teacher in ((WIDE_LEFT, WIDE_RIGHT), (TEACHER, STUDENT)):
            vectors = (STUDENT, OTHER, *teacher)
            loss = float(kl_distillation(*vectors, SCALE, TEACHER_SCALE, valid))
            assert loss == pytest.approx(kl_loop(*vectors, float(SCALE), float(TEACHER_SCALE), valid), rel=1e-4)


def test_kl_distillation_is_zero_where_student_and_teacher_and_their_scales_are_equal() -> None:
    def loss(student: Any, scale: Any) -> Any:
        return kl_distillation(student, student, STUDENT, STUDENT, scale, SCALE, VALID)

    step = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))
    value, gradients = step(STUDENT * 7, SCALE)
    assert float(value) == pytest.approx(0.0, abs=1e-6)
    assert all(np.allclose(gradient, 0.0, atol=1e-6) for gradient in gradients)
    # Equal vectors at another scale: the student's scale goes towards the teacher's.
    for scale, sign in ((SCALE / 2, -1), (SCALE * 2, 1)):
        value, (_, slope) = step(STUDENT, scale)
        assert float(value) > 1e-2
        assert np.sign(slope) == sign


def test_kl_distillation_teaches_the_student_alone_and_valid_rows_neither_count_nor_learn_otherwise() -> None:
    numbers = SCALE, TEACHER_SCALE
    value, gradients = kl_step(STUDENT, OTHER, WIDE_LEFT, WIDE_RIGHT, *numbers, VALID)
    left, right, teacher_left, teacher_right, scale, teacher_scale = map(np.asarray, gradients)
    assert not np.any(teacher_left)
    assert not np.any(teacher_right)
    assert teacher_scale == 0
    assert scale != 0
    for gradient in (left, right):
        assert list(np.any(gradient != 0, axis=1)) == list(VALID)
    moved = [x + 3 * ~VALID[:, None] * (np.arange(x.shape[1]) == 0) for x in (STUDENT, OTHER, WIDE_LEFT, WIDE_RIGHT)]
    moved = [x.astype(np.float32) for x in moved]
    assert float(kl_step(*moved, *numbers, VALID)[0]) == float(value)
    value, gradients = kl_step(STUDENT, OTHER, WIDE_LEFT, WIDE_RIGHT, *numbers, ~YES)
    assert float(value) == 0.0
    assert not any(np.any(gradient) for gradient in gradients)


def test_kl_distillation_is_finite_at_zero_vectors_and_low_temperatures() -> None:
    for student, scale in ((STUDENT * 0, SCALE), (STUDENT, np.float32(1e4))):
        value, gradients = kl_step(student, OTHER, WIDE_LEFT, WIDE_RIGHT, scale, np.float32(1e4), VALID)
        assert np.isfinite(value)
        assert all(np.all(np.isfinite(gradient)) for gradient in gradients)


# -------------------------------------------------------------------------------------------------------------- gradients
def test_gradients_agree_with_differences_of_the_loops() -> None:
    rows = np.flatnonzero(VALID)
    _, (student, _) = cosine_step(STUDENT, TEACHER, VALID)
    agree_with_differences(
        lambda at: mean([1 - cosine(at["student"][i], TEACHER[i]) for i in rows]), {"student": STUDENT}, {"student": student}
    )
    _, (left, right, *_, scale, _) = kl_step(STUDENT, OTHER, WIDE_LEFT, WIDE_RIGHT, SCALE, TEACHER_SCALE, VALID)
    agree_with_differences(
        lambda at: kl_loop(at["left"], at["right"], WIDE_LEFT, WIDE_RIGHT, at["scale"], float(TEACHER_SCALE), VALID),
        {"left": STUDENT, "right": OTHER, "scale": SCALE},
        {"left": left, "right": right, "scale": scale},
    )
