"""Filtered link prediction in both directions (Bordes et al. 2013; ties: see `ranking`)."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fusionjax.evaluation import counting
from fusionjax.evaluation.metrics import DEFAULTS, Result, mean, per_example
from fusionjax.evaluation.ragged import Ragged
from fusionjax.evaluation.ranking import Counts, Plan, Scorer, competing, rank_rows
from fusionjax.evaluation.scores import DIRECTIONS, Examples, Segment

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


_ANSWERS = 4
"""Answers to one question ranked by one row of scores."""


class _Side(NamedTuple):
    """One direction of a `RankingPlan`: its different questions, several triples' answers to each."""

    plan: Plan
    anchor: list[jax.Array]
    relation: list[jax.Array]
    """int32 [b] of every batch, on the device."""
    triple: np.ndarray
    """The triple of each of `plan.targets.values`."""
    first: np.ndarray
    """The first triple of each question: its name in an error."""


@dataclasses.dataclass(frozen=True, eq=False)
class RankingPlan:
    """All that filtered ranks of a list of triples need and that does not depend on the model: make it once, rank at every
    validation.

        plan = RankingPlan.of(valid, known, n_entities)
        counts = plan.ranks(score_tails, score_heads, params, candidates)   # Counts: int32 [n, 2], (tail, head)
        counts.realistic, counts.optimistic, counts.pessimistic             # float64 [n, 2], ranks from 1
        result = plan.evaluate(score_tails, score_heads, params, candidates)  # as `evaluate_link_prediction`
        counts = plan.ranks_of_stacked(score_tails, score_heads, stacked, stacked_candidates)  # int32 [S, n, 2]

    Triples that ask the same, (head, relation, ?) or (?, relation, tail), share one row of scores. The known answers of all
    questions lie on the device (4 bytes each; from 2^24 on in parts, one after the other). A scoring function is compiled once
    for each direction, and again where another plan has batches of another size. The plan may be used by several threads.
    """

    triples: np.ndarray
    n_entities: int
    sides: tuple[_Side, _Side]
    """Tails, heads."""
    candidates: np.ndarray
    """int64 [n, 2]: among how many entities each tail and head is ranked."""

    @classmethod
    def of(cls, triples: np.ndarray, known: KnownTrue, n_entities: int, *, batch_size: int = 512) -> "RankingPlan":
        """A plan to rank `triples [n, 3]` (head, relation, tail).

        Args:
            known: true triples of all splits.
            n_entities: number of candidates.
            batch_size: questions at once at most; with `block` of `ranks` it bounds the memory.

        Raises:
            ValueError: triples of another shape, or an entity that does not exist.
        """
        triples = checked_triples(triples, n_entities)
        head, relation, tail = triples.T
        sides, candidates, each = [], [], np.arange(len(triples) + 1)
        for side, anchor, target, index in (("tail", head, tail, known.by_head), ("head", tail, head, known.by_tail)):
            _, question = np.unique(relation.astype(np.int64) * n_entities + anchor, return_inverse=True)
            triple = np.argsort(question, kind="stable")
            # A question of many answers is cut: a batch takes as long as its longest row.
            place = np.arange(len(triple)) - np.searchsorted(question[triple], question[triple])
            piece = np.empty_like(question)
            piece[triple] = place // _ANSWERS
            keys, first, question = np.unique(question * len(triple) + piece, return_index=True, return_inverse=True)
            plan = Plan.of(
                Ragged.from_pairs(question, target, len(keys)),
                index.answers,
                n_entities,
                excluded_row=index.rows_of(anchor[first], relation[first]),
                batch_size=batch_size,
                task=f"link_prediction ({side})",
            )
            asked = [first[batch.positions] for batch in plan.batches]
            anchors, relations = ([jnp.asarray(column[rows]) for rows in asked] for column in (anchor, relation))
            sides.append(_Side(plan, anchors, relations, triple, first))
            candidates.append(competing(Ragged(each, target), index.answers, n_entities, index.rows_of(anchor, relation)))
        return cls(triples, n_entities, (sides[0], sides[1]), np.stack(candidates, axis=1))

    def ranks(
        self, score_tails: TripleScore, score_heads: TripleScore, params: Any, candidates: Any = None, *, block: int = 65536
    ) -> Counts:
        """Rivals of every triple's tail and head, `int32 [n, 2]`. Args and errors: see `evaluate_link_prediction`."""
        return self._counts((score_tails, score_heads), params, candidates, block, stacked=False)

    def ranks_of_stacked(
        self, score_tails: TripleScore, score_heads: TripleScore, params: Any, candidates: Any = None, *, block: int = 65536
    ) -> Counts:
        """`ranks` of S models, one after the other in one program: `int32 [S, n, 2]`.

        Args:
            params, candidates: every leaf with a leading axis of S.
        """
        return self._counts((score_tails, score_heads), params, candidates, block, stacked=True)

    def _counts(
        self, scores: tuple[TripleScore, TripleScore], params: Any, candidates: Any, block: int, stacked: bool
    ) -> Counts:
        leading = jax.tree.leaves(params)[0].shape[:1] if stacked else ()
        if candidates is None:
            candidates = jnp.arange(self.n_entities, dtype=jnp.int32)
            candidates = jnp.broadcast_to(candidates, (*leading, self.n_entities))
        candidates = jax.tree.map(jnp.asarray, candidates)
        lengths = {leaf.shape[len(leading)] for leaf in jax.tree.leaves(candidates)} - {self.n_entities}
        if lengths:
            raise ValueError(f"link_prediction: candidates have {min(lengths)} rows for {self.n_entities} entities")
        shape = (*leading, len(self.triples), 2)
        counts = Counts(np.zeros(shape, np.int32), np.zeros(shape, np.int32))
        for side, (direction, score) in enumerate(zip(self.sides, scores, strict=True)):

            def asked(i: int, _: np.ndarray, direction: _Side = direction) -> Any:
                question = direction.anchor[i], direction.relation[i]
                return (params, question) if stacked else (params, *question)

            batches = direction.plan.run(
                _AnchoredScore(score),
                asked,
                candidates,
                direction.first,
                block=block,
                count=counting.count_stacked if stacked else counting.count,
            )
            for batch, counted, _ in batches:
                place, j, column = direction.plan.flat(batch)
                for total, part in zip(counts, counted, strict=False):
                    total[..., direction.triple[place], side] = part[..., j, column]
        return counts

    def evaluate(
        self,
        score_tails: TripleScore,
        score_heads: TripleScore,
        params: Any,
        candidates: Any = None,
        *,
        names: Sequence[str] = DEFAULTS["link_prediction"],
        block: int = 65536,
    ) -> Result:
        """What `evaluate_link_prediction` returns."""
        return self.result(self.ranks(score_tails, score_heads, params, candidates, block=block), names)

    def result(self, counts: Counts, names: Sequence[str] = DEFAULTS["link_prediction"]) -> Result:
        """Metrics of counts `[n, 2]` (of one model)."""
        return result_of(self.triples, counts, self.candidates, names)


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
        batch_size, block: questions and entities scored at once; bound the memory.

    Returns:
        See `result_of`.

    Raises:
        ValueError: wrong triples, a wrong number of candidates, or a NaN score.
    """
    plan = RankingPlan.of(triples, known, n_entities, batch_size=batch_size)
    return plan.evaluate(score_tails, score_heads, params, candidates, block=block)


def evaluate_scorers(
    tails: Scorer,
    heads: Scorer,
    triples: np.ndarray,
    known: KnownTrue,
    n_entities: int,
    *,
    names: Sequence[str] = DEFAULTS["link_prediction"],
    batch_size: int = 256,
    block: int = 65536,
) -> Result:
    """The same with one `Scorer` a direction, whose rows are positions in `triples` (baselines)."""
    triples = checked_triples(triples, n_entities)
    head, relation, tail = triples.T
    rows = np.arange(len(triples))
    by_side: list[Counts] = []
    candidates: list[np.ndarray] = []
    for side, scorer, anchor, target, index in (
        ("tail", tails, head, tail, known.by_head),
        ("head", heads, tail, head, known.by_tail),
    ):
        ranked = rank_rows(
            scorer,
            rows,
            Ragged(np.arange(len(triples) + 1), target),
            index.answers,
            excluded_row=index.rows_of(anchor, relation),
            batch_size=batch_size,
            block=block,
            task=f"link_prediction ({side})",
        )
        by_side.append(ranked.counts)
        candidates.append(ranked.candidates)
    counts = Counts(*(np.stack(parts, axis=1) for parts in zip(*by_side, strict=True)))
    return result_of(triples, counts, np.stack(candidates, axis=1), names)


def result_of(triples: np.ndarray, counts: Counts, candidates: np.ndarray, names: Sequence[str]) -> Result:
    """Metrics from the rivals of the tail and head of every triple.

    Args:
        triples: `int [n, 3]`.
        counts: `int [n, 2]`, tail and head.
        candidates: `int [n, 2]`: among how many entities each is ranked.
        names: of the metrics.

    Returns:
        The named metrics over both directions together, `mrr/tail`, `mrr/head`; `mrr/optimistic` and
        `mrr/pessimistic`, if all ties were won or lost: far apart where a scorer gives many equal scores; `triples`. Per
        example: one entry a triple, the mean of its two directions. Examples: positions in `triples`, with the segment
        `direction`.
    """
    n, ranks = len(triples), counts.realistic.reshape(-1)
    direction = Segment(DIRECTIONS, np.tile(np.arange(2, dtype=np.int8), n), of="target")
    examples = Examples(
        "link_prediction",
        np.arange(n),
        np.arange(n + 1) * 2,
        triples[:, [2, 0]].reshape(-1),
        segments={"direction": direction},
        candidates=candidates.reshape(-1),
    )
    both = per_example(examples, ranks, names=names)
    metrics = {name: mean(values) for name, values in both.items()}
    metrics |= {f"mrr/{side}": mean(per_example(examples, ranks, ("direction", side))["mrr"]) for side in DIRECTIONS}
    for name, rank in (("optimistic", counts.optimistic), ("pessimistic", counts.pessimistic)):
        metrics[f"mrr/{name}"] = mean(1.0 / rank.reshape(-1))
    metrics["triples"] = float(n)
    return Result(metrics, both, examples=examples, ranks=ranks, tied=counts.equal.reshape(-1))


def checked_triples(triples: np.ndarray, n_entities: int) -> np.ndarray:
    triples = np.asarray(triples, np.int32)
    if triples.ndim != 2 or triples.shape[1] != 3:
        raise ValueError(f"link_prediction: triples have shape {triples.shape}, expected [n, 3]")
    ends = triples[:, [0, 2]]
    if ends.size and not 0 <= ends.min() <= ends.max() < n_entities:
        raise ValueError(f"link_prediction: entities from {ends.min()} to {ends.max()}, expected within 0 … {n_entities - 1}")
    return triples
