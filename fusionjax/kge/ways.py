"""The ways to compute a batch, and the loss of a batch each way: they cost differently, and give the same up to rounding."""

import dataclasses
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from fusionjax.config.kge import Kge
from fusionjax.kge import looped, objective
from fusionjax.kge.candidates import score_candidates
from fusionjax.kge.graph import TrainGraph
from fusionjax.kge.model import Between, Features, GraphModel, Params
from fusionjax.kge.objective import Answers, Hyper, Questions, Vectors

DENSE_ENTITIES = 32
"""A question's own candidates are picked from its scores of all entities, by one matrix product, up to this many times as many
entities as candidates: a row XLA looks up costs about as much as that many rows of a matrix product (measured on a CPU)."""
LOOPED_ENTITIES = 10
"""Loops take over above this many times as many entities as candidates: to them a row costs as much as 8 of a matrix product
(measured on two cores), and they take some time to compile."""


@dataclasses.dataclass(frozen=True)
class Way:
    """How a batch is computed; static under jit."""

    against: Literal["all", "picked", "looped", "scanned", "gathered"]
    """all: every entity; picked: drawn candidates, out of scores of all; looped: these scores alone (`looped`); scanned: one
    candidate of every question at a time (`candidates`); gathered: vectors of all candidates at once, where chunks share them
    or text and numbers go into them."""
    rows: bool
    """Only the rows of a batch are looked up and updated (`entities_of`)."""
    longest: int = 0
    """Row of the known-true index."""
    both: bool = False
    """Each triple is asked both ways: the answers are the anchors of the other half of the questions, not looked up again."""


