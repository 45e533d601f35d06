"""The three tasks on a model and a shop: which examples, vectors and baselines. The measuring itself is in its own files."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from fusionjax.config import schema
from fusionjax.data.batches import train_rows
from fusionjax.data.inputs import Inputs, Sequences, texts_read
from fusionjax.data.shop import SPLITS, TEST, TRAIN, VALID
from fusionjax.errors import UserError, nearest
from fusionjax.evaluation import baselines
from fusionjax.evaluation.link_prediction import KnownTrue
from fusionjax.evaluation.metrics import Result
from fusionjax.evaluation.ranking import Ragged, VectorScorer
from fusionjax.evaluation.recommendation import Cases, evaluate_recommendation
from fusionjax.evaluation.scores import Scores, scores_of
from fusionjax.evaluation.search import Judged, evaluate_search
from fusionjax.evaluation.segments import segments_of
from fusionjax.inference import Encoder
from fusionjax.losses import normalise

TASKS = ("link_prediction", "search", "recommendation")
OBJECTIVE_OF = {"link_prediction": "link_prediction", "search": "query_product", "recommendation": "next_product"}
"""A model can do a task if it was trained on its objective."""
MAIN_METRIC = {"link_prediction": "mrr", "search": "ndcg@10", "recommendation": "ndcg@10"}
"""What `train.select: mean` averages."""
_SAMPLE_SEED = 7
_SCORE_FLOATS = 1 << 25
"""Largest number of floats in a block of triple scores (128 MiB): batch × block."""


@dataclasses.dataclass(frozen=True)
class RecommendationCases:
    """Users with a target: `user[i]` did `history[i]` before event row `before[i]`, wants `targets[i]`, has `seen[i]`.

    `seen` is the whole history; `history` what `data.controls.events_share` leaves of it to be read.
    """

    user: np.ndarray
    before: np.ndarray
    history: Ragged
    targets: Ragged
    seen: Ragged


def tasks_of(config: schema.Run, inputs: Inputs, split: int = TEST) -> tuple[str, ...]:
    """Tasks the run is measured on: the named ones, or all that the shop has examples for and the model is trained for.

    Raises:
      UserError: a named task lacks its objective or its examples.
    """
    possible = []
    for task in TASKS:
        reasons = []
        if getattr(config.objectives, OBJECTIVE_OF[task]).weight <= 0:
            reasons.append(f"objectives.{OBJECTIVE_OF[task]}.weight is 0")
        if not _count(task, inputs, split, config):
            reasons.append(f"the shop has no {SPLITS[split]} examples for it")
        if not reasons:
            possible.append(task)
        elif config.evaluation.tasks and task in config.evaluation.tasks:
            raise UserError(f"evaluation.tasks: {task} cannot be measured: {'; '.join(reasons)}")
    return tuple(task for task in possible if not config.evaluation.tasks or task in config.evaluation.tasks)


def _count(task: str, inputs: Inputs, split: int, config: schema.Run) -> int:
    if task == "link_prediction":
        return int((inputs.graph.split == split).sum())
    if task == "search":
        return int((inputs.shop.judgments.split == split).sum()) if inputs.shop.has("queries", "judgments", "products") else 0
    return len(recommendation_cases(inputs, split, config.evaluation).user) if inputs.sequences is not None else 0


def recommendation_cases(inputs: Inputs, split: int, config: schema.Evaluation, most: int = 0) -> RecommendationCases:
    """Users with events in `split`, their history being every event of an earlier split.

    With `exclude_seen` only products new to the user are to be found, for the others are never recommended.
    """
    sequences, real = inputs.sequences, inputs.real.sequences
    assert sequences is not None and real is not None
    history = _events_where(sequences, sequences.split < split)
    seen = history if real is sequences else _events_where(real, real.split < split)
    targets = _events_where(real, real.split == split).distinct()
    if config.exclude_seen:
        targets = targets.without(seen)
    before = sequences.offsets[:-1] + history.lengths()
    user = sample(np.flatnonzero(targets.lengths() > 0), most)
    return RecommendationCases(user, before[user], history.take(user), targets.take(user), seen.take(user))


def _events_where(sequences: Sequences, rows: np.ndarray) -> Ragged:
    """Each user's products in these rows, oldest first, repetitions kept: baselines weigh the latest products more."""
    n_users = len(sequences.offsets) - 1
    user_of = np.repeat(np.arange(n_users), np.diff(sequences.offsets))
    return Ragged.from_pairs(user_of[rows], sequences.product[rows], n_users)


