"""YAML as a config needs it: plain values only, every key with its line, no key twice.

Scalars follow YAML 1.2 (`1e-3` is a number, `no` and `1:30` are text) with two differences: digits may be grouped
(`1_000_000`), and there are no infinities, which no key takes (`.inf` is text).
"""

import dataclasses
import math
import re
from typing import Any

import yaml

from fusionjax.errors import UserError

Path = tuple[str | int, ...]


@dataclasses.dataclass
class Tree:
    """Plain nested values and where each of them was written (`file:line` or `command line`)."""

    values: dict[str, Any]
    origins: dict[Path, str]

    def origin(self, path: Path) -> str:
        """Where the value at `path`, or else the nearest thing around it, was written."""
        for length in range(len(path), -1, -1):
            if path[:length] in self.origins:
                return self.origins[path[:length]]
        return "defaults"


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers = {}  # noqa: RUF012  (filled below; PyYAML reads it from the class)


_DIGITS = "+-0123456789."
for _kind, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    # `int` before `float`: the first that matches is taken, and digits alone match both. `007` is text.
    ("int", r"[-+]?(?:0|[1-9][0-9_]*)|0x[0-9a-fA-F]+", _DIGITS),
    ("float", r"[-+]?(?:(?:0|[1-9][0-9_]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?", _DIGITS),
    ("merge", r"<<", "<"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", re.compile(rf"^(?:{_pattern})$"), list(_first))


class _Dumper(yaml.SafeDumper):
    """Quotes whatever either YAML version would read as something else than text."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


# PyYAML writes a string bare only if no resolver claims it: with ours before its own, `1e-3` and `no` are both quoted.
_Dumper.yaml_implicit_resolvers = {
    first: [*_Loader.yaml_implicit_resolvers.get(first, []), *yaml.SafeDumper.yaml_implicit_resolvers.get(first, [])]
    for first in {*_Loader.yaml_implicit_resolvers, *yaml.SafeDumper.yaml_implicit_resolvers}
}


def _represent_float(dumper: _Dumper, value: float) -> yaml.Node:
    text = repr(value)  # shortest text that reads back to the same number
    return dumper.represent_scalar(
        "tag:yaml.org,2002:float", text if "." in text or "e" not in text else text.replace("e", ".0e")
    )


_Dumper.add_representer(float, _represent_float)


def parse(text: str, source: str, lines: bool = True) -> tuple[Any, dict[Path, str]]:
    """Parses one YAML document into plain values and their origins (`source:line`, or `source` alone without `lines`).

    Raises `UserError` for a syntax error, a key given twice, a key that is no text, a tag, an alias that holds itself.
    """

    def at(mark: yaml.Mark | None) -> str:
        return f"{source}:{mark.line + 1}" if lines and mark is not None else source

    loader = None
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        raise UserError(f"{at(error.problem_mark or error.context_mark)}: not valid YAML: {error.problem}") from None
    except yaml.YAMLError as error:
        raise UserError(f"{source}: not valid YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise UserError(f"{source}: nested too deeply") from None
    finally:
        if loader is not None:
            loader.dispose()
    origins: dict[Path, str] = {}

    def refuse(mark: yaml.Mark | None, path: Path, problem: str) -> UserError:
        return UserError(f"{at(mark)}: {dotted(path)}: {problem}" if path else f"{at(mark)}: {problem}")

    def build(node: yaml.Node, path: Path, around: tuple[int, ...]) -> Any:
        if id(node) in around:
            raise refuse(node.start_mark, path, "an alias that holds itself")
        around = (*around, id(node))
        if isinstance(node, yaml.MappingNode) and node.tag == "tag:yaml.org,2002:map":
            return build_mapping(node, path, around)
        if isinstance(node, yaml.SequenceNode) and node.tag == "tag:yaml.org,2002:seq":
            return [build(item, (*path, i), around) for i, item in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode) and node.tag in _PLAIN:
            try:
                value = loader.construct_object(node)
                if isinstance(value, str):  # joins surrogate pairs, as JSON writes them; half of one is an error
                    value = value.encode("utf-16", "surrogatepass").decode("utf-16")
            except (ValueError, KeyError):
                raise refuse(node.start_mark, path, f"cannot read {node.value!a}") from None
            if isinstance(value, float) and not math.isfinite(value):
                raise refuse(node.start_mark, path, f"expected a finite number, got {node.value}")
            return value
        raise refuse(node.start_mark, path, f"tag '{node.tag}' is not for configs: plain values only")

    def build_mapping(node: yaml.MappingNode, path: Path, around: tuple[int, ...]) -> dict[str, Any]:
        seen: dict[str, int] = {}
        for key, _ in node.value:
            if key.tag not in ("tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"):
                shown = key.value if isinstance(key, yaml.ScalarNode) else "a list or mapping"
                raise refuse(key.start_mark, path, f"a key must be text, got {shown} (quote it)")
            if key.value in seen:
                first = f"; first on line {seen[key.value]}" if lines else ""
                raise refuse(key.start_mark, (*path, key.value), f"key given twice{first}")
            seen[key.value] = key.start_mark.line + 1
        try:
            loader.flatten_mapping(node)  # resolves `<<: *anchor`
        except yaml.MarkedYAMLError as error:
            raise refuse(error.problem_mark, path, f"not valid YAML: {error.problem}") from None
        values: dict[str, Any] = {}
        for key, value in node.value:
            here = (*path, key.value)
            origins[here] = at(key.start_mark)
            values[key.value] = build(value, here, around)
        return values

    if root is None:
        return None, origins
    origins[()] = source
    return build(root, (), ()), origins


_PLAIN = {f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "null")}


def dump(values: dict[str, Any]) -> str:
    """Writes plain values as YAML in the order they have; `parse` reads the same values back."""
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=False, width=120)


def dotted(path: Path) -> str:
    """`('a', 'b', 0)` → `a.b[0]`; the root is `(top level)`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".") or "(top level)"
