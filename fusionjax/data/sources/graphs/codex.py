"""CoDEx: facts about people, places and works out of Wikidata, in three sizes, with hard negatives.

Safavi and Koutra, "CoDEx: A Comprehensive Knowledge Graph Completion Benchmark" (EMNLP 2020), https://github.com/tsafavi/codex,
MIT licence, pinned to a commit. Sizes S and M have triples known to be false, checked by people: they look true to a model, and
serve triple classification.

Relations bear Wikidata's English labels. Those of entities, with descriptions, stand in one large file of all three sizes,
`data/entities/en/entities.json`, which is read where `data.source_dir` holds it as `entities_en.json`.

SHA-256 could not be learnt of two files larger than 4 MiB, which were not in reach: `entities_en.json`, and `train.txt` of size
L. They are pinned by their git object ids; so `codex_l` needs `data.source_dir`, and the entities' file is never downloaded.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import tensorflow_datasets as tfds

from fusionjax.data.shop import TEST, VALID, Shop
from fusionjax.data.sources import pinned
from fusionjax.data.sources.graphs import words
from fusionjax.data.sources.graphs.benchmark import MEMBERS, BenchmarkBuilder, Counts
from fusionjax.data.sources.graphs.join import negatives
from fusionjax.data.sources.graphs.read import Vocabulary, read_triples
from fusionjax.errors import UserError

ORIGIN = "https://raw.githubusercontent.com/tsafavi/codex/3132e426c2a6b643b70bad679905a3a6270be440/data"
RELATIONS = "relations_en.json"
ENTITIES = "entities_en.json"
NEGATIVES = {VALID: "valid_negatives.txt", TEST: "test_negatives.txt"}


class CodexBuilder(BenchmarkBuilder):
    """What the sizes share."""

    OPTIONAL: ClassVar = {
        ENTITIES: pinned.Pin(f"{ORIGIN}/entities/en/entities.json", git_id="4d16d7251779deae3b264da1a43a73ed944f4932")
    }

    def parse(self, paths: Mapping[str, Path]) -> Shop:
        vocabulary = Vocabulary()
        triples = self.triples([read_triples(paths[name], vocabulary, name=name) for name in MEMBERS], vocabulary)
        known = len(vocabulary.entity), len(vocabulary.relation)
        false = {split: read_triples(paths[name], vocabulary, name=name) for split, name in NEGATIVES.items() if name in paths}
        table, notes = negatives(false, vocabulary, known, triples)
        self.notes += notes
        entities = None
        if ENTITIES in paths:
            entities = words.entities(triples.entities, *labels(paths[ENTITIES]))
        else:
            url = self.OPTIONAL[ENTITIES].url
            self.notes.append(f"entities have no names or descriptions; for these put {url} into data.source_dir as {ENTITIES}")
        names, _ = labels(paths[RELATIONS])
        return Shop(
            name=self.name,
            triples=triples,
            entities=entities,
            relations=words.relations(triples.relations, names),
            negatives=table,
        )


def labels(path: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Labels and descriptions by id, of `{"Q1": {"label": …, "description": …}, …}`; null is ''."""
    try:
        found: Any = json.loads(path.read_bytes())
        return (
            {id: record["label"] or "" for id, record in found.items()},
            {id: record["description"] or "" for id, record in found.items()},
        )
    except (ValueError, AttributeError, TypeError, KeyError) as error:
        raise UserError(f"{path}: expected an object of labels and descriptions by id ({error!r})") from None


class CodexSBuilder(CodexBuilder):
    name = "codex_s"
    SUMMARY = "CoDEx-S: 36,543 triples of 2,034 Wikidata entities and 42 relations, with 3,655 hard negatives."
    VERSION = tfds.core.Version("1.0.1")
    RELEASE_NOTES: ClassVar = {"1.0.1": "First."}
    FILES: ClassVar = pinned.pins("codex_s")
    COUNTS = Counts(32_888, 1_827, 1_828, 2_034, 42)
    url_infos = pinned.url_infos("codex_s")


class CodexMBuilder(CodexBuilder):
    name = "codex_m"
    SUMMARY = "CoDEx-M: 206,205 triples of 17,050 Wikidata entities and 51 relations, with 20,621 hard negatives."
    VERSION = tfds.core.Version("1.0.1")
    RELEASE_NOTES: ClassVar = {"1.0.1": "First."}
    FILES: ClassVar = pinned.pins("codex_m")
    COUNTS = Counts(185_584, 10_310, 10_311, 17_050, 51)
    url_infos = pinned.url_infos("codex_m")


class CodexLBuilder(CodexBuilder):
    name = "codex_l"
    SUMMARY = "CoDEx-L: 612,437 triples of 77,951 Wikidata entities and 69 relations (data.source_dir)."
    VERSION = tfds.core.Version("1.0.1")
    RELEASE_NOTES: ClassVar = {"1.0.1": "First."}
    FILES: ClassVar = {
        "train.txt": pinned.Pin(f"{ORIGIN}/triples/codex-l/train.txt", git_id="be8735738ba4728430922c630f25bf01bcc9eaac"),
        **pinned.pins("codex_l"),
    }
    COUNTS = Counts(551_193, 30_622, 30_622, 77_951, 69)
    url_infos = pinned.url_infos("codex_l")
