"""Parameters of a loaded run are those of its best checkpoint, whatever its entity vectors are made of."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from orbax.checkpoint import v1 as ocp

from fusionjax.inference import Encoder
from fusionjax.models.entities import Features
from fusionjax.runs import RunFolder
from fusionjax.serving import parameters
from fusionjax.serving.build import build_index
from fusionjax.training.checkpoint import Checkpoints
from tests.link_prediction.made import ENTITIES, made, normal


@pytest.mark.parametrize(
    ("words", "text", "numbers", "read"),
    [
        ((), 0, 0, False),
        (("literals=true",), 0, 4, True),
        (("text={use: add, checkpoint: somewhere}",), 6, 0, True),
        (("text={use: align, checkpoint: somewhere}",), 6, 0, True),
        (("text={use: replace, checkpoint: somewhere}",), 6, 0, False),
    ],
    ids=["table", "numbers", "add", "align", "replace"],
)
def test_the_table_is_read_from_the_index_only_where_its_vectors_are_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], text: int, numbers: int, read: bool
) -> None:
    seen = jnp.asarray(np.arange(ENTITIES) % 7 != 0, float)
    features = Features(jnp.asarray(normal(ENTITIES, text)), jnp.asarray(normal(ENTITIES, numbers)), seen)
    these = made("scorer=tucker", *words, features=features)
    state, home = these.state(3), RunFolder(tmp_path)
    checkpoints = Checkpoints(home.checkpoints)
    checkpoints.save_best(state, {"link_prediction": {"mrr": 0.5}})
    checkpoints.close()
    index = build_index(these.config, these.inputs, Encoder(these.joint, state.params), state.bank, int(state.step))
    asked: list[Any] = []
    load = parameters.ocp.training.Checkpointer.load

    def watched(self: Any, step: int, like: Any) -> Any:
        asked.append(like["params"]["graph"].get("entities"))
        return load(self, step, like)

    monkeypatch.setattr(parameters.ocp.training.Checkpointer, "load", watched)
    found = parameters.tower_parameters(home, index, these.model)
    jax.tree.map(np.testing.assert_array_equal, found, state.params)
    assert jax.tree.structure(found) == jax.tree.structure(state.params)
    assert (asked[0] is not None and asked[0] is not ocp.PLACEHOLDER) == read
