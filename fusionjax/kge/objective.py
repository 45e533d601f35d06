"""The loss of a batch: triples → questions → scores against all entities or drawn ones → one number a question → mean.

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

from fusionjax.config.kge import Kge
from fusionjax.kge.graph import TrainGraph
from fusionjax.kge.model import Between, Features, GraphModel, Params
from fusionjax.kge.sampling import draw, is_known
from fusionjax.losses import graph as losses
from fusionjax.losses.common import NEGATIVE, normalise

Hyper = Mapping[str, Array]


def hyper_of(config: Kge) -> dict[str, float]:
    """The numbers of a config that a compiled program takes as arguments."""
    return {
        "loss_margin": config.loss.margin,
        "temperature": config.loss.temperature,
        "label_smoothing": config.loss.label_smoothing,
        "relation_prediction": config.relation_prediction,
        "penalty_entity": config.penalty.entity,
        "penalty_relation": config.penalty.relation,
        "drop_entity": config.dropout.entity,
        "drop_relation": config.dropout.relation,
        "align": config.text.align,
        "align_temperature": config.text.temperature,
    }


class Questions(NamedTuple):
    """What a batch asks: (anchor, relation, ?) or (?, relation, anchor)."""

    anchor: Int[Array, "q"]
    relation: Int[Array, "q"]
    answer: Int[Array, "q"]
    of_head: Bool[Array, "q"] | None
    """None: all ask for the tail."""
    known_row: Int[Array, "q"] | None
    """Row in the graph's known-true index."""
    weight: Float[Array, "q"]
    """0 for what fills up the last batch."""


class Answers(NamedTuple):
    """Some answers of each question."""

    numbers: Int[Array, "q n"]
    share: Float[Array, "q n"]
    """Of the question's target; 0 for what fills up."""


class Vectors(NamedTuple):
    """Of a batch's questions."""

    anchor: Float[Array, "q w"]
    relation: Between
    answer: Float[Array, "q w"]


def asks_both(config: Kge) -> bool:
    """Whether `ask` makes two questions of each triple: first all that ask for tails, then all that ask for heads."""
    return not config.reciprocal and (config.training != "negatives" or config.negatives.questions == "both")


def ask(config: Kge, graph: TrainGraph, index: Int[Array, "b"], weight: Float[Array, "b"], key: Array) -> Questions:
    """The questions of the triples with these numbers."""
    head, relation, tail = (graph.triples[index, column] for column in range(3))
    filtered = config.training == "negatives" and config.negatives.filtered
    rows = graph.known_row[index] if filtered else None
    if config.reciprocal:
        return Questions(head, relation, tail, None, rows[:, 0] if rows is not None else None, weight)
    if asks_both(config):
        b = index.shape[0]
        return Questions(
            jnp.concatenate([head, tail]),
            jnp.concatenate([relation, relation]),
            jnp.concatenate([tail, head]),
            jnp.arange(2 * b) >= b,
            rows.T.reshape(-1) if rows is not None else None,
            jnp.concatenate([weight, weight]),
        )
    share = graph.head_share[relation] if config.negatives.questions == "bernoulli" else 0.5
    of_head = jax.random.uniform(key, index.shape) < share
    row = jnp.where(of_head, rows[:, 1], rows[:, 0]) if rows is not None else None
    return Questions(jnp.where(of_head, tail, head), relation, jnp.where(of_head, head, tail), of_head, row, weight)


def candidates(
    model: GraphModel, config: Kge, graph: TrainGraph, asked: Questions, key: Array, longest: int
) -> tuple[Int[Array, "c n"], Bool[Array, "q n"]]:
    """(drawn corruptions of each question, or of each chunk; those that count for nothing, for each question)."""
    settings, q = config.negatives, asked.anchor.shape[0]
    rows = q // settings.shared if settings.shared else q
    of_head = asked.of_head if asked.of_head is not None else jnp.zeros(q, bool)
    drawn = draw(key, (rows, settings.number), asked.relation, of_head, graph, model.n_entities, settings)
    spread = jnp.repeat(drawn, settings.shared, axis=0) if settings.shared else drawn
    nothing = spread == asked.answer[:, None]
    if settings.filtered:
        assert asked.known_row is not None
        nothing |= is_known(asked.known_row, spread, graph, longest)
    return drawn, nothing


