"""Link prediction on graphs too large to rank in full: two kinds of sample, which mean different things.

**A sample of questions** (`rank_some`): some of the test triples, each ranked among *all* entities. Unbiased: what it estimates
is the full evaluation's own number, and only the sampling of triples makes it uncertain. Prefer it: n triples of N cost n / N.

**A sample of candidates** (`rank_among_some`): ranks among m entities drawn uniformly. Such a rank is *not* a rank among all:
if R entities beat the target, about R · m / E of the sample do, so MRR and Hits@k among the sample are far too high and may
even order two models wrongly (Krichene and Rendle, On Sampled Metrics for Item Recommendation, KDD 2020). They stand under
`sampled/…`. The names without it are estimates of the full evaluation: from the numbers X of sampled entities that beat the
targets, which are hypergeometric given R, the distribution of R over all questions is estimated by maximum likelihood (Jin et
al., On Estimating Recommendation Evaluation Metrics under Sampling, AAAI 2021), and the metrics are those of that distribution.
Where m is less than a few E / k, the sample says little about Hits@k (ranks 1 and E / m look alike), and the estimate leans on
where the iteration began. So it begins three times, from few, some and most targets near the top: the interval holds all three.
"""

import dataclasses
import functools
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
from jax import lax

from fusionjax.evaluation.link_prediction import KnownTrue, RankingPlan, TripleScore, checked_triples
from fusionjax.evaluation.metrics import Result

HITS_AT = (1, 3, 10)
LEVEL = 0.95
_GROUPS = 20
_ITERATIONS = 150
_STARTS = (1.0, 0.0, 4.0)
"""Where the iteration begins: probability of a rank as 1 / rank to this power."""


class Estimate(NamedTuple):
    """A number, its standard error and its 95 % interval; from `n` of `population` examples."""

    value: float
    standard_error: float
    low: float
    high: float
    n: int
    population: int


@dataclasses.dataclass(frozen=True, eq=False)
class Sampled:
    """Estimates of the full evaluation.

    `kind`: what was sampled. `estimates`: metric → estimate. `result`: of the sampled questions among all entities; none where
    candidates were sampled.
    """

    kind: Literal["questions", "candidates"]
    estimates: dict[str, Estimate]
    result: Result | None = None


# ------------------------------------------------------------------------------------------------------------- questions
def some_rows(n: int, size: int, seed: int = 0) -> np.ndarray:
    """`size` of n row numbers (all, if there are no more), without repetition, ascending."""
    return np.sort(np.random.Generator(np.random.Philox(seed)).permutation(n)[:size])


def mean_of_sample(values: np.ndarray, population: int) -> Estimate:
    """The mean of a population, from a simple random sample without repetition.

    Standard error s / √n · √(1 − n / N) (Cochran, Sampling Techniques, 1977), interval by Student's t. Values within 0 … 1 have
    intervals within 0 … 1. Of one value the error is NaN; if all values are equal it is 0, which is too bold for a small n.
    """
    values = np.asarray(values, np.float64)
    n = len(values)
    if not 1 <= n <= population:
        raise ValueError(f"a sample of {n} from {population}")
    value = float(values.mean())
    spread = float(values.std(ddof=1)) if n > 1 else float("nan")
    error = 0.0 if n == population else spread / n**0.5 * (1 - n / population) ** 0.5
    return _estimate(value, error, n - 1, n, population, bounded=bool((values >= 0).all() and (values <= 1).all()))


def _estimate(value: float, error: float, freedom: int, n: int, population: int, *, bounded: bool) -> Estimate:
    reach = 0.0 if error == 0 else float(scipy.special.stdtrit(max(freedom, 1), (1 + LEVEL) / 2)) * error
    low, high = value - reach, value + reach
    return Estimate(value, error, max(low, 0.0) if bounded else low, min(high, 1.0) if bounded else high, n, population)


def estimates_of(result: Result, population: int) -> dict[str, Estimate]:
    """Of every metric of a link prediction result on a random sample of `population` triples.

    A triple, with the mean of its two directions, is one example: its two ranks are not independent.
    """
    return {name: mean_of_sample(values, population) for name, values in result.per_example.items()}


