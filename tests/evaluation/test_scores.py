"""Metrics from stored ranks: by hand, equal to the evaluation's own, and through files."""

import dataclasses
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fusionjax import pipeline
from fusionjax.config import schema
from fusionjax.data.shop import TEST
from fusionjax.errors import UserError
from fusionjax.evaluation import scores
from fusionjax.evaluation.metrics import Result, mean, per_example
from fusionjax.evaluation.scores import CORRECT, Examples, Measure, Segment
from fusionjax.runs import RunFolder
from fusionjax.serving import model as serving
from fusionjax.tasks.evaluator import Evaluator
from fusionjax.tasks.predictor import RunPredictor
from tests.shops import tiny_inputs, tiny_run

NAN = float("nan")
PARTS = Segment(("a", "b"), np.array([0, 1, 1, -1, 0]), of="target")


def examples(task: str = "recommendation", **changes: Any) -> Examples:
    """Three examples with two, one and two targets."""
    columns: dict[str, Any] = {"example": np.array([7, 2, 9]), "offsets": np.array([0, 2, 3, 5]), "target": np.arange(5)}
    return Examples(task, **{**columns, **changes})


RANKS = np.array([2.0, 12.0, 1.0, 10.5, 4.0])


# --------------------------------------------------------------------------------------------------------------- metrics
def test_recommendation_by_hand() -> None:
    found = per_example(examples(), RANKS)
    assert list(found) == ["mrr", "recall@10", "ndcg@10", "recall@20", "ndcg@20"]
    assert found["mrr"].tolist() == [1 / 2, 1.0, 1 / 4] and found["recall@10"].tolist() == [0.5, 1.0, 0.5]
    ideal = 1 + 1 / np.log2(3)
    np.testing.assert_allclose(found["ndcg@10"], [1 / np.log2(3) / ideal, 1.0, 1 / np.log2(5) / ideal], rtol=1e-12)
    assert set(per_example(examples(), RANKS, names=("mrr", "ndcg@1"))) == {"mrr", "ndcg@1"}


def test_a_segment_of_targets_by_hand() -> None:
    asked = examples(segments={"part": PARTS})
    first, second = (per_example(asked, RANKS, ("part", label)) for label in "ab")
    # a: the targets 0 and 4; b: 1 and 2. The third example has none in b, the second none in a.
    np.testing.assert_array_equal(first["mrr"], [1 / 2, NAN, 1 / 4])
    np.testing.assert_array_equal(first["recall@10"], [1.0, NAN, 1.0])
    np.testing.assert_array_equal(second["recall@10"], [0.0, 1.0, NAN])
    np.testing.assert_allclose(first["ndcg@10"], [1 / np.log2(3), NAN, 1 / np.log2(5)], rtol=1e-12)


@pytest.mark.parametrize("task", ["recommendation", "search"])
def test_a_segment_of_examples_selects_them(task: str) -> None:
    asked = examples(task, segments={"who": Segment(("x", "y"), np.array([1, -1, 1]), of="example")})
    whole, found = per_example(asked, RANKS), per_example(asked, RANKS, ("who", "y"))
    assert list(whole) == list(found)
    for name, values in found.items():
        np.testing.assert_array_equal(values, [whole[name][0], NAN, whole[name][2]])
    assert all(np.isnan(values).all() for values in per_example(asked, RANKS, ("who", "x")).values())


