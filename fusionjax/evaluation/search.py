"""Search: every product is ranked for every judged query; nothing is excluded, unjudged products compete."""

from typing import NamedTuple

import numpy as np

from fusionjax.evaluation.metrics import Result, hits, mean, ndcg, recall, reciprocal_rank
from fusionjax.evaluation.ranking import Ragged, Scorer, rank_rows


class Judged(NamedTuple):
    """Graded judgments as parallel columns: row of the query, row of the product, grade ≥ 0."""

    query: np.ndarray
    product: np.ndarray
    grade: np.ndarray


def evaluate_search(
    scorer: Scorer,
    judged: Judged,
    *,
    relevant_grade: float = 1.0,
    batch_size: int = 256,
    block: int = 65536,
) -> Result:
    """Ranks all products for each query that has judgments.

    Args:
        scorer: rows are query numbers as in `judged.query`, candidates are products (`VectorScorer` for vectors).
        judged: the judgments of one split.
        relevant_grade: grade from which a product counts as relevant for `mrr`, `hits` and `recall`; NDCG uses all grades.
        batch_size, block: queries and products scored at once; bound the memory.

    Returns:
        `ndcg@10` (linear gain), `ndcg_exp@10` (2^grade − 1), both against the ideal over all judged products; `mrr` (of the
        first relevant product, no cut-off); `hits@1`, `recall@10`, `recall@100` (of all relevant judged products); `queries`,
        the number with a relevant product. Per example: one entry a judged query, `query` its row.

    Raises:
        ValueError: columns differ in length, a product is judged twice for one query, a negative grade, NaN scores.
    """
    query, product = np.asarray(judged.query, np.int64), np.asarray(judged.product, np.int64)
    grade = np.asarray(judged.grade, np.float64)
    if not len(query) == len(product) == len(grade):
        raise ValueError(f"search: {len(query)} queries, {len(product)} products and {len(grade)} grades")
    repeated = len(query) - len(np.unique(np.stack([query, product], axis=1), axis=0))
    if repeated:
        raise ValueError(f"search: {repeated} of {len(query)} judgments repeat a query-product pair")

    queries, row = np.unique(query, return_inverse=True)
    order = np.argsort(row, kind="stable")
    targets, grade = Ragged.from_pairs(row, product, len(queries)), grade[order]
    ranks = rank_rows(scorer, queries, targets, batch_size=batch_size, block=block, task="search").ranks

    relevant = grade >= relevant_grade
    positives = Ragged.from_pairs(targets.rows()[relevant], targets.values[relevant], len(queries))
    found = ranks[relevant]
    per_example = {
        "ndcg@10": ndcg(targets, ranks, 10, grade),
        "ndcg_exp@10": ndcg(targets, ranks, 10, grade, exponential=True),
        "mrr": reciprocal_rank(positives, found),
        "hits@1": hits(positives, found, 1),
        "recall@10": recall(positives, found, 10),
        "recall@100": recall(positives, found, 100),
    }
    metrics = {name: mean(values) for name, values in per_example.items()}
    metrics["queries"] = float((positives.lengths() > 0).sum())
    return Result(metrics, per_example | {"query": queries})
