"""Bring your own shop: every malformed thing named with file, line and count or skipped, and four formats that read alike."""

import csv
import dataclasses
import gzip
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fusionjax.config import schema
from fusionjax.data.shop import PARTS, TEST, TRAIN, UNASSIGNED, VALID, Shop
from fusionjax.data.sources.files import FilesBuilder, read_folder
from fusionjax.errors import UserError

PRODUCTS = "id,title,category,price\nP1,Tee,A > B,9.5\nP2,Mug,C,\nP3,Cap,A > D,4\n"
EVENTS = "user,product,kind,time\nu1,P1,view,10\nu1,P2,purchase,20\nu2,P3,view,15\n"
USERS = "id,country\nu1,DE\nu2,CN\n"
QUERIES = "id,text\nq1,red tee\nq2,马克杯\n"
JUDGMENTS = "query,product,grade,split\nq1,P1,3,train\nq1,P2,0,train\nq2,P2,2,test\n"
TRIPLES = "head,relation,tail\nP1,made_of,cotton\nP2,made_of,clay\n"
GOOD = {
    "products.csv": PRODUCTS,
    "events.csv": EVENTS,
    "users.csv": USERS,
    "queries.csv": QUERIES,
    "judgments.csv": JUDGMENTS,
    "triples.csv": TRIPLES,
}


def write(folder: Path, files: Mapping[str, str | bytes | None]) -> Path:
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        if content is not None:
            (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def read(folder: Path, log: Any = None, **config: Any) -> Shop:
    return read_folder(folder, schema.Files(**config), log=log or (lambda line: None))


def parquet(**columns: Any) -> bytes:
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.table(columns), sink)
    return sink.getvalue().to_pybytes()


