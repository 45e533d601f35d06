"""The loss of a batch: triples → queries → scores against all entities or drawn ones → one number a query → mean.

What a config switches on is static; the numbers it sets (`Hyper`) are arguments of the compiled program, so that runs that
differ in them alone can be trained in one (`jax.vmap`).
"""

import functools
import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from fusionjax.config.schema import Entity, LinkPrediction
from fusionjax.losses import graph as losses
from fusionjax.losses.common import NEGATIVE, normalise
from fusionjax.models.entities import Between, EntityModel, Features, Params
from fusionjax.objectives.link_prediction.graph import TrainGraph
from fusionjax.objectives.link_prediction.negatives import draw, is_known

Hyper = Mapping[str, Array]


def hyper_of(config: LinkPrediction, entity: Entity) -> dict[str, float]:
    """The numbers of a config that a compiled program takes as arguments."""
    return {
        "loss_margin": config.loss.margin,
        "temperature": config.loss.temperature,
        "label_smoothing": config.loss.label_smoothing,
        "relation_prediction": config.relation_prediction,
        "penalty_entity": config.penalty.entity,
        "penalty_relation": config.penalty.relation,
        "drop_entity": entity.dropout.entity,
        "drop_relation": entity.dropout.relation,
        "align": entity.text.align,
        "align_temperature": entity.text.temperature,
    }


class Queries(NamedTuple):
    """What a batch asks: (source, relation, ?) or (?, relation, source)."""

    source: Int[Array, "q"]
    relation: Int[Array, "q"]
    target: Int[Array, "q"]
    of_head: Bool[Array, "q"] | None
    """None: all ask for the tail."""
    known_row: Int[Array, "q"] | None
    """Row in the graph's known-true index."""
    weight: Float[Array, "q"]
    """0 for what fills up the last batch."""


class Targets(NamedTuple):
    """Some targets of each query."""

    numbers: Int[Array, "q n"]
    share: Float[Array, "q n"]
    """Of the query's target; 0 for what fills up."""


class Vectors(NamedTuple):
    """Of a batch's queries."""

    source: Float[Array, "q w"]
    relation: Between
    target: Float[Array, "q w"]


def asks_both(config: LinkPrediction) -> bool:
    """Whether `ask` makes two queries of each triple: first all that ask for tails, then all that ask for heads."""
    return not config.reciprocal and (config.training != "negatives" or config.negatives.queries == "both")


def sharing(config: LinkPrediction) -> int:
    """How many queries share one draw of negatives; 0: each has its own."""
    shared = config.negatives.shared
    return shared if isinstance(shared, int) else config.batch_size * (2 if asks_both(config) else 1)


def ask(config: LinkPrediction, graph: TrainGraph, index: Int[Array, "b"], weight: Float[Array, "b"], key: Array) -> Queries:
    """The queries of the triples with these numbers."""
    head, relation, tail = (graph.triples[index, column] for column in range(3))
    filtered = config.training == "negatives" and config.negatives.filtered
    rows = graph.known_row[index] if filtered else None
    if config.reciprocal:
        return Queries(head, relation, tail, None, rows[:, 0] if rows is not None else None, weight)
    if asks_both(config):
        b = index.shape[0]
        return Queries(
            jnp.concatenate([head, tail]),
            jnp.concatenate([relation, relation]),
            jnp.concatenate([tail, head]),
            jnp.arange(2 * b) >= b,
            rows.T.reshape(-1) if rows is not None else None,
            jnp.concatenate([weight, weight]),
        )
    share = graph.head_share[relation] if config.negatives.queries == "bernoulli" else 0.5
    of_head = jax.random.uniform(key, index.shape) < share
    row = jnp.where(of_head, rows[:, 1], rows[:, 0]) if rows is not None else None
    return Queries(jnp.where(of_head, tail, head), relation, jnp.where(of_head, head, tail), of_head, row, weight)


def candidates(
    model: EntityModel, config: LinkPrediction, graph: TrainGraph, asked: Queries, key: Array, longest: int
) -> tuple[Int[Array, "c n"], Bool[Array, "q n"]]:
    """(drawn negatives of each query, or of each chunk; those that count for nothing, for each query)."""
    settings, q, shared = config.negatives, asked.source.shape[0], sharing(config)
    rows = q // shared if shared else q
    of_head = asked.of_head if asked.of_head is not None else jnp.zeros(q, bool)
    drawn = draw(key, (rows, settings.number), asked.relation, of_head, graph, model.n_entities, settings)
    spread = jnp.repeat(drawn, shared, axis=0) if shared else drawn
    nothing = spread == asked.target[:, None]
    if settings.filtered:
        assert asked.known_row is not None
        nothing |= is_known(asked.known_row, spread, graph, longest)
    return drawn, nothing