def loss_of_questions(
    config: Kge,
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
    model: GraphModel,
    config: Kge,
    hyper: Hyper,
    asked: Questions,
    vectors: Vectors,
    entities: Float[Array, "e w"],
    labels: Bool[Array, "q e"] | Answers | None,
    shared: Params | None,
    key: Array,
) -> Float[Array, "q"]:
    """The loss of each question against every entity.

    Args:
      labels: the answers; None: that of `asked` alone.
    """
    smoothing = hyper["label_smoothing"] if config.loss.label_smoothing else None
    if config.block and config.block < entities.shape[0]:
        answers = labels if isinstance(labels, Answers) else Answers(asked.answer[:, None], jnp.ones((len(asked.answer), 1)))
        if model.scorer.product:
            query = model.queries(vectors.anchor, vectors.relation, asked.of_head, shared, key)
            scores_of = functools.partial(model.scorer.compare_all, query)
            own = model.scorer.compare_each(query[:, None], entities[answers.numbers])
        else:
            given = vectors.anchor, vectors.relation, asked.of_head
            scores_of = functools.partial(model.score_all, *given, shared=shared, key=key)
            own = model.score_each(*given, entities[answers.numbers], shared)
        own = (own * answers.share).sum(-1)
        total, mean = _blockwise(scores_of, len(asked.answer), entities, config.block)
        return total - (own if smoothing is None else (1 - smoothing) * own + smoothing * mean)
    scores = model.score_all(vectors.anchor, vectors.relation, asked.of_head, entities, shared, key)
    if isinstance(labels, Answers):
        return losses.softmax_over_some(scores, labels.numbers, labels.share, smoothing)
    if labels is not None:
        of = losses.softmax_over_answers if config.loss.name == "softmax" else losses.sigmoid_over_answers
        return of(scores, labels, smoothing)
    of = losses.softmax_over_all if config.loss.name == "softmax" else losses.sigmoid_over_all
    return of(scores, asked.answer, smoothing)