# ------------------------------------------------------------------------------------------------------- malformed rows
# kind → (files that replace those of GOOD, None = left out; fragments of the message; rows each table keeps under `skip`).
# A kind whose last entry is None is an error of the whole file and stays one under `skip`; so does its message.
# fmt: off
BAD: dict[str, tuple[dict[str, str | bytes | None], list[str], dict[str, int] | None]] = {
    # ---- rows of CSV and TSV
    "too few columns": ({"events.csv": EVENTS + "u1,P1,view\n"}, ["events.csv:5: expected 4 columns: found 3"],
        {"events": 3}),
    "too many columns": ({"events.csv": EVENTS + "u1,P1,view,30,x\nu1,P1,view,30,x,y\n"},
        ["2 malformed rows in 1 file", "events.csv:5: expected 4 columns: found 5 (2 rows: lines 5, 6)"], {"events": 3}),
    "blank line between rows": ({"users.csv": "id,country\nu1,DE\n\nu2,CN\n"}, ["users.csv:3: blank line"],
        {"users": 2, "events": 3}),
    "quote never closed": ({"products.csv": 'id,title\nP1,Tee\nP2,"Mug\nP3,Cap\n'},
        ["products.csv:3: a quote opens and is never closed"], {"products": 2}),
    "quote not closed at the end of its field": (
        {"products.csv": None, "judgments.csv": None,
         "products.tsv": 'id\ttitle\nP1\t"15"\tinch\nP2\t"Mug" big\nP3\tCap 5" wide\n'},
        ["products.tsv:2: expected 2 columns: found 3",
         "products.tsv:3: a quote opens at the start of a field and does not close"],
        {"products": 1}),
    "NUL byte": ({"products.csv": PRODUCTS.replace("Mug", "M\0g")}, ["products.csv:3: NUL character: column 'title'"],
        {"products": 2, "events": 2, "judgments": 1}),
    "carriage return without quotes": ({"users.csv": "id,country\nu1,DE\nu2,C\rN\n"},
        ["users.csv:3: a carriage return in a field without quotes"], {"users": 1, "events": 2}),
    # ---- ids
    "duplicate product id": ({"products.csv": PRODUCTS + "P1,Other,C,1\n"},
        ["products.csv:5: duplicate product id: 'P1' stands at products.csv:2 already"], {"products": 3, "events": 3}),
    "duplicate user id": ({"users.csv": USERS + "u2,FR\nu2,US\n"},
        ["users.csv:4: duplicate user id: 'u2' stands at users.csv:3 already (2 rows: lines 4, 5)"],
        {"users": 2, "events": 3}),
    "duplicate query id": ({"queries.csv": QUERIES + "q1,cap\n"}, ["queries.csv:4: duplicate query id: 'q1'"],
        {"queries": 2, "judgments": 3}),
    "empty id": ({"products.csv": PRODUCTS + ",Hat,C,1\n"}, ["products.csv:5: empty id"], {"products": 3}),
    "id of spaces only": ({"users.csv": USERS + "   ,FR\n"}, ["users.csv:4: empty id"], {"users": 2}),
    "empty user of an event": ({"events.csv": EVENTS + ",P1,view,30\n"}, ["events.csv:5: empty user"], {"events": 3}),
    # ---- references
    "unknown product in an event": ({"events.csv": EVENTS + "u1,P9,view,30\n"},
        ["events.csv:5: unknown product (no such id in products): 'P9'"], {"events": 3}),
    "unknown user in an event": ({"events.csv": EVENTS + "u9,P1,view,30\n"},
        ["events.csv:5: unknown user (no such id in users): 'u9'"], {"events": 3}),
    "unknown query in a judgment": ({"judgments.csv": JUDGMENTS + "q9,P1,1,train\n"},
        ["judgments.csv:5: unknown query (no such id in queries): 'q9'"], {"judgments": 3}),
    "unknown product in a judgment": ({"judgments.csv": JUDGMENTS + "q1,P9,1,train\n"},
        ["judgments.csv:5: unknown product (no such id in products): 'P9'"], {"judgments": 3}),
    # ---- prices, grades, times
    "price not a number": ({"products.csv": PRODUCTS + "P4,Hat,C,$12\nP5,Hat,C,1_000\n"},
        ["products.csv:5: price is not a number: '$12' (2 rows: lines 5, 6)"], {"products": 3}),
    "negative price": ({"products.csv": PRODUCTS + "P4,Hat,C,-1\n"}, ["products.csv:5: price is negative: '-1'"],
        {"products": 3}),
    "price NaN, infinite or too large": ({"products.csv": PRODUCTS + "P4,Hat,C,nan\nP5,Hat,C,inf\nP6,Hat,C,1e39\n"},
        ["products.csv:5: price is not finite: 'nan' (3 rows: lines 5, 6, 7)"], {"products": 3}),
    "price NaN in Parquet": (
        {"products.csv": None, "products.parquet": parquet(id=["P1", "P2", "P3"], price=[1.0, 2.0, float("nan")])},
        ["products.parquet:row 3: price is not finite: 'NaN'"], {"products": 2, "events": 2}),
    "bad time": (
        {"events.csv": EVENTS + "u1,P1,view,yesterday\nu1,P1,view,2024-02-30\nu1,P1,view,nan\nu1,P1,view,1e30\nu1,P1,view,\n"},
        ["events.csv:5: time is neither seconds nor ISO 8601: 'yesterday' (5 rows: lines 5, 6, 7, 8, 9)"], {"events": 3}),
    "negative grade": ({"judgments.csv": JUDGMENTS + "q1,P3,-1,train\n"}, ["judgments.csv:5: grade is negative: '-1'"],
        {"judgments": 3}),
    "NaN grade": ({"judgments.csv": JUDGMENTS + "q1,P3,NaN,train\n"}, ["judgments.csv:5: grade is not finite: 'NaN'"],
        {"judgments": 3}),
    "grade not a number": ({"judgments.csv": JUDGMENTS + "q1,P3,good,train\n"},
        ["judgments.csv:5: grade is not a number: 'good'"], {"judgments": 3}),
    "empty grade": ({"judgments.csv": JUDGMENTS + "q1,P3,,train\n"}, ["judgments.csv:5: empty grade"], {"judgments": 3}),
    # ---- judgments and splits
    "duplicate judgment": ({"judgments.csv": JUDGMENTS + "q1,P1,3.0,train\n"},
        ["judgments.csv:5: duplicate judgment: query 'q1', product 'P1' stands at judgments.csv:2 already"],
        {"judgments": 3}),
    "conflicting judgments": ({"judgments.csv": JUDGMENTS + "q1,P1,1,train\n"},
        ["judgments.csv:5: conflicting judgments: query 'q1', product 'P1' has grade 1, but 3 at judgments.csv:2"],
        {"judgments": 3}),
    "unknown split": ({"judgments.csv": JUDGMENTS + "q1,P3,1,validation\n"},
        ["judgments.csv:5: unknown split (expected train, valid, test): 'validation'; did you mean 'valid'?"],
        {"judgments": 3}),
    "one query's judgments in two splits": ({"judgments.csv": JUDGMENTS + "q1,P3,1,test\n"},
        ["judgments.csv:5: one query's judgments in two splits: query 'q1' is test here, train at judgments.csv:2"],
        {"judgments": 3}),
    "split of some events only": ({"events.csv": "user,product,split\nu1,P1,train\nu1,P2,\nu2,P3,test\n"},
        ["events.csv:3: empty split where other events have one"], {"events": 2}),
    # ---- texts, categories, triples
    "empty query text": ({"queries.csv": "id,text\nq1,red tee\nq2, \n"}, ["queries.csv:3: empty query text"],
        {"queries": 1, "judgments": 2}),
    "category with an empty level": ({"products.csv": PRODUCTS + "P4,Hat,A >  > C,1\nP5,Hat,A > B >,1\nP6,Hat,> A,1\n"},
        ["products.csv:5: category with an empty level (expected A > B > C): 'A >  > C' (3 rows: lines 5, 6, 7)"],
        {"products": 3}),
    "triple with an empty relation": ({"triples.csv": TRIPLES + "P1,,wool\n"}, ["triples.csv:4: empty relation"],
        {"triples": 2}),
    "one triple in two splits": ({"triples.csv": "head,relation,tail,split\na,r,b,train\nb,r,c,valid\na,r,b,test\n"},
        ["triples.csv:4: one triple in two splits: triples.csv:2 has it too"], {"triples": 2}),
    # ---- JSON Lines
    "malformed JSON line": ({"users.csv": None, "users.jsonl": '{"id": "u1"}\n{"id": "u2"}\n{"id": "u3"\n'},
        ["users.jsonl:3: malformed JSON: Expecting ',' delimiter at column"], {"users": 2}),
    "JSON line that is no object": ({"users.csv": None, "users.jsonl": '{"id": "u1"}\n["u3"]\n{"id": "u2"}\n17\n'},
        ['users.jsonl:2: expected a JSON object: found ["u3"] (2 rows: lines 2, 4)'], {"users": 2}),
    "nested JSON value": ({"users.csv": None, "users.jsonl": '{"id": "u1"}\n{"id": "u2", "tags": [1]}\n'},
        ["users.jsonl:2: nested value where text or a number is expected: key 'tags'"], {"users": 1, "events": 2}),
    "JSON key twice": ({"users.csv": None, "users.jsonl": '{"id": "u1"}\n{"id": "u2", "id": "u3"}\n'},
        ["users.jsonl:2: an object names a key twice: 'id'"], {"users": 1, "events": 2}),
    "JSON without the id": (
        {"users.csv": None, "users.jsonl": '{"id": "u1"}\n{"id": null}\n\n{"country": "DE"}\n{"id": "u2"}\n'},
        ["users.jsonl:2: empty id (2 rows: lines 2, 4)", "users.jsonl:3: blank line"], {"users": 2}),
    "half a surrogate pair": ({"users.csv": None, "users.jsonl": '{"id": "u1"}\n{"id": "u2"}\n{"id": "\\ud83d"}\n'},
        ["users.jsonl:3: half of a surrogate pair"], {"users": 2}),
    # ---- whole files: errors under `skip` too
    "missing required column": ({"events.csv": "user,item\nu1,P1\n"},
        ["events.csv:1: no column 'product'", "data.files.columns.events"], None),
    "missing required column, nearly there": ({"events.csv": "user,prodct\nu1,P1\n"},
        ["events.csv:1: no column 'product'; did you mean 'prodct'?"], None),
    "missing key in JSON Lines": ({"events.csv": None, "events.jsonl": '{"user": "u1"}\n'},
        ["events.jsonl: no column 'product'"], None),
    "header names a column twice": ({"users.csv": "id,age,age\nu1,3,4\n"},
        ["users.csv:1: the header names column 'age' twice"], None),
    "header with an unnamed column": ({"users.csv": ",id\n0,u1\n"}, ["users.csv:1: column 1 of the header has no name"], None),
    "header with a broken quote": ({"users.csv": '"id,age\nu1,3\n'}, ["users.csv:1: header: a quote opens"], None),
    "empty file": ({"users.csv": ""}, ["users.csv: the file is empty"], None),
    "file of blank lines": ({"users.csv": "\ufeff\n \n"}, ["users.csv: the file is empty"], None),
    "header only": ({"users.csv": "id,country\n"}, ["users.csv: no rows after the header"], None),
    "Parquet without rows": ({"users.csv": None, "users.parquet": parquet(id=pyarrow.array([], pyarrow.string()))},
        ["users.parquet: no rows"], None),
    "no row stands": ({"users.csv": "id,country\nu1\nu2\n"},
        ["users.csv:2: expected 2 columns: found 1 (2 rows: lines 2, 3)"], None),
    "wrong encoding": ({"products.csv": PRODUCTS.encode() + "P4,Größe,C,1\nP5,Maß,C,1\n".encode("latin-1")},
        ["products.csv:5: byte 0xf6 is not utf-8 (2 such lines;", "data.files.encoding"], None),
    "Parquet truncated": ({"users.csv": None, "users.parquet": parquet(id=["u1", "u2"])[:-20]},
        ["users.parquet: no readable Parquet file"], None),
    "Parquet with a nested column": ({"users.csv": None, "users.parquet": parquet(id=["u1", "u2"], tags=[["a"], ["b"]])},
        ["users.parquet: column 'tags' has type list<", "expected text, number"], None),
    "truncated gzip": ({"users.csv": None, "users.csv.gz": gzip.compress(USERS.encode())[:-9]},
        ["users.csv.gz: cannot be read"], None),
    "two formats of one table": ({"users.jsonl": '{"id": "u1"}\n'}, ["both users.csv and users.jsonl hold table 'users'"],
        None),
    "unknown format": ({"users.csv": None, "users.xlsx": "?"}, ["users.xlsx is of unknown format; expected users"], None),
    "misspelt table": ({"products.csv": None, "product.csv": PRODUCTS},
        ["product.csv is no table; did you mean 'products.csv'?"], None),
    "no tables at all": (dict.fromkeys(GOOD) | {"notes.txt": "hi"}, ["no tables; expected at least one of products, triples"],
        None),
    "too many kinds of events": ({"events.csv": "user,product,kind\n" + "".join(f"u1,P1,k{n}\n" for n in range(200))},
        ["events.csv: 200 kinds of events, at most 127"], None),
}
# fmt: on


