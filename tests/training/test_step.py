"""One optimiser step: micro-batches, precision, which parts exist, how often it compiles."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fusionjax.config import schema
from fusionjax.training import steps as driver
from fusionjax.training.loss import joint_loss
from fusionjax.training.state import TrainState, init_params
from fusionjax.training.stream import StepSource, active
from tests.shops import (
    CALM,
    ONLY_GRAPH,
    ONLY_USERS,
    constants_of,
    fresh_state,
    model_of,
    numbers_for,
    step_of,
    strategy_for,
    tiny_inputs,
    tiny_run,
    train_alone,
)

# One gradient step of length 1: the change of the parameters is minus the gradient.
BARE = (
    "train.optimiser={name: sgd, schedule: constant, warmup_share: 0, clip_norm: 0}",
    "train.optimiser.learning_rate={encoder: 1, tables: 1, heads: 1}",
)
NO_TEXT = ("model.product.sources=[entity]", "objectives.alignment.weight=0", "objectives.query_product.weight=0")
TEXT_USERS = (
    "objectives.link_prediction.weight=0",
    "objectives.alignment.weight=0",
    "objectives.query_product.weight=0",
    *CALM,
)


def steps(config: schema.Run, number: int) -> tuple[list[dict[str, float]], TrainState]:
    inputs = tiny_inputs(config)
    step, numbers = step_of(config, inputs), numbers_for(config)
    state, places, source = fresh_state(config, inputs), constants_of(config, inputs), StepSource(inputs, config, number)
    rows: list[dict[str, float]] = []
    for place in range(number):
        state, metrics = step(state, source[place], places, jax.random.key(config.seed), numbers)
        rows.append({name: float(value) for name, value in metrics.items()})
    return rows, state


def test_accumulation_is_the_mean_of_separate_gradients() -> None:
    config = tiny_run(*NO_TEXT, *CALM, *BARE, "train.accumulate=3")
    inputs = tiny_inputs(config)
    before, given = fresh_state(config, inputs), (constants_of(config, inputs), numbers_for(config))
    bound = {"model": model_of(config, inputs), "config": config, "strategy": strategy_for(config, inputs)}
    batch = StepSource(inputs, config, 1)[0]
    assert batch["link_prediction"]["chosen"].shape == (3, 16)
    key = jax.random.fold_in(jax.random.key(config.seed), 0)
    gradient = jax.jit(
        jax.value_and_grad(lambda params, bank, batch, key: joint_loss(params, bank, batch, key, *given, **bound), has_aux=True)
    )
    parts = [
        gradient(before.params, before.bank, jax.tree.map(lambda leaf, k=k: leaf[k], batch), jax.random.fold_in(key, k))
        for k in range(3)
    ]
    rows, after = steps(config, 1)
    mean = jax.tree.map(lambda *leaves: sum(leaves) / 3, *(part[1] for part in parts))
    change = jax.tree.map(lambda a, b: np.asarray(a - b), fresh_state(config, inputs).params, after.params)
    for (path, expected), got in zip(jax.tree_util.tree_leaves_with_path(mean), jax.tree.leaves(change), strict=True):
        assert np.allclose(got, expected, rtol=1e-4, atol=1e-6), jax.tree_util.keystr(path)
    assert rows[0]["loss"] == pytest.approx(float(np.mean([part[0][0] for part in parts])), rel=1e-5)
    assert rows[0]["loss/next_product"] == pytest.approx(float(np.mean([p[0][1][0]["next_product"] for p in parts])), rel=1e-5)
    # The parts differ, so that a mean of one part with itself could not pass.
    assert len({float(part[0][0]) for part in parts}) == 3


def test_bfloat16_stays_close_and_keeps_float32_parameters() -> None:
    (exact, before), (rough, after) = (
        steps(tiny_run(*TEXT_USERS, f"train.precision={precision}"), 4) for precision in ("float32", "bfloat16")
    )
    for a, b in zip(exact, rough, strict=True):
        assert b["loss"] == pytest.approx(a["loss"], rel=0.02)
    assert [row["loss"] for row in exact] != [row["loss"] for row in rough]
    assert {leaf.dtype for leaf in jax.tree.leaves((after.params, after.bank))} == {jnp.dtype("float32")}
    assert jax.tree.map(jnp.shape, before.params) == jax.tree.map(jnp.shape, after.params)


def test_a_step_renews_the_live_rows_of_the_bank_and_no_others() -> None:
    config = tiny_run(*TEXT_USERS)
    inputs = tiny_inputs(config)
    model, state = model_of(config, inputs), fresh_state(config, inputs)
    live = StepSource(inputs, config, 1)[0]["live"]
    before = np.asarray(state.bank)
    fresh: Any = jax.jit(lambda params, tokens: model.apply({"params": params}, tokens, method="encode"))
    encoded = np.asarray(fresh(state.params, live["tokens"]))
    after = np.asarray(steps(config, 1)[1].bank)
    rows = live["rows"]
    assert rows.max() < inputs.n_products and len(set(rows.tolist())) == 16
    assert np.allclose(after[rows], encoded, rtol=1e-5, atol=1e-5)
    others = np.setdiff1d(np.arange(inputs.n_products), rows)
    assert np.array_equal(after[others], before[others])


# ------------------------------------------------------------------------------------------------------- parts by weight
@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        ((), {"encoder", "graph", "product", "query", "user"}),
        (ONLY_GRAPH, {"graph"}),
        (ONLY_USERS, {"graph", "product", "user"}),
        (("objectives.link_prediction.weight=0",), {"encoder", "graph", "product", "query", "user"}),
        (("objectives.query_product.weight=0",), {"encoder", "graph", "product", "user"}),
        (
            (
                "model.product.sources=[text]",
                *(f"objectives.{name}.weight=0" for name in ("link_prediction", "alignment", "next_product")),
            ),
            {"encoder", "product", "query"},
        ),
    ],
)
def test_weight_0_removes_an_objective_and_its_parameters(overrides: tuple[str, ...], parts: set[str]) -> None:
    config = tiny_run(*overrides)
    inputs = tiny_inputs(config)
    params = jax.eval_shape(lambda: init_params(model_of(config, inputs), 0))
    assert ("relations" in params.get("graph", {})) == bool(config.objectives.link_prediction.weight)
    assert {name for name in params if not name.endswith("_log_scale")} == parts
    weights = {
        name
        for name in ("link_prediction", "alignment", "query_product", "next_product")
        if getattr(config.objectives, name).weight
    }
    assert set(StepSource(inputs, config, 1)[0]) - {"live"} == weights


def test_objectives_alternate() -> None:
    config = tiny_run(
        "objectives.link_prediction={every: 2, offset: 0}",
        "objectives.alignment={every: 2, offset: 1}",
        "objectives.query_product={every: 3, offset: 2}",
        "objectives.next_product.weight=0",
    )
    turns = [active(config.objectives, step) for step in range(6)]
    link, align, query = ("link_prediction",), ("alignment",), ("query_product",)
    assert turns == [link, align, link + query, align, link, align + query]


def test_the_weight_scales_the_loss_and_not_its_metric() -> None:
    one, three = (steps(tiny_run(*ONLY_GRAPH, f"objectives.link_prediction.weight={weight}"), 1)[0][0] for weight in (1, 3))
    assert one["loss/link_prediction"] == three["loss/link_prediction"] == one["loss"]
    assert three["loss"] == pytest.approx(3 * one["loss"], rel=1e-6)
    assert three["gradient_norm"] == pytest.approx(3 * one["gradient_norm"], rel=1e-5)


# ---------------------------------------------------------------------------------------------------------- compilations
@pytest.mark.parametrize(
    ("overrides", "programs"),
    [
        # By turns.
        ((*NO_TEXT, "objectives.link_prediction.every=2", "objectives.next_product={every: 2, offset: 1}"), 2),
        # Histories of up to 24 events come padded to 8, 20 or 24.
        ((*ONLY_USERS, "model.user.history=24", "objectives.next_product.batch_size=4"), 3),
    ],
)
def test_it_compiles_once_for_each_kind_of_batch(
    overrides: tuple[str, ...], programs: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through the real loop, with validations and checkpoints in between."""
    build, built = driver.build_step, []

    def kept(*args: Any) -> Any:
        built.append(build(*args))
        return built[-1]

    monkeypatch.setattr(driver, "build_step", kept)
    config = tiny_run(*overrides, "train.steps=18", "train.validate_every=9", "evaluation.tasks=[recommendation]")
    inputs = tiny_inputs(config)
    kinds = set()
    for batch in (StepSource(inputs, config, 18)[step] for step in range(18)):
        kinds.add(tuple((name, field, array.shape) for name, entry in batch.items() for field, array in entry.items()))
    train_alone(config, tmp_path)
    assert built[0]._cache_size() == len(kinds) == programs
