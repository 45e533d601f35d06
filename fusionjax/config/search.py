"""The `search:` section of a study: which keys of a run are chosen on validation, from which values, with what budget.

Every row gets the same space, the same sampler seed and the same number of trials: a method that was tuned harder than another
proves nothing (Dacrema et al. 2019, Melis et al. 2018). How trials are run is `studies/search.py`.
"""

import itertools
import json
from collections.abc import Iterator, Mapping
from decimal import Decimal
from functools import cache
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, Field, JsonValue, TypeAdapter, field_validator, model_validator

from fusionjax import names, registry
from fusionjax.config import explain
from fusionjax.config.load import layer, load_run
from fusionjax.config.schema import Positive, Run, Section
from fusionjax.config.yaml_tree import Tree
from fusionjax.errors import UserError, nearest

Params = dict[str, Any]
"""Dotted key of a run config → value."""
Number = int | float
_OTHER_TRIALS = 64
_NOT_SEARCHED = {
    "seed": "seeds are repetitions, not settings (`search.seeds`)",
    "evaluation": "it changes what is measured",
    "train.select": "it changes what is measured (`search.metric` says by what trials are compared)",
    "data": "it changes what is measured; only data.graph may be searched",
    "track": "it changes nothing that is measured",
}


class Values(Section):
    """The values a key may take: a range (`low`, `high`) or a list (`choices`)."""

    low: Number | None = None
    high: Number | None = None
    """Both ends belong to the range. Whole numbers if the key takes only those."""
    log: bool = False
    """Draw evenly in the logarithm: for learning rates, weights, sizes."""
    step: Number | None = None
    """Only `low`, `low + step`, …, `high`."""
    choices: tuple[JsonValue, ...] | None = None
    """Any values the key takes, lists too."""

    @model_validator(mode="after")
    def _range_or_choices(self) -> "Values":
        if self.choices is not None:
            if self.low is not None or self.high is not None or self.log or self.step is not None:
                raise ValueError("give choices, or low and high, not both")
            if not self.choices:
                raise ValueError("choices is empty")
            texts = [json.dumps(choice, sort_keys=True) for choice in self.choices]
            twice = next((text for text in texts if texts.count(text) > 1), None)
            if twice is not None:
                raise ValueError(f"choices holds {twice} twice")
            return self
        if self.low is None or self.high is None:
            raise ValueError("give low and high, or choices")
        if not self.low < self.high:
            raise ValueError(f"low {self.low:g} must be smaller than high {self.high:g}")
        if self.log and self.low <= 0:
            raise ValueError(f"log needs a low above 0, got {self.low:g}")
        if self.step is not None:
            if self.log:
                raise ValueError("give log or step, not both (choices may list powers)")
            if self.step <= 0:
                raise ValueError(f"step {self.step:g} must be above 0")
            if (_exact(self.high) - _exact(self.low)) % _exact(self.step):
                raise ValueError(f"step {self.step:g} does not lead from low {self.low:g} to high {self.high:g}")
        return self

    def holds(self, value: Any) -> bool:
        """Whether the value is one of these."""
        if self.choices is not None:
            return any(value == choice and type(value) is type(choice) for choice in self.choices)
        assert self.low is not None and self.high is not None
        if isinstance(value, bool) or not isinstance(value, Number) or not self.low <= value <= self.high:
            return False
        return self.step is None or not (_exact(value) - _exact(self.low)) % _exact(self.step)

    def grid(self, whole: bool) -> tuple[Any, ...] | None:
        """All values in order, or None for a range that has no steps; `whole`: the key takes whole numbers."""
        if self.choices is not None:
            return self.choices
        assert self.low is not None and self.high is not None
        if self.log or (self.step is None and not whole):
            return None
        low, step = _exact(self.low), _exact(self.step if self.step is not None else 1)
        points = (low + step * place for place in range(int((_exact(self.high) - low) / step) + 1))
        return tuple(int(point) if whole else float(point) for point in points)


