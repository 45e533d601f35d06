"""Streams of batches: what step number s trains on is a pure function of (seed, s), so resuming is starting at s.

A step's batch is a nested dict of NumPy arrays: one entry for each objective that takes part, and `live`, the products whose
text is encoded with gradient. With `train.accumulate` = k > 1 every array has a leading axis k.

| entry | arrays |
| --- | --- |
| link_prediction | head, relation, tail: int32 [b] |
| alignment | product: int32 [b] |
| query_product | tokens: int32 [b, l]; product: int32 [b]; known: bool [b, b] (query i matches product j) |
| … from a file | negative: int32 [b, n] (hard negatives of query i, −1 none); known_negative: bool [b, b · n] |
| … mined | positive: int32 [b, m] (products known to match query i, −1 none) |
| masked_words | tokens: int32 [b, l], words hidden; place: int32 [b, m]; target: int32 [b, m] (−1 none) |
| distillation | tokens: int32 [b, l]; teacher: float32 [b, q] |
| next_product | product, kind, time: int32 [b, h]; valid: bool [b, h]; target: int32 [b, h + 1] (−1 none); profile [b, f] |
| live | rows: int32 [t] (n_products = padding); tokens: int32 [t, l] |

With `text.pack`, `tokens` are packed rows, and `text` and `position` say whose they are (`packing.Batch`).
"""

import functools
import math
import zlib
from typing import Any

import grain
import numpy as np

from fusionjax import packing
from fusionjax.config import schema
from fusionjax.data.inputs import Inputs, Sequences
from fusionjax.data.shop import TRAIN
from fusionjax.data.text import PAD
from fusionjax.errors import UserError

