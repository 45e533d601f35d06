"""Segments against a shop made by hand."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from fusionjax.config import schema
from fusionjax.data.inputs import Inputs, build_inputs
from fusionjax.data.shop import TEST, TRAIN, VALID, Events, Judgments, Products, Queries, Shop, Triples, Users
from fusionjax.data.shop import text_column as texts
from fusionjax.evaluation.scores import Examples, Segment
from fusionjax.evaluation.segments import count_words, segments_of, thirds

TITLES = ["red mug", "红色杯子", "Acme 杯子", "50ml", "T恤", "blue mug"]
QUERIES = ["mug", "红色杯子", "Blue  MUG ", "blue  mug", "a red mug of tea", "!"]
EDGES = [
    ("p0", "likes", "p1", TRAIN),
    ("p0", "likes", "p2", TRAIN),
    ("p0", "likes", "p3", TRAIN),
    ("p1", "has", "red", TRAIN),
    ("p2", "has", "red", TRAIN),
    ("p1", "is", "p2", TRAIN),
    *((head, "near", tail, TRAIN) for head in ("p0", "p1") for tail in ("p2", "p3")),
    ("p4", "likes", "p0", TEST),
    ("p3", "has", "blue", TEST),
    ("p2", "is", "p3", TEST),
    ("p4", "near", "p0", VALID),
    ("p4", "near", "p1", TEST),
    ("p4", "new", "p1", TEST),
]
EVENTS = [  # user, product, split, query
    *((0, product, TRAIN, -1) for product in (0, 1, 0, 1, 0)),
    (0, 2, VALID, 2),
    (0, 5, TEST, 2),
    *((1, product, TRAIN, 3) for product in (0, 1, 2)),
    (1, 3, TEST, -1),
    (2, 4, TEST, -1),
]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    head, relation, tail, split = zip(*EDGES, strict=True)
    user, product, of, query = (np.array(column) for column in zip(*EVENTS, strict=True))
    n = len(EVENTS)
    shop = Shop(
        "s",
        products=Products.of([f"p{row}" for row in range(6)], title=TITLES),
        triples=Triples.of(head, relation, tail, split=split),
        users=Users(texts(f"u{row}" for row in range(3))),
        events=Events(
            ("view",),
            user.astype(np.int32),
            product.astype(np.int32),
            np.zeros(n, np.int8),
            np.arange(n),
            query.astype(np.int32),
            of.astype(np.int8),
        ),
        queries=Queries(texts(f"q{row}" for row in range(len(QUERIES))), texts(QUERIES)),
        judgments=Judgments(
            np.arange(6, dtype=np.int32), np.arange(6, dtype=np.int32), np.ones(6, np.float32), np.full(6, TEST, np.int8)
        ),
    )
    graph = {"given": True, "brand": False, "category": False, "co_view": 0, "co_purchase": 0, "attributes": False}
    config = schema.Run.model_validate({"text": {"vocab_size": 100}, "data": {"graph": graph}})
    return build_inputs(shop, config, tmp_path_factory.mktemp("tokenizer"), log=lambda _: None)


def users() -> Examples:
    return Examples("recommendation", np.array([0, 1, 2]), np.arange(4), np.array([5, 3, 4]))


def queries() -> Examples:
    return Examples("search", np.array([0, 1, 2, 4, 5]), np.arange(6), np.array([0, 1, 2, 4, 5]), np.ones(5))


def triples(inputs: Inputs) -> Examples:
    test = inputs.graph.triples(TEST)
    return Examples("link_prediction", np.arange(len(test)), np.arange(len(test) + 1) * 2, test[:, [2, 0]].reshape(-1))


def names(segment: Segment) -> list[str | None]:
    return [segment.labels[code] if code >= 0 else None for code in segment.codes]


def test_which_segments_a_task_has(inputs: Inputs) -> None:
    found = {asked.task: segments_of(asked, inputs) for asked in (users(), queries(), triples(inputs))}
    assert {task: set(segments) for task, segments in found.items()} == {
        "recommendation": {"popularity", "degree", "history", "language"},
        "search": {"popularity", "degree", "query_length", "query_frequency", "language"},
        "link_prediction": {"seen", "direction", "relation", "relation_category", "degree", "popularity"},
    }
    for task, asked in (("recommendation", users()), ("search", queries()), ("link_prediction", triples(inputs))):
        dataclasses.replace(asked, segments=found[task])  # refuses codes that are not aligned
    assert list(segments_of(users(), inputs, names=["language", "direction", "degree"])) == ["degree", "language"]


def test_users(inputs: Inputs) -> None:
    found = segments_of(users(), inputs)
    # Training events: p0 four, p1 three, p2 one: 8. Before p0 none (head), before p1 4 ≥ 8/3, before p2 7 ≥ 16/3.
    assert inputs.train_counts.tolist() == [4, 3, 1, 0, 0, 0]
    assert names(found["popularity"]) == ["cold"] * 3
    assert names(found["history"]) == ["4–7", "0–3", "0–3"] and found["history"].labels[-1] == "16+"
    assert names(segments_of(users(), inputs, VALID)["history"]) == ["4–7", "0–3", "0–3"]
    assert names(found["language"]) == ["en", "none", "zh"] and found["language"].of == "target"


def test_histories_end_before_the_split(inputs: Inputs) -> None:
    sequences = inputs.sequences
    assert sequences is not None
    fewer = dataclasses.replace(sequences, split=np.where(sequences.split == TRAIN, VALID, sequences.split))
    changed = dataclasses.replace(inputs, sequences=fewer)
    assert names(segments_of(users(), changed, VALID)["history"]) == ["0–3"] * 3
    assert names(segments_of(users(), changed, TEST)["history"]) == ["4–7", "0–3", "0–3"]


def test_queries(inputs: Inputs) -> None:
    found = segments_of(queries(), inputs)
    assert names(found["popularity"]) == ["head", "middle", "tail", "cold", "cold"]
    assert names(found["query_length"]) == ["1", "2", "2", "5+", None]
    assert names(found["language"]) == ["en", "zh", "en", "en", "none"] and found["language"].of == "example"
    # Query 3 was asked in three training events (query 2 only later), and has the text of 2 but for case and outer spaces.
    assert names(found["query_frequency"]) == ["0", "0", "3–9", "0", "0"]
    other = Examples("search", np.array([0, 1]), np.arange(3), np.array([0, 1]), np.ones(2))
    assert "query_frequency" not in segments_of(other, inputs)


def test_triples(inputs: Inputs) -> None:
    found = segments_of(triples(inputs), inputs)
    relations = [inputs.graph.relations[row] for row in inputs.graph.triples(TEST)[:, 1]]
    assert sorted(relations) == ["has", "is", "likes", "near", "new"]
    assert names(found["relation"]) == relations
    # likes: one head, three tails; has: two heads of one tail; is: one of one; near: two of two; new: never in training.
    category = {"likes": "1-N", "has": "N-1", "is": "1-1", "near": "N-N", "new": None}
    assert names(found["relation_category"]) == [category[name] for name in relations]
    assert names(found["direction"]) == ["tail", "head"] * 5
    ids = inputs.graph.entities[triples(inputs).target]
    popularity = {"p0": "head", "p1": "middle", "p2": "tail", "p3": "cold", "p4": "cold", "blue": None}
    assert names(found["popularity"]) == [popularity[name] for name in ids]
    # Training edges: p0 five, p1 five, p2 five, p3 three, blue and p4 none. Of the positive, sorted: 3, 3, 5, 5, 5, 5.
    degree = {"p0": "4+", "p1": "4+", "p2": "4+", "p3": "1–3", "p4": "0", "blue": "0"}
    assert found["degree"].labels == ("0", "1–3", "4+") and names(found["degree"]) == [degree[name] for name in ids]


def test_a_graph_without_a_shop(tmp_path: Path) -> None:
    """Categories, degrees and the table of Bordes from training triples alone."""
    edges = [
        *(("a", "has", tail, TRAIN) for tail in "bcd"),  # 1-N
        *((head, "in", "e", TRAIN) for head in "abc"),  # N-1
        ("b", "is", "c", TRAIN),  # 1-1
        *((head, "near", tail, TRAIN) for head in "ab" for tail in "de"),  # N-N
        ("b", "has", "a", TEST),
        ("d", "in", "e", TEST),
        ("d", "in", "a", VALID),  # would make "in" N-N, "is" N-1 with the next ones, and a's degree 6
        ("a", "is", "c", VALID),
        ("d", "is", "c", TEST),
        ("c", "near", "d", TEST),
    ]
    head, relation, tail, split = zip(*edges, strict=True)
    shop = Shop("g", triples=Triples.of(head, relation, tail, split=split))
    others = {name: {"weight": 0.0} for name in ("alignment", "query_product", "next_product")}
    inputs = build_inputs(shop, schema.Run.model_validate({"objectives": others}), tmp_path, log=lambda _: None)
    asked = triples(inputs)
    found = segments_of(asked, inputs)
    assert "popularity" not in found
    of = [inputs.graph.relations[row] for row in inputs.graph.triples(TEST)[:, 1]]
    category = {"has": "1-N", "in": "N-1", "is": "1-1", "near": "N-N"}
    assert sorted(of) == sorted(category) and names(found["relation_category"]) == [category[name] for name in of]
    degree = {"a": 6, "b": 5, "c": 3, "d": 3, "e": 5}  # of training triples: a 3 + 1 + 2, b 1 + 1 + 1 + 2, …
    starts = found["degree"].labels
    assert starts[0] == "0"
    by_name = dict(zip(inputs.graph.entities[asked.target].tolist(), names(found["degree"]), strict=True))
    assert by_name == {name: _label(degree[name], starts) for name in by_name}


def _label(value: int, labels: tuple[str, ...]) -> str:
    starts = [int(label.rstrip("+").split("–")[0]) for label in labels]
    return labels[max(i for i, start in enumerate(starts) if start <= value)]


def test_the_threshold_of_many_is_one_and_a_half(inputs: Inputs) -> None:
    def category(edges: list[tuple[int, int]]) -> str | None:
        head, tail = (np.array([*column, 0], np.int32) for column in zip(*edges, strict=True))
        split = np.array([TRAIN] * len(edges) + [TEST], np.int8)
        graph = dataclasses.replace(
            inputs.graph, relations=("r",), head=head, relation=np.zeros(len(head), np.int32), tail=tail, split=split
        )
        asked = Examples("link_prediction", np.zeros(1, int), np.array([0, 2]), np.zeros(2, int))
        return names(segments_of(asked, dataclasses.replace(inputs, graph=graph))["relation_category"])[0]

    assert category([(0, 1), (0, 2), (1, 3)]) == "1-N"  # 3 tails of 2 heads: 1.5
    assert category([(0, 1), (0, 2), (1, 3), (2, 4)]) == "1-1"  # 4 of 3
    assert category([(1, 0), (2, 0), (3, 1)]) == "N-1"


@pytest.mark.parametrize(
    ("values", "starts"),
    [
        ([0, 1, 2, 3, 4, 5, 6], (0, 1, 3, 5)),
        ([7, 7, 7], (0, 1)),
        ([1, 1, 1, 5], (0, 1, 2)),
        ([2, 9, 9, 9], (0, 1, 3)),
        ([0, 0], (0,)),
        ([4], (0, 1)),
        ([], (0,)),
    ],
)
def test_thirds(values: list[int], starts: tuple[int, ...]) -> None:
    assert thirds(np.array(values, np.int64)) == starts


@pytest.mark.parametrize(
    ("text", "words"),
    [("", 0), ("?!", 0), ("Air-Max 90", 3), ("红", 1), ("红色", 1), ("红色运动鞋", 3), ("nike 运动鞋", 3), ("ＵＳＢ线", 2)],
)
def test_words_of_a_query(text: str, words: int) -> None:
    assert count_words(text) == words