def sample(rows: np.ndarray, most: int) -> np.ndarray:
    """At most `most` of the rows (0: all), always the same ones, in order."""
    if not most or len(rows) <= most:
        return rows
    return np.sort(np.random.Generator(np.random.Philox(_SAMPLE_SEED)).choice(rows, most, replace=False))


def search_rows(inputs: Inputs, split: int, most: int = 0) -> Judged:
    """Judgments of a split, of at most `most` queries."""
    judgments = inputs.shop.judgments
    rows = np.flatnonzero(judgments.split == split)
    queries = sample(np.unique(judgments.query[rows]), most)
    rows = rows[np.isin(judgments.query[rows], queries)]
    return Judged(judgments.query[rows], judgments.product[rows], judgments.grade[rows])


def evaluate_model(
    encoder: Encoder, bank: Any, inputs: Inputs, config: schema.Run, split: int, most: int = 0
) -> dict[str, Result]:
    """Measures the model on every task of the run.

    Args:
      bank: text vectors of all products, encoded with the encoder's parameters.
      split: VALID or TEST.
      most: examples a task at most; 0: all.
    """
    settings = config.evaluation
    tasks = tasks_of(config, inputs, split)
    raw = unit = None
    if "search" in tasks or "recommendation" in tasks:
        raw = encoder.products(bank, inputs)
        unit = np.asarray(normalise(jnp.asarray(raw)))
    results: dict[str, Result] = {}
    for task in tasks:
        if task == "link_prediction":
            results[task] = _link_prediction(encoder, inputs, config, split, most)
        elif task == "search":
            judged = search_rows(inputs, split, most)
            rows = np.unique(judged.query)
            assert inputs.query_tokens is not None
            vectors = np.zeros((len(inputs.query_tokens), encoder.model.layout.dim), np.float32)
            vectors[rows] = encoder.queries(inputs.query_tokens[rows])
            results[task] = evaluate_search(
                VectorScorer(vectors, unit), judged, batch_size=settings.batch_size, block=settings.block
            )
        else:
            cases = recommendation_cases(inputs, split, settings, most)
            assert inputs.sequences is not None and raw is not None
            users = encoder.users(raw, inputs.sequences, cases.user, cases.before, inputs.profile)
            found = evaluate_recommendation(
                VectorScorer(users, unit),
                np.arange(len(cases.user)),
                cases.targets,
                cases.seen if settings.exclude_seen else None,
                inputs.real.train_counts,
                batch_size=settings.batch_size,
                block=settings.block,
            )
            results[task] = numbered(found, cases.user)
    return results


def evaluate_baselines(inputs: Inputs, config: schema.Run, most: int = 0) -> dict[str, dict[str, Result]]:
    """The simple methods on the test examples of every task of the run, their settings chosen on validation."""
    settings = config.evaluation
    size: dict[str, Any] = {"batch_size": settings.batch_size, "block": settings.block}
    results: dict[str, dict[str, Result]] = {}
    for task in tasks_of(config, inputs, TEST):
        if task == "link_prediction":
            triples = inputs.graph.triples(TEST)
            rows = sample(np.arange(len(triples)), most)
            known = KnownTrue.of(inputs.real.graph.triples())
            n_entities = len(inputs.graph.entities)
            train = inputs.graph.triples(TRAIN)
            found = baselines.link_prediction_baselines(train, triples[rows], known, n_entities, **size)
            results[task] = {name: numbered(result, rows) for name, result in found.items()}
            continue
        texts = texts_read(inputs, config)
        counts = inputs.train_counts if inputs.sequences is not None else None
        if task == "search":
            test, valid = search_rows(inputs, TEST, most), search_rows(inputs, VALID, settings.max_valid)
            results[task] = baselines.search_baselines(texts, list(inputs.shop.queries.text), counts, test, valid, **size)
        else:
            test, valid = recommendation_cases(inputs, TEST, settings, most), recommendation_cases(inputs, VALID, settings)
            assert inputs.sequences is not None
            train = train_rows(inputs.sequences)
            found = baselines.recommendation_baselines(
                Ragged(train.offsets, train.product),
                inputs.n_products,
                Cases(test.history, test.targets, test.seen),
                Cases(valid.history, valid.targets, valid.seen),
                titles=texts,
                train_counts=counts,
                segment_counts=inputs.real.train_counts,
                exclude_seen=settings.exclude_seen,
                **size,
            )
            results[task] = {name: numbered(result, test.user) for name, result in found.items()}
    return results


