"""Histories as the user tower reads them."""

import numpy as np

from fusionjax.data.batches import bucket, history_columns
from fusionjax.data.inputs import Sequences
from fusionjax.data.shop import TRAIN


def test_buckets() -> None:
    assert [bucket(length, 50) for length in (0, 1, 8, 9, 20, 21, 50)] == [8, 8, 8, 20, 20, 50, 50]
    assert [bucket(length, 8) for length in (0, 8)] == [8, 8] and bucket(3, 5) == 5 and bucket(20, 20) == 20


def test_times_far_apart_stay_in_range() -> None:
    """Seconds since the first event of a row, cut at what int32 holds."""
    sequences = Sequences(
        offsets=np.array([0, 3]),
        product=np.array([1, 2, 3], np.int32),
        kind=np.zeros(3, np.int32),
        time=np.array([-5_000_000_000, 0, 7_000_000_000]),
        split=np.full(3, TRAIN, np.int8),
    )
    taken, valid = np.array([[0, 1, 2], [1, 2, 2]]), np.array([[True] * 3, [True, True, False]])
    columns = history_columns(sequences, taken, valid)
    assert columns["time"].tolist() == [[0, 2**31 - 1, 2**31 - 1], [0, 2**31 - 1, 0]]
    assert columns["product"].tolist() == [[1, 2, 3], [2, 3, 0]]
