"""The command: exit codes and their one line, what each command prints, and a run from the README's own commands."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pyarrow.parquet
import pytest

from fusionjax import __version__
from fusionjax.config import load_run
from fusionjax.data.sources import SOURCES
from fusionjax.runs import RunFolder
from tests.trained import ROOT, SMALL, Cli, TrainedRun, fusionjax, one_clear_line, readme_block, readme_shop, trained_run

QUICKSTART = str(ROOT / "configs" / "quickstart.yaml")
STUDY = str(ROOT / "experiments" / "demo_shop")


@pytest.fixture(scope="module")
def trained() -> TrainedRun:
    return trained_run()


# ---------------------------------------------------------------------------------------------------- the user's mistakes
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["train", "configs/quickstrat.yaml"],
            r"no such config file: configs/quickstrat\.yaml; did you mean 'quickstart\.yaml'\?",
        ),
        (["config", "show", "nowhere.yaml"], r"no such config file: nowhere\.yaml"),
        (["train", "quickstrat"], r"no config 'quickstrat': neither a file nor .*; did you mean 'quickstart'\?"),
        (["vectors", "runs/none", "--out", "x.npy"], r"runs/none: no run there"),
        (["predict", "runs/none", "--relation", "r"], r"predict: expected --head or --tail"),
        (["train", "bad.yaml"], r"bad\.yaml:2: train\.stepz: .*'steps'"),
        (["train", QUICKSTART, "train.stepz=3"], r"command line: train\.stepz: .*'steps'"),
        (["train", QUICKSTART, "--run-dir", "new", "train.stepz=3"], r"command line: train\.stepz: .*'steps'"),
        (["study", "run", "nowhere", "--workers", "2", "data.source_dir=x"], r"no such study: nowhere"),
        (["study", "run", STUDY, "--workers", "0"], r"--workers 0: at least 1"),
        (["study", "plan", STUDY, "--no-probe", "train.steps=3"], r"command line: train\.steps: a study is what its file says"),
        (["study", "search", STUDY], r"the study has no search: section"),
        (["study", "reproduce", STUDY, "--row", "reel", "--seed", "0"], r"no row 'reel'"),
        (["train", QUICKSTART, "train.steps=many"], r"command line: train\.steps: expected .* got .*many"),
        (["train", QUICKSTART, "train.steps=-1"], r"command line: train\.steps: "),
        (["train", QUICKSTART, "steps"], r"command line: 'steps': expected KEY=VALUE"),
        (["train", QUICKSTART, "data.name=demo"], r"data\.name: no data set 'demo'; did you mean 'demo_shop'\?"),
        (["data", "describe", "amazon_buty"], r"no data set 'amazon_buty'; did you mean 'amazon_beauty'\?"),
        (["data", "prepare", "files"], r"data\.source_dir: data set 'files' needs the folder"),
        (["data", "prepare", "files", "data.source_dir=nowhere"], r"data\.source_dir: no folder 'nowhere'"),
        (["data", "prepare", "nowhere.yaml"], r"no such config file: nowhere\.yaml"),
        (["data", "prepare", "demo_shop", "data.cache_dir=myshop/users.csv/x"], r"users\.csv/x: cannot make the cache there"),
        (["search", "runs/none", "tee"], r"runs/none: no run there"),
        (["search", "myshop", "tee"], r"myshop: no run there \(config\.yaml is missing\)"),
        (["recommend", "runs/none", "--user", "anna"], r"runs/none: no run there"),
        (["evaluate", "runs/none"], r"runs/none: no run there"),
        (["train", QUICKSTART, "--run-dir", "myshop"], r"myshop exists and is not a run folder; use another --run-dir"),
        (["train", QUICKSTART, "--run-dir", "myshop/users.csv"], r"myshop/users\.csv exists and is not a run folder"),
    ],
)
def test_a_mistake_is_one_line_and_code_2(cli: Cli, monkeypatch: pytest.MonkeyPatch, words: list[str], said: str) -> None:
    cwd = readme_shop()
    (cwd / "bad.yaml").write_text("train:\n  stepz: 3\n", encoding="utf-8")
    monkeypatch.chdir(cwd)
    one_clear_line(cli(*words), said)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["search", "RUN", "   "], r"the query is blank"),
        (["search", "RUN", "tee", "-k", "0"], r"k must be at least 1, got 0"),
        (["search", "RUN", "tee", "--user", "ana"], r"no user 'ana' in shop 'files'; did you mean 'anna'\?"),
        (
            ["recommend", "RUN", "--user", "nobody"],
            r"no user 'nobody' in shop 'files'; .*valid: anna, bo, chen|did you mean 'bo'",
        ),
        (["recommend", "RUN", "--user", "bo", "-k", "-1"], r"k must be at least 1, got -1"),
        (["similar", "RUN", "T9"], r"no product 'T9' in shop 'files'; did you mean '"),
        (["predict", "RUN", "--head", "T1", "--relation", "brnd"], r"no relation 'brnd' in shop 'files'; did you mean 'brand'"),
        (["predict", "RUN", "--tail", "T9", "--relation", "brand"], r"no entity 'T9' in shop 'files'; did you mean '"),
        (["vectors", "RUN", "--out", "x.csv"], r"x\.csv: expected a name that ends in \.npy or \.parquet"),
        (["vectors", "RUN", "--out", "nowhere/x.npy"], r"x\.npy: cannot write there: there is no folder nowhere"),
        (["vectors", "RUN", "--out", "x.npy", "--of", "product"], r"vectors of 'product'; did you mean 'products'"),
        (["evaluate", "RUN", "--task", "serch"], r"no task 'serch'; did you mean 'search'"),
    ],
)
def test_a_mistake_in_a_question(
    cli: Cli, trained: TrainedRun, monkeypatch: pytest.MonkeyPatch, words: list[str], said: str
) -> None:
    monkeypatch.chdir(trained.cwd)
    one_clear_line(cli(*(str(trained.folder) if word == "RUN" else word for word in words)), said)


def test_another_config_is_refused(cli: Cli, trained: TrainedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(trained.cwd)
    result = cli(*trained.words, "seed=5", "--run-dir", str(trained.folder))
    one_clear_line(result, r"holds a run of another config \(seed: 0 there, 5 now\); use another --run-dir")


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["train"],
        ["train", QUICKSTART, "--stepz", "a=b"],
        ["serch"],
        ["search", "RUN", "tee", "-k", "ten"],
        ["recommend", "RUN"],
        ["data"],
        ["study", "run", STUDY, "--row", "x"],
    ],
)
def test_a_wrong_command_line_is_code_2(cli: Cli, words: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli(*words)
    assert stop.value.code == 2 and "Traceback" not in capfd.readouterr().err


def test_what_is_no_mistake_of_the_user_is_code_1(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("the disk is on fire")

    monkeypatch.setattr("fusionjax.data.prepare.list_sources", broken)
    code, _, err = cli("data", "list")
    assert code == 1 and "Traceback" in err and "the disk is on fire" in err


# --------------------------------------------------------------------------------------------------------- small commands
def test_help_and_version_do_not_wait_for_jax() -> None:
    program = (
        "import sys; from fusionjax.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit as stop: print('code', stop.code)\n"
        "print('jax' in sys.modules, 'numpy' in sys.modules)"
    )
    for word, shown in (("--help", "recommend"), ("--version", f"fusionjax {__version__}")):
        done = subprocess.run([sys.executable, "-c", program, word], cwd=ROOT, capture_output=True, text=True, check=True)
        assert shown in done.stdout and done.stdout.endswith("code 0\nFalse False\n")


def test_config_show_prints_what_loads_again(cli: Cli, tmp_path: Path) -> None:
    code, out, _ = cli("config", "show", QUICKSTART, "train.steps=7", "seed=3")
    assert code == 0
    (tmp_path / "shown.yaml").write_text(out, encoding="utf-8")
    assert load_run(tmp_path / "shown.yaml") == load_run(QUICKSTART, ["train.steps=7", "seed=3"])


def test_config_schema_is_json(cli: Cli) -> None:
    code, out, _ = cli("config", "schema")
    schema = json.loads(out)
    assert code == 0 and schema["$schema"].startswith("https://json-schema.org/")
    assert {"seed", "data", "text", "train", "extends"} <= schema["properties"].keys()


def test_data_list(cli: Cli) -> None:
    code, out, _ = cli("data", "list")
    assert code == 0 and [line.split()[0] for line in out.splitlines()] == list(SOURCES)


def test_data_prepare_and_describe(cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(readme_shop())
    code, out, _ = cli("data", "prepare", "files", "data.source_dir=myshop")
    assert code == 0
    assert "6 products, 3 triples, 3 users, 11 events, 5 queries, 8 judgments" in out
    fingerprint = out.splitlines()[-1]
    assert re.fullmatch(r"fingerprint [0-9a-f]{64}", fingerprint)
    code, again, err = cli("data", "prepare", "files", "data.source_dir=myshop")
    assert (code, again) == (0, out) and "preparing" not in err  # read back from the cache

    plot = tmp_path / "tail.png"
    code, out, _ = cli("data", "describe", "files", "data.source_dir=myshop", "--plot", str(plot))
    assert code == 0 and fingerprint in out and str(plot) in out.replace("\n", "")
    assert plot.read_bytes().startswith(b"\x89PNG")
    for shown in ("goes_with", "in_category", "purchase", "samples of events", "Merino tee grey"):
        assert shown in out


def test_a_plot_that_cannot_be_written(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(readme_shop())
    code, _, err = cli("data", "describe", "files", "data.source_dir=myshop", "--plot", "nowhere/tail.png")
    assert code == 2 and re.fullmatch(r"fusionjax: nowhere/tail\.png: cannot write there: .+", err.splitlines()[-1])
    assert "Traceback" not in err


def test_readme_commands_on_data_work_as_they_stand() -> None:
    """`data describe` of the README, word for word."""
    command = next(command for command in readme_block()[1] if command.startswith("fusionjax data "))
    done = fusionjax(readme_shop(), *command.split()[1:])
    assert done.returncode == 0 and "files-long-tail.png" in done.stdout, done.stderr


# ------------------------------------------------------------------------------------------------------------------ a run
def test_train_prints_the_table_and_last_the_folder(trained: TrainedRun) -> None:
    assert trained.folder.is_dir() and trained.folder.parent.name == "runs"
    assert re.fullmatch(r"quickstart-[0-9a-f]{10}", trained.folder.name)
    for shown in (
        "link_prediction · test",
        "search · test",
        "recommendation · test",
        "this run",
        "bm25",
        "item_knn",
        "ndcg@10",
    ):
        assert shown in trained.stdout
    for said in ("cleaning:", "graph: ", "step 6 (epoch 2): validation", "measuring it on test"):
        assert said in trained.stderr and said not in trained.stdout
    assert "Warning" not in trained.stderr


def test_the_folder_holds_all_that_is_named(trained: TrainedRun) -> None:
    names = {path.name for path in trained.folder.iterdir()}
    files = {"config.yaml", "provenance.json", "metrics.jsonl", "results.json", "report.html"}
    assert names == files | {"checkpoints", "index", "plots", "scores", "tensorboard", "tokenizer"}
    assert any((trained.folder / "tensorboard").iterdir()) and (trained.folder / "tokenizer" / "tokenizer.json").exists()
    plots = list((trained.folder / "plots").glob("*.png"))
    assert len(plots) >= 3 and all(plot.read_bytes().startswith(b"\x89PNG") for plot in plots)
    assert {path.name for path in (trained.folder / "checkpoints").iterdir()} == {"best", "latest"}


def test_the_stored_config_is_the_resolved_one(trained: TrainedRun) -> None:
    overrides = [word for word in trained.words if "=" in word]
    assert load_run(trained.folder / "config.yaml") == load_run(trained.cwd / "configs" / "quickstart.yaml", overrides)


TASK_METRICS = {
    "link_prediction": {"mrr", "hits@1", "hits@3", "hits@10"},
    "search": {"ndcg@10", "ndcg_exp@10", "mrr", "hits@1", "recall@10", "recall@100"},
    "recommendation": {"mrr", "recall@10", "recall@20", "ndcg@10", "ndcg@20", "coverage@10", "coverage@20"},
}
BASELINES = {
    "link_prediction": {"random", "popularity"},
    "search": {"random", "popularity", "bm25"},
    "recommendation": {"random", "popularity", "item_knn", "bm25"},
}


def test_shape_of_results(trained: TrainedRun) -> None:
    results = RunFolder(trained.folder).results()
    assert list(results)[:3] == ["valid", "test", "baselines"]
    measured = [(task, results[split][task]) for split in ("valid", "test") for task in TASK_METRICS]
    assert {task: set(rows) for task, rows in results["baselines"].items()} == BASELINES
    measured += [(task, row) for task, rows in results["baselines"].items() for row in rows.values()]
    for task, row in measured:
        assert TASK_METRICS[task] <= row.keys()
        assert all(0 <= row[name] <= 1 for name in TASK_METRICS[task])
    for split in ("valid", "test"):
        assert set(results[split]) == set(TASK_METRICS)
    assert {name for name in results["test"]["recommendation"] if name.startswith("users/")} == {
        f"users/{segment}" for segment in ("head", "middle", "tail", "cold")
    }


def test_provenance(trained: TrainedRun) -> None:
    record = RunFolder(trained.folder).provenance()
    assert {
        "command",
        "commit",
        "dirty",
        "seed",
        "fingerprint",
        "data",
        "versions",
        "devices",
        "platform",
        "started",
    } <= record.keys()
    assert {"finished", "seconds", "steps", "best_step", "stopped_early", "parameters"} <= record.keys()
    assert record["seed"] == 0 and record["steps"] == 6 and record["best_step"] in (3, 6) and record["parameters"] > 1000
    assert record["command"].endswith(" ".join(trained.words)) and len(record["devices"]) == 4
    assert record["versions"]["fusionjax"] == __version__ and record["versions"]["jax"] == jax.__version__
    assert set(record["data"]["files"]) == {
        f"{part}.csv" for part in ("products", "triples", "users", "events", "queries", "judgments")
    }
    assert record["started"] <= record["finished"] and re.fullmatch(r"[0-9a-f]{64}", record["fingerprint"])
    assert record["commit"] is None or re.fullmatch(r"[0-9a-f]{40}", record["commit"])


def test_metrics_by_step(trained: TrainedRun) -> None:
    rows = [json.loads(line) for line in (trained.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["step"] for row in rows if row["kind"] == "valid"] == [3, 6]
    last = [row for row in rows if row["kind"] == "train"][-1]
    assert last["step"] == 6 and {"loss", "gradient_norm", "loss/alignment", "loss/next_product"} <= last.keys()


def test_the_report_asks_nobody_else(trained: TrainedRun) -> None:
    page = (trained.folder / "report.html").read_text(encoding="utf-8")
    linked = re.findall(r"""(?:src|href|action|data|poster|srcset)\s*=\s*["']([^"']*)""", page)
    assert any(link.startswith("data:image/png;base64,") for link in linked)
    assert [link for link in linked if not link.startswith(("data:", "#"))] == []
    assert "<script" not in page and "@import" not in page and not re.search(r"url\(\s*[\"']?(?!data:)", page)
    for shown in ("Merino tee grey", "item_knn", "source_dir: myshop", "validate_every: 3"):
        assert shown in page


def test_evaluate_gives_the_same_results(cli: Cli, trained: TrainedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(trained.cwd)
    file = trained.folder / "results.json"
    before = file.read_bytes()
    code, out, err = cli("evaluate", str(trained.folder))
    assert code == 0 and "equal to" in out.splitlines()[-1] and "recommendation · test" in out, err
    assert file.read_bytes() == before


def test_a_complete_run_is_not_trained_again(cli: Cli, trained: TrainedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(trained.cwd)
    files = {
        path: path.stat().st_mtime_ns for path in trained.folder.rglob("*") if path.is_file() and path.name != "config.yaml"
    }
    code, out, err = cli(*trained.words)
    assert code == 0 and "this run is complete" in err and out == trained.stdout
    assert files == {path: path.stat().st_mtime_ns for path in files}


def hits(out: str) -> list[tuple[int, float, str, str]]:
    found = [re.fullmatch(r" *(\d+)  +(-?\d\.\d{4})  (\S+)  (.+)", line) for line in out.splitlines()]
    return [(int(line[1]), float(line[2]), line[3], line[4]) for line in found if line]


def test_search(cli: Cli, trained: TrainedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(trained.cwd)
    code, plain, err = cli("search", str(trained.folder), "T恤", "-k", "3")
    assert code == 0, err
    found = hits(plain)
    assert len(plain.splitlines()) == 3 and [place for place, *_ in found] == [1, 2, 3]
    assert [score for _, score, _, _ in found] == sorted((score for _, score, _, _ in found), reverse=True)
    code, personal, _ = cli("search", str(trained.folder), "T恤", "-k", "3", "--user", "anna")
    assert code == 0 and len(hits(personal)) == 3
    assert [score for _, score, *_ in hits(personal)] != [score for _, score, *_ in found]
    assert {"T1", "T2", "T3", "M1", "M2", "P1"} >= {product for _, _, product, _ in hits(personal)}


def test_recommend(cli: Cli, trained: TrainedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(trained.cwd)
    code, out, err = cli("recommend", str(trained.folder), "--user", "chen")
    assert code == 0, err
    assert {product for _, _, product, _ in hits(out)} == {"T3", "M1", "M2", "P1"}  # seen: T1, T2


def test_answers_as_json(cli: Cli, trained: TrainedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a run answers from anywhere
    run = str(trained.folder)

    def asked(*words: str) -> Any:
        code, out, err = cli(*words, "--json")
        assert code == 0, err
        return json.loads(out)

    found = asked("search", run, "T恤", "-k", "2", "--user", "anna")
    assert (found["query"], found["user"]) == ("T恤", "anna") and len(found["results"]) == 2
    assert found["results"][0].keys() == {"id", "title", "score"}
    assert {each["id"] for each in asked("recommend", run, "--user", "chen")["results"]} == {"T3", "M1", "M2", "P1"}
    assert len(asked("similar", run, "T1", "-k", "3")["results"]) == 3
    titles = asked("rank", run, "mug", "A red carpet", "Glass mug, 300 ml")["titles"]
    assert {each["title"] for each in titles} == {"A red carpet", "Glass mug, 300 ml"}
    tails = asked("predict", run, "--head", "T1", "--relation", "brand", "--known", "mark", "-k", "20")
    assert (tails["head"], tails["relation"], tails["tail"]) == ("T1", "brand", None)
    true = next(each for each in tails["results"] if each["known"])
    assert true["id"] == "brand:Nordwind"
    score = asked("predict", run, "--head", "T1", "--relation", "brand", "--tail", true["id"])["score"]
    assert score == pytest.approx(true["score"], abs=1e-4)
    heads = asked("predict", run, "--tail", true["id"], "--relation", "brand", "-k", "20", "--known", "mark")["results"]
    assert {each["id"] for each in heads if each["known"]} == {"T1", "T2"}


def test_answers_for_people(cli: Cli, trained: TrainedRun) -> None:
    run = str(trained.folder)
    code, out, err = cli("similar", run, "T1", "-k", "3")
    assert code == 0 and len(hits(out)) == 3, err
    code, out, err = cli("rank", run, "mug", "A red carpet", "Glass mug, 300 ml")
    assert code == 0 and len(out.splitlines()) == 2, err
    code, out, err = cli("predict", run, "--head", "T1", "--relation", "brand", "--known", "mark", "-k", "20")
    assert code == 0 and re.search(r"brand:Nordwind  .*  known$", out, re.MULTILINE), err


def test_evaluate_of_one_task(cli: Cli, trained: TrainedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(trained.cwd)
    before = (trained.folder / "results.json").read_bytes()
    code, out, err = cli("evaluate", str(trained.folder), "--task", "search", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["test"] == {"search": RunFolder(trained.folder).results()["test"]["search"]}
    assert found["baselines"].keys() == {"search"} and (trained.folder / "results.json").read_bytes() == before


@pytest.mark.parametrize(("of", "rows"), [("products", 6), ("entities", None), ("relations", None)])
def test_vectors_as_files(cli: Cli, trained: TrainedRun, tmp_path: Path, of: str, rows: int | None) -> None:
    for ending in ("npy", "parquet"):
        code, out, err = cli("vectors", str(trained.folder), "--out", str(tmp_path / f"v.{ending}"), "--of", of)
        assert code == 0 and re.fullmatch(rf".*v\.{ending}: \d+ vectors of \d+\n", out), err
    vectors = np.load(tmp_path / "v.npy", allow_pickle=False)
    ids = (tmp_path / "v.ids.txt").read_text(encoding="utf-8").splitlines()
    table = pyarrow.parquet.read_table(tmp_path / "v.parquet")
    assert table["id"].to_pylist() == ids and len(ids) == len(vectors) and len(ids) == (rows or len(ids))
    np.testing.assert_array_equal(np.array(table["vector"].to_pylist(), np.float32), vectors)
    assert vectors.dtype == np.float32 and {"products": "T1", "entities": "T1", "relations": "brand"}[of] in ids


def test_a_reader_that_goes_away_is_no_crash(trained: TrainedRun) -> None:
    """`fusionjax … | head -1` ends without a traceback."""
    command = f"{sys.executable} -m fusionjax.cli config show {QUICKSTART} | head -1"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["bash", "-c", command], cwd=trained.cwd, capture_output=True, text=True, env=environment)
    assert done.stdout == "version: 2\n" and "Traceback" not in done.stderr and "Exception" not in done.stderr


def test_small_changes_nothing_but_size() -> None:
    """What the README's command gets on top keeps every task and objective on."""
    config = load_run(QUICKSTART, SMALL)
    assert all(
        getattr(config.objectives, name).weight > 0
        for name in ("link_prediction", "alignment", "query_product", "next_product")
    )
    assert config.evaluation.tasks is None and config.evaluation.baselines
