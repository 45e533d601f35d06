"""The model card of a study (Mitchell et al. 2019), from its records and tables."""

from importlib import resources
from typing import TYPE_CHECKING

from markupsafe import Markup

from fusionjax.reporting.tables import metric_label, task_label
from fusionjax.studies import facts
from fusionjax.studies.analysis import Analysis
from fusionjax.studies.facts import at
from fusionjax.studies.findings import best_row, shown
from fusionjax.studies.graph_settings import GRAPHS, named, ranged, scorer_cited, settings
from fusionjax.studies.grids import EXAMPLES, number
from fusionjax.studies.markdown import bold, environment, escape

if TYPE_CHECKING:
    from fusionjax.studies.collect import Collected


def model_card(collected: "Collected", analysis: Analysis, name: str) -> str:
    """Markdown."""
    template = resources.files("fusionjax.studies").joinpath("model_card.md").read_text(encoding="utf-8")
    factors, uneven = _factors(analysis)
    graph = len(facts.graph_rows(collected)) == len(facts.configs(collected))
    return (
        environment()
        .from_string(template)
        .render(
            name=name,
            question=collected.study.question,
            tasks=", ".join(task_label(task) for task in analysis.tasks()),
            model=_model(collected, analysis),
            data=_data(collected),
            metrics=[
                f"{task_label(task).capitalize()}: {', '.join(metric_label(metric) for metric in metrics)} on "
                f"{len(collected.examples[task].example):,} test {EXAMPLES.get(task, 'examples')}"
                for task, metrics in analysis.tasks().items()
            ],
            results=_results(analysis),
            factors=factors,
            before_use="Before what they predict is taken for true, measure them on the graph that it is about."
            if graph
            else "Before they rank anything for people, measure them on that shop's own data.",
            groups="kinds of triples or entities" if graph else "groups of users or products",
            # Parts of a graph are not groups of people.
            limits=[*facts.warnings(collected), *facts.limits(collected), *(uneven if graph else ())],
            ethics=[*_people(collected), *(() if graph else uneven)],
        )
    )


def _model(collected: "Collected", analysis: Analysis) -> list[Markup]:
    config = facts.reference_config(collected)
    sizes = [record["parameters"] for record in facts.trained(collected) if record.get("parameters")]
    found = [Markup(f"Rows of models: {len(analysis.rows)}; the reference is {bold(analysis.reference)}.")]
    embedding = facts.graph_rows(collected)
    if embedding:
        found.append(_embedding(collected, embedding))
    joint = len(embedding) < len(facts.configs(collected)) and analysis.reference not in embedding
    sources = at(config, "model.product.sources")
    if sources and joint:
        found.append(Markup(f"Product vectors of the reference are made of: {escape(', '.join(sources))}."))
    used = [name for name, each in (at(config, "objectives") or {}).items() if isinstance(each, dict) and each.get("weight")]
    if used and joint:
        found.append(Markup(f"Objectives of the reference: {escape(', '.join(task_label(name) for name in used))}."))
    if sizes:
        span = f"{min(sizes):,}" + (f" to {max(sizes):,}" if max(sizes) > min(sizes) else "")
        found.append(Markup(f"Parameters: {span}."))
    return found


def _embedding(collected: "Collected", rows: tuple[str, ...]) -> Markup:
    of = settings(facts.only(collected, rows))
    scorers = dict.fromkeys(scorer_cited(row["scorer"]).split(" ")[0] for row in of.values())
    whose = "all rows" if len(rows) == len(facts.configs(collected)) else named(rows)
    text = f"Graph embedding ({whose}) with {', '.join(scorers)}; an entity has {ranged(of, 'dim', whole=True)} real numbers"
    uses = list(dict.fromkeys(row["text.use"] for row in of.values()))
    if uses != ["none"]:
        names = {"none": "a table", "replace": "text", "add": "a table and text", "align": "a table aligned to text"}
        text += f", its vector made of {' or '.join(names[use] for use in uses)}"
    return Markup(f"{text}.")


