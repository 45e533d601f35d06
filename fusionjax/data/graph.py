"""Catalogue → graph: products' brand, category path and attributes, co-views and co-purchases, and given triples, as one graph.

Entities 0 … n_products − 1 are the products, in the shop's order; the others follow. Behaviour edges come from training events
only and always stay in training; the other edges are held out for link prediction, both directions of a pair together, so that
a test edge is never the reverse of a training edge.
"""

import dataclasses

import numpy as np

from fusionjax.config import schema
from fusionjax.data.shop import SPLITS, TEST, TRAIN, UNASSIGNED, VALID, Events, Shop, text_column
from fusionjax.errors import UserError, nearest

CATEGORY_SEPARATOR = " > "
_HOLDOUT_SEED = 20_240_229
"""Splits belong to the data, not to a run: they never depend on the run's seed."""

VIEW_KINDS = ("view", "click")
PURCHASE_KINDS = ("cart", "purchase")


@dataclasses.dataclass(frozen=True)
class Graph:
    """Typed edges over entities. `head`, `relation`, `tail`: int32 [n]; `split`: int8 [n]; no triple stands twice.

    An edge of no split (UNASSIGNED) is true, but neither trained on nor asked about: only filtered ranks know it.
    """

    entities: np.ndarray
    relations: tuple[str, ...]
    n_products: int
    """The first so many entities are the shop's products, in its order; 0 in a part of the graph, whose rows are others."""
    head: np.ndarray
    relation: np.ndarray
    tail: np.ndarray
    split: np.ndarray
    notes: tuple[str, ...] = ()
    """What was left out and why, for people."""
    sampled: bool = False
    """It is a part of a larger graph (`graph_samples.induced`): what the shop says of other entities is left out."""
    inductive: bool = False
    """Validation and test ask about entities that training does not have (`graph_samples.hold_out_entities`)."""

    def __len__(self) -> int:
        return len(self.head)

    def triples(self, split: int | None = None) -> np.ndarray:
        """int32 [n, 3]: head, relation, tail of one split, or of all known true triples."""
        rows = slice(None) if split is None else self.split == split
        return np.stack([self.head[rows], self.relation[rows], self.tail[rows]], axis=1)

    def relation_counts(self) -> dict[str, dict[str, int]]:
        """Edges of each relation by split."""
        assigned = self.split >= 0
        cells = self.relation[assigned] * len(SPLITS) + self.split[assigned]
        counts = np.bincount(cells, minlength=len(self.relations) * len(SPLITS)).reshape(-1, len(SPLITS)).tolist()
        return {name: dict(zip(SPLITS, row, strict=True)) for name, row in zip(self.relations, counts, strict=True)}


class _Builder:
    """Collects edges block by block; entity and relation numbers in order of first appearance."""

    def __init__(self, product_ids: np.ndarray) -> None:
        self.entity_row: dict[str, int] = {name: row for row, name in enumerate(product_ids)}
        self.relation_row: dict[str, int] = {}
        self.blocks: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]] = []

    def entity(self, names: np.ndarray) -> np.ndarray:
        rows, find = self.entity_row, self.entity_row.setdefault
        return np.fromiter((find(name, len(rows)) for name in names), np.int32, len(names))

    def add(self, relation: str, head: np.ndarray, tail: np.ndarray, split: int | np.ndarray = UNASSIGNED) -> None:
        row = self.relation_row.setdefault(relation, len(self.relation_row))
        n = len(head)
        splits = np.broadcast_to(np.asarray(split, np.int8), (n,))
        self.blocks.append((head.astype(np.int32), np.full(n, row, np.int32), tail.astype(np.int32), splits))


