"""Placing a run on all local devices: batches are split over one mesh axis, everything else is on every device."""

from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from fusionjax.config import schema
from fusionjax.data.batches import OBJECTIVES, uses_bank
from fusionjax.errors import UserError

AXIS = "data"


def build_mesh() -> Mesh:
    """All local devices along one axis. `Auto`: the compiler inserts the collectives, so in-batch negatives span the mesh."""
    devices = jax.local_devices()
    return jax.make_mesh((len(devices),), (AXIS,), axis_types=(AxisType.Auto,), devices=devices)


def check_divisible(config: schema.Run, mesh: Mesh) -> None:
    """Raises `UserError` if a batch cannot be split evenly over the devices."""
    sizes = {
        f"objectives.{name}.batch_size": getattr(config.objectives, name).batch_size
        for name in OBJECTIVES
        if getattr(config.objectives, name).weight > 0
    }
    if uses_bank(config):
        sizes["text.live"] = config.text.live
    if config.text.chunk:
        sizes["text.chunk"] = config.text.chunk
    for key, size in sizes.items():
        if size % mesh.size:
            raise UserError(f"{key}: {size} cannot be split over {mesh.size} devices; use a multiple of {mesh.size}")


def replicate(tree: Any, mesh: Mesh) -> Any:
    """The same array on every device."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def shard_batch(batch: dict[str, dict[str, np.ndarray]], mesh: Mesh, accumulate: int = 1) -> Any:
    """Splits the example axis of every array (the second, behind the micro-batch axis, when gradients are accumulated)."""
    spec = PartitionSpec(AXIS) if accumulate == 1 else PartitionSpec(None, AXIS)
    return jax.device_put(batch, NamedSharding(mesh, spec))
