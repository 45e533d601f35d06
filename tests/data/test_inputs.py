"""From shop to arrays: merged histories, positives, profiles, and clear words where the shop lacks a part."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from fusionjax.config import load_run, schema
from fusionjax.data.inputs import Inputs, build_inputs, build_sequences, require_parts
from fusionjax.data.shop import PARTS, TEST, TRAIN, VALID, Events, Judgments, Products, Queries, Shop, Triples, Users
from fusionjax.data.shop import text_column as texts
from fusionjax.errors import UserError
from fusionjax.pipeline import run
from fusionjax.serving.model import load

OFF = {name: {"weight": 0} for name in ("link_prediction", "alignment", "query_product", "next_product")}


def config_of(objectives: dict[str, object], **sections: object) -> schema.Run:
    return schema.Run.model_validate({"objectives": {**OFF, **objectives}, **sections})


def events_of(rows: list[tuple[int, int, int, int, int, int]], kinds: tuple[str, ...] = ("view", "purchase")) -> Events:
    """Events from (user, product, kind, time, query, split)."""
    user, product, kind, time, query, split = np.array(rows).T
    return Events(
        kinds,
        user.astype(np.int32),
        product.astype(np.int32),
        kind.astype(np.int8),
        time.astype(np.int64),
        query.astype(np.int32),
        split.astype(np.int8),
    )


SHOP = Shop(
    "s",
    products=Products.of(["A", "B", "C", "D"], title=["red tee", "blue mug", "", "!"], brand=["x", "x", "y", ""]),
    triples=Triples.of(["A"], ["goes_with"], ["B"]),
    users=Users(texts(["u", "v", "w"]), {"land": texts(["DE", "", "CN"]), "name": texts(["a", "b", "c"])}),
    events=events_of([(0, 0, 0, 1, -1, TRAIN), (0, 1, 1, 2, 1, TRAIN), (0, 2, 0, 3, 0, VALID), (2, 3, 0, 1, 2, TEST)]),
    queries=Queries(texts(["q", "r", "s"]), texts(["tee", "mug", "pot"])),
    judgments=Judgments(
        np.array([0, 0, 2], np.int32),
        np.array([0, 1, 2], np.int32),
        np.array([3, 0.5, 3], np.float32),
        np.array([0, 0, 2], np.int8),
    ),
)


def inputs_of(shop: Shop, config: schema.Run, folder: Path) -> Inputs:
    return build_inputs(shop, config, folder, log=lambda _: None)


# -------------------------------------------------------------------------------------------------------------- sequences
def test_runs_of_events_on_one_product_merge_into_the_strongest_kind() -> None:
    rows = [
        *((0, 5, 0, 10, -1, TRAIN), (0, 5, 1, 12, -1, TRAIN), (0, 5, 0, 13, -1, TRAIN)),  # view, purchase, view of 5
        *((0, 6, 0, 20, -1, TRAIN), (0, 5, 0, 30, -1, TRAIN)),  # 6, then 5 again: another event
        *((0, 5, 1, 40, -1, VALID), (2, 5, 0, 5, -1, TRAIN)),  # a new split and a new user each begin anew
    ]
    shop = Shop("s", products=Products.of(list("abcdefg")), users=Users(texts("uvw")), events=events_of(rows[::-1]))
    found = build_sequences(shop)
    assert found.offsets.tolist() == [0, 4, 4, 5]
    assert found.product.tolist() == [5, 6, 5, 5, 5]
    assert found.kind.tolist() == [1, 0, 0, 1, 0]
    assert found.time.tolist() == [10, 20, 30, 40, 5]
    assert found.split.tolist() == [TRAIN, TRAIN, TRAIN, VALID, TRAIN]


def test_kinds_of_ones_own_are_weakest() -> None:
    kinds = ("wish", "cart", "click", "view", "purchase")
    for chosen, expected in (((0, 3), 3), ((3, 2), 2), ((2, 1), 1), ((1, 4), 4), ((0, 0), 0), ((4, 0, 3), 4)):
        events = events_of([(0, 0, kind, time, -1, TRAIN) for time, kind in enumerate(chosen)], kinds)
        shop = Shop("s", products=Products.of(["a"]), users=Users(texts(["u"])), events=events)
        assert build_sequences(shop).kind.tolist() == [expected]


# ------------------------------------------------------------------------------------------------------------------ arrays
def test_what_inputs_hold(tmp_path: Path) -> None:
    config = load_run(None, ["text.vocab_size=100", "text.fields=[title]"])
    found = inputs_of(SHOP, config, tmp_path)
    assert found.n_products == 4 and found.has_text.tolist() == [True, True, False, True]
    assert found.train_counts.tolist() == [1, 1, 0, 0]
    assert found.has_entity.tolist() == [True, True, True, False]  # C by its brand, D by nothing
    # tee: A is good, B is not; mug: an event of training; tee in validation and pot, held out, are no positives.
    assert found.positives.tolist() == [[0, 0], [1, 1]]
    assert found.query_tokens is not None and len(found.query_tokens) == 3
    assert found.profile.tolist() == [[2, 1], [0, 2], [1, 3]]
    assert found.profile_values == (("land", ("", "CN", "DE")), ("name", ("", "a", "b", "c")))
    assert (tmp_path / "tokenizer.json").exists()


def test_a_profile_field_of_all_different_values_is_left_out(tmp_path: Path) -> None:
    n = 1001
    users = Users(texts(f"u{row}" for row in range(n)), {"name": texts(f"n{row}" for row in range(n)), "void": texts([""] * n)})
    config = config_of({"link_prediction": {}}, model={"product": {"sources": ["entity"]}})
    found = inputs_of(dataclasses.replace(SHOP, users=users), config, tmp_path)
    assert found.profile.shape == (n, 0) and found.profile_values == ()
    assert found.tokenizer is None and not (tmp_path / "tokenizer.json").exists()  # nothing reads text


def test_an_entity_that_only_held_out_edges_touch_is_not_learnt(tmp_path: Path) -> None:
    triples = Triples.of(["A", "C"], ["r", "r"], ["B", "D"], split=[TRAIN, TEST])
    config = config_of({"link_prediction": {}}, model={"product": {"sources": ["entity"]}}, data={"graph": {"brand": False}})
    found = inputs_of(dataclasses.replace(SHOP, triples=triples), config, tmp_path)
    assert found.has_entity.tolist() == [True, True, False, False]


def test_no_events_for_query_product_on_demand(tmp_path: Path) -> None:
    config = load_run(None, ["text.vocab_size=100", "objectives.query_product={from_events: false, min_grade: 0.5}"])
    assert inputs_of(SHOP, config, tmp_path).positives.tolist() == [[0, 0], [0, 1]]


# ----------------------------------------------------------------------------------------------------------- missing parts
def without(*parts: str) -> Shop:
    return dataclasses.replace(SHOP, name="poor", **dict.fromkeys(parts))


OBJECTIVE_NEEDS = [
    ("next_product", ("products",)),
    ("next_product", ("users",)),
    ("next_product", ("events",)),
    ("query_product", ("products",)),
    ("query_product", ("queries",)),
    ("alignment", ("products",)),
    ("link_prediction", ("products", "triples")),
]
TASK_NEEDS = [
    *(("search", part) for part in ("products", "queries", "judgments")),
    *(("recommendation", part) for part in ("products", "users", "events")),
]


@pytest.mark.parametrize(("objective", "parts"), OBJECTIVE_NEEDS)
def test_an_objective_names_the_part_it_lacks(objective: str, parts: tuple[str, ...]) -> None:
    config = config_of({objective: {}})
    require_parts(SHOP, config)
    present = ", ".join(part for part in PARTS if SHOP.has(part) and part not in parts)
    with pytest.raises(UserError, match=rf"^shop 'poor' has no {parts[-1]}, which objectives\.{objective} needs .*{present}"):
        require_parts(without(*parts), config)


@pytest.mark.parametrize(("task", "part"), TASK_NEEDS)
def test_a_named_task_names_the_part_it_lacks(task: str, part: str) -> None:
    config = config_of({}, evaluation={"tasks": [task]})
    require_parts(SHOP, config)
    with pytest.raises(UserError, match=rf"shop 'poor' has no {part}, which evaluation\.tasks: {task} needs"):
        require_parts(without(part), config)


def test_an_empty_shop_says_so() -> None:
    with pytest.raises(UserError, match=r"no products and no users and no events, .*\(it has: nothing\)"):
        require_parts(Shop("void"), config_of({"next_product": {}}))


# ------------------------------------------------------------------------------------------------- shops with few parts
COMMON = (
    *("data.name=files", "text={vocab_size: 100, max_length: 8, layers: 1, width: 8, heads: 1, feed_forward: 8, live: 4}"),
    *("model={dim: 8, entity: {dim: 8}}", "train={steps: 4, validate_every: 2, log_every: 1}", "evaluation.batch_size=16"),
    *("objectives.alignment.weight=0", "objectives.next_product.weight=0"),
)


def test_a_graph_alone_trains(tmp_path: Path) -> None:
    shop, out = tmp_path / "shop", tmp_path / "run"
    shop.mkdir()
    edges = [f"e{a},r{(a + b) % 2},e{b}" for a in range(12) for b in range(12) if a != b]
    (shop / "triples.csv").write_text("\n".join(["head,relation,tail", *edges, ""]), encoding="utf-8")
    overrides = [*COMMON, f"data.source_dir={shop}", "objectives.link_prediction={batch_size: 16, negatives: 4}"]
    with pytest.raises(UserError, match="has no products and no queries, which objectives"):
        run(load_run(None, overrides), out, "graph", say=lambda _: None)
    out = tmp_path / "run with an objective less"
    config = load_run(None, [*overrides, "objectives.query_product.weight=0", "model.product.sources=[entity]"])
    home = run(config, out, "graph", say=lambda _: None)
    results = home.results()
    assert list(results["test"]) == list(results["valid"]) == list(results["baselines"]) == ["link_prediction"]
    assert 0 < results["test"]["link_prediction"]["mrr"] <= 1
    assert (out / "report.html").exists()
    model = load(out)
    for ask in (
        lambda: model.search("tee"),
        lambda: model.recommend("u"),
        lambda: model.similar("e1"),
        lambda: model.rank("a", []),
    ):
        with pytest.raises(UserError, match=r"has no products|no query tower|no user tower|entity vectors only"):
            ask()


def test_queries_and_judgments_alone_train(tmp_path: Path) -> None:
    shop, out = tmp_path / "shop", tmp_path / "run"
    shop.mkdir()
    colours, things = ("red", "blue", "black", "white"), ("tee", "mug", "pot")
    names = [f"{colour} {thing}" for colour in colours for thing in things]
    tables = {
        "products": ["id,title", *(f"p{row},{name}" for row, name in enumerate(names))],
        "queries": ["id,text", *(f"q{row},{name} now" for row, name in enumerate(names))],
        "judgments": ["query,product,grade", *(f"q{row},p{row},3" for row in range(len(names)))],
    }
    for name, lines in tables.items():
        (shop / f"{name}.csv").write_text("\n".join([*lines, ""]), encoding="utf-8")
    objectives = (
        "objectives.link_prediction.weight=0",
        "objectives.query_product={batch_size: 8}",
        "model.product.sources=[text]",
    )
    home = run(load_run(None, [*COMMON, f"data.source_dir={shop}", *objectives]), out, "search", say=lambda _: None)
    results = home.results()
    assert list(results["test"]) == ["search"] and set(results["baselines"]["search"]) == {"random", "bm25"}
    model = load(out)
    assert len(model.search("red tee", 5)) == 5
    assert len(model.similar("p0", 50)) == len(names) - 1
    with pytest.raises(UserError, match="no user tower"):
        model.recommend("u")
