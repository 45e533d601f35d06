"""Runs of graph embedding from the config to the folder, killed on the way, several seeds at once, and by the command."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fusionjax import pipeline
from fusionjax.config import dump_run, schema
from fusionjax.config.search import with_params
from fusionjax.training.epochs import init_state
from fusionjax.models.entities import graph_model
from fusionjax.reporting import tables
from fusionjax.runs import RunFolder
from fusionjax.seeds import run_seeds, together
from fusionjax.training.checkpoint import Checkpoints
from fusionjax.training.state import TrainState
from tests.kge.made import ENTITIES, RELATIONS, no_features, run_of, triples
from tests.trained import Cli, one_clear_line

SETTINGS = (
    *("scorer=complex", "epochs=4", "validate_every=1", "training=negatives", "negatives={number: 4, filtered: true}"),
    *("optimiser={name: adam, learning_rate: 0.02, rows: on}", "/data.name=files", "/evaluation.batch_size=16"),
)
# Ends in the middle of writing its third checkpoint: the folder is begun, nothing is renamed yet.
SUICIDE = """
import os, signal, sys
from fusionjax import cli
from fusionjax.training.checkpoint import ocp

count = iter(range(9))

def save(self, *args, **kwargs):
    if "latest" in str(self.directory) and next(count) == 2:
        self.save_async(*args, **kwargs)
        os.kill(os.getpid(), signal.SIGKILL)
    return before(self, *args, **kwargs)

before, ocp.training.Checkpointer.save = ocp.training.Checkpointer.save, save
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> schema.Run:
    """Of a graph in files: every ninth triple is validation, the one after it test."""
    folder = tmp_path_factory.mktemp("graph")
    split = np.array(["train", "valid", "test"])[np.array([0, 0, 0, 0, 1, 2, 0, 0, 0])]
    rows = [f"e{head},r{relation},e{tail},{split[place % 9]}" for place, (head, relation, tail) in enumerate(triples())]
    (folder / "triples.csv").write_text("\n".join(["head,relation,tail,split", *rows]) + "\n", encoding="utf-8")
    return run_of(*SETTINGS, f"/data.source_dir={folder}")


@pytest.fixture(scope="module")
def whole(config: schema.Run, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return pipeline.run(config, tmp_path_factory.mktemp("runs") / "whole", "tiny", lambda _: None)


def latest(home: RunFolder) -> tuple[dict[str, np.ndarray], Any]:
    """(every number of the newest checkpoint, the memory beside it)."""
    kge = home.config().kge
    fresh = init_state(graph_model(kge, ENTITIES, RELATIONS, no_features()), kge, 0)
    checkpoints = Checkpoints(home.checkpoints, writing=False)
    try:
        restored = checkpoints.restore(TrainState(fresh["step"], fresh["params"], fresh["opt"], jnp.zeros((1, 1))))
    finally:
        checkpoints.close()
    assert restored is not None
    state, memory = restored
    assert int(state.step) == 28
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(state)}, memory


def test_what_a_run_leaves(config: schema.Run, whole: RunFolder) -> None:
    results = whole.results()
    assert results.keys() >= {"valid", "test", "baselines"}
    for split in ("valid", "test"):
        metrics = results[split]["link_prediction"]
        assert 0 < metrics["mrr"] <= 1 and metrics["triples"] == 7
    assert results["baselines"]["link_prediction"]
    best = [row["selected"] for row in whole.metrics() if row["kind"] == "valid" and row["best"]][-1]
    assert results["valid"]["link_prediction"]["mrr"] == pytest.approx(best)
    assert "complex" in (whole.path / "report.html").read_text(encoding="utf-8")
    assert (whole.scores / "link_prediction.npz").exists() and any(whole.plots.iterdir())
    record = whole.provenance()
    assert record["steps"] == 28 and not record["stopped_early"] and record["parameters"] == (ENTITIES + 8) * 8
    assert whole.config() == config
    said: list[str] = []
    pipeline.run(config, whole.path, "tiny", said.append)
    assert said[-1] == "this run is complete; nothing to do"


