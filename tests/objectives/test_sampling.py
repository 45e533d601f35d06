"""What objectives draw with: complete epochs, and parts of token rows."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fusionjax.data.text import PAD
from fusionjax.objectives.sampling import Shuffle, cloze

CLS, SEP = 2, 3


# ---------------------------------------------------------------------------------------------------------------- epochs
@given(
    n=st.integers(1, 50), size=st.integers(1, 20), seed=st.integers(0, 2**31 - 1), sort=st.booleans(), epoch=st.integers(0, 9)
)
def test_an_epoch_is_a_permutation(n: int, size: int, seed: int, sort: bool, epoch: int) -> None:
    length = np.arange(n) % 7 if sort else None
    shuffle = Shuffle(n, size, seed, "x", length)
    assert shuffle.per_epoch == -(-n // size)
    rows = [shuffle.rows(epoch * shuffle.per_epoch + place) for place in range(shuffle.per_epoch)]
    assert all(row.shape == (size,) for row in rows)
    counts = np.bincount(np.concatenate(rows), minlength=n)
    assert counts.min() >= 1 and counts.sum() == shuffle.per_epoch * size
    assert counts.max() <= 1 + -(-(shuffle.per_epoch * size - n) // n)  # only the fill-up of the last batch repeats


def test_epochs_differ_and_streams_too() -> None:
    a, b = Shuffle(64, 64, 0, "a"), Shuffle(64, 64, 0, "b")
    assert not np.array_equal(a.rows(0), a.rows(1)) and not np.array_equal(a.rows(0), b.rows(0))


def test_sorting_by_length_leaves_little_padding() -> None:
    length = np.random.default_rng(0).integers(1, 51, 512)
    plain, sorted_ = Shuffle(512, 16, 0, "x"), Shuffle(512, 16, 0, "x", length)

    def padding(shuffle: Shuffle) -> int:
        return sum(int((length[rows].max() - length[rows]).sum()) for rows in map(shuffle.rows, range(shuffle.per_epoch)))

    assert padding(sorted_) < padding(plain) / 3
    firsts = [length[sorted_.rows(place)].mean() for place in range(sorted_.per_epoch)]
    assert firsts != sorted(firsts)  # but batches come in random order


# ----------------------------------------------------------------------------------------------------------------- cloze
@given(lengths=st.lists(st.integers(0, 10), min_size=1, max_size=8), seed=st.integers(0, 1000))
def test_cloze_keeps_some_inner_tokens_in_order(lengths: list[int], seed: int) -> None:
    tokens = np.full((len(lengths), 12), PAD, np.int32)
    for row, length in enumerate(lengths):
        tokens[row, : length + 2] = [CLS, *range(10, 10 + length), SEP]
    parts = cloze(tokens, np.random.default_rng(seed))
    assert parts.shape == tokens.shape and parts.dtype == np.int32
    for row, length in enumerate(lengths):
        part = [token for token in parts[row].tolist() if token != PAD]
        assert parts[row].tolist() == part + [PAD] * (12 - len(part))
        assert part[0] == CLS and part[-1] == SEP
        inner = part[1:-1]
        assert inner == sorted(set(inner)) and set(inner) <= set(range(10, 10 + length))
        assert bool(inner) == bool(length)


def test_cloze_is_a_part() -> None:
    tokens = np.tile(np.array([CLS, *range(10, 30), SEP], np.int32), (200, 1))
    kept = (cloze(tokens, np.random.default_rng(0)) != PAD).sum(1) - 2
    assert 0.3 < kept.mean() / 20 < 0.7 and kept.min() >= 1 and kept.max() < 20
