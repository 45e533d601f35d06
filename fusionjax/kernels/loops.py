"""The loops of `looped`, compiled by numba when first used (ten seconds)."""

import functools

import numpy as np
from numba import njit

from fusionjax.kernels import handlers

_loop = njit(**handlers.LOOSE)


@_loop
def _piece(n, number, pieces):
    return number * n // pieces, (number + 1) * n // pieces


# Four rows at once: their loads overlap, and sums are read and written a quarter as often.
def _products(frame, number, pieces):
    query, entities, numbers = handlers.floats(frame, 0), handlers.floats(frame, 1), handlers.integers(frame, 2)
    scores = handlers.result(frame)
    n, width = numbers.shape[1], query.shape[1]
    first, last = _piece(len(query), number, pieces)
    for i in range(first, last):
        own = query[i]
        for j in range(0, n - 3, 4):
            a, b = entities[numbers[i, j]], entities[numbers[i, j + 1]]
            c, d = entities[numbers[i, j + 2]], entities[numbers[i, j + 3]]
            of_a, of_b, of_c, of_d = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
            for k in range(width):
                of_a += own[k] * a[k]
                of_b += own[k] * b[k]
                of_c += own[k] * c[k]
                of_d += own[k] * d[k]
            scores[i, j], scores[i, j + 1], scores[i, j + 2], scores[i, j + 3] = of_a, of_b, of_c, of_d
        for j in range(n - n % 4, n):
            a, of_a = entities[numbers[i, j]], np.float32(0)
            for k in range(width):
                of_a += own[k] * a[k]
            scores[i, j] = of_a


@_loop
def _weighted_sum(rows, numbers, weights, total):
    n, width = len(numbers), rows.shape[1]
    total[:] = 0
    for j in range(0, n - 3, 4):
        a, b, c, d = rows[numbers[j]], rows[numbers[j + 1]], rows[numbers[j + 2]], rows[numbers[j + 3]]
        of_a, of_b, of_c, of_d = weights[j], weights[j + 1], weights[j + 2], weights[j + 3]
        for k in range(width):
            total[k] += of_a * a[k] + of_b * b[k] + of_c * c[k] + of_d * d[k]
    for j in range(n - n % 4, n):
        a, of_a = rows[numbers[j]], weights[j]
        for k in range(width):
            total[k] += of_a * a[k]


def _of_queries(frame, number, pieces):
    entities, numbers, gradient = handlers.floats(frame, 0), handlers.integers(frame, 1), handlers.floats(frame, 2)
    found = handlers.result(frame)
    first, last = _piece(len(found), number, pieces)
    for i in range(first, last):
        _weighted_sum(entities, numbers[i], gradient[i], found[i])


def _of_entities(frame, number, pieces):
    query, numbers, gradient = handlers.floats(frame, 0), handlers.integers(frame, 1), handlers.floats(frame, 2)
    found = handlers.result(frame)
    # Of which queries each entity is a candidate, by counting; then a sum over these.
    (q, n), (first, last) = numbers.shape, _piece(len(found), number, pieces)
    e = last - first
    start = np.zeros(e + 1, np.int32)
    for i in range(q):
        for j in range(n):
            at = numbers[i, j] - first
            if 0 <= at < e:
                start[at + 1] += 1
    for at in range(e):
        start[at + 1] += start[at]
    asked, weights, free = np.empty(start[e], np.int32), np.empty(start[e], np.float32), start.copy()
    for i in range(q):
        for j in range(n):
            at = numbers[i, j] - first
            if 0 <= at < e:
                asked[free[at]], weights[free[at]] = i, gradient[i, j]
                free[at] += 1
    for at in range(e):
        own = slice(start[at], start[at + 1])
        _weighted_sum(query, asked[own], weights[own], found[first + at])


@functools.cache
def register() -> None:
    """Make them known to XLA: `fusionjax_products`, `fusionjax_of_queries`, `fusionjax_of_entities`."""
    handlers.register("fusionjax_products", _products)
    handlers.register("fusionjax_of_queries", _of_queries)
    handlers.register("fusionjax_of_entities", _of_entities)