def test_killed_and_started_again_equals_uninterrupted(config: schema.Run, whole: RunFolder, tmp_path: Path) -> None:
    file, home = tmp_path / "tiny.yaml", RunFolder(tmp_path / "killed")
    file.write_text(dump_run(config), encoding="utf-8")
    process = subprocess.run(
        [sys.executable, "-c", SUICIDE, "train", str(file), "--run-dir", str(home.path)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "FUSIONJAX_CACHE": str(tmp_path / "cache")},
    )
    assert process.returncode == -signal.SIGKILL, process.stderr
    assert [row["step"] for row in home.metrics() if row["kind"] == "valid"] == [7, 14, 21]
    said: list[str] = []
    pipeline.run(config, home.path, "tiny", said.append)
    assert "resuming at step 14 of 28" in said
    assert home.metrics_file.read_bytes() == whole.metrics_file.read_bytes()
    assert home.results_file.read_bytes() == whole.results_file.read_bytes()
    (ours, memory), (theirs, other) = latest(home), latest(whole)
    assert memory == other and ours.keys() == theirs.keys()
    assert not [name for name in ours if not np.array_equal(ours[name], theirs[name])]


def test_a_sample_of_test_says_how_sure_it_is_and_false_triples_are_told_from_true_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, rows = tmp_path / "graph", triples()
    folder.mkdir()
    false = rows + np.array([0, 0, 5])
    false[:, 2] %= ENTITIES
    for name, places in {"train": (0, 1, 2, 3, 6, 7, 8), "valid": (4,), "test": (5,)}.items():
        inside = np.isin(np.arange(len(rows)) % 9, places)
        for file, part in ((name, rows), (f"{name}_negatives", false)):
            lines = "".join(f"e{head}\tr{relation}\te{tail}\n" for head, relation, tail in part[inside])
            (folder / f"{file}.txt").write_text(lines, encoding="utf-8")
    (folder / "train_negatives.txt").unlink()
    config = run_of("scorer=distmult", "epochs=2", "/data.name=triples", f"/data.source_dir={folder}", "/evaluation.max_test=4")
    config = config.model_copy(update={"seeds": (0, 1)})
    home = run_seeds(config, tmp_path / "runs", "tiny", lambda _: None)
    results = home.results()
    assert "intervals" not in results, "an interval is that of one seed"
    for seed in ("0", "1"):
        own = RunFolder(home.path / f"seed-{seed}").results()
        found, mrr = own["intervals"]["link_prediction"]["mrr"], own["test"]["link_prediction"]["mrr"]
        assert results["seeds"][seed]["intervals"] == own["intervals"] and 0 <= found["low"] < mrr < found["high"] <= 1
        page = (home.path / f"seed-{seed}" / "report.html").read_text(encoding="utf-8")
        said = f"MRR {found['low']:.4f} to {found['high']:.4f}"
        assert said in page and said in tables.interval_notes(own)[0]
        judged = own["test"]["triple_classification"]
        assert 0.5 <= judged["accuracy"] <= 1 and own["baselines"]["triple_classification"]
    tables.print_results(own)
    assert "with 95 % confidence" in capsys.readouterr().out


def test_the_command_measures_again_and_finds_the_same(cli: Cli, whole: RunFolder) -> None:
    code, out, err = cli("evaluate", str(whole.path))
    assert code == 0, err
    assert out.splitlines()[-1] == f"equal to {whole.results_file}"


def test_the_command_does_not_search_in_a_graph(cli: Cli, whole: RunFolder) -> None:
    one_clear_line(cli("search", str(whole.path), "e1"), r"a run of graph embedding \(kge\.scorer\) has no towers to search")


# ---------------------------------------------------------------------------------------------------------- several seeds
def test_seeds_are_a_folder_each_and_their_means(cli: Cli, config: schema.Run, whole: RunFolder, tmp_path: Path) -> None:
    file, folder = tmp_path / "tiny.yaml", tmp_path / "seeds"
    file.write_text(dump_run(config.model_copy(update={"seeds": (0, 3)})), encoding="utf-8")
    code, out, err = cli("train", str(file), "--run-dir", str(folder))
    assert code == 0, err
    assert out.splitlines()[-1] == str(folder)
    home, (first, third) = RunFolder(folder), [RunFolder(folder / f"seed-{seed}") for seed in (0, 3)]
    assert (first.path / "report.html").exists() and third.config() == config.model_copy(update={"seed": 3})
    assert first.results()["test"]["link_prediction"] == pytest.approx(whole.results()["test"]["link_prediction"], rel=1e-4)
    results, each = home.results(), [one.results() for one in (first, third)]
    assert results["seeds"] == {
        seed: {split: one[split] for split in ("valid", "test")} for seed, one in zip("03", each, strict=True)
    }
    for split in ("valid", "test"):
        values = [one[split]["link_prediction"]["mrr"] for one in each]
        assert results[split]["link_prediction"]["mrr"] == pytest.approx(np.mean(values))
        assert results["spread"][split]["link_prediction"]["mrr"] == pytest.approx(np.std(values, ddof=1))
    assert results["baselines"] == each[0]["baselines"]
    one_clear_line(cli("evaluate", str(folder)), r"a run of several seeds; measure one of them, such as .*/seed-0$")
    # Again: nothing is left to do, and the same is found.
    before = home.results_file.read_bytes()
    code, _, err = cli("train", str(file), "--run-dir", str(folder))
    assert code == 0 and err.count("this run is complete; nothing to do") == 2
    assert home.results_file.read_bytes() == before


