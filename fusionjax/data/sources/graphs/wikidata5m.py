"""Wikidata5M: five million Wikidata entities, each with the first section of its Wikipedia article.

Wang et al., "KEPLER: A Unified Model for Knowledge Embedding and Pre-trained Language Representation" (TACL 2021); CC0.

The origin, https://deepgraphlearning.github.io/project/wikidata5m, links to Dropbox, with no checksums: the files cannot be
pinned and must be brought in `data.source_dir`, unpacked. Their SHA-256 are part of the key: two versions are two data sets.

    wikidata5m_transductive_{train,valid,test}.txt   or wikidata5m_inductive_…, as `data.wikidata5m.variant` says; required
    wikidata5m_text.txt                              id, description
    wikidata5m_entity.txt, wikidata5m_relation.txt   id, aliases …: the first is the name

Where the number of triples is not the published one, this is said and the files are read all the same.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import tensorflow_datasets as tfds

from fusionjax.config import schema
from fusionjax.data.shop import TEST, TRAIN, VALID, Shop
from fusionjax.data.sources.graphs import words
from fusionjax.data.sources.graphs.join import join
from fusionjax.data.sources.graphs.read import Vocabulary, read_triples
from fusionjax.data.sources.graphs.triples import checksums
from fusionjax.data.sources.pinned import source_dir
from fusionjax.data.tables import ShopBuilder
from fusionjax.errors import UserError

ORIGIN = "https://deepgraphlearning.github.io/project/wikidata5m"
WORDS = ("wikidata5m_text.txt", "wikidata5m_entity.txt", "wikidata5m_relation.txt")
PUBLISHED = {"transductive": (20_614_279, 5_163, 5_133), "inductive": (20_496_514, 6_699, 6_894)}
"""Triples of each split."""


def split_files(variant: str) -> dict[int, str]:
    names = {TRAIN: "train", VALID: "valid", TEST: "test"}
    return {split: f"wikidata5m_{variant}_{name}.txt" for split, name in names.items()}


class Wikidata5mBuilder(ShopBuilder):
    name = "wikidata5m"
    SUMMARY = "Wikidata5M: 20.6 million triples of 4.6 million entities and 822 relations, with texts (data.source_dir)."
    VERSION = tfds.core.Version("1.0.1")
    RELEASE_NOTES: ClassVar = {"1.0.1": "First."}

    @classmethod
    def key(cls, config: schema.Data) -> dict[str, Any]:
        return {"variant": config.wikidata5m.variant, "files": checksums(_find(config).values())}

    def read(self, dl_manager: tfds.download.DownloadManager) -> Shop:
        del dl_manager  # nothing is downloaded
        variant, paths = self.source.wikidata5m.variant, _find(self.source)
        vocabulary = Vocabulary()
        files = {split: read_triples(paths[name], vocabulary) for split, name in split_files(variant).items()}
        triples, notes = join(files, vocabulary, on_duplicate="keep", on_unseen="keep")
        sizes = tuple(len(files[split].triples) for split in (TRAIN, VALID, TEST))
        if sizes != PUBLISHED[variant]:
            notes.append(f"{variant}: {sizes} training, validation and test triples, published are {PUBLISHED[variant]}")
        notes += [f"no {name}: the words in it are missing" for name in WORDS if name not in paths]
        self.notes += notes
        text, entity, relation = (paths.get(name) for name in WORDS)
        known = set(triples.entities)
        names = {} if entity is None else _first_columns(entity, known)
        descriptions = {} if text is None else _first_columns(text, known, rest=True)
        aliases = {} if relation is None else _first_columns(relation, set(triples.relations))
        return Shop(
            name=self.name,
            triples=triples,
            entities=words.entities(triples.entities, names, descriptions),
            relations=words.relations(triples.relations, aliases),
        )


def _find(config: schema.Data) -> dict[str, Path]:
    """File name → path: the three of the splits, and those of the words that are there."""
    folder = source_dir(config, f"data set 'wikidata5m' needs the folder with its unpacked files, from {ORIGIN}")
    needed = [*split_files(config.wikidata5m.variant).values()]
    for name in needed:
        if not (folder / name).is_file():
            raise UserError(f"{folder}: no {name} (get it, unpacked, from {ORIGIN})")
    return {name: folder / name for name in (*needed, *WORDS) if (folder / name).is_file()}


def _first_columns(path: Path, known: set[str], rest: bool = False) -> dict[str, str]:
    """Id → what stands behind it: up to the next tab, or the rest of the line. Only known ids, of two the first."""
    found: dict[str, str] = {}
    for id, text in _columns(path):
        if id in known:
            found.setdefault(id, (text if rest else text.partition("\t")[0]).strip())
    return found


def _columns(path: Path) -> Iterator[tuple[str, str]]:
    for number, line in words.lines(path):
        id, tab, text = line.partition("\t")
        if not id or not tab:
            raise UserError(f"{path.name}, line {number}: expected an id, a tab and text, got {line[:80]!r}")
        yield id, text
