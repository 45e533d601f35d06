"""Runs of several objectives: one after the other, averaged, on a plateau, stopped and started again."""

import signal
from pathlib import Path

import jax
import numpy as np
import pytest

from fusionjax.config import schema
from fusionjax.errors import Interrupted
from fusionjax.runs import RunFolder
from fusionjax.tasks.evaluator import Validation
from fusionjax.training.checkpoint import Checkpoints
from fusionjax.training.journal import Trained
from fusionjax.training.log import Bar
from fusionjax.training.loop import train
from fusionjax.training.state import best_shapes
from tests.shops import model_of, tiny_inputs, tiny_run, train_alone

SHORT = ("train.steps=4", "train.validate_every=2", "evaluation.tasks=[recommendation]")


def best(config: schema.Run, folder: Path) -> list[np.ndarray]:
    checkpoints = Checkpoints(folder / "checkpoints", writing=False)
    try:
        return jax.tree.leaves(checkpoints.load_best(*best_shapes(model_of(config, tiny_inputs(config))))[1])
    finally:
        checkpoints.close()


def same(ours: list[np.ndarray], theirs: list[np.ndarray]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_runs_one_after_the_other_are_their_lone_runs(tmp_path: Path) -> None:
    configs = [tiny_run(*SHORT).model_copy(update={"seed": seed}) for seed in (0, 1)]
    homes = [RunFolder(tmp_path / f"{seed}") for seed in (0, 1)]
    for home in homes:
        home.path.mkdir()
    done = train(configs, [tiny_inputs(config) for config in configs], homes, Validation, lambda _: None)
    assert [outcome.steps for outcome in done if isinstance(outcome, Trained)] == [4, 4]
    train_alone(configs[1], tmp_path / "alone")
    assert same(best(configs[1], homes[1].path), best(configs[1], tmp_path / "alone"))
    assert not same(best(configs[0], homes[0].path), best(configs[1], homes[1].path))


def test_an_averaged_run_stopped_and_started_again_ends_with_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, plain = tiny_run(*SHORT, "train.average=0.5"), tiny_run(*SHORT)
    train_alone(config, tmp_path / "whole")
    step = Bar.step

    def signalling(self: Bar, done: int) -> None:
        step(self, done)
        if done == 3:
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch, pytest.raises(Interrupted, match="after step 3"):
        patch.setattr(Bar, "step", signalling)
        train_alone(config, tmp_path / "run")
    train_alone(config, tmp_path / "run")
    assert same(best(config, tmp_path / "run"), best(config, tmp_path / "whole"))
    train_alone(plain, tmp_path / "plain")
    assert not same(best(plain, tmp_path / "plain"), best(config, tmp_path / "whole"))


def test_a_plateau_lowers_the_rates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = iter([0.5, 0.4, 0.3, 0.2])
    monkeypatch.setattr("fusionjax.tasks.evaluator.Evaluator.selected", lambda *_: next(values))
    plateau = "train.optimiser={schedule: plateau, factor: 0.5, wait: 0, warmup_share: 0, name: sgd}"
    train_alone(tiny_run("train.steps=4", "train.validate_every=1", "evaluation.tasks=[recommendation]", plateau), tmp_path)
    rows = [row for row in RunFolder(tmp_path).metrics() if row["kind"] == "valid"]
    assert [row["rate_scale"] for row in rows] == [1.0, 0.5, 0.25, 0.125]


def test_a_rate_of_next_to_none_moves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the plateau leaves of the rates is what the next steps use."""
    values = iter([0.5, 0.4, 0.6])
    monkeypatch.setattr("fusionjax.tasks.evaluator.Evaluator.selected", lambda *_: next(values))
    plateau = "train.optimiser={schedule: plateau, factor: 1e-30, wait: 0, warmup_share: 0, name: sgd}"
    config = tiny_run("train.validate_every=1", "evaluation.tasks=[recommendation]", plateau, "train.steps=3")
    train_alone(config, tmp_path / "three")
    values = iter([0.5, 0.6])
    train_alone(config.model_copy(update={"train": config.train.model_copy(update={"steps": 2})}), tmp_path / "two")
    assert same(best(config, tmp_path / "three"), best(config, tmp_path / "two"))
