"""The trace of a search: what each trial tried, how it validated, and which one is chosen. Recomputed from the file alone.

`search/ROW.jsonl` holds a header (the search, the row's config, the fingerprint of its data) and then one line a trial, in the
order of their numbers; `search/chosen.yaml` what follows from the traces. Both are part of the study and committed.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from fusionjax.config import explain, load_values, schema, yaml_tree
from fusionjax.config.search import Params, Search, with_params
from fusionjax.config.upgrade import upgrade_params, upgrade_space
from fusionjax.errors import UserError, nearest
from fusionjax.files import write_whole
from fusionjax.studies.plan import PLACES, slug

CHOSEN = "chosen.yaml"
State = Literal["complete", "pruned", "failed"]


@dataclasses.dataclass(frozen=True)
class Training:
    """One seed of a trial."""

    seed: int
    curve: dict[int, float]
    """Step → validation value."""
    best_step: int
    value: float
    """At the best step."""


@dataclasses.dataclass(frozen=True)
class Record:
    """One trial that came to an end."""

    trial: int
    state: State
    params: Params
    value: float | None
    """Mean over the seeds that were trained; None: failed."""
    trainings: tuple[Training, ...]
    seconds: float
    error: str | None = None

    def to_json(self) -> dict[str, Any]:
        found = dataclasses.asdict(self)
        return found | {
            "trainings": [one | {"curve": {str(k): v for k, v in one["curve"].items()}} for one in found["trainings"]]
        }

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> "Record":
        if found["state"] not in get_args(State) or not isinstance(found["params"], dict):
            raise ValueError(f"no such state, or no parameters: {found['state']}")
        trainings = (Training(**one | {"curve": {int(k): v for k, v in one["curve"].items()}}) for one in found["trainings"])
        return cls(**{**found, "trainings": tuple(trainings)})


@dataclasses.dataclass(frozen=True)
class Trace:
    """A row's search so far."""

    header: dict[str, Any]
    records: tuple[Record, ...]
    """By trial."""

    @property
    def row(self) -> str:
        return self.header["row"]

    @property
    def trials(self) -> int:
        """The budget."""
        return self.header["trials"]

    @property
    def complete(self) -> bool:
        return [record.trial for record in self.records] == list(range(self.trials))


def make_header(row: str, search: Search, config: schema.Run, fingerprint: str) -> dict[str, Any]:
    """What determines the trials of a row; rows of a study differ in nothing but name, config and data."""
    settings = search.model_dump(mode="json", exclude={"trials", "rows"}, exclude_none=True)
    return {
        "row": row,
        "trials": search.budget,
        "search": settings | {"metric": search.metric or config.train.select},
        "fingerprint": fingerprint,
        "config": own_config(config),
    }


def own_config(config: schema.Run) -> dict[str, Any]:
    """A row's config as JSON, without seed (the search has its own) and the places of this machine."""
    values = config.model_dump(mode="json", exclude={"seed"})
    for place in PLACES:
        *path, last = place.split(".")
        section = values
        for part in path:
            section = section[part]
        section.pop(last, None)
    return values


def check_same(header: Mapping[str, Any], now: Mapping[str, Any], file: Path) -> None:
    """Refuses to go on with trials of another search.

    Raises:
      UserError: the search, the row's config or its data have changed since the trace was begun; a larger or smaller budget
        is no change.
    """
    changes = [
        f"{path}: {explain.show(old)} then, {explain.show(new)} now"
        for part in ("row", "fingerprint", "search", "config")
        for path, old, new in _differences(header.get(part), now[part], part)
    ]
    if changes:
        raise UserError(
            f"{file}: these trials belong to another search ({'; '.join(changes[:5])}). Restore that, or remove the file to "
            "search anew: old and new trials are not mixed"
        )


def choose(trace: Trace) -> Record:
    """The trial with the best validation value; of equal ones the earliest.

    Pruned trials are never chosen: they were not measured to the end.

    Raises:
      UserError: no trial came to its end.
    """
    done = [record for record in trace.records if record.state == "complete" and record.value is not None]
    if not done:
        errors = [record.error for record in trace.records if record.error]
        raise UserError(
            f"search of row '{trace.row}': none of {len(trace.records)} trials came to its end"
            + (f"; the first error: {errors[0]}" if errors else "")
        )
    return max(done, key=lambda record: (record.value, -record.trial))


# ----------------------------------------------------------------------------------------------------------------- files
def trace_file(folder: Path, row: str) -> Path:
    """`folder`: the study's."""
    return folder / "search" / f"{slug(row)}.jsonl"