OBJECTIVES = ("link_prediction", "alignment", "query_product", "next_product", "masked_words", "distillation")
_OWN_TEXT = ("masked_words", "distillation")
"""Objectives that read texts of their own, and no product vectors."""
LENGTH_BUCKETS = (8, 20)
"""History lengths a batch is padded to, besides `model.user.history` itself: few, because each is one compilation."""
TOKEN_BUCKETS = (8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
"""Widths that `text.pack` cuts token rows to, where it cannot pack them."""
_SORT_BATCHES = 8
"""Batches of histories are cut from this many shuffled batches sorted by length, so that little of a batch is padding."""

Batch = dict[str, dict[str, np.ndarray]]


def active(objectives: schema.Objectives, step: int, total: int | None = None) -> tuple[str, ...]:
    """Objectives that take part in a step: those with a weight whose turn it is.

    Args:
      total: steps of the run, which `begin` and `end` are shares of; not needed where all begin at 0 and end at 1.
    """
    turn = []
    for name in OBJECTIVES:
        objective = getattr(objectives, name)
        if objective.weight > 0 and step % objective.every == objective.offset:
            first, stop = stretch(objective, total)
            if first <= step and (stop is None or step < stop):
                turn.append(name)
    return tuple(turn)


def stretch(objective: schema.Objective, total: int | None) -> tuple[int, int | None]:
    """The step an objective begins with, and the one it no longer takes part in (None: it goes on to the end)."""
    if (objective.begin, objective.end) == (0.0, 1.0):
        return 0, None
    if total is None:
        raise ValueError("begin and end are shares of the run's steps: how many are they?")
    return round(objective.begin * total), None if objective.end == 1.0 else round(objective.end * total)


def turns_before(objective: schema.Objective, step: int, total: int | None) -> int:
    """In how many steps before `step`, one of its own, the objective took part: a step without it uses up no batch."""
    first, _ = stretch(objective, total)
    return step // objective.every - max(0, -(-(first - objective.offset) // objective.every))


def _generator(seed: int, name: str, index: int) -> np.random.Generator:
    """Random numbers of batch `index` of the stream `name`: the same whatever was drawn before."""
    return np.random.Generator(np.random.Philox(key=[(seed << 32) | zlib.crc32(name.encode()), index]))


class Shuffle:
    """Endless epochs of 0 … n − 1, each in its own order; `rows(i)` is batch i, whatever was asked before."""

    def __init__(self, n: int, batch_size: int, seed: int, name: str, length: np.ndarray | None = None) -> None:
        self.n, self.batch_size, self.length = n, batch_size, length
        self.seed, self.name = seed, name
        self.per_epoch = max(1, math.ceil(n / batch_size))
        self.order = functools.lru_cache(maxsize=2)(self._order)

    def _order(self, epoch: int) -> np.ndarray:
        """Rows [per_epoch, batch_size]; the last batch is filled up from the epoch's start."""
        generator = _generator(self.seed, self.name, epoch)
        order = generator.permutation(self.n)
        if self.length is not None:
            span = self.batch_size * _SORT_BATCHES
            chunks = [order[start : start + span] for start in range(0, self.n, span)]
            order = np.concatenate([chunk[np.argsort(self.length[chunk], kind="stable")] for chunk in chunks])
        order = np.resize(order, self.per_epoch * self.batch_size).reshape(self.per_epoch, self.batch_size)
        return order[generator.permutation(self.per_epoch)] if self.length is not None else order

    def rows(self, batch: int) -> np.ndarray:
        epoch, place = divmod(batch, self.per_epoch)
        return self.order(epoch)[place]


class StepSource(grain.sources.RandomAccessDataSource):
    """Item s is the batch of step s."""

    def __init__(self, inputs: Inputs, config: schema.Run, steps: int, devices: int = 1) -> None:
        self.inputs, self.config, self.steps, self.devices = inputs, config, steps, devices
        pooling = inputs.pretrained.sentence.pooling if inputs.pretrained is not None else config.text.pooling
        self.packs = not config.text.chunk and pooling in ("mean", "cls")
        self.makers: dict[str, Any] = {}
        for name in OBJECTIVES:
            if getattr(config.objectives, name).weight > 0:
                self.makers[name] = _MAKERS[name](inputs, config)
        # A frozen encoder has nothing to learn from a text: the bank, encoded once, serves as it is.
        learns = config.text.tune != "frozen"
        self.live = Live(inputs, config) if uses_bank(config) and inputs.n_products and learns else None
        self.total = steps_of(config, self)

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> Batch:
        k = self.config.train.accumulate
        turn = active(self.config.objectives, step, self.total)
        micro: list[Batch] = []
        for part in range(k):
            batch: Batch = {}
            for name in turn:
                index = turns_before(getattr(self.config.objectives, name), step, self.total) * k + part
                batch[name] = self.makers[name](index)
            if self.live is not None and any(name not in _OWN_TEXT for name in turn):
                batch["live"] = self.live(batch, step * k + part)
            micro.append(batch)
        if k == 1:
            return self._without_padding(micro[0])
        return {
            name: {field: np.stack([batch[name][field] for batch in micro]) for field in entry}
            for name, entry in micro[0].items()
        }

    def _without_padding(self, batch: Batch) -> Batch:
        """Token rows packed, or where they cannot be, cut to one of `TOKEN_BUCKETS`."""
        if not self.config.text.pack:
            return batch
        for name, entry in batch.items():
            # Masked words are asked for by row and column.
            if self.packs and name in ("query_product", "live", "distillation"):
                batch[name] = {**entry, **packed_rows(entry["tokens"], self.config.text.max_length, self.devices)}
            elif "tokens" in entry:
                batch[name] = {**entry, "tokens": trimmed(entry["tokens"])}
        return batch


def packed_rows(tokens: np.ndarray, longest: int, multiple: int) -> dict[str, np.ndarray]:
    """Token rows int32 [b, l] as packed ones: `tokens`, `text`, `position` int32 [r, m], r one of few numbers.

    Args:
      longest: tokens of the longest text there can be; m is 64 or, if that is shorter, this.
      multiple: r is a multiple of it, so that rows can be split over the devices.
    """
    texts, length = packing.Ragged.of_rows(tokens), max(64, longest)
    row, start = packing.fit(texts.lengths, length)
    needed = -(-(int(row.max(initial=0)) + 1) // multiple)
    step = max(1, 1 << max(0, needed.bit_length() - 4))  # at most an eighth more than needed
    batch = packing.pack(texts, np.arange(len(texts)), row, start, length, multiple * -(-needed // step) * step)
    assert batch.text is not None and batch.position is not None
    return {"tokens": batch.tokens, "text": batch.text, "position": batch.position}


def trimmed(tokens: np.ndarray) -> np.ndarray:
    longest = int((tokens != PAD).sum(1).max(initial=1))
    return tokens[:, : next((width for width in TOKEN_BUCKETS if width >= longest), tokens.shape[1])]


def uses_bank(config: schema.Run) -> bool:
    """Whether product vectors or alignment read products' text."""
    return "text" in config.model.product.sources or config.objectives.alignment.weight > 0


class LinkPrediction:
    def __init__(self, inputs: Inputs, config: schema.Run) -> None:
        self.triples = inputs.graph.triples(TRAIN)
        if not len(self.triples):
            raise UserError("objectives.link_prediction: the graph has no training edges (see data.graph)")
        self.shuffle = Shuffle(len(self.triples), config.objectives.link_prediction.batch_size, config.seed, "link_prediction")

    def __call__(self, index: int) -> dict[str, np.ndarray]:
        head, relation, tail = self.triples[self.shuffle.rows(index)].T
        return {"head": head, "relation": relation, "tail": tail}


class Alignment:
    """Products that have both a text and a learnt entity row."""

    def __init__(self, inputs: Inputs, config: schema.Run) -> None:
        self.products = np.flatnonzero(inputs.has_text & inputs.has_entity).astype(np.int32)
        if not len(self.products):
            raise UserError("objectives.alignment: no product has both a text and an edge or event to learn its entity from")
        self.shuffle = Shuffle(len(self.products), config.objectives.alignment.batch_size, config.seed, "alignment")

    def __call__(self, index: int) -> dict[str, np.ndarray]:
        return {"product": self.products[self.shuffle.rows(index)]}


class QueryProduct:
    def __init__(self, inputs: Inputs, config: schema.Run) -> None:
        settings = config.objectives.query_product
        if not len(inputs.positives) or inputs.query_tokens is None:
            raise UserError(
                f"objectives.query_product: no training judgment of grade ≥ {settings.min_grade:g} "
                "and no training event with a query"
            )
        self.tokens, self.product_tokens = inputs.query_tokens, inputs.product_tokens
        self.with_text = np.flatnonzero(inputs.has_text) if inputs.product_tokens is not None else ()
        self.from_titles = settings.from_titles if len(self.with_text) else 0.0
        self.seed = config.seed
        self.positives = _Pairs(inputs.positives, len(inputs.query_tokens))
        self.pairs = inputs.positives
        self.shuffle = Shuffle(len(self.pairs), settings.batch_size, config.seed, "query_product")
        self.hard = settings.hard_negatives
        self.negatives = None
        if inputs.hard_negatives is not None:
            self.negatives = _Pairs(inputs.hard_negatives, len(inputs.query_tokens))
        self.most = min(_MOST_KNOWN, int(self.positives.counts.max()))

    def __call__(self, index: int) -> dict[str, np.ndarray]:
        query, product = self.pairs[self.shuffle.rows(index)].T
        tokens, product = self.tokens[query], product.copy()
        n_titles = round(self.from_titles * len(product))
        if n_titles:  # the first rows: the batch is in random order
            generator = _generator(self.seed, "titles", index)
            product[:n_titles] = self.with_text[generator.integers(0, len(self.with_text), n_titles)]
            assert self.product_tokens is not None
            parts = cloze(self.product_tokens[product[:n_titles]], generator)
            width = max(tokens.shape[1], parts.shape[1])
            both = (parts, tokens[n_titles:])
            tokens = np.concatenate([np.pad(each, ((0, 0), (0, width - each.shape[1])), constant_values=PAD) for each in both])
        query = query.copy()
        query[:n_titles] = -1  # a title, which matches its own product alone
        batch = {"tokens": tokens, "product": product.astype(np.int32), "known": self._known(query, product, product)}
        if self.negatives is not None:
            negative = self.negatives.sample(query, self.hard.from_file, _generator(self.seed, "negatives", index))
            batch |= {"negative": negative, "known_negative": self._known(query, product, negative.ravel())}
        if self.hard.mined:
            positive = self.positives.first(query, self.most)
            positive[:n_titles, 0] = product[:n_titles]
            batch["positive"] = positive
        return batch

    def _known(self, query: np.ndarray, product: np.ndarray, column: np.ndarray) -> np.ndarray:
        """bool [b, c]: which of the products `column` row i matches (−1: none); by lists, without looking up all b × c."""
        order = np.argsort(column, kind="stable")
        known = np.zeros((len(query), len(column)), bool)
        rows, wanted = self.positives.of(query)
        titles = np.flatnonzero(query < 0)
        rows, wanted = np.concatenate([rows, titles]), np.concatenate([wanted, product[titles]])
        first, stop = (np.searchsorted(column[order], wanted, side) for side in ("left", "right"))
        count = stop - first
        at = np.repeat(first - np.cumsum(count) + count, count) + np.arange(count.sum())
        known[np.repeat(rows, count), order[at]] = True
        return known


_MOST_KNOWN = 64
"""Known products of a query that mining leaves out, at most; a few queries of a log match thousands."""


class _Pairs:
    """(query, product) pairs by query."""

    def __init__(self, pairs: np.ndarray, n_queries: int) -> None:
        """`pairs`: int64 [n, 2], sorted."""
        self.product = pairs[:, 1]
        self.counts = np.bincount(pairs[:, 0], minlength=n_queries)
        self.start = np.cumsum(self.counts) - self.counts

    def _ranges(self, query: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(first pair, number of pairs) of each query; none of −1."""
        return self.start[query], np.where(query < 0, 0, self.counts[query])

    def of(self, query: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(place in `query`, product) of every pair of the queries."""
        start, count = self._ranges(query)
        place = np.repeat(np.arange(len(query)), count)
        return place, self.product[np.repeat(start - np.cumsum(count) + count, count) + np.arange(count.sum())]

    def first(self, query: np.ndarray, most: int) -> np.ndarray:
        """int32 [b, most]: each query's products, −1 where there are fewer."""
        start, count = self._ranges(query)
        column = np.arange(most)
        at = np.minimum(start[:, None] + column, len(self.product) - 1)
        return np.where(column < count[:, None], self.product[at], -1).astype(np.int32)

    def sample(self, query: np.ndarray, n: int, generator: np.random.Generator) -> np.ndarray:
        """int32 [b, n]: products of each query drawn without repeats, −1 where there are fewer."""
        start, count = self._ranges(query)
        out = np.full((len(query), n), -1, np.int32)
        for row in np.flatnonzero(count):
            chosen = generator.permutation(count[row])[:n]
            out[row, : len(chosen)] = self.product[start[row] + chosen]
        return out


def inner_tokens(tokens: np.ndarray) -> np.ndarray:
    """bool [n, l]: tokens of the text itself, neither [CLS] nor [SEP] nor padding."""
    inner = tokens != PAD
    inner[:, 0] = False
    inner[np.arange(len(tokens)), np.maximum((tokens != PAD).sum(1) - 1, 0)] = False  # [SEP]
    return inner


def cloze(tokens: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """A random part of each token row, in order: every inner token stays with a chance drawn for its row, at least one does."""
    n, length = tokens.shape
    inner = inner_tokens(tokens)
    chance = generator.uniform(0.2, 0.8, (n, 1))
    draw = np.where(inner, generator.random((n, length)), 2.0)
    keep = (draw < chance) | (draw == draw.min(axis=1, keepdims=True)) & inner
    keep |= (tokens != PAD) & ~inner
    order = np.argsort(~keep, axis=1, kind="stable")
    return np.where(np.take_along_axis(keep, order, axis=1), np.take_along_axis(tokens, order, axis=1), PAD).astype(np.int32)


class MaskedWords:
    """Product texts with some words hidden (Devlin et al. 2019)."""

    def __init__(self, inputs: Inputs, config: schema.Run) -> None:
        settings = config.objectives.masked_words
        assert inputs.product_tokens is not None and inputs.tokenizer is not None
        self.tokens, self.rows = inputs.product_tokens, np.flatnonzero(inputs.has_text)
        if not len(self.rows):
            raise UserError("objectives.masked_words: no product has a text")
        self.seed, self.share = config.seed, settings.share
        self.mask, self.vocabulary = inputs.tokenizer.mask, inputs.tokenizer.vocab_size
        self.most = max(1, round(self.share * (self.tokens.shape[1] - 2)))
        self.shuffle = Shuffle(len(self.rows), settings.batch_size, config.seed, "masked_words")

    def __call__(self, index: int) -> dict[str, np.ndarray]:
        generator = _generator(self.seed, "masks", index)
        tokens = self.tokens[self.rows[self.shuffle.rows(index)]].copy()
        inner = inner_tokens(tokens)
        asked = np.minimum(np.maximum(np.rint(self.share * inner.sum(1)), 1), inner.sum(1)).astype(int)
        place = np.argsort(np.where(inner, generator.random(tokens.shape), 2.0), axis=1)[:, : self.most]
        valid = np.arange(self.most) < asked[:, None]
        target = np.where(valid, np.take_along_axis(tokens, place, axis=1), -1)
        draw = generator.random(target.shape)
        shown = np.where(
            draw < 0.8, self.mask, np.where(draw < 0.9, generator.integers(0, self.vocabulary, draw.shape), target)
        )
        np.put_along_axis(tokens, place, np.where(valid, shown, np.take_along_axis(tokens, place, axis=1)), axis=1)
        return {"tokens": tokens, "place": place.astype(np.int32), "target": target.astype(np.int32)}


class Distillation:
    """Product texts with their vectors by the teacher."""

    def __init__(self, inputs: Inputs, config: schema.Run) -> None:
        assert inputs.product_tokens is not None and inputs.teacher is not None
        self.tokens, self.rows, self.teacher = inputs.product_tokens, np.flatnonzero(inputs.has_text), inputs.teacher
        if not len(self.rows):
            raise UserError("objectives.distillation: no product has a text")
        self.shuffle = Shuffle(len(self.rows), config.objectives.distillation.batch_size, config.seed, "distillation")

    def __call__(self, index: int) -> dict[str, np.ndarray]:
        rows = self.rows[self.shuffle.rows(index)]
        return {"tokens": self.tokens[rows], "teacher": self.teacher[rows]}


class NextProduct:
    """Windows of at most history + 1 training events; every event is foretold from those before it in its window."""

    def __init__(self, inputs: Inputs, config: schema.Run) -> None:
        assert inputs.sequences is not None  # require_parts has checked that there are events
        self.history = config.model.user.history
        self.one_width = config.train.accumulate > 1  # micro-batches are stacked, so they need one shape
        self.sequences, self.profile = train_rows(inputs.sequences), inputs.profile
        self.user, self.start, self.stop = _windows(self.sequences.offsets, self.history + 1)
        if not len(self.user):
            raise UserError("objectives.next_product: no user has a training event")
        length = self.stop - self.start
        self.shuffle = Shuffle(len(length), config.objectives.next_product.batch_size, config.seed, "next_product", length)

    def __call__(self, index: int) -> dict[str, np.ndarray]:
        rows = self.shuffle.rows(index)
        start, length = self.start[rows], self.stop[rows] - self.start[rows]
        width = self.history if self.one_width else bucket(int(length.max()) - 1, self.history)
        place = np.arange(width + 1)
        taken = np.minimum(start[:, None] + place[None, :], len(self.sequences.product) - 1)
        target = np.where(place[None, :] < length[:, None], self.sequences.product[taken], -1).astype(np.int32)
        # Only a user's first window may foretell an event from the profile alone.
        target[:, 0] = np.where(start == self.sequences.offsets[self.user[rows]], target[:, 0], -1)
        valid = place[None, :width] < length[:, None] - 1
        return {
            **history_columns(self.sequences, taken[:, :width], valid),
            "target": target,
            "profile": self.profile[self.user[rows]],
        }


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


def _windows(offsets: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cuts every user's rows into windows of at most `size`, full ones at the end; a user with one event has one window."""
    length = np.diff(offsets)
    count = -(-length // size)
    user = np.repeat(np.arange(len(length)), count)
    nth = np.arange(len(user)) - np.repeat(np.cumsum(count) - count, count)
    stop = offsets[1:][user] - nth * size
    return user, np.maximum(stop - size, offsets[:-1][user]), stop


class Live:
    """Chooses the products whose text a step encodes with gradient.

    First those that queries and alignment meet in this batch: there every product is positive and negative alike. Then some
    drawn uniformly, **never** the next products of the batch: in a catalogue read from the bank those encoded just now stand
    out (newer parameters, dropout), and the user tower would learn to point at what is fresh instead of at what is next.
    """

    def __init__(self, inputs: Inputs, config: schema.Run) -> None:
        assert inputs.product_tokens is not None
        self.tokens, self.n, self.seed = inputs.product_tokens, inputs.n_products, config.seed
        self.size = min(config.text.live, self.n)
        self.padded = config.text.live

    def __call__(self, batch: Batch, index: int) -> dict[str, np.ndarray]:
        generator = _generator(self.seed, "live", index)
        wanted = [batch[name]["product"] for name in ("query_product", "alignment") if name in batch]
        if "negative" in batch.get("query_product", {}):
            negative = batch["query_product"]["negative"]
            wanted.append(negative[negative >= 0])
        wanted.append(generator.integers(0, self.n, 2 * self.size))
        named = np.concatenate(wanted)
        _, first = np.unique(named, return_index=True)
        rows = named[np.sort(first)][: self.size]
        padded = np.full(self.padded, self.n, np.int32)
        padded[: len(rows)] = rows
        tokens = np.full((self.padded, self.tokens.shape[1]), PAD, np.int32)
        tokens[: len(rows)] = self.tokens[rows]
        return {"rows": padded, "tokens": tokens}


_MAKERS = {
    "link_prediction": LinkPrediction,
    "alignment": Alignment,
    "query_product": QueryProduct,
    "next_product": NextProduct,
    "masked_words": MaskedWords,
    "distillation": Distillation,
}


def steps_of(config: schema.Run, source: StepSource) -> int:
    """Number of steps of a run; `epochs` are passes over the objective that needs the most steps for one."""
    if config.train.steps is not None:
        return config.train.steps
    assert config.train.epochs is not None
    needed = []
    for name, maker in source.makers.items():
        objective = getattr(config.objectives, name)
        needed.append(maker.shuffle.per_epoch * objective.every / (objective.end - objective.begin))
    return max(1, math.ceil(config.train.epochs * max(needed, default=0) / config.train.accumulate))


def stream(source: grain.sources.RandomAccessDataSource) -> grain.DatasetIterator:
    """The batches of steps 0, 1, … in order, made ahead by threads; `get_state` / `set_state` hold the data position."""
    dataset = grain.MapDataset.source(source).to_iter_dataset(grain.ReadOptions(num_threads=2, prefetch_buffer_size=8))
    return iter(dataset)
