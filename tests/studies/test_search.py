"""Search of hyper-parameters: the same for every row, resumable, shared by workers, and recomputed from its traces."""

import dataclasses
import functools
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optuna
import pytest
from optuna.trial import TrialState, create_trial

from fusionjax import cli
from fusionjax.config import load_run
from fusionjax.config.schema import Run
from fusionjax.config.search import Params, Search
from fusionjax.errors import Interrupted, NonFiniteLoss, UserError
from fusionjax.pipeline import Validated
from fusionjax.studies.claims import open_storage, this_worker
from fusionjax.studies.plan import make_plan
from fusionjax.studies.search import progress, search_rows
from fusionjax.studies.trace import Record, Trace, Training, choose, load_chosen, read_trace, trace_file, verify_search
from fusionjax.training.journal import OnValidation
from tests.studies.small import BASE, STUDY, write

RATE, DROPOUT, SOURCES = "train.optimiser.learning_rate.tables", "model.user.dropout", "model.product.sources"
SPACE = {
    RATE: {"low": 1e-4, "high": 1e-1, "log": True},
    DROPOUT: {"low": 0, "high": 0.6, "step": 0.1},
    SOURCES: {"choices": [["entity"], ["text", "entity"]]},
}
ROWS = {"real": {}, "none": {"data.controls.graph": "none"}}


def make(**changes: Any) -> Search:
    return Search.model_validate({"space": SPACE, "trials": 8, "startup": 3, **changes})


@pytest.fixture(scope="module")
def configs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    file = tmp_path_factory.mktemp("base") / "base.yaml"
    file.write_text(textwrap.dedent(BASE), encoding="utf-8")
    return {row: load_run(file, [f"{key}={value}" for key, value in changes.items()]) for row, changes in ROWS.items()}


def params(config: Run) -> Params:
    sources = list(config.model.product.sources)
    return {RATE: config.train.optimiser.learning_rate.tables, DROPOUT: config.model.user.dropout, SOURCES: sources}


def good(config: Run) -> float:
    """Best at a rate of 0.01 without dropout."""
    return 1.0 - (np.log10(config.train.optimiser.learning_rate.tables) + 2) ** 2 / 4 - config.model.user.dropout / 4


@dataclasses.dataclass
class Fake:
    """A trainer that trains nothing: three validations, of which the second is the best."""

    value: Callable[[Run], float] = good
    stop: int | None = None
    """Number of the training that SIGTERM ends."""
    before: Callable[[Run], None] = lambda _: None
    seen: list[tuple[str, Run, Path]] = dataclasses.field(default_factory=list)
    """(name, config, folder) of each training that began."""

    def __call__(
        self,
        config: Run,
        folder: Path,
        name: str,
        say: Callable[[str], None],
        on_validation: OnValidation | None,
        fingerprint: str | None,
    ) -> Validated:
        assert on_validation is not None and fingerprint is not None and len(fingerprint) == 64
        self.seen.append((name, config, folder))
        folder.mkdir(exist_ok=True)
        if len(self.seen) - 1 == self.stop:
            raise Interrupted("stopped by SIGTERM")
        self.before(config)
        curve: dict[int, float] = {}
        for step, share in ((2, 0.5), (4, 1.0), (6, 0.9)):
            curve[step] = float(self.value(config)) * share
            if on_validation(step, curve[step]):
                break
        best = max(curve, key=lambda step: curve[step])
        return Validated(curve[best], best, max(curve), curve)

    @property
    def drawn(self) -> list[Params]:
        return [params(config) for _, config, _ in self.seen]


def find(
    home: Path, configs: Mapping[str, Run], search: Search, trainer: Fake | None = None, wait: bool = True
) -> dict[str, Params]:
    storage = open_storage(None, home / "runs")
    return search_rows("study", configs, search, storage, home, lambda _: None, wait=wait, trainer=trainer or Fake())


def records(home: Path, row: str = "real") -> list[Record]:
    """Of a row's trace, without the time they took."""
    trace = read_trace(home, row)
    assert trace is not None
    return [dataclasses.replace(record, seconds=0.0) for record in trace.records]


def only(configs: Mapping[str, Run], row: str = "real") -> dict[str, Run]:
    return {row: configs[row]}


