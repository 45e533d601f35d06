"""report.html of a run: one file that opens anywhere, from disk, and asks the network for nothing.

Pictures are inlined as data URIs, styles stand in the page, there are no scripts, and a content security policy in the page
forbids the browser everything else. Titles, names and queries are text wherever they come from: the template escapes them all.
"""

import dataclasses
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from fusionjax.files import write_whole
from fusionjax.reporting import tables
from fusionjax.reporting.page import image, style
from fusionjax.tasks.recommendation import UserExample
from fusionjax.tasks.search import QueryExample

LegendEntry = tuple[str, str, int, str]
_MOST_RELATIONS = 30
_ALTS = {
    "baseline_bars": "Bars of the main test metric of each task, this run beside its baselines; the numbers are in the tables.",
    "segment_bars": "Bars of recall@10 for products in the head, middle and tail of popularity and for cold products, this run "
    "beside its baselines; the numbers are in the recommendation table.",
    "learning_curves": "Lines of the training losses by objective and of each task's main validation metric over the steps; "
    "the chosen step is marked.",
    "product_map": "Scatter plot of products, near each other where their vectors are similar, coloured by top-level category.",
    "long_tail": "Events of each product against its rank, and the number of events users have.",
}


@dataclasses.dataclass(frozen=True)
class Examples:
    queries: list[QueryExample] = dataclasses.field(default_factory=list)
    users: list[UserExample] = dataclasses.field(default_factory=list)


def write_report(
    folder: Path,
    *,
    title: str,
    config_yaml: str,
    results: Mapping[str, Any],
    provenance: Mapping[str, Any],
    curves: Sequence[Mapping[str, Any]],
    legend: Sequence[LegendEntry],
    examples: Examples,
    cleaning: Iterable[Any],
    counts: Mapping[str, Any],
    graph_counts: Mapping[str, Any],
) -> Path:
    """Writes `folder/report.html`, whole or not at all.

    Args:
      folder: of the run; the pictures are taken from its `plots/*.png`, those that are missing are left out.
      title: of the page.
      config_yaml: the resolved config.
      results: as in results.json (see `tables`); any level may be missing.
      provenance: as in provenance.json: commit, dirty, command, seed, versions, devices, fingerprint, started, finished,
        seconds, steps, best_step, parameters, data. Whatever is missing is left out.
      curves: rows of metrics.jsonl.
      legend: of the map of products, from `plots.product_map`.
      examples: what the model returns for some queries and users.
      cleaning: effects of the cleaning steps, `data.clean.Effect`s or dicts of their fields.
      counts: rows of each part of the shop, `{part: n}` or `{part: {split: n}}`.
      graph_counts: edges of each relation, likewise.

    Returns:
      The path of the report.
    """
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(
        number=tables.number, label=tables.metric_label, task=tables.task_label, count=_count, lang=_lang_attribute
    )
    template = environment.from_string(
        resources.files("fusionjax.reporting").joinpath("report.html").read_text(encoding="utf-8")
    )
    tasks = tables.tasks_in(results)
    page = template.render(
        title=title,
        style=style(),
        summary=_summary(provenance, curves, counts, tasks),
        facts=_facts(provenance),
        verdicts=[verdict(results, task) for task in tasks],
        tables=[_result_table(results, task, split) for split in ("test", "valid") for task in tables.tasks_in(results, split)],
        notes=[
            *((tables.SEGMENT_NOTE, tables.COVERAGE_NOTE) if "recommendation" in tasks else ()),
            *tables.interval_notes(results),
        ],
        pictures=_pictures(folder / "plots"),
        validations=_validations(curves),
        counts=_split_table(counts),
        relations=_relations(graph_counts),
        cleaning=[effect if isinstance(effect, Mapping) else dataclasses.asdict(effect) for effect in cleaning],
        legend=legend,
        examples=examples,
        language=language,
        command=provenance.get("command"),
        commit=provenance.get("commit"),
        dirty=provenance.get("dirty"),
        versions=provenance.get("versions") or {},
        source=json.dumps(provenance.get("data") or {}, indent=2, ensure_ascii=False, default=str),
        config=config_yaml,
    )
    path = Path(folder) / "report.html"
    write_whole(path, page.encode("utf-8", errors="replace"))  # a lone surrogate in a title must not cost the report
    return path


