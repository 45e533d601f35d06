"""Weights & Biases, MLflow and trackio: the numbers of metrics.jsonl, sent on to where people compare runs (`track`).

A tracker is a guest: it works in a thread of its own, so that nothing it does, waits for or breaks reaches the training. What
it has got is kept in `trackers/NAME.json` of the run folder (its id, the last step of each kind), and every start of the run
hands it metrics.jsonl from the beginning: it takes what it lacks. So a resumed run continues the tracked one, without gaps.

Nothing leaves the machine unless the person says so (WANDB_MODE, `track.mlflow_uri` or MLFLOW_TRACKING_URI, trackio's own
variables): by default W&B is offline and MLflow is a SQLite file, both under `trackers/`; trackio keeps its own local folder.
"""

import dataclasses
import hashlib
import importlib
import importlib.util
import json
import math
import os
import queue
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from fusionjax.config import schema
from fusionjax.errors import UserError
from fusionjax.files import write_json
from fusionjax.registry import Registry
from fusionjax.runs import RunFolder

Say = Callable[[str], None]

MODULES = {"wandb": ("wandb",), "mlflow": ("mlflow", "sqlalchemy", "alembic"), "trackio": ("trackio",)}
"""What each tracker imports."""
PATIENCE = 30.0
"""Seconds that the end of a run waits for its trackers, all of them together."""
_MOST_WAITING = 100_000
_LONGEST_PAUSE = 60.0


@dataclasses.dataclass(frozen=True)
class Facts:
    """What a tracker is told about a run; nothing in it names a path."""

    track: schema.Track
    name: str
    folder: Path
    """Where a tracker may put files of its own."""
    config: dict[str, Any]
    """Dotted key → value, without `track` and where data lie."""
    tags: dict[str, str]
    """study, row (where there are any), seed, commit, fingerprint."""


@dataclasses.dataclass(frozen=True)
class Session:
    """A run that a tracker holds open."""

    id: str
    log: Callable[[int, dict[str, float]], None]
    """Takes a step and its metrics."""
    close: Callable[[str], None]
    """Takes how the run ended: finished, failed or stopped."""


def names(track: schema.Track) -> tuple[str, ...]:
    """The trackers that are switched on."""
    return (*(name for name in MODULES if getattr(track, name)), *track.plugins)


def require(track: schema.Track) -> None:
    """Raises `UserError` if the package of a tracker is missing, or a plug-in's cannot be used."""
    for name in names(track):
        if name not in OPENERS:
            TRACKERS.get(name)
        for module in MODULES.get(name, ()):
            spec = importlib.util.find_spec(module)
            # A folder of that name, such as the one wandb leaves behind, is found as well, but has no origin.
            if spec is None or spec.origin is None:
                raise UserError(f"track.{name}: the package '{module}' is missing: pip install 'fusionjax[{name}]'")


def facts_of(run: RunFolder, config: schema.Run, provenance: Mapping[str, Any]) -> Facts:
    settings = config.model_dump(mode="json", exclude={"track": True, "data": {"source_dir": True, "cache_dir": True}})
    if config.text.checkpoint is not None:
        settings["text"]["checkpoint"] = Path(config.text.checkpoint).name
    tags = {
        "study": os.environ.get("FUSIONJAX_STUDY"),
        "row": os.environ.get("FUSIONJAX_ROW"),
        "seed": config.seed,
        "commit": provenance.get("commit"),
        "fingerprint": provenance.get("fingerprint"),
    }
    name = config.track.name or run.path.absolute().name
    given = {key: str(value) for key, value in tags.items() if value not in (None, "")}
    return Facts(config.track, name, run.path / "trackers", dict(_flat(settings)), given)


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


class Trackers:
    """All trackers of one run; a context manager that tells them how the run ended.

    Neither construction, `write` nor `close` raises for anything that a tracker does; `close` waits `PATIENCE` seconds at most.
    """

    def __init__(self, run: RunFolder, config: schema.Run, provenance: Mapping[str, Any], say: Say = print) -> None:
        self.say, self.workers = say, []
        if names(config.track):
            facts = facts_of(run, config, provenance)
            self.workers = [_Worker(name, facts, say) for name in names(config.track)]

    def __enter__(self) -> "Trackers":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        stopped = kind is not None and kind.__name__ in ("Interrupted", "KeyboardInterrupt")
        self.close("finished" if kind is None else "stopped" if stopped else "failed")

    def write(self, row: Mapping[str, Any]) -> None:
        """Takes a row of metrics.jsonl, or one of kind `test`: `step`, `kind`, and metrics by name."""
        for worker in self.workers:
            worker.put(row)

    def write_test(self, step: int, results: Mapping[str, Mapping[str, float | None]]) -> None:
        """Takes the final results by task and metric. `step`: the last one, since W&B's steps cannot go back to the best."""
        flat = {f"{task}/{name}": value for task, metrics in results.items() for name, value in metrics.items()}
        self.write({"step": step, "kind": "test", **flat})

    def close(self, status: str = "finished") -> None:
        for worker in self.workers:
            worker.end(status)
        until = time.monotonic() + PATIENCE
        for worker in self.workers:
            worker.thread.join(max(0.0, until - time.monotonic()))
            if worker.thread.is_alive():
                self.say(f"tracker {worker.name}: still busy after {PATIENCE:g} s; left behind")
        self.workers = []


