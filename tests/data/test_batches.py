"""Batches: a pure function of seed and step, complete epochs, windows, cloze, live rows, and a stream that resumes."""

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusionjax.config import schema
from fusionjax.data import batches
from fusionjax.data.batches import (
    Batch,
    Shuffle,
    StepSource,
    active,
    bucket,
    cloze,
    steps_of,
    stream,
)
from fusionjax.data.inputs import Inputs
from fusionjax.data.shop import TRAIN
from fusionjax.data.text import PAD
from fusionjax.errors import UserError
from tests.shops import MASKED, ON, tiny_inputs, tiny_run

CLS, SEP = 2, 3


def source_of(*overrides: str) -> tuple[StepSource, Inputs, schema.Run]:
    config = tiny_run(*overrides)
    inputs = tiny_inputs(config)
    return StepSource(inputs, config, steps=1000), inputs, config


def assert_same(a: Batch, b: Batch) -> None:
    assert a.keys() == b.keys()
    for name, entry in a.items():
        assert entry.keys() == b[name].keys()
        for field, array in entry.items():
            assert array.dtype == b[name][field].dtype
            np.testing.assert_array_equal(array, b[name][field], err_msg=f"{name}.{field}")


def differ(a: Batch, b: Batch) -> list[str]:
    def equal(name: str) -> bool:
        return all(np.array_equal(a[name][field], b[name][field]) for field in a[name])

    return [name for name in a if not equal(name)]


# ---------------------------------------------------------------------------------------------------------------- purity
def test_a_step_is_a_function_of_seed_and_step_alone() -> None:
    forth, back, alone = (source_of(MASKED)[0] for _ in range(3))
    steps = [0, 1, 2, 3, 17, 18, 400]
    expected = {step: forth[step] for step in steps}
    for step in reversed(steps):
        assert_same(back[step], expected[step])
    assert_same(alone[18], expected[18])
    assert differ(expected[0], expected[1]) == differ(expected[17], expected[400]) == [*ON, "masked_words", "live"]
    other_seed = source_of(MASKED, "seed=1")[0]
    assert differ(expected[0], other_seed[0]) == [*ON, "masked_words", "live"]


def test_shapes_and_types() -> None:
    source, inputs, config = source_of()
    batch, b, h = source[0], 16, config.model.user.history
    assert list(batch) == [*ON, "live"]
    assert {field: array.shape for field, array in batch["link_prediction"].items()} == dict.fromkeys(
        ("head", "relation", "tail"), (b,)
    )
    assert batch["alignment"]["product"].shape == (b,)
    assert batch["query_product"]["known"].shape == (b, b) and batch["query_product"]["known"].dtype == bool
    assert batch["next_product"]["target"].shape == (b, h + 1) and batch["next_product"]["valid"].shape == (b, h)
    assert batch["next_product"]["profile"].shape == (b, inputs.profile.shape[1])
    assert batch["live"]["rows"].shape == (config.text.live,)
    kinds = {str(array.dtype) for entry in batch.values() for array in entry.values()}
    assert kinds == {"int32", "bool"}


def test_turns() -> None:
    source, _, config = source_of(
        "objectives.alignment={weight: 0}",
        "objectives.link_prediction={every: 3, offset: 1}",
        "objectives.query_product.every=2",
    )
    turns = [active(config.objectives, step) for step in range(6)]
    assert ["link_prediction" in turn for turn in turns] == [False, True, False, False, True, False]
    assert ["query_product" in turn for turn in turns] == [True, False, True, False, True, False]
    assert all("next_product" in turn and "alignment" not in turn for turn in turns)
    for step, turn in enumerate(turns):
        assert list(source[step]) == [*turn, "live"]
    # A turn left out skips no batch: the objective goes on where it was.
    maker = source.makers["link_prediction"]
    for nth, step in enumerate((1, 4, 7)):
        np.testing.assert_array_equal(source[step]["link_prediction"]["head"], maker(nth)["head"])


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


def test_length_of_a_run() -> None:
    source, _, config = source_of("train={steps: null, epochs: 2.5}")
    longest = max(maker.shuffle.per_epoch for maker in source.makers.values())
    assert steps_of(config, source) == int(np.ceil(2.5 * longest))
    source, _, config = source_of("train={steps: null, epochs: 2, accumulate: 3}", "objectives.next_product.every=50")
    per_epoch = source.makers["next_product"].shuffle.per_epoch
    assert steps_of(config, source) == int(np.ceil(2 * per_epoch * 50 / 3))
    assert steps_of(tiny_run("train.steps=11"), source) == 11


