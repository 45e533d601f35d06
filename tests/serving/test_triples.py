"""Link prediction from an index: the scores that are measured, known answers, and a run's folder after training."""

import dataclasses
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import fusionjax
from fusionjax import pipeline
from fusionjax.config import schema
from fusionjax.data.shop import Entities, Shop, text_column
from fusionjax.errors import UserError
from fusionjax.evaluation.triples import inductive_vectors, score_triples, triple_scores
from fusionjax.inference import Encoder
from fusionjax.models.entities import GRAPH, Features
from fusionjax.retrieval.index import load_index, save_index
from fusionjax.retrieval.plain import from_plain
from fusionjax.seeds import run_seeds
from fusionjax.serving.build import build_index
from fusionjax.serving.triples import Triples
from fusionjax.settings import run_settings
from tests.link_prediction.made import ENTITIES, SCORERS, Made, made, normal, run_of, triples


def served(tmp_path: Path, *overrides: str, features: Features | None = None) -> tuple[Triples, Made, Any]:
    """(what answers, from disk; what the run was made of; its entities' and relations' parameters)."""
    these = made(*overrides, features=features)
    ids = text_column(f"e{row}" for row in range(ENTITIES))
    entities = Entities(ids, text_column(f"Entity {row}" for row in range(ENTITIES)), text_column([""] * ENTITIES))
    inputs, params = dataclasses.replace(these.inputs, shop=Shop("made", entities=entities)), these.params(3)
    encoder = Encoder(these.joint, {GRAPH: params})
    save_index(tmp_path / "index", build_index(these.config, inputs, encoder, np.zeros((1, 1)), 1))
    index = load_index(tmp_path / "index")
    assert index is not None and index.graph is not None
    assert from_plain(index.layout) == these.joint.layout
    return Triples(index.graph, index.shop), these, params


def check_scores(answers: Triples, these: Made, params: Any) -> None:
    """All of a query and each alone score as they do when the run is measured."""
    rows = triples()[:20]
    asked = [(f"e{head}", f"r{relation}", f"e{tail}") for head, relation, tail in rows]
    close: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-5}
    np.testing.assert_allclose(answers.score(asked), score_triples(these.model, params, these.features, rows), **close)
    vectors = inductive_vectors(these.model, params, these.features)
    given = {"entities": vectors, "relations": params["relations"], "shared": params.get("shared", {})}
    of_tails, of_heads = triple_scores(these.model)
    one, two = jnp.array([1]), jnp.array([2])
    for found, wanted in (
        (answers.tails("e1", "r2", ENTITIES, "keep"), of_tails(given, one, two, vectors)[0]),
        (answers.heads("r2", "e1", ENTITIES, "keep"), of_heads(given, one, two, vectors)[0]),
    ):
        scores = {each.id: each.score for each in found}
        np.testing.assert_allclose([scores[f"e{row}"] for row in range(ENTITIES)], wanted, **close)
    np.testing.assert_array_equal(answers.vectors(), vectors)
    np.testing.assert_array_equal(answers.vectors(["e3", "e0"]), answers.vectors()[[3, 0]])


@pytest.mark.parametrize("reciprocal", [True, False])
@pytest.mark.parametrize("scorer", SCORERS)
def test_scores_are_those_that_are_measured(tmp_path: Path, scorer: str, reciprocal: bool) -> None:
    if scorer == "conve" and not reciprocal:
        return  # refused: heads cannot be asked for
    check_scores(*served(tmp_path, f"scorer={scorer}", f"reciprocal={str(reciprocal).lower()}"))


@pytest.mark.parametrize("use", ["none", "replace", "add", "align"])
def test_vectors_hold_what_texts_and_numbers_give(tmp_path: Path, use: str) -> None:
    text = normal(ENTITIES, 6) if use != "none" else normal(ENTITIES, 0)
    features = Features(jnp.asarray(text), jnp.asarray(normal(ENTITIES, 4)), jnp.asarray(np.arange(ENTITIES) % 7 != 0, float))
    words = () if use == "none" else (f"text={{use: {use}, checkpoint: somewhere}}",)
    check_scores(*served(tmp_path, "scorer=tucker", "literals=true", *words, features=features))


