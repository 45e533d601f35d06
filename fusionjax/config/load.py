"""YAML → `schema.Run` and back: `extends`, dotted overrides, and errors a person can act on.

Layers are merged in this order, later ones winning: the defaults, the files of the `extends` chain from the furthest to the
one asked for, the overrides. Mappings merge key by key, everything else (lists too) is replaced. Setting `train.steps` drops
an earlier layer's `train.epochs`, and the other way round.
"""

import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pydantic

from fusionjax.config import explain, plugins, upgrade, yaml_tree
from fusionjax.config.schema import Run
from fusionjax.config.yaml_tree import Tree, dotted
from fusionjax.errors import UserError, nearest

COMMAND_LINE = "command line"
DIALECT = "https://json-schema.org/draft/2020-12/schema"


def load_run(
    path: str | Path | None,
    overrides: Sequence[str] = (),
    layers: Sequence[Tree] = (),
    renamed: dict[str, str] | None = None,
    dotted: bool = False,
) -> Run:
    """Reads a run config.

    Args:
      path: YAML file (`None`: only the defaults); its `extends: other.yaml` is looked up beside it.
      layers: what lies between the files and the overrides (the rows of a study; see `layer`).
      overrides: `a.b.c=value` each, the value written as in YAML; the last of two with one key wins.
      renamed: gets yesterday's keys that were read, each with today's name of it.
      dotted: imports what the config names as `package.module:Name`: only where its user starts the run.

    Raises:
      UserError: one line for each problem: file and line (or `command line`), dotted key, what was expected, what was got.
    """
    files = [] if path is None else read_chain(Path(path))
    return resolve([*files, *layers, _read_overrides(overrides)], len(files), renamed, dotted)


def load_values(values: Mapping[str, Any], origin: str) -> Run:
    """The run of a stored config, of this version of the schema or an earlier one.

    Raises:
      UserError: as `load_run`; `origin` is where it is stored.
    """
    return resolve([Tree(dict(values), {(): origin})], 1)


def resolve(layers: Sequence[Tree], files: int, renamed: dict[str, str] | None = None, dotted: bool = False) -> Run:
    """The run that layers make on top of the defaults; the first `files` of them are files."""
    merged, problems = merge_layers(layers, files, renamed)
    if dotted:
        plugins.look_up_dotted(merged.values, started=True)
    try:
        # The JSON reader is the strict one that takes a list for a tuple and 1 for 1.0, but no text or true for a number.
        run = Run.model_validate_json(json.dumps(merged.values), strict=True)
    except pydantic.ValidationError as error:
        problems += explain.explain(error, merged, _schema())
    if problems:
        raise UserError("\n".join(problems))
    return run


def merge_layers(layers: Sequence[Tree], files: int, renamed: dict[str, str] | None = None) -> tuple[Tree, list[str]]:
    """(defaults and layers as one, in today's keys, not yet validated; problems so far)."""
    upgraded = upgrade.upgrade(layers, files)
    if upgraded.problems:
        raise UserError("\n".join(upgraded.problems))
    if renamed is not None:
        renamed.update(upgraded.renamed)
    merged = Tree(Run().model_dump(mode="json"), {})
    problems: list[str] = []
    for layer in upgraded.layers:
        _drop_other_length(merged, layer)
        problems += [explain.no_section(layer, path, _schema()) for path in _merge(merged, layer)]
    return merged, problems


@functools.cache
def _schema() -> dict[str, Any]:
    """For errors only: it takes longer than all else here."""
    return Run.model_json_schema()


def layer(values: Mapping[str, Any], origin: str) -> Tree:
    """Dotted keys with their plain values as a layer for `load_run`; `origin` is where errors say they stand."""
    found = Tree({}, {})
    for key, value in values.items():
        path = tuple(key.split("."))
        for part in reversed(path):
            value = {part: value}
        _merge(found, Tree(value, {path[:length]: origin for length in range(1, len(path) + 1)}))
    return found


def dump_run(run: Run) -> str:
    """The resolved config as YAML, every key present, in the order of the schema; itself a valid config."""
    return yaml_tree.dump(run.model_dump(mode="json"))


def json_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of a config file, for editors: the run's keys and `extends`."""
    schema = Run.model_json_schema()
    extends = {"type": "string", "description": "Another config, beside this one, that this one changes."}
    schema["properties"] = {"extends": extends, **schema["properties"]}
    return {"$schema": DIALECT, **schema}


def config_digest(run: Run) -> str:
    """SHA-256 (hexadecimal) of what `run` sets but `track`: equal for equal runs, however they were written.

    Only values that differ from the defaults count, and the schema's version, so that a key that comes later changes nothing.
    """
    return digest_of(differing(run))


def differing(run: Run) -> dict[str, Any]:
    """The values of a config that differ from the defaults, nested as it is, without `track`; `version` always."""
    return {"version": run.version, **_differing(run.model_dump(mode="json", exclude={"track"}), _defaults())}


