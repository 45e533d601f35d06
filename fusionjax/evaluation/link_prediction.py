"""Filtered link prediction in both directions (Bordes et al. 2013; ties: see `ranking`)."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fusionjax.evaluation.metrics import Result, mean
from fusionjax.evaluation.ranking import Ragged, Scorer, rank_rows
from fusionjax.evaluation.scores import DIRECTIONS, Examples, Segment, per_example

TripleScore = Callable[[Any, Any, Any, Any], jax.Array]
"""`score(params, anchor [b], relation [b], candidates) -> [b, size]`; the anchor is the head when tails are scored, and the
tail when heads are. Must be one and the same function object at each call, or it compiles anew."""


@dataclasses.dataclass(frozen=True)
class _Index:
    """(anchor, relation) → sorted answers."""

    keys: np.ndarray
    answers: Ragged
    n_relations: int

    @classmethod
    def of(cls, anchor: np.ndarray, relation: np.ndarray, answer: np.ndarray, n_relations: int) -> "_Index":
        keys, row = np.unique(anchor * n_relations + relation, return_inverse=True)
        return cls(keys, Ragged.from_pairs(row, answer, len(keys) + 1).distinct(), n_relations)

    def rows_of(self, anchor: np.ndarray, relation: np.ndarray) -> np.ndarray:
        """The row of `answers` of each pair; the last row, empty, for unknown pairs."""
        wanted = np.asarray(anchor, np.int64) * self.n_relations + np.asarray(relation, np.int64)
        place = np.searchsorted(self.keys, wanted)
        there = (place < len(self.keys)) & (np.asarray(relation) < self.n_relations)
        there[there] = self.keys[place[there]] == wanted[there]
        return np.where(there, place, len(self.keys))


@dataclasses.dataclass(frozen=True)
class KnownTrue:
    """All true triples, of every split: what filtered ranks leave out.

    `by_head` indexes tails by (head, relation), `by_tail` heads by (tail, relation).
    """

    by_head: _Index
    by_tail: _Index

    @classmethod
    def of(cls, *triples: np.ndarray) -> "KnownTrue":
        """From `int [n, 3]` arrays of (head, relation, tail), one or several (train, valid, test)."""
        known = np.concatenate([np.asarray(part, np.int64).reshape(-1, 3) for part in triples])
        head, relation, tail = known.T
        n_relations = int(relation.max(initial=0)) + 1
        return cls(_Index.of(head, relation, tail, n_relations), _Index.of(tail, relation, head, n_relations))

    def tails(self, head: np.ndarray, relation: np.ndarray) -> Ragged:
        """Known tails of each (head, relation)."""
        return self.by_head.answers.take(self.by_head.rows_of(head, relation))

    def heads(self, relation: np.ndarray, tail: np.ndarray) -> Ragged:
        """Known heads of each (relation, tail)."""
        return self.by_tail.answers.take(self.by_tail.rows_of(tail, relation))


@dataclasses.dataclass(frozen=True)
class _AnchoredScore:
    """A `TripleScore` with its queries packed as `ranking` wants them; equal if the function is, so jit finds it again."""

    score: TripleScore

    def __call__(self, queries: Any, candidates: Any) -> jax.Array:
        params, anchor, relation = queries
        return self.score(params, anchor, relation, candidates)


@dataclasses.dataclass(frozen=True)
class _TripleScorer:
    """Device scorer of one direction; rows are positions in the triples."""

    score: _AnchoredScore
    params: Any
    candidates: Any
    anchor: np.ndarray
    relation: np.ndarray

    def batch(self, rows: np.ndarray) -> Any:
        return self.params, jnp.asarray(self.anchor[rows]), jnp.asarray(self.relation[rows])


def evaluate_link_prediction(
    score_tails: TripleScore,
    score_heads: TripleScore,
    triples: np.ndarray,
    known: KnownTrue,
    n_entities: int,
    *,
    params: Any,
    candidates: Any = None,
    batch_size: int = 256,
    block: int = 65536,
) -> Result:
    """Filtered MRR and Hits@k of `triples`, every entity ranked, tails and heads.

    Args:
        score_tails: `(params, head [b], relation [b], candidates) -> [b, size]`.
        score_heads: `(params, tail [b], relation [b], candidates) -> [b, size]`.
        triples: `int [n, 3]` (head, relation, tail) to rank.
        known: true triples of all splits.
        n_entities: number of candidates.
        params: pytree handed to both functions whole (tables, relation vectors).
        candidates: pytree with one row an entity, of which the functions get slices; default: entity numbers `int32 [n]`, with
            which they look up `params` themselves.
        batch_size, block: triples and entities scored at once; bound the memory.

    Returns:
        `mrr`, `hits@1`, `hits@3`, `hits@10` over both directions together, `mrr/tail`, `mrr/head`, `triples`. Per example:
        one entry a triple, the mean of its two directions. Examples: positions in `triples`, with the segment `direction`.
    """
    triples = _checked(triples, n_entities)
    if candidates is None:
        candidates = jnp.arange(n_entities, dtype=jnp.int32)
    head, relation, tail = triples.T
    tails = _TripleScorer(_AnchoredScore(score_tails), params, candidates, head, relation)
    heads = _TripleScorer(_AnchoredScore(score_heads), params, candidates, tail, relation)
    return evaluate_scorers(tails, heads, triples, known, n_entities, batch_size=batch_size, block=block)


def evaluate_scorers(
    tails: Scorer,
    heads: Scorer,
    triples: np.ndarray,
    known: KnownTrue,
    n_entities: int,
    *,
    batch_size: int = 256,
    block: int = 65536,
) -> Result:
    """The same with one `Scorer` a direction, whose rows are positions in `triples` (baselines)."""
    triples = _checked(triples, n_entities)
    head, relation, tail = triples.T
    rows = np.arange(len(triples))
    by_side: dict[str, np.ndarray] = {}
    for side, scorer, anchor, target, index in (
        ("tail", tails, head, tail, known.by_head),
        ("head", heads, tail, head, known.by_tail),
    ):
        by_side[side] = rank_rows(
            scorer,
            rows,
            Ragged(np.arange(len(triples) + 1), target),
            index.answers,
            excluded_row=index.rows_of(anchor, relation),  # copied batch by batch: all lists at once may not fit in memory
            batch_size=batch_size,
            block=block,
            task=f"link_prediction ({side})",
        ).ranks

    ranks = np.stack([by_side[side] for side in DIRECTIONS], axis=1).reshape(-1)
    direction = Segment(DIRECTIONS, np.tile(np.arange(2, dtype=np.int8), len(triples)), of="target")
    examples = Examples(
        "link_prediction", rows, np.arange(len(triples) + 1) * 2, triples[:, [2, 0]].reshape(-1), None, {"direction": direction}
    )
    both = per_example(examples, ranks)
    metrics = {name: mean(values) for name, values in both.items()}
    metrics |= {f"mrr/{side}": mean(per_example(examples, ranks, ("direction", side))["mrr"]) for side in DIRECTIONS}
    metrics["triples"] = float(len(triples))
    return Result(metrics, both, examples=examples, ranks=ranks)


def _checked(triples: np.ndarray, n_entities: int) -> np.ndarray:
    triples = np.asarray(triples, np.int32)
    if triples.ndim != 2 or triples.shape[1] != 3:
        raise ValueError(f"link_prediction: triples have shape {triples.shape}, expected [n, 3]")
    ends = triples[:, [0, 2]]
    if ends.size and not 0 <= ends.min() <= ends.max() < n_entities:
        raise ValueError(f"link_prediction: entities from {ends.min()} to {ends.max()}, expected within 0 … {n_entities - 1}")
    return triples
