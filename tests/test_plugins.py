"""Plug-ins: a package that adds one of each kind without touching ours, and what is said of those that do not fit."""

import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fusionjax import pipeline, plugins, registry
from fusionjax.config import config_digest, dump_run, json_schema, load_run, load_values, schema
from fusionjax.config import load as loading
from fusionjax.data.sources import SOURCES, builder_class, list_sources
from fusionjax.errors import UserError
from fusionjax.evaluation.metrics import METRICS
from fusionjax.models.scorers import SCORERS
from fusionjax.runs import RunFolder
from fusionjax.serving.model import load
from fusionjax.studies.analysis import analyse
from fusionjax.studies.collect import collect
from fusionjax.studies.folder import StudyFolder
from fusionjax.studies.report import write_report
from fusionjax.tasks import TASKS
from tests.session import made_once
from tests.studies.small import run as run_study
from tests.studies.small import write

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "tests" / "plugin_package"
RUN = PACKAGE / "run.yaml"
KINDS = ("scorer", "objective", "task", "metric", "baseline", "source")


@pytest.fixture(scope="session")
def site() -> Path:
    """A folder the package is installed in."""

    def install(folder: Path) -> None:
        options = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--target", str(folder)]
        words = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", *options, str(PACKAGE)]
        subprocess.run(words, check=True, capture_output=True, cwd=folder)

    return made_once("plugin_package", install)


