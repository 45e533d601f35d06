"""The methods paragraphs of a study, written from the configs that were really run, and a bibliography of what they cite.

Citations are Pandoc's (`[@key]`); the entries are in `references.bib` beside this file, of which a study gets those it cites.
"""

import re
from collections.abc import Callable, Iterable
from importlib import resources
from typing import TYPE_CHECKING, Any

from fusionjax.errors import UserError
from fusionjax.reporting.tables import metric_label, task_label
from fusionjax.studies import methods_graph
from fusionjax.studies.analysis import Analysis
from fusionjax.studies.facts import at, configs, graph_rows, measured, only, reference_config, versions
from fusionjax.studies.graph_settings import GRAPHS, named, scorer_cited
from fusionjax.studies.graph_settings import joined as _and
from fusionjax.studies.grids import CORRECTIONS
from fusionjax.studies.markdown import code, escape

if TYPE_CHECKING:
    from fusionjax.studies.collect import Collected

_INFO_NCE = "by InfoNCE in both directions [@oord2018infonce; @radford2021clip]"
_CITATION = re.compile(r"@([a-z0-9]+)")
_BASELINE_CITATIONS = {"bm25": "robertson2009bm25", "item-knn": "deshpande2004itemknn", "itemknn": "deshpande2004itemknn"}
_CONTROLS = {
    "relations_shuffled": "the relation labels of training edges permuted",
    "tails_shuffled": "the tails of training edges permuted within each relation",
    "random_same_degree": "tails and labels of training edges permuted over all (a random graph of the same degrees)",
    "none": "no training edges",
    "as_text": "no training edges, but up to eight a product written into its text",
}
_TEXT_CONTROLS = {"shuffled": "each product with the text of another", "title_only": "titles only", "none": "no product texts"}


def write_methods(collected: "Collected", analysis: Analysis) -> tuple[str, str]:
    """(methods.md, references.bib): Markdown paragraphs with Pandoc citations, and exactly the entries they cite."""
    embedding = graph_rows(collected)
    joint = [row for row in configs(collected) if row not in embedding]
    of_joint, of_graph = only(collected, joint), only(collected, embedding)
    # A study of joint runs and graphs alone gets the paragraphs of both, with the rows they are about.
    names = ("", "")
    if joint and embedding:
        names = (f" ({named(joint)})", f" ({named(embedding)})")
    paragraphs = [("Data", _data(collected) + (methods_graph.data(of_graph) if embedding else []) + _fingerprints(collected))]
    for title, joint_part, graph_part in (
        ("Model", _model, methods_graph.model),
        ("Objectives", _objectives, methods_graph.objectives),
        ("Training", _training, methods_graph.training),
    ):
        seeds = _seeds(collected) if title == "Training" else []
        if joint:
            paragraphs.append((f"{title}{names[0]}", joint_part(of_joint) + ([] if embedding else seeds)))
        if embedding:
            paragraphs.append((f"{title}{names[1]}", graph_part(of_graph) + ([] if joint else seeds)))
        if joint and embedding:
            paragraphs.append(("Seeds", seeds))
    paragraphs += [
        ("Controls", _controls(collected)),
        ("Evaluation", _evaluation(collected)),
        ("Statistics", _statistics(collected, analysis)),
        ("Software", _software(collected)),
    ]
    text = "# Methods\n\n" + "".join(f"**{title}.** {' '.join(found)}\n\n" for title, found in paragraphs if found)
    return text.rstrip() + "\n", bibliography(cited(text))


def cited(text: str) -> list[str]:
    """Keys that a text cites, in the order of their first citation."""
    keys = [key for group in re.findall(r"\[(@[^\]]*)\]", text) for key in _CITATION.findall(group)]
    return list(dict.fromkeys(keys))


def bibliography(keys: Iterable[str]) -> str:
    """BibTeX entries of the keys, in alphabetical order.

    Raises:
      KeyError: there is no such entry.
    """
    known = entries()
    return "\n".join(known[key] + "\n" for key in sorted(keys))


