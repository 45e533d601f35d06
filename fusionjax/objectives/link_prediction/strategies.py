"""Scoring strategies: how a batch is computed. They cost differently, and give the same loss up to rounding."""

import dataclasses
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from fusionjax.config.schema import LinkPrediction
from fusionjax.kernels import looped
from fusionjax.models.entities import Between, EntityModel, Features, Params
from fusionjax.objectives.link_prediction import loss
from fusionjax.objectives.link_prediction.candidates import score_candidates
from fusionjax.objectives.link_prediction.graph import TrainGraph
from fusionjax.objectives.link_prediction.loss import Hyper, Queries, Targets, Vectors

DENSE_ENTITIES = 32
"""A query's own candidates are picked from its scores of all entities, by one matrix product, up to this many times as many
entities as candidates: a row XLA looks up costs about as much as that many rows of a matrix product (measured on a CPU)."""
LOOPED_ENTITIES = 10
"""Loops take over above this many times as many entities as candidates: to them a row costs as much as 8 of a matrix product
(measured on two cores), and they take some time to compile."""


Rows = Literal["dense", "sparse", "auto"]


@dataclasses.dataclass(frozen=True)
class Strategy:
    """How a batch is computed; static under jit."""

    against: Literal["all", "picked", "looped", "scanned", "gathered"]
    """all: every entity; picked: drawn candidates, out of scores of all; looped: these scores alone (`looped`); scanned: one
    candidate of every query at a time (`candidates`); gathered: vectors of all candidates at once, where chunks share them
    or text and numbers go into them."""
    rows: bool
    """Only the rows of a batch are looked up and updated (`entities_of`)."""
    longest: int = 0
    """Row of the known-true index."""
    both: bool = False
    """Each triple is asked both ways: the targets are the sources of the other half of the queries, not looked up again."""