def test_search_by_hand() -> None:
    asked = examples("search", grade=np.array([3.0, 1.0, 0.0, 2.0, 0.5]))
    found = per_example(asked, RANKS)
    np.testing.assert_array_equal(found["mrr"], [1 / 2, NAN, 1 / 10.5])  # a grade of 0.5 gains, but is not relevant
    np.testing.assert_array_equal(found["hits@1"], [0.0, NAN, 0.0])
    np.testing.assert_array_equal(found["recall@10"], [0.5, NAN, 0.0])
    np.testing.assert_array_equal(found["recall@100"], [1.0, NAN, 1.0])
    linear = [(3 / np.log2(3)) / (3 + 1 / np.log2(3)), NAN, (0.5 / np.log2(5)) / (2 + 0.5 / np.log2(3))]
    np.testing.assert_allclose(found["ndcg@10"], linear, rtol=1e-12)
    np.testing.assert_allclose(found["ndcg_exp@10"][0], (7 / np.log2(3)) / (7 + 1 / np.log2(3)), rtol=1e-12)
    strict = per_example(asked, RANKS, relevant_grade=3.0)
    np.testing.assert_array_equal(strict["mrr"], [1 / 2, NAN, NAN])
    np.testing.assert_array_equal(strict["ndcg@10"], found["ndcg@10"])


def triples(**changes: Any) -> Examples:
    direction = Segment(("tail", "head"), np.array([0, 1, 0, 1]), of="target")
    relation = Segment(("likes", "has"), np.array([1, 0]), of="example")
    columns: dict[str, Any] = {"example": np.arange(2), "offsets": np.array([0, 2, 4]), "target": np.array([5, 1, 6, 2])}
    return Examples("link_prediction", **{**columns, "segments": {"direction": direction, "relation": relation}, **changes})


def test_link_prediction_is_the_mean_of_the_directions_that_count() -> None:
    ranks = np.array([1.0, 4.0, 2.5, 11.0])
    found = per_example(triples(), ranks)
    assert found["mrr"].tolist() == [(1 + 1 / 4) / 2, (1 / 2.5 + 1 / 11) / 2]
    assert [found[f"hits@{k}"].tolist() for k in (1, 3, 10)] == [[0.5, 0.0], [0.5, 0.5], [1.0, 0.5]]
    assert per_example(triples(), ranks, ("direction", "tail"))["mrr"].tolist() == [1.0, 1 / 2.5]
    assert per_example(triples(), ranks, ("direction", "head"))["hits@10"].tolist() == [1.0, 0.0]
    np.testing.assert_array_equal(per_example(triples(), ranks, ("relation", "has"))["mrr"], [found["mrr"][0], NAN])


def test_no_examples_give_no_values() -> None:
    empty = Examples("link_prediction", np.zeros(0, int), np.zeros(1, int), np.zeros(0, int))
    assert all(len(values) == 0 for values in per_example(empty, np.zeros(0)).values())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: per_example(examples(), RANKS[1:]), "recommendation: 4 ranks for 5 targets"),
        (lambda: per_example(examples(), RANKS - 1.5), "ranks start at 1, not -0.5"),
        (
            lambda: per_example(examples(segments={"part": PARTS}), RANKS, ("parts", "a")),
            "no segment 'parts'; did you mean 'part'",
        ),
        (lambda: per_example(examples(segments={"part": PARTS}), RANKS, ("part", "c")), "segment 'part' has no label 'c'"),
        (lambda: per_example(examples("juggling"), RANKS), "no metrics are known for task 'juggling'"),
        (lambda: examples(offsets=np.array([0, 2, 5])), "3 offsets for 3 examples"),
        (lambda: examples(offsets=np.array([0, 2, 3, 4])), "offsets must run from 0 to 5"),
        (lambda: examples(grade=np.ones(4)), "4 grades for 5 targets"),
        (lambda: examples(segments={"part": Segment(("a",), np.zeros(5), of="example")}), "5 codes for 3 examples"),
        (lambda: Segment(("a", "b"), np.array([0, 2]), of="target"), "codes from 0 to 2 for 2 labels"),
        (lambda: triples(offsets=np.array([0, 1, 4])), "every triple has two targets"),
        (lambda: scores.scores_of({"model": Result({}, {})}), "model: the result keeps no ranks"),
    ],
)
def test_what_does_not_fit_is_refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_methods_measured_on_other_examples_are_refused() -> None:
    one = Result({}, {}, examples=examples(), ranks=RANKS)
    other = dataclasses.replace(one, examples=examples(target=np.arange(5)[::-1]))
    assert list(scores.scores_of({"model": one, "bm25": one}).values) == ["model", "bm25"]
    with pytest.raises(ValueError, match="bm25 was measured on other examples than model"):
        scores.scores_of({"model": one, "bm25": other})