def entries() -> dict[str, str]:
    """Key → BibTeX entry of everything that methods may cite."""
    text = resources.files("fusionjax.studies").joinpath("references.bib").read_text(encoding="utf-8")
    return {part.split("{", 1)[1].split(",", 1)[0]: part.strip() for part in re.split(r"(?m)^(?=@)", text) if part.strip()}


def _values(collected: "Collected", path: str) -> list[Any]:
    """Distinct values of a key over the rows, the reference's first."""
    found = [at(reference_config(collected), path), *(at(config, path) for config in configs(collected).values())]
    kept: list[Any] = []
    for value in found:
        if value is not None and value not in kept:
            kept.append(value)
    return kept


def _used(collected: "Collected", objective: str) -> bool:
    return any((weight or 0) > 0 for weight in _values(collected, f"objectives.{objective}.weight"))


# ------------------------------------------------------------------------------------------------------------------ data
def _data(collected: "Collected") -> list[str]:
    config = reference_config(collected)
    name = at(config, "data.name")
    if name is None:
        return []
    found = []
    if name == "amazon_beauty":
        relations = at(config, "data.amazon_beauty.relations") or []
        found.append("We use the Amazon Beauty 5-core of the Amazon product data [@mcauley2015amazon; @he2016amazon]")
        found[-1] += (
            f" with its product relations {_and(relation.replace('_', ' ') for relation in relations)}." if relations else "."
        )
    elif name == "demo_shop":
        shop = at(config, "data.demo_shop") or {}
        sizes = ", ".join(f"{shop[key]:,} {key}" for key in ("products", "users", "queries") if key in shop)
        found.append(
            f"We use a synthetic shop made by a program ({sizes})." if sizes else "We use a synthetic shop made by a program."
        )
    elif name in GRAPHS:
        variant = at(config, "data.wikidata5m.variant") if name == "wikidata5m" else None
        found.append(f"We use the knowledge graph {GRAPHS[name]}{f' ({variant} splits)' if variant else ''}.")
    elif name == "triples":
        found.append("We use the authors' own graph, given as triples.")
    elif name == "home_depot":
        found.append("We use the products, queries and graded judgments of Kaggle's Home Depot product search relevance data.")
    elif name not in (None, "files"):
        found.append(f"We use the data set {code(str(name))}, which is no part of FusionJAX.")
    else:
        found.append("We use the authors' own tables of products, events, queries and triples.")
    split = at(config, "data.split.events")
    if split == "leave_one_out" and "recommendation" in collected.examples:
        found.append("Events are split leave-one-out: each user's last new product is test, the one before it validation.")
    elif split == "temporal" and "recommendation" in collected.examples:
        found.append("Events are split by two global points in time.")
    return found


def _fingerprints(collected: "Collected") -> list[str]:
    prints = list(dict.fromkeys(str(record.get("fingerprint")) for record in measured(collected) if record.get("fingerprint")))
    if not prints:
        return []
    return [f"The prepared data {'has' if len(prints) == 1 else 'have'} the fingerprint {_and(p[:16] for p in prints)}."]


# ----------------------------------------------------------------------------------------------------------------- model
def _model(collected: "Collected") -> list[str]:
    config = reference_config(collected)
    sources = {source for value in _values(collected, "model.product.sources") for source in value}
    aligned, asked, linked = (_used(collected, name) for name in ("alignment", "query_product", "link_prediction"))
    text, entity = "text" in sources or aligned or asked, "entity" in sources or aligned or linked
    found = []
    if text and at(config, "text.layers") is not None:
        size = f"{at(config, 'text.layers')} layers, width {at(config, 'text.width')}, {at(config, 'text.heads')} heads"
        start = "started from a checkpoint" if at(config, "text.checkpoint") else "trained from scratch"
        found.append(
            f"Texts ({_and(at(config, 'text.fields') or ['text'])}, at most {at(config, 'text.max_length')} tokens) are read "
            f"by a BERT encoder [@devlin2019bert] ({size}, {at(config, 'text.pooling')} pooling), {start}."
        )
    scorers = _values(collected, "model.entity.scorer") if entity else []
    if scorers:
        dim = at(config, "model.entity.dim")
        found.append(
            f"Entities of the product graph are embedded with {_and(scorer_cited(each) for each in scorers)} "
            f"({dim} real numbers)."
        )
    if "text" in sources and "entity" in sources:
        found.append(
            "A product vector is the gated sum of its projected text and entity vectors; a learned vector stands for one that "
            "is missing."
        )
    if _used(collected, "next_product"):
        user = at(config, "model.user") or {}
        found.append(
            f"A user is a causal transformer over the last {user.get('history')} events ({user.get('layers')} layers, "
            f"{user.get('heads')} heads), after SASRec [@kang2018sasrec]."
        )
    if found and at(config, "model.dim") is not None:
        found.append(f"All towers meet in a space of {at(config, 'model.dim')} dimensions and are compared by cosine.")
    return found


