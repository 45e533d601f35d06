"""Link prediction beside the other objectives: every scorer and loss trains, and the product tower reads what it trains."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fusionjax.config import schema
from fusionjax.data.inputs import Inputs
from fusionjax.inference import Encoder
from fusionjax.models.scorers import SCORERS
from fusionjax.training import steps as driver
from fusionjax.training.state import TrainState
from fusionjax.training.stream import StepSource
from tests.shops import CALM, constants_of, fresh_state, model_of, numbers_for, step_of, tiny_inputs, tiny_run

PLAIN = ("train.optimiser={schedule: constant, warmup_share: 0}",)
QUICK = ("model.product.sources=[entity]", "objectives.alignment.weight=0", "objectives.query_product.weight=0")
"""No text is read: an encoder takes longer to compile than all else."""
SAMPLED = "objectives.next_product={softmax: sampled, negatives: 4, batch_size: 4}"


def table_of(state: TrainState) -> np.ndarray:
    return np.asarray(state.params["graph"]["entities"])


def run(
    config: schema.Run, number: int, inputs: Inputs | None = None, same: bool = False, epoch: int = 1
) -> tuple[list[dict[str, float]], TrainState, list[Any]]:
    """Metrics of each step, the last state, the parameters after each; `same`: every step sees the first batch."""
    inputs = tiny_inputs(config) if inputs is None else inputs
    step, constants, numbers = step_of(config, inputs, epoch), constants_of(config, inputs), numbers_for(config)
    state, source = fresh_state(config, inputs), StepSource(inputs, config, number)
    rows: list[dict[str, float]] = []
    after: list[Any] = []
    for place in range(number):
        batch = source[0 if same else place]
        state, metrics = step(state, batch, constants, jax.random.key(config.seed), numbers)
        rows.append({name: float(value) for name, value in metrics.items()})
        after.append(jax.tree.map(np.array, state.params))
    return rows, state, after


# --------------------------------------------------------------------------------------------------------------- scorers
@pytest.mark.parametrize("scorer", SCORERS)
def test_every_scorer_trains_beside_the_towers(scorer: str) -> None:
    words = [f"model.entity.scorer={scorer}", "train.optimiser.learning_rate.tables=0.02"]
    if scorer == "conve":
        words += ["objectives.link_prediction.reciprocal=true", "model.entity.convolution={height: 4, filters: 4}"]
    config = tiny_run(*PLAIN, *CALM, *QUICK, SAMPLED, *words)
    inputs = tiny_inputs(config)
    rows, state, _ = run(config, 20, same=True)
    losses = [row["loss/link_prediction"] for row in rows]
    assert all(np.isfinite(list(row.values())).all() for row in rows)
    assert np.mean(losses[-3:]) < np.mean(losses[:3])
    before = table_of(fresh_state(config, inputs))
    assert before.shape == table_of(state).shape and not np.allclose(before, table_of(state))
    # The product tower reads the rows that were trained.
    model = model_of(config, inputs)
    trained = Encoder(model, state.params).products(state.bank, inputs)
    moved = {**state.params, "graph": {**state.params["graph"], "entities": jnp.asarray(before)}}
    other = Encoder(model, moved).products(state.bank, inputs)
    assert np.abs(trained - other)[inputs.has_entity].max() > 1e-4
    np.testing.assert_array_equal(trained[~inputs.has_entity], other[~inputs.has_entity])


# ---------------------------------------------------------------------------------------------------------------- losses
LOSSES = {
    "one_vs_all": ["training=one_vs_all"],
    "one_vs_all, bce": ["training=one_vs_all", "loss.name=bce"],
    "one_vs_all, targets": ["training=one_vs_all", "reciprocal=true", "loss.targets=2"],
    "one_vs_all, blocks": ["training=one_vs_all", "block=16"],
    "k_vs_all": ["training=k_vs_all", "loss={name: bce, label_smoothing: 0.1}"],
    "k_vs_all, relations": ["training=k_vs_all", "relation_prediction=0.5"],
    "bce": ["loss.name=bce"],
    "margin": ["loss={name: margin, margin: 2}"],
    "self_adversarial": ["loss={name: self_adversarial, temperature: 0.5}"],
    "n3": ["penalty={name: n3, entity: 0.1, relation: 0.1}"],
    "l2, whole tables": ["penalty={name: l2, entity: 0.1, relation: 0.1, weighted: false}"],
    "dura": ["penalty={name: dura, entity: 0.1}"],
    "relations": ["relation_prediction=0.5"],
    "own negatives": ["negatives={shared: 0, sampler: typed, filtered: true}"],
}


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_reaches_the_table(loss: str) -> None:
    """The towers teach it nothing here (`behaviour: false`): what moves it is link prediction."""
    words = [f"objectives.link_prediction.{word}" for word in LOSSES[loss]]
    config = tiny_run(*PLAIN, *CALM, *QUICK, SAMPLED, "model.entity={scorer: complex, behaviour: false}", *words)
    rows, state, _ = run(config, 1)
    assert np.isfinite(list(rows[0].values())).all() and rows[0]["loss/link_prediction"] > 0
    before = fresh_state(config, tiny_inputs(config))
    assert not np.array_equal(table_of(before), table_of(state))
    assert not np.array_equal(before.params["graph"]["relations"], state.params["graph"]["relations"])


def test_texts_and_numbers_of_entities_are_read_and_taught() -> None:
    config = tiny_run(*PLAIN, *CALM, SAMPLED, "model.entity={literals: true, text: {use: add, checkpoint: unused}}")
    inputs, draw = tiny_inputs(tiny_run(*CALM)), np.random.Generator(np.random.Philox(2))
    n = len(inputs.graph.entities)
    text = draw.normal(size=(n, 6)).astype(np.float32)
    numbers = draw.normal(size=(n, 4)).astype(np.float32)
    known = dataclasses.replace(inputs, entity_text=text, literals=numbers)
    rows, state, _ = run(config, 2, known)
    before = fresh_state(config, known).params["graph"]
    assert np.isfinite([list(row.values()) for row in rows]).all()
    for name, path in (("entities", ()), ("text", ("out",)), ("literals", ())):
        ours, theirs = state.params["graph"][name], before[name]
        for key in path:
            ours, theirs = ours[key], theirs[key]
        assert not np.array_equal(ours, theirs), name
    model = model_of(config, known)
    found = [
        Encoder(model, state.params).products(state.bank, each)
        for each in (known, dataclasses.replace(known, entity_text=-text), dataclasses.replace(known, literals=-numbers))
    ]
    for other in found[1:]:
        assert np.abs(found[0] - other)[inputs.has_entity].max() > 1e-4


# -------------------------------------------------------------------------------------------------------- rows of a table
def sparse_run(name: str, rows: str, *words: str) -> schema.Run:
    # Of the tables alone: attention's key bias has no gradient but rounding, which Adagrad would make a whole step of.
    rule = f"train.optimiser={{name: sgd, rules: {{tables: {name}}}, rows: {rows}, schedule: constant, warmup_share: 0}}"
    rates = "train.optimiser.learning_rate={encoder: 0.01, tables: 0.1, heads: 0.01}"
    small = ("objectives.link_prediction={batch_size: 4, negatives: {number: 4}}", "model.product.sources=[entity]")
    off = ("objectives.alignment.weight=0", "objectives.query_product.weight=0", "model.user.history=3")
    return tiny_run(*CALM, SAMPLED, rule, rates, *small, *off, *words)


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("name", ["adagrad_torch", "sgd"])
def test_sparse_rows_are_dense_ones(name: str, accumulate: int) -> None:
    dense, sparse = (run(sparse_run(name, rows, f"train.accumulate={accumulate}"), 3) for rows in ("dense", "sparse"))
    for ours, theirs in zip(sparse[0], dense[0], strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)
    leaves = zip(jax.tree_util.tree_leaves_with_path(sparse[1].params), jax.tree.leaves(dense[1].params), strict=True)
    for (path, ours), theirs in leaves:
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=2e-5, err_msg=jax.tree_util.keystr(path))
    before = table_of(fresh_state(sparse_run(name, "sparse"), tiny_inputs(sparse_run(name, "sparse"))))
    still = np.array([np.array_equal(a, b) for a, b in zip(before, sparse[2][0]["graph"]["entities"], strict=True)])
    assert 0 < still.sum() < len(still)


def test_rows_outside_a_batch_stand_still_under_sparse_adam() -> None:
    """Dense Adam goes on moving by its moments what a batch leaves out; lazy Adam does not."""

    def moved(rows: str) -> np.ndarray:
        first, second = (each["graph"]["entities"] for each in run(sparse_run("adam", rows), 2)[2])
        return (first != second).any(1)

    assert moved("sparse").sum() < moved("dense").sum()


def programs(monkeypatch: pytest.MonkeyPatch, words: Sequence[str]) -> bool:
    """Whether the step with `rows: auto` updates rows alone."""
    asked: list[Any] = []
    places = driver.one_of_equal
    monkeypatch.setattr(driver, "one_of_equal", lambda *given: asked.append(given) or places(*given))
    run(sparse_run("adagrad_torch", "auto", *words), 1)
    return bool(asked)


def test_auto_is_dense_where_reading_every_product_makes_it_cheaper(monkeypatch: pytest.MonkeyPatch) -> None:
    """437 entities, 300 of them products: link prediction reads 260 rows, a full softmax 300 more."""
    words = ("data.demo_shop={products: 300, users: 60, queries: 40}", "objectives.link_prediction.batch_size=128")
    assert programs(monkeypatch, words)
    assert not programs(monkeypatch, [*words, "objectives.next_product.softmax=full"])


# -------------------------------------------------------------------------------------------------------------- averages
def test_the_average_is_that_of_its_formula() -> None:
    keep, epoch, steps = 0.5, 2, 4
    config = sparse_run("sgd", "dense", f"train.average={keep}")
    _, state, after = run(config, steps, epoch=epoch)
    weights = np.array([keep ** ((steps - 1 - place) / epoch) for place in range(steps)])
    for found, *each in zip(jax.tree.leaves(state.average), *map(jax.tree.leaves, after), strict=True):
        expected = np.tensordot(weights / weights.sum(), np.stack(each).astype(np.float64), 1)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