class Search(Section):
    """Hyper-parameters of each row, chosen on validation before the row's seeds are run."""

    space: dict[str, Values]
    """Dotted key of a run config → its values."""
    trials: Positive | None = None
    """Budget of each row: trials that came to an end, pruned and failed ones included. Grid: left out, every point once."""
    sampler: Literal["tpe", "grid", "random"] = "tpe"
    """Tree-structured Parzen estimator (Bergstra et al. 2011), every combination, or independent draws."""
    pruner: Literal["none", "median", "wilcoxon"] = "none"
    """`median` ends a training whose best validation is below the median of the others at that step; `wilcoxon` ends a trial
    that is worse than the best one over the seeds so far (signed-rank test)."""
    p_threshold: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.1
    """Wilcoxon only: prune below this p."""
    startup: Positive = 5
    """Trials drawn at random before TPE models them and before the median prunes."""
    metric: str | None = None
    """Validation metric that compares trials and picks their best step, `TASK/METRIC` or `mean`; none: `train.select`."""
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**31)], ...] = (0,)
    """Each trial is trained with these and judged by their mean."""
    rows: tuple[str, ...] | None = None
    """Rows to search; none: all."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Of the sampler."""
    steps: Positive | None = None
    """Optimiser steps of a trial, where they are to be fewer than the run's own."""

    @field_validator("space")
    @classmethod
    def _keys_exist(cls, space: dict[str, Values]) -> dict[str, Values]:
        if not space:
            raise ValueError("space is empty: name keys of a run and their values")
        for key, values in space.items():
            kinds = _kinds(key)
            barred = next((why for part, why in _NOT_SEARCHED.items() if f"{key}.".startswith(f"{part}.")), None)
            if barred and not key.startswith("data.graph."):
                raise ValueError(f"'{key}' cannot be searched: {barred}")
            if values.choices is None and not kinds & {"integer", "number"}:
                raise ValueError(f"'{key}' takes no number: give its choices")
            if values.choices is None and is_whole(key):
                for name, number in (("low", values.low), ("high", values.high), ("step", values.step)):
                    if number is not None and number != int(number):
                        raise ValueError(f"'{key}' takes whole numbers: {name} is {number:g}")
        return space

    @model_validator(mode="after")
    def _budget(self) -> "Search":
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds {list(self.seeds)}: give at least one, each once")
        if self.sampler == "grid":
            endless = next((key for key, values in self.space.items() if values.grid(is_whole(key)) is None), None)
            if endless is not None:
                raise ValueError(f"sampler grid: '{endless}' is a range without steps: give step or choices")
            points = self.points
            if self.trials is not None and self.trials != points:
                raise ValueError(f"sampler grid: the space has {points} points, trials is {self.trials}: leave trials out")
        elif self.trials is None:
            raise ValueError(f"sampler {self.sampler}: give trials, the budget of each row")
        if self.pruner == "median" and len(self.seeds) > 1:
            raise ValueError("pruner median follows one training: give one seed, or use wilcoxon")
        if self.pruner == "wilcoxon":
            least = 0.5 ** (len(self.seeds) - 1)  # of the one-sided test, one seed before the last
            if len(self.seeds) < 3 or least >= self.p_threshold:
                raise ValueError(
                    f"pruner wilcoxon: with {len(self.seeds)} seeds p is at least {least:g} before the last one, so nothing "
                    f"can be pruned at p_threshold {self.p_threshold:g}: give more seeds or a higher threshold"
                )
        length = next((key for key in ("train.steps", "train.epochs") if key in self.space), None)
        if length is not None and self.steps is not None:
            raise ValueError(f"steps is given, and {length} is in the space")
        if {"train.steps", "train.epochs"} <= set(self.space):
            raise ValueError("train.steps and train.epochs are both in the space")
        if self.metric is not None and self.metric != "mean":
            task, slash, name = self.metric.partition("/")
            if not slash or not name:
                raise ValueError(f"metric '{self.metric}': expected TASK/METRIC or mean")
            if task not in (tasks := registry.known(registry.TASKS, names.TASKS)) and not registry.is_dotted(task):
                raise ValueError(f"metric '{self.metric}': no task '{task}'{nearest(task, tasks)}")
        return self

    @property
    def points(self) -> int:
        """Points of the grid; 0 where the space is none."""
        count = 1
        for key, values in self.space.items():
            count *= len(values.grid(is_whole(key)) or ())
        return count

    @property
    def budget(self) -> int:
        """Trials of each row."""
        return self.trials if self.trials is not None else self.points

    def grid(self) -> Iterator[Params]:
        """Every point of the grid, the last key changing fastest."""
        columns = [values.grid(is_whole(key)) or () for key, values in self.space.items()]
        for point in itertools.product(*columns):
            yield dict(zip(self.space, point, strict=True))