# ------------------------------------------------------------------------------------------------------------ a fair search
@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_every_row_gets_the_same_budget_and_draws(tmp_path: Path, configs: dict[str, Run], sampler: str) -> None:
    trainer = Fake()
    find(tmp_path, configs, make(sampler=sampler), trainer)
    one, other = (records(tmp_path, row) for row in ROWS)
    assert [record.trial for record in one] == [record.trial for record in other] == list(range(8))
    assert [record.params for record in one] == [record.params for record in other]
    assert len({json.dumps(record.params) for record in one}) == 8
    controls = {name.split(",")[0]: config.data.controls.graph for name, config, _ in trainer.seen}
    assert controls == {"real": "real", "none": "none"} and len(trainer.seen) == 16
    assert {config.seed for _, config, _ in trainer.seen} == {0}
    assert not list((tmp_path / "runs" / "search").rglob("0*")), "run folders of ended trials take room"


def test_another_sampler_seed_draws_other_trials(tmp_path: Path, configs: dict[str, Run]) -> None:
    one, same, other = Fake(), Fake(), Fake()
    find(tmp_path / "one", only(configs), make(trials=3), one)
    find(tmp_path / "same", only(configs), make(trials=3), same)
    find(tmp_path / "other", only(configs), make(trials=3, seed=1), other)
    assert one.drawn == same.drawn and all(left != right for left, right in zip(one.drawn, other.drawn, strict=True))


def test_tpe_comes_closer_than_its_random_start(tmp_path: Path, configs: dict[str, Run]) -> None:
    find(tmp_path, only(configs), make(trials=24, startup=8))
    values = [record.value or 0.0 for record in records(tmp_path)]
    assert np.mean(values[16:]) > np.mean(values[:8]) + 0.1


def test_the_best_by_the_search_s_metric_is_chosen_the_earliest_of_equals(tmp_path: Path, configs: dict[str, Run]) -> None:
    values = iter([0.1, 0.4, 0.4, 0.2])
    trainer = Fake(value=lambda _: 0.0)
    trainer.before = lambda _: setattr(trainer, "value", functools.partial(lambda value, _: value, next(values)))
    search = make(trials=4, metric="recommendation/ndcg@10", steps=3, seed=7)
    found = find(tmp_path, only(configs), search, trainer)
    assert found == load_chosen(tmp_path) == {"real": trainer.drawn[1]}
    assert {(config.train.select, config.train.steps) for _, config, _ in trainer.seen} == {("recommendation/ndcg@10", 3)}
    chosen = (tmp_path / "search" / "chosen.yaml").read_text(encoding="utf-8")
    assert "trial: 1\n" in chosen and "metric: recommendation/ndcg@10" in chosen and "validation: 0.4" in chosen


def test_a_trial_is_judged_by_the_mean_of_its_seeds(tmp_path: Path, configs: dict[str, Run]) -> None:
    trainer = Fake(value=lambda config: good(config) + config.seed)
    find(tmp_path, only(configs), make(trials=2, seeds=[3, 5]), trainer)
    assert [config.seed for _, config, _ in trainer.seen] == [3, 5, 3, 5]
    for record, (_, config, _) in zip(records(tmp_path), trainer.seen[::2], strict=True):
        assert record.value == pytest.approx(good(config) + 4.0)
        assert [one.seed for one in record.trainings] == [3, 5] and record.trainings[0].best_step == 4
        assert list(record.trainings[0].curve) == [2, 4, 6]


def test_a_grid_has_each_point_once(tmp_path: Path, configs: dict[str, Run]) -> None:
    space = {DROPOUT: {"low": 0.1, "high": 0.3, "step": 0.1}, SOURCES: SPACE[SOURCES]}
    search = Search.model_validate({"space": space, "sampler": "grid"})
    found = find(tmp_path, configs, search)
    for row in ROWS:
        assert [record.params for record in records(tmp_path, row)] == list(search.grid()) and search.budget == 6
        assert found[row] == {DROPOUT: 0.1, SOURCES: ["entity"]}


