"""Splits: no leak from later to earlier, equal times in source order, fixed by the data alone."""

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusionjax.config import schema
from fusionjax.data.shop import TEST, TRAIN, UNASSIGNED, VALID, Events, Judgments, Shop, Triples, Users, text_column
from fusionjax.data.split import assign_splits, order_events, user_ranges
from fusionjax.errors import UserError

LEAVE_ONE_OUT = schema.Split()
TEMPORAL = schema.Split(events="temporal")


def make_events(pairs: list[tuple[int, int]], split: int = UNASSIGNED) -> Events:
    """Events from (user, time); the product tells rows apart."""
    n = len(pairs)
    user, time = np.array(pairs, np.int64).reshape(-1, 2).T
    return Events(
        kinds=("view",),
        user=user.astype(np.int32),
        product=np.arange(n, dtype=np.int32)[::-1].copy(),
        kind=np.zeros(n, np.int8),
        time=time,
        query=np.full(n, -1, np.int32),
        split=np.full(n, split, np.int8),
    )


def make_judgments(queries: list[int], split: list[int] | None = None) -> Judgments:
    n = len(queries)
    return Judgments(
        query=np.array(queries, np.int32),
        product=np.arange(n, dtype=np.int32),
        grade=np.ones(n, np.float32),
        split=np.full(n, UNASSIGNED, np.int8) if split is None else np.array(split, np.int8),
    )


def event_splits(pairs: list[tuple[int, int]], config: schema.Split) -> list[int]:
    return assign_splits(Shop("s", events=make_events(pairs)), config).events.split.tolist()


PAIRS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 12)), max_size=40)


# --------------------------------------------------------------------------------------------------------------- events
def test_order_and_ranges() -> None:
    events = make_events([(2, 5), (0, 9), (2, 1), (0, 9), (2, 5), (0, 3)])
    order = order_events(events)
    assert order.tolist() == [5, 1, 3, 2, 0, 4]  # equal times in source order, although their products fall
    offsets = user_ranges(events.take(order), 4)
    assert offsets.tolist() == [0, 3, 3, 6, 6] and offsets.dtype == np.int64
    assert user_ranges(make_events([]), 3).tolist() == [0, 0, 0, 0]


def test_leave_one_out() -> None:
    pairs = [(0, 3), (0, 1), (1, 1), (0, 2), (2, 7), (1, 2), (2, 7), (2, 7), (0, 0)]
    expected = [TEST, TRAIN, TRAIN, VALID, TRAIN, TRAIN, VALID, TEST, TRAIN]
    assert event_splits(pairs, LEAVE_ONE_OUT) == expected


@settings(max_examples=80, deadline=None)
@given(pairs=PAIRS)
def test_leave_one_out_never_trains_on_what_comes_later(pairs: list[tuple[int, int]]) -> None:
    split = event_splits(pairs, LEAVE_ONE_OUT)
    for user in {user for user, _ in pairs}:
        rows = [row for row, (owner, _) in enumerate(pairs) if owner == user]
        in_time = [split[row] for row in sorted(rows, key=lambda row: (pairs[row][1], row))]
        expected = [TRAIN] * (len(rows) - 2) + [VALID, TEST] if len(rows) >= 3 else [TRAIN] * len(rows)
        assert in_time == expected


@settings(max_examples=40, deadline=None)
@given(pairs=PAIRS, more=PAIRS)
def test_leave_one_out_of_a_user_ignores_other_users(pairs: list[tuple[int, int]], more: list[tuple[int, int]]) -> None:
    others = [(user + 6, time) for user, time in more]
    assert event_splits(others + pairs, LEAVE_ONE_OUT)[len(others) :] == event_splits(pairs, LEAVE_ONE_OUT)
    assert event_splits(pairs + others, LEAVE_ONE_OUT)[: len(pairs)] == event_splits(pairs, LEAVE_ONE_OUT)


def journey_splits(products: list[int], times: list[int] | None = None) -> list[int]:
    """Splits of one user's events, given by their products."""
    events = make_events([(0, time) for time in times or range(len(products))])
    shop = Shop("s", events=dataclasses.replace(events, product=np.array(products, np.int32)))
    return assign_splits(shop, LEAVE_ONE_OUT).events.split.tolist()


