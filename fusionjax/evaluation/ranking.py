"""Exact ranks and top-k lists over all candidates, on device, in memory bounded by batch × block.

A scorer comes in one of two forms (`Scorer`): vectors on the device, or rows of scores made on the host. Both run through the
same compiled ranking. A rank counts, it does not sort: the candidates are scored block by block, once to look up the
scores of the targets, once to count who beats them. Both passes are turns of one loop, so the same compiled code
scores a target and its competitors, and equal vectors tie exactly. Where one block holds all candidates they are scored once.

Ties: the rank is the mean of the optimistic and the pessimistic rank, `1 + greater + equal / 2` ("realistic rank"; Sun et al.,
A Re-evaluation of Knowledge Graph Completion Methods, ACL 2020; Berrendorf et al., On the Ambiguity of Rank-Based Evaluation,
2020). A constant scorer therefore gives (n + 1) / 2. Scores are compared as float32.

Compilations: one per scoring function, batch size and pair of widths of the padded targets and exclusions. Widths are powers of
two (exclusions: 0 or at least 16), so at most (1 + log2 T) · (2 + log2 X/16) for rows of up to T targets and X exclusions.
A scoring function must be the same object at each call (a module-level function, not a fresh lambda), or it compiles anew.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

Score = Callable[[Any, Any], jax.Array]
"""`score(queries, candidates) -> [b, size]`: pure, jit-able; `candidates` is a slice of `size` rows of every leaf."""

_NARROWEST_EXCLUSION = 16
_MOST_EXCLUSIONS = 1 << 24
"""Numbers in a batch's padded exclusions at most (64 MiB); batches with longer rows are made smaller."""