def build_graph(shop: Shop, config: schema.Graph, split: schema.Split) -> Graph:
    """Builds the graph the config asks for from whichever parts the shop has.

    Args:
      shop: cleaned, with splits assigned.
      config: which edges.
      split: shares of edges held out where no split is given.

    Raises:
      UserError: an attribute that no product has.
    """
    builder = _Builder(shop.products.id if shop.has("products") else text_column([]))
    n_products = len(builder.entity_row)
    notes: list[str] = []
    if config.given and shop.has("triples"):
        given = shop.triples
        entity = builder.entity(given.entities)
        order = np.argsort(given.relation, kind="stable")
        bounds = np.searchsorted(given.relation[order], np.arange(len(given.relations) + 1))
        for row, name in enumerate(given.relations):
            rows = order[bounds[row] : bounds[row + 1]]
            builder.add(name, entity[given.head[rows]], entity[given.tail[rows]], given.split[rows])
    if shop.has("products"):
        _add_catalogue(builder, shop, config, notes)
    if shop.products is not None and shop.events is not None:
        for relation, kinds, least in (
            ("co_view", VIEW_KINDS, config.co_view),
            ("co_purchase", PURCHASE_KINDS, config.co_purchase),
        ):
            if least:
                first, second = co_occurrences(shop.events, kinds, config.co_window, least)
                builder.add(relation, np.concatenate([first, second]), np.concatenate([second, first]), TRAIN)
    graph = _merge(builder, n_products, tuple(notes))
    return dataclasses.replace(graph, split=_hold_out(graph, split))


def _add_catalogue(builder: _Builder, shop: Shop, config: schema.Graph, notes: list[str]) -> None:
    products = shop.products
    if config.brand:
        rows = np.flatnonzero(products.brand != "")
        if len(rows):
            builder.add("brand", rows, builder.entity(text_column(f"brand:{name}" for name in products.brand[rows])))
    if config.category:
        _add_categories(builder, products.category)
    names = list(products.attributes) if config.attributes is True else list(config.attributes or ())
    for name in names:
        if name not in products.attributes:
            raise UserError(f"data.graph.attributes: no product has an attribute '{name}'{nearest(name, products.attributes)}")
        values = products.attributes[name]
        rows = np.flatnonzero(values != "")
        distinct = len(set(values[rows]))
        if distinct > config.max_attribute_values:
            notes.append(f"attribute '{name}' left out: {distinct} values > max_attribute_values {config.max_attribute_values}")
        elif len(rows):
            builder.add(name, rows, builder.entity(text_column(f"{name}:{value}" for value in values[rows])))


def _add_categories(builder: _Builder, categories: np.ndarray) -> None:
    rows = np.flatnonzero(categories != "")
    if not len(rows):
        return
    builder.add("in_category", rows, builder.entity(text_column(f"category:{path}" for path in categories[rows])))
    children: dict[str, str] = {}
    for path in dict.fromkeys(categories[rows]):
        levels = path.split(CATEGORY_SEPARATOR)
        for depth in range(len(levels) - 1, 0, -1):
            children[CATEGORY_SEPARATOR.join(levels[: depth + 1])] = CATEGORY_SEPARATOR.join(levels[:depth])
    if children:
        child = builder.entity(text_column(f"category:{path}" for path in children))
        parent = builder.entity(text_column(f"category:{path}" for path in children.values()))
        builder.add("subcategory_of", child, parent)


