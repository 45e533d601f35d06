"""A loaded run answers: search, rank, recommend, similar; and says clearly what it cannot."""

import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import pytest

import fusionjax
from fusionjax.data.inputs import build_inputs
from fusionjax.data.prepare import prepare
from fusionjax.errors import UserError
from fusionjax.runs import RunFolder, open_run
from fusionjax.serving.model import Hit, Model, from_checkpoint, load
from tests.trained import TrainedRun, trained_run

IDS = ["T1", "T2", "T3", "M1", "M2", "P1"]
NAMES = ("Cotton tee white", "纯棉T恤 黑色", "Merino tee grey", "Stoneware mug blue", "Glass mug, 300 ml", "Enamel pot 2 l")
TITLES = dict(zip(IDS, NAMES, strict=True))


@pytest.fixture(scope="module")
def trained() -> TrainedRun:
    return trained_run()


@pytest.fixture(scope="module")
def model(trained: TrainedRun) -> Iterator[Model]:
    before = Path.cwd()
    os.chdir(trained.cwd)  # the run's data.source_dir is relative
    yield fusionjax.load(trained.folder)
    os.chdir(before)


def ids(hits: list[Hit]) -> list[str]:
    return [hit.id for hit in hits]


def without_index(trained: TrainedRun, tmp_path: Path) -> Path:
    """A copy of the run as runs were left before there was an index."""
    older = tmp_path / "older"
    shutil.copytree(trained.folder, older, ignore=shutil.ignore_patterns("index"))
    return older


def scores(hits: list[Hit]) -> list[float]:
    return [hit.score for hit in hits]


# ---------------------------------------------------------------------------------------------------------------- search
def test_search_is_the_cosine_in_the_shared_space(model: Model) -> None:
    found = model.search("white t-shirt")
    assert sorted(ids(found)) == sorted(IDS) and scores(found) == sorted(scores(found), reverse=True)
    vector = model.query_vector("white t-shirt")
    np.testing.assert_allclose(np.linalg.norm(vector), 1, rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(model.unit, axis=1), 1, rtol=1e-5)
    for hit in found:
        assert hit.score == pytest.approx(float(model.unit[IDS.index(hit.id)] @ vector), abs=1e-6)
        assert hit.title == TITLES[hit.id]
    assert model.search("white t-shirt", 2) == found[:2] and model.search("white t-shirt", 99) == found
    assert model.search("white t-shirt") == found


def test_a_user_s_taste_counts(model: Model) -> None:
    plain, taste = {hit.id: hit.score for hit in model.search("mug")}, model.unit @ model.user_vector("bo")
    for hit in model.search("mug", user="bo", user_weight=0.5):
        assert hit.score == pytest.approx(plain[hit.id] + 0.5 * float(taste[IDS.index(hit.id)]), abs=1e-5)
    assert model.search("mug", user="bo", user_weight=0.0) == model.search("mug")


def test_what_is_typed_is_read_like_the_shop_s_texts(model: Model) -> None:
    plain = model.search("T恤 mug")
    assert model.search("Ｔ恤　 mug") == plain == model.search("<b>T恤</b> mug\n")
    assert model.search("MUG t恤") == model.search("mug T恤")


@pytest.mark.parametrize("query", ["", "  \t", "\u200b", "<br>"])
def test_a_blank_query(model: Model, query: str) -> None:
    with pytest.raises(UserError, match="the query is blank"):
        model.search(query)


@pytest.mark.parametrize("k", [0, -3])
def test_k_is_at_least_one(model: Model, k: int) -> None:
    for ask in (
        lambda: model.search("mug", k),
        lambda: model.recommend("anna", k),
        lambda: model.similar("T1", k),
    ):
        with pytest.raises(UserError, match=f"k must be at least 1, got {k}"):
            ask()