# --------------------------------------------------------------------------------------------------------------- windows
@pytest.mark.parametrize("history", [1, 3, 8, 30])
def test_every_training_event_is_a_target_once_an_epoch(history: int) -> None:
    """But the first of a window that is not its user's first, which nothing in the window foretells."""
    source, inputs, _ = source_of(f"model.user.history={history}", "objectives.next_product.batch_size=7")
    maker = source.makers["next_product"]
    sequences = inputs.sequences
    assert sequences is not None
    train = batches.train_rows(sequences)
    expected: list[tuple[int, int]] = []
    for user, (start, stop) in enumerate(itertools.pairwise(train.offsets.tolist())):
        length = stop - start
        firsts = {max(stop - nth * (history + 1), start) for nth in range(1, 1 + -(-length // (history + 1)))} - {start}
        expected += [(user, row) for row in range(start, stop) if row not in firsts]
    # Windows, not batches: the last batch is filled up with some of them again.
    found: list[tuple[int, int]] = []
    for user, start, stop in zip(maker.user.tolist(), maker.start.tolist(), maker.stop.tolist(), strict=True):
        assert train.offsets[user] <= start < stop <= train.offsets[user + 1] and stop - start <= history + 1
        found += [(user, row) for row in range(start, stop) if row > start or start == train.offsets[user]]
    assert sorted(found) == sorted(expected) and len(set(found)) == len(found)
    if history >= 8:  # enough for most: what is left out is little
        assert len(found) > 0.8 * len(train.product)


def test_a_batch_of_windows_by_hand() -> None:
    """Each row of a batch is its window: history, shifted targets, masks, padded to a bucket."""
    source, inputs, _ = source_of("model.user.history=30", "objectives.next_product.batch_size=4")
    maker = source.makers["next_product"]
    assert inputs.sequences is not None
    train, widths = batches.train_rows(inputs.sequences), set()
    for index in range(maker.shuffle.per_epoch):
        batch, rows = maker(index), maker.shuffle.rows(index)
        longest = int((maker.stop[rows] - maker.start[rows]).max()) - 1
        width = batch["product"].shape[1]
        widths.add(width)
        assert width == bucket(longest, 30) and width in (8, 20, 30) and batch["target"].shape == (4, width + 1)
        for place, row in enumerate(rows):
            events = slice(maker.start[row], maker.stop[row])
            products, n = train.product[events].tolist(), maker.stop[row] - maker.start[row]
            first = maker.start[row] == train.offsets[maker.user[row]]
            assert batch["target"][place].tolist() == [products[0] if first else -1, *products[1:]] + [-1] * (width + 1 - n)
            assert batch["product"][place].tolist() == products[:-1] + [0] * (width - n + 1)
            assert batch["valid"][place].tolist() == [True] * (n - 1) + [False] * (width - n + 1)
            assert batch["kind"][place, : n - 1].tolist() == train.kind[events][:-1].tolist()
            if n > 1:
                time = train.time[events]
                assert batch["time"][place, : n - 1].tolist() == (time[:-1] - time[0]).tolist()
            assert batch["profile"][place].tolist() == inputs.profile[maker.user[row]].tolist()
    assert len(widths) > 1


def test_buckets() -> None:
    assert [bucket(length, 50) for length in (0, 1, 8, 9, 20, 21, 50)] == [8, 8, 8, 20, 20, 50, 50]
    assert [bucket(length, 8) for length in (0, 8)] == [8, 8] and bucket(3, 5) == 5 and bucket(20, 20) == 20


def test_times_far_apart_stay_in_range() -> None:
    """Seconds since the first event of a row, cut at what int32 holds."""
    sequences = batches.Sequences(
        offsets=np.array([0, 3]),
        product=np.array([1, 2, 3], np.int32),
        kind=np.zeros(3, np.int32),
        time=np.array([-5_000_000_000, 0, 7_000_000_000]),
        split=np.full(3, TRAIN, np.int8),
    )
    taken, valid = np.array([[0, 1, 2], [1, 2, 2]]), np.array([[True] * 3, [True, True, False]])
    columns = batches.history_columns(sequences, taken, valid)
    assert columns["time"].tolist() == [[0, 2**31 - 1, 2**31 - 1], [0, 2**31 - 1, 0]]
    assert columns["product"].tolist() == [[1, 2, 3], [2, 3, 0]]


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


def test_titles_stand_in_for_queries() -> None:
    source, inputs, _ = source_of("objectives.query_product.from_titles=0.5")
    pairs = {tuple(pair) for pair in inputs.positives.tolist()}
    assert inputs.query_tokens is not None and inputs.product_tokens is not None
    query_of = {row.tobytes(): place for place, row in enumerate(inputs.query_tokens)}
    for index in range(5):
        batch = source.makers["query_product"](index)
        product, width = batch["product"], inputs.query_tokens.shape[1]
        for place in range(16):
            row, known = batch["tokens"][place], batch["known"][place]
            assert known[place]
            if place < 8:  # a part of the title of the product it points at
                assert set(row.tolist()) <= set(inputs.product_tokens[product[place]].tolist()) | {PAD}
                assert known.tolist() == (product == product[place]).tolist()
            else:
                query = query_of[row[:width].tobytes()]
                assert known.tolist() == [(query, other) in pairs for other in product.tolist()]


# ------------------------------------------------------------------------------------------------------------------ live
@pytest.mark.parametrize("live", [4, 16, 400])
def test_live_rows_are_the_batch_s_own_and_some_more(live: int) -> None:
    source, inputs, _ = source_of(f"text.live={live}")
    n = inputs.n_products
    assert inputs.product_tokens is not None
    for step in range(4):
        batch = source[step]
        rows, tokens = batch["live"]["rows"], batch["live"]["tokens"]
        assert rows.shape == (live,) and tokens.shape == (live, inputs.product_tokens.shape[1])
        real = rows[rows < n]
        assert len(set(real.tolist())) == len(real) and 0 < len(real) <= min(live, n)
        np.testing.assert_array_equal(rows[len(real) :], n)  # padding
        np.testing.assert_array_equal(tokens[: len(real)], inputs.product_tokens[real])
        assert (tokens[len(real) :] == -1).all()
        own = list(dict.fromkeys([*batch["query_product"]["product"].tolist(), *batch["alignment"]["product"].tolist()]))
        assert real[: len(own)].tolist() == own[: len(real)]


def test_live_rows_do_not_give_the_next_products_away() -> None:
    only = ["objectives.query_product.weight=0", "objectives.alignment.weight=0", "text.live=16"]
    source, _, _ = source_of(*only)
    assert source.live is not None
    for step in range(4):
        batch = source[step]
        turned = {"next_product": {**batch["next_product"], "target": batch["next_product"]["target"][::-1] * 0}}
        np.testing.assert_array_equal(source.live(turned, step)["rows"], batch["live"]["rows"])


def test_no_live_rows_where_no_tower_reads_titles() -> None:
    source, _, _ = source_of("model.product.sources=[entity]", "objectives.alignment.weight=0")
    assert "live" not in source[0] and "query_product" in source[0]


# ---------------------------------------------------------------------------------------------------------------- stream
def test_the_stream_resumes_where_it_was() -> None:
    source = source_of()[0]
    first = stream(source)
    for step in range(5):
        assert_same(next(first), source[step])
    state = first.get_state()
    after = [next(first) for _ in range(3)]
    second = stream(source_of()[0])
    second.set_state(state)
    for step, batch in zip((5, 6, 7), after, strict=True):
        assert_same(next(second), batch)
        assert_same(batch, source[step])


def test_micro_batches_are_stacked() -> None:
    plain, accumulated = source_of()[0], source_of("train.accumulate=3")[0]
    batch = accumulated[2]
    for name in (*ON, "live"):
        micro = [plain[step][name] for step in (6, 7, 8)]
        if name == "next_product":  # one width for all
            micro = [accumulated.makers[name](index) for index in (6, 7, 8)]
        for field, array in batch[name].items():
            np.testing.assert_array_equal(array, np.stack([part[field] for part in micro]), err_msg=f"{name}.{field}")
    assert accumulated.makers["next_product"].one_width


# ---------------------------------------------------------------------------------------------------------------- errors
def test_nothing_to_train_on_is_said() -> None:
    _, inputs, config = source_of()
    assert inputs.sequences is not None
    no_edges = dataclasses.replace(inputs.graph, split=np.full(len(inputs.graph), 2, np.int8))
    nobody = dataclasses.replace(inputs.sequences, split=np.full(len(inputs.sequences.split), 2, np.int8))
    for name, change, said in (
        ("link_prediction", {"graph": no_edges}, "the graph has no training edges"),
        ("alignment", {"has_text": np.zeros_like(inputs.has_text)}, "no product has both a text and an edge or event"),
        ("query_product", {"positives": np.zeros((0, 2), np.int64)}, "no training judgment of grade ≥ 1 and no training event"),
        ("next_product", {"sequences": nobody}, "no user has a training event"),
    ):
        with pytest.raises(UserError, match=rf"objectives\.{name}: {said}"):
            StepSource(dataclasses.replace(inputs, **change), config, steps=1)
