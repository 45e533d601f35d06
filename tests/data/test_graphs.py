"""Files of triples: what the reader takes and refuses, how splits are joined, and the sources `triples` and `wikidata5m`."""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusionjax.config import schema
from fusionjax.data.entities import entity_words
from fusionjax.data.graph import build_graph, triple_keys
from fusionjax.data.prepare import prepare
from fusionjax.data.shop import TEST, TRAIN, UNASSIGNED, VALID, Shop, Triples
from fusionjax.data.sources.graphs import read
from fusionjax.data.sources.graphs.join import join
from fusionjax.data.sources.graphs.read import Vocabulary, read_triples
from fusionjax.data.sources.graphs.triples import read_folder
from fusionjax.errors import UserError

Files = dict[str, str | bytes]


def write(folder: Path, files: Files) -> Path:
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def load(folder: Path, files: Files, **choices: Any) -> tuple[Shop, list[str]]:
    notes: list[str] = []
    return read_folder(write(folder, files), schema.TriplesFiles(**choices), notes.append), notes


def named(table: Triples | None) -> list[str]:
    """`head relation tail split`."""
    assert table is not None
    columns = (table.entities[table.head], table.relations[table.relation], table.entities[table.tail], table.split.tolist())
    return [" ".join(map(str, row)) for row in zip(*columns, strict=True)]


THREE: Files = {"train.txt": "a\tr\tb\nb\ts\tc\n", "valid.txt": "c\tr\ta\n", "test.txt": "a\ts\tb\n"}


# ---------------------------------------------------------------------------------------------------- what is accepted
def test_three_splits(tmp_path: Path) -> None:
    shop, notes = load(tmp_path, THREE)
    assert named(shop.triples) == ["a r b 0", "b s c 0", "c r a 1", "a s b 2"] and notes == []
    assert shop.triples is not None and shop.triples.entities.tolist() == ["a", "b", "c"]
    assert shop.triples.head.dtype == shop.triples.relation.dtype == shop.triples.tail.dtype == np.int32
    assert shop.triples.split.dtype == np.int8


def test_training_alone_leaves_the_split_open(tmp_path: Path) -> None:
    text = "".join(f"e{row % 40}\tr\te{row % 37}\n" for row in range(300))
    shop, notes = load(tmp_path, {"train.tsv": text})
    assert shop.triples is not None and (shop.triples.split == UNASSIGNED).all() and notes == []
    graph = build_graph(shop, schema.Graph(), schema.Split())
    assert min(len(graph.triples(split)) for split in (TRAIN, VALID, TEST)) > 0


def test_training_and_test_alone(tmp_path: Path) -> None:
    shop, _ = load(tmp_path, {name: text for name, text in THREE.items() if name != "valid.txt"})
    assert named(shop.triples) == ["a r b 0", "b s c 0", "a s b 2"]


@pytest.mark.parametrize(
    ("choices", "text"),
    [
        ({"separator": "comma"}, "a,r,b\n长 x,s,é\n"),
        ({"separator": "space"}, "a r b\n长\u00a0x s é\n"),
        ({"columns": ("tail", "head", "relation")}, "b\ta\tr\né\t长 x\ts\n"),
        ({"header": True}, "subject\tpredicate\tobject\na\tr\tb\n长 x\ts\té\n"),
        ({"header": True, "columns": ("relation", "tail", "head"), "separator": "comma"}, "p,o,s\nr,b,a\ns,é,长 x\n"),
        ({}, "a\tr\tb\n长 x\ts\té"),  # no end of the last line
    ],
)
def test_layouts(choices: dict[str, Any], text: str, tmp_path: Path) -> None:
    shop, notes = load(tmp_path, {"train.txt": text}, **choices)
    assert [line.replace("\u00a0", " ") for line in named(shop.triples)] == ["a r b -1", "长 x s é -1"] and notes == []