def test_at_least_25_kinds() -> None:
    assert len(BAD) >= 25


@pytest.mark.parametrize("kind", BAD)
def test_malformed(kind: str, tmp_path: Path) -> None:
    files, fragments, kept = BAD[kind]
    folder = write(tmp_path / "shop", {**GOOD, **files})
    with pytest.raises(UserError) as caught:
        read(folder)
    for fragment in fragments:
        assert fragment in str(caught.value)
    said: list[str] = []
    if kept is None:
        with pytest.raises(UserError) as caught:
            read(folder, on_bad_row="skip")
        for fragment in fragments:
            assert fragment in str(caught.value)
        return
    shop = read(folder, log=said.append, on_bad_row="skip")
    assert {part: shop.counts()[part] for part in kept} == kept
    printed = "\n".join(said)
    for fragment in fragments[-1:]:
        assert fragment in printed
    assert re.search(r"dropped \d+ malformed row", printed)


def test_every_reason_is_gathered_in_one_error(tmp_path: Path) -> None:
    rows = "".join(f"u1,P9,view,{time}\n" for time in range(8))
    folder = write(tmp_path / "shop", {**GOOD, "events.csv": EVENTS + rows + "u9,P1,view,x\n", "users.csv": USERS + "u1,DE\n"})
    with pytest.raises(UserError) as caught:
        read(folder)
    head, *lines = str(caught.value).splitlines()
    assert head == f"{folder}: 10 malformed rows in 2 files (data.files.on_bad_row=skip drops such rows):"
    assert [line.strip() for line in lines] == [
        "users.csv:4: duplicate user id: 'u1' stands at users.csv:2 already",
        "events.csv:13: time is neither seconds nor ISO 8601: 'x'",
        "events.csv:13: unknown user (no such id in users): 'u9'",
        "events.csv:5: unknown product (no such id in products): 'P9' (8 rows: lines 5, 6, 7, 8, 9, …)",
    ]


