"""Wall time and peak memory of whole runs, each in a process of its own.

    python benchmarks/run_memory.py configs/demo_million.yaml configs/quickstart.yaml

Prints one line a config: seconds, the training process's peak resident memory, exit code. Run folders go to a temporary folder
and are removed; the prepared data stays in the cache, so the first run of a config also measures making its data.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def measure(config: str, overrides: list[str]) -> tuple[float, float, int]:
    """(seconds, peak GiB, exit code) of `fusionjax train config`."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "fusionjax.cli", "train", config, *overrides, "--run-dir", str(Path(folder) / "run")]
        started = time.monotonic()
        child = subprocess.Popen(command, stdout=sys.stderr)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        # Linux counts kibibytes, macOS bytes.
        unit = 1 if sys.platform == "darwin" else 1024
        return time.monotonic() - started, usage.ru_maxrss * unit / 2**30, child.returncode


def main(words: list[str]) -> int:
    configs = [word for word in words if "=" not in word]
    overrides = [word for word in words if "=" in word]
    if not configs:
        print(__doc__)
        return 2
    worst = 0
    for config in configs:
        seconds, peak, code = measure(config, overrides)
        print(f"{config}: {seconds:.0f} s, peak {peak:.2f} GiB, exit {code}", flush=True)
        worst = max(worst, code)
    return worst


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
