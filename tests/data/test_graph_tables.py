"""The tables about a graph: what they hold, that they come back as they went, and shops without them are what they were."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds

from fusionjax.config import schema
from fusionjax.data import blocks
from fusionjax.data.clean import clean
from fusionjax.data.prepare import Prepared, describe_prepared, prepare
from fusionjax.data.shop import TEST, TRAIN, UNASSIGNED, VALID, Entities, Literals, Relations, Shop, Triples, text_column
from fusionjax.data.tables import ShopBuilder, build_tables, read_manifest, shop_from_tables
from fusionjax.errors import UserError
from fusionjax.reporting.tables import print_description


def graph_shop(**changes: Any) -> Shop:
    """Three entities, of which two have names."""
    parts: dict[str, Any] = {
        "triples": Triples.of(["Q1", "Q2", "Q3"], ["P1", "P1", "P2"], ["Q2", "Q3", "Q1"], [TRAIN, VALID, TEST]),
        "entities": Entities(
            text_column(["Q1", "Q3"]), text_column(["Ａda &amp; co", ""]), text_column(["<b>first</b>\u00a0one", "长 😀"])
        ),
        "relations": Relations(text_column(["P1"]), text_column(["knows  of"])),
        "negatives": Triples.of(["Q3", "Q2"], ["P2", "P1"], ["Q2", "Q1"], [VALID, TEST]),
        "literals": Literals(text_column(["Q1", "Q2"]), text_column(["year", "year"]), np.array([1815.5, -3e38], np.float32)),
    }
    return Shop(name="graphy", **(parts | changes))


class GraphyShop(ShopBuilder):
    """A builder whose shop and notes a test sets."""

    name = "graphy_shop_of_the_tests"
    SUMMARY = "For tests."
    shop: Shop

    @classmethod
    def key(cls, config: schema.Data) -> dict[str, Any]:
        return {}

    def read(self, dl_manager: tfds.download.DownloadManager) -> Shop:
        self.notes.append("2 triples dropped")
        return self.shop


def test_round_trip(tmp_path: Path) -> None:
    shop = GraphyShop.shop = graph_shop()
    folder = tmp_path / "tables"
    build_tables(GraphyShop, schema.Data(), folder, download_dir=tmp_path / "downloads", log=lambda line: None)
    again = shop_from_tables(folder)
    assert again.fingerprint() == shop.fingerprint()
    assert again.counts() == {"triples": 3, "entities": 2, "relations": 1, "negatives": 2, "literals": 2}
    for part in shop.counts():
        for name, column in getattr(shop, part).columns().items():
            found = getattr(again, part).columns()[name]
            assert found.dtype == column.dtype, (part, name)
            np.testing.assert_array_equal(found, column)
    manifest = read_manifest(folder)
    assert manifest is not None and manifest["notes"] == ["2 triples dropped"]


def test_more_rows_and_names_than_a_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "_ROWS", 3)
    names = [f"e{row * 7 % 20}" for row in range(20)]
    rows = np.arange(5, dtype=np.int32)
    triples = Triples(
        entities=text_column(names), relations=text_column(["r", "s"]), head=rows, relation=rows % 2, tail=rows[::-1] + 9,
        split=np.array([-1, 0, 1, 2, 0], np.int8),
    )  # fmt: skip
    ids = text_column(names)
    shop = GraphyShop.shop = graph_shop(triples=triples, entities=Entities(ids, ids, ids), negatives=None)
    folder = tmp_path / "tables"
    build_tables(GraphyShop, schema.Data(), folder, download_dir=tmp_path / "downloads", log=lambda line: None)
    again = shop_from_tables(folder)
    assert again.fingerprint() == shop.fingerprint() and again.triples is not None
    assert again.triples.entities.tolist() == names


class RowsShop(GraphyShop):
    """Stores triples as they were stored before blocks: names in each row, further vocabulary in the metadata."""

    name = "rows_shop_of_the_tests"

    def _info(self) -> tfds.core.DatasetInfo:
        if self.part != "triples":
            return super()._info()
        features = {name: tfds.features.Text() for name in ("head", "relation", "tail")} | {
            "split": tfds.features.Scalar(np.int8)
        }
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(features),
            metadata=tfds.core.MetadataDict(),
            disable_shuffling=True,
        )

    def _generate_examples(self, table: Any) -> Iterator[tuple[int, dict[str, Any]]]:
        metadata: Any = self.info.metadata
        metadata.update(relations=table.relations.tolist(), entities=self.named(table))
        columns = (table.entities[table.head], table.relations[table.relation], table.entities[table.tail], table.split)
        for row, values in enumerate(zip(*columns, strict=True)):
            yield row, dict(zip(("head", "relation", "tail", "split"), values, strict=True))

    @staticmethod
    def named(table: Triples) -> list[str] | None:
        first = np.unique(np.stack([table.head, table.tail], 1).ravel(), return_index=True)[1]
        return None if len(first) == len(table.entities) and (np.diff(first) > 0).all() else table.entities.tolist()


@pytest.mark.parametrize("entities", [["a", "b", "c"], ["unused", "c", "b", "a"]])
def test_caches_from_before_blocks_are_read(entities: list[str], tmp_path: Path) -> None:
    row = {name: place for place, name in enumerate(entities)}
    triples = Triples(
        entities=text_column(entities),
        relations=text_column(["never", "s", "r"]),
        head=np.array([row["a"], row["b"]], np.int32),
        relation=np.array([2, 1], np.int32),
        tail=np.array([row["b"], row["c"]], np.int32),
        split=np.array([-1, 2], np.int8),
    )
    shop = GraphyShop.shop = Shop("graphy", triples=triples)
    folder = tmp_path / "tables"
    build_tables(RowsShop, schema.Data(), folder, download_dir=tmp_path / "downloads", log=lambda line: None)
    again = shop_from_tables(folder)
    assert again.fingerprint() == shop.fingerprint()
    assert again.triples is not None and again.triples.entities.tolist() == entities


def test_every_new_table_counts_in_the_fingerprint() -> None:
    whole = graph_shop()
    others = [graph_shop(**{part: None}) for part in ("entities", "relations", "negatives", "literals")]
    assert len({shop.fingerprint() for shop in (whole, *others)}) == 5


def test_shops_without_them_keep_their_fingerprint(tmp_path: Path) -> None:
    """Computed before these tables existed: published results name such fingerprints."""
    small = schema.DemoShop(products=60, users=30, queries=20)
    prepared = prepare(schema.Data(cache_dir=str(tmp_path), demo_shop=small), log=lambda line: None)
    assert prepared.fingerprint == "4503fe77d51b92ef747bf35e53051280da60d48e99d007ad05f4ce75f797ea0b"
    assert prepared.source["raw_fingerprint"] == "5d419d28d9bc693ca69fe842f8b5a5270dbac0a5d9e86f2093e9cd2edc88ed40"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"negatives": Triples.of(["Q1"], ["P1"], ["Q9"], [TEST])}, "negatives name 1 entities that its triples lack, 'Q9'"),
        ({"negatives": Triples.of(["Q1"], ["P9"], ["Q2"], [TEST])}, "negatives name 1 relations that its triples lack, 'P9'"),
        ({"negatives": Triples.of(["Q1"], ["P1"], ["Q2"], [TRAIN])}, "1 negatives are in neither validation nor test"),
        ({"negatives": Triples.of(["Q1"], ["P1"], ["Q2"], [UNASSIGNED])}, "1 negatives are in neither"),
        ({"triples": None}, "'graphy' has no triples, which negatives needs"),
    ],
)
def test_negatives_that_do_not_fit_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        graph_shop(**changes)


def test_cleaning_changes_names_and_never_ids() -> None:
    shop = graph_shop()
    ids = text_column([" Q1&amp;", "Ｑ3"])
    assert shop.entities is not None
    shop = dataclasses.replace(shop, entities=dataclasses.replace(shop.entities, id=ids))
    cleaned, effects = clean(shop, schema.Clean())
    assert cleaned.entities is not None and cleaned.relations is not None
    assert cleaned.entities.id.tolist() == ids.tolist()
    assert cleaned.entities.name.tolist() == ["Ada & co", ""]
    assert cleaned.entities.description.tolist() == ["first one", "长 😀"]
    assert cleaned.relations.id.tolist() == ["P1"] and cleaned.relations.name.tolist() == ["knows of"]
    assert {effect.step: effect.changed for effect in effects} == {"nfkc": 2, "html": 2, "whitespace": 1}
    assert cleaned.literals is shop.literals and cleaned.triples is shop.triples


def test_describe_shows_names(capsys: pytest.CaptureFixture[str]) -> None:
    shop, _ = clean(graph_shop(), schema.Clean())
    found = describe_prepared(Prepared(shop=shop, fingerprint="f", cleaning=[], source={}), schema.Data())
    assert found.graph == {"entities": 3, "relations": 2}
    assert found.relations["knows of"] == {"train": 1, "valid": 1, "test": 0}  # and P2 has no name
    assert found.relations["P2"] == {"train": 0, "valid": 0, "test": 1}
    assert found.splits["negatives"] == {"train": 0, "valid": 1, "test": 1}
    assert found.samples["triples"][0] == {"head": "Ada & co", "relation": "knows of", "tail": "Q2", "split": "train"}
    assert found.samples["negatives"][0] == {"head": "Q3", "relation": "P2", "tail": "Q2", "split": "valid"}
    assert found.samples["literals"][0] == {"entity": "Ada & co", "attribute": "year", "value": "1815.5"}
    assert found.samples["entities"][0] == {"id": "Q1", "name": "Ada & co", "description": "first one"}
    print_description(found)
    printed = capsys.readouterr().out
    assert "entities 3 · relations 2" in printed and "knows of" in printed


def test_two_relations_of_one_name_keep_their_ids() -> None:
    shop = graph_shop(relations=Relations(text_column(["P1", "P2"]), text_column(["same", "same"])))
    found = describe_prepared(Prepared(shop=shop, fingerprint="f", cleaning=[], source={}), schema.Data())
    assert list(found.relations) == ["same (P1)", "same (P2)"]
