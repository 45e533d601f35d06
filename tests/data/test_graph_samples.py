"""Entities held out of training, and subgraphs: what the rules promise, on graphs drawn at random."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusionjax.data.graph import Graph
from fusionjax.data.graph_samples import hold_out_entities, induced, subsample
from fusionjax.data.shop import TEST, TRAIN, UNASSIGNED, VALID, text_column
from fusionjax.errors import UserError


def random_graph(n: int = 200, edges: int = 1200, relations: int = 3, seed: int = 0) -> Graph:
    """No triple twice, hubs and all."""
    generator = np.random.default_rng(seed)
    ends = (n * generator.random((edges, 2)) ** 2).astype(np.int32)
    triples = np.unique(np.stack([ends[:, 0], generator.integers(0, relations, edges), ends[:, 1]], 1), axis=0).astype(np.int32)
    triples = generator.permutation(triples)
    a, b = int(0.8 * len(triples)), int(0.9 * len(triples))
    return graph_of(n, relations, triples[:a], triples[a:b], triples[b:])


def graph_of(n: int, relations: int, train: Any, valid: Any = (), test: Any = (), others: Any = ()) -> Graph:
    parts = ((train, TRAIN), (valid, VALID), (test, TEST), (others, UNASSIGNED))
    triples = np.concatenate([np.reshape(part, (-1, 3)) for part, _ in parts]).astype(np.int32)
    return Graph(
        entities=text_column(f"e{row}" for row in range(n)),
        relations=tuple(f"r{row}" for row in range(relations)),
        n_products=0,
        head=triples[:, 0],
        relation=triples[:, 1],
        tail=triples[:, 2],
        split=np.concatenate([np.full(len(part), code, np.int8) for part, code in parts]),
    )


def as_set(triples: np.ndarray) -> set[tuple[int, ...]]:
    return set(map(tuple, triples.tolist()))


def ends(triples: np.ndarray) -> set[int]:
    return set(triples[:, [0, 2]].ravel().tolist())


# ---------------------------------------------------------------------------------------------------------- inductive
@given(seed=st.integers(0, 50), share=st.sampled_from([0.05, 0.2, 0.4]))
def test_unseen_entities_are_unseen_and_the_others_are_not(seed: int, share: float) -> None:
    graph = random_graph(seed=seed % 5)
    held, unseen = hold_out_entities(graph, share, seed)
    trained = ends(graph.triples(TRAIN))
    assert unseen.dtype == np.int32 and len(unseen) == round(share * len(trained)) and (np.diff(unseen) > 0).all()
    assert ends(held.triples(TRAIN)) == trained - set(unseen.tolist())  # nobody else has lost all training
    assert set(held.triples(TRAIN)[:, 1].tolist()) == set(graph.triples(TRAIN)[:, 1].tolist())
    for asked in (held.triples(VALID), held.triples(TEST)):
        unseen_ends = np.isin(asked[:, [0, 2]], unseen).sum(axis=1)
        assert (unseen_ends == 1).all()
        assert {*ends(asked)} - set(unseen.tolist()) <= ends(held.triples(TRAIN))
    # Each unseen entity is asked for in one split; no triple is lost, none stands twice.
    assert not (ends(held.triples(VALID)) & ends(held.triples(TEST)) & set(unseen.tolist()))
    assert as_set(held.triples()) == as_set(graph.triples()) and len(held.triples()) == len(graph.triples())
    assert as_set(held.triples(TRAIN)) <= as_set(graph.triples(TRAIN))


def test_the_draw_is_the_seeds_alone() -> None:
    graph = random_graph()
    first, again, other = hold_out_entities(graph, 0.2), hold_out_entities(graph, 0.2, 0), hold_out_entities(graph, 0.2, 1)
    assert first[1].tolist() == again[1].tolist() != other[1].tolist()
    np.testing.assert_array_equal(first[0].triples(), again[0].triples())
    # Whatever changes here changes the data of published runs.
    assert first[1][:6].tolist() == [1, 7, 10, 12, 16, 30] and first[0].triples(TEST)[0].tolist() == [69, 0, 95]
    assert [len(first[0].triples(split)) for split in (TRAIN, VALID, TEST)] == [598, 212, 182]
    assert subsample(graph, 5).entities.tolist() == ["e1", "e9", "e15", "e22", "e111"]


def test_by_hand() -> None:
    # 0 - 1 - 2 - 0 in a ring with 3 and 4 beside it; 5 has no training triple.
    train = [[0, 0, 1], [1, 0, 2], [2, 0, 0], [3, 0, 0], [3, 0, 1], [4, 0, 1], [4, 0, 2]]
    graph = graph_of(6, 1, train, valid=[[0, 0, 2], [3, 0, 4]], test=[[5, 0, 0], [3, 0, 2]], others=[[1, 0, 3]])
    for seed in range(20):
        held, unseen = hold_out_entities(graph, 0.4, seed)
        if unseen.tolist() == [3, 4]:
            asked = [as_set(held.triples(VALID)), as_set(held.triples(TEST))]
            assert {(3, 0, 0), (3, 0, 1), (3, 0, 2)} in asked and {(4, 0, 1), (4, 0, 2)} in asked
            assert as_set(held.triples(TRAIN)) == {(0, 0, 1), (1, 0, 2), (2, 0, 0)}
            assert as_set(held.triples(UNASSIGNED)) == {(0, 0, 2), (1, 0, 3), (3, 0, 4), (5, 0, 0)}
            assert held.inductive and not held.sampled
            return
    raise AssertionError("no seed drew 3 and 4")


def test_too_much_is_refused() -> None:
    with pytest.raises(UserError, match=r"a share of 0\.99 of \d+ entities is \d+.*; \d+ can be taken out"):
        hold_out_entities(random_graph(), 0.99)
    with pytest.raises(UserError, match=r"a share of 0\.001 of \d+ entities is 0, at least 2 expected"):
        hold_out_entities(random_graph(), 0.001)
    with pytest.raises(UserError, match=r"; 2 can be taken out"):
        hold_out_entities(graph_of(4, 1, [[0, 0, 1], [0, 0, 2], [0, 0, 3]]), 0.75)


# ----------------------------------------------------------------------------------------------------------- subsample
@given(seed=st.integers(0, 50), n=st.integers(2, 220))
def test_subsample_by_entities(seed: int, n: int) -> None:
    graph = random_graph(seed=seed % 5)
    small = subsample(graph, n, seed=seed)
    possible = len(ends(graph.triples(TRAIN)))
    assert min(n, possible) - 1 <= len(small.entities) <= n
    assert ends(small.triples(TRAIN)) == set(range(len(small.entities)))  # each has a training triple
    row = {name: place for place, name in enumerate(graph.entities)}
    back = np.array([row[name] for name in small.entities])
    assert (np.diff(back) > 0).all()
    kept = set(back.tolist())
    relation = np.array([graph.relations.index(name) for name in small.relations])
    for part, whole in ((small.triples(split), graph.triples(split)) for split in (TRAIN, VALID, TEST)):
        named = np.stack([back[part[:, 0]], relation[part[:, 1]], back[part[:, 2]]], 1)
        inside = {triple for triple in as_set(whole) if triple[0] in kept and triple[2] in kept}
        assert as_set(named) == {triple for triple in inside if triple[1] in set(relation.tolist())}


@given(seed=st.integers(0, 50), n=st.integers(2, 200))
def test_a_smaller_sample_lies_inside_a_larger_one(seed: int, n: int) -> None:
    graph = random_graph(seed=seed % 5)
    assert set(subsample(graph, n, seed).entities) <= set(subsample(graph, n + 2, seed).entities)


def test_a_whole_graph_stays_whole_and_a_seed_is_a_walk() -> None:
    graph = random_graph()
    whole = subsample(graph, 10_000)
    assert len(whole.triples(TRAIN)) == len(graph.triples(TRAIN)) and len(whole.entities) == len(ends(graph.triples(TRAIN)))
    assert subsample(graph, 50).entities.tolist() == subsample(graph, 50, seed=0).entities.tolist()
    assert subsample(graph, 50).entities.tolist() != subsample(graph, 50, seed=1).entities.tolist()


def test_sizes_that_are_none() -> None:
    with pytest.raises(UserError, match=r"data\.graph\.sample: 1 entities, .* at least 2 and 1 expected"):
        subsample(random_graph(), 1)
    with pytest.raises(UserError, match=r"data\.graph\.sample: 5 entities, 0 training triples"):
        subsample(graph_of(3, 1, [], test=[[0, 0, 1]]), 5)


def test_induced_renumbers_everything() -> None:
    train = [[0, 0, 1], [2, 0, 0], [1, 1, 2]]
    graph = graph_of(4, 2, train, valid=[[0, 0, 2]], test=[[3, 1, 0]], others=[[2, 0, 2], [3, 0, 2]])
    small = induced(graph, np.array([True, False, True, True]))
    assert small.entities.tolist() == ["e0", "e2", "e3"] and small.relations == ("r0",)  # no training triple of r1 is left
    assert small.triples(TRAIN).tolist() == [[1, 0, 0]] and small.triples(VALID).tolist() == [[0, 0, 1]]
    assert len(small.triples(TEST)) == 0 and small.triples(UNASSIGNED).tolist() == [[1, 0, 1], [2, 0, 1]]
    assert small.triples().dtype == np.int32 and small.split.dtype == np.int8 and small.sampled
    with pytest.raises(ValueError, match="2 of 4 entities leave none of 3 training triples"):
        induced(graph, np.array([False, True, False, True]))
