"""Where in a config names of plug-ins may stand; and the sections of plug-ins' objectives."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pydantic

from fusionjax import registry
from fusionjax.config import explain
from fusionjax.config.section import Objective
from fusionjax.config.yaml_tree import Tree

_ONE = {
    "model.entity.scorer": registry.SCORERS,
    "objectives.link_prediction.negatives.sampler": registry.SAMPLERS,
    "data.name": registry.SOURCES,
}
_SEVERAL = {
    "objectives.plugins": registry.OBJECTIVES,
    "evaluation.tasks": registry.TASKS,
    "evaluation.metrics": registry.TASKS,
    "evaluation.plugins.baselines": registry.BASELINES,
    "evaluation.plugins.segments": registry.SEGMENTS,
    "track.plugins": registry.TRACKERS,
}
"""Dotted key → group of entry points, of keys that hold one name, and of lists of names or mappings by name."""


def named(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(group of entry points, name) of everything that a config, as nested plain values, names: ours too."""
    for key, group in _ONE.items():
        if isinstance(name := _at(values, key), str):
            yield group, name
    for key, group in _SEVERAL.items():
        found = _at(values, key)
        for name in found if isinstance(found, list | tuple | dict) else ():
            if isinstance(name, str):
                yield group, name
    metrics = _at(values, "evaluation.metrics")
    for names in metrics.values() if isinstance(metrics, dict) else ():
        for name in names if isinstance(names, list | tuple) else ():
            if isinstance(name, str):
                yield registry.METRICS, name.partition("@")[0]


def look_up_dotted(values: Mapping[str, Any], started: bool) -> None:
    """Looks up every `package.module:Name` of a config.

    Args:
      started: its user starts the run: the names are imported, and mean something from here on. Else they are somebody's whose
        run is opened: they must have been imported or handed over before.

    Raises:
      UserError: one cannot be imported, or may not.
    """
    for group, name in named(values):
        if registry.is_dotted(name):
            registry.load(group, name, dotted=started)


def section_of(name: str, values: Any) -> Objective:
    """What stands under `objectives.plugins.NAME`, by the section class of that objective.

    Raises:
      UserError: there is no such objective, or it has no section class.
      ValueError: `values` do not fit the section, with one part for each problem.
    """
    if isinstance(values, Objective):
        return values
    section = getattr(registry.load(registry.OBJECTIVES, name), "section", None)
    if not (isinstance(section, type) and issubclass(section, Objective)):
        came = registry.origin(registry.OBJECTIVES, name)
        raise ValueError(
            f"objective '{name}'{f' of package {came}' if came else ''}: its `section` must be a subclass of "
            f"{Objective.__module__}.{Objective.__qualname__}, got {section!r}"
        )
    if not isinstance(values, Mapping):
        raise ValueError(f"{name}: expected a section of keys, got {explain.show(values)}")
    try:
        return section.model_validate_json(json.dumps(values), strict=True)
    except pydantic.ValidationError as error:
        lines = explain.explain(error, Tree(dict(values), {(): name}), section.model_json_schema())
        raise ValueError("; ".join(lines)) from None


def _at(values: Any, key: str) -> Any:
    for part in key.split("."):
        values = values.get(part) if isinstance(values, Mapping) else None
    return values
