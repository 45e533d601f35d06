"""What the training loop promises: one seed gives one result, the best is kept, divergence stops the run and says where."""

import dataclasses
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fusionjax import cli, runs
from fusionjax.config import dump_run, schema
from fusionjax.errors import NonFiniteLoss, UserError
from fusionjax.evaluation.metrics import Result
from fusionjax.runs import RunFolder
from fusionjax.tasks.evaluator import Validation
from fusionjax.training import steps as driver
from fusionjax.training.checkpoint import Checkpoints
from fusionjax.training.journal import Trained
from fusionjax.training.state import best_shapes
from tests.shops import ONLY_GRAPH, fresh_state, model_of, tiny_inputs, tiny_run, train_alone


def trained(config: schema.Run, folder: Path) -> tuple[Trained, RunFolder, list[str]]:
    said: list[str] = []
    return train_alone(config, folder, said.append), RunFolder(folder), said


def best(config: schema.Run, run: RunFolder) -> tuple[int, Any]:
    checkpoints = Checkpoints(run.checkpoints)
    try:
        step, params, bank = checkpoints.load_best(*best_shapes(model_of(config, tiny_inputs(config))))
    finally:
        checkpoints.close()
    return step, (params, bank)


def equal(a: Any, b: Any) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def losses(run: RunFolder) -> list[float]:
    return [row["loss"] for row in run.metrics() if row["kind"] == "train"]


# Everything on, by turns: link prediction in even steps, alignment in odd ones.
JOINT = (
    "objectives.link_prediction.every=2",
    "objectives.alignment.every=2",
    "objectives.alignment.offset=1",
    "train.steps=4",
    "train.validate_every=2",
)


