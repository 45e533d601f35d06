"""Triple classification: is a triple true? (Socher et al., NIPS 2013; with hard negatives: Safavi and Koutra, EMNLP 2020)

A triple is called true if its score is above a threshold, chosen on **validation** triples, true and false. Three ways (`By`):

- `relation`: for each relation the threshold of the highest accuracy (Socher et al.); a relation without validation triples
  gets the best one for all of them together;
- `all`: that one for every relation;
- `logistic`: one for every relation, where a logistic regression on the score says 1/2 (Platt scaling): what CoDEx's own
  `scripts/tc.py` does, so figures beside CoDEx's want this one.

Accuracy depends on the negatives more than on the model: CoDEx's were checked by people and are plausible; uniformly corrupted
ones (`corrupted`) are mostly absurd. `Classified.negatives` says which they were; numbers compare only where it is the same.
"""

import dataclasses
from typing import Literal, NamedTuple

import numpy as np

from fusionjax.evaluation.link_prediction import KnownTrue
from fusionjax.evaluation.ragged import Ragged

By = Literal["relation", "all", "logistic"]
Negatives = Literal["given", "corrupted"]


class Labelled(NamedTuple):
    """Scored triples and whether they are true: `float [n]`, `int [n]`, `bool [n]`."""

    score: np.ndarray
    relation: np.ndarray
    true: np.ndarray

    @classmethod
    def of(
        cls, positive: np.ndarray, positive_relation: np.ndarray, negative: np.ndarray, negative_relation: np.ndarray
    ) -> "Labelled":
        """From the scores and relation numbers of true and of false triples, in this order."""
        true = np.repeat([True, False], [len(positive), len(negative)])
        relation = np.concatenate([positive_relation, negative_relation]).astype(np.int64)
        return cls(np.concatenate([positive, negative]).astype(np.float64), relation, true)

    def check(self, name: str) -> None:
        if not len(self.score) == len(self.relation) == len(self.true):
            raise ValueError(f"{name}: {len(self.score)} scores, {len(self.relation)} relations, {len(self.true)} labels")
        if np.isnan(self.score).any():
            raise ValueError(f"{name}: {int(np.isnan(self.score).sum())} of {len(self.score)} scores are NaN")


@dataclasses.dataclass(frozen=True, eq=False)
class Classified:
    """How well true triples were told from false ones.

    Attributes:
        accuracy: share of the test triples that were called right.
        precision, recall, f1: of the class "true", over all test triples together (micro); 0 where nothing was called true.
        thresholds: relation → threshold, of the relations that have one of their own.
        fallback: threshold of all others.
        called_true: `bool [n]`, in the order of the test triples.
        correct: `bool [n]`, for paired tests.
        negatives: where the false triples come from.
        by: how the thresholds were chosen.
    """

    accuracy: float
    precision: float
    recall: float
    f1: float
    thresholds: dict[int, float]
    fallback: float
    called_true: np.ndarray
    correct: np.ndarray
    negatives: Negatives
    by: By

    def metrics(self) -> dict[str, float]:
        return {name: getattr(self, name) for name in ("accuracy", "f1", "precision", "recall")}


def best_threshold(score: np.ndarray, true: np.ndarray) -> float:
    """The threshold of the highest accuracy: above it is true.

    It lies midway between two neighbouring scores, or is −inf (all are true) or inf (none is). Of equally good ones the one
    nearest to the middle of the list, then the lower: far from either end it depends least on single triples.
    """
    order = np.argsort(score, kind="stable")
    score, true = np.asarray(score, np.float64)[order], np.asarray(true, bool)[order]
    # With i triples below the threshold: false ones below and true ones above are right.
    right = np.concatenate([[0], np.cumsum(~true)]) + true.sum() - np.concatenate([[0], np.cumsum(true)])
    possible = np.concatenate([[True], score[1:] > score[:-1], [True]]) if len(score) else np.array([True])
    best = np.flatnonzero(possible & (right == right[possible].max()))
    cut = best[np.argmin(np.abs(2 * best - len(score)))]
    if cut in (0, len(score)):
        return -np.inf if cut == 0 else np.inf
    # Half of each, for a sum may overflow; never the upper one itself, which has to be above.
    below, above = score[cut - 1], score[cut]
    return float(min(below / 2 + above / 2, np.nextafter(above, -np.inf))) if np.isfinite(below) else float(below)


