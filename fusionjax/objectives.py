"""Objectives: pure functions of tower outputs, each the mean over its examples. `NEGATIVE` masks a logit out of a softmax."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

NEGATIVE = -1e9


def link_prediction(
    positive: Float[Array, "b"], negative: Float[Array, "b n"], known: Bool[Array, "b n"], self_adversarial: float = 0.0
) -> Float[Array, ""]:
    """Softmax cross-entropy of the true triple among its corruptions; or, with a temperature, self-adversarial log-sigmoid.

    Args:
      positive: score of each true triple.
      negative: scores of its corruptions.
      known: corruptions that are the true entity itself; they count for nothing.
      self_adversarial: temperature α of Sun et al. (2019), eq. 5: negatives weighted by softmax(α · score); 0: plain softmax.
    """
    negative = jnp.where(known, NEGATIVE, negative)
    if self_adversarial:
        weight = jax.lax.stop_gradient(jax.nn.softmax(self_adversarial * negative, axis=-1))
        against = (weight * jax.nn.log_sigmoid(-negative)).sum(-1)
        return -(jax.nn.log_sigmoid(positive) + against).mean() / 2
    return (jnp.logaddexp(positive, jax.nn.logsumexp(negative, axis=-1)) - positive).mean()


def info_nce(
    left: Float[Array, "b p"],
    right: Float[Array, "b p"],
    scale: Float[Array, ""],
    positives: Bool[Array, "b b"],
    valid: Bool[Array, "b"],
) -> Float[Array, ""]:
    """InfoNCE in both directions on cosines: row i of `left` matches row i of `right` (van den Oord 2018; Radford 2021).

    Args:
      left, right: any length; normalised here.
      scale: 1 / temperature.
      positives: pairs known to match besides the diagonal: neither pulled nor pushed.
      valid: rows that take part, as example and as negative.
    """
    logits = scale * normalise(left) @ normalise(right).T
    own = jnp.eye(logits.shape[0], dtype=bool)
    hidden = (positives & ~own) | ~valid[None, :]
    forth = _row_cross_entropy(jnp.where(hidden & ~own, NEGATIVE, logits))
    hidden = (positives.T & ~own) | ~valid[None, :]
    back = _row_cross_entropy(jnp.where(hidden & ~own, NEGATIVE, logits.T))
    weight = valid.astype(logits.dtype)
    return ((forth + back) * weight).sum() / (2 * jnp.maximum(weight.sum(), 1.0))


def softmax_over_catalogue(logits: Float[Array, "b e"], target: Int[Array, "b"], valid: Bool[Array, "b"]) -> Float[Array, ""]:
    """Cross-entropy of the next product among all products, mean over `valid` rows."""
    chosen = jnp.take_along_axis(logits, jnp.where(valid, target, 0)[:, None], axis=1)[:, 0]
    weight = valid.astype(logits.dtype)
    return ((jax.nn.logsumexp(logits, axis=1) - chosen) * weight).sum() / jnp.maximum(weight.sum(), 1.0)


def sampled_softmax(
    target_logit: Float[Array, "b"],
    candidate_logits: Float[Array, "b n"],
    target: Int[Array, "b"],
    candidate: Int[Array, "n"],
    target_log_q: Float[Array, "b"],
    candidate_log_q: Float[Array, "n"],
    valid: Bool[Array, "b"],
) -> Float[Array, ""]:
    """Softmax over a sample of the catalogue with logQ correction (Bengio & Senécal 2008; Yi et al. 2019).

    Args:
      target, candidate: product numbers; a candidate that is the row's own target is left out, as is one numbered −1.
      *_log_q: log of how often the sampler is expected to draw the product; subtracted from its logit.
    """
    same = (candidate[None, :] == target[:, None]) | (candidate < 0)[None, :]
    own = target_logit - target_log_q
    others = jnp.where(same, NEGATIVE, candidate_logits - candidate_log_q[None, :])
    loss = jnp.logaddexp(own, jax.nn.logsumexp(others, axis=-1)) - own
    weight = valid.astype(loss.dtype)
    return (loss * weight).sum() / jnp.maximum(weight.sum(), 1.0)


def normalise(x: Float[Array, "... p"]) -> Float[Array, "... p"]:
    """Unit length along the last axis; the zero vector stays zero (and keeps a finite gradient)."""
    return x * jax.lax.rsqrt(jnp.maximum((x * x).sum(-1, keepdims=True), 1e-12))


def _row_cross_entropy(logits: Float[Array, "b b"]) -> Float[Array, "b"]:
    # A masked sum, not `jnp.diagonal`: that gathers behind a `cond`, and collectives inside it dead-lock several CPU devices.
    own = jnp.where(jnp.eye(logits.shape[0], dtype=bool), logits, 0.0).sum(axis=1)
    return jax.nn.logsumexp(logits, axis=1) - own
