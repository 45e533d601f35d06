"""Training: stopped and started again it ends with the same bits, and runs in one program are what they are alone."""

import functools
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fusionjax.config import schema
from fusionjax.errors import UserError
from fusionjax.evaluation.link_prediction import KnownTrue
from fusionjax.kge import train as module
from fusionjax.evaluation.triples import Ranking
from fusionjax.models.entities import graph_model
from fusionjax.kge.train import Placement, train_graphs
from fusionjax.runs import RunFolder
from fusionjax.training.checkpoint import Checkpoints
from fusionjax.training.log import Bar
from fusionjax.training.loop import Interrupted, NonFiniteLoss, Trained
from tests.kge.made import ENTITIES, RELATIONS, no_features, run_of, triples

HELD_OUT = np.arange(len(triples())) % 9 == 4
TRAIN, VALID = triples()[~HELD_OUT], triples()[HELD_OUT]  # 56 and 7
SIZES = ENTITIES, RELATIONS
SHORT = ("scorer=distmult", "epochs=4", "validate_every=2", "penalty={name: n3, entity: 0.01}", "dropout.entity=0.1")
"""7 steps a pass, validated after steps 14 and 28."""


def nothing(_: str) -> None: ...


@functools.cache
def ranking() -> Ranking:
    return Ranking.of(VALID, KnownTrue.of(triples()), TRAIN, ENTITIES, 16, 64)


def train(
    folder: Path,
    seeds: Sequence[int] = (0,),
    *overrides: str,
    say: Callable[[str], None] = nothing,
    each: Sequence[Sequence[str]] = (),
    **more: Any,
) -> tuple[list[Trained | NonFiniteLoss], list[RunFolder]]:
    """Trains the seeds together, in `folder/SEED`. `each`: further overrides for each."""
    configs: list[schema.Run] = []
    homes = [RunFolder(folder / str(seed)) for seed in seeds]
    for place, (seed, home) in enumerate(zip(seeds, homes, strict=True)):
        home.path.mkdir(parents=True, exist_ok=True)
        own = each[place] if each else ()
        configs.append(run_of(*SHORT, *overrides, *own).model_copy(update={"seed": seed}))
    settings = {"ranking": ranking(), **more}
    return train_graphs(configs, TRAIN, SIZES, no_features(), homes=homes, say=say, **settings), homes


def best(home: RunFolder) -> tuple[int, Any]:
    model = graph_model(run_of(*SHORT).kge, *SIZES, no_features())
    checkpoints = Checkpoints(home.checkpoints, writing=False)
    try:
        return checkpoints.load_best(jax.eval_shape(lambda: model.init(jax.random.key(0))))[:2]
    finally:
        checkpoints.close()


def latest(home: RunFolder) -> list[int]:
    return sorted(int(path.name) for path in (home.checkpoints / "latest").iterdir() if path.name.isdecimal())


def assert_same_bits(ours: RunFolder, theirs: RunFolder) -> None:
    assert ours.metrics_file.read_bytes() == theirs.metrics_file.read_bytes()
    (step, params), (other, others) = best(ours), best(theirs)
    assert step == other
    for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(others), strict=True):
        assert np.array_equal(a, b)


def assert_alike(ours: RunFolder, theirs: RunFolder) -> None:
    """Up to rounding."""
    for a, b in zip(ours.metrics(), theirs.metrics(), strict=True):
        assert a.pop("kind") == b.pop("kind")
        assert a == pytest.approx(b, rel=1e-4)


def falling(monkeypatch: pytest.MonkeyPatch, values: Callable[[int], float]) -> None:
    """Validations find what `values` says of the number of the validation."""
    count = iter(range(1000))
    monkeypatch.setattr(Ranking, "metrics", lambda *_: {"mrr": values(next(count))})