def digest_of(values: Mapping[str, Any]) -> str:
    """SHA-256 (hexadecimal) of plain values, whatever the order of their keys."""
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def changed_keys(a: Run, b: Run) -> list[tuple[str, Any, Any]]:
    """Dotted keys in which two runs differ, with both values, in the order of the schema; None for a key one has not.

    `track` does not count.
    """
    return differences(*(each.model_dump(mode="json", exclude={"track"}) for each in (a, b)))


def differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Dotted keys in which nested values differ, with both values; None for a key one has not."""

    def walk(path: tuple[str, ...], left: Any, right: Any) -> list[tuple[str, Any, Any]]:
        if isinstance(left, dict) and isinstance(right, dict):
            return [change for key in {**left, **right} for change in walk((*path, key), left.get(key), right.get(key))]
        return [] if left == right else [(dotted(path), left, right)]

    return walk((), a, b)


@functools.cache
def _defaults() -> dict[str, Any]:
    return Run().model_dump(mode="json")


def _differing(values: Mapping[str, Any], default: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict) and isinstance(default.get(key), dict):
            value = _differing(value, default[key])
            if value:
                found[key] = value
        elif key not in default or value != default[key]:
            found[key] = value
    return found


def read_chain(path: Path) -> list[Tree]:
    """The file and all it extends, the furthest first."""
    layers: list[Tree] = []
    names: list[str] = []
    visited: list[Path] = []
    said_at = ""
    while True:
        names.append(str(path))
        if path.resolve() in visited:
            raise UserError(f"{said_at}extends: goes round in a circle: {' → '.join(names)}")
        visited.append(path.resolve())
        layer = _read_file(path, said_at)
        layers.insert(0, layer)
        if "extends" not in layer.values:
            return layers
        base = layer.values.pop("extends")
        where = layer.origins.pop(("extends",))
        if not isinstance(base, str) or not base:
            raise UserError(f"{where}: extends: expected the name of a config file, got {explain.show(base)}")
        said_at = f"{where}: "
        path = path.parent / base


def _read_file(path: Path, said_at: str) -> Tree:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        others = [other.name for pattern in ("*.yaml", "*.yml") for other in path.parent.glob(pattern)]
        hint = nearest(path.name, others) if others else ""
        raise UserError(f"{said_at}{'extends: ' if said_at else ''}no such config file: {path}{hint}") from None
    except OSError as error:
        raise UserError(f"{said_at}{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text (byte {error.start})") from None
    values, origins = yaml_tree.parse(text, str(path))
    if not isinstance(values, dict):
        got = "nothing" if values is None else explain.show(values)
        raise UserError(f"{path}: expected keys and values (`seed: 0`), got {got}")
    return Tree(values, origins)


def _read_overrides(overrides: Sequence[str]) -> Tree:
    """All overrides as one layer."""
    layer = Tree({}, {})
    for override in overrides:
        key, equals, text = override.partition("=")
        path = tuple(part.strip() for part in key.split("."))
        if not equals or not all(path):
            raise UserError(f"{COMMAND_LINE}: '{override}': expected KEY=VALUE, such as train.steps=100")
        value, _ = yaml_tree.parse(text, f"{COMMAND_LINE}: {dotted(path)}", lines=False)
        if path == ("extends",):
            raise UserError(f"{COMMAND_LINE}: extends: stands in a file only; give that file instead")
        for part in reversed(path):
            value = {part: value}
        _merge(layer, Tree(value, {path[:length]: COMMAND_LINE for length in range(len(path) + 1)}))
    return layer


def _drop_other_length(base: Tree, layer: Tree) -> None:
    """A layer that sets `train.steps` takes `train.epochs` back from earlier layers, and the other way round."""
    mine, theirs = base.values.get("train"), layer.values.get("train")
    if isinstance(mine, dict) and isinstance(theirs, dict):
        for one, other in (("steps", "epochs"), ("epochs", "steps")):
            if theirs.get(one) is not None and other not in theirs:
                mine.pop(other, None)


def _merge(base: Tree, layer: Tree) -> list[yaml_tree.Path]:
    """Merges `layer` into `base`, in place; returns (and leaves out) the paths that would put a value where a section is."""
    misplaced: list[yaml_tree.Path] = []

    def into(target: dict[str, Any], source: dict[str, Any], path: yaml_tree.Path) -> None:
        for key, value in source.items():
            here = (*path, key)
            if isinstance(target.get(key), dict):
                if isinstance(value, dict):
                    into(target[key], value, here)
                else:
                    misplaced.append(here)
                continue
            for known in [known for known in base.origins if known[: len(here)] == here]:
                del base.origins[known]
            target[key] = value

    into(base.values, layer.values, ())
    base.origins.update(layer.origins)
    return misplaced
