"""A graph as those who train on it want it: numbered triples by split, and what is known of entities in words and numbers.

`knowledge_graph` makes it from a shop and its graph, `induced` keeps some of its entities. What is held out for inductive
experiments and what is left of a graph too large for a machine is drawn in `graph_samples.py`.
"""

import dataclasses

import numpy as np

from fusionjax.data.graph import Graph
from fusionjax.data.shop import TEST, TRAIN, VALID, Shop, Triples
from fusionjax.errors import UserError

PRICE = "price"
"""Name of the literal that products' prices become."""


def no_triples() -> np.ndarray:
    return np.empty((0, 3), np.int32)


@dataclasses.dataclass(frozen=True)
class KnowledgeGraph:
    """Triples are int32 [n, 3] (head, relation, tail): rows of `entities`, of `relations`, of `entities`."""

    entities: np.ndarray
    """Ids (object), in the graph's numbering."""
    relations: tuple[str, ...]
    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray
    entity_text: list[str] | None
    """`name: description`, or the one that is known, or ''; for products title and description. None: no entity has a text."""
    entity_names: list[str]
    """For people; the id where there is no name."""
    relation_names: list[str]
    valid_negatives: np.ndarray | None = None
    """Triples known to be false."""
    test_negatives: np.ndarray | None = None
    literals: np.ndarray | None = None
    """float32 [entities, attributes], NaN = missing; with products' prices as `price`."""
    literal_names: tuple[str, ...] = ()
    others: np.ndarray = dataclasses.field(default_factory=no_triples)
    """True triples of no split, neither trained on nor asked about; filtered ranks must know them (see `known`)."""

    @property
    def known(self) -> np.ndarray:
        """int32 [n, 3]: all true triples, those that a filtered rank leaves out."""
        return np.concatenate([self.train, self.valid, self.test, self.others])


def knowledge_graph(shop: Shop, graph: Graph) -> KnowledgeGraph:
    """Joins the graph built from a shop with what the shop knows of its entities.

    Args:
      shop: cleaned, with splits assigned.
      graph: `graph.build_graph` of that shop; its numbering is kept.

    Raises:
      UserError: negatives or literals about what the graph lacks (`data.graph.given=false` leaves triples out).
    """
    entity_row = {name: row for row, name in enumerate(graph.entities)}
    relation_row = {name: row for row, name in enumerate(graph.relations)}
    names, texts = _words(shop, graph, entity_row)
    literals, literal_names = _literals(shop, graph, entity_row)
    given = {} if shop.relations is None else dict(zip(shop.relations.id, shop.relations.name, strict=True))
    negatives = _numbered(shop, shop.negatives, entity_row, relation_row)
    return KnowledgeGraph(
        entities=graph.entities,
        relations=graph.relations,
        train=graph.triples(TRAIN),
        valid=graph.triples(VALID),
        test=graph.triples(TEST),
        entity_text=texts,
        entity_names=names,
        relation_names=[given.get(name) or name for name in graph.relations],
        valid_negatives=_of_split(negatives, shop.negatives, VALID),
        test_negatives=_of_split(negatives, shop.negatives, TEST),
        literals=literals,
        literal_names=literal_names,
    )


def _words(shop: Shop, graph: Graph, entity_row: dict[str, int]) -> tuple[list[str], list[str] | None]:
    """Names and texts of all entities; texts are None where the source has none."""
    name, description = [""] * len(graph.entities), [""] * len(graph.entities)
    if shop.entities is not None:
        for id, its_name, its_description in zip(shop.entities.id, shop.entities.name, shop.entities.description, strict=True):
            if (row := entity_row.get(id)) is not None:  # a table may know more than the graph holds
                name[row], description[row] = its_name, its_description
    if shop.products is not None:
        # Entities 0 … n_products − 1 are the products, in order. What the catalogue says of them comes first.
        for row, (title, text) in enumerate(zip(shop.products.title, shop.products.description, strict=True)):
            name[row], description[row] = title or name[row], text or description[row]
    texts = [": ".join(filter(None, pair)) for pair in zip(name, description, strict=True)]
    shown = [known or str(id) for known, id in zip(name, graph.entities, strict=True)]
    return shown, texts if any(texts) else None


