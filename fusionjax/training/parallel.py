"""Placing a run on all local devices: batches are split over one mesh axis, everything else is on every device."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import lax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from fusionjax.config import schema
from fusionjax.data.inputs import product_text_needed
from fusionjax.errors import UserError

AXIS = "data"


def build_mesh() -> Mesh:
    """All local devices along one axis. `Auto`: the compiler inserts the collectives, so in-batch negatives span the mesh."""
    devices = jax.local_devices()
    return jax.make_mesh((len(devices),), (AXIS,), axis_types=(AxisType.Auto,), devices=devices)


def check_divisible(config: schema.Run, mesh: Mesh) -> None:
    """Raises `UserError` if a batch cannot be split evenly over the devices."""
    sizes = {f"objectives.{name}.batch_size": each.batch_size for name, each in config.objectives.used().items()}
    if product_text_needed(config):
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


def each_run(f: Callable[..., Any], in_axes: tuple[int | None, ...], *, apart: bool) -> Callable[..., Any]:
    """`f` for a stack of runs in one program.

    Args:
      in_axes: of each argument 0, where runs have their own, along a leading axis, or None, where they share it.
      apart: one run after the other (`lax.map`), instead of side by side (`jax.vmap`). For a CPU, whose cores one run fills: a
        stack of products, gathers and scatters costs more there than its parts one by one.
    """
    if not apart:
        return jax.vmap(f, in_axes=in_axes)

    def one_by_one(*arguments: Any) -> Any:
        def one(own: list[Any]) -> Any:
            left = iter(own)
            return f(*(next(left) if axis == 0 else shared for axis, shared in zip(in_axes, arguments, strict=True)))

        return lax.map(one, [each for axis, each in zip(in_axes, arguments, strict=True) if axis == 0])

    return one_by_one