def test_only_the_named_rows_are_searched(tmp_path: Path, configs: dict[str, Run]) -> None:
    assert set(find(tmp_path, configs, make(trials=1, rows=["none"]))) == {"none"}
    assert read_trace(tmp_path, "real") is None
    with pytest.raises(UserError, match=r"search.rows: no row 'raal'; did you mean 'real'"):
        find(tmp_path, configs, make(rows=["raal"]))
    with pytest.raises(UserError, match=r"rows 'a/b' and 'A b' would write the same trace, search/A_b.jsonl: rename one"):
        find(tmp_path, {"a/b": configs["real"], "A b": configs["none"]}, make())
    with pytest.raises(UserError, match=r"row 'real': search.space: model.user.dropout: expected .*, got 1.5"):
        find(tmp_path, configs, make(space={DROPOUT: {"low": 0.5, "high": 1.5}}))


def test_what_was_chosen_changes_the_cells_of_a_plan(tmp_path: Path) -> None:
    home = write(tmp_path / "study")
    before = make_plan(home)
    rows = {row: before.cell(row, 0).config for row in before.rows}
    found = find(home, rows, make(rows=["real"]))
    after = make_plan(home, chosen=load_chosen(home))
    assert [params(after.cell("real", seed).config) for seed in (0, 1)] == [found["real"]] * 2
    for seed in (0, 1):
        assert after.cell("real", seed).digest != before.cell("real", seed).digest
        assert after.cell("tails_shuffled", seed) == before.cell("tails_shuffled", seed)


# --------------------------------------------------------------------------------------------------------- stopped, goes on
@pytest.mark.parametrize("pruner", ["none", "median"])
def test_an_interrupted_search_ends_with_the_trials_of_an_undisturbed_one(
    tmp_path: Path, configs: dict[str, Run], pruner: str
) -> None:
    search = make(pruner=pruner)
    undisturbed = find(tmp_path / "undisturbed", configs, search)
    trainers = []
    for stop in (2, 0, 1, 7, None):
        trainers.append(Fake(stop=stop))
        try:
            found = find(tmp_path / "stopped", configs, search, trainers[-1])
        except Interrupted:
            continue
    assert found == undisturbed and sum(len(trainer.seen) for trainer in trainers) == 16 + 4
    for row in ROWS:
        assert records(tmp_path / "stopped", row) == records(tmp_path / "undisturbed", row)
    for stopped, then in itertools.pairwise(trainers):
        assert stopped.seen[-1] == then.seen[0], "the trial that was stopped goes on in its own folder"


def test_a_fresh_clone_goes_on_from_the_traces_alone(tmp_path: Path, configs: dict[str, Run]) -> None:
    def diverge(config: Run) -> None:
        if config.train.optimiser.learning_rate.tables > 0.05:
            raise NonFiniteLoss("step 3: the loss of next_product is not finite")

    search = make(trials=12, pruner="median", seed=2)
    find(tmp_path / "whole", only(configs), search, Fake(before=diverge))
    whole = records(tmp_path / "whole")
    assert {record.state for record in whole[:9]} == {"complete", "pruned", "failed"}
    with pytest.raises(Interrupted):
        find(tmp_path / "part", only(configs), search, Fake(stop=9, before=diverge))
    shutil.copytree(tmp_path / "part" / "search", tmp_path / "clone" / "search")
    trainer = Fake(before=diverge)
    found = find(tmp_path / "clone", only(configs), search, trainer)
    assert records(tmp_path / "clone") == whole and trainer.drawn == [record.params for record in whole[9:]]
    assert found == load_chosen(tmp_path / "whole")


def test_a_clone_of_a_finished_search_trains_nothing(tmp_path: Path, configs: dict[str, Run]) -> None:
    found = find(tmp_path, configs, make())
    for path in ("runs", "search/chosen.yaml"):
        shutil.move(tmp_path / path, tmp_path / path.replace("/", "-away-"))
    trainer = Fake()
    assert find(tmp_path, configs, make(), trainer) == found == load_chosen(tmp_path) and not trainer.seen


def test_a_larger_budget_adds_trials_to_a_finished_search(tmp_path: Path, configs: dict[str, Run]) -> None:
    find(tmp_path / "grown", configs, make(trials=5))
    trainer = Fake()
    found = find(tmp_path / "grown", configs, make(trials=8), trainer)
    assert len(trainer.seen) == 6 and found == find(tmp_path / "once", configs, make(trials=8))
    for row in ROWS:
        assert records(tmp_path / "grown", row) == records(tmp_path / "once", row)
    assert verify_search(tmp_path / "grown", make(trials=8), configs) == []


