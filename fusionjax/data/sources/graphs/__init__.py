"""Knowledge graphs: the public benchmarks, pinned and counted, and any folder of triples.

`../pinned.py` finds and checks files, `read.py` reads a file of triples, `join.py` makes one table of the splits, `words.py`
reads names and descriptions. `benchmark.py` is what the published sets have in common; each is a module that names its files
and says how its words are written. `triples.py` is the source for graphs of one's own.

Entities and relations are numbered in order of first appearance over training, validation and test, head before tail.
"""
