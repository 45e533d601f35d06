"""What a shop knows about the entities and relations of its graph besides the edges: words, numbers, false triples.

Functions of a shop and a graph built from it, by id, computed where they are needed: so they fit a part of the graph as well.
"""

from collections.abc import Iterable

import numpy as np

from fusionjax.data.graph import Graph
from fusionjax.data.shop import Shop
from fusionjax.errors import UserError

PRICE = "price"
"""Name of the literal that products' prices become."""


def entity_words(shop: Shop, graph: Graph) -> tuple[list[str], list[str] | None]:
    """(names for people, texts), one an entity. A product's title and description go before those of the entity of its id.

    A name is the id where none is known. A text is `name: description`, or the one that is known, or ''; the texts are None
    where no entity has any.
    """
    place = _places(graph.entities)
    names, descriptions = [""] * len(place), [""] * len(place)
    tables = [] if shop.entities is None else [(shop.entities, shop.entities.name)]
    tables += [] if shop.products is None else [(shop.products, shop.products.title)]
    for table, known in tables:
        for id, name, description in zip(table.id, known, table.description, strict=True):
            if (row := place.get(id)) is not None:  # a table may know more than the graph holds
                names[row], descriptions[row] = name or names[row], description or descriptions[row]
    texts = [": ".join(filter(None, pair)) for pair in zip(names, descriptions, strict=True)]
    shown = [name or str(id) for name, id in zip(names, graph.entities, strict=True)]
    return shown, texts if any(texts) else None


def relation_names(shop: Shop, graph: Graph) -> list[str]:
    """Names of the graph's relations for people; the id where there is none."""
    known = {} if shop.relations is None else dict(zip(shop.relations.id, shop.relations.name, strict=True))
    return [known.get(name) or name for name in graph.relations]


def literals(shop: Shop, graph: Graph) -> tuple[np.ndarray, tuple[str, ...]]:
    """Numbers about the entities: products' prices first, then the attributes in order of first appearance.

    Returns:
      (float64 [n_entities, m], NaN where missing; the m names).

    Raises:
      UserError: a number about an entity that the graph lacks, though it is no part of a larger one.
    """
    place, table, products = _places(graph.entities), shop.literals, shop.products
    prices = [] if products is None or np.isnan(products.price).all() else [PRICE]
    attributes: Iterable[str] = () if table is None else table.attribute
    column = _places(dict.fromkeys([*prices, *attributes]))
    values = np.full((len(place), len(column)), np.nan)
    if products is not None and prices:
        _fill(values, _rows(products.id, place), 0, products.price)
    if table is not None:
        rows = _known_rows(shop, graph, "literals", "entity", table.entity, place)
        _fill(values, rows, np.fromiter((column[name] for name in table.attribute), np.int64, len(table)), table.value)
    return values, tuple(column)


def standardised(values: np.ndarray) -> np.ndarray:
    """float32 [n, 2 m] of numbers [n, m]: each column with mean 0 and deviation 1 over what is known of it, 0 where it is NaN;
    then marks, 1 where a number is known."""
    known = np.isfinite(values)
    numbers = np.where(known, values, 0.0).astype(np.float64)
    count = np.maximum(known.sum(0), 1)
    mean = numbers.sum(0) / count
    spread = np.sqrt(np.where(known, (numbers - mean) ** 2, 0.0).sum(0) / count)
    standard = np.where(known, (numbers - mean) / np.where(spread > 0, spread, 1.0), 0.0)
    return np.concatenate([standard, known], 1).astype(np.float32)


def false_triples(shop: Shop, graph: Graph, split: int) -> np.ndarray | None:
    """int32 [n, 3]: triples of one split known to be false; None where the source has none, and after `hold_out_entities`,
    whose validation and test ask for other triples than those beside which the false ones were chosen.

    Raises:
      UserError: they name an entity or a relation that the graph lacks, though it is no part of a larger one.
    """
    table = shop.negatives
    if table is None or graph.inductive:
        return None
    entity = _known_rows(shop, graph, "negatives", "entity", table.entities, _places(graph.entities))
    relation = _known_rows(shop, graph, "negatives", "relation", table.relations, _places(graph.relations))
    triples = np.stack([entity[table.head], relation[table.relation], entity[table.tail]], axis=1)
    return triples[(table.split == split) & (triples >= 0).all(axis=1)]


def _fill(values: np.ndarray, rows: np.ndarray, columns: int | np.ndarray, numbers: np.ndarray) -> None:
    kept = rows >= 0
    values[rows[kept], np.broadcast_to(columns, rows.shape)[kept]] = numbers[kept]


def _places(names: Iterable[str]) -> dict[str, int]:
    return {name: place for place, name in enumerate(names)}


def _rows(names: np.ndarray, place: dict[str, int]) -> np.ndarray:
    """int32: −1 for what has no place."""
    return np.fromiter((place.get(name, -1) for name in names), np.int32, len(names))


def _known_rows(shop: Shop, graph: Graph, part: str, what: str, names: np.ndarray, place: dict[str, int]) -> np.ndarray:
    """As `_rows`, but only a part of a graph may lack any."""
    rows = _rows(names, place)
    if not graph.sampled and (lacking := rows < 0).any():
        raise UserError(
            f"shop '{shop.name}': {part} name {lacking.sum()} times an {what} that its graph lacks, "
            f"'{names[int(np.argmax(lacking))]}' first; does data.graph.given leave the triples out?"
        )
    return rows
