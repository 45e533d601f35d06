"""Entities and relations: their parameters, and what is made of them: entity vectors, query vectors, scores of some or all.

An entity's vector is a row of the table, a projection of its text (`replace`), or the sum of both (`add`); numbers about it
(`literals`) may be added. Text and numbers are features: constant, beside the parameters, so that one may be without the other.
"""

import dataclasses
import math
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from fusionjax.kernels.looped import looped_products
from fusionjax.models.scorers import Init, Scorer
from fusionjax.models.scorers.algebra import root

Params = dict[str, Any]
GRAPH = "graph"
"""Where these parameters stand in the tree of a run's model."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Features:
    """What is known of entities besides their triples."""

    text: jax.Array
    """float32 [e, q]: unit vectors of their texts; [e, 0] without."""
    literals: jax.Array
    """float32 [e, 2 m]: standardised numbers (0 where missing), then 1 where one is there."""
    seen: jax.Array
    """float32 [e]: 1 for entities with a training triple; the table's rows of the others mean nothing."""

    def of(self, ids: Int[Array, "n"]) -> "Features":
        """Those of some entities."""
        return jax.tree.map(lambda part: part[ids], self)


class Between(NamedTuple):
    """The relations of queries, as rows of the table: what a scorer makes of a relation may be made once a relation."""

    numbers: Int[Array, "q"]
    table: Float[Array, "r k"]
    rows: Float[Array, "q k"] | None = None
    """Instead, where each query has a vector of its own (dropout)."""

    def vectors(self) -> Float[Array, "q k"]:
        return self.table[self.numbers] if self.rows is None else self.rows


