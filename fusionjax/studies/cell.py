"""What a worker's child process does: one cell (or one row's seeds together, or the baselines), in a process of its own.

A process a cell: one that runs out of memory or crashes takes no other cell and no worker with it, and its peak memory is its
own. `python -m fusionjax.studies.cell JOB.json` is how the runner starts it; what it found is in the run folder.
"""

import contextlib
import fcntl
import json
import os
import resource
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fusionjax.errors import NonFiniteLoss, UserError

DONE, FAILED, INTERRUPTED = 0, 1, 75
"""Exit codes; 75 is EX_TEMPFAIL: the state is saved, the same job goes on later."""
COST = "cost.json"
_PATIENCE = 120


def main(file: Path) -> int:
    job = json.loads(file.read_text(encoding="utf-8"))
    _end_with(os.getppid())
    os.environ.update({f"FUSIONJAX_{name.upper()}": job[name] for name in ("study", "row")})
    folders = [Path(cell["folder"]) for cell in job["cells"]]
    code, started = FAILED, time.monotonic()
    try:
        with contextlib.ExitStack() as locks:
            for folder in folders:
                locks.enter_context(alone(folder))
            started = time.monotonic()
            code = _do(job, folders)
    except Exception as error:  # the top of the process: the worker records it
        traceback.print_exc()
        shown = str(error) if isinstance(error, UserError | NonFiniteLoss) else ""
        _write(file.with_suffix(".error.json"), {"error": shown or f"{type(error).__name__}: {error}"})
    finally:
        for folder in folders:
            if folder.is_dir():
                add_cost(folder, time.monotonic() - started, len(folders))
    return code


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Holds a run folder: the process of a worker that was killed may still be saving its state there."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f".{folder.name}.lock").open("w") as file:
        for _ in range(_PATIENCE):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(1.0)
        else:
            raise UserError(f"{folder}: another process has been working there for {_PATIENCE} s")
        yield


def _do(job: dict[str, Any], folders: list[Path]) -> int:
    from fusionjax import pipeline, runs
    from fusionjax.config import plugins, schema
    from fusionjax.errors import Interrupted

    runs.keep_compiled_programs()
    for cell in job["cells"]:  # of a study that its user started
        plugins.look_up_dotted(cell["config"], started=True)
    configs = [schema.Run.model_validate_json(json.dumps(cell["config"]), strict=True) for cell in job["cells"]]
    try:
        if job["kind"] == "baselines":
            pipeline.baselines_alone(configs[0], runs.RunFolder(folders[0]), job["fingerprint"], _say)
        elif len(folders) > 1:
            seeds = [config.seed for config in configs]
            pipeline.run_together(configs[0], seeds, folders, job["row"], say=_say, fingerprint=job["fingerprint"])
        else:
            pipeline.run(configs[0], folders[0], job["row"], say=_say, fingerprint=job["fingerprint"])
    except Interrupted as stop:
        _say(str(stop))
        return INTERRUPTED
    return DONE


def add_cost(folder: Path, seconds: float, shared_by: int = 1) -> None:
    """Adds this process's time to what the folder's run has cost before, in `cost.json`."""
    file = folder / COST
    before = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    usage = resource.getrusage(resource.RUSAGE_SELF)
    cost = {
        "seconds": round(before.get("seconds", 0.0) + seconds / shared_by, 2),
        "cpu_seconds": round(before.get("cpu_seconds", 0.0) + (usage.ru_utime + usage.ru_stime) / shared_by, 2),
        "peak_memory_bytes": max(before.get("peak_memory_bytes", 0), peak_memory()),
    }
    _write(file, cost)


def peak_memory() -> int:
    """Most bytes this process has held in memory at once.

    From /proc where there is one: `getrusage` counts what the process was forked from as well.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _end_with(parent: int) -> None:
    """Asks this process to stop (saving its state) when its worker is gone, however that ended."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def _write(file: Path, data: Any) -> None:
    from fusionjax.files import write_json

    write_json(file, data)


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
