"""Search: every product is ranked for every judged query; nothing is excluded, unjudged products compete."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fusionjax.evaluation.metrics import DEFAULTS, Result, mean, per_example
from fusionjax.evaluation.ranking import Ragged, Scorer, rank_rows
from fusionjax.evaluation.scores import Examples


class Judged(NamedTuple):
    """Graded judgments as parallel columns: row of the query, row of the product, grade ≥ 0."""

    query: np.ndarray
    product: np.ndarray
    grade: np.ndarray


def evaluate_search(
    scorer: Scorer,
    judged: Judged,
    *,
    names: Sequence[str] = DEFAULTS["search"],
    relevant_grade: float = 1.0,
    batch_size: int = 256,
    block: int = 65536,
) -> Result:
    """Ranks all products for each query that has judgments.

    Args:
        scorer: rows are query numbers as in `judged.query`, candidates are products (`VectorScorer` for vectors).
        judged: the judgments of one split.
        names: of the metrics.
        relevant_grade: grade from which a product counts as relevant for all metrics but NDCG, which uses all grades.
        batch_size, block: queries and products scored at once; bound the memory.

    Returns:
        The named metrics, and `queries`, the number with a relevant product. Per example: one entry a judged query; examples:
        the rows of these queries.

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
    ranked = rank_rows(scorer, queries, targets, batch_size=batch_size, block=block, task="search")

    examples = Examples("search", queries, targets.offsets, targets.values, grade, candidates=ranked.candidates)
    found = per_example(examples, ranked.ranks, names=names, relevant_grade=relevant_grade)
    metrics = {name: mean(values) for name, values in found.items()}
    metrics["queries"] = float(len(np.unique(targets.rows()[grade >= relevant_grade])))
    return Result(metrics, found, examples=examples, ranks=ranked.ranks)
