"""The best parameters of a run as its answers need them: what is in the index already is not read a second time.

At a million products the text bank and the entity table are nearly all of a checkpoint, and no query needs them from there.
"""

from typing import Any

import jax
import jax.numpy as jnp
from orbax.checkpoint import v1 as ocp

from fusionjax.errors import UserError
from fusionjax.models.joint import JointModel
from fusionjax.retrieval.index import Index
from fusionjax.runs import RunFolder
from fusionjax.training.checkpoint import Checkpoints
from fusionjax.training.state import best_shapes

_ENTITIES = "entities"


def best_parameters(folder: RunFolder, model: JointModel) -> tuple[int, Any, Any]:
    """(step, parameters, text bank) of the best checkpoint, all of it."""
    checkpoints = Checkpoints(folder.checkpoints, writing=False)
    try:
        return checkpoints.load_best(*best_shapes(model))
    finally:
        checkpoints.close()


def tower_parameters(folder: RunFolder, model: JointModel, index: Index) -> Any:
    """The parameters at the index's step; the entity table is the index's.

    Raises:
      UserError: there is no checkpoint, or only one of another step: the run was trained on since.
    """
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    shapes = best_shapes(model)[0]
    like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here), shapes)
    table = None
    if _ENTITIES in like and index.graph is not None:
        table = index.graph.vectors
        like[_ENTITIES] = jax.tree.map(lambda _: ocp.PLACEHOLDER, like[_ENTITIES])
    checkpoints = Checkpoints(folder.checkpoints, writing=False)
    try:
        found = checkpoints.best.latest
        if found is None or found.step != index.step:
            there = "there is none" if found is None else f"there is that of step {found.step}"
            raise UserError(f"{folder.path}: the parameters of step {index.step}, which its index is of, are gone: {there}")
        params = checkpoints.best.load(found.step, {"params": like, "bank": ocp.PLACEHOLDER})["params"]
    finally:
        checkpoints.close()
    if table is not None:
        params[_ENTITIES] = {name: jnp.asarray(table) for name in like[_ENTITIES]}
    return params
