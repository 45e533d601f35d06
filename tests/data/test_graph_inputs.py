"""What a run on a graph reads besides triples: texts, numbers, controls, parts of the graph; and entities never trained."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from fusionjax.config import load_run, schema
from fusionjax.data.inputs import Inputs, build_inputs
from fusionjax.data.shop import (
    TEST,
    TRAIN,
    UNASSIGNED,
    VALID,
    Entities,
    Events,
    Literals,
    Products,
    Shop,
    Triples,
    Users,
    text_column,
)
from fusionjax.errors import UserError
from fusionjax.evaluation.link_prediction import KnownTrue, RankingPlan
from fusionjax.evaluation.triples import inductive_vectors, score_triples, triple_scores
from fusionjax.inference import features_of
from fusionjax.training.entity_text import with_entity_text
from fusionjax.training.state import entity_model
from tests.tiny_bert import write_tiny_bert

ENTITIES = 21
ALONE = (
    "model.product.sources=[entity]",
    *(f"objectives.{name}.weight=0" for name in ("alignment", "query_product", "next_product")),
    "model.entity={scorer: distmult, dim: 8, init: {scale: 0.5}}",
    "objectives.link_prediction.reciprocal=true",
)
"""Overrides of a run on a graph alone."""
NAMES = ["red lipstick", "mug", "bottle", "skin cream", "tea tree", "shoe", "women shoe", "cup red", ""]
TEXTS = {f"e{place}": NAMES[place % 9] for place in range(ENTITIES)}


def shop(texts: bool = True, numbers: bool = True) -> Shop:
    """The made graph with a split, one entity more that test alone names, a text for most and two numbers for some."""
    e = np.arange(ENTITIES)  # a circle, its inverse, one of four groups for each, and the double
    parts = [(e, 0, (e + 1) % ENTITIES), ((e + 1) % ENTITIES, 1, e), (e[4:], 2, e[4:] % 4), (e[:4], 3, 2 * e[:4])]
    rows = [np.stack([head, np.full_like(head, relation), tail], 1) for head, relation, tail in parts]
    head, relation, tail = np.concatenate(rows).T
    split = np.array([TRAIN, TRAIN, TRAIN, TRAIN, VALID, TEST, TRAIN, TRAIN, TRAIN])[np.arange(len(head)) % 9]
    names = [f"e{each}" for each in head], [f"r{each}" for each in relation], [f"e{each}" for each in tail]
    table = Triples.of([*names[0], "new"], [*names[1], "r0"], [*names[2], "e3"], [*split, TEST])
    known = {**TEXTS, "new": "face cream"}
    return Shop(
        name="made",
        triples=table,
        entities=Entities(text_column(known), text_column(known.values()), text_column([""] * len(known))) if texts else None,
        literals=Literals(text_column(["e0", "e1", "e0", "e4"]), text_column(["size", "size", "year", "year"]),
                          np.array([1.0, 3.0, 7.0, 7.0], np.float32)) if numbers else None,
    )  # fmt: skip


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bert(tmp_path_factory.mktemp("bert") / "tiny")


def read(tmp_path: Path, *overrides: str, source: Shop | None = None, say: Any = lambda _: None) -> Inputs:
    config = config_of(tmp_path, *overrides)
    return with_entity_text(build_inputs(source or shop(), config, tmp_path / "tokenizer", say), config, say)


def config_of(tmp_path: Path, *overrides: str) -> schema.Run:
    return load_run(None, [*ALONE, f"data.cache_dir={tmp_path}", *overrides])


def row_of(inputs: Inputs, name: str) -> int:
    return inputs.graph.entities.tolist().index(name)


def test_a_graph_alone(tmp_path: Path) -> None:
    said: list[str] = []
    inputs = read(tmp_path, say=said.append)
    assert len(inputs.graph.entities) == ENTITIES + 1 and len(inputs.graph.triples(TRAIN)) == 49
    assert inputs.graph is inputs.real.graph and inputs.false_triples == {}
    assert inputs.entity_text is None and inputs.literals.shape == (22, 0) and inputs.seen.shape == (22,)
    assert inputs.unseen.dtype == np.int32 and inputs.unseen.tolist() == [row_of(inputs, "new")]
    assert said[-1] == (
        "graph: 22 entities, 4 relations, 49 training, 7 validation, 8 test triples; 1 entities without a training triple"
    )


# ---------------------------------------------------------------------------------------------------------------- texts
def test_texts_are_unit_vectors_encoded_once(checkpoint: Path, tmp_path: Path) -> None:
    said: list[str] = []
    use = f"model.entity.text={{use: replace, checkpoint: {checkpoint}}}"
    inputs = read(tmp_path, use, say=said.append)
    text = inputs.entity_text
    assert text is not None and text.dtype == np.float32
    empty = [place for place, name in enumerate(inputs.graph.entities) if TEXTS.get(name) == ""]
    assert text.shape == (22, 16) and len(empty) == 2
    assert not text[empty].any()
    lengths = np.linalg.norm(np.delete(text, empty, axis=0), axis=1)
    assert lengths == pytest.approx(np.ones(20), rel=1e-5)
    # Entities with one text have one vector, others another.
    e0, e9, e1 = (text[row_of(inputs, name)] for name in ("e0", "e9", "e1"))
    assert np.array_equal(e0, e9) and not np.allclose(e0, e1, atol=0.01)
    assert any("encoding the texts of 22 entities" in line for line in said)
    said.clear()
    again = read(tmp_path, use, say=said.append)
    assert again.entity_text is not None
    assert np.array_equal(again.entity_text, text) and not any("encoding" in line for line in said)
    assert with_entity_text(again, config_of(tmp_path, use), said.append) is again


@pytest.mark.parametrize("use", ["replace", "add", "align"])
def test_an_unseen_entity_is_scored_by_its_text(use: str, checkpoint: Path, tmp_path: Path) -> None:
    """Whatever its row of the table: that is noise, and where text is added or aligned it has no part in what is measured."""
    config = config_of(tmp_path, f"model.entity.text={{use: {use}, checkpoint: {checkpoint}}}")
    inputs = with_entity_text(build_inputs(shop(), config, tmp_path, lambda _: None), config, lambda _: None)
    model, features = entity_model(config, inputs), features_of(inputs)
    params = jax.jit(model.init)(jax.random.key(0))
    new, seen = row_of(inputs, "new"), row_of(inputs, "e1")
    vectors = np.asarray(model.inductive(params, features))
    projected = np.asarray(features.text @ params["text"]["out"])
    np.testing.assert_allclose(vectors[new], projected[new], rtol=1e-5, atol=1e-6)
    if use == "replace":
        assert "entities" not in params
        np.testing.assert_allclose(vectors[seen], projected[seen], rtol=1e-5, atol=1e-6)
        return
    table = np.asarray(params["entities"])
    expected = table[seen] + projected[seen] if use == "add" else table[seen]
    np.testing.assert_allclose(vectors[seen], expected, rtol=1e-5, atol=1e-6)
    noisy = {**params, "entities": params["entities"].at[new].set(100.0)}
    asked = inputs.graph.triples(TEST)
    asked = asked[asked[:, 0] == new]
    assert len(asked) == 1
    plan = RankingPlan.of(asked, KnownTrue.of(inputs.real.graph.triples()), len(inputs.graph.entities), batch_size=4)

    def ranks(params: Any) -> np.ndarray:
        entities = inductive_vectors(model, params, features)
        given = {"entities": entities, "relations": params["relations"], "shared": params.get("shared", {})}
        return plan.ranks(*triple_scores(model), given, entities, block=64).realistic

    assert np.array_equal(ranks(noisy), ranks(params))
    scores = [score_triples(model, each, features, asked) for each in (params, noisy)]
    assert np.array_equal(scores[0], scores[1])
    # A row of an entity that is seen does have a part.
    other = {**params, "entities": params["entities"].at[row_of(inputs, "e3")].set(100.0)}
    assert not np.array_equal(score_triples(model, other, features, asked), scores[0])


def test_a_graph_without_texts(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"model\.entity\.text\.use: add: the data set has no text about its entities"):
        read(tmp_path, f"model.entity.text={{use: add, checkpoint: {checkpoint}}}", source=shop(texts=False))


# -------------------------------------------------------------------------------------------------------------- numbers
def test_numbers_are_standardised_and_marked(tmp_path: Path) -> None:
    """Sizes 1 and 3: mean 2, spread 1; years are all 7, so that only the marks tell something."""
    inputs = read(tmp_path, "model.entity.literals=true")
    found = inputs.literals
    assert found.shape == (22, 4) and found.dtype == np.float32
    expected = {"e0": [-1, 0, 1, 1], "e1": [1, 0, 1, 0], "e4": [0, 0, 0, 1]}
    for name in inputs.graph.entities:
        assert found[row_of(inputs, name)].tolist() == expected.get(name, [0, 0, 0, 0])
    model, features = entity_model(config_of(tmp_path), inputs), features_of(inputs)
    params = jax.jit(model.init)(jax.random.key(0))
    vectors = np.asarray(model.vectors(params, features))
    np.testing.assert_allclose(
        vectors, np.asarray(params["entities"]) + found @ np.asarray(params["literals"]), rtol=1e-5, atol=1e-6
    )
    assert np.array_equal(vectors[row_of(inputs, "e2")], params["entities"][row_of(inputs, "e2")])


def test_a_graph_without_numbers(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"model\.entity\.literals: the data set has no numbers about its entities"):
        read(tmp_path, "model.entity.literals=true", source=shop(numbers=False))


def test_a_shop_without_a_graph(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"'bare' has no triples, which objectives\.link_prediction needs"):
        read(tmp_path, source=Shop(name="bare"))


# ------------------------------------------------------------------------------------------------------------- controls
def test_controls_change_training_alone(tmp_path: Path) -> None:
    real = read(tmp_path)
    control = read(tmp_path, "data.controls.graph=relations_shuffled")
    before, after = real.graph.triples(TRAIN), control.graph.triples(TRAIN)
    labelled, pairs = ({tuple(row) for row in rows.tolist()} for rows in (before, before[:, [0, 2]]))
    assert len(after) > 40 and not {tuple(row) for row in after.tolist()} <= labelled
    assert {tuple(row) for row in after[:, [0, 2]].tolist()} <= pairs
    for split in (None, TRAIN, VALID, TEST):
        assert np.array_equal(control.real.graph.triples(split), real.graph.triples(split))
    other = read(tmp_path, "data.controls.graph=relations_shuffled", "seed=1")
    assert not np.array_equal(other.graph.triples(TRAIN), after)


def test_a_share_of_the_edges(tmp_path: Path) -> None:
    control = read(tmp_path, "data.controls.graph_share=0.5")
    train = control.graph.triples(TRAIN)
    assert 0 < len(train) < 35 and len(control.real.graph.triples(TRAIN)) == 49
    assert np.array_equal(np.flatnonzero(control.seen), np.unique(train[:, [0, 2]]))
    assert sorted([*control.unseen, *np.flatnonzero(control.seen)]) == list(range(22))


# ------------------------------------------------------------------------------------------------- parts of the graph
def test_a_sub_graph_of_so_many_entities(tmp_path: Path) -> None:
    said: list[str] = []
    inputs = read(tmp_path, "data.graph.sample=12", "model.entity.literals=true", say=said.append)
    assert 10 < len(inputs.graph.entities) <= 12 and inputs.graph.triples().max() < 12
    assert inputs.literals.shape == (len(inputs.graph.entities), 4)
    assert any(line.startswith(f"sub-graph: {len(inputs.graph.entities)} of 22 entities, ") for line in said)


def test_entities_taken_out_of_training(checkpoint: Path, tmp_path: Path) -> None:
    said: list[str] = []
    text = f"model.entity.text={{use: replace, checkpoint: {checkpoint}}}"
    inputs = read(tmp_path, "data.split.unseen_entities=0.2", text, say=said.append)
    assert any(line.startswith("inductive: 4 entities taken out of training, which keeps ") for line in said)
    seen = set(np.flatnonzero(inputs.seen).tolist())
    assert len(inputs.unseen) == 5  # and the one that test alone named
    for part in (inputs.graph.triples(VALID), inputs.graph.triples(TEST)):
        assert len(part) and all((head in seen) != (tail in seen) for head, _, tail in part.tolist())
    # What is neither trained on nor asked about stays known, and a shuffle of the edges leaves it alone.
    assert sorted(inputs.real.graph.triples().tolist()) == sorted(read(tmp_path).graph.triples().tolist())
    shuffled = read(tmp_path, "data.split.unseen_entities=0.2", "data.controls.graph=tails_shuffled")
    assert set(shuffled.unseen) >= set(inputs.unseen)
    assert np.array_equal(shuffled.graph.triples(UNASSIGNED), inputs.graph.triples(UNASSIGNED))


def with_products() -> Shop:
    products = Products.of(["e1", "p"], brand=["Klar", "Klar"])
    viewed, none = np.array([0, 1], np.int32), np.zeros(2, np.int8)
    events = Events(("view",), viewed * 0, viewed, none, viewed.astype(np.int64), viewed * 0 - 1, none)
    return dataclasses.replace(shop(), products=products, users=Users(text_column(["u"])), events=events)


def test_a_part_of_the_graph_is_for_a_graph_alone(tmp_path: Path) -> None:
    joint = "objectives.next_product.weight=1"
    with pytest.raises(UserError, match=r"data\.graph\.sample: 12: for a graph alone, not beside objectives\.next_product"):
        read(tmp_path, "data.graph.sample=12", joint, source=with_products())
    with pytest.raises(UserError, match=r"data\.split\.unseen_entities: 0\.2: .* not beside evaluation\.tasks: recommendation"):
        tasks = "evaluation.tasks=[recommendation, link_prediction]"
        read(tmp_path, "data.split.unseen_entities=0.2", tasks, source=with_products())
    with pytest.raises(UserError, match=r"data\.graph\.sample: not with data\.controls\.events_share below 1"):
        share = "data.controls.events_share=0.5", "data.graph.co_view=1"
        read(tmp_path, "data.graph.sample=12", *share, source=with_products())
    found = read(tmp_path, "data.graph.sample=12", source=with_products())
    assert found.graph.n_products == 0 and not found.has_entity.any()  # its rows are not the products'
    whole = read(tmp_path, joint, source=with_products())
    assert whole.graph.n_products == 2 and whole.has_entity.all()


# -------------------------------------------------------------------------------------------------------- false triples
def test_false_triples_by_split(tmp_path: Path) -> None:
    false = Triples.of(["e0", "e1", "e2"], ["r0", "r0", "r1"], ["e5", "e6", "e9"], [VALID, TEST, TEST])
    source = dataclasses.replace(shop(), negatives=false)
    inputs = read(tmp_path, source=source)
    assert {split: len(part) for split, part in inputs.false_triples.items()} == {VALID: 1, TEST: 2}
    assert inputs.false_triples[VALID].tolist() == [[row_of(inputs, "e0"), 0, row_of(inputs, "e5")]]
    said: list[str] = []
    assert read(tmp_path, "data.split.unseen_entities=0.2", source=source, say=said.append).false_triples == {}
    assert any(line.endswith("; false triples are left out: no triple classification") for line in said)
    # Without the triples given nothing is known to be false either: an error, unless the run is about more than the graph.
    source = dataclasses.replace(with_products(), negatives=false)
    with pytest.raises(UserError, match=r"negatives name \d times an entity that its graph lacks"):
        read(tmp_path, "data.graph.given=false", source=source)
    joint = "objectives.next_product.weight=1"
    assert read(tmp_path, "data.graph.given=false", joint, source=source).false_triples == {}
