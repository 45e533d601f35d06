"""Losses of matching pairs: row i of `left` belongs to row i of `right`; the other rows of the batch are its negatives.

All work on cosines. What they share, besides `left`, `right` [b, p] of any length, normalised here:

  positives   bool [b, b]: pairs (row of left, row of right) known to match besides the diagonal, neither pulled nor pushed;
              None: none is known, and nothing of size b × b need be held.
  valid       bool [b]: rows that take part, as example and as negative; the mean is over them.
  negatives   [n, p], any length: further vectors on the right that belong to no row (hard negatives); every row sees them all.
  hidden_negatives  bool [b, n]: those that are known to match the row after all.
  block       rows of the b × (b + n) similarities held at a time, computed anew in the backward pass: memory block × (b + n)
              for twice the matrix products. 0: all at once.
"""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from fusionjax.losses.common import NEGATIVE, mean_of_valid, normalise


def info_nce(
    left: Float[Array, "b p"],
    right: Float[Array, "b p"],
    scale: Float[Array, ""],
    positives: Bool[Array, "b b"] | None,
    valid: Bool[Array, "b"],
    *,
    directions: Literal["both", "forth"] = "both",
    negatives: Float[Array, "n p"] | None = None,
    hidden_negatives: Bool[Array, "b n"] | None = None,
    block: int = 0,
) -> Float[Array, ""]:
    """InfoNCE: cross-entropy, in nats, of the own partner among all partners (van den Oord 2018; Radford 2021).

    Args:
      scale: 1 / temperature.
      directions: both: the mean of left → right and right → left. forth: left → right only, the multiple negatives ranking
        loss of a query and its documents (Henderson 2017; sentence-transformers).
      negatives: stand in the left → right softmax only.
      positives, valid, hidden_negatives, block: see the head of this file.
    """
    if directions not in ("both", "forth"):
        raise ValueError(f"directions: {directions!r}; must be 'both' or 'forth'")
    left, right = scale * normalise(left), normalise(right)
    columns = _columns(right, negatives)
    forth = _rows(left, positives, negatives, hidden_negatives)
    back = _rows(right, None if positives is None else positives.T)
    if block or directions == "forth":
        losses = _by_blocks(lambda rows: _cross_entropy(rows.vectors @ columns.T, rows, valid), forth, block)
        if directions == "forth":
            return mean_of_valid(losses, valid)
        losses += _by_blocks(lambda rows: _cross_entropy(rows.vectors @ left.T, rows, valid), back, block)
    else:
        logits = left @ columns.T
        losses = _cross_entropy(logits, forth, valid) + _cross_entropy(logits[:, : len(right)].T, back, valid)
    return mean_of_valid(losses, valid) / 2


def siglip(
    left: Float[Array, "b p"],
    right: Float[Array, "b p"],
    scale: Float[Array, ""],
    bias: Float[Array, ""],
    positives: Bool[Array, "b b"] | None,
    valid: Bool[Array, "b"],
    *,
    negatives: Float[Array, "n p"] | None = None,
    hidden_negatives: Bool[Array, "b n"] | None = None,
    block: int = 0,
) -> Float[Array, ""]:
    """Every pair judged on its own: −log σ(± (scale · cosine + bias)), + for the own partner, − for others (Zhai et al. 2023).

    The sum over a row's columns, in nats, mean over `valid` rows, as in the paper.

    Args:
      scale: 1 / temperature; the paper starts at 10.
      bias: added as in the paper's Algorithm 1, starts at −10 there: nearly all pairs are negatives.
      positives, valid, negatives, hidden_negatives, block: see the head of this file.
    """
    left, columns = scale * normalise(left), _columns(normalise(right), negatives)

    def losses(rows: _Rows) -> Float[Array, "r"]:
        logits = rows.vectors @ columns.T + bias
        own, hidden = _masks(rows, valid)
        return -jnp.where(hidden, 0.0, jax.nn.log_sigmoid(jnp.where(own, logits, -logits))).sum(axis=1)

    return mean_of_valid(_by_blocks(losses, _rows(left, positives, negatives, hidden_negatives), block), valid)


def triplet(
    left: Float[Array, "b p"],
    right: Float[Array, "b p"],
    positives: Bool[Array, "b b"] | None,
    valid: Bool[Array, "b"],
    margin: float | Float[Array, ""],
    *,
    negatives: Float[Array, "n p"] | None = None,
    hidden_negatives: Bool[Array, "b n"] | None = None,
    hardest: bool = False,
    block: int = 0,
) -> Float[Array, ""]:
    """max(0, margin − cosine of the own partner + cosine of a negative) (Schroff et al. 2015), left → right.

    Of each row the mean over its negatives; a row that has none loses nothing. Then the mean over `valid` rows.

    Args:
      margin: in units of cosine.
      hardest: the negative with the highest cosine alone counts (Hermans et al. 2017, "batch hard").
      positives, valid, negatives, hidden_negatives, block: see the head of this file.
    """
    left, columns = normalise(left), _columns(normalise(right), negatives)

    def losses(rows: _Rows) -> Float[Array, "r"]:
        cosine = rows.vectors @ columns.T
        own, hidden = _masks(rows, valid)
        without = own | hidden
        bar = margin - jnp.where(own, cosine, 0.0).sum(axis=1)
        if hardest:
            return jax.nn.relu(bar + jnp.where(without, NEGATIVE, cosine).max(axis=1))
        hinges = jnp.where(without, 0.0, jax.nn.relu(bar[:, None] + cosine))
        return hinges.sum(axis=1) / jnp.maximum((~without).sum(axis=1), 1)

    return mean_of_valid(_by_blocks(losses, _rows(left, positives, negatives, hidden_negatives), block), valid)