# -------------------------------------------------------------------------------------------------------------- sentences
def verdict(results: Mapping[str, Any], task: str) -> str:
    """Plain sentences: is the run or a baseline ahead on the task's main test metric, and where is it otherwise.

    Differences that vanish at the printed four decimals are no differences.
    """
    (_, own), *baselines = tables.rows_of(results, task)
    metric = tables.main_metric(results, task)
    name, mine = tables.task_label(task).capitalize(), _rounded(own, metric)
    shown = tables.metric_label(metric)
    if mine is None:
        return f"{name}: this run has no {shown}, so nothing can be compared."
    rivals = [(rival, value) for rival, row in baselines if (value := _rounded(row, metric)) is not None]
    if not rivals:
        return f"{name}: {shown} {mine:.4f}; there is no baseline to compare with."
    top = max(value for _, value in rivals)
    leaders = _listed([rival for rival, value in rivals if value == top])
    behind = [rival for rival, value in rivals if value < mine]
    many = " and " in leaders
    if mine > top:
        gain = "" if top <= 0 else f" ({mine / top - 1:.1%} higher)" if mine < 2 * top else f" ({mine / top:.1f} times as high)"
        whom = f"{top:.4f} of the best, {leaders}" if len(rivals) > 1 else f"{top:.4f}"
        text = f"this run beats {'every baseline' if len(rivals) > 1 else leaders}: {shown} {mine:.4f} against {whom}{gain}."
    elif mine < top:
        text = f"{leaders} {'beat' if many else 'beats'} this run: {shown} {top:.4f} against {mine:.4f}"
        text += f" ({1 - mine / top:.1%} lower)."
        text += f" This run is still ahead of {_listed(behind)}." if behind else " This run is ahead of no baseline."
    else:
        text = f"this run is level with {leaders}: both have {shown} {mine:.4f}."
    return f"{name}: {text}{_otherwise(results, task, metric, ahead=mine > top)}"


def _otherwise(results: Mapping[str, Any], task: str, main: str, *, ahead: bool) -> str:
    """Metrics on which the side that is not ahead on the main one is."""
    (_, own), *baselines = tables.rows_of(results, task)
    better: dict[str, list[str]] = {}
    for metric in tables.metrics_of(results, task):
        mine = _rounded(own, metric)
        rivals = [(value, name) for name, row in baselines if (value := _rounded(row, metric)) is not None]
        if metric == main or mine is None or not rivals or not tables.has_direction(metric):
            continue
        top = max(value for value, _ in rivals)
        if ahead and top > mine:
            better.setdefault(_listed([name for value, name in rivals if value == top]), []).append(tables.metric_label(metric))
        elif not ahead and mine > top:
            better.setdefault(tables.THIS_RUN, []).append(tables.metric_label(metric))
    parts = [f"{names} {'lead' if ' and ' in names else 'leads'} on {_listed(metrics)}" for names, metrics in better.items()]
    return f" But {'; '.join(parts)}." if parts else ""


def _rounded(metrics: Mapping[str, Any], name: str) -> float | None:
    value = tables.value_of(metrics, name)
    return None if value is None else round(value, 4)


def _listed(names: Sequence[str]) -> str:
    return " and ".join(part for part in (", ".join(names[:-1]), names[-1]) if part)


def _summary(
    provenance: Mapping[str, Any], curves: Sequence[Mapping[str, Any]], counts: Mapping[str, Any], tasks: list[str]
) -> str:
    objectives = sorted(
        {key.removeprefix("loss/").replace("_", " ") for row in curves for key in row if key.startswith("loss/")}
    )
    data = (provenance.get("data") or {}).get("name") or "a shop"
    parts = [f"{_count(n)} {part.replace('_', ' ')}" for part, n in counts.items() if isinstance(n, int) and n]
    text = f"A model of {data}" + (f" ({', '.join(parts)})" if parts else "")
    text += f", trained on {_listed(objectives)}" if objectives else ""
    if provenance.get("steps"):
        text += f" for {_count(provenance['steps'])} steps"
    text += f", measured on {_listed([tables.task_label(task) for task in tasks])}." if tasks else "."
    if provenance.get("best_step") is not None:
        text += f" The parameters of step {_count(provenance['best_step'])} are reported, the best on validation."
    return text


