"""Every key of a study file: a question, a base config, axes of controlled changes, seeds, and what is measured.

A study is a run × rows × seeds → a table one can publish. Which runs that means is `studies/plan.py`.
"""

import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import pydantic
from pydantic import Field, model_validator

from fusionjax import names, registry
from fusionjax.config import explain, upgrade, yaml_tree
from fusionjax.config.load import DIALECT
from fusionjax.config.schema import Section, TaskName
from fusionjax.config.search import Search
from fusionjax.config.section import Known
from fusionjax.config.yaml_tree import Tree
from fusionjax.errors import UserError, nearest

Overrides = dict[str, Any]
"""Dotted key of a run config → value."""
Seed = Annotated[int, Field(ge=0, lt=2**31)]
SegmentName = Annotated[str, Known(registry.SEGMENTS, names.SEGMENTS, bare=True)]


TAKEN = ("plots", "runs", "scores", "search", "tables")
"""Folders of a study, which no data set may be called."""


class Statistics(Section):
    alpha: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.05
    """Level of significance, after correction."""
    correction: Literal["holm", "benjamini_hochberg"] = "holm"
    """Over all comparisons of one table."""
    resamples: Annotated[int, Field(ge=200)] = 2000
    """Bootstrap resamples and random permutations."""
    seed: int = 0
    """Of the resampling: the same stored scores give the same table."""


class Published(Section):
    """Results of others that a row is held against."""

    source: str
    """Where they stand: paper, repository and file, protocol."""
    values: dict[TaskName, dict[str, float]]
    """Task → metric → value."""


class Study(Section):
    """What `experiments/NAME/study.yaml` holds."""

    question: str
    """What the study is to answer, in one sentence: it heads the report."""
    base: str
    """The run config that every row changes, beside the study file."""
    axes: dict[str, Literal["ready"] | tuple[str, ...] | dict[str, Overrides]] = Field(default={})
    """Axis → `ready` (all values of the ready-made axis of that name), a list of some of its values, or own values, each a set
    of dotted overrides. The first value is the one of the base."""
    data_sets: dict[str, Overrides] = Field(default={})
    """Data set → dotted overrides that choose it, such as `UMLS: {data.name: umls}`: every row is run on each. Each data set
    has a folder beside the study file, with its own examples, statistics and baselines; a table of rows × data sets joins them.
    None: the study has the data set of its base."""
    design: Literal["grid", "one_at_a_time", "rows"] = "rows"
    """`grid`: every combination; `one_at_a_time`: the first value of every axis, then each other value alone; `rows`: those
    listed."""
    rows: dict[str, dict[str, Any]] = Field(default={})
    """Design `rows`: row name → {axis: value, …, set: {dotted key: value}, base: another config}; an axis not named keeps its
    first value. With `data_sets`, `base` may be {data set: config}, and `data_sets: {data set: {dotted key: value}}` sets what
    differs by data set."""
    published: dict[str, tuple[Published, ...]] = Field(default={})
    """Row → published results of the same method on the same data, for a table beside ours."""
    reference: str
    """The row all others are compared with."""
    seeds: tuple[Seed, ...]
    """Seeds of every row."""
    tasks: dict[TaskName, tuple[str, ...]]
    """Task → metrics of the table, the main one first."""
    segments: tuple[SegmentName, ...] = ()
    """Segments for which the main metrics get tables of their own."""
    contrasts: tuple[tuple[str, str], ...] = ()
    """Pairs of rows that the report compares besides the reference."""
    baselines: bool = True
    """Measure the simple methods once, on the reference row's data."""
    together: bool = True
    """Train the seeds of a row in one program where that is possible (graphs alone)."""
    statistics: Statistics = Statistics()
    search: Search | None = None
    """Choose hyper-parameters of each row on validation before its seeds are run."""
    storage: str | None = None
    """Where workers agree on who does what: an Optuna storage URL (postgresql://…); none: a journal file in the study's
    folder."""
    notes: str = ""
    """The authors' own words, Markdown; the report shows them apart from what it writes itself."""

    @model_validator(mode="after")
    def _seeds_and_tasks(self) -> "Study":
        if not self.seeds:
            raise ValueError("seeds is empty: give at least one, three or more for a spread")
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds {list(self.seeds)}: one is given twice")
        if not self.tasks:
            raise ValueError("tasks is empty: name a task and its metrics, such as recommendation: [ndcg@10]")
        empty = [task for task, metrics in self.tasks.items() if not metrics]
        if empty:
            raise ValueError(f"tasks.{empty[0]} names no metric")
        if self.design == "rows" and not self.rows:
            raise ValueError("design rows, but no rows are listed")
        if self.design != "rows" and self.rows:
            raise ValueError(f"rows are listed, but design is {self.design}")
        if self.design != "rows" and not self.axes:
            raise ValueError(f"design {self.design} needs axes")
        for name in self.data_sets:
            if not re.fullmatch(r"[\w+-]+", name) or name in TAKEN:
                raise ValueError(f"data_sets.{name}: it names a folder: letters, digits, _, + and -; not {', '.join(TAKEN)}")
        if self.data_sets and self.published:
            raise ValueError("published: with data_sets it is not known of which data set these are; put them into notes")
        return self


