"""Who does which cell: workers of one or many machines agree through an Optuna storage.

A claim is a trial added in state RUNNING with the cell's digest in its attributes, which a storage does atomically. Of several
live claims on one cell the one with the lowest number wins: whoever added a later one has seen it. A claim is dead when its
process is gone (same machine) or has not been heard of for `SILENCE` seconds (another machine).
"""

import os
import socket
import time
from pathlib import Path

import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from fusionjax.data.prepare import process_exists
from fusionjax.errors import UserError

BEAT = 60.0
"""Seconds between two signs of life."""
SILENCE = 10 * BEAT


def open_storage(url: str | None, runs: Path) -> BaseStorage:
    """The storage at an SQLAlchemy URL, or the journal file of a study's folder.

    Raises:
      UserError: the database cannot be reached, or its driver is not installed.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if url is None:
        runs.mkdir(parents=True, exist_ok=True)
        return JournalStorage(JournalFileBackend(str(runs / "journal.log")))
    try:
        # The driver that the extra `postgresql` brings; SQLAlchemy's own choice would be another one.
        return RDBStorage(url.replace("postgresql://", "postgresql+psycopg://", 1))
    except Exception as error:  # SQLAlchemy's errors, and those of whichever driver the URL names
        shown = url.rsplit("@", 1)[-1]  # without the password
        raise UserError(f"storage: cannot open {shown}: {str(error).splitlines()[0]}") from None


def this_worker() -> str:
    """Host, process and when it began: a number of a process is used again, after a reboot at the latest."""
    return f"{socket.gethostname()}:{os.getpid()}:{_began(os.getpid())}"


class Claims:
    """The claims of one study, as one worker sees and makes them."""

    def __init__(self, name: str, storage: BaseStorage) -> None:
        self.study = optuna.create_study(study_name=f"{name} cells", storage=storage, load_if_exists=True)
        self.worker = this_worker()

    def live(self) -> dict[str, tuple[int, str]]:
        """Cell → (number, worker) of the claim that holds it."""
        held: dict[str, tuple[int, str]] = {}
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if "cell" in trial.user_attrs and alive(trial):
                held.setdefault(trial.user_attrs["cell"], (trial.number, trial.user_attrs["worker"]))
        return held

    def claim(self, cell: str) -> int | None:
        """The number of a claim on the cell, or `None` if another worker holds it."""
        if cell in self.live():
            return None
        attributes = {"cell": cell, "worker": self.worker, "beat": time.time()}
        self.study.add_trial(create_trial(state=TrialState.RUNNING, user_attrs=attributes))
        winner, worker = self.live()[cell]
        if worker == self.worker:
            return winner
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if trial.user_attrs.get("cell") == cell and trial.user_attrs.get("worker") == self.worker:
                self.study.tell(trial.number, state=TrialState.FAIL)
        return None

    def beat(self, numbers: list[int]) -> None:
        """A sign of life for claims of this worker."""
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if trial.number in numbers:
                Trial(self.study, trial._trial_id).set_user_attr("beat", time.time())

    def done(self, number: int, value: float) -> None:
        self.study.tell(number, value)

    def give_up(self, number: int) -> None:
        self.study.tell(number, state=TrialState.FAIL)


def alive(trial: FrozenTrial) -> bool:
    """Whether the process that claimed a trial is still there."""
    host, pid, began = trial.user_attrs["worker"].rsplit(":", 2)
    if host == socket.gethostname():
        return process_exists(int(pid)) and _began(int(pid)) == began
    return time.time() - trial.user_attrs.get("beat", 0.0) < SILENCE


def _began(pid: int) -> str:
    """When a process began, in the system's ticks since the machine started; '' where /proc does not tell."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    return text.rsplit(")", 1)[1].split()[19]
