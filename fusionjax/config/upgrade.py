"""Yesterday's keys of a run config → today's, wherever a key may stand: files, overrides, studies, searches, stored records.

Version 1 of the schema had two kinds of run. A config in which `kge.scorer` named a scorer trained a graph alone and read of
the other sections only `seed`, `seeds`, `data`, `evaluation`, `track` and `train.select`; any other config trained the joint
model and read nothing of `kge`. Today there is one kind, so keys of `kge` are renamed, and where the config was a graph's, the
values that `kge` had as defaults (`GRAPH_PROFILE`) lie beneath all layers.

Keys are renamed layer by layer and keep their origins, so that an error still names the line the old key stands on.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from fusionjax.config.schema import VERSION
from fusionjax.config.yaml_tree import Path, Tree, dotted
from fusionjax.errors import UserError, nearest

_LINKS, _ENTITY, _TRAIN = "objectives.link_prediction", "model.entity", "train"
RENAMED = {
    **{
        f"kge.{key}": f"{_ENTITY}.{key}"
        for key in ("scorer", "dim", "relation_dim", "norm", "margin", "convolution", "init", "dropout", "text", "literals")
    },
    **{
        f"kge.{key}": f"{_LINKS}.{key}"
        for key in ("training", "reciprocal", "block", "negatives", "loss", "relation_prediction", "penalty", "batch_size")
    },
    "kge.negatives.questions": f"{_LINKS}.negatives.queries",
    "kge.loss.answers": f"{_LINKS}.loss.targets",
    **{f"kge.{key}": f"{_TRAIN}.{key}" for key in ("epochs", "patience", "average")},
    "kge.validate_every": f"{_TRAIN}.validate_every_epochs",
    "kge.optimiser.learning_rate": f"{_TRAIN}.optimiser.learning_rate.tables",
    **{f"kge.optimiser.{key}": f"{_TRAIN}.optimiser.{key}" for key in ("name", "schedule", "factor", "wait", "rows")},
    "kge.unseen": "data.split.unseen_entities",
    "kge.sample": "data.graph.sample",
    "kge.settings": "settings",
}
"""Key of version 1, or the start of several, → today's."""
_ROWS = {"on": "sparse", "off": "dense"}
GRAPH_PROFILE: dict[str, Any] = {
    "model": {
        "product": {"sources": ["entity"]},
        "entity": {"margin": 0.0, "init": {"name": "xavier_normal", "scale": 1.0}},
    },
    "objectives": {
        **{name: {"weight": 0.0} for name in ("alignment", "query_product", "next_product")},
        "link_prediction": {"training": "one_vs_all", "reciprocal": True, "negatives": {"number": 64, "shared": 0}},
    },
    "train": {
        "steps": None,
        "epochs": 100.0,
        "validate_every_epochs": 5,
        "optimiser": {
            "name": "adagrad_torch",
            "learning_rate": {"tables": 0.1},
            "rows": "auto",
            "schedule": "constant",
            "warmup_share": 0.0,
            "clip_norm": 0.0,
        },
    },
}
"""What a graph alone had as defaults in version 1, where today's are others."""
_NOT_READ_BY_GRAPHS = ("text", "model", "objectives", "train")
"""Sections; of `train` they read `select`."""
_WHOLE = {"data", "text", "model", "objectives", "train", "evaluation"}


Kind = Literal["graph", "joint", ""]


@dataclasses.dataclass
class Upgraded:
    layers: list[Tree]
    """The lowest first; all with today's keys."""
    renamed: dict[str, str]
    """Yesterday's key → today's, or why it is left out, of what the layers had of them."""
    problems: list[str]
    """One line each: origin, key, what to write instead."""


def upgrade(layers: Sequence[Tree], files: int) -> Upgraded:
    """Today's form of a config's layers.

    Args:
      layers: the lowest first.
      files: how many of them, from the lowest on, are files or stored configs; the others are overrides.
    """
    found = Upgraded([], {}, [])
    versions = [_version(layer, found.problems) for layer in layers]
    scorers = [place for place, layer in enumerate(layers) if "scorer" in _kge(layer)]
    graph = bool(scorers) and _kge(layers[scorers[-1]])["scorer"] is not None
    # Above a config of today old keys are but other names; without one they are what version 1 made of them.
    named_only = any(version == VERSION for version in versions[: scorers[0] if scorers else len(layers)])
    last = max((place for place, layer in enumerate(layers) if "kge" in layer.values), default=-1)
    if graph and not named_only:
        found.layers.append(Tree(GRAPH_PROFILE, {}))
    for place, (layer, version) in enumerate(zip(layers, versions, strict=True)):
        kind: Kind = ""
        if not named_only and version < VERSION:
            # A file above all old keys, or an override, may have been written today: what it says counts.
            kind = ("graph" if place <= min(last, files - 1) else "") if graph else "joint"
        found.layers.append(_Layer(layer, version, kind, found).upgraded())
    return found


