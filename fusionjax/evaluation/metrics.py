"""Metrics from stored values, in plain NumPy: of ranks, by name and cut-off (`ndcg@10`, `map`, `amri`), and of plain values.

`METRICS` has a line for each metric of ranks, `OUTCOMES` for each of answers that are right or wrong. `per_example` gives a
metric of every example; its mean over examples is what a table shows.

Ranks are realistic ranks (`ranking`), so a tied target may have a half rank. It then counts as within k if its mean rank
is at most k, and is discounted at its mean rank. Where several targets of one query tie across the cut-off this could exceed
what any order reaches, so NDCG is capped at 1.

NDCG comes in two forms: `ndcg@k` with linear gain (gain = grade; trec_eval, Järvelin & Kekäläinen 2002) and `ndcg_exp@k` with
gain 2^grade − 1 (Burges et al. 2005). Both divide by the ideal order of **all** judged products of the query, retrieved or not.

A metric that is undefined for an example (no relevant product, no target in the segment) is NaN there and left out of the mean.

A ratio of sums over examples (F1, precision, the adjusted mean rank index) has no value of a single example; its linearised
values (`linearised`) do as well: their mean is the ratio, their spread that of the delta method.
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, NamedTuple

import numpy as np

from fusionjax.errors import UserError, nearest
from fusionjax.evaluation.ragged import Ragged
from fusionjax.evaluation.scores import CORRECT, Examples, Measure
from fusionjax.registry import Registry, is_dotted

HEAD, MIDDLE, TAIL, COLD = 0, 1, 2, 3
SEGMENTS = ("head", "middle", "tail", "cold")


@dataclasses.dataclass(frozen=True)
class Result:
    """What an evaluation found.

    `metrics`: name → mean, and counts such as `queries`. `per_example`: the arrays behind the means, aligned with
    `examples.example` (NaN = undefined). `settings`: what was chosen on the way (a baseline's hyper-parameters). `examples`:
    what was asked. `ranks`: `float64`, realistic rank of every target, aligned with `examples.target`: with these two,
    `per_example` gives the metrics again, also of any segment. `values`: `float64 [n, m]`, plain values instead of ranks, where
    `examples.measures` are named. `tied`: how many candidates score as high as each
    target, where known: its rank is `ranks - tied / 2` if all ties are won, `ranks + tied / 2` if all are lost.
    """

    metrics: dict[str, float]
    per_example: dict[str, np.ndarray]
    settings: dict[str, float | int | str] = dataclasses.field(default_factory=dict)
    examples: Examples | None = None
    ranks: np.ndarray | None = None
    tied: np.ndarray | None = None
    values: np.ndarray | None = None


def mean(values: np.ndarray) -> float:
    """Mean over the examples for which the metric is defined; NaN if there are none."""
    defined = ~np.isnan(values)
    return float(np.mean(values[defined], dtype=np.float64)) if defined.any() else float("nan")


def _per_row(targets: Ragged, weights: np.ndarray) -> np.ndarray:
    """Sum of a value a target, per row."""
    return np.bincount(targets.rows(), weights=np.asarray(weights, np.float64), minlength=len(targets))


def _divide(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """The quotient, NaN where the denominator is 0."""
    return np.divide(numerator, denominator, out=np.full(len(numerator), np.nan), where=denominator > 0)


def _check(targets: Ragged, ranks: np.ndarray) -> None:
    if len(ranks) != len(targets.values):
        raise ValueError(f"{len(ranks)} ranks for {len(targets.values)} targets")
    if len(ranks) and not ranks.min() >= 1:
        raise ValueError(f"ranks start at 1, not {ranks.min()}")


def reciprocal_rank(targets: Ragged, ranks: np.ndarray) -> np.ndarray:
    """1 / rank of each row's best target; its mean is MRR."""
    _check(targets, ranks)
    best = np.full(len(targets), np.inf)
    np.minimum.at(best, targets.rows(), ranks)
    return np.where(targets.lengths() > 0, 1.0 / best, np.nan)


def hits(targets: Ragged, ranks: np.ndarray, k: int) -> np.ndarray:
    """1 for each row with a target of rank ≤ k, else 0."""
    _check(targets, ranks)
    return np.where(targets.lengths() > 0, (_per_row(targets, ranks <= k) > 0).astype(np.float64), np.nan)


def recall(targets: Ragged, ranks: np.ndarray, k: int) -> np.ndarray:
    """Share of each row's targets with rank ≤ k (the denominator is all targets, also where they are more than k)."""
    _check(targets, ranks)
    return _divide(_per_row(targets, ranks <= k), targets.lengths())


def ndcg(
    targets: Ragged, ranks: np.ndarray, k: int, grades: np.ndarray | None = None, *, exponential: bool = False
) -> np.ndarray:
    """NDCG@k of each row.

    Args:
        targets: the judged products of each row (only its shape is used).
        ranks: rank of each of them among all products.
        k: cut-off of both the ranking and the ideal.
        grades: grade ≥ 0 of each judged product; none: all 1 (binary relevance).
        exponential: gain 2^grade − 1 instead of grade.

    Returns:
        `float64 [rows]`; NaN where no judged product has a positive gain.
    """
    _check(targets, ranks)
    grades = np.ones(len(ranks)) if grades is None else np.asarray(grades, np.float64)
    if len(grades) and not grades.min() >= 0:
        raise ValueError(f"grades must be at least 0, not {grades.min()}")
    gains = np.exp2(grades) - 1.0 if exponential else grades
    rows = targets.rows()
    by_rank = np.lexsort((ranks, rows))  # both sums run down the list, so that the ideal order gives exactly 1
    gained = _per_row(targets, np.where(ranks <= k, gains / np.log2(1.0 + ranks), 0.0)[by_rank])
    best_first = np.lexsort((-gains, rows))  # rows stay together, so position − offset is the place in the ideal order
    place = 1 + np.arange(len(rows)) - np.repeat(targets.offsets[:-1], targets.lengths())
    ideal = _per_row(targets, np.where(place <= k, gains[best_first] / np.log2(1.0 + place), 0.0))
    return np.minimum(_divide(gained, ideal), 1.0)


def coverage(recommended: np.ndarray, n_products: int, k: int) -> float:
    """Share of the catalogue that appears in anyone's first k of `recommended [users, ≥ k]` (−1 = nothing)."""
    shown = recommended[:, :k]
    return len(np.unique(shown[shown >= 0])) / n_products


def popularity_segments(train_counts: np.ndarray) -> np.ndarray:
    """Segment code of each product, from its number of **training** events.

    Products are ordered by count, most popular first (ties by row number). A product is `HEAD` if those before it have
    less than a third of all training events, `MIDDLE` if less than two thirds, else `TAIL`; without any training event `COLD`.
    """
    counts = np.asarray(train_counts, np.int64)
    order = np.argsort(-counts, kind="stable")
    before = np.empty(len(counts), np.int64)
    before[order] = np.cumsum(counts[order]) - counts[order]
    total = counts.sum()
    segments = np.where(3 * before < total, HEAD, np.where(3 * before < 2 * total, MIDDLE, TAIL))
    return np.where(counts == 0, COLD, segments).astype(np.int8)


def average_precision(targets: Ragged, ranks: np.ndarray, k: int | None = None) -> np.ndarray:
    """Mean over each row's targets of the precision at their rank; targets beyond rank k count 0, and at most k are asked for.

    Tied targets may lie below their number, so it is capped at 1.
    """
    _check(targets, ranks)
    rows = targets.rows()
    ordered = ranks[np.lexsort((ranks, rows))]
    place = 1 + np.arange(len(rows)) - np.repeat(targets.offsets[:-1], targets.lengths())
    found = _per_row(targets, np.where(ordered <= (np.inf if k is None else k), place / ordered, 0.0))
    wanted = targets.lengths() if k is None else np.minimum(targets.lengths(), k)
    return np.minimum(_divide(found, wanted), 1.0)


def linearised(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Values of examples whose mean is the ratio of the two sums, `float64 [n]`; 0 where the denominators add up to 0.

    An example's value is the ratio and its influence on it, (numerator − ratio × denominator) / mean denominator. NaN in both
    is an example left out.
    """
    total = mean(denominator)
    if not total > 0:
        return np.where(np.isnan(denominator), np.nan, 0.0)
    ratio = mean(numerator) / total
    return ratio + (numerator - ratio * denominator) / total


# ---------------------------------------------------------------------------------------------------------- metrics by name
class Asked(NamedTuple):
    """Questions with the ranks of their answers, as metrics read them."""

    targets: Ragged
    ranks: np.ndarray
    grades: np.ndarray | None
    """float64 [t] of each target; None: all are relevant."""
    relevant: Ragged
    """The relevant targets alone."""
    first: np.ndarray
    """Their ranks."""
    candidates: np.ndarray | None
    """int64, among how many each of these ranks is; None: not known."""


Compute = Callable[[Asked, int], np.ndarray]
"""(questions, cut-off) -> `float64`, one number a question, NaN where it is undefined; cut-off 0: none."""


@dataclasses.dataclass(frozen=True)
class Metric:
    compute: Compute
    cut_off: Literal["needed", "allowed", "none"]
    higher_is_better: bool = True
    needs_candidates: bool = False
    """Whether it needs `Examples.candidates`, which files of earlier versions lack."""


def _mrr(asked: Asked, k: int) -> np.ndarray:
    values = reciprocal_rank(asked.relevant, asked.first)
    return np.where(values < 1.0 / k, 0.0, values) if k else values


def _mean_rank(asked: Asked, k: int) -> np.ndarray:
    return _divide(_per_row(asked.relevant, asked.first), asked.relevant.lengths())


def _adjusted_mean_rank_index(asked: Asked, k: int) -> np.ndarray:
    """1 − (mean rank − 1) / (its expectation for random scores − 1): 1 is perfect, 0 chance (Berrendorf et al. 2020)."""
    if asked.candidates is None:
        raise ValueError("amri needs the number of candidates of every target; these scores were stored without it")
    there = asked.relevant.lengths() > 0
    beaten_by = np.where(there, _per_row(asked.relevant, asked.first - 1.0), np.nan)
    by_chance = np.where(there, _per_row(asked.relevant, (asked.candidates - 1.0) / 2.0), np.nan)
    return 1.0 - linearised(beaten_by, by_chance)


_OWN: dict[str, Metric] = {
    "mrr": Metric(_mrr, "allowed"),
    "hits": Metric(lambda asked, k: hits(asked.relevant, asked.first, k), "needed"),
    "recall": Metric(lambda asked, k: recall(asked.relevant, asked.first, k), "needed"),
    "precision": Metric(lambda asked, k: recall(asked.relevant, asked.first, k) * asked.relevant.lengths() / k, "needed"),
    "ndcg": Metric(lambda asked, k: ndcg(asked.targets, asked.ranks, k, asked.grades), "needed"),
    "ndcg_exp": Metric(lambda asked, k: ndcg(asked.targets, asked.ranks, k, asked.grades, exponential=True), "needed"),
    "map": Metric(lambda asked, k: average_precision(asked.relevant, asked.first, k or None), "allowed"),
    "mr": Metric(_mean_rank, "none", higher_is_better=False),
    "amri": Metric(_adjusted_mean_rank_index, "none", needs_candidates=True),
}
METRICS: Registry[Metric] = Registry("fusionjax.metrics", Metric, _OWN, instances=True)
"""Metrics of ranks. A new one is a line here, or a `Metric` that is an entry point in the group `fusionjax.metrics`."""

OUTCOMES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "accuracy": lambda correct, label: correct,
    "f1": lambda correct, label: linearised(2 * correct * label, _called(correct, label) + label),
    "precision": lambda correct, label: linearised(correct * label, _called(correct, label)),
    "recall": lambda correct, label: np.where(label == 1.0, correct, np.nan),
}
"""Metrics of answers that are right or wrong (`correct`), with the label 1 or 0 of every example: of the class 1."""

DEFAULTS: dict[str, tuple[str, ...]] = {
    "recommendation": ("mrr", "recall@10", "ndcg@10", "recall@20", "ndcg@20"),
    "search": ("ndcg@10", "ndcg_exp@10", "mrr", "hits@1", "recall@10", "recall@100"),
    "link_prediction": ("mrr", "hits@1", "hits@3", "hits@10"),
}
"""What is computed of ranks where nobody says what."""


def _called(correct: np.ndarray, label: np.ndarray) -> np.ndarray:
    """1 where the answer was the class 1."""
    return np.where(label == 1.0, correct, 1.0 - correct)


def default_names(task: str, measures: Sequence[Measure] = ()) -> tuple[str, ...]:
    """The metrics of a task where nobody says which. Raises `ValueError` if there are none."""
    if measures:
        return tuple(name for one in measures for name in (OUTCOMES if one == CORRECT else (one.name,)))
    if task not in DEFAULTS:
        raise ValueError(f"no metrics are known for task '{task}'")
    return DEFAULTS[task]


def parse(name: str) -> tuple[Metric, int]:
    """Metric of ranks and cut-off (0: none) of `hits@5`, `map`, ….

    Raises:
        UserError: no such metric, or a cut-off missing, impossible or not a whole number from 1.
    """
    base, at, cut = name.partition("@")
    if base not in METRICS and not is_dotted(base):
        raise UserError(f"no metric '{name}'{nearest(name, _shown())}")
    metric = METRICS[base]
    if at and not (cut.isascii() and cut.isdigit() and int(cut) > 0 and str(int(cut)) == cut):
        raise UserError(f"no metric '{name}': its cut-off must be a whole number from 1, such as {base}@10")
    if metric.cut_off != "allowed" and bool(at) != (metric.cut_off == "needed"):
        wanted = f"needs a cut-off, such as {base}@10" if metric.cut_off == "needed" else f"has no cut-off: {base}"
        raise UserError(f"no metric '{name}': it {wanted}")
    return metric, int(cut) if at else 0


def _shown() -> tuple[str, ...]:
    """Names of metrics of ranks as a person would write them; plug-ins' are not imported for that."""
    ours = [f"{name}@10" if metric.cut_off == "needed" else name for name, metric in _OWN.items()]
    return *ours, *(name for name in METRICS.names() if name not in _OWN)


def check_name(task: str, name: str, measures: Sequence[Measure] = ()) -> None:
    """Raises `UserError`, with the nearest name, if the stored values of a task do not give a metric."""
    known = default_names(task, measures) if measures or task in DEFAULTS else ()
    if name in known:
        return
    if measures:
        raise UserError(f"no metric '{name}'{nearest(name, known)}")
    base = name.partition("@")[0]
    if base not in METRICS and not is_dotted(base):
        raise UserError(f"no metric '{name}'{nearest(name, (*known, *(one for one in _shown() if one not in known)))}")
    parse(name)


def higher_is_better(name: str, measures: Sequence[Measure] = ()) -> bool:
    """Whether more is better of a metric, or of what is derived from one (`mrr/tail`)."""
    for one in measures:
        if one.name == name:
            return one.higher_is_better
    base = name.partition("/")[0].partition("@")[0]
    return base not in METRICS or METRICS[base].higher_is_better


# -------------------------------------------------------------------------------------------------------------- of examples
def per_example(
    examples: Examples,
    values: np.ndarray,
    segment: tuple[str, str] | None = None,
    names: Iterable[str] | None = None,
    *,
    relevant_grade: float = 1.0,
) -> dict[str, np.ndarray]:
    """Metrics of every example.

    Args:
        examples: what was asked.
        values: `float64 [t]`, realistic rank of each target among all candidates; or `[n, m]`, plain values.
        segment: (name of a segment, label): only the targets, or only the examples, in it count. Their ranks stay those
            among all candidates.
        names: of the metrics; default: `default_names`.
        relevant_grade: search: grade from which a product counts as relevant, for all but NDCG.

    Returns:
        Metric → `float64 [n]`, NaN where it is undefined (nothing relevant, nothing in the segment). In link prediction, where
        a triple is two questions with one answer each, the mean of those that count.

    Raises:
        ValueError: unknown segment or label; values that do not fit the examples; no names for an unknown task.
        UserError: a metric that there is not.
    """
    values = np.asarray(values, np.float64)
    examples.check(values)
    names = default_names(examples.task, examples.measures) if names is None else tuple(names)
    inside = None if segment is None else examples.inside(*segment)
    if examples.measures:
        return {name: _plain(examples, values, inside, name) for name in names}
    asked = _asked(examples, values, inside, relevant_grade)
    found = {}
    for name in names:
        metric, k = parse(name)
        found[name] = metric.compute(asked, k)
    if examples.task != "link_prediction":
        return found
    rows = examples.ragged().rows() if inside is None else examples.ragged().rows()[inside]
    count = np.bincount(rows, minlength=len(examples))
    return {name: _divide(np.bincount(rows, each, len(examples)), count) for name, each in found.items()}


def _asked(examples: Examples, ranks: np.ndarray, inside: np.ndarray | None, relevant_grade: float) -> Asked:
    targets, grades, candidates = examples.ragged(), examples.grade, examples.candidates
    if inside is not None:
        targets, ranks = _only(targets, inside), ranks[inside]
        grades, candidates = (None if column is None else column[inside] for column in (grades, candidates))
    if examples.task == "link_prediction":
        targets = Ragged(np.arange(len(ranks) + 1), targets.values)
    if grades is None:
        return Asked(targets, ranks, None, targets, ranks, candidates)
    relevant = grades >= relevant_grade
    kept = None if candidates is None else candidates[relevant]
    return Asked(targets, ranks, grades, _only(targets, relevant), ranks[relevant], kept)


def _plain(examples: Examples, values: np.ndarray, inside: np.ndarray | None, name: str) -> np.ndarray:
    check_name(examples.task, name, examples.measures)
    columns = [one.name for one in examples.measures]
    own = values[:, columns.index(name if name in columns else CORRECT.name)]
    own = own if inside is None else np.where(inside, own, np.nan)
    if name in columns:
        return own
    if examples.grade is None:
        raise ValueError(f"{examples.task}: {name} needs the labels of the examples")
    return OUTCOMES[name](own, np.where(np.isnan(own), np.nan, examples.grade))


def _only(targets: Ragged, keep: np.ndarray) -> Ragged:
    """The same rows with only some of their values."""
    return Ragged(np.concatenate([[0], np.cumsum(keep)])[targets.offsets], targets.values[keep])
