"""Losses that bring a student's vectors, or the similarities between them, to those of a teacher."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from fusionjax.losses.common import NEGATIVE, mean_of_valid, normalise


def cosine_distillation(
    student: Float[Array, "b p"], teacher: Float[Array, "b p"], valid: Bool[Array, "b"]
) -> Float[Array, ""]:
    """1 − cosine of the student's vector and the teacher's, mean over `valid` rows: 0 to 2.

    Same minimum and, up to a factor 2, same value as the squared error between unit vectors (Reimers & Gurevych 2020).

    Args:
      student, teacher: vectors of the same texts, any length; the teacher's are constants.
    """
    cosine = (normalise(student) * normalise(jax.lax.stop_gradient(teacher))).sum(-1)
    return mean_of_valid(1.0 - cosine, valid)


def kl_distillation(
    left: Float[Array, "b p"],
    right: Float[Array, "b p"],
    teacher_left: Float[Array, "b q"],
    teacher_right: Float[Array, "b q"],
    scale: Float[Array, ""],
    teacher_scale: Float[Array, ""],
    valid: Bool[Array, "b"],
) -> Float[Array, ""]:
    """KL divergence, in nats, from the teacher's softmax over the batch to the student's, mean over `valid` rows.

    Row i's distribution says which of the rows of `right` it resembles, by cosine (Hinton et al. 2015 on the logits of a batch,
    as TinyCLIP does: Wu et al. 2023). No factor for the temperatures.

    Args:
      left, right: the student's vectors, any length. The same array twice distils the similarities within it.
      teacher_left, teacher_right: the teacher's of the same rows, of any width; constants.
      scale, teacher_scale: 1 / temperature of each softmax; the teacher's is a constant.
      valid: rows that take part, as row and as column.
    """

    def log_share(left: Array, right: Array, scale: Array) -> Float[Array, "b b"]:
        logits = scale * normalise(left) @ normalise(right).T
        return jax.nn.log_softmax(jnp.where(valid[None, :], logits, NEGATIVE), axis=1)

    teacher = jax.lax.stop_gradient(log_share(teacher_left, teacher_right, teacher_scale))
    student = log_share(left, right, scale)
    return mean_of_valid((jnp.exp(teacher) * (teacher - student)).sum(axis=1), valid)
