"""Steps on the rows a batch touched against steps on the whole table, and both Adagrads against numbers worked by hand."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fusionjax.config import schema
from fusionjax.models.entities import GRAPH
from fusionjax.training.optimiser import Optimiser, SparseRows, one_of_equal
from tests.link_prediction.made import assert_close, normal

E, W, RATE = 7, 3, 0.1
NUMBERS = [np.array([2, 5, 2, 0, 2]), np.array([5, 5, 6, 1, 0]), np.array([3, 0, 6, 6, 5])]  # row 4: never


def rule(name: Any) -> Optimiser:
    """Constant rates, nothing clipped."""
    return Optimiser(schema.Optimiser(name=name, schedule="constant", warmup_share=0.0, clip_norm=0.0), schema.Text(), 0, 100)


def tree(table: Any) -> Any:
    return {GRAPH: {"entities": table}}


def descend(of: Optimiser, table: Any, gradients: Any, state: Any, rows: SparseRows | None = None) -> tuple[Any, Any]:
    """(table, state) after a step."""
    rates = {group: jnp.float32(RATE) for group in ("encoder", "tables", "heads")}
    params, state, _ = of.update(tree(table), tree(gradients), state, rates, jnp.int32(0), rows)
    return params[GRAPH]["entities"], state


def steps(name: Any, rows: bool) -> tuple[np.ndarray, Any]:
    """(table, optimiser state) after three steps, the gradients given row by row or summed into a table of them."""
    of = rule(name)
    table = jnp.asarray(normal(E, W))
    state, scratch = of.init(tree(table)), jnp.full(E, 3, jnp.int32)

    @jax.jit
    def step(table: Any, state: Any, scratch: Any, gradients: Any, numbers: Any) -> Any:
        if rows:
            places, scratch = one_of_equal(numbers, scratch)
            summed = jnp.zeros_like(gradients).at[places].add(gradients)
            return *descend(of, table, summed, state, SparseRows(numbers, places)), scratch
        return *descend(of, table, jnp.zeros_like(table).at[numbers].add(gradients), state), scratch

    for turn, numbers in enumerate(NUMBERS):
        table, state, scratch = step(table, state, scratch, normal(5, W, seed=turn + 1), jnp.asarray(numbers))
    return np.asarray(table), state["entities"]


@pytest.mark.parametrize("name", ["sgd", "adagrad_torch", "adagrad_optax"])
def test_a_step_on_rows_is_a_step_on_the_whole_table(name: str) -> None:
    (ours, state), (whole, other) = steps(name, rows=True), steps(name, rows=False)
    np.testing.assert_allclose(ours, whole, rtol=1e-5, atol=1e-6)
    assert_close(state, other)
    assert np.array_equal(ours[4], normal(E, W)[4]) and not np.any(ours[[0, 1, 2, 3, 5, 6]] == normal(E, W)[[0, 1, 2, 3, 5, 6]])


def test_adam_on_rows_is_lazy() -> None:
    """Rows left out stand still; else moments decay and move the row on. Count and bias correction are those of the steps."""
    (lazy, state), (whole, other) = steps("adam", rows=True), steps("adam", rows=False)
    assert int(state.count) == int(other.count) == 3
    in_all_steps, in_the_first_alone = [0, 5], 2
    np.testing.assert_allclose(lazy[in_all_steps], whole[in_all_steps], rtol=1e-5, atol=1e-6)
    gradient = normal(5, W, seed=1)[[0, 2, 4]].sum(0)
    # After one step: −rate · g / |g|, since both moments are corrected to g and g².
    first = normal(E, W)[2] - RATE * gradient / (np.abs(gradient) + 1e-8)
    np.testing.assert_allclose(lazy[in_the_first_alone], first, rtol=1e-5)
    assert np.all(np.abs(whole[in_the_first_alone] - lazy[in_the_first_alone]) > 0.01)
    np.testing.assert_allclose(state.mu[2], 0.1 * gradient, rtol=1e-4)
    np.testing.assert_allclose(other.mu[2], 0.1 * gradient * 0.9**2, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # 0.5 − 0.1 · 3 / √9, then − 0.1 · 4 / √(9 + 16)
        ("adagrad_torch", [0.4, 0.32]),
        # 0.5 − 0.1 · 3 / √9.1, then − 0.1 · 4 / √25.1
        ("adagrad_optax", [0.5 - 0.3 / 9.1**0.5, 0.5 - 0.3 / 9.1**0.5 - 0.4 / 25.1**0.5]),
        ("sgd", [0.2, -0.2]),
    ],
)
def test_by_hand(name: Any, expected: list[float]) -> None:
    of, value, found = rule(name), jnp.array([0.5, 1.0]), []
    state = of.init(tree(value))
    for gradient in (3.0, 4.0):
        value, state = descend(of, value, jnp.array([gradient, 0.0]), state)
        found.append(float(value[0]))
    assert found == pytest.approx(expected, rel=1e-6)
    assert float(value[1]) == 1.0  # no gradient, no step, and no division by nothing


def test_torchs_epsilon_counts_outside_the_root() -> None:
    """A gradient of 1e-6: √(1e-12) + 1e-10 as torch has it; of optax's own, nothing of it would be left."""
    for name, step in (("adagrad_torch", 0.1 * 1e-6 / (1e-6 + 1e-10)), ("adagrad_optax", 0.1 * 1e-6 / 0.1**0.5)):
        of = rule(name)
        value, _ = descend(of, jnp.zeros(1), jnp.array([1e-6]), of.init(tree(jnp.zeros(1))))
        assert float(value[0]) == pytest.approx(-step, rel=1e-3)
