"""Graphs to train on: numbering, words, numbers and negatives joined from a shop; subgraphs; what is held out of them."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from fusionjax.config import schema
from fusionjax.data.graph import build_graph
from fusionjax.data.knowledge_graph import KnowledgeGraph, induced, knowledge_graph
from fusionjax.data.shop import TEST, TRAIN, VALID, Entities, Literals, Products, Relations, Shop, Triples, text_column
from fusionjax.errors import UserError


def made(shop: Shop, **graph: Any) -> KnowledgeGraph:
    return knowledge_graph(shop, build_graph(shop, schema.Graph(**graph), schema.Split()))


def named(kg: KnowledgeGraph, triples: np.ndarray) -> list[tuple[Any, str, Any]]:
    return [(kg.entities[head], kg.relations[relation], kg.entities[tail]) for head, relation, tail in triples]


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
    kg = made(GRAPH)
    assert kg.entities.tolist() == ["a", "b", "c", "d"] and kg.relations == ("r", "s")
    assert named(kg, kg.train) == [("a", "r", "b"), ("c", "r", "a"), ("b", "s", "c")]  # by relation, as build_graph has them
    assert named(kg, kg.valid) == [("a", "r", "c")] and named(kg, kg.test) == [("d", "s", "a")]
    assert kg.train.dtype == kg.valid.dtype == kg.test.dtype == np.int32
    assert kg.entity_text == ["Ay", "second", "Cee: third", ""]
    assert kg.entity_names == ["Ay", "b", "Cee", "d"] and kg.relation_names == ["r", "sees"]
    assert kg.valid_negatives is not None and kg.test_negatives is not None
    assert named(kg, kg.valid_negatives) == [("b", "r", "a"), ("b", "s", "d")]
    assert named(kg, kg.test_negatives) == [("d", "s", "b")]
    assert kg.literal_names == ("year", "size") and kg.literals is not None and kg.literals.dtype == np.float32
    np.testing.assert_array_equal(kg.literals, [[np.nan, 2], [np.nan, np.nan], [1, 3], [np.nan, np.nan]])
    assert len(kg.known) == 5 and len(kg.others) == 0


def test_a_graph_without_words_or_numbers() -> None:
    kg = made(Shop("bare", triples=GRAPH.triples))
    assert kg.entity_text is None and kg.literals is None and kg.literal_names == ()
    assert kg.valid_negatives is None and kg.test_negatives is None
    assert kg.entity_names == ["a", "b", "c", "d"] and kg.relation_names == ["r", "s"]


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
    kg = made(shop)
    assert kg.entities.tolist() == ["p1", "a", "p3", "b", "brand:Klar"]
    assert kg.entity_text == ["Mug: blue", "Ay: first", "Pot", "", ""]
    assert kg.entity_names == ["Mug", "Ay", "Pot", "b", "brand:Klar"]
    assert kg.literal_names == ("price", "year") and kg.literals is not None
    np.testing.assert_array_equal(kg.literals[:, 0], np.array([9.5, 3, 7, np.nan, np.nan], np.float32))
    np.testing.assert_array_equal(kg.literals[:, 1], np.array([np.nan] * 3 + [1999, np.nan], np.float32))


def test_what_the_graph_lacks_is_named() -> None:
    mug = Products.of(["p"], brand=["Klar"])
    with pytest.raises(UserError, match=r"negatives name 2 times an entity .*'b' first; does data\.graph\.given"):
        negatives = Triples.of(["b"], ["r"], ["a"], [TEST])
        made(dataclasses.replace(GRAPH, products=mug, negatives=negatives, literals=None), given=False)
    with pytest.raises(UserError, match="literals name 1 times an entity that its graph lacks, 'zz' first"):
        literals = Literals(text_column(["a", "zz"]), text_column(["x", "x"]), np.ones(2, np.float32))
        made(dataclasses.replace(GRAPH, literals=literals))


def test_induced_renumbers_everything() -> None:
    kg = dataclasses.replace(made(GRAPH), others=np.array([[2, 0, 2], [3, 0, 2]], np.int32))
    small = induced(kg, np.array([True, False, True, True]))
    assert small.entities.tolist() == ["a", "c", "d"] and small.relations == ("r",)  # no training triple of s is left
    assert named(small, small.train) == [("c", "r", "a")] and named(small, small.valid) == [("a", "r", "c")]
    assert len(small.test) == 0 and named(small, small.others) == [("c", "r", "c"), ("d", "r", "c")]
    assert small.entity_text == ["Ay", "Cee: third", ""] and small.relation_names == ["r"]
    assert small.literals is not None and kg.literals is not None
    np.testing.assert_array_equal(small.literals, kg.literals[[0, 2, 3]])
    with pytest.raises(ValueError, match="2 of 4 entities leave none of 3 training triples"):
        induced(kg, np.array([False, True, False, True]))
