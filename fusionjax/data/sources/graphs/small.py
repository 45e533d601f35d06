"""UMLS, Kinship and Nations: three graphs so small that a model of them is trained in seconds.

Kok and Domingos, "Statistical Predicate Invention" (ICML 2007), split by https://github.com/TimDettmers/ConvE (MIT), pinned to
a commit. UMLS, semantic types of medicine, has long texts from KG-BERT (https://github.com/yao8839836/kg-bert, Apache-2.0),
some about other things of the same name; its names are the ids with spaces for underscores. The other two have no words.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import tensorflow_datasets as tfds

from fusionjax.data.shop import Shop
from fusionjax.data.sources import pinned
from fusionjax.data.sources.graphs import words
from fusionjax.data.sources.graphs.benchmark import BenchmarkBuilder, Counts


class UmlsBuilder(BenchmarkBuilder):
    name = "umls"
    SUMMARY = "UMLS: 6,529 triples of 135 semantic types of medicine and 46 relations, with long texts."
    VERSION = tfds.core.Version("1.0.1")
    RELEASE_NOTES: ClassVar = {"1.0.1": "First."}
    FILES: ClassVar = pinned.pins("umls")
    COUNTS = Counts(5_216, 652, 661, 135, 46)
    url_infos = pinned.url_infos("umls")

    def parse(self, paths: Mapping[str, Path]) -> Shop:
        triples = self.archived(paths["umls.tar.gz"])
        return Shop(
            name=self.name,
            triples=triples,
            entities=words.entities(
                triples.entities,
                {id: id.replace("_", " ") for id in triples.entities},
                words.pairs(paths["umls_entity2textlong.txt"]),
            ),
            relations=words.relations(triples.relations, {id: id.replace("_", " ") for id in triples.relations}),
        )


class KinshipBuilder(BenchmarkBuilder):
    name = "kinship"
    SUMMARY = "Kinship: 10,686 triples of 104 people of one tribe and 25 relations."
    VERSION = tfds.core.Version("1.0.1")
    RELEASE_NOTES: ClassVar = {"1.0.1": "First."}
    FILES: ClassVar = pinned.pins("kinship")
    COUNTS = Counts(8_544, 1_068, 1_074, 104, 25)
    url_infos = pinned.url_infos("kinship")

    def parse(self, paths: Mapping[str, Path]) -> Shop:
        return Shop(name=self.name, triples=self.archived(paths["kinship.tar.gz"]))


class NationsBuilder(BenchmarkBuilder):
    name = "nations"
    SUMMARY = "Nations: 1,992 triples of 14 countries and 55 relations."
    VERSION = tfds.core.Version("1.0.1")
    RELEASE_NOTES: ClassVar = {"1.0.1": "First."}
    FILES: ClassVar = pinned.pins("nations")
    COUNTS = Counts(1_592, 199, 201, 14, 55)
    url_infos = pinned.url_infos("nations")

    def parse(self, paths: Mapping[str, Path]) -> Shop:
        return Shop(name=self.name, triples=self.archived(paths["nations.tar.gz"]))
