"""The optimiser of a config: one optax chain, with its own learning rate for encoder, tables and heads."""

from collections.abc import Callable, Hashable
from typing import Any

import jax
import optax

from fusionjax.config import schema
from fusionjax.training.tuning import is_trained, layer_of

_GROUPS = {"encoder": "encoder", "entities": "tables", "relations": "tables"}
"""Top-level parameter name → group; all else is `heads`."""


def group_of(path: tuple[Any, ...]) -> str:
    """The learning-rate group of a parameter path."""
    return _GROUPS.get(path[0].key, "heads")


def build_optimiser(
    config: schema.Optimiser, steps: int, text: schema.Text | None = None, layers: int = 0
) -> optax.GradientTransformation:
    """Clipping, then the named optimiser for each group; what `text.tune` holds fast has no optimiser state.

    Args:
      steps: length of the schedule.
      text: the run's; None: everything is trained.
      layers: of the encoder.
    """
    text = text or schema.Text()

    def label(path: tuple[Any, ...], _: Any) -> str:
        if not is_trained(path, text, layers):
            return "held"
        group = group_of(path)
        if group != "encoder" or config.layer_decay == 1.0:
            return group
        return f"encoder {_depth(path, layers)}"

    rates: dict[str, float] = {group: getattr(config.learning_rate, group) for group in ("encoder", "tables", "heads")}
    if config.layer_decay != 1.0:
        rates |= {f"encoder {depth}": rates["encoder"] * config.layer_decay**depth for depth in range(layers + 1)}
    groups: dict[Hashable, optax.GradientTransformation] = {
        group: _named(config, build_schedule(config, rate, steps)) for group, rate in rates.items()
    }
    if text.tune != "full":
        groups["held"] = optax.set_to_zero()
    chain = optax.multi_transform(groups, lambda params: jax.tree_util.tree_map_with_path(label, params))
    return optax.chain(optax.clip_by_global_norm(config.clip_norm), chain) if config.clip_norm else chain


def _depth(path: tuple[Any, ...], layers: int) -> int:
    """How many layers lie between a parameter of the encoder and its end."""
    number = layer_of(path)
    if number is not None:
        return layers - 1 - number
    return 0 if path[1].key == "final_norm" else layers


def build_schedule(config: schema.Optimiser, rate: float, steps: int) -> Callable[[Any], Any]:
    """Learning rate by step: linear warm-up from 0, then constant, linear to 0, or cosine to 0."""
    warmup = round(config.warmup_share * steps)
    rest = max(steps - warmup, 1)
    if config.schedule == "constant":
        after = optax.constant_schedule(rate)
    elif config.schedule == "linear":
        after = optax.linear_schedule(rate, 0.0, rest)
    else:
        after = optax.cosine_decay_schedule(rate, rest)
    return optax.join_schedules([optax.linear_schedule(0.0, rate, max(warmup, 1)), after], [warmup]) if warmup else after


def _named(config: schema.Optimiser, rate: Callable[[Any], Any]) -> optax.GradientTransformation:
    if config.name == "adamw":
        return optax.adamw(rate, weight_decay=config.weight_decay, mask=_decays)
    if config.name == "adam":
        return optax.adam(rate)
    if config.name == "adagrad":
        return optax.adagrad(rate)
    return optax.sgd(rate)


def _decays(params: Any) -> Any:
    """Weight decay is for matrices: not for tables, biases, norms and temperatures."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: getattr(leaf, "ndim", 0) >= 2 and path[-1].key == "kernel" and group_of(path) != "tables", params
    )