def numbered(result: Result, numbers: np.ndarray) -> Result:
    """The result with its examples, so far positions in a list of cases, named by their row numbers."""
    assert result.examples is not None
    examples = dataclasses.replace(result.examples, example=numbers[result.examples.example])
    return dataclasses.replace(result, examples=examples)


def scores_by_task(
    model: Mapping[str, Result], simple: Mapping[str, Mapping[str, Result]], inputs: Inputs, split: int = TEST
) -> dict[str, Scores]:
    """Examples with all their segments, and everyone's ranks: what `evaluate_model` and `evaluate_baselines` found.

    Args:
      model: task → result, named `model` in the scores.
      simple: task → baseline → result.
    """
    scores = {}
    for task in [name for name in TASKS if name in model or name in simple]:
        found = {"model": model[task]} if task in model else {}
        examples, ranks = scores_of({**found, **simple.get(task, {})})
        segments = {**examples.segments, **segments_of(examples, inputs.uncontrolled(), split)}
        scores[task] = Scores(dataclasses.replace(examples, segments=segments), ranks)
    return scores


def _link_prediction(encoder: Encoder, inputs: Inputs, config: schema.Run, split: int, most: int) -> Result:
    entities, settings = encoder.model.layout.entities, config.evaluation
    assert entities is not None
    triples = inputs.graph.triples(split)
    rows = sample(np.arange(len(triples)), most)
    known = KnownTrue.of(inputs.real.graph.triples())  # of every split
    # One block that holds all entities is scored once, more blocks twice: rather a smaller batch than a smaller block.
    block = min(settings.block, entities.n_entities)
    batch = max(1, min(settings.batch_size, _SCORE_FLOATS // block))
    ranking = Ranking.of(triples[rows], known, inputs.graph.triples(TRAIN), entities.n_entities, batch, block)
    return numbered(ranking.result(entities, encoder.params[GRAPH], features_of(inputs)), rows)


def check_select(config: schema.Train, tasks: Iterable[str]) -> None:
    """Raises `UserError` if `train.select` names a task that is not measured: before the first step, not at a validation."""
    task, names = config.select.partition("/")[0], tuple(tasks)
    if config.select != "mean" and task not in names:
        raise UserError(f"train.select: '{config.select}': no task '{task}' is measured{nearest(task, names)}")


def selection(config: schema.Train, results: dict[str, Result]) -> float:
    """The number by which the best checkpoint is chosen, higher is better; `mean` leaves undefined metrics out.

    Raises:
      UserError: `train.select` names a task or metric that was not measured, or is undefined on the validation examples.
    """
    if config.select == "mean":
        values = [result.metrics[MAIN_METRIC[task]] for task, result in results.items()]
        defined = [value for value in values if np.isfinite(value)]
        return float(np.mean(defined)) if defined else 0.0
    check_select(config, results)
    task, _, metric = config.select.partition("/")
    if metric not in results[task].metrics:
        raise UserError(
            f"train.select: '{config.select}': {task} has no metric '{metric}'{nearest(metric, results[task].metrics)}"
        )
    value = results[task].metrics[metric]
    if not np.isfinite(value):
        raise UserError(f"train.select: '{config.select}': {metric} is undefined on the validation examples of {task}")
    return value
