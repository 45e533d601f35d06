"""The training graph's arrays against sets and tables worked out by hand."""

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusionjax.kge import graph as module
from fusionjax.objectives.link_prediction.graph import TrainGraph, alias_table, head_share, known_index, labels_of, train_graph
from tests.kge.made import ENTITIES, RELATIONS, kge, triples

GRAPHS = st.lists(st.tuples(st.integers(0, 11), st.integers(0, 2), st.integers(0, 11)), min_size=1, max_size=40)


def graph_of(*overrides: str) -> TrainGraph:
    return train_graph(triples(), ENTITIES, RELATIONS, kge("scorer=distmult", *overrides))


def targets(rows: np.ndarray) -> dict[tuple[int, int, int], set[int]]:
    """(source, relation, 0: tail or 1: head) → true targets."""
    found: dict[tuple[int, int, int], set[int]] = defaultdict(set)
    for head, relation, tail in rows.tolist():
        found[head, relation, 0].add(tail)
        found[tail, relation, 1].add(head)
    return found


def test_reciprocal_relations_double_the_triples() -> None:
    train, doubled = triples(), np.asarray(graph_of().triples)
    n = len(train)
    assert doubled.shape == (2 * n, 3) and doubled.dtype == np.int32
    assert np.array_equal(doubled[:n], train)
    assert doubled[n:].tolist() == [[tail, relation + RELATIONS, head] for head, relation, tail in train.tolist()]
    assert np.array_equal(graph_of("reciprocal=false").triples, train)


def test_arrays_that_training_does_not_read_have_no_rows() -> None:
    plain = graph_of()
    empty = (
        "head_share",
        "alias",
        "alias_other",
        "typed_offsets",
        "typed",
        "known_row",
        "known",
        "queries",
        "labels",
        "query_of",
    )
    assert all(len(getattr(plain, name)) == 0 for name in empty)
    # What concerns negatives alone is not made where none are drawn.
    assert len(graph_of("negatives={sampler: degree, filtered: true}").alias) == 0


def test_head_share_by_hand() -> None:
    """Relation 0: one head with three tails, tails a head 3, heads a tail 1, so 3/4; 1: the other way round; 2: 2 and 1 ⅓."""
    rows = [(0, 0, 1), (0, 0, 2), (0, 0, 3), (1, 1, 0), (2, 1, 0), (3, 1, 0), (0, 2, 1), (0, 2, 2), (0, 2, 3), (4, 2, 1)]
    share = head_share(np.array([*rows, rows[0]]), 4)  # a triple that stands twice counts once
    tails_a_head, heads_a_tail = 4 / 2, 4 / 3
    assert share == pytest.approx([0.75, 0.25, tails_a_head / (tails_a_head + heads_a_tail), 0.5])
    settings = ("training=negatives", "reciprocal=false", "negatives.queries=bernoulli")
    assert np.asarray(graph_of(*settings).head_share) == pytest.approx(head_share(triples(), RELATIONS))


@pytest.mark.parametrize("weights", [[1.0], [1.0, 1.0], [0.0, 3.0, 1.0], [5.0, 0.1, 0.1, 2.0, 0.0, 7.3], list(range(1, 40))])
def test_alias_table_gives_the_distribution(weights: list[float]) -> None:
    """Summed over cells, not sampled: cell i is drawn with 1 / n, keeps i with `keep`, else gives `other`."""
    keep, other = alias_table(np.array(weights))
    n = len(weights)
    chance = np.zeros(n)
    for cell in range(n):
        chance[cell] += keep[cell] / n
        chance[other[cell]] += (1 - keep[cell]) / n
    assert keep.dtype == np.float32 and other.dtype == np.int32
    assert chance == pytest.approx(np.array(weights) / sum(weights), abs=1e-6)
    assert np.all((keep >= 0) & (keep <= 1))


