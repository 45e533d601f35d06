"""Recommendation: every product is ranked for every user, what the user has seen left out."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fusionjax.evaluation.metrics import DEFAULTS, SEGMENTS, Result, coverage, mean, parse, per_example, popularity_segments
from fusionjax.evaluation.ranking import Ragged, Scorer, rank_rows
from fusionjax.evaluation.scores import Examples, Segment


class Cases(NamedTuple):
    """Users to recommend to, one row each.

    `history` is what the user did before, oldest first (repetitions allowed); `targets` what is to be found. The history is
    also what counts as seen, unless `seen` says more.
    """

    history: Ragged
    targets: Ragged
    seen: Ragged | None = None


def evaluate_recommendation(
    scorer: Scorer,
    users: np.ndarray,
    targets: Ragged,
    seen: Ragged | None,
    train_counts: np.ndarray,
    *,
    names: Sequence[str] = DEFAULTS["recommendation"],
    batch_size: int = 256,
    block: int = 65536,
) -> Result:
    """Ranks all products for each user.

    Args:
        scorer: asked for the numbers in `users`; candidates are products.
        users: `int [n]`; `targets` and `seen` have one row for each, at the same position.
        targets: products to be found; users without any are left out. Repetitions count once.
        seen: products never recommended to this user; `None`: all are. A target stays recommendable even if it stands here.
        train_counts: `int [n_products]` number of **training** events of each product: defines the segments
            (`metrics.popularity_segments`) and the size of the catalogue.
        names: of the metrics.
        batch_size, block: users and products scored at once; bound the memory.

    Returns:
        The named metrics, and for each of their cut-offs `coverage@k` (distinct recommended / catalogue); `NAME/SEGMENT` of
        those with a cut-off for `head`, `middle`, `tail`, `cold` over the targets of that segment, still ranked among all
        products, for the users who have any; `users` and `users/SEGMENT`, their numbers. A segment nobody has a target in is
        left out but for its count of 0. Per example: one entry a user. Examples: the numbers in `users`, with the segment
        `popularity` of the targets.
    """
    train_counts = np.asarray(train_counts)
    users = np.asarray(users)
    targets = targets.distinct()
    some = np.flatnonzero(targets.lengths() > 0)
    users, targets = users[some], targets.take(some)
    excluded = None if seen is None else seen.take(some).without(targets)
    ks = sorted({k for name in names if (k := parse(name)[1])})
    top = max(ks, default=0)
    ranked = rank_rows(scorer, users, targets, excluded, batch_size=batch_size, block=block, top=top, task="recommendation")
    codes = popularity_segments(train_counts)[targets.values]
    popularity = {"popularity": Segment(SEGMENTS, codes, of="target")}
    examples = Examples(
        "recommendation", users, targets.offsets, targets.values, segments=popularity, candidates=ranked.candidates
    )
    overall = per_example(examples, ranked.ranks, names=names)
    metrics = {name: mean(values) for name, values in overall.items()}
    metrics |= {f"coverage@{k}": coverage(ranked.top, len(train_counts), k) for k in ks}
    metrics["users"] = float(len(users))
    cut = [name for name in names if parse(name)[1]]
    for code, label in enumerate(SEGMENTS):
        metrics[f"users/{label}"] = float(len(np.unique(targets.rows()[codes == code])))
        if metrics[f"users/{label}"]:
            inside = per_example(examples, ranked.ranks, ("popularity", label), cut)
            metrics |= {f"{name}/{label}": mean(values) for name, values in inside.items()}
    return Result(metrics, overall, examples=examples, ranks=ranked.ranks)