def co_occurrences(events: Events, kinds: tuple[str, ...], window: int, least: int) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of products that a user touched within `window` training events of the kinds, at least `least` times.

    Returns:
      (first, second): int32 arrays, first < second, sorted, each pair once.
    """
    codes = [code for code, kind in enumerate(events.kinds) if kind in kinds]
    rows = np.flatnonzero((events.split == TRAIN) & np.isin(events.kind, codes))
    rows = rows[np.lexsort((events.time[rows], events.user[rows]))]
    user, product = events.user[rows], events.product[rows].astype(np.int64)
    keys = []
    for step in range(1, window + 1):
        a, b = product[:-step], product[step:]
        same = (user[:-step] == user[step:]) & (a != b)
        keys.append((np.minimum(a, b)[same] << 32) | np.maximum(a, b)[same])
    pairs, counts = np.unique(np.concatenate(keys) if keys else np.empty(0, np.int64), return_counts=True)
    pairs = pairs[counts >= least]
    return (pairs >> 32).astype(np.int32), (pairs & 0xFFFFFFFF).astype(np.int32)


def triple_keys(triples: np.ndarray, n_entities: int, n_relations: int) -> np.ndarray:
    """int64 [n]: equal where triples (int [n, 3]) are, and in their order; a number sorts much faster than a row."""
    if n_entities**2 * n_relations < 2**63:
        head, relation, tail = triples.astype(np.int64).T
        return (head * n_relations + relation) * n_entities + tail
    return np.unique(triples, axis=0, return_inverse=True)[1].reshape(-1)


def _merge(builder: _Builder, n_products: int, notes: tuple[str, ...]) -> Graph:
    """Concatenates the blocks; of equal triples the first stays, its split the earliest that any is given, so none leaks."""
    if builder.blocks:
        head, relation, tail, split = (np.concatenate(column) for column in zip(*builder.blocks, strict=True))
    else:
        head = relation = tail = np.empty(0, np.int32)
        split = np.empty(0, np.int8)
    key = triple_keys(np.stack([head, relation, tail], axis=1), len(builder.entity_row), len(builder.relation_row))
    _, first, inverse = np.unique(key, return_index=True, return_inverse=True)
    last = TEST + 1  # no split given: any given one goes before
    earliest = np.full(len(first), last, np.int8)
    np.minimum.at(earliest, inverse.reshape(-1), np.where(split == UNASSIGNED, last, split).astype(np.int8))
    earliest[earliest == last] = UNASSIGNED
    order = np.argsort(first, kind="stable")
    rows = first[order]
    return Graph(
        entities=text_column(builder.entity_row),
        relations=tuple(builder.relation_row),
        n_products=n_products,
        head=head[rows],
        relation=relation[rows],
        tail=tail[rows],
        split=earliest[order],
        notes=notes,
    )


def _hold_out(graph: Graph, shares: schema.Split) -> np.ndarray:
    """Assigns a split to every edge that has none; entities and relations of those held out always occur in training.

    (Not so where the source itself holds out the only edges of an entity: given splits are kept.)
    """
    split = graph.split.copy()
    free = np.flatnonzero(split == UNASSIGNED)
    if not len(free):
        return split
    low = np.minimum(graph.head, graph.tail).astype(np.int64)
    high = np.maximum(graph.head, graph.tail).astype(np.int64)
    pairs, pair = np.unique((low[free] << 32) | high[free], return_inverse=True)
    draw = np.random.Generator(np.random.Philox(_HOLDOUT_SEED)).random(len(pairs))[pair.reshape(-1)]
    split[free] = np.where(
        draw < shares.test_share, TEST, np.where(draw < shares.test_share + shares.valid_share, VALID, TRAIN)
    )
    # A pair already fixed by other edges (co-purchases, given splits) goes where they are, in every relation; training wins.
    pinned = np.zeros(len(free), bool)
    for code in (TEST, VALID, TRAIN):
        fixed = np.isin((low[free] << 32) | high[free], np.unique(((low << 32) | high)[graph.split == code]))
        split[free[fixed]] = code
        pinned = (pinned | fixed) if code != TRAIN else (pinned & ~fixed)
    for _ in range(8):  # moving an edge to training can only add known entities: converges at once in practice
        known_entity = np.zeros(len(graph.entities), bool)
        known_relation = np.zeros(len(graph.relations), bool)
        train = split == TRAIN
        known_entity[graph.head[train]] = known_entity[graph.tail[train]] = True
        known_relation[graph.relation[train]] = True
        seen = known_entity[graph.head] & known_entity[graph.tail] & known_relation[graph.relation]
        moved = free[~seen[free] & (split[free] != TRAIN) & ~pinned]
        if not len(moved):
            break
        # Both directions of a pair move together.
        back = np.isin((low[free] << 32) | high[free], np.unique((low[moved] << 32) | high[moved]))
        split[free[back]] = TRAIN
    return split
