"""Seeds in one program: each is the lone run of its seed, up to rounding, whatever stops, joins or leaves on the way."""

import dataclasses
import shutil
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fusionjax.training.step import step_of
from fusionjax.training.together import Outcome, can_run_together, train_together
from jax.sharding import PartitionSpec

from fusionjax import pipeline
from fusionjax.config import schema
from fusionjax.data.shop import TRAIN
from fusionjax.errors import UserError
from fusionjax.evaluation.metrics import Result
from fusionjax.runs import RunFolder
from fusionjax.training import loop, parallel, together
from fusionjax.training.checkpoint import Checkpoints
from fusionjax.training.loop import Interrupted, Trained, build_model, train
from fusionjax.training.optimiser import build_optimiser
from fusionjax.training.stream import StepSource
from tests.shops import ONLY_GRAPH, tiny_inputs, tiny_run

SHORT = (
    *ONLY_GRAPH,
    "data.demo_shop={products: 60, users: 40, queries: 20}",
    "train={steps: 7, log_every: 2, validate_every: 3, checkpoint_every: 5}",
)
"""Logs after steps 2, 4, 6 and 7, validates after 3, 6 and 7, saves after 3, 5, 6 and 7."""
CONFIG = tiny_run(*SHORT)


def seeded(seed: int, config: schema.Run = CONFIG) -> schema.Run:
    return config.model_copy(update={"seed": seed})


def stack(
    folder: Path, seeds: Sequence[int], say: Callable[[str], None] = lambda _: None, config: schema.Run = CONFIG
) -> tuple[list[Outcome], list[RunFolder]]:
    """Trains the seeds together, each in `folder/SEED`."""
    homes = [RunFolder(folder / str(seed)) for seed in seeds]
    for home in homes:
        home.path.mkdir(parents=True, exist_ok=True)
    inputs = [tiny_inputs(config)] * len(seeds)
    return train_together([seeded(seed, config) for seed in seeds], inputs, homes, say), homes


def alone(folder: Path, seed: int, say: Callable[[str], None] = lambda _: None, config: schema.Run = CONFIG) -> RunFolder:
    home = RunFolder(folder / str(seed))
    home.path.mkdir(parents=True, exist_ok=True)
    train(seeded(seed, config), tiny_inputs(config), home, say)
    return home


def assert_same(ours: RunFolder, theirs: RunFolder) -> None:
    """Equal rows up to rounding."""
    for a, b in zip(ours.metrics(), theirs.metrics(), strict=True):
        assert a.pop("kind") == b.pop("kind")
        assert a == pytest.approx(b, rel=1e-4)


def terminating(when: str, said: list[str]) -> Callable[[str], None]:
    """A `say` that sends this process SIGTERM at a line."""

    def say(line: str) -> None:
        said.append(line)
        if when in line:
            signal.raise_signal(signal.SIGTERM)

    return say


def latest(home: RunFolder) -> list[int]:
    return sorted(int(path.name) for path in (home.checkpoints / "latest").iterdir())


