"""`import fusionjax as fj`: shops handed over in Python, configs by path, name or mapping, runs and studies."""

import json
import math
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow
import pytest

import fusionjax as fj
from fusionjax import api
from fusionjax.config import load_run
from fusionjax.data.prepare import prepare
from fusionjax.data.shop import Products, Shop
from fusionjax.errors import UserError
from tests.trained import ROOT, SMALL, readme_shop

GRAPH = {
    "data": {"graph": {"given": True}},
    "model": {"product": {"sources": ["entity"]}, "entity": {"scorer": "distmult", "dim": 8}},
    "objectives": {
        **{name: {"weight": 0} for name in ("alignment", "query_product", "next_product")},
        "link_prediction": {"training": "one_vs_all", "reciprocal": True, "batch_size": 16},
    },
    "train": {"epochs": 2, "validate_every_epochs": 1},
}
"""A config as a mapping: link prediction alone, which trains in seconds."""


def tables() -> dict[str, Any]:
    """A shop as mappings of columns, with ids that are numbers, missing values and times of several kinds."""
    return {
        "products": {
            "id": [1, 2, 3],
            "title": ["Tee", None, "Mug"],
            "price": [19.9, math.nan, 12],
            "colour": ["red", "", "x"],
        },
        "users": {"id": ["anna", "bo"]},
        "events": {
            "user": ["anna", "anna", "bo"],
            "product": np.array([1, 3, 2]),
            "time": ["2024-05-01T10:00:00Z", "2024-05-02", "2024-05-03"],
            "query": ["tee", "", None],
        },
        "queries": {"id": ["q1"], "text": ["tee"]},
        "judgments": {"query": ["q1"], "product": [1], "grade": [2]},
        "triples": {"head": ["1"], "relation": ["goes_with"], "tail": ["3"]},
    }


def arrow_table(columns: dict[str, Any]) -> pyarrow.Table:
    return pyarrow.table({name: pyarrow.array(list(values), from_pandas=True) for name, values in columns.items()})


