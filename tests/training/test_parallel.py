"""Four devices give the numbers of one, and really share the work."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh

from fusionjax.config import schema
from fusionjax.errors import UserError
from fusionjax.training import parallel
from fusionjax.training.state import TrainState
from fusionjax.training.stream import StepSource
from tests.shops import ON, constants_of, fresh_state, numbers_for, step_of, tiny_inputs, tiny_run

# Plain gradient steps: Adam's would turn a rounding error around zero into a whole step.
PLAIN = (
    "train.optimiser={name: sgd, schedule: constant, warmup_share: 0}",
    "train.optimiser.learning_rate={encoder: 0.05, tables: 0.05, heads: 0.05}",
)


def mesh_of(devices: int) -> Mesh:
    return jax.make_mesh((devices,), (parallel.AXIS,), axis_types=(AxisType.Auto,), devices=jax.devices()[:devices])


def run(config: schema.Run, devices: int, steps: int) -> tuple[list[dict[str, float]], TrainState, str]:
    """Metrics of each step, the last state, and the compiled program."""
    inputs, mesh = tiny_inputs(config), mesh_of(devices)
    step = step_of(config, inputs)
    state = parallel.replicate(fresh_state(config, inputs), mesh)
    source, places, rows = StepSource(inputs, config, steps), parallel.replicate(constants_of(config, inputs), mesh), []
    batch, key = parallel.shard_batch(source[0], mesh), parallel.replicate(jax.random.key(config.seed), mesh)
    numbers = parallel.replicate(numbers_for(config), mesh)
    program = step.lower(state, batch, places, key, numbers).compile().as_text()  # pyright: ignore[reportFunctionMemberAccess]
    for number in range(steps):
        state, metrics = step(state, parallel.shard_batch(source[number], mesh), places, key, numbers)
        rows.append({name: float(value) for name, value in metrics.items()})
    return rows, state, program


def test_the_tests_have_four_devices() -> None:
    assert jax.device_count() == 4
    assert parallel.build_mesh().shape == {parallel.AXIS: 4}


def test_four_devices_give_the_numbers_of_one() -> None:
    """All objectives, dropout on: in-batch negatives span the devices, or InfoNCE would see a quarter of them."""
    config = tiny_run(*PLAIN)
    (one, alone, serial), (four, shared, program) = (run(config, devices, steps=4) for devices in (1, 4))
    assert set(one[0]) == {"loss", "gradient_norm", *(f"loss/{name}" for name in ON)}
    for a, b in zip(one, four, strict=True):
        assert a == pytest.approx(b, rel=1e-5)
    assert abs(one[0]["loss"] - one[3]["loss"]) > 1e-2  # the steps did something
    for a, b in zip(jax.tree.leaves(alone.params), jax.tree.leaves(shared.params), strict=True):
        assert np.allclose(a, b, rtol=1e-4, atol=1e-6)
    assert np.allclose(alone.bank, shared.bank, rtol=1e-4, atol=1e-5)
    assert all(leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(shared))
    assert "all-reduce" in program and "all-reduce" not in serial
    # Collectives behind a condition (`jnp.diagonal` makes one) can wait for each other for ever on the CPU.
    assert "conditional(" not in program


def test_batches_are_split_and_parameters_are_not() -> None:
    config = tiny_run()
    inputs, mesh = tiny_inputs(config), parallel.build_mesh()
    host = StepSource(inputs, config, 1)[0]
    assert set(host) == {*ON, "live"}
    device: dict[str, dict[str, jax.Array]] = parallel.shard_batch(host, mesh)
    for name, entry in device.items():
        for field, array in entry.items():
            shards = array.addressable_shards
            assert len({shard.device for shard in shards}) == 4
            quarter = array.shape[0] // 4
            for place, shard in enumerate(sorted(shards, key=lambda shard: shard.index[0].start or 0)):
                assert np.array_equal(shard.data, host[name][field][place * quarter : (place + 1) * quarter])
    table: Any = parallel.replicate(np.ones((8, 3)), mesh)
    assert table.sharding.is_fully_replicated and len(table.addressable_shards) == 4


def test_micro_batches_are_split_along_their_examples() -> None:
    config = tiny_run("train.accumulate=2")
    host = StepSource(tiny_inputs(config), config, 1)[0]
    array = parallel.shard_batch(host, parallel.build_mesh(), accumulate=2)["alignment"]["product"]
    assert array.shape == (2, 16)
    assert {shard.data.shape for shard in array.addressable_shards} == {(2, 4)}


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("objectives.alignment.batch_size=18", "objectives.alignment.batch_size: 18 cannot be split over 4 devices"),
        ("objectives.next_product.batch_size=2", "objectives.next_product.batch_size: 2 cannot be split over 4 devices"),
        ("text.live=30", "text.live: 30 cannot be split over 4 devices; use a multiple of 4"),
    ],
)
def test_a_batch_that_cannot_be_split_is_refused(override: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        parallel.check_divisible(tiny_run(override), parallel.build_mesh())
    parallel.check_divisible(tiny_run(override), mesh_of(2 if "live" in override or "18" in override else 1))


def test_an_objective_without_weight_is_not_asked() -> None:
    off = tiny_run("objectives.alignment.batch_size=18", "objectives.alignment.weight=0")
    parallel.check_divisible(off, parallel.build_mesh())


@pytest.mark.parametrize("apart", [False, True])
def test_runs_of_a_stack_are_their_lone_runs(apart: bool) -> None:
    def run(state: Any, graph: jax.Array, hyper: dict[str, jax.Array], key: jax.Array) -> tuple[Any, jax.Array]:
        drawn = jax.random.normal(key, graph.shape)
        return {"w": state["w"] - hyper["rate"] * (graph + drawn)}, (state["w"] @ graph).sum()

    state = {"w": jnp.arange(12.0).reshape(3, 2, 2)}
    graph, hyper = jnp.array([[1.0, 2.0], [3.0, 5.0]]), {"rate": jnp.array([0.1, 0.2, 0.4])}
    keys = jax.random.split(jax.random.key(0), 3)
    stacked = jax.jit(parallel.each_run(run, (0, None, 0, 0), apart=apart))(state, graph, hyper, keys)
    for row in range(3):
        lone = run({"w": state["w"][row]}, graph, {"rate": hyper["rate"][row]}, keys[row])
        for found, expected in zip(jax.tree.leaves(stacked), jax.tree.leaves(lone), strict=True):
            np.testing.assert_allclose(found[row], expected, rtol=1e-6)
