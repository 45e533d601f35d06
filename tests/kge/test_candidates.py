"""Scores of queries' own candidates one at a time: the values and gradients of the formula that has all of them at once."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fusionjax.objectives.link_prediction.candidates import score_candidates
from fusionjax.models.scorers import Sizes, make_scorer
from tests.kge.made import normal

E, Q, N = 9, 5, 6
NUMBERS = np.random.Generator(np.random.Philox(3)).integers(0, E, (Q, N)).astype(np.int32)
NUMBERS[:, 1] = NUMBERS[:, 0]  # the same candidate twice in a row, …
NUMBERS[2] = 4  # … one entity alone, and …
NUMBERS[NUMBERS == 7] = 8  # … one that nobody has


def of_query(name: str) -> tuple[Any, Any, Any]:
    """(one candidate's score, context, all candidates' scores by broadcasting) of scorers with a query."""
    scorer = make_scorer(name, Sizes(8, margin=2.0))
    each = lambda query, candidate: scorer.compare_each(query, candidate)  # noqa: E731
    return each, normal(Q, 8, seed=1), lambda query, vectors: scorer.compare_each(query[:, None], vectors)


def of_triple(name: str) -> tuple[Any, Any, Any]:
    """The same of scorers without: sources, relations, and which queries ask for the head."""
    scorer = make_scorer(name, Sizes(8, norm=1, margin=2.0))
    context = normal(Q, 8, seed=1), normal(Q, scorer.relation_width, seed=2), np.array([0, 1, 0, 1, 1], np.float32)

    def direct(context: Any, vectors: Any) -> Any:
        source, relation, side = (part[:, None] for part in context)
        forth, back = scorer.score(source, relation, vectors), scorer.score(vectors, relation, source)
        return jnp.where(side > 0.5, back, forth)

    def each(context: Any, candidate: Any) -> Any:
        return direct(context, candidate[:, None])[:, 0]

    return each, context, direct


CASES = {
    **{name: of_query(name) for name in ("distmult", "transe")},
    **{f"{name} whole": of_triple(name) for name in ("rotate", "pairre", "transe")},
}


@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients_are_those_of_the_formula(case: str) -> None:
    each, context, direct = CASES[case]
    table, weight = normal(E, 8), normal(Q, N, seed=4)

    def ours(context: Any, table: Any) -> Any:
        return score_candidates(each, context, table, NUMBERS)

    def formula(context: Any, table: Any) -> Any:
        return direct(context, table[NUMBERS])

    def with_gradients(of: Any) -> Any:
        pulled = jax.grad(lambda *given: (of(*given) * weight).sum(), argnums=(0, 1))
        return jax.jit(lambda *given: (of(*given), *pulled(*given)))(context, table)

    (scores, of_context, of_table), (expected, to_context, to_table) = with_gradients(ours), with_gradients(formula)
    assert scores.shape == (Q, N)
    np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-5)
    for a, b in zip(jax.tree.leaves(of_context), jax.tree.leaves(to_context), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(of_table, to_table, rtol=1e-4, atol=1e-5)
    assert np.any(np.asarray(of_table)[4]) and not np.any(np.asarray(of_table)[7])