def with_params(base: Run, params: Mapping[str, Any], origin: str | Mapping[str, str] = "search.space") -> Run:
    """A run with some keys changed.

    Raises:
      UserError: a key or value that the schema refuses; `origin` (of all, or by key) says where it stands.
    """
    whole = Tree(base.model_dump(mode="json"), {})
    where = {key: origin if isinstance(origin, str) else origin.get(key, "search.space") for key in params}
    return load_run(None, (), [whole, *(layer({key: value}, where[key]) for key, value in params.items())])


def check_search(search: Search, base: Run, origin: str | Mapping[str, str] = "search.space") -> None:
    """Finds out before the first training whether a row takes every value of the space.

    A value that only some combinations allow (a width and a number of heads) passes: a trial that draws a combination the
    schema refuses is recorded as failed. On a grid every point must be valid, up to the first 500.

    Args:
      base: config of the row.
      origin: where the space stands, for errors: of all of it, or by key.

    Raises:
      UserError: one line for each key or value that the schema refuses.
    """
    problems: list[str] = []
    draws = np.random.Generator(np.random.Philox(0))
    ends = {
        key: values.choices if values.choices is not None else _ends(values, is_whole(key))
        for key, values in search.space.items()
    }
    for key in ends:
        for value in ends[key]:
            try:
                with_params(base, {key: value}, origin)
            except UserError as error:
                others = ({**{k: v[draws.integers(len(v))] for k, v in ends.items()}, key: value} for _ in range(_OTHER_TRIALS))
                if len(ends) == 1 or not any(_valid(base, params) for params in others):
                    problems.append(str(error))
    if not problems and search.sampler == "grid":
        for point in itertools.islice(search.grid(), 500):
            try:
                with_params(base, point, origin)
            except UserError as error:
                problems.append(f"{error} (grid point {explain.show(point)})")
                break
    if any(key.startswith("data.graph.") for key in search.space):
        metric = search.metric or base.train.select
        if metric == "mean" or metric.startswith("link_prediction/"):
            problems.append(
                f"search.metric: {metric}: data.graph is in the space and changes which links are predicted; "
                "compare the trials by another task, such as recommendation/ndcg@10"
            )
    if problems:
        raise UserError("\n".join(dict.fromkeys("\n".join(problems).splitlines())))


def _valid(base: Run, params: Params) -> bool:
    try:
        with_params(base, params)
    except UserError:
        return False
    return True


def _ends(values: Values, whole: bool) -> tuple[Any, ...]:
    assert values.low is not None and values.high is not None
    return tuple(int(end) if whole else float(end) for end in (values.low, values.high))


def is_whole(key: str) -> bool:
    """Whether a key of a run takes whole numbers only."""
    kinds = _kinds(key)
    return "integer" in kinds and "number" not in kinds


@cache
def _kinds(key: str) -> frozenset[str]:
    """JSON types that a dotted key of a run takes.

    Raises:
      ValueError: there is no such key (the nearest one is named), or it is a section.
    """
    model: Any = Run
    for part in key.split("."):
        field = model.model_fields.get(part) if _is_section(model) else None
        if field is None:
            raise ValueError(f"'{key}': no such key of a run{nearest(key, _leaves(Run))}")
        model = field.annotation
    if _is_section(model):
        raise ValueError(f"'{key}' is a section: name a key in it ({', '.join(list(model.model_fields)[:6])}, …)")
    found = TypeAdapter(model).json_schema()
    return frozenset(str(one.get("type", "")) for one in found.get("anyOf", [found]))


def _leaves(model: type[BaseModel], before: str = "") -> list[str]:
    """Dotted keys of all values of a model."""
    found: list[str] = []
    for name, field in model.model_fields.items():
        inner: Any = field.annotation
        found += _leaves(inner, f"{before}{name}.") if _is_section(inner) else [f"{before}{name}"]
    return found


def _is_section(found: Any) -> bool:
    return isinstance(found, type) and issubclass(found, BaseModel)


def _exact(number: Number) -> Decimal:
    """The number as it was written: 0.1, not its nearest binary fraction."""
    return Decimal(repr(number))
