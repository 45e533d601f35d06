"""Frozen dataclasses of numbers, texts, tuples and one another → JSON and back: how the sizes of a model are kept."""

import dataclasses
from typing import Any

from fusionjax.models.bert import BertConfig
from fusionjax.models.entities import EntityModel
from fusionjax.models.joint import Layout
from fusionjax.models.layers import Lora
from fusionjax.models.modernbert import ModernBertConfig
from fusionjax.models.scorers import SCORERS, Dropout, Init, Scorer, Sizes

_IS, _SCORER = "is", "scorer "
_CLASSES = (Layout, BertConfig, ModernBertConfig, Lora, EntityModel, Init, Sizes, Dropout)
_KNOWN: dict[str, Any] = {each.__name__: each for each in _CLASSES}


def to_plain(value: Any) -> Any:
    """A dataclass of `_KNOWN`, or a scorer, as a dictionary that names its class; tuples become lists."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        name = f"{_SCORER}{value.name}" if isinstance(value, Scorer) else type(value).__name__
        if name not in _KNOWN and not isinstance(value, Scorer):
            raise TypeError(f"{name} is not among the classes whose sizes are stored: {', '.join(_KNOWN)}")
        return {_IS: name, **{each.name: to_plain(getattr(value, each.name)) for each in dataclasses.fields(value)}}
    return [to_plain(each) for each in value] if isinstance(value, tuple) else value


def from_plain(value: Any) -> Any:
    """What `to_plain` was given.

    Raises:
      TypeError, KeyError: fields or classes of another version of the package.
    """
    if isinstance(value, dict):
        fields = {name: from_plain(each) for name, each in value.items() if name != _IS}
        name = value[_IS]
        known = SCORERS[name.removeprefix(_SCORER)] if name.startswith(_SCORER) else _KNOWN[name]
        return known(**fields)
    return tuple(from_plain(each) for each in value) if isinstance(value, list) else value