@pytest.mark.parametrize(
    ("products", "expected"),
    [
        ([7, 8, 9], [TRAIN, VALID, TEST]),
        ([7, 8, 9, 5], [TRAIN, TRAIN, VALID, TEST]),
        # A funnel: view and purchase of one product are on one side.
        ([7, 7, 8, 8, 9, 9], [TRAIN, TRAIN, VALID, VALID, TEST, TEST]),
        # A second look at an old product, once a later split has begun, belongs to that split.
        ([7, 8, 7, 9, 8, 7], [TRAIN, VALID, VALID, TEST, TEST, TEST]),
        ([7, 8, 7, 8, 9, 5], [TRAIN, TRAIN, TRAIN, TRAIN, VALID, TEST]),
        ([7, 8, 9, 7], [TRAIN, VALID, TEST, TEST]),
        # Fewer than three products only train, however many events there are.
        ([7, 8, 7, 8, 7, 8], [TRAIN] * 6),
        ([7, 7, 7], [TRAIN] * 3),
        ([7], [TRAIN]),
    ],
)
def test_leave_one_out_counts_new_products(products: list[int], expected: list[int]) -> None:
    assert journey_splits(products) == expected


def test_leave_one_out_goes_by_time_not_by_row() -> None:
    assert journey_splits([9, 8, 7, 8], [30, 20, 10, 40]) == [TEST, VALID, TRAIN, TEST]


@given(products=st.lists(st.integers(0, 6), max_size=15))
def test_leave_one_out_against_a_loop(products: list[int]) -> None:
    """Test begins at the first event of the last new product, validation at that of the one before."""
    firsts = [place for place, product in enumerate(products) if product not in products[:place]]
    expected = [TRAIN] * len(products)
    if len(firsts) >= 3:
        valid, test = firsts[-2:]
        expected = [TRAIN] * valid + [VALID] * (test - valid) + [TEST] * (len(products) - test)
    assert journey_splits(products) == expected
    held_out = {product for product, code in zip(products, expected, strict=True) if code == TEST}
    known = {product for product, code in zip(products, expected, strict=True) if code != TEST}
    assert len(held_out - known) == (len(firsts) >= 3)  # exactly one product to foretell


def test_leave_one_out_of_distinct_products_is_the_usual_protocol() -> None:
    """The last event is test, the one before it validation (SASRec and most papers since)."""
    generator = np.random.default_rng(0)
    for _ in range(20):
        n = int(generator.integers(1, 12))
        expected = [TRAIN] * (n - 2) + [VALID, TEST] if n >= 3 else [TRAIN] * n
        assert journey_splits(generator.permutation(n).tolist()) == expected


def test_temporal_shares() -> None:
    pairs = [(time % 7, time) for time in range(100)][::-1]
    split = event_splits(pairs, schema.Split(events="temporal", valid_share=0.2, test_share=0.1))
    assert split == [TEST] * 10 + [VALID] * 20 + [TRAIN] * 70
    assert set(event_splits(pairs, schema.Split(events="temporal", valid_share=0.2, test_share=0.0))) == {TRAIN, VALID}
    assert set(event_splits(pairs, schema.Split(events="temporal", valid_share=0.0, test_share=0.0))) == {TRAIN}
    assert event_splits([(0, 1), (0, 2), (0, 3)], TEMPORAL) == [TRAIN, VALID, TEST]  # a tiny shop still has all three


@settings(max_examples=80, deadline=None)
@given(pairs=PAIRS, valid=st.floats(0, 0.45), test=st.floats(0, 0.45))
def test_temporal_has_no_leak(pairs: list[tuple[int, int]], valid: float, test: float) -> None:
    split = event_splits(pairs, schema.Split(events="temporal", valid_share=valid, test_share=test))
    times = [{time for (_, time), code in zip(pairs, split, strict=True) if code == wanted} for wanted in (TRAIN, VALID, TEST)]
    present = [part for part in times if part]
    assert all(max(earlier) < min(later) for earlier, later in itertools.pairwise(present))
    assert bool(times[0]) == bool(pairs)
    assert split.count(TEST) <= max(len(pairs) * test + 1, 1) and (test > 0 or not times[2])