# ------------------------------------------------------------------------------------------------------------ objectives
def _objectives(collected: "Collected") -> list[str]:
    config, found = reference_config(collected), []
    if _used(collected, "link_prediction"):
        found += _links(collected)
    if _used(collected, "alignment"):
        found.append(f"*Alignment* lets a product's text and entity vectors find each other {_INFO_NCE}.")
    if _used(collected, "query_product"):
        found.append(f"*Query-product* lets a query and a relevant product find each other {_INFO_NCE}.")
        if at(config, "objectives.query_product.from_titles"):
            share = at(config, "objectives.query_product.from_titles")
            found.append(f"A share of {share:g} of its queries are random parts of a product's own text [@lee2019ict].")
    if _used(collected, "next_product"):
        kinds = _values(collected, "objectives.next_product.softmax")
        whole = "a softmax over the whole catalogue"
        sampled = "a sampled softmax with logQ correction [@bengio2008sampling; @yi2019logq]"
        named = [{"full": whole, "sampled": sampled}[kind] for kind in kinds if kind in ("full", "sampled")]
        found.append(f"*Next product* is {_and(named or [whole])} at every position of a history.")
    weights = {
        name: at(config, f"objectives.{name}.weight")
        for name in ("link_prediction", "alignment", "query_product", "next_product")
    }
    plugins = at(config, "objectives.plugins") or {}
    if plugins:
        found.append(f"Objectives that are no part of FusionJAX: {_and(code(name) for name in plugins)}.")
    weights |= {name: each.get("weight") for name, each in plugins.items()}
    shown = [f"{name.replace('_', ' ')} {weight:g}" for name, weight in weights.items() if weight]
    if shown:
        found.append(f"Weights in the reference: {', '.join(shown)}.")
    return found


def _links(collected: "Collected") -> list[str]:
    kinds = {
        key: _values(collected, f"objectives.link_prediction.{key}")
        for key in ("training", "loss.name", "negatives.sampler", "penalty.name", "reciprocal", "relation_prediction")
    }
    usual = {
        "training": ["negatives"],
        "loss.name": ["softmax"],
        "negatives.sampler": ["uniform"],
        "penalty.name": ["none"],
        "reciprocal": [False],
        "relation_prediction": [0.0],
    }
    # An older record may not have every key.
    kinds = usual | {key: found for key, found in kinds.items() if found}
    if kinds == usual:
        return ["*Link prediction* is a softmax over a true triple and its uniformly corrupted heads or tails."]
    if kinds == usual | {"loss.name": ["self_adversarial"]}:
        return ["*Link prediction* weights negatives self-adversarially [@sun2019rotate]."]
    return ["*Link prediction* learns from the graph's triples.", *methods_graph.objectives(collected, joint=True)]


