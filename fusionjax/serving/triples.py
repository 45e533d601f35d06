"""Link prediction from an index: which tails, which heads, how plausible a triple is; and the entities' vectors."""

import functools
from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from fusionjax.errors import UserError
from fusionjax.models.scorers import Scorer, Sizes, make_scorer
from fusionjax.retrieval.index import GraphPart
from fusionjax.retrieval.names import Names
from fusionjax.retrieval.nearest import best_rows
from fusionjax.serving.rows import Prediction

KnownAnswers = Literal["drop", "mark", "keep"]
_BATCH = 4096


class Triples:
    """A graph part, with its tables on the device once they are needed.

    Args:
      part: of the index.
      shop: name of the data set, for errors.
    """

    def __init__(self, part: GraphPart, shop: str) -> None:
        self.part, self.shop = part, shop

    @functools.cached_property
    def scorer(self) -> Scorer:
        return make_scorer(self.part.scorer, Sizes(**self.part.sizes))

    @functools.cached_property
    def _tables(self) -> tuple[jax.Array, jax.Array, dict[str, jax.Array]]:
        shared = {name: jnp.asarray(value) for name, value in self.part.shared.items()}
        return jnp.asarray(self.part.vectors), jnp.asarray(self.part.relation_vectors), shared

    # ------------------------------------------------------------------------------------------------------------ answers
    def tails(self, head: str, relation: str, k: int, known: KnownAnswers) -> list[Prediction]:
        """The k best tails of (head, relation, ?)."""
        anchor, between = self.entity(head), self.relation(relation)
        scores = _all_tails(self.scorer, *self._tables, anchor, between)
        return self._best(np.array(scores), self.part.known.tails(anchor, between), k, known)

    def heads(self, relation: str, tail: str, k: int, known: KnownAnswers) -> list[Prediction]:
        """The k best heads of (?, relation, tail)."""
        between, anchor = self.relation(relation), self.entity(tail)
        if self.part.reciprocal:  # heads are tails of the inverse relation
            scores = _all_tails(self.scorer, *self._tables, anchor, between + len(self.part.relations))
        else:
            scores = _all_heads(self.scorer, *self._tables, anchor, between)
        return self._best(np.array(scores), self.part.known.heads(between, anchor), k, known)

    def _best(self, scores: np.ndarray, true: np.ndarray, k: int, known: KnownAnswers) -> list[Prediction]:
        if known not in ("drop", "mark", "keep"):
            raise UserError(f"known: expected 'drop', 'mark' or 'keep', got {known!r}")
        if k < 1:
            raise UserError(f"k must be at least 1, got {k}")
        if known == "drop":
            scores[true] = -np.inf
        rows, marked = best_rows(scores, k), set(true.tolist())
        return [
            Prediction(
                self.part.entities[row], self.name(int(row)), float(scores[row]), None if known == "keep" else row in marked
            )
            for row in rows
        ]

    def score(self, triples: Sequence[tuple[str, str, str]]) -> np.ndarray:
        """float32 [n]: the score of each (head, relation, tail); with reciprocal relations the mean of both directions."""
        asked = [(self.entity(head), self.relation(relation), self.entity(tail)) for head, relation, tail in triples]
        rows = np.array(asked, np.int32).reshape(-1, 3)
        inverse = len(self.part.relations) if self.part.reciprocal else 0
        found = [np.zeros(0, np.float32)]
        for start in range(0, len(rows), _BATCH):
            found.append(np.asarray(_each(self.scorer, inverse, *self._tables, rows[start : start + _BATCH])))
        return np.concatenate(found)

    def vectors(self, ids: Sequence[str] | None = None) -> np.ndarray:
        """float32 [n, w]: of the entities with these ids, or of all in the order of `part.entities`."""
        if ids is None:
            return np.asarray(self.part.vectors)
        return np.asarray(self.part.vectors[[self.entity(id) for id in ids]])

    # -------------------------------------------------------------------------------------------------------------- names
    def entity(self, id: str) -> int:
        return _row(self.part.entities, id, "entity", self.shop)

    def relation(self, id: str) -> int:
        if not len(self.part.relations):
            raise UserError("this run scores no triples: it was trained with objectives.link_prediction.weight 0")
        return _row(self.part.relations, id, "relation", self.shop)

    def name(self, row: int) -> str:
        """Readable name of an entity, the id where there is none; '' for a product: its title is among the products."""
        return self.part.names[row - self.part.named_from] if row >= self.part.named_from else ""


def _row(names: Names, id: str, what: str, shop: str) -> int:
    row = names.row(id)
    if row is None:
        raise UserError(f"no {what} '{id}' in shop '{shop}'{names.hint(id)}")
    return row


# Scores that lie close together decide between answers: products are computed in full float32, on a GPU too.
@functools.partial(jax.jit, static_argnums=0)
def _all_tails(scorer: Scorer, entities: Any, relations: Any, shared: Any, head: Any, relation: Any) -> jax.Array:
    with jax.default_matmul_precision("highest"):
        return scorer.score_tails(entities[head][None], relations[relation][None], entities, shared)[0]


@functools.partial(jax.jit, static_argnums=0)
def _all_heads(scorer: Scorer, entities: Any, relations: Any, shared: Any, tail: Any, relation: Any) -> jax.Array:
    with jax.default_matmul_precision("highest"):
        return scorer.score_heads(relations[relation][None], entities[tail][None], entities, shared)[0]


@functools.partial(jax.jit, static_argnums=(0, 1))
def _each(scorer: Scorer, inverse: int, entities: Any, relations: Any, shared: Any, rows: Any) -> jax.Array:
    head, relation, tail = rows.T
    with jax.default_matmul_precision("highest"):
        forth = scorer.score(entities[head], relations[relation], entities[tail], shared)
        if not inverse:
            return forth
        return (forth + scorer.score(entities[tail], relations[relation + inverse], entities[head], shared)) / 2
