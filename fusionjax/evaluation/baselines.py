"""Simple, honest baselines under the models' own protocol: random, popularity, item-kNN, BM25.

Each is a `ranking.Scorer` and goes through the same `evaluate_*` as a model. Hyper-parameters are chosen from a small grid by
NDCG@10 on (a fixed sample of) the **validation** examples, never on test; the choice stands in `Result.settings`. Without
validation examples, or with more than `TUNE_MOST_PRODUCTS` products, the first entry of the grid is used.
"""

import dataclasses
import itertools
import logging
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse

from fusionjax.evaluation.link_prediction import KnownTrue, evaluate_scorers
from fusionjax.evaluation.metrics import Result
from fusionjax.evaluation.ranking import Ragged, Scorer
from fusionjax.evaluation.recommendation import Cases, evaluate_recommendation
from fusionjax.evaluation.search import Judged, evaluate_search

BM25_GRID = tuple(itertools.product((1.5, 1.0, 0.5), (0.75, 0.5, 0.25)))
"""(k1, b); the library's default first."""
KNN_GRID = tuple(itertools.product((0.0, 10.0), (100, 20, 400), (1.0, 0.8, 0.5)))
"""(shrinkage, neighbours, decay)."""
TUNE_EXAMPLES = 1000
"""Validation queries or users on which a grid is compared (a fixed sample where there are more)."""
TUNE_MOST_PRODUCTS = 200_000
_KNN_BLOCK_PAIRS = 20_000_000
KNN_MOST_PAIRS = 300_000_000
"""Item-kNN counts at most this many co-occurrences (sum of squared history lengths), see `similarities`."""
BM25_HISTORY = 5
"""As a recommender, BM25 searches with the titles of this many latest products."""

_CJK = "\u3005\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff"
TOKEN = re.compile(rf"([{_CJK}]+)|((?:(?![{_CJK}])[^\W_])+)")


# ------------------------------------------------------------------------------------------------- random and popularity
class RandomScorer:
    """Uniform scores; a row's depend on nothing but `seed`, `stream` and the row's number."""

    def __init__(self, n_candidates: int, seed: int, stream: int = 0) -> None:
        self.n_candidates, self._key = n_candidates, 8 * seed + stream

    def scores(self, rows: np.ndarray) -> np.ndarray:
        table = np.empty((len(rows), self.n_candidates), np.float32)
        for i, row in enumerate(rows):
            source = np.random.Philox(key=np.array([self._key, row], np.uint64))
            np.random.Generator(source).random(dtype=np.float32, out=table[i])
        return table


def _same_for_all(queries: jax.Array, candidates: jax.Array) -> jax.Array:
    return jnp.broadcast_to(candidates[None], (queries.shape[0], candidates.shape[0]))


class PopularityScorer:
    """The number of training events of each product, whoever asks."""

    score = staticmethod(_same_for_all)

    def __init__(self, train_counts: np.ndarray) -> None:
        self.candidates = jnp.asarray(train_counts, jnp.float32)

    def batch(self, rows: np.ndarray) -> jax.Array:
        return jnp.zeros(len(rows))


def _of_relation(queries: jax.Array, candidates: jax.Array) -> jax.Array:
    return candidates[:, queries].T


class FrequencyScorer:
    """How often each entity is the answer to a relation in the training triples; rows are positions in `relation`.

    Holds one `int32` an entity and distinct relation of `relation`.
    """

    score = staticmethod(_of_relation)

    def __init__(self, train_relation: np.ndarray, train_answer: np.ndarray, relation: np.ndarray, n_entities: int) -> None:
        asked, self._column = np.unique(relation, return_inverse=True)
        inside = np.isin(train_relation, asked)
        table = np.zeros((n_entities, max(len(asked), 1)), np.int32)
        np.add.at(table, (train_answer[inside], np.searchsorted(asked, train_relation[inside])), 1)
        self.candidates = jnp.asarray(table)

    def batch(self, rows: np.ndarray) -> jax.Array:
        return jnp.asarray(self._column[rows], jnp.int32)


# ---------------------------------------------------------------------------------------------------------------- BM25
def tokenise(text: str) -> list[str]:
    """Words for BM25: NFKC, lower case; runs of letters and digits are words; runs of Chinese, Japanese or Korean characters
    give every character and every pair of neighbours (Lucene's CJKAnalyzer with single characters kept). No stemming, no
    stop words.
    """
    tokens: list[str] = []
    for cjk, word in TOKEN.findall(unicodedata.normalize("NFKC", text).lower()):
        if word:
            tokens.append(word)
        else:
            tokens.extend(cjk)
            tokens.extend(cjk[i : i + 2] for i in range(len(cjk) - 1))
    return tokens


