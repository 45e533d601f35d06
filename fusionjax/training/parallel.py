"""Placing a run on all local devices: batches are split over one mesh axis, everything else is on every device."""

import dataclasses
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


@dataclasses.dataclass(frozen=True)
class Placement:
    """Which device holds what. Several runs: whole runs to each device, if they divide evenly; nothing is exchanged then.

    A lone run: each batch is split over the devices, everything else is on all of them; not so on several CPU devices, whose
    collectives can wait for each other for ever inside a compiled loop.
    """

    mesh: Any
    by_run: bool
    by_batch: bool

    @classmethod
    def of(cls, runs: int, batch_size: int) -> "Placement":
        mesh = build_mesh()
        by_run = runs > 1 and runs % mesh.size == 0
        by_batch = runs == 1 and batch_size % mesh.size == 0 and mesh.devices.flat[0].platform != "cpu"
        return cls(mesh, by_run, by_batch)

    @property
    def apart(self) -> bool:
        """Whether runs of a stack take turns: on one CPU device."""
        return not self.by_run and self.mesh.devices.flat[0].platform == "cpu"

    def _put(self, tree: Any, *spec: str | None) -> Any:
        if not (self.by_run or self.by_batch):
            return jax.device_put(tree, self.mesh.devices.flat[0])
        return jax.device_put(tree, NamedSharding(self.mesh, PartitionSpec(*spec)))

    def everywhere(self, tree: Any) -> Any:
        return self._put(tree)

    def states(self, tree: Any) -> Any:
        """What each run has of its own."""
        return self._put(tree, *((AXIS,) if self.by_run else ()))

    def orders(self, chosen: np.ndarray) -> jax.Array:
        """int32 [steps, b], or [runs, steps, b]."""
        return self._put(chosen, *((AXIS,) if self.by_run else (None, AXIS)))
