"""The optimiser of a config: a rule, a rate and dense or sparse rows for each group of parameters.

A rule turns gradients into directions; a step is parameters − rate × direction. Rates are arguments of the compiled step, so
that a plateau, or a run of a stack, can have its own. The entity table's state stands apart from the rest: its rule works
element by element, so that it does to some rows what it does to the whole table. Adagrad is then exactly what it is on the
whole table, for rows without a gradient stand still there too. Adam is lazy: moments of rows left out do not decay (as torch's
SparseAdam).
"""

import dataclasses
from collections.abc import Hashable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Float, Int

from fusionjax.config import schema
from fusionjax.models.entities import GRAPH
from fusionjax.training.tuning import is_trained, layer_of

Params = Any
_GROUPS = {"encoder": "encoder", GRAPH: "tables"}
"""Top-level parameter name → group; all else is `heads`."""


def group_of(path: tuple[Any, ...]) -> str:
    """The group of a parameter path: encoder, tables or heads."""
    return _GROUPS.get(path[0].key, "heads")


class SparseRows(NamedTuple):
    """Which rows of the entity table a gradient is of."""

    ids: Int[Array, "m"]
    places: Int[Array, "m"]
    """Of each row the place of the one that stands for all rows with its id (`one_of_equal`): the others' are not read."""


@dataclasses.dataclass(frozen=True)
class Optimiser:
    """Pure functions of a config, static under jit.

    Args of methods: `params` and `gradients` are the run's whole tree; the entity table is `params["graph"]["entities"]`.
    """

    config: schema.Optimiser
    text: schema.Text
    """What of the encoder is held fast (`text.tune`): it has no state and takes no step."""
    layers: int
    """Of the encoder."""
    steps: int
    """Length of the schedule."""

    def init(self, params: Params) -> dict[str, Any]:
        """`rest` and, where there is a table, `entities`."""
        table, rest = table_apart(params)
        state = {"rest": self._of_rest().init(rest)}
        return state if table is None else {"entities": self._of_table().init(table), **state}

    def base_rates(self) -> dict[str, float]:
        """Rate of each group before schedule and plateau."""
        return {group: getattr(self.config.learning_rate, group) for group in ("encoder", "tables", "heads")}

    def update(
        self,
        params: Params,
        gradients: Params,
        state: dict[str, Any],
        rates: Mapping[str, Array],
        step: Array,
        rows: SparseRows | None = None,
    ) -> tuple[Params, dict[str, Any], Array]:
        """(parameters, state, norm of the gradients) after a step.

        Args:
          rates: of each group, before the schedule.
          step: int32 []: steps done before this one.
          rows: the gradient of the entity table is [m, w], of these rows alone.
        """
        norm = optax.tree.norm(gradients)
        if self.config.clip_norm:
            most = self.config.clip_norm
            gradients = jax.tree.map(lambda g: lax.select(norm < most, g, (g / norm.astype(g.dtype)) * most), gradients)
        scheduled = self._scheduled(rates, step)
        (table, rest), (of_table, of_rest) = table_apart(params), table_apart(gradients)
        directions, rest_state = self._of_rest().update(of_rest, state["rest"], rest)
        rest = jax.tree_util.tree_map_with_path(
            lambda path, value, direction: self._moved(path, value, direction, scheduled), rest, directions
        )
        if table is None:
            return rest, {"rest": rest_state}, norm
        assert of_table is not None
        if rows is None:
            direction, table_state = self._of_table().update(of_table, state["entities"])
            table = table - scheduled["tables"] * jnp.asarray(direction)
        else:
            table, table_state = descend_rows(self._of_table(), table, of_table, rows, state["entities"], scheduled["tables"])
        return with_table(rest, table), {"entities": table_state, "rest": rest_state}, norm

    def _moved(self, path: tuple[Any, ...], value: Array, direction: Array, rates: Mapping[str, Array]) -> Array:
        label = self._label(path)
        if label == "held":
            return value
        rate = rates[label.split()[0]]
        if label.startswith("encoder ") and self.config.layer_decay != 1.0:
            rate = rate * self.config.layer_decay ** int(label.split()[1])
        return value - rate * direction

    def _scheduled(self, rates: Mapping[str, Array], step: Array) -> Mapping[str, Array]:
        share = schedule_share(self.config, self.steps)
        return rates if share is None else {group: rate * share(step) for group, rate in rates.items()}

    def _label(self, path: tuple[Any, ...]) -> str:
        if not is_trained(path, self.text, self.layers):
            return "held"
        group = group_of(path)
        return f"{group} {_depth(path, self.layers)}" if group == "encoder" else group

    def _of_table(self) -> optax.GradientTransformation:
        return direction_rule(self.config, "tables")

    def _of_rest(self) -> optax.GradientTransformation:
        rules: dict[Hashable, optax.GradientTransformation] = {
            group: direction_rule(self.config, group) for group in ("encoder", "tables", "heads")
        }

        def label(path: tuple[Any, ...], _: Any) -> str:
            return self._label(path).split()[0]

        if self.text.tune != "full":
            rules["held"] = optax.set_to_zero()
        return optax.multi_transform(rules, lambda params: jax.tree_util.tree_map_with_path(label, params))


