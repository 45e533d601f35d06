"""A study's report: report.md, the same as report.html in one self-contained file, plots, methods and a model card.

One Markdown template gives both: it is rendered with links to the pictures for report.md, and with the pictures inside for
report.html. Names are escaped wherever they are printed (`markdown.environment`); the authors' notes are the only Markdown that
is not the program's own, and in the page HTML in them is shown as text. The same study gives the same bytes.
"""

import dataclasses
import shlex
from collections.abc import Callable, Iterable, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
from markupsafe import Markup

from fusionjax.files import write_whole
from fusionjax.reporting.page import image, style
from fusionjax.reporting.report import duration
from fusionjax.reporting.tables import MISSING, has_direction, metric_label, task_label
from fusionjax.studies import facts, tables
from fusionjax.studies.analysis import Analysis, Table
from fusionjax.studies.card import model_card
from fusionjax.studies.findings import findings, percent, shown
from fusionjax.studies.folder import StudyFolder
from fusionjax.studies.graph_settings import GRAPHS, differing
from fusionjax.studies.grids import CORRECTIONS, grids, number
from fusionjax.studies.importance import chosen_lines, read_traces
from fusionjax.studies.markdown import anchor, bold, code, environment, escape, to_html
from fusionjax.studies.methods import write_methods
from fusionjax.studies.pictures import Picture, mean_of, time_of, write_plots
from fusionjax.studies.published import published_grids

if TYPE_CHECKING:
    from fusionjax.studies.collect import Collected

_SECTIONS = (
    ("Differences from the reference", "differences"),
    ("The grid", "grid"),
    ("Learning curves", "curves"),
    ("Ranks of all methods", "ranks"),
    ("Cost", "cost"),
)
_NOTES = "THEAUTHORSNOTESSTANDHERE"
Show = Callable[[Picture], Markup]


def write_report(collected: "Collected", analysis: Analysis, folder: Path) -> None:
    """Writes report.md, report.html, plots/*.png, methods.md, references.bib and model_card.md into the study's folder."""
    plots = folder / "plots"
    values = _values(collected, analysis, write_plots(collected, analysis, plots), StudyFolder(folder).name)

    def linked(picture: Picture) -> Markup:
        return Markup(f"![{escape(picture.alt)}](plots/{picture.name}.png)\n\n*{escape(picture.caption)}*")

    def inside(picture: Picture) -> Markup:
        caption = Markup("<figcaption>{}</figcaption>").format(picture.caption)
        return Markup("<figure>") + image(plots / f"{picture.name}.png", picture.alt) + caption + Markup("</figure>")

    notes = collected.study.notes.strip()
    write_whole(folder / "report.md", _markdown(values, linked, notes))
    body = to_html(_markdown(values, inside, _NOTES if notes else ""), trusted=True)
    body = body.replace(f"<p>{_NOTES}</p>", to_html(notes, trusted=False))
    write_whole(folder / "report.html", page(collected.study.question, body))
    methods, references = write_methods(collected, analysis)
    write_whole(folder / "methods.md", methods)
    write_whole(folder / "references.bib", references)
    write_whole(folder / "model_card.md", model_card(collected, analysis, StudyFolder(folder).name))


def _template(name: str) -> str:
    return resources.files("fusionjax.studies").joinpath(name).read_text(encoding="utf-8")


def _markdown(values: dict[str, Any], show: Show, notes: str) -> str:
    text = environment().from_string(_template("report.md")).render(**values, show=show, notes=Markup(notes))
    lines = [line.rstrip() for line in text.splitlines()]
    kept = [line for place, line in enumerate(lines) if line or (place and lines[place - 1])]
    return "\n".join(kept).rstrip() + "\n"


def page(title: str, body: str) -> str:
    """A page of HTML that holds all it shows, with its headings as contents."""
    names = [line[3:].split(">", 1)[1].split("<", 1)[0] for line in body.splitlines() if line.startswith("<h2 ")]
    rendered = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    contents = [(anchor(name), Markup(name)) for name in names]
    return (
        rendered.from_string(_template("report.html")).render(title=title, style=style(), contents=contents, body=Markup(body))
        + "\n"
    )


