"""What a study's records say together: commits, data, versions, machines, cost, and whatever makes its cells unlike."""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from fusionjax.reporting.tables import task_label
from fusionjax.studies.grids import EXAMPLES
from fusionjax.studies.runner import data_key

if TYPE_CHECKING:
    from fusionjax.studies.collect import Collected

Record = dict[str, Any]


def at(config: Mapping[str, Any], path: str) -> Any:
    """The value of a dotted key; `None` where an older record has no such key."""
    value: Any = config
    for part in path.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def trained(collected: "Collected") -> list[Record]:
    """Records of finished cells, each computation once however many rows share it."""
    return list({record.get("digest") or key: record for key, record in _cells(collected)}.values())


def measured(collected: "Collected") -> list[Record]:
    """Those, and the baselines' one record."""
    simple = [record for key, record in collected.records.items() if key[1] is None]
    return [*trained(collected), *simple[:1]]


def configs(collected: "Collected") -> dict[str, Record]:
    """Row → config of its first finished cell."""
    found: dict[str, Record] = {}
    for (row, _), record in _cells(collected):
        found.setdefault(row, record.get("config") or {})
    return found


def reference_config(collected: "Collected") -> Record:
    """Config of the reference, or of the first row that is finished."""
    found = configs(collected)
    return found.get(collected.reference) or next(iter(found.values()), {})


def graph_rows(collected: "Collected") -> tuple[str, ...]:
    """Finished rows that are graphs alone: link prediction is their only objective with a weight.

    A row that is a joint one of the study less its other objectives is not among them: it is described with the joint ones.
    """
    alone, joint = {}, []
    for row, config in configs(collected).items():
        links = {**(at(config, "objectives.link_prediction") or {}), "weight": None}
        key = (links, at(config, "model.entity.scorer"), at(config, "train.optimiser"))
        if _weighted(config) == ["link_prediction"]:
            alone[row] = key
        else:
            joint.append(key)
    return tuple(row for row, key in alone.items() if key not in joint)


def _weighted(config: Mapping[str, Any]) -> list[str]:
    objectives = at(config, "objectives") or {}
    objectives = {**objectives, **(objectives.get("plugins") or {})}
    return [name for name, one in objectives.items() if isinstance(one, Mapping) and one.get("weight")]


def only(collected: "Collected", rows: Iterable[str]) -> "Collected":
    """The study as if it had these rows alone."""
    kept = set(rows)
    return dataclasses.replace(collected, rows=tuple(row for row in collected.rows if row in kept))


def _cells(collected: "Collected") -> list[tuple[tuple[str, int], Record]]:
    return [
        ((row, seed), collected.records[row, seed])
        for row in collected.rows
        for seed in collected.seeds
        if (row, seed) in collected.records
    ]


# ------------------------------------------------------------------------------------------------------------------ cost
@dataclasses.dataclass(frozen=True)
class Cost:
    """Of all measured computations; `None` where some record does not say."""

    runs: int
    core_hours: float | None
    hours: float | None
    """Sum of the runs' wall-clock times; the study took less where several ran at a time."""
    peak_memory: float | None
    """Highest of any run, GiB."""


def cost(collected: "Collected") -> Cost:
    records = measured(collected)
    total = {key: _sum(record.get(key) for record in records) for key in ("cpu_seconds", "seconds")}
    peaks = [record["peak_memory_bytes"] for record in records if record.get("peak_memory_bytes")]
    hours = {key: None if value is None else value / 3600 for key, value in total.items()}
    return Cost(len(records), hours["cpu_seconds"], hours["seconds"], max(peaks) / 2**30 if peaks else None)


def _sum(values: Iterable[float | None]) -> float | None:
    found = list(values)
    return None if not found or any(value is None for value in found) else float(sum(value or 0.0 for value in found))


# ------------------------------------------------------------------------------------------------------------ provenance
def counted(collected: "Collected", key: str) -> dict[str, int]:
    """Value of a key of the records → how many have it, most common first; `unknown` where it is missing."""
    values = Counter(_text(record.get(key)) for record in measured(collected))
    return dict(sorted(values.items(), key=lambda item: (-item[1], item[0])))


def versions(collected: "Collected") -> dict[str, list[str]]:
    """Package → its versions among the records, most common first."""
    found: dict[str, Counter[str]] = {}
    for record in measured(collected):
        for name, version in (record.get("versions") or {}).items():
            found.setdefault(name, Counter())[version] += 1
    return {name: sorted(each, key=lambda version: (-each[version], version)) for name, each in found.items()}


def hardware(collected: "Collected") -> dict[str, int]:
    """`Linux x86_64, 2 cores; cpu:cpu` → how many runs."""
    values = Counter()
    for record in measured(collected):
        devices = Counter(record.get("devices") or ())
        shown = ", ".join(f"{n} × {name}" if n > 1 else str(name) for name, n in sorted(devices.items()))
        values["; ".join(part for part in (_text(record.get("platform")), shown) if part)] += 1
    return dict(sorted(values.items(), key=lambda item: (-item[1], item[0])))


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(str(each) for each in value)
    return "unknown" if value in (None, "") else str(value)


