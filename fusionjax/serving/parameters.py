"""The best parameters of a run as its answers need them: what is in the index already is not read a second time.

At a million products the text bank and the entity table are nearly all of a checkpoint, and no query needs them from there.
"""

from typing import Any, cast

import jax
import jax.numpy as jnp
from orbax.checkpoint import v1 as ocp

from fusionjax.errors import UserError
from fusionjax.models.entities import GRAPH, EntityModel
from fusionjax.models.joint import JointModel
from fusionjax.retrieval.index import Index
from fusionjax.runs import RunFolder
from fusionjax.training.checkpoint import Checkpoints
from fusionjax.training.state import best_shapes

_TABLE = "entities"


def best_parameters(folder: RunFolder, model: JointModel) -> tuple[int, Any, Any]:
    """(step, parameters, text bank) of the best checkpoint, all of it."""
    checkpoints = Checkpoints(folder.checkpoints, writing=False)
    try:
        return checkpoints.load_best(*best_shapes(model))
    finally:
        checkpoints.close()


def tower_parameters(folder: RunFolder, index: Index, entities: EntityModel | None) -> Any:
    """The parameters at the index's step; the entity table is the index's where its vectors are that table and nothing more.

    Args:
      entities: what the run's entity vectors are made of; None: it has none.

    Raises:
      UserError: there is no checkpoint, or only one of another step: the run was trained on since.
    """
    checkpoints = Checkpoints(folder.checkpoints, writing=False)
    try:
        found = checkpoints.best.latest
        if found is None or found.step != index.step:
            there = "there is none" if found is None else f"there is that of step {found.step}"
            raise UserError(f"{folder.path}: the parameters of step {index.step}, which its index is of, are gone: {there}")
        return _load(checkpoints, found.step, index, entities)
    finally:
        checkpoints.close()


def _load(checkpoints: Checkpoints, step: int, index: Index, entities: EntityModel | None) -> Any:
    # The stored shapes, not those of a model made anew: tracing its initialisation takes longer than all else here.
    stored = cast(Any, checkpoints.best.metadata(step).metadata)["params"]
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(tuple(leaf.shape), leaf.dtype, sharding=here), stored)
    plain = entities is not None and entities.text == "none" and not entities.literal_width
    held = index.graph.vectors if plain and index.graph is not None else None
    if held is not None:
        like[GRAPH] = {**like[GRAPH], _TABLE: ocp.PLACEHOLDER}
    params = checkpoints.best.load(step, {"params": like, "bank": ocp.PLACEHOLDER})["params"]
    return params if held is None else {**params, GRAPH: {**params[GRAPH], _TABLE: jnp.asarray(held)}}
