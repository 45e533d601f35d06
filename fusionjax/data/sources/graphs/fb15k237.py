"""FB15k-237: Freebase without its inverse relations, with a name and a description of each entity.

Toutanova and Chen, "Observed versus latent features for knowledge base and text inference" (2015); Freebase, CC BY 2.5. Triples
as ConvE distributes them (https://github.com/TimDettmers/ConvE, MIT); names of entities and relations from KG-BERT
(https://github.com/yao8839836/kg-bert, Apache-2.0), one-sentence descriptions from StAR (https://github.com/wangbo9719/StAR_KGC,
no licence stated); all pinned to commits.

The archive's lines end in CRLF: taken as part of the tail, its `\\r` would make 27,395 entities of 14,541.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import tensorflow_datasets as tfds

from fusionjax.data.shop import Shop
from fusionjax.data.sources import pinned
from fusionjax.data.sources.graphs import words
from fusionjax.data.sources.graphs.benchmark import BenchmarkBuilder, Counts


class Fb15k237Builder(BenchmarkBuilder):
    name = "fb15k237"
    SUMMARY = "FB15k-237: 310,116 triples of 14,541 Freebase entities and 237 relations, with names and descriptions."
    VERSION = tfds.core.Version("1.0.1")
    RELEASE_NOTES: ClassVar = {"1.0.1": "First."}
    FILES: ClassVar = pinned.pins("fb15k237")
    COUNTS = Counts(272_115, 17_535, 20_466, 14_541, 237)
    url_infos = pinned.url_infos("fb15k237")

    def parse(self, paths: Mapping[str, Path]) -> Shop:
        triples = self.archived(paths["FB15k-237.tar.gz"])
        names = words.pairs(paths["entity2text.txt"])
        descriptions: dict[str, str] = {}
        for id, text in words.pairs(paths["fb-entity2text-new.txt"]).items():
            # `name -- description`, and a name may hold ` -- ` itself.
            start = f"{names.get(id, '')} -- "
            descriptions[id] = text[len(start) :] if text.startswith(start) else text.partition(" -- ")[2]
        return Shop(
            name=self.name,
            triples=triples,
            entities=words.entities(triples.entities, names, descriptions),
            relations=words.relations(triples.relations, words.pairs(paths["relation2text.txt"])),
        )
