"""What rows of graphs alone are set to: the keys that a row reads, names of scorers and graphs, and words for numbers."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from fusionjax import names
from fusionjax.config.unread import flat, is_in, meaningless
from fusionjax.errors import UserError
from fusionjax.studies.facts import configs, graph_rows
from fusionjax.studies.markdown import escape

if TYPE_CHECKING:
    from fusionjax.studies.collect import Collected

Settings = dict[str, Any]
"""Short name of a key (`_SHORT`) → value, of those that mean something for the row."""
_ENTITY, _LINKS, _TRAIN = "model.entity", "objectives.link_prediction", "train"
_SHORT = {
    **{key: f"{_ENTITY}.{key}" for key in ("scorer", "dim", "relation_dim", "norm", "margin", "convolution.")},
    "reciprocal": f"{_LINKS}.reciprocal",
    **{key: f"{_ENTITY}.{key}" for key in ("init.", "dropout.", "text.", "literals")},
    **{key: f"{_LINKS}.{key}" for key in ("training", "block", "negatives.", "loss.", "relation_prediction", "penalty.")},
    "optimiser.name": f"{_TRAIN}.optimiser.name",
    "optimiser.learning_rate": f"{_TRAIN}.optimiser.learning_rate.tables",
    **{f"optimiser.{key}": f"{_TRAIN}.optimiser.{key}" for key in ("schedule", "factor", "wait", "rows")},
    "batch_size": f"{_LINKS}.batch_size",
    **{key: f"{_TRAIN}.{key}" for key in ("steps", "epochs")},
    "validate_every": f"{_TRAIN}.validate_every_epochs",
    "validate_every_steps": f"{_TRAIN}.validate_every",
    **{key: f"{_TRAIN}.{key}" for key in ("average", "patience")},
    "unseen": "data.split.unseen_entities",
    "sample": "data.graph.sample",
}
"""Short name of a key that a graph alone reads, or the start of several → the key of a run."""

SCORERS = {name: f"{facts.title} [@{facts.citation}]" for name, facts in names.SCORERS.items()}


def facts_of(scorer: str) -> names.ScorerFacts:
    """Of one of ours, or of a plug-in's that can be had here; else the name alone."""
    if scorer in names.SCORERS:
        return names.SCORERS[scorer]
    from fusionjax.models.scorers import SCORERS as classes  # imports JAX

    try:
        return classes[scorer].facts
    except UserError:
        return names.ScorerFacts()


def scorer_cited(scorer: str) -> str:
    """A scorer as a methods section names it, with its citation."""
    if scorer in SCORERS:
        return SCORERS[scorer]
    facts = facts_of(scorer)
    return escape(facts.title or scorer) + (f" ({escape(facts.citation)})" if facts.citation else "")


SMALL = "[@kemp2006irm] in the split of Dettmers et al. [@dettmers2018conve]"
GRAPHS = {
    "codex_s": "CoDEx-S [@safavi2020codex]",
    "codex_m": "CoDEx-M [@safavi2020codex]",
    "codex_l": "CoDEx-L [@safavi2020codex]",
    "fb15k237": "FB15k-237 [@toutanova2015observed]",
    "wn18rr": "WN18RR [@dettmers2018conve]",
    "yago3_10": "YAGO3-10 [@mahdisoltani2015yago3] in the selection of Dettmers et al. [@dettmers2018conve]",
    "wikidata5m": "Wikidata5M [@wang2021kepler]",
    "umls": f"UMLS {SMALL}",
    "kinship": f"Kinship {SMALL}",
    "nations": f"Nations {SMALL}",
}
"""`data.name` → knowledge graph."""
_MOST_NAMES = 4


def settings(collected: "Collected") -> dict[str, Settings]:
    """Row → what it is set to, of the rows that are graphs alone; the reference first."""
    every = configs(collected)
    found = {row: effective(every[row]) for row in graph_rows(collected)}
    return dict(sorted(found.items(), key=lambda item: item[0] != collected.reference))


def effective(config: Mapping[str, Any]) -> Settings:
    """What a config sets of what graphs alone read, by short names, without what means nothing given the others."""
    every = dict(flat(config))
    out = [*meaningless(every), f"{_LINKS}.block"]  # which says how it is computed, not what
    if every[f"{_TRAIN}.optimiser.name"] not in ("adam", "adamw"):
        out.append(f"{_TRAIN}.optimiser.rows")  # likewise: only Adam's moments stand still
    if every[f"{_LINKS}.reciprocal"]:
        out.append(f"{_LINKS}.negatives.queries")
    found: Settings = {}
    for short, key in _SHORT.items():
        for name, value in every.items():
            if is_in(name, [key]) and not is_in(name, out):
                whole = isinstance(value, float) and key == f"{_TRAIN}.epochs" and value == int(value)
                found[short + name[len(key) :]] = int(value) if whole else value
    return found


def differing(collected: "Collected") -> dict[str, Settings]:
    """Row → those of its settings in which rows differ; nothing where they do not."""
    rows = settings(collected)
    keys = list(dict.fromkeys(key for row in rows.values() for key in row))
    unlike = [
        key
        for key in keys
        if len({repr(row.get(key)) for row in rows.values()}) > 1 and any(row.get(key) for row in rows.values())
    ]
    if not unlike:
        return {}
    return {row: {key: found[key] for key in unlike if found.get(key) is not None} for row, found in rows.items()}


# ----------------------------------------------------------------------------------------------------------------- words
def named(rows: Iterable[str]) -> str:
    """`row **a**`, `rows **a** and **b**`, with the number of those beyond the first few."""
    rows = list(rows)
    shown = [str(Markup(f"**{escape(row)}**")) for row in rows[:_MOST_NAMES]]
    more = [f"{len(rows) - _MOST_NAMES} more"] if len(rows) > _MOST_NAMES else []
    return f"row{'s' if len(rows) > 1 else ''} {joined([*shown, *more])}"


def ranged(rows: Mapping[Any, Settings], key: str, whole: bool = False) -> str:
    """A number of the rows that have it: `0.1`; `0.1 and 0.2, by row`; or `0.1 to 0.5, by row`."""
    values = sorted({row[key] for row in rows.values() if row.get(key) is not None})
    shown = [f"{value:,}" if whole else f"{value:g}" for value in values]
    if len(values) == 1:
        return shown[0]
    return f"{joined(shown)} (by row)" if len(values) <= 3 else f"{shown[0]} to {shown[-1]} (by row)"


def joined(parts: Iterable[str]) -> str:
    """`a, b and c`."""
    listed = list(parts)
    return " and ".join(part for part in (", ".join(listed[:-1]), listed[-1] if listed else "") if part)
