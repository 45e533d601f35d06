"""Keys of graph embedding that mean nothing given the others: left out of methods texts, and named when they were set."""

from collections.abc import Iterable, Mapping
from typing import Any

from fusionjax.config.schema import Run

_DISTANCES = ("transe", "rotate", "rotate_l2", "pairre")
_INSIDE = ("rescal", "tucker", "conve")
"""Scorers with dropout inside."""
_READ = ("seed", "seeds", "kge.", "data.", "evaluation.", "track.", "train.select")


def unread(run: Run) -> list[str]:
    """Dotted keys of the config that were set and are not read; of the joint model's runs those of `kge` alone."""
    default, here = (dict(flat(each.model_dump(mode="json"))) for each in (Run(), run))
    if run.kge.scorer is None:
        return [key for key, value in here.items() if key.startswith("kge.") and default.get(key) != value]
    nothing = ["evaluation.tasks", *(f"kge.{key}" for key in meaningless(dict(flat(run.kge.model_dump(mode="json")))))]
    set_here = [key for key, value in here.items() if key not in default or default[key] != value]
    found = [key for key in set_here if not is_in(key, _READ) or is_in(key, nothing)]
    varied = {key for setting in run.kge.settings for key in setting}
    return found + [f"kge.settings: {key}" for key in sorted(varied) if is_in(f"kge.{key}", nothing)]


def meaningless(kge: Mapping[str, Any]) -> list[str]:
    """Keys, and starts of keys (`negatives.`), that nothing reads.

    Args:
      kge: the section, flattened.
    """
    scorer, training, loss, penalty = kge["scorer"], kge["training"], kge["loss.name"], kge["penalty.name"]
    nothing = {
        "norm": scorer != "transe",
        "margin": scorer not in _DISTANCES,
        "relation_dim": scorer != "tucker",
        "convolution.": scorer != "conve",
        "text.checkpoint": kge["text.use"] == "none",
        "text.hidden": kge["text.use"] == "none",
        "text.align": kge["text.use"] != "align",
        "text.temperature": kge["text.use"] != "align",
        "negatives.": training != "negatives",
        "negatives.power": kge["negatives.sampler"] != "degree",
        "optimiser.rows": training != "negatives",
        "optimiser.factor": kge["optimiser.schedule"] != "plateau",
        "optimiser.wait": kge["optimiser.schedule"] != "plateau",
        "loss.margin": loss != "margin",
        "loss.temperature": loss != "self_adversarial",
        "loss.label_smoothing": training == "negatives",
        "penalty.entity": penalty == "none",
        "penalty.relation": penalty in ("none", "dura"),
        "penalty.weighted": penalty in ("none", "dura"),
        "dropout.input": scorer not in _INSIDE,
        "dropout.feature": scorer not in _INSIDE,
        "dropout.hidden": scorer not in _INSIDE,
    }
    return [key for key, true in nothing.items() if true]


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