@pytest.fixture(scope="module")
def lone(tmp_path_factory: pytest.TempPathFactory) -> list[RunFolder]:
    """Seeds 0 and 1, each a run of its own."""
    root = tmp_path_factory.mktemp("lone")
    return [pipeline.run(seeded(seed), root / str(seed), "tiny", lambda _: None) for seed in (0, 1)]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> list[RunFolder]:
    """Seeds 0 and 1 in one program: two do not divide four devices, so batches are split."""
    root = tmp_path_factory.mktemp("pair")
    return pipeline.run_together(CONFIG, (0, 1), (root / "0", root / "1"), "tiny", lambda _: None)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both seeds, terminated during the validation of step 3."""
    root, said = tmp_path_factory.mktemp("stopped"), []
    with pytest.raises(Interrupted, match=r"stopped by SIGTERM \(seed: step\): 0: 4, 1: 4; the same command goes on"):
        stack(root, (0, 1), terminating("seed 0: step 3: validation", said))
    assert any("seed 1: step 3: validation" in line for line in said)
    return root


# ------------------------------------------------------------------------------------------------------- as a lone run
def test_each_seed_has_the_numbers_of_its_lone_run(lone: list[RunFolder], pair: list[RunFolder]) -> None:
    for ours, theirs in zip(pair, lone, strict=True):
        assert_same(ours, theirs)
        mine, others = ours.results(), theirs.results()
        assert mine.keys() == others.keys()
        for split in ("valid", "test"):
            assert mine[split]["link_prediction"] == pytest.approx(others[split]["link_prediction"], rel=1e-4)
    first, second = ([row["loss"] for row in home.metrics() if row["kind"] == "train"] for home in pair)
    assert all(a != pytest.approx(b, rel=1e-3) for a, b in zip(first, second, strict=True))


def test_a_seed_of_a_stack_trains_on_its_own_batches() -> None:
    inputs = tiny_inputs(CONFIG)
    sources = [StepSource(inputs, seeded(seed), 4) for seed in (0, 1)]
    stacked = together._Stacked(sources)
    for step in range(4):
        for row, source in enumerate(sources):
            for field, array in source[step]["link_prediction"].items():
                assert np.array_equal(stacked[step]["link_prediction"][field][row], array)
        heads = stacked[step]["link_prediction"]["head"]
        assert not np.array_equal(heads[0], heads[1])


def test_run_folders_are_complete_and_say_what_they_shared(lone: list[RunFolder], pair: list[RunFolder]) -> None:
    def names(home: RunFolder) -> set[str]:
        return {
            path.relative_to(home.path).as_posix() for path in home.path.rglob("*") if path.suffix in (".json", ".png", ".html")
        }

    for seed, (ours, theirs) in enumerate(zip(pair, lone, strict=True)):
        assert names(ours) == names(theirs) >= {"results.json", "report.html"}
        assert ours.config() == seeded(seed)
        assert any((ours.path / "tensorboard").iterdir())
        record, other = ours.provenance(), theirs.provenance()
        assert record["trained_together"]["seeds"] == [0, 1]
        assert record["seed"] == seed and "failure" not in record
        assert all(record[key] == other[key] for key in ("fingerprint", "steps", "best_step", "stopped_early", "parameters"))


def test_complete_seeds_are_skipped(pair: list[RunFolder]) -> None:
    before, said = [home.provenance() for home in pair], []
    pipeline.run_together(CONFIG, (0, 1), [home.path for home in pair], "tiny", said.append)
    assert [line for line in said if "complete" in line] == [
        f"seed {seed}: this run is complete; nothing to do" for seed in (0, 1)
    ]
    assert [home.provenance() for home in pair] == before


def test_seeds_that_divide_the_devices_go_there_whole(lone: list[RunFolder], tmp_path: Path) -> None:
    outcomes, homes = stack(tmp_path, (3, 1, 0, 2))
    assert_same(homes[1], lone[1])
    assert_same(homes[2], lone[0])
    for outcome in outcomes:
        assert isinstance(outcome, Trained) and (outcome.steps, outcome.stopped_early) == (7, False)


def test_batches_are_split_where_seeds_do_not_divide_the_devices() -> None:
    mesh, model = parallel.build_mesh(), build_model(CONFIG, tiny_inputs(CONFIG))
    optimiser = build_optimiser(CONFIG.train.optimiser, 7)
    for accumulate, split in ((1, PartitionSpec(None, "data")), (2, PartitionSpec(None, None, "data"))):
        made = together._Together(mesh, step_of(model, optimiser, CONFIG), 7, accumulate, print)
        for seeds in (1, 2, 3, 6):
            batches, others, _ = made.placement(seeds)
            assert (batches.spec, others.spec) == (split, PartitionSpec())
        for seeds in (4, 8):
            batches, others, _ = made.placement(seeds)
            assert batches.spec == others.spec == PartitionSpec("data")


def test_micro_batches_and_data_drawn_from_the_seed_are_those_of_the_lone_run(tmp_path: Path) -> None:
    short = "train={steps: 2, accumulate: 2, log_every: 1, validate_every: 2}"
    config = tiny_run(*SHORT, short, "data.controls.graph=tails_shuffled")
    configs = [seeded(seed, config) for seed in (0, 1)]
    inputs = [tiny_inputs(one) for one in configs]
    assert not np.array_equal(inputs[0].graph.triples(TRAIN), inputs[1].graph.triples(TRAIN))
    homes = [RunFolder(tmp_path / name) for name in ("0", "1", "alone")]
    for home in homes:
        home.path.mkdir()
    train_together(configs, inputs, homes[:2], lambda _: None)
    train(configs[1], inputs[1], homes[2], lambda _: None)
    assert_same(homes[1], homes[2])


# -------------------------------------------------------------------------------------------- stopping, joining, leaving
def test_stopped_and_resumed_equals_uninterrupted_to_the_bit(stopped: Path, pair: list[RunFolder], tmp_path: Path) -> None:
    shutil.copytree(stopped, tmp_path / "run")
    said: list[str] = []
    homes = stack(tmp_path / "run", (0, 1), said.append)[1]
    assert [line for line in said if "resuming" in line] == [f"seed {seed}: resuming at step 4 of 7" for seed in (0, 1)]
    for ours, whole in zip(homes, pair, strict=True):
        assert ours.metrics_file.read_bytes() == whole.metrics_file.read_bytes()


def test_a_lone_run_goes_on_from_a_seed_of_a_stack(stopped: Path, lone: list[RunFolder], tmp_path: Path) -> None:
    shutil.copytree(stopped / "1", tmp_path / "1")
    said: list[str] = []
    assert_same(alone(tmp_path, 1, said.append), lone[1])
    assert "resuming at step 4 of 7" in said


def test_a_lone_run_goes_on_in_a_stack_that_a_new_seed_begins(lone: list[RunFolder], tmp_path: Path) -> None:
    with pytest.raises(Interrupted, match="after step 4"):
        alone(tmp_path, 0, terminating("step 3: validation", []))
    assert latest(RunFolder(tmp_path / "0")) == [3, 4]
    said: list[str] = []
    homes = stack(tmp_path, (0, 1), said.append)[1]
    assert [line for line in said if "resuming" in line] == ["seed 0: resuming at step 4 of 7"]
    for ours, theirs in zip(homes, lone, strict=True):
        assert_same(ours, theirs)


def test_seeds_that_a_kill_left_at_different_checkpoints_join(
    lone: list[RunFolder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, saved = Checkpoints.save, []

    def killed(self: Checkpoints, state: Any, memory: dict[str, Any]) -> None:
        saved.append(int(state.step))
        if saved == [3, 3, 5, 5]:
            raise KeyboardInterrupt
        save(self, state, memory)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Checkpoints, "save", killed)
        stack(tmp_path, (0, 1))
    assert [latest(RunFolder(tmp_path / name)) for name in "01"] == [[3, 5], [3]]
    assert RunFolder(tmp_path / "1").metrics()[-1]["step"] == 4  # a row after the checkpoint, to be written again

    legs, leg = [], together._Together.leg

    def watched(self: Any, members: list[Any], until: int, *rest: Any) -> None:
        legs.append(([member.journal.config.seed for member in members], members[0].step, until))
        leg(self, members, until, *rest)

    monkeypatch.setattr(together._Together, "leg", watched)
    said: list[str] = []
    homes = stack(tmp_path, (0, 1), said.append)[1]
    assert [line for line in said if "resuming" in line] == [
        "seed 0: resuming at step 5 of 7",
        "seed 1: resuming at step 3 of 7",
    ]
    assert legs == [([1], 3, 5), ([0, 1], 5, 7)]
    for ours, theirs in zip(homes, lone, strict=True):
        assert_same(ours, theirs)


def test_a_seed_without_patience_left_leaves_and_the_others_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seed 0 is made to get worse with every validation, seed 1 better."""
    measured = {0: 1.0, 1: 0.0}

    def evaluate(encoder: Any, bank: Any, inputs: Any, config: schema.Run, *_: Any) -> dict[str, Result]:
        measured[config.seed] += 0.1 if config.seed else -0.1
        return {"link_prediction": Result(metrics={"mrr": measured[config.seed]}, per_example={}, settings={})}

    monkeypatch.setattr(loop, "evaluate_model", evaluate)
    config = tiny_run(*SHORT, "train.patience=1")
    for _ in range(2):  # started again, neither does a step more
        outcomes, homes = stack(tmp_path, (0, 1), config=config)
        first, second = outcomes
        assert isinstance(first, Trained) and isinstance(second, Trained)
        assert (first.steps, first.best_step, first.stopped_early) == (6, 3, True)
        assert (second.steps, second.best_step, second.stopped_early) == (7, 7, False)
        assert [home.metrics()[-1]["step"] for home in homes] == [6, 7]


