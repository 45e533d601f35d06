"""Keys that mean nothing given the others: left out of methods texts, and named when they were set."""

from collections.abc import Iterable, Mapping
from typing import Any

from fusionjax import names
from fusionjax.config.schema import Run
from fusionjax.config.upgrade import GRAPH_PROFILE

_ENTITY, _LINKS, _OPTIMISER = "model.entity", "objectives.link_prediction", "train.optimiser"
_GROUPS = ("encoder", "tables", "heads")
"""Of parameters: those that `train.optimiser.rules` names."""
_SCORED = ("scorer", "norm", "margin", "relation_dim", "convolution.", "dropout.")
"""Of `model.entity`: what link prediction alone reads."""


def unread(run: Run) -> list[str]:
    """Dotted keys of a config that were set and are not read.

    A value counts as set if it is neither the default nor what a graph alone has by `upgrade.GRAPH_PROFILE`.
    """
    default, profile = dict(flat(Run().model_dump(mode="json"))), dict(flat(GRAPH_PROFILE))
    here = dict(flat(run.model_dump(mode="json")))
    nothing = [*meaningless(here), *_of_other_objectives(run)]
    found = [
        key
        for key, value in here.items()
        if value not in ([], {}, *(values[key] for values in (default, profile) if key in values)) and is_in(key, nothing)
    ]
    varied = {key for setting in run.settings for key in setting}
    return found + [f"settings: {key}" for key in sorted(varied) if is_in(key, nothing)]


def meaningless(config: Mapping[str, Any]) -> list[str]:
    """Keys, and starts of keys (`objectives.link_prediction.negatives.`), of graph embedding that nothing reads.

    Args:
      config: a whole config, flattened.
    """
    scorer, text = config[f"{_ENTITY}.scorer"], config[f"{_ENTITY}.text.use"]
    # What a plug-in's scorer reads only its class says: then nothing is called unread.
    read = names.SCORERS[scorer].reads if scorer in names.SCORERS else names.ENTITY_KEYS
    training, sampler = config[f"{_LINKS}.training"], config[f"{_LINKS}.negatives.sampler"]
    loss, penalty = config[f"{_LINKS}.loss.name"], config[f"{_LINKS}.penalty.name"]
    rules = [config[f"{_OPTIMISER}.name"], *(config.get(f"{_OPTIMISER}.rules.{group}") for group in _GROUPS)]
    nothing = {
        f"{_ENTITY}.norm": "norm" not in read,
        f"{_ENTITY}.margin": "margin" not in read,
        f"{_ENTITY}.relation_dim": "relation_dim" not in read,
        f"{_ENTITY}.convolution.": "convolution" not in read,
        f"{_ENTITY}.text.checkpoint": text == "none",
        f"{_ENTITY}.text.hidden": text == "none",
        f"{_ENTITY}.text.align": text != "align",
        f"{_ENTITY}.text.temperature": text != "align",
        **{f"{_ENTITY}.dropout.{place}": "dropout" not in read for place in ("input", "feature", "hidden")},
        f"{_LINKS}.negatives.": training != "negatives",
        f"{_LINKS}.negatives.power": sampler != "degree",
        f"{_LINKS}.loss.margin": loss != "margin",
        f"{_LINKS}.loss.temperature": loss != "self_adversarial",
        f"{_LINKS}.loss.label_smoothing": training == "negatives",
        f"{_LINKS}.loss.targets": training == "negatives" or loss != "softmax",
        f"{_LINKS}.penalty.entity": penalty == "none",
        f"{_LINKS}.penalty.relation": penalty in ("none", "dura"),
        f"{_LINKS}.penalty.weighted": penalty in ("none", "dura"),
        f"{_OPTIMISER}.rows": training != "negatives" and bool(config[f"{_LINKS}.weight"]),
        f"{_OPTIMISER}.factor": config[f"{_OPTIMISER}.schedule"] != "plateau",
        f"{_OPTIMISER}.wait": config[f"{_OPTIMISER}.schedule"] != "plateau",
        f"{_OPTIMISER}.weight_decay": "adamw" not in rules,
        "train.validate_every": config["train.validate_every_epochs"] > 0,
    }
    return [key for key, true in nothing.items() if true]


def _of_other_objectives(run: Run) -> list[str]:
    """Keys of objectives without a weight, and of towers that none of the others trains."""
    used, sources = tuple(run.objectives.used()), run.model.product.sources
    text = {"alignment", "query_product", "masked_words", "distillation"} & set(used) or "text" in sources
    entity = {"alignment", "link_prediction"} & set(used) or "entity" in sources
    found = [
        f"objectives.{name}.{key}"
        for name, one in run.objectives.every().items()
        if name not in used and name not in run.objectives.plugins
        for key in [*(f"{inner}." for inner in type(one).model_fields), *type(one).model_fields]
        if key != "weight"
    ]
    if run.only_objective == "link_prediction":
        found += ["text.", "model.dim", "model.heads", "model.user.", "model.product.source_dropout", f"{_ENTITY}.behaviour"]
        found += [f"{_OPTIMISER}.learning_rate.encoder", f"{_OPTIMISER}.learning_rate.heads", f"{_OPTIMISER}.layer_decay"]
        found += [f"{_OPTIMISER}.rules.encoder", f"{_OPTIMISER}.rules.heads", "objectives.temperature"]
    elif not text:
        found.append("text.")
    if not entity:
        found.append(f"{_ENTITY}.")
    elif "link_prediction" not in used:
        found += [f"{_ENTITY}.{key}" for key in _SCORED]
    return found


def is_in(key: str, keys: Iterable[str]) -> bool:
    """Whether a key is one of those, or starts with one that ends in a dot."""
    return any(key == one or (one[-1] == "." and key.startswith(one)) for one in keys)


def flat(section: Mapping[str, Any], start: str = "") -> Iterable[tuple[str, Any]]:
    """(dotted key, value) of everything in a dumped section."""
    for key, value in section.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{start}{key}.")
        else:
            yield f"{start}{key}", value