@pytest.fixture(scope="module")
def lone(tmp_path_factory: pytest.TempPathFactory) -> list[RunFolder]:
    """Seeds 0 and 1, each a run of its own."""
    root = tmp_path_factory.mktemp("lone")
    return [train(root, (seed,))[1][0] for seed in (0, 1)]


# ------------------------------------------------------------------------------------------------------------- lone runs
def test_what_a_run_writes(lone: list[RunFolder]) -> None:
    rows = lone[0].metrics()
    assert [(row["step"], row["kind"]) for row in rows] == [
        *((7, "train"), (14, "train"), (14, "valid"), (21, "train"), (28, "train"), (28, "valid"))
    ]
    assert rows[0].keys() == {"step", "kind", "epoch", "loss", "loss/link_prediction", "loss/penalty"}
    losses = [row["loss"] for row in rows if row["kind"] == "train"]
    assert losses == sorted(losses, reverse=True)
    assert rows[0]["loss"] == pytest.approx(rows[0]["loss/link_prediction"] + rows[0]["loss/penalty"], rel=1e-5)
    assert rows[2]["selected"] == rows[2]["link_prediction/mrr"] and rows[2]["best"] and rows[2]["learning_rate"] == 0.1
    assert latest(lone[0]) == [14, 28]


@pytest.mark.parametrize("more", [(), ("average=0.5",)], ids=["plain", "average"])
def test_terminated_within_a_pass_and_started_again(
    more: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pass is three programs here; the signal comes in the first of the second pass, then during the validation."""
    monkeypatch.setattr(module, "PIECE", 3)
    (whole,) = train(tmp_path / "whole", (0,), *more)[1]
    step, said = Bar.step, []

    def signalling(self: Bar, done: int) -> None:
        step(self, done)
        if done == 10:
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch, pytest.raises(Interrupted, match="stopped by SIGTERM after step 10 of 28; the same"):
        patch.setattr(Bar, "step", signalling)
        train(tmp_path / "run", (0,), *more)

    def say(line: str) -> None:
        said.append(line)
        if "validation MRR" in line:
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Interrupted, match="after step 14 of 28"):
        train(tmp_path / "run", (0,), *more, say=say)
    (outcome,), (run,) = train(tmp_path / "run", (0,), *more, say=said.append)
    assert [line for line in said if "resuming" in line] == ["resuming at step 10 of 28", "resuming at step 14 of 28"]
    assert isinstance(outcome, Trained) and outcome.steps == 28
    assert_same_bits(run, whole)


def test_the_average_is_of_what_each_epoch_left_and_training_does_not_see_it(tmp_path: Path) -> None:
    """By half each time: 1/7 of the first epoch, 2/7 of the second, 4/7 of the third; also of two seeds in one program."""
    until = [best(train(tmp_path / f"{n}", (0,), f"epochs={n}", ranking=None)[1][0])[1] for n in (1, 2, 3)]
    wanted = jax.tree.map(lambda a, b, c: (a + 2 * b + 4 * c) / 7, *until)
    for seeds in ((0,), (0, 1)):
        home = train(tmp_path / f"average {len(seeds)}", seeds, "epochs=3", "average=0.5", ranking=None)[1][0]
        step, found = best(home)
        assert step == 21
        for a, b, last in zip(*map(jax.tree.leaves, (found, wanted, until[-1])), strict=True):
            assert np.allclose(a, b, rtol=1e-4, atol=1e-6) and not np.allclose(a, last, rtol=1e-3, atol=1e-3)


def test_patience(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Best at the second validation, then two that are not; started again, not a step more."""
    falling(monkeypatch, lambda n: [0.3, 0.5, 0.5, 0.4, 0.9][n])
    for _ in range(2):
        (outcome,), (home,) = train(tmp_path, (0,), "epochs=9", "validate_every=1", "patience=2")
        assert isinstance(outcome, Trained)
        assert (outcome.steps, outcome.best_step, outcome.stopped_early) == (28, 14, True)
        assert [row["best"] for row in home.metrics() if row["kind"] == "valid"] == [True, True, False, False]
    assert best(home)[0] == 14


def test_plateau_lowers_the_rate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After two validations no better; and the rate is what the next pass uses: nothing is learnt at next to none."""
    falling(monkeypatch, lambda n: 0.5)
    plateau = "optimiser={schedule: plateau, factor: 1e-9, wait: 1, learning_rate: 0.2, name: sgd}"
    (home,) = train(tmp_path, (0,), "epochs=5", "validate_every=1", plateau, "dropout.entity=0")[1]
    rates = [row["learning_rate"] for row in home.metrics() if row["kind"] == "valid"]
    assert rates == pytest.approx([0.2, 0.2, 2e-10, 2e-10, 2e-19])
    losses = [row["loss"] for row in home.metrics() if row["kind"] == "train"]
    assert losses[0] > losses[1] > losses[2] > losses[3]
    assert losses[4] == pytest.approx(losses[3], rel=1e-2) and losses[2] - losses[3] > 10 * abs(losses[3] - losses[4])


def test_no_validation_triples_keeps_the_last(tmp_path: Path) -> None:
    (outcome,), (home,) = train(tmp_path, ranking=None)
    assert isinstance(outcome, Trained) and outcome.best_step == 28 and best(home)[0] == 28


def test_whoever_is_told_of_a_validation_may_end_training(tmp_path: Path) -> None:
    told: list[int] = []
    (outcome,), _ = train(tmp_path, on_validation=lambda step, value: told.append(step) or True)
    assert isinstance(outcome, Trained) and (outcome.steps, told) == (14, [14])


def test_a_loss_that_is_not_finite_names_step_and_part(tmp_path: Path) -> None:
    hot = "optimiser={name: sgd, learning_rate: 1e30}"
    with pytest.raises(
        NonFiniteLoss, match=r"^step 7: link_prediction is not finite \(nan\); last good checkpoint: none yet\."
    ):
        train(tmp_path / "a", (0,), hot)
    # The loss of the one step of a pass is still finite, what it leaves is not, or its scores are not.
    one = "optimiser={name: sgd, learning_rate: 3e38}", "batch_size=112", "validate_every=1", "epochs=1"
    with pytest.raises(NonFiniteLoss, match=r"^step 1: a parameter is not finite; last good checkpoint: none yet\."):
        train(tmp_path / "b", (0,), *one, "penalty.entity=1e6")
    with pytest.raises(NonFiniteLoss, match=r"^step 1: validation: link_prediction \(tail\): .* NaN scores.*; last good"):
        train(tmp_path / "c", (0,), *one)


# ----------------------------------------------------------------------------------------------------------- in one program
def test_seeds_in_one_program_are_their_lone_runs(lone: list[RunFolder], tmp_path: Path) -> None:
    """Four of them, one to each device."""
    seeds = (3, 1, 0, 2)
    assert Placement.of(4, 16).by_run
    said: list[str] = []
    outcomes, homes = train(tmp_path, seeds, say=said.append)
    for seed in (0, 1):
        home = homes[seeds.index(seed)]
        assert_alike(home, lone[seed])
        assert best(home)[0] == best(lone[seed])[0]
        assert any(line.startswith(f"seed {seed}: epoch 2 (step 14): validation MRR") for line in said)
    assert all(isinstance(each, Trained) and each.steps == 28 for each in outcomes)
    assert len({home.metrics()[0]["loss"] for home in homes}) == 4


def test_numbers_of_the_loss_may_differ_and_one_that_diverges_stops_alone(lone: list[RunFolder], tmp_path: Path) -> None:
    said: list[str] = []
    each = ((), ("penalty.entity=0.5", "optimiser.learning_rate=0.05"), ("optimiser.learning_rate=1e38",))
    (good, other, bad), homes = train(tmp_path, (0, 1, 2), say=said.append, each=each)
    assert isinstance(good, Trained) and isinstance(other, Trained) and isinstance(bad, NonFiniteLoss)
    assert_alike(homes[0], lone[0])
    assert homes[1].metrics()[0]["loss/penalty"] > 10 * lone[1].metrics()[0]["loss/penalty"]
    assert homes[1].metrics()[2]["learning_rate"] == 0.05
    assert str(bad).startswith("step 7: ")
    assert any(line.startswith("seed 2: stopped, the others go on: step 7") for line in said)
    assert homes[2].metrics() == [] and latest(homes[2]) == []


def test_one_without_patience_left_stops_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Validations are of seed 0, then of seed 1, until seed 0 has stopped; started again, neither does more."""
    falling(monkeypatch, lambda n: [0.9, 0.1, 0.8, 0.2, 0.3, 0.4][n])
    for _ in range(2):
        outcomes, homes = train(tmp_path, (0, 1), "validate_every=1", "patience=1")
        found = [(each.steps, each.best_step, each.stopped_early) for each in outcomes if isinstance(each, Trained)]
        assert found == [(14, 7, True), (28, 28, False)]
        assert [home.metrics()[-1]["step"] for home in homes] == [14, 28]


def test_checkpoints_of_different_steps_go_on_from_one_that_all_have(
    lone: list[RunFolder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, count = Checkpoints.save, iter(range(100))

    def killed(self: Checkpoints, state: Any, memory: dict[str, Any]) -> None:
        if next(count) == 3:
            raise KeyboardInterrupt
        save(self, state, memory)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Checkpoints, "save", killed)
        train(tmp_path, (0, 1))
    homes = [RunFolder(tmp_path / name) for name in "01"]
    assert [latest(home) for home in homes] == [[14, 28], [14]]
    said: list[str] = []
    train(tmp_path, (0, 1), say=said.append)
    assert "resuming at step 14 of 28" in said
    for ours, theirs in zip(homes, lone, strict=True):
        assert_alike(ours, theirs)


def test_checkpoints_with_no_step_in_common_start_anew(lone: list[RunFolder], tmp_path: Path) -> None:
    """As where one diverged long before the process was killed."""
    train(tmp_path, (0,))
    train(tmp_path, (1,), "epochs=1")
    said: list[str] = []
    outcomes, homes = train(tmp_path, (0, 1), say=said.append)
    assert not any("resuming" in line for line in said)
    assert [(each.steps, each.best_step) for each in outcomes if isinstance(each, Trained)] == [
        (28, best(home)[0]) for home in lone
    ]
    for ours, theirs in zip(homes, lone, strict=True):
        assert_alike(ours, theirs)
        assert best(ours)[0] == best(theirs)[0]


# -------------------------------------------------------------------------------------------------------------- refusals
def test_graphs_that_cannot_be_trained_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = [RunFolder(tmp_path)]
    with pytest.raises(UserError, match="the graph has no training triple"):
        train_graphs([run_of(*SHORT)], TRAIN[:0], SIZES, no_features(), None, home)
    with pytest.raises(UserError, match=r"^kge: conve: images of \d+ × \d+ numbers are smaller than filters of 9 × 9"):
        train(tmp_path, (0,), "scorer=conve", "convolution.kernel=9")
    monkeypatch.setattr("fusionjax.objectives.link_prediction.graph._MOST_LABEL_BYTES", 10)
    with pytest.raises(UserError, match=r"^kge: training: k_vs_all: labels of .* use one_vs_all or negatives"):
        train(tmp_path, (0,), "training=k_vs_all")


def test_batches_of_a_lone_run_stay_on_one_cpu_device() -> None:
    place = Placement.of(1, 16)
    assert not place.by_batch and not place.by_run
    assert place.orders(np.zeros((3, 16), np.int32)).devices() == {jax.devices()[0]}
    spread = Placement.of(4, 16).states(jnp.zeros((4, 2)))
    assert len(spread.devices()) == 4 and spread.addressable_shards[0].data.shape == (1, 2)