# -------------------------------------------------------------------------------------------------------------- training
def _training(collected: "Collected") -> list[str]:
    config = reference_config(collected)
    names = {
        "adamw": "AdamW [@loshchilov2019adamw]",
        "adam": "Adam [@kingma2015adam]",
        "adagrad_torch": "Adagrad [@duchi2011adagrad], whose sum of squares starts at 0 as in PyTorch",
        "adagrad_optax": "Adagrad [@duchi2011adagrad]",
        "sgd": "stochastic gradient descent",
    }
    found = []
    length = f"{at(config, 'train.steps'):,} steps" if at(config, "train.steps") else None
    length = length or (f"{at(config, 'train.epochs'):g} epochs" if at(config, "train.epochs") else None)
    optimisers = [names.get(each, escape(each)) for each in _values(collected, "train.optimiser.name")]
    if optimisers and length:
        rate = at(config, "train.optimiser.learning_rate") or {}
        rates = ", ".join(f"{name} {value:g}" for name, value in rate.items())
        schedule = at(config, "train.optimiser.schedule")
        found.append(f"Models are trained with {_and(optimisers)} for {length} ({schedule} schedule; learning rates: {rates}).")
    elif length:
        found.append(f"Models are trained for {length}.")
    if at(config, "train.select"):
        selected = (
            "the mean of the tasks' main metrics"
            if at(config, "train.select") == "mean"
            else escape(at(config, "train.select"))
        )
        found.append(f"The checkpoint that is best on validation by {selected} is tested once.")
    return found


def _seeds(collected: "Collected") -> list[str]:
    seeds = _and(str(seed) for seed in collected.seeds)
    one = len(collected.seeds) == 1 and graph_rows(collected)
    found = [f"Every row is trained with the seed{'' if one else 's'} {seeds}."]
    search = collected.study.search
    if search is not None:
        sampler = {"tpe": "tree-structured Parzen estimators [@bergstra2011tpe]", "grid": "a grid", "random": "random search"}
        pruned = "" if search.pruner == "none" else f", pruned by the {search.pruner} pruner"
        found.append(
            "Hyper-parameters of each row are chosen on validation with Optuna [@akiba2019optuna] by "
            f"{sampler[search.sampler]}{pruned}, with the same space and budget for every row."
        )
    return found


def _controls(collected: "Collected") -> list[str]:
    embedding = graph_rows(collected)
    joint = only(collected, (row for row in collected.rows if row not in embedding))
    whole = "graph" if len(embedding) == len(configs(collected)) else "shop"
    graph = [_CONTROLS[value] for value in _values(collected, "data.controls.graph") if value in _CONTROLS]
    # Graph embedding reads neither the shop's texts nor its events.
    text = [_TEXT_CONTROLS[value] for value in _values(joint, "data.controls.text") if value in _TEXT_CONTROLS]
    found = []
    if graph or text:
        found.append(
            f"Control rows train on a changed {whole}: {'; '.join([*graph, *text])}. Shuffles are drawn anew for each seed."
        )
    for key, what, read in (("graph_share", "training edges", collected), ("events_share", "training events", joint)):
        shares = sorted(value for value in _values(read, f"data.controls.{key}") if value < 1)
        if shares:
            found.append(f"Some rows keep {_and(f'{100 * share:g} %' for share in shares)} of the {what}.")
    if found:
        found.append(f"What is measured stays that of the real {whole}.")
    return found


# ------------------------------------------------------------------------------------------------------------ evaluation
def _evaluation(collected: "Collected") -> list[str]:
    config, found = reference_config(collected), []
    protocols: dict[str, Callable[[], str]] = {
        "link_prediction": lambda: (
            "every entity is ranked as head and as tail, other true triples filtered out [@bordes2013transe]"
        ),
        "triple_classification": lambda: (
            "a triple is called true if its score is above the threshold that is most often right on validation triples of its "
            "relation"
        ),
        "search": lambda: "every product is ranked for every judged query",
        "recommendation": lambda: (
            "every product is ranked for every user"
            + (", those of the user's history left out" if at(config, "evaluation.exclude_seen") else "")
        ),
    }
    for task, metrics in collected.study.tasks.items():
        if task in collected.examples:
            size = f"{len(collected.examples[task].example):,}"
            shown = _and(metric_label(metric) for metric in metrics)
            how = protocols[task]() if task in protocols else escape(_protocol(task))
            found.append(f"{task_label(task).capitalize()} ({shown}; {size} test examples){f': {how}' if how else ''}.")
    if any(at(each, "data.split.unseen_entities") for each in configs(collected).values()):
        found.append(
            "Of each test triple one end is held out of training: one direction asks for it, the other gives it and asks for "
            "the end that training knows; the metrics are over both"
            + (", and the segment *seen* tells them apart." if "seen" in collected.study.segments else ".")
        )
    if any(metric.startswith("ndcg") for metrics in collected.study.tasks.values() for metric in metrics):
        found.append("NDCG [@jarvelin2002ndcg] divides by the ideal over all relevant products.")
    if any(not examples.measures for examples in collected.examples.values()):
        found.append("Ties count as the mean of the optimistic and the pessimistic rank [@berrendorf2020ranks].")
    if collected.baselines:
        names = [escape(name) + _baseline_citation(name) for name in collected.baselines]
        # Those of graphs have no settings.
        chosen = (
            ""
            if set(collected.examples) <= {"link_prediction", "triple_classification"}
            else ", their settings chosen on validation"
        )
        found.append(f"Simple baselines on the same examples{chosen}: {_and(names)}.")
    return found


