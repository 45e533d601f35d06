"""Windows of users' events: each a target once, each row of a batch by hand."""

import itertools

import pytest

from fusionjax.data.batches import bucket, train_rows
from fusionjax.data.inputs import Inputs
from fusionjax.objectives.next_product import NextProduct
from tests.shops import tiny_inputs, tiny_run


def made(*overrides: str) -> tuple[NextProduct, Inputs]:
    config = tiny_run(*overrides)
    inputs = tiny_inputs(config)
    return NextProduct(inputs, config), inputs


@pytest.mark.parametrize("history", [1, 3, 8, 30])
def test_every_training_event_is_a_target_once_an_epoch(history: int) -> None:
    """But the first of a window that is not its user's first, which nothing in the window foretells."""
    objective, inputs = made(f"model.user.history={history}", "objectives.next_product.batch_size=7")
    sequences = inputs.sequences
    assert sequences is not None
    train = train_rows(sequences)
    expected: list[tuple[int, int]] = []
    for user, (start, stop) in enumerate(itertools.pairwise(train.offsets.tolist())):
        length = stop - start
        firsts = {max(stop - nth * (history + 1), start) for nth in range(1, 1 + -(-length // (history + 1)))} - {start}
        expected += [(user, row) for row in range(start, stop) if row not in firsts]
    # Windows, not batches: the last batch is filled up with some of them again.
    found: list[tuple[int, int]] = []
    for user, start, stop in zip(objective.user.tolist(), objective.start.tolist(), objective.stop.tolist(), strict=True):
        assert train.offsets[user] <= start < stop <= train.offsets[user + 1] and stop - start <= history + 1
        found += [(user, row) for row in range(start, stop) if row > start or start == train.offsets[user]]
    assert sorted(found) == sorted(expected) and len(set(found)) == len(found)
    if history >= 8:  # enough for most: what is left out is little
        assert len(found) > 0.8 * len(train.product)


def test_a_batch_of_windows_by_hand() -> None:
    """Each row of a batch is its window: history, shifted targets, masks, padded to a bucket."""
    objective, inputs = made("model.user.history=30", "objectives.next_product.batch_size=4")
    assert inputs.sequences is not None
    train, widths = train_rows(inputs.sequences), set()
    for index in range(objective.steps_per_epoch):
        batch, rows = objective.batch(index), objective.shuffle.rows(index)
        longest = int((objective.stop[rows] - objective.start[rows]).max()) - 1
        width = batch["product"].shape[1]
        widths.add(width)
        assert width == bucket(longest, 30) and width in (8, 20, 30) and batch["target"].shape == (4, width + 1)
        for place, row in enumerate(rows):
            events = slice(objective.start[row], objective.stop[row])
            products, n = train.product[events].tolist(), objective.stop[row] - objective.start[row]
            first = objective.start[row] == train.offsets[objective.user[row]]
            assert batch["target"][place].tolist() == [products[0] if first else -1, *products[1:]] + [-1] * (width + 1 - n)
            assert batch["product"][place].tolist() == products[:-1] + [0] * (width - n + 1)
            assert batch["valid"][place].tolist() == [True] * (n - 1) + [False] * (width - n + 1)
            assert batch["kind"][place, : n - 1].tolist() == train.kind[events][:-1].tolist()
            if n > 1:
                time = train.time[events]
                assert batch["time"][place, : n - 1].tolist() == (time[:-1] - time[0]).tolist()
            assert batch["profile"][place].tolist() == inputs.profile[objective.user[row]].tolist()
    assert len(widths) > 1
