"""A config file in today's keys, written as a person would: `fusionjax config upgrade FILE`.

Comments stay with the key they stand at or above. What the file meant by defaults that have changed since is written out, so
that the printed file is the same run.
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fusionjax.config import yaml_tree
from fusionjax.config.load import differences, merge_layers, read_chain, resolve
from fusionjax.config.schema import VERSION, Run
from fusionjax.config.upgrade import upgrade
from fusionjax.config.yaml_tree import Tree
from fusionjax.errors import UserError

_WIDTH = 100
Comments = dict[tuple[str, ...], list[tuple[bool, str]]]
"""Path of a key → (whether it has lines of its own, comment) of those that belong to it."""


def rewrite(file: Path) -> str:
    """The file's text in today's keys, with its `extends` as it is.

    Raises:
      UserError: as `load_run`.
    """
    chain = read_chain(file)
    layers, mine = chain[:-1], chain[-1]
    wanted = resolve(chain, len(chain))
    upgraded = upgrade(chain, len(chain))
    if upgraded.layers[-1].values == mine.values and not any(key in mine.values for key in ("kge", "version")):
        return file.read_text(encoding="utf-8-sig")
    version = {"version": VERSION} if _needs_version(mine, upgraded.layers[-1]) else {}
    written = Tree({**version, **upgraded.layers[-1].values}, {})
    lines = {origin: path for path, origin in upgraded.layers[-1].origins.items()}
    without, _ = merge_layers([*layers, written], len(chain))
    for key, _, value in differences(without.values, wanted.model_dump(mode="json")):
        _set(written.values, key.split("."), value)
    assert resolve([*layers, written], len(chain)) == wanted
    header, extends, comments = _comments(file, lines)
    values = {**extends, **_in_order(written.values)}
    return header + "".join(f"{line}\n" for line in _block(values, comments, (), ""))


def _needs_version(old: Tree, new: Tree) -> bool:
    """Only a file that had keys of graphs alone: without `version` such keys above it would be read as version 1's."""
    return "kge" in old.values or "version" in new.values


def _set(values: dict[str, Any], path: list[str], value: Any) -> None:
    for part in path[:-1]:
        values = values.setdefault(part, {})
    if value is None or not isinstance(value, Mapping):
        values[path[-1]] = value


def _in_order(values: Mapping[str, Any]) -> dict[str, Any]:
    """Keys in the order of the schema."""

    def sort(section: Mapping[str, Any], like: Mapping[str, Any]) -> dict[str, Any]:
        places = {key: place for place, key in enumerate(like)}
        found = {}
        for key in sorted(section, key=lambda key: places.get(key, len(places))):
            inner, model = section[key], like.get(key)
            found[key] = sort(inner, model) if isinstance(inner, Mapping) and isinstance(model, Mapping) else inner
        return found

    return sort(values, Run().model_dump(mode="json"))


# ------------------------------------------------------------------------------------------------------------- comments
def _comments(file: Path, lines: Mapping[str, yaml_tree.Path]) -> tuple[str, dict[str, Any], Comments]:
    """(the lines before the first key, `extends` if there is one, the comments by key)."""
    header: list[str] = []
    above: list[str] = []
    extends: dict[str, Any] = {}
    found: Comments = {}
    begun = False
    for number, text in enumerate(file.read_text(encoding="utf-8-sig").splitlines(), 1):
        comment = re.search(r"(?:^|\s)(#.*)$", text)
        if comment and not text[: comment.start(1)].strip():
            (above if begun else header).append(comment.group(1))
            continue
        if not text.strip():
            continue
        begun = True
        if text.startswith("extends:"):
            extends = {"extends": yaml_tree.parse(text, str(file))[0]["extends"]}
        path = tuple(str(part) for part in lines.get(f"{file}:{number}", ()))
        found.setdefault(path, []).extend((True, one) for one in above)
        if comment:
            found[path].append((False, comment.group(1)))
        above = []
    return "".join(f"{line}\n" for line in header), extends, found


# -------------------------------------------------------------------------------------------------------------- writing
def _block(values: Mapping[str, Any], comments: Comments, path: tuple[str, ...], indent: str) -> Iterator[str]:
    for key, value in values.items():
        here = (*path, key)
        line = f"{indent}{_scalar(key)}: {_flow(value)}"
        whole = not isinstance(value, Mapping) or (len(line) <= _WIDTH and _simple(value))
        said = [one for at, some in comments.items() for one in some if at == here or (whole and at[: len(here)] == here)]
        yield from (f"{indent}{text}" for own, text in said if own)
        beside = "".join(f"  {text}" for own, text in said if not own)
        if whole:
            yield f"{line:<36}{beside.removeprefix('  ')}" if beside and len(line) < 36 else f"{line}{beside}"
        else:
            yield f"{indent}{_scalar(key)}:{beside}"
            yield from _block(value, comments, here, f"{indent}  ")


def _simple(value: Mapping[str, Any]) -> bool:
    """Whether a section may stand on one line: no section in it holds another, and few do."""
    inner = [one for one in value.values() if isinstance(one, Mapping)]
    return len(inner) <= 1 and not any(isinstance(each, Mapping) for one in inner for each in one.values())


def _flow(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_scalar(key)}: {_flow(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_flow(one) for one in value) + "]"
    return _scalar(value)


def _scalar(value: Any) -> str:
    if isinstance(value, float) and value == int(value) and abs(value) < 1e15:
        return f"{value:.1f}"
    text = json.dumps(value, ensure_ascii=False)
    if not isinstance(value, str):
        return text
    try:
        plain = yaml_tree.parse(f"{{key: {value}}}", "")[0] == {"key": value}
    except UserError:
        plain = False
    return value if plain else text
