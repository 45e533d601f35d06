"""What a shop knows about the entities of its graph: words, numbers and false triples, by id; and of a part of the graph."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from fusionjax.config import schema
from fusionjax.data.entities import entity_words, false_triples, literals, relation_names, standardised
from fusionjax.data.graph import Graph, build_graph
from fusionjax.data.graph_samples import hold_out_entities, induced
from fusionjax.data.shop import (
    TEST,
    TRAIN,
    UNASSIGNED,
    VALID,
    Entities,
    Literals,
    Products,
    Relations,
    Shop,
    Triples,
    text_column,
)
from fusionjax.errors import UserError


def made(shop: Shop, **graph: Any) -> Graph:
    return build_graph(shop, schema.Graph(**graph), schema.Split())


def named(graph: Graph, triples: np.ndarray | None) -> list[tuple[Any, str, Any]]:
    assert triples is not None and triples.dtype == np.int32
    return [(graph.entities[head], graph.relations[relation], graph.entities[tail]) for head, relation, tail in triples]


GRAPH = Shop(
    name="graphy",
    triples=Triples.of(
        ["a", "b", "c", "a", "d"], ["r", "s", "r", "r", "s"], ["b", "c", "a", "c", "a"], [TRAIN, TRAIN, TRAIN, VALID, TEST]
    ),
    entities=Entities(
        text_column(["c", "a", "b", "elsewhere"]),
        text_column(["Cee", "Ay", "", "Far"]),
        text_column(["third", "", "second", ""]),
    ),
    relations=Relations(text_column(["s"]), text_column(["sees"])),
    negatives=Triples.of(["b", "d", "b"], ["r", "s", "s"], ["a", "b", "d"], [VALID, TEST, VALID]),
    literals=Literals(text_column(["c", "a", "c"]), text_column(["year", "size", "size"]), np.array([1, 2, 3], np.float32)),
)


def test_a_graph_alone() -> None:
    graph = made(GRAPH)
    assert graph.entities.tolist() == ["a", "b", "c", "d"] and graph.relations == ("r", "s")
    # By relation, as build_graph has them.
    assert named(graph, graph.triples(TRAIN)) == [("a", "r", "b"), ("c", "r", "a"), ("b", "s", "c")]
    assert named(graph, graph.triples(VALID)) == [("a", "r", "c")] and named(graph, graph.triples(TEST)) == [("d", "s", "a")]
    assert entity_words(GRAPH, graph) == (["Ay", "b", "Cee", "d"], ["Ay", "second", "Cee: third", ""])
    assert relation_names(GRAPH, graph) == ["r", "sees"]
    assert named(graph, false_triples(GRAPH, graph, VALID)) == [("b", "r", "a"), ("b", "s", "d")]
    assert named(graph, false_triples(GRAPH, graph, TEST)) == [("d", "s", "b")]
    values, names = literals(GRAPH, graph)
    assert names == ("year", "size") and values.dtype == np.float64
    np.testing.assert_array_equal(values, [[np.nan, 2], [np.nan, np.nan], [1, 3], [np.nan, np.nan]])
    assert len(graph.triples()) == 5 and len(graph.triples(UNASSIGNED)) == 0


def test_a_graph_without_words_or_numbers() -> None:
    shop = Shop("bare", triples=GRAPH.triples)
    graph = made(shop)
    assert entity_words(shop, graph) == (["a", "b", "c", "d"], None) and relation_names(shop, graph) == ["r", "s"]
    values, names = literals(shop, graph)
    assert values.shape == (4, 0) and names == ()
    assert false_triples(shop, graph, VALID) is None and false_triples(shop, graph, TEST) is None


def test_products_bring_their_texts_and_prices() -> None:
    shop = Shop(
        name="mixed",
        products=Products.of(
            ["p1", "a", "p3"],
            title=["Mug", "", "Pot"],
            description=["blue", "", ""],
            brand=["Klar", "", ""],
            price=[9.5, np.nan, 7],
        ),
        triples=Triples.of(["a", "p1"], ["r", "r"], ["b", "a"], [TRAIN, TRAIN]),
        entities=Entities(text_column(["a", "p1"]), text_column(["Ay", "other"]), text_column(["first", "other"])),
        literals=Literals(text_column(["b", "a"]), text_column(["year", "price"]), np.array([1999, 3], np.float32)),
    )
    graph = made(shop)
    assert graph.entities.tolist() == ["p1", "a", "p3", "b", "brand:Klar"]
    names, words = ["Mug", "Ay", "Pot", "b", "brand:Klar"], ["Mug: blue", "Ay: first", "Pot", "", ""]
    assert entity_words(shop, graph) == (names, words)
    numbers = np.array([[9.5, np.nan], [3, np.nan], [7, np.nan], [np.nan, 1999], [np.nan, np.nan]])
    np.testing.assert_array_equal(literals(shop, graph)[0], numbers)
    assert literals(shop, graph)[1] == ("price", "year")
    # A part of the graph has other rows: products are found by id.
    part = induced(graph, np.array([False, True, False, True, False]))
    assert entity_words(shop, part) == (names[1:4:2], words[1:4:2]) and part.n_products == 0
    np.testing.assert_array_equal(literals(shop, part)[0], numbers[1:4:2])


def test_what_the_graph_lacks_is_named() -> None:
    mug = Products.of(["p"], brand=["Klar"])
    negatives = Triples.of(["b"], ["r"], ["a"], [TEST])
    shop = dataclasses.replace(GRAPH, products=mug, negatives=negatives, literals=None)
    with pytest.raises(UserError, match=r"negatives name 2 times an entity .*'b' first; does data\.graph\.given"):
        false_triples(shop, made(shop, given=False), TEST)
    numbers = Literals(text_column(["a", "zz"]), text_column(["x", "x"]), np.ones(2, np.float32))
    shop = dataclasses.replace(GRAPH, literals=numbers)
    with pytest.raises(UserError, match="literals name 1 times an entity that its graph lacks, 'zz' first"):
        literals(shop, made(shop))


def test_what_a_part_of_the_graph_lacks_is_left_out() -> None:
    graph = made(GRAPH)
    small = induced(graph, np.array([True, False, True, True]))
    assert entity_words(GRAPH, small) == (["Ay", "Cee", "d"], ["Ay", "Cee: third", ""])
    assert relation_names(GRAPH, small) == ["r"]
    np.testing.assert_array_equal(literals(GRAPH, small)[0], literals(GRAPH, graph)[0][[0, 2, 3]])
    assert named(small, false_triples(GRAPH, small, VALID)) == named(small, false_triples(GRAPH, small, TEST)) == []
    kept = induced(graph, np.array([True, True, True, False]))
    assert named(kept, false_triples(GRAPH, kept, VALID)) == [("b", "r", "a")]


def test_entities_held_out_leave_no_false_triples() -> None:
    ring = [(head, (head + step) % 9) for head in range(9) for step in (1, 2, 4)]
    names = [[f"e{end}" for end in ends] for ends in zip(*ring, strict=True)]
    shop = Shop(
        "ring",
        triples=Triples.of(names[0], ["r"] * 27, names[1], [TRAIN] * 27),
        negatives=Triples.of(["e0", "e1"], ["r", "r"], ["e3", "e4"], [VALID, TEST]),
    )
    graph = made(shop)
    assert false_triples(shop, graph, TEST) is not None
    held, _ = hold_out_entities(graph, 0.3)
    assert false_triples(shop, held, VALID) is None and false_triples(shop, held, TEST) is None


def test_numbers_are_standardised_and_marked() -> None:
    """1 and 3: mean 2, deviation 1; a column that says one thing, or nothing, is 0."""
    numbers = np.array([[1.0, 7.0, np.nan], [3.0, np.nan, np.nan], [np.nan, 7.0, np.nan]])
    found = standardised(numbers)
    assert found.dtype == np.float32
    assert found.tolist() == [[-1, 0, 0, 1, 1, 0], [1, 0, 0, 1, 0, 0], [0, 0, 0, 0, 1, 0]]
    far = standardised(np.array([[1e9 + 1], [1e9 + 3]]))  # float32 does not tell them apart
    assert far[:, 0].tolist() == [-1, 1]
