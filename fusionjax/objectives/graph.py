"""The loss of the product graph."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from fusionjax.objectives.common import NEGATIVE


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
