"""Learning rates by group, schedules, decay and clipping, on a small tree of parameters."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fusionjax.config import schema
from fusionjax.training.optimiser import Optimiser, group_of, schedule_share
from fusionjax.training.state import init_params
from tests.shops import model_of, tiny_inputs, tiny_run

PARAMS = {
    "encoder": {"layer_0": {"kernel": jnp.full((2, 2), 2.0), "bias": jnp.ones(2)}, "word": {"embedding": jnp.ones((3, 2))}},
    "graph": {"entities": jnp.ones((3, 2)), "relations": jnp.ones((2, 2))},
    "product": {"gate": {"kernel": jnp.full((2, 2), 2.0), "bias": jnp.ones(2)}, "norm": {"scale": jnp.ones(2)}},
    "alignment_log_scale": jnp.float32(3.0),
}
ONES = jax.tree.map(jnp.ones_like, PARAMS)
ZEROS = jax.tree.map(jnp.zeros_like, PARAMS)


def settings(rates: tuple[float, float, float] = (0.1, 0.2, 0.3), **changes: Any) -> schema.Optimiser:
    """Constant rates of encoder, tables and heads; no warm-up, no decay, no clipping, unless changed."""
    rate = schema.LearningRate(encoder=rates[0], tables=rates[1], heads=rates[2])
    plain: dict[str, Any] = {"schedule": "constant", "warmup_share": 0.0, "weight_decay": 0.0, "clip_norm": 0.0}
    return schema.Optimiser(learning_rate=rate, **{**plain, **changes})


def update(config: schema.Optimiser, gradient: Any, times: int = 1) -> Any:
    """How much the parameters change in each step, as NumPy arrays; the last of `times` steps."""
    optimiser = Optimiser(config, schema.Text(), layers=1, steps=100)
    rates = {group: jnp.float32(rate) for group, rate in optimiser.base_rates().items()}
    state, params, before = optimiser.init(PARAMS), PARAMS, PARAMS
    for step in range(times):
        before = params
        params, state, _ = optimiser.update(params, gradient, state, rates, jnp.int32(step))
    return jax.tree.map(lambda new, old: np.asarray(new - old), params, before)


# -------------------------------------------------------------------------------------------------------------- schedules
@pytest.mark.parametrize(
    ("schedule", "at_55", "at_100"),
    [("constant", 1.0, 1.0), ("plateau", 1.0, 1.0), ("linear", 0.5, 0.0), ("cosine", 0.5, 0.0)],
)
def test_schedules(schedule: str, at_55: float, at_100: float) -> None:
    """100 steps, the first 10 of them warm-up; at step 55 half of the rest is done."""
    share = schedule_share(settings(schedule=schedule, warmup_share=0.1), 100)
    assert [float(share(step)) for step in (0, 5, 10)] == pytest.approx([0.0, 0.5, 1.0])
    assert float(share(55)) == pytest.approx(at_55)
    assert float(share(100)) == pytest.approx(at_100, abs=1e-6)
    cold = schedule_share(settings(schedule=schedule), 100)
    assert cold is None if schedule in ("constant", "plateau") else float(cold(0)) == 1.0


def test_cosine_is_a_cosine() -> None:
    rate = schedule_share(settings(schedule="cosine"), 100)
    assert float(rate(25)) == pytest.approx((1 + math.cos(math.pi / 4)) / 2)


def test_the_schedule_counts_steps() -> None:
    config = settings(name="sgd", schedule="linear", warmup_share=0.1)
    for times, share in ((1, 0.0), (6, 0.5), (11, 1.0), (56, 0.5)):
        assert update(config, ONES, times)["graph"]["entities"] == pytest.approx(-0.2 * share, abs=1e-6)


# ----------------------------------------------------------------------------------------------------------------- groups
def test_each_group_has_its_rate() -> None:
    change = update(settings(name="sgd"), ONES)
    expected = {"encoder": -0.1, "graph": -0.2, "product": -0.3, "alignment_log_scale": -0.3}
    for name, value in expected.items():
        for leaf in jax.tree.leaves(change[name]):
            assert leaf == pytest.approx(value)


@pytest.mark.parametrize("name", ["adamw", "adam", "adagrad_torch", "adagrad_optax", "sgd"])
def test_a_rate_of_zero_freezes_a_group(name: str) -> None:
    change = update(settings((0.0, 0.2, 0.3), name=name, weight_decay=0.5), ONES)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(change["encoder"]))
    for part in ("graph", "product", "alignment_log_scale"):
        assert all(np.all(leaf != 0) for leaf in jax.tree.leaves(change[part]))


def test_the_groups_of_the_real_model() -> None:
    config = tiny_run()
    params = jax.eval_shape(lambda: init_params(model_of(config, tiny_inputs(config)), 0))
    groups: dict[str, set[str]] = {}
    for path, _ in jax.tree_util.tree_leaves_with_path(params):
        groups.setdefault(group_of(path), set()).add(path[0].key)
    assert groups["encoder"] == {"encoder"}
    assert groups["tables"] == {"graph"}
    scales = {f"{name}_log_scale" for name in ("alignment", "query_product", "next_product")}
    assert groups["heads"] == {"product", "query", "user", *scales}


# ------------------------------------------------------------------------------------------------------- decay and clipping
def test_weight_decay_is_for_kernels_only() -> None:
    """With no gradient, decay is all that moves parameters: by rate × decay × value."""
    change = update(settings(name="adamw", weight_decay=0.5), ZEROS)
    assert change["encoder"]["layer_0"]["kernel"] == pytest.approx(-0.1 * 0.5 * 2.0)
    assert change["product"]["gate"]["kernel"] == pytest.approx(-0.3 * 0.5 * 2.0)
    still = [
        change["encoder"]["layer_0"]["bias"],
        change["encoder"]["word"]["embedding"],
        change["graph"]["entities"],
        change["graph"]["relations"],
        change["product"]["gate"]["bias"],
        change["product"]["norm"]["scale"],
        change["alignment_log_scale"],
    ]
    assert not any(np.any(leaf) for leaf in still)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(update(settings(name="adam", weight_decay=0.5), ZEROS)))


def test_clipping_bounds_the_global_norm() -> None:
    rates = (1.0, 1.0, 1.0)
    free, clipped = (update(settings(rates, name="sgd", clip_norm=norm), ONES) for norm in (0.0, 1.5))
    count = sum(leaf.size for leaf in jax.tree.leaves(PARAMS))
    assert float(optax.tree.norm(free)) == pytest.approx(math.sqrt(count))
    assert float(optax.tree.norm(clipped)) == pytest.approx(1.5)
    small = jax.tree.map(lambda leaf: leaf * 1e-3, ONES)
    assert update(settings(rates, name="sgd", clip_norm=1.5), small)["graph"]["entities"] == pytest.approx(-1e-3, abs=1e-7)


@pytest.mark.parametrize(
    ("name", "first"),
    # The first step from a gradient of 4, by hand; optax starts Adagrad's sum of squares at 0.1, torch at 0.
    [("sgd", -4.0), ("adam", -1.0), ("adamw", -1.0), ("adagrad_optax", -4.0 / math.sqrt(16.1)), ("adagrad_torch", -1.0)],
)
def test_first_steps_by_hand(name: str, first: float) -> None:
    gradient = jax.tree.map(lambda leaf: leaf * 4.0, ONES)
    assert update(settings((1.0, 1.0, 1.0), name=name), gradient)["graph"]["entities"] == pytest.approx(first, rel=1e-4)