def _data(collected: "Collected") -> list[str]:
    config = facts.reference_config(collected)
    name = at(config, "data.name")
    shown = f"{name}, {GRAPHS[name].split(' ')[0]}" if name in GRAPHS else name
    found = [f"Source: {shown or 'unknown'}"]
    found.append(f"Fingerprint: {', '.join(facts.counted(collected, 'fingerprint'))}")
    for key, what in (("sample", "entities of the sub-graph that is kept, at most"), ("unseen", "share of entities held out")):
        values = {row.get(key): None for row in settings(collected).values() if row.get(key)}
        if values:
            found.append(f"{what[0].upper()}{what[1:]}: {', '.join(f'{value:,}' for value in values)}")
    split = at(config, "data.split.events")
    graph = len(facts.graph_rows(collected)) == len(facts.configs(collected))
    return [*found, f"Split of events: {split.replace('_', ' ')}"] if split and not graph else found


def _results(analysis: Analysis) -> list[Markup]:
    found = []
    for task, (metric, *_) in analysis.tasks().items():
        table = analysis.table(task, metric)
        names = dict.fromkeys(name for name in (best_row(analysis, table), analysis.reference) if name)
        for name in names:
            estimate = table.entries[name].estimate
            if estimate is not None:
                role = "reference" if name == analysis.reference else "highest"
                found.append(
                    Markup(
                        f"{escape(task_label(task).capitalize())}, {escape(metric_label(metric))}, {bold(name)} ({role}): "
                        f"{shown(estimate)}, 95 % interval {number(estimate.low)} to {number(estimate.high)}."
                    )
                )
    return found


def _factors(analysis: Analysis) -> tuple[list[Markup], list[Markup]]:
    """The reference by segment; and where it serves one label less than half as well as another."""
    factors, uneven = [], []
    for task, (metric, *_) in analysis.tasks().items():
        for segment, labels in analysis.segments(task).items():
            values = {}
            for label in labels:
                entry = analysis.table(task, metric, (segment, label)).entries.get(analysis.reference)
                if entry is not None and entry.estimate is not None:
                    values[label] = entry.estimate.mean
            if not values:
                continue
            title = f"{escape(task_label(task).capitalize())}, {escape(metric_label(metric))} by {escape(task_label(segment))}"
            listed = ", ".join(f"{escape(label)} {number(value)}" for label, value in values.items())
            factors.append(Markup(f"{title} ({bold(analysis.reference)}): {listed}."))
            low, high = min(values, key=lambda label: values[label]), max(values, key=lambda label: values[label])
            # Where less is better the numbers are no measure of how well anybody is served.
            if analysis.table(task, metric).higher_is_better and values[low] < 0.5 * values[high]:
                uneven.append(
                    Markup(
                        f"{title}: the reference serves {bold(low)} ({number(values[low])}) less than half as well as "
                        f"{bold(high)} ({number(values[high])})."
                    )
                )
    return factors, uneven


def _people(collected: "Collected") -> list[str]:
    name = at(facts.reference_config(collected), "data.name")
    if name == "amazon_beauty":
        return [
            "The events are purchases that real people made public as reviews, under pseudonymous identifiers; the study "
            "stores ranks of test targets by number, no names and no texts of reviews.",
            "The people chose to review on one English-language shop up to 2014: they stand for no other population.",
        ]
    facts_of_people = {
        **dict.fromkeys(("codex_s", "codex_m", "codex_l", "wikidata5m"), "Wikidata"),
        "fb15k237": "Freebase",
        "yago3_10": "YAGO",
    }
    if name in facts_of_people:
        return [
            f"The triples are facts of {facts_of_people[name]}, many of them about people of public life; a predicted triple "
            "may be false, and what the source lacks or says too often a model repeats."
        ]
    if name == "kinship":
        return ["The triples are how the members of one Australian people call their kin, numbered, without names."]
    if name == "nations":
        return ["The triples are about states, as political science counted them: they say nothing of persons."]
    if name in ("umls", "wn18rr"):
        return ["The triples are about terms and words: no data of people are used."]
    if name == "demo_shop":
        return ["The shop is invented by a program: no data of people are used."]
    return ["The program does not know where these data come from; whether people consented is for the authors to say."]
