"""What a computation is called: a digest of its config. A stored record says by which rule it was named.

Rule 2, today's: over the values that differ from the defaults and the schema's version, so that a key that comes later renames
nothing. Rule 1 is frozen: over all values of a config of version 1 as it was stored, but for keys that came after the first
published results and have the default they came with. It knows nothing of today's schema, and never changes.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from fusionjax.config.load import differing, load_values
from fusionjax.config.schema import Run
from fusionjax.errors import UserError

NAMING = 2
"""The rule by which new records are named."""
_OBJECTIVE = {"every": 1, "offset": 0, "begin": 0.0, "end": 1.0}
_NEGATIVES = {"number": 64, "questions": "both", "sampler": "uniform", "power": 0.75, "shared": 0, "filtered": False}
_OPTIMISER = {"learning_rate": 0.1, "schedule": "constant", "factor": 0.95, "wait": 1, "rows": "auto"}
_KGE = {
    "scorer": None,
    "dim": 128,
    "relation_dim": None,
    "norm": 2,
    "margin": 0.0,
    "convolution": {"height": None, "filters": 32, "kernel": 3},
    "reciprocal": True,
    "init": {"name": "xavier_normal", "scale": 1.0},
    "dropout": {"entity": 0.0, "relation": 0.0, "input": 0.0, "feature": 0.0, "hidden": 0.0},
    "text": {"use": "none", "checkpoint": None, "hidden": 0, "align": 0.1, "temperature": 0.05},
    "literals": False,
    "training": "one_vs_all",
    "block": 0,
    "negatives": {**_NEGATIVES, "logq": False},
    "loss": {"name": "softmax", "margin": 1.0, "temperature": 1.0, "label_smoothing": 0.0, "answers": 0},
    "relation_prediction": 0.0,
    "penalty": {"name": "none", "entity": 0.0, "relation": 0.0, "weighted": True},
    "optimiser": {"name": "adagrad_torch", **_OPTIMISER},
    "batch_size": 512,
    "epochs": 100,
    "validate_every": 5,
    "average": None,
    "patience": 0,
    "unseen": 0.0,
    "sample": 0,
    "settings": [],
}
_CAME_LATER: dict[str, Any] = {
    "text.query_prompt": "",
    "text.product_prompt": "",
    "text.tune": "full",
    "text.tune_layers": 2,
    "text.lora": {"rank": 8, "alpha": 16.0, "targets": ["query", "value", "qkv"]},
    "text.chunk": 0,
    "text.pack": False,
    "text.remat": False,
    "model.heads": "learned",
    "objectives.query_product.loss": "info_nce",
    "objectives.query_product.directions": "both",
    "objectives.query_product.triplet_margin": 0.2,
    "objectives.query_product.triplet_hardest": False,
    "objectives.query_product.matryoshka": [],
    "objectives.query_product.hard_negatives": {
        "file": None,
        "from_file": 0,
        "mined": 0,
        "mine_from": 65536,
        "margin": 0.05,
    },
    "objectives.masked_words": {"weight": 0.0, "batch_size": 64, **_OBJECTIVE, "share": 0.15},
    "objectives.distillation": {
        "weight": 0.0,
        "batch_size": 128,
        **_OBJECTIVE,
        "teacher": None,
        "loss": "cosine",
        "matryoshka": [],
    },
    "train.optimiser.layer_decay": 1.0,
    "seeds": [],
    "kge": _KGE,
    "kge.average": None,
    "kge.loss.answers": 0,
    "kge.negatives.logq": False,
    "data.triples": {
        "separator": "tab",
        "columns": ["head", "relation", "tail"],
        "header": False,
        "on_duplicate": "drop",
        "on_unseen": "keep",
    },
    "data.wikidata5m": {"variant": "transductive"},
}
"""Keys of version 1 that came after the first published results, with their default then."""


def cell_digest(config: Run) -> str:
    """Rule 2: SHA-256 (hexadecimal) of what a cell computes, wherever its data lie and whoever watches."""
    values = differing(config)
    data = {key: value for key, value in values.pop("data", {}).items() if key not in ("source_dir", "cache_dir")}
    return _sha256(values | ({"data": data} if data else {}))


def digest_by_its_rule(record: Mapping[str, Any], origin: str) -> str:
    """The digest that a stored record should have, by the rule it was named by.

    Raises:
      UserError: a newer program named it, or its config is not valid; `origin` says where it is stored.
    """
    naming = record.get("naming", 1)
    if naming == 1:
        return first_digest(record["config"])
    if naming != NAMING:
        raise UserError(f"{origin}: naming: {naming} is newer than this program, which knows rules up to {NAMING}")
    return cell_digest(load_values(record["config"], origin))


def first_digest(config: Mapping[str, Any]) -> str:
    """Rule 1, of a config of version 1 as it was stored."""
    values = dict(config)
    for key, default in _CAME_LATER.items():
        values = _without(values, default, key.split("."))
    values.pop("track", None)
    values["data"] = {key: value for key, value in values["data"].items() if key not in ("source_dir", "cache_dir")}
    return _sha256(values)


def _without(here: dict[str, Any], default: Any, path: Sequence[str]) -> dict[str, Any]:
    key, *rest = path
    if key not in here:
        return here
    if not rest:
        return {name: value for name, value in here.items() if name != key or value != default}
    return {**here, key: _without(here[key], default, rest)}


def _sha256(values: Mapping[str, Any]) -> str:
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
