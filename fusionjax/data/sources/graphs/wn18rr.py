"""WN18RR: WordNet without the inverse relations of WN18, with a definition of each entity, which is a sense of a word.

Dettmers et al., "Convolutional 2D Knowledge Graph Embeddings" (AAAI 2018). Triples from https://github.com/TimDettmers/ConvE
(MIT), words and definitions from KG-BERT (https://github.com/yao8839836/kg-bert, Apache-2.0); WordNet licence; all pinned to
commits. A text is written `word, definition`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import tensorflow_datasets as tfds

from fusionjax.data.shop import Shop
from fusionjax.data.sources import pinned
from fusionjax.data.sources.graphs import words
from fusionjax.data.sources.graphs.benchmark import BenchmarkBuilder, Counts


class Wn18rrBuilder(BenchmarkBuilder):
    name = "wn18rr"
    SUMMARY = "WN18RR: 93,003 triples of 40,943 WordNet senses and 11 relations, with words and definitions."
    VERSION = tfds.core.Version("1.0.1")
    RELEASE_NOTES: ClassVar = {"1.0.1": "First."}
    FILES: ClassVar = pinned.pins("wn18rr")
    COUNTS = Counts(86_835, 3_034, 3_134, 40_943, 11)
    url_infos = pinned.url_infos("wn18rr")

    def parse(self, paths: Mapping[str, Path]) -> Shop:
        triples = self.archived(paths["WN18RR.tar.gz"])
        return Shop(
            name=self.name,
            triples=triples,
            entities=words.entities(triples.entities, *words.split_name(words.pairs(paths["entity2text.txt"]), ", ")),
            relations=words.relations(triples.relations, words.pairs(paths["relation2text.txt"])),
        )
