"""One finished study for the whole session, and copies of it to change."""

import shutil
from pathlib import Path

import pytest

from tests.studies.small import run, write


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = write(tmp_path_factory.mktemp("studies") / "study")
    run(home)
    return home


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    """A clone of the finished study: what is committed, without the run folders."""
    return Path(shutil.copytree(finished, tmp_path / "study", ignore=shutil.ignore_patterns("runs")))
