"""Losses of the next product: a softmax over the catalogue, or over a sample of it."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from fusionjax.losses.common import NEGATIVE, mean_of_valid


def softmax_over_catalogue(logits: Float[Array, "b e"], target: Int[Array, "b"], valid: Bool[Array, "b"]) -> Float[Array, ""]:
    """Cross-entropy of the next product among all products, mean over `valid` rows."""
    chosen = jnp.take_along_axis(logits, jnp.where(valid, target, 0)[:, None], axis=1)[:, 0]
    return mean_of_valid(jax.nn.logsumexp(logits, axis=1) - chosen, valid)


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
    return mean_of_valid(jnp.logaddexp(own, jax.nn.logsumexp(others, axis=-1)) - own, valid)