# --------------------------------------------------------------------------------------------------------------- content
def _values(collected: "Collected", analysis: Analysis, pictures: Sequence[Picture], name: str) -> dict[str, Any]:
    found = findings(collected, analysis)
    parts = []
    for each in found:
        mine = [picture for picture in pictures if picture.task == each.task]
        parts.append(
            {
                "task": task_label(each.task).capitalize(),
                "finding": dataclasses.replace(each, for_whom=tuple((task_label(s), lines) for s, lines in each.for_whom)),
                "table": _main_table(analysis, each.task),
                "note": _main_note(analysis, each.task),
                "bars": [picture for picture in mine if picture.section == "bars"],
                "segments": [picture for picture in mine if picture.section == "segments"],
            }
        )
    cells = len(collected.rows) * len(collected.seeds)
    sections = [(title, [picture for picture in pictures if picture.section == kind]) for title, kind in _SECTIONS]
    return {
        "question": collected.study.question,
        "summary": _summary(collected, analysis, name, cells),
        "warnings": facts.warnings(collected),
        "missing": [(bold(row), seed, collected.failures.get((row, seed))) for row, seed in collected.missing],
        "failures": collected.failures,
        "planned": cells,
        "alpha": f"{analysis.settings['alpha']:g}",
        "correction": CORRECTIONS.get(analysis.settings["correction"], analysis.settings["correction"]),
        "parts": parts,
        "reference": bold(analysis.reference),
        "published": [Markup(tables.markdown(grid)) for grid in published_grids(collected.study.published, analysis)],
        "rows": _axes_table(collected),
        "settings": _settings_table(collected),
        "for_whom": any(each.for_whom for each in found),
        "sections": [(title, shown) for title, shown in sections if shown],
        "cost_table": _cost_table(collected),
        "search_table": _search_table(collected),
        "search_pictures": [picture for picture in pictures if picture.section == "search"],
        "commands": _commands(collected, name),
        "facts": _facts(collected),
        "versions": _table(
            ("package", "version"), [(package, ", ".join(v)) for package, v in facts.versions(collected).items()]
        ),
        "limits": facts.limits(collected),
        "cells": _cells(collected, analysis, name),
        "tables": [(Markup.escape(grid.caption), Markup(tables.markdown(grid))) for grid in grids(analysis)],
    }


def _summary(collected: "Collected", analysis: Analysis, name: str, cells: int) -> Markup:
    done = cells - len(collected.missing)
    text = f"Study {bold(name)}: {len(collected.rows)} rows × {len(collected.seeds)} seeds"
    text += f" ({done} of {cells} cells finished)" if done < cells else f" ({cells} cells)"
    text += f" and {len(collected.baselines)} simple baselines" if collected.baselines else ""
    data = facts.at(facts.reference_config(collected), "data.name")
    shown = GRAPHS[data].split(" ")[0] if data in GRAPHS else {"triples": "a graph of the authors' own"}.get(str(data), data)
    text += f" on {escape(shown)}" if data else ""
    tasks = ", ".join(task_label(task) for task in analysis.tasks())
    return Markup(f"{text}; measured on {escape(tasks)}; reference row: {bold(analysis.reference)}.")


