"""What the published sets have in common: pinned files, counts that must hold, and nothing dropped."""

import abc
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from fusionjax.config import schema
from fusionjax.data.shop import SPLITS, TEST, TRAIN, VALID, Shop, Triples
from fusionjax.data.sources import pinned
from fusionjax.data.sources.graphs.join import join
from fusionjax.data.sources.graphs.read import TriplesFile, Vocabulary, read_members
from fusionjax.data.tables import ShopBuilder
from fusionjax.errors import UserError

MEMBERS = ("train.txt", "valid.txt", "test.txt")
"""Names of the splits' files."""


class Counts(NamedTuple):
    """As published."""

    train: int
    valid: int
    test: int
    entities: int
    relations: int

    def check(self, name: str, triples: Triples) -> None:
        """Raises `UserError` naming each count that does not hold."""
        train, valid, test = (int(np.sum(triples.split == code)) for code in range(len(SPLITS)))
        found = Counts(train, valid, test, len(triples.entities), len(triples.relations))
        wrong = [
            f"{got:,} {what}, expected {expected:,}"
            for what, got, expected in zip(Counts._fields, found, self, strict=True)
            if got != expected
        ]
        if wrong:
            raise UserError(f"{name}: {'; '.join(wrong)}")


class BenchmarkBuilder(ShopBuilder):
    """A published set. A subclass names its files and counts, and parses."""

    FILES: ClassVar[Mapping[str, pinned.Pin]] = {}
    OPTIONAL: ClassVar[Mapping[str, pinned.Pin]] = {}
    """Read where `data.source_dir` has them."""
    COUNTS: ClassVar[Counts]

    @classmethod
    def files(cls, config: schema.Data) -> dict[str, pinned.Pin]:
        """What this config reads: `FILES`, and those of `OPTIONAL` that are there."""
        folder = None if config.source_dir is None else Path(config.source_dir).expanduser()
        there = {name: pin for name, pin in cls.OPTIONAL.items() if folder is not None and (folder / name).is_file()}
        return {**cls.FILES, **there}

    @classmethod
    def key(cls, config: schema.Data) -> dict[str, Any]:
        return {"files": {name: pin.checksum for name, pin in cls.files(config).items()}}

    def read(self, dl_manager: tfds.download.DownloadManager) -> Shop:
        paths = pinned.locate(self.name, self.files(self.source), self.source, dl_manager)
        shop = self.parse(paths)
        assert shop.triples is not None
        self.COUNTS.check(self.name, shop.triples)
        return shop

    @abc.abstractmethod
    def parse(self, paths: Mapping[str, Path]) -> Shop:
        """Reads the shop from files that are what they should be; what to say goes to `self.notes`."""

    def triples(self, files: list[TriplesFile], vocabulary: Vocabulary) -> Triples:
        """Training, validation and test joined; oddities are kept, as published, and noted."""
        table, notes = join(
            dict(zip((TRAIN, VALID, TEST), files, strict=True)), vocabulary, on_duplicate="keep", on_unseen="keep"
        )
        self.notes += notes
        return table

    def archived(self, path: Path) -> Triples:
        """The triples of a tar archive of the three files."""
        vocabulary = Vocabulary()
        return self.triples(read_members(path, MEMBERS, vocabulary), vocabulary)
