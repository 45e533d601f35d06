"""What joins the data sets of a study: a table of rows × data sets, mean ranks, and a Friedman test over data sets.

Each data set has an analysis of its own (`analysis.py`), with its own examples, intervals, tests and corrections: no p-value
is pooled over them. What is said of all of them together treats a data set as one block (Demšar 2006): it ranks the rows by
their means over seeds, and the ranks are what is compared. A data set that lacks a row is left out of the test.
"""

import csv
import dataclasses
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fusionjax.config.study import Study, load_study
from fusionjax.errors import UserError
from fusionjax.evaluation.statistics import Friedman, friedman
from fusionjax.files import write_whole
from fusionjax.reporting.tables import has_direction, metric_label, task_label
from fusionjax.studies import latex
from fusionjax.studies.analysis import Analysis, from_json
from fusionjax.studies.grids import Grid, data_sets_grid, number, p_value
from fusionjax.studies.markdown import bold, escape, to_html
from fusionjax.studies.report import page
from fusionjax.studies.tables import markdown
from fusionjax.studies.verify import ANALYSIS

COLUMNS = ("task", "metric", "row", "data_set", "seeds", "mean", "std", "low", "high", "p_adjusted", "rank", "mean_rank")


@dataclasses.dataclass(frozen=True)
class Joined:
    """One task × metric over all data sets."""

    task: str
    metric: str
    ranks: dict[str, dict[str, float]]
    """Data set → row → rank by its mean over seeds, 1 the best, equal ones sharing theirs; of data sets that measured all."""
    test: Friedman | None
    """None where fewer than two rows or data sets can be ranked, or no direction is better."""

    @property
    def mean_ranks(self) -> dict[str, float]:
        rows = list(next(iter(self.ranks.values()), {}))
        return {row: _stable(np.mean([found[row] for found in self.ranks.values()])) for row in rows}


def join(analyses: Mapping[str, Analysis], task: str, metric: str) -> Joined:
    """`analyses`: data set → its analysis, all of the same rows."""
    tables = {name: analysis.table(task, metric) for name, analysis in analyses.items()}
    rows, settings = (found := next(iter(analyses.values()))).rows, found.settings
    if not has_direction(metric):
        return Joined(task, metric, {}, None)
    means = {
        name: [table.gain(estimate.mean) if (estimate := table.entries[row].estimate) else np.nan for row in rows]
        for name, table in tables.items()
    }
    whole = {name: values for name, values in means.items() if not np.isnan(values).any()}
    ranks = {name: dict(zip(rows, _ranks(values), strict=True)) for name, values in whole.items()}
    test = friedman(list(whole.values()), settings["alpha"]) if len(whole) > 1 and len(rows) > 1 else None
    return Joined(task, metric, ranks, test)


def _ranks(gains: Sequence[float]) -> list[float]:
    values = np.asarray(gains)
    better, equal = values[:, None] < values, values[:, None] == values
    return (better.sum(1) + (equal.sum(1) + 1) / 2).tolist()


def _stable(value: Any) -> float:
    """With the digits that are the same on every machine."""
    return round(float(value), 10)


def write_joined(home: Path, folders: Sequence[Path], into: Path) -> list[Path]:
    """Writes analysis.json, tables/, report.md and report.html of a study's data sets together.

    Args:
      home: the study's folder.
      folders: of its data sets, each with its analysis.json.
      into: where to write: `home`, or elsewhere to compare.

    Returns:
      The files that follow from the data sets' analyses, report.html aside.

    Raises:
      UserError: a data set has no analysis yet.
    """
    study, _ = load_study(home)
    analyses = {folder.name: _analysis(folder) for folder in folders}
    joined = [join(analyses, task, metric) for task, metrics in study.tasks.items() for metric in metrics]
    grids = [data_sets_grid(analyses, one.task, one.metric, one.mean_ranks, _note(one, analyses)) for one in joined]
    report = _report(study, home.resolve().name, analyses, joined, grids)
    texts = {
        ANALYSIS: json.dumps([_plain(one) for one in joined], indent=1, ensure_ascii=False) + "\n",
        "tables/results.csv": _csv(analyses, joined),
        **{f"tables/{grid.name}.tex": latex.table(grid) for grid in grids},
        "tables/all.tex": latex.document([grid.name for grid in grids], study.question),
        "report.md": report,
    }
    (into / "tables").mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        write_whole(into / name, text)
    write_whole(into / "report.html", page(study.question, to_html(report, trusted=False)))
    return [into / name for name in texts]


