"""The loss of masked language modelling."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from fusionjax.losses.common import mean_of_valid


def masked_words(logits: Float[Array, "... v"], target: Int[Array, "..."]) -> Float[Array, ""]:
    """Cross-entropy in nats of the words asked for, mean over the places asked (Devlin et al. 2019); 0 if none is.

    Args:
      logits: a score for each of v words, at any number of places; the softmax is in float32 also for bfloat16.
      target: number of the hidden word; −1: not asked.
    """
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    asked = target >= 0
    chosen = jnp.take_along_axis(logits, jnp.where(asked, target, 0)[..., None], axis=-1)[..., 0]
    return mean_of_valid(jax.nn.logsumexp(logits, axis=-1) - chosen, asked)
