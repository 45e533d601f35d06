"""The `search:` section of a study file: what it means, and every mistake it can hold."""

import textwrap
from pathlib import Path
from typing import Any

import pytest

from fusionjax.config import load_run
from fusionjax.config.search import Search, check_search, is_whole, with_params
from fusionjax.config.study import dump_study, load_study
from fusionjax.errors import UserError

STUDY = """
    question: Does it help?
    base: base.yaml
    rows: {a: {}}
    reference: a
    seeds: [0]
    tasks: {recommendation: [ndcg@10]}
    search:
      space:
        model.user.dropout: {low: 0, high: 0.6, step: 0.1}
        train.steps: {low: 10, high: 1000, log: true}
        model.user.heads: {choices: [1, 2]}
      trials: 20
      sampler: random
"""
DROPOUT, STEPS = "{low: 0, high: 0.6, step: 0.1}", "{low: 10, high: 1000, log: true}"


def read(folder: Path, study: str = STUDY) -> Search:
    (folder / "study.yaml").write_text(textwrap.dedent(study), encoding="utf-8")
    found = load_study(folder)[0].search
    assert found is not None
    return found


def make(space: dict[str, Any], **settings: Any) -> Search:
    return Search.model_validate({"space": space, "trials": 5, "sampler": "random", **settings})


def grid(space: dict[str, Any]) -> Search:
    return Search.model_validate({"space": space, "sampler": "grid"})


