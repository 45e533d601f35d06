"""What is wrong with a config, in words: pydantic's findings, told by the JSON Schema and the place each value came from."""

import json
from collections.abc import Iterator
from typing import Any

import pydantic

from fusionjax.config.yaml_tree import Path, Tree, dotted
from fusionjax.errors import nearest

Schema = dict[str, Any]


def explain(error: pydantic.ValidationError, tree: Tree, schema: Schema) -> list[str]:
    """One line for each problem of `tree.values`: `origin: dotted.key: what was expected, what was got`."""
    lines: dict[str, None] = {}  # ordered, without repeats: a union reports once for each of its members
    for item in error.errors(include_url=False):
        path = _present(item["loc"], tree.values)
        parents = _candidates(schema, path[:-1], schema)
        if item["type"] == "extra_forbidden" or (path and parents and not _child(parents, path[-1], schema)):
            problem = "unknown key" + _suggest(path, parents, schema)
        elif item["type"] == "value_error" and "ctx" in item:
            problem = str(item["ctx"]["error"])
            key = tuple(problem.partition(": ")[0].split("."))
            if not path and len(key) > 1 and tree.origin(key) != "defaults":
                # What does not fit between sections names a key in full: said where that one stands.
                lines[f"{tree.origin(key)}: {problem}"] = None
                continue
        else:
            problem = _mismatch(_value(tree.values, path), _candidates(schema, path, schema), schema, item["msg"])
        lines[f"{tree.origin(path)}: {dotted(path)}: {problem}"] = None
    return list(lines)


def no_section(layer: Tree, path: Path, schema: Schema) -> str:
    """The problem line for a layer that puts a plain value where a section of keys belongs."""
    problem = _mismatch(_value(layer.values, path), _candidates(schema, path, schema), schema, "expected a section of keys")
    return f"{layer.origin(path)}: {dotted(path)}: {problem}"


def show(value: Any) -> str:
    """A value as a person would write it, cut to a readable length."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    text = f"'{value}'" if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:56] + " …" + text[-1]


def _mismatch(value: Any, schemas: list[Schema], root: Schema, fallback: str) -> str:
    if not schemas:
        return f"{fallback}, got {show(value)}"
    hint = ""
    if isinstance(value, str):
        names = [name for schema in schemas for name in schema.get("enum", ()) if isinstance(name, str)]
        hint = nearest(value, names)
        hint = hint if "did you mean" in hint else ""
    return f"expected {' or '.join(_describe(schema, root) for schema in schemas)}, got {show(value)}{hint}"


def _suggest(path: Path, parents: list[Schema], root: Schema) -> str:
    """The key of that very name elsewhere if there is one only, else the nearest key of the same section, else all its keys."""
    key = str(path[-1])
    elsewhere = [dotted(found) for found in _all_keys(root, root, ()) if found[-1] == key]
    if len(elsewhere) == 1:
        return f"; did you mean '{elsewhere[0]}'?"
    names = [name for parent in parents for name in _names(parent, root)]
    return nearest(key, names) if names else ""


# ------------------------------------------------------------------------------------------------- reading the JSON Schema
def _branches(schema: Schema, root: Schema) -> list[Schema]:
    """The alternatives a schema stands for, references followed."""
    if "$ref" in schema:
        return _branches(root["$defs"][schema["$ref"].rsplit("/", 1)[1]], root)
    if "anyOf" in schema:
        return [branch for one in schema["anyOf"] for branch in _branches(one, root)]
    return [schema]


def _names(schema: Schema, root: Schema) -> list[str]:
    if "propertyNames" in schema:
        return [name for branch in _branches(schema["propertyNames"], root) for name in branch.get("enum", ())]
    return list(schema.get("properties", ()))


def _child(schemas: list[Schema], part: str | int, root: Schema) -> list[Schema]:
    found: list[Schema] = []
    for schema in schemas:
        inner = schema.get("properties", {}).get(part)
        if inner is None and isinstance(schema.get("additionalProperties"), dict):
            names = _names(schema, root)
            inner = schema["additionalProperties"] if not names or part in names else None
        if inner is None and isinstance(part, int):
            inner = schema.get("items")
        if inner is not None:
            found += _branches(inner, root)
    return found


def _candidates(schema: Schema, path: Path, root: Schema) -> list[Schema]:
    """The alternatives the schema has at `path`; none where the path leaves it."""
    schemas = _branches(schema, root)
    for part in path:
        schemas = _child(schemas, part, root)
    return schemas


def _all_keys(schema: Schema, root: Schema, path: Path) -> Iterator[Path]:
    for branch in _branches(schema, root):
        for name, inner in branch.get("properties", {}).items():
            yield (*path, name)
            yield from _all_keys(inner, root, (*path, name))


def _describe(schema: Schema, root: Schema) -> str:
    if "const" in schema or "enum" in schema:
        values = [show(value) for value in schema.get("enum", [schema.get("const")])]
        return values[0] if len(values) == 1 else f"one of {', '.join(values)}"
    kind = schema.get("type")
    if kind == "array":
        items = " or ".join(_describe(branch, root) for branch in _branches(schema.get("items", {}), root))
        return f"a list, each item {items}"
    if kind == "object":
        names = _names(schema, root)
        return "a section of keys" + (f" ({', '.join(names)})" if names else " and values")
    words = {"integer": "an integer", "number": "a number", "boolean": "true or false", "string": "text", "null": "null"}
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    bounds = " and ".join(f"{sign} {_bound(schema[name])}" for name, sign in signs.items() if name in schema)
    return f"{words.get(str(kind), 'a value')} {bounds}".rstrip()


def _bound(value: float) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


# ------------------------------------------------------------------------------------------------------- walking the values
def _present(location: tuple[str | int, ...], values: Any) -> Path:
    """The part of pydantic's location that is a path in `values`: it also names union members and `[key]`."""
    path: list[str | int] = []
    for part in location:
        if (isinstance(values, dict) and part in values) or (isinstance(values, list) and isinstance(part, int)):
            path.append(part)
            values = _value(values, (part,))
    return tuple(path)


def _value(values: Any, path: Path) -> Any:
    for part in path:
        values = values[part]
    return values
