"""Methods sentences of rows that are graphs alone, written from the configs that were really run.

What holds for every row is said once; where rows differ, each variant names its rows, or numbers are given as a range. A key
that a row does not read (`negatives.number` of a row trained 1-vs-all) is not looked at: see `graph_settings.effective`.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from fusionjax.studies.facts import at, configs
from fusionjax.studies.graph_settings import (
    GRAPHS,
    SCORERS,
    Settings,
    differing,
    effective,
    facts_of,
    joined,
    named,
    ranged,
    scorer_cited,
    settings,
)
from fusionjax.studies.markdown import code

if TYPE_CHECKING:
    from fusionjax.studies.collect import Collected


def data(collected: "Collected") -> list[str]:
    """What of the data graph embedding reads, and what is held out."""
    rows, found = settings(collected), []
    names = {at(config, "data.name") for config in configs(collected).values()}
    if names - set(GRAPHS) - {"triples"}:
        found.append(
            "Graph embedding reads the graph of these data and nothing else of them, but for texts where they are named."
        )
    found += said(
        rows,
        lambda row: (
            f"the graph is sub-sampled to at most {row['sample']:,} entities by snowball sampling [@goodman1961snowball]: the "
            "first of a breadth-first walk over training triples from an entity drawn at random, with all triples of every "
            "split that have both ends among them; relations without a training triple left go"
            if row.get("sample")
            else None
        ),
        others="the whole graph",
    )
    found += said(
        rows,
        lambda row: (
            f"{100 * row['unseen']:g} % of the entities, drawn at random, are taken out of training with all their triples, "
            "after Daza et al. [@daza2021inductive]; one is passed over if without it another entity or a relation would have "
            "no training triple left; triples between one of them and an entity that training knows are the questions, those "
            "of one half of them in validation and of the other half in test; triples between two of them, and the validation "
            "and test triples of the source between two known entities, are asked for nowhere and stay known to the filter"
            if row.get("unseen")
            else None
        ),
        others="no entity is held out",
    )
    if any(row.get("sample") or row.get("unseen") for row in rows.values()):
        found.append("These draws are the same for all rows and seeds.")
    return found


def model(collected: "Collected") -> list[str]:
    rows = settings(collected)
    scorers: list[str] = list(dict.fromkeys(row["scorer"] for row in rows.values()))
    found = [f"Entities and relations of the graph are embedded with {joined(scorer_cited(each) for each in scorers)}."]
    parts: dict[str, list[str]] = {}
    for name in sorted(scorers, key=[*SCORERS, *scorers].index):
        if facts_of(name).numbers:
            parts.setdefault(facts_of(name).numbers, []).append(scorer_cited(name).split(" ")[0])
    complex_ones = [f"for {joined(found)} {what}" for what, found in parts.items()]
    dims = ranged(rows, "dim", whole=True)
    found.append(f"An entity has {dims} real numbers{' (' + '; '.join(complex_ones) + ')' if complex_ones else ''}.")
    found += said(
        rows,
        lambda row: f"relations have {row['relation_dim']} real numbers" if row.get("relation_dim") else None,
    )
    norms = sorted({row["norm"] for row in rows.values() if row.get("norm")})
    if norms:
        found.append(f"TransE's distance is {joined(f'L{norm}' for norm in norms)}.")
    found += said(
        rows,
        lambda row: f"distances are subtracted from {row['margin']:g}" if row.get("margin") else None,
    )
    found += said(
        rows,
        lambda row: (
            f"the convolution has {row['convolution.filters']} filters of {row['convolution.kernel']} × "
            f"{row['convolution.kernel']}"
            if "convolution.filters" in row
            else None
        ),
    )
    found += said(
        rows,
        lambda row: (
            "heads are asked for as tails of an inverse relation with a vector of its own [@lacroix2018n3]"
            if row["reciprocal"]
            else "heads are asked for with the relation's own vector"
        ),
    )
    if any(row["text.use"] != "none" for row in rows.values()):
        found += said(rows, _text)
    found += said(
        rows,
        lambda row: (
            "a learned projection of the entities' numbers, standardised, with a mark where one is known, is added to their "
            "vectors"
            if row["literals"]
            else None
        ),
        others="no numbers",
    )
    return [*found, *said(rows, _init)]


def objectives(collected: "Collected", joint: bool = False) -> list[str]:
    """How triples are trained; `joint`: of all rows that train them, not of graphs alone."""
    rows = settings(collected)
    if joint:
        every = configs(collected).items()
        rows = {row: effective(config) for row, config in every if at(config, "objectives.link_prediction.weight")}
    found = said(rows, _training)
    found += said(rows, _loss)
    found += said(rows, _penalty, others="no penalty on the vectors")
    if any(row.get("penalty.entity") or row.get("penalty.relation") for row in rows.values()):
        weights = [
            f"{what} {ranged(rows, f'penalty.{key}')}"
            for key, what in (("entity", "entities"), ("relation", "relations"))
            if any(f"penalty.{key}" in row for row in rows.values())
        ]
        found.append(f"Weights of the penalties: {', '.join(weights)}.")
    found += said(
        rows,
        lambda row: (
            f"the relation is foretold from head and tail too, with weight {row['relation_prediction']:g} [@chen2021relation]"
            if row.get("relation_prediction")
            else None
        ),
        others="no relation prediction",
    )
    where = {
        "entity": "the given entity's vector",
        "relation": "the relation's vector",
        "input": "the scorer's input",
        "feature": "relation matrices or feature maps",
        "hidden": "the query",
    }
    rates = [
        f"{what} {ranged(rows, f'dropout.{key}')}"
        for key, what in where.items()
        if any(row.get(f"dropout.{key}") for row in rows.values())
    ]
    if rates:
        some = [name for name, row in rows.items() if any(row.get(f"dropout.{key}") for key in where)]
        whose = "is of" if len(some) == len(rows) else f"({named(some)} alone) is of"
        found.append(f"Dropout [@srivastava2014dropout] {whose} {', '.join(rates)}.")
    return found


def training(collected: "Collected") -> list[str]:
    rows = settings(collected)
    found = said(rows, _optimiser)
    found.append(f"Learning rates: {ranged(rows, 'optimiser.learning_rate')}.")
    found += said(rows, _schedule)
    unit = {
        "triples, inverse ones counted": [r for r in rows.values() if not _asks_questions(r) and r["reciprocal"]],
        "triples": [r for r in rows.values() if not _asks_questions(r) and not r["reciprocal"]],
        "questions": [r for r in rows.values() if _asks_questions(r)],
    }
    parts = [f"{ranged(dict(enumerate(some)), 'batch_size', whole=True)} {what}" for what, some in unit.items() if some]
    found.append(f"A batch has {' or '.join(parts)}.")
    found += said(
        rows,
        lambda row: (
            f"models are trained for {'at most ' if row['patience'] else ''}{_length(row)} and validated {_interval(row)}"
            + (f"; {row['patience']} validations without a better one end the training" if row["patience"] else "")
        ),
    )
    found += said(
        rows,
        lambda row: (
            "what is validated and tested is the moving average of the parameters as each epoch leaves them, "
            f"{row['average']:g} of it what was there before [@polyak1992averaging]"
            if row.get("average")
            else None
        ),
        others="the parameters themselves",
    )
    validated = [
        "link_prediction" in (collected.records[row, seed].get("valid") or {})
        for row in rows
        for seed in collected.seeds
        if (row, seed) in collected.records
    ]
    if not any(validated):
        found.append("There are no validation triples: the last parameters are tested once.")
    else:
        found += said(
            rows,
            lambda row: (
                "the parameters with the best filtered MRR on validation"
                + (", of the questions whose answer training has not seen," if row.get("unseen") else "")
                + " are tested once"
            ),
        )
    together = [row for row, config in configs(collected).items() if at(config, "data.controls.graph") in (None, "real")]
    if collected.study.together and len(collected.seeds) > 1 and together:
        found.append(
            "Seeds of a row that are trained at the same time share one compiled program, each with its own start, order and "
            "draws."
        )
    if differing(collected):
        found.append("Report.md lists the settings in which rows differ, under *What the rows are*.")
    return found


# --------------------------------------------------------------------------------------------------------------- phrases
def _text(row: Settings) -> str:
    use = row["text.use"]
    if use == "none":
        return "an entity's vector is a row of a table"
    hidden = row["text.hidden"]
    kind = f"with one hidden layer of {hidden}" if hidden else "linear"
    source = f"the vector that the frozen encoder {code(str(row['text.checkpoint']))} gives its text"
    projected = f"a learned projection ({kind}) of {source}"
    if use == "replace":
        return f"an entity's vector is {projected}, alone"
    if use == "add":
        whole = f"an entity's vector is the sum of a row of a table and {projected}"
        return f"{whole} (the latter alone where training has not seen it)"
    return (
        f"an entity's vector is a row of a table, drawn to {projected} by InfoNCE in both directions within the batch "
        f"[@oord2018infonce; @radford2021clip] (weight {row['text.align']:g}, temperature {row['text.temperature']:g}); "
        "one that training has not seen is measured by the projected text"
    )


def _init(row: Settings) -> str:
    name, scale = row["init.name"], row["init.scale"]
    start = {
        "paper": "as the scorer's authors have it",
        "xavier_normal": "Xavier-normal",
        "xavier_uniform": "Xavier-uniform",
        "normal": f"normal with standard deviation {scale:g}",
        "uniform": f"uniform between −{scale:g} and {scale:g}",
    }[name]
    scaled = f", times {scale:g}" if scale != 1 and name not in ("normal", "uniform") else ""
    return f"tables start {start}{scaled}"


def _asks_questions(row: Settings) -> bool:
    """Whether a batch counts questions, not triples."""
    return row["training"] == "k_vs_all" or bool(row.get("loss.targets"))


def _length(row: Settings) -> str:
    return f"{row['steps']:,} steps" if row.get("steps") is not None else f"{row['epochs']:,} epochs"


def _interval(row: Settings) -> str:
    if row["validate_every"]:
        return f"every {row['validate_every']} epochs" if row["validate_every"] > 1 else "every epoch"
    steps = row["validate_every_steps"]
    return f"every {steps:,} steps" if steps else "ten times"


def _training(row: Settings) -> str:
    if row["training"] == "one_vs_all":
        answers = row.get("loss.targets")
        together = f", up to {answers} triples that ask the same together" if answers else ""
        return f"each training triple is scored against all entities (1-vs-all [@lacroix2018n3]){together}"
    if row["training"] == "k_vs_all":
        scored = "each entity and relation given is scored with all its answers against all entities at once"
        return f"{scored} (k-vs-all [@dettmers2018conve])"
    power = row.get("negatives.power", 1)
    drawn = {
        "uniform": "uniformly from all entities",
        "degree": "in proportion to the degree" + (f" to the power of {power:g}" if power != 1 else ""),
        "typed": "uniformly from the entities that the relation has at that end in training",
    }.get(row["negatives.sampler"], f"by {code(row['negatives.sampler'])}")
    asked = "its tail and for its head"
    if not row["reciprocal"]:
        asked = {
            "both": asked,
            "one": "its tail or its head, drawn evenly",
            "bernoulli": "its tail or its head, drawn by the relation's mean tails a head and heads a tail [@wang2014transh]",
        }[row["negatives.queries"]]
    sharing = row["negatives.shared"]
    shared = f", each draw shared by {'a batch' if sharing == 'batch' else f'{sharing} questions'}" if sharing else ""
    logq = ", each counting for several so that all entities are stood for (logQ [@bengio2008sampling])"
    logq = logq if row.get("negatives.logq") else ""
    filtered = ", true triples of training left out" if row["negatives.filtered"] else ""
    return (
        f"each training triple is asked for {asked}, its answer scored against {row['negatives.number']:,} corruptions drawn "
        f"{drawn}{shared}{filtered}{logq}"
    )


def _loss(row: Settings) -> str:
    kind = {
        "softmax": "softmax cross-entropy"
        + (" in which all answers share the target" if row["training"] == "k_vs_all" else "")
        + (
            f", each question counting once for each of its answers and asked once for every {row['loss.targets']} of them"
            if row.get("loss.targets") and row["training"] == "k_vs_all"
            else ""
        ),
        "bce": "binary cross-entropy of each candidate",
        "margin": f"the hinge between true triple and corruption with margin {row.get('loss.margin', 0):g} [@bordes2013transe]",
        "self_adversarial": (
            "binary cross-entropy, corruptions weighted self-adversarially with temperature "
            f"{row.get('loss.temperature', 0):g} [@sun2019rotate]"
        ),
    }[row["loss.name"]]
    smoothing = row.get("loss.label_smoothing")
    return f"the loss is {kind}" + (f", labels smoothed by {smoothing:g} [@szegedy2016inception]" if smoothing else "")


def _penalty(row: Settings) -> str | None:
    name = row["penalty.name"]
    if name == "none" or not (row.get("penalty.entity") or row.get("penalty.relation")):
        return None
    if name == "dura":
        return "vectors of a batch's triples are held by DURA [@zhang2020dura]"
    of = "of a batch's triples" if row["penalty.weighted"] else "of whole tables, once a batch,"
    return f"vectors {of} are held by {'the N3 penalty [@lacroix2018n3]' if name == 'n3' else 'their squares (L2)'}"


def _optimiser(row: Settings) -> str:
    name = {
        "adagrad_torch": "Adagrad [@duchi2011adagrad], whose sum of squares starts at 0 as in PyTorch",
        "adagrad_optax": "Adagrad [@duchi2011adagrad], whose sum of squares starts at 0.1 as in Optax",
        "adam": "Adam [@kingma2015adam]",
        "adamw": "AdamW [@loshchilov2019adamw]",
        "sgd": "stochastic gradient descent",
    }[row["optimiser.name"]]
    lazy = {
        "sparse": ", lazily: moments of entities outside a batch stand still",
        "auto": ", lazily (moments of entities outside a batch stand still) where it is cheaper to update only a batch's rows",
    }
    return f"the optimiser is {name}{lazy.get(row.get('optimiser.rows', ''), '')}"


def _schedule(row: Settings) -> str:
    if row["optimiser.schedule"] == "constant":
        return "the learning rate is constant"
    if row["optimiser.schedule"] in ("linear", "cosine"):
        return f"the learning rate falls to 0 over the training ({row['optimiser.schedule']} schedule)"
    wait = row["optimiser.wait"]
    return (
        f"the learning rate is multiplied by {row['optimiser.factor']:g} after more than {wait} "
        f"validation{'' if wait == 1 else 's'} without a better one"
    )


# ----------------------------------------------------------------------------------------------------------------- words
def said(rows: Mapping[str, Settings], phrase: Callable[[Settings], str | None], others: str = "") -> list[str]:
    """What a phrase says of each row, as one sentence: plainly if it is the same of all, else each with its rows.

    Args:
      phrase: of one row; `None`: nothing to say of it.
      others: said of rows without a phrase, where other rows have one.
    """
    groups: dict[str, list[str]] = {}
    for name, row in rows.items():
        groups.setdefault(phrase(row) or "", []).append(name)
    if set(groups) <= {""}:
        return []
    if len(groups) == 1:
        (text,) = groups
        return [f"{text[0].upper()}{text[1:]}."]
    nothing = groups.pop("", [])
    parts = [f"{named(names)}: {text}" for text, names in groups.items()]
    if nothing and others:
        parts.append(f"{named(nothing)}: {others}")
    text = "; ".join(parts)
    return [f"{text[0].upper()}{text[1:]}."]