Study.model_rebuild()


class Place(NamedTuple):
    """Where a study is, or the part of one that belongs to one of its data sets."""

    file: Path
    """The study file."""
    home: Path
    """The folder that holds what is found."""
    data_set: str | None


def place_of(path: Path) -> Place:
    """Where `path` leads: a study file, its folder, or the folder of a data set beside it, which need not exist yet."""
    path = path if path.name else path.absolute()
    file = path / "study.yaml" if path.is_dir() else path
    outer = path.parent / "study.yaml"
    if not file.exists() and not path.suffix and outer.exists():
        return Place(outer, path, path.name)
    return Place(file, file.parent, None)


def load_study(path: Path) -> tuple[Study, Tree]:
    """Reads a study file.

    Args:
      path: the file, the folder that holds `study.yaml`, or the folder of one of its data sets.

    Returns:
      (the study, its values with the line each was written on). Of a data set's folder: the study with that data set alone,
      and rows that name no other.

    Raises:
      UserError: one line for each problem: file and line, dotted key, what was expected.
    """
    file, _, data_set = place_of(path)
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"no such study: {file}{_studies_near(file)}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: not UTF-8 text (byte {error.start})") from None
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror}") from None
    values, origins = yaml_tree.parse(text, str(file))
    if not isinstance(values, dict):
        raise UserError(f"{file}: expected keys and values (`question: …`), got {explain.show(values)}")
    tree = Tree(values, origins)
    _upgrade_space(tree)
    try:
        study = Study.model_validate_json(json.dumps(values), strict=True)
    except pydantic.ValidationError as error:
        raise UserError("\n".join(explain.explain(error, tree, Study.model_json_schema()))) from None
    _check_rows(study, tree)
    return study if data_set is None else _of_data_set(study, data_set, file), tree


def data_set_folders(path: Path) -> list[Path]:
    """The folder of each data set of a study; none where the study has but one, or `path` is such a folder."""
    place = place_of(path)
    return [] if place.data_set else [place.home / name for name in load_study(path)[0].data_sets]


def _check_rows(study: Study, tree: Tree) -> None:
    """Raises `UserError` for what a row says of a data set that the study lacks, or fails to say of one it has."""
    known = study.data_sets
    for row, spec in study.rows.items() if known else ():
        for key in ("base", "data_sets"):
            found = spec.get(key)
            where = f"rows.{row}.{key}"
            if key == "data_sets" and not (found is None or _is_mapping_of_mappings(found)):
                raise UserError(
                    f"{tree.origin(('rows', row, key))}: {where}: expected data sets and their keys and values, "
                    f"got {explain.show(found)}"
                )
            for name in found if isinstance(found, dict) else ():
                if name not in known:
                    line = tree.origin(("rows", row, key, name))
                    raise UserError(f"{line}: {where}: no data set '{name}'{nearest(name, known)}")
            missing = [name for name in known if key == "base" and isinstance(found, dict) and name not in found]
            if missing:
                raise UserError(f"{tree.origin(('rows', row, key))}: {where}: no config for the data set '{missing[0]}'")


def _is_mapping_of_mappings(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(each, dict) for each in value.values())


def _of_data_set(study: Study, name: str, file: Path) -> Study:
    if name not in study.data_sets:
        raise UserError(f"{file}: no data set '{name}'{nearest(name, study.data_sets) if study.data_sets else ''}")
    rows = {}
    for row, spec in study.rows.items():
        own = {key: value for key, value in spec.items() if key != "data_sets"}
        if isinstance(own.get("base"), dict):
            own["base"] = own["base"][name]
        if more := spec.get("data_sets", {}).get(name):
            own["set"] = {**own.get("set", {}), **more}
        rows[row] = own
    return study.model_copy(update={"rows": rows, "data_sets": {name: study.data_sets[name]}})


def study_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of a study file, for editors."""
    return {"$schema": DIALECT, **Study.model_json_schema()}


def _upgrade_space(tree: Tree) -> None:
    """The keys of `search.space` become today's, in place; those of axes and rows do where their runs are read."""
    search = tree.values.get("search")
    if not isinstance(search, dict) or not isinstance(space := search.get("space"), dict):
        return
    where = ("search", "space")
    search["space"] = upgrade.upgrade_space(space, lambda key: f"{tree.origin((*where, key))}: search.space")
    for key in space:
        if key in search["space"]:
            continue
        for path in [path for path in tree.origins if path[:3] == (*where, key)]:
            tree.origins[(*where, upgrade.name_in_space(key), *path[3:])] = tree.origins.pop(path)


def dump_study(study: Study) -> str:
    """The study as YAML, every key present; itself a valid study file."""
    return yaml_tree.dump(study.model_dump(mode="json"))


def _studies_near(file: Path) -> str:
    folder = file.parent.parent
    names = sorted(found.parent.name for found in folder.glob("*/study.yaml")) if folder.is_dir() else []
    return nearest(file.parent.name, names) if names else ""