def test_line_numbers_survive_quoted_newlines(tmp_path: Path) -> None:
    content = 'id,title,price\nP1,"two\nlines, ""quoted""",1\nP2,"a\r\n\r\nb",2\nP3,c,x\n'
    folder = write(tmp_path / "shop", {"products.csv": content})
    with pytest.raises(UserError, match=re.escape("products.csv:7: price is not a number: 'x'")):
        read(folder)
    products = read(folder, on_bad_row="skip").products
    assert products.title.tolist() == ['two\nlines, "quoted"', "a\r\n\r\nb"]


def test_reading_goes_on_below_a_broken_record(tmp_path: Path) -> None:
    content = 'id,title\nP1,"open\nP2,fine\nP3,"also open\nP4,"closed"\nP5,"x"y\nP6,end\n'
    products = read(write(tmp_path / "shop", {"products.csv": content}), on_bad_row="skip").products
    assert products.id.tolist() == ["P2", "P4", "P6"]


def test_rows_of_a_dropped_product_are_dropped_and_said(tmp_path: Path) -> None:
    said: list[str] = []
    folder = write(tmp_path / "shop", {**GOOD, "products.csv": PRODUCTS.replace("9.5", "-1")})
    with pytest.raises(UserError) as caught:  # the product is there, so its events are not called unknown
        read(folder)
    assert "events.csv" not in str(caught.value)
    shop = read(folder, log=said.append, on_bad_row="skip")
    assert shop.counts() == {"products": 2, "triples": 2, "users": 2, "events": 2, "queries": 2, "judgments": 2}
    assert "  events.csv:2: product whose own row in products is malformed: 'P1'" in said
    assert shop.products.id[shop.events.product].tolist() == ["P2", "P3"]