@dataclasses.dataclass(frozen=True)
class Ragged:
    """Rows of different length: row i is `values[offsets[i]:offsets[i + 1]]` (CSR)."""

    offsets: np.ndarray
    values: np.ndarray

    def __post_init__(self) -> None:
        if len(self.offsets) < 1 or self.offsets[0] != 0 or self.offsets[-1] != len(self.values):
            raise ValueError(f"Ragged: offsets must run from 0 to {len(self.values)}, the number of values")
        if (np.diff(self.offsets) < 0).any():
            raise ValueError("Ragged: offsets decrease")

    @classmethod
    def of(cls, rows: Iterable[Any]) -> "Ragged":
        """From a list of lists of row numbers."""
        rows = [np.asarray(row, np.int32).reshape(-1) for row in rows]
        values = np.concatenate(rows) if rows else np.zeros(0, np.int32)
        return cls(np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64), values)

    @classmethod
    def from_pairs(cls, row: np.ndarray, value: np.ndarray, n_rows: int) -> "Ragged":
        """Groups parallel columns by `row`; within a row the order of the input is kept."""
        row = np.asarray(row)
        if len(row) and not 0 <= row.min() <= row.max() < n_rows:
            raise ValueError(f"Ragged.from_pairs: rows from {row.min()} to {row.max()}, expected within 0 … {n_rows - 1}")
        order = np.argsort(row, kind="stable")
        offsets = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=n_rows))]).astype(np.int64)
        return cls(offsets, np.asarray(value, np.int32)[order])

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> np.ndarray:
        return self.values[self.offsets[row] : self.offsets[row + 1]]

    def lengths(self) -> np.ndarray:
        return np.diff(self.offsets)

    def rows(self) -> np.ndarray:
        """The row number of every value."""
        return np.repeat(np.arange(len(self)), self.lengths())

    def take(self, rows: np.ndarray) -> "Ragged":
        """The given rows, in that order."""
        rows = np.asarray(rows, np.int64)
        lengths = self.lengths()[rows]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        source = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths) + np.repeat(self.offsets[rows], lengths)
        return Ragged(offsets, self.values[source])

    def distinct(self) -> "Ragged":
        """Every row sorted, without repetition."""
        rows = self.rows()
        if ((np.diff(self.values) > 0) | (np.diff(rows) > 0)).all():
            return self
        span = np.int64(1) + self.values.max(initial=0)
        pairs = np.unique(rows * span + self.values)
        return Ragged.from_pairs(pairs // span, pairs % span, len(self))

    def without(self, other: "Ragged") -> "Ragged":
        """The values of each row that the same row of `other` lacks."""
        if len(self) != len(other):
            raise ValueError(f"Ragged.without: {len(self)} rows against {len(other)}")
        span = 1 + max(self.values.max(initial=0), other.values.max(initial=0))
        keep = ~np.isin(self.rows() * np.int64(span) + self.values, other.rows() * np.int64(span) + other.values)
        return Ragged.from_pairs(self.rows()[keep], self.values[keep], len(self))

    def padded(self, width: int) -> np.ndarray:
        """`int32 [rows, width]`, −1 where a row is shorter."""
        table = np.full((len(self), width), -1, np.int32)
        table[np.arange(width)[None] < self.lengths()[:, None]] = self.values
        return table


@runtime_checkable
class DeviceScorer(Protocol):
    """Scores a block of `candidates` (any pytree; leading axis = candidates) for a batch of queries, on the device."""

    @property
    def candidates(self) -> Any: ...

    @property
    def score(self) -> Score: ...

    def batch(self, rows: np.ndarray) -> Any:
        """The queries of `rows` as a pytree. `rows` always has the same length and may repeat."""
        ...


@runtime_checkable
class HostScorer(Protocol):
    """Gives the scores of every candidate for a batch of rows as one array on the host."""

    @property
    def n_candidates(self) -> int: ...

    def scores(self, rows: np.ndarray) -> np.ndarray:
        """`[len(rows), n_candidates]`; `rows` may repeat."""
        ...


Scorer = DeviceScorer | HostScorer


def dot_product(queries: jax.Array, candidates: jax.Array) -> jax.Array:
    """`[b, d] × [size, d] -> [b, size]` in full float32 precision on every device."""
    return jnp.einsum("bd,ed->be", queries, candidates, precision="highest", preferred_element_type=jnp.float32)


@dataclasses.dataclass(frozen=True)
class VectorScorer:
    """Dot product of `queries [rows, d]` and `candidates [n, d]`; the cosine where both have unit length."""

    queries: Any
    candidates: Any
    score: Score = dot_product

    def batch(self, rows: np.ndarray) -> jax.Array:
        return jnp.asarray(self.queries[rows])


def _columns(scores: jax.Array, index: jax.Array) -> jax.Array:
    return lax.dynamic_slice_in_dim(scores, index[0], index.shape[0], axis=1)


@dataclasses.dataclass(frozen=True)
class _HostColumns:
    """A host scorer as a device scorer: its score rows are the queries, column numbers the candidates."""

    host: HostScorer
    candidates: jax.Array
    score: Score = _columns

    def batch(self, rows: np.ndarray) -> jax.Array:
        scores = np.asarray(self.host.scores(rows), np.float32)
        if scores.shape != (len(rows), self.host.n_candidates):
            raise ValueError(f"scores have shape {scores.shape}, expected {(len(rows), self.host.n_candidates)}")
        return jnp.asarray(scores)


def on_device(scorer: Scorer) -> DeviceScorer:
    """Either form of scorer as a `DeviceScorer`."""
    if isinstance(scorer, DeviceScorer):
        return scorer
    return _HostColumns(scorer, jnp.arange(scorer.n_candidates, dtype=jnp.int32))


def count_candidates(candidates: Any) -> int:
    """The common leading length of all leaves. Raises `ValueError` if they differ or there are none."""
    lengths = {leaf.shape[0] for leaf in jax.tree.leaves(candidates)}
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(f"candidates must share one leading length of at least 1, not {sorted(lengths)}")
    return lengths.pop()


def _score_block(score: Score, queries: Any, candidates: Any, block: int, step: jax.Array) -> tuple[jax.Array, ...]:
    """Scores of the step-th block, the candidates' numbers, and which of them no earlier block held.

    The last block starts early enough to be full, so no padded copy of the candidates is ever made.
    """
    first = step * block
    start = jnp.minimum(first, count_candidates(candidates) - block)
    part = jax.tree.map(lambda leaf: lax.dynamic_slice_in_dim(leaf, start, block), candidates)
    # The barrier keeps XLA from recomputing single scores inside their consumers, where they could round differently.
    scores = lax.optimization_barrier(score(queries, part).astype(jnp.float32))
    index = start + jnp.arange(block, dtype=jnp.int32)
    return scores, index, index >= first


@functools.partial(jax.jit, static_argnames=("score", "block"))
def _count(
    score: Score, queries: Any, candidates: Any, targets: jax.Array, excluded: jax.Array, *, block: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """For `targets [b, t]`: how many candidates score higher, how many equally (`int32 [b, t]`), and which rows met NaN."""
    b, t = targets.shape
    n_blocks = -(-count_candidates(candidates) // block)
    wanted = jnp.concatenate([targets, excluded], axis=1)

    def look_up(found: jax.Array, scores: jax.Array, index: jax.Array, fresh: jax.Array) -> jax.Array:
        column = wanted - index[0]
        here = (column >= 0) & (column < block)
        return jnp.where(here, jnp.take_along_axis(scores, jnp.clip(column, 0, block - 1), axis=1), found)

    def count(
        found: jax.Array, scores: jax.Array, index: jax.Array, fresh: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        def beat(of: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            target, own = of[0][:, None], of[1][:, None]
            rival = fresh[None] & (index[None] != target)
            return jnp.sum(rival & (scores > own), axis=1), jnp.sum(rival & (scores == own), axis=1)

        # One target at a time: all at once would need [b, t, block].
        greater, equal = lax.map(beat, (targets.T, found[:, :t].T))
        return greater.T, equal.T, jnp.any(fresh[None] & jnp.isnan(scores), axis=1)

    found = jnp.full(wanted.shape, -jnp.inf, jnp.float32)
    totals = (jnp.zeros((b, t), jnp.int32), jnp.zeros((b, t), jnp.int32), jnp.zeros(b, bool))
    if n_blocks == 1:
        block_scores = _score_block(score, queries, candidates, block, jnp.int32(0))
        found = look_up(found, *block_scores)
        totals = count(found, *block_scores)
    else:

        def turn(i: jax.Array, carry: Any) -> Any:
            found, (greater, equal, nan) = carry
            block_scores = _score_block(score, queries, candidates, block, i % n_blocks)

            def second_pass() -> Any:
                more, same, bad = count(found, *block_scores)
                return found, (greater + more, equal + same, nan | bad)

            return lax.cond(i < n_blocks, lambda: (look_up(found, *block_scores), (greater, equal, nan)), second_pass)

        found, totals = lax.fori_loop(0, 2 * n_blocks, turn, (found, totals))

    greater, equal, nan = totals

    def beat_by_excluded(of: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        target, own = of[0][:, None], of[1][:, None]
        rival = (excluded >= 0) & (excluded != target)
        return jnp.sum(rival & (found[:, t:] > own), axis=1), jnp.sum(rival & (found[:, t:] == own), axis=1)

    # Excluded candidates were counted with the rest: taking them out again is cheaper than a mask in every block.
    if excluded.shape[1]:
        over, same = lax.map(beat_by_excluded, (targets.T, found[:, :t].T))
        greater, equal = greater - over.T, equal - same.T
    return greater, equal, nan


@functools.partial(jax.jit, static_argnames=("score", "k", "block"))
def _top(
    score: Score, queries: Any, candidates: Any, excluded: jax.Array, *, k: int, block: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    b = excluded.shape[0]
    n_blocks = -(-count_candidates(candidates) // block)

    def turn(step: jax.Array, carry: Any) -> Any:
        best, best_index, nan = carry
        scores, index, fresh = _score_block(score, queries, candidates, block, step)
        nan |= jnp.any(fresh[None] & jnp.isnan(scores), axis=1)
        column = excluded - index[0]
        column = jnp.where((column >= 0) & (column < block), column, block)
        scores = jnp.where(fresh[None], scores, -jnp.inf).at[jnp.arange(b)[:, None], column].set(-jnp.inf, mode="drop")
        top, column = lax.top_k(scores, min(k, block))
        # Earlier blocks stand first, and top_k keeps the first of equals: ties go to the lower candidate number.
        merged, place = lax.top_k(jnp.concatenate([best, top], axis=1), k)
        numbers = jnp.concatenate([best_index, index[column]], axis=1)
        return merged, jnp.take_along_axis(numbers, place, axis=1), nan

    start = (jnp.full((b, k), -jnp.inf), jnp.full((b, k), -1, jnp.int32), jnp.zeros(b, bool))
    best, index, nan = lax.fori_loop(0, n_blocks, turn, start)
    return best, jnp.where(best == -jnp.inf, -1, index), nan


def _raise_if_nan(nan: np.ndarray, rows: np.ndarray, task: str) -> None:
    if nan.any():
        raise ValueError(f"{task}: {int(nan.sum())} of {len(nan)} rows have NaN scores, the first is row {rows[nan.argmax()]}")


def _realistic(targets: np.ndarray, greater: Any, equal: Any) -> np.ndarray:
    return np.where(targets >= 0, 1.0 + np.asarray(greater) + np.asarray(equal) / 2.0, np.nan)


def target_ranks(
    score: Score,
    queries: Any,
    candidates: Any,
    targets: Any,
    excluded: Any = None,
    *,
    block: int = 65536,
    task: str = "ranking",
) -> np.ndarray:
    """Rank of each target among all candidates but the excluded ones.

    Args:
        score: see `Score`; static under jit.
        queries: pytree handed to `score` as it is.
        candidates: pytree whose leaves have one row a candidate (n rows).
        targets: `int [b, t]` candidate numbers, −1 = none.
        excluded: `int [b, x]` candidates that do not compete in that row, −1 = none. A target is never excluded from its own
            ranking; another target of the row is, if it stands here.
        block: candidates scored at once.
        task: what to call this in an error.

    Returns:
        `float64 [b, t]` realistic ranks from 1; NaN where the target is −1.

    Raises:
        ValueError: a score is NaN, or a number is not a candidate.
    """
    n = count_candidates(candidates)
    targets = np.asarray(targets, np.int32)
    if excluded is None:
        excluded = np.full((len(targets), 0), -1, np.int32)
    excluded = np.sort(np.asarray(excluded, np.int32), axis=1)
    # Each excluded candidate is subtracted once, so it may stand in its row only once.
    excluded[:, 1:][excluded[:, 1:] == excluded[:, :-1]] = -1
    _check_numbers(targets, n, task)
    _check_numbers(excluded, n, task)
    greater, equal, nan = _count(score, queries, candidates, targets, excluded, block=min(block, n))
    _raise_if_nan(np.asarray(nan), np.arange(len(targets)), task)
    return _realistic(targets, greater, equal)


def top_k(
    score: Score, queries: Any, candidates: Any, k: int, excluded: Any, *, block: int = 65536, task: str = "ranking"
) -> tuple[np.ndarray, np.ndarray]:
    """The k best candidates, best first, ties by candidate number.

    Arguments as for `target_ranks`; `excluded [b, x]` also tells the number of rows (x may be 0).

    Returns:
        scores `float32 [b, k]` and candidate numbers `int32 [b, k]`; −inf and −1 where fewer than k candidates are left
        (a candidate whose score is −inf is never returned).
    """
    n = count_candidates(candidates)
    excluded = np.asarray(excluded, np.int32)
    _check_numbers(excluded, n, task)
    scores, index, nan = _top(score, queries, candidates, excluded, k=k, block=min(block, n))
    _raise_if_nan(np.asarray(nan), np.arange(len(excluded)), task)
    return np.asarray(scores), np.asarray(index)


def _check_numbers(numbers: np.ndarray, n: int, task: str) -> None:
    if numbers.size and not -1 <= numbers.min() <= numbers.max() < n:
        raise ValueError(f"{task}: candidate numbers run from {numbers.min()} to {numbers.max()}, but there are {n} candidates")


def _widths(lengths: np.ndarray, narrowest: int) -> np.ndarray:
    """The power of two that holds each length, at least `narrowest`; 0 stays 0."""
    power = np.left_shift(np.int64(1), np.ceil(np.log2(np.maximum(lengths, 1))).astype(np.int64))
    return np.where(lengths > 0, np.maximum(power, narrowest), 0)


@dataclasses.dataclass(frozen=True)
class Ranked:
    """What `rank_rows` found: `ranks` of all targets in the order of `targets.values`; `top [rows, k]` candidate numbers."""

    ranks: np.ndarray
    top: np.ndarray


def rank_rows(
    scorer: Scorer,
    rows: np.ndarray,
    targets: Ragged,
    excluded: Ragged | None = None,
    *,
    excluded_row: np.ndarray | None = None,
    batch_size: int = 256,
    block: int = 65536,
    top: int = 0,
    task: str = "ranking",
) -> Ranked:
    """Ranks the targets of many rows, batch by batch.

    Args:
        scorer: device or host scorer.
        rows: `int [n]`, what the scorer is asked for; `targets` and `excluded` have one row for each, at the same position.
        excluded_row: `int [n]`, the row of `excluded` that belongs to each position, where many share one.
        top: also return the best `top` candidates of every row (exclusions left out).

    Raises:
        ValueError: lengths differ, a number is not a candidate, or a score is NaN (naming `task` and the row).
    """
    rows = np.asarray(rows)
    device = on_device(scorer)
    candidates = jax.tree.map(jnp.asarray, device.candidates)  # moved to the device once, not with every batch
    n = count_candidates(candidates)
    if excluded is None:
        excluded = Ragged(np.zeros(len(rows) + 1, np.int64), np.zeros(0, np.int32))
    if excluded_row is None:
        excluded_row = np.arange(len(excluded))
    if not len(rows) == len(targets) == len(excluded_row):
        raise ValueError(f"{task}: {len(rows)} rows, {len(targets)} rows of targets, {len(excluded_row)} rows of exclusions")
    _check_numbers(targets.values, n, task)
    _check_numbers(excluded.values, n, task)
    excluded = excluded.distinct()

    target_width = _widths(targets.lengths(), 1)
    excluded_width = _widths(excluded.lengths(), _NARROWEST_EXCLUSION)[excluded_row]
    order = np.lexsort((np.arange(len(rows)), target_width, excluded_width))  # rows of like width share a batch: less padding
    ranks = np.full(len(targets.values), np.nan)
    best = np.full((len(rows), top), -1, np.int32)
    waiting: list[tuple[np.ndarray, np.ndarray, Any]] = []

    def collect() -> None:
        chosen, wanted, (counted, listed) = waiting.pop(0)
        greater, equal, nan = (np.asarray(part) for part in counted)
        _raise_if_nan(nan, rows[chosen], task)
        found = _realistic(wanted, greater, equal)
        own = targets.take(chosen)
        place = np.arange(len(own.values)) - np.repeat(own.offsets[:-1], own.lengths())
        source = place + np.repeat(targets.offsets[chosen], own.lengths())
        ranks[source] = found[own.rows(), place]
        if listed is not None:
            best[chosen] = np.asarray(listed[1])

    batch_size = min(batch_size, max(len(rows), 1))
    start = 0
    while start < len(rows):
        chosen = order[start : start + batch_size]
        while batch_size > 1 and batch_size * excluded_width[chosen[-1]] > _MOST_EXCLUSIONS:  # rows only get wider
            batch_size = (batch_size + 1) // 2
            chosen = chosen[:batch_size]
        start += len(chosen)
        # The last batch is filled up with its first row, so that every batch has one shape.
        chosen = np.concatenate([chosen, np.full(batch_size - len(chosen), chosen[0])])
        wanted = targets.take(chosen).padded(max(int(target_width[chosen].max()), 1))
        barred = excluded.take(excluded_row[chosen]).padded(int(excluded_width[chosen].max()))
        queries = device.batch(rows[chosen])
        counted = _count(device.score, queries, candidates, wanted, barred, block=min(block, n))
        listed = _top(device.score, queries, candidates, barred, k=top, block=min(block, n)) if top else None
        waiting.append((chosen, wanted, (counted, listed)))
        if len(waiting) > 1:  # one batch computes while the next is prepared; never more, for memory
            collect()
    while waiting:
        collect()
    return Ranked(ranks, best)