def matryoshka(
    loss: Callable[..., Float[Array, ""]],
    left: Float[Array, "b p"],
    right: Float[Array, "b p"],
    widths: Sequence[int],
    negatives: Float[Array, "n p"] | None = None,
) -> Float[Array, ""]:
    """Mean of a loss over prefixes of the vectors, so that each prefix can be used alone (Kusupati et al. 2022).

    Args:
      loss: any of two arrays of vectors, its other arguments bound by name: `functools.partial(info_nce, scale=…, …)`. Called
        as `loss(left, right)`, with `negatives=` if there are any.
      left, right: of a distillation loss on vectors, student and teacher.
      widths: how many of the p numbers each prefix has; different ones.
    """
    p = min(array.shape[-1] for array in (left, right, negatives) if array is not None)
    if not widths:
        raise ValueError(f"matryoshka: no widths; name at least one from 1 to {p}")
    for place, width in enumerate(widths):
        if not 1 <= width <= p:
            raise ValueError(f"matryoshka: width {width} of vectors of {p}; must be from 1 to {p}")
        if width in widths[:place]:
            raise ValueError(f"matryoshka: width {width} of vectors of {p} is named twice")
    further = [{} if negatives is None else {"negatives": negatives[:, :width]} for width in widths]
    losses = [loss(left[:, :width], right[:, :width], **more) for width, more in zip(widths, further, strict=True)]
    return jnp.stack(losses).mean()


class _Rows(NamedTuple):
    """Rows of the similarities, all b or r of them."""

    vectors: Float[Array, "r p"]
    number: Int[Array, "r"]
    """The row's place in the batch, which is the column of its own partner."""
    positives: Bool[Array, "r b"] | None
    hidden_negatives: Bool[Array, "r n"] | None


def _rows(
    vectors: Float[Array, "b p"],
    positives: Bool[Array, "b b"] | None,
    negatives: Float[Array, "n p"] | None = None,
    hidden_negatives: Bool[Array, "b n"] | None = None,
) -> _Rows:
    if negatives is None and hidden_negatives is not None:
        raise ValueError("hidden_negatives without negatives")
    if negatives is not None and hidden_negatives is None:
        hidden_negatives = jnp.zeros((len(vectors), len(negatives)), bool)
    return _Rows(vectors, jnp.arange(len(vectors)), positives, hidden_negatives)


def _columns(right: Float[Array, "b p"], negatives: Float[Array, "n p"] | None) -> Float[Array, "c p"]:
    """What each row is compared with: the b partners, then the n further negatives."""
    return right if negatives is None else jnp.concatenate([right, normalise(negatives)])


def _masks(rows: _Rows, valid: Bool[Array, "b"]) -> tuple[Bool[Array, "r c"], Bool[Array, "r c"]]:
    """Where each row meets its own partner, and which of the others it must not see."""
    own = rows.number[:, None] == jnp.arange(len(valid))[None, :]
    hidden = ~valid[None, :] if rows.positives is None else rows.positives | ~valid[None, :]
    hidden &= ~own
    if rows.hidden_negatives is None:
        return own, hidden
    return jnp.pad(own, ((0, 0), (0, rows.hidden_negatives.shape[1]))), jnp.concatenate([hidden, rows.hidden_negatives], axis=1)


def _cross_entropy(logits: Float[Array, "r c"], rows: _Rows, valid: Bool[Array, "b"]) -> Float[Array, "r"]:
    own, hidden = _masks(rows, valid)
    logits = jnp.where(hidden, NEGATIVE, logits)
    # A masked sum, not `jnp.diagonal`: that gathers behind a `cond`, and collectives inside it dead-lock several CPU devices.
    return jax.nn.logsumexp(logits, axis=1) - jnp.where(own, logits, 0.0).sum(axis=1)


def _by_blocks(losses: Callable[[_Rows], Float[Array, "r"]], rows: _Rows, block: int) -> Float[Array, "b"]:
    """`losses(rows)`, of at most `block` rows at a time and nothing kept for the backward pass but the rows themselves."""
    if block < 0:
        raise ValueError(f"block: {block}; must not be negative")
    if not block:
        return losses(rows)
    b = len(rows.vectors)
    blocks = -(-b // block)
    size = -(-b // blocks)  # as even as can be, so that fewer rows are padded than blocks there are

    def split(array: Array) -> Array:
        padded = jnp.pad(array, [(0, blocks * size - b)] + [(0, 0)] * (array.ndim - 1))
        # Block k takes every `blocks`-th row from k on: devices that hold a stretch of the batch each then share every block.
        return padded.reshape(size, blocks, *array.shape[1:]).swapaxes(0, 1)

    done = jax.lax.map(jax.checkpoint(losses, prevent_cse=False), jax.tree.map(split, rows))
    return done.swapaxes(0, 1).reshape(-1)[:b]