def _main_table(analysis: Analysis, task: str) -> Markup:
    """Rows × metrics; every number links to the row's cells; the second column of numbers is the main difference."""
    metrics = analysis.tasks()[task]
    found = [analysis.table(task, metric) for metric in metrics]
    places = {name: place + 1 for place, name in enumerate((*analysis.rows, *analysis.baselines))}
    best = [_leading(table) if has_direction(table.metric) else set() for table in found]
    lines = []
    for name, place in places.items():
        role = " (reference)" if name == analysis.reference else " (baseline)" if name in analysis.baselines else ""
        measured, planned = len(found[0].values.get(name, {})), len(analysis.settings["seeds"])
        role += f" ({measured} of {planned} seeds)" if 0 < measured < planned and name in analysis.rows else ""
        line = [Markup(f"{bold(name) if name == analysis.reference else escape(name)}{role}")]
        for table, top in zip(found, best, strict=True):
            entry = table.entries.get(name)
            if entry is None or entry.estimate is None:
                line.append(Markup(MISSING))
                continue
            mark = ""
            if entry.comparison is not None and entry.comparison.significant:
                mark = " ▲" if table.gain(entry.comparison.difference) > 0 else " ▼"
            text = shown(entry.estimate)
            line.append(Markup(f"[{f'**{text}**' if name in top else text}](#cells-{place}){mark}"))
        line.insert(2, _against(analysis, found[0], name))
        lines.append(line)
    labels = [metric_label(metric) for metric in metrics]
    return _table(("", labels[0], "against the reference", *labels[1:]), lines)


def _leading(table: Table) -> set[str]:
    values = {
        name: table.gain(round(entry.estimate.mean, 4)) for name, entry in table.entries.items() if entry.estimate is not None
    }
    return {name for name, value in values.items() if value == max(values.values())} if len(set(values.values())) > 1 else set()


def _against(analysis: Analysis, table: Table, name: str) -> Markup:
    entry, reference = table.entries.get(name), table.entries.get(analysis.reference)
    if entry is None or entry.comparison is None or reference is None or reference.estimate is None:
        return Markup("")
    base = reference.estimate.mean
    ends = [percent(end, base) for end in (entry.comparison.low, entry.comparison.high)]
    return Markup(f"{percent(entry.comparison.difference, base)} ({ends[0]} to {ends[1]})")


def _main_note(analysis: Analysis, task: str) -> Markup:
    spread = "Mean ± standard deviation over seeds" if len(analysis.settings["seeds"]) > 1 else "One seed"
    return Markup(
        f"{spread}; the highest of a column is bold; ▲ ▼ significantly above or below the reference; in brackets the 95 % "
        "interval of the difference. Each number leads to the [cells](#cells) it comes from."
    )


def _axes_table(collected: "Collected") -> Markup | None:
    axes = list(dict.fromkeys(axis for values in collected.axis_values.values() for axis in values))
    lines = [(row, *(collected.axis_values.get(row, {}).get(axis, MISSING) for axis in axes)) for row in collected.rows]
    return _table(("row", *axes), lines) if axes else None


def _settings_table(collected: "Collected") -> Markup | None:
    """Of rows that are graphs alone; none where they differ in nothing."""
    lines = [
        (row, ", ".join(f"{key} {str(value).lower() if isinstance(value, bool) else value}" for key, value in found.items()))
        for row, found in differing(collected).items()
    ]
    return _table(("row", "settings"), lines) if lines else None


def _search_table(collected: "Collected") -> Markup | None:
    lines = chosen_lines(read_traces(collected))
    return _table(("row", "trials", "best on validation", "chosen"), lines) if lines else None


def _cost_table(collected: "Collected") -> Markup | None:
    key, label, unit = time_of(collected)
    lines = []
    for row in collected.rows:
        time, clock = mean_of(collected, row, key), mean_of(collected, row, "seconds")
        memory, size = mean_of(collected, row, "peak_memory_bytes"), mean_of(collected, row, "parameters")
        values = (
            None if time is None else f"{time / unit:.1f}",
            None if clock is None else duration(clock),
            None if memory is None else f"{memory / 2**30:.2f}",
            None if size is None else f"{size:,.0f}",
        )
        if any(value is not None for value in values):
            lines.append((row, *(MISSING if value is None else value for value in values)))
    return _table(("row", label, "by the clock", "peak memory, GiB", "parameters"), lines) if lines else None


# ----------------------------------------------------------------------------------------------------------- reproducing
def _where(name: str) -> str:
    return shlex.quote(f"experiments/{name}")