# ------------------------------------------------------------------------------------------------------------- accepted
def test_good_shop(tmp_path: Path) -> None:
    shop = read(write(tmp_path / "shop", GOOD))
    assert shop.counts() == {"products": 3, "triples": 2, "users": 2, "events": 3, "queries": 2, "judgments": 3}
    assert shop.products.category.tolist() == ["A > B", "C", "A > D"]
    np.testing.assert_array_equal(shop.products.price, np.array([9.5, np.nan, 4], np.float32))
    assert shop.users.profile["country"].tolist() == ["DE", "CN"]
    assert shop.events.kinds == ("view", "purchase") and shop.events.kind.tolist() == [0, 1, 0]
    assert shop.events.time.tolist() == [10, 20, 15] and shop.events.query.tolist() == [-1, -1, -1]
    assert shop.events.split.tolist() == [UNASSIGNED] * 3
    assert shop.judgments.grade.tolist() == [3, 0, 2] and shop.judgments.split.tolist() == [TRAIN, TRAIN, TEST]
    assert shop.triples.entities.tolist() == ["P1", "cotton", "P2", "clay"]
    dtypes = {name: str(column.dtype) for name, column in shop.events.columns().items()}
    assert dtypes == {"user": "int32", "product": "int32", "kind": "int8", "time": "int64", "query": "int32", "split": "int8"}


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.encode("utf-8-sig"),
        lambda text: text.replace("\n", "\r\n").encode(),
        lambda text: text.rstrip("\n").encode(),
        lambda text: (text + "\n\n \n").encode(),
        lambda text: ("\n" + text).encode(),
    ],
    ids=["BOM", "CRLF", "no newline at the end", "blank lines at the end", "blank line at the start"],
)
def test_harmless_variants_read_alike(change: Any, tmp_path: Path) -> None:
    plain = read(write(tmp_path / "plain", GOOD))
    varied = read(write(tmp_path / "varied", {name: change(text) for name, text in GOOD.items()}))
    assert varied.fingerprint() == plain.fingerprint()


def test_gzip_and_encodings_read_alike(tmp_path: Path) -> None:
    plain = read(write(tmp_path / "plain", GOOD))
    packed = write(tmp_path / "packed", {f"{name}.gz": gzip.compress(text.encode()) for name, text in GOOD.items()})
    assert read(packed).fingerprint() == plain.fingerprint()
    for encoding in ("utf-16", "gb18030"):
        folder = write(tmp_path / encoding, {name: text.encode(encoding) for name, text in GOOD.items()})
        assert read(folder, encoding=encoding).fingerprint() == plain.fingerprint()
    with pytest.raises(UserError, match="'utf-99' is no text encoding"):
        read(tmp_path / "plain", encoding="utf-99")
    with pytest.raises(UserError, match="'hex' is no text encoding"):
        read(tmp_path / "plain", encoding="hex")
    odd = write(tmp_path / "odd", {"users.csv": "id\nu1\nu2\n".encode("utf-16-le") + b"x"})
    with pytest.raises(UserError, match=r"users\.csv:4: byte 0x78 is not utf-16"):
        read(odd, encoding="utf-16-le")


def test_parts_alone_are_shops(tmp_path: Path) -> None:
    assert read(write(tmp_path / "graph", {"triples.csv": TRIPLES})).counts() == {"triples": 2}
    events = read(write(tmp_path / "events", {"events.csv": "user,product\nu2,P9\nu1,P9\nu2,P1\n"}))
    assert events.users.id.tolist() == ["u2", "u1"] and events.products.id.tolist() == ["P9", "P1"]
    assert events.events.kinds == ("view",)
    assert events.events.time.tolist() == [0, 1, 2]  # file order
    search = read(write(tmp_path / "search", {"queries.csv": QUERIES, "judgments.csv": JUDGMENTS}))
    assert search.products.id.tolist() == ["P1", "P2"] and search.judgments.product.tolist() == [0, 1, 1]
    texts = read(write(tmp_path / "texts", {"judgments.csv": "query,product,grade\nred tee,P1,1\nred tee,P2,0\nmug,P2,1\n"}))
    assert texts.queries.text.tolist() == ["red tee", "mug"] and texts.judgments.query.tolist() == [0, 0, 1]
    assert texts.judgments.split.tolist() == [UNASSIGNED] * 3