def test_a_seed_that_diverges_stops_alone(lone: list[RunFolder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def poisoned(*args: Any) -> Any:
        """Seed 1 breaks after step 4, so step 5 is the first whose loss is not finite."""
        step = together_step(*args)

        def broken(state: Any, batch: Any, places: Any, key: jax.Array) -> Any:
            bad = (state.step == 3) & (jax.random.key_data(key) == jax.random.key_data(jax.random.key(1))).all()
            state, metrics = step(state, batch, places, key)
            factor = jnp.where(bad, jnp.nan, 1.0)
            return dataclasses.replace(state, params=jax.tree.map(lambda leaf: leaf * factor, state.params)), metrics

        return broken

    together_step = together.step_of
    monkeypatch.setattr(
        pipeline, "write_report", lambda home, *_: (home.path / "report.html").touch()
    )  # slow, and tested above
    folders, said = [tmp_path / "0", tmp_path / "1"], []
    with monkeypatch.context() as patch:
        patch.setattr(together, "step_of", poisoned)
        good, bad = pipeline.run_together(CONFIG, (0, 1), folders, "tiny", said.append)
    where = "step 5: objective 'link_prediction' is not finite (nan); last good checkpoint: step 3."
    assert bad.provenance()["failure"].startswith(where)
    assert any(line.startswith(f"seed 1: stopped, the others go on: {where}") for line in said)
    assert said[-1] == "no results of seeds 1: training diverged (provenance.json, failure)"
    assert not bad.results_file.exists() and not (bad.path / "report.html").exists()
    assert "finished" not in bad.provenance() and bad.metrics()[-1]["step"] == 4
    assert "failure" not in good.provenance() and (good.path / "report.html").exists()
    assert_same(good, lone[0])

    # Started again, without the accident, it goes on from its last good checkpoint.
    said.clear()
    good, bad = pipeline.run_together(CONFIG, (0, 1), folders, "tiny", said.append)
    assert "seed 0: this run is complete; nothing to do" in said
    assert "seed 1: resuming at step 3 of 7" in said
    assert "failure" not in bad.provenance()
    assert_same(bad, lone[1])
    assert bad.results()["test"]["link_prediction"] == pytest.approx(lone[1].results()["test"]["link_prediction"], rel=1e-4)


# ---------------------------------------------------------------------------------------------------------------- refusals
REFUSED = {
    "objectives.link_prediction.weight=0": "objectives.link_prediction.weight is 0: only graphs",
    "objectives.alignment.weight=1": "objectives.alignment.weight is not 0: only graphs",
    "objectives.query_product.weight=1": "objectives.query_product.weight is not 0: only graphs",
    "objectives.next_product.weight=1": "objectives.next_product.weight is not 0: only graphs",
    "model.product.sources=[text, entity]": "model.product.sources has 'text': only graphs",
}


@pytest.mark.parametrize(("override", "reason"), REFUSED.items())
def test_what_is_no_lone_graph_is_refused_by_name(override: str, reason: str, tmp_path: Path) -> None:
    config = tiny_run(*SHORT, override)
    said = can_run_together(config)
    assert said is not None and said.startswith(reason)
    with pytest.raises(UserError) as refused:
        pipeline.run_together(config, (0, 1), (tmp_path / "0", tmp_path / "1"), "tiny")
    assert str(refused.value) == f"tiny: {said}"
    assert not any(tmp_path.iterdir())
    with pytest.raises(UserError) as refused:
        train_together([config], [], [])
    assert str(refused.value) == said


def test_epochs_of_graphs_that_differ_are_refused() -> None:
    epochs, control = "train={steps: null, epochs: 2}", "data.controls.graph=random_same_degree"
    assert can_run_together(CONFIG) is None
    assert can_run_together(tiny_run(*ONLY_GRAPH, epochs)) is None
    assert can_run_together(tiny_run(*ONLY_GRAPH, control)) is None
    reason = can_run_together(tiny_run(*ONLY_GRAPH, epochs, control))
    assert reason is not None and reason.startswith("train.epochs with data.controls:")


def test_configs_that_differ_in_more_than_the_seed_are_refused() -> None:
    other = tiny_run(*SHORT, "seed=1", "model.dim=32")
    with pytest.raises(ValueError, match="differ in more than the seed"):
        train_together([CONFIG, other], [tiny_inputs(CONFIG)] * 2, [])


def test_graphs_of_different_size_are_refused(tmp_path: Path) -> None:
    larger = tiny_inputs(tiny_run(*SHORT, "data.demo_shop.products=70"))
    homes = [RunFolder(tmp_path / "0"), RunFolder(tmp_path / "1")]
    with pytest.raises(UserError, match=r"graphs differ in size \(data.controls\)"):
        train_together([seeded(0), seeded(1)], [tiny_inputs(CONFIG), larger], homes)


def test_every_seed_and_folder_stands_once(tmp_path: Path) -> None:
    for seeds, folders in (((0, 0), ("a", "b")), ((0, 1), ("a", "a"))):
        with pytest.raises(ValueError, match="must differ"):
            pipeline.run_together(CONFIG, seeds, [tmp_path / name for name in folders], "tiny")
    assert not any(tmp_path.iterdir())


def test_a_folder_of_another_seed_is_refused(stopped: Path, tmp_path: Path) -> None:
    home = tmp_path / "0"
    home.mkdir()
    shutil.copytree(stopped / "0", home, dirs_exist_ok=True)
    (home / "config.yaml").write_text(pipeline.dump_run(seeded(5)), encoding="utf-8")
    with pytest.raises(UserError, match=r"another config \(seed: 5 there, 0 now\)"):
        pipeline.run_together(CONFIG, (0, 1), (home, tmp_path / "1"), "tiny")
