"""Published graphs: pins, parsing on hand-made files in the originals' formats, and the real counts."""

import dataclasses
import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fusionjax.config import schema
from fusionjax.data.entities import entity_words, false_triples
from fusionjax.data.graph import build_graph
from fusionjax.data.prepare import describe, prepare
from fusionjax.data.shop import TEST, TRAIN, VALID, Shop
from fusionjax.data.sources import SOURCES, builder_class, pinned
from fusionjax.data.sources.graphs import codex, words
from fusionjax.data.sources.graphs.benchmark import BenchmarkBuilder, Counts
from fusionjax.errors import UserError

NAMES = ("codex_s", "codex_m", "codex_l", "fb15k237", "wn18rr", "yago3_10", "umls", "kinship", "nations")


def cls_of(name: str) -> type[BenchmarkBuilder]:
    found = builder_class(name)
    assert issubclass(found, BenchmarkBuilder)
    return found


def archive(path: Path, texts: dict[str, str]) -> None:
    with tarfile.open(path, "w:gz") as tar:
        for name, text in texts.items():
            info = tarfile.TarInfo(name)
            info.size = len(text.encode())
            tar.addfile(info, io.BytesIO(text.encode()))


TRIPLES = {"train.txt": "a\tr\tb\nb\ts\tc\n", "valid.txt": "c\tr\ta\n", "test.txt": "a\ts\td\n"}


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Puts files into a folder and makes them the pinned ones of a set; → its config."""

    def make(name: str, files: dict[str, str | dict[str, str]], counts: Counts | None = None) -> schema.Data:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        for file, content in files.items():
            if isinstance(content, dict):
                archive(folder / file, content)
            else:
                (folder / file).write_text(content, encoding="utf-8", newline="")
        cls = cls_of(name)
        for which in ("FILES", "OPTIONAL"):
            pins = {
                file: dataclasses.replace(pin, sha256="", git_id=pinned.git_object_id((folder / file).read_bytes()))
                for file, pin in getattr(cls, which).items()
                if (folder / file).is_file()
            }
            monkeypatch.setattr(cls, which, {**getattr(cls, which), **pins})
        if counts is not None:
            monkeypatch.setattr(cls, "COUNTS", counts)
        return schema.Data(name=name, source_dir=str(folder), cache_dir=str(tmp_path / "cache"))

    return make


def prepared(config: schema.Data) -> tuple[Shop, list[str]]:
    said: list[str] = []
    return prepare(config, log=said.append).shop, said


def triples_of(shop: Shop) -> list[tuple[Any, Any, Any, int]]:
    table = shop.triples
    assert table is not None
    rows = zip(table.entities[table.head], table.relations[table.relation], table.entities[table.tail], strict=True)
    return [(*row, int(split)) for row, split in zip(rows, table.split, strict=True)]


# -------------------------------------------------------------------------------------------------------------- pins
@pytest.mark.parametrize("name", NAMES)
def test_every_file_is_pinned_to_a_commit(name: str) -> None:
    cls = cls_of(name)
    assert name in SOURCES and cls.name == name and cls.SUMMARY.count("\n") == 0
    for file, pin in {**cls.FILES, **cls.OPTIONAL}.items():
        parts = pin.url.split("/")
        assert pin.url.startswith("https://raw.githubusercontent.com/") and len(parts[5]) == 40, file
        assert (pin.size > 0 and len(pin.sha256) == 64) if pin.sha256 else len(pin.git_id) == 40
    infos: Any = cls.url_infos
    for pin in cls.FILES.values():
        if pin.sha256:
            assert infos[pin.url].size == pin.size and infos[pin.url].checksum == pin.sha256
    assert cls.key(schema.Data(name=name)) == {"files": {file: pin.checksum for file, pin in cls.FILES.items()}}


def test_git_object_id() -> None:
    assert pinned.git_object_id(b"") == "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"
    assert pinned.git_object_id(b"hello\n") == "ce013625030ba8dba906f756967f9e9ca394464a"


def test_another_file_is_refused(fake: Any) -> None:
    config = fake("kinship", {})
    with pytest.raises(UserError, match=r"kinship\.tar\.gz: no such file \(expected 42,703 bytes"):
        prepared(config)
    archive(Path(config.source_dir) / "kinship.tar.gz", TRIPLES)
    with pytest.raises(UserError, match=r"kinship\.tar\.gz: \d+ bytes, expected 42,703"):
        prepared(config)
    with pytest.raises(UserError, match=r"data\.source_dir: no folder"):
        prepared(config.model_copy(update={"source_dir": f"{config.source_dir}/none"}))
    config = fake("yago3_10", {})
    with pytest.raises(UserError, match=r"YAGO3-10\.tar\.gz: no such file \(get it from https://raw"):
        prepared(config)
    archive(Path(config.source_dir) / "YAGO3-10.tar.gz", TRIPLES)
    with pytest.raises(UserError, match=r"YAGO3-10\.tar\.gz: git object id \w{40}, expected be63d169"):
        prepared(config)


def test_without_a_network_one_line_says_what_to_do(tmp_path: Path) -> None:
    # conftest forbids connections.
    with pytest.raises(
        UserError, match=r"umls: cannot download from raw\.githubusercontent\.com .*umls\.tar\.gz.*FOLDER"
    ) as caught:
        prepare(schema.Data(name="umls", cache_dir=str(tmp_path)), log=lambda line: None)
    assert "\n" not in str(caught.value)
    for name, file in (("yago3_10", r"YAGO3-10\.tar\.gz"), ("codex_l", r"train\.txt")):
        with pytest.raises(UserError, match=rf"data\.source_dir: {name} cannot be downloaded, the SHA-256 of {file} .*unknown"):
            prepare(schema.Data(name=name, cache_dir=str(tmp_path)), log=lambda line: None)


def test_counts_must_hold(fake: Any) -> None:
    config = fake("nations", {"nations.tar.gz": TRIPLES})
    with pytest.raises(
        UserError, match=r"^nations: 2 train, expected 1,592; 1 valid, expected 199; .*; 2 relations, expected 55$"
    ):
        prepared(config)


# ------------------------------------------------------------------------------------------------------------- parse
def test_archives_nothing_dropped_and_everything_said(fake: Any) -> None:
    crlf = {name: text.replace("\n", "\r\n") for name, text in TRIPLES.items()}
    crlf["valid.txt"] += "a\tr\tb\r\n"  # a training triple too
    config = fake("kinship", {"kinship.tar.gz": {f"./{name}": text for name, text in crlf.items()}}, Counts(2, 2, 1, 4, 2))
    shop, said = prepared(config)
    assert triples_of(shop) == [
        ("a", "r", "b", 0),
        ("b", "s", "c", 0),
        ("c", "r", "a", 1),
        ("a", "r", "b", 1),
        ("a", "s", "d", 2),
    ]
    assert shop.entities is None and shop.relations is None
    notes = [line for line in said if line.startswith("kinship: ")]
    assert notes == [
        "kinship: train.txt: 2 line ends are CRLF: none of it is part of a name",
        "kinship: valid.txt: 2 line ends are CRLF: none of it is part of a name",
        "kinship: test.txt: 1 line ends are CRLF: none of it is part of a name",
        "kinship: valid.txt: triples that train.txt has too: 1, kept as published (line 2 first)",
        "kinship: test.txt: triples with an entity (1) or a relation (0) that no training triple has: 1 of 1, "
        "kept (ranked, but right only by luck) (line 1 first)",
    ]
    again, said = prepared(config)  # from the cache: the same, and said again
    assert said == notes and again.fingerprint() == shop.fingerprint()


def test_broken_archives_are_named(fake: Any, tmp_path: Path) -> None:
    config = fake("kinship", {"kinship.tar.gz": {"train.txt": "a\tr\tb\n"}})
    with pytest.raises(UserError, match=r"kinship\.tar\.gz: holds no valid\.txt"):
        prepared(config)
    with pytest.raises(UserError, match=r"kinship\.tar\.gz: not a readable tar archive"):
        prepared(fake("kinship", {"kinship.tar.gz": "no archive"}))


def test_fb15k237_words(fake: Any) -> None:
    files = {
        "FB15k-237.tar.gz": TRIPLES,
        "entity2text.txt": "a\tAda -- the first\nb\tBab\nx\tElsewhere\n",
        "fb-entity2text-new.txt": "a\tAda -- the first -- was a mathematician\nb\tBab -- knew -- her\nc\tCee\n",
        "relation2text.txt": "r\tknows of\n",
    }
    shop, _ = prepared(fake("fb15k237", files, Counts(2, 1, 1, 4, 2)))
    assert shop.entities is not None and shop.relations is not None
    assert shop.entities.id.tolist() == ["a", "b"]
    assert shop.entities.name.tolist() == ["Ada -- the first", "Bab"]
    assert shop.entities.description.tolist() == ["was a mathematician", "knew -- her"]
    assert shop.relations.id.tolist() == ["r"] and shop.relations.name.tolist() == ["knows of"]


def test_wn18rr_and_umls_words(fake: Any) -> None:
    files: dict[str, Any] = {
        "WN18RR.tar.gz": TRIPLES,
        "entity2text.txt": "a\tstool, solid product, evacuated\nd\tword\n",
        "relation2text.txt": "r\thas part\ns\tsee also\n",
    }
    shop, _ = prepared(fake("wn18rr", files, Counts(2, 1, 1, 4, 2)))
    assert shop.entities is not None and shop.entities.id.tolist() == ["a", "d"]
    assert shop.entities.name.tolist() == ["stool", "word"]
    assert shop.entities.description.tolist() == ["solid product, evacuated", ""]
    triples = {name: text.replace("a", "gene_or_genome") for name, text in TRIPLES.items()}
    files = {"umls.tar.gz": triples, "umls_entity2textlong.txt": "gene_or_genome\tA gene is a unit\n"}
    shop, _ = prepared(fake("umls", files, Counts(2, 1, 1, 4, 2)))
    assert shop.entities is not None and shop.entities.name[0] == "gene or genome"
    assert shop.entities.description[0] == "A gene is a unit" and len(shop.entities) == 4


def test_codex(fake: Any) -> None:
    files = {
        **TRIPLES,
        "valid_negatives.txt": "c\ts\ta\n",
        "test_negatives.txt": "d\ts\ta\nb\tr\ta\n",
        "relations_en.json": json.dumps(
            {"s": {"label": "sees", "description": None}, "zz": {"label": None, "description": ""}}
        ),
    }
    config = fake("codex_s", files, Counts(2, 1, 1, 4, 2))
    shop, said = prepared(config)
    assert shop.entities is None and any("entities have no names" in line and codex.ENTITIES in line for line in said)
    assert shop.relations is not None and shop.relations.name.tolist() == ["sees"]
    false = shop.negatives
    assert false is not None and false.split.tolist() == [VALID, TEST, TEST]
    assert false.entities[false.head].tolist() == ["c", "d", "b"]
    # With the entities' file it is another shop: another key, another place in the cache.
    files[codex.ENTITIES] = json.dumps(
        {"d": {"label": "Dee", "description": None}, "a": {"label": "Ay", "description": "first"}}
    )
    shop, said = prepared(fake("codex_s", files, Counts(2, 1, 1, 4, 2)))
    assert shop.entities is not None and shop.entities.id.tolist() == ["a", "d"]
    assert shop.entities.name.tolist() == ["Ay", "Dee"] and shop.entities.description.tolist() == ["first", ""]
    assert not any("entities have no names" in line for line in said)


@pytest.mark.parametrize("text", ["[]", "{", '{"a": {"label": "x"}}', '{"a": 3}'])
def test_labels_that_are_none_are_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "labels.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"labels\.json: expected an object of labels and descriptions by id"):
        codex.labels(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"a\tx\nb\n", r"line 2: expected 2 columns \(id, text\) separated by tabs, got 1: 'b'"),
        (b"a\tx\tz\n", r"line 1: .*got 3"),
        (b"\n\tx\n", r"line 2: .*got 2"),
        (b"a\tx\nb\ty\na\tz\n", r"line 3: 'a' stands further up already"),
        (b"a\tx\nb\tcaf\xe9\n", r"line 2: not UTF-8, bytes e9 0a"),
    ],
)
def test_words_that_do_not_fit_are_named(text: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_bytes(text)
    with pytest.raises(UserError, match=rf"words\.txt, {message}"):
        words.pairs(path)
    path.write_bytes(b"\xef\xbb\xbfa\tx\r\n\r\nb\t y \r\n")
    assert words.pairs(path) == {"a": "x", "b": "y"}


# ------------------------------------------------------------------------------------------------------- real counts
FOLDERS = {"codex_s": "codex_s", "fb15k237": "fb15k237", "wn18rr": "wn18rr"} | dict.fromkeys(
    ("umls", "kinship", "nations"), "kg_small"
)
SHARED = pytest.mark.skipif(
    "FUSIONJAX_SHARED_DATA" not in os.environ, reason="set FUSIONJAX_SHARED_DATA to a folder with codex_s/, fb15k237/, …"
)


@SHARED
@pytest.mark.parametrize(
    ("name", "splits", "entities", "relations", "negatives", "words", "unseen"),
    [
        ("codex_s", (32_888, 1_827, 1_828), 2_034, 42, (1_827, 1_828), 0, 0),
        ("fb15k237", (272_115, 17_535, 20_466), 14_541, 237, None, 14_541, 36),
        ("wn18rr", (86_835, 3_034, 3_134), 40_943, 11, None, 40_943, 384),
        ("umls", (5_216, 652, 661), 135, 46, None, 135, 0),
        ("kinship", (8_544, 1_068, 1_074), 104, 25, None, 0, 0),
        ("nations", (1_592, 199, 201), 14, 55, None, 0, 0),
    ],
)
def test_counts_of_the_real_files(
    name: str,
    splits: tuple[int, int, int],
    entities: int,
    relations: int,
    negatives: tuple[int, int] | None,
    words: int,
    unseen: int,
    tmp_path: Path,
) -> None:
    folder = Path(os.environ["FUSIONJAX_SHARED_DATA"]) / FOLDERS[name]
    config = schema.Data(name=name, source_dir=str(folder), cache_dir=str(tmp_path))
    shop, said = prepared(config)
    graph = build_graph(shop, config.graph, config.split)
    assert tuple(len(graph.triples(split)) for split in (TRAIN, VALID, TEST)) == splits  # so no triple stands in two
    assert (len(graph.entities), len(graph.relations)) == (entities, relations)
    assert shop.triples is not None and graph.entities.tolist() == shop.triples.entities.tolist()
    false = [false_triples(shop, graph, split) for split in (VALID, TEST)]
    assert [part if part is None else len(part) for part in false] == list(negatives or (None, None))
    assert sum(map(bool, entity_words(shop, graph)[1] or [])) == words
    assert len(set(range(entities)) - set(graph.triples(TRAIN)[:, [0, 2]].ravel().tolist())) == unseen
    assert not any("has too" in line for line in said)
    assert not any("\r" in str(entity) for entity in graph.entities)


@SHARED
def test_describe_names_entities(tmp_path: Path) -> None:
    folder = Path(os.environ["FUSIONJAX_SHARED_DATA"]) / "kg_small"
    found = describe(schema.Data(name="umls", source_dir=str(folder), cache_dir=str(tmp_path)), log=lambda line: None)
    assert found.graph == {"entities": 135, "relations": 46}
    assert found.samples["triples"][0]["head"] == "acquired abnormality"
    assert sum(found.relations["location of"].values()) > 0


@SHARED
def test_one_flipped_byte_does_not_pass(tmp_path: Path) -> None:
    data = bytearray((Path(os.environ["FUSIONJAX_SHARED_DATA"]) / "kg_small" / "nations.tar.gz").read_bytes())
    data[100] ^= 1
    (tmp_path / "nations.tar.gz").write_bytes(data)
    with pytest.raises(UserError, match="SHA-256"):
        prepared(schema.Data(name="nations", source_dir=str(tmp_path), cache_dir=str(tmp_path / "cache")))


def test_first_appearance_numbers_entities(fake: Any) -> None:
    shop, _ = prepared(fake("kinship", {"kinship.tar.gz": TRIPLES}, Counts(2, 1, 1, 4, 2)))
    assert shop.triples is not None and shop.triples.entities.tolist() == ["a", "b", "c", "d"]
    assert shop.triples.relations.tolist() == ["r", "s"] and shop.triples.head.dtype == np.int32