def test_progress_counts_and_runs_nothing(tmp_path: Path, configs: dict[str, Run]) -> None:
    with pytest.raises(Interrupted):
        find(tmp_path, only(configs), make(), Fake(stop=3))
    found = progress("study", only(configs), make(), open_storage(None, tmp_path / "runs"), tmp_path)["real"]
    assert (found.done, found.running, found.budget) == (3, 0, 8)


# ---------------------------------------------------------------------------------------------------------- failed, pruned
def test_a_failed_trial_is_recorded_and_keeps_its_slot(tmp_path: Path, configs: dict[str, Run]) -> None:
    errors = iter([None, NonFiniteLoss("step 2: not finite"), MemoryError("40 GiB"), UserError("too few users"), None])

    def fail(_: Run) -> None:
        error = next(errors)
        if error is not None:
            raise error

    trainer = Fake(before=fail)
    found = find(tmp_path, only(configs), make(trials=5), trainer)
    kept = records(tmp_path)
    assert [record.state for record in kept] == ["complete", "failed", "failed", "failed", "complete"]
    assert [record.error for record in kept[1:4]] == ["step 2: not finite", "MemoryError: 40 GiB", "too few users"]
    assert [record.params for record in kept] == trainer.drawn and all(record.value is None for record in kept[1:4])
    assert found["real"] in (kept[0].params, kept[4].params)
    again = Fake()
    find(tmp_path, only(configs), make(trials=5), again)
    assert not again.seen and records(tmp_path) == kept


def test_a_draw_that_does_not_fit_together_is_a_failed_trial(tmp_path: Path, configs: dict[str, Run]) -> None:
    space = {"model.dim": {"choices": [16, 18]}, "model.user.heads": {"choices": [2, 4]}}
    find(tmp_path, only(configs), make(space=space, trials=12, sampler="random"))
    for record in records(tmp_path):
        fits = record.params != {"model.dim": 18, "model.user.heads": 4}
        assert record.state == ("complete" if fits else "failed")
        assert fits or "dim 18 is not a multiple of user.heads 4" in (record.error or "")
    assert {record.state for record in records(tmp_path)} == {"complete", "failed"}


def test_without_any_complete_trial_the_first_error_is_told(tmp_path: Path, configs: dict[str, Run]) -> None:
    def fail(config: Run) -> None:
        raise NonFiniteLoss(f"diverged with {config.model.user.dropout}")

    with pytest.raises(UserError, match=r"search of row 'real': none of 2 trials came to its end; the first error: diverged"):
        find(tmp_path, only(configs), make(trials=2), Fake(before=fail))
    assert [record.state for record in records(tmp_path)] == ["failed"] * 2
    assert not (tmp_path / "search" / "chosen.yaml").exists()


def test_a_metric_that_was_not_measured_stops_the_search_and_costs_no_trial(tmp_path: Path, configs: dict[str, Run]) -> None:
    def refuse(_: Run) -> None:
        raise UserError("train.select: 'recommendation/ndgc@10': recommendation has no metric 'ndgc@10'")

    with pytest.raises(UserError, match=r"^search.metric: 'recommendation/ndgc@10': recommendation has no metric"):
        find(tmp_path, only(configs), make(metric="recommendation/ndgc@10"), Fake(before=refuse))
    with pytest.raises(UserError, match=r"^train.select: "):
        find(tmp_path, only(configs), make(), Fake(before=refuse))
    assert read_trace(tmp_path, "real") is None


def test_the_median_pruner_ends_trainings_that_fall_behind(tmp_path: Path, configs: dict[str, Run]) -> None:
    search = make(trials=20, pruner="median", sampler="random")
    find(tmp_path, only(configs), search)
    kept = records(tmp_path)
    assert [record.state for record in kept[:3]] == ["complete"] * 3
    pruned = [record for record in kept if record.state == "pruned"]
    assert 3 <= len(pruned) <= 14
    for record in pruned:
        (one,) = record.trainings
        assert len(one.curve) < 3 and record.value == max(one.curve.values())
        before = [other.trainings[0].curve for other in kept[: record.trial] if other.state == "complete"]
        assert record.value is not None and record.value < np.median([curve[max(one.curve)] for curve in before])
    assert verify_search(tmp_path, search, only(configs)) == []


