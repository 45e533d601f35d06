"""Controls: each changes what it says and nothing else, and every control is measured on the same examples."""

import dataclasses
import functools
import itertools
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from fusionjax.data import controls
from fusionjax.data.graph import Graph
from fusionjax.data.inputs import Inputs, build_inputs, texts_read
from fusionjax.data.prepare import prepare
from fusionjax.data.shop import TEST, TRAIN, VALID, Products, text_column
from fusionjax.errors import UserError
from fusionjax.tasks.recommendation import recommendation_cases
from fusionjax.training.loss import joint_loss
from fusionjax.training.stream import StepSource, active, steps_of
from tests.shops import CALM, constants_of, fresh_state, model_of, numbers_for, strategy_for, tiny_inputs, tiny_run

SHUFFLES = ("relations_shuffled", "tails_shuffled", "random_same_degree")
NO_TEXT = ("model.product.sources=[entity]", "objectives.alignment.weight=0", "objectives.query_product.weight=0")
CO_VIEW = ("data.graph={co_view: 1, co_window: 2}",)


@functools.cache
def built(*overrides: str) -> Inputs:
    """Inputs without towers that read text: quick."""
    return tiny_inputs(tiny_run(*NO_TEXT, *overrides))


def edges(inputs: Inputs, split: int = TRAIN) -> set[tuple[int, ...]]:
    return {tuple(row) for row in inputs.graph.triples(split).tolist()}


def labels(graph: Graph) -> list[int]:
    return np.bincount(graph.relation[graph.split == TRAIN], minlength=len(graph.relations)).tolist()


def degrees(graph: Graph, column: int, relation: int | None = None) -> list[int]:
    triples = graph.triples(TRAIN)
    triples = triples if relation is None else triples[triples[:, 1] == relation]
    return np.bincount(triples[:, column], minlength=len(graph.entities)).tolist()


def dense(seed: int = 0, n: int = 30, share: float = 0.3) -> Graph:
    """A graph in which shuffles run into repetitions, loops and held-out edges all the time."""
    draw = np.random.default_rng(seed)
    head, relation, tail = np.nonzero(draw.random((n, 3, n)) < share)
    loops = head == tail
    head, relation, tail = head[~loops], relation[~loops], tail[~loops]
    pairs = draw.integers(0, 10, (n, n))
    split = np.select([pairs[np.minimum(head, tail), np.maximum(head, tail)] == k for k in (0, 1)], [VALID, TEST], TRAIN)
    head, relation, tail = (column.astype(np.int32) for column in (head, relation, tail))
    return Graph(text_column(f"e{row}" for row in range(n)), ("a", "b", "c"), n, head, relation, tail, split.astype(np.int8))


# --------------------------------------------------------------------------------------------------------------- shuffles
@pytest.mark.parametrize("control", SHUFFLES)
def test_a_shuffle_keeps_its_counts_and_no_held_out_edge(control: str) -> None:
    config = tiny_run(f"data.controls.graph={control}")
    for seed in range(3):
        real = dense(seed)
        found, written = controls.control_graph(real, None, config)
        train = found.triples(TRAIN)
        assert len(written) == 0 and found.relations == real.relations and found.entities is real.entities
        # Nothing had to be left out, though much had to be drawn again.
        assert len(train) == (real.split == TRAIN).sum() and "; 0 left out" in found.notes[-1]
        assert len(np.unique(train, axis=0)) == len(train) and (train[:, 0] != train[:, 2]).all()
        assert not np.array_equal(np.unique(train, axis=0), np.unique(real.triples(TRAIN), axis=0))
        for split in (VALID, TEST):
            np.testing.assert_array_equal(found.triples(split), real.triples(split))
        held_out = {frozenset((head, tail)) for head, _, tail in real.triples()[real.split != TRAIN].tolist()}
        assert len(held_out) > 30 and not held_out & {frozenset((head, tail)) for head, _, tail in train.tolist()}

        assert labels(found) == labels(real)
        assert degrees(found, 0) == degrees(real, 0) and degrees(found, 2) == degrees(real, 2)
        by_relation = [degrees(found, column, row) == degrees(real, column, row) for row in range(3) for column in (0, 2)]
        links = Counter(map(tuple, train[:, [0, 2]].tolist())) == Counter(map(tuple, real.triples(TRAIN)[:, [0, 2]].tolist()))
        assert all(by_relation) == (control == "tails_shuffled") and links == (control == "relations_shuffled")


