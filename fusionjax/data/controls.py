"""Controls: the same shop with one thing taken away or shuffled (`data.controls`), to tell what a result is owed to.

Only what training reads changes; held-out triples, the users measured and their targets stay those of the real shop. All
randomness is Philox, keyed by the run's seed and the control's name: every seed of a study draws a shuffle of its own, so the
spread over seeds holds that too, and one control's draws do not depend on whether another is on.
"""

import dataclasses
import zlib

import numpy as np

from fusionjax.config import schema
from fusionjax.data.graph import CATEGORY_SEPARATOR, Graph
from fusionjax.data.shop import TRAIN, Events, Products
from fusionjax.data.text import product_texts

EDGES_AS_TEXT = 8
"""Most edges written into one product's text."""
_ROUNDS, _PATIENCE = 200, 20
"""Rounds of repair at most, and rounds without one repaired edge before giving up."""


def generator(seed: int, control: str) -> np.random.Generator:
    """Random numbers of one control of one run."""
    return np.random.Generator(np.random.Philox(key=[(seed << 32) | zlib.crc32(f"data.controls.{control}".encode()), 0]))


# --------------------------------------------------------------------------------------------------------------- shares
def kept_events(events: Events, config: schema.Run) -> np.ndarray:
    """bool [n events]: all held-out events and `events_share` of the training ones; nested over shares for one seed."""
    keep = np.ones(len(events), bool)
    train = np.flatnonzero(events.split == TRAIN)
    order = generator(config.seed, "events_share").permutation(len(train))
    keep[train[order[round(config.data.controls.events_share * len(train)) :]]] = False
    return keep


def _kept_edges(triples: np.ndarray, config: schema.Run) -> np.ndarray:
    """bool [n]: `graph_share` of the linked pairs of entities; all edges of a pair, either way round, stay or go together."""
    _, pair = np.unique(_pairs(triples), return_inverse=True)
    n_pairs = int(pair.max(initial=-1)) + 1
    place = np.empty(n_pairs, np.int64)
    place[generator(config.seed, "graph_share").permutation(n_pairs)] = np.arange(n_pairs)
    return place[pair.reshape(-1)] < round(config.data.controls.graph_share * n_pairs)


# ---------------------------------------------------------------------------------------------------------------- graph
def control_graph(real: Graph, supported: Graph | None, config: schema.Run) -> tuple[Graph, np.ndarray]:
    """The graph that training reads.

    Args:
      real: the shop's graph.
      supported: the graph built from the events that `events_share` keeps, where edges come from events: training edges that
        are not in it go.

    Returns:
      (graph, written): the graph with the same entities, relations and held-out edges and the controlled training edges; and
      the training edges int32 [n, 3] that stand in products' texts instead (`as_text`, else none). No shuffled edge is a
      held-out triple of the real graph, nor links a pair that is linked only there.
    """
    settings, none = config.data.controls, np.zeros((0, 3), np.int32)
    edges = real.triples(TRAIN)
    if settings.graph_share < 1.0:
        edges = edges[_kept_edges(edges, config)]
    if supported is not None:
        edges = edges[np.isin(_keys(edges, real), _keys(supported.triples(), real))]
    if settings.graph in ("none", "as_text"):
        written = edges if settings.graph == "as_text" else none
        note = f"control '{settings.graph}': no training edges, {len(written):,} written into texts"
        return _with_training(real, none, note), written
    if settings.graph != "real":
        edges, note = _shuffled(edges, real, settings.graph, generator(config.seed, settings.graph))
        return _with_training(real, edges, note), none
    if settings.graph_share < 1.0 or supported is not None:
        return _with_training(real, edges, f"control: {len(edges):,} of {np.sum(real.split == TRAIN):,} training edges"), none
    return real, none


def _with_training(real: Graph, edges: np.ndarray, note: str) -> Graph:
    held_out = real.split != TRAIN
    head, relation, tail = np.concatenate([edges, real.triples()[held_out]]).astype(np.int32).T.copy()
    split = np.concatenate([np.full(len(edges), TRAIN, np.int8), real.split[held_out]])
    return dataclasses.replace(
        real, head=head, relation=relation, tail=tail, split=split, notes=(*real.notes, *([note] if note else []))
    )


def _keys(triples: np.ndarray, graph: Graph) -> np.ndarray:
    """int64 [n]: one number a triple."""
    head, relation, tail = triples.astype(np.int64).T
    n = max(len(graph.entities), 1)
    return (relation * n + head) * n + tail


def _pairs(triples: np.ndarray) -> np.ndarray:
    """int64 [n]: one number a pair of entities, whichever is the head."""
    ends = triples[:, [0, 2]].astype(np.int64)
    return (ends.min(axis=1) << 32) | ends.max(axis=1) if len(ends) else np.zeros(0, np.int64)


def _shuffled(edges: np.ndarray, real: Graph, control: str, draw: np.random.Generator) -> tuple[np.ndarray, str]:
    """Edges with permuted labels or tails, and what is to be said about them."""
    if not len(edges):
        return edges, f"control '{control}': no training edges"
    shuffled, together = edges.copy(), np.zeros(len(edges), np.int64)
    if control == "relations_shuffled":
        column = 1
    else:
        column = 2
        if control == "tails_shuffled":
            together = edges[:, 1].astype(np.int64)
        else:  # random_same_degree
            shuffled[:, 1] = draw.permutation(shuffled[:, 1])
    by_group = np.argsort(together, kind="stable")
    at_random = np.lexsort((draw.random(len(edges)), together))
    shuffled[by_group, column] = shuffled[at_random, column]
    rules = _Rules(real, loops=column == 1)
    remaining = _repair(shuffled, column, together, rules, draw)
    left = shuffled[~remaining]
    same = np.isin(_keys(left, real), _keys(real.triples(TRAIN), real)).mean() if len(left) else 0.0
    return left, (
        f"control '{control}': {len(left):,} training edges, {same:.1%} of them as in the real graph by chance; "
        f"{remaining.sum():,} left out that no re-draw kept from being a repetition, a loop or a held-out edge"
    )


