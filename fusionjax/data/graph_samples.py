"""Parts of a graph by fixed, published rules: entities held out for inductive experiments, and subgraphs of a chosen size.

Both are functions of the graph and a seed of their own, never of a run's seed: all runs of a study see the same data.
"""

import dataclasses
from collections.abc import Iterator

import numpy as np

from fusionjax.data.knowledge_graph import KnowledgeGraph, induced
from fusionjax.errors import UserError


@dataclasses.dataclass(frozen=True)
class _Neighbours:
    """Training triples by the entity they touch, each under both its ends (a loop once)."""

    offsets: np.ndarray
    other: np.ndarray
    """The entity at the other end."""
    triple: np.ndarray
    """Row of the triple."""

    @classmethod
    def of(cls, train: np.ndarray, n_entities: int) -> "_Neighbours":
        head, tail, rows = train[:, 0], train[:, 2], np.arange(len(train))
        back = head != tail
        end = np.concatenate([head, tail[back]])
        order = np.argsort(end, kind="stable")
        offsets = np.searchsorted(end[order], np.arange(n_entities + 1))
        return cls(offsets, np.concatenate([tail, head[back]])[order], np.concatenate([rows, rows[back]])[order])

    @property
    def degree(self) -> np.ndarray:
        return np.diff(self.offsets)

    def around(self, entities: np.ndarray) -> np.ndarray:
        """The other ends of all triples of these entities, in their order."""
        starts, counts = self.offsets[entities], self.degree[entities]
        steps = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        return self.other[np.repeat(starts, counts) + steps]


# ---------------------------------------------------------------------------------------------------------- inductive
def hold_out_entities(kg: KnowledgeGraph, share: float, seed: int = 0) -> tuple[KnowledgeGraph, np.ndarray]:
    """Takes a share of the entities out of training, so that what is known of them is their text alone.

    The protocol is the dynamic evaluation of Daza, Cochez and Groth ("Inductive Entity Representations from Text via Link
    Prediction", WWW 2021): entities are drawn at random, and every triple of theirs, of whichever split, leaves training and
    becomes a question. One half of them asks in validation, the other half in test, so nothing is chosen on an entity that test
    asks for. Questions have one unseen end, which is the answer, and one that training knows: of each validation and test
    triple only that direction is to be counted. An entity is passed over if without it a seen entity or a relation would have
    no training triple left.

    Where this departs from them: triples between two unseen entities are no questions here, and validation and test triples
    between two seen entities (the transductive questions) neither. Both stay known to filtered ranks, in `others`.

    Args:
      kg: the graph.
      share: of the entities that have a training triple; those without any are left alone, and so are their triples.
      seed: of the draw.

    Returns:
      (the graph with other splits and the same numbering, without negatives; int32: the unseen entities, ascending).

    Raises:
      UserError: so many cannot be taken out; no question is left in validation or test.
    """
    neighbours = _Neighbours.of(kg.train, len(kg.entities))
    trained = np.flatnonzero(neighbours.degree > 0)
    wanted = round(share * len(trained))
    drawn = _generator(seed).permutation(trained)
    taken = _removable(kg, neighbours, drawn, wanted)
    if len(taken) < max(wanted, 2):
        raise UserError(
            f"a share of {share:g} of {len(trained)} entities is {wanted}, at least 2 expected; {len(taken)} can be taken out "
            "without leaving another entity or a relation untrained"
        )
    # 0: seen, 1: asked in validation, 2: asked in test, 3: never trained
    role = np.full(len(kg.entities), 3, np.int8)
    role[trained] = 0
    role[taken[0::2]], role[taken[1::2]] = 1, 2
    whole = np.concatenate([kg.train, kg.valid, kg.test])
    from_train = np.arange(len(whole)) < len(kg.train)
    head, tail = role[whole[:, 0]], role[whole[:, 2]]
    one_unseen = (head == 0) != (tail == 0)
    asked = np.where(one_unseen, np.maximum(head, tail), 0)
    parts = {
        "train": whole[from_train & (head == 0) & (tail == 0)],
        "valid": whole[asked == 1],
        "test": whole[asked == 2],
    }
    for name in ("valid", "test"):
        if not len(parts[name]):
            raise UserError(f"a share of {share:g} of {len(trained)} entities leaves no {name} question; take more")
    used = (from_train & (head == 0) & (tail == 0)) | (asked == 1) | (asked == 2)
    others = np.concatenate([kg.others, whole[~used]])
    found = dataclasses.replace(kg, **parts, others=others, valid_negatives=None, test_negatives=None)
    return found, np.sort(taken).astype(np.int32)


