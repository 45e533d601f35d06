"""Which examples a task has, which tasks a run has, and the number that chooses the best checkpoint."""

import dataclasses
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from fusionjax.config import schema
from fusionjax.data.inputs import Inputs, build_inputs
from fusionjax.data.shop import TEST, TRAIN, VALID, Events, Judgments, Products, Queries, Shop, Triples, Users
from fusionjax.data.shop import text_column as texts
from fusionjax.errors import UserError
from fusionjax.evaluation.metrics import Result
from fusionjax.tasks import TASKS
from fusionjax.tasks.base import sample
from fusionjax.tasks.evaluator import Evaluator, selection
from fusionjax.tasks.predictor import TripleScorers
from fusionjax.tasks.recommendation import recommendation_cases
from fusionjax.tasks.search import judged_queries

KEEP, FORBID = schema.Evaluation(exclude_seen=False), schema.Evaluation(exclude_seen=True)

JOURNEYS = [  # user, product, split; the row is the time
    *((0, 4, TRAIN), (0, 1, TRAIN), (0, 4, TRAIN), (0, 2, VALID), (0, 1, VALID), (0, 3, TEST), (0, 2, TEST), (0, 0, TEST)),
    *((1, 5, TRAIN), (1, 3, TRAIN)),
    *((2, 0, TEST), (2, 5, TEST)),
    *((3, 2, TRAIN), (3, 2, TEST)),
]


def make_shop() -> Shop:
    user, product, split = (np.array(column) for column in zip(*JOURNEYS, strict=True))
    n = len(JOURNEYS)
    return Shop(
        "s",
        products=Products.of([f"p{row}" for row in range(6)], title=[f"thing {row}" for row in range(6)]),
        triples=Triples.of(["p0", "p1", "p2"], ["r"] * 3, ["p1", "p2", "p0"], split=[TRAIN, TRAIN, TEST]),
        users=Users(texts(f"u{row}" for row in range(5))),
        events=Events(
            ("view",),
            user.astype(np.int32),
            product.astype(np.int32),
            np.zeros(n, np.int8),
            np.arange(n),
            np.full(n, -1, np.int32),
            split.astype(np.int8),
        ),
        queries=Queries(texts(f"q{row}" for row in range(4)), texts(f"thing {row}" for row in range(4))),
        judgments=Judgments(
            np.array([3, 0, 0, 1, 2, 2, 2], np.int32),
            np.array([0, 1, 2, 1, 5, 3, 0], np.int32),
            np.array([1, 2, 0, 3, 1, 2, 3], np.float32),
            np.array([TEST, TRAIN, TRAIN, VALID, TEST, TEST, TEST], np.int8),
        ),
    )


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    return build_inputs(make_shop(), run_config(), tmp_path_factory.mktemp("tokenizer"), log=lambda _: None)


def run_config(tasks: list[str] | None = None, **weights: float) -> schema.Run:
    objectives = {name: {"weight": weight} for name, weight in weights.items()}
    return schema.Run.model_validate({"text": {"vocab_size": 100}, "objectives": objectives, "evaluation": {"tasks": tasks}})


# -------------------------------------------------------------------------------------------------------- recommendation
def cases_of(inputs: Inputs, split: int, config: schema.Evaluation) -> dict[int, tuple[list[int], list[int]]]:
    cases = recommendation_cases(inputs, split, config)
    return {int(user): (cases.history[place].tolist(), cases.targets[place].tolist()) for place, user in enumerate(cases.user)}


def test_recommendation_cases_by_hand(inputs: Inputs) -> None:
    """History: all of earlier splits, oldest first; targets: what follows, without what is never recommended."""
    assert cases_of(inputs, TEST, FORBID) == {0: ([4, 1, 4, 2, 1], [0, 3]), 2: ([], [0, 5])}
    assert cases_of(inputs, TEST, KEEP) == {0: ([4, 1, 4, 2, 1], [0, 2, 3]), 2: ([], [0, 5]), 3: ([2], [2])}
    assert cases_of(inputs, VALID, FORBID) == {0: ([4, 1, 4], [2])}
    assert cases_of(inputs, VALID, KEEP) == {0: ([4, 1, 4], [1, 2])}


