"""One tiny trained run for the tests of command line, run folder and serving: the shop that README.md makes by hand."""

import dataclasses
import functools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.session import made_once

ROOT = Path(__file__).parents[1]
SMALL = (
    *("train.steps=6", "train.validate_every=3", "text.layers=1", "text.live=8", "model.user={layers: 1, history: 8}"),
    *("model.dim=16", "evaluation.batch_size=16"),
    *(f"objectives.{name}.batch_size=8" for name in ("link_prediction", "alignment", "query_product", "next_product")),
)
"""What the README's command gets on top, for speed."""


@dataclasses.dataclass(frozen=True)
class TrainedRun:
    cwd: Path
    """Where the commands ran; the run's `data.source_dir` is relative to it."""
    folder: Path
    words: tuple[str, ...]
    """The command that trained it, without `fusionjax`."""
    stdout: str
    stderr: str


def readme_block() -> tuple[str, list[str]]:
    """README's shell lines that write the shop's tables, and the `fusionjax` commands after them."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.search(r"```bash\n(mkdir myshop\n.*?)```", readme, re.DOTALL)
    assert found, "README.md has no shop made by hand"
    lines = found[1].splitlines()
    commands = [line for line in lines if line.startswith("fusionjax ")]
    return "\n".join(line for line in lines if line not in commands), commands


def fusionjax(cwd: Path, *words: str, cache: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Runs the command in a process of its own; its exit code is for the caller to look at."""
    there = {} if cache is None else {"FUSIONJAX_CACHE": str(cache)}
    return subprocess.run(
        [sys.executable, "-m", "fusionjax.cli", *words],
        cwd=cwd,
        capture_output=True,
        text=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONPATH": str(ROOT), **there},
    )


@functools.cache
def readme_shop() -> Path:
    """A folder as the README leaves it: `myshop/` with the tables, `configs/` beside it. Removed with the session's scratch."""
    cwd = Path(tempfile.mkdtemp(prefix="readme-", dir=Path(os.environ["FUSIONJAX_CACHE"]).parent))
    (cwd / "configs").symlink_to(ROOT / "configs")
    subprocess.run(["bash", "-e", "-c", readme_block()[0]], cwd=cwd, check=True)
    return cwd


@functools.cache
def trained_run() -> TrainedRun:
    """The README's training command, smaller; trained once a session, and copied with its prepared data by each worker."""
    command = next(command for command in readme_block()[1] if command.startswith("fusionjax train "))
    words = (*command.split()[1:], *SMALL)

    def train(folder: Path) -> None:
        shutil.copytree(readme_shop(), folder / "cwd", symlinks=True)
        done = fusionjax(folder / "cwd", *words, cache=folder / "cache")
        assert done.returncode == 0, done.stderr
        (folder / "cwd" / "said.json").write_text(json.dumps([done.stdout, done.stderr]), encoding="utf-8")

    cwd = readme_shop()
    home = made_once("trained", train)
    shutil.copytree(home / "cwd", cwd, ignore=shutil.ignore_patterns("configs"), dirs_exist_ok=True)
    data = Path(os.environ["FUSIONJAX_CACHE"])
    shutil.copytree(home / "cache", data, ignore=shutil.ignore_patterns("xla"), dirs_exist_ok=True)
    stdout, stderr = json.loads((cwd / "said.json").read_text(encoding="utf-8"))
    return TrainedRun(cwd, cwd / stdout.splitlines()[-1], words, stdout, stderr)


Cli = Callable[..., tuple[int, str, str]]
"""The fixture `cli`: words of a command → exit code, standard output, standard error."""


def one_clear_line(result: tuple[int, str, str], said: str) -> None:
    code, out, err = result
    assert code == 2, err
    lines = err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("fusionjax: ") and "Traceback" not in err, err
    assert re.search(said, lines[0]), err
    assert out == ""