def test_the_digest_is_of_what_was_asked() -> None:
    digest = examples().digest()
    assert digest == examples(example=np.array([7, 2, 9], np.int32), segments={"part": PARTS}).digest()
    changed = [
        examples("search"),
        examples(example=np.array([7, 2, 8])),
        examples(offsets=np.array([0, 1, 3, 5])),
        examples(target=np.array([0, 1, 2, 4, 3])),
        examples(grade=np.ones(5)),
        examples(grade=np.array([1, 1, 1, 1, 0.5])),
    ]
    assert len({digest, *(each.digest() for each in changed)}) == 1 + len(changed)


# ----------------------------------------------------------------------------------------------------------------- files
def equal(one: Examples, other: Examples) -> bool:
    same = one.task == other.task and list(one.segments) == list(other.segments) and one.digest() == other.digest()
    return same and all(
        (ours.labels, ours.of) == (theirs.labels, theirs.of) and np.array_equal(ours.codes, theirs.codes)
        for ours, theirs in zip(one.segments.values(), other.segments.values(), strict=True)
    )


MANY = [
    examples(segments={"part": PARTS, "长度": Segment(("0–3", "4+"), np.array([1, 0, -1], np.int8), of="example")}),
    examples("search", grade=np.array([3, 1, 0, 2, 1 / 3]), target=np.array([100_000, 3, 70_000, 0, 2**33])),
    examples("search", grade=np.array([3, 1, 0, 2, 0.5]), example=np.array([-3, 2**40, 5])),
    triples(segments={"relation": Segment(tuple(f"r{row}" for row in range(300)), np.array([299, 0]), of="example")}),
    Examples("link_prediction", np.zeros(0, int), np.zeros(1, int), np.zeros(0, int)),
]


@pytest.mark.parametrize("asked", MANY)
def test_round_trip(asked: Examples, tmp_path: Path) -> None:
    ranks = {"model": RANKS[: len(asked.target)], "item_knn": np.linspace(1, 90_000, 179_999)[-len(asked.target) or 179_999 :]}
    scores.save_scores(tmp_path / "new" / "x.npz", asked, ranks)
    scores.save_examples(tmp_path / "e.npz", asked)
    again, found = scores.load_scores(tmp_path / "new" / "x.npz")
    assert equal(asked, again) and equal(asked, scores.load_examples(tmp_path / "e.npz"))
    assert list(found) == list(ranks) and (again.grade is None or again.grade.dtype == np.float64)
    for name, values in found.items():
        np.testing.assert_array_equal(values, ranks[name])
    assert again.target.dtype == again.offsets.dtype == np.int64
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["x.npz"]


def test_what_a_study_stores_names_no_target_and_gives_the_same_metrics(tmp_path: Path) -> None:
    asked = MANY[0]
    scores.save_examples(tmp_path / "e.npz", asked)
    with np.load(tmp_path / "e.npz") as file:
        assert "target" not in file.files and "lengths" in file.files
    blind = scores.load_examples(tmp_path / "e.npz")
    assert set(blind.target.tolist()) == {-1} and blind.digest() == asked.digest()
    for segment in (None, ("part", PARTS.labels[0])):
        ours, theirs = (per_example(each, RANKS[: len(asked.target)], segment) for each in (asked, blind))
        assert all(np.array_equal(ours[name], theirs[name], equal_nan=True) for name in ours)
    scores.save_examples(tmp_path / "again.npz", blind)
    assert (tmp_path / "again.npz").read_bytes() == (tmp_path / "e.npz").read_bytes()