def _facts(provenance: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Label and value of what the headline lists; what is unknown is left out."""
    commit, devices = provenance.get("commit"), Counter(provenance.get("devices") or ())
    if commit:
        commit += " with uncommitted changes" if provenance.get("dirty") else ""
    plugins = {f"{one['package'] or one['name']} {one['version'] or ''}".strip() for one in provenance.get("plugins") or ()}
    facts = [
        ("Data", (provenance.get("data") or {}).get("name")),
        ("Data fingerprint", provenance.get("fingerprint")),
        ("Seed", provenance.get("seed")),
        ("Commit", commit or "unknown: not run from a checkout"),
        ("Duration", None if provenance.get("seconds") is None else duration(provenance["seconds"])),
        ("Started", provenance.get("started")),
        ("Finished", provenance.get("finished")),
        ("Devices", ", ".join(f"{n} × {name}" if n > 1 else name for name, n in devices.items())),
        ("Platform", provenance.get("platform")),
        ("Plug-ins", ", ".join(sorted(plugins))),
        ("Parameters", None if provenance.get("parameters") is None else _count(provenance["parameters"])),
    ]
    return [(label, str(value)) for label, value in facts if value not in (None, "")]


def duration(seconds: float) -> str:
    """`4 min 12 s`."""
    whole = max(0, round(seconds))
    hours, minutes = whole // 3600, whole // 60 % 60
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {whole % 60} s" if minutes else f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"


# ----------------------------------------------------------------------------------------------------------------- tables
def _result_table(results: Mapping[str, Any], task: str, split: str) -> dict[str, Any]:
    rows, metrics = tables.rows_of(results, task, split), tables.metrics_of(results, task, split)
    best = {metric: tables.best_rows(rows, metric) for metric in metrics}
    cells = [
        (name, [(tables.number(tables.value_of(row, metric)), name in best[metric]) for metric in metrics])
        for name, row in rows
    ]
    return {"task": task, "split": split, "metrics": metrics, "rows": cells}


def _validations(curves: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The main metric of each task by step, as the table behind the curves."""
    rows = [row for row in curves if row.get("kind") == "valid"]
    tasks: dict[str, dict[str, float]] = {}
    for row in rows:
        for key in row:
            task, slash, metric = key.partition("/")
            if slash:
                tasks.setdefault(task, {})[metric] = 0.0
    mains = [
        f"{task}/{tables.main_metric({'valid': tasks}, task, 'valid')}" for task in tables.tasks_in({"valid": tasks}, "valid")
    ]
    chosen = max((place for place, row in enumerate(rows) if row.get("best")), default=None)
    return {
        "columns": mains,
        "rows": [
            (row.get("step", 0), [tables.value_of(row, key) for key in mains], place == chosen)
            for place, row in enumerate(rows)
        ],
    }


def _split_table(counts: Mapping[str, Any]) -> dict[str, Any]:
    """Names by splits; a plain number stands under `rows`."""
    nested = {name: dict(value) if isinstance(value, Mapping) else {"rows": value} for name, value in counts.items()}
    columns = list(dict.fromkeys(split for row in nested.values() for split in row))
    return {"columns": columns, "rows": [(name, [row.get(split) for split in columns]) for name, row in nested.items()]}


def _relations(graph_counts: Mapping[str, Any]) -> dict[str, Any]:
    """The most frequent relations first; a long rest becomes one row."""
    table = _split_table(graph_counts)
    rows = sorted(table["rows"], key=lambda row: (-sum(value or 0 for value in row[1]), row[0]))
    rest = rows[_MOST_RELATIONS:]
    rows = rows[:_MOST_RELATIONS]
    if rest:
        rows.append(
            (f"… {len(rest)} more", [sum(value or 0 for value in column) for column in zip(*(r[1] for r in rest), strict=True)])
        )
    return {"columns": table["columns"], "rows": rows}


# ------------------------------------------------------------------------------------------------------------- small parts
def _pictures(folder: Path) -> dict[str, Markup]:
    """`<img>` of each PNG by the stem of its name, known ones first."""
    found = {path.stem: path for path in sorted(folder.glob("*.png"))}
    return {name: image(found[name], _ALTS.get(name, name.replace("_", " "))) for name in [*_ALTS, *found] if name in found}


def _count(value: Any) -> str:
    return tables.MISSING if value is None else f"{value:,}" if isinstance(value, int | float) else str(value)


def language(text: str) -> str:
    """`zh` with Han characters, `en` with Latin letters, `mixed` with both, else `none`."""
    han = any("\u3400" <= letter <= "\u9fff" for letter in text)
    latin = any("a" <= letter <= "z" for letter in text.lower())
    return "mixed" if han and latin else "zh" if han else "en" if latin else "none"


def _lang_attribute(text: str) -> Markup:
    """` lang="zh"` for text with Han characters, which the page's own `en` would show in the wrong fonts."""
    return Markup(' lang="zh"') if language(text) in ("zh", "mixed") else Markup("")