def test_known_answers_are_dropped_marked_or_kept(tmp_path: Path) -> None:
    answers, _, _ = served(tmp_path, "scorer=distmult")
    everyone = answers.tails("e1", "r0", 99, "keep")
    assert [each.score for each in everyone] == sorted((each.score for each in everyone), reverse=True)
    assert {each.known for each in everyone} == {None} and everyone[0].name == f"Entity {everyone[0].id[1:]}"
    marked = answers.tails("e1", "r0", 99, "mark")
    assert [each.id for each in marked if each.known] == ["e2"]
    assert [(each.id, each.score) for each in marked] == [(each.id, each.score) for each in everyone]
    dropped = answers.tails("e1", "r0", 99, "drop")
    assert [each.id for each in dropped] == [each.id for each in everyone if each.id != "e2"]
    group = {f"e{row}" for row in range(4, ENTITIES) if row % 4 == 2}
    assert {each.id for each in answers.heads("r2", "e2", 99, "mark") if each.known} == group
    with pytest.raises(UserError, match="k must be at least 1, got 0"):
        answers.tails("e1", "r0", 0, "drop")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> schema.Run:
    """Of a graph in files: every ninth triple is validation, the one after it test."""
    folder = tmp_path_factory.mktemp("graph")
    split = np.array(["train", "valid", "test"])[np.array([0, 0, 0, 0, 1, 2, 0, 0, 0])]
    rows = [f"e{head},r{relation},e{tail},{split[place % 9]}" for place, (head, relation, tail) in enumerate(triples())]
    (folder / "triples.csv").write_text("\n".join(["head,relation,tail,split", *rows]) + "\n", encoding="utf-8")
    return run_of("scorer=complex", "epochs=2", "validate_every_epochs=1", "/data.name=files", f"/data.source_dir={folder}")


def test_a_run_of_several_seeds_opens_the_one_best_on_validation(
    config: schema.Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    said: list[str] = []
    home = run_seeds(config.model_copy(update={"seeds": (0, 1, 2)}), tmp_path / "seeds", "tiny", said.append)
    assert sum("index: " in line for line in said) == 3
    values = home.results()["seeds"]
    best = max(values, key=lambda seed: values[seed]["valid"]["link_prediction"]["mrr"])
    model = fusionjax.load(home.path)
    assert model.run_dir == home.path / f"seed-{best}" and f"seed-{best} is the best of 3 seeds" in caplog.text
    assert len(model.predict_tail("e1", "r0", 3)) == 3 and model.relation_vectors().shape == (4, 8)
    for lacking, ask in (
        ("no query tower", lambda: model.search("x")),
        ("no user tower", lambda: model.recommend("u")),
        ("shop 'files' has no products, which similar needs", lambda: model.similar("e1")),
    ):
        with pytest.raises(UserError, match=lacking):
            ask()
    # Older folders have no index: made anew from the data, without a word changed.
    index = home.path / f"seed-{best}" / "index"
    written = {file.name: file.read_bytes() for file in index.iterdir()}
    index.rename(tmp_path / "gone")
    again = fusionjax.load(index.parent)
    assert again.predict_head("r1", "e4", 5) == model.predict_head("r1", "e4", 5)
    assert {file.name: file.read_bytes() for file in index.iterdir()} == written


def test_a_run_of_several_settings_opens_the_chosen_one(config: schema.Run, tmp_path: Path) -> None:
    rate = "train.optimiser.learning_rate.tables"
    settings = {"settings": ({rate: 0.0001}, {rate: 0.3})}
    home = run_settings(config.model_copy(update=settings), tmp_path / "settings", "tiny", lambda _: None)
    assert fusionjax.load(home.path).run_dir == home.path / "setting-1"


def test_seeds_that_have_not_finished(config: schema.Run, tmp_path: Path) -> None:
    home = pipeline.runs.open_run(config.model_copy(update={"seeds": (0, 1)}), tmp_path / "seeds", "tiny")
    (home.path / "seed-0").mkdir()
    with pytest.raises(UserError, match="none of which has finished"):
        fusionjax.load(home.path)


def test_only_some_tasks_are_measured_again(config: schema.Run, tmp_path: Path) -> None:
    home = pipeline.run(config, tmp_path / "run", "tiny", lambda _: None)
    before = {path: path.stat().st_mtime_ns for path in home.path.rglob("*") if path.is_file()}
    results, _ = pipeline.evaluate(home.path, lambda _: None, ["link_prediction"])
    assert results["test"] == {"link_prediction": home.results()["test"]["link_prediction"]}
    assert {path: path.stat().st_mtime_ns for path in before} == before
    with pytest.raises(UserError, match=r"no task 'link_predicton'; did you mean 'link_prediction'"):
        pipeline.evaluate(home.path, lambda _: None, ["link_predicton"])
    assert dataclasses.is_dataclass(fusionjax.load(home.path).predict_tail("e1", "r0", 1)[0])
