"""From a study file to its cells: one cell is one row with one seed, that is one run config."""

import dataclasses
import itertools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from fusionjax.config import load_run, schema
from fusionjax.config.axes import READY, ready
from fusionjax.config.explain import show
from fusionjax.config.load import layer
from fusionjax.config.naming import cell_digest
from fusionjax.config.study import Overrides, Study, data_set_folders, load_study, place_of
from fusionjax.config.yaml_tree import Tree
from fusionjax.errors import UserError, nearest
from fusionjax.evaluation.metrics import METRICS
from fusionjax.evaluation.scores import load_examples
from fusionjax.studies.folder import StudyFolder
from fusionjax.tasks import TASKS

PLACES = ("data.source_dir", "data.cache_dir", "track")
"""Keys that say where data lie or who watches, not what is computed: the same cell on another machine has others."""
BASELINES = "baselines"
"""Name of the cell that measures the simple methods."""


@dataclasses.dataclass(frozen=True)
class Cell:
    """One row with one seed. Cells with equal digests are one computation, whatever they are called."""

    row: str
    seed: int
    config: schema.Run
    digest: str

    @property
    def name(self) -> str:
        """Of its run folder."""
        return f"{slug(self.row)}-s{self.seed}-{self.digest[:8]}"


@dataclasses.dataclass(frozen=True)
class Plan:
    study: Study
    folder: Path
    axes: dict[str, dict[str, Overrides]]
    """Axis → value → overrides; the first value is the base's."""
    values: dict[str, dict[str, str]]
    """Row → axis → value."""
    cells: tuple[Cell, ...]
    """Seed by seed, so that an unfinished study has every row; the reference first: its examples are the study's."""

    @property
    def rows(self) -> tuple[str, ...]:
        return tuple(self.values)

    def cell(self, row: str, seed: int) -> Cell:
        """Raises `UserError` if the study has no such cell."""
        if row not in self.values:
            raise UserError(f"{self.folder}: no row '{row}'{nearest(row, self.values)}")
        if seed not in self.study.seeds:
            raise UserError(f"{self.folder}: seed {seed} is not among the study's seeds {list(self.study.seeds)}")
        return next(cell for cell in self.cells if (cell.row, cell.seed) == (row, seed))

    def distinct(self) -> list[Cell]:
        """One cell for each computation."""
        return list({cell.digest: cell for cell in reversed(self.cells)}.values())[::-1]


def make_plan(path: Path, places: Sequence[str] = (), chosen: Mapping[str, Overrides] | None = None) -> Plan:
    """Reads a study and works out its cells.

    Args:
      path: `study.yaml` or its folder; of a study of several data sets, the folder of one.
      places: overrides of where data lie (`data.source_dir=…`), of this machine only.
      chosen: what the study's search chose for each row.

    Raises:
      UserError: an axis, value, row, key or metric that does not exist, with file, line and the nearest valid name.
    """
    study, tree = load_study(path)
    file, home, data_set = place_of(path)
    if study.data_sets and data_set is None:
        each = ", ".join(map(str, data_set_folders(path)))
        raise UserError(f"{file}: the study has several data sets; name the folder of one: {each}")
    for place in places:
        key = place.partition("=")[0]
        if not any(key == known or key.startswith(f"{known}.") for known in PLACES):
            raise UserError(
                f"command line: {key}: a study is what its file says; only {', '.join(PLACES)} may be given here "
                f"(others belong into {file})"
            )
    axes = {name: _axis(name, study, tree) for name in study.axes}
    rows, extra, bases = _rows(study, axes, tree)
    if study.reference not in rows:
        raise UserError(f"{tree.origin(('reference',))}: reference: no row '{study.reference}'{nearest(study.reference, rows)}")
    for place, pair in enumerate(study.contrasts):
        for name in pair:
            if name not in rows:
                raise UserError(f"{tree.origin(('contrasts', place))}: contrasts: no row '{name}'{nearest(name, rows)}")
    for row in study.published:
        if row not in rows:
            raise UserError(f"{tree.origin(('published', row))}: published: no row '{row}'{nearest(row, rows)}")
    _check_metrics(study, tree, StudyFolder(home))
    base = _base(study.base, file, tree.origin(("base",)))
    load_run(base, places, dotted=True)  # its own mistakes are said once, not for every row
    configs: dict[str, schema.Run] = {}
    for row, values in rows.items():
        layers = [layer(values, tree.origin(("data_sets", name))) for name, values in study.data_sets.items()]
        layers += [
            layer(axes[axis][value], tree.origin(("axes", axis, value))) for axis, value in values.items() if axes[axis][value]
        ]
        layers.append(layer(extra.get(row, {}), tree.origin(("rows", row, "set"))))
        layers.append(layer((chosen or {}).get(row, {}), "search/chosen.yaml"))
        start = base
        if row in bases:
            start = _base(bases[row], file, tree.origin(("rows", row, "base")))
        try:
            configs[row] = load_run(start, ["evaluation.baselines=false", "seeds=[]", *places], layers, dotted=True)
        except UserError as error:
            raise UserError(f"row '{row}': {error}") from None
    _check_shown(study, configs, tree)
    cells = [
        Cell(row, seed, config := configs[row].model_copy(update={"seed": seed}), cell_digest(config))
        for seed in study.seeds
        for row in sorted(rows, key=lambda row: row != study.reference)
    ]
    return Plan(study, home, axes, rows, tuple(cells))