def write_trace(folder: Path, trace: Trace) -> None:
    file = trace_file(folder, trace.row)
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = [trace.header, *(record.to_json() for record in trace.records)]
    write_whole(file, "".join(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n" for line in lines))


def read_trace(folder: Path, row: str) -> Trace | None:
    """The row's trace, in today's keys; None: there is none yet.

    Raises:
      UserError: the file is damaged.
    """
    file = trace_file(folder, row)
    if not file.exists():
        return None
    place, records, header = 0, [], None
    try:
        for place, line in enumerate(file.read_text(encoding="utf-8").splitlines()):
            found = json.loads(line)
            if place:
                records.append(Record.from_json(found))
            else:
                header = {key: found[key] for key in ("row", "trials", "search", "fingerprint", "config")}
    except (ValueError, TypeError, KeyError, AttributeError):
        raise UserError(f"{file}:{place + 1}: not a line of a search trace; restore the file") from None
    if header is None:
        raise UserError(f"{file}: empty; remove it to search anew")
    return _today(Trace(header, tuple(records)), file)


def _today(trace: Trace, file: Path) -> Trace:
    """A trace in today's keys. One whose config is not (any longer) a run's stays as it is: `check_same` says what differs."""
    header = trace.header
    if header["config"].get("version") == schema.VERSION:
        return trace
    space = upgrade_space(header["search"]["space"], lambda _: f"{file}:1: search.space")
    try:
        config = own_config(load_values(header["config"], f"{file}:1"))
    except UserError:
        return trace
    records = (dataclasses.replace(record, params=upgrade_params(record.params)) for record in trace.records)
    return Trace(header | {"config": config, "search": header["search"] | {"space": space}}, tuple(records))


def write_chosen(folder: Path, rows: Iterable[str]) -> None:
    """search/chosen.yaml from the traces of those rows that are complete."""
    found = _chosen(folder, rows)
    if found:
        write_whole(folder / "search" / CHOSEN, yaml_tree.dump(found))


def load_chosen(folder: Path) -> dict[str, Params]:
    """Row → dotted key → value, as chosen; empty before a search is complete."""
    file = folder / "search" / CHOSEN
    if not file.exists():
        return {}
    values, _ = yaml_tree.parse(file.read_text(encoding="utf-8"), str(file))
    try:
        return {row: upgrade_params(found["params"]) for row, found in (values or {}).items()}
    except (TypeError, KeyError, AttributeError, ValueError):
        raise UserError(f"{file}: not what a search writes; remove it and run the study again") from None


def _chosen(folder: Path, rows: Iterable[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for row in rows:
        trace = read_trace(folder, row)
        if trace is not None and trace.complete:
            best = choose(trace)
            found[row] = {
                "params": best.params,
                "trial": best.trial,
                "trials": trace.trials,
                "metric": trace.header["search"]["metric"],
                "validation": best.value,
            }
    return found


def searched_rows(search: Search, rows: Iterable[str], origin: str = "search.rows") -> tuple[str, ...]:
    """The rows of a study that are searched, in its order.

    Raises:
      UserError: `search.rows` names one that the study has not, or two rows would share a file.
    """
    rows = tuple(rows)
    for row in search.rows or ():
        if row not in rows:
            raise UserError(f"{origin}: no row '{row}'{nearest(row, rows)}")
    found = tuple(row for row in rows if search.rows is None or row in search.rows)
    files: dict[str, str] = {}
    for row in found:
        other = files.setdefault(slug(row).lower(), row)
        if other != row:
            raise UserError(f"rows '{other}' and '{row}' would write the same trace, search/{slug(row)}.jsonl: rename one")
    return found


def verify_search(folder: Path, search: Search, configs: Mapping[str, schema.Run]) -> list[str]:
    """What does not hold of a committed search; nothing is trained.

    Checks that every searched row has its whole budget, no more and no less, of this search and this config; that each trial's
    parameters lie in the space and are a valid config; that its value follows from its curves; that chosen.yaml follows from
    the traces.

    Args:
      configs: row → its config before the search.
    """
    problems: list[str] = []
    rows = searched_rows(search, configs)
    for row in rows:
        file = trace_file(folder, row)
        try:
            trace = read_trace(folder, row)
            if trace is None:
                problems.append(f"{file}: missing: row '{row}' has not been searched")
                continue
            check_same(trace.header, make_header(row, search, configs[row], trace.header["fingerprint"]), file)
            if not trace.complete or trace.trials != search.budget:
                problems.append(f"{file}: {len(trace.records)} trials, the budget of every row is {search.budget}")
            for record in trace.records:
                problems += [
                    f"{file}: trial {record.trial}: {problem}" for problem in _record_problems(record, search, configs[row])
                ]
        except UserError as error:
            problems.append(str(error))
    try:
        file, expected = folder / "search" / CHOSEN, _chosen(folder, rows)
        found = yaml_tree.parse(file.read_text(encoding="utf-8"), str(file))[0] if file.exists() else None
        found = {row: {**one, "params": upgrade_params(one["params"])} for row, one in (found or {}).items()}
        if found != expected:
            problems.append(f"{file}: is not what the traces choose")
    except UserError as error:
        problems.append(str(error))
    return list(dict.fromkeys(problems))


def _record_problems(record: Record, search: Search, config: schema.Run) -> list[str]:
    found: list[str] = []
    if set(record.params) != set(search.space) and (record.params or record.state != "failed"):
        found.append("its parameters are not those of the space")
    elif not all(search.space[key].holds(value) for key, value in record.params.items()):
        found.append("a parameter lies outside the space")
    elif record.state != "failed":
        try:
            with_params(config, record.params)
        except UserError as error:
            found.append(str(error))
    if record.state == "pruned" and search.pruner == "none":
        found.append("it was pruned, but the search has no pruner")
    if record.state != "failed":
        for one in record.trainings:
            best = max(one.curve.values(), default=None)
            if best != one.value or one.curve.get(one.best_step) != one.value:
                found.append(f"seed {one.seed}: the value is not the best of its curve")
        if record.state == "complete" and [one.seed for one in record.trainings] != list(search.seeds):
            found.append(f"trained with seeds {[one.seed for one in record.trainings]}, not {list(search.seeds)}")
        if record.value != mean([one.value for one in record.trainings]):
            found.append("its value is not the mean of its seeds")
    return found


def mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _differences(old: Any, new: Any, path: str) -> list[tuple[str, Any, Any]]:
    """Dotted paths at which two JSON values differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [*old, *(key for key in new if key not in old)]
        return [found for key in keys for found in _differences(old.get(key), new.get(key), f"{path}.{key}")]
    return [] if old == new else [(path, old, new)]


def digest(header: Mapping[str, Any]) -> str:
    """Of all that determines a row's trials; its budget does not."""
    kept = {key: value for key, value in header.items() if key != "trials"}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:12]
