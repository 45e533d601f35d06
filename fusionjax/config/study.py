"""Every key of a study file: a question, a base config, axes of controlled changes, seeds, and what is measured.

A study is a run × rows × seeds → a table one can publish. Which runs that means is `studies/plan.py`.
"""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field, model_validator

from fusionjax import names, registry
from fusionjax.config import explain, upgrade, yaml_tree
from fusionjax.config.schema import Section, TaskName
from fusionjax.config.search import Search
from fusionjax.config.section import Known
from fusionjax.config.yaml_tree import Tree
from fusionjax.errors import UserError, nearest

Overrides = dict[str, Any]
"""Dotted key of a run config → value."""
Seed = Annotated[int, Field(ge=0, lt=2**31)]
SegmentName = Annotated[str, Known(registry.SEGMENTS, names.SEGMENTS, bare=True)]


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
    design: Literal["grid", "one_at_a_time", "rows"] = "rows"
    """`grid`: every combination; `one_at_a_time`: the first value of every axis, then each other value alone; `rows`: those
    listed."""
    rows: dict[str, dict[str, Any]] = Field(default={})
    """Design `rows`: row name → {axis: value, …, set: {dotted key: value}, base: another config}; an axis not named keeps its
    first value."""
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
        return self


Study.model_rebuild()


def load_study(path: Path) -> tuple[Study, Tree]:
    """Reads a study file.

    Args:
      path: the file, or the folder that holds `study.yaml`.

    Returns:
      (the study, its values with the line each was written on).

    Raises:
      UserError: one line for each problem: file and line, dotted key, what was expected.
    """
    file = path / "study.yaml" if path.is_dir() else path
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
        return Study.model_validate_json(json.dumps(values), strict=True), tree
    except pydantic.ValidationError as error:
        raise UserError("\n".join(explain.explain(error, tree, Study.model_json_schema()))) from None


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
