"""Hyper-parameter search of a study's rows, on validation alone: the same space, budget and sampler seed for each row.

Every row has `budget` slots. Trials live in an Optuna storage, where any number of workers claims slots like cells
(`studies/claims.py`): a trial is added in state RUNNING with its slot; of several on one slot the lowest number wins. Trials
whose worker is gone, or was stopped, become FAIL without an error and free their slot; those that failed by themselves keep it.
The sampler is seeded by slot, so a row that one worker at a time searches has the same trials however often it was stopped.
"""

import contextlib
import dataclasses
import functools
import json
import os
import shutil
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import ExperimentalWarning, UpdateFinishedTrialError
from optuna.pruners import BasePruner, MedianPruner, NopPruner, WilcoxonPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from fusionjax import pipeline
from fusionjax.config import config_digest, schema
from fusionjax.config.search import Params, Search, Values, check_search, is_whole, with_params
from fusionjax.data.prepare import prepare
from fusionjax.errors import Interrupted, NonFiniteLoss, UserError
from fusionjax.pipeline import Validated
from fusionjax.studies import trace as traces
from fusionjax.studies.claims import BEAT, alive, this_worker
from fusionjax.studies.plan import slug
from fusionjax.studies.trace import Record, State, Trace, Training
from fusionjax.training.journal import OnValidation

Say = Callable[[str], None]
_POLL = 0.5
_DEATHS = 3
"""A trial that ended its process as often as this has failed: it asks for more memory than there is, say."""


class Trainer(Protocol):
    """Trains and validates one run; `pipeline.validate_only` is one."""

    def __call__(
        self, config: schema.Run, folder: Path, name: str, say: Say, on_validation: OnValidation | None, fingerprint: str | None
    ) -> Validated: ...


def search_rows(
    study_name: str,
    configs: Mapping[str, schema.Run],
    search: Search,
    storage: BaseStorage,
    home: Path,
    say: Say = print,
    *,
    wait: bool = True,
    trainer: Trainer = pipeline.validate_only,
) -> dict[str, Params]:
    """Runs the trials that are missing, and only those; several processes may do so at once.

    Args:
      study_name: names the search in the storage, together with the row and all that determines its trials.
      configs: row → its config before the search, for every row of the study.
      storage: where workers meet (`claims.open_storage`).
      home: the study's folder; traces go to `search/`, run folders (removed when a trial has ended) to `runs/search/`.
      wait: until trials that other workers hold have ended too; else only complete rows are returned.
      trainer: for tests.

    Returns:
      Row → dotted key → chosen value, of the searched rows; also in `search/chosen.yaml`.

    Raises:
      UserError: the space does not fit a row; a trace belongs to another search, config or data; no trial of a row came to
        its end.
      Interrupted: from training; the same call goes on from there.
    """
    rows = traces.searched_rows(search, configs)
    for row in rows:
        try:
            check_search(search, configs[row])
        except UserError as error:
            raise UserError(f"row '{row}': {error}") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    searches = [_Row(study_name, row, configs[row], search, storage, home, say) for row in rows]
    while True:
        # A row that nobody works on comes first: TPE learns more from trials one after another.
        begun = next((one for one in sorted(searches, key=lambda one: one.running()) if one.work(trainer)), None)
        if begun is None:
            if not wait or all(one.trace().complete for one in searches):
                break
            time.sleep(_POLL)
    for one in searches:
        one.save()
    traces.write_chosen(home, rows)
    done = [one.trace() for one in searches]
    return {trace.row: traces.choose(trace).params for trace in done if trace.complete}


@dataclasses.dataclass(frozen=True)
class Progress:
    """Trials of a row: ended, running now, and the budget."""

    done: int
    running: int
    budget: int


def progress(
    study_name: str, configs: Mapping[str, schema.Run], search: Search, storage: BaseStorage, home: Path
) -> dict[str, Progress]:
    """How far the search of each row is, for plan and status; runs nothing."""
    found: dict[str, Progress] = {}
    for row in traces.searched_rows(search, configs):
        one = _Row(study_name, row, configs[row], search, storage, home, lambda _: None)
        found[row] = Progress(len(one.trace().records), one.running(), search.budget)
    return found