def test_malformed_events_found_no_users(tmp_path: Path) -> None:
    folder = write(tmp_path / "shop", {"events.csv": "user,product,time\nu1,P1,x\nu2,P2,5\n"})
    assert read(folder, on_bad_row="skip").users.id.tolist() == ["u2"]


def test_queries_of_events(tmp_path: Path) -> None:
    events = "user,product,query\nu1,P1,q2\nu1,P2,red tee\nu2,P3, blue cap \nu2,P1,blue cap\nu2,P2,\n"
    shop = read(write(tmp_path / "shop", {**GOOD, "events.csv": events}))
    assert shop.events.query.tolist() == [1, 0, 2, 2, -1]
    assert shop.queries.id.tolist() == ["q1", "q2", "blue cap"] and shop.queries.text[2] == "blue cap"
    alone = read(write(tmp_path / "alone", {"events.csv": events}))
    assert alone.queries.text.tolist() == ["q2", "red tee", "blue cap"] and alone.events.query.tolist() == [0, 1, 2, 2, -1]


def test_times_and_kinds(tmp_path: Path) -> None:
    times = ["0", "1.9", "-0.5", "1e3", "1970-01-02", "1970-01-01T01:00:00+01:00", "1970-01-01T00:00:07Z", "1970-01-01 00:01"]
    rows = "".join(f"u1,P1,{time},{kind}\n" for time, kind in zip(times, ["View", "", "CART", " view "] * 2, strict=True))
    shop = read(write(tmp_path / "shop", {"events.csv": "user,product,time,kind\n" + rows}))
    assert shop.events.time.tolist() == [0, 1, -1, 1000, 86400, 0, 7, 60]
    assert shop.events.kinds == ("view", "cart") and shop.events.kind.tolist() == [0, 0, 1, 0] * 2


def test_given_splits(tmp_path: Path) -> None:
    events = "user,product,split\nu1,P1,train\nu1,P2,Valid\nu2,P3,test\n"
    judgments = "query,product,grade,split\nq1,P1,3,\nq1,P2,0,valid\nq2,P2,2,\n"
    triples = "head,relation,tail,split\na,r,b,train\nb,r,c,\nc,r,a,test\n"
    shop = read(write(tmp_path / "shop", {**GOOD, "events.csv": events, "judgments.csv": judgments, "triples.csv": triples}))
    assert shop.events.split.tolist() == [TRAIN, VALID, TEST]
    assert shop.judgments.split.tolist() == [VALID, VALID, UNASSIGNED]  # a query's split holds for all its judgments
    assert shop.triples.split.tolist() == [TRAIN, UNASSIGNED, TEST]


def test_triples_repeats_dropped_loops_kept(tmp_path: Path) -> None:
    said: list[str] = []
    folder = write(tmp_path / "shop", {"triples.tsv": "head\trelation\ttail\na\tr\tb\na\tr\ta\n a\tr\tb\na\ts\tb\n"})
    triples = read(folder, log=said.append).triples
    assert (triples.head.tolist(), triples.relation.tolist(), triples.tail.tolist()) == ([0, 0, 0], [0, 0, 1], [1, 0, 1])
    assert said == ["triples.tsv: 1 repeated triple dropped"]


def test_columns_are_mapped(tmp_path: Path) -> None:
    files = {
        "products.csv": "sku,name,title,Farbe,size\nP1,Tee,short,red,L\n",
        "events.csv": "customer,sku,when,shop\nc1,P1,5,x\n",
    }
    folder = write(tmp_path / "shop", files)
    columns = {
        "products": {"id": "sku", "title": "name", "colour": "Farbe"},
        "events": {"user": "customer", "product": "sku", "time": "when"},
    }
    said: list[str] = []
    shop = read(folder, log=said.append, columns=columns)
    assert shop.products.title.tolist() == ["Tee"]
    assert {name: column.tolist() for name, column in shop.products.attributes.items()} == {"colour": ["red"], "size": ["L"]}
    assert shop.events.time.tolist() == [5]
    assert said[:2] == ["products.csv: column 'title' ignored", "events.csv: column 'shop' ignored"]
    for changed, message in [
        (
            {"events": {"user": "custmer"}},
            "data.files.columns.events.user: events.csv has no column 'custmer'; did you mean 'customer'?",
        ),
        ({"events": {"usr": "customer"}}, "data.files.columns.events.usr: events have no column 'usr'; did you mean 'user'?"),
        ({"queries": {"id": "q"}}, "data.files.columns.queries: "),
    ]:
        with pytest.raises(UserError, match=re.escape(message)):
            read(folder, columns={**columns, **changed})