def test_equal_times_stay_together_on_the_earlier_side() -> None:
    pairs = [(0, 0)] * 4 + [(1, 5)] * 5 + [(2, 9)]
    assert event_splits(pairs, TEMPORAL) == [TRAIN] * 9 + [TEST]
    assert event_splits([(0, 1)] * 10, TEMPORAL) == [TRAIN] * 10


def test_given_event_splits_are_kept_and_mixtures_refused() -> None:
    events = make_events([(0, 1), (0, 2), (0, 3)], split=TRAIN)
    assert assign_splits(Shop("s", events=events), LEAVE_ONE_OUT).events.split.tolist() == [TRAIN] * 3
    mixed = dataclasses.replace(events, split=np.array([TRAIN, UNASSIGNED, TEST], np.int8))
    with pytest.raises(UserError, match="shop 's': 1 of 3 events have no split"):
        assign_splits(Shop("s", events=mixed), LEAVE_ONE_OUT)


def test_shares_that_leave_nothing_to_train_on() -> None:
    with pytest.raises(UserError, match=r"valid_share 0\.5 \+ test_share 0\.5 must be below 1"):
        assign_splits(Shop("s"), schema.Split(valid_share=0.5, test_share=0.5))


# ----------------------------------------------------------------------------------------------------------- judgments
def test_judgments_by_query() -> None:
    queries = [query for query in range(50) for _ in range(query % 4 + 1)]
    judgments = make_judgments(queries)
    shop = assign_splits(Shop("s", judgments=judgments), schema.Split(valid_share=0.2, test_share=0.1))
    split_of = {query: {int(code) for code in shop.judgments.split[judgments.query == query]} for query in range(50)}
    assert all(len(codes) == 1 for codes in split_of.values())
    codes = [codes.pop() for codes in split_of.values()]
    assert (codes.count(TRAIN), codes.count(VALID), codes.count(TEST)) == (35, 10, 5)
    assert codes != sorted(codes)  # drawn, not cut
    again = assign_splits(Shop("s", judgments=judgments), schema.Split(valid_share=0.2, test_share=0.1))
    assert again.fingerprint() == shop.fingerprint()
    other = assign_splits(Shop("s", judgments=judgments), schema.Split(valid_share=0.2, test_share=0.1), seed=1)
    assert other.fingerprint() != shop.fingerprint()


def test_judgments_draw_does_not_depend_on_row_order() -> None:
    judgments = make_judgments([query for query in range(30) for _ in range(2)])
    order = np.random.default_rng(0).permutation(60)
    plain = assign_splits(Shop("s", judgments=judgments), LEAVE_ONE_OUT).judgments.split
    shuffled = assign_splits(Shop("s", judgments=judgments.take(order)), LEAVE_ONE_OUT).judgments.split
    np.testing.assert_array_equal(plain[order], shuffled)


def test_given_judgment_splits_are_kept() -> None:
    judgments = make_judgments([0, 0, 1, 2, 2, 3, 4, 5], [TEST, UNASSIGNED, VALID, -1, -1, -1, -1, -1])
    split = assign_splits(Shop("s", judgments=judgments), LEAVE_ONE_OUT).judgments.split.tolist()
    assert split[:3] == [TEST, TEST, VALID]
    assert split[3] == split[4] and UNASSIGNED not in split
    assert sorted({split[3], split[5], split[6], split[7]}) == [TRAIN, VALID, TEST]  # at least one each of the four free


@settings(max_examples=40, deadline=None)
@given(queries=st.lists(st.integers(0, 8), max_size=20))
def test_few_queries_still_train(queries: list[int]) -> None:
    split = assign_splits(Shop("s", judgments=make_judgments(queries)), LEAVE_ONE_OUT).judgments.split.tolist()
    expected = {TRAIN, VALID, TEST} if len(set(queries)) >= 3 else {TRAIN} if queries else set()
    assert set(split) == expected


# ---------------------------------------------------------------------------------------------------------------- rest
def test_triples_and_the_rest_are_untouched() -> None:
    triples = Triples.of(["a", "b"], ["r", "r"], ["b", "c"], split=[UNASSIGNED, TEST])
    shop = Shop("s", triples=triples, users=Users(text_column(["u"])))
    assigned = assign_splits(shop, LEAVE_ONE_OUT)
    assert assigned.fingerprint() == shop.fingerprint() and assigned.triples.split.tolist() == [UNASSIGNED, TEST]
