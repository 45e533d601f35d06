"""Graphs to measure on, as one file for both sides: triples of numbers, without names.

    python -m benchmarks.kge.graph OUT.npz --folder FOLDER
    python -m benchmarks.kge.graph OUT.npz --entities 1000000 --triples 5000000 [--relations 50] [--seed 0]

The first reads train.txt, valid.txt and test.txt of a folder, or of a .tar.gz of them. The second draws heads and tails by
Zipf's law, so few entities have many triples and most have few, as in real graphs.
"""

import argparse
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np


class Graph(NamedTuple):
    """Triples `int64 [n, 3]` of (head, relation, tail)."""

    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray
    n_entities: int
    n_relations: int


def save(file: Path, graph: Graph) -> None:
    arrays: dict[str, Any] = graph._asdict()
    np.savez(file, **arrays)


def load(file: Path) -> Graph:
    with np.load(file) as found:
        return Graph(*(found[name] for name in Graph._fields[:3]), *(int(found[name]) for name in Graph._fields[3:]))


def read(source: Path) -> Graph:
    """A folder, or a .tar.gz, with train.txt, valid.txt and test.txt, each line `head TAB relation TAB tail`.

    Entities and relations are numbered in the order of their names, over all three files.
    """
    if source.is_dir():
        parts = [_rows((source / f"{name}.txt").read_bytes()) for name in Graph._fields[:3]]
    else:
        with tarfile.open(source) as archive:
            members = {Path(member.name).name: member for member in archive.getmembers()}
            files = [archive.extractfile(members[f"{name}.txt"]) for name in Graph._fields[:3]]
            parts = [_rows(file.read()) for file in files if file is not None]
    everything = np.concatenate(parts)
    entities = np.unique(everything[:, [0, 2]])
    relations = np.unique(everything[:, 1])

    def numbers(rows: np.ndarray) -> np.ndarray:
        columns = [np.searchsorted(names, rows[:, at]) for at, names in enumerate((entities, relations, entities))]
        return np.stack(columns, axis=1).astype(np.int64)

    train, valid, test = map(numbers, parts)
    return Graph(train, valid, test, len(entities), len(relations))


def zipf(
    n_entities: int, n_relations: int, n_triples: int, seed: int = 0, *, exponent: float = 0.75, held_out: int = 1000
) -> Graph:
    """Random distinct triples without loops; the k-th most frequent entity has a share ∝ k^-exponent.

    Entity numbers say nothing of frequency. `valid` and `test` have `held_out` of the triples each.
    """
    generator = np.random.Generator(np.random.Philox(seed))
    entities = generator.permutation(n_entities)
    heads, relations = _zipf_drawer(generator, n_entities, exponent), _zipf_drawer(generator, n_relations, exponent)

    def draw(size: int) -> np.ndarray:
        return np.stack([entities[heads(size)], relations(size), entities[heads(size)]], axis=1)

    return _split(_distinct(draw, generator, n_entities, n_relations, n_triples), n_entities, n_relations, held_out)


def grid(side: int, n_relations: int, n_triples: int, seed: int = 0, *, held_out: int = 400) -> Graph:
    """A graph that a model can learn: entities are points of a square grid, a relation leads about so far that way."""
    generator = np.random.Generator(np.random.Philox(seed))
    steps = generator.integers(-side // 3, side // 3 + 1, (n_relations, 2))

    def draw(size: int) -> np.ndarray:
        head, relation = generator.integers(side, size=(size, 2)), generator.integers(n_relations, size=size)
        tail = head + steps[relation] + generator.integers(-1, 2, (size, 2))
        rows = np.stack([head @ [side, 1], relation, tail @ [side, 1]], axis=1)
        return rows[((tail >= 0) & (tail < side)).all(1)]

    return _split(_distinct(draw, generator, side * side, n_relations, n_triples), side * side, n_relations, held_out)


def _rows(text: bytes) -> np.ndarray:
    return np.array([line.rstrip("\r").split("\t") for line in text.decode().split("\n") if line.strip()])


def _zipf_drawer(generator: np.random.Generator, n: int, exponent: float) -> Callable[[int], np.ndarray]:
    steps = np.cumsum(np.arange(1, n + 1) ** -exponent)
    return lambda size: np.minimum(np.searchsorted(steps, generator.random(size) * steps[-1]), n - 1)


def _distinct(
    draw: Callable[[int], np.ndarray], generator: np.random.Generator, n_entities: int, n_relations: int, n_triples: int
) -> np.ndarray:
    keys = np.zeros(0, np.int64)
    while len(keys) < n_triples:
        before = len(keys)
        head, relation, tail = draw(n_triples - before + n_triples // 50 + 16).astype(np.int64).T
        keys = np.union1d(keys, ((head * n_relations + relation) * n_entities + tail)[head != tail])
        if len(keys) == before:
            raise ValueError(f"found {before} distinct triples of {n_entities} entities, expected {n_triples}")
    keys = generator.permutation(keys)[:n_triples]
    pair, tail = np.divmod(keys, n_entities)
    return np.stack([*np.divmod(pair, n_relations), tail], axis=1)


def _split(triples: np.ndarray, n_entities: int, n_relations: int, held_out: int) -> Graph:
    valid, test, train = np.split(triples, [held_out, 2 * held_out])
    return Graph(train, valid, test, n_entities, n_relations)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--entities", type=int, default=10_000)
    parser.add_argument("--relations", type=int, default=50)
    parser.add_argument("--triples", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.folder:
        graph = read(arguments.folder)
    else:
        graph = zipf(arguments.entities, arguments.relations, arguments.triples, arguments.seed)
    save(arguments.out, graph)
    sizes = " / ".join(f"{len(part):,}" for part in graph[:3])
    print(f"{sizes} triples, {graph.n_entities:,} entities, {graph.n_relations} relations")


if __name__ == "__main__":
    main()
