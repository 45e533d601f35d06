"""`fusionjax study init`: a study file to begin with, every section explained."""

import os
from pathlib import Path

from fusionjax.config import load_run
from fusionjax.errors import UserError
from fusionjax.files import write_whole
from fusionjax.studies.plan import measures
from fusionjax.tasks import TASKS

BASE = """\
# What every row of the study starts from: any key of `fusionjax config schema`.
train: {steps: 300}
"""
STUDY = """\
# fusionjax study plan|run|report|verify FOLDER; every key: fusionjax study schema
question: What does a smaller learning rate change?   # one sentence: it heads the report
base: BASE   # the run config that every row changes

# Rows to compare. `set:` changes keys of the base; `base:` takes another config altogether.
design: rows
rows:
  base: {}
  slower: {set: {train.optimiser.learning_rate.tables: 0.0005}}
# Or axes of changes, whose first value is the base's: `design: grid` has every combination, `one_at_a_time` one change each.
# axes:
#   speed: {usual: {}, slow: {train.optimiser.learning_rate.tables: 0.0005}}
reference: base   # the row that all others are compared with
seeds: [0, 1, 2]   # three or more, for a spread

# What is measured: task → metrics, the main one first.
tasks:
TASKS
# segments: [SEGMENT]   # the main metrics on parts of the examples
# contrasts: [[slower, base]]   # further pairs to compare

# Several data sets: every row on each, a column a data set, mean ranks over them. A row may say what differs:
# `base: {UMLS: a.yaml, …}` or `data_sets: {UMLS: {dotted key: value}}`.
# data_sets:
#   UMLS: {data.name: umls}
#   Kinship: {data.name: kinship}

# Hyper-parameters of each row, chosen on validation before the seeds are run, with the same budget for all.
# search:
#   space: {train.optimiser.learning_rate.tables: {low: 0.0001, high: 0.01, log: true}}
#   trials: 10

# notes: |
#   Your own words, Markdown; the report shows them apart from what it writes itself.
"""


def write_template(folder: Path, base: Path | None) -> Path:
    """Writes `study.yaml` into a folder, and a base config where none is given.

    Raises:
      UserError: the folder has a study already, or the base config is none.
    """
    file = folder / "study.yaml"
    if file.exists():
        raise UserError(f"{file}: there is a study already")
    config = load_run(base)
    # One task an objective: another of the same may need what not all data have, such as false triples.
    by_objective = {task.objective: name for name, task in reversed(list(TASKS.items())) if measures(config, name)}
    tasks = {name: TASKS[name].main_of(config) for name in TASKS if name in by_objective.values()}
    if not tasks:
        raise UserError(f"{base}: it is trained for no task that a study could measure")
    folder.mkdir(parents=True, exist_ok=True)
    if base is None:
        write_whole(folder / "base.yaml", BASE)
    text = STUDY.replace("BASE", "base.yaml" if base is None else os.path.relpath(base, folder))
    text = text.replace("TASKS", "\n".join(f"  {name}: [{metric}]" for name, metric in tasks.items()))
    text = text.replace("SEGMENT", next((one for name in tasks for one in TASKS[name].segments), "popularity"))
    write_whole(file, text)
    return folder