def test_the_user_tower_reads_up_to_the_split(inputs: Inputs) -> None:
    sequences = inputs.sequences
    assert sequences is not None
    for split in (VALID, TEST):
        cases = recommendation_cases(inputs, split, KEEP)
        for place, user in enumerate(cases.user):
            read = slice(sequences.offsets[user], cases.before[place])
            assert sequences.product[read].tolist() == cases.history[place].tolist()
            assert sequences.split[cases.before[place]] >= split


def test_the_latest_products_count_most_for_baselines(tmp_path: Path) -> None:
    """Item-kNN and BM25 weigh a history by age: it must reach them in the order of time, not of product numbers."""
    journeys = ([4, 1, 4, 1, 0, 5], [4, 3, 0, 2])  # latest before the test: 0, not the highest number
    rows = [(user, product, time) for user, journey in enumerate(journeys) for time, product in enumerate(journey)]
    user, product, time = (np.array(column) for column in zip(*rows, strict=True))
    split = np.where(np.append(user[1:] != user[:-1], True), TEST, TRAIN).astype(np.int8)
    events = Events(
        ("view",),
        user.astype(np.int32),
        product.astype(np.int32),
        np.zeros(len(rows), np.int8),
        time,
        np.full(len(rows), -1, np.int32),
        split,
    )
    shop = dataclasses.replace(make_shop(), users=Users(texts("uv")), events=events)
    found = build_inputs(shop, run_config(), tmp_path, log=lambda _: None)
    cases = recommendation_cases(found, TEST, FORBID)
    assert cases.history[0].tolist() == [4, 1, 4, 1, 0] and cases.history[1].tolist() == [4, 3, 0]


# ---------------------------------------------------------------------------------------------------------------- search
def test_judged_queries(inputs: Inputs) -> None:
    judged = judged_queries(inputs, TEST)
    assert judged.query.tolist() == [3, 2, 2, 2] and judged.product.tolist() == [0, 5, 3, 0]
    assert judged.grade.tolist() == [1, 1, 2, 3]
    one = judged_queries(inputs, TEST, 1)
    assert len(np.unique(one.query)) == 1 and len(one.query) == {2: 3, 3: 1}[int(one.query[0])]  # all of a query or none
    assert len(judged_queries(inputs, VALID).query) == 1


def test_sample() -> None:
    rows = np.arange(5, 1005)
    assert sample(rows, 0) is rows and sample(rows, 1000) is rows
    some = sample(rows, 50)
    assert len(np.unique(some)) == 50 and (np.diff(some) > 0).all() and np.isin(some, rows).all()
    np.testing.assert_array_equal(some, sample(rows.copy(), 50))
    assert some.max() > 800 and some.min() < 200  # from everywhere


# ----------------------------------------------------------------------------------------------------------------- tasks
def tasks_of(config: schema.Run, inputs: Inputs, split: int = TEST) -> tuple[str, ...]:
    return Evaluator(config, inputs).tasks(split)


def test_tasks_of(inputs: Inputs) -> None:
    assert tasks_of(run_config(), inputs) == ("link_prediction", "search", "recommendation")
    assert tasks_of(run_config(), inputs, VALID) == ("search", "recommendation")  # no validation triple
    assert tasks_of(run_config(["recommendation", "search"]), inputs) == ("search", "recommendation")
    assert tasks_of(run_config(query_product=0), inputs) == ("link_prediction", "recommendation")
    bare = dataclasses.replace(inputs, sequences=None, shop=dataclasses.replace(inputs.shop, judgments=None))
    assert tasks_of(run_config(), bare) == ("link_prediction",)