def _removable(kg: KnowledgeGraph, neighbours: _Neighbours, drawn: np.ndarray, wanted: int) -> np.ndarray:
    """The first `wanted` of the entities drawn that can go one after the other, or as many as there are."""
    alive = np.ones(len(kg.train), bool)
    degree = neighbours.degree.copy()
    of_relation = np.bincount(kg.train[:, 1], minlength=len(kg.relations))
    gone = np.zeros(len(kg.entities), bool)
    taken: list[int] = []
    for entity in drawn.tolist():
        if len(taken) == wanted:
            break
        span = slice(neighbours.offsets[entity], neighbours.offsets[entity + 1])
        triples, others = neighbours.triple[span], neighbours.other[span]
        here = alive[triples]
        triples, others = triples[here], others[here]
        ends, counts = np.unique(others[others != entity], return_counts=True)
        relations, uses = np.unique(kg.train[triples, 1], return_counts=True)
        if (degree[ends] == counts).any() or (of_relation[relations] == uses).any():
            continue
        alive[triples] = False
        degree[ends] -= counts
        of_relation[relations] -= uses
        gone[entity] = True
        taken.append(entity)
    return np.array(taken, np.int64)


# ----------------------------------------------------------------------------------------------------------- subsample
def subsample(
    kg: KnowledgeGraph, n_entities: int | None = None, *, n_triples: int | None = None, seed: int = 0
) -> KnowledgeGraph:
    """A smaller graph that is still dense: entities in order of a breadth-first walk, and all triples among them.

    Snowball sampling (Goodman 1961): from an entity drawn at random, all its neighbours in training triples of either
    direction, in random order, then all of theirs, and so on; where nothing new is left, from another entity drawn at random.
    The first entities of that walk are kept, as many as asked for, with all training, validation and test triples that have
    both ends among them; a relation without a training triple left goes. So a smaller sample of one seed lies inside a larger
    one. Validation and test are subsampled too: figures compare only with others on the same sample, and are easier than on the
    whole graph, since there are fewer candidates.

    Args:
      kg: the graph.
      n_entities: how many are kept (one less if the last would have no neighbour; all if there are no more).
      n_triples: instead, the most training triples; the longest beginning of the walk with no more is kept.
      seed: of the walk.

    Raises:
      ValueError: not exactly one size, or below 2 entities or 1 triple.
      UserError: no part of so few triples is a graph.
    """
    sizes = [size for size in (n_entities, None if n_triples is None else n_triples + 1) if size is not None]
    if len(sizes) != 1 or sizes[0] < 2:
        raise ValueError(
            f"subsample: n_entities {n_entities}, n_triples {n_triples}: give one, at least 2 entities or 1 triple"
        )
    neighbours = _Neighbours.of(kg.train, len(kg.entities))
    place = np.full(len(kg.entities), len(kg.entities), np.int64)  # of each entity in the walk
    count = 0
    for level in _walk(neighbours, seed):
        place[level] = count + np.arange(len(level))
        count += len(level)
        if n_entities is not None and count >= n_entities:
            break
    both = np.sort(np.maximum(place[kg.train[:, 0]], place[kg.train[:, 2]]))  # when a triple has both its ends
    if n_triples is not None:
        n_entities = count if n_triples >= len(both) else int(both[n_triples])
    assert n_entities is not None
    n_entities = min(n_entities, count)
    lonely = not np.isin(n_entities - 1, both)
    keep = place < n_entities - lonely
    if not keep.any() or not np.any(both < n_entities):
        raise UserError(f"the walk's beginning with at most {n_triples} training triples has none; ask for more")
    return induced(kg, keep)


def _walk(neighbours: _Neighbours, seed: int) -> Iterator[np.ndarray]:
    """Entities that have a training triple, level by level, each once."""
    generator = _generator(seed)
    starts = generator.permutation(np.flatnonzero(neighbours.degree > 0))
    visited = np.zeros(len(neighbours.degree), bool)
    for start in starts.tolist():
        if visited[start]:
            continue
        level = np.array([start])
        while len(level):
            visited[level] = True
            yield level
            around = np.unique(neighbours.around(level))
            level = generator.permutation(around[~visited[around]])


def _generator(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(seed))