# ------------------------------------------------------------------------------------------------------------------ rank
def test_rank_orders_any_titles(model: Model) -> None:
    titles = ["A red carpet", "Merino tee grey", "纯棉T恤 黑色", "A red carpet", "", "Glass mug, 300 ml"]
    ranked = model.rank("tee", titles)
    assert sorted(title for title, _ in ranked) == sorted(titles)
    values = [score for _, score in ranked]
    assert values == sorted(values, reverse=True) and np.isfinite(values).all()
    of_shop = {hit.title: hit.score for hit in model.search("tee")}
    for title, score in ranked:
        if title in of_shop:  # a product of the shop, entity and all
            assert score == pytest.approx(of_shop[title], abs=1e-5)
    strange = [score for title, score in ranked if title == "A red carpet"]
    assert strange[0] == pytest.approx(strange[1], abs=1e-6)
    assert model.rank("tee", []) == []


def test_a_title_scores_the_same_in_any_company(model: Model) -> None:
    alone = model.rank("tee", ["A red carpet"])[0][1]
    crowd = dict(model.rank("tee", [*(f"title {n}" for n in range(40)), "A red carpet"]))
    assert crowd["A red carpet"] == pytest.approx(alone, abs=1e-5)
    assert dict(model.rank("tee", ["Ａ red  carpet"]))["Ａ red  carpet"] == pytest.approx(alone, abs=1e-5)


# ------------------------------------------------------------------------------------------------- recommend and similar
def test_recommend_leaves_out_what_was_seen(model: Model) -> None:
    assert model.history("anna").tolist() == [0, 1, 0, 2]  # all events, also those held out from training
    assert sorted(ids(model.recommend("anna"))) == ["M1", "M2", "P1"]
    assert sorted(ids(model.recommend("bo"))) == ["T1", "T2", "T3"]
    found = model.recommend("chen", 2)
    assert len(found) == 2 and scores(found) == sorted(scores(found), reverse=True)
    vector = model.user_vector("chen")
    assert found[0].score == pytest.approx(float(model.unit[IDS.index(found[0].id)] @ vector), abs=1e-6)


def test_recommend_what_was_seen_where_the_config_allows_it(model: Model) -> None:
    evaluation = model.config.evaluation.model_copy(update={"exclude_seen": False})
    lenient = Model(model.config.model_copy(update={"evaluation": evaluation}), model.index, model.folder, model.encoder)
    assert sorted(ids(lenient.recommend("anna"))) == sorted(IDS)


def test_similar_leaves_itself_out(model: Model) -> None:
    found = model.similar("T1")
    assert sorted(ids(found)) == sorted(set(IDS) - {"T1"}) and scores(found) == sorted(scores(found), reverse=True)
    there = {hit.id: hit.score for hit in found}["M1"]
    back = {hit.id: hit.score for hit in model.similar("M1")}["T1"]
    assert there == pytest.approx(back, abs=1e-6) and -1.0001 <= there <= 1.0001


def test_unknown_names_get_a_hint(model: Model) -> None:
    with pytest.raises(UserError, match=r"no user 'cheng' in shop 'files'; did you mean 'chen'\?"):
        model.recommend("cheng")
    with pytest.raises(UserError, match=r"no user 'ana' .*did you mean 'anna'\?"):
        model.search("mug", user="ana")
    with pytest.raises(UserError, match=r"no product 'TT2' in shop 'files'; did you mean 'T2'\?"):
        model.similar("TT2")
    with pytest.raises(UserError, match=r"no product '3000'.*; valid: M1, M2, P1, T1, T2, T3"):
        model.similar("3000")


# ------------------------------------------------------------------------------------------------------------------ load
def test_loading_twice_gives_the_same_numbers(model: Model, trained: TrainedRun) -> None:
    again = load(str(trained.folder))
    np.testing.assert_array_equal(again.unit, model.unit)
    assert again.step == model.step in (3, 6)


def test_loading_writes_nothing(model: Model, trained: TrainedRun) -> None:
    before = {path: path.stat().st_mtime_ns for path in trained.folder.rglob("*")}
    load(trained.folder)
    assert {path: path.stat().st_mtime_ns for path in trained.folder.rglob("*")} == before