def way_of(model: GraphModel, config: Kge, graph: TrainGraph) -> Way:
    """The cheapest way to compute what the config asks for."""
    both = objective.asks_both(config) and config.training != "k_vs_all"
    if config.training != "negatives":
        return Way("all", False, both=both)
    longest = int(np.diff(np.asarray(graph.known_offsets)).max(initial=0))
    settings, entities = config.negatives, model.n_entities
    whole_table = config.penalty.name != "none" and not config.penalty.weighted
    questions = config.batch_size * (2 if both else 1)
    touched = 2 * config.batch_size + (questions // settings.shared if settings.shared else questions) * settings.number
    wanted = config.optimiser.rows == "on" or (config.optimiser.rows == "auto" and touched < entities)
    rows = wanted and model.has_table and not whole_table
    # An accelerator has the bandwidth for all candidates at once, and would wait for each of many small programs.
    plain = model.text in ("none", "align") and not model.literal_width
    if model.scorer.product and not settings.shared:
        near = entities <= DENSE_ENTITIES * settings.number and config.optimiser.rows != "on"
        rows = rows and not near
        if (near or plain or rows) and entities > LOOPED_ENTITIES * settings.number and looped.available():
            return Way("looped", rows, longest, both)
        if near:
            return Way("picked", False, longest, both)
    scans = plain and not settings.shared and jax.default_backend() == "cpu"
    return Way("scanned" if scans else "gathered", rows, longest, both)


class Batch(NamedTuple):
    """What a step is about."""

    asked: Questions
    drawn: Int[Array, "c n"] | None
    """Candidates of each question, or chunk."""
    nothing: Bool[Array, "q n"] | None
    """Candidates that count for nothing."""
    labels: Bool[Array, "q e"] | Answers | None
    """All answers (k-vs-all), or some (one-vs-all with `loss.answers`)."""
    pairs: Questions | None = None
    """The triples whose relation is foretold; None: those asked about."""


def entities_of(way: Way, batch: Batch) -> Int[Array, "m"]:
    """All entities a batch looks up, as often as it does, in the order it does."""
    assert batch.drawn is not None
    drawn = batch.drawn.T if way.against == "scanned" else batch.drawn
    return jnp.concatenate([*_ends(way, batch), drawn.reshape(-1)])


def renumbered(way: Way, batch: Batch, numbers: Int[Array, "m"]) -> Batch:
    """The batch with other numbers for `entities_of`."""
    assert batch.drawn is not None
    q, drawn = len(batch.asked.anchor), batch.drawn
    anchor, *more = jnp.split(numbers, [q] if way.both else [q, 2 * q])
    own = more[-1].reshape(drawn.shape[::-1]).T if way.against == "scanned" else more[-1].reshape(drawn.shape)
    answer = _turned(anchor) if way.both else more[0]
    return batch._replace(asked=batch.asked._replace(anchor=anchor, answer=answer), drawn=own)


def _ends(way: Way, batch: Batch) -> list[Int[Array, "q"]]:
    return [batch.asked.anchor] if way.both else [batch.asked.anchor, batch.asked.answer]


def loss_of(
    model: GraphModel,
    config: Kge,
    way: Way,
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
    of_anchor, of_relation, inside = jax.random.split(key, 3)
    asked, q = batch.asked, batch.asked.anchor.shape[0]
    # Entity vectors: all there are, or those of the questions, then of what they share.
    if way.against in ("all", "picked", "looped"):
        entities = model.vectors(params, features)
        anchor = entities[asked.anchor]
        answer = _turned(anchor) if way.both else entities[asked.answer]
    else:
        candidates = [] if way.against == "scanned" or batch.drawn is None else [batch.drawn.reshape(-1)]
        numbers = jnp.concatenate([*_ends(way, batch), *candidates])
        own = params["entities"][numbers] if model.has_table else None
        # Split, not sliced: the gradient of a split is one array put together, that of slices as many sums of padded ones.
        anchor, *more = jnp.split(model.compose(own, params, features, numbers), [q] if way.both else [q, 2 * q])
        entities = more[-1]
        answer = _turned(anchor) if way.both else more[0]
    between = Between(asked.relation, params["relations"])
    vectors = Vectors(anchor, between, answer)
    dropped = vectors
    if config.dropout.entity:
        dropped = dropped._replace(anchor=objective.drop(anchor, hyper["drop_entity"], of_anchor))
    if config.dropout.relation:
        between = between._replace(rows=objective.drop(between.vectors(), hyper["drop_relation"], of_relation))
        dropped = dropped._replace(relation=between)

    shared = params.get("shared")
    if way.against == "all":
        each = objective.against_all(model, config, hyper, asked, dropped, entities, batch.labels, shared, inside)
    else:
        assert batch.drawn is not None and batch.nothing is not None
        if way.against == "gathered":
            corrupt = entities.reshape(*batch.drawn.shape, -1)
            positive, negative = objective.against_drawn(model, config, asked, dropped, corrupt, shared, inside)
        elif way.against in ("picked", "looped"):
            query = model.queries(dropped.anchor, dropped.relation, asked.of_head, shared, inside)
            positive = model.scorer.compare_each(query, answer)
            negative = model.pick(query, entities, batch.drawn, looped=way.against == "looped")
        else:
            context = _context(model, asked, dropped, shared, inside)
            positive = _score_one(model, context, answer)
            negative = jnp.asarray(score_candidates(_ScoreOne(model), context, params["entities"], batch.drawn))
        each = objective.loss_of_questions(config, hyper, positive, negative, batch.nothing, model.n_entities)

    parts = {"link_prediction": objective.mean(each, asked.weight)}
    if config.penalty.name != "none":
        answers = (entities, batch.labels) if batch.labels is not None and config.loss.answers else None
        parts["penalty"] = objective.penalty(model, config, hyper, params, vectors, asked, answers)
    if config.relation_prediction:
        ends, triples = vectors, asked
        if batch.pairs is not None:
            triples = batch.pairs
            ends = Vectors(entities[triples.anchor], between, entities[triples.answer])
        parts["relation_prediction"] = hyper["relation_prediction"] * objective.relation_loss(model, params, ends, triples)
    if model.text == "align":
        given = params["entities"][asked.anchor]
        aligned = objective.alignment(model, hyper, params, features, given, asked.anchor, asked.weight)
        parts["alignment"] = hyper["align"] * aligned
    return sum(parts.values(), jnp.zeros(())), parts


def _turned(anchor: Array) -> Array:
    """The answers of `Way.both`, of anchors `[q, …]`: first the tails of the heads, then the heads of the tails."""
    return anchor.reshape(2, -1, *anchor.shape[1:])[::-1].reshape(anchor.shape)


@dataclasses.dataclass(frozen=True)
class _ScoreOne:
    """`candidates.ScoreOne` of a model; equal if the model is."""

    model: GraphModel

    def __call__(self, context: Any, candidate: Float[Array, "q w"]) -> Float[Array, "q"]:
        return _score_one(self.model, context, candidate)


def _context(model: GraphModel, asked: Questions, vectors: Vectors, shared: Any, key: Array) -> Any:
    """What a candidate of each question is scored with: queries, or anchors and relations where the scorer has none."""
    if model.scorer.product:
        return model.queries(vectors.anchor, vectors.relation, asked.of_head, shared, key)
    sides = None if asked.of_head is None else asked.of_head.astype(jnp.float32)  # a number, for it is differentiated with
    return vectors.anchor, vectors.relation.vectors(), sides


def _score_one(model: GraphModel, context: Any, candidate: Float[Array, "q w"]) -> Float[Array, "q"]:
    if model.scorer.product:
        return model.scorer.compare_each(context, candidate)
    anchor, relation, sides = context
    of_head = None if sides is None else sides > 0.5
    between = Between(jnp.zeros(0, jnp.int32), relation[:0], relation)
    return model.score_each(anchor, between, of_head, candidate[:, None], None)[:, 0]
