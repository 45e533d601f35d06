"""What a benchmark found, kept with what it was found on: commit, processor, package versions."""

import json
import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "results"
PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "tokenizers")


def write(name: str, found: dict[str, Any], peer: str | None = None, peer_packages: tuple[str, ...] = ()) -> Path:
    """Writes results/NAME.json.

    Args:
      found: figures, and the command's own settings.
      peer, peer_packages: the peer's Python, and packages of it whose versions matter.
    """
    record = {
        "commit": _output("git", "rev-parse", "HEAD"),
        "changed_files": _output("git", "status", "--porcelain", "--untracked-files=no").splitlines(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "python": platform.python_version(),
        "packages": {package: version(package) for package in PACKAGES},
        "peer_packages": _peer_versions(peer, peer_packages) if peer else {},
        **found,
    }
    FOLDER.mkdir(exist_ok=True)
    file = FOLDER / f"{name}.json"
    file.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return file


def _peer_versions(python: str, packages: tuple[str, ...]) -> dict[str, str]:
    program = "import sys; from importlib.metadata import version; print(*map(version, sys.argv[1:]))"
    return dict(zip(packages, _output(python, "-c", program, *packages).split(), strict=True))


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.rstrip()