def _commands(collected: "Collected", name: str) -> Markup:
    commits = [commit for commit in facts.counted(collected, "commit") if commit != "unknown"]
    row = shlex.quote(collected.reference)
    lines = [f"git checkout {shlex.quote(commits[0])}"] if commits else []
    lines += [
        f"fusionjax study verify {_where(name)}      # the tables follow from the stored scores; needs no data",
        f"fusionjax study reproduce {_where(name)} --row {row} --seed {collected.seeds[0]}   # one cell again, and compare",
        f"fusionjax study run {_where(name)}         # whatever is missing",
        f"fusionjax study report {_where(name)}      # this page",
    ]
    text = "```bash\n" + "\n".join(line.replace("\n", " ").replace("```", "") for line in lines) + "\n```"
    places = (
        ""
        if facts.at(facts.reference_config(collected), "data.name") == "demo_shop"
        else ("\n\nWhere data lie on your machine is said by `data.source_dir=FOLDER` at the end of a command.")
    )
    return Markup(text + places)


def _facts(collected: "Collected") -> list[tuple[str, str]]:
    spent = facts.cost(collected)
    several = {key: facts.counted(collected, key) for key in ("commit", "fingerprint")}
    found = [(label, _counts(several[key])) for label, key in (("Commit", "commit"), ("Data fingerprint", "fingerprint"))]
    found.append(("Hardware", _counts(facts.hardware(collected))))
    if spent.core_hours is not None:
        found.append(("Cost", f"{spent.core_hours:.2f} core-hours of {spent.runs} runs, the baselines among them"))
    if spent.hours is not None:
        found.append(("Sum of the runs' times by the clock", f"{spent.hours:.2f} hours"))
    if spent.peak_memory is not None:
        found.append(("Highest peak memory of a run", f"{spent.peak_memory:.2f} GiB"))
    return found


def _counts(values: dict[str, int]) -> str:
    if len(values) == 1:
        return next(iter(values))
    return "; ".join(f"{value} ({n} runs)" for value, n in values.items())


def _cells(collected: "Collected", analysis: Analysis, name: str) -> Markup:
    mains = [(task, metrics[0]) for task, metrics in analysis.tasks().items()]
    found = [analysis.table(task, metric) for task, metric in mains]
    lines: list[Sequence[Any]] = []
    names = (*collected.rows, *collected.baselines)
    for place, row in enumerate(names):
        seeds: Sequence[int | None] = (None,) if row in collected.baselines else collected.seeds
        for seed in seeds:
            record = collected.records.get((row, seed), {})
            mark = f'<a id="cells-{place + 1}"></a>' if seed == seeds[0] else ""
            key = "" if seed is None else str(seed)
            values = [table.values.get(row, {}).get(key) for table in found]
            folder = record.get("run")
            shown_values = [
                Markup(f"[{number(value)}](<{_target(folder)}>)") if value is not None and folder else number(value)
                for value in values
            ]
            again = "" if seed is None else f"fusionjax study reproduce {_where(name)} --row {shlex.quote(row)} --seed {seed}"
            command = escape(again) if "|" in again or "`" in again else code(again) if again else Markup("")
            minutes = "" if record.get("seconds") is None else duration(record["seconds"])
            digest = Markup("") if not record.get("digest") else code(str(record["digest"])[:12])
            lines.append((Markup(f"{mark}{escape(row)}"), key or "none", *shown_values, digest, minutes, command))
    headings = [f"{metric_label(metric)}, {task_label(task)}" for task, metric in mains]
    return _table(("row", "seed", *headings, "config digest", "time", "run it again"), lines)


def _target(folder: str) -> str:
    """A relative path as the target of a link in angle brackets, also within a table."""
    kept = folder.replace("\\", "/")
    return "".join(f"%{ord(letter):02X}" if letter in "<>|%\n\\" else letter for letter in kept)


def _table(headings: Iterable[str], lines: Iterable[Sequence[Any]]) -> Markup:
    """The first column to the left, the others to the right."""
    columns = [escape(heading) for heading in headings]
    rows = [columns, ["---", *("---:" for _ in columns[1:])], *([escape(value) for value in line] for line in lines)]
    return Markup("\n".join(f"| {' | '.join(row)} |" for row in rows))
