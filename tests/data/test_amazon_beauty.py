"""Amazon Beauty: the parser on a hand-made folder, the checks on what people may have downloaded, and the real counts."""

import gzip
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fusionjax.config import schema
from fusionjax.data.prepare import prepare
from fusionjax.data.sources import amazon_beauty
from fusionjax.data.sources.amazon_beauty import FILES, AmazonBeautyBuilder, needed_files, parse
from fusionjax.data.sources.pinned import verify
from fusionjax.errors import UserError

RELATIONS = ("also_bought", "also_viewed", "bought_together")


def write(folder: Path, **changes: str) -> dict[str, Path]:
    """A folder in the format of the original: 3 products, 2 users. `changes`: file name (dots as `__`) → other content."""
    texts = {
        "sequential_data.txt": "1 2 1 3\n2 3 3 1\n",
        "datamaps.json": json.dumps({"id2user": {"1": "UA", "2": "UB"}, "id2item": {"2": "B2", "1": "B1", "3": "B3"}}),
        "products_lookup.csv": ',global_product_id,name\n0,10,"Cream, rich"\n1,30,\n2,20,Soap &amp; more\n',
        "item_id_to_int.json": json.dumps({"B1": 10, "B2": 20, "B3": 30}),
        "product.txt.gz": "B3\nB1\nB2\n",
        "brand.txt.gz": "Lumora\n\nNivax\n",
        "brand_p_b.txt.gz": "2\n1\n\n",
        "category.txt.gz": "Beauty\nFace\n",
        "category_p_c.txt.gz": "0 1\n\n0\n",
        "related_product.txt.gz": "B2\nelsewhere\nB3\n",
        "also_bought_p_p.txt.gz": "0 1\n2\n\n",
        "also_viewed_p_p.txt.gz": "\n\n2 1\n",
        "bought_together_p_p.txt.gz": "\n\n\n",
    }
    texts.update({name.replace("__", "."): text for name, text in changes.items()})
    for name, text in texts.items():
        data = text.encode()
        (folder / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return {name: folder / name for name in texts}


def test_parse_joins_the_files(tmp_path: Path) -> None:
    shop = parse(write(tmp_path), RELATIONS)
    assert shop.counts() == {"products": 3, "triples": 6, "users": 2, "events": 6}
    assert shop.products is not None and shop.triples is not None and shop.users is not None and shop.events is not None
    assert shop.products.id.tolist() == ["B1", "B2", "B3"]  # by id, not in the order of the JSON or of the graph
    assert shop.products.title.tolist() == ["Cream, rich", "Soap &amp; more", ""]  # cleaning comes later
    assert shop.products.brand.tolist() == ["", "", "Nivax"]  # the unnamed brand is no brand
    assert np.isnan(shop.products.price).all() and (shop.products.category == "").all()
    names, relations = shop.triples.entities, shop.triples.relations
    found = [
        (names[head], relations[relation], names[tail])
        for head, relation, tail in zip(shop.triples.head, shop.triples.relation, shop.triples.tail, strict=True)
    ]
    assert found == [
        ("B3", "category", "category:Beauty"),
        ("B3", "category", "category:Face"),
        ("B2", "category", "category:Beauty"),
        ("B3", "also_bought", "B2"),
        ("B1", "also_bought", "B3"),
        ("B2", "also_viewed", "B3"),
    ]  # nothing leads elsewhere
    assert shop.users.id.tolist() == ["UA", "UB"]
    events = shop.events
    assert events.kinds == ("purchase",)
    assert events.user.tolist() == [0, 0, 0, 1, 1, 1]
    assert events.product.tolist() == [1, 0, 2, 2, 2, 0]
    assert events.time.tolist() == [0, 1, 2, 0, 1, 2]
    assert (events.split == -1).all() and (events.query == -1).all()


def test_parse_reads_only_the_relations_asked_for(tmp_path: Path) -> None:
    paths = write(tmp_path)
    for relation in RELATIONS:
        paths.pop(amazon_beauty.relation_file(relation))
    paths.pop("related_product.txt.gz")
    shop = parse(paths, ())
    assert shop.triples is not None and shop.triples.relations.tolist() == ["category"]
    assert set(needed_files(())) == set(paths)
    assert needed_files(("also_viewed",))[-2:] == ("related_product.txt.gz", "also_viewed_p_p.txt.gz")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sequential_data__txt": "1 2\n2 4\n"}, r"sequential_data\.txt, line 2: .*outside 1 to 3"),
        ({"sequential_data__txt": "1 x\n"}, r"sequential_data\.txt, line 1: expected `user item"),
        ({"sequential_data__txt": "3 1\n"}, r"line 1: a user is outside 1 to 2"),
        ({"product__txt__gz": "B3\nB1\nB9\n"}, r"product\.txt\.gz: its products are not those"),
        ({"brand_p_b__txt__gz": "2 0\n\n\n"}, r"brand_p_b\.txt\.gz, line 1: 2 brands"),
        ({"brand_p_b__txt__gz": "3\n\n\n"}, r"brand_p_b\.txt\.gz, line 1: a number is outside 0 to 2"),
        ({"also_viewed_p_p__txt__gz": "\n\n"}, r"also_viewed_p_p\.txt\.gz: 2 lines, expected 3"),
        ({"category_p_c__txt__gz": "\na b\n\n"}, r"category_p_c\.txt\.gz, line 2: expected numbers, found 'a b'"),
        ({"products_lookup__csv": "a,b\n1,2\n"}, r"products_lookup\.csv, line 2: expected columns global_product_id"),
        ({"datamaps__json": '{"id2user": {}, "id2item": {"2": "B1"}}'}, r"datamaps\.json: id2item has no id 1"),
    ],
)
def test_files_that_do_not_fit_are_named(changes: dict[str, str], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        parse(write(tmp_path, **changes), RELATIONS)


# -------------------------------------------------------------------------------------------------------- checksums
def test_every_needed_file_is_pinned() -> None:
    assert set(FILES) == set(needed_files(RELATIONS))
    for name, pin in FILES.items():
        url, size, sha256 = pin.url, pin.size, pin.sha256
        assert url.startswith("https://raw.githubusercontent.com/") and size > 0 and len(sha256) == 64
        commit = url.split("/")[5]
        assert len(commit) == 40, f"{name} is pinned to a commit"
        infos: Any = AmazonBeautyBuilder.url_infos
        assert infos[url].size == size and infos[url].checksum == sha256


def test_verify(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with pytest.raises(UserError, match=r"file: no such file \(expected 3 bytes"):
        verify(path, 3, "0" * 64)
    path.write_bytes(b"abcd")
    with pytest.raises(UserError, match=r"file: 4 bytes, expected 3"):
        verify(path, 3, "0" * 64)
    path.write_bytes(b"abc")
    with pytest.raises(UserError, match=r"file: SHA-256 ba7816bf\w+, expected 0000"):
        verify(path, 3, "0" * 64)
    verify(path, 3, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")


def test_a_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    write(tmp_path)
    config = schema.Data(name="amazon_beauty", source_dir=str(tmp_path), cache_dir=str(tmp_path / "cache"))
    with pytest.raises(UserError, match=r"sequential_data\.txt: 16 bytes, expected 1,112,457"):
        prepare(config, log=lambda line: None)
    with pytest.raises(UserError, match=r"data\.source_dir: no folder"):
        prepare(config.model_copy(update={"source_dir": str(tmp_path / "none")}), log=lambda line: None)
    assert [path.name for path in (tmp_path / "cache").iterdir() if path.name != "downloads"] == []


def test_without_a_network_one_line_says_what_to_do(tmp_path: Path) -> None:
    # conftest forbids connections.
    with pytest.raises(
        UserError, match=r"cannot download from raw\.githubusercontent\.com .*data\.source_dir=FOLDER"
    ) as caught:
        prepare(schema.Data(name="amazon_beauty", cache_dir=str(tmp_path)), log=lambda line: None)
    assert "\n" not in str(caught.value)


# ------------------------------------------------------------------------------------------------------- real counts
@pytest.mark.skipif(
    "FUSIONJAX_SHARED_DATA" not in os.environ, reason="set FUSIONJAX_SHARED_DATA to a folder with amazon_beauty/"
)
def test_counts_of_the_real_files(tmp_path: Path) -> None:
    folder = Path(os.environ["FUSIONJAX_SHARED_DATA"]) / "amazon_beauty"
    for name in needed_files(RELATIONS):
        FILES[name].check(folder / name)
    shop = parse({name: folder / name for name in needed_files(RELATIONS)}, RELATIONS)
    assert shop.products is not None and shop.triples is not None and shop.events is not None
    triples = shop.triples
    assert shop.counts() == {"products": 12_101, "triples": 453_472, "users": 22_363, "events": 198_502}
    counts = dict(zip(triples.relations, np.bincount(triples.relation).tolist(), strict=True))
    assert counts == {"category": 49_756, "also_bought": 239_345, "also_viewed": 155_350, "bought_together": 9_021}
    assert len(set(triples.tail[triples.relation == 0].tolist())) == 248
    assert np.sum(shop.products.title == "") == 7
    # 10,021 edges to 2,077 brands, of which one has no name and 18 edges.
    assert np.sum(shop.products.brand != "") == 10_021 - 18
    assert len(set(shop.products.brand) - {""}) == 2_077 - 1
    per_user = np.bincount(shop.events.user)
    assert (per_user.min(), per_user.max()) == (5, 204)
    assert len(np.unique(shop.events.product)) == 12_101
    # One flipped byte does not pass.
    copy = tmp_path / "brand.txt.gz"
    shutil.copyfile(folder / copy.name, copy)
    data = bytearray(copy.read_bytes())
    data[100] ^= 1
    copy.write_bytes(data)
    with pytest.raises(UserError, match="SHA-256"):
        FILES[copy.name].check(copy)