@pytest.mark.parametrize(
    ("task", "weights", "split", "said"),
    [
        ("search", {"query_product": 0.0}, TEST, r"search cannot be measured: objectives\.query_product\.weight is 0$"),
        ("recommendation", {"next_product": 0.0}, TEST, r"objectives\.next_product\.weight is 0$"),
        ("link_prediction", {}, VALID, r"link_prediction cannot be measured: the shop has no valid examples for it$"),
        ("link_prediction", {"link_prediction": 0.0}, VALID, r"weight is 0; the shop has no valid examples for it$"),
    ],
)
def test_a_named_task_that_cannot_be_measured(
    inputs: Inputs, task: str, weights: dict[str, float], split: int, said: str
) -> None:
    with pytest.raises(UserError, match=said):
        tasks_of(run_config([task], **weights), inputs, split)


def test_baselines_of_all_tasks(inputs: Inputs) -> None:
    found = Evaluator(run_config(), inputs).baselines()
    assert {task: sorted(by_name) for task, by_name in found.items()} == {
        "link_prediction": ["popularity", "random"],
        "search": ["bm25", "popularity", "random"],
        "recommendation": ["bm25", "item_knn", "popularity", "random"],
    }
    for task, by_name in found.items():
        assert all(0 <= result.metrics[TASKS[task].main] <= 1 for result in by_name.values())


# ------------------------------------------------------------------------------------------------------------- selection
RESULTS = {
    "link_prediction": Result({"mrr": 0.25, "hits@10": 0.5}, {}),
    "search": Result({"ndcg@10": 0.75, "recall@100": float("nan")}, {}),
}


def chosen(select: str, results: dict[str, Result] = RESULTS) -> float:
    return selection(schema.Run(train=schema.Train(steps=1, select=select)), results)


def test_selection() -> None:
    assert chosen("mean") == 0.5 and chosen("link_prediction/hits@10") == 0.5 and chosen("search/ndcg@10") == 0.75
    assert chosen("mean", {}) == 0.0
    undefined = Result({"ndcg@10": float("nan")}, {})
    assert chosen("mean", {"search": undefined}) == 0.0
    assert chosen("mean", {**RESULTS, "search": undefined}) == 0.25  # what is undefined does not make all so


