"""Bring your own graph: a folder of triples (`data.source_dir`), read as `data.triples` says.

    train.txt                              required: head, relation, tail, a line each
    valid.txt, test.txt                    without both, `data.split` draws them from train
    valid_negatives.txt, test_negatives.txt  triples known to be false, for triple classification
    entities.tsv                           id, name, description (the latter may be missing)
    relations.tsv                          id, name
    literals.tsv                           entity, attribute, value: numbers about entities

Each may end in .txt, .tsv or .csv. `data.triples.separator` and `columns` are of the files of triples, `header` of all; the
other three always have tabs. Names and numbers of entities that no triple has are left out, and counted.
"""

import hashlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds

from fusionjax.config import schema
from fusionjax.data.shop import TEST, TRAIN, VALID, Entities, Literals, Relations, Shop, text_column
from fusionjax.data.sources.graphs import words
from fusionjax.data.sources.graphs.join import join, negatives
from fusionjax.data.sources.graphs.read import Vocabulary, read_triples
from fusionjax.data.sources.pinned import source_dir
from fusionjax.data.tables import ShopBuilder
from fusionjax.errors import UserError

SUFFIXES = (".txt", ".tsv", ".csv")
SPLIT_FILES = {TRAIN: "train", VALID: "valid", TEST: "test"}
NEGATIVE_FILES = {VALID: "valid_negatives", TEST: "test_negatives"}
WORD_FILES = ("entities", "relations", "literals")

Note = Callable[[str], None]


class TriplesBuilder(ShopBuilder):
    """The folder `data.source_dir` as a data set; `data.triples` says how to read it."""

    name = "triples"
    SUMMARY = "Your own graph: a folder with train.txt, a triple a line, and more files if you have them (data.source_dir)."
    VERSION = tfds.core.Version("1.0.1")
    RELEASE_NOTES: ClassVar = {"1.0.1": "First."}

    @classmethod
    def key(cls, config: schema.Data) -> dict[str, Any]:
        """Names and SHA-256 of the files, and how they are read."""
        return {"files": checksums(find(_folder(config)).values()), **config.triples.model_dump(mode="json")}

    def read(self, dl_manager: tfds.download.DownloadManager) -> Shop:
        """See `read_folder`."""
        del dl_manager  # nothing is downloaded
        return read_folder(_folder(self.source), self.source.triples, self.notes.append)


def _folder(config: schema.Data) -> Path:
    return source_dir(config, "data set 'triples' needs the folder that holds your train.txt")


def checksums(paths: Any) -> dict[str, str]:
    """File name → SHA-256."""
    found: dict[str, str] = {}
    for path in paths:
        try:
            with path.open("rb") as file:
                found[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    return found


def find(folder: Path) -> dict[str, Path]:
    """The file of each part that has one.

    Raises:
      UserError: two files of one part; no train.txt.
    """
    found: dict[str, Path] = {}
    for part in (*SPLIT_FILES.values(), *NEGATIVE_FILES.values(), *WORD_FILES):
        paths = [path for suffix in SUFFIXES if (path := folder / f"{part}{suffix}").is_file()]
        if len(paths) > 1:
            raise UserError(f"{folder}: both {paths[0].name} and {paths[1].name}; keep one")
        if paths:
            found[part] = paths[0]
    if "train" not in found:
        there = ", ".join(sorted(path.name for path in folder.iterdir())[:10]) or "nothing"
        raise UserError(f"{folder}: no train.txt (.tsv, .csv), which holds a triple a line (the folder holds: {there})")
    return found


def read_folder(folder: Path, config: schema.TriplesFiles, note: Note, name: str = "triples") -> Shop:
    """Reads a graph from a folder of the files that the module docstring names.

    Args:
      folder: where they lie.
      config: how they are written, and what becomes of repeated and unseen triples.
      note: told what was odd, dropped or kept all the same, a line each.
      name: the shop's name.

    Raises:
      UserError: a file or line that cannot be used, with file, line, what was expected and what was got.
    """
    paths = find(folder)
    vocabulary = Vocabulary()
    files = {split: read_triples(paths[part], vocabulary, config) for split, part in SPLIT_FILES.items() if part in paths}
    triples, notes = join(files, vocabulary, on_duplicate=config.on_duplicate, on_unseen=config.on_unseen)
    known = len(vocabulary.entity), len(vocabulary.relation)
    false = {split: read_triples(paths[part], vocabulary, config) for split, part in NEGATIVE_FILES.items() if part in paths}
    table, more = negatives(false, vocabulary, known, triples)
    for line in (*notes, *more):
        note(line)
    return Shop(
        name=name,
        triples=triples,
        entities=_entities(paths["entities"], triples.entities, config.header, note) if "entities" in paths else None,
        relations=_relations(paths["relations"], triples.relations, config.header, note) if "relations" in paths else None,
        negatives=table,
        literals=_literals(paths["literals"], triples.entities, config.header, note) if "literals" in paths else None,
    )


def _entities(path: Path, ids: np.ndarray, header: bool, note: Note) -> Entities | None:
    names: dict[str, str] = {}
    descriptions: dict[str, str] = {}
    for line, (id, name, description) in words.columns(path, ("id", "name", "description"), 2, header):
        if id in names:
            raise UserError(f"{path.name}, line {line}: entity '{id}' stands further up already")
        names[id], descriptions[id] = name, description
    _left_out(path, set(names), ids, "entities", note)
    return words.entities(ids, names, descriptions)


def _relations(path: Path, ids: np.ndarray, header: bool, note: Note) -> Relations | None:
    names = words.pairs(path, header)
    _left_out(path, set(names), ids, "relations", note)
    return words.relations(ids, names)


def _left_out(path: Path, named: set[str], ids: np.ndarray, what: str, note: Note) -> None:
    if strange := len(named - set(ids)):
        note(f"{path.name}: {what} that no triple has, left out: {strange:,} of {len(named):,}")


def _literals(path: Path, ids: np.ndarray, header: bool, note: Note) -> Literals | None:
    known = set(ids)
    rows: dict[tuple[str, str], float] = {}
    strange = 0
    for line, (entity, attribute, text) in words.columns(path, ("entity", "attribute", "value"), 3, header):
        if not attribute:
            raise UserError(f"{path.name}, line {line}: attribute is empty")
        try:
            value = math.nan if "_" in text else float(text)
        except ValueError:
            value = math.nan
        if not abs(value) < 3.4e38:
            raise UserError(f"{path.name}, line {line}: value {text[:40]!r}, expected a finite number")
        if (entity, attribute) in rows:
            raise UserError(f"{path.name}, line {line}: {attribute} of '{entity}' stands further up already")
        if entity in known:
            rows[entity, attribute] = value
        else:
            strange += 1
    if strange:
        note(f"{path.name}: numbers about entities that no triple has, left out: {strange:,}")
    if not rows:
        return None
    return Literals(
        entity=text_column(entity for entity, _ in rows),
        attribute=text_column(attribute for _, attribute in rows),
        value=np.fromiter(rows.values(), np.float32, len(rows)),
    )