def test_degrees_to_a_power_are_what_candidates_are_drawn_by() -> None:
    graph = graph_of("training=negatives", "negatives={sampler: degree, power: 0.5}", "reciprocal=false")
    degree = np.bincount(triples()[:, [0, 2]].reshape(-1), minlength=ENTITIES)
    keep, other = alias_table(degree**0.5)
    assert np.array_equal(graph.alias, keep) and np.array_equal(graph.alias_other, other)


@pytest.mark.parametrize("reciprocal", [False, True])
def test_typed_ends(reciprocal: bool) -> None:
    graph = graph_of("training=negatives", "negatives.sampler=typed", f"reciprocal={str(reciprocal).lower()}")
    relations = RELATIONS * (1 + reciprocal)
    offsets, values = np.asarray(graph.typed_offsets), np.asarray(graph.typed)
    assert len(offsets) == 2 * relations + 1
    for relation in range(relations):
        rows = np.asarray(graph.triples)[graph.triples[:, 1] == relation]
        for row, column in ((relation, 2), (relation + relations, 0)):
            assert values[offsets[row] : offsets[row + 1]].tolist() == sorted(set(rows[:, column].tolist()))


@settings(max_examples=40)
@given(GRAPHS)
def test_known_index_holds_every_answer_of_both_questions(rows: list[tuple[int, int, int]]) -> None:
    table = np.array(rows, np.int32)
    index, places = known_index(table, 3)
    expected = targets(table)
    assert places.shape == (len(table), 2) and len(index) == len(expected)
    for (head, relation, tail), (of_tail, of_head) in zip(rows, places.tolist(), strict=True):
        assert index[of_tail].tolist() == sorted(expected[head, relation, 0])
        assert index[of_head].tolist() == sorted(expected[tail, relation, 1])


@pytest.mark.parametrize("both", [False, True])
@settings(max_examples=40)
@given(GRAPHS)
def test_label_bits_are_the_answers(both: bool, rows: list[tuple[int, int, int]]) -> None:
    table = np.array(rows, np.int32)
    queries, bits = labels_of(table, 12, 3, both)
    expected = {key: found for key, found in targets(table).items() if both or key[2] == 0}
    found = {
        tuple(query): {8 * byte + bit for byte in range(2) for bit in range(8) if row[byte] >> bit & 1}
        for query, row in zip(queries.tolist(), bits.tolist(), strict=True)
    }
    assert bits.shape == (len(expected), 2) and bits.dtype == np.uint8
    assert found == expected


def test_questions_of_k_vs_all_follow_the_config() -> None:
    for reciprocal in (True, False):
        graph = graph_of("training=k_vs_all", f"reciprocal={str(reciprocal).lower()}")
        expected = targets(np.asarray(graph.triples))
        asked = {tuple(query) for query in np.asarray(graph.queries).tolist()}
        assert asked == {key for key in expected if not (reciprocal and key[2])}
        assert len(asked) == len(graph.queries)


def test_questions_of_many_answers_have_several_turns() -> None:
    graph = graph_of("training=k_vs_all", "loss={targets: 2}")
    turns, share = np.bincount(graph.query_of, minlength=len(graph.queries)), np.asarray(graph.targets)
    expected = targets(np.asarray(graph.triples))
    numbers = [len(expected[tuple(query)]) for query in np.asarray(graph.queries).tolist()]
    assert turns.tolist() == [-(-number // 2) for number in numbers] and max(numbers) > 2
    assert turns * share == pytest.approx(numbers)


def test_labels_of_more_than_a_gibibyte_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.stack([np.arange(1000)] * 3, 1).astype(np.int32) * [1, 0, 1]
    with pytest.raises(
        ValueError, match=r"k_vs_all: labels of 1,000 queries over 9,000,000 entities take 1\.0 GiB \(at most 1\)"
    ):
        labels_of(rows, 9_000_000, 1, both=False)
    monkeypatch.setattr(module, "_MOST_LABEL_BYTES", 63 * 3)
    assert labels_of(triples(), ENTITIES, RELATIONS, both=False)[1].nbytes <= 63 * 3
    with pytest.raises(ValueError, match="use one_vs_all or negatives"):
        graph_of("training=k_vs_all")