@dataclasses.dataclass(frozen=True)
class _End:
    status: str


class _Worker:
    """One tracker in its thread. What fails is said once and tried again, in growing intervals, until the run ends."""

    def __init__(self, name: str, facts: Facts, say: Say) -> None:
        self.name, self.facts, self.say = name, facts, say
        self.rows: queue.Queue[Mapping[str, Any] | _End] = queue.Queue()
        self.ending = threading.Event()
        self.warned = self.given_up = False
        # A daemon: a tracker that hangs does not keep the process.
        self.thread = threading.Thread(target=self._work, name=f"tracker {name}", daemon=True)
        self.thread.start()

    def put(self, row: Mapping[str, Any]) -> None:
        if self.given_up:
            return
        if self.rows.qsize() >= _MOST_WAITING:  # it hangs: do not fill the memory
            self._give_up(f"{_MOST_WAITING} rows behind")
            return
        self.rows.put(row)

    def end(self, status: str) -> None:
        self.rows.put(_End(status))
        self.ending.set()

    def _work(self) -> None:
        try:
            state = _State(self.facts, self.name)
            session = self._insist(lambda: TRACKERS[self.name](self.facts, state.id))
            state.opened(session.id)
            while not isinstance(row := self.rows.get(), _End):
                step, kind = row["step"], row["kind"]
                metrics = {f"{kind}/{key}": float(value) for key, value in row.items() if _is_metric(key, value)}
                if step > state.sent.get(kind, -1) and not self.given_up:
                    self._insist(lambda step=step, metrics=metrics: session.log(step, metrics))
                    state.took(kind, step)
            session.close(row.status)
        except BaseException as error:  # SystemExit too: some packages raise it, and this thread's end is nobody's business
            self._give_up(_shown(error))

    def _insist(self, call: Callable[[], Any]) -> Any:
        """Calls until it works; once the run ends one more time."""
        pause = 1.0
        while True:
            last = self.ending.is_set()
            try:
                return call()
            except Exception as error:
                if last:
                    raise
                if not self.warned:
                    self.warned = True
                    self.say(f"tracker {self.name}: {_shown(error)}; training goes on, it will be tried again")
            self.ending.wait(pause)
            pause = min(2.0 * pause, _LONGEST_PAUSE)

    def _give_up(self, why: str) -> None:
        if not self.given_up:
            self.given_up = True
            self.say(f"tracker {self.name}: gave up ({why}); metrics.jsonl has everything")


def _is_metric(key: str, value: Any) -> bool:
    return key not in ("step", "kind") and isinstance(value, (int, float)) and math.isfinite(value)


def _shown(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text if len(text) <= 200 else text[:199] + '…'}"


