"""Everything a study has found, read back from its folder and checked: what tables, plots and the report are made of."""

import dataclasses

from fusionjax.config.study import Study
from fusionjax.errors import UserError
from fusionjax.evaluation.scores import Examples
from fusionjax.studies.folder import ByTask, Record, StudyFolder
from fusionjax.studies.plan import Plan

CellKey = tuple[str, int | None]
"""(row, seed); the seed of a simple method is `None`."""


@dataclasses.dataclass(frozen=True)
class Collected:
    """A study's finished cells. Every row was measured on the same examples."""

    study: Study
    folder: StudyFolder
    rows: tuple[str, ...]
    """Of models, in the order of the study file."""
    baselines: tuple[str, ...]
    axis_values: dict[str, dict[str, str]]
    """Row → axis → value."""
    records: dict[CellKey, Record]
    """Of (row, seed), and the simple methods' one record under every (name, None)."""
    values: dict[CellKey, ByTask]
    """Of (row, seed): task → float64 rank of each of the examples' targets, or plain values."""
    examples: dict[str, Examples]
    missing: tuple[tuple[str, int], ...]
    failures: dict[CellKey, str]

    @property
    def reference(self) -> str:
        return self.study.reference

    @property
    def seeds(self) -> tuple[int, ...]:
        return self.study.seeds

    @property
    def tasks(self) -> tuple[str, ...]:
        """The study's tasks for which anything has been measured."""
        return tuple(task for task in self.study.tasks if task in self.examples)


def collect(plan: Plan, folder: StudyFolder) -> Collected:
    """Reads the stored cells of a plan.

    Raises:
      UserError: nothing is finished yet; values do not fit the examples; a task was measured by no cell.
    """
    examples = {task: found for task, found in folder.examples().items() if task in plan.study.tasks}
    records: dict[CellKey, Record] = {}
    values: dict[CellKey, ByTask] = {}
    missing = []
    failed = {failure["digest"]: failure["error"] for failure in folder.failures()}
    failures: dict[CellKey, str] = {}
    for row in plan.rows:
        for seed in plan.study.seeds:
            cell = plan.cell(row, seed)
            if folder.has(cell.digest):
                records[row, seed] = folder.record(cell.digest)
                values[row, seed] = _fitting(folder.values(cell.digest), examples, f"row '{row}', seed {seed}")
                continue
            missing.append((row, seed))
            if cell.digest in failed:
                failures[row, seed] = failed[cell.digest]
    if not records:
        raise UserError(f"{folder.path}: no cell of this study is finished; begin with: fusionjax study run {folder.path}")
    measured = {task for found in values.values() for task in found}
    for task in plan.study.tasks:
        if task not in measured:
            raise UserError(f"{folder.path}: no finished cell has measured the task '{task}' (measured: {', '.join(measured)})")
    names: tuple[str, ...] = ()
    stored = folder.baselines() if plan.study.baselines else None
    if stored is not None:
        record, by_name = stored
        names = tuple(by_name)
        for name, found in by_name.items():
            records[name, None] = record
            values[name, None] = _fitting(found, examples, f"baseline '{name}'")
    return Collected(
        study=plan.study,
        folder=folder,
        rows=plan.rows,
        baselines=names,
        axis_values=plan.values,
        records=records,
        values=values,
        examples=examples,
        missing=tuple(missing),
        failures=failures,
    )


def _fitting(found: ByTask, examples: dict[str, Examples], whose: str) -> ByTask:
    kept = {task: values for task, values in found.items() if task in examples}
    for task, values in kept.items():
        try:
            examples[task].check(values, f"{whose}, {task}")
        except ValueError as error:
            raise UserError(f"{error}: the files under scores/ belong to different studies") from None
    return kept