@pytest.fixture(scope="module")
def joint(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return trained(tiny_run(*JOINT), tmp_path_factory.mktemp("joint") / "run")[1]


def test_one_seed_one_result(joint: RunFolder, tmp_path: Path) -> None:
    config = tiny_run(*JOINT)
    again = trained(config, tmp_path / "again")[1]
    assert again.metrics_file.read_bytes() == joint.metrics_file.read_bytes()
    assert best(config, again)[0] == best(config, joint)[0]
    assert equal(best(config, again)[1], best(config, joint)[1])


def test_another_seed_another_result(tmp_path: Path) -> None:
    short = ("train.steps=2", "train.validate_every=2")
    one, two, other = (
        trained(tiny_run(*ONLY_GRAPH, *short, f"seed={seed}"), tmp_path / name)[1]
        for name, seed in (("one", 1), ("two", 1), ("other", 2))
    )
    assert losses(one) == losses(two)
    assert all(a != b for a, b in zip(losses(one), losses(other), strict=True))


def test_rows_hold_the_objectives_whose_turn_it_is(joint: RunFolder) -> None:
    rows = [row for row in joint.metrics() if row["kind"] == "train"]
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    for row in rows:
        turn = "link_prediction" if row["step"] % 2 else "alignment"
        expected = {f"loss/{turn}", "loss/query_product", "loss/next_product"}
        assert {name for name in row if name.startswith("loss/")} == expected
        assert row["loss"] == pytest.approx(sum(row[name] for name in expected), rel=1e-5)
        assert row["gradient_norm"] > 0
    assert {row["step"] for row in joint.metrics() if row["kind"] == "valid"} == {2, 4}
    valid = joint.metrics()[2]
    mean = np.mean([valid[name] for name in ("link_prediction/mrr", "search/ndcg@10", "recommendation/ndcg@10")])
    assert valid["selected"] == pytest.approx(float(mean))
    assert any((joint.path / "tensorboard").iterdir())


def test_thirty_steps_lower_the_loss(tmp_path: Path) -> None:
    fast = (
        "train.optimiser.learning_rate.tables=0.05",
        "train.optimiser.warmup_share=0",
        "objectives.link_prediction.batch_size=128",
    )
    config = tiny_run(*ONLY_GRAPH, *fast, "train.steps=30", "train.validate_every=10")
    done, run, said = trained(config, tmp_path / "run")
    assert np.mean(losses(run)[-5:]) < 0.9 * np.mean(losses(run)[:5])
    assert done.steps == 30 and not done.stopped_early
    assert done.parameters == sum(leaf.size for leaf in jax.tree.leaves(best(tiny_run(*ONLY_GRAPH), run)[1][0]))
    assert sum("validation" in line for line in said) == 3


def test_best_is_kept_and_patience_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Validation is made to rise, then fall: the parameters of its peak must be the ones that stay."""
    values = iter([0.1, 0.3, 0.2, 0.3, 0.9])  # equal is not better
    seen: list[Any] = []

    def measured(_: Any, params: Any, bank: Any) -> dict[str, Result]:
        seen.append(jax.tree.map(np.asarray, params))
        return {"link_prediction": Result(metrics={"mrr": next(values)}, per_example={}, settings={})}

    monkeypatch.setattr(Validation, "validate", measured)
    config = tiny_run(*ONLY_GRAPH, "train.steps=20", "train.validate_every=2", "train.patience=2")
    done, run, _ = trained(config, tmp_path / "run")
    assert done == Trained(steps=8, best_step=4, stopped_early=True, parameters=done.parameters)
    step, (params, _) = best(config, run)
    assert step == 4 and equal(params, seen[1]) and not equal(params, seen[3])
    rows = [row for row in run.metrics() if row["kind"] == "valid"]
    assert [(row["step"], row["best"]) for row in rows] == [(2, True), (4, True), (6, False), (8, False)]
    whole = run.metrics_file.read_bytes()
    # Started again, it is still stopped: no step more.
    done, _, said = trained(config, tmp_path / "run")
    assert (done.steps, done.best_step, done.stopped_early) == (8, 4, True)
    assert "resuming at step 8 of 20" in said
    assert run.metrics_file.read_bytes() == whole


def test_select_names_a_metric(tmp_path: Path) -> None:
    short = ("train.steps=2", "train.validate_every=2")
    run = trained(tiny_run(*ONLY_GRAPH, *short, "train.select=link_prediction/hits@3"), tmp_path / "run")[1]
    row = run.metrics()[-1]
    assert row["selected"] == row["link_prediction/hits@3"]
    with pytest.raises(UserError, match=r"train.select: .*no metric 'mmr'.*mrr"):
        trained(tiny_run(*ONLY_GRAPH, *short, "train.select=link_prediction/mmr"), tmp_path / "wrong")
    with pytest.raises(UserError, match=r"train.select: .*no task 'recommendation' is measured; valid: link_prediction"):
        trained(tiny_run(*ONLY_GRAPH, *short, "train.select=recommendation/mrr"), tmp_path / "early")
    assert not RunFolder(tmp_path / "early").metrics(), "said before the first step"


def test_a_log_row_after_the_checkpoint_is_written_again(tmp_path: Path) -> None:
    config = tiny_run(*ONLY_GRAPH, "train.steps=4", "train.validate_every=2")
    run = trained(config, tmp_path / "run")[1]
    whole = run.metrics_file.read_bytes()
    (run.checkpoints / "latest" / "4").rename(tmp_path / "gone")
    run.metrics_file.write_bytes(whole + b'{"step": 5, "kind": "tr')  # cut short by the kill
    _, run, said = trained(config, tmp_path / "run")
    assert "resuming at step 2 of 4" in said
    assert run.metrics_file.read_bytes() == whole


# ---------------------------------------------------------------------------------------------------------- command line
@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., int]]:
    """`fusionjax train` on the joint run, in this process; the session keeps its own compilation cache and signal handler."""
    monkeypatch.setattr(runs, "keep_compiled_programs", lambda: None)
    before = signal.getsignal(signal.SIGTERM)
    file = tmp_path / "tiny.yaml"
    file.write_text(dump_run(tiny_run(*JOINT)), encoding="utf-8")
    yield lambda *overrides: cli.main(["train", str(file), *overrides, "--run-dir", str(tmp_path / "run")])
    signal.signal(signal.SIGTERM, before)


def test_divergence_then_resumption_then_nothing_left_to_do(
    command: Callable[..., int],
    joint: RunFolder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    build_step, run = driver.build_step, RunFolder(tmp_path / "run")

    def poisoned(*args: Any) -> Any:
        """The user tower breaks after step 3, so step 4 is the first whose loss is not finite."""
        step = build_step(*args)

        def broken(state: Any, *rest: Any) -> Any:
            state, metrics = step(state, *rest)
            if int(state.step) == 3:
                user = jax.tree.map(lambda leaf: leaf * jnp.nan, state.params["user"])
                state = dataclasses.replace(state, params={**state.params, "user": user})
            return state, metrics

        return broken

    with monkeypatch.context() as patch:
        patch.setattr(driver, "build_step", poisoned)
        assert command() == 1
    said = capfd.readouterr().err
    assert "step 4: next_product is not finite (nan); last good checkpoint: step 2." in said
    assert "Traceback" not in said
    assert not run.results_file.exists()

    # The checkpoint of step 2 is whole: the same command goes on from it, to what a run without the accident came to.
    assert command() == 0
    said = capfd.readouterr().err
    assert "resuming at step 2 of 4" in said
    assert run.metrics_file.read_bytes() == joint.metrics_file.read_bytes()
    assert equal(best(tiny_run(*JOINT), run), best(tiny_run(*JOINT), joint))

    written = {path: path.stat().st_mtime_ns for path in run.path.rglob("*") if path.is_file() and path != run.config_file}
    assert command() == 0
    said = capfd.readouterr().err
    assert "this run is complete; nothing to do" in said
    assert written == {path: path.stat().st_mtime_ns for path in written}

    assert command("train.optimiser.learning_rate.heads=0.5") == 2
    said = capfd.readouterr().err
    assert said == (
        f"fusionjax: {run.path} holds a run of another config "
        "(train.optimiser.learning_rate.heads: 0.001 there, 0.5 now); use another --run-dir\n"
    )


def test_a_learning_rate_far_too_high_stops_the_run(tmp_path: Path) -> None:
    rate = ("train.optimiser.learning_rate.tables=1e30", "train.optimiser.warmup_share=0", "train.checkpoint_every=10")
    with pytest.raises(NonFiniteLoss, match=r"step 10: link_prediction is not finite .*checkpoint: none yet"):
        trained(tiny_run(*ONLY_GRAPH, *rate, "train.validate_every=10", "train.steps=10"), tmp_path / "run")


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not a run", encoding="utf-8")
    with pytest.raises(UserError, match="exists and is not a run folder"):
        runs.open_run(tiny_run(), tmp_path, "tiny")


def test_nothing_to_train(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="every weight is 0"):
        trained(tiny_run(*ONLY_GRAPH, "objectives.link_prediction.weight=0"), tmp_path / "run")


# ---------------------------------------------------------------------------------------------------------- checkpoints
def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    config = tiny_run(*ONLY_GRAPH)
    state = fresh_state(config, tiny_inputs(config))
    checkpoints = Checkpoints(tmp_path)
    try:
        checkpoints.save(state, {"data": {}, "best": None})
        checkpoints.save_best(state, {})
        wider = tiny_run(*ONLY_GRAPH, "model.entity.dim=32")
        with pytest.raises(UserError, match="latest/0: this checkpoint does not fit the model of the config"):
            checkpoints.restore(fresh_state(wider, tiny_inputs(wider)))
        with pytest.raises(UserError, match="best/0: this checkpoint does not fit the model of the config"):
            checkpoints.load_best(*best_shapes(model_of(wider, tiny_inputs(wider))))
    finally:
        checkpoints.close()


def test_checkpoints_round_trip_and_few_are_kept(tmp_path: Path) -> None:
    config = tiny_run(*ONLY_GRAPH)
    state = fresh_state(config, tiny_inputs(config))
    checkpoints = Checkpoints(tmp_path)
    memory = {"data": {"next_index": 3}, "best": 0.25, "best_step": 2, "since_best": 1, "stopped": False}
    try:
        with pytest.raises(UserError, match="no checkpoint there; train the run first"):
            checkpoints.load_best(*best_shapes(model_of(config, tiny_inputs(config))))
        assert checkpoints.restore(state) is None
        for step in (1, 2, 3):
            state = dataclasses.replace(state, step=jnp.asarray(step, jnp.int32))
            checkpoints.save(state, memory)
            checkpoints.save_best(state, {"selected": 0.25})
        restored = checkpoints.restore(fresh_state(tiny_run(*ONLY_GRAPH, "seed=9"), tiny_inputs(config)))
        assert restored is not None and restored[1] == memory
        assert equal(restored[0], state)
        assert sorted(path.name for path in (tmp_path / "latest").iterdir()) == ["2", "3"]
        assert sorted(path.name for path in (tmp_path / "best").iterdir()) == ["3"]
    finally:
        checkpoints.close()