def optimiser_of(config: schema.Run, layers: int, steps: int) -> Optimiser:
    """The optimiser of a run.

    Args:
      layers: of its encoder.
      steps: of its training.
    """
    return Optimiser(config.train.optimiser, config.text, layers, steps)


def direction_rule(config: schema.Optimiser, group: str) -> optax.GradientTransformation:
    """Gradients → directions, to be multiplied by −learning rate, by the rule of a group.

    torch's Adagrad starts its sum of squares at 0 and divides by √s + 1e-10; optax's starts at 0.1 and divides by √(s + 1e-7).
    An epsilon of 1e-20 inside the root is torch's 1e-10 outside it, up to rounding, wherever either counts at all.
    """
    match getattr(config.rules, group) or config.name:
        case "adamw" if group != "tables":
            return optax.chain(optax.scale_by_adam(), optax.add_decayed_weights(config.weight_decay, _decays))
        case "adam" | "adamw":
            return optax.scale_by_adam()
        case "adagrad_torch":
            return optax.scale_by_rss(initial_accumulator_value=0.0, eps=1e-20)
        case "adagrad_optax":
            return optax.scale_by_rss(initial_accumulator_value=0.1, eps=1e-7)
        case _:
            return optax.identity()


def schedule_share(config: schema.Optimiser, steps: int) -> Any:
    """step → share of the rate: linear warm-up from 0, then constant, linear to 0, or cosine to 0; None: always all of it."""
    warmup = round(config.warmup_share * steps)
    rest = max(steps - warmup, 1)
    if config.schedule in ("constant", "plateau"):
        if not warmup:
            return None
        after = optax.constant_schedule(1.0)
    elif config.schedule == "linear":
        after = optax.linear_schedule(1.0, 0.0, rest)
    else:
        after = optax.cosine_decay_schedule(1.0, rest)
    return optax.join_schedules([optax.linear_schedule(0.0, 1.0, max(warmup, 1)), after], [warmup]) if warmup else after


def _depth(path: tuple[Any, ...], layers: int) -> int:
    """How many layers lie between a parameter of the encoder and its end."""
    number = layer_of(path)
    if number is not None:
        return layers - 1 - number
    return 0 if path[1].key == "final_norm" else layers


def _decays(params: Any) -> Any:
    """Weight decay is for matrices: not for tables, biases, norms and temperatures."""
    return jax.tree_util.tree_map_with_path(lambda path, leaf: leaf.ndim >= 2 and path[-1].key == "kernel", params)


# ------------------------------------------------------------------------------------------------------- rows of a table
def table_apart(params: Params) -> tuple[Array | None, Params]:
    """(the entity table or None, all else)."""
    graph = params.get(GRAPH, {})
    if "entities" not in graph:
        return None, params
    return graph["entities"], {**params, GRAPH: {name: part for name, part in graph.items() if name != "entities"}}


def with_table(rest: Params, table: Array | None) -> Params:
    """The parameters again, of what `table_apart` gave."""
    return rest if table is None else {**rest, GRAPH: {"entities": table, **rest[GRAPH]}}


def one_of_equal(ids: Int[Array, "m"], scratch: Int[Array, "e"]) -> tuple[Int[Array, "m"], Int[Array, "e"]]:
    """(the place of one row for each row, the same for equal rows; scratch).

    Args:
      ids: rows of a table of e, as often as they occur.
      scratch: any numbers; comes back changed. It tells equal rows apart without sorting them or clearing anything.
    """
    scratch = scratch.at[ids].set(jnp.arange(len(ids), dtype=jnp.int32), mode="promise_in_bounds")
    return scratch[ids], scratch


def descend_rows(
    rule: optax.GradientTransformation,
    table: Float[Array, "e w"],
    gradients: Float[Array, "m w"],
    rows: SparseRows,
    state: optax.OptState,
    rate: Array,
) -> tuple[Float[Array, "e w"], optax.OptState]:
    """(table, state) after a step on some rows, in place where the table is donated or carried by a loop."""
    m, e = len(rows.ids), len(table)
    target = jnp.where(rows.places == jnp.arange(m), rows.ids, e)  # the others fall outside, and are dropped

    def is_rows(leaf: Array) -> bool:
        return leaf.shape[:1] == (e,)

    own = jax.tree.map(lambda leaf: leaf.at[rows.ids].get(mode="promise_in_bounds") if is_rows(leaf) else leaf, state)
    directions, own = rule.update(gradients, own)
    table = table.at[target].add(-rate * jnp.asarray(directions), mode="drop")
    state = jax.tree.map(lambda leaf, new: leaf.at[target].set(new, mode="drop") if is_rows(leaf) else new, state, own)
    return table, state