def _protocol(task: str) -> str:
    """What a plug-in's task says of itself; nothing where the plug-in is not to be had."""
    from fusionjax.tasks import TASKS  # imports JAX

    try:
        return TASKS[task].protocol
    except UserError:
        return ""


def _baseline_citation(name: str) -> str:
    key = next((key for known, key in _BASELINE_CITATIONS.items() if known in name.lower().replace("_", "-")), None)
    return f" [@{key}]" if key else ""


def _statistics(collected: "Collected", analysis: Analysis) -> list[str]:
    settings = analysis.settings
    one = len(collected.seeds) == 1
    found = [
        "Tables show the mean over seeds" + (" (one seed)." if one else " ± the standard deviation over seeds."),
        f"Intervals (95 %) come from {settings.get('resamples')} resamples of the examples, the same for all rows"
        " [@owen2007pigeonhole]"
        + ("." if one else ", and allow for the choice of seeds by a variance component with Student's tails."),
        f"Rows are compared with {escape(analysis.reference)}, paired by example"
        + ("" if one else " and seed")
        + ", by a randomisation test over examples [@smucker2007randomisation]"
        + f" ({settings.get('randomisations')} random sign flips)"
        + (
            "."
            if one
            else "; a difference must also stand out from its variance over seeds and examples (the larger p counts)."
        ),
    ]
    correction = {
        "holm": "Holm's method [@holm1979]",
        "benjamini_hochberg": "Benjamini and Hochberg's method [@benjamini1995fdr]",
    }
    name, level = settings["correction"], f"the level is {settings['alpha']:g}"
    found.append(f"p-values are corrected over each table by {correction.get(name, CORRECTIONS.get(name, name))}; {level}.")
    found.append(
        "If nothing is significant the minimum detectable effect is given [@bloom1995mde], at power "
        f"{settings.get('power', 0.8):g}."
    )
    if len(collected.rows) + len(collected.baselines) > 1:
        found.append("Critical-difference diagrams follow Demšar [@demsar2006], with examples as blocks.")
    return found


def _software(collected: "Collected") -> list[str]:
    known = versions(collected)
    alone = len(graph_rows(collected)) == len(configs(collected))  # graph embedding has no Flax modules
    names = ("fusionjax", "python", "jax", "optax" if alone else "flax", "numpy")
    shown = {name: f"{name} {', '.join(known[name])}" for name in names if name in known}
    text = "Models are written in JAX [@jax]" + ("" if alone else " and Flax [@flax]")
    found = [f"{text} ({', '.join(escape(each) for each in shown.values())})." if shown else f"{text}."]
    plugins = {
        (f"{one['package'] or ''} {one['version'] or ''}".strip() or "no package", f"{one['group']}: {one['name']}")
        for record in measured(collected)
        for one in record.get("plugins") or ()
    }
    for package in sorted({package for package, _ in plugins}):
        parts = [code(part) for of, part in sorted(plugins) if of == package]
        found.append(f"Of {escape(package)}, which is no part of FusionJAX, come {_and(parts)}.")
    return found
