"""Rows of texts of many lengths: every token once and in place, little padding, few shapes."""

import itertools
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusionjax.packing import LENGTHS, ROW_LENGTHS, SHORT, Batch, Ragged, buckets, fit, mixed, packed

Plan = Callable[[Ragged, int, int], Iterator[Batch]]
BUDGET = 1024


def ragged(lengths: np.ndarray | list[int]) -> Ragged:
    """Texts whose tokens all differ, so that none can stand in for another."""
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return Ragged(np.arange(offsets[-1], dtype=np.int32), offsets)


def random_lengths(n: int, longest: int, seed: int) -> np.ndarray:
    """Most texts short, some long, as titles and descriptions are."""
    generator = np.random.Generator(np.random.Philox(seed))
    return np.minimum(generator.lognormal(2.5, 1.0, n).astype(int) + 1, longest)


def read_back(batch: Batch) -> list[np.ndarray]:
    """The texts a batch holds, from its arrays alone."""
    if batch.text is None or batch.position is None:
        return [row[row >= 0] for row in batch.tokens[: len(batch.texts)]]
    found = []
    for place in range(len(batch.texts)):
        rows, columns = np.nonzero(batch.text == place)
        assert len(set(rows)) == 1, "a text lies in one row"
        assert np.array_equal(columns, np.arange(columns[0], columns[-1] + 1)), "and in one piece"
        assert np.array_equal(batch.position[rows, columns], np.arange(len(rows)))
        found.append(batch.tokens[rows, columns])
    return found


LENGTHS_OF_TEXTS = {
    "none": [],
    "one": [7],
    "one token each": [1] * 3000,
    "as long as can be": [512] * 9,
    "alternating": [1, 512] * 40,
    "few long": [300] * 3 + [5] * 50,
    "mixed": random_lengths(700, 512, 0),
}


@pytest.mark.parametrize("plan", [buckets, packed, mixed])
@pytest.mark.parametrize("name", LENGTHS_OF_TEXTS)
def test_every_text_is_there_once_and_whole(plan: Plan, name: str) -> None:
    texts = ragged(LENGTHS_OF_TEXTS[name])
    seen: list[int] = []
    for batch in plan(texts, BUDGET, 512):
        assert batch.tokens.size <= max(BUDGET, batch.tokens.shape[1])
        if batch.text is not None:
            assert len(batch.texts) <= batch.places
            assert np.array_equal(batch.text >= 0, batch.tokens >= 0)
        for text, tokens in zip(batch.texts, read_back(batch), strict=True):
            assert np.array_equal(tokens, texts.tokens[texts.offsets[text] : texts.offsets[text + 1]])
            seen.append(int(text))
    assert sorted(seen) == list(range(len(texts)))


@pytest.mark.parametrize("plan", [buckets, packed, mixed])
def test_texts_beyond_the_longest_row_get_longer_rows(plan: Plan) -> None:
    texts = ragged([5, 8192, 513, 2000, 40])
    found = {
        int(text): len(tokens)
        for batch in plan(texts, BUDGET, 8192)
        for text, tokens in zip(batch.texts, read_back(batch), strict=True)
    }
    assert found == {0: 5, 1: 8192, 2: 513, 3: 2000, 4: 40}


@pytest.mark.parametrize(
    ("plan", "lengths"),
    [
        (buckets, LENGTHS),
        (packed, ROW_LENGTHS),
        (mixed, (SHORT, 2 * SHORT, *(length for length in LENGTHS if length > SHORT))),
    ],
)
def test_shapes_are_few_whatever_the_texts(plan: Plan, lengths: tuple[int, ...]) -> None:
    """A full and a small batch of each length, and no other."""
    shapes = set()
    for seed in range(4):
        shapes |= {(batch.tokens.shape, batch.places) for batch in plan(ragged(random_lengths(5000, 512, seed)), BUDGET, 512)}
    assert len(shapes) <= 2 * len(lengths)
    assert {shape[1] for shape, _ in shapes} <= set(lengths)


def test_little_is_padding() -> None:
    texts = ragged(random_lengths(5000, 512, 1))
    share = {}
    for plan in (buckets, packed):
        cells = sum(batch.tokens.size for batch in plan(texts, BUDGET, 512))
        share[plan.__name__] = 1 - len(texts.tokens) / cells
    assert share["packed"] < 0.1
    assert share["buckets"] < 0.2


