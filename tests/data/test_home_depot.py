"""Home Depot: the parser on a hand-made zip, the checks on what people may have downloaded, splits, and the real counts."""

import hashlib
import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fusionjax.config import schema
from fusionjax.data.clean import clean
from fusionjax.data.prepare import prepare
from fusionjax.data.shop import UNASSIGNED, Shop
from fusionjax.data.sources import home_depot
from fusionjax.data.sources.home_depot import CHARACTERS, FILE, FILES, MEMBER, HomeDepotBuilder, parse
from fusionjax.data.sources.pinned import Pin
from fusionjax.data.split import assign_splits
from fusionjax.errors import UserError

HEADER = b'"id","product_uid","product_title","search_term","relevance"\n'
ROWS = b"""2,100001,"Brass Hinge, 30\xe5\xa1 &amp; up","door hinge",3
3,100001,"Brass Hinge, 30\xe5\xa1 &amp; up","hinge  brass",2.33
9,100002,"Oak ""Classic"" Board","door hinge",1
16,100003,"Men\x89\xdb\xaas Glove","hinge  brass",1.67
17,100002,"Another Board","glove",2
"""


def write(folder: Path, text: bytes = HEADER + ROWS, member: str = MEMBER) -> Path:
    path = folder / FILE
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(member, text)
    return path


def test_parse(tmp_path: Path) -> None:
    shop = parse(write(tmp_path))
    assert shop.counts() == {"products": 3, "queries": 3, "judgments": 5}
    assert shop.products is not None and shop.queries is not None and shop.judgments is not None
    assert shop.products.id.tolist() == ["100001", "100002", "100003"]
    # Of two titles the first; cleaning comes later.
    assert shop.products.title.tolist() == ["Brass Hinge, 30° &amp; up", 'Oak "Classic" Board', "Men’s Glove"]
    assert (shop.products.brand == "").all() and np.isnan(shop.products.price).all()
    assert shop.queries.id.tolist() == ["q0", "q1", "q2"]
    assert shop.queries.text.tolist() == ["door hinge", "hinge  brass", "glove"]
    judgments = shop.judgments
    assert judgments.query.tolist() == [0, 1, 0, 1, 2]
    assert judgments.product.tolist() == [0, 0, 1, 2, 1]
    np.testing.assert_allclose(judgments.grade, [2, 1.33, 0, 0.67, 1], rtol=1e-6)
    assert judgments.grade[4] == 1  # partially relevant: relevant, exactly
    assert judgments.grade.dtype == np.float32 and (judgments.split == UNASSIGNED).all()


def test_a_pair_judged_twice_has_the_mean(tmp_path: Path) -> None:
    shop = parse(write(tmp_path, HEADER + ROWS + b'18,100001,"Brass Hinge","door hinge",1.5\n'))
    assert shop.judgments is not None and shop.products is not None
    assert shop.counts()["judgments"] == 5
    assert shop.judgments.grade[0] == 1.25
    assert shop.products.title[0].startswith("Brass Hinge, 30")


