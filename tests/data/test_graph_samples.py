"""Entities held out of training, and subgraphs: what the rules promise, on graphs drawn at random."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusionjax.data.graph_samples import hold_out_entities, subsample
from fusionjax.data.knowledge_graph import KnowledgeGraph
from fusionjax.data.shop import text_column
from fusionjax.errors import UserError


def random_graph(n: int = 200, edges: int = 1200, relations: int = 3, seed: int = 0) -> KnowledgeGraph:
    """No triple twice, hubs and all."""
    generator = np.random.default_rng(seed)
    ends = (n * generator.random((edges, 2)) ** 2).astype(np.int32)
    triples = np.unique(np.stack([ends[:, 0], generator.integers(0, relations, edges), ends[:, 1]], 1), axis=0).astype(np.int32)
    triples = generator.permutation(triples)
    a, b = int(0.8 * len(triples)), int(0.9 * len(triples))
    ids = [f"e{row}" for row in range(n)]
    return KnowledgeGraph(
        entities=text_column(ids),
        relations=tuple(f"r{row}" for row in range(relations)),
        train=triples[:a],
        valid=triples[a:b],
        test=triples[b:],
        entity_text=ids,
        entity_names=ids,
        relation_names=[f"r{row}" for row in range(relations)],
    )


def as_set(triples: np.ndarray) -> set[tuple[int, ...]]:
    return set(map(tuple, triples.tolist()))


def ends(triples: np.ndarray) -> set[int]:
    return set(triples[:, [0, 2]].ravel().tolist())


# ---------------------------------------------------------------------------------------------------------- inductive
@given(seed=st.integers(0, 50), share=st.sampled_from([0.05, 0.2, 0.4]))
def test_unseen_entities_are_unseen_and_the_others_are_not(seed: int, share: float) -> None:
    kg = random_graph(seed=seed % 5)
    held, unseen = hold_out_entities(kg, share, seed)
    trained = ends(kg.train)
    assert unseen.dtype == np.int32 and len(unseen) == round(share * len(trained)) and (np.diff(unseen) > 0).all()
    assert ends(held.train) == trained - set(unseen.tolist())  # nobody else has lost all training
    assert set(held.train[:, 1].tolist()) == set(kg.train[:, 1].tolist())
    for asked in (held.valid, held.test):
        unseen_ends = np.isin(asked[:, [0, 2]], unseen).sum(axis=1)
        assert (unseen_ends == 1).all()
        assert {*ends(asked)} - set(unseen.tolist()) <= ends(held.train)
    # Each unseen entity is asked for in one split; no triple is lost, none stands twice.
    assert not (ends(held.valid) & ends(held.test) & set(unseen.tolist()))
    assert as_set(held.known) == as_set(kg.known) and len(held.known) == len(kg.known)
    assert as_set(held.train) <= as_set(kg.train)


def test_the_draw_is_the_seeds_alone() -> None:
    kg = random_graph()
    first, again, other = hold_out_entities(kg, 0.2), hold_out_entities(kg, 0.2, 0), hold_out_entities(kg, 0.2, 1)
    assert first[1].tolist() == again[1].tolist() != other[1].tolist()
    np.testing.assert_array_equal(first[0].test, again[0].test)


def test_by_hand() -> None:
    # 0 - 1 - 2 - 0 in a ring with 3 and 4 beside it; 5 has no training triple.
    train = [[0, 0, 1], [1, 0, 2], [2, 0, 0], [3, 0, 0], [3, 0, 1], [4, 0, 1], [4, 0, 2]]
    base = random_graph(6, 10, 1)
    kg = dataclasses.replace(
        base,
        train=np.array(train, np.int32),
        valid=np.array([[0, 0, 2], [3, 0, 4]], np.int32),
        test=np.array([[5, 0, 0], [3, 0, 2]], np.int32),
        valid_negatives=np.array([[0, 0, 3]], np.int32),
    )
    for seed in range(20):
        held, unseen = hold_out_entities(kg, 0.4, seed)
        if unseen.tolist() == [3, 4]:
            asked = [as_set(held.valid), as_set(held.test)]
            assert {(3, 0, 0), (3, 0, 1), (3, 0, 2)} in asked and {(4, 0, 1), (4, 0, 2)} in asked
            assert as_set(held.train) == {(0, 0, 1), (1, 0, 2), (2, 0, 0)}
            assert as_set(held.others) == {(0, 0, 2), (3, 0, 4), (5, 0, 0)}
            assert held.valid_negatives is None and held.test_negatives is None
            return
    raise AssertionError("no seed drew 3 and 4")


def test_too_much_is_refused() -> None:
    with pytest.raises(UserError, match=r"a share of 0\.99 of \d+ entities is \d+.*; \d+ can be taken out"):
        hold_out_entities(random_graph(), 0.99)
    with pytest.raises(UserError, match=r"a share of 0\.001 of \d+ entities is 0, at least 2 expected"):
        hold_out_entities(random_graph(), 0.001)
    star = dataclasses.replace(random_graph(4, 10, 1), train=np.array([[0, 0, 1], [0, 0, 2], [0, 0, 3]], np.int32))
    with pytest.raises(UserError, match=r"; 2 can be taken out"):
        hold_out_entities(star, 0.75)


# ----------------------------------------------------------------------------------------------------------- subsample
@given(seed=st.integers(0, 50), n=st.integers(2, 220))
def test_subsample_by_entities(seed: int, n: int) -> None:
    kg = random_graph(seed=seed % 5)
    small = subsample(kg, n, seed=seed)
    possible = len(ends(kg.train))
    assert min(n, possible) - 1 <= len(small.entities) <= n
    assert ends(small.train) == set(range(len(small.entities)))  # each has a training triple
    row = {name: place for place, name in enumerate(kg.entities)}
    back = np.array([row[name] for name in small.entities])
    assert (np.diff(back) > 0).all()
    kept = set(back.tolist())
    relation = np.array([kg.relations.index(name) for name in small.relations])
    for part, whole in ((small.train, kg.train), (small.valid, kg.valid), (small.test, kg.test)):
        named = np.stack([back[part[:, 0]], relation[part[:, 1]], back[part[:, 2]]], 1)
        inside = {triple for triple in as_set(whole) if triple[0] in kept and triple[2] in kept}
        assert as_set(named) == {triple for triple in inside if triple[1] in set(relation.tolist())}


@given(seed=st.integers(0, 50), n=st.integers(30, 1200))
def test_subsample_by_triples_and_nested(seed: int, n: int) -> None:
    kg = random_graph(seed=seed % 5)
    small = subsample(kg, n_triples=n, seed=seed)
    assert len(small.train) <= n
    more = subsample(kg, len(small.entities) + 2, seed=seed)
    assert set(small.entities) <= set(more.entities)
    if n >= len(kg.train):
        assert len(small.train) == len(kg.train)
    else:
        assert len(more.train) > n or len(more.entities) <= len(small.entities) + 1


def test_a_whole_graph_stays_whole_and_a_seed_is_a_walk() -> None:
    kg = random_graph()
    whole = subsample(kg, 10_000)
    assert len(whole.train) == len(kg.train) and len(whole.entities) == len(ends(kg.train))
    assert subsample(kg, 50).entities.tolist() == subsample(kg, 50, seed=0).entities.tolist()
    assert subsample(kg, 50).entities.tolist() != subsample(kg, 50, seed=1).entities.tolist()


def test_sizes_that_are_none() -> None:
    kg = random_graph()
    for arguments in ({}, {"n_entities": 1}, {"n_triples": 0}, {"n_entities": 5, "n_triples": 5}):
        with pytest.raises(ValueError, match="give one, at least 2 entities or 1 triple"):
            subsample(kg, **arguments)
    double = dataclasses.replace(kg, train=np.array([[0, 0, 1], [0, 1, 1], [1, 0, 0]], np.int32))
    with pytest.raises(UserError, match="at most 2 training triples has none"):
        subsample(double, n_triples=2)