@pytest.mark.parametrize(
    ("text", "note"),
    [
        (b"a\tr\tb\r\nb\ts\tc\r\n", "2 line ends are CRLF: none of it is part of a name"),
        (b"a\tr\tb\r\nb\ts\tc", "1 line ends are CRLF: none of it is part of a name"),
        (b"\xef\xbb\xbfa\tr\tb\nb\ts\tc\n", "begins with a byte order mark: left out"),
        (b"\na\tr\tb\n\n  \nb\ts\tc\n\n", "blank lines skipped: 4"),
    ],
)
def test_what_is_odd_is_accepted_and_said(text: bytes, note: str, tmp_path: Path) -> None:
    shop, notes = load(tmp_path, {"train.txt": text})
    assert named(shop.triples) == ["a r b -1", "b s c -1"]
    assert notes == [f"train.txt: {note}"]


# ----------------------------------------------------------------------------------------------------- what is refused
@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"a\tr\tb\nb\ts\n", r"line 2: expected 3 columns \(head, relation, tail\) separated by one tab each, got 2: 'b\\ts'"),
        (b"a\tr\tb\tc\n", r"line 1: expected 3 columns .*, got 4"),
        (b"\n\r\na\tr\tb\nb s c\n", r"line 4: expected 3 columns .*, got 1: 'b s c'"),
        (b"a\tr\tb\n\tr\tb\n", r"line 2: head is empty, expected 3 columns"),
        (b"a\tr\tb\n\na\t\tb\n", r"line 3: relation is empty"),
        (b"a\tr\t\r\n", r"line 1: tail is empty"),
        (b"a\tr\tb \n", r"line 1: tail 'b ' begins or ends with white space"),
        (b"a\tr\tb\n a\tr\tb\n", r"line 2: head ' a' begins or ends with white space"),
        (b"a\tr\tb\r\r\n", r"line 1: tail 'b\\r' begins or ends with white space"),
        (b"", r"train\.txt: no triples, expected lines of 3 columns \(head, relation, tail\)"),
        (b"\n \n", r"train\.txt: no triples"),
        (b"a\tr\tb\nb\ts\tcaf\xe9\n", r"line 2: not UTF-8, bytes e9 0a"),
        ("a\tr\tb\n".encode("utf-16"), r"line 1: not UTF-8, bytes ff fe"),
    ],
)
def test_lines_that_do_not_fit_are_named(text: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        load(tmp_path, {"train.txt": text})


def test_a_header_alone_is_no_triple(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train\.txt: no triples"):
        load(tmp_path, {"train.txt": "h\tr\tt\n"}, header=True)
    with pytest.raises(UserError, match="line 3: expected 3 columns"):
        load(tmp_path, {"train.txt": "h\tr\tt\na\tr\tb\nx\n"}, header=True)


def test_files_that_do_not_fit_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no train\.txt \(\.tsv, \.csv\).*the folder holds: test\.txt"):
        load(tmp_path / "none", {"test.txt": "a\tr\tb\n"})
    with pytest.raises(UserError, match=r"both train\.txt and train\.tsv; keep one"):
        load(tmp_path / "both", {"train.txt": "a\tr\tb\n", "train.tsv": "a\tr\tb\n"})
    with pytest.raises(UserError, match=r"train\.txt: cannot be read"):
        read_triples(tmp_path / "train.txt", Vocabulary())


def test_places_are_right_in_every_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read, "_BLOCK", 7)
    good = "".join(f"h{row}\tr{row % 3}\tt{row}\r\n" + "\n" * (row % 5 == 0) for row in range(30))
    shop, notes = load(tmp_path, {"train.txt": good})
    assert named(shop.triples) == [f"h{row} r{row % 3} t{row} -1" for row in range(30)]
    assert notes == ["train.txt: 30 line ends are CRLF: none of it is part of a name", "train.txt: blank lines skipped: 6"]
    for bad, what in (("x\ty\n", "expected 3"), ("x\t\tz\n", "relation is empty"), ("x\ty\tz \n", "white space")):
        with pytest.raises(UserError, match=f"line 37: .*{what}"):
            load(tmp_path, {"train.txt": good + bad})
    with pytest.raises(UserError, match=r"line 37: this triple stands at train\.txt, line 10 already"):
        load(tmp_path, {"train.txt": good + "h7\tr1\tt7\n"}, on_duplicate="error")


NAME = st.text(st.characters(exclude_characters="\t\r\n\x0b\x0c ", exclude_categories=("Cs",)), min_size=1, max_size=3)


@given(triples=st.lists(st.tuples(NAME, NAME, NAME), min_size=1, max_size=20), block=st.integers(1, 40))
def test_what_is_written_is_read(
    triples: list[tuple[str, str, str]], block: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("triples") / "train.txt"
    path.write_bytes("".join("\t".join(triple) + "\n" for triple in triples).encode())
    if path.read_bytes().startswith(b"\xef\xbb\xbf"):
        return  # a byte order mark is no name
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(read, "_BLOCK", block)
        vocabulary = Vocabulary()
        file = read_triples(path, vocabulary)
    expected = Triples.of(*zip(*triples, strict=True))
    assert vocabulary.entities().tolist() == expected.entities.tolist()
    assert vocabulary.relations().tolist() == expected.relations.tolist()
    np.testing.assert_array_equal(file.triples, np.stack([expected.head, expected.relation, expected.tail], 1))


def test_a_million_lines_take_seconds(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    ends = generator.integers(0, 120_000, (1_000_000, 2))
    text = "".join(f"Entity_{head}\trelation_{head % 37}\tEntity_{tail}\n" for head, tail in ends.tolist())
    path = write(tmp_path, {"train.txt": text}) / "train.txt"
    started = time.process_time()
    vocabulary = Vocabulary()
    file = read_triples(path, vocabulary)
    _, notes = join({TRAIN: file}, vocabulary, on_duplicate="drop", on_unseen="keep")
    assert len(file.triples) == 1_000_000 and len(notes) == 1
    assert time.process_time() - started < 30  # about 2 on an idle core


# ------------------------------------------------------------------------------------------------- repeats and strangers
def test_repeats(tmp_path: Path) -> None:
    files: Files = {
        "train.txt": "a\tr\tb\nb\ts\tc\na\tr\tb\nc\tr\ta\na\tr\tb\n",
        "valid.txt": "\nc\tr\ta\nb\tr\ta\n",
        "test.txt": "b\tr\ta\na\ts\tb\nb\ts\tc\na\ts\tb\n",
    }
    shop, notes = load(tmp_path, files)
    assert named(shop.triples) == ["a r b 0", "b s c 0", "c r a 0", "b r a 1", "a s b 2"]
    assert notes == [
        "valid.txt: blank lines skipped: 1",
        "train.txt: triples that an earlier line of it has too: 2, dropped (line 3 first)",
        "valid.txt: triples that train.txt has too: 1, dropped (line 2 first)",
        "test.txt: triples that train.txt has too: 1, dropped (line 3 first)",
        "test.txt: triples that valid.txt has too: 1, dropped (line 1 first)",
        "test.txt: triples that an earlier line of it has too: 1, dropped (line 4 first)",
    ]
    with pytest.raises(UserError, match=r"train\.txt, line 3: this triple stands at train\.txt, line 1 already \(6 such lines"):
        load(tmp_path, files, on_duplicate="error")
    files["train.txt"] = "a\tr\tb\nb\ts\tc\nc\tr\ta\n"
    with pytest.raises(UserError, match=r"valid\.txt, line 2: this triple stands at train\.txt, line 3 already"):
        load(tmp_path, files, on_duplicate="error")


def test_a_split_of_repeats_alone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"valid\.txt: no triple of it is left to be valid"):
        load(tmp_path, {"train.txt": "a\tr\tb\n", "valid.txt": "a\tr\tb\n"})


STRANGE: Files = {
    "train.txt": "a\tr\tb\nb\tr\tc\n",
    "valid.txt": "a\tr\tc\nx\tr\ta\nb\tnew\ta\n",
    "test.txt": "c\tr\ta\ny\tnew\tz\n",
    "entities.tsv": "x\tEx\na\tAy\tfirst\n",
    "literals.tsv": "x\tyear\t1\na\tyear\t2\n",
    "test_negatives.txt": "x\tr\tb\nb\tr\ta\n",
}


def test_strangers_are_kept_and_said(tmp_path: Path) -> None:
    shop, notes = load(tmp_path, STRANGE)
    assert len(named(shop.triples)) == 7
    assert notes == [
        "valid.txt: triples with an entity (1) or a relation (1) that no training triple has: 2 of 3, "
        "kept (ranked, but right only by luck) (line 2 first)",
        "test.txt: triples with an entity (1) or a relation (1) that no training triple has: 1 of 2, "
        "kept (ranked, but right only by luck) (line 2 first)",
    ]


def test_strangers_are_dropped_with_all_that_is_about_them(tmp_path: Path) -> None:
    shop, notes = load(tmp_path, STRANGE, on_unseen="drop")
    assert named(shop.triples) == ["a r b 0", "b r c 0", "a r c 1", "c r a 2"]
    assert shop.triples is not None and shop.entities is not None and shop.literals is not None
    assert shop.triples.entities.tolist() == ["a", "b", "c"] and shop.triples.relations.tolist() == ["r"]
    assert named(shop.negatives) == ["b r a 2"]
    assert shop.entities.id.tolist() == ["a"] and shop.literals.entity.tolist() == ["a"]
    assert [note.partition(":")[0] for note in notes] == [
        "valid.txt",
        "test.txt",
        "test_negatives.txt",
        "entities.tsv",
        "literals.tsv",
    ]
    assert "2 of 3, dropped (line 2 first)" in notes[0] and notes[2].endswith("what on_unseen dropped: 1, dropped too")


def test_strangers_may_be_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"valid\.txt, line 2: entity 'x' stands in no training triple \(3 such lines"):
        load(tmp_path, STRANGE, on_unseen="error")
    files = {**STRANGE, "valid.txt": "\nb\tnew\ta\n"}
    with pytest.raises(UserError, match=r"valid\.txt, line 2: relation 'new' stands in no training triple"):
        load(tmp_path, files, on_unseen="error")


def test_keys_of_graphs_too_large_for_one_number() -> None:
    triples = np.array([[0, 1, 2], [2, 1, 0], [0, 1, 2]], np.int32)
    for size in ((3, 2), (2**31, 2**20)):
        key = triple_keys(triples, *size)
        assert key[0] == key[2] < key[1]


# -------------------------------------------------------------------------------------------- words, numbers, negatives
def test_words_numbers_and_negatives(tmp_path: Path) -> None:
    files = {
        **THREE,
        "entities.tsv": "c\tCee\nz\tElsewhere\nb\t\tsecond\r\n",
        "relations.tsv": "s\tsees\n",
        "literals.tsv": "a\tyear\t1999\nb\tprice\t9.5e-1\nz\tyear\t3\na\tprice\t-1\n",
        "valid_negatives.txt": "b\tr\ta\n",
        "test_negatives.tsv": "c\ts\tc\nb\ts\ta\n",
    }
    shop, notes = load(tmp_path, files)
    assert shop.entities is not None and shop.relations is not None and shop.literals is not None
    assert shop.entities.id.tolist() == ["b", "c"] and shop.entities.name.tolist() == ["", "Cee"]
    assert shop.entities.description.tolist() == ["second", ""]
    assert shop.relations.id.tolist() == ["s"] and shop.relations.name.tolist() == ["sees"]
    assert list(zip(shop.literals.entity, shop.literals.attribute, shop.literals.value.tolist(), strict=True)) == [
        ("a", "year", 1999),
        ("b", "price", np.float32(0.95)),
        ("a", "price", -1),
    ]
    assert named(shop.negatives) == ["b r a 1", "c s c 2", "b s a 2"]
    assert notes == [
        "entities.tsv: entities that no triple has, left out: 1 of 3",
        "literals.tsv: numbers about entities that no triple has, left out: 1",
    ]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"test_negatives.txt": "a\tr\tc\n\nb\tr\tq\n"}, r"test_negatives\.txt, line 3: entity 'q' stands in no true triple"),
        ({"test_negatives.txt": "a\tq\tc\n"}, r"test_negatives\.txt, line 1: relation 'q' stands in no true triple"),
        ({"test_negatives.txt": "b\tr\tc\nc\tr\ta\n"}, r"test_negatives\.txt, line 2: this triple is a true one too"),
        ({"entities.tsv": "a\tAy\na\tBee\n"}, r"entities\.tsv, line 2: entity 'a' stands further up already"),
        ({"entities.tsv": "a\n"}, r"entities\.tsv, line 1: expected 2 to 3 columns \(id, name, description\).*got 1"),
        ({"relations.tsv": "r\ta\tb\n"}, r"relations\.tsv, line 1: expected 2 columns"),
        ({"literals.tsv": "a\tyear\n"}, r"literals\.tsv, line 1: expected 3 columns \(entity, attribute, value\)"),
        ({"literals.tsv": "a\tyear\tlate\n"}, r"literals\.tsv, line 1: value 'late', expected a finite number"),
        ({"literals.tsv": "a\tyear\t1_0\n"}, r"line 1: value '1_0', expected a finite number"),
        ({"literals.tsv": "a\tyear\tinf\n"}, r"line 1: value 'inf', expected a finite number"),
        ({"literals.tsv": "a\tyear\t1\n\na\tyear\t1\n"}, r"literals\.tsv, line 3: year of 'a' stands further up already"),
        ({"literals.tsv": "a\t\t1\n"}, r"literals\.tsv, line 1: attribute is empty"),
    ],
)
def test_words_that_do_not_fit_are_named(files: Files, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        load(tmp_path, {**THREE, **files})


# -------------------------------------------------------------------------------------------------------- as a data set
def test_prepared_and_said_again_from_the_cache(tmp_path: Path) -> None:
    folder = write(tmp_path / "graph", {**THREE, "train.txt": "a\tr\tb\nb\ts\tc\na\tr\tb\n", "entities.tsv": "a\t<b>Ay</b>\n"})
    config = schema.Data(name="triples", source_dir=str(folder), cache_dir=str(tmp_path / "cache"))
    said: list[str] = []
    built = prepare(config, log=said.append)
    note = "triples: train.txt: triples that an earlier line of it has too: 1, dropped (line 3 first)"
    assert note in said
    said.clear()
    again = prepare(config, log=said.append)
    assert said == [note] and again.fingerprint == built.fingerprint
    assert again.shop.entities is not None and again.shop.entities.name.tolist() == ["Ay"]
    graph = build_graph(again.shop, config.graph, config.split)
    assert entity_words(again.shop, graph)[1] == ["Ay", "", ""]
    # How it is read, and what is read, are part of the key.
    other = config.model_copy(update={"triples": schema.TriplesFiles(on_unseen="drop")})
    assert prepare(other, log=said.append).source != built.source
    write(folder, {"train.txt": "a\tr\tb\nb\ts\tc\n"})
    said.clear()
    prepare(config, log=said.append)
    assert said[0].startswith("preparing data set triples") and note not in said
    with pytest.raises(UserError, match=r"data\.source_dir: data set 'triples' needs the folder that holds your train\.txt"):
        prepare(schema.Data(name="triples", cache_dir=str(tmp_path / "cache")))


def test_the_command_line(tmp_path: Path, cli: Any) -> None:
    folder = write(
        tmp_path / "graph",
        {**THREE, "entities.tsv": "a\tAy\n", "relations.tsv": "r\truns\n", "test_negatives.txt": "b\tr\ta\n"},
    )
    words = ("triples", f"data.source_dir={folder}", f"data.cache_dir={tmp_path / 'cache'}")
    code, out, _ = cli("data", "prepare", *words)
    assert code == 0 and "4 triples, 1 entities, 1 relations, 1 negatives" in out
    code, out, _ = cli("data", "describe", *words)
    assert code == 0 and "head Ay   relation runs   tail b   split train" in out and "entities 3 · relations 2" in out
    write(folder, {"train.txt": "a\tr\n"})
    code, out, err = cli("data", "describe", *words)
    assert code == 2 and "train.txt, line 1: expected 3 columns" in err and "Traceback" not in err


# ---------------------------------------------------------------------------------------------------------- wikidata5m
WIKI: Files = {
    **{f"wikidata5m_transductive_{name}": text for name, text in THREE.items()},
    "wikidata5m_inductive_train.txt": "a\tr\tb\n",
    "wikidata5m_inductive_valid.txt": "c\tr\td\n",
    "wikidata5m_inductive_test.txt": "e\tr\tf\n",
    "wikidata5m_text.txt": "a\tAy is\ta letter .\nz\tElsewhere\nd\tDee\n",
    "wikidata5m_entity.txt": "a\tAy\tA\tthe letter\nb\tBee\n",
    "wikidata5m_relation.txt": "r\truns\tis run by\n",
}


def test_wikidata5m(tmp_path: Path) -> None:
    folder = write(tmp_path / "wiki", WIKI)
    config = schema.Data(name="wikidata5m", source_dir=str(folder), cache_dir=str(tmp_path / "cache"))
    said: list[str] = []
    shop = prepare(config, log=said.append).shop
    assert named(shop.triples) == ["a r b 0", "b s c 0", "c r a 1", "a s b 2"]
    assert shop.entities is not None and shop.relations is not None
    assert shop.entities.id.tolist() == ["a", "b"] and shop.entities.name.tolist() == ["Ay", "Bee"]
    assert shop.entities.description.tolist() == ["Ay is a letter .", ""]
    assert shop.relations.name.tolist() == ["runs"]
    assert any("(2, 1, 1) training, validation and test triples, published are (20614279, 5163, 5133)" in line for line in said)
    inductive = config.model_copy(update={"wikidata5m": schema.Wikidata5m(variant="inductive")})
    shop = prepare(inductive, log=said.append).shop
    assert named(shop.triples) == ["a r b 0", "c r d 1", "e r f 2"]
    assert shop.entities is not None and shop.entities.id.tolist() == ["a", "b", "d"]


def test_wikidata5m_without_its_files(tmp_path: Path) -> None:
    config = schema.Data(name="wikidata5m", cache_dir=str(tmp_path / "cache"))
    with pytest.raises(UserError, match=r"data\.source_dir: data set 'wikidata5m' needs the folder .* from https://deepgraph"):
        prepare(config)
    folder = write(tmp_path / "wiki", {name: text for name, text in WIKI.items() if "valid" not in name})
    config = config.model_copy(update={"source_dir": str(folder)})
    with pytest.raises(UserError, match=r"no wikidata5m_transductive_valid\.txt \(get it, unpacked, from https"):
        prepare(config)
    words = {name: text for name, text in WIKI.items() if "ive_" in name}
    config = config.model_copy(update={"source_dir": str(write(tmp_path / "bare", words))})
    said: list[str] = []
    shop = prepare(config, log=said.append).shop
    assert shop.entities is None and shop.relations is None
    assert sum("the words in it are missing" in line for line in said) == 3
    write(tmp_path / "bare", {"wikidata5m_text.txt": "a\n"})
    with pytest.raises(UserError, match=r"wikidata5m_text\.txt, line 1: expected an id, a tab and text, got 'a'"):
        prepare(config, log=said.append)


def test_the_key_is_json(tmp_path: Path) -> None:
    config = schema.Data(name="triples", source_dir=str(write(tmp_path / "graph", THREE)), cache_dir=str(tmp_path / "cache"))
    source = prepare(config, log=lambda line: None).source
    assert json.loads(json.dumps(source)) == source and set(source["files"]) == set(THREE)