def _base(name: str, file: Path, origin: str) -> Path:
    base = file.parent / name
    if not base.exists():
        raise UserError(f"{origin}: base: no such config file: {base}")
    return base


def _check_metrics(study: Study, tree: Tree, folder: StudyFolder) -> None:
    """Raises `UserError` for a metric or a segment that the stored scores of no task give."""
    for task, metrics in study.tasks.items():
        for metric in metrics:
            try:
                TASKS[task].check(metric)
                _check_stored(folder, task, metric)
            except UserError as error:
                raise UserError(f"{tree.origin(('tasks', task))}: tasks.{task}: {error}") from None
    known = [name for task in study.tasks for name in TASKS[task].segments]
    for place, segment in enumerate(study.segments):
        if segment not in known:
            raise UserError(
                f"{tree.origin(('segments', place))}: segments: no task of the study has '{segment}'{nearest(segment, known)}"
            )


def _check_stored(folder: StudyFolder, task: str, metric: str) -> None:
    """Raises `UserError` if what the folder already holds lacks what a metric needs."""
    needs = metric in METRICS and METRICS[metric].needs_candidates
    if needs and (file := folder.examples_file(task)).exists() and load_examples(file).candidates is None:
        raise UserError(f"no metric '{metric}': the scores stored here lack the number of candidates; 'mr' needs none")


def _check_shown(study: Study, configs: Mapping[str, schema.Run], tree: Tree) -> None:
    """Raises `UserError` for a task that no row is trained for, and for rows that are measured on different examples."""
    for task in study.tasks:
        if not any(measures(config, task) for config in configs.values()):
            raise UserError(
                f"{tree.origin(('tasks', task))}: tasks.{task}: no row measures it: it needs "
                f"objectives.{TASKS[task].objective}.weight above 0 and a place in evaluation.tasks, where that is set"
            )
    first, reference = study.reference, configs[study.reference]
    for key in ("data.name", "evaluation.max_test", "evaluation.exclude_seen"):
        section, name = key.split(".")
        for row, config in configs.items():
            here, there = (getattr(getattr(one, section), name) for one in (config, reference))
            if here != there:
                raise UserError(
                    f"{tree.origin(('rows', row))}: row '{row}' has {key} {here}, the reference '{first}' {there}: what is "
                    "measured on different examples cannot stand in one table"
                )


def measures(config: schema.Run, task: str) -> bool:
    """Whether a run is trained for a task, and is to be measured on it."""
    objective = TASKS[task].objective
    trained = objective is None or objective in config.objectives.used()
    return trained and task in (TASKS.own if config.evaluation.tasks is None else config.evaluation.tasks)


def slug(name: str) -> str:
    """A row's name as part of a file name."""
    return re.sub(r"[^\w.+-]+", "_", name).strip("_") or "row"


def _axis(name: str, study: Study, tree: Tree) -> dict[str, Overrides]:
    spec, where = study.axes[name], tree.origin(("axes", name))
    if isinstance(spec, dict):
        if not spec:
            raise UserError(f"{where}: axes.{name}: has no values")
        return spec
    if name not in READY:
        raise UserError(
            f"{where}: axes.{name}: no ready-made axis of that name{nearest(name, READY)} (own axes list their overrides)"
        )
    known = ready(name)
    if spec == "ready":
        return dict(known)
    for value in spec:
        if value not in known:
            raise UserError(f"{where}: axes.{name}: no value {show(value)}{nearest(value, known)}")
    return {value: known[value] for value in spec}


def _rows(
    study: Study, axes: Mapping[str, Mapping[str, Overrides]], tree: Tree
) -> tuple[dict[str, dict[str, str]], dict[str, Overrides], dict[str, str]]:
    """(row → axis → value, row → its own overrides, row → its own base)."""
    first = {axis: next(iter(values)) for axis, values in axes.items()}
    if study.design == "grid":
        return (
            {
                " / ".join(combination): dict(zip(axes, combination, strict=True))
                for combination in itertools.product(*axes.values())
            },
            {},
            {},
        )
    if study.design == "one_at_a_time":
        rows = {"base": dict(first)}
        for axis, values in axes.items():
            rows |= {f"{axis}: {value}": {**first, axis: value} for value in list(values)[1:]}
        return rows, {}, {}
    rows, extra, bases = {}, {}, {}
    for row, spec in study.rows.items():
        rows[row] = dict(first)
        for axis, value in spec.items():
            where = tree.origin(("rows", row, axis))
            if axis == "set":
                if not isinstance(value, dict):
                    raise UserError(f"{where}: rows.{row}.set: expected dotted keys and values, got {show(value)}")
                extra[row] = value
            elif axis == "base":
                if not isinstance(value, str):
                    raise UserError(f"{where}: rows.{row}.base: expected the name of a config file, got {show(value)}")
                bases[row] = value
            elif axis not in axes:
                raise UserError(f"{where}: rows.{row}: no axis '{axis}'{nearest(axis, [*axes, 'set', 'base'])}")
            elif not isinstance(value, str) or value not in axes[axis]:
                raise UserError(f"{where}: rows.{row}.{axis}: no value {show(value)}{nearest(str(value), axes[axis])}")
            else:
                rows[row][axis] = value
    return rows, extra, bases