@pytest.mark.parametrize(
    ("select", "said"),
    [
        ("serch/ndcg@10", r"'serch/ndcg@10': no task 'serch' is measured; did you mean 'search'\?"),
        ("search/ndcg10", r"search has no metric 'ndcg10'; did you mean 'ndcg@10'\?"),
        ("search", r"search has no metric ''; valid: ndcg@10, recall@100"),
        ("search/recall@100", r"recall@100 is undefined on the validation examples of search"),
        ("recommendation/mrr", r"no task 'recommendation' is measured"),
    ],
)
def test_a_wrong_selection_names_the_nearest(select: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        chosen(select)


def test_less_is_better_of_a_mean_rank() -> None:
    results = {"link_prediction": Result({"mr": 3.0, "mr/unseen": 5.0}, {})}
    assert chosen("link_prediction/mr", results) == -3.0 and chosen("link_prediction/mr/unseen", results) == -5.0


# ---------------------------------------------------------------------------------------------------------------- metrics
def with_metrics(**metrics: list[str]) -> schema.Run:
    return schema.Run.model_validate({"text": {"vocab_size": 100}, "evaluation": {"metrics": metrics}})


def test_metrics_are_chosen_by_the_config(inputs: Inputs) -> None:
    config = with_metrics(link_prediction=["hits@5", "amri"], recommendation=["recall@2", "map"])
    found = Evaluator(config, inputs).baselines()
    links = found["link_prediction"]["popularity"].metrics
    assert {"hits@5", "amri", "mrr", "mrr/tail"} <= set(links) and "hits@10" not in links  # the main one is always there
    users = found["recommendation"]["popularity"].metrics
    assert {"recall@2", "map", "ndcg@10", "coverage@2", "coverage@10"} <= set(users) and "recall@10" not in users
    assert any(name.startswith("recall@2/") for name in users)
    assert set(found["search"]["random"].metrics) >= {"ndcg@10", "recall@100"}
    with pytest.raises(UserError, match=r"evaluation\.metrics\.search: no metric 'hit@5'; did you mean 'hits@1"):
        Evaluator(with_metrics(search=["hit@5"]), inputs).tasks()


def test_a_selected_metric_is_measured(inputs: Inputs) -> None:
    config = schema.Run.model_validate({"text": {"vocab_size": 100}, "train": {"steps": 1, "select": "search/recall@3"}})
    assert TASKS["search"].names(config)[-1] == "recall@3" and "recall@3" not in TASKS["recommendation"].names(config)


# --------------------------------------------------------------------------------------------------- examples and a model
class Recites:
    """Scores a triple by whether it is among some."""

    def __init__(self, triples: np.ndarray, n_entities: int) -> None:
        self.table = np.zeros((n_entities, 4, n_entities), np.float32)
        self.table[tuple(triples.T)] = 1.0

    def triple_scorers(self) -> TripleScorers:
        def tails(params: Any, head: Any, relation: Any, candidates: Any) -> Any:
            return params[head, relation][:, candidates]

        def heads(params: Any, tail: Any, relation: Any, candidates: Any) -> Any:
            return params[candidates][:, relation, tail].T

        return TripleScorers(tails, heads, jnp.asarray(self.table), jnp.arange(len(self.table), dtype=jnp.int32))

    def score_triples(self, triples: np.ndarray) -> np.ndarray:
        return self.table[tuple(triples.T)]

    def unit_products(self) -> np.ndarray:
        return np.eye(6, dtype=np.float32)

    def queries(self, rows: np.ndarray) -> np.ndarray:
        return np.eye(6, dtype=np.float32)[rows]

    def users(self, user: np.ndarray, before: np.ndarray) -> np.ndarray:
        return np.eye(6, dtype=np.float32)[user]


def test_any_model_that_answers_is_measured_and_examples_are_prepared_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A joint shop with false triples: link prediction and triple classification are the same tasks as of a graph alone."""
    split = [TRAIN, TRAIN, VALID, TEST]
    triples = Triples.of(["p0", "p1", "p2", "p3"], ["r"] * 4, ["p1", "p2", "p0", "p4"], split=split)
    negatives = Triples.of(["p0", "p1"], ["r"] * 2, ["p4", "p3"], split=[VALID, TEST])
    shop = dataclasses.replace(make_shop(), triples=triples, negatives=negatives)
    found = build_inputs(shop, run_config(), tmp_path, log=lambda _: None)
    evaluator = Evaluator(run_config(), found)
    evaluator.check()
    assert evaluator.tasks() == ("link_prediction", "triple_classification", "search", "recommendation")
    assert evaluator.tasks(VALID) == ("link_prediction", "search", "recommendation")  # validation chooses the thresholds
    prepared: list[tuple[str, int]] = []
    for _, task in TASKS.items():
        before = task.examples
        monkeypatch.setattr(
            task,
            "examples",
            lambda data, split, task=task, before=before: prepared.append((task.name, split)) or before(data, split),
        )
    model = Recites(found.real.graph.triples(), len(found.graph.entities))
    for _ in range(3):
        valid = evaluator.validate(model)
    results, simple = evaluator.test(model), evaluator.baselines()
    assert len(prepared) == len(set(prepared)) == 7
    assert valid["link_prediction"].metrics["mrr"] == 1.0 == results["link_prediction"].metrics["hits@1"]
    assert results["triple_classification"].metrics["accuracy"] == 1.0
    assert set(simple["triple_classification"]) == {"always_true", "tail_frequency", "end_frequency"}
    stored = evaluator.scores(results, simple)
    assert stored["triple_classification"].values["model"].tolist() == [[1.0], [1.0]]
    assert stored["triple_classification"].examples.segments["relation"].labels == ("r",)
    assert stored["link_prediction"].examples.candidates is not None
    shown = evaluator.show(model)
    assert [len(shown[task]) for task in ("search", "recommendation")] == [2, 2] and not shown["link_prediction"]
    assert [hit.note for hit in shown["search"][0].results[:2]] == ["not judged", "grade 3"]
    assert evaluator.selected(valid) == selection(run_config(), valid)
    assert evaluator.headline(valid)[0] == ("link_prediction", "mrr", 1.0)
