"""Users' histories as the user tower reads them, in training and in evaluation alike."""

import numpy as np

from fusionjax.data.inputs import Sequences
from fusionjax.data.shop import TRAIN

LENGTH_BUCKETS = (8, 20)
"""History lengths a batch is padded to, besides `model.user.history` itself: few, because each is one compilation."""


def history_columns(sequences: Sequences, taken: np.ndarray, valid: np.ndarray) -> dict[str, np.ndarray]:
    """The user tower's inputs for event rows `taken` [b, h]; what is not `valid` reads as 0. Times start at 0 in each row."""
    time = sequences.time[taken]
    origin = np.where(valid[:, :1], time[:, :1], 0)
    return {
        "product": np.where(valid, sequences.product[taken], 0).astype(np.int32),
        "kind": np.where(valid, sequences.kind[taken], 0).astype(np.int32),
        "time": np.where(valid, np.clip(time - origin, 0, 2**31 - 1), 0).astype(np.int32),
        "valid": valid,
    }


def bucket(length: int, history: int) -> int:
    """The smallest padded history length that holds `length`."""
    return next((size for size in LENGTH_BUCKETS if length <= size < history), history)


def train_rows(sequences: Sequences) -> Sequences:
    """Only the training events of every user."""
    keep = sequences.split == TRAIN
    before = np.concatenate([[0], np.cumsum(keep)])
    return Sequences(
        offsets=before[sequences.offsets],
        product=sequences.product[keep],
        kind=sequences.kind[keep],
        time=sequences.time[keep],
        split=sequences.split[keep],
    )