def test_the_wilcoxon_pruner_ends_a_trial_that_is_worse_seed_by_seed(tmp_path: Path, configs: dict[str, Run]) -> None:
    levels, drawn = (0.5, 0.5, 0.3, 0.7, 0.6), []

    def value(config: Run) -> float:
        if params(config) not in drawn:
            drawn.append(params(config))
        return levels[drawn.index(params(config))] + 0.01 * config.seed

    search = make(trials=5, pruner="wilcoxon", seeds=list(range(6)))
    find(tmp_path, only(configs), search, Fake(value=value))
    kept = records(tmp_path)
    # Four seeds, each worse than the best trial's: p = 1/16.
    assert [(record.state, len(record.trainings)) for record in kept] == [
        ("complete", 6),
        ("complete", 6),
        ("pruned", 4),
        ("complete", 6),
        ("pruned", 4),
    ]
    assert load_chosen(tmp_path)["real"] == kept[3].params and kept[4].value == pytest.approx(0.615)
    assert verify_search(tmp_path, search, only(configs)) == []


def test_a_pruned_trial_is_never_chosen() -> None:
    def record(trial: int, state: Any, value: float) -> Record:
        return Record(trial, state, {DROPOUT: 0.1 * trial}, value, (Training(0, {2: value}, 2, value),), 1.0)

    header = {"row": "real", "trials": 3}
    assert choose(Trace(header, (record(0, "complete", 0.1), record(1, "pruned", 0.9), record(2, "complete", 0.2)))).trial == 2
    with pytest.raises(UserError, match=r"none of 1 trials came to its end$"):
        choose(Trace(header, (record(0, "pruned", 0.9),)))