def test_ranks_round_trip_in_the_smallest_type(tmp_path: Path) -> None:
    file = tmp_path / "r.npz"
    ranks = {
        "search": np.array([1.0, 1.5, 32767.5]),
        "link_prediction": np.array([32768.0, 2.0**31 - 0.5]),
        "empty": np.zeros(0),
    }
    scores.save_values(file, ranks)
    found = scores.load_values(file)
    assert list(found) == list(ranks)
    assert all(np.array_equal(found[name], ranks[name]) and found[name].dtype == np.float64 for name in ranks)
    assert [np.load(file)[f"rank.{name}"].dtype for name in ranks] == [np.uint16, np.uint32, np.uint16]


@pytest.mark.parametrize("wrong", [0.5, 1.25, NAN, np.inf, 2.0**31])
def test_ranks_that_cannot_be_are_not_written(wrong: float, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"search: ranks must be multiples of 1/2 from 1 to .* got (0.5|1.25|nan|inf|2147483648.0)"
    ):
        scores.save_values(tmp_path / "r.npz", {"search": np.array([1.0, wrong, 2.0])})
    with pytest.raises(ValueError, match="model: 3 ranks for 5 targets"):
        scores.save_scores(tmp_path / "s.npz", examples(), {"model": np.ones(3)})
    assert not list(tmp_path.iterdir())