def test_other_data_than_it_was_trained_on(trained: TrainedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(trained.cwd / "myshop", tmp_path / "myshop")
    monkeypatch.chdir(tmp_path)
    older = without_index(trained, tmp_path)
    load(older)  # the same tables elsewhere are the same data
    with (tmp_path / "myshop" / "events.csv").open("a", encoding="utf-8") as file:
        file.write("chen,P1,purchase,2024-06-01T00:00:00Z,\n")
    assert load(older).recommend("anna"), "a run with its index does not ask for its data"
    shutil.rmtree(older / "index")
    with pytest.raises(
        UserError, match=r"the data is not what the run was trained on \(fingerprint [0-9a-f]{12}, was [0-9a-f]{12}\)"
    ):
        load(older)


def test_a_run_that_is_none_or_not_yet_trained(trained: TrainedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"no run there \(config\.yaml is missing\)"):
        load(tmp_path / "nowhere")
    monkeypatch.chdir(trained.cwd)
    config = RunFolder(trained.folder).config()
    begun = open_run(config, tmp_path / "begun", "begun")
    assert prepare(config.data, log=lambda _: None).shop.has("events")
    with pytest.raises(UserError, match=r"not trained yet \(no checkpoints\)"):
        load(begun.path)
    (begun.path / "checkpoints" / "best").mkdir(parents=True)
    with pytest.raises(UserError, match="no checkpoint there; train the run first"):
        load(begun.path)


# ----------------------------------------------------------------------------------------------------------------- index
def test_a_moved_run_answers_when_its_data_are_gone(
    model: Model, trained: TrainedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(trained.folder, tmp_path / "elsewhere" / "run")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FUSIONJAX_CACHE", str(tmp_path / "no-cache"))
    for path in ("fusionjax.data.prepare.prepare", "fusionjax.data.inputs.build_inputs"):
        monkeypatch.setattr(path, None)
    moved = load("elsewhere/run")
    assert moved.run_dir == Path("elsewhere/run")
    assert moved.search("mug", user="bo") == model.search("mug", user="bo")
    assert moved.recommend("anna") == model.recommend("anna") and moved.similar("T1") == model.similar("T1")
    assert moved.rank("tee", ["A red carpet", "Merino tee grey"]) == model.rank("tee", ["A red carpet", "Merino tee grey"])
    assert moved.predict_tail("T1", "brand", known="mark") == model.predict_tail("T1", "brand", known="mark")
    assert not (tmp_path / "no-cache").exists()


def test_what_the_index_says_of_itself(trained: TrainedRun) -> None:
    manifest = json.loads((trained.folder / "index" / "index.json").read_text(encoding="utf-8"))
    assert manifest["data"] == RunFolder(trained.folder).provenance()["fingerprint"]
    assert manifest["parts"] == ["products", "users", "graph"] and len(manifest["parameters"]) == 64
    assert re.search(r"^index: \d+\.\d kB$", trained.stderr, re.MULTILINE)
    names = {file.suffix for file in (trained.folder / "index").iterdir()}
    assert names == {".npy", ".json"}
    assert all(np.load(file, allow_pickle=False) is not None for file in (trained.folder / "index").glob("*.npy")), (
        "nothing in it can execute"
    )


def test_the_index_is_what_the_best_parameters_give(model: Model, trained: TrainedRun) -> None:
    """One user costs a batch of one, and gets what a batch of all users gives."""
    prepared = prepare(model.config.data, log=lambda _: None)
    inputs = build_inputs(prepared.shop, model.config, model.folder.tokenizer, log=lambda _: None)
    whole = from_checkpoint(model.config, inputs, RunFolder(trained.folder))
    np.testing.assert_array_equal(whole.unit, model.unit)
    jax.tree.map(np.testing.assert_array_equal, whole.encoder.params, model.encoder.params)
    assert inputs.sequences is not None
    after = inputs.sequences.offsets[1:]
    together = whole.encoder.users(whole.raw, inputs.sequences, np.arange(3), after, inputs.profile)
    for row, user in enumerate(("anna", "bo", "chen")):
        np.testing.assert_allclose(model.user_vector(user), together[row], atol=2e-6)
        np.testing.assert_allclose(model.scores(user), model.unit @ together[row], atol=2e-6)
    assert list(model.product_ids) == IDS and list(model.user_ids) == ["anna", "bo", "chen"]


def test_an_older_run_gets_an_index(model: Model, trained: TrainedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(trained.cwd)
    older = without_index(trained, tmp_path)
    assert load(older).search("mug") == model.search("mug")
    written = {file.name: file.read_bytes() for file in (older / "index").iterdir()}
    assert written == {file.name: file.read_bytes() for file in (trained.folder / "index").iterdir()}
    # One of another format, or of earlier parameters, is made anew.
    for change in ({"format": 0}, {"step": 1}):
        manifest = json.loads(written["index.json"]) | change
        (older / "index" / "index.json").write_text(json.dumps(manifest), encoding="utf-8")
        assert load(older).step == model.step
        assert (older / "index" / "index.json").read_bytes() == written["index.json"]
    assert {path.name for path in older.iterdir()} == {path.name for path in trained.folder.iterdir()}


def test_a_run_whose_parameters_are_gone(trained: TrainedRun, tmp_path: Path) -> None:
    shutil.copytree(trained.folder, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "best")
    left = load(tmp_path / "run")
    assert left.similar("T1"), "the index alone answers that"
    with pytest.raises(UserError, match=r"the parameters of step \d, which its index is of, are gone: there is none"):
        left.search("mug")


def test_users_left_out_of_the_index(trained: TrainedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(trained.cwd)
    older = without_index(trained, tmp_path)
    file = older / "config.yaml"
    file.write_text(file.read_text(encoding="utf-8").replace("keep_users: true", "keep_users: false"), encoding="utf-8")
    private = load(older)
    assert not list((older / "index").glob("users*")) and private.search("mug")
    with pytest.raises(UserError, match=r"this run's index holds no users: data\.keep_users was false"):
        private.recommend("anna")


# ------------------------------------------------------------------------------------------------------ link prediction
def test_a_joint_run_predicts_links(model: Model) -> None:
    found = model.predict_tail("T1", "in_category", known="mark")
    assert {each.id for each in found if each.known} and [each.score for each in found] == sorted(
        (each.score for each in found), reverse=True
    )
    assert {each.id for each in found} == set(model.entity_ids) or len(found) == 10
    true = next(each for each in found if each.known)
    assert model.score("T1", "in_category", true.id) == pytest.approx(true.score, abs=1e-4)
    assert true.id not in [each.id for each in model.predict_tail("T1", "in_category")]
    heads = model.predict_head("in_category", true.id, 50, known="mark")
    assert {each.id: each.known for each in heads}["T1"] is True
    assert {each.name for each in heads if each.id == "T3"} == {"Merino tee grey"}, "products bear their titles"
    assert {each.known for each in model.predict_head("in_category", true.id, known="keep")} == {None}
    vectors = model.entity_vectors(["T1", true.id])
    assert vectors.shape == (2, model.entity_vectors().shape[1]) and len(model.entity_vectors()) == len(model.entity_ids)
    with pytest.raises(UserError, match=r"no relation 'in_categori' in shop 'files'; did you mean 'in_category'"):
        model.predict_tail("T1", "in_categori")
    with pytest.raises(UserError, match=r"no entity 'TT2' .*did you mean 'T2'"):
        model.score("TT2", "in_category", true.id)
    with pytest.raises(UserError, match=r"known: expected 'drop', 'mark' or 'keep', got 'maybe'"):
        model.predict_tail("T1", "in_category", known="maybe")  # type: ignore[arg-type]