# -------------------------------------------------------------------------------------------------------------- warnings
def warnings(collected: "Collected") -> list[str]:
    """What makes the cells of this study unlike each other or hard to repeat: to be said loudly. Plain sentences."""
    records = measured(collected)
    found = []
    commits = counted(collected, "commit")
    if len(commits) > 1:
        shown = ", ".join(f"{commit[:10]} ({n})" for commit, n in commits.items())
        found.append(f"The cells were run from {len(commits)} different commits: {shown}.")
    if "unknown" in commits:
        found.append(f"The commit of {commits['unknown']} of {len(records)} runs is unknown.")
    dirty = sum(bool(record.get("dirty")) for record in records)
    if dirty:
        found.append(
            f"{dirty} of {len(records)} runs came from a checkout with uncommitted changes: their commit alone may not give "
            "these numbers."
        )
    unlike = {name: each for name, each in versions(collected).items() if len(each) > 1}
    if unlike:
        shown = "; ".join(f"{name} {', '.join(each)}" for name, each in unlike.items())
        found.append(f"The cells were run with different versions of packages: {shown}.")
    machines = hardware(collected)
    if len(machines) > 1:
        found.append(
            f"The cells were run on different machines: {' | '.join(machines)}. Times and memory compare only within one."
        )
    prints: dict[str, set[str]] = {}
    for record in records:
        if "data" in (record.get("config") or {}):
            prints.setdefault(data_key(record["config"]), set()).add(_text(record.get("fingerprint")))
    if any(len(each) > 1 for each in prints.values()):
        found.append("Cells with the same data settings were run on data with different fingerprints: do not compare them.")
    return found


def limits(collected: "Collected") -> list[str]:
    """What these numbers do not show. Plain sentences."""
    config, found = reference_config(collected), []
    if len(collected.seeds) == 1:
        found.append("One seed: intervals and tests hold for this seed only, another may order the rows differently.")
    elif len(collected.seeds) < 5:
        found.append(
            f"{len(collected.seeds)} seeds show the spread between seeds only roughly; intervals and tests allow for that."
        )
    for key, what in (("max_test", "test"), ("max_valid", "validation")):
        if at(config, f"evaluation.{key}"):
            found.append(
                f"The {what} numbers come from at most {at(config, f'evaluation.{key}'):,} examples a task (a fixed sample)."
            )
    left_out = {
        (row, task): reason
        for (row, _), record in _cells(collected)
        for task, reason in (record.get("not_comparable") or {}).items()
    }
    found += [f"Row '{row}' stands in no table of {task_label(task)}: {reason}." for (row, task), reason in left_out.items()]
    twins: dict[str, list[str]] = {}
    for (row, _), record in _cells(collected):
        if record.get("digest"):
            twins.setdefault(record["digest"], []).append(row)
    found += [
        f"The rows {' and '.join(repr(row) for row in rows)} are one and the same computation."
        for rows in dict.fromkeys(tuple(rows) for rows in twins.values())
        if len(rows) > 1
    ]
    for task, examples in collected.examples.items():
        if task == "recommendation" and at(config, "data.split.events") == "leave_one_out":
            found.append(
                "Leave-one-out splits let training see events that are later than other users' test events (a leak of time); "
                "a temporal split may rank the rows differently."
            )
        if len(examples.example) < 200:
            found.append(f"Only {len(examples.example)} {EXAMPLES.get(task, 'examples')} measure {task_label(task)}.")
    found += _graph_limits(collected)
    if at(config, "data.name") == "demo_shop":
        found.append("The shop is synthetic: no number here says how good a model is on a real one.")
    elif at(config, "data.name"):
        found.append(f"One data set ({at(config, 'data.name')}): nothing here shows that the findings hold on another.")
    if collected.study.search is None and len(collected.rows) > 1:
        whose = "they are those of the base config, which"
        if any("base" in spec for spec in collected.study.rows.values()):
            whose = "rows have base configs of their own, whose settings were chosen before this study and"
        found.append(f"Hyper-parameters were not searched for each row: {whose} may suit some rows more.")
    budgets = {(at(each, "train.steps"), at(each, "train.epochs")) for each in configs(collected).values()}
    if len(budgets) > 1:
        found.append("Not all rows train for the same number of steps or epochs.")
    return found


def _graph_limits(collected: "Collected") -> list[str]:
    """Of graphs alone."""
    every = configs(collected)
    found, rows = [], {row: every[row] for row in graph_rows(collected)}
    sizes = sorted({size for config in rows.values() if (size := at(config, "data.graph.sample"))})
    if sizes:
        found.append(
            f"The graph is a sample of at most {', '.join(f'{size:,}' for size in sizes)} entities with the test triples among "
            "them; numbers compare only with others on the same sample: on the whole graph there are more candidates."
        )
    blind = [
        row
        for row, config in rows.items()
        if at(config, "data.split.unseen_entities")
        and at(config, "model.entity.text.use") == "none"
        and not at(config, "model.entity.literals")
    ]
    if blind:
        shown = ", ".join(repr(row) for row in blind[:6]) + (f" and {len(blind) - 6} more" if len(blind) > 6 else "")
        found.append(
            f"Entities held out of training have no vector that means anything in rows without text or numbers ({shown}): what "
            "these rows get of such questions is what is to be had without knowing the entity."
        )
    return found