def logistic_threshold(score: np.ndarray, true: np.ndarray) -> float:
    """Where a logistic regression of `true` on the score (scikit-learn's, with its default penalty) says 1/2.

    −inf or inf (all or none true, whichever are more) if it finds no higher probability for a higher score.
    """
    from sklearn.linear_model import LogisticRegression  # slow to import

    true = np.asarray(true, bool)
    if true.all() or not true.any():
        return -np.inf if true.all() else np.inf
    found = LogisticRegression().fit(np.asarray(score, np.float64)[:, None], true)
    slope, offset = float(found.coef_[0, 0]), float(found.intercept_[0])
    if slope <= 0:
        return -np.inf if 2 * true.sum() >= len(true) else np.inf
    return -offset / slope


def classify(valid: Labelled, test: Labelled, *, by: By = "relation", negatives: Negatives = "given") -> Classified:
    """Thresholds from `valid`, everything else from `test`.

    Raises:
        ValueError: columns of different length, NaN scores, or no triple at all.
    """
    valid.check("valid")
    test.check("test")
    if not len(valid.score) or not len(test.score):
        raise ValueError(f"triple classification needs triples: {len(valid.score)} of validation, {len(test.score)} of test")
    fallback = logistic_threshold(valid.score, valid.true) if by == "logistic" else best_threshold(valid.score, valid.true)
    relations, row = np.unique(valid.relation, return_inverse=True)
    inside = Ragged.from_pairs(row, np.arange(len(row)), len(relations))
    own = range(len(relations) if by == "relation" else 0)
    thresholds = {int(relations[i]): best_threshold(valid.score[inside[i]], valid.true[inside[i]]) for i in own}
    threshold = np.array([thresholds.get(relation, fallback) for relation in test.relation.tolist()])
    called = test.score > threshold
    called |= threshold == -np.inf  # a score of −inf too
    return decided(called, test.true, thresholds, fallback, negatives, by)


def decided(
    called: np.ndarray,
    true: np.ndarray,
    thresholds: dict[int, float] | None = None,
    fallback: float = -np.inf,
    negatives: Negatives = "given",
    by: By = "relation",
) -> Classified:
    """Of triples called true, `bool [n]`, that are `true`, `bool [n]`; the rest says how they were called."""
    true = np.asarray(true, bool)
    hits, precision, recall = int((called & true).sum()), 0.0, 0.0
    if hits:
        precision, recall = hits / int(called.sum()), hits / int(true.sum())
    return Classified(
        float((called == true).mean()),
        precision,
        recall,
        2 * precision * recall / (precision + recall) if hits else 0.0,
        thresholds or {},
        fallback,
        called,
        called == true,
        negatives,
        by,
    )


# ------------------------------------------------------------------------------------------------------------- negatives
def corrupted(triples: np.ndarray, known: KnownTrue, n_entities: int, seed: int = 0) -> np.ndarray:
    """`int [n, 3]`: each triple with its head or its tail (a coin decides) replaced by a uniformly drawn entity, such that it
    is not `known`. Where every entity would be true there, the other end is replaced.

    Raises:
        ValueError: both ends of a triple are true with every entity.
    """
    triples = np.asarray(triples, np.int64)
    random = np.random.Generator(np.random.Philox(seed))
    found, side = triples.copy(), 2 * random.integers(0, 2, len(triples))
    for again in (False, True):
        for end, index in ((0, known.by_tail), (2, known.by_head)):
            rows = np.flatnonzero((side == end) & (found == triples).all(axis=1))
            list_of = index.rows_of(triples[rows, 2 - end], triples[rows, 1])
            # The k-th entity that is not in the (ascending) list: k plus the number of listed ones up to it.
            own = triples[rows, end]
            for row, answers, same in zip(rows, (index.answers[at] for at in list_of.tolist()), own, strict=True):
                barred = np.unique(np.append(answers, same))
                free = n_entities - len(barred)
                if free:
                    k = random.integers(free)
                    found[row, end] = k + np.searchsorted(barred - np.arange(len(barred)), k, side="right")
        stuck = (found == triples).all(axis=1)
        if not stuck.any():
            return found
        if again:
            break
        side = np.where(stuck, 2 - side, side)
    raise ValueError(f"triple {triples[stuck.argmax()].tolist()} is true with every head and every tail: it has no negative")