def test_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no folder"):
        read(tmp_path / "absent")
    folder = write(tmp_path / "shop", {**GOOD, "notes.csv": "a\n", "README.md": "hello", "products.csv~": "old"})
    with pytest.raises(UserError, match="is a file, expected the folder"):
        read(folder / "products.csv")
    said: list[str] = []
    read(folder, log=said.append)
    assert said == [
        "products.csv~: ignored, products.csv holds table 'products'",
        "notes.csv: no table of a shop, ignored (tables: products, triples, users, events, queries, judgments)",
    ]
    (folder / "users.csv").unlink()
    (folder / "users.parquet").mkdir()
    with pytest.raises(UserError, match=r"users\.parquet is a folder"):
        read(folder)


def test_parquet_types(tmp_path: Path) -> None:
    day = np.array(["2024-01-01T00:00:00", "2024-01-02T03:04:05.678"], "datetime64[ms]")
    events = parquet(
        user=[1, 2],
        product=pyarrow.array(["P1", "P2"]).dictionary_encode(),
        time=pyarrow.array(day).cast(pyarrow.timestamp("ns", tz="Europe/Berlin")),
    )
    products = parquet(
        id=pyarrow.array([b"P1", b"P2"]),
        weight=pyarrow.array([1.5, float("nan")]),
        sold=pyarrow.array([True, None]),
        since=pyarrow.array([19000, None], pyarrow.date32()),
        price=pyarrow.array([3, None]),
    )
    users = parquet(id=pyarrow.array([1.0, 2.0]))  # what pandas makes of whole numbers beside a missing one
    shop = read(write(tmp_path / "shop", {"events.parquet": events, "products.parquet": products, "users.parquet": users}))
    assert shop.users.id.tolist() == ["1", "2"] and shop.events.user.tolist() == [0, 1]
    assert shop.events.time.tolist() == [1704067200, 1704164645]
    attributes = {name: column.tolist() for name, column in shop.products.attributes.items()}
    assert attributes == {"weight": ["1.5", ""], "sold": ["true", ""], "since": ["2022-01-08 00:00:00.000000Z", ""]}
    np.testing.assert_array_equal(shop.products.price, np.array([3, np.nan], np.float32))


def test_json_numbers_keep_their_digits(tmp_path: Path) -> None:
    lines = (
        '{"id": 7, "size": 1.50, "eco": true, "note": null, "weight": NaN}\n{"id": "7.0", "size": 10000000000000000000000}\n'
    )
    products = read(write(tmp_path / "shop", {"products.jsonl": lines})).products
    assert products.id.tolist() == ["7", "7.0"]
    attributes = {name: column.tolist() for name, column in products.attributes.items()}
    assert attributes == {"size": ["1.50", "1" + "0" * 22], "eco": ["true", ""], "note": ["", ""], "weight": ["", ""]}


# ------------------------------------------------------------------------------------------------- four formats, one shop
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12).filter(
    lambda text: text != "NaN"
)
NAME = TEXT.map(str.strip).filter(bool)
LEVELS = st.lists(NAME.filter(lambda name: ">" not in name), max_size=3).map(" > ".join)


