"""YAGO3-10: people and places of YAGO3, each entity with ten relations or more; ids are readable names.

Mahdisoltani et al., "YAGO3" (CIDR 2015), in the selection of Dettmers et al. (AAAI 2018), https://github.com/TimDettmers/ConvE
(MIT), pinned to a commit.

The archive's SHA-256 and size could not be learnt (larger than 4 MiB, it was not in reach): it is pinned by its git object id,
and must be brought in `data.source_dir`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import tensorflow_datasets as tfds

from fusionjax.data.shop import Shop
from fusionjax.data.sources import pinned
from fusionjax.data.sources.graphs.benchmark import BenchmarkBuilder, Counts

ARCHIVE = "YAGO3-10.tar.gz"


class Yago310Builder(BenchmarkBuilder):
    name = "yago3_10"
    SUMMARY = "YAGO3-10: 1,089,040 triples of 123,182 people, places and works and 37 relations (data.source_dir)."
    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar = {"1.0.0": "First."}
    FILES: ClassVar = {
        ARCHIVE: pinned.Pin(
            f"https://raw.githubusercontent.com/TimDettmers/ConvE/f3c0eb286025410fa5b4c04696c918264163d0ca/{ARCHIVE}",
            git_id="be63d16955e1951cb6539710204af43cb38da7d9",
        )
    }
    COUNTS = Counts(1_079_040, 5_000, 5_000, 123_182, 37)

    def parse(self, paths: Mapping[str, Path]) -> Shop:
        return Shop(name=self.name, triples=self.archived(paths[ARCHIVE]))