class _Row:
    """The search of one row, as one worker sees it."""

    def __init__(
        self, study_name: str, row: str, config: schema.Run, search: Search, storage: BaseStorage, home: Path, say: Say
    ) -> None:
        self.row, self.search, self.storage, self.home, self.say = row, search, storage, home, say
        changes = {} if search.metric is None else {"train.select": search.metric}
        self.config = with_params(config, changes | ({} if search.steps is None else {"train.steps": search.steps}))
        self.header = traces.make_header(row, search, config, _fingerprint(config.data))
        self.worker = this_worker()
        written = traces.read_trace(home, row)
        if written is not None:
            traces.check_same(written.header, self.header, traces.trace_file(home, row))
        self.written = () if written is None else written.records
        self.grid = list(search.grid()) if search.sampler == "grid" else None
        digest = traces.digest(self.header)
        self.study = optuna.create_study(
            study_name=f"{study_name} search {row} {digest}", storage=storage, direction="maximize", load_if_exists=True
        )
        self.study.pruner = _pruner(search)
        self._restore()

    # ------------------------------------------------------------------------------------------------------------- state
    def owners(self) -> dict[int, FrozenTrial]:
        """Slot → the trial that holds it; trials of workers that are gone give theirs up."""
        found: dict[int, FrozenTrial] = {}
        for trial in self.study.get_trials(deepcopy=False):  # by number
            slot = trial.user_attrs.get("slot")
            if slot is None or (trial.state == TrialState.FAIL and "error" not in trial.user_attrs):
                continue
            if trial.state == TrialState.RUNNING and not alive(trial):
                with contextlib.suppress(UpdateFinishedTrialError):
                    self.storage.set_trial_user_attr(trial._trial_id, "died", True)
                self._fail(trial.number)
                self.say(f"search {self.row}: the worker of trial #{slot} is gone ({trial.user_attrs['worker']})")
                return self.owners()
            found.setdefault(slot, trial)
        return found

    def running(self) -> int:
        return sum(trial.state == TrialState.RUNNING for trial in self.owners().values())

    def trace(self) -> Trace:
        """The trials that have ended, within the budget."""
        ended = {slot: trial for slot, trial in self.owners().items() if trial.state.is_finished()}
        records = tuple(self._record(slot, ended[slot]) for slot in sorted(ended) if slot < self.search.budget)
        return Trace(self.header, records)

    def save(self) -> None:
        """Writes the trace, if it holds anything."""
        trace = self.trace()
        if trace.records:
            traces.write_trace(self.home, trace)

    def _record(self, slot: int, trial: FrozenTrial) -> Record:
        notes = trial.user_attrs
        trainings = tuple(
            Training(one["seed"], {step: value for step, value in one["curve"]}, one["best_step"], one["value"])
            for one in notes.get("trainings", ())
        )
        state: State = "failed" if trial.state == TrialState.FAIL else "pruned" if notes.get("pruned") else "complete"
        value = None if state == "failed" else traces.mean([one.value for one in trainings])
        return Record(slot, state, self._params(trial), value, trainings, notes.get("seconds", 0.0), notes.get("error"))

    def _params(self, trial: FrozenTrial) -> Params:
        return {
            key: _decode(key, values, trial.params[key]) for key, values in self.search.space.items() if key in trial.params
        }

    def _restore(self) -> None:
        """Trials that the trace holds and the storage does not (a fresh clone) enter the storage."""
        held = self.owners() if self.written else {}
        for record in self.written:
            if record.trial in held:
                continue
            failed = record.state == "failed"
            notes: dict[str, Any] = {"slot": record.trial, "seconds": record.seconds, "pruned": record.state == "pruned"}
            notes["trainings"] = [_training_note(one) for one in record.trainings]
            self.study.add_trial(
                create_trial(
                    state=TrialState.FAIL if failed else self._end(record.state == "pruned"),
                    value=None if failed else record.value,
                    params={key: encode(self.search.space[key], value) for key, value in record.params.items()},
                    distributions={key: distribution(key, self.search.space[key]) for key in record.params},
                    user_attrs=notes | ({"error": record.error} if failed else {}),
                    intermediate_values=self._reports(record.trainings),
                )
            )

    def _reports(self, trainings: tuple[Training, ...]) -> dict[int, float]:
        """What the pruner sees: values by seed for Wilcoxon, by step of the one training for the median."""
        if self.search.pruner == "wilcoxon":
            return {place: one.value for place, one in enumerate(trainings)}
        return dict(trainings[0].curve) if self.search.pruner == "median" and trainings else {}

    def _end(self, pruned: bool) -> TrialState:
        # As the Wilcoxon pruner's documentation asks: a trial it ended tells the mean so far as its value.
        return TrialState.PRUNED if pruned and self.search.pruner == "median" else TrialState.COMPLETE

    # -------------------------------------------------------------------------------------------------------------- work
    def work(self, trainer: Trainer) -> bool:
        """Runs the next free trial; returns whether there was one."""
        claimed = self._claim()
        if claimed is None:
            return False
        slot, trial = claimed
        label, started = f"search {self.row}: trial #{slot} ({self.search.budget} in all)", time.monotonic()
        try:
            with self._beating(trial):
                params = self._suggest(trial)
                self.say(f"{label}: {', '.join(f'{key}={json.dumps(value)}' for key, value in params.items())}")
                state, value = self._train(slot, trial, params, trainer)
            trial.set_user_attr("pruned", state == "pruned")
            trial.set_user_attr("seconds", round(time.monotonic() - started, 2))
            end = self._end(state == "pruned")
            self.study.tell(trial.number, value if end == TrialState.COMPLETE else None, state=end)
            self.say(f"{label}: {state}, validation {value:.4f}")
        except (Interrupted, KeyboardInterrupt, SystemExit):
            self._fail(trial.number)
            raise
        except UpdateFinishedTrialError:  # silent for so long that another worker does this trial now
            self.say(f"{label}: was given up, another worker has it")
            return True
        except Exception as error:
            if isinstance(error, UserError) and str(error).startswith("train.select"):
                self._fail(trial.number)
                raise UserError(
                    str(error).replace("train.select", "search.metric" if self.search.metric else "train.select", 1)
                ) from None
            # It may diverge, run out of memory or draw what does not fit together: that too is what was tried.
            known = isinstance(error, UserError | NonFiniteLoss)
            try:
                trial.set_user_attr("seconds", round(time.monotonic() - started, 2))
                trial.set_user_attr("error", str(error) if known else f"{type(error).__name__}: {error}")
            except UpdateFinishedTrialError:
                self.say(f"{label}: was given up, another worker has it")
                return True
            self._fail(trial.number)
            self.say(f"{label}: failed: {error}")
        for folder in self._folders(slot):
            shutil.rmtree(folder, ignore_errors=True)
        self.save()
        return True

    def _claim(self) -> tuple[int, Trial] | None:
        """A free slot, and the trial that holds it now."""
        while True:
            owners = self.owners()
            slot = next((slot for slot in range(self.search.budget) if slot not in owners), None)
            if slot is None:
                return None
            if self._died(slot):
                continue
            token = os.urandom(8).hex()
            point = None if self.grid is None else self._grid_point(slot)
            self.study.add_trial(
                create_trial(
                    state=TrialState.RUNNING,
                    user_attrs={"slot": slot, "worker": self.worker, "beat": time.time(), "token": token},
                    system_attrs={} if point is None else {"fixed_params": point},
                )
            )
            owner = self.owners()[slot]
            mine = next(t for t in self.study.get_trials(deepcopy=False) if t.user_attrs.get("token") == token)
            if owner.number == mine.number:
                self.study.sampler = _sampler(self.search, slot)
                return slot, Trial(self.study, mine._trial_id)
            self._fail(mine.number)

    def _died(self, slot: int) -> bool:
        """Records a trial as failed if it has ended too many processes; returns whether it has."""
        found = [
            trial
            for trial in self.study.get_trials(deepcopy=False)
            if trial.user_attrs.get("slot") == slot and "died" in trial.user_attrs
        ]
        if len(found) < _DEATHS:
            return False
        last = found[-1]
        notes = {"slot": slot, "error": f"its process ended {len(found)} times without a word (too little memory?)"}
        self.study.add_trial(
            create_trial(state=TrialState.FAIL, params=last.params, distributions=last.distributions, user_attrs=notes)
        )
        return True

    def _grid_point(self, slot: int) -> Params:
        assert self.grid is not None
        return {key: encode(self.search.space[key], value) for key, value in self.grid[slot].items()}

    def _suggest(self, trial: Trial) -> Params:
        found: Params = {}
        for key, values in self.search.space.items():
            at = distribution(key, values)
            if isinstance(at, CategoricalDistribution):
                drawn: Any = trial.suggest_categorical(key, at.choices)
            elif isinstance(at, IntDistribution):
                drawn = trial.suggest_int(key, at.low, at.high, step=at.step, log=at.log)
            else:
                assert isinstance(at, FloatDistribution)
                drawn = trial.suggest_float(key, at.low, at.high, step=at.step, log=at.log)
            found[key] = _decode(key, values, drawn)
        return found

    def _train(self, slot: int, trial: Trial, params: Params, trainer: Trainer) -> tuple[State, float]:
        """Seed by seed, until the pruner has seen enough."""
        config, search = with_params(self.config, params), self.search
        done: list[Training] = []
        pruned = False

        def on_validation(step: int, value: float) -> bool:
            nonlocal pruned
            if search.pruner == "median" and not pruned:
                trial.report(value, step)
                pruned = trial.should_prune()
            return pruned

        for place, seed in enumerate(search.seeds):
            one = config.model_copy(update={"seed": seed})
            folder = self._folder(slot, one)
            folder.parent.mkdir(parents=True, exist_ok=True)
            name = f"{self.row}, trial #{slot}"
            found = trainer(one, folder, name, _quiet, on_validation, self.header["fingerprint"])
            done.append(Training(seed, found.curve, found.best_step, found.value))
            trial.set_user_attr("trainings", [_training_note(training) for training in done])
            if search.pruner == "wilcoxon":
                trial.report(found.value, place)
                pruned = place + 1 < len(search.seeds) and trial.should_prune()
            if pruned:
                break
        value = traces.mean([training.value for training in done])
        assert value is not None
        return "pruned" if pruned else "complete", value

    def _folder(self, slot: int, config: schema.Run) -> Path:
        """By trial, seed and config: a trial that is run again with the same draw goes on from its checkpoints."""
        return self._folders_at / f"{slot:04d}-s{config.seed}-{config_digest(config)[:10]}"

    def _folders(self, slot: int) -> list[Path]:
        return sorted(self._folders_at.glob(f"{slot:04d}-s*"))

    @property
    def _folders_at(self) -> Path:
        return self.home / "runs" / "search" / slug(self.row)

    def _fail(self, number: int) -> None:
        # Another worker may have been faster.
        with contextlib.suppress(UpdateFinishedTrialError, ValueError):
            self.study.tell(number, state=TrialState.FAIL, skip_if_finished=True)

    @contextlib.contextmanager
    def _beating(self, trial: Trial) -> Iterator[None]:
        """Gives signs of life while the block runs, for workers on other machines."""
        ended = threading.Event()

        def beat() -> None:
            while not ended.wait(BEAT):
                with contextlib.suppress(UpdateFinishedTrialError):
                    self.storage.set_trial_user_attr(trial._trial_id, "beat", time.time())

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


