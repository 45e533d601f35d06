"""Item-kNN: what goes with the products that a user took."""

import itertools

import numpy as np
import scipy.sparse

from fusionjax.baselines.base import Baseline, Catalogue
from fusionjax.evaluation.ranking import Ragged
from fusionjax.evaluation.recommendation import Cases

GRID = tuple(
    {"shrink": shrink, "neighbours": neighbours, "decay": decay}
    for shrink, neighbours, decay in itertools.product((0.0, 10.0), (100, 20, 400), (1.0, 0.8, 0.5))
)
MOST_PAIRS = 300_000_000
"""Co-occurrences (sum of squared history lengths) that are counted at most, see `similarities`."""
_BLOCK_PAIRS = 20_000_000


def latest_distinct(history: Ragged) -> Ragged:
    """Each row in its order, with only the last of repeated values."""
    rows, values = history.rows()[::-1], history.values[::-1]
    _, first = np.unique(rows * (np.int64(1) + history.values.max(initial=0)) + values, return_index=True)
    keep = np.sort(len(values) - 1 - first)
    return Ragged.from_pairs(history.rows()[keep], history.values[keep], len(history))


def _ages(history: Ragged) -> np.ndarray:
    """0 for the last value of each row, 1 for the one before, …"""
    return np.repeat(history.offsets[1:], history.lengths()) - 1 - np.arange(len(history.values))


def similarities(train: Ragged, n_products: int, neighbours: int, shrink: float) -> scipy.sparse.csr_array:
    """The most similar products of each product, by shrunk cosine of their sets of training users.

    similarity(i, j) = |U_i ∩ U_j| / (√(|U_i| |U_j|) + shrink) (Sarwar et al. 2001; shrinkage as in Dacrema et al. 2019).
    The product matrix is made a block of rows at a time. If the squared lengths of the (distinct) histories add up to more than
    `MOST_PAIRS`, every history is cut to its latest c products, c halved until they do not.

    Args:
        train: products of each training user, oldest first.

    Returns:
        `[n_products, n_products]`: row i holds its `neighbours` largest similarities (ties: lower product number), no diagonal.
    """
    train = latest_distinct(train)
    lengths = train.lengths()
    most = int(lengths.max(initial=1))
    while most > 1 and np.square(np.minimum(lengths, most), dtype=np.float64).sum() > MOST_PAIRS:
        most //= 2
    recent = _ages(train) < most
    users, products = train.rows()[recent], train.values[recent]
    shape = (len(train), n_products)
    by_user = scipy.sparse.csr_array((np.ones(len(users), np.float32), (users, products)), shape=shape)
    by_product = by_user.T.tocsr()
    degree = np.asarray(by_product.sum(axis=1), np.float64)

    cost = np.bincount(products, weights=np.minimum(lengths, most)[users], minlength=n_products)
    bounds = np.flatnonzero(np.diff((np.cumsum(cost) // _BLOCK_PAIRS).astype(np.int64), prepend=-1))
    parts = []
    for start, stop in itertools.pairwise([*bounds.tolist(), n_products]):
        common = (by_product[start:stop] @ by_user).tocoo()
        row, column = common.coords[0] + start, common.coords[1]
        other = row != column
        row, column = row[other], column[other]
        similarity = common.data[other] / (np.sqrt(degree[row] * degree[column]) + shrink)
        best_first = np.lexsort((column, -similarity, row))
        row, column, similarity = row[best_first], column[best_first], similarity[best_first]
        place = np.arange(len(row)) - np.searchsorted(row, row)
        near = place < neighbours
        parts.append((similarity[near].astype(np.float32), row[near], column[near]))
    similarity, row, column = (np.concatenate(part) for part in zip(*parts, strict=True))
    return scipy.sparse.csr_array((similarity, (row, column)), shape=(n_products, n_products))


class ItemKNNScorer:
    """Each product of a user's history votes for its neighbours (Deshpande & Karypis 2004), the age-th latest by decay^age.

    `history` has one row each row number; a repeated product votes once, as of its last time.
    """

    def __init__(self, similar: scipy.sparse.csr_array, history: Ragged, decay: float) -> None:
        history = latest_distinct(history)
        weights = np.power(decay, _ages(history), dtype=np.float64).astype(np.float32)
        self.n_candidates = len(similar.indptr) - 1
        shape = (len(history), self.n_candidates)
        self._votes = scipy.sparse.csr_array((weights, (history.rows(), history.values)), shape=shape)
        self._similar = similar

    def scores(self, rows: np.ndarray) -> np.ndarray:
        return (self._votes[rows] @ self._similar).toarray()


class ItemKNN(Baseline[Catalogue]):
    """Ranks products by the votes of the user's history."""

    grid = GRID
    _similar: tuple[tuple[float, int], scipy.sparse.csr_array] | None = None

    @classmethod
    def possible(cls, known: Catalogue) -> bool:
        return known.histories is not None

    def scorer(self, examples: Cases, shrink: float, neighbours: int, decay: float) -> ItemKNNScorer:
        if self._similar is None or self._similar[0] != (shrink, neighbours):
            assert self.known.histories is not None
            # The grid's innermost axis is the decay: one matrix at a time is enough.
            made = similarities(self.known.histories, self.known.n_products, neighbours, shrink)
            self._similar = (shrink, neighbours), made
        return ItemKNNScorer(self._similar[1], examples.history, decay)
