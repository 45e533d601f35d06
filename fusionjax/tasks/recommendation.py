"""Recommendation: products are ranked for the users who do something in a split, by what they did before."""

import dataclasses

import numpy as np

from fusionjax.baselines import Catalogue, measure_baselines, tuning_sample
from fusionjax.baselines.base import TUNE_MOST_PRODUCTS
from fusionjax.config import schema
from fusionjax.data.batches import train_rows
from fusionjax.data.inputs import Inputs, Sequences, texts_read
from fusionjax.data.shop import TEST, VALID
from fusionjax.evaluation.metrics import Result
from fusionjax.evaluation.ranking import Ragged, Scorer, VectorScorer
from fusionjax.evaluation.recommendation import evaluate_recommendation
from fusionjax.tasks.base import Data, Shown, Task, numbered, sample
from fusionjax.tasks.predictor import Predictor


@dataclasses.dataclass(frozen=True)
class RecommendationCases:
    """Users with a target: `user[i]` did `history[i]` before event row `before[i]`, wants `targets[i]`, has `seen[i]`.

    `seen` is the whole history; `history` what `data.controls.events_share` leaves of it to be read.
    """

    user: np.ndarray
    before: np.ndarray
    history: Ragged
    targets: Ragged
    seen: Ragged

    def take(self, rows: np.ndarray) -> "RecommendationCases":
        ragged = (part.take(rows) for part in (self.history, self.targets, self.seen))
        return RecommendationCases(self.user[rows], self.before[rows], *ragged)


@dataclasses.dataclass(frozen=True)
class UsersToServe:
    cases: RecommendationCases
    exclude_seen: bool
    counts: np.ndarray
    """int64 [n_products]: training events, which say what is popular."""
    names: tuple[str, ...]
    size: dict[str, int]

    @property
    def history(self) -> Ragged:
        return self.cases.history

    def rank(self, scorer: Scorer) -> Result:
        """Of a scorer whose rows are positions among the cases."""
        cases, seen = self.cases, self.cases.seen if self.exclude_seen else None
        rows = np.arange(len(cases.user))
        found = evaluate_recommendation(scorer, rows, cases.targets, seen, self.counts, names=self.names, **self.size)
        return numbered(found, cases.user)


@dataclasses.dataclass(frozen=True)
class UserExample:
    """A test user: titles of the recent history, oldest first, what was recommended, what was really taken next."""

    user: str
    history: list[str]
    results: list[Shown]
    taken: list[str]


class Recommendation(Task[UsersToServe]):
    name = "recommendation"
    objective = "next_product"
    main = "ndcg@10"
    parts = ("products", "users", "events")
    segments = ("popularity", "degree", "history", "language")

    def count(self, data: Data, split: int) -> int:
        if data.inputs.sequences is None:
            return 0
        return len(recommendation_cases(data.inputs, split, data.config.evaluation).user)

    def examples(self, data: Data, split: int) -> UsersToServe:
        return self._prepared(data, recommendation_cases(data.inputs, split, data.config.evaluation, data.most(split)))

    def _prepared(self, data: Data, cases: RecommendationCases) -> UsersToServe:
        exclude_seen, counts = data.config.evaluation.exclude_seen, data.inputs.real.train_counts
        return UsersToServe(cases, exclude_seen, counts, self.names(data.config), data.size)

    def measure(self, predictor: Predictor, examples: UsersToServe) -> Result:
        users = predictor.users(examples.cases.user, examples.cases.before)
        return examples.rank(VectorScorer(users, predictor.unit_products()))

    def baselines(self, data: Data, test: UsersToServe) -> dict[str, Result]:
        inputs = data.inputs
        assert inputs.sequences is not None
        train = train_rows(inputs.sequences)
        known = Catalogue(
            inputs.n_products,
            texts_read(inputs, data.config),
            inputs.train_counts,
            histories=Ragged(train.offsets, train.product),
        )
        valid = recommendation_cases(inputs, VALID, data.config.evaluation)
        tuned_on = None
        if len(valid.user) and inputs.n_products <= TUNE_MOST_PRODUCTS:
            tuned_on = self._prepared(data, valid.take(tuning_sample(len(valid.user))))
        more = data.more_baselines(self.name)
        return measure_baselines(self.name, known, lambda scorer, on: on.rank(scorer), test, tuned_on, self.main, more=more)

    def show(self, predictor: Predictor, data: Data, most: int = 6, k: int = 5) -> list[UserExample]:
        shop, evaluation = data.inputs.shop, data.config.evaluation
        cases = recommendation_cases(data.inputs, TEST, evaluation)
        cases = cases.take(sample(np.arange(len(cases.user)), most))

        def title(row: int) -> str:
            return shop.products.title[row] or shop.products.id[row]

        found = []
        for place, vector in enumerate(predictor.users(cases.user, cases.before)):
            history, taken = cases.history[place], set(cases.targets[place].tolist())
            scores = predictor.unit_products() @ vector
            if evaluation.exclude_seen:
                scores[history] = -np.inf
            best = np.argsort(-scores, kind="stable")[:k]
            shown = [Shown(title(row), float(scores[row]), "taken" if row in taken else "") for row in best]
            user = str(shop.users.id[cases.user[place]])
            found.append(UserExample(user, [title(row) for row in history[-k:]], shown, [title(row) for row in sorted(taken)]))
        return found


def recommendation_cases(inputs: Inputs, split: int, config: schema.Evaluation, most: int = 0) -> RecommendationCases:
    """Users with events in `split`, their history being every event of an earlier split.

    With `exclude_seen` only products new to the user are to be found, for the others are never recommended.
    """
    sequences, real = inputs.sequences, inputs.real.sequences
    assert sequences is not None and real is not None
    history = _events_where(sequences, sequences.split < split)
    seen = history if real is sequences else _events_where(real, real.split < split)
    targets = _events_where(real, real.split == split).distinct()
    if config.exclude_seen:
        targets = targets.without(seen)
    before = sequences.offsets[:-1] + history.lengths()
    user = sample(np.flatnonzero(targets.lengths() > 0), most)
    return RecommendationCases(user, before[user], history.take(user), targets.take(user), seen.take(user))


def _events_where(sequences: Sequences, rows: np.ndarray) -> Ragged:
    """Each user's products in these rows, oldest first, repetitions kept: baselines weigh the latest products more."""
    n_users = len(sequences.offsets) - 1
    user_of = np.repeat(np.arange(n_users), np.diff(sequences.offsets))
    return Ragged.from_pairs(user_of[rows], sequences.product[rows], n_users)