def test_every_mangled_character_is_mended(tmp_path: Path) -> None:
    titles = b"".join(b'%d,%d,"a%sz","q",2\n' % (row, row, run) for row, run in enumerate(CHARACTERS))
    shop = parse(write(tmp_path, HEADER + titles))
    assert shop.products is not None
    assert shop.products.title.tolist() == [f"a{character}z" for character in CHARACTERS.values()]
    # The rule behind the table: UTF-8 read as Windows-1252 and saved as Mac Roman, with `_` for what that lacks.
    for run, character in CHARACTERS.items():
        if b"_" not in run and b"\x90" not in run:
            assert character.encode().decode("cp1252").encode("mac_roman") == run
    cleaned, _ = clean(shop, schema.Clean())
    assert cleaned.products is not None
    assert cleaned.products.title.tolist() == ["a°z", "a°z", "a z", "a2z", "a‐z", "a–z", "a‘z", "a’z", "az", "aTMz", "az"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEADER.replace(b"relevance", b"score") + ROWS, r"line 1: no column relevance \(found: id, product_uid"),
        (b"", r"line 1: no column product_uid, product_title, search_term, relevance \(found: nothing\)"),
        (HEADER, r"train\.csv: no judgments"),
        (
            HEADER + ROWS + b"1,2,a,b,good\n",
            r"train\.csv\.zip: train\.csv, line 7: relevance 'good', expected a number from 1 to 3",
        ),
        (HEADER + ROWS + b"1,2,a,b,3.01\n", r"line 7: relevance '3\.01', expected"),
        (HEADER + b"1,2,a,b,0.99\n", r"line 2: relevance '0\.99', expected"),
        (HEADER + b"1,2,a,b,nan\n", r"line 2: relevance 'nan', expected"),
        (HEADER + b"1,2,a,b,\n", r"line 2: relevance '', expected"),
        (HEADER + b"1,2,a,3\n", r"line 2: expected 5 fields"),
        (HEADER + b"1,2,a,b,c,3\n", r"line 2: expected 5 fields"),
        (HEADER + b"1,,a,b,3\n", r"line 2: product_uid is empty"),
        (HEADER + b"1,2, ,b,3\n", r"line 2: product_title is empty"),
        (HEADER + b"1,2,a,,3\n", r"line 2: search_term is empty"),
        (HEADER + b'1,2,"a"b,c,3\n', r"line 2: .*expected after"),
        (HEADER + b"1,2,a,b,3\n1,2,caf\xe9 x,b,3\n", r"line 3: unknown character, bytes e9 20 78 2c"),
    ],
)
def test_rows_that_do_not_fit_are_named(text: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        parse(write(tmp_path, text))


def test_broken_zips_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train\.csv\.zip: holds no train\.csv"):
        parse(write(tmp_path, member="test.csv"))
    path = tmp_path / FILE
    path.write_bytes(HEADER)
    with pytest.raises(UserError, match=r"train\.csv\.zip: not a readable zip file \(File is not a zip file\)"):
        parse(path)
    data = bytearray(write(tmp_path).read_bytes())
    start = data.index(MEMBER.encode()) + len(MEMBER)
    data[start + 20 : start + 60] = bytes(40)
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"train\.csv\.zip: not a readable zip file"):
        parse(path)


# -------------------------------------------------------------------------------------------------------- checksums
def test_the_file_is_pinned() -> None:
    url, size, sha256 = FILES[FILE].url, FILES[FILE].size, FILES[FILE].sha256
    assert url.startswith("https://raw.githubusercontent.com/") and url.endswith(f"/{FILE}")
    assert len(url.split("/")[5]) == 40 and size > 0 and len(sha256) == 64
    infos: Any = HomeDepotBuilder.url_infos
    assert infos[url].size == size and infos[url].checksum == sha256
    assert HomeDepotBuilder.key(schema.Data(name="home_depot")) == {"files": {FILE: sha256}}


def test_a_folder_with_another_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = schema.Data(name="home_depot", source_dir=str(tmp_path), cache_dir=str(tmp_path / "cache"))
    with pytest.raises(UserError, match=r"train\.csv\.zip: no such file \(expected 2,634,716 bytes"):
        prepare(config, log=lambda line: None)
    path = write(tmp_path)
    with pytest.raises(UserError, match=r"train\.csv\.zip: \d+ bytes, expected 2,634,716"):
        prepare(config, log=lambda line: None)
    monkeypatch.setitem(FILES, FILE, Pin("https://host/file", path.stat().st_size, "0" * 64))
    with pytest.raises(UserError, match=r"train\.csv\.zip: SHA-256 \w{64}, expected 0000"):
        prepare(config, log=lambda line: None)
    with pytest.raises(UserError, match=r"data\.source_dir: no folder"):
        prepare(config.model_copy(update={"source_dir": str(tmp_path / "none")}), log=lambda line: None)
    assert [path.name for path in (tmp_path / "cache").iterdir() if path.name != "downloads"] == []


def test_without_a_network_one_line_says_what_to_do(tmp_path: Path) -> None:
    # conftest forbids connections.
    with pytest.raises(
        UserError,
        match=r"home_depot: cannot download from raw\.githubusercontent\.com .*train\.csv\.zip.*data\.source_dir=FOLDER",
    ) as caught:
        prepare(schema.Data(name="home_depot", cache_dir=str(tmp_path)), log=lambda line: None)
    assert "\n" not in str(caught.value)