@dataclasses.dataclass(frozen=True)
class EntityModel:
    """Static under jit."""

    scorer: Scorer
    n_entities: int
    n_relations: int
    """Rows of the relation table: twice the graph's with reciprocal relations."""
    reciprocal: bool
    how: Init
    text: Literal["none", "replace", "add", "align"] = "none"
    text_width: int = 0
    hidden: int = 0
    literal_width: int = 0
    dropout: tuple[float, float] = (0.0, 0.0)
    """While training, of the numbers of a query's entity and of its relation."""

    @property
    def has_table(self) -> bool:
        return self.text != "replace"

    def init(self, key: Array) -> Params:
        """`entities` float [e, w] (unless text replaces it), and where there are any, `relations` float [r, k], `shared`,
        `text`, `literals`."""
        of_scorer, of_text, of_hidden, of_literals = jax.random.split(key, 4)
        params: Params = self.scorer.init(of_scorer, self.n_entities, self.n_relations, self.how)
        if not self.n_relations:  # a table that towers read, without triples to score
            del params["relations"], params["shared"]
        elif not params["shared"]:
            del params["shared"]
        width = self.scorer.entity_width
        # What stands for a row of the table starts as long as one: unit text vectors times a matrix of this spread.
        spread = jnp.std(params["entities"])
        if self.text != "none" and self.hidden:
            params["text"] = {
                "hidden": jax.random.normal(of_hidden, (self.text_width, self.hidden)) * math.sqrt(2.0),
                "bias": jnp.zeros(self.hidden),
                "out": jax.random.normal(of_text, (self.hidden, width)) * (spread / math.sqrt(self.hidden)),
            }
        elif self.text != "none":
            params["text"] = {"out": jax.random.normal(of_text, (self.text_width, width)) * spread}
        if self.literal_width:
            scale = spread / math.sqrt(self.literal_width)
            params["literals"] = jax.random.normal(of_literals, (self.literal_width, width)) * scale
        if not self.has_table:
            del params["entities"]
        return params

    # ---------------------------------------------------------------------------------------------------- entity vectors
    def vectors(self, params: Params, features: Features) -> Float[Array, "e w"]:
        """All entities' vectors, as triples are scored with."""
        return self.compose(params.get("entities"), params, features)

    def compose(
        self, rows: Float[Array, "n w"] | None, params: Params, features: Features, numbers: Int[Array, "n"] | None = None
    ) -> Float[Array, "n w"]:
        """Vectors of entities from their rows of the table.

        Args:
          rows: of the entities; None where text replaces the table.
          numbers: which entities; None: all.
        """
        pick = (lambda part: part) if numbers is None else (lambda part: part[numbers])
        found = rows
        if self.text == "replace":
            found = self.project(params, pick(features.text))
        elif self.text == "add":
            assert rows is not None
            found = rows * pick(features.seen)[:, None] + self.project(params, pick(features.text))
        if self.literal_width:
            found = found + pick(features.literals) @ params["literals"]
        assert found is not None
        return found

    def rows(self, params: Params, features: Features, ids: Int[Array, "n"]) -> Float[Array, "n w"]:
        """Vectors of some entities."""
        return self.compose(params["entities"][ids] if self.has_table else None, params, features, ids)

    def inductive(self, params: Params, features: Features) -> Float[Array, "e w"]:
        """Vectors to measure with: of entities unseen in training, what text and numbers give (`align`: the projected text)."""
        found = self.vectors(params, features)
        if self.text == "align":
            seen = features.seen[:, None]
            found = seen * found + (1 - seen) * self.project(params, features.text)
        return found

    def project(self, params: Params, text: Float[Array, "n q"]) -> Float[Array, "n w"]:
        """Text vectors in the entities' space."""
        weights = params["text"]
        if self.hidden:
            text = jax.nn.gelu(text @ weights["hidden"] + weights["bias"][None])
        return text @ weights["out"]

    # ------------------------------------------------------------------------------------------------------------ scores
    def query_vectors(
        self,
        source: Float[Array, "q w"],
        relation: Between,
        of_head: Bool[Array, "q"] | None,
        shared: Any,
        key: Array | None = None,
    ) -> Float[Array, "q w"]:
        """What the entity asked for is compared with. `of_head`: which queries ask for the head; None: none does."""
        scorer, (numbers, table, rows) = self.scorer, relation
        back = scorer.inverse(table) if of_head is not None else None
        if of_head is not None and back is not None:
            # Heads are tails of the inverse relation: one query a query instead of two, of which one is thrown away.
            if rows is not None:
                inverse = jnp.asarray(scorer.inverse(rows))
                return scorer.tail_query(source, jnp.where(of_head[:, None], inverse, rows), shared, key)
            numbers = numbers + len(table) * of_head.astype(numbers.dtype)
            return scorer.tail_queries(source, numbers, jnp.concatenate([table, back]), shared, key)
        if rows is None:
            tails = scorer.tail_queries(source, numbers, table, shared, key)
        else:
            tails = scorer.tail_query(source, rows, shared, key)
        if of_head is None:
            return tails
        if rows is None:
            heads = scorer.head_queries(numbers, source, table, shared, key)
        else:
            heads = scorer.head_query(rows, source, shared, key)
        return jnp.where(of_head[:, None], heads, tails)

    def score_each(
        self,
        source: Float[Array, "q w"],
        relation: Between,
        of_head: Bool[Array, "q"] | None,
        candidates: Float[Array, "q n w"],
        shared: Any,
    ) -> Float[Array, "q n"]:
        """Scores of each query's own candidates, of scorers that have no query."""
        source, between = source[:, None], relation.vectors()[:, None]
        if of_head is None:
            return self.scorer.score(source, between, candidates, shared)
        asks = of_head[:, None, None]
        return self.scorer.score(jnp.where(asks, candidates, source), between, jnp.where(asks, source, candidates), shared)

    def pick(
        self, query: Float[Array, "q w"], entities: Float[Array, "e w"], numbers: Int[Array, "q n"], looped: bool = False
    ) -> Float[Array, "q n"]:
        """Scores of each query's own candidates: out of the products of all queries with all entities, or `looped`."""
        distance = self.scorer.compare == "distance"  # whose terms cancel: see `Scorer.compare_all`
        if looped:
            picked = looped_products(query, entities, numbers)
        else:
            products = jnp.einsum("qw,ew->qe", query, entities, precision="highest" if distance else None)
            picked = jnp.take_along_axis(products, numbers, axis=1)
        if not distance:
            return picked
        squares = (query * query).sum(-1)[:, None] + (entities * entities).sum(-1)[numbers]
        return self.scorer.sizes.margin - root(squares - 2 * picked)

    def score_all(
        self,
        source: Float[Array, "q w"],
        relation: Between,
        of_head: Bool[Array, "q"] | None,
        entities: Float[Array, "e w"],
        shared: Any,
        key: Array | None = None,
    ) -> Float[Array, "q e"]:
        """Scores of all entities for each query."""
        if self.scorer.product:
            return self.scorer.compare_all(self.query_vectors(source, relation, of_head, shared, key), entities)
        between = relation.vectors()
        tails = self.scorer.score_tails(source, between, entities, shared, key)
        if of_head is None:
            return tails
        return jnp.where(of_head[:, None], self.scorer.score_heads(between, source, entities, shared, key), tails)

    def score_relations(
        self, head: Float[Array, "b w"], tail: Float[Array, "b w"], relations: Float[Array, "r k"], shared: Any
    ) -> Float[Array, "b r"]:
        """Scores of all relations between head and tail, as one matrix product (TransE with L1 one by one).

        Bilinear scores are linear in the relation too, so that their gradient by it is the query; TransE's is t − h.
        """
        if self.scorer.compare == "distance":
            return self.scorer.compare_all(tail - head, relations)
        if not self.scorer.product:
            return self.scorer.score(head[:, None], relations[None], tail[:, None], shared)

        def total(relation: Array) -> Array:
            return self.scorer.score(head, relation, tail, shared).sum()

        return jax.grad(total)(jnp.zeros((head.shape[0], relations.shape[1]), relations.dtype)) @ relations.T