def rank_some(
    score_tails: TripleScore,
    score_heads: TripleScore,
    triples: np.ndarray,
    known: KnownTrue,
    n_entities: int,
    *,
    size: int,
    params: Any,
    candidates: Any = None,
    seed: int = 0,
    batch_size: int = 512,
    block: int = 65536,
) -> Sampled:
    """Filtered ranks of `size` of the triples among all entities.

    To do so at every validation, make `RankingPlan.of(triples[some_rows(…)], …)` once, and give its results to `estimates_of`.
    Args as of `evaluate_link_prediction`. Raises `ValueError` as that does.
    """
    rows = some_rows(len(triples), size, seed)
    plan = RankingPlan.of(np.asarray(triples)[rows], known, n_entities, batch_size=batch_size)
    result = plan.evaluate(score_tails, score_heads, params, candidates, block=block)
    assert result.examples is not None
    result = dataclasses.replace(result, examples=dataclasses.replace(result.examples, example=rows))
    return Sampled("questions", estimates_of(result, len(triples)), result)


# ------------------------------------------------------------------------------------------------------------ candidates
@functools.partial(jax.jit, static_argnames="score")
def _beaten(
    score: TripleScore,
    params: Any,
    candidates: Any,
    anchor: jax.Array,
    relation: jax.Array,
    target: jax.Array,
    drawn: jax.Array,
    competes: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """How many of the `drawn [m]` that compete `[b, m]` score higher than each target, how many equally; and where NaN is."""
    chosen = jnp.concatenate([drawn, target])  # targets and rivals in one product, so that equal vectors tie
    part = jax.tree.map(lambda leaf: leaf[chosen], candidates)
    scores = lax.optimization_barrier(score(params, anchor, relation, part).astype(jnp.float32))
    own, rivals = jnp.diagonal(scores[:, len(drawn) :])[:, None], scores[:, : len(drawn)]
    higher, equal = (jnp.sum(competes & found, axis=1) for found in (rivals > own, rivals == own))
    return higher, equal, jnp.isnan(rivals).any(axis=1) | jnp.isnan(own[:, 0])


def rank_among_some(
    score_tails: TripleScore,
    score_heads: TripleScore,
    triples: np.ndarray,
    known: KnownTrue,
    n_entities: int,
    *,
    size: int,
    params: Any,
    candidates: Any = None,
    seed: int = 0,
    batch_size: int = 256,
) -> Sampled:
    """Ranks of all triples, both directions, among `size` entities drawn uniformly without repetition.

    The triples are put in at least 20 random groups (where there are as many), each with candidates of its own: the error is
    the jackknife's over groups, so it holds the luck of the draw of triples and of candidates. Drawn entities that are known
    answers, or the target itself, do not compete.

    Returns:
        Estimates of the full evaluation's `mrr`, `hits@1`, `hits@3`, `hits@10` (maximum likelihood, see above) and `mean_rank`
        (unbiased: 1 + X · E / m on average); and, of ranks among the sample, `sampled/mrr` and so on, which estimate no number
        of the full evaluation.

    Raises:
        ValueError: wrong triples, or fewer than two, a sample larger than the graph, or a NaN score.
    """
    triples = checked_triples(triples, n_entities)
    if not 1 <= size <= n_entities or len(triples) < 2:
        raise ValueError(f"{size} candidates of {n_entities} for {len(triples)} triples")
    table = jnp.arange(n_entities, dtype=jnp.int32) if candidates is None else jax.tree.map(jnp.asarray, candidates)
    random = np.random.Generator(np.random.Philox(seed))
    b = min(batch_size, -(-len(triples) // min(_GROUPS, len(triples))))
    order = random.permutation(len(triples))
    groups = [order[start : start + b] for start in range(0, len(order), b)]
    found, group_of = [], []
    for number, rows in enumerate(groups):
        drawn = np.sort(random.permutation(n_entities)[:size]).astype(np.int32)
        rows_filled = rows[np.arange(b) % len(rows)]
        head, relation, tail = triples[rows_filled].T
        for score, anchor, target, index in (
            (score_tails, head, tail, known.by_head),
            (score_heads, tail, head, known.by_tail),
        ):
            answers = index.answers.take(index.rows_of(anchor, relation))
            place = np.minimum(np.searchsorted(drawn, answers.values), size - 1)
            hit = drawn[place] == answers.values
            competes = drawn[None] != target[:, None]
            competes[answers.rows()[hit], place[hit]] = False
            columns = (jnp.asarray(column) for column in (anchor, relation, target, drawn, competes))
            higher, equal, nan = (np.asarray(part)[: len(rows)] for part in _beaten(score, params, table, *columns))
            if nan.any():
                first = rows[nan.argmax()]
                raise ValueError(
                    f"link_prediction: {int(nan.sum())} of {len(nan)} rows have NaN scores, the first is row {first}"
                )
            found.append(higher + equal / 2)
            group_of.append(np.full(len(rows), number))
    return Sampled("candidates", estimates_from_candidates(np.concatenate(found), np.concatenate(group_of), n_entities, size))


def estimates_from_candidates(above: np.ndarray, group: np.ndarray, n_entities: int, size: int) -> dict[str, Estimate]:
    """Metrics of the full evaluation, from ranks among samples.

    Args:
        above: `[q]`, how many of the `size` drawn entities rank above each question's target (a tie is one half).
        group: `int [q]`, from 0; questions of a group share their candidates.
        n_entities: from how many they were drawn.
    """
    n_groups = int(group.max()) + 1
    low, high = np.floor(above).astype(np.int64), np.ceil(above).astype(np.int64)
    seen, place = np.unique(np.concatenate([low, high]), return_inverse=True)
    counts = np.zeros((len(seen), n_groups))  # a half stands for both neighbours
    np.add.at(counts, (place, np.concatenate([group, group])), 0.5)
    # Column 0 has all groups, column 1 + g all but g.
    counts = np.concatenate([counts.sum(axis=1)[:, None], counts.sum(axis=1)[:, None] - counts], axis=1)
    shares = counts / counts.sum(axis=0)
    ranks = _rank_support(seen, n_entities, size)
    likelihood = _likelihood(seen, ranks - 1, n_entities, size)
    width = np.diff(np.append(ranks, ranks[-1] + 1))
    starts = [width / ranks**power for power in _STARTS]
    fits = [_likeliest(likelihood, shares, start / start.sum(), _ITERATIONS) for start in starts]
    near = 1.0 + seen
    metrics = {"mrr": [(1 / ranks) @ fit for fit in fits]}
    metrics |= {f"hits@{k}": [(ranks <= k) @ fit for fit in fits] for k in HITS_AT}
    metrics |= {"mean_rank": [1 + (seen * n_entities / size) @ shares], "sampled/mrr": [(1 / near) @ shares]}
    metrics |= {f"sampled/hits@{k}": [(near <= k) @ shares] for k in HITS_AT}

    def estimate(values: np.ndarray, bounded: bool) -> Estimate:
        error = float(np.sqrt((n_groups - 1) / n_groups * np.square(values[1:] - values[1:].mean()).sum()))
        error = error if n_groups > 1 else float("nan")
        return _estimate(float(values[0]), error, n_groups - 1, len(above), len(above), bounded=bounded)

    found = {}
    for name, each in metrics.items():
        parts = [estimate(values, name != "mean_rank") for values in each]
        found[name] = parts[0]._replace(low=min(part.low for part in parts), high=max(part.high for part in parts))
    return found


def _rank_support(seen: np.ndarray, n: int, m: int) -> np.ndarray:
    """Ranks a target may have: all up to 32, then each about 6 % above the one before, up to n; and those that the seen numbers
    point at."""
    steps = np.rint(np.geomspace(32, max(n, 33), 1 + max(int(np.log(max(n, 33) / 32) / np.log(1.06)), 1)))
    pointed = 1 + np.rint(seen * n / m)
    return np.unique(np.minimum(np.concatenate([np.arange(1, 32), steps, pointed]), n).astype(np.float64))


def _likelihood(seen: np.ndarray, above: np.ndarray, n: int, m: int) -> np.ndarray:
    """`[x, r]`: how likely a sample of m from n holds `seen [x]` of `above [r]` entities (hypergeometric)."""

    def choose(of: Any, some: Any) -> np.ndarray:
        inside = (some >= 0) & (some <= of)
        of, some = np.broadcast_arrays(of, np.where(inside, some, 0))
        log = scipy.special.gammaln(of + 1) - scipy.special.gammaln(some + 1) - scipy.special.gammaln(of - some + 1)
        return np.where(inside, log, -np.inf)

    x, r = seen[:, None].astype(np.float64), above[None]
    return np.exp(choose(r, x) + choose(n - r, m - x) - choose(np.float64(n), np.float64(m)))


def _likeliest(likelihood: np.ndarray, shares: np.ndarray, start: np.ndarray, iterations: int) -> np.ndarray:
    """`[r, c]`: the distributions that make each column of `shares [x, c]` likeliest, by EM from `start [r]`."""
    found = np.repeat(start[:, None], shares.shape[1], axis=1)
    for _ in range(iterations):
        expected = likelihood @ found
        found = found * (likelihood.T @ np.divide(shares, expected, out=np.zeros_like(shares), where=expected > 0))
        found /= found.sum(axis=0)
    return found