@st.composite
def shops(draw: st.DrawFn) -> dict[str, list[dict[str, Any]]]:
    """Tables as rows; numbers as Python numbers, missing ones as None."""
    ids = draw(st.lists(NAME, min_size=1, max_size=5, unique=True))
    users = draw(st.lists(NAME, min_size=1, max_size=4, unique=True))
    queries = draw(st.lists(NAME, min_size=1, max_size=3, unique=True))
    price = st.none() | st.floats(0, 1e6, width=32)
    pick = st.sampled_from
    events = draw(st.lists(st.tuples(pick(users), pick(ids), NAME, st.integers(-(2**40), 2**40), pick(["", *queries]) | NAME)))
    pairs = draw(st.lists(st.tuples(pick(queries), pick(ids)), unique=True))
    split = dict(zip(queries, draw(st.lists(pick(["", "train", "valid", "test"]), min_size=3, max_size=3)), strict=False))
    triples = draw(st.lists(st.tuples(NAME, NAME, NAME), max_size=5))
    tables = {
        "products": [
            {
                "id": id,
                "title": draw(TEXT),
                "brand": draw(TEXT),
                "category": draw(LEVELS),
                "price": draw(price),
                "größe 1": draw(TEXT),
            }
            for id in ids
        ],
        "users": [{"id": id, "country": draw(TEXT)} for id in users],
        "queries": [{"id": id, "text": draw(NAME)} for id in queries],
        "events": [dict(zip(("user", "product", "kind", "time", "query"), event, strict=True)) for event in events],
        "judgments": [{"query": q, "product": p, "grade": draw(st.integers(0, 5)), "split": split[q]} for q, p in pairs],
        "triples": [dict(zip(("head", "relation", "tail"), triple, strict=True)) for triple in triples],
    }
    return {part: rows for part, rows in tables.items() if rows}


def save(folder: Path, tables: dict[str, list[dict[str, Any]]], suffix: str) -> Path:
    folder.mkdir(exist_ok=True)
    for part in PARTS:
        path = folder / f"{part}{suffix}"
        path.unlink(missing_ok=True)
        if part not in tables:
            continue
        rows = tables[part]
        if suffix == ".parquet":
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
        elif suffix == ".jsonl":
            path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8", newline="")
        else:
            with path.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, list(rows[0]), delimiter="\t" if suffix == ".tsv" else ",")
                writer.writeheader()
                writer.writerows(rows)
    return folder


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(tables=shops())
def test_formats_read_alike(tmp_path: Path, tables: dict[str, list[dict[str, Any]]]) -> None:
    found = {suffix: read(save(tmp_path / suffix[1:], tables, suffix)) for suffix in (".csv", ".tsv", ".jsonl", ".parquet")}
    assert len({shop.fingerprint() for shop in found.values()}) == 1
    shop = found[".csv"]
    assert shop.products.title.tolist() == [row["title"] for row in tables["products"]]
    prices = [np.nan if row["price"] is None else row["price"] for row in tables["products"]]
    np.testing.assert_array_equal(shop.products.price, np.array(prices, np.float32))
    if "events" in tables:
        assert shop.users.id[shop.events.user].tolist() == [row["user"] for row in tables["events"]]
        assert shop.events.time.tolist() == [row["time"] for row in tables["events"]]
    if "judgments" in tables:
        assert shop.judgments.grade.tolist() == [row["grade"] for row in tables["judgments"]]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.text(st.sampled_from('ab,"\n\r\t 1é\0'), max_size=40))
def test_no_text_breaks_the_reader(tmp_path: Path, content: str) -> None:
    """Any text after a header is rows, or a `UserError`; nothing else, and skipping never finds more rows than lines."""
    folder = write(tmp_path / "shop", {"products.csv": "id,title\n" + content})
    for on_bad_row in ("error", "skip"):
        try:
            shop = read(folder, on_bad_row=on_bad_row)
        except UserError as error:
            assert "products.csv" in str(error)
        else:
            assert shop.counts()["products"] <= content.count("\n") + content.count("\r") + 1


# -------------------------------------------------------------------------------------------------------------- builder
def test_builder_key_follows_content_and_config(tmp_path: Path) -> None:
    folder = write(tmp_path / "shop", GOOD)
    config = schema.Data(name="files", source_dir=str(folder))
    first = FilesBuilder.key(config)
    json.dumps(first)
    assert FilesBuilder.key(config) == first
    skipping = schema.Files(on_bad_row="skip")
    assert FilesBuilder.key(config.model_copy(update={"files": skipping})) != first
    (folder / "users.csv").write_text(USERS + "u3,FR\n", encoding="utf-8")
    assert FilesBuilder.key(config) != first
    with pytest.raises(UserError, match=r"data\.source_dir"):
        FilesBuilder.key(schema.Data(name="files"))


def test_builder_stores_and_returns_the_shop(tmp_path: Path) -> None:
    from fusionjax.data.tables import build_tables, shop_from_tables

    folder = write(tmp_path / "shop", GOOD)
    source = schema.Data(name="files", source_dir=str(folder))
    built = build_tables(FilesBuilder, source, tmp_path / "tables", download_dir=tmp_path / "downloads", log=lambda line: None)
    expected = dataclasses.replace(read(folder), name="files")
    assert built.fingerprint() == expected.fingerprint()
    assert shop_from_tables(tmp_path / "tables").fingerprint() == expected.fingerprint()