def loss_of_queries(
    config: LinkPrediction,
    hyper: Hyper,
    positive: Float[Array, "q"],
    negative: Float[Array, "q n"],
    nothing: Bool[Array, "q n"],
    n_entities: int,
) -> Float[Array, "q"]:
    """The named loss of true triples against drawn ones."""
    if config.negatives.logq:
        negative = negative + math.log((n_entities - 1) / config.negatives.number)
    match config.loss.name:
        case "softmax":
            return losses.softmax_over_negatives(positive, negative, nothing)
        case "bce":
            return losses.sigmoid_over_negatives(positive, negative, nothing)
        case "margin":
            return losses.margin_ranking(positive, negative, nothing, hyper["loss_margin"])
        case "self_adversarial":
            return losses.self_adversarial_sigmoid(positive, negative, nothing, hyper["temperature"])


def against_all(
    model: EntityModel,
    config: LinkPrediction,
    hyper: Hyper,
    asked: Queries,
    vectors: Vectors,
    entities: Float[Array, "e w"],
    labels: Bool[Array, "q e"] | Targets | None,
    shared: Params | None,
    key: Array,
) -> Float[Array, "q"]:
    """The loss of each query against every entity.

    Args:
      labels: the targets; None: that of `asked` alone.
    """
    smoothing = hyper["label_smoothing"] if config.loss.label_smoothing else None
    if config.block and config.block < entities.shape[0]:
        targets = labels if isinstance(labels, Targets) else Targets(asked.target[:, None], jnp.ones((len(asked.target), 1)))
        if model.scorer.product:
            query = model.query_vectors(vectors.source, vectors.relation, asked.of_head, shared, key)
            scores_of = functools.partial(model.scorer.compare_all, query)
            own = model.scorer.compare_each(query[:, None], entities[targets.numbers])
        else:
            given = vectors.source, vectors.relation, asked.of_head
            scores_of = functools.partial(model.score_all, *given, shared=shared, key=key)
            own = model.score_each(*given, entities[targets.numbers], shared)
        own = (own * targets.share).sum(-1)
        total, mean = _blockwise(scores_of, len(asked.target), entities, config.block)
        return total - (own if smoothing is None else (1 - smoothing) * own + smoothing * mean)
    scores = model.score_all(vectors.source, vectors.relation, asked.of_head, entities, shared, key)
    if isinstance(labels, Targets):
        return losses.softmax_over_some(scores, labels.numbers, labels.share, smoothing)
    if labels is not None:
        of = losses.softmax_over_answers if config.loss.name == "softmax" else losses.sigmoid_over_answers
        return of(scores, labels, smoothing)
    of = losses.softmax_over_all if config.loss.name == "softmax" else losses.sigmoid_over_all
    return of(scores, asked.target, smoothing)