class Vocabulary:
    """Token numbers in order of first appearance in the products' texts."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._number: dict[str, int] = {}
        self.documents = [[self._number.setdefault(token, len(self._number)) for token in tokenise(text)] for text in texts]

    def __len__(self) -> int:
        return len(self._number)

    def query(self, text: str) -> list[int]:
        """Token numbers of a query; tokens no product has are dropped (they score nothing)."""
        return [self._number[token] for token in tokenise(text) if token in self._number]

    def names(self) -> dict[str, int]:
        return dict(self._number)


class BM25Scorer:
    """BM25 in Lucene's form (Robertson & Zaragoza 2009; Kamphuis et al. 2020), computed by `bm25s`.

    `queries[row]` are token numbers; a token that stands twice counts twice. Where no token matches, all products score 0.
    """

    def __init__(self, vocabulary: Vocabulary, queries: Sequence[list[int]], k1: float, b: float) -> None:
        self.n_candidates = len(vocabulary.documents)
        self._queries = queries
        self._index = None
        if len(vocabulary):
            import bm25s  # slow to import

            logging.getLogger("bm25s").setLevel(logging.WARNING)  # it would print a line a built index
            self._index = bm25s.BM25(k1=k1, b=b, method="lucene")
            self._index.index((vocabulary.documents, vocabulary.names()), create_empty_token=False, show_progress=False)

    def scores(self, rows: np.ndarray) -> np.ndarray:
        table = np.zeros((len(rows), self.n_candidates), np.float32)
        for i, row in enumerate(rows):
            if self._index is not None and self._queries[row]:
                table[i] = self._index.get_scores(self._queries[row])
        return table


# ------------------------------------------------------------------------------------------------------------ item-kNN
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
    `KNN_MOST_PAIRS`, every history is cut to its latest c products, c halved until they do not.

    Args:
        train: products of each training user, oldest first.

    Returns:
        `[n_products, n_products]`: row i holds its `neighbours` largest similarities (ties: lower product number), no diagonal.
    """
    train = latest_distinct(train)
    lengths = train.lengths()
    most = int(lengths.max(initial=1))
    while most > 1 and np.square(np.minimum(lengths, most), dtype=np.float64).sum() > KNN_MOST_PAIRS:
        most //= 2
    recent = _ages(train) < most
    users, products = train.rows()[recent], train.values[recent]
    shape = (len(train), n_products)
    by_user = scipy.sparse.csr_array((np.ones(len(users), np.float32), (users, products)), shape=shape)
    by_product = by_user.T.tocsr()
    degree = np.asarray(by_product.sum(axis=1), np.float64)

    cost = np.bincount(products, weights=np.minimum(lengths, most)[users], minlength=n_products)
    bounds = np.flatnonzero(np.diff((np.cumsum(cost) // _KNN_BLOCK_PAIRS).astype(np.int64), prepend=-1))
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


# ------------------------------------------------------------------------------------------------------ the three tasks
def _choose(grid: Sequence[tuple[Any, ...]], quality: Callable[..., float], examples: Any) -> tuple[tuple[Any, ...], str]:
    """The grid entry of the highest quality on `examples` (the first of equals), and how it was chosen."""
    if examples is None:
        return grid[0], "default"
    measured = [quality(*entry, examples) for entry in grid]
    return grid[int(np.argmax(np.nan_to_num(measured, nan=-1.0)))], "validation ndcg@10"


def _sample(n: int, seed: int) -> np.ndarray:
    """At most `TUNE_EXAMPLES` of n rows, ascending."""
    if n <= TUNE_EXAMPLES:
        return np.arange(n)
    return np.sort(np.random.Generator(np.random.Philox(seed)).choice(n, TUNE_EXAMPLES, replace=False))


def _with(result: Result, **settings: float | int | str) -> Result:
    return dataclasses.replace(result, settings=result.settings | settings)


def search_baselines(
    product_texts: Sequence[str],
    query_texts: Sequence[str],
    train_counts: np.ndarray | None,
    test: Judged,
    valid: Judged | None = None,
    *,
    relevant_grade: float = 1.0,
    seed: int = 0,
    batch_size: int = 256,
    block: int = 65536,
) -> dict[str, Result]:
    """`random`, `popularity` (where `train_counts` are given) and `bm25` on the test judgments.

    Args:
        product_texts, query_texts: one text a product and a query, in the order of their row numbers.
        train_counts: training events of each product.
        test, valid: judgments; `valid` chooses BM25's k1 and b.
    """
    n = len(product_texts)

    def run(scorer: Scorer, judged: Judged) -> Result:
        return evaluate_search(scorer, judged, relevant_grade=relevant_grade, batch_size=batch_size, block=block)

    results = {"random": run(RandomScorer(n, seed), test)}
    if train_counts is not None:
        results["popularity"] = run(PopularityScorer(train_counts), test)
    vocabulary = Vocabulary(product_texts)
    asked: list[list[int]] = [vocabulary.query(text) for text in query_texts]
    some = None
    if valid is not None and len(valid.query) and n <= TUNE_MOST_PRODUCTS:
        queries = np.unique(valid.query)
        keep = np.isin(valid.query, queries[_sample(len(queries), seed)])
        some = Judged(*(np.asarray(column)[keep] for column in valid))

    def quality(k1: float, b: float, some: Judged) -> float:
        return run(BM25Scorer(vocabulary, asked, k1, b), some).metrics["ndcg@10"]

    (k1, b), chosen_by = _choose(BM25_GRID, quality, some)
    results["bm25"] = _with(run(BM25Scorer(vocabulary, asked, k1, b), test), k1=k1, b=b, chosen_by=chosen_by)
    return results


def recommendation_baselines(
    train: Ragged,
    n_products: int,
    test: Cases,
    valid: Cases | None = None,
    *,
    titles: Sequence[str] | None = None,
    train_counts: np.ndarray | None = None,
    segment_counts: np.ndarray | None = None,
    exclude_seen: bool = True,
    ks: tuple[int, ...] = (10, 20),
    seed: int = 0,
    batch_size: int = 256,
    block: int = 65536,
) -> dict[str, Result]:
    """`random`, `popularity`, `item_knn` and, where there are titles, `bm25` (query = the titles of the latest products).

    Args:
        train: products of each user's **training** events, oldest first: what item-kNN learns from.
        test, valid: the users to recommend to; `valid` chooses item-kNN's shrinkage, neighbours and decay, and BM25's k1 and b.
        titles: one a product.
        train_counts: training events of each product; default: counted in `train`.
        segment_counts: what defines the segments; default: `train_counts`.
        exclude_seen: never recommend what stands in a case's history (or its `seen`).
        ks: cut-offs.
    """
    counts = np.bincount(train.values, minlength=n_products) if train_counts is None else np.asarray(train_counts)
    segment_by = counts if segment_counts is None else segment_counts

    def run(scorer: Scorer, cases: Cases) -> Result:
        seen = (cases.history if cases.seen is None else cases.seen) if exclude_seen else None
        return evaluate_recommendation(
            scorer, np.arange(len(cases.targets)), cases.targets, seen, segment_by, ks=ks, batch_size=batch_size, block=block
        )

    results = {
        "random": run(RandomScorer(n_products, seed), test),
        "popularity": run(PopularityScorer(counts), test),
    }
    some = None
    if valid is not None and len(valid.targets.values) and n_products <= TUNE_MOST_PRODUCTS:
        rows = np.flatnonzero(valid.targets.lengths())
        rows = rows[_sample(len(rows), seed)]
        seen = None if valid.seen is None else valid.seen.take(rows)
        some = Cases(valid.history.take(rows), valid.targets.take(rows), seen)

    def choose(grid: Sequence[tuple[Any, ...]], make: Callable[..., Scorer]) -> tuple[Result, tuple[Any, ...], str]:
        def quality(*entry_and_cases: Any) -> float:
            *entry, cases = entry_and_cases
            return run(make(cases.history, *entry), cases).metrics[f"ndcg@{ks[0]}"]

        entry, chosen_by = _choose(grid, quality, some)
        return run(make(test.history, *entry), test), entry, chosen_by.replace("@10", f"@{ks[0]}")

    similar: dict[tuple[float, int], scipy.sparse.csr_array] = {}

    def knn(history: Ragged, shrink: float, neighbours: int, decay: float) -> Scorer:
        if (shrink, neighbours) not in similar:
            similar.clear()  # the grid's innermost axis is the decay: one matrix at a time is enough
            similar[shrink, neighbours] = similarities(train, n_products, neighbours, shrink)
        return ItemKNNScorer(similar[shrink, neighbours], history, decay)

    result, (shrink, neighbours, decay), chosen_by = choose(KNN_GRID, knn)
    results["item_knn"] = _with(result, shrink=shrink, neighbours=neighbours, decay=decay, chosen_by=chosen_by)

    if titles is not None:
        vocabulary = Vocabulary(titles)

        def bm25(history: Ragged, k1: float, b: float) -> Scorer:
            latest = latest_distinct(history)
            queries: list[list[int]] = [
                [token for product in latest[row][-BM25_HISTORY:] for token in vocabulary.documents[product]]
                for row in range(len(latest))
            ]
            return BM25Scorer(vocabulary, queries, k1, b)

        result, (k1, b), chosen_by = choose(BM25_GRID, bm25)
        results["bm25"] = _with(result, k1=k1, b=b, history=BM25_HISTORY, chosen_by=chosen_by)
    return results


def link_prediction_baselines(
    train: np.ndarray,
    test: np.ndarray,
    known: KnownTrue,
    n_entities: int,
    *,
    seed: int = 0,
    batch_size: int = 256,
    block: int = 65536,
) -> dict[str, Result]:
    """`random`, and `popularity`: how often an entity is the tail (head) of that relation in the training triples.

    Args:
        train, test: `int [n, 3]` (head, relation, tail).
        known: true triples of all splits.
    """

    def run(tails: Scorer, heads: Scorer) -> Result:
        return evaluate_scorers(tails, heads, test, known, n_entities, batch_size=batch_size, block=block)

    train, test = np.asarray(train), np.asarray(test)
    head, relation, tail = train.T
    return {
        "random": run(RandomScorer(n_entities, seed, 1), RandomScorer(n_entities, seed, 2)),
        "popularity": run(
            FrequencyScorer(relation, tail, test[:, 1], n_entities), FrequencyScorer(relation, head, test[:, 1], n_entities)
        ),
    }
