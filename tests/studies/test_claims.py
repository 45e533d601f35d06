"""Workers agree on who does what, also when one of them dies."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from optuna.trial import TrialState, create_trial

from fusionjax.errors import UserError
from fusionjax.studies import claims as module
from fusionjax.studies.claims import Claims, open_storage, this_worker


def claims(folder: Path) -> Claims:
    return Claims("study", open_storage(None, folder))


def other(folder: Path, worker: str, beat: float = 0.0) -> None:
    """Another worker's claim on cell `a`."""
    attributes = {"cell": "a", "worker": worker, "beat": beat}
    claims(folder).study.add_trial(create_trial(state=TrialState.RUNNING, user_attrs=attributes))


def test_a_cell_is_claimed_once(tmp_path: Path) -> None:
    one, two = claims(tmp_path), claims(tmp_path)
    number = one.claim("a")
    assert number is not None and two.claim("a") is None and two.claim("b") is not None
    assert set(two.live()) == {"a", "b"} and two.live()["a"] == (number, this_worker())
    one.give_up(number)
    assert two.claim("a") is not None
    done = two.live()["b"][0]
    two.done(done, 0.5)
    assert "b" not in one.live()


def test_of_two_claims_made_at_once_the_first_wins(tmp_path: Path) -> None:
    mine = claims(tmp_path)
    seen, nothing = mine.live, [{}]
    other(tmp_path, "elsewhere:1:1", beat=2e10)
    # The look before the claim sees nothing yet, the one after it sees both.
    mine.live = lambda: nothing.pop() if nothing else seen()  # type: ignore[method-assign]
    assert mine.claim("a") is None
    running = mine.study.get_trials(states=(TrialState.RUNNING,))
    assert [trial.user_attrs["worker"] for trial in running] == ["elsewhere:1:1"]


def test_a_dead_process_holds_nothing(tmp_path: Path) -> None:
    host = this_worker().split(":")[0]
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    other(tmp_path, f"{host}:{gone.pid}:1")
    assert claims(tmp_path).claim("a") is not None


def test_a_process_number_used_again_holds_nothing(tmp_path: Path) -> None:
    host = this_worker().split(":")[0]
    other(tmp_path, f"{host}:{os.getpid()}:began-another-time")
    assert claims(tmp_path).claim("a") is not None


def test_another_machine_holds_a_cell_until_it_is_silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other(tmp_path, "elsewhere:1:1", beat=1000.0)
    monkeypatch.setattr(module.time, "time", lambda: 1000.0 + module.SILENCE - 1)
    assert claims(tmp_path).claim("a") is None
    monkeypatch.setattr(module.time, "time", lambda: 1000.0 + module.SILENCE + 1)
    assert claims(tmp_path).claim("a") is not None


def test_a_sign_of_life_keeps_a_claim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = claims(tmp_path)
    number = mine.claim("a")
    assert number is not None
    monkeypatch.setattr(module.time, "time", lambda: 5000.0)
    mine.beat([number])
    assert mine.study.get_trials()[number].user_attrs["beat"] == 5000.0


def test_a_database_that_cannot_be_reached_is_named_without_its_password(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="storage: cannot open") as error:
        open_storage("nodatabase://user:secret@host/study", tmp_path)
    assert "secret" not in str(error.value)


def test_a_database_serves_as_a_journal_does(tmp_path: Path) -> None:
    storage = open_storage(f"sqlite:///{tmp_path}/claims.db", tmp_path)
    one, two = Claims("study", storage), Claims("study", storage)
    assert one.claim("a") is not None and two.claim("a") is None


def test_postgresql_serves_many_machines(tmp_path: Path) -> None:
    """A real server, where the packages that bring one are installed (pgserver, psycopg): workers of 8 threads, 20 cells."""
    pgserver = pytest.importorskip("pgserver")
    pytest.importorskip("psycopg")
    server, storages = pgserver.get_server(tmp_path / "server"), []
    try:
        storages += [open_storage(server.get_uri(), tmp_path) for _ in range(8)]
        workers = [Claims("study", storage) for storage in storages]
        for place, worker in enumerate(workers):
            worker.worker = f"machine-{place}:1:1"  # each on a machine of its own

        def claim_all(worker: Claims) -> list[str]:
            return [cell for cell in (f"cell {number}" for number in range(20)) if worker.claim(cell) is not None]

        with ThreadPoolExecutor(len(workers)) as pool:
            won = [cell for cells in pool.map(claim_all, workers) for cell in cells]
        assert sorted(won) == sorted(f"cell {number}" for number in range(20))
        assert set(workers[0].live()) == set(won)
    finally:
        for storage in storages:
            storage.remove_session()
            storage.engine.dispose()
        server.cleanup()
