"""Shops on disk: exact round trips, and a cache that survives kills and races."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds

from fusionjax.config import schema
from fusionjax.data import prepare as prepare_module
from fusionjax.data.prepare import describe_prepared, list_sources, plot_long_tail, prepare
from fusionjax.data.shop import Events, Judgments, Products, Queries, Shop, Triples, Users, text_column
from fusionjax.data.sources import SOURCES
from fusionjax.data.tables import MANIFEST, ShopBuilder, build_tables, read_manifest, shop_from_tables
from fusionjax.errors import UserError


def nasty_shop() -> Shop:
    """Everything a column may hold: nothing, NaN, Chinese, emoji, tabs and newlines, the largest numbers."""
    products = Products.of(
        ["p1", "p/2", "三"],
        title=["蓝色 T恤", "", "a\tb\nc 😀 \x00"],
        brand=["云朵", "", "云朵"],
        category=["A > B", "", "A > B"],
        price=[1.1, np.nan, 3e38],
        attributes={"colour": ["蓝色/blue", "", "red"], "empty": ["", "", ""]},
    )
    triples = Triples(
        entities=text_column(["unused", "z", "p1", "a"]),
        relations=text_column(["never", "second", "first"]),
        head=np.array([3, 1], np.int32),
        relation=np.array([2, 1], np.int32),
        tail=np.array([2, 3], np.int32),
        split=np.array([-1, 2], np.int8),
    )
    events = Events(
        kinds=("wish", "view", "purchase"),
        user=np.array([1, 0, 1], np.int32),
        product=np.array([2, 2, 0], np.int32),
        kind=np.array([2, 1, 2], np.int8),
        time=np.array([2**53 + 1, -5, 0], np.int64),
        query=np.array([-1, 0, 1], np.int32),
        split=np.array([-1, -1, -1], np.int8),
    )
    return Shop(
        name="toy",
        products=products,
        triples=triples,
        users=Users(text_column(["u1", "u2"]), {"country": text_column(["中国", ""])}),
        events=events,
        queries=Queries(text_column(["q1", "q2"]), text_column(["T恤", ""])),
        judgments=Judgments(
            np.array([0, 1], np.int32), np.array([2, 0], np.int32), np.array([0.5, 3], np.float32), np.array([0, 2], np.int8)
        ),
    )


class ToyShop(ShopBuilder):
    """A builder whose shop a test sets."""

    name = "toy_shop_of_the_tests"
    SUMMARY = "For tests."
    shop: Shop
    reads = 0

    @classmethod
    def key(cls, config: schema.Data) -> dict[str, Any]:
        return {}

    def read(self, dl_manager: tfds.download.DownloadManager) -> Shop:
        type(self).reads += 1
        return self.shop


def build(shop: Shop, folder: Path) -> Shop:
    ToyShop.shop, ToyShop.reads = shop, 0
    return build_tables(ToyShop, schema.Data(), folder / "tables", download_dir=folder / "downloads", log=lambda line: None)


def parts_of(**parts: Any) -> Shop:
    return Shop(name="toy", **parts)


NASTY = nasty_shop()
CASES = {
    "everything": NASTY,
    "graph alone": parts_of(triples=NASTY.triples),
    "queries and judgments": parts_of(products=NASTY.products, queries=NASTY.queries, judgments=NASTY.judgments),
    "no further columns": parts_of(products=Products.of(["a"]), users=Users(text_column(["u"]))),
    "entities in order": parts_of(triples=Triples.of(["b", "a", "b"], ["r", "s", "r"], ["a", "c", "c"], [0, 1, 2])),
}


@pytest.mark.parametrize("case", CASES)
def test_round_trip_is_exact(case: str, tmp_path: Path) -> None:
    shop = CASES[case]
    build(shop, tmp_path)
    assert ToyShop.reads == 1, "the source is read once, not once a table"
    again = shop_from_tables(tmp_path / "tables")
    assert again.fingerprint() == shop.fingerprint()
    assert again.counts() == shop.counts()
    for part in shop.counts():
        before, after = getattr(shop, part), getattr(again, part)
        for name, column in before.columns().items():
            assert after.columns()[name].dtype == column.dtype, (part, name)
            np.testing.assert_array_equal(after.columns()[name], column)
    assert "tensorflow" not in sys.modules


def test_more_rows_than_a_block_keep_their_order_and_share_texts(tmp_path: Path) -> None:
    n = 10_000
    ids = [f"p{row * 7919 % n}" for row in range(n)]
    brands = [f"brand {row % 3}" for row in range(n)]
    shop = parts_of(products=Products.of(ids, brand=brands, attributes={"colour": brands}))
    build(shop, tmp_path)
    products = shop_from_tables(tmp_path / "tables").products
    assert products is not None and products.id.tolist() == ids
    assert len({id(brand) for brand in products.brand}) == 3
    assert len({id(colour) for colour in products.attributes["colour"]}) == 3


def test_tables_are_plain_tfds(tmp_path: Path) -> None:
    ToyShop.shop = NASTY
    builder: Any = ToyShop(config="events", data_dir=tmp_path)
    builder.download_and_prepare(file_format="array_record", download_dir=tmp_path / "downloads")
    assert list(builder.info.splits) == ["rows"] and builder.info.splits["rows"].num_examples == 3
    rows = builder.as_data_source("rows")
    assert rows[0] == {"user": 1, "product": 2, "kind": b"purchase", "time": 2**53 + 1, "query": -1, "split": -1}
    assert [row["time"] for row in rows] == [2**53 + 1, -5, 0]


def test_what_cannot_be_stored_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="users is empty"):
        build(parts_of(products=Products.of(["a"]), users=Users(text_column([]))), tmp_path)
    assert not (tmp_path / "tables" / MANIFEST).exists()
    with pytest.raises(UserError, match="no table"):
        build(parts_of(), tmp_path / "none")
    assert NASTY.events is not None
    wrong = dataclasses.replace(NASTY.events, time=NASTY.events.time.astype(np.int32))
    with pytest.raises(ValueError, match=r"events\.time has dtype int32, expected int64"):
        build(parts_of(events=wrong), tmp_path / "dtype")


def test_unfinished_and_altered_folders_are_refused(tmp_path: Path) -> None:
    build(NASTY, tmp_path)
    path = tmp_path / "tables" / MANIFEST
    manifest = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**manifest, "fingerprint": "0" * 64}), encoding="utf-8")
    with pytest.raises(UserError, match="has changed"):
        shop_from_tables(tmp_path / "tables")
    path.unlink()
    assert read_manifest(tmp_path / "tables") is None
    with pytest.raises(UserError, match="holds no prepared shop"):
        shop_from_tables(tmp_path / "tables")


# ---------------------------------------------------------------------------------------------------------- prepare
def demo(cache: Path, **changes: Any) -> schema.Data:
    small = {"products": 60, "users": 30, "queries": 20, **changes}
    return schema.Data(cache_dir=str(cache), demo_shop=schema.DemoShop(**small))


def test_prepare_builds_once_and_reads_the_same(tmp_path: Path) -> None:
    said: list[str] = []
    first = prepare(demo(tmp_path), log=said.append)
    assert any("preparing data set demo_shop" in line for line in said) and "  products: 60 rows" in said
    said.clear()
    again = prepare(demo(tmp_path), log=said.append)
    assert not said
    assert again.fingerprint == first.fingerprint == first.shop.fingerprint()
    assert again.source == first.source and first.source["products"] == 60
    assert again.shop.events is not None and (again.shop.events.split >= 0).all()
    other = prepare(demo(tmp_path, seed=1), log=said.append)
    assert said and other.fingerprint != first.fingerprint
    assert len([path for path in tmp_path.iterdir() if path.name.startswith("demo_shop-")]) == 2


def test_cache_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUSIONJAX_CACHE", str(tmp_path / "env"))
    assert prepare_module.cache_root(schema.Data()) == tmp_path / "env"
    assert prepare_module.cache_root(schema.Data(cache_dir=str(tmp_path / "own"))) == tmp_path / "own"
    monkeypatch.delenv("FUSIONJAX_CACHE")
    assert prepare_module.cache_root(schema.Data()) == Path.home() / ".cache" / "fusionjax"


def test_unknown_data_set_names_the_nearest() -> None:
    with pytest.raises(UserError, match="no data set 'demo_shp'; did you mean 'demo_shop'"):
        prepare(schema.Data(name="demo_shp"))
    assert [name for name, _ in list_sources()] == list(SOURCES)
    assert all(summary for _, summary in list_sources())


def entries(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir() if path.name != "downloads")


def test_junk_in_the_cache_heals(tmp_path: Path) -> None:
    expected = prepare(demo(tmp_path / "clean"), log=lambda line: None).fingerprint
    root = tmp_path / "junk"
    folder = root / next(path.name for path in (tmp_path / "clean").iterdir() if path.name.startswith("demo_shop-"))
    (folder / "demo_shop" / "products").mkdir(parents=True)  # a folder without a manifest: not a shop
    (folder / "demo_shop" / "products" / "half").write_bytes(b"written")
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    dead = root / f".partial-{prepare_module.socket.gethostname()}-{child.pid}-0123abcd"
    dead.mkdir()
    alive = root / f".partial-{prepare_module.socket.gethostname()}-{os.getpid()}-0123abcd"
    alive.mkdir()
    assert prepare(demo(root), log=lambda line: None).fingerprint == expected
    assert not dead.exists() and alive.exists(), "only what nobody works on any more is removed"
    assert entries(root) == [alive.name, folder.name]


_CHILD = """
import sys
from fusionjax.config import schema
from fusionjax.data.prepare import prepare
config = schema.Data(cache_dir=sys.argv[1], demo_shop=schema.DemoShop(products=int(sys.argv[2]), users=60, queries=20))
print(prepare(config, log=lambda line: print(line, flush=True)).fingerprint)
"""


def start(cache: Path, products: int) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", _CHILD, str(cache), str(products)], stdout=subprocess.PIPE, text=True)


def test_killed_while_preparing_then_prepared(tmp_path: Path) -> None:
    with start(tmp_path, 3000) as child:
        assert child.stdout is not None
        assert "preparing" in child.stdout.readline()
        assert "products" in child.stdout.readline()  # one table is written, five are not
        os.kill(child.pid, signal.SIGKILL)
    left = entries(tmp_path)
    assert len(left) == 1 and left[0].startswith(".partial-"), "killed between tables"
    config = schema.Data(cache_dir=str(tmp_path), demo_shop=schema.DemoShop(products=3000, users=60, queries=20))
    assert prepare(config, log=lambda line: None).shop.counts()["products"] == 3000
    left = entries(tmp_path)
    assert len(left) == 1 and left[0].startswith("demo_shop-")


def test_two_processes_prepare_the_same_shop_at_once(tmp_path: Path) -> None:
    children = [start(tmp_path, 1500), start(tmp_path, 1500)]
    outputs = [child.communicate(timeout=120)[0].split() for child in children]
    assert [child.returncode for child in children] == [0, 0]
    assert outputs[0][-1] == outputs[1][-1]
    left = entries(tmp_path)
    assert len(left) == 1 and left[0].startswith("demo_shop-")


# --------------------------------------------------------------------------------------------------------- describe
def test_describe_counts_what_is_there(tmp_path: Path) -> None:
    config = demo(tmp_path)
    prepared = prepare(config, log=lambda line: None)
    found = describe_prepared(prepared, config, samples=2)
    shop = prepared.shop
    assert found.counts == shop.counts()
    assert shop.events is not None and shop.products is not None
    counts = sorted(np.bincount(shop.events.product, minlength=60).tolist(), reverse=True)
    assert found.popularity["top_10%"] == pytest.approx(sum(counts[:6]) / sum(counts))
    assert found.popularity["untouched"] == pytest.approx(counts.count(0) / 60)
    assert found.events_per_user["min"] >= 3 and found.events_per_user["mean"] == pytest.approx(len(shop.events) / 30)
    assert sum(found.languages.values()) == 60 and min(found.languages[name] for name in ("zh", "en", "mixed")) > 0
    assert sum(found.splits["events"].values()) == len(shop.events) and found.splits["events"]["test"] == 30
    assert found.relations["brand"]["train"] > 0 and sum(found.kinds.values()) == len(shop.events)
    assert [len(rows) for rows in found.samples.values()] == [2] * 6
    assert found.samples["events"][0]["product"] in shop.products.id
    json.dumps(dataclasses.asdict(found))  # plain data


def test_describe_a_graph_alone(tmp_path: Path) -> None:
    prepared = prepare_module.Prepared(shop=CASES["entities in order"], fingerprint="", cleaning=[], source={})
    found = describe_prepared(prepared, schema.Data())
    assert found.counts == {"triples": 3} and found.popularity == {} and found.events_per_user == {}
    assert found.samples["triples"][0] == {"head": "b", "relation": "r", "tail": "a", "split": "train"}


def test_plot_long_tail(tmp_path: Path) -> None:
    assert NASTY.events is not None
    plot_long_tail(NASTY, tmp_path / "tail.png")
    assert (tmp_path / "tail.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert [path.name for path in tmp_path.iterdir()] == ["tail.png"]
    with pytest.raises(UserError, match="no events"):
        plot_long_tail(CASES["graph alone"], tmp_path / "none.png")