def strategy_of(model: EntityModel, config: LinkPrediction, graph: TrainGraph, rows: Rows = "dense") -> Strategy:
    """The cheapest strategy for what the config asks for.

    Args:
      rows: whether the entity table is updated whole, or in the rows of a batch.
    """
    both = loss.asks_both(config) and config.training != "k_vs_all"
    if config.training != "negatives":
        return Strategy("all", False, both=both)
    longest = int(np.diff(np.asarray(graph.known_offsets)).max(initial=0))
    settings, entities = config.negatives, model.n_entities
    whole_table = config.penalty.name != "none" and not config.penalty.weighted
    queries = config.batch_size * (2 if both else 1)
    shared = loss.sharing(config)
    touched = 2 * config.batch_size + (queries // shared if shared else queries) * settings.number
    wanted = rows == "sparse" or (rows == "auto" and touched < entities)
    by_rows = wanted and model.has_table and not whole_table
    # An accelerator has the bandwidth for all candidates at once, and would wait for each of many small programs.
    plain = model.text in ("none", "align") and not model.literal_width
    if model.scorer.product and not shared:
        near = entities <= DENSE_ENTITIES * settings.number and rows != "sparse"
        by_rows = by_rows and not near
        if (near or plain or by_rows) and entities > LOOPED_ENTITIES * settings.number and looped.available():
            return Strategy("looped", by_rows, longest, both)
        if near:
            return Strategy("picked", False, longest, both)
    scans = plain and not shared and jax.default_backend() == "cpu"
    return Strategy("scanned" if scans else "gathered", by_rows, longest, both)


class Batch(NamedTuple):
    """What a step is about."""

    asked: Queries
    drawn: Int[Array, "c n"] | None
    """Candidates of each query, or chunk."""
    nothing: Bool[Array, "q n"] | None
    """Candidates that count for nothing."""
    labels: Bool[Array, "q e"] | Targets | None
    """All targets (k-vs-all), or some (one-vs-all with `loss.targets`)."""
    pairs: Queries | None = None
    """The triples whose relation is predicted; None: those asked about."""


def entities_of(strategy: Strategy, batch: Batch) -> Int[Array, "m"]:
    """All entities a batch looks up, as often as it does, in the order it does."""
    assert batch.drawn is not None
    drawn = batch.drawn.T if strategy.against == "scanned" else batch.drawn
    return jnp.concatenate([*_ends(strategy, batch), drawn.reshape(-1)])


def renumbered(strategy: Strategy, batch: Batch, numbers: Int[Array, "m"]) -> Batch:
    """The batch with other numbers for `entities_of`."""
    assert batch.drawn is not None
    q, drawn = len(batch.asked.source), batch.drawn
    source, *more = jnp.split(numbers, [q] if strategy.both else [q, 2 * q])
    own = more[-1].reshape(drawn.shape[::-1]).T if strategy.against == "scanned" else more[-1].reshape(drawn.shape)
    target = _turned(source) if strategy.both else more[0]
    return batch._replace(asked=batch.asked._replace(source=source, target=target), drawn=own)


def _ends(strategy: Strategy, batch: Batch) -> list[Int[Array, "q"]]:
    return [batch.asked.source] if strategy.both else [batch.asked.source, batch.asked.target]


def loss_of(
    model: EntityModel,
    config: LinkPrediction,
    strategy: Strategy,
    params: Params,
    features: Features,
    hyper: Hyper,
    batch: Batch,
    key: Array,
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """(loss, its parts) of a batch.

    Args:
      params, features, batch: of all entities; or of some, which the batch then calls by their places among them.
    """
    of_source, of_relation, inside = jax.random.split(key, 3)
    asked, q = batch.asked, batch.asked.source.shape[0]
    # Entity vectors: all there are, or those of the queries, then of what they share.
    if strategy.against in ("all", "picked", "looped"):
        entities = model.vectors(params, features)
        source = entities[asked.source]
        target = _turned(source) if strategy.both else entities[asked.target]
    else:
        candidates = [] if strategy.against == "scanned" or batch.drawn is None else [batch.drawn.reshape(-1)]
        numbers = jnp.concatenate([*_ends(strategy, batch), *candidates])
        own = params["entities"][numbers] if model.has_table else None
        # Split, not sliced: the gradient of a split is one array put together, that of slices as many sums of padded ones.
        source, *more = jnp.split(model.compose(own, params, features, numbers), [q] if strategy.both else [q, 2 * q])
        entities = more[-1]
        target = _turned(source) if strategy.both else more[0]
    between = Between(asked.relation, params["relations"])
    vectors = Vectors(source, between, target)
    dropped = vectors
    if model.dropout[0]:
        dropped = dropped._replace(source=loss.drop(source, hyper["drop_entity"], of_source))
    if model.dropout[1]:
        between = between._replace(rows=loss.drop(between.vectors(), hyper["drop_relation"], of_relation))
        dropped = dropped._replace(relation=between)

    shared = params.get("shared")
    if strategy.against == "all":
        each = loss.against_all(model, config, hyper, asked, dropped, entities, batch.labels, shared, inside)
    else:
        assert batch.drawn is not None and batch.nothing is not None
        if strategy.against == "gathered":
            corrupt = entities.reshape(*batch.drawn.shape, -1)
            positive, negative = loss.against_drawn(model, config, asked, dropped, corrupt, shared, inside)
        elif strategy.against in ("picked", "looped"):
            query = model.query_vectors(dropped.source, dropped.relation, asked.of_head, shared, inside)
            positive = model.scorer.compare_each(query, target)
            negative = model.pick(query, entities, batch.drawn, looped=strategy.against == "looped")
        else:
            context = _context(model, asked, dropped, shared, inside)
            positive = _score_one(model, context, target)
            negative = jnp.asarray(score_candidates(_ScoreOne(model), context, params["entities"], batch.drawn))
        each = loss.loss_of_queries(config, hyper, positive, negative, batch.nothing, model.n_entities)

    parts = {"link_prediction": loss.mean(each, asked.weight)}
    if config.penalty.name != "none":
        targets = (entities, batch.labels) if batch.labels is not None and config.loss.targets else None
        parts["penalty"] = loss.penalty(model, config, hyper, params, vectors, asked, targets)
    if config.relation_prediction:
        ends, triples = vectors, asked
        if batch.pairs is not None:
            triples = batch.pairs
            ends = Vectors(entities[triples.source], between, entities[triples.target])
        parts["relation_prediction"] = hyper["relation_prediction"] * loss.relation_loss(model, params, ends, triples)
    if model.text == "align":
        given = params["entities"][asked.source]
        aligned = loss.alignment(model, hyper, params, features, given, asked.source, asked.weight)
        parts["alignment"] = hyper["align"] * aligned
    return sum(parts.values(), jnp.zeros(())), parts


def _turned(source: Array) -> Array:
    """The targets of `Strategy.both`, of sources `[q, …]`: first the tails of the heads, then the heads of the tails."""
    return source.reshape(2, -1, *source.shape[1:])[::-1].reshape(source.shape)


@dataclasses.dataclass(frozen=True)
class _ScoreOne:
    """`candidates.ScoreOne` of a model; equal if the model is."""

    model: EntityModel

    def __call__(self, context: Any, candidate: Float[Array, "q w"]) -> Float[Array, "q"]:
        return _score_one(self.model, context, candidate)


def _context(model: EntityModel, asked: Queries, vectors: Vectors, shared: Any, key: Array) -> Any:
    """What a candidate of each query is scored with: queries, or sources and relations where the scorer has none."""
    if model.scorer.product:
        return model.query_vectors(vectors.source, vectors.relation, asked.of_head, shared, key)
    sides = None if asked.of_head is None else asked.of_head.astype(jnp.float32)  # a number, for it is differentiated with
    return vectors.source, vectors.relation.vectors(), sides


def _score_one(model: EntityModel, context: Any, candidate: Float[Array, "q w"]) -> Float[Array, "q"]:
    if model.scorer.product:
        return model.scorer.compare_each(context, candidate)
    source, relation, sides = context
    of_head = None if sides is None else sides > 0.5
    between = Between(jnp.zeros(0, jnp.int32), relation[:0], relation)
    return model.score_each(source, between, of_head, candidate[:, None], None)[:, 0]
