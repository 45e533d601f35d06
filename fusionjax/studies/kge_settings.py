"""What rows of graph embedding are set to: the keys that a row reads, names of scorers and graphs, and words for numbers."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from fusionjax.config.kge_unread import flat, is_in, meaningless
from fusionjax.studies.facts import at, configs
from fusionjax.studies.markdown import escape

if TYPE_CHECKING:
    from fusionjax.studies.collect import Collected

Settings = dict[str, Any]
"""Dotted key of `kge` → value, of those that mean something for the row."""

SCORERS = {
    "transe": "TransE [@bordes2013transe]",
    "distmult": "DistMult [@yang2015distmult]",
    "complex": "ComplEx [@trouillon2016complex]",
    "simple": "SimplE [@kazemi2018simple]",
    "rotate": "RotatE [@sun2019rotate]",
    "rotate_l2": "RotatE with an L2 distance [@sun2019rotate]",
    "rescal": "RESCAL [@nickel2011rescal]",
    "tucker": "TuckER [@balazevic2019tucker]",
    "conve": "ConvE [@dettmers2018conve]",
    "quate": "QuatE [@zhang2019quate]",
    "pairre": "PairRE [@chao2021pairre]",
}
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
    """Row → what its graph embedding reads; the reference first."""
    found = {row: effective(config["kge"]) for row, config in configs(collected).items() if at(config, "kge.scorer")}
    return dict(sorted(found.items(), key=lambda item: item[0] != collected.reference))


def effective(kge: Mapping[str, Any]) -> Settings:
    """A row's `kge` section flattened, without the keys that mean nothing given the others."""
    every = dict(flat(kge))
    out = [*meaningless(every), "block"]  # which says how it is computed, not what
    if every["optimiser.name"] != "adam":
        out.append("optimiser.rows")  # likewise: only Adam's moments stand still
    if every["reciprocal"]:
        out.append("negatives.questions")
    return {key: value for key, value in every.items() if not is_in(key, out)}


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
