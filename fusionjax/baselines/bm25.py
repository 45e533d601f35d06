"""BM25 over the products' texts: for a query, and for the titles of what a user took last."""

import functools
import itertools
import logging
from collections.abc import Iterable, Sequence
from typing import ClassVar

import numpy as np

from fusionjax.baselines.base import Baseline, Catalogue, Settings
from fusionjax.baselines.item_knn import latest_distinct
from fusionjax.data.text import words
from fusionjax.evaluation.recommendation import Cases
from fusionjax.evaluation.search import Judged

GRID = tuple({"k1": k1, "b": b} for k1, b in itertools.product((1.5, 1.0, 0.5), (0.75, 0.5, 0.25)))
"""The library's default first."""
HISTORY = 5
"""As a recommender, BM25 searches with the titles of this many latest products."""


def tokenise(text: str) -> list[str]:
    """Words for BM25: NFKC, lower case; runs of letters and digits are words; runs of Chinese, Japanese or Korean characters
    give every character and every pair of neighbours (Lucene's CJKAnalyzer with single characters kept). No stemming, no
    stop words.
    """
    tokens: list[str] = []
    for cjk, word in words(text):
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


class _OverTexts(Baseline[Catalogue]):
    grid = GRID

    @classmethod
    def possible(cls, known: Catalogue) -> bool:
        return known.texts is not None

    @functools.cached_property
    def vocabulary(self) -> Vocabulary:
        assert self.known.texts is not None
        return Vocabulary(self.known.texts)


class QueryBM25(_OverTexts):
    """Search: the query's words in the products' texts."""

    @functools.cached_property
    def queries(self) -> list[list[int]]:
        return [self.vocabulary.query(text) for text in self.known.queries]

    def scorer(self, examples: Judged, k1: float, b: float) -> BM25Scorer:
        return BM25Scorer(self.vocabulary, self.queries, k1, b)


class HistoryBM25(_OverTexts):
    """Recommendation: the titles of the latest products as a query."""

    fixed: ClassVar[Settings] = {"history": HISTORY}

    def scorer(self, examples: Cases, k1: float, b: float) -> BM25Scorer:
        latest = latest_distinct(examples.history)
        queries: list[list[int]] = [
            [token for product in latest[row][-HISTORY:] for token in self.vocabulary.documents[product]]
            for row in range(len(latest))
        ]
        return BM25Scorer(self.vocabulary, queries, k1, b)
