"""Checkpoints with Orbax (v1): the latest states to resume from, and the best parameters to use.

`checkpoints/latest/STEP` holds the whole state and, as metadata, the data position and what the loop remembers;
`checkpoints/best/STEP` holds parameters and text bank. Orbax writes beside and renames, so a killed save leaves nothing behind.
"""

from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
from orbax.checkpoint import v1 as ocp

from fusionjax.errors import UserError
from fusionjax.training.state import TrainState

_policies = ocp.training.preservation_policies


class Checkpoints:
    """Both series of one run folder.

    Only the process that trains is `writing`: it removes what a killed save left. A reader must not, for it would remove what
    a training process is about to write.
    """

    def __init__(self, folder: Path, writing: bool = True) -> None:
        def series(name: str, keep: int) -> ocp.training.Checkpointer:
            (folder / name).mkdir(parents=True, exist_ok=True)
            return ocp.training.Checkpointer(
                str((folder / name).absolute()),
                preservation_policy=cast(Any, _policies.LatestN(keep)),  # its annotation is of the older API
                cleanup_tmp_directories=writing,
            )

        self.latest, self.best = series("latest", 2), series("best", 1)

    def save(self, state: TrainState, memory: dict[str, Any]) -> None:
        """Saves the state with the loop's memory (JSON: data position, best validation, …); a step twice changes nothing."""
        step = int(state.step)
        if step not in self.steps():
            self.latest.save(step, _plain(state), force=True, custom_metadata=memory)

    def latest_step(self) -> int | None:
        found = self.latest.latest
        return None if found is None else found.step

    def steps(self) -> set[int]:
        """Of the states there are."""
        return {kept.step for kept in self.latest.checkpoints}

    def restore(self, like: TrainState, step: int | None = None) -> tuple[TrainState, dict[str, Any]] | None:
        """The newest state, or that of a step, placed like `like`, and its memory; `None` if there is none.

        Raises:
          UserError: the checkpoint is of another model.
        """
        step = self.latest_step() if step is None else step
        if step is None or step not in self.steps():
            return None
        found = _load(self.latest, step, jax.tree.map(_abstract, _plain(like)))
        return TrainState(**found), cast(dict[str, Any], self.latest.metadata(step).custom_metadata)

    def save_best(self, state: TrainState, validation: dict[str, Any]) -> None:
        """Saves parameters and bank as the best so far; saving a step twice (after a resume) changes nothing."""
        step = int(state.step)
        found = self.best.latest
        if found is not None and found.step >= step:
            return
        self.best.save(step, {"params": state.params, "bank": state.bank}, force=True, custom_metadata=validation)

    def load_best(self, params: Any, bank: tuple[int, int] = (1, 1)) -> tuple[int, Any, Any]:
        """(step, parameters, text bank) of the best checkpoint, on the first local device, wherever it was saved.

        Args:
          params: tree of shapes and dtypes that the parameters must have.
          bank: shape of the text bank.

        Raises:
          UserError: the run has none, or it is of another model.
        """
        found = self.best.latest
        if found is None:
            raise UserError(f"{self.best.directory}: no checkpoint there; train the run first")
        here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        like = {"params": params, "bank": jax.ShapeDtypeStruct(bank, jnp.float32)}
        like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here), like)
        tree = _load(self.best, found.step, like)
        return found.step, tree["params"], tree["bank"]

    def close(self) -> None:
        self.latest.close()
        self.best.close()


def _plain(state: TrainState) -> dict[str, Any]:
    """All that is needed to go on."""
    parts = {"step": state.step, "params": state.params, "opt_state": state.opt_state, "bank": state.bank}
    return parts if state.average is None else {**parts, "average": state.average}


def _abstract(leaf: Any) -> Any:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)


def _load(series: ocp.training.Checkpointer, step: int, like: dict[str, Any]) -> dict[str, Any]:
    """Loads a checkpoint, once its parameters are known to fit: Orbax would fail halfway, with reads under way."""
    stored = cast(Any, series.metadata(step).metadata)
    for part in ("params", "bank"):
        there, here = _shapes(stored[part]), _shapes(like[part])
        for name in sorted(there.keys() | here.keys()):
            if there.get(name) != here.get(name):
                raise UserError(
                    f"{series.directory}/{step}: this checkpoint does not fit the model of the config: {part}{name} is "
                    f"{there.get(name, 'absent')} there, {here.get(name, 'absent')} in the model"
                )
    return series.load(step, like)


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    return {jax.tree_util.keystr(path): tuple(leaf.shape) for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]}