def _blockwise(
    scores_of: Callable[[Array], Array], q: int, entities: Float[Array, "e w"], block: int
) -> tuple[Float[Array, "q"], Float[Array, "q"]]:
    """(log-sum-exp, mean) of the scores of all entities, holding those of one block at a time, forwards and backwards.

    Args:
      scores_of: some entities' vectors [n, w] → their scores for each of the q questions [q, n].
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
    model: GraphModel,
    config: Kge,
    asked: Questions,
    vectors: Vectors,
    drawn: Float[Array, "c n w"],
    shared: Params | None,
    key: Array,
) -> tuple[Float[Array, "q"], Float[Array, "q n"]]:
    """(score of each true triple, of each question's corruptions), from the vectors of these, or of those of its chunk."""
    scorer, chunk = model.scorer, config.negatives.shared
    if not scorer.product:
        spread = jnp.repeat(drawn, chunk, axis=0) if chunk else drawn
        everything = jnp.concatenate([vectors.answer[:, None], spread], 1)
        scores = model.score_each(vectors.anchor, vectors.relation, asked.of_head, everything, shared)
        return scores[:, 0], scores[:, 1:]
    query = model.queries(vectors.anchor, vectors.relation, asked.of_head, shared, key)
    positive = scorer.compare_each(query, vectors.answer)
    if chunk:
        negative = jax.vmap(scorer.compare_all)(query.reshape(drawn.shape[0], chunk, -1), drawn)
        return positive, negative.reshape(len(positive), -1)
    if scorer.compare == "product":
        return positive, jnp.einsum("qw,qnw->qn", query, drawn)
    return positive, scorer.compare_each(query[:, None], drawn)


def penalty(
    model: GraphModel,
    config: Kge,
    hyper: Hyper,
    params: Params,
    vectors: Vectors,
    asked: Questions,
    answers: tuple[Float[Array, "e w"], Bool[Array, "q e"] | Answers] | None = None,
) -> Float[Array, ""]:
    """What keeps vectors small: the mean over questions, or of whole tables once.

    Args:
      answers: all entities' vectors and the answers of each question, where they weigh (`loss.answers`).
    """
    of_entity, of_relation = hyper["penalty_entity"], hyper["penalty_relation"]
    if config.penalty.name == "dura":
        return of_entity * mean(_dura(model, config, vectors, asked, params.get("shared")), asked.weight)
    power, scorer = 3 if config.penalty.name == "n3" else 2, model.scorer
    nobody = jnp.zeros((1, scorer.entity_width))
    # Once a relation, not once a question: a relation may be a matrix.
    relations = (scorer.factors(nobody, params["relations"], nobody)[1] ** power).sum(-1)
    if not config.penalty.weighted:
        entities = scorer.factors(params.get("entities", nobody), params["relations"][:1], nobody)[0]
        return of_entity * (entities**power).sum() + of_relation * relations.sum()
    anchor, _, answer = scorer.factors(vectors.anchor, params["relations"][:1], vectors.answer)
    ends = (anchor**power).sum(-1)
    if answers is not None:
        each = (scorer.factors(nobody, params["relations"][:1], answers[0])[2] ** power).sum(-1)
        ends += _mean_of_answers(each, answers[1])
    elif config.training != "k_vs_all":  # which has no answer of its own: there entities are held as anchors only
        ends += (answer**power).sum(-1)
    return mean(of_entity * ends + of_relation * relations[asked.relation], asked.weight)


def _mean_of_answers(each: Float[Array, "e"], labels: Bool[Array, "q e"] | Answers) -> Float[Array, "q"]:
    if isinstance(labels, Answers):
        return (each[labels.numbers] * labels.share).sum(-1)
    return labels @ each / jnp.maximum(labels.sum(-1), 1)


def _dura(model: GraphModel, config: Kge, vectors: Vectors, asked: Questions, shared: Params | None) -> Float[Array, "q"]:
    """‖query‖² + ‖t‖² + ‖query from the other end‖² + ‖h‖² of each question (Zhang et al. 2020), k-vs-all only half of it."""
    forth = model.queries(vectors.anchor, vectors.relation, asked.of_head, shared)
    found = (forth * forth).sum(-1) + (vectors.anchor * vectors.anchor).sum(-1)
    if config.training == "k_vs_all":
        return found
    other = ~asked.of_head if asked.of_head is not None else jnp.ones(asked.anchor.shape, bool)
    back = model.queries(vectors.answer, vectors.relation, other, shared)
    return found + (back * back).sum(-1) + (vectors.answer * vectors.answer).sum(-1)


def relation_loss(model: GraphModel, params: Params, vectors: Vectors, asked: Questions) -> Float[Array, ""]:
    """Cross-entropy of the relation among all, from both ends (Chen et al. 2021)."""
    swap = asked.of_head[:, None] if asked.of_head is not None else jnp.zeros((1, 1), bool)
    head, tail = jnp.where(swap, vectors.answer, vectors.anchor), jnp.where(swap, vectors.anchor, vectors.answer)
    scores = model.score_relations(head, tail, params["relations"], params.get("shared"))
    return mean(losses.softmax_over_all(scores, asked.relation), asked.weight)


def alignment(
    model: GraphModel,
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
    """Over the questions that count."""
    return (values * weight).sum() / jnp.maximum(weight.sum(), 1.0)
