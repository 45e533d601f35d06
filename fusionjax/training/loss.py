"""The joint loss: towers → objectives → weighted sum. Pure; written as if there were one device."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Float

from fusionjax.config import schema
from fusionjax.models.joint import JointModel
from fusionjax.objectives import OBJECTIVES
from fusionjax.objectives.link_prediction.strategies import Strategy
from fusionjax.objectives.towers import Catalogue, Lookups, Towers
from fusionjax.training.tuning import held

Losses = dict[str, Float[Array, ""]]


def joint_loss(
    params: Any,
    bank: Array,
    batch: dict[str, dict[str, Array]],
    key: Array,
    catalogue: Catalogue,
    numbers: Mapping[str, Any],
    *,
    model: JointModel,
    config: schema.Run,
    strategy: Strategy | None = None,
    lookups: Lookups | None = None,
    mesh: Mesh | None = None,
) -> tuple[Float[Array, ""], tuple[Losses, Array]]:
    """Weighted sum of the objectives present in `batch`.

    Args:
      bank: float32 [n_products, d], the text vectors as last encoded. The rows named in `batch["live"]` are encoded anew, with
        gradient, and every objective reads them; the others are constants.
      key: randomness of this step.
      mesh: devices over which the rows of `batch` are spread; only `text.chunk` must know.

    Returns:
      (loss, (each objective's unweighted loss, the bank with its live rows renewed)).
    """
    if model.layout.encoder is not None:
        params = held(params, config.text, model.layout.encoder.layers)
    towers = Towers(model, params, jax.lax.stop_gradient(bank), key, catalogue, config, numbers, strategy, lookups, mesh)
    if "live" in batch:
        fresh = towers.encode(batch["live"], len(batch["live"]["rows"]))
        towers.bank = towers.bank.at[batch["live"]["rows"]].set(fresh, mode="drop")
    each = {name: OBJECTIVES[name].loss(towers, entry) for name, entry in batch.items() if name != "live"}
    settings = config.objectives.used()
    total = sum((settings[name].weight * loss for name, loss in each.items()), start=jnp.zeros(()))
    return total, (each, jax.lax.stop_gradient(towers.bank))