def _analysis(folder: Path) -> Analysis:
    file = folder / ANALYSIS
    if not file.exists():
        raise UserError(f"{file}: missing; write it with: fusionjax study report {folder}")
    return from_json(file.read_text(encoding="utf-8"))


def _plain(one: Joined) -> dict[str, Any]:
    test = one.test and {
        **{key: _stable(getattr(one.test, key)) for key in ("statistic", "p", "critical_difference")},
        "blocks": one.test.blocks,
        "groups": [[list(one.mean_ranks)[place] for place in group] for group in one.test.groups],
    }
    return {"task": one.task, "metric": one.metric, "ranks": one.ranks, "mean_ranks": one.mean_ranks, "friedman": test}


def _note(one: Joined, analyses: Mapping[str, Analysis]) -> str:
    """The Friedman test in words."""
    if one.test is None:
        return "No mean ranks: they need two rows that two data sets measured, and a metric of which more or less is better."
    alpha = next(iter(analyses.values())).settings["alpha"]
    p = p_value(one.test.p)
    return (
        f"Mean rank over {one.test.blocks} data sets, 1 the best; Friedman test (Iman and Davenport): chi-squared "
        f"{one.test.statistic:.2f}, p {p if p.startswith('<') else f'= {p}'}; mean ranks further apart than "
        f"{one.test.critical_difference:.2f} differ (Nemenyi, {alpha:g})."
    )


def _csv(analyses: Mapping[str, Analysis], joined: Sequence[Joined]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for one in joined:
        for name, analysis in analyses.items():
            for row, entry in analysis.table(one.task, one.metric).entries.items():
                found = [getattr(entry.estimate, key, None) for key in ("seeds", "mean", "std", "low", "high")]
                ranks = one.ranks.get(name, {}).get(row), one.mean_ranks.get(row)
                line = (one.task, one.metric, row, name, *found, getattr(entry.comparison, "p_adjusted", None), *ranks)
                writer.writerow(["" if value is None else value for value in line])
    return text.getvalue()


def _report(study: Study, name: str, analyses: Mapping[str, Analysis], joined: Sequence[Joined], grids: Sequence[Grid]) -> str:
    rows = next(iter(analyses.values())).rows
    lines = [
        f"# {escape(study.question)}",
        f"Study {bold(name)}: {len(rows)} rows × {len(study.seeds)} seeds on {len(analyses)} data sets; reference row: "
        f"{bold(study.reference)}. Each data set has its own examples, intervals, tests and corrections; over data sets only "
        "ranks are compared, and no p-value is pooled.",
        "## Answer",
        "\n".join(f"- {_sentence(one, analyses)}" for one in joined if one.metric == study.tasks[one.task][0]),
    ]
    for one, grid in zip(joined, grids, strict=True):
        heading = f"{task_label(one.task).capitalize()}, {metric_label(one.metric)}"
        lines += [f"## {escape(heading)}", markdown(grid).rstrip()]
    if study.notes.strip():
        lines += ["## Authors' notes", "*What follows was written by the study's authors, not by the program.*"]
        lines += [study.notes.strip(), "*End of the authors' notes.*"]
    lines += ["## Each data set", "\n".join(f"- [{escape(each)}]({each}/report.md)" for each in analyses)]
    lines += ["## How to verify", f"`fusionjax study verify experiments/{name}`; every table as CSV and LaTeX in `tables/`."]
    return "\n\n".join(map(str, lines)) + "\n"


def _sentence(one: Joined, analyses: Mapping[str, Analysis]) -> str:
    """Who is best by mean rank, and where each data set puts it."""
    label = f"{task_label(one.task).capitalize()}, {metric_label(one.metric)}"
    if one.test is None:
        return f"{escape(label)}: the rows are not ranked over data sets."
    least = min(one.mean_ranks.values())
    best = next(row for row, rank in one.mean_ranks.items() if rank == least)
    places = []
    for name, analysis in analyses.items():
        estimate = analysis.table(one.task, one.metric).entries[best].estimate
        places.append(f"{escape(name)} {number(estimate.mean if estimate else None)}")
    verdict = "differ" if one.test.p < next(iter(analyses.values())).settings["alpha"] else "cannot be told apart"
    return (
        f"{escape(label)}: lowest mean rank has {bold(best)}, {least:.2f} ({', '.join(places)}); over {one.test.blocks} data "
        f"sets the rows {verdict} (Friedman test, p {'< 0.001' if one.test.p < 0.001 else f'= {one.test.p:.3f}'})."
    )