def test_a_permutation_alone_would_leak(monkeypatch: pytest.MonkeyPatch) -> None:
    """The graph above is a trap: without repair held-out edges and repetitions are there, and are left out and counted."""
    monkeypatch.setattr(controls, "_ROUNDS", 0)
    real = dense()
    found, _ = controls.control_graph(real, None, tiny_run("data.controls.graph=random_same_degree"))
    missing = int((real.split == TRAIN).sum() - (found.split == TRAIN).sum())
    assert missing > 50 and f"; {missing} left out" in found.notes[-1]
    assert len(np.unique(found.triples(), axis=0)) == len(found)


def test_what_cannot_be_repaired_is_left_out_and_said() -> None:
    """Everything is linked with everything: the only other edge there could be is the one held out."""
    real = dense(n=4, share=2.0)
    real = dataclasses.replace(real, split=np.where((real.head == 0) & (real.tail == 1), TEST, TRAIN).astype(np.int8))
    found, _ = controls.control_graph(real, None, tiny_run("data.controls.graph=random_same_degree"))
    assert len(np.unique(found.triples(), axis=0)) == len(found)
    missing = len(real) - len(found)
    assert f"; {missing} left out" in found.notes[-1]


@pytest.mark.parametrize("control", SHUFFLES)
def test_a_shuffle_is_a_function_of_the_seed(control: str) -> None:
    real = dense()
    a, again, b = (
        controls.control_graph(real, None, tiny_run(f"data.controls.graph={control}", f"seed={seed}"))[0] for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(a.triples(), again.triples())
    assert not np.array_equal(np.unique(a.triples(TRAIN), axis=0), np.unique(b.triples(TRAIN), axis=0))


def test_controls_in_the_demo_shop() -> None:
    real = built()
    assert real.graph is real.real.graph
    for control in (*SHUFFLES, "none"):
        inputs = built(f"data.controls.graph={control}", *(["objectives.link_prediction.weight=0"] * (control == "none")))
        assert inputs.real.graph.triples().tobytes() == real.graph.triples().tobytes()
        for split in (VALID, TEST):
            assert edges(inputs, split) == edges(real, split) and edges(inputs, split)
        assert not edges(inputs) & (edges(real, VALID) | edges(real, TEST))
        assert edges(inputs) != edges(real) and bool(edges(inputs)) == (control != "none")
    with pytest.raises(UserError, match=r"objectives\.link_prediction: the graph has no training triple"):
        StepSource(built("data.controls.graph=none"), tiny_run(*NO_TEXT, "data.controls.graph=none"), 1)


# ----------------------------------------------------------------------------------------------------------------- shares
def test_edge_shares_are_nested_and_pairs_stay_together() -> None:
    shares = (1.0, 0.5, 0.25, 0.1, 0.0)
    found = [edges(built(*CO_VIEW, f"data.controls.graph_share={share}")) for share in shares]
    real = built(*CO_VIEW)
    assert found[0] == edges(real) and not found[-1]
    for larger, smaller in itertools.pairwise(found):
        assert smaller < larger
    pairs = [len({frozenset((head, tail)) for head, _, tail in rows}) for rows in found]
    assert pairs[1:] == [round(share * pairs[0]) for share in shares[1:]]
    assert any((tail, relation, head) in found[0] for head, relation, tail in found[0])  # co-views go both ways
    for rows in found:
        kept = {frozenset((head, tail)) for head, _, tail in rows}
        assert rows == {row for row in found[0] if frozenset((row[0], row[2])) in kept}
    other = edges(built(*CO_VIEW, "data.controls.graph_share=0.5", "seed=1"))
    assert other != found[1] and other < found[0]


def test_event_shares_are_nested_and_measured_on_the_same_examples() -> None:
    real, config = built(*CO_VIEW), tiny_run().evaluation
    events: list[Counter[tuple[int, ...]]] = []
    assert real.shop.events is not None
    for share in (1.0, 0.5, 0.25, 0.1):
        inputs = built(*CO_VIEW, f"data.controls.events_share={share}")
        rows = real.shop.events.take(controls.kept_events(real.shop.events, tiny_run(f"data.controls.events_share={share}")))
        n_train = (real.shop.events.split == TRAIN).sum()
        assert inputs.train_counts.sum() == (rows.split == TRAIN).sum() == round(share * n_train)
        assert (rows.split != TRAIN).sum() == (real.shop.events.split != TRAIN).sum()
        train = rows.take(rows.split == TRAIN)
        events.append(Counter(zip(train.user.tolist(), train.product.tolist(), train.time.tolist(), strict=True)))
        assert share == 1.0 or edges(inputs) < edges(real)  # the co-views of what is dropped are dropped too
        assert edges(inputs, TEST) == edges(real, TEST)
        np.testing.assert_array_equal(inputs.real.train_counts, real.train_counts)
        for split in (VALID, TEST):
            expected, found = (recommendation_cases(each, split, config) for each in (real, inputs))
            np.testing.assert_array_equal(found.user, expected.user)
            for column in ("targets", "seen"):
                for place in range(len(expected.user)):
                    assert getattr(found, column)[place].tolist() == getattr(expected, column)[place].tolist()
            assert inputs.sequences is not None
            start = inputs.sequences.offsets[found.user]
            np.testing.assert_array_equal(found.before - start, found.history.lengths())
            for place, (first, last) in enumerate(zip(start, found.before, strict=True)):
                assert inputs.sequences.product[first:last].tolist() == found.history[place].tolist()
                assert set(found.history[place].tolist()) <= set(found.seen[place].tolist())
            assert (found.history.lengths().sum() < found.seen.lengths().sum()) == (share < 1.0)
    for larger, smaller in itertools.pairwise(events):
        assert smaller < larger


def test_uncontrolled_gives_what_segments_read() -> None:
    real = built(*CO_VIEW)
    inputs = built(*CO_VIEW, "data.controls={events_share: 0.3, graph: tails_shuffled}").uncontrolled()
    np.testing.assert_array_equal(inputs.graph.triples(), real.graph.triples())
    np.testing.assert_array_equal(inputs.train_counts, real.train_counts)
    assert inputs.sequences is not None and real.sequences is not None
    np.testing.assert_array_equal(inputs.sequences.product, real.sequences.product)


# ------------------------------------------------------------------------------------------------------------------ texts
PRODUCTS = Products.of(
    ["p0", "p1", "p2"],
    title=["red tee", "blue mug", ""],
    brand=["Acme", "", ""],
    category=["home > wear", "home", ""],
    attributes={"colour": ["red", "blue", ""]},
)
GRAPH = Graph(
    text_column(["p0", "p1", "p2", "brand:Acme", "category:home > wear", "colour:red", "urn:x"]),
    ("in_category", "brand", "colour", "also_viewed"),
    3,
    np.zeros(0, np.int32),
    np.zeros(0, np.int32),
    np.zeros(0, np.int32),
    np.zeros(0, np.int8),
)


def texts(written: list[tuple[int, int, int]], *overrides: str) -> list[str]:
    edges = np.array(written, np.int32).reshape(-1, 3)
    return controls.control_texts(PRODUCTS, GRAPH, edges, tiny_run("text.fields=[title, brand]", *overrides))


def test_edges_in_words_begin_with_the_rarest_relation() -> None:
    written = [(0, 0, 4), (1, 0, 4), (2, 0, 4), (0, 3, 1), (0, 3, 2), (0, 1, 3), (1, 2, 5), (2, 2, 6), (4, 0, 5)]
    assert texts(written) == [
        "red tee Acme brand: Acme; also viewed: blue mug; also viewed: p2; in category: home wear",
        "blue mug colour: red; in category: home wear",
        "colour: urn:x; in category: home wear",
    ]
    many = texts([(0, 3, tail) for tail in range(1, 7)] + [(0, 0, tail) for tail in range(1, 7)])
    assert many[0].count(";") == controls.EDGES_AS_TEXT - 1


def test_texts_by_control() -> None:
    assert texts([]) == ["red tee Acme", "blue mug", ""]
    assert texts([], "data.controls.text=title_only") == ["red tee", "blue mug", ""]
    assert texts([], "data.controls.text=none") == ["", "", ""]
    drawn = [tuple(texts([], "data.controls.text=shuffled", f"seed={seed}")) for seed in range(8)]
    assert {tuple(sorted(each)) for each in drawn} == {("", "blue mug", "red tee Acme")} and len(set(drawn)) > 2
    assert drawn[3] == tuple(texts([], "data.controls.text=shuffled", "seed=3"))


def test_the_graph_written_as_text_reaches_the_tokens(tmp_path: Path) -> None:
    config = tiny_run("data.controls.graph=as_text", "objectives.link_prediction.weight=0", "text.max_length=96")
    inputs, real = tiny_inputs(config), tiny_inputs(tiny_run())
    assert not edges(inputs) and {tuple(row) for row in inputs.written.tolist()} == edges(real)
    assert inputs.tokenizer is not None and inputs.product_tokens is not None
    found = texts_read(inputs, config)
    assert found[0].startswith(texts_read(real, tiny_run())[0] + " ") and "brand: " in found[0]
    np.testing.assert_array_equal(inputs.product_tokens, inputs.tokenizer.rows(found, 96))
    # No held-out edge is told.
    lacking = [head for head, _, _ in edges(real, TEST) if head < real.n_products]
    brand_row = real.graph.relations.index("brand")
    for head in lacking:
        told = {relation for h, relation, _ in edges(real) if h == head}
        assert brand_row in told or "brand: " not in found[head]


def test_no_text_at_all() -> None:
    config = tiny_run("data.controls.text=none", "model.product.sources=[entity]", "objectives.alignment.weight=0")
    inputs, real = tiny_inputs(config), tiny_inputs(tiny_run())
    assert not inputs.has_text.any() and real.has_text.all()
    assert inputs.query_tokens is not None and ((inputs.query_tokens >= 0).sum(1) > 2).all()
    assert StepSource(inputs, config, 1)[0]["query_product"]["tokens"].any()
    for still in ("objectives.alignment.weight=0", "model.product.sources=[entity]"):
        bad = tiny_run("data.controls.text=none", still)
        with tempfile.TemporaryDirectory() as folder, pytest.raises(UserError, match="text: none leaves no product text"):
            build_inputs(prepare(bad.data, log=lambda _: None).shop, bad, Path(folder), log=lambda _: None)


# -------------------------------------------------------------------------------------------------- behaviour and the table
def table_gradient(*overrides: str) -> dict[str, Any]:
    config = tiny_run(*CALM, "objectives.alignment.weight=0", "model.product.sources=[entity]", *overrides)
    inputs = tiny_inputs(config)
    model, state = model_of(config, inputs), fresh_state(config, inputs)
    batch: Any = StepSource(inputs, config, 1)[0]
    given = constants_of(config, inputs), numbers_for(config)
    bound = {"model": model, "config": config, "strategy": strategy_for(config, inputs)}

    def loss(params: Any) -> Any:
        return joint_loss(params, state.bank, batch, jax.random.key(0), *given, **bound)[0]

    return jax.tree.map(np.asarray, jax.jit(jax.grad(loss))(state.params))


@pytest.mark.parametrize("teacher", ["next_product", "query_product"])
def test_behaviour_does_not_teach_the_table(teacher: str) -> None:
    others = {"next_product", "query_product"} - {teacher}
    off = [f"objectives.{name}.weight=0" for name in others]
    open_, closed = (table_gradient(f"model.entity.behaviour={value}", *off) for value in ("true", "false"))
    alone = table_gradient(*off, f"objectives.{teacher}.weight=1e-30")
    assert not np.allclose(open_["graph"]["entities"], closed["graph"]["entities"])
    # What is left is link prediction's part; the towers around the table learn as before.
    np.testing.assert_allclose(closed["graph"]["entities"], alone["graph"]["entities"], rtol=1e-4, atol=1e-7)
    assert np.abs(closed["graph"]["entities"]).max() > 0
    assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(closed["product"])) > 1e-4


