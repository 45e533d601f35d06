"""The device's part of ranking: who beats a target, and the best k, block by block.

Axis letters: `b` rows of a batch, `t` targets of a row, `w` exclusions looked at together.

Exclusions are lists of very different length: they stay on the device in compressed form (`Exclusions`), and a batch walks its
own lists `_WIDTH` at a time, as far as its longest goes. Targets are walked the same way, as far as `used` says. So shapes
depend on neither, and a scoring function compiles once for a batch size, not once for each width.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax import lax

Score = Callable[[Any, Any], jax.Array]
"""`score(queries, candidates) -> [b, size]`: pure, jit-able; `candidates` is a slice of `size` rows of every leaf."""

_WIDTH = 128
_Carry = TypeVar("_Carry")


class Exclusions(NamedTuple):
    """Row i leaves out `values[start[i]:stop[i]]`, ascending candidate numbers without repetition; all int32."""

    values: jax.Array
    start: jax.Array
    stop: jax.Array


class Counted(NamedTuple):
    """Of every target `[t, b]`: how many candidates score higher, how many equally; and which rows `[b]` met NaN."""

    greater: jax.Array
    equal: jax.Array
    nan: jax.Array


def dot_product(queries: jax.Array, candidates: jax.Array) -> jax.Array:
    """`[b, d] × [size, d] -> [b, size]` in full float32 precision on every device."""
    return jnp.einsum("bd,ed->be", queries, candidates, precision="highest", preferred_element_type=jnp.float32)


def count_candidates(candidates: Any) -> int:
    """The common leading length of all leaves. Raises `ValueError` if they differ or there are none."""
    lengths = {leaf.shape[0] for leaf in jax.tree.leaves(candidates)}
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(f"candidates must share one leading length of at least 1, not {sorted(lengths)}")
    return lengths.pop()


_MORE, _ODD, _SAME = 1 << 16, 1 << 8, 1
_SLICES = 8


def _tally(scores: jax.Array, own: jax.Array, counting: jax.Array | bool) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Of `scores [b, size]` where `counting`: how many are above, how many equal `own [b, 1]`, and whether one is NaN; `[b]`.

    One pass gives all three: a comparison adds to its own byte of one number. Slices of the row are added up elementwise first,
    which compilers turn into vector instructions where they do not for a sum along the row (three times as fast on a CPU).
    """
    b, size = scores.shape
    width = size // _SLICES

    def added(columns: slice, shape: tuple[int, int, int]) -> jax.Array:
        part, mine = scores[:, columns].reshape(shape), own[:, None]
        below = jnp.where(part < mine, 0, _ODD)  # NaN is neither above, equal nor below
        found = jnp.where(part > mine, _MORE, jnp.where(part == mine, _SAME, below))
        if not isinstance(counting, bool):
            found = jnp.where(jnp.broadcast_to(counting, scores.shape)[:, columns].reshape(shape), found, 0)
        return jnp.sum(found, axis=1)  # at most 8 of a kind: they cannot run over into the next byte

    sums = [added(slice(0, _SLICES * width), (b, _SLICES, width))] if width else []
    if rest := size % _SLICES:
        sums.append(added(slice(size - rest, size), (b, 1, rest)))
    packed = jnp.concatenate(sums, axis=1)
    more, same, odd = (
        jnp.sum(bits, axis=1, dtype=jnp.int32) for bits in (packed // _MORE, packed % _ODD, packed // _ODD % _ODD)
    )
    return more, same, odd > 0


class _Block(NamedTuple):
    """Scores of `size` neighbouring candidates. The first `stale` of them stood in an earlier block too."""

    scores: jax.Array
    start: jax.Array
    stale: jax.Array

    def at(self, column: jax.Array) -> jax.Array:
        """Scores `[b, w]` in columns `[b, w]` of the block; of any column where one lies outside."""
        return jnp.take_along_axis(self.scores, jnp.clip(column, 0, self.scores.shape[1] - 1), axis=1)

    def holds(self, column: jax.Array) -> jax.Array:
        return (column >= self.stale) & (column < self.scores.shape[1])

    def fresh(self, n_blocks: int) -> jax.Array | bool:
        """`[1, size]`: which candidates no earlier block held."""
        return True if n_blocks == 1 else jnp.arange(self.scores.shape[1], dtype=jnp.int32)[None] >= self.stale


def _score_block(score: Score, queries: Any, candidates: Any, size: int, step: jax.Array) -> _Block:
    """The last block starts early enough to be full, so no padded copy of the candidates is ever made."""
    first = step * size
    start = jnp.minimum(first, count_candidates(candidates) - size)
    part = jax.tree.map(lambda leaf: lax.dynamic_slice_in_dim(leaf, start, size), candidates)
    # The barrier keeps XLA from recomputing single scores inside their consumers, where they could round differently.
    scores = lax.optimization_barrier(score(queries, part).astype(jnp.float32))
    return _Block(scores, start, first - start)


def _walk(
    excluded: Exclusions, at: jax.Array, block: _Block, visit: Callable[[jax.Array, jax.Array, _Carry], _Carry], carry: _Carry
) -> tuple[jax.Array, _Carry]:
    """`visit(columns [b, w], which count [b, w], carry)` over the exclusions in a block; blocks come in order.

    `at [b]`: where each row goes on, `excluded.start` at first; returned for the next block.
    """
    size, last = block.scores.shape[1], excluded.values.shape[0] - 1

    def columns(place: jax.Array) -> tuple[jax.Array, jax.Array]:
        column = excluded.values[jnp.minimum(place, last)] - block.start
        return column, column < size

    def left(state: tuple[jax.Array, _Carry]) -> jax.Array:
        return jnp.any((state[0] < excluded.stop) & columns(state[0])[1])

    def turn(state: tuple[jax.Array, _Carry]) -> tuple[jax.Array, _Carry]:
        at, carry = state
        place = at[:, None] + jnp.arange(_WIDTH, dtype=jnp.int32)[None]
        column, here = columns(place)
        here &= place < excluded.stop[:, None]
        return at + jnp.sum(here, axis=1, dtype=jnp.int32), visit(column, here, carry)

    return lax.while_loop(left, turn, (at, carry))


def _count(
    score: Score, queries: Any, candidates: Any, targets: jax.Array, used: jax.Array, excluded: Exclusions, *, block: int
) -> Counted:
    """Counts for `targets [t, b]`, of which the first `used` rows are real; elsewhere (and for −1) anything may stand."""
    t, b = targets.shape
    n_blocks = -(-count_candidates(candidates) // block)

    def look_up(own: jax.Array, part: _Block) -> jax.Array:
        def one(j: jax.Array, own: jax.Array) -> jax.Array:
            column = (targets[j] - part.start)[:, None]
            return own.at[j].set(jnp.where(part.holds(column), part.at(column), own[j][:, None])[:, 0])

        return lax.fori_loop(0, used, one, own)

    def count(own: jax.Array, part: _Block, found: Counted, at: jax.Array) -> tuple[Counted, jax.Array]:
        fresh = part.fresh(n_blocks)

        def everyone(j: jax.Array, found: Counted) -> Counted:
            mine, column = own[j][:, None], (targets[j] - part.start)[:, None]
            more, same, nan = _tally(part.scores, mine, fresh)
            more_self, same_self, _ = _tally(part.at(column), mine, part.holds(column))
            return Counted(found.greater.at[j].add(more - more_self), found.equal.at[j].add(same - same_self), found.nan | nan)

        # Excluded candidates were counted with the rest: taking them out again is cheaper than a mask in every block.
        def take_out(column: jax.Array, here: jax.Array, found: Counted) -> Counted:
            scores = part.at(column)

            def one(j: jax.Array, found: Counted) -> Counted:
                more, same, _ = _tally(scores, own[j][:, None], here & (column != (targets[j] - part.start)[:, None]))
                return found._replace(greater=found.greater.at[j].add(-more), equal=found.equal.at[j].add(-same))

            return lax.fori_loop(0, used, one, found)

        found = lax.fori_loop(0, jnp.maximum(used, 1), everyone, found)  # at least once, to find NaN
        at, found = _walk(excluded, at, part, take_out, found)
        return found, at

    own = jnp.full((t, b), -jnp.inf, jnp.float32)
    found = Counted(jnp.zeros((t, b), jnp.int32), jnp.zeros((t, b), jnp.int32), jnp.zeros(b, bool))
    if n_blocks == 1:
        part = _score_block(score, queries, candidates, block, jnp.int32(0))
        return count(look_up(own, part), part, found, excluded.start)[0]

    # Both passes are turns of one loop, so that the same compiled code scores a target and its rivals.
    def turn(i: jax.Array, state: Any) -> Any:
        own, found, at = state
        part = _score_block(score, queries, candidates, block, i % n_blocks)
        return lax.cond(i < n_blocks, lambda: (look_up(own, part), found, at), lambda: (own, *count(own, part, found, at)))

    return lax.fori_loop(0, 2 * n_blocks, turn, (own, found, excluded.start))[1]


count = jax.jit(_count, static_argnames=("score", "block"))


@functools.partial(jax.jit, static_argnames=("score", "block"))
def count_stacked(
    score: Score, queries: Any, candidates: Any, targets: jax.Array, used: jax.Array, excluded: Exclusions, *, block: int
) -> Counted:
    """`count` for several parameter sets; `queries` is (stacked parameters, what all of them are asked)."""
    stacked, asked = queries

    def one(member: Any) -> Counted:
        params, candidates = member
        return _count(score, (params, *asked), candidates, targets, used, excluded, block=block)

    return lax.map(one, (stacked, candidates))


@functools.partial(jax.jit, static_argnames=("score", "k", "block"))
def top(
    score: Score, queries: Any, candidates: Any, excluded: Exclusions, *, k: int, block: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The k best: scores and numbers `[b, k]`, best first, −inf and −1 where fewer are left; and which rows met NaN."""
    b = excluded.start.shape[0]
    rows = jnp.arange(b)[:, None]
    n_blocks = -(-count_candidates(candidates) // block)

    def turn(step: jax.Array, carry: Any) -> Any:
        best, best_index, nan, at = carry
        part = _score_block(score, queries, candidates, block, step)
        fresh = part.fresh(n_blocks)
        nan |= jnp.any(fresh & jnp.isnan(part.scores), axis=1)

        def bar(column: jax.Array, here: jax.Array, scores: jax.Array) -> jax.Array:
            return scores.at[rows, jnp.where(here, column, block)].set(-jnp.inf, mode="drop")

        at, scores = _walk(excluded, at, part, bar, jnp.where(fresh, part.scores, -jnp.inf))
        most, column = lax.top_k(scores, min(k, block))
        # Earlier blocks stand first, and top_k keeps the first of equals: ties go to the lower candidate number.
        merged, place = lax.top_k(jnp.concatenate([best, most], axis=1), k)
        numbers = jnp.concatenate([best_index, part.start + column], axis=1)
        return merged, jnp.take_along_axis(numbers, place, axis=1), nan, at

    start = (jnp.full((b, k), -jnp.inf), jnp.full((b, k), -1, jnp.int32), jnp.zeros(b, bool), excluded.start)
    best, index, nan, _ = lax.fori_loop(0, n_blocks, turn, start)
    return best, jnp.where(best == -jnp.inf, -1, index), nan
