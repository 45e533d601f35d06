"""What of a pretrained encoder is trained (`text.tune`), and where its parameters come from."""

from typing import Any

import jax
import numpy as np

from fusionjax.config import schema
from fusionjax.hub import locate, read_checkpoint

Path = tuple[Any, ...]
"""Of a leaf, as `jax.tree_util.tree_map_with_path` gives it."""


def is_trained(path: Path, text: schema.Text, layers: int) -> bool:
    """Whether the parameter at `path` of the joint model's tree gets a gradient."""
    if path[0].key != "encoder" or text.tune == "full":
        return True
    if text.tune == "frozen":
        return False
    if text.tune == "lora":
        return path[-1].key in ("lora_a", "lora_b")
    number = layer_of(path)
    return path[1].key == "final_norm" or (number is not None and number >= layers - text.tune_layers)


def layer_of(path: Path) -> int | None:
    """Number of the encoder layer that a parameter belongs to; None: embeddings, final norm, or another part of the model."""
    name = path[1].key if path[0].key == "encoder" else ""
    return int(name.removeprefix("layer_")) if name.startswith("layer_") else None


def held(params: Any, text: schema.Text, layers: int) -> Any:
    """The same parameters, those that are not trained as constants: no backward pass is computed for them."""
    if text.tune == "full":
        return params
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf if is_trained(path, text, layers) else jax.lax.stop_gradient(leaf), params
    )


def pretrained(params: Any, text: schema.Text) -> Any:
    """Fresh parameters with those of `text.checkpoint` in their places; adapters stay fresh, so does a head it lacks.

    Raises:
      UserError: the checkpoint cannot be read.
    """
    if text.checkpoint is None or "encoder" not in params:
        return params
    found = read_checkpoint(locate(text.checkpoint))
    given = {"encoder": found.params, **({"masked_words": found.head} if found.head and "masked_words" in params else {})}
    return {**params, **{name: _placed(params[name], tree) for name, tree in given.items()}}


def _placed(fresh: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """`fresh` with the leaves of `given`, on the same devices."""
    out = dict(fresh)
    for name, value in given.items():
        here = fresh[name]
        if isinstance(value, dict):
            out[name] = _placed(here, value)
        else:
            assert here.shape == np.shape(value)
            out[name] = jax.device_put(value, here.sharding if here.committed else None)
    return out
