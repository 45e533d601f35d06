"""Exact ranks and top-k lists over all candidates, on device, in memory bounded by batch × block.

A scorer comes in one of two forms (`Scorer`): vectors on the device, or rows of scores made on the host. Both run through the
same compiled ranking (`counting`). A rank counts, it does not sort: the candidates are scored block by block, once to look up
the scores of the targets, once to count who beats them. Both passes are turns of one loop, so the same compiled code
scores a target and its competitors, and equal vectors tie exactly. Where one block holds all candidates they are scored once.

Ties: the rank is the mean of the optimistic and the pessimistic rank, `1 + greater + equal / 2` ("realistic rank"; Sun et al.,
A Re-evaluation of Knowledge Graph Completion Methods, ACL 2020; Berrendorf et al., On the Ambiguity of Rank-Based Evaluation,
2020). A constant scorer therefore gives (n + 1) / 2. Scores are compared as float32. `Counts` has all three.

What does not depend on the scorer is a `Plan`: which rows share a batch, their targets, and their exclusions on the device.
Made once for a data set, it serves every validation.

Compilations: one per scoring function, batch size, block, and powers of two that hold the targets of a row and the exclusions
of the plan. A scoring function must be the same object at each call (a module-level function, not a fresh lambda), or it
compiles anew.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fusionjax.errors import NaNScore
from fusionjax.evaluation import counting
from fusionjax.evaluation.counting import Exclusions, Score, count_candidates, dot_product
from fusionjax.evaluation.ragged import Ragged

__all__ = [
    "Counts",
    "DeviceScorer",
    "HostScorer",
    "Plan",
    "Ragged",
    "Ranked",
    "Score",
    "Scorer",
    "VectorScorer",
    "count_candidates",
    "dot_product",
    "on_device",
    "rank_rows",
    "target_ranks",
    "top_k",
]

_MOST_EXCLUSIONS = 1 << 24
"""Excluded numbers on the device at once at most (64 MiB), but for a single batch that has more."""
_IN_FLIGHT = 2
"""One batch computes while the next is prepared; never more, for memory."""


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


# ---------------------------------------------------------------------------------------------------------------- ranks
class Counts(NamedTuple):
    """How many candidates score higher than each target, how many equally (the target itself not counted), `int32`."""

    greater: np.ndarray
    equal: np.ndarray

    @property
    def optimistic(self) -> np.ndarray:
        """The rank if all ties are won."""
        return 1.0 + self.greater

    @property
    def pessimistic(self) -> np.ndarray:
        """The rank if all ties are lost."""
        return 1.0 + self.greater + self.equal

    @property
    def realistic(self) -> np.ndarray:
        """The mean of the two: what is meant by rank wherever nothing else is said."""
        return 1.0 + self.greater + self.equal / 2.0


def _power_of_two(n: int) -> int:
    return 1 << max(int(n) - 1, 0).bit_length()


class _Batch(NamedTuple):
    positions: np.ndarray
    """int64 [b]; the last batch is filled up with its first position."""
    n: int
    """How many of them are real."""
    targets: jax.Array
    """int32 [t, b]."""
    used: np.int32
    start: jax.Array
    stop: jax.Array
    """Where in the section's values each row's exclusions stand, int32 [b]."""
    section: int


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """Rows with targets, put in batches, and their exclusions on the device.

    Attributes:
        targets: one row a position.
        batches: rows of like length share a batch, so that no row waits long for another.
        sections: values of the exclusions, each for a run of batches; on the device where there is only one.
        n_candidates: how many candidates there are to be.
        task: what to call this in an error.
    """

    targets: Ragged
    batches: list[_Batch]
    sections: list[Any]
    n_candidates: int
    task: str

    @classmethod
    def of(
        cls,
        targets: Ragged,
        excluded: Ragged | None,
        n_candidates: int,
        *,
        excluded_row: np.ndarray | None = None,
        batch_size: int = 256,
        task: str = "ranking",
    ) -> "Plan":
        """Args as of `rank_rows`. Raises `ValueError`: lengths differ, or a number is not a candidate."""
        n = len(targets)
        if excluded is None:
            excluded, excluded_row = Ragged(np.zeros(2, np.int64), np.zeros(0, np.int32)), np.zeros(n, np.int64)
        if excluded_row is None:
            excluded_row = np.arange(len(excluded))
        if n != len(excluded_row):
            raise ValueError(f"{task}: {n} rows of targets, {len(excluded_row)} rows of exclusions")
        _check_numbers(targets.values, n_candidates, task)
        _check_numbers(excluded.values, n_candidates, task)
        excluded = excluded.distinct()

        lengths, barred = targets.lengths(), excluded.lengths()[excluded_row]
        order = np.lexsort((np.arange(n), barred, lengths))
        b, t = _even_batch(n, batch_size), _power_of_two(max(lengths.max(initial=1), 4))
        groups = [order[start : start + b] for start in range(0, n, b)]
        rows = [np.unique(excluded_row[group]) for group in groups]
        section_of = _sections([int(excluded.lengths()[row].sum()) for row in rows])
        parts: list[np.ndarray] = []
        batches: list[_Batch] = []
        for section in range(max(section_of, default=-1) + 1):
            inside = [i for i, of in enumerate(section_of) if of == section]
            present = np.unique(np.concatenate([rows[i] for i in inside]))
            part = excluded.take(present)
            parts.append(part.values)
            for i in inside:
                positions = np.concatenate([groups[i], np.full(b - len(groups[i]), groups[i][0])])
                row = np.searchsorted(present, excluded_row[positions])
                batches.append(
                    _Batch(
                        positions,
                        len(groups[i]),
                        jnp.asarray(targets.take(positions).padded(t).T),
                        np.int32(lengths[groups[i]].max()),
                        jnp.asarray(part.offsets[row], jnp.int32),
                        jnp.asarray(part.offsets[row + 1], jnp.int32),
                        section,
                    )
                )
        size = _power_of_two(max([1024, *map(len, parts)]))
        sections: list[Any] = [np.concatenate([part, np.full(size - len(part), -1, np.int32)]) for part in parts]
        return cls(targets, batches, [jnp.asarray(sections[0])] if len(sections) == 1 else sections, n_candidates, task)

    def run(
        self,
        score: Score,
        queries: Callable[[int, np.ndarray], Any],
        candidates: Any,
        names: np.ndarray,
        *,
        block: int = 65536,
        top: int = 0,
        count: Callable[..., counting.Counted] = counting.count,
    ) -> Iterator[tuple[_Batch, counting.Counted, np.ndarray | None]]:
        """Every batch with its counts (on the host) and its `top` best candidates `[b, top]`.

        Args:
            score: see `Score`.
            queries: (number of the batch, its positions) → what `score` is given.
            candidates: pytree on the device.
            names: what to call each position in an error.
            count: `counting.count`, or what takes the same arguments.

        Raises:
            ValueError: a score is NaN.
        """
        block = min(block, self.n_candidates)
        waiting: list[tuple[_Batch, Any]] = []
        section, values = -1, None

        def oldest() -> tuple[_Batch, counting.Counted, np.ndarray | None]:
            batch, found = waiting.pop(0)
            counted, best = jax.tree.map(np.asarray, found)
            _raise_if_nan(counted.nan[..., : batch.n], names[batch.positions[: batch.n]], self.task)
            return batch, counted, best

        for i, batch in enumerate(self.batches):
            if batch.section != section:
                section, values = batch.section, jnp.asarray(self.sections[batch.section])
            assert values is not None
            excluded = Exclusions(values, batch.start, batch.stop)
            asked = queries(i, batch.positions)
            counted = count(score, asked, candidates, batch.targets, batch.used, excluded, block=block)
            best = counting.top(score, asked, candidates, excluded, k=top, block=block)[1] if top else None
            waiting.append((batch, (counted, best)))
            if len(waiting) >= _IN_FLIGHT:
                yield oldest()
        while waiting:
            yield oldest()

    def flat(self, batch: _Batch) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of every target of the batch: its place in `targets.values`, and (j, column) in `Counted`."""
        chosen = batch.positions[: batch.n]
        lengths = self.targets.lengths()[chosen]
        column = np.repeat(np.arange(batch.n), lengths)
        j = np.arange(len(column)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        return self.targets.offsets[chosen][column] + j, j, column


def _even_batch(n: int, most: int) -> int:
    """Rows of a batch: n, or of the eighths of `most` from two up that which fills its batches best; few shapes occur."""
    if n <= most:
        return max(n, 1)
    sizes = [most * part // 8 for part in range(8, 1, -1) if most * part % 8 == 0] or [most]
    return min(sizes, key=lambda size: -(-n // size) * size)


def _sections(sizes: list[int]) -> list[int]:
    """A section number for each batch: as many batches together as `_MOST_EXCLUSIONS` allows."""
    found, section, filled = [], 0, 0
    for size in sizes:
        if filled and filled + size > _MOST_EXCLUSIONS:
            section, filled = section + 1, 0
        filled += size
        found.append(section)
    return found


def _raise_if_nan(nan: np.ndarray, rows: np.ndarray, task: str) -> None:
    if nan.any():
        raise NaNScore(f"{task}: {int(nan.sum())} of {len(nan)} rows have NaN scores, the first is row {rows[nan.argmax()]}")


def _exclusions(excluded: Any, n_rows: int, n: int, task: str) -> Exclusions:
    """Of a table `[rows, x]`, −1 = none."""
    table = np.full((n_rows, 0), -1, np.int32) if excluded is None else np.asarray(excluded, np.int32)
    _check_numbers(table, n, task)
    row, column = np.nonzero(table >= 0)
    lists = Ragged.from_pairs(row, table[row, column], n_rows).distinct()
    values = np.append(lists.values, np.full(max(table.size, 1) - len(lists.values), -1, np.int32))  # shaped as the table is
    return Exclusions(*(jnp.asarray(part, jnp.int32) for part in (values, lists.offsets[:-1], lists.offsets[1:])))


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
    _check_numbers(targets, n, task)
    barred = _exclusions(excluded, len(targets), n, task)
    counted = counting.count(
        score, queries, candidates, jnp.asarray(targets.T), np.int32(targets.shape[1]), barred, block=min(block, n)
    )
    _raise_if_nan(np.asarray(counted.nan), np.arange(len(targets)), task)
    ranks = Counts(np.asarray(counted.greater).T, np.asarray(counted.equal).T).realistic
    return np.where(targets >= 0, ranks, np.nan)


def top_k(
    score: Score, queries: Any, candidates: Any, k: int, excluded: Any, *, block: int = 65536, task: str = "ranking"
) -> tuple[np.ndarray, np.ndarray]:
    """The k best candidates, best first, ties by candidate number.

    Arguments as for `target_ranks`; `excluded [b, x]` also tells the number of rows (x may be 0).

    Returns:
        scores `float32 [b, k]` and candidate numbers `int32 [b, k]`; −inf and −1 where fewer than k candidates are left
        (a candidate whose score is −inf is never returned).
    """
    n, rows = count_candidates(candidates), len(excluded)
    scores, index, nan = counting.top(
        score, queries, candidates, _exclusions(excluded, rows, n, task), k=k, block=min(block, n)
    )
    _raise_if_nan(np.asarray(nan), np.arange(rows), task)
    return np.asarray(scores), np.asarray(index)


def _check_numbers(numbers: np.ndarray, n: int, task: str) -> None:
    if numbers.size and not -1 <= numbers.min() <= numbers.max() < n:
        raise ValueError(f"{task}: candidate numbers run from {numbers.min()} to {numbers.max()}, but there are {n} candidates")


@dataclasses.dataclass(frozen=True)
class Ranked:
    """What `rank_rows` found.

    `ranks` of all targets in the order of `targets.values`; the `counts` they are made of; `top [rows, k]` candidate numbers;
    `candidates`, int64: see `competing`.
    """

    ranks: np.ndarray
    top: np.ndarray
    counts: Counts
    candidates: np.ndarray


def competing(
    targets: Ragged, excluded: Ragged | None, n_candidates: int, excluded_row: np.ndarray | None = None
) -> np.ndarray:
    """int64 [t]: among how many candidates each target is ranked, itself included. Args as of `rank_rows`."""
    if excluded is None:
        return np.full(len(targets.values), n_candidates, np.int64)
    excluded, rows = excluded.distinct(), targets.rows()
    row = rows if excluded_row is None else excluded_row[rows]
    keys = excluded.rows() * np.int64(n_candidates) + excluded.values  # ascending
    wanted = row * np.int64(n_candidates) + targets.values
    place = np.searchsorted(keys, wanted)
    itself = np.append(keys, -1)[place] == wanted
    return n_candidates - excluded.lengths()[row] + itself


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
    if len(rows) != len(targets):
        raise ValueError(f"{task}: {len(rows)} rows, {len(targets)} rows of targets")
    device = on_device(scorer)
    candidates = jax.tree.map(jnp.asarray, device.candidates)  # moved to the device once, not with every batch
    n = count_candidates(candidates)
    plan = Plan.of(targets, excluded, n, excluded_row=excluded_row, batch_size=batch_size, task=task)
    counts = Counts(np.zeros(len(targets.values), np.int32), np.zeros(len(targets.values), np.int32))
    listed = np.full((len(rows), top), -1, np.int32)
    for batch, counted, best in plan.run(
        device.score, lambda _, positions: device.batch(rows[positions]), candidates, rows, block=block, top=top
    ):
        place, j, column = plan.flat(batch)
        counts.greater[place], counts.equal[place] = counted.greater[j, column], counted.equal[j, column]
        if best is not None:
            listed[batch.positions] = best
    return Ranked(counts.realistic, listed, counts, competing(targets, excluded, n, excluded_row))