def test_only_what_the_graph_touches_has_an_entity_then() -> None:
    closed = built("model.entity.behaviour=false", "data.controls.graph_share=0.1")
    touched = {end for head, _, tail in edges(closed) for end in (head, tail) if end < closed.n_products}
    assert set(np.flatnonzero(closed.has_entity).tolist()) == touched
    assert built("data.controls.graph_share=0.1").has_entity.sum() > len(touched)


# ------------------------------------------------------------------------------------------------------------------ order
def test_objectives_follow_each_other() -> None:
    config = tiny_run(*NO_TEXT, "objectives.link_prediction.end=0.4", "objectives.next_product.begin=0.4", "train.steps=7")
    turns = [active(config.objectives, step, 7) for step in range(7)]
    assert turns == [("link_prediction",)] * 3 + [("next_product",)] * 4  # round(2.8) = 3
    with pytest.raises(ValueError, match="shares of the run's steps"):
        active(config.objectives, 0)
    source = StepSource(tiny_inputs(config), config, 100)
    assert source.total == 7 and [tuple(source[step]) for step in range(7)] == turns
    # The one that comes later begins with its first batch.
    objective = source.objectives["next_product"]
    for nth, step in enumerate((3, 4, 5, 6)):
        np.testing.assert_array_equal(source[step]["next_product"]["target"], objective.batch(nth)["target"])