def test_a_single_query_is_a_small_batch() -> None:
    for plan in (buckets, packed):
        (batch,) = plan(ragged([6]), BUDGET, 512)
        assert batch.tokens.size <= BUDGET // 8


def test_mixed_packs_the_short_texts_only() -> None:
    texts = ragged(random_lengths(700, 512, 2))
    rows = {True: [], False: []}
    for batch in mixed(texts, BUDGET, 512):
        rows[batch.text is not None] += batch.texts.tolist()
    assert texts.lengths[rows[True]].max() <= SHORT < texts.lengths[rows[False]].min()


def test_take_is_the_texts_in_that_order() -> None:
    taken = ragged([2, 0, 3, 1]).take(np.array([2, 0, 1]))
    assert taken.tokens.tolist() == [2, 3, 4, 0, 1] and taken.lengths.tolist() == [3, 2, 0]


def test_fit_by_hand() -> None:
    """The longest first, each into the fullest row with room for it: 6 4 | 5 3 1."""
    row, start = fit(np.array([5, 3, 6, 4, 1]), 10)
    assert row.tolist() == [1, 1, 0, 0, 1]
    assert start.tolist() == [0, 5, 0, 6, 8]


def test_fit_never_overlaps() -> None:
    lengths = random_lengths(500, 128, 3)
    row, start = fit(lengths, 128)
    taken = np.zeros((row.max() + 1, 128), int)
    for each, first, length in zip(row, start, lengths, strict=True):
        taken[each, first : first + length] += 1
    assert taken.max() == 1 and taken.sum() == lengths.sum()
    assert len(taken) <= np.ceil(lengths.sum() / 128) + 1


def test_ragged_from_lists_and_from_rows() -> None:
    from_lists = Ragged.of_lists([[3, 1], [], [7]])
    assert from_lists.lengths.tolist() == [2, 0, 1]
    from_rows = Ragged.of_rows(np.array([[3, 1, -1], [-1, -1, -1], [7, -1, -1]]))
    assert np.array_equal(from_rows.tokens, from_lists.tokens) and np.array_equal(from_rows.offsets, from_lists.offsets)
    assert from_lists.padded(np.array([2, 0]), 3, 3).tolist() == [[7, -1, -1], [3, 1, -1], [-1, -1, -1]]


