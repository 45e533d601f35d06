"""Bootstrap and randomisation over examples (users, queries, triples), many columns at once by matrix products.

A column is one quantity measured on every example: a metric of a row of a table, in a segment. All columns see the same
resamples and the same signs, so that columns measured on the same examples stay comparable. NaN: undefined for this example.
Pure functions of their arguments, the seed among them; the last bits depend on the BLAS library and its threads.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

_CHUNK = 4 << 20
"""Numbers in one block of resamples (32 MiB of float64): bounds the memory whatever the number of resamples."""
_SAME = 1e-10
"""Two sums of flipped differences this near, relative to the sum of their sizes, are equal but for rounding."""


def _generator(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(seed))


def _columns(values: ArrayLike) -> tuple[Array, NDArray[np.bool_], tuple[int, ...]]:
    """Columns [n, c] with zeros for NaN, where they are defined [n, c], and the leading shape."""
    values = np.asarray(values, np.float64)
    if values.ndim < 1 or not values.shape[-1]:
        raise ValueError(f"expected values of shape [..., examples] with at least one example, got {values.shape}")
    if np.isinf(values).any():
        raise ValueError("values: infinite; a metric undefined for an example is NaN")
    flat = values.reshape(-1, values.shape[-1]).T
    defined = ~np.isnan(flat)
    return np.where(defined, flat, 0.0), defined, values.shape[:-1]


def bootstrap_counts(n: int, resamples: int, seed: int, chunk: int | None = None) -> Iterator[Array]:
    """How often each of `n` examples was drawn, in blocks [b, n] that add up to `resamples` rows.

    A resample draws `n` examples with replacement. The draws do not depend on `chunk`, the rows of a block.
    """
    generator = _generator(seed)
    chunk = max(1, _CHUNK // n) if chunk is None else chunk
    for start in range(0, resamples, chunk):
        rows = min(chunk, resamples - start)
        drawn = generator.integers(0, n, size=(rows, n))
        drawn += np.arange(rows)[:, None] * n
        yield np.bincount(drawn.reshape(-1), minlength=rows * n).reshape(rows, n).astype(np.float64)


def bootstrap_means(values: ArrayLike, resamples: int, seed: int, chunk: int | None = None) -> Array:
    """Means of resampled examples (Efron, Bootstrap Methods, Annals of Statistics 1979).

    Args:
      values: [..., n]; a mean is over the drawn examples that are defined.
      resamples: number of resamples `R`.

    Returns:
      [R, ...]; NaN where a resample drew no defined example.
    """
    columns, defined, shape = _columns(values)
    # Few patterns of undefined examples are shared by many columns (one per segment): count each once.
    packed = np.ascontiguousarray(np.packbits(defined, axis=0).T)
    _, first, pattern = np.unique(packed, axis=0, return_index=True, return_inverse=True)
    weights = defined[:, first].astype(np.float64)
    means = np.empty((resamples, columns.shape[1]))
    start = 0
    with np.errstate(invalid="ignore", divide="ignore"):
        for counts in bootstrap_counts(len(columns), resamples, seed, chunk):
            block = counts @ columns / (counts @ weights)[:, pattern.reshape(-1)]
            means[start : start + len(counts)] = block
            start += len(counts)
    return means.reshape(resamples, *shape)


def randomisation_test(differences: ArrayLike, resamples: int, seed: int) -> Array:
    """Two-sided paired randomisation test of a zero mean (Fisher 1935; Smucker, Allan & Carterette, CIKM 2007).

    If a row and the reference were exchangeable, every example's difference could as well have had the other sign. The
    signs are flipped at random, the same for all columns.

    Args:
      differences: [..., n], one number an example (averaged over seeds).
      resamples: number of random flips `R`. The smallest p there can be is 1 / (1 + R), so a correction over m comparisons
        needs R well above m / alpha.

    Returns:
      p [...] = (1 + #{|flipped mean| >= |mean|}) / (1 + R); NaN where no example is defined.
    """
    columns, defined, shape = _columns(differences)
    n = len(columns)
    generator = _generator(seed)
    total = columns.sum(axis=0)
    reached = np.abs(total) - _SAME * np.abs(columns).sum(axis=0)
    extreme = np.zeros(columns.shape[1], np.int64)
    width = -(-n // 64) * 8  # bytes a resample, whole words: the draws do not depend on the size of a block
    chunk = max(1, _CHUNK // n)
    for start in range(0, resamples, chunk):
        rows = min(chunk, resamples - start)
        bits = np.frombuffer(generator.bytes(rows * width), np.uint8).reshape(rows, width)
        flipped = np.unpackbits(bits, axis=1, count=n).astype(np.float64)
        extreme += (np.abs(total - 2 * (flipped @ columns)) >= reached).sum(axis=0)
    p = (1 + extreme) / (1 + resamples)
    return np.where(defined.any(axis=0), p, np.nan).reshape(shape)