def _blockwise(
    scores_of: Callable[[Array], Array], q: int, entities: Float[Array, "e w"], block: int
) -> tuple[Float[Array, "q"], Float[Array, "q"]]:
    """(log-sum-exp, mean) of the scores of all entities, holding those of one block at a time, forwards and backwards.

    Args:
      scores_of: some entities' vectors [n, w] → their scores for each of the q queries [q, n].
    """
    e = entities.shape[0]
    blocks = -(-e // block)
    padded = jnp.pad(entities, ((0, blocks * block - e), (0, 0))).reshape(blocks, block, -1)
    real = (jnp.arange(blocks * block) < e).reshape(blocks, block)

    @jax.checkpoint
    def one(part: Array, inside: Array) -> tuple[Array, Array]:
        scores = scores_of(part)
        return jax.nn.logsumexp(jnp.where(inside[None], scores, NEGATIVE), axis=1), jnp.where(inside[None], scores, 0.0).sum(1)

    def turn(carry: tuple[Array, Array], block_of: tuple[Array, Array]) -> tuple[tuple[Array, Array], None]:
        log_sum, total = one(*block_of)
        return (jnp.logaddexp(carry[0], log_sum), carry[1] + total), None

    (log_sum, total), _ = lax.scan(turn, (jnp.full(q, NEGATIVE), jnp.zeros(q)), (padded, real))
    return log_sum, total / e


def against_drawn(
    model: EntityModel,
    config: LinkPrediction,
    asked: Queries,
    vectors: Vectors,
    drawn: Float[Array, "c n w"],
    shared: Params | None,
    key: Array,
) -> tuple[Float[Array, "q"], Float[Array, "q n"]]:
    """(score of each true triple, of each query's negatives), from the vectors of these, or of those of its chunk."""
    scorer, chunk = model.scorer, sharing(config)
    if not scorer.product:
        spread = jnp.repeat(drawn, chunk, axis=0) if chunk else drawn
        everything = jnp.concatenate([vectors.target[:, None], spread], 1)
        scores = model.score_each(vectors.source, vectors.relation, asked.of_head, everything, shared)
        return scores[:, 0], scores[:, 1:]
    query = model.query_vectors(vectors.source, vectors.relation, asked.of_head, shared, key)
    positive = scorer.compare_each(query, vectors.target)
    if chunk:
        negative = jax.vmap(scorer.compare_all)(query.reshape(drawn.shape[0], chunk, -1), drawn)
        return positive, negative.reshape(len(positive), -1)
    if scorer.compare == "product":
        return positive, jnp.einsum("qw,qnw->qn", query, drawn)
    return positive, scorer.compare_each(query[:, None], drawn)


def penalty(
    model: EntityModel,
    config: LinkPrediction,
    hyper: Hyper,
    params: Params,
    vectors: Vectors,
    asked: Queries,
    targets: tuple[Float[Array, "e w"], Bool[Array, "q e"] | Targets] | None = None,
) -> Float[Array, ""]:
    """What keeps vectors small: the mean over queries, or of whole tables once.

    Args:
      targets: all entities' vectors and the targets of each query, where they weigh (`loss.targets`).
    """
    of_entity, of_relation = hyper["penalty_entity"], hyper["penalty_relation"]
    if config.penalty.name == "dura":
        return of_entity * mean(_dura(model, config, vectors, asked, params.get("shared")), asked.weight)
    power, scorer = 3 if config.penalty.name == "n3" else 2, model.scorer
    nobody = jnp.zeros((1, scorer.entity_width))
    # Once a relation, not once a query: a relation may be a matrix.
    relations = (scorer.factors(nobody, params["relations"], nobody)[1] ** power).sum(-1)
    if not config.penalty.weighted:
        entities = scorer.factors(params.get("entities", nobody), params["relations"][:1], nobody)[0]
        return of_entity * (entities**power).sum() + of_relation * relations.sum()
    source, _, target = scorer.factors(vectors.source, params["relations"][:1], vectors.target)
    ends = (source**power).sum(-1)
    if targets is not None:
        each = (scorer.factors(nobody, params["relations"][:1], targets[0])[2] ** power).sum(-1)
        ends += _mean_of_answers(each, targets[1])
    elif config.training != "k_vs_all":  # which has no target of its own: there entities are held as sources only
        ends += (target**power).sum(-1)
    return mean(of_entity * ends + of_relation * relations[asked.relation], asked.weight)


def _mean_of_answers(each: Float[Array, "e"], labels: Bool[Array, "q e"] | Targets) -> Float[Array, "q"]:
    if isinstance(labels, Targets):
        return (each[labels.numbers] * labels.share).sum(-1)
    return labels @ each / jnp.maximum(labels.sum(-1), 1)


def _dura(
    model: EntityModel, config: LinkPrediction, vectors: Vectors, asked: Queries, shared: Params | None
) -> Float[Array, "q"]:
    """‖query‖² + ‖t‖² + ‖query from the other end‖² + ‖h‖² of each query (Zhang et al. 2020), k-vs-all only half of it."""
    forth = model.query_vectors(vectors.source, vectors.relation, asked.of_head, shared)
    found = (forth * forth).sum(-1) + (vectors.source * vectors.source).sum(-1)
    if config.training == "k_vs_all":
        return found
    other = ~asked.of_head if asked.of_head is not None else jnp.ones(asked.source.shape, bool)
    back = model.query_vectors(vectors.target, vectors.relation, other, shared)
    return found + (back * back).sum(-1) + (vectors.target * vectors.target).sum(-1)


def relation_loss(model: EntityModel, params: Params, vectors: Vectors, asked: Queries) -> Float[Array, ""]:
    """Cross-entropy of the relation among all, from both ends (Chen et al. 2021)."""
    swap = asked.of_head[:, None] if asked.of_head is not None else jnp.zeros((1, 1), bool)
    head, tail = jnp.where(swap, vectors.target, vectors.source), jnp.where(swap, vectors.source, vectors.target)
    scores = model.score_relations(head, tail, params["relations"], params.get("shared"))
    return mean(losses.softmax_over_all(scores, asked.relation), asked.weight)


def alignment(
    model: EntityModel,
    hyper: Hyper,
    params: Params,
    features: Features,
    rows: Float[Array, "q w"],
    numbers: Int[Array, "q"],
    weight: Float[Array, "q"],
) -> Float[Array, ""]:
    """Entities' rows of the table and their texts find each other among those of the batch (InfoNCE both ways)."""
    text = normalise(model.project(params, features.text[numbers]))
    scores = normalise(rows) @ text.T / hyper["align_temperature"]
    q = len(numbers)
    out = (numbers[:, None] == numbers[None]) | (weight == 0)[:, None] | (weight == 0)[None]
    scores = jnp.where(out & ~jnp.eye(q, dtype=bool), NEGATIVE, scores)
    own = jnp.arange(q)
    return mean(losses.softmax_over_all(scores, own) + losses.softmax_over_all(scores.T, own), weight) / 2


def drop(x: Float[Array, "q w"], rate: Array, key: Array) -> Float[Array, "q w"]:
    keep = jax.random.uniform(key, x.shape) >= rate
    return jnp.where(keep, x / (1 - rate), 0.0)


def mean(values: Float[Array, "q"], weight: Float[Array, "q"]) -> Float[Array, ""]:
    """Over the queries that count."""
    return (values * weight).sum() / jnp.maximum(weight.sum(), 1.0)
