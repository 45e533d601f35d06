"""Parts of a graph by fixed, published rules: entities held out for inductive experiments, and subgraphs of a chosen size.

Both are functions of the graph and a seed of their own, never of a run's seed: all runs of a study see the same data.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from fusionjax.config import schema
from fusionjax.data.entities import false_triples
from fusionjax.data.graph import Graph
from fusionjax.data.shop import TEST, TRAIN, UNASSIGNED, VALID, Shop
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


def part_of(graph: Graph, shop: Shop, config: schema.Run, log: Callable[[str], None]) -> Graph:
    """What `data.graph.sample` and `data.split.unseen_entities` leave of a shop's graph.

    Raises:
      UserError: a part is asked for where products or users are learnt too; see `subsample` and `hold_out_entities`.
    """
    sample, unseen, others = config.data.graph.sample, config.data.split.unseen_entities, besides_links(config)
    for key, value in (("data.graph.sample", sample), ("data.split.unseen_entities", unseen)):
        if value and others:
            raise UserError(f"{key}: {value:g}: for a graph alone, not beside {', '.join(others)}")
    if sample:
        whole, graph = graph, subsample(graph, sample)
        size, n_train = len(graph.entities), np.sum(graph.split == TRAIN)
        log(f"sub-graph: {size:,} of {len(whole.entities):,} entities, {n_train:,} training triples")
    if unseen:
        with_false = false_triples(shop, graph, TEST) is not None
        graph, held_out = hold_out_entities(graph, unseen)
        gone = "; false triples are left out: no triple classification" if with_false else ""
        n_train = np.sum(graph.split == TRAIN)
        log(f"inductive: {len(held_out):,} entities taken out of training, which keeps {n_train:,} triples{gone}")
    return graph


def besides_links(config: schema.Run) -> list[str]:
    """Keys of what the run trains and measures about products and users, all of whom must then be there."""
    keys = [
        f"objectives.{name}"
        for name, objective in config.objectives.used().items()
        if any(isinstance(part, str) and part != "triples" for part in objective.shop_parts)
    ]
    return keys + [
        f"evaluation.tasks: {task}" for task in config.evaluation.tasks or () if task in ("search", "recommendation")
    ]


# ---------------------------------------------------------------------------------------------------------- inductive
_SEEN, _NEVER = TRAIN, TEST + 1
"""Roles of entities besides VALID and TEST, the splits that ask for them; _NEVER had no training triple from the start."""


def hold_out_entities(graph: Graph, share: float, seed: int = 0) -> tuple[Graph, np.ndarray]:
    """Takes a share of the entities out of training, so that what is known of them is their text alone.

    The protocol is the dynamic evaluation of Daza, Cochez and Groth ("Inductive Entity Representations from Text via Link
    Prediction", WWW 2021): entities are drawn at random, and every triple of theirs, of whichever split, leaves training and
    becomes a query. One half of them is asked for in validation, the other half in test, so nothing is chosen on an entity that
    test asks for. Queries have one unseen end, which is the answer, and one that training knows: of each validation and test
    triple only that direction is to be counted. An entity is passed over if without it a seen entity or a relation would have
    no training triple left.

    Where this departs from them: triples between two unseen entities are no queries here, and validation and test triples
    between two seen entities (the transductive queries) neither. Both stay known to filtered ranks, in no split.

    Args:
      graph: any.
      share: of the entities that have a training triple; those without any are left alone, and so are their triples.
      seed: of the draw.

    Returns:
      (the graph with other splits and the same numbering; int32: the unseen entities, ascending).

    Raises:
      UserError: so many cannot be taken out; no query is left in validation or test.
    """
    neighbours = _Neighbours.of(graph.triples(TRAIN), len(graph.entities))
    trained = np.flatnonzero(neighbours.degree > 0)
    wanted = round(share * len(trained))
    taken = _removable(graph.triples(TRAIN), neighbours, _generator(seed).permutation(trained), wanted)
    if len(taken) < max(wanted, 2):
        raise UserError(
            f"a share of {share:g} of {len(trained)} entities is {wanted}, at least 2 expected; {len(taken)} can be taken out "
            "without leaving another entity or a relation untrained"
        )
    role = np.full(len(graph.entities), _NEVER, np.int8)
    role[trained] = _SEEN
    role[taken[0::2]], role[taken[1::2]] = VALID, TEST
    # Queries stand in the order training, validation, test of what they were.
    order = np.argsort(graph.split, kind="stable")
    was, triples = graph.split[order], graph.triples()[order]
    head, tail = role[triples[:, 0]], role[triples[:, 2]]
    asked = np.where((head == _SEEN) != (tail == _SEEN), np.maximum(head, tail), _NEVER)
    split = np.where((asked == VALID) | (asked == TEST), asked, UNASSIGNED)
    split[(was == TRAIN) & (head == _SEEN) & (tail == _SEEN)] = TRAIN
    split[was == UNASSIGNED] = UNASSIGNED
    for name, code in (("valid", VALID), ("test", TEST)):
        if not (split == code).any():
            raise UserError(f"a share of {share:g} of {len(trained)} entities leaves no {name} query; take more")
    return _with_edges(graph, triples, split, inductive=True), np.sort(taken).astype(np.int32)


def _with_edges(graph: Graph, triples: np.ndarray, split: np.ndarray, **changes: Any) -> Graph:
    head, relation, tail = triples.astype(np.int32).T.copy()
    return dataclasses.replace(graph, head=head, relation=relation, tail=tail, split=split.astype(np.int8), **changes)


def _removable(train: np.ndarray, neighbours: _Neighbours, drawn: np.ndarray, wanted: int) -> np.ndarray:
    """The first `wanted` of the entities drawn that can go one after the other, or as many as there are."""
    alive = np.ones(len(train), bool)
    degree = neighbours.degree.copy()
    of_relation = np.bincount(train[:, 1])
    taken: list[int] = []
    for entity in drawn.tolist():
        if len(taken) == wanted:
            break
        span = slice(neighbours.offsets[entity], neighbours.offsets[entity + 1])
        triples, others = neighbours.triple[span], neighbours.other[span]
        here = alive[triples]
        triples, others = triples[here], others[here]
        ends, counts = np.unique(others[others != entity], return_counts=True)
        relations, uses = np.unique(train[triples, 1], return_counts=True)
        if (degree[ends] == counts).any() or (of_relation[relations] == uses).any():
            continue
        alive[triples] = False
        degree[ends] -= counts
        of_relation[relations] -= uses
        taken.append(entity)
    return np.array(taken, np.int64)


# ----------------------------------------------------------------------------------------------------------- subsample
def subsample(graph: Graph, n_entities: int, seed: int = 0) -> Graph:
    """A smaller graph that is still dense: entities in order of a breadth-first walk, and all triples among them.

    Snowball sampling (Goodman 1961): from an entity drawn at random, all its neighbours in training triples of either
    direction, in random order, then all of theirs, and so on; where nothing new is left, from another entity drawn at random.
    The first entities of that walk are kept, as many as asked for, with all training, validation and test triples that have
    both ends among them; a relation without a training triple left goes. So a smaller sample of one seed lies inside a larger
    one. Validation and test are subsampled too: figures compare only with others on the same sample, and are easier than on the
    whole graph, since there are fewer candidates.

    Args:
      graph: any.
      n_entities: how many are kept (one less if the last would have no neighbour; all if there are no more).
      seed: of the walk.

    Raises:
      UserError: below 2 entities, or the graph has no training triple.
    """
    train = graph.triples(TRAIN)
    if n_entities < 2 or not len(train):
        raise UserError(f"data.graph.sample: {n_entities} entities, {len(train)} training triples: at least 2 and 1 expected")
    neighbours = _Neighbours.of(train, len(graph.entities))
    place = np.full(len(graph.entities), len(graph.entities), np.int64)  # of each entity in the walk
    count = 0
    for level in _walk(neighbours, seed):
        place[level] = count + np.arange(len(level))
        count += len(level)
        if count >= n_entities:
            break
    n_entities = min(n_entities, count)
    last = np.maximum(place[train[:, 0]], place[train[:, 2]])  # when a triple has both its ends
    lonely = not (last == n_entities - 1).any()
    return induced(graph, place < n_entities - lonely)


def induced(graph: Graph, keep: np.ndarray) -> Graph:
    """The subgraph over some entities: all triples with both ends among them, renumbered.

    Relations without a training triple left go, and with them the triples of other splits that have them.

    Args:
      graph: any.
      keep: bool [n_entities]; those kept stay in their order.

    Raises:
      ValueError: no training triple is left.
    """
    inside, train = keep[graph.head] & keep[graph.tail], graph.split == TRAIN
    if not (inside & train).any():
        raise ValueError(f"{keep.sum()} of {len(keep)} entities leave none of {train.sum()} training triples")
    used = np.zeros(len(graph.relations), bool)
    used[graph.relation[inside & train]] = True
    rows = inside & used[graph.relation]
    head, relation, tail = graph.triples()[rows].T
    entity_row, relation_row = np.cumsum(keep) - 1, np.cumsum(used) - 1
    return _with_edges(
        graph,
        np.stack([entity_row[head], relation_row[relation], entity_row[tail]], axis=1),
        graph.split[rows],
        entities=graph.entities[keep],
        relations=tuple(graph.relations[row] for row in np.flatnonzero(used)),
        n_products=graph.n_products if keep.all() else 0,
        sampled=True,
    )


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