# --------------------------------------------------------------------------------------------------------------- shops
def test_a_shop_from_tables_is_that_of_the_same_files(tmp_path: Path) -> None:
    shop = Shop.from_tables(**tables())
    for part, columns in tables().items():
        lines = [",".join(columns)]
        for row in zip(*columns.values(), strict=True):
            lines.append(",".join("" if value is None or value != value else str(value) for value in row))
        (tmp_path / f"{part}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    files = Shop.from_folder(tmp_path)
    assert shop.fingerprint() == files.fingerprint() and list(shop.products.title) == ["Tee", "", "Mug"]
    arrow = {part: arrow_table(columns) for part, columns in tables().items()}
    assert Shop.from_tables(**arrow).fingerprint() == shop.fingerprint()
    named = tables()
    named["products"]["sku"] = named["products"].pop("id")
    assert Shop.from_tables(**named, columns={"products": {"id": "sku"}}).fingerprint() == shop.fingerprint()


def test_data_frames() -> None:
    """Not of pandas itself, which is no dependency: what hands its columns to Arrow, and what calls itself a pandas frame."""

    class Frame:
        def __init__(self, columns: dict[str, Any]) -> None:
            self.table = pyarrow.table(columns)

        def __arrow_c_stream__(self, schema: Any = None) -> Any:
            return self.table.__arrow_c_stream__(schema)

    columns = {"id": ["a", "b"], "title": ["A", "B"]}
    assert list(Shop.from_tables(products=Frame(columns)).products.title) == ["A", "B"]
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"title": ["A", None]}, index=pandas.Index(["a", "b"], name="id"))
    assert list(Shop.from_tables(products=frame).products.id) == ["a", "b"]
    assert list(Shop.from_tables(products=pandas.DataFrame(columns, index=[7, 8])).products.id) == ["a", "b"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, r"Shop\.from_tables: no tables; expected at least one of products"),
        ({"products": [1]}, r"products: expected a DataFrame, a pyarrow table or a mapping of columns, got list"),
        ({"products": {"id": "abc"}}, r"products: column 'id': expected a list of values, got str"),
        ({"products": {"id": ["a", 1]}}, r"products: column 'id': values of one type are expected"),
        ({"products": {"id": ["a"], "title": []}}, r"products: the columns differ in length: id 1, title 0"),
        ({"products": {"id": []}}, r"products: no rows; leave a table you lack out"),
        ({"products": {"titel": ["a"]}}, r"products: no column 'id'.*data\.files\.columns\.products"),
        (
            {"products": {"id": ["a", "a"]}},
            r"from_tables: 1 malformed row .*\n  products:row 2: duplicate product id: 'a'",
        ),
        ({"products": {"id": ["a"], "price": ["x"]}}, r"products:row 1: price is not a number: 'x'"),
        ({"products": {"id": ["a"]}, "columns": {"product": {}}}, r"columns: no table 'product'; did you mean 'products'\?"),
        ({"products": {"id": ["a"]}, "on_bad_row": "drop"}, r"on_bad_row: expected 'error' or 'skip', got 'drop'"),
    ],
)
def test_mistakes_in_tables(given: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        Shop.from_tables(**given)


def test_malformed_rows_are_skipped_where_that_is_said() -> None:
    said: list[str] = []
    products = {"id": ["a", "b"], "price": ["x", "1"]}
    shop = Shop.from_tables(products=products, on_bad_row="skip", log=said.append)
    assert list(shop.products.id) == ["b"] and any("dropped 1 malformed row" in line for line in said)


# ------------------------------------------------------------------------------------------------------------- configs
def test_configs_that_come_along() -> None:
    shipped = api.shipped_configs()
    assert {"quickstart", "kge/umls_complex", "demo_million"} <= shipped.keys()
    assert shipped.keys() == {
        path.relative_to(ROOT / "configs").with_suffix("").as_posix() for path in (ROOT / "configs").rglob("*.yaml")
    }
    assert api.load_config("quickstart") == load_run(ROOT / "configs" / "quickstart.yaml")
    assert api.load_config("demo_million", {"train.steps": 2}).train.steps == 2
    with pytest.raises(UserError, match=r"no config 'quickstrat': .*; did you mean 'quickstart'\?"):
        api.load_config("quickstrat")


def test_a_config_as_a_mapping() -> None:
    found = api.load_config({"extends": "quickstart", "train": {"steps": 7}, "seed": 3})
    assert found == load_run(ROOT / "configs" / "quickstart.yaml", ["train.steps=7", "seed=3"])
    assert api.load_config({"seed": 3}, ["seed=4"]).seed == 4 and api.load_config({"seed": 3}, {"seed": 5}).seed == 5
    with pytest.raises(UserError, match=r"config: train\.stepz: .*'steps'"):
        api.load_config({"train": {"stepz": 7}})
    with pytest.raises(UserError, match=r"overrides: train\.stepz: .*'steps'"):
        api.load_config({}, {"train.stepz": 7})
    with pytest.raises(UserError, match="overrides: expected a list of 'KEY=VALUE' or a mapping, got 'seed=3'"):
        api.load_config({}, "seed=3")


def test_keys_of_an_earlier_version_are_said(tmp_path: Path) -> None:
    file, said, renamed = tmp_path / "old.yaml", [], {}
    file.write_text("kge: {scorer: complex, dim: 64}\n", encoding="utf-8")
    config = api.load_config(file, renamed=renamed)
    assert config.model.entity.dim == 64 and renamed["kge.dim"] == "model.entity.dim"
    api.say_renamed(file, renamed, said.append)
    api.say_renamed({"kge": {"dim": 64}}, {"kge.dim": "model.entity.dim"}, said.append)
    api.say_renamed(file, {}, said.append)
    assert said == [
        f"keys of an earlier version: kge.scorer, kge.dim; in today's keys: fusionjax config upgrade {file}",
        "keys of an earlier version: kge.dim",
    ]
    (tmp_path / "new.yaml").write_text(api.upgrade_config(file), encoding="utf-8")
    again: dict[str, str] = {}
    assert api.load_config(tmp_path / "new.yaml", renamed=again) == config and not again


def test_a_shop_takes_the_place_of_the_config_s_data(tmp_path: Path) -> None:
    cache = {"data.cache_dir": str(tmp_path / "cache")}
    shop = Shop.from_tables(**tables())
    config = api.load_config("quickstart", cache, shop)
    folder = Path(config.data.source_dir or "")
    assert config.data.name == "files" and folder.parent == tmp_path / "cache"
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["tables"]["events"] == 3 and folder.name == f"tables-{manifest['fingerprint'][:16]}"
    assert {file.suffix for file in folder.iterdir()} == {".parquet", ".json"}
    before = {file: file.stat().st_mtime_ns for file in folder.iterdir()}
    assert api.load_config("quickstart", cache, Shop.from_tables(**tables())) == config, "the same tables lie there already"
    assert {file: file.stat().st_mtime_ns for file in folder.iterdir()} == before
    cleaned = prepare(config.data, log=lambda _: None)
    assert cleaned.source["raw_fingerprint"] == shop.fingerprint()
    with pytest.raises(UserError, match=r"shop: expected one made by Shop\.from_folder or Shop\.from_tables"):
        api.load_config("quickstart", shop=Shop("mine", products=Products.of(["a"])))
    files = Shop.from_folder(readme_shop() / "myshop", on_bad_row="skip")
    config = api.load_config({}, shop=files)
    assert config.data.source_dir == str(readme_shop() / "myshop") and config.data.files.on_bad_row == "skip"


# ---------------------------------------------------------------------------------------------------------------- runs
def triples(n: int = 21) -> dict[str, list[str]]:
    pairs = [(row, relation, (row + 1 + relation) % n) for relation in range(2) for row in range(n)]
    split = [("train", "train", "train", "train", "valid", "test")[place % 6] for place in range(len(pairs))]
    columns = zip(("head", "relation", "tail"), "ere", np.array(pairs).T, strict=True)
    return {name: [f"{letter}{each}" for each in part] for name, letter, part in columns} | {"split": split}


def test_a_run_from_tables_goes_on_from_its_folder_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUSIONJAX_CACHE", str(tmp_path / "cache"))
    said: list[str] = []
    shop = Shop.from_tables(triples=triples())
    run = fj.train(GRAPH, shop=shop, overrides=["train.epochs=3"], run_dir=tmp_path / "run", say=said.append)
    assert run.run_dir == tmp_path / "run" and run.config.train.epochs == 3 and run.report == tmp_path / "run" / "report.html"
    assert run.results["test"]["link_prediction"]["mrr"] > 0 and any(line.startswith("index: ") for line in said)
    assert run.model is run.model and len(run.model.predict_tail("e1", "r0", 3)) == 3
    monkeypatch.chdir(tmp_path)
    assert fj.evaluate("run", say=said.append) == run.results
    assert fj.evaluate(run, tasks=["link_prediction"], say=said.append)["test"] == run.results["test"]
    again = fj.train(GRAPH, shop=shop, overrides={"train.epochs": 3}, run_dir="run", say=said.append)
    assert said[-1] == "this run is complete; nothing to do" and again.results == run.results
    assert fj.load(again).entity_vectors().shape == (21, 8)


def test_several_seeds(tmp_path: Path) -> None:
    shop = Shop.from_tables(triples=triples())
    run = fj.train(GRAPH | {"seeds": [0, 1]}, shop=shop, run_dir=tmp_path / "run", say=lambda _: None)
    assert run.results["seeds"].keys() == {"0", "1"} and run.report is None
    assert run.model.run_dir.parent == run.run_dir


def test_a_study(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it does is tested with the studies; here, that it does it."""
    study = fj.study(ROOT / "experiments" / "demo_shop")
    assert len(study.plan().cells) > 1 and study.verify() is study
    asked: list[tuple[str, Any]] = []
    from fusionjax.studies import commands

    for name in ("_run", "_report"):
        monkeypatch.setattr(commands, name, lambda words, name=name: asked.append((name, words)))
    assert study.run(workers=2).report() == ROOT / "experiments" / "demo_shop" / "report.html"
    assert [name for name, _ in asked] == ["_run", "_report"] and asked[0][1].workers == 2


def test_public_names_and_their_documentation() -> None:
    for name in fj.__all__:
        assert name in dir(fj) and (name.startswith("__") or getattr(fj, name).__doc__)
    assert fj.train is api.train and isinstance(api, ModuleType)


def test_neither_package_nor_api_waits_for_jax() -> None:
    program = "import sys, fusionjax as fj; fj.train; print('jax' in sys.modules, 'numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "False False\n"


def test_small_is_a_list_of_overrides() -> None:
    assert api.load_config("quickstart", list(SMALL)).train.steps == 6
