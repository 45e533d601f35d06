"""Learning rates by group, schedules, decay and clipping, on a small tree of parameters."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fusionjax.config import schema
from fusionjax.training.loop import build_model
from fusionjax.training.optimiser import build_optimiser, build_schedule, group_of
from tests.shops import tiny_inputs, tiny_run

PARAMS = {
    "encoder": {"layer_0": {"kernel": jnp.full((2, 2), 2.0), "bias": jnp.ones(2)}, "word": {"embedding": jnp.ones((3, 2))}},
    "entities": {"embedding": jnp.ones((3, 2))},
    "relations": {"embedding": jnp.ones((2, 2))},
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
    optimiser = build_optimiser(config, 100)
    state, params, change = optimiser.init(PARAMS), PARAMS, ZEROS
    for _ in range(times):
        change, state = optimiser.update(gradient, state, params)
        params = optax.apply_updates(params, change)
    return jax.tree.map(np.asarray, change)


# -------------------------------------------------------------------------------------------------------------- schedules
@pytest.mark.parametrize(
    ("schedule", "at_55", "at_100"),
    [("constant", 1.0, 1.0), ("linear", 0.5, 0.0), ("cosine", 0.5, 0.0)],
)
def test_schedules(schedule: str, at_55: float, at_100: float) -> None:
    """100 steps, the first 10 of them warm-up; at step 55 half of the rest is done."""
    rate = build_schedule(settings(schedule=schedule, warmup_share=0.1), 4.0, 100)
    assert [float(rate(step)) for step in (0, 5, 10)] == pytest.approx([0.0, 2.0, 4.0])
    assert float(rate(55)) == pytest.approx(4.0 * at_55)
    assert float(rate(100)) == pytest.approx(4.0 * at_100, abs=1e-6)
    assert float(build_schedule(settings(schedule=schedule), 4.0, 100)(0)) == 4.0


def test_cosine_is_a_cosine() -> None:
    rate = build_schedule(settings(schedule="cosine"), 1.0, 100)
    assert float(rate(25)) == pytest.approx((1 + math.cos(math.pi / 4)) / 2)


def test_the_schedule_counts_steps() -> None:
    config = settings(name="sgd", schedule="linear", warmup_share=0.1)
    for times, share in ((1, 0.0), (6, 0.5), (11, 1.0), (56, 0.5)):
        assert update(config, ONES, times)["entities"]["embedding"] == pytest.approx(-0.2 * share, abs=1e-6)


# ----------------------------------------------------------------------------------------------------------------- groups
def test_each_group_has_its_rate() -> None:
    change = update(settings(name="sgd"), ONES)
    expected = {"encoder": -0.1, "entities": -0.2, "relations": -0.2, "product": -0.3, "alignment_log_scale": -0.3}
    for name, value in expected.items():
        for leaf in jax.tree.leaves(change[name]):
            assert leaf == pytest.approx(value)


@pytest.mark.parametrize("name", ["adamw", "adam", "adagrad", "sgd"])
def test_a_rate_of_zero_freezes_a_group(name: str) -> None:
    change = update(settings((0.0, 0.2, 0.3), name=name, weight_decay=0.5), ONES)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(change["encoder"]))
    for part in ("entities", "relations", "product", "alignment_log_scale"):
        assert all(np.all(leaf != 0) for leaf in jax.tree.leaves(change[part]))


def test_the_groups_of_the_real_model() -> None:
    config = tiny_run()
    params = jax.eval_shape(build_model(config, tiny_inputs(config)).init, jax.random.key(0))["params"]
    groups: dict[str, set[str]] = {}
    for path, _ in jax.tree_util.tree_leaves_with_path(params):
        groups.setdefault(group_of(path), set()).add(path[0].key)
    assert groups["encoder"] == {"encoder"}
    assert groups["tables"] == {"entities", "relations"}
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
        change["entities"]["embedding"],
        change["relations"]["embedding"],
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
    assert update(settings(rates, name="sgd", clip_norm=1.5), small)["entities"]["embedding"] == pytest.approx(-1e-3)


@pytest.mark.parametrize(
    ("name", "first"),
    # The first step from a gradient of 4, by hand; Adagrad starts its sum of squares at 0.1.
    [("sgd", -4.0), ("adam", -1.0), ("adamw", -1.0), ("adagrad", -4.0 / math.sqrt(16.1))],
)
def test_first_steps_by_hand(name: str, first: float) -> None:
    gradient = jax.tree.map(lambda leaf: leaf * 4.0, ONES)
    assert update(settings((1.0, 1.0, 1.0), name=name), gradient)["entities"]["embedding"] == pytest.approx(first, rel=1e-4)
