"""Search: products are ranked for the judged queries of a split."""

import dataclasses

import numpy as np

from fusionjax.baselines import Catalogue, measure_baselines, tuning_sample
from fusionjax.baselines.base import TUNE_MOST_PRODUCTS
from fusionjax.data.inputs import Inputs, texts_read
from fusionjax.data.shop import TEST, VALID
from fusionjax.evaluation.metrics import Result
from fusionjax.evaluation.ranking import Scorer, VectorScorer
from fusionjax.evaluation.search import Judged, evaluate_search
from fusionjax.tasks.base import Data, Shown, Task, sample
from fusionjax.tasks.predictor import Predictor


@dataclasses.dataclass(frozen=True)
class JudgedQueries:
    judged: Judged
    rows: np.ndarray
    """int [q]: the queries that have judgments."""
    names: tuple[str, ...]
    size: dict[str, int]

    def rank(self, scorer: Scorer) -> Result:
        """Of a scorer whose rows are query numbers."""
        return evaluate_search(scorer, self.judged, names=self.names, **self.size)


@dataclasses.dataclass(frozen=True)
class QueryExample:
    """A test query and the products returned for it, best first."""

    text: str
    results: list[Shown]


class Search(Task[JudgedQueries]):
    name = "search"
    objective = "query_product"
    main = "ndcg@10"
    parts = ("queries", "judgments", "products")
    segments = ("popularity", "degree", "query_length", "query_frequency", "language")

    def count(self, data: Data, split: int) -> int:
        shop = data.inputs.shop
        return int((shop.judgments.split == split).sum()) if shop.has(*self.parts) else 0

    def examples(self, data: Data, split: int) -> JudgedQueries:
        judged = judged_queries(data.inputs, split, data.most(split))
        return JudgedQueries(judged, np.unique(judged.query), self.names(data.config), data.size)

    def measure(self, predictor: Predictor, examples: JudgedQueries) -> Result:
        found, products = predictor.queries(examples.rows), predictor.unit_products()
        vectors = np.zeros((int(examples.rows.max(initial=-1)) + 1, products.shape[1]), np.float32)
        vectors[examples.rows] = found
        return examples.rank(VectorScorer(vectors, products))

    def baselines(self, data: Data, test: JudgedQueries) -> dict[str, Result]:
        inputs = data.inputs
        known = Catalogue(
            inputs.n_products,
            texts_read(inputs, data.config),
            inputs.train_counts if inputs.sequences is not None else None,
            list(inputs.shop.queries.text),
        )
        valid = judged_queries(inputs, VALID, data.most(VALID))
        tuned_on = None
        if len(valid.query) and inputs.n_products <= TUNE_MOST_PRODUCTS:
            queries = np.unique(valid.query)
            keep = np.isin(valid.query, queries[tuning_sample(len(queries))])
            tuned_on = dataclasses.replace(test, judged=Judged(*(column[keep] for column in valid)))
        more = data.more_baselines(self.name)
        return measure_baselines(self.name, known, lambda scorer, on: on.rank(scorer), test, tuned_on, self.main, more=more)

    def show(self, predictor: Predictor, data: Data, most: int = 6, k: int = 5) -> list[QueryExample]:
        shop, judged = data.inputs.shop, judged_queries(data.inputs, TEST)
        grades = {(query, product): grade for query, product, grade in zip(*judged, strict=True)}
        rows = sample(np.unique(judged.query), most)
        found = []
        for query, vector in zip(rows, predictor.queries(rows), strict=True):
            scores = predictor.unit_products() @ vector
            hits = []
            for row in np.argsort(-scores, kind="stable")[:k]:
                title = str(shop.products.title[row] or shop.products.id[row])
                hits.append(Shown(title, float(scores[row]), _grade(grades.get((query, row)))))
            found.append(QueryExample(str(shop.queries.text[query]), hits))
        return found


def judged_queries(inputs: Inputs, split: int, most: int = 0) -> Judged:
    """Judgments of a split, of at most `most` queries."""
    judgments = inputs.shop.judgments
    rows = np.flatnonzero(judgments.split == split)
    queries = sample(np.unique(judgments.query[rows]), most)
    rows = rows[np.isin(judgments.query[rows], queries)]
    return Judged(judgments.query[rows], judgments.product[rows], judgments.grade[rows])


def _grade(grade: float | None) -> str:
    return "not judged" if grade is None else f"grade {grade:g}"
