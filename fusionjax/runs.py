"""The run folder: what a run writes, and reading it back. Every write is atomic; nothing in it can execute.

| file | holds |
| --- | --- |
| config.yaml | the resolved config, itself a valid config |
| provenance.json | command, commit, versions, devices, data fingerprint, seed, times |
| tokenizer/tokenizer.json | the vocabulary |
| metrics.jsonl | training losses and validation metrics by step (no times: equal runs write equal files) |
| tensorboard/ | the same as event files, with times |
| checkpoints/ | latest and best |
| index/ | what a loaded run answers from, without its data (`retrieval/index.py`) |
| scores/TASK.npz | the rank of every test target, by the model and each baseline (`evaluation/scores.py`) |
| results.json | final metrics beside the baselines; there once the run was measured |
| plots/*.png, report.html | for people |
"""

import dataclasses
import datetime
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from fusionjax.config import changed_keys, config_digest, dump_run, load_run, plugins, schema
from fusionjax.errors import UserError
from fusionjax.files import write_whole

_PACKAGES = (
    "fusionjax",
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "tokenizers",
    "tensorflow-datasets",
    "grain",
    "numpy",
)


@dataclasses.dataclass(frozen=True)
class RunFolder:
    path: Path

    @property
    def config_file(self) -> Path:
        return self.path / "config.yaml"

    @property
    def results_file(self) -> Path:
        return self.path / "results.json"

    @property
    def provenance_file(self) -> Path:
        return self.path / "provenance.json"

    @property
    def metrics_file(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def tokenizer(self) -> Path:
        return self.path / "tokenizer"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def scores(self) -> Path:
        return self.path / "scores"

    @property
    def index(self) -> Path:
        return self.path / "index"

    @property
    def plots(self) -> Path:
        return self.path / "plots"

    def config(self) -> schema.Run:
        """The run's resolved config.

        Raises:
          UserError: there is no run in this folder; or it names `package.module:Name`, which is not imported for a run that
            is only opened.
        """
        if not self.config_file.exists():
            raise UserError(f"{self.path}: no run there (config.yaml is missing)")
        config = load_run(self.config_file)
        plugins.look_up_dotted(config.model_dump(mode="json"), started=False)
        return config

    def results(self) -> dict[str, Any]:
        return json.loads(self.results_file.read_text(encoding="utf-8"))

    def provenance(self) -> dict[str, Any]:
        return json.loads(self.provenance_file.read_text(encoding="utf-8")) if self.provenance_file.exists() else {}

    def metrics(self) -> list[dict[str, Any]]:
        """Rows of metrics.jsonl; a last line cut short by a kill is left out."""
        rows = []
        for line in self.metrics_file.read_text(encoding="utf-8").splitlines() if self.metrics_file.exists() else ():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                break
        return rows


def open_run(config: schema.Run, folder: Path | None, name: str) -> RunFolder:
    """Makes or finds the folder of a run.

    The same config leads to the same default folder, `runs/NAME-DIGEST`, so the same command resumes.

    Raises:
      UserError: the folder holds a run of another config (the differing keys are named), or something else.
    """
    path = folder if folder is not None else Path("runs") / f"{name}-{config_digest(config)[:10]}"
    run = RunFolder(path)
    if run.config_file.exists():
        changes = changed_keys(run.config(), config)
        if changes:
            shown = "; ".join(f"{key}: {old!r} there, {new!r} now" for key, old, new in changes[:5])
            raise UserError(f"{path} holds a run of another config ({shown}); use another --run-dir")
    elif path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UserError(f"{path} exists and is not a run folder; use another --run-dir")
    try:
        path.mkdir(parents=True, exist_ok=True)
        write_whole(run.config_file, dump_run(config))
    except OSError as error:
        raise UserError(f"{path}: cannot write there: {error.strerror}") from error
    return run


def provenance(config: schema.Run, fingerprint: str, source: dict[str, Any]) -> dict[str, Any]:
    """What is known at the start of a run about where its numbers come from."""
    import jax

    commit, dirty = _commit()
    return {
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "commit": commit,
        "dirty": dirty,
        "seed": config.seed,
        "fingerprint": fingerprint,
        "data": source,
        "versions": {"python": platform.python_version(), **_versions()},
        "devices": [f"{device.platform}:{device.device_kind}" for device in jax.local_devices()],
        "platform": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "started": now(),
    }


def keep_compiled_programs() -> None:
    """Keeps compiled programs between processes, so that a resumed run, another seed or a search does not compile again.

    Where JAX was told already (JAX_COMPILATION_CACHE_DIR), nothing is changed.
    """
    import jax

    if getattr(jax.config, "jax_compilation_cache_dir", None) is not None:
        return
    root = os.environ.get("FUSIONJAX_CACHE") or Path.home() / ".cache" / "fusionjax"
    jax.config.update("jax_compilation_cache_dir", str(Path(root) / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def _commit() -> tuple[str | None, bool | None]:
    """Commit of the checkout this package runs from, and whether tracked files differ from it; `None` outside a checkout."""
    here = Path(__file__).resolve().parent

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(here), *words], capture_output=True, text=True, check=True, timeout=20
        ).stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")).resolve() != here.parent:
            return None, None  # installed inside somebody else's repository
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError):
        return None, None