# ------------------------------------------------------------------------------------------------------------ splits
def _check_splits(shop: Shop, shares: tuple[float, float, float], tolerance: float) -> None:
    """All judgments of a query share one split, and the queries are shared out as asked."""
    assert shop.judgments is not None
    query, split = shop.judgments.query, shop.judgments.split
    pairs = np.unique(np.stack([query, split], axis=1), axis=0)
    assert len(pairs) == len(np.unique(query))
    np.testing.assert_allclose(np.bincount(pairs[:, 1], minlength=3) / len(pairs), shares, atol=tolerance)


def test_prepared_from_a_folder_and_split_by_query(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = b"".join(b'%d,%d,"title %d","query %d",2.5\n' % (row, row % 70, row % 70, row % 40) for row in range(200))
    path = write(tmp_path, HEADER + rows)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setitem(FILES, FILE, Pin("https://host/file", path.stat().st_size, digest))
    split = schema.Split(valid_share=0.2, test_share=0.3)
    config = schema.Data(name="home_depot", source_dir=str(tmp_path), cache_dir=str(tmp_path / "cache"), split=split)
    built = prepare(config, log=lambda line: None)
    again = prepare(config, log=lambda line: None)  # read back from the cache
    assert built.fingerprint == again.fingerprint
    assert built.shop.counts() == {"products": 70, "queries": 40, "judgments": 200}
    _check_splits(built.shop, (0.5, 0.2, 0.3), 1e-9)
    other, _ = clean(parse(path), config.clean)
    assert assign_splits(other, split, seed=0).fingerprint() == built.fingerprint
    assert assign_splits(other, split, seed=1).fingerprint() != built.fingerprint


# ------------------------------------------------------------------------------------------------------- real counts
@pytest.mark.skipif("FUSIONJAX_SHARED_DATA" not in os.environ, reason="set FUSIONJAX_SHARED_DATA to a folder with home_depot/")
def test_counts_of_the_real_file(tmp_path: Path) -> None:
    path = Path(os.environ["FUSIONJAX_SHARED_DATA"]) / "home_depot" / FILE
    FILES[FILE].check(path)
    shop = parse(path)
    assert shop.products is not None and shop.queries is not None and shop.judgments is not None
    judgments = shop.judgments
    assert shop.counts() == {"products": 54_667, "queries": 11_795, "judgments": 74_067}  # so no pair is judged twice
    assert len(set(shop.products.id)) == 54_667 and len(set(shop.products.title)) == 53_474
    assert len(set(shop.queries.text)) == 11_795
    per_query = np.bincount(judgments.query, minlength=11_795)
    assert np.sum(per_query >= 10) == 2_246 and per_query.min() >= 1
    assert (judgments.grade.min(), judgments.grade.max()) == (0, 2)
    assert np.sum(judgments.grade == 0) == 2_105 and np.sum(judgments.grade == 2) == 19_125
    assert np.sum(judgments.grade >= 1) == 62_158
    assert len({row[1] for row in home_depot._rows(path)}) - 53_474 == 15  # second titles; none is another product's

    cleaned, _ = clean(shop, schema.Clean())
    assert cleaned.products is not None and cleaned.queries is not None
    assert len(set(cleaned.queries.text)) == 11_793 and min(map(len, cleaned.products.title)) >= 9
    assert {letter for title in cleaned.products.title for letter in title if not letter.isascii()} == set("°‐–‘’")
    assert not any("&amp;" in title or "&quot;" in title for title in cleaned.products.title)
    _check_splits(assign_splits(cleaned, schema.Split()), (0.8, 0.1, 0.1), 1e-4)
    # One flipped byte does not pass.
    copy = tmp_path / FILE
    shutil.copyfile(path, copy)
    data = bytearray(copy.read_bytes())
    data[100] ^= 1
    copy.write_bytes(data)
    with pytest.raises(UserError, match="SHA-256"):
        FILES[FILE].check(copy)