@pytest.fixture
def installed(site: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The package, found by this process and its children."""
    monkeypatch.syspath_prepend(site)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site), str(ROOT)]))
    # What errors know of names is made once a process; here packages come and go within one.
    loading._schema.cache_clear()
    yield site
    loading._schema.cache_clear()


def broken(folder: Path, group: str, name: str, target: str, code: str = "") -> Path:
    """A package `broken 1.0` with one entry point and perhaps a module `broken_code`."""
    info = folder / "broken-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text(f"[{group}]\n{name} = {target}\n", encoding="utf-8")
    (folder / f"{target.partition(':')[0]}.py").write_text(code, encoding="utf-8")
    return folder


# ------------------------------------------------------------------------------------------------------------- the package
@pytest.mark.parametrize("kind", KINDS)
def test_a_plugin_is_short(kind: str) -> None:
    assert len((PACKAGE / "corner_shop" / f"{kind}.py").read_text(encoding="utf-8").splitlines()) <= 60


def check_run(home: RunFolder) -> None:
    results, record = home.results(), home.provenance()
    assert results["test"].keys() == {"link_prediction", "recommendation", "brand_neighbours"}
    assert 0 <= results["test"]["recommendation"]["rbp"] <= 1
    assert 0 <= results["test"]["brand_neighbours"]["brand_share"] <= 1
    assert "latest" in results["baselines"]["recommendation"] and "random" in results["baselines"]["brand_neighbours"]
    losses = [row["loss/same_brand"] for row in home.metrics() if row["kind"] == "train"]
    assert len(losses) == 20 and np.mean(losses[-5:]) < np.mean(losses[:5])
    used = {(one["group"].rpartition(".")[2], one["name"]) for one in record["plugins"]}
    assert {("scorers", "shift_mult"), ("objectives", "same_brand"), ("sources", "corner_shop"), ("metrics", "rbp")} <= used
    assert {(one["package"], one["version"]) for one in record["plugins"]} == {("fusionjax-corner-shop", "0.3.1")}
    assert record["versions"]["fusionjax-corner-shop"] == "0.3.1"
    assert "fusionjax-corner-shop 0.3.1" in (home.path / "report.html").read_text(encoding="utf-8")
    with np.load(home.scores / "recommendation.npz") as stored:
        assert any("price" in name for name in stored.files) or "price" in str(stored["header"])
    assert (home.path / "trackers" / "lines.txt").read_text(encoding="utf-8").count("\n") >= 20


def test_it_trains_from_python_and_is_opened_again(installed: Path, tmp_path: Path) -> None:
    home = pipeline.run(load_run(RUN), tmp_path / "run", "run", say=lambda _: None)
    check_run(home)
    again, same = pipeline.evaluate(home.path, say=lambda _: None)
    assert same and again["test"]["brand_neighbours"] == home.results()["test"]["brand_neighbours"]


def test_it_trains_from_the_command_line(installed: Path, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "fusionjax.cli", "train", str(RUN), "--run-dir", str(tmp_path / "run")]
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    check_run(RunFolder(tmp_path / "run"))


def test_it_stands_in_a_study(installed: Path, tmp_path: Path) -> None:
    study = """
        question: Do brands help?
        base: base.yaml
        rows:
          with: {}
          without: {set: {objectives.plugins.same_brand.weight: 0}}
        reference: with
        seeds: [0]
        tasks: {brand_neighbours: [brand_share], recommendation: [rbp]}
    """
    home = write(tmp_path / "study", study, RUN.read_text(encoding="utf-8"))
    said, plan = run_study(home)
    assert not [line for line in said if "FAILED" in line], said
    collected = collect(plan, StudyFolder(home))
    write_report(collected, analyse(collected), home)
    text = (home / "report.md").read_text(encoding="utf-8")
    assert re.search(r"\| (\*\*)?with", text) and "| latest (baseline) |" in text
    assert "|  | Brand share |" in text and "|  | Rbp |" in text
    methods = (home / "methods.md").read_text(encoding="utf-8")
    assert "fusionjax-corner-shop 0.3.1" in methods and "ShiftMult" in methods and "five nearest products" in methods


# ------------------------------------------------------------------------------------------------------- what does not fit
def test_nothing_is_imported_until_it_is_asked_for(installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(broken(tmp_path, "fusionjax.scorers", "bad", "bad_scorer:Bad", "raise RuntimeError('oh')"))
    assert {"bad", "shift_mult", "transe"} <= set(SCORERS.names()) and "bad_scorer" not in sys.modules
    assert load_run(None, ["model.entity.scorer=bad"]).model.entity.scorer == "bad"
    assert ("corner_shop", "of fusionjax-corner-shop 0.3.1") in list_sources() and "corner_shop" not in list(SOURCES)
    said = r"scorer 'bad' of package broken 1.0 \(bad_scorer:Bad\) cannot be imported: RuntimeError: oh"
    with pytest.raises(UserError, match=said):
        SCORERS.get("bad")
    with pytest.raises(UserError, match=said):  # before any data are prepared
        pipeline.run(load_run(None, ["model.entity.scorer=bad"]), tmp_path / "run", "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("group", "table", "wanted"),
    [
        ("fusionjax.scorers", SCORERS, "a subclass of fusionjax.models.scorers.base.Scorer, got the class wrong_scorers.Thing"),
        ("fusionjax.tasks", TASKS, "an object of fusionjax.tasks.base.Task, got the class wrong_tasks.Thing"),
        ("fusionjax.metrics", METRICS, "an object of fusionjax.evaluation.metrics.Metric, got the class wrong_metrics.Thing"),
    ],
)
def test_a_wrong_base_class_is_named_before_it_is_called(
    group: str, table: registry.Registry[object], wanted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = f"wrong_{group.rpartition('.')[2]}"
    code = "class Thing:\n    def __init__(self, *_):\n        raise SystemExit('called')\n"
    monkeypatch.syspath_prepend(broken(tmp_path, group, "thing", f"{module}:Thing", code))
    with pytest.raises(UserError, match=re.escape(f"'thing' of package broken 1.0: expected {wanted}")):
        table.get("thing")


def test_unknown_names_have_the_nearest(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for override, said in {
        "model.entity.scorer=shift_mul": "got 'shift_mul'; did you mean 'shift_mult'?",
        "evaluation.tasks=[brand_neighbour]": "got 'brand_neighbour'; did you mean 'brand_neighbours'?",
        "objectives.plugins={same_brnd: {weight: 1}}": "no objective 'same_brnd'; did you mean 'same_brand'?",
        "objectives.plugins={same_brand: {temprature: 1}}": "same_brand: temprature: unknown key; did you mean 'temperature'?",
        "objectives.plugins={same_brand: {temperature: 2}}": "same_brand: temperature: expected a number ≥ 0 and ≤ 1, got 2",
        "objectives.plugins={alignment: {weight: 1}}": "'alignment' is an objective of ours",
        "evaluation.plugins.baselines=[recommendation/lates]": "did you mean 'recommendation/latest'?",
    }.items():
        with pytest.raises(UserError, match=re.escape(said)):
            load_run(None, [override])
    with pytest.raises(UserError, match=r"data.name: no data set 'corner_shp'; did you mean 'corner_shop'?"):
        builder_class("corner_shp")
    with pytest.raises(UserError, match=r"no metric 'rbpp'; did you mean 'rbp'?"):
        TASKS["search"].check("rbpp")


def test_what_a_plugin_scorer_does_not_do_is_refused(installed: Path) -> None:
    config = load_run(RUN, ["objectives.link_prediction.relation_prediction=0.1"])
    with pytest.raises(ValueError, match=r"relation_prediction: not with model.entity.scorer: shift_mult"):
        schema.check_scorer("shift_mult", SCORERS["shift_mult"].facts, config.objectives.link_prediction)


# ---------------------------------------------------------------------------------------------------------- dotted names
@pytest.fixture
def dotted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A scorer that no package brings, and nothing handed over before or after."""
    monkeypatch.setattr(registry, "_HANDED", {})
    code = """
        from corner_shop.scorer import ShiftMult

        class Mine(ShiftMult):
            name = "mine"
    """
    (tmp_path / "my_scorers.py").write_text(textwrap.dedent(code), encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_scorers", raising=False)
    return "my_scorers:Mine"


def test_a_dotted_name_is_imported_for_a_run_that_is_started(installed: Path, dotted: str, tmp_path: Path) -> None:
    config = load_run(RUN, [f"model.entity.scorer={dotted}"], dotted=True)
    assert SCORERS[dotted].name == "mine"
    used = {one["name"]: (one["package"], one["version"]) for one in plugins.used(config)}
    assert used[dotted] == ("my_scorers", None)


def test_it_is_never_imported_where_a_run_is_opened(
    installed: Path, dotted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_run(RUN, [f"model.entity.scorer={dotted}"])
    home = RunFolder(tmp_path / "run")
    home.path.mkdir()
    home.config_file.write_text(dump_run(config), encoding="utf-8")
    said = "scorer 'my_scorers:Mine': a dotted name is imported only for a run that you start"
    with pytest.raises(UserError, match=said):
        pipeline.evaluate(home.path, say=lambda _: None)
    with pytest.raises(UserError, match=said):
        load(home.path)
    assert "my_scorers" not in sys.modules
    registry.hand_over(registry.SCORERS, dotted, SCORERS["shift_mult"])
    assert SCORERS[dotted] is SCORERS["shift_mult"]


def test_a_section_of_a_dotted_objective_is_not_imported_either(installed: Path, dotted: str) -> None:
    key = "objectives.plugins={'corner_shop.objective:SameBrand': {weight: 1}}"
    with pytest.raises(UserError, match=r"objectives.plugins: objective 'corner_shop.objective:SameBrand': a dotted name"):
        load_run(None, [key])
    assert "corner_shop.objective:SameBrand" in load_run(None, [key], dotted=True).objectives.used()


# ----------------------------------------------------------------------------------------------------------------- config
def test_configs_without_plugins_are_what_they_were(installed: Path) -> None:
    run = load_run(RUN)
    assert load_values(run.model_dump(mode="json"), "here") == run
    assert config_digest(run) != config_digest(load_run(RUN, ["objectives.plugins.same_brand.temperature=0.3"]))
    enum = json_schema()["$defs"]["Entity"]["properties"]["scorer"]["enum"]
    assert {"transe", "shift_mult"} <= set(enum)


def test_the_guide_quotes_the_package() -> None:
    text = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
    for name in ("pyproject.toml", "run.yaml", *(f"corner_shop/{kind}.py" for kind in KINDS)):
        assert (PACKAGE / name).read_text(encoding="utf-8").strip() in text, f"docs/plugins.md has another {name}"
