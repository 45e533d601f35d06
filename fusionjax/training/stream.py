"""The stream of batches: what step number s trains on is a pure function of (seed, s), so resuming is starting at s.

A step's batch is a nested dict of NumPy arrays: one entry for each objective that takes part, described where the objective
is, and `live`, the products whose text is encoded with gradient: `rows`: int32 [t] (n_products = padding); `tokens`:
int32 [t, l]. With `train.accumulate` = k > 1 every array has a leading axis k. With `text.pack`, `tokens` are packed rows, and
`text` and `position` say whose they are (`packing.Batch`).
"""

import math
from collections.abc import Mapping

import grain
import numpy as np

from fusionjax import packing
from fusionjax.config import schema
from fusionjax.data.inputs import Inputs, product_text_needed
from fusionjax.data.text import PAD
from fusionjax.objectives import OBJECTIVES, Objective
from fusionjax.objectives.base import Entry
from fusionjax.objectives.link_prediction.objective import LinkPrediction
from fusionjax.objectives.sampling import generator_of
from fusionjax.registry import Registry

TOKEN_BUCKETS = (8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
"""Widths that `text.pack` cuts token rows to, where it cannot pack them."""

Batch = dict[str, Entry]


def active(objectives: schema.Objectives, step: int, total: int | None = None) -> tuple[str, ...]:
    """Objectives that take part in a step: those with a weight whose turn it is.

    Args:
      total: steps of the run, which `begin` and `end` are shares of; not needed where all begin at 0 and end at 1.
    """
    turn = []
    for name, objective in objectives.used().items():
        if step % objective.every == objective.offset:
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


class StepSource(grain.sources.RandomAccessDataSource):
    """Item s is the batch of step s."""

    def __init__(
        self,
        inputs: Inputs,
        config: schema.Run,
        steps: int,
        devices: int = 1,
        table: Mapping[str, type[Objective]] | Registry[type[Objective]] = OBJECTIVES,
    ) -> None:
        """Prepares the batches of every objective with a weight.

        Args:
          steps: the number of items, at least as many as the run has steps.
          devices: packed rows come in a multiple of it.
          table: the class of each objective that the config may name.

        Raises:
          UserError: an objective has nothing to train on.
        """
        self.inputs, self.config, self.steps, self.devices = inputs, config, steps, devices
        pooling = inputs.pretrained.sentence.pooling if inputs.pretrained is not None else config.text.pooling
        self.packs = not config.text.chunk and pooling in ("mean", "cls")
        self.used = config.objectives.used()
        self.objectives = {name: table[name](inputs, config) for name in self.used}
        # A frozen encoder has nothing to learn from a text: the bank, encoded once, serves as it is.
        learns = config.text.tune != "frozen"
        self.live: Live | None = None
        if product_text_needed(config) and inputs.n_products and learns:
            self.live = Live(inputs, config, self.objectives)
        self.epoch = epoch_of(config, self.objectives)
        self.total = steps_of(config, self.epoch)
        links = self.objectives.get("link_prediction")
        self.graph = links.graph if isinstance(links, LinkPrediction) else None

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> Batch:
        k = self.config.train.accumulate
        turn = active(self.config.objectives, step, self.total)
        micro: list[Batch] = []
        for part in range(k):
            batch: Batch = {}
            for name in turn:
                index = turns_before(self.used[name], step, self.total) * k + part
                batch[name] = self.objectives[name].batch(index)
            if self.live is not None and any(not self.objectives[name].owns_text for name in turn):
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
            if "tokens" not in entry:
                continue
            if self.packs and (name == "live" or self.objectives[name].packs_tokens):
                batch[name] = {**entry, **packed_rows(entry["tokens"], self.config.text.max_length, self.devices)}
            else:
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
    """Token rows int32 [b, l] without the columns beyond the narrowest of `TOKEN_BUCKETS` that holds them all."""
    longest = int((tokens != PAD).sum(1).max(initial=1))
    return tokens[:, : next((width for width in TOKEN_BUCKETS if width >= longest), tokens.shape[1])]


class Live:
    """Chooses the products whose text a step encodes with gradient.

    First those that the objectives of the batch ask for (`Objective.live_products`). Then some drawn uniformly, **never** the
    next products of the batch: in a catalogue read from the bank those encoded just now stand out (newer parameters,
    dropout), and the user tower would learn to point at what is fresh instead of at what is next.
    """

    def __init__(self, inputs: Inputs, config: schema.Run, objectives: Mapping[str, Objective]) -> None:
        assert inputs.product_tokens is not None
        self.tokens, self.n, self.seed, self.objectives = inputs.product_tokens, inputs.n_products, config.seed, objectives
        self.size = min(config.text.live, self.n)
        self.padded = config.text.live

    def __call__(self, batch: Batch, index: int) -> Entry:
        """`rows` and `tokens` of the live products; `index`: number of the draw."""
        generator = generator_of(self.seed, "live", index)
        asked = [turn for name, entry in batch.items() for turn in self.objectives[name].live_products(entry).items()]
        wanted = [rows for _, rows in sorted(asked, key=lambda turn: turn[0])]
        wanted.append(generator.integers(0, self.n, 2 * self.size))
        named = np.concatenate(wanted)
        _, first = np.unique(named, return_index=True)
        rows = named[np.sort(first)][: self.size]
        padded = np.full(self.padded, self.n, np.int32)
        padded[: len(rows)] = rows
        tokens = np.full((self.padded, self.tokens.shape[1]), PAD, np.int32)
        tokens[: len(rows)] = self.tokens[rows]
        return {"rows": padded, "tokens": tokens}


def epoch_of(config: schema.Run, objectives: Mapping[str, Objective]) -> float:
    """Steps of an epoch: of one round over the examples of the objective that needs the most steps for it."""
    needed = [0.0]
    for name, objective in objectives.items():
        section = config.objectives.used()[name]
        needed.append(objective.steps_per_epoch * section.every / (section.end - section.begin))
    return max(needed) / config.train.accumulate


def steps_of(config: schema.Run, epoch: float) -> int:
    """Number of steps of a run whose epochs have so many."""
    if config.train.steps is not None:
        return config.train.steps
    assert config.train.epochs is not None
    return max(1, math.ceil(config.train.epochs * epoch))


def stream(source: grain.sources.RandomAccessDataSource) -> grain.DatasetIterator:
    """The batches of steps 0, 1, … in order, made ahead by threads; `get_state` / `set_state` hold the data position."""
    dataset = grain.MapDataset.source(source).to_iter_dataset(grain.ReadOptions(num_threads=2, prefetch_buffer_size=8))
    return iter(dataset)
