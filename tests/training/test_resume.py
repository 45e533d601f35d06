"""A run that is killed again and again ends with the bits of one that was not. Real processes, real signals."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from fusionjax.config import dump_run
from fusionjax.runs import RunFolder
from fusionjax.training.checkpoint import Checkpoints
from fusionjax.training.state import best_shapes
from tests.session import QUICK_COMPILATION
from tests.shops import fresh_state, model_of, tiny_inputs, tiny_run

RUN = tiny_run("train.steps=12", "train.validate_every=4", "train.checkpoint_every=2")

# The command, in a process that kills itself at one exact moment.
SUICIDE = """
import os, signal, sys
from fusionjax import cli, pipeline
from fusionjax.tasks import evaluator
from fusionjax.training.checkpoint import Checkpoints, ocp

def die(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)

def before_end_of_save(self, *args, **kwargs):
    self.save_async(*args, **kwargs)  # the folder is begun, nothing is renamed yet
    die()

def after_best(self, *args, **kwargs):
    save_best(self, *args, **kwargs)
    die()

save_best = Checkpoints.save_best
match sys.argv.pop(1):
    case "saving": ocp.training.Checkpointer.save = before_end_of_save
    case "validating": evaluator.Validation.validate = die
    case "best saved": Checkpoints.save_best = after_best
    case "results written": pipeline.write_report = die
sys.exit(cli.main(sys.argv[1:]))
"""


class Shop:
    """One config on disk, and processes that train it with a data and compilation cache of their own."""

    def __init__(self, root: Path) -> None:
        self.root, self.config = root, root / "tiny.yaml"
        self.config.write_text(dump_run(RUN), encoding="utf-8")
        self.cache = root / "cache"
        # Two devices: sharded, and half the compilation of four. Unoptimised programs compile faster and are as repeatable.
        flags = "--xla_force_host_platform_device_count=2 --xla_backend_optimization_level=0" + QUICK_COMPILATION
        self.environment = {**os.environ, "XLA_FLAGS": flags, "FUSIONJAX_CACHE": str(self.cache)}

    def start(self, run: RunFolder, *command: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, *(command or ("-m", "fusionjax.cli")), "train", str(self.config), "--run-dir", str(run.path)],
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )

    def finish(self, run: RunFolder) -> str:
        """Runs the command to its end; what it said."""
        process = self.start(run)
        said = process.communicate(timeout=300)[1]
        assert process.returncode == 0, said
        return said

    def kill_when(self, run: RunFolder, reached: Callable[[], bool], how: signal.Signals = signal.SIGKILL) -> tuple[int, str]:
        """Starts the command and signals it once `reached`; its exit status and what it said."""
        process = self.start(run)
        while not reached():
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.005)
        process.send_signal(how)
        said = process.communicate(timeout=120)[1]
        return process.returncode, said

    def kill_itself(self, run: RunFolder, moment: str) -> str:
        """Runs the command in a process that dies at that moment; what it said."""
        process = self.start(run, "-c", SUICIDE, moment)
        said = process.communicate(timeout=300)[1]
        assert process.returncode == -signal.SIGKILL, said
        return said


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    return Shop(tmp_path_factory.mktemp("resume"))


@pytest.fixture(scope="module")
def uninterrupted(shop: Shop) -> RunFolder:
    run = RunFolder(shop.root / "uninterrupted")
    assert "resuming" not in shop.finish(run)
    return run


def steps_logged(run: RunFolder) -> int:
    return max((row["step"] for row in run.metrics()), default=0)


def saved(run: RunFolder) -> dict[str, Any]:
    """Everything in the checkpoints, as arrays of this process: they are saved by two devices and read by one."""
    inputs = tiny_inputs(RUN)
    model, checkpoints = model_of(RUN, inputs), Checkpoints(run.checkpoints)
    try:
        restored = checkpoints.restore(fresh_state(RUN, inputs, steps=12))
        assert restored is not None
        best_step, params, bank = checkpoints.load_best(*best_shapes(model))
    finally:
        checkpoints.close()
    return {"state": restored[0], "memory": restored[1], "best": {"step": best_step, "params": params, "bank": bank}}


def assert_same(run: RunFolder, reference: RunFolder) -> None:
    assert run.metrics_file.read_bytes() == reference.metrics_file.read_bytes()
    assert run.results_file.read_bytes() == reference.results_file.read_bytes()
    ours, theirs = saved(run), saved(reference)
    assert ours.pop("memory") == theirs.pop("memory")
    assert int(ours["state"].step) == 12
    pairs = zip(jax.tree_util.tree_leaves_with_path(ours), jax.tree.leaves(theirs), strict=True)
    different = [jax.tree_util.keystr(path) for (path, a), b in pairs if not np.array_equal(a, b)]
    assert not different
    assert (run.path / "report.html").exists()


def test_killed_at_many_moments_equals_uninterrupted(shop: Shop, uninterrupted: RunFolder) -> None:
    run = RunFolder(shop.root / "killed")
    latest = run.checkpoints / "latest"

    # Before anything but the config is written.
    assert shop.kill_when(run, run.config_file.exists)[0] == -signal.SIGKILL
    assert not run.metrics_file.exists()

    # In the middle of writing the first checkpoint: what is half-written is not taken for a checkpoint.
    shop.kill_itself(run, "saving")
    assert [path.name for path in latest.iterdir() if path.name.isdecimal()] == []
    assert list(latest.iterdir()), "the kill came before the folder was begun"

    # Whenever step 3 is in the log.
    assert shop.kill_when(run, lambda: steps_logged(run) >= 3)[0] == -signal.SIGKILL

    # During a validation (of step 4, unless the kill above came later still).
    shop.kill_itself(run, "validating")

    # Between the best checkpoint and the latest one. A damaged entry in the cache of compiled programs does no harm, either.
    compiled = {entry: entry.read_bytes() for entry in (shop.cache / "xla").glob("jit_step-*")}
    assert compiled
    for entry, program in compiled.items():
        entry.write_bytes(program[: len(program) // 2])
    assert "resuming at step" in shop.kill_itself(run, "best saved")

    for entry, program in compiled.items():
        entry.write_bytes(program)

    # After training, between results.json and the report.
    shop.kill_itself(run, "results written")
    assert run.results_file.exists() and not (run.path / "report.html").exists()

    assert "resuming at step 12 of 12" in shop.finish(run)
    assert_same(run, uninterrupted)


def test_sigterm_saves_and_the_same_command_finishes(shop: Shop, uninterrupted: RunFolder) -> None:
    run = RunFolder(shop.root / "terminated")
    code, said = shop.kill_when(run, lambda: steps_logged(run) >= 1, signal.SIGTERM)
    assert code == 0, said
    assert "stopped by SIGTERM after step" in said
    stopped = int(said.split("stopped by SIGTERM after step ")[1].split(";")[0])
    assert stopped in [int(path.name) for path in (run.checkpoints / "latest").iterdir()]
    assert not run.results_file.exists()

    # Outside training there is nothing to save: it just ends.
    at_rest = RunFolder(shop.root / "at-rest")
    code, said = shop.kill_when(at_rest, at_rest.config_file.exists, signal.SIGTERM)
    assert code == 0, said
    assert "stopped by SIGTERM" in said

    assert f"resuming at step {stopped} of 12" in shop.finish(run)
    assert_same(run, uninterrupted)
