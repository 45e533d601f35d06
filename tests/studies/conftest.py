"""One finished study for the whole session, and copies of it to change."""

import shutil
from pathlib import Path

import pytest

from tests.session import made_once
from tests.studies.small import run, write


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    def make(folder: Path) -> None:
        run(write(folder))

    home = made_once("study", make)
    return Path(shutil.copytree(home, tmp_path_factory.mktemp("studies") / "study"))


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    """A clone of the finished study: what is committed, without the run folders."""
    return Path(shutil.copytree(finished, tmp_path / "study", ignore=shutil.ignore_patterns("runs")))