def test_equal_content_gives_equal_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scores.save_scores(tmp_path / "a.npz", MANY[0], {"model": RANKS})
    monkeypatch.setattr("time.time", lambda: 2e9)
    scores.save_scores(tmp_path / "b.npz", scores.load_scores(tmp_path / "a.npz").examples, {"model": RANKS})
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.npz") as archive:
        assert {member.date_time for member in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_damage_is_found_and_the_file_named(tmp_path: Path) -> None:
    file, bad = tmp_path / "s.npz", tmp_path / "bad.npz"
    asked = examples(example=np.arange(300), offsets=np.arange(301), target=np.arange(300) ** 2 % 97)
    scores.save_scores(file, asked, {"model": 1.0 + asked.target})
    whole = file.read_bytes()
    with zipfile.ZipFile(file) as archive:
        inside = archive.getinfo("rank.model.npy").header_offset + 60
    damaged = [
        b"",
        b"hello",
        whole[:-1],
        whole[: len(whole) // 2],
        whole[:inside] + bytes([whole[inside] ^ 8]) + whole[inside + 1 :],
    ]
    for content in damaged:
        bad.write_bytes(content)
        with pytest.raises(UserError, match=r"bad\.npz: damaged, or no file of scores"):
            scores.load_scores(bad)
    with pytest.raises(UserError, match=r"none\.npz: cannot be read: No such file"):
        scores.load_values(tmp_path / "none.npz")
    with pytest.raises(UserError, match="holds scores in format 1, expected ranks"):
        scores.load_values(file)


def test_pickles_are_not_opened(tmp_path: Path) -> None:
    np.savez(tmp_path / "p.npz", meta=np.array([print], dtype=object))
    with pytest.raises(UserError, match=r"p\.npz: damaged.*allow_pickle=False"):
        scores.load_scores(tmp_path / "p.npz")


# --------------------------------------------------------------------------------------------------------- a trained run
@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, schema.Run]:
    lean = ("model.product.sources=[entity]", "objectives.alignment.weight=0", "train={steps: 2, validate_every: 2}")
    config = tiny_run("evaluation.baselines=true", "evaluation.max_test=40", *lean)
    return pipeline.run(config, tmp_path_factory.mktemp("run"), "tiny", say=lambda _: None), config


def expected_means(asked: Examples, ranks: np.ndarray) -> dict[str, float]:
    """All of results.json that ranks alone determine."""
    found = {name: mean(values) for name, values in per_example(asked, ranks).items()}
    for name, kept in (("popularity", ("recall@", "ndcg@")), ("direction", ("mrr",))):
        if asked.task == "search" or name not in ("popularity" if asked.task == "recommendation" else "direction"):
            continue
        for label in asked.segments[name].labels:
            inside = per_example(asked, ranks, (name, label))
            found |= {f"{metric}/{label}": mean(values) for metric, values in inside.items() if metric.startswith(kept)}
    return {name: value for name, value in found.items() if not np.isnan(value)}


def test_stored_ranks_give_the_results_of_the_run_bit_for_bit(trained: tuple[RunFolder, schema.Run]) -> None:
    home, config = trained
    results = home.results()
    assert sorted(file.name for file in home.scores.iterdir()) == [f"{task}.npz" for task in sorted(results["test"])]
    assert len(results["test"]) == 3
    best = serving.from_checkpoint(config, tiny_inputs(config), home)
    inputs = tiny_inputs(config)
    live = Evaluator(config, inputs).test(RunPredictor(best.encoder, best.bank, inputs))
    for task, metrics in results["test"].items():
        asked, ranks = scores.load_scores(home.scores / f"{task}.npz")
        assert list(ranks) == ["model", *results["baselines"][task]] and 0 < len(asked) <= 40
        for name, values in ranks.items():
            published = metrics if name == "model" else results["baselines"][task][name]
            counts = ("users", "queries", "triples", "coverage@", "mrr/optimistic", "mrr/pessimistic")  # not of ranks alone
            rest = {metric: value for metric, value in published.items() if not metric.startswith(counts) and value is not None}
            assert expected_means(asked, values) == rest
        result = live[task]
        assert result.ranks is not None and result.examples is not None
        np.testing.assert_array_equal(ranks["model"], result.ranks)
        assert asked.digest() == result.examples.digest()
        for metric, values in per_example(asked, ranks["model"]).items():
            np.testing.assert_array_equal(values, result.per_example[metric])


def test_examples_are_named_by_their_rows(trained: tuple[RunFolder, schema.Run]) -> None:
    home, config = trained
    inputs = tiny_inputs(config)
    asked = {task: scores.load_scores(home.scores / f"{task}.npz").examples for task in home.results()["test"]}
    triples = inputs.graph.triples(TEST)
    found = asked["link_prediction"]
    assert len(found) == 40 < len(triples) and found.target.tolist() == triples[found.example][:, [2, 0]].reshape(-1).tolist()
    sequences = inputs.sequences
    assert sequences is not None
    for row, user in enumerate(asked["recommendation"].example):
        own = slice(sequences.offsets[user], sequences.offsets[user + 1])
        later = set(sequences.product[own][sequences.split[own] == TEST].tolist())
        assert set(asked["recommendation"].ragged()[row].tolist()) <= later
    judged = inputs.shop.judgments
    for row, query in enumerate(asked["search"].example):
        assert sorted(asked["search"].ragged()[row].tolist()) == sorted(judged.product[judged.query == query].tolist())


def test_baselines_alone_and_measuring_again_give_the_same(trained: tuple[RunFolder, schema.Run]) -> None:
    home, config = trained
    before = {file.name: file.read_bytes() for file in home.scores.iterdir()}
    results, found = pipeline.measure_baselines(tiny_inputs(config), config)
    assert results["baselines"] == home.results()["baselines"] and list(results["sampled"]) == ["test"]
    for task, (asked, ranks) in found.items():
        stored, everyone = scores.load_scores(home.scores / f"{task}.npz")
        assert equal(asked, stored) and list(ranks) == [name for name in everyone if name != "model"]
        assert all(np.array_equal(values, everyone[name]) for name, values in ranks.items())
    (home.scores / "search.npz").unlink()
    assert pipeline.evaluate(home.path, say=lambda _: None)[1]
    assert {file.name: file.read_bytes() for file in home.scores.iterdir()} == before


# ------------------------------------------------------------------------------------------------------------ plain values
MONEY = Measure("money", unit="EUR")
LOSS = Measure("log_loss", higher_is_better=False, unit="nats")
LABELS = np.array([1, 1, 1, 0, 0, 0])
RIGHT = np.array([1.0, 1.0, 0.0, 1.0, 0.0, 0.0])


def told(**more: Any) -> Examples:
    kind = Segment(("a", "b"), np.array([0, 0, 0, 0, 1, 1], np.int8), of="example")
    given = {"grade": LABELS.astype(float), "segments": {"kind": kind}, "measures": (CORRECT,), **more}
    return Examples("triple_classification", np.arange(6), np.arange(7), LABELS, **given)


def test_right_and_wrong_answers_by_hand() -> None:
    # Called true: 0, 1 (right), 4 and 5 (wrong). Precision 2/4, recall 2/3, F1 4/7.
    found = per_example(told(), RIGHT[:, None])
    assert list(found) == ["accuracy", "f1", "precision", "recall"]
    means = {name: mean(values) for name, values in found.items()}
    assert means == pytest.approx({"accuracy": 0.5, "f1": 4 / 7, "precision": 0.5, "recall": 2 / 3}, abs=1e-12)
    inside = {name: mean(values) for name, values in per_example(told(), RIGHT[:, None], ("kind", "a")).items()}
    assert inside == pytest.approx({"accuracy": 0.75, "f1": 0.8, "precision": 1.0, "recall": 2 / 3}, abs=1e-12)
    assert np.isnan(found["recall"][3:]).all()
    nothing = np.where(LABELS == 1, 0.0, 1.0)[:, None]  # all called false
    assert mean(per_example(told(), nothing, names=["f1"])["f1"]) == 0.0


def test_the_spread_of_linearised_f1_is_that_of_resampled_f1() -> None:
    random = np.random.default_rng(0)
    label, right = random.integers(0, 2, 2000), (random.random(2000) < 0.8).astype(float)
    asked = Examples("t", np.arange(2000), np.arange(2001), label, label.astype(float), measures=(CORRECT,))
    values = per_example(asked, right[:, None], names=["f1"])["f1"]
    rows = random.integers(0, 2000, (1000, 2000))
    hits = (right * label)[rows].sum(1)
    called = np.where(label == 1, right, 1 - right)[rows].sum(1)
    resampled = 2 * hits / (called + label[rows].sum(1))
    assert np.std(values) / np.sqrt(2000) == pytest.approx(resampled.std(), rel=0.1)


def test_measures_are_metrics_by_their_own_name() -> None:
    asked = told(measures=(MONEY, LOSS), grade=None)
    values = np.stack([np.arange(6.0), np.linspace(0.1, 0.6, 6)], axis=1)
    found = per_example(asked, values)
    assert found["money"].tolist() == values[:, 0].tolist() and found["log_loss"].tolist() == values[:, 1].tolist()
    with pytest.raises(UserError, match="no metric 'mony'; did you mean 'money'"):
        per_example(asked, values, names=["mony"])
    with pytest.raises(ValueError, match=r"values of shape \[6, 1\], expected \[6, 2\]"):
        per_example(asked, values[:, :1])


def test_plain_values_round_trip_beside_ranks(tmp_path: Path) -> None:
    both = np.stack([np.arange(6.0) + 0.1, np.full(6, NAN)], axis=1)
    for measures, values, dtype in (((CORRECT,), RIGHT[:, None], np.uint8), ((MONEY, LOSS), both, np.float64)):
        asked = told(measures=measures, candidates=np.full(6, 9))
        scores.save_scores(tmp_path / "s.npz", asked, {"model": values})
        stored, found = scores.load_scores(tmp_path / "s.npz")
        assert (
            equal(stored, asked) and stored.measures == measures and np.load(tmp_path / "s.npz")["value.model"].dtype == dtype
        )
        np.testing.assert_array_equal(found["model"], values)
        scores.save_examples(tmp_path / "e.npz", asked)
        blind = scores.load_examples(tmp_path / "e.npz")
        assert blind.measures == measures and blind.digest() == asked.digest() and blind.candidates is not None
    scores.save_values(tmp_path / "v.npz", {"link_prediction": RANKS, "triple_classification": RIGHT[:, None]})
    found = scores.load_values(tmp_path / "v.npz")
    assert (
        found["link_prediction"].tolist() == RANKS.tolist()
        and found["triple_classification"].tolist() == RIGHT[:, None].tolist()
    )
    with pytest.raises(ValueError, match="plain values need one target an example"):
        dataclasses.replace(examples(), measures=(CORRECT,))