def today(key: str, value: Any) -> dict[str, Any] | None:
    """What a dotted key and its value are called today; `None`: they are not of version 1."""
    if key == f"{_LINKS}.negatives" and not isinstance(value, Mapping):
        return {f"{_LINKS}.negatives.number": value}
    if key == f"{_LINKS}.self_adversarial":
        if value == 0 and not isinstance(value, bool):
            return {f"{_LINKS}.loss.name": "softmax"}
        return {f"{_LINKS}.loss.name": "self_adversarial", f"{_LINKS}.loss.temperature": value}
    if key == f"{_LINKS}.l2":
        if value == 0 and not isinstance(value, bool):
            return {f"{_LINKS}.penalty.name": "none"}
        # Version 1 weighed the mean over head, relation and tail.
        each = value / 3 if isinstance(value, int | float) and not isinstance(value, bool) else value
        return {f"{_LINKS}.penalty.name": "l2", f"{_LINKS}.penalty.entity": each, f"{_LINKS}.penalty.relation": each}
    if key == "train.optimiser.name" and value == "adagrad":
        return {key: "adagrad_optax"}
    name = renamed(key)
    if name is None:
        return None
    if key == "kge.optimiser.rows" and isinstance(value, str):
        return {name: _ROWS.get(value, value)}
    if key == "kge.settings" and isinstance(value, list):
        return {name: [_setting(one) for one in value]}
    return {name: value}


def renamed(key: str) -> str | None:
    """Today's name of a dotted key of `kge`; `None` for any other."""
    start = next((start for start in sorted(RENAMED, key=len, reverse=True) if f"{key}.".startswith(f"{start}.")), None)
    return None if start is None else RENAMED[start] + key[len(start) :]


