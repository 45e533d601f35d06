"""Losses of graph embedding: of scores of true triples and of what they are held against. Each is one number a question."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from fusionjax.losses.common import NEGATIVE


def link_prediction(
    positive: Float[Array, "b"], negative: Float[Array, "b n"], known: Bool[Array, "b n"], self_adversarial: float = 0.0
) -> Float[Array, ""]:
    """Softmax cross-entropy of the true triple among its corruptions; or, with a temperature, self-adversarial log-sigmoid.

    Args:
      positive: score of each true triple.
      negative: scores of its corruptions.
      known: corruptions that are the true entity itself; they count for nothing.
      self_adversarial: temperature α of Sun et al. (2019), eq. 5: negatives weighted by softmax(α · score); 0: plain softmax.

    Returns:
      The mean over the batch.
    """
    if self_adversarial:
        return self_adversarial_sigmoid(positive, negative, known, self_adversarial).mean()
    return softmax_over_negatives(positive, negative, known).mean()


# ------------------------------------------------------------------------------------------------------- against negatives
def softmax_over_negatives(
    positive: Float[Array, "q"], negative: Float[Array, "q n"], known: Bool[Array, "q n"]
) -> Float[Array, "q"]:
    """Cross-entropy of the true triple among itself and its corruptions."""
    negative = jnp.where(known, NEGATIVE, negative)
    return jnp.logaddexp(positive, jax.nn.logsumexp(negative, axis=-1)) - positive


def self_adversarial_sigmoid(
    positive: Float[Array, "q"], negative: Float[Array, "q n"], known: Bool[Array, "q n"], temperature: float | Array = 1.0
) -> Float[Array, "q"]:
    """½ (−log σ(positive) − Σ w log σ(−negative)), w = softmax(temperature · negative) held fixed (Sun et al. 2019, eq. 5)."""
    negative = jnp.where(known, NEGATIVE, negative)
    weight = jax.lax.stop_gradient(jax.nn.softmax(temperature * negative, axis=-1))
    against = (weight * jax.nn.log_sigmoid(-negative)).sum(-1)
    return -(jax.nn.log_sigmoid(positive) + against) / 2


def sigmoid_over_negatives(
    positive: Float[Array, "q"], negative: Float[Array, "q n"], known: Bool[Array, "q n"]
) -> Float[Array, "q"]:
    """−log σ(positive) − mean of log σ(−negative): each candidate judged alone, both classes weighing the same."""
    judged = jnp.where(known, 0.0, jax.nn.softplus(negative))
    return jax.nn.softplus(-positive) + judged.sum(-1) / jnp.maximum((~known).sum(-1), 1)


def margin_ranking(
    positive: Float[Array, "q"], negative: Float[Array, "q n"], known: Bool[Array, "q n"], margin: float | Array = 1.0
) -> Float[Array, "q"]:
    """Mean over the negatives of max(0, margin − positive + negative) (Bordes et al. 2013)."""
    hinge = jnp.where(known, 0.0, jax.nn.relu(margin - positive[:, None] + negative))
    return hinge.sum(-1) / jnp.maximum((~known).sum(-1), 1)


# --------------------------------------------------------------------------------------------------------- against all
def softmax_over_all(
    scores: Float[Array, "q e"], answer: Int[Array, "q"], label_smoothing: float | Array | None = None
) -> Float[Array, "q"]:
    """Cross-entropy of the answer among all entities; `label_smoothing` of the target is spread evenly over them."""
    own = jnp.take_along_axis(scores, answer[:, None], axis=1)[:, 0]
    return jax.nn.logsumexp(scores, axis=-1) - _smoothed(own, scores, label_smoothing)


def softmax_over_some(
    scores: Float[Array, "q e"],
    answers: Int[Array, "q n"],
    share: Float[Array, "q n"],
    label_smoothing: float | Array | None = None,
) -> Float[Array, "q"]:
    """Cross-entropy between some answers, each with its share of the target (Σ 1), and the softmax over entities."""
    own = (jnp.take_along_axis(scores, answers, axis=1) * share).sum(-1)
    return jax.nn.logsumexp(scores, axis=-1) - _smoothed(own, scores, label_smoothing)


def sigmoid_over_all(
    scores: Float[Array, "q e"], answer: Int[Array, "q"], label_smoothing: float | Array | None = None
) -> Float[Array, "q"]:
    """Σ over entities of the binary cross-entropy, the answer alone being true."""
    own = jnp.take_along_axis(scores, answer[:, None], axis=1)[:, 0]
    return jax.nn.softplus(scores).sum(-1) - _smoothed(own, scores, label_smoothing)


def softmax_over_answers(
    scores: Float[Array, "q e"], labels: Bool[Array, "q e"], label_smoothing: float | Array | None = None
) -> Float[Array, "q"]:
    """Cross-entropy between the answers, all alike, and the softmax over entities (k-vs-all)."""
    count = jnp.maximum(labels.sum(-1), 1)
    own = jnp.where(labels, scores, 0.0).sum(-1) / count
    return jax.nn.logsumexp(scores, axis=-1) - _smoothed(own, scores, label_smoothing)


def sigmoid_over_answers(
    scores: Float[Array, "q e"], labels: Bool[Array, "q e"], label_smoothing: float | Array | None = None
) -> Float[Array, "q"]:
    """Σ over entities of the binary cross-entropy with every known answer true (k-vs-all; Dettmers et al. 2018).

    Smoothed labels are (1 − ε) y + ε / e, as ConvE and TuckER smooth them.
    """
    own = jnp.where(labels, scores, 0.0).sum(-1)
    return jax.nn.softplus(scores).sum(-1) - _smoothed(own, scores, label_smoothing)


def _smoothed(own: Float[Array, "q"], scores: Float[Array, "q e"], label_smoothing: float | Array | None) -> Float[Array, "q"]:
    """The score of the target, a share of which is spread evenly over all entities."""
    if label_smoothing is None:
        return own
    return (1 - label_smoothing) * own + label_smoothing * scores.mean(-1)