def test_a_section_is_read_and_round_trips(tmp_path: Path) -> None:
    found = read(tmp_path)
    assert (found.budget, found.sampler, found.pruner, found.seeds, found.rows) == (20, "random", "none", (0,), None)
    assert list(found.space) == ["model.user.dropout", "train.steps", "model.user.heads"]
    (tmp_path / "study.yaml").write_text(dump_study(load_study(tmp_path)[0]), encoding="utf-8")
    assert load_study(tmp_path)[0].search == found


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        # Settings.
        ("trials: 20", "trails: 20", r"study.yaml:13: search.trails: unknown key; did you mean 'trials'"),
        ("trials: 20", "trials: 0", r"study.yaml:13: search.trials: expected an integer ≥ 1 or null, got 0"),
        ("trials: 20", "trials: null", r"sampler random: give trials, the budget of each row"),
        ("sampler: random", "sampler: tpee", r"search.sampler: expected one of .*, got 'tpee'; did you mean 'tpe'"),
        ("sampler: random", "pruner: medain", r"search.pruner: expected one of .*; did you mean 'median'"),
        ("sampler: random", "p_threshold: 1.0", r"search.p_threshold: expected a number > 0 and < 1, got 1.0"),
        ("sampler: random", "seeds: []", r"search: seeds \[\]: give at least one, each once"),
        ("sampler: random", "seeds: [0, 1, 0]", r"search: seeds \[0, 1, 0\]: give at least one, each once"),
        ("sampler: random", "seeds: [-1]", r"search.seeds\[0\]: expected an integer ≥ 0"),
        ("sampler: random", "pruner: median\n      seeds: [0, 1]", r"pruner median follows one training: give one seed"),
        ("sampler: random", "pruner: wilcoxon\n      seeds: [0, 1]", r"pruner wilcoxon: with 2 seeds p is at least 0.5 before"),
        ("sampler: random", "pruner: wilcoxon\n      seeds: [0, 1, 2, 3]", r"at least 0.125 .* at p_threshold 0.1: give more"),
        ("sampler: random", "steps: 50", r"search: steps is given, and train.steps is in the space"),
        ("sampler: random", "metric: ndcg@10", r"metric 'ndcg@10': expected TASK/METRIC or mean"),
        ("sampler: random", "metric: recommendation/", r"metric 'recommendation/': expected TASK/METRIC or mean"),
        ("sampler: random", "metric: recommend/mrr", r"no task 'recommend'; did you mean 'recommendation'"),
        ("sampler: random", "sampler: grid", r"sampler grid: 'train.steps' is a range without steps: give step or choices"),
        # Keys.
        (
            "user.dropout", "user.dropuot",
            r"study.yaml:9: search.space: .*: no such key .*did you mean 'model.user.dropout'",
        ),
        ("model.user.dropout", "train.optimiser", r"'train.optimiser' is a section: name a key in it \(name, rules, "),
        ("model.user.dropout", "train.steps.more", r"'train.steps.more': no such key of a run"),
        ("model.user.dropout", "seed", r"'seed' cannot be searched: seeds are repetitions, not settings \(`search.seeds`\)"),
        ("model.user.dropout", "evaluation.max_valid", r"'evaluation.max_valid' cannot be searched: it changes what"),
        ("model.user.dropout", "train.select", r"'train.select' cannot be searched: .*`search.metric`"),
        ("model.user.dropout", "data.split.valid_share", r"'data.split.valid_share' cannot be searched: .*only data.graph may"),
        ("model.user.dropout", "track.wandb", r"'track.wandb' cannot be searched: it changes nothing that is measured"),
        ("model.user.dropout", "train.epochs", r"train.steps and train.epochs are both in the space"),
        ("model.user.dropout", "model.entity.scorer", r"'model.entity.scorer' takes no number: give its choices"),
        # Values.
        (DROPOUT, "{}", r"study.yaml:10: search.space.model.user.dropout: give low and high, or choices"),
        (DROPOUT, "{low: 0}", r"search.space.model.user.dropout: give low and high, or choices"),
        (DROPOUT, "0.1", r"dropout: expected a section of keys \(low, high, log, step, choices\), got 0.1"),
        (DROPOUT, "{low: 0, hihg: 1}", r"search.space.model.user.dropout.hihg: unknown key; did you mean 'high'"),
        (DROPOUT, "{low: a, high: 1}", r"search.space.model.user.dropout.low: expected .*a number.*, got 'a'"),
        (DROPOUT, "{low: true, high: 1}", r"search.space.model.user.dropout.low: expected .*a number.*, got true"),
        (DROPOUT, "{low: 0.5, high: 0.5}", r"low 0.5 must be smaller than high 0.5"),
        (DROPOUT, "{low: 0, high: 0.5, log: true}", r"log needs a low above 0, got 0"),
        (DROPOUT, "{low: 0.1, high: 0.5, log: true, step: 0.1}", r"give log or step, not both"),
        (DROPOUT, "{low: 0, high: 0.5, step: 0}", r"step 0 must be above 0"),
        (DROPOUT, "{low: 0, high: 0.5, step: 0.2}", r"step 0.2 does not lead from low 0 to high 0.5"),
        (DROPOUT, "{choices: []}", r"choices is empty"),
        (DROPOUT, "{choices: [0.1, 0.2, 0.1]}", r"choices holds 0.1 twice"),
        (DROPOUT, "{choices: [0.1], low: 0}", r"give choices, or low and high, not both"),
        (DROPOUT, "{choices: [0.1], log: true}", r"give choices, or low and high, not both"),
        (STEPS, "{low: 1.5, high: 10}", r"'train.steps' takes whole numbers: low is 1.5"),
        (STEPS, "{low: 1, high: 2, step: 0.5}", r"'train.steps' takes whole numbers: step is 0.5"),
    ],
)  # fmt: skip
def test_a_mistake_says_where_and_what_was_meant(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in STUDY
    with pytest.raises(UserError, match=message):
        read(tmp_path, STUDY.replace(old, new))


def test_an_empty_space_is_refused(tmp_path: Path) -> None:
    start, end = STUDY.index("space:"), STUDY.index("trials:")
    with pytest.raises(UserError, match=r"search.space: space is empty: name keys of a run and their values"):
        read(tmp_path, f"{STUDY[:start]}space: {{}}\n      {STUDY[end:]}")


def test_steps_of_a_trial_and_searched_epochs_exclude_each_other() -> None:
    with pytest.raises(ValueError, match=r"steps is given, and train\.epochs is in the space"):
        make({"train.epochs": {"low": 1, "high": 4}}, steps=10)


def test_a_grid_has_every_combination_of_the_numbers_as_written() -> None:
    found = grid({"model.user.dropout": {"low": 0.1, "high": 0.3, "step": 0.1}, "model.user.layers": {"low": 1, "high": 2}})
    points = [tuple(point.values()) for point in found.grid()]
    assert points == [(0.1, 1), (0.1, 2), (0.2, 1), (0.2, 2), (0.3, 1), (0.3, 2)]
    assert found.budget == found.points == 6 and all(type(layers) is int for _, layers in points)
    assert grid({"model.product.sources": {"choices": [["text"], ["text", "entity"]]}}).points == 2
    with pytest.raises(ValueError, match=r"sampler grid: the space has 2 points, trials is 3: leave trials out"):
        make({"model.user.layers": {"low": 1, "high": 2}}, sampler="grid", trials=3)


def test_a_range_holds_its_ends_and_its_steps_only() -> None:
    space = make(
        {
            "model.user.dropout": {"low": 0.1, "high": 0.7, "step": 0.2},
            "objectives.alignment.weight": {"low": 0.5, "high": 2},
            "model.product.sources": {"choices": [["text"], ["entity"]]},
            "model.user.layers": {"choices": [1, 2]},
        }
    ).space
    kept = {
        "model.user.dropout": ([0.1, 0.3, 0.5, 0.7], [0.2, 0.0, 0.9, True, "0.3"]),
        "objectives.alignment.weight": ([0.5, 1, 1.234, 2.0], [0.49, 2.01]),
        "model.product.sources": ([["text"]], [["text", "entity"], "text"]),
        "model.user.layers": ([1, 2], [True, 1.0, 3]),
    }
    for key, (inside, outside) in kept.items():
        assert all(space[key].holds(value) for value in inside) and not any(space[key].holds(value) for value in outside)


def test_keys_know_whether_they_take_whole_numbers() -> None:
    assert is_whole("train.steps") and is_whole("model.user.layers") and is_whole("objectives.next_product.batch_size")
    assert not is_whole("train.epochs") and not is_whole("model.user.dropout") and not is_whole("model.entity.scorer")


# ----------------------------------------------------------------------------------------------- values that a row refuses
BASE = load_run(None)


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"model.user.dropout": {"low": 0, "high": 1}}, r"^search.space: model.user.dropout: expected .* < 1, got 1.0$"),
        ({"model.user.dropout": {"choices": [0.1, "much"]}}, r"model.user.dropout: expected a number .*, got 'much'"),
        ({"model.entity.scorer": {"choices": ["transe", "complx"]}}, r"got 'complx'; did you mean 'complex'"),
        ({"model.product.sources": {"choices": [["text"], ["texts"]]}}, r"model.product.sources.*'texts'.*'text'"),
        ({"model.dim": {"choices": [64, 65]}}, r"dim 65 is not a multiple of user.heads 2"),
        ({"train.steps": {"choices": [-1, 5]}, "model.dim": {"choices": [0, 64]}}, r"train.steps.*\n.*model.dim"),
    ],
)
def test_a_value_that_the_row_refuses_is_found_before_the_first_trial(space: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_search(make(space), BASE)


def test_values_that_only_some_combinations_allow_pass_but_not_on_a_grid() -> None:
    space = {"model.dim": {"choices": [64, 63]}, "model.user.heads": {"choices": [2, 3]}}
    check_search(make(space), BASE)
    with pytest.raises(UserError, match=r'dim 64 is not a multiple of user.heads 3 \(grid point .*"model.user.heads": 3'):
        check_search(grid(space), BASE)


@pytest.mark.parametrize("metric", [None, "mean", "link_prediction/mrr"])
def test_another_graph_is_not_judged_by_its_own_links(metric: str | None) -> None:
    space = {"data.graph.co_view": {"choices": [0, 3]}}
    with pytest.raises(UserError, match=r"data.graph is in the space and changes which links are predicted"):
        check_search(make(space, metric=metric), BASE)
    check_search(make(space, metric="recommendation/ndcg@10"), BASE)


def test_a_run_with_changed_keys() -> None:
    changed = with_params(BASE, {"train.epochs": 2.5, "model.product.sources": ["entity"]})
    assert (changed.train.epochs, changed.train.steps, changed.model.product.sources) == (2.5, None, ("entity",))
    assert with_params(changed, {"train.steps": 7}).train.epochs is None
    assert with_params(BASE, {}) == BASE
    with pytest.raises(UserError, match=r"^here: model.dmi: unknown key; did you mean 'dim'"):
        with_params(BASE, {"model.dmi": 3}, {"model.dmi": "here"})
