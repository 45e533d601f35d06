"""Rows of texts of many lengths: every token once and in place, little padding, few shapes."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest

from fusionjax.packing import LENGTHS, ROW_LENGTHS, Batch, Ragged, buckets, fit, packed

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


@pytest.mark.parametrize("plan", [buckets, packed])
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


@pytest.mark.parametrize("plan", [buckets, packed])
def test_texts_beyond_the_longest_row_get_longer_rows(plan: Plan) -> None:
    texts = ragged([5, 8192, 513, 2000, 40])
    found = {
        int(text): len(tokens)
        for batch in plan(texts, BUDGET, 8192)
        for text, tokens in zip(batch.texts, read_back(batch), strict=True)
    }
    assert found == {0: 5, 1: 8192, 2: 513, 3: 2000, 4: 40}


@pytest.mark.parametrize(("plan", "lengths"), [(buckets, LENGTHS), (packed, ROW_LENGTHS)])
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
