"""What costs minutes to make is made once a session, by whichever of xdist's workers needs it first."""

import fcntl
import os
import shutil
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

QUICK_COMPILATION = " --xla_cpu_use_fusion_emitters=false" if version("jaxlib").startswith("0.10.") else ""
"""For XLA_FLAGS: the older way to emit code compiles in less than half the time. Later versions end at a flag they lost."""


def made_once(name: str, make: Callable[[Path], None]) -> Path:
    """A folder of the session that `make` has filled. For all workers: nobody writes into it any more, but into copies."""
    folder = Path(os.environ["FUSIONJAX_TESTS"]) / name
    done = folder.with_suffix(".done")
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)  # of a try that failed
            folder.mkdir()
            make(folder)
            done.touch()
    return folder