# ------------------------------------------------------------------------------------------------------ Optuna's own terms
def _sampler(search: Search, slot: int) -> BaseSampler:
    """The same for a slot in every row and on every worker."""
    seed = search.seed * 1_000_003 % 2**31 + slot  # RandomState takes 32 bits
    if search.sampler == "tpe":
        return TPESampler(seed=seed, n_startup_trials=search.startup)
    return RandomSampler(seed=seed)


def _pruner(search: Search) -> BasePruner:
    if search.pruner == "median":
        return MedianPruner(n_startup_trials=search.startup)
    if search.pruner == "wilcoxon":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            return WilcoxonPruner(p_threshold=search.p_threshold)
    return NopPruner()


def distribution(key: str, values: Values) -> BaseDistribution:
    """The values of a key in Optuna's terms."""
    if values.choices is not None:
        return CategoricalDistribution([encode(values, choice) for choice in values.choices])
    assert values.low is not None and values.high is not None
    if is_whole(key):
        return IntDistribution(int(values.low), int(values.high), log=values.log, step=int(values.step or 1))
    return FloatDistribution(values.low, values.high, log=values.log, step=values.step)


def encode(values: Values, value: Any) -> Any:
    """A choice as text, since Optuna stores no lists; numbers of a range as they are."""
    return value if values.choices is None else json.dumps(value, sort_keys=True)


def _decode(key: str, values: Values, drawn: Any) -> Any:
    if values.choices is not None:
        return json.loads(drawn)
    points = values.grid(is_whole(key)) if values.step is not None else None
    return drawn if points is None else min(points, key=lambda point: abs(point - drawn))  # 0.3, not 0.1 + 2 * 0.1


def _training_note(training: Training) -> dict[str, Any]:
    return dataclasses.asdict(training) | {"curve": [[step, value] for step, value in training.curve.items()]}


def _fingerprint(data: schema.Data) -> str:
    return _fingerprint_of(data.model_dump_json())


@functools.lru_cache(maxsize=64)
def _fingerprint_of(data: str) -> str:
    return prepare(schema.Data.model_validate_json(data), log=_quiet).fingerprint


def _quiet(_: str) -> None:
    """A trial's own lines are of no interest."""
