"""What several objectives draw with: shuffled epochs, random numbers of a batch, and parts of token rows."""

import functools
import math
import zlib

import numpy as np

from fusionjax.data.text import PAD

_SORT_BATCHES = 8
"""Batches of histories are cut from this many shuffled batches sorted by length, so that little of a batch is padding."""


def generator_of(seed: int, name: str, index: int) -> np.random.Generator:
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
        generator = generator_of(self.seed, self.name, epoch)
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


class Pairs:
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
