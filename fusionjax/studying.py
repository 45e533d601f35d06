"""A study from Python: the same as `fusionjax study …`, whose code does the work."""

import argparse
import dataclasses
from pathlib import Path
from typing import Any

from fusionjax.errors import UserError
from fusionjax.studies import commands


@dataclasses.dataclass(frozen=True)
class Study:
    folder: Path
    """Of the study, or its study.yaml."""
    places: tuple[str, ...] = ()
    """Where data lie on this machine: `data.source_dir=FOLDER`."""

    def plan(self) -> Any:
        """The study's cells, checked against what its folder holds (`studies.plan.Plan`); nothing is trained."""
        return commands._open(self._words())[0]

    def run(self, workers: int = 1) -> "Study":
        """Does what is missing.

        Raises:
          UserError: a cell failed; `scores/failures/` says why.
        """
        words = self._words(workers=workers, storage=None, retry_failed=False)
        if commands._run(words):
            raise UserError(f"{self.folder}: some cells failed; `fusionjax study status {self.folder}` names them")
        return self

    def report(self) -> Path:
        """Writes report.md, report.html, tables and plots; returns the page."""
        commands._report(self._words())
        return self._home / "report.html"

    def verify(self) -> "Study":
        """Recomputes the tables from the stored scores.

        Raises:
          UserError: they differ; what does is printed.
        """
        if commands._verify(self._words()):
            raise UserError(f"{self.folder}: the stored scores do not give the tables")
        return self

    @property
    def _home(self) -> Path:
        return self.folder if self.folder.is_dir() else self.folder.parent

    def _words(self, **more: Any) -> argparse.Namespace:
        return argparse.Namespace(study=self.folder, places=list(self.places), **more)
