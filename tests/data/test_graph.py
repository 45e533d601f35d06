"""The graph: merged from all its sources, no triple twice, held out by pair, behaviour edges by hand."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusionjax.config import schema
from fusionjax.data.graph import Graph, build_graph, co_occurrences
from fusionjax.data.shop import TEST, TRAIN, UNASSIGNED, VALID, Events, Products, Shop, Triples
from fusionjax.errors import UserError

NO_HOLD_OUT = schema.Split(valid_share=0.0, test_share=0.0)


def make_events(journeys: list[tuple[int, int, str, int]], splits: list[int] | None = None) -> Events:
    """Events from (user, product, kind, time)."""
    kinds = tuple(dict.fromkeys(kind for _, _, kind, _ in journeys))
    columns = [np.array(column) for column in zip(*((u, p, kinds.index(k), t) for u, p, k, t in journeys), strict=True)]
    n = len(journeys)
    return Events(
        kinds,
        columns[0].astype(np.int32),
        columns[1].astype(np.int32),
        columns[2].astype(np.int8),
        columns[3].astype(np.int64),
        np.full(n, -1, np.int32),
        np.full(n, TRAIN, np.int8) if splits is None else np.array(splits, np.int8),
    )


def named(graph: Graph) -> list[tuple[str, str, str]]:
    return [
        (str(graph.entities[head]), graph.relations[relation], str(graph.entities[tail]))
        for head, relation, tail in graph.triples().tolist()
    ]


SHOP = Shop(
    "s",
    products=Products.of(
        ["P1", "P2", "P3"],
        brand=["Acme", "", "Acme"],
        category=["Clothes > Tops > Tees", "Clothes > Tops", ""],
        attributes={"colour": ["red", "blue", ""], "sku": ["1", "2", "3"]},
    ),
    triples=Triples.of(["P1", "cotton", "P1"], ["goes_with", "is_a", "made_of"], ["P2", "plant", "cotton"]),
    events=make_events([(0, 0, "view", 1), (0, 2, "view", 2), (1, 1, "purchase", 1), (1, 2, "cart", 3)]),
)


# ------------------------------------------------------------------------------------------------------------- what exists
def test_all_sources_become_one_graph() -> None:
    graph = build_graph(SHOP, schema.Graph(co_view=1, co_purchase=1), NO_HOLD_OUT)
    assert graph.n_products == 3 and graph.entities[:3].tolist() == ["P1", "P2", "P3"]
    assert len(set(graph.entities)) == len(graph.entities)
    assert named(graph) == [
        ("P1", "goes_with", "P2"),
        ("cotton", "is_a", "plant"),
        ("P1", "made_of", "cotton"),
        ("P1", "brand", "brand:Acme"),
        ("P3", "brand", "brand:Acme"),
        ("P1", "in_category", "category:Clothes > Tops > Tees"),
        ("P2", "in_category", "category:Clothes > Tops"),
        ("category:Clothes > Tops > Tees", "subcategory_of", "category:Clothes > Tops"),
        ("category:Clothes > Tops", "subcategory_of", "category:Clothes"),
        ("P1", "colour", "colour:red"),
        ("P2", "colour", "colour:blue"),
        ("P1", "sku", "sku:1"),
        ("P2", "sku", "sku:2"),
        ("P3", "sku", "sku:3"),
        ("P1", "co_view", "P3"),
        ("P3", "co_view", "P1"),
        ("P2", "co_purchase", "P3"),
        ("P3", "co_purchase", "P2"),
    ]
    assert (graph.split == TRAIN).all() and graph.head.dtype == graph.relation.dtype == graph.tail.dtype == np.int32
    counts = graph.relation_counts()
    assert list(counts) == list(graph.relations) and counts["sku"] == {"train": 3, "valid": 0, "test": 0}
    assert graph.triples(TRAIN).shape == (18, 3) and len(graph.triples(TEST)) == 0


def test_each_source_can_be_left_out() -> None:
    nothing = schema.Graph(given=False, brand=False, category=False, attributes=False)
    assert len(build_graph(SHOP, nothing, NO_HOLD_OUT)) == 0
    for change, relations in (
        ({"given": True}, ("goes_with", "is_a", "made_of")),
        ({"brand": True}, ("brand",)),
        ({"category": True}, ("in_category", "subcategory_of")),
        ({"attributes": True}, ("colour", "sku")),
        ({"attributes": ("sku",)}, ("sku",)),
        ({"co_view": 1}, ("co_view",)),
        ({"co_purchase": 1}, ("co_purchase",)),
    ):
        assert build_graph(SHOP, nothing.model_copy(update=change), NO_HOLD_OUT).relations == relations
    alone = build_graph(Shop("g", triples=SHOP.triples), schema.Graph(), NO_HOLD_OUT)
    assert alone.n_products == 0 and alone.entities.tolist() == ["P1", "P2", "cotton", "plant"]


def test_no_triple_stands_twice_and_a_given_split_wins() -> None:
    """Given triples that say what the catalogue says are one edge; one of a given split keeps it."""
    given = Triples.of(
        ["P1", "P1", "P2", "P3"],
        ["colour", "colour", "colour", "brand"],
        ["colour:red", "colour:red", "colour:blue", "brand:Acme"],
        split=[UNASSIGNED, VALID, TEST, TRAIN],
    )
    shop = dataclasses.replace(SHOP, triples=given)
    for shares in (NO_HOLD_OUT, schema.Split(valid_share=0.45, test_share=0.45)):
        graph = build_graph(shop, schema.Graph(), shares)
        triples = named(graph)
        assert len(set(triples)) == len(triples)
        split_of = dict(zip(triples, graph.split.tolist(), strict=True))
        assert split_of["P1", "colour", "colour:red"] == VALID
        assert split_of["P2", "colour", "colour:blue"] == TEST
        assert split_of["P3", "brand", "brand:Acme"] == TRAIN


def test_behaviour_edges_stay_in_training_even_if_given_ones_bear_their_name() -> None:
    shop = dataclasses.replace(SHOP, triples=Triples.of(["P1"], ["co_view"], ["P3"]))
    graph = build_graph(shop, schema.Graph(co_view=1), schema.Split(valid_share=0.45, test_share=0.45))
    rows = graph.relation == graph.relations.index("co_view")
    assert rows.sum() == 2 and (graph.split[rows] == TRAIN).all()


def test_a_misspelt_attribute_is_an_error_that_names_the_nearest() -> None:
    with pytest.raises(
        UserError, match=r"data\.graph\.attributes: no product has an attribute 'color'; did you mean 'colour'\?"
    ):
        build_graph(SHOP, schema.Graph(attributes=("sku", "color")), NO_HOLD_OUT)


def test_an_attribute_of_too_many_values_is_left_out_and_said() -> None:
    graph = build_graph(SHOP, schema.Graph(max_attribute_values=2), NO_HOLD_OUT)
    assert graph.notes == ("attribute 'sku' left out: 3 values > max_attribute_values 2",)
    assert "sku" not in graph.relations and "colour" in graph.relations
    assert build_graph(SHOP, schema.Graph(max_attribute_values=3), NO_HOLD_OUT).notes == ()


# -------------------------------------------------------------------------------------------------------------- behaviour
def pairs(events: Events, kinds: tuple[str, ...] = ("view",), window: int = 5, least: int = 1) -> list[tuple[int, int]]:
    first, second = co_occurrences(events, kinds, window, least)
    assert first.dtype == second.dtype == np.int32
    return list(zip(first.tolist(), second.tolist(), strict=True))


def test_window_and_order_of_time() -> None:
    """In time the user sees 3, 1, 2, 0."""
    events = make_events([(0, 0, "view", 9), (0, 1, "view", 4), (0, 2, "view", 5), (0, 3, "view", 1)])
    assert pairs(events, window=1) == [(0, 2), (1, 2), (1, 3)]
    assert pairs(events, window=2) == [(0, 1), (0, 2), (1, 2), (1, 3), (2, 3)]
    assert pairs(events, window=3) == [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    assert pairs(events, window=50) == pairs(events, window=3)


def test_threshold_kinds_users_and_splits() -> None:
    journeys = [(user, product, "view", time) for user in range(3) for time, product in enumerate((0, 1))]
    journeys += [(3, 1, "view", 0), (3, 2, "view", 1), (4, 2, "buy", 0), (4, 3, "buy", 1), (5, 4, "view", 0), (6, 5, "view", 0)]
    events = make_events(journeys)
    assert pairs(events) == [(0, 1), (1, 2)]  # not 4 and 5, who are of different users
    assert pairs(events, least=3) == [(0, 1)] and pairs(events, least=4) == []
    assert pairs(events, kinds=("buy",)) == [(2, 3)] and pairs(events, kinds=("cart",)) == []
    assert pairs(make_events(journeys, [TRAIN] * 5 + [TEST] + [VALID] * 6), least=2) == [(0, 1)]
    assert pairs(make_events(journeys, [TEST] * 12)) == []
    repeated = make_events([(0, 7, "view", time) for time in range(4)])
    assert pairs(repeated) == []  # a product is no neighbour of its own


@given(
    journeys=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5), st.integers(0, 9)), min_size=1, max_size=25),
    window=st.integers(1, 6),
    least=st.integers(1, 3),
)
def test_co_occurrences_against_a_loop(journeys: list[tuple[int, int, int]], window: int, least: int) -> None:
    events = make_events([(user, product, "view", time) for user, product, time in journeys])
    counts: dict[tuple[int, int], int] = {}
    for user in range(4):
        mine = [product for _, product in sorted(((t, p) for u, p, t in journeys if u == user), key=lambda pair: pair[0])]
        for place, a in enumerate(mine):
            for b in mine[place + 1 : place + 1 + window]:
                if a != b:
                    counts[min(a, b), max(a, b)] = counts.get((min(a, b), max(a, b)), 0) + 1
    assert pairs(events, window=window, least=least) == sorted(pair for pair, count in counts.items() if count >= least)


# --------------------------------------------------------------------------------------------------------------- hold-out
EDGES = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 2), st.integers(0, 9)), min_size=1, max_size=60)


@given(edges=EDGES, valid=st.floats(0, 0.45), test=st.floats(0, 0.45))
def test_hold_out(edges: list[tuple[int, int, int]], valid: float, test: float) -> None:
    """Both directions and all relations of a pair share a split; what is held out is made of things that training knows."""
    triples = Triples.of([f"e{h}" for h, _, _ in edges], [f"r{r}" for _, r, _ in edges], [f"e{t}" for _, _, t in edges])
    shares = schema.Split(valid_share=valid, test_share=test)
    graph = build_graph(Shop("g", triples=triples), schema.Graph(), shares)
    assert len(graph) == len(set(edges)) and np.isin(graph.split, (TRAIN, VALID, TEST)).all()
    split_of: dict[frozenset[int], set[int]] = {}
    for head, tail, split in zip(graph.head.tolist(), graph.tail.tolist(), graph.split.tolist(), strict=True):
        split_of.setdefault(frozenset((head, tail)), set()).add(split)
    assert all(len(codes) == 1 for codes in split_of.values())
    train = graph.triples(TRAIN)
    for code in (VALID, TEST):
        held_out = graph.triples(code)
        assert np.isin(held_out[:, [0, 2]], train[:, [0, 2]]).all() and np.isin(held_out[:, 1], train[:, 1]).all()
    again = build_graph(Shop("g", triples=triples), schema.Graph(), shares)
    np.testing.assert_array_equal(graph.split, again.split)


def ring(n: int, split: list[int] | None = None) -> Triples:
    """A dense graph of n entities: everything is known to training, whatever is held out."""
    pairs = [(a, b) for a in range(n) for b in range(n) if a != b]
    return Triples.of([f"e{a}" for a, _ in pairs], ["r"] * len(pairs), [f"e{b}" for _, b in pairs], split=split)


def test_shares_of_the_hold_out() -> None:
    graph = build_graph(Shop("g", triples=ring(40)), schema.Graph(), schema.Split(valid_share=0.1, test_share=0.2))
    share = np.bincount(graph.split, minlength=3) / len(graph)
    np.testing.assert_allclose(share, [0.7, 0.1, 0.2], atol=0.03)
    assert (build_graph(Shop("g", triples=ring(40)), schema.Graph(), NO_HOLD_OUT).split == TRAIN).all()


def test_given_splits_are_kept_and_the_rest_follows_its_pair() -> None:
    n = 12
    triples = ring(n)
    split = np.full(len(triples), UNASSIGNED, np.int8)
    split[:6] = [TEST, VALID, TEST, TRAIN, VALID, TEST]
    graph = build_graph(
        Shop("g", triples=dataclasses.replace(triples, split=split)),
        schema.Graph(),
        schema.Split(valid_share=0.3, test_share=0.3),
    )
    assert graph.split[:6].tolist() == [TEST, VALID, TEST, TRAIN, VALID, TEST]
    split_of = {(h, t): code for h, t, code in zip(graph.head.tolist(), graph.tail.tolist(), graph.split.tolist(), strict=True)}
    for head, tail in list(split_of):
        assert split_of[head, tail] == split_of[tail, head]


def test_the_only_edge_of_a_relation_takes_its_pair_to_training() -> None:
    """Nobody can foretell a relation never seen; nor may the pair's other edges be asked when this one was told."""
    dense, n = ring(12), 30
    names = dense.entities
    heads, tails = names[dense.head].tolist(), names[dense.tail].tolist()
    rare = Triples.of([*heads, *heads[:n]], ["r"] * len(heads) + [f"rare {row}" for row in range(n)], [*tails, *tails[:n]])
    graph = build_graph(Shop("g", triples=rare), schema.Graph(), schema.Split(valid_share=0.3, test_share=0.3))
    told = graph.relation != graph.relations.index("r")
    assert told.sum() == n and (graph.split[told] == TRAIN).all() and (graph.split == TEST).any()
    pairs_told = {frozenset(pair) for pair in graph.triples()[told][:, [0, 2]].tolist()}
    held_out = {frozenset(pair) for code in (VALID, TEST) for pair in graph.triples(code)[:, [0, 2]].tolist()}
    assert len(held_out) > 10 and not pairs_told & held_out


def test_the_reverse_of_a_given_test_edge_is_not_trained_on() -> None:
    """Even where its entities are then unknown to training: the source wanted it so."""
    triples = Triples.of(["a", "b", "c"], ["r"] * 3, ["b", "a", "d"], split=[TEST, UNASSIGNED, UNASSIGNED])
    assert build_graph(Shop("g", triples=triples), schema.Graph(), NO_HOLD_OUT).split.tolist() == [TEST, TEST, TRAIN]


def test_an_empty_shop_has_an_empty_graph() -> None:
    graph = build_graph(Shop("nothing"), schema.Graph(), schema.Split())
    assert len(graph) == 0 and graph.triples().shape == (0, 3) and graph.relations == () and graph.n_products == 0