def _literals(shop: Shop, graph: Graph, entity_row: dict[str, int]) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """Products' prices first, then the attributes of `literals` in order of first appearance."""
    prices = None if shop.products is None or np.isnan(shop.products.price).all() else shop.products.price
    table = shop.literals
    names: dict[str, None] = dict.fromkeys([*([] if prices is None else [PRICE]), *([] if table is None else table.attribute)])
    if not names:
        return None, ()
    values = np.full((len(graph.entities), len(names)), np.nan, np.float32)
    if prices is not None:
        values[: len(prices), 0] = prices
    if table is not None:
        column = {name: place for place, name in enumerate(names)}
        rows = _rows(shop, "literals", "entity", table.entity, entity_row)
        values[rows, np.fromiter((column[name] for name in table.attribute), np.int64, len(table))] = table.value
    return values, tuple(names)


def _numbered(shop: Shop, table: Triples | None, entity_row: dict[str, int], relation_row: dict[str, int]) -> np.ndarray | None:
    """A table of triples in the graph's numbering."""
    if table is None:
        return None
    entity = _rows(shop, "negatives", "entity", table.entities, entity_row)
    relation = _rows(shop, "negatives", "relation", table.relations, relation_row)
    return np.stack([entity[table.head], relation[table.relation], entity[table.tail]], axis=1)


def _of_split(triples: np.ndarray | None, table: Triples | None, split: int) -> np.ndarray | None:
    return None if triples is None or table is None else triples[table.split == split]


def _rows(shop: Shop, part: str, what: str, names: np.ndarray, known: dict[str, int]) -> np.ndarray:
    rows = np.fromiter((known.get(name, -1) for name in names), np.int32, len(names))
    if (rows < 0).any():
        first = names[int(np.argmax(rows < 0))]
        raise UserError(
            f"shop '{shop.name}': {part} name {int(np.sum(rows < 0))} times an {what} that its graph lacks, '{first}' first; "
            "does data.graph.given leave the triples out?"
        )
    return rows


# ------------------------------------------------------------------------------------------------------------ subgraphs
def induced(kg: KnowledgeGraph, keep: np.ndarray) -> KnowledgeGraph:
    """The subgraph over some entities: all triples with both ends among them, renumbered.

    Relations without a training triple left go, and with them the triples of other splits that have them.

    Args:
      kg: the graph.
      keep: bool [entities]; those kept stay in their order.

    Raises:
      ValueError: no training triple is left.
    """
    new_entity = np.where(keep, np.cumsum(keep) - 1, -1).astype(np.int32)
    train = kg.train[keep[kg.train[:, 0]] & keep[kg.train[:, 2]]]
    if not len(train):
        raise ValueError(f"{int(keep.sum())} of {len(kg.entities)} entities leave none of {len(kg.train)} training triples")
    used = np.zeros(len(kg.relations), bool)
    used[train[:, 1]] = True
    new_relation = np.where(used, np.cumsum(used) - 1, -1).astype(np.int32)

    def part(triples: np.ndarray) -> np.ndarray:
        head, relation, tail = new_entity[triples[:, 0]], new_relation[triples[:, 1]], new_entity[triples[:, 2]]
        return np.stack([head, relation, tail], axis=1)[(head >= 0) & (relation >= 0) & (tail >= 0)]

    rows, relations = np.flatnonzero(keep), np.flatnonzero(used)
    return dataclasses.replace(
        kg,
        entities=kg.entities[rows],
        relations=tuple(kg.relations[row] for row in relations),
        train=part(kg.train),
        valid=part(kg.valid),
        test=part(kg.test),
        entity_text=None if kg.entity_text is None else [kg.entity_text[row] for row in rows],
        entity_names=[kg.entity_names[row] for row in rows],
        relation_names=[kg.relation_names[row] for row in relations],
        valid_negatives=None if kg.valid_negatives is None else part(kg.valid_negatives),
        test_negatives=None if kg.test_negatives is None else part(kg.test_negatives),
        literals=None if kg.literals is None else kg.literals[rows],
        others=part(kg.others),
    )