def upgrade_params(params: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted keys of a run and their values, as a search stored them."""
    found: dict[str, Any] = {}
    for key, value in params.items():
        found |= today(key, value) or {key: value}
    return found


def name_in_space(key: str) -> str:
    """Today's name of a key of a search's space."""
    return f"{key}.number" if key == f"{_LINKS}.negatives" else renamed(key) or key


def upgrade_space(space: Mapping[str, Any], origin: Callable[[str], str]) -> dict[str, Any]:
    """The space of a search: dotted keys of a run and the values they may take.

    Args:
      origin: key → where it stands, for errors.

    Raises:
      UserError: a key that is several keys today, or one that stands beside today's name of it.
    """
    found: dict[str, Any] = {}
    for key, values in space.items():
        if key in (f"{_LINKS}.self_adversarial", f"{_LINKS}.l2"):
            names = ", ".join(today(key, 1.0) or ())
            raise UserError(
                f"{origin(key)}: {key}: is {names} today: search the number among them, and set the name in the base"
            )
        name = name_in_space(key)
        if name in found or (name != key and name in space):
            raise UserError(f"{origin(key)}: {key}: is {name} today, which stands there too: keep one")
        found[name] = _choices(key, values)
    return found


def _choices(key: str, values: Any) -> Any:
    if not isinstance(values, Mapping) or not isinstance(values.get("choices"), list):
        return values
    return {**values, "choices": [next(iter((today(key, one) or {key: one}).values())) for one in values["choices"]]}


def _setting(changes: Any) -> Any:
    """One of `kge.settings`: its keys were those of `kge`."""
    if not isinstance(changes, Mapping):
        return changes
    return {renamed(f"kge.{key}") or key: value for key, value in changes.items()}


def _kge(layer: Tree) -> Mapping[str, Any]:
    section = layer.values.get("kge")
    return section if isinstance(section, Mapping) else {}


def _version(layer: Tree, problems: list[str]) -> int:
    """Of a layer; one that does not say counts as of version 1."""
    version = layer.values.get("version", 1)
    if not isinstance(version, int) or isinstance(version, bool):
        return 1  # the schema refuses it
    if version > VERSION:
        problems.append(
            f"{layer.origin(('version',))}: version: {version} is newer than this program, which knows versions up to "
            f"{VERSION}: install a newer fusionjax"
        )
    return version


class _Layer:
    """One layer on its way to today's keys.

    `kind`: of the run that it is part of in version 1, whose unread keys are left out.
    """

    def __init__(self, old: Tree, version: int, kind: Kind, found: Upgraded) -> None:
        self.old, self.version, self.kind, self.found = old, version, kind, found
        self.new = Tree({}, {path: where for path, where in old.origins.items() if path == ()})
        # A whole stored config has every key of both kinds of run: they do not contradict each other.
        self.whole = set(old.values) >= _WHOLE
        self.moved: list[tuple[Path, dict[str, Any]]] = []

    def upgraded(self) -> Tree:
        self._walk(self.old.values, ())
        for path, changes in self.moved:
            for key, value in changes.items():
                self._move(path, tuple(key.split(".")), value)
            self.found.renamed[dotted(path)] = ", ".join(changes)
        if self.version == 1 and self.old.values.get("version") == 1:
            self.new.values.pop("version", None)
            self.new.origins.pop(("version",), None)
        return self.new

    def _walk(self, section: Mapping[str, Any], path: Path) -> None:
        for key, value in section.items():
            here = (*path, key)
            inside = isinstance(value, Mapping) and bool(value)
            if here == ("kge",) and value == {}:
                continue
            if self._is_left_out(here) and not (here[0] == "kge" and inside):
                self._leave_out(here)
            elif inside:
                if here in self.old.origins and here[0] != "kge":
                    self.new.origins[here] = self.old.origins[here]
                self._walk(value, here)
            elif (changes := self._today(here, value)) is None:
                _put(self.new, here, value)
                self._origins(here, here)
            elif self.version == VERSION:
                names = ", ".join(changes)
                self.found.problems.append(f"{self.old.origin(here)}: {dotted(here)}: of version 1; in version 2 it is {names}")
            else:
                self.moved.append((here, changes))

    def _today(self, path: Path, value: Any) -> dict[str, Any] | None:
        if path[0] not in ("kge", "objectives", "train") or not all(isinstance(part, str) for part in path):
            return None
        key = dotted(path)
        changes = today(key, value)
        if changes is None and path[0] == "kge" and len(path) > 1:
            hint = nearest(key, RENAMED)
            name = next((new for old, new in RENAMED.items() if f"'{old}'" in hint), None)
            hint += f" (today {name})" if name else ""
            self.found.problems.append(f"{self.old.origin(path)}: {key}: unknown key{hint}")
            return {}
        return changes

    def _is_left_out(self, path: Path) -> bool:
        if self.kind == "joint":
            return path[0] == "kge"
        if self.kind != "graph":
            return False
        if path[0] == "train" and isinstance(self.old.values["train"], Mapping):
            return len(path) == 2 and path[1] != "select"
        # A graph alone was measured by its links, whatever the tasks.
        return path[0] in _NOT_READ_BY_GRAPHS or path == ("evaluation", "tasks")

    def _leave_out(self, path: Path) -> None:
        if self.whole or self._today(path, None) == {}:
            return
        why = "left out: kge.scorer names no scorer" if path[0] == "kge" else "left out: a graph alone did not read it"
        self.found.renamed[dotted(path)] = why

    def _move(self, old: Path, new: Path, value: Any) -> None:
        there: Any = self.old.values
        for part in new:
            there = there.get(part, _NOTHING) if isinstance(there, Mapping) else _NOTHING
        if there is not _NOTHING and not self.whole and old != new:
            self.found.problems.append(
                f"{self.old.origin(old)}: {dotted(old)}: is {dotted(new)} today, which is set too "
                f"({self.old.origin(new)}): keep one of the two"
            )
            return
        _put(self.new, new, value)
        for length in range(1, len(new)):
            self.new.origins.setdefault(new[:length], self.old.origin(old))
        self.new.origins[new] = self.old.origin(old)
        self._origins(old, new)

    def _origins(self, old: Path, new: Path) -> None:
        """Takes over where a value, and all within it, was written."""
        for path, where in self.old.origins.items():
            if path[: len(old)] == old:
                inner = path[len(old) :]
                if old == ("kge", "settings") and len(inner) > 1:
                    inner = (inner[0], renamed(f"kge.{inner[1]}") or inner[1], *inner[2:])
                self.new.origins[(*new, *inner)] = where


_NOTHING = object()


def _put(tree: Tree, path: Path, value: Any) -> None:
    section = tree.values
    for part in path[:-1]:
        inner = section.setdefault(str(part), {})
        if not isinstance(inner, dict):  # a plain value where a section belongs: the schema says so
            return
        section = inner
    section[str(path[-1])] = value
