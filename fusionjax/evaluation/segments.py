"""Groups of examples and targets: of which users, queries, products and triples a method is better or worse.

| segment | task | of | labels |
| --- | --- | --- | --- |
| popularity | all | target, where it is a product | head, middle, tail, cold (`metrics.popularity_segments`) |
| degree | all | target | 0, then thirds of the targets by the number of training edges at the entity |
| history | recommendation | example | 0–3, 4–7, 8–15, 16+ products before the target |
| language | recommendation: target; search: example | title, query | zh, en, mixed, none |
| query_length | search | example | 1, 2, 3–4, 5+ words |
| query_frequency | search | example | 0, 1–2, 3–9, 10+ training events with a query of the same text |
| seen | link_prediction | target | seen, unseen: has a training triple or none (inductive) |
| direction | link_prediction | target | tail, head: what is asked for |
| relation | link_prediction | example | each relation that occurs |
| relation_category | link_prediction | example | 1-1, 1-N, N-1, N-N (Bordes et al. 2013) |

Degrees and counts are those of the training data in the inputs given. Where `data.controls` changes these, give
`Inputs.uncontrolled()`, as `tasks.Evaluator.scores` does: the targets are the same, so the codes fit.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Literal

import numpy as np

from fusionjax.data.inputs import Inputs
from fusionjax.data.shop import TEST, TRAIN
from fusionjax.data.text import LANGUAGES, language, words
from fusionjax.evaluation.metrics import SEGMENTS as POPULARITY
from fusionjax.evaluation.metrics import popularity_segments
from fusionjax.evaluation.scores import DIRECTIONS, Examples, Segment
from fusionjax.registry import Registry

HISTORY = (0, 4, 8, 16)
QUERY_LENGTH = (1, 2, 3, 5)
QUERY_FREQUENCY = (0, 1, 3, 10)
SEEN = ("seen", "unseen")
CATEGORIES = ("1-1", "1-N", "N-1", "N-N")
MANY = 1.5
"""A relation has many tails (heads) from this mean number per head (tail) on (Bordes et al. 2013)."""


def segments_of(
    examples: Examples,
    inputs: Inputs,
    split: int = TEST,
    names: Iterable[str] | None = None,
    more: Iterable[str] = (),
) -> dict[str, Segment]:
    """The segments of an evaluation's examples, aligned with them.

    Args:
        examples: of one task; `example` and `target` number the rows of `inputs`.
        inputs: what the model was measured on.
        split: whose examples they are.
        names: which; default: all.
        more: plug-ins', as task/name.

    Returns:
        Name → segment, only those that mean something for this task and these data (no `query_frequency` where no training
        event has one of the queries).
    """
    ours = {key.partition("/")[2]: SEGMENTS[key] for key in SEGMENTS if key.partition("/")[0] == examples.task}
    makers = ours | {key.partition("/")[2]: SEGMENTS[key] for key in more}
    wanted = set(makers if names is None else names)
    found = {name: make(examples, inputs, split) for name, make in makers.items() if name in wanted}
    return {name: segment for name, segment in found.items() if segment is not None}


# ----------------------------------------------------------------------------------------------------------------- bins
def _bins(values: np.ndarray, starts: tuple[int, ...], of: Literal["example", "target"]) -> Segment:
    """Whole numbers in bins that begin at `starts` (ascending); smaller ones are in none."""
    stops = [*(start - 1 for start in starts[1:]), None]
    labels = tuple(_span(start, stop) for start, stop in zip(starts, stops, strict=True))
    return Segment(labels, (np.searchsorted(starts, values, side="right") - 1).astype(np.int8), of)


def _span(start: int, stop: int | None) -> str:
    return f"{start}+" if stop is None else f"{start}" if start == stop else f"{start}–{stop}"


def thirds(values: np.ndarray) -> tuple[int, ...]:
    """Starts of bins of counts ≥ 0: 0 alone, then three with about a third of the positive values each.

    Equal values share a bin, so where many are equal there are fewer bins.
    """
    positive = np.sort(values[values > 0])
    if not len(positive):
        return (0,)
    cuts = {int(positive[len(positive) * part // 3 - 1]) + 1 for part in (1, 2) if len(positive) * part // 3}
    return (0, *sorted({1} | {cut for cut in cuts if cut <= positive[-1]}))


# ------------------------------------------------------------------------------------------------------------- all tasks
def _popularity(examples: Examples, inputs: Inputs, split: int) -> Segment | None:
    if inputs.sequences is None:
        return None
    codes = np.append(popularity_segments(inputs.train_counts), np.int8(-1))  # the last stands for entities without events
    return Segment(POPULARITY, codes[np.minimum(examples.target, inputs.n_products)], of="target")


def _degree(examples: Examples, inputs: Inputs, split: int) -> Segment:
    train = inputs.graph.triples(TRAIN)
    degree = np.bincount(train[:, [0, 2]].reshape(-1), minlength=len(inputs.graph.entities))[examples.target]
    return _bins(degree, thirds(degree), of="target")


def _seen(examples: Examples, inputs: Inputs, split: int) -> Segment | None:
    """None where every answer has a training triple."""
    return seen_segment(examples, inputs.graph.triples(TRAIN), len(inputs.graph.entities))


def seen_segment(examples: Examples, train: np.ndarray, n_entities: int) -> Segment | None:
    """Whether each answer occurs in `train [n, 3]`; None where every one does."""
    known = np.zeros(n_entities, bool)
    known[train[:, [0, 2]].reshape(-1)] = True
    codes = (~known[examples.target]).astype(np.int8)
    return Segment(SEEN, codes, of="target") if codes.any() else None


# -------------------------------------------------------------------------------------------------------- recommendation
def _history(examples: Examples, inputs: Inputs, split: int) -> Segment:
    sequences = inputs.sequences
    assert sequences is not None
    user_of = np.repeat(np.arange(len(sequences.offsets) - 1), np.diff(sequences.offsets))
    lengths = np.bincount(user_of[sequences.split < split], minlength=len(sequences.offsets) - 1)
    return _bins(lengths[examples.example], HISTORY, of="example")


def _title_language(examples: Examples, inputs: Inputs, split: int) -> Segment:
    return _languages(inputs.shop.products.title, examples.target, of="target")


def _languages(texts: np.ndarray, rows: np.ndarray, of: Literal["example", "target"]) -> Segment:
    asked, place = np.unique(rows, return_inverse=True)
    codes = np.fromiter((LANGUAGES.index(language(str(texts[row]))) for row in asked), np.int8, len(asked))
    return Segment(LANGUAGES, codes[place], of)


# ---------------------------------------------------------------------------------------------------------------- search
def count_words(text: str) -> int:
    """Words of a query. Chinese, Japanese and Korean are written without spaces between words of about two characters: a run
    of n of them counts n / 2, rounded up."""
    return sum((len(cjk) + 1) // 2 if cjk else 1 for cjk, _ in words(text))


def _query_language(examples: Examples, inputs: Inputs, split: int) -> Segment:
    return _languages(inputs.shop.queries.text, examples.example, of="example")


def _query_length(examples: Examples, inputs: Inputs, split: int) -> Segment:
    counts = np.array([count_words(text) for text in inputs.shop.queries.text[examples.example]], np.int64)
    return _bins(counts, QUERY_LENGTH, of="example")


def _query_frequency(examples: Examples, inputs: Inputs, split: int) -> Segment | None:
    """Counted in the events, not in `inputs.positives`: a query held out teaches nothing, so there it never occurs. None where
    the log has none of these queries at all (in the demo shop by design)."""
    events = inputs.shop.events
    asked = events.query[(events.split == TRAIN) & (events.query >= 0)] if events is not None else np.empty(0, np.int32)
    texts = [text.strip().casefold() for text in inputs.shop.queries.text]
    count: Counter[str] = Counter()
    for row, of_row in enumerate(np.bincount(asked, minlength=len(texts)).tolist()):
        count[texts[row]] += of_row
    times = np.array([count[texts[row]] for row in examples.example], np.int64)
    return _bins(times, QUERY_FREQUENCY, of="example") if times.any() else None


# ------------------------------------------------------------------------------------------------------- link prediction
def _direction(examples: Examples, inputs: Inputs, split: int) -> Segment:
    return Segment(DIRECTIONS, np.tile(np.arange(2, dtype=np.int8), len(examples)), of="target")


def _relation(examples: Examples, inputs: Inputs, split: int) -> Segment:
    rows, codes = np.unique(_relation_rows(examples, inputs, split), return_inverse=True)
    return Segment(tuple(inputs.graph.relations[row] for row in rows), codes.astype(np.int16), of="example")


def _relation_category(examples: Examples, inputs: Inputs, split: int) -> Segment:
    """Relations without a training triple have none."""
    head, relation, tail = inputs.graph.triples(TRAIN).astype(np.int64).T
    n = len(inputs.graph.relations)
    triples = np.bincount(relation, minlength=n)
    heads, tails = (np.bincount(np.unique(relation << 32 | ends) >> 32, minlength=n) for ends in (head, tail))
    many_heads, many_tails = triples >= MANY * tails, triples >= MANY * heads
    codes = np.where(triples > 0, 2 * many_heads + many_tails, -1).astype(np.int8)
    return Segment(CATEGORIES, codes[_relation_rows(examples, inputs, split)], of="example")


def _relation_rows(examples: Examples, inputs: Inputs, split: int) -> np.ndarray:
    return inputs.graph.relation[inputs.graph.split == split][examples.example]


Maker = Callable[[Examples, Inputs, int], Segment | None]
"""(examples, inputs, split) -> their segment, or None where it means nothing for these data."""
_MAKERS: dict[str, dict[str, Maker]] = {
    "recommendation": {"popularity": _popularity, "degree": _degree, "history": _history, "language": _title_language},
    "search": {
        "popularity": _popularity,
        "degree": _degree,
        "query_length": _query_length,
        "query_frequency": _query_frequency,
        "language": _query_language,
    },
    "link_prediction": {
        "seen": _seen,
        "direction": _direction,
        "relation": _relation,
        "relation_category": _relation_category,
        "degree": _degree,
        "popularity": _popularity,
    },
}
SEGMENTS: Registry[Maker] = Registry(
    "fusionjax.segments",
    Callable,
    {f"{task}/{name}": make for task, makers in _MAKERS.items() for name, make in makers.items()},
    instances=True,
)
"""Task/name → maker."""
