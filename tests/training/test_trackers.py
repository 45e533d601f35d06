"""Trackers get what metrics.jsonl has, once, and nothing they do reaches the training."""

import dataclasses
import json
import math
import os
import signal
import socket
import sqlite3
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fusionjax import pipeline, runs
from fusionjax.config import changed_keys, config_digest
from fusionjax.errors import Interrupted, UserError
from fusionjax.runs import RunFolder
from fusionjax.tasks.evaluator import Validation
from fusionjax.training import trackers
from fusionjax.training.loop import train
from fusionjax.training.trackers import Facts, Session, Trackers, facts_of, require
from tests.shops import ONLY_GRAPH, tiny_inputs, tiny_run, train_alone

# MLflow asks SQLAlchemy 2.1 for something that is going to be removed.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")

SHORT = (
    *ONLY_GRAPH,
    "data.demo_shop={products: 60, users: 40, queries: 20}",
    "train={steps: 7, log_every: 1, validate_every: 3, checkpoint_every: 7}",
)
PROVENANCE = {"commit": "c0ffee", "fingerprint": "f00d", "command": "fusionjax train /somewhere/tiny.yaml"}
FAKE = "track={wandb: true, project: tests}"


@pytest.fixture(autouse=True, scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[socket.socket]:
    """No settings of the person's own; and whoever wants to leave the machine, in this process or another, comes by here."""
    with pytest.MonkeyPatch.context() as patch, socket.create_server(("127.0.0.1", 0)) as server:
        for name in [name for name in os.environ if name.startswith(("WANDB_", "MLFLOW_", "TRACKIO_", "FUSIONJAX_STUDY"))]:
            patch.delenv(name)
        for name in ("WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR", "TRACKIO_DIR"):
            patch.setenv(name, str(tmp_path_factory.mktemp("own")))
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
            patch.setenv(name, f"http://127.0.0.1:{server.getsockname()[1]}")
        yield server


class Service:
    """A tracker that keeps what it is told."""

    def __init__(self) -> None:
        self.runs: dict[str, list[tuple[int, dict[str, float]]]] = {}
        self.ends: list[str] = []
        self.facts: list[Facts] = []
        self.fails = 0
        """How many of the next calls of `log` fail."""

    def open(self, facts: Facts, known: str | None) -> Session:
        id = known if known in self.runs else f"run {len(self.facts)}"
        self.facts.append(facts)
        self.runs.setdefault(id, [])

        def log(step: int, metrics: dict[str, float]) -> None:
            if self.fails:
                self.fails -= 1
                raise ConnectionError("no route to host")
            self.runs[id].append((step, metrics))

        return Session(id, log, self.ends.append)

    def steps(self) -> dict[str, list[int]]:
        return {id: [step for step, _ in rows] for id, rows in self.runs.items()}


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Service:
    """Stands in for W&B."""
    made = Service()
    monkeypatch.setitem(trackers.OPENERS, "wandb", made.open)
    return made


def send(folder: Path, steps: range, *overrides: str, status: str = "finished") -> list[str]:
    """One process's rows, from the first step on; what was said."""
    said: list[str] = []
    tracked = Trackers(RunFolder(folder), tiny_run(FAKE, *overrides), PROVENANCE, said.append)
    for step in steps:
        tracked.write({"step": step, "kind": "train", "loss": 1 / step})
    tracked.close(status)
    return said


def numbers(home: RunFolder) -> dict[tuple[int, str], float]:
    """What a tracker should have of a run: (step, name) → value, final results at the last step."""
    rows = home.metrics()
    if home.results_file.exists():
        results = home.results()["test"]
        flat = {f"{task}/{name}": value for task, metrics in results.items() for name, value in metrics.items()}
        rows.append({"step": rows[-1]["step"], "kind": "test", **flat})
    return {
        (row["step"], f"{row['kind']}/{key}"): float(value)
        for row in rows
        for key, value in row.items()
        if key not in ("step", "kind") and value is not None
    }


# ------------------------------------------------------------------------------------------------- the real W&B and MLflow
@pytest.fixture(scope="module")
def tracked(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run tracked by both, terminated once during the validation of step 3 and started again."""
    folder, said = tmp_path_factory.mktemp("tracked") / "a-run", []
    config = tiny_run(*SHORT, "track={wandb: true, mlflow: true, project: shop-tests}")

    def say(line: str) -> None:
        said.append(line)
        if line.startswith("step 3: validation"):
            signal.raise_signal(signal.SIGTERM)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "write_report", lambda home, *_: (home.path / "report.html").touch())  # slow
        patch.setenv("FUSIONJAX_STUDY", "a study")
        patch.setenv("FUSIONJAX_ROW", "real / real")
        with pytest.raises(Interrupted, match="after step 3"):
            pipeline.run(config, folder, "tiny", say)
        home = pipeline.run(config, folder, "tiny", say)
    assert not [line for line in said if line.startswith("tracker")]
    return home


def wandb_records(file: Path) -> list[Any]:
    """The records of a .wandb file (LevelDB's log format) that is finished."""
    from wandb.proto.wandb_internal_pb2 import Record  # pyright: ignore[reportAttributeAccessIssue]

    until = time.monotonic() + 20
    while True:  # W&B's own process writes it
        data, place, records = file.read_bytes(), 7, []
        assert len(data) < 2**15, "more than one block: this reader is too simple"
        while place + 7 <= len(data):
            _, length, kind = struct.unpack_from("<IHB", data, place)
            assert kind == 1
            records.append(Record.FromString(data[place + 7 : place + 7 + length]))
            place += 7 + length
        if any(record.HasField("exit") for record in records):
            return records
        assert time.monotonic() < until, "W&B did not finish the run"
        time.sleep(0.05)


def test_wandb_offline_has_one_run_without_gaps_or_repeats(tracked: RunFolder, proxy: socket.socket) -> None:
    files = sorted((tracked.path / "trackers" / "wandb").glob("offline-run-*/*.wandb"))
    assert len(files) == 2  # one a process; `wandb sync` joins those of one id
    records = [wandb_records(file) for file in files]
    begun = [record.run for one in records for record in one if record.HasField("run")]
    assert len({run.run_id for run in begun}) == 1
    got = [
        ((record.history.step.num, item.key or ".".join(item.nested_key)), json.loads(item.value_json))
        for one in records
        for record in one
        if record.HasField("history")
        for item in record.history.item
        if not (item.key or item.nested_key[0]).startswith("_")
    ]
    assert len(dict(got)) == len(got)
    assert dict(got) == numbers(tracked)
    assert [record.exit.exit_code for one in records for record in one if record.HasField("exit")] == [1, 0]

    run, facts = begun[0], facts_of(tracked, tracked.config(), tracked.provenance())
    assert (run.project, run.display_name, run.run_group, run.host) == ("shop-tests", "a-run", "a study", "")
    fingerprint = tracked.provenance()["fingerprint"]
    assert {"study:a study", "row:real / real", "seed:0", f"fingerprint:{fingerprint}"[:64]} <= set(run.tags)
    config = {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in run.config.update}
    assert {key: config[key] for key in facts.config} == json.loads(json.dumps(facts.config))
    assert config["fingerprint"] == fingerprint

    proxy.setblocking(False)
    with pytest.raises(BlockingIOError):  # nobody wanted to leave the machine
        proxy.accept()


def test_mlflow_has_one_run_without_gaps_or_repeats(tracked: RunFolder) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{tracked.path / 'trackers' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("shop-tests")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.info.status) == ("a-run", "FINISHED")
    got = [
        ((entry.step, name), entry.value)
        for name in run.data.metrics
        for entry in client.get_metric_history(run.info.run_id, name)
    ]
    expected = {(step, name.replace("@", "_at_")): value for (step, name), value in numbers(tracked).items()}
    assert sorted(got) == sorted(expected.items())
    assert {"test/link_prediction/mrr", "test/link_prediction/hits_at_10", "valid/selected"} <= set(run.data.metrics)

    provenance = tracked.provenance()
    facts = facts_of(tracked, tracked.config(), provenance)
    assert run.data.params == {key: str(value) for key, value in facts.config.items()}
    assert run.data.params["train.steps"] == "7" and not [key for key in run.data.params if key.startswith("track")]
    tags = {"study": "a study", "row": "real / real", "seed": "0", "fingerprint": provenance["fingerprint"]}
    assert run.data.tags.items() >= tags.items()
    assert run.data.tags.get("mlflow.source.git.commit") == provenance["commit"]


def test_nothing_tracked_names_a_path_of_the_machine(tracked: RunFolder) -> None:
    places = [str(place) for place in (tracked.path, Path.cwd(), Path(runs.__file__).parents[1], Path.home() / "x")]
    home = tracked.path / "trackers"
    for file in home.rglob("*.wandb"):
        written = "\n".join(str(record) for record in wandb_records(file))
        assert "shop-tests" in written and not [place for place in places if place in written]
    with sqlite3.connect(home / "mlflow.db") as base:
        written = "\n".join(base.iterdump())
    base.close()
    assert "shop-tests" in written and not [place for place in places if place in written]


def test_a_tracked_run_is_the_run_it_would_be_untracked(tracked: RunFolder, tmp_path: Path) -> None:
    home = RunFolder(tmp_path)
    config = tiny_run(*SHORT)
    train_alone(config, home.path)
    assert home.metrics_file.read_bytes() == tracked.metrics_file.read_bytes()
    said: list[str] = []
    pipeline.run(config, tracked.path, "tiny", said.append)  # the same folder, without trackers
    assert "this run is complete; nothing to do" in said


def test_trackio_takes_a_run_and_goes_on_with_it(tmp_path: Path) -> None:
    pytest.importorskip("trackio")
    for steps in (range(1, 4), range(1, 6)):
        assert send(tmp_path, steps, "track={wandb: false, trackio: true}") == []
    assert json.loads((tmp_path / "trackers" / "trackio.json").read_text())["sent"] == {"train": 5}


def test_trackio_resumes_by_name_only_what_is_this_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name may have been taken by another run meanwhile: then this run begins anew."""
    asked, latest = [], SimpleNamespace(id="first")

    def init(resume: str, **settings: Any) -> Any:
        asked.append((resume, settings["name"], settings["project"]))
        if resume == "never":
            latest.id = f"run {len(asked)}"
        return SimpleNamespace(id=latest.id, log=lambda *_, **__: None, finish=lambda: None)

    monkeypatch.setitem(sys.modules, "trackio", SimpleNamespace(init=init))  # pyright: ignore[reportArgumentType]
    only = "track={wandb: false, trackio: true, name: mine}"
    for stranger in (None, None, "somebody else's"):
        latest.id = stranger or latest.id
        assert send(tmp_path, range(1, 3), only) == []
    assert asked == [(resume, "mine", "tests") for resume in ("never", "allow", "allow", "never")]


# --------------------------------------------------------------------------------------------------------- starting again
def test_a_resumed_run_takes_what_it_lacks(service: Service, tmp_path: Path) -> None:
    """Killed after step 5, resumed from an earlier checkpoint: steps are handed over again and taken once."""
    assert send(tmp_path, range(1, 6), status="stopped") == []
    assert send(tmp_path, range(1, 9)) == []
    assert service.steps() == {"run 0": [*range(1, 9)]}
    assert service.ends == ["stopped", "finished"]


def test_kinds_are_counted_apart_and_only_numbers_are_sent(service: Service, tmp_path: Path) -> None:
    tracked = Trackers(RunFolder(tmp_path), tiny_run(FAKE), PROVENANCE)
    tracked.write({"step": 2, "kind": "train", "loss": 0.5, "broken": math.nan})
    tracked.write({"step": 2, "kind": "valid", "selected": 0.25, "best": True, "note": "text"})
    tracked.write_test(2, {"search": {"mrr": 0.125, "ndcg@10": None}})
    tracked.close()
    assert service.runs["run 0"] == [
        (2, {"train/loss": 0.5}),
        (2, {"valid/selected": 0.25, "valid/best": 1.0}),
        (2, {"test/search/mrr": 0.125}),
    ]


def test_who_has_forgotten_a_run_gets_it_whole(service: Service, tmp_path: Path) -> None:
    send(tmp_path, range(1, 4))
    service.runs.clear()
    send(tmp_path, range(1, 6))
    assert service.steps() == {"run 1": [*range(1, 6)]}


def test_another_project_gets_the_whole_run(service: Service, tmp_path: Path) -> None:
    send(tmp_path, range(1, 4))
    send(tmp_path, range(1, 6), "track.project=elsewhere")
    assert service.steps() == {"run 0": [1, 2, 3], "run 1": [*range(1, 6)]}
    assert [facts.track.project for facts in service.facts] == ["tests", "elsewhere"]


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"place": 3, "id": "run 0"}'])
def test_an_unreadable_memory_is_none(content: str, service: Service, tmp_path: Path) -> None:
    (tmp_path / "trackers").mkdir()
    (tmp_path / "trackers" / "wandb.json").write_text(content, encoding="utf-8")
    assert send(tmp_path, range(1, 3)) == []
    assert service.steps() == {"run 0": [1, 2]}


@pytest.mark.parametrize(
    ("error", "status"),
    [(None, "finished"), (Interrupted, "stopped"), (KeyboardInterrupt, "stopped"), (UserError, "failed")],
)
def test_trackers_learn_how_the_run_ended(
    error: type[BaseException] | None, status: str, service: Service, tmp_path: Path
) -> None:
    def end() -> None:
        with Trackers(RunFolder(tmp_path), tiny_run(FAKE), PROVENANCE):
            if error is not None:
                raise error("over")

    if error is None:
        end()
    else:
        with pytest.raises(error, match="over"):
            end()
    assert service.ends == [status]


def test_seeds_trained_together_are_tracked_apart(service: Service, tmp_path: Path) -> None:
    configs = [tiny_run(*SHORT, FAKE, f"seed={seed}") for seed in (0, 1)]
    homes = [RunFolder(tmp_path / str(seed)) for seed in (0, 1)]
    for home in homes:
        home.path.mkdir()
    guests = [Trackers(home, config, PROVENANCE) for home, config in zip(homes, configs, strict=True)]
    train(configs, [tiny_inputs(configs[0])] * 2, homes, Validation, lambda _: None, guests)
    for guest in guests:
        guest.close()
    for home in homes:
        id = json.loads((home.path / "trackers" / "wandb.json").read_text())["id"]
        got = {(step, name): value for step, metrics in service.runs[id] for name, value in metrics.items()}
        assert got == numbers(home)
    assert sorted(facts.tags["seed"] for facts in service.facts) == ["0", "1"]


# ------------------------------------------------------------------------------------------------------- trackers that fail
def test_what_raises_or_hangs_disturbs_no_training(tracked: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()

    def raises(*_: Any) -> Session:
        raise ConnectionError("no route to host")

    def hangs(*_: Any) -> Session:
        release.wait()
        raise ConnectionError("too late")

    monkeypatch.setitem(trackers.OPENERS, "wandb", raises)
    monkeypatch.setitem(trackers.OPENERS, "mlflow", hangs)
    monkeypatch.setattr(trackers, "PATIENCE", 0.3)
    home, said = RunFolder(tmp_path), []
    config = tiny_run(*SHORT, FAKE, "track.mlflow=true")
    with Trackers(home, config, PROVENANCE, said.append) as guests:
        threads = [worker.thread for worker in guests.workers]
        train_alone(config, home.path, trackers=guests)
        before = time.monotonic()
    assert time.monotonic() - before < 5
    assert [line for line in said if line.startswith("tracker wandb")] == [
        "tracker wandb: ConnectionError: no route to host; training goes on, it will be tried again",
        "tracker wandb: gave up (ConnectionError: no route to host); metrics.jsonl has everything",
    ]
    assert [line for line in said if "mlflow" in line] == ["tracker mlflow: still busy after 0.3 s; left behind"]
    assert home.metrics_file.read_bytes() == tracked.metrics_file.read_bytes()
    release.set()
    for thread in threads:
        assert thread.daemon
        thread.join(10)
        assert not thread.is_alive()


def test_what_fails_for_a_while_has_no_gap(service: Service, tmp_path: Path) -> None:
    service.fails, said = 1, []
    tracked = Trackers(RunFolder(tmp_path), tiny_run(FAKE), PROVENANCE, said.append)
    for step in range(1, 5):
        tracked.write({"step": step, "kind": "train", "loss": 1.0})
    while not said:  # the end of the run would be the last attempt
        time.sleep(0.005)
    tracked.close()
    assert said == ["tracker wandb: ConnectionError: no route to host; training goes on, it will be tried again"]
    assert service.steps() == {"run 0": [1, 2, 3, 4]}


def test_what_it_did_not_take_it_gets_the_next_time(service: Service, tmp_path: Path) -> None:
    service.fails = 1000
    assert send(tmp_path, range(1, 4))[-1].startswith("tracker wandb: gave up (ConnectionError")
    assert service.steps() == {"run 0": []}
    service.fails = 0
    assert send(tmp_path, range(1, 6)) == []
    assert service.steps() == {"run 0": [1, 2, 3, 4, 5]}


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()])
def test_a_tracker_that_wants_to_end_the_process_ends_itself(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ends(*_: Any) -> Session:
        raise error

    monkeypatch.setitem(trackers.OPENERS, "wandb", ends)
    (line,) = send(tmp_path, range(1, 4))
    assert line.startswith(f"tracker wandb: gave up ({type(error).__name__}")


def test_rows_do_not_pile_up_behind_a_tracker_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release, taken = threading.Event(), []

    def hangs(*_: Any) -> Session:
        release.wait()
        return Session("late", lambda step, _: taken.append(step), lambda _: None)

    monkeypatch.setitem(trackers.OPENERS, "wandb", hangs)
    monkeypatch.setattr(trackers, "_MOST_WAITING", 3)
    said: list[str] = []
    guests = Trackers(RunFolder(tmp_path), tiny_run(FAKE), PROVENANCE, said.append)
    (worker,) = guests.workers
    for step in range(1, 100):
        guests.write({"step": step, "kind": "train", "loss": 1.0})
    assert worker.rows.qsize() == 3
    assert said == ["tracker wandb: gave up (3 rows behind); metrics.jsonl has everything"]
    release.set()
    guests.close()
    assert len(said) == 1 and taken == []


# ------------------------------------------------------------------------------------------------------------- the section
@pytest.mark.parametrize("name", trackers.MODULES)
def test_a_missing_package_names_its_extra(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(trackers.MODULES, name, ("there_is_no_such_package",))
    config = tiny_run(*SHORT, f"track.{name}=true")
    expected = f"track.{name}: the package 'there_is_no_such_package' is missing: pip install 'fusionjax[{name}]'"
    calls: list[Callable[[], Any]] = [
        lambda: require(config.track),
        lambda: pipeline.run(config, tmp_path / "run", "tiny"),
        lambda: pipeline.validate_only(config, tmp_path / "run", "tiny"),
        lambda: pipeline.run_together(config, (0, 1), (tmp_path / "0", tmp_path / "1"), "tiny"),
    ]
    for call in calls:
        with pytest.raises(UserError) as missing:
            call()
        assert str(missing.value) == expected
    assert not any(tmp_path.iterdir())
    require(tiny_run().track)  # who does not ask for it does not need it


def test_a_folder_of_the_packages_name_is_no_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "left_behind").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(trackers.MODULES, "wandb", ("left_behind",))
    with pytest.raises(UserError, match="the package 'left_behind' is missing"):
        require(tiny_run(FAKE).track)


WRONG = {
    "track.project=a b": "track.project|project 'a b' must be letters, digits and _-. only",
    "track.project=../up": "must be letters, digits and _-. only",
    "track.project=''": "must be letters, digits and _-. only",
    "track.mlflow_uri=mlruns": "'mlruns' is no database or server",
    "track.mlflow_uri=file:///tmp/mlruns": "is no database or server",
    "track.wandb=maybe": "track.wandb",
    "track.neptune=true": "track.neptune: unknown key",
}


@pytest.mark.parametrize(("override", "said"), WRONG.items())
def test_names_and_places_are_checked_with_the_config(override: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        tiny_run(override)


@pytest.mark.parametrize("uri", ["sqlite:///runs.db", "https://tracking.example.org", "databricks"])
def test_places_of_mlflow(uri: str) -> None:
    assert tiny_run(f"track.mlflow_uri={uri}", "track.project=Beauty_2.0-b").track.mlflow_uri == uri


def test_tracking_is_no_part_of_what_a_run_is(tmp_path: Path) -> None:
    plain = tiny_run()
    other = tiny_run("track={wandb: true, mlflow: true, trackio: true, project: p, name: n, mlflow_uri: 'https://a.b'}")
    assert config_digest(plain) == config_digest(other)
    assert changed_keys(plain, other) == []
    runs.open_run(plain, tmp_path / "run", "tiny")
    assert runs.open_run(other, tmp_path / "run", "tiny").config() == other


def test_facts_name_no_place(tmp_path: Path) -> None:
    places = ("data.source_dir=/home/me/shop", "data.cache_dir=/home/me/cache", "text.checkpoint=/home/me/bert-tiny")
    facts = facts_of(
        RunFolder(tmp_path / "the-run"), tiny_run(FAKE, "track.mlflow_uri=https://me:secret@a.b", *places), PROVENANCE
    )
    told = dataclasses.replace(facts, folder=Path(), track=tiny_run().track)
    for secret in ("/home/me", "secret", "/somewhere", str(tmp_path)):
        assert secret not in repr(told)
    assert facts.config["text.checkpoint"] == "bert-tiny"
    assert facts.name == "the-run"
    assert facts.tags == {"seed": "0", "commit": "c0ffee", "fingerprint": "f00d"}
    assert facts_of(RunFolder(tmp_path), tiny_run("track.name=Beauty, third try"), {}).name == "Beauty, third try"