@pytest.mark.parametrize("offset", [0, 1, 2])
def test_beginning_late_and_by_turns_skips_no_batch(offset: int) -> None:
    config = tiny_run(
        *NO_TEXT, f"objectives.link_prediction={{begin: 0.37, end: 0.9, every: 3, offset: {offset}}}", "train.steps=20"
    )
    source = StepSource(tiny_inputs(config), config, 100)
    own = [step for step in range(20) if step % 3 == offset and 7 <= step < 18]
    assert [step for step in range(20) if "link_prediction" in source[step]] == own
    for nth, step in enumerate(own):
        expected = source.objectives["link_prediction"].batch(nth)
        np.testing.assert_array_equal(source[step]["link_prediction"]["chosen"], expected["chosen"])


def test_an_epoch_is_a_whole_pass_within_the_stretch() -> None:
    epochs = ("train={steps: null, epochs: 2}", *NO_TEXT)
    late = tiny_run(*epochs, "objectives.link_prediction={weight: 1, end: 0.5}", "objectives.next_product.begin=0.5")
    source = StepSource(tiny_inputs(late), late, 10_000)
    longest = max(objective.steps_per_epoch for objective in source.objectives.values())
    assert source.total == steps_of(late, source.epoch) == 4 * longest
    assert {step for step in range(source.total) if "link_prediction" in source[step]} == set(range(2 * longest))
