"""The stream of batches: a pure function of seed and step, turns, live rows, micro-batches, and how it resumes."""

import numpy as np
import pytest

from fusionjax.config import schema
from fusionjax.data.inputs import Inputs
from fusionjax.training.stream import Batch, StepSource, active, steps_of, stream
from tests.shops import MASKED, ON, tiny_inputs, tiny_run


def source_of(*overrides: str) -> tuple[StepSource, Inputs, schema.Run]:
    config = tiny_run(*overrides)
    inputs = tiny_inputs(config)
    return StepSource(inputs, config, steps=1000), inputs, config


def assert_same(a: Batch, b: Batch) -> None:
    assert a.keys() == b.keys()
    for name, entry in a.items():
        assert entry.keys() == b[name].keys()
        for field, array in entry.items():
            assert array.dtype == b[name][field].dtype
            np.testing.assert_array_equal(array, b[name][field], err_msg=f"{name}.{field}")


def differ(a: Batch, b: Batch) -> list[str]:
    def equal(name: str) -> bool:
        return all(np.array_equal(a[name][field], b[name][field]) for field in a[name])

    return [name for name in a if not equal(name)]


# ---------------------------------------------------------------------------------------------------------------- purity
def test_a_step_is_a_function_of_seed_and_step_alone() -> None:
    forth, back, alone = (source_of(MASKED)[0] for _ in range(3))
    steps = [0, 1, 2, 3, 17, 18, 400]
    expected = {step: forth[step] for step in steps}
    for step in reversed(steps):
        assert_same(back[step], expected[step])
    assert_same(alone[18], expected[18])
    assert differ(expected[0], expected[1]) == differ(expected[17], expected[400]) == [*ON, "masked_words", "live"]
    other_seed = source_of(MASKED, "seed=1")[0]
    assert differ(expected[0], other_seed[0]) == [*ON, "masked_words", "live"]


def test_shapes_and_types() -> None:
    source, inputs, config = source_of()
    batch, b, h = source[0], 16, config.model.user.history
    assert list(batch) == [*ON, "live"]
    assert {field: array.shape for field, array in batch["link_prediction"].items()} == {"chosen": (b,)}
    assert batch["alignment"]["product"].shape == (b,)
    assert batch["query_product"]["known"].shape == (b, b) and batch["query_product"]["known"].dtype == bool
    assert batch["next_product"]["target"].shape == (b, h + 1) and batch["next_product"]["valid"].shape == (b, h)
    assert batch["next_product"]["profile"].shape == (b, inputs.profile.shape[1])
    assert batch["live"]["rows"].shape == (config.text.live,)
    kinds = {str(array.dtype) for entry in batch.values() for array in entry.values()}
    assert kinds == {"int32", "bool"}


def test_turns() -> None:
    source, _, config = source_of(
        "objectives.alignment={weight: 0}",
        "objectives.link_prediction={every: 3, offset: 1}",
        "objectives.query_product.every=2",
    )
    turns = [active(config.objectives, step) for step in range(6)]
    assert ["link_prediction" in turn for turn in turns] == [False, True, False, False, True, False]
    assert ["query_product" in turn for turn in turns] == [True, False, True, False, True, False]
    assert all("next_product" in turn and "alignment" not in turn for turn in turns)
    for step, turn in enumerate(turns):
        assert list(source[step]) == [*turn, "live"]
    # A turn left out skips no batch: the objective goes on where it was.
    objective = source.objectives["link_prediction"]
    for nth, step in enumerate((1, 4, 7)):
        np.testing.assert_array_equal(source[step]["link_prediction"]["chosen"], objective.batch(nth)["chosen"])


def test_length_of_a_run() -> None:
    source, _, config = source_of("train={steps: null, epochs: 2.5}")
    longest = max(objective.steps_per_epoch for objective in source.objectives.values())
    assert steps_of(config, source.epoch) == int(np.ceil(2.5 * longest))
    source, _, config = source_of("train={steps: null, epochs: 2, accumulate: 3}", "objectives.next_product.every=50")
    per_epoch = source.objectives["next_product"].steps_per_epoch
    assert steps_of(config, source.epoch) == int(np.ceil(2 * per_epoch * 50 / 3))
    assert steps_of(tiny_run("train.steps=11"), source.epoch) == 11


# ------------------------------------------------------------------------------------------------------------------ live
@pytest.mark.parametrize("live", [4, 16, 400])
def test_live_rows_are_the_batch_s_own_and_some_more(live: int) -> None:
    source, inputs, _ = source_of(f"text.live={live}")
    n = inputs.n_products
    assert inputs.product_tokens is not None
    for step in range(4):
        batch = source[step]
        rows, tokens = batch["live"]["rows"], batch["live"]["tokens"]
        assert rows.shape == (live,) and tokens.shape == (live, inputs.product_tokens.shape[1])
        real = rows[rows < n]
        assert len(set(real.tolist())) == len(real) and 0 < len(real) <= min(live, n)
        np.testing.assert_array_equal(rows[len(real) :], n)  # padding
        np.testing.assert_array_equal(tokens[: len(real)], inputs.product_tokens[real])
        assert (tokens[len(real) :] == -1).all()
        own = list(dict.fromkeys([*batch["query_product"]["product"].tolist(), *batch["alignment"]["product"].tolist()]))
        assert real[: len(own)].tolist() == own[: len(real)]


def test_live_rows_do_not_give_the_next_products_away() -> None:
    only = ["objectives.query_product.weight=0", "objectives.alignment.weight=0", "text.live=16"]
    source, _, _ = source_of(*only)
    assert source.live is not None
    for step in range(4):
        batch = source[step]
        turned = {"next_product": {**batch["next_product"], "target": batch["next_product"]["target"][::-1] * 0}}
        np.testing.assert_array_equal(source.live(turned, step)["rows"], batch["live"]["rows"])


def test_no_live_rows_where_no_tower_reads_titles() -> None:
    source, _, _ = source_of("model.product.sources=[entity]", "objectives.alignment.weight=0")
    assert "live" not in source[0] and "query_product" in source[0]


# ---------------------------------------------------------------------------------------------------------------- stream
def test_the_stream_resumes_where_it_was() -> None:
    source = source_of()[0]
    first = stream(source)
    for step in range(5):
        assert_same(next(first), source[step])
    state = first.get_state()
    after = [next(first) for _ in range(3)]
    second = stream(source_of()[0])
    second.set_state(state)
    for step, batch in zip((5, 6, 7), after, strict=True):
        assert_same(next(second), batch)
        assert_same(batch, source[step])


def test_micro_batches_are_stacked() -> None:
    plain, accumulated = source_of()[0], source_of("train.accumulate=3")[0]
    batch = accumulated[2]
    for name in (*ON, "live"):
        micro = [plain[step][name] for step in (6, 7, 8)]
        if name == "next_product":  # one width for all
            micro = [accumulated.objectives[name].batch(index) for index in (6, 7, 8)]
        for field, array in batch[name].items():
            np.testing.assert_array_equal(array, np.stack([part[field] for part in micro]), err_msg=f"{name}.{field}")
    assert accumulated.objectives["next_product"].batch(0)["target"].shape == (16, 9)