# ---------------------------------------------------------------------------------------------------------- several workers
def test_two_workers_share_the_trials(tmp_path: Path, configs: dict[str, Run]) -> None:
    meet = threading.Barrier(2, timeout=60)
    trainers, found = [Fake(), Fake()], {}

    def work(place: int) -> None:
        trainer = trainers[place]
        # Each waits until the other is in a training too: neither does everything.
        trainer.before = lambda _: None if len(trainer.seen) > 1 else (meet.wait(), None)[1]
        found[place] = find(tmp_path, configs, make(trials=10), trainer)

    threads = [threading.Thread(target=work, args=(place,)) for place in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    names = [name for trainer in trainers for name, _, _ in trainer.seen]
    assert sorted(names) == sorted(f"{row}, trial #{slot}" for row in ROWS for slot in range(10))
    assert all(trainer.seen for trainer in trainers) and found[0] == found[1] == load_chosen(tmp_path)
    assert verify_search(tmp_path, make(trials=10), configs) == []


def held(home: Path, slot: int, worker: str) -> None:
    """Another worker's running trial."""
    (name,) = optuna.get_all_study_names(open_storage(None, home / "runs"))
    study = optuna.load_study(study_name=name, storage=open_storage(None, home / "runs"))
    notes = {"slot": slot, "worker": worker, "beat": time.time(), "token": os.urandom(4).hex()}
    study.add_trial(create_trial(state=TrialState.RUNNING, user_attrs=notes))


def test_a_trial_that_another_machine_runs_is_left_to_it(tmp_path: Path, configs: dict[str, Run]) -> None:
    with pytest.raises(Interrupted):
        find(tmp_path, only(configs), make(trials=4), Fake(stop=0))
    held(tmp_path, 1, "elsewhere:1:1")
    trainer = Fake()
    assert find(tmp_path, only(configs), make(trials=4), trainer, wait=False) == {}
    assert [name for name, _, _ in trainer.seen] == [f"real, trial #{slot}" for slot in (0, 2, 3)]
    found = progress("study", only(configs), make(trials=4), open_storage(None, tmp_path / "runs"), tmp_path)["real"]
    assert (found.done, found.running) == (3, 1)


def test_the_trial_of_a_dead_process_is_done_again_but_not_for_ever(tmp_path: Path, configs: dict[str, Run]) -> None:
    with pytest.raises(Interrupted):
        find(tmp_path, only(configs), make(trials=2), Fake(stop=0))
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    dead = f"{this_worker().split(':')[0]}:{gone.pid}:1"
    held(tmp_path, 0, dead)
    trainer = Fake()
    find(tmp_path, only(configs), make(trials=1), trainer)
    assert len(trainer.seen) == 1 and records(tmp_path)[0].state == "complete"
    for _ in range(3):
        held(tmp_path, 1, dead)
        progress("study", only(configs), make(trials=2), open_storage(None, tmp_path / "runs"), tmp_path)
    trainer = Fake()
    find(tmp_path, only(configs), make(trials=2), trainer)
    assert not trainer.seen and records(tmp_path)[1].error == "its process ended 3 times without a word (too little memory?)"


@pytest.mark.parametrize("fails", [False, True])
def test_a_worker_whose_trial_was_given_up_goes_on(tmp_path: Path, configs: dict[str, Run], fails: bool) -> None:
    """Silent for so long that another worker took its trial, it comes to an end after all."""

    def give_up(_: Run) -> None:
        trainer.before = lambda _: None
        (name,) = optuna.get_all_study_names(open_storage(None, tmp_path / "runs"))
        optuna.load_study(study_name=name, storage=open_storage(None, tmp_path / "runs")).tell(0, state=TrialState.FAIL)
        if fails:
            raise NonFiniteLoss("step 2: not finite")

    trainer = Fake(before=give_up)
    find(tmp_path, only(configs), make(trials=2), trainer)
    assert [name for name, _, _ in trainer.seen] == ["real, trial #0", "real, trial #0", "real, trial #1"]
    assert [record.state for record in records(tmp_path)] == ["complete"] * 2


# ------------------------------------------------------------------------------------------------------- another search now
def test_trials_of_another_search_are_refused_by_name(tmp_path: Path, configs: dict[str, Run]) -> None:
    find(tmp_path, only(configs), make())
    longer = configs["real"].model_copy(update={"train": configs["real"].train.model_copy(update={"steps": 9})})
    wider = SPACE | {DROPOUT: {"low": 0, "high": 0.7, "step": 0.1}}
    for search, config, change in (
        (make(space=wider), configs["real"], r"search.space.model.user.dropout.high: 0.6 then, 0.7 now"),
        (make(seed=4), configs["real"], r"search.seed: 0 then, 4 now"),
        (make(metric="search/mrr"), configs["real"], r"search.metric: 'mean' then, 'search/mrr' now"),
        (make(steps=5), configs["real"], r"search.steps: null then, 5 now"),
        (make(), longer, r"config.train.steps: 6 then, 9 now"),
        (make(), configs["none"], r"config.data.controls.graph: 'real' then, 'none' now"),
    ):
        trainer = Fake()
        with pytest.raises(UserError, match=rf"real.jsonl: these trials belong to another search \({change}\)"):
            find(tmp_path, {"real": config}, search, trainer)
        assert not trainer.seen
    file = trace_file(tmp_path, "real")
    lines = file.read_text(encoding="utf-8").splitlines()
    header = json.loads(lines[0]) | {"fingerprint": "0" * 64}
    file.write_text("\n".join([json.dumps(header), *lines[1:]]), encoding="utf-8")
    with pytest.raises(UserError, match=r"another search \(fingerprint: '0{50}.* then, '.* now\)"):
        find(tmp_path, only(configs), make())


def test_what_changes_no_trial_is_no_other_search(tmp_path: Path, configs: dict[str, Run]) -> None:
    find(tmp_path, configs, make())
    data = configs["real"].data.model_copy(update={"cache_dir": os.environ["FUSIONJAX_CACHE"]})
    moved = configs["real"].model_copy(update={"seed": 5, "data": data})
    trainer = Fake()
    find(tmp_path, {"real": moved, "none": configs["none"]}, make(rows=["real"], metric="mean"), trainer)
    assert not trainer.seen


@pytest.mark.parametrize("text", ["", "{}\n", "nothing\n", '{"row": "real"}\n', "[1]\n"])
def test_a_damaged_trace_is_named(tmp_path: Path, configs: dict[str, Run], text: str) -> None:
    file = trace_file(tmp_path, "real")
    file.parent.mkdir()
    file.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"real\.jsonl:1: not a line of a search trace|real\.jsonl: empty"):
        find(tmp_path, only(configs), make())