class _State:
    """`trackers/NAME.json`: the tracker's id of this run, and the last step of each kind it took.

    It counts only for the place it was written for: another project or server gets the whole run.
    """

    def __init__(self, facts: Facts, name: str) -> None:
        self.file = facts.folder / f"{name}.json"
        uri = _mlflow_uri(facts) if name == "mlflow" else None
        # A digest, since an address may hold a password.
        self.place = hashlib.sha256(json.dumps([facts.track.project, uri]).encode()).hexdigest()[:16]
        self.id: str | None = None
        self.sent: dict[str, int] = {}
        try:
            found = json.loads(self.file.read_text(encoding="utf-8"))
            if found["place"] == self.place:
                self.id, self.sent = str(found["id"]), {str(kind): int(step) for kind, step in found["sent"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            pass  # none yet, or not readable: begin anew

    def opened(self, id: str) -> None:
        """The tracker answered with this id; another one than before means that it knows nothing yet."""
        if id != self.id:
            self.id, self.sent = id, {}
        self._write()

    def took(self, kind: str, step: int) -> None:
        self.sent[kind] = step
        self._write()

    def _write(self) -> None:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.file, {"place": self.place, "id": self.id, "sent": self.sent})


# ------------------------------------------------------------------------------------------------------------ the packages
def _open_wandb(facts: Facts, known: str | None) -> Session:
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # reports of crashes go over the network, offline or not
    import wandb

    facts.folder.mkdir(parents=True, exist_ok=True)
    # No terminal capture, no list of packages, command line, user or host: the run is described by what `Facts` holds.
    wished = {
        **{"console": "off", "silent": True, "disable_git": True, "disable_code": True, "save_code": False},
        **{"x_disable_meta": True, "x_disable_stats": True, "x_disable_machine_info": True, "x_save_requirements": False},
        "host": os.environ.get("WANDB_HOST", ""),  # else the machine's name
    }
    if "WANDB_FINISH_TIMEOUT" not in os.environ:
        wished["finish_timeout"] = PATIENCE  # else a dead network would keep the process for ever
    settings = wandb.Settings(**{key: value for key, value in wished.items() if key in wandb.Settings.model_fields})
    run = wandb.init(
        project=facts.track.project,
        name=facts.name,
        id=known or secrets.token_hex(4),
        resume="allow",
        group=facts.tags.get("study"),
        # W&B takes tags of at most 64 letters; the config holds them whole.
        tags=[f"{key}:{value}"[:64] for key, value in facts.tags.items()],
        config={**facts.tags, **facts.config},  # the seed is a number
        dir=str(facts.folder),
        mode=None if "WANDB_MODE" in os.environ else "offline",
        reinit="create_new",  # a run that the person's own program has open stays open
        settings=settings,
    )
    return Session(
        run.id,
        lambda step, metrics: run.log(metrics, step=step),
        lambda status: run.finish(exit_code=int(status != "finished")),
    )


def _mlflow_uri(facts: Facts) -> str | None:
    return facts.track.mlflow_uri or os.environ.get("MLFLOW_TRACKING_URI") or None


def _open_mlflow(facts: Facts, known: str | None) -> Session:
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    # Trying again is this module's business; MLflow's own patience with a dead server is minutes.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param
    from mlflow.exceptions import MlflowException

    uri, artifacts = _mlflow_uri(facts), None
    if uri is None:
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        facts.folder.mkdir(parents=True, exist_ok=True)
        uri = f"sqlite:///{(facts.folder / 'mlflow.db').absolute().as_posix()}"
        artifacts = "mlflow-artifacts:/"  # no artefacts are logged; the default would be a path of this machine
        SqlAlchemyStore(uri, artifacts)  # as would that of the experiment 'Default', which comes with a new file
    client = MlflowClient(uri)
    run_id = known
    if known is not None:
        try:
            client.update_run(known, status="RUNNING")
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            run_id = None
    if run_id is None:
        experiment = client.get_experiment_by_name(facts.track.project)
        place = experiment.experiment_id if experiment else client.create_experiment(facts.track.project, artifacts)
        tags = {**facts.tags, **({"mlflow.source.git.commit": facts.tags["commit"]} if "commit" in facts.tags else {})}
        run_id = str(client.create_run(place, run_name=facts.name, tags=tags).info.run_id)
        settings = [Param(key, str(value)[:6000]) for key, value in facts.config.items()]
        for start in range(0, len(settings), 100):  # MLflow's limit
            client.log_batch(run_id, params=settings[start : start + 100])

    def log(step: int, metrics: dict[str, float]) -> None:
        now = int(time.time() * 1000)
        client.log_batch(run_id, metrics=[Metric(_mlflow_name(name), value, now, step) for name, value in metrics.items()])

    ends = {"finished": "FINISHED", "failed": "FAILED", "stopped": "KILLED"}
    return Session(run_id, log, lambda status: client.set_terminated(run_id, ends[status]))


def _mlflow_name(name: str) -> str:
    """MLflow allows letters, digits and `_-. :/` only: `ndcg@10` becomes `ndcg_at_10`."""
    return re.sub(r"[^\w\-. :/]", "_", name.replace("@", "_at_"))


def _open_trackio(facts: Facts, known: str | None) -> Session:
    # Not among the development tools: it wants an older Pillow than they have, so type checkers do not find it.
    trackio: Any = importlib.import_module("trackio")

    # trackio resumes by name; the id tells whether that was this run or another one of the same name.
    run: Any = None
    if known is not None:
        run = _trackio_run(trackio, facts, "allow")
        if run.id != known:
            run.finish()
            run = None
    if run is None:
        run = _trackio_run(trackio, facts, "never")
    return Session(run.id, lambda step, metrics: run.log(metrics, step=step), lambda _: run.finish())


def _trackio_run(trackio: Any, facts: Facts, resume: str) -> Any:
    return trackio.init(
        project=facts.track.project,
        name=facts.name,
        group=facts.tags.get("study"),
        config={**facts.tags, **facts.config},  # the seed is a number
        resume=resume,
        embed=False,
        auto_log_gpu=False,
        auto_log_cpu=False,
    )


OPENERS: dict[str, Callable[[Facts, str | None], Session]] = {
    "wandb": _open_wandb,
    "mlflow": _open_mlflow,
    "trackio": _open_trackio,
}
"""Each opens a run, or the known one again: `(facts, id or None) -> Session`; where the id is not known there, a new one."""
TRACKERS: Registry[Callable[[Facts, str | None], Session]] = Registry("fusionjax.trackers", Callable, OPENERS, instances=True)
