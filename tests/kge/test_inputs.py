"""What a run of graph embedding reads besides triples: texts, numbers, controls; and entities no training triple names."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fusionjax.config import schema
from fusionjax.data.shop import TEST, TRAIN, VALID, Entities, Literals, Shop, Triples, text_column
from fusionjax.errors import UserError
from fusionjax.evaluation.link_prediction import KnownTrue
from fusionjax.evaluation.triples import Ranking, score_triples
from fusionjax.kge.inputs import GraphInputs, graph_inputs
from fusionjax.models.entities import graph_model
from tests.kge.made import ENTITIES, run_of, triples
from tests.tiny_bert import write_tiny_bert

NAMES = ["red lipstick", "mug", "bottle", "skin cream", "tea tree", "shoe", "women shoe", "cup red", ""]
TEXTS = {f"e{place}": NAMES[place % 9] for place in range(ENTITIES)}


def shop(texts: bool = True, numbers: bool = True) -> Shop:
    """The made graph with a split, one entity more that test alone names, a text for most and two numbers for some."""
    head, relation, tail = triples().T
    split = np.array([TRAIN, TRAIN, TRAIN, TRAIN, VALID, TEST, TRAIN, TRAIN, TRAIN])[np.arange(len(head)) % 9]
    names = [f"e{each}" for each in head], [f"r{each}" for each in relation], [f"e{each}" for each in tail]
    rows = Triples.of([*names[0], "new"], [*names[1], "r0"], [*names[2], "e3"], [*split, TEST])
    known = {**TEXTS, "new": "face cream"}
    return Shop(
        name="made",
        triples=rows,
        entities=Entities(text_column(known), text_column(known.values()), text_column([""] * len(known))) if texts else None,
        literals=Literals(text_column(["e0", "e1", "e0", "e4"]), text_column(["size", "size", "year", "year"]),
                          np.array([1.0, 3.0, 7.0, 7.0], np.float32)) if numbers else None,
    )  # fmt: skip


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bert(tmp_path_factory.mktemp("bert") / "tiny")


def read(tmp_path: Path, *overrides: str, source: Shop | None = None, say: Any = lambda _: None) -> GraphInputs:
    config: schema.Run = run_of("scorer=distmult", f"/data.cache_dir={tmp_path}", *overrides)
    return graph_inputs(source or shop(), config, say)


def row_of(inputs: GraphInputs, name: str) -> int:
    return inputs.graph.entities.tolist().index(name)


def model_of(inputs: GraphInputs, *overrides: str) -> tuple[Any, Any]:
    config = run_of("scorer=distmult", *overrides).kge
    model = graph_model(config, len(inputs.graph.entities), len(inputs.graph.relations), inputs.features)
    return model, jax.jit(model.init)(jax.random.key(0))


def test_a_graph_alone(tmp_path: Path) -> None:
    said: list[str] = []
    inputs = read(tmp_path, say=said.append)
    assert len(inputs.graph.entities) == ENTITIES + 1 and len(inputs.train) == 49
    assert np.array_equal(inputs.train, inputs.graph.train)
    assert inputs.features.text.shape == (22, 0) and inputs.features.literals.shape == (22, 0)
    assert inputs.unseen.tolist() == [row_of(inputs, "new")]
    assert np.flatnonzero(np.asarray(inputs.features.seen) == 0).tolist() == inputs.unseen.tolist()
    assert said[-1] == (
        "graph: 22 entities, 4 relations, 49 training, 7 validation, 8 test triples; 1 entities without a training triple"
    )


# ---------------------------------------------------------------------------------------------------------------- texts
def test_texts_are_unit_vectors_encoded_once(checkpoint: Path, tmp_path: Path) -> None:
    said: list[str] = []
    use = "text.use=replace", f"text.checkpoint={checkpoint}"
    inputs = read(tmp_path, *use, say=said.append)
    text = np.asarray(inputs.features.text)
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
    again = read(tmp_path, *use, say=said.append)
    assert np.array_equal(again.features.text, text) and not any("encoding" in line for line in said)


def test_an_unseen_entity_is_scored_by_its_text(checkpoint: Path, tmp_path: Path) -> None:
    """Whatever its row of the table: that is noise, and where text is added or aligned it has no part in what is measured."""
    for use in ("replace", "add", "align"):
        chosen = f"text.use={use}", f"text.checkpoint={checkpoint}"
        inputs = read(tmp_path, *chosen)
        model, params = model_of(inputs, *chosen)
        new, seen = row_of(inputs, "new"), row_of(inputs, "e1")
        vectors = np.asarray(model.inductive(params, inputs.features))
        projected = np.asarray(inputs.features.text @ params["text"]["out"])
        np.testing.assert_allclose(vectors[new], projected[new], rtol=1e-5, atol=1e-6)
        if use == "replace":
            assert "entities" not in params
            np.testing.assert_allclose(vectors[seen], projected[seen], rtol=1e-5, atol=1e-6)
            continue
        table = np.asarray(params["entities"])
        expected = table[seen] + projected[seen] if use == "add" else table[seen]
        np.testing.assert_allclose(vectors[seen], expected, rtol=1e-5, atol=1e-6)
        noisy = {**params, "entities": params["entities"].at[new].set(100.0)}
        asked = inputs.graph.test[inputs.graph.test[:, 0] == new]
        assert len(asked) == 1
        ranking = Ranking.of(asked, KnownTrue.of(inputs.graph.known), inputs.train, len(inputs.graph.entities), 4, 64)
        assert ranking.metrics(model, noisy, inputs.features) == ranking.metrics(model, params, inputs.features)
        scores = [score_triples(model, each, inputs.features, asked) for each in (params, noisy)]
        assert np.array_equal(scores[0], scores[1])
        # A row of an entity that is seen does have a part.
        other = {**params, "entities": params["entities"].at[row_of(inputs, "e3")].set(100.0)}
        assert not np.array_equal(score_triples(model, other, inputs.features, asked), scores[0])


def test_a_graph_without_texts(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"kge\.text\.use: add: the data set has no text about its entities"):
        read(tmp_path, "text.use=add", f"text.checkpoint={checkpoint}", source=shop(texts=False))


# -------------------------------------------------------------------------------------------------------------- numbers
def test_numbers_are_standardised_and_marked(tmp_path: Path) -> None:
    """Sizes 1 and 3: mean 2, spread 1; years are all 7, so that only the marks tell something."""
    inputs = read(tmp_path, "literals=true")
    found = np.asarray(inputs.features.literals)
    assert inputs.graph.literal_names == ("size", "year") and found.shape == (22, 4)
    expected = {"e0": [-1, 0, 1, 1], "e1": [1, 0, 1, 0], "e4": [0, 0, 0, 1]}
    for name in inputs.graph.entities:
        assert found[row_of(inputs, name)].tolist() == expected.get(name, [0, 0, 0, 0])
    model, params = model_of(inputs)
    vectors = np.asarray(model.vectors(params, inputs.features))
    np.testing.assert_allclose(
        vectors, np.asarray(params["entities"]) + found @ np.asarray(params["literals"]), rtol=1e-5, atol=1e-6
    )
    assert np.array_equal(vectors[row_of(inputs, "e2")], params["entities"][row_of(inputs, "e2")])


def test_a_graph_without_numbers(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"kge\.literals: the data set has no numbers about its entities"):
        read(tmp_path, "literals=true", source=shop(numbers=False))


def test_a_shop_without_a_graph(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"'bare' has no triples, which kge\.scorer needs"):
        read(tmp_path, source=Shop(name="bare"))


# ------------------------------------------------------------------------------------------------------------- controls
def test_controls_change_training_alone(tmp_path: Path) -> None:
    real = read(tmp_path)
    control = read(tmp_path, "/data.controls.graph=relations_shuffled")
    labelled, pairs = ({tuple(row) for row in rows.tolist()} for rows in (real.train, real.train[:, [0, 2]]))
    assert len(control.train) > 40 and not {tuple(row) for row in control.train.tolist()} <= labelled
    assert {tuple(row) for row in control.train[:, [0, 2]].tolist()} <= pairs
    for part in ("train", "valid", "test", "known"):
        assert np.array_equal(getattr(control.graph, part), getattr(real.graph, part))
    assert np.array_equal(control.rows.graph.triples(TRAIN), real.train)  # what baselines read
    other = read(tmp_path, "/data.controls.graph=relations_shuffled", "/seed=1")
    assert not np.array_equal(other.train, control.train)


def test_a_share_of_the_edges(tmp_path: Path) -> None:
    control = read(tmp_path, "/data.controls.graph_share=0.5")
    assert 0 < len(control.train) < 35 and len(control.graph.train) == 49
    assert len(control.unseen) == 22 - len(np.unique(control.train[:, [0, 2]]))
    assert jnp.sum(control.features.seen) == 22 - len(control.unseen)


# ------------------------------------------------------------------------------------------------- parts of the graph
def test_a_sub_graph_of_so_many_entities(tmp_path: Path) -> None:
    said: list[str] = []
    inputs = read(tmp_path, "sample=12", "literals=true", say=said.append)
    assert 10 < len(inputs.graph.entities) <= 12 and inputs.train.max() < 12
    assert inputs.features.literals.shape == (len(inputs.graph.entities), 4)
    assert any(line.startswith(f"sub-graph: {len(inputs.graph.entities)} of 22 entities, ") for line in said)


def test_entities_taken_out_of_training(checkpoint: Path, tmp_path: Path) -> None:
    said: list[str] = []
    inputs = read(tmp_path, "unseen=0.2", "text.use=replace", f"text.checkpoint={checkpoint}", say=said.append)
    assert any(line.startswith("inductive: 4 entities taken out of training, which keeps ") for line in said)
    seen = set(inputs.train[:, [0, 2]].reshape(-1).tolist())
    assert len(inputs.unseen) == 5  # and the one that test alone named
    for part in (inputs.graph.valid, inputs.graph.test):
        assert len(part) and all((head in seen) != (tail in seen) for head, _, tail in part.tolist())