# ------------------------------------------------------------------------------------------------------------- verification
@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory, configs: dict[str, Run]) -> Path:
    home = tmp_path_factory.mktemp("searched")
    find(home, configs, make(seeds=[0, 1]))
    shutil.rmtree(home / "runs")
    return home


def edit(line: int, **changes: Any) -> Callable[[list[dict[str, Any]]], None]:
    return lambda lines: lines[line].update(changes)


def in_training(**changes: Any) -> Callable[[list[dict[str, Any]]], None]:
    return lambda lines: lines[3]["trainings"][1].update(changes)


def in_params(**changes: Any) -> Callable[[list[dict[str, Any]]], None]:
    return lambda lines: lines[3]["params"].update({key.replace("_", "."): value for key, value in changes.items()})


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (edit(3, value=0.99), r"trial 2: its value is not the mean of its seeds"),
        (in_training(value=0.99), r"trial 2: seed 1: the value is not the best of its curve"),
        (in_training(best_step=6), r"trial 2: seed 1: the value is not the best of its curve"),
        (in_training(curve={}), r"trial 2: seed 1: the value is not the best of its curve"),
        (in_training(seed=7), r"trial 2: trained with seeds \[0, 7\], not \[0, 1\]"),
        (lambda lines: lines[3]["trainings"].pop(), r"trial 2: trained with seeds \[0\], not \[0, 1\]"),
        (in_params(model_user_dropout=0.25), r"trial 2: a parameter lies outside the space"),
        (in_params(model_user_dropout=0.7), r"trial 2: a parameter lies outside the space"),
        (in_params(model_dim=32), r"trial 2: its parameters are not those of the space"),
        (lambda lines: lines.pop(3), r"real.jsonl: 7 trials, the budget of every row is 8"),
        (lambda lines: lines.append(lines[8] | {"trial": 8}), r"real.jsonl: 9 trials, the budget of every row is 8"),
        (edit(0, trials=7), r"the budget of every row is 8"),
        (edit(0, row="none"), r"another search \(row: 'none' then, 'real' now\)"),
        (lambda lines: lines[0]["search"].update(seed=3), r"another search \(search.seed: 3 then, 0 now\)"),
        (edit(3, state="pruned"), r"trial 2: it was pruned, but the search has no pruner"),
        (edit(3, state="best"), r"real.jsonl:4: not a line of a search trace"),
        (edit(3, params=None), r"real.jsonl:4: not a line of a search trace"),
        (edit(3, note="mine"), r"real.jsonl:4: not a line of a search trace"),
    ],
)
def test_a_changed_trace_is_found(
    searched: Path, configs: dict[str, Run], tmp_path: Path, change: Callable[[list[dict[str, Any]]], None], problem: str
) -> None:
    home = Path(shutil.copytree(searched, tmp_path / "study"))
    assert verify_search(home, make(seeds=[0, 1]), configs) == []
    file = trace_file(home, "real")
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    change(lines)
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    found = verify_search(home, make(seeds=[0, 1]), configs)
    assert any(re.search(problem, line) for line in found), found