def test_a_seed_that_stands_twice_is_refused(cli: Cli, config: schema.Run, tmp_path: Path) -> None:
    file = tmp_path / "tiny.yaml"
    file.write_text(dump_run(config.model_copy(update={"seeds": (1, 1)})), encoding="utf-8")
    one_clear_line(cli("train", str(file), "--run-dir", str(tmp_path / "run")), r"seeds: \[1, 1\]: one stands twice")


def test_means_of_what_is_undefined_for_one_seed() -> None:
    rows = [{"valid": {"t": {"mrr": value, "x": other}}, "test": {}} for value, other in ((0.2, None), (0.4, 1.0))]
    found = together((4, 7), rows)
    assert found["valid"] == {"t": {"mrr": pytest.approx(0.3), "x": None}}
    assert found["spread"]["valid"] == {"t": {"mrr": pytest.approx(0.2 / 2**0.5), "x": None}}
    assert json.loads(json.dumps(found))["seeds"]["7"]["valid"]["t"] == {"mrr": 0.4, "x": 1.0}
    assert "spread" not in together((4,), rows[:1])


# ------------------------------------------------------------------------------------------------------------- by hand
def test_a_selection_that_graphs_do_not_have(config: schema.Run, cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "tiny.yaml"
    file.write_text(dump_run(config), encoding="utf-8")
    found = cli("train", str(file), "--run-dir", str(tmp_path / "run"), "train.select=search/mrr")
    assert found[0] == 2 and "train.select" in found[2].splitlines()[-1]


# ------------------------------------------------------------------------------------------------------------- settings
def with_settings(config: schema.Run, *settings: dict[str, float]) -> str:
    return dump_run(config.model_copy(update={"kge": config.kge.model_copy(update={"settings": settings})}))


def test_settings_train_together_and_only_the_best_is_tested(cli: Cli, config: schema.Run, tmp_path: Path) -> None:
    file, folder = tmp_path / "tiny.yaml", tmp_path / "settings"
    slow, fast = ({"optimiser.learning_rate": rate} for rate in (0.0001, 0.3))
    file.write_text(with_settings(config, slow, fast), encoding="utf-8")
    code, out, err = cli("train", str(file), "--run-dir", str(folder))
    assert code == 0, err
    results = RunFolder(folder).results()
    assert [row["setting"] for row in results["settings"]] == [slow, fast]
    assert [row["chosen"] for row in results["settings"]] == [False, True]
    values = [row["validation_mrr"] for row in results["settings"]]
    assert values[0] < values[1] == results["valid"]["link_prediction"]["mrr"]
    assert "settings, by validation" in out and out.splitlines()[-1] == str(folder)
    assert (folder / "setting-1" / "report.html").exists()
    assert not RunFolder(folder / "setting-0").results_file.exists()  # not chosen, so never tested
    one_clear_line(cli("evaluate", str(folder)), r"a run of several settings; measure the chosen one, .*/setting-N$")
    lone = with_params(config, {"kge.optimiser.learning_rate": 0.0001})
    found = pipeline.validate_only(lone, tmp_path / "lone", "lone", lambda _: None)
    assert found.value == pytest.approx(values[0], rel=1e-3)


def test_settings_that_cannot_share_a_program_are_refused(cli: Cli, config: schema.Run, tmp_path: Path) -> None:
    file = tmp_path / "tiny.yaml"
    file.write_text(with_settings(config, {"dropout.entity": 0.0}, {"dropout.entity": 0.2}), encoding="utf-8")
    code, _, err = cli("train", str(file), "--run-dir", str(tmp_path / "run"))
    assert code == 2 and err.splitlines()[-1].endswith("drop_entity is 0 in one and not in the other")