class _Rules:
    """Which edges a shuffle must not end with."""

    def __init__(self, real: Graph, loops: bool) -> None:
        self.real, self.loops = real, loops
        held_out = real.triples()[real.split != TRAIN]
        self.held_out = _keys(held_out, real)
        self.pairs = np.setdiff1d(_pairs(held_out), _pairs(real.triples(TRAIN)))

    def forbidden(self, edges: np.ndarray) -> np.ndarray:
        bad = np.isin(_keys(edges, self.real), self.held_out) | np.isin(_pairs(edges), self.pairs)
        return bad if self.loops else bad | (edges[:, 0] == edges[:, 2])

    def broken(self, edges: np.ndarray) -> np.ndarray:
        """bool [n]: forbidden, or the same as an edge before."""
        _, first = np.unique(_keys(edges, self.real), return_index=True)
        repeated = np.ones(len(edges), bool)
        repeated[first] = False
        return repeated | self.forbidden(edges)


def _repair(edges: np.ndarray, column: int, together: np.ndarray, rules: _Rules, draw: np.random.Generator) -> np.ndarray:
    """Swaps `column` between broken edges and others drawn from their group, in place; returns which stay broken.

    A swap is made only if both edges are then whole, so the number of broken ones never grows, and every count a shuffle is
    to keep (of labels, of degrees) is kept.
    """
    order = np.argsort(together, kind="stable")
    start = np.searchsorted(together[order], together, side="left")
    size = np.searchsorted(together[order], together, side="right") - start
    broken, idle = rules.broken(edges), 0
    for _ in range(_ROUNDS):
        rows = np.flatnonzero(broken)
        if not len(rows) or idle == _PATIENCE:
            break
        partner = order[start[rows] + draw.integers(0, size[rows])]
        _, first = np.unique(partner, return_index=True)  # nobody swaps twice in a round
        first = np.sort(first[~broken[partner[first]]])
        rows, partner = rows[first], partner[first]
        mine, theirs = edges[rows], edges[partner]
        mine[:, column], theirs[:, column] = edges[partner, column], edges[rows, column]
        both = np.concatenate([mine, theirs])
        keys = _keys(both, rules.real)
        _, inverse, times = np.unique(keys, return_inverse=True, return_counts=True)
        fine = ~rules.forbidden(both) & ~np.isin(keys, _keys(edges, rules.real)) & (times[inverse.reshape(-1)] == 1)
        swap = fine[: len(rows)] & fine[len(rows) :]
        edges[rows[swap]], edges[partner[swap]] = mine[swap], theirs[swap]
        idle = 0 if swap.any() else idle + 1
        broken = rules.broken(edges)
    return broken


# ---------------------------------------------------------------------------------------------------------------- texts
def control_texts(products: Products, graph: Graph, written: np.ndarray, config: schema.Run) -> list[str]:
    """The product texts that towers and baselines read.

    Args:
      written: edges int32 [n, 3] that follow the text of the product at their head, from `control_graph`.
    """
    control = config.data.controls.text
    if control == "none":
        texts = [""] * len(products)
    else:
        texts = product_texts(products, ("title",) if control == "title_only" else config.text.fields)
    if control == "shuffled":
        texts = [texts[row] for row in generator(config.seed, "text").permutation(len(texts))]
    for row, words in _edges_in_words(products, graph, written).items():
        texts[row] = f"{texts[row]} {words}".lstrip()
    return texts


def _edges_in_words(products: Products, graph: Graph, written: np.ndarray) -> dict[int, str]:
    """Product row → `relation: name of the tail; …`, at most `EDGES_AS_TEXT`: the rarest relations first, in the order of
    the graph. They say most: what nearly every product has tells few apart."""
    written = written[written[:, 0] < len(products)]
    if not len(written):
        return {}
    counts = np.bincount(written[:, 1], minlength=len(graph.relations))
    ordered = written[np.lexsort((written[:, 1], counts[written[:, 1]], written[:, 0]))]
    _, start, size = np.unique(ordered[:, 0], return_index=True, return_counts=True)
    nth = np.arange(len(ordered)) - np.repeat(start, size)
    relations = [name.replace("_", " ") for name in graph.relations]
    prefixes = tuple(f"{name}:" for name in ("brand", "category", *products.attributes))
    words: dict[int, list[str]] = {}
    for head, relation, tail in ordered[nth < EDGES_AS_TEXT].tolist():
        words.setdefault(head, []).append(f"{relations[relation]}: {_name(products, graph, tail, prefixes)}")
    return {head: "; ".join(parts) for head, parts in words.items()}


def _name(products: Products, graph: Graph, entity: int, prefixes: tuple[str, ...]) -> str:
    """A product's title (its id where it has none), another entity's name without the kind it was given in front."""
    if entity < graph.n_products:
        return str(products.title[entity] or products.id[entity])
    name = str(graph.entities[entity])
    prefix = next((prefix for prefix in prefixes if name.startswith(prefix)), "")
    return name[len(prefix) :].replace(CATEGORY_SEPARATOR, " ")