def test_a_changed_choice_is_found(searched: Path, configs: dict[str, Run], tmp_path: Path) -> None:
    home = Path(shutil.copytree(searched, tmp_path / "study"))
    file = home / "search" / "chosen.yaml"
    text = file.read_text(encoding="utf-8")
    for changed in (
        text.replace("trials: 8", "trials: 9", 1),
        text.replace("entity", "text", 1),
        "",
        text[: text.index("none:")],
    ):
        assert changed != text
        file.write_text(changed, encoding="utf-8")
        assert verify_search(home, make(seeds=[0, 1]), configs) == [f"{file}: is not what the traces choose"]
    file.unlink()
    assert verify_search(home, make(seeds=[0, 1]), configs) == [f"{file}: is not what the traces choose"]
    file.write_text("- a list\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"chosen.yaml: not what a search writes; remove it and run the study again"):
        load_chosen(home)


def test_a_row_that_was_not_searched_is_found(searched: Path, configs: dict[str, Run], tmp_path: Path) -> None:
    home = Path(shutil.copytree(searched, tmp_path / "study"))
    trace_file(home, "none").unlink()
    found = verify_search(home, make(seeds=[0, 1]), configs)
    assert found[0] == f"{trace_file(home, 'none')}: missing: row 'none' has not been searched"
    assert verify_search(home, make(seeds=[0, 1], trials=9), only(configs))[0].endswith("the budget of every row is 9")


# ---------------------------------------------------------------------------------------------------- by the command line
SEARCHED = """
    question: Does it help?
    base: base.yaml
    rows: {small: {}}
    reference: small
    seeds: [0]
    tasks: {recommendation: [ndcg@10]}
    baselines: false
    together: false
    search:
      space:
        train.validate_every: {choices: [6, 2, 4]}
      sampler: grid
      metric: recommendation/ndcg@10
"""
TINY = BASE.replace("{batch_size: 16, negatives: {number: 8}}", "{weight: 0}").replace(", checkpoint_every: 3", "")


@pytest.fixture
def compilation() -> Iterator[None]:
    """A search in this process keeps its compiled programs elsewhere; later tests do not."""
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    yield
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.mark.usefixtures("compilation")
def test_a_study_with_a_search_from_plan_to_verification(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = write(tmp_path / "study", SEARCHED, TINY)
    assert cli.main(["study", "plan", str(home), "--no-probe"]) == 0
    assert "search first: small: 3 of 3 trials" in capsys.readouterr().out
    assert cli.main(["study", "run", str(home)]) == 0
    out, err = capsys.readouterr()
    assert "1 of 1 cells done, 0 failed" in out
    for slot in range(3):
        assert f"search small: trial #{slot} (3 in all): complete, validation 0." in err
    found = load_chosen(home)["small"]
    (file,) = (home / "scores" / "cells").glob("*.json")
    config = Run.model_validate(json.loads(file.read_text(encoding="utf-8"))["config"])
    assert found == {"train.validate_every": config.train.validate_every} and config.train.select == "mean"
    assert [list(record.trainings[0].curve) for record in records(home, "small")] == [[6], [2, 4, 6], [4, 6]]

    assert cli.main(["study", "report", str(home)]) == 0
    report = (home / "report.md").read_text(encoding="utf-8").replace("\\", "")
    assert "## Search" in report and "| 3 of 3 |" in report
    assert f"| train.validate_every = {found['train.validate_every']} |" in report
    assert (home / "plots" / "search-history.png").exists()
    assert cli.main(["study", "verify", str(home)]) == 0

    # chosen.yaml follows from the trace, also beside finished cells.
    chosen = home / "search" / "chosen.yaml"
    text = chosen.read_text(encoding="utf-8")
    chosen.unlink()
    shutil.rmtree(home / "runs")
    capsys.readouterr()
    assert cli.main(["study", "run", str(home)]) == 0
    out, err = capsys.readouterr()
    assert chosen.read_text(encoding="utf-8") == text and "trial #" not in err and "started" not in err
    assert cli.main(["study", "search", str(home)]) == 0 and cli.main(["study", "plan", str(home), "--no-probe"]) == 0
    assert "the search is complete: search/chosen.yaml" in capsys.readouterr().out

    trace = trace_file(home, "small")
    trace.write_text(trace.read_text(encoding="utf-8").replace('"complete"', '"pruned"', 1), encoding="utf-8")
    assert cli.main(["study", "verify", str(home)]) == 1
    assert "trial 0: it was pruned, but the search has no pruner" in capsys.readouterr().err
    write(home, SEARCHED.replace("[6, 2, 4]", "[6, 2, 5]"), TINY)
    assert cli.main(["study", "run", str(home)]) == 2
    assert "these trials belong to another search (search.space.train.validate_every.choices" in capsys.readouterr().err


def test_a_study_without_a_search_has_nothing_to_search(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = write(tmp_path / "study", STUDY)
    assert cli.main(["study", "search", str(home)]) == 2
    assert "the study has no search: section" in capsys.readouterr().err