@pytest.mark.parametrize("plan", [buckets, packed, mixed])
@settings(max_examples=60)
@given(data=st.data())
def test_no_token_is_lost_whatever_the_lengths_and_the_budget(plan: Plan, data: st.DataObject) -> None:
    longest = data.draw(st.sampled_from([1, 7, 32, 64, 100, 512, 513, 1030]))
    short = st.integers(0, min(longest, 6))
    lengths = data.draw(st.lists(short | st.integers(0, longest), max_size=120) | st.lists(short, max_size=120))
    budget = data.draw(st.integers(1, 3000))
    texts, owners = ragged(lengths), []
    # Each batch has a text, so there are no more of them: a plan that never ends fails instead of hanging.
    for batch in itertools.islice(plan(texts, budget, longest), len(texts) + 1):
        size, length = batch.tokens.shape
        assert (size == 1 or size * length <= budget) and length <= -(-longest // 512) * 512
        assert len(batch.texts) > 0 and (batch.text is None or len(batch.texts) <= batch.places)
        owners += batch.texts.tolist()
        wanted = [texts.tokens[texts.offsets[text] : texts.offsets[text + 1]].tolist() for text in batch.texts]
        if batch.text is None or batch.position is None:
            assert [row[row >= 0].tolist() for row in batch.tokens] == wanted + [[]] * (size - len(wanted))
        else:
            # Row-major order is a text's own order only where it lies in one row.
            assert [batch.tokens[batch.text == place].tolist() for place in range(len(wanted))] == wanted
            assert [batch.position[batch.text == place].tolist() for place in range(len(wanted))] == [
                list(range(len(tokens))) for tokens in wanted
            ]
            assert all(len(set(np.nonzero(batch.text == place)[0])) <= 1 for place in range(len(wanted)))
    assert sorted(owners) == list(range(len(texts)))


@pytest.mark.parametrize("n", [17, 40, 3000])
def test_more_texts_in_a_row_than_a_batch_has_places(n: int) -> None:
    """32 texts of two tokens fit into a row of 64, and a small batch of two rows answers for 16."""
    found = list(itertools.islice(packed(ragged([2] * n), BUDGET, 512), n + 1))
    assert sorted(text for batch in found for text in batch.texts) == list(range(n))
    assert all(len(batch.texts) <= batch.places for batch in found)


@pytest.mark.parametrize("plan", [buckets, packed, mixed])
def test_no_row_is_longer_than_the_longest_text_can_be(plan: Plan) -> None:
    lengths = [1, 30, 100, 100, 90] * 20
    assert max(batch.tokens.shape[1] for batch in plan(ragged(lengths), BUDGET, 100)) == 100
    with pytest.raises(IndexError):  # and no silent cut
        list(plan(ragged([5, 101]), BUDGET, 100))


@pytest.mark.parametrize(("plan", "bound"), [(buckets, 2 * len(LENGTHS)), (packed, 2 * len(ROW_LENGTHS))])
def test_programs_for_twenty_thousand_texts_and_more(plan: Plan, bound: int) -> None:
    """46 shapes of buckets and 8 of packed rows at most, over corpora of every kind together."""
    generator, shapes = np.random.Generator(np.random.Philox(0)), set()
    uniform = generator.integers(1, 513, 20_000)
    for lengths in (uniform, random_lengths(20_000, 512, 1), uniform[:37], np.full(1000, 2), np.full(1000, 300)):
        shapes |= {(*batch.tokens.shape, batch.places) for batch in plan(ragged(lengths), 4096, 512)}
    assert bound // 2 < len(shapes) <= bound
    assert len({shape[:2] for shape in shapes}) == len(shapes), "two programs for one shape of tokens"


def test_texts_of_just_over_half_a_row_share_longer_rows() -> None:
    """One of 36 tokens fits into 64 columns, three into 128."""
    cells = sum(batch.tokens.size for batch in packed(ragged([36] * 3000), 8192, 512))
    assert cells < 1.25 * 36 * 3000


def test_a_bucket_is_the_tightest() -> None:
    for batch in buckets(ragged(np.arange(1, 513)), BUDGET, 512):
        lengths = batch.texts + 1  # text i has i + 1 tokens
        assert min(cut for cut in LENGTHS if cut >= lengths.max()) == batch.tokens.shape[1]
        assert min(cut for cut in LENGTHS if cut >= lengths.min()) == batch.tokens.shape[1]


@given(st.integers(1, 80).flatmap(lambda c: st.tuples(st.just(c), st.lists(st.integers(1, c), max_size=80))))
def test_no_two_rows_of_fit_would_fit_in_one(drawn: tuple[int, list[int]]) -> None:
    capacity, lengths = drawn
    row, start = fit(np.array(lengths, np.int64), capacity)
    taken = np.zeros((max([*row, -1]) + 1, capacity), int)
    for each, column, length in zip(row, start, lengths, strict=True):
        assert 0 <= column <= column + length <= capacity
        taken[each, column : column + length] += 1
    assert taken.max(initial=0) <= 1
    assert (taken[:, :-1] >= taken[:, 1:]).all(), "a gap inside a row"
    load = np.sort(taken.sum(1))
    assert len(load) < 2 or load[0] + load[1] > capacity


@pytest.mark.parametrize(("pieces", "most"), [(2, 1.0), (4, 1.1), (9, 1.02)])
def test_fit_is_near_the_best_there_is(pieces: int, most: float) -> None:
    """200 full rows cut into pieces fit into 200 again; best fit by falling length needs at most 11/9 of them."""
    generator = np.random.Generator(np.random.Philox(0))
    cuts = np.sort(generator.integers(1, 128, (200, pieces - 1)), axis=1)
    lengths = np.diff(cuts, axis=1, prepend=0, append=128).ravel()
    row, _ = fit(generator.permutation(lengths), 128)
    assert 200 <= row.max() + 1 <= most * 200


def test_no_texts_are_ragged_too() -> None:
    for texts in (Ragged.of_lists([]), Ragged.of_rows(np.zeros((0, 4), np.int32))):
        assert len(texts) == 0 and texts.tokens.dtype == np.int32
        assert texts.padded(np.zeros(0, np.int64), 3, 2).tolist() == [[-1] * 3] * 2
    assert Ragged.of_lists([[1, 2], [3]]).padded(np.array([1, 0, 1]), 2, 3).tolist() == [[3, -1], [1, 2], [3, -1]]
