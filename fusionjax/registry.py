"""From a name in a config to the thing it means: our own table, then plug-ins, then what the caller handed over.

A plug-in is an entry point of an installed package, in a group such as `fusionjax.scorers`; its name is the name in configs. It
is imported when it is asked for and not before, so a broken one disturbs nobody who does not use it. A **dotted name**,
`package.module:Name`, is imported only with `dotted=True`, which only a run that its user starts says: a config that comes with
somebody else's run could otherwise import anything. Once imported or handed over (`hand_over`), a name means that thing for the
rest of the process. Where a table is of tasks (segments, baselines), the name is `task/name`.
"""

import dataclasses
import functools
import importlib
import importlib.metadata
import re
import sys
from collections.abc import Collection, ItemsView, Iterator, KeysView, Mapping, ValuesView
from typing import Any, Generic, TypeVar, cast

from fusionjax.errors import UserError, nearest

SCORERS, OBJECTIVES, SAMPLERS = "fusionjax.scorers", "fusionjax.objectives", "fusionjax.samplers"
TASKS, METRICS, SEGMENTS, BASELINES = "fusionjax.tasks", "fusionjax.metrics", "fusionjax.segments", "fusionjax.baselines"
SOURCES, TRACKERS = "fusionjax.sources", "fusionjax.trackers"
"""Groups of entry points."""

_DOTTED = re.compile(r"(?:[^/:]+/)?([^\W\d]\w*(?:\.[^\W\d]\w*)*):([^\W\d]\w*)")
_HANDED: dict[tuple[str, str], Any] = {}
Thing = TypeVar("Thing")


@dataclasses.dataclass(frozen=True)
class Origin:
    """The package that a plug-in came from; of a dotted name whose module no installed package owns, the module."""

    package: str
    version: str | None

    def __str__(self) -> str:
        return f"{self.package} {self.version or '(version unknown)'}"


def is_dotted(name: str) -> bool:
    """Whether a name is `package.module:Name`, or `task/package.module:Name`."""
    return _DOTTED.fullmatch(name) is not None


def entry_points(group: str) -> Mapping[str, importlib.metadata.EntryPoint]:
    """Name → entry point of a group, of all packages that Python finds now; of two with one name the first found."""
    return _entry_points(group, tuple(sys.path))


@functools.lru_cache(maxsize=64)
def _entry_points(group: str, path: tuple[str, ...]) -> Mapping[str, importlib.metadata.EntryPoint]:
    found: dict[str, importlib.metadata.EntryPoint] = {}
    for point in importlib.metadata.entry_points(group=group):
        found.setdefault(point.name, point)
    return found


def known(group: str, own: Collection[str]) -> tuple[str, ...]:
    """Names that may stand in a config: ours, then plug-ins' and those handed over. Imports nothing."""
    handed = [name for of, name in _HANDED if of == group]
    return tuple(dict.fromkeys([*own, *entry_points(group), *handed]))


def hand_over(group: str, name: str, thing: Any) -> None:
    """Lets `name` mean `thing` for the rest of this process, where our own table has no such name."""
    _HANDED[group, name] = thing


def load(group: str, name: str, dotted: bool = False, own: Collection[str] = ()) -> Any:
    """The thing of a name that is not our own, unchecked.

    Args:
      dotted: whether a dotted name may be imported.
      own: our own names, for the error.

    Raises:
      UserError: no such name, with the nearest; it cannot be imported, with package and cause; it is a dotted name and
        `dotted` is false.
    """
    if (group, name) in _HANDED:
        return _HANDED[group, name]
    kind = group.rpartition(".")[2].removesuffix("s")
    if point := entry_points(group).get(name):
        try:
            return point.load()
        except Exception as error:  # whatever a foreign module raises when imported
            raise UserError(
                f"{kind} '{name}' of package {_owner(point)} ({point.value}) cannot be imported: {_shown(error)}"
            ) from error
    if not is_dotted(name):
        valid = known(group, own)
        hint = nearest(name, valid) if valid else f"; no installed package has one (entry points in {group})"
        raise UserError(f"no {kind} '{name}'{hint}")
    if not dotted:
        raise UserError(
            f"{kind} '{name}': a dotted name is imported only for a run that you start; where a run is opened, install it as "
            f"an entry point in {group}, or hand it over: fusionjax.registry.hand_over('{group}', '{name}', …)"
        )
    module, _, attribute = name.rpartition("/")[2].partition(":")
    try:
        thing = getattr(importlib.import_module(module), attribute)
    except Exception as error:
        raise UserError(f"{kind} '{name}' cannot be imported: {_shown(error)}") from error
    hand_over(group, name, thing)
    return thing


def origin(group: str, name: str) -> Origin | None:
    """Where the plug-in of a name came from; None: it is none, or was handed over under a plain name."""
    point = entry_points(group).get(name)
    if point is not None and (group, name) not in _HANDED:
        return _owner(point)
    if not is_dotted(name):
        return None
    module = name.rpartition("/")[2].partition(":")[0]
    owners = importlib.metadata.packages_distributions().get(module.partition(".")[0])
    if owners:
        return Origin(owners[0], importlib.metadata.version(owners[0]))
    return Origin(module, None)


def _owner(point: importlib.metadata.EntryPoint) -> Origin:
    return Origin(point.dist.name, point.dist.version) if point.dist else Origin(point.module, None)


def _shown(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


class Registry(Generic[Thing]):
    """The things of one kind, by name. Iterating goes over our own: a plug-in's is used where it is named.

    Args:
      group: of entry points.
      base: what each must be: a subclass of it, or with `instances` an instance.
      own: our table; a text `module:Name` in it is imported when it is asked for.
      instances: things are objects, not classes; a subclass of `base` stands for the object it makes without arguments.
    """

    def __init__(self, group: str, base: Any, own: Mapping[str, Any], instances: bool = False) -> None:
        self.group, self.base, self.own, self.instances = group, base, own, instances
        self._made: dict[str, tuple[Any, Any]] = {}

    def names(self) -> tuple[str, ...]:
        """Ours, then plug-ins' and those handed over. Imports nothing."""
        return known(self.group, self.own)

    def get(self, name: str, dotted: bool = False) -> Thing:
        """The thing of a name.

        Raises:
          UserError: as `load`; or it is not what it must be, with both names.
        """
        if name not in self.own:
            return self._fitting(name, load(self.group, name, dotted, self.own))
        thing = self.own[name]
        if isinstance(thing, str):
            module, _, attribute = thing.partition(":")
            thing = getattr(importlib.import_module(module), attribute)
        return cast(Thing, thing)

    def origin(self, name: str) -> Origin | None:
        """The package and version a name's plug-in came from; None: it is our own, or was handed over."""
        return None if name in self.own else origin(self.group, name)

    def _fitting(self, name: str, thing: Any) -> Thing:
        subclass = isinstance(thing, type) and issubclass(thing, self.base)
        if self.instances and isinstance(thing, self.base):
            return cast(Thing, thing)
        if subclass and not self.instances:
            return cast(Thing, thing)
        if subclass:  # one object of it, made once
            if self._made.get(name, (None, None))[0] is not thing:
                self._made[name] = thing, thing()
            return self._made[name][1]
        wanted = f"{self.base.__module__}.{self.base.__qualname__}"
        got = thing if isinstance(thing, type) else type(thing)
        came = self.origin(name)
        raise UserError(
            f"{self.group.rpartition('.')[2].removesuffix('s')} '{name}'{f' of package {came}' if came else ''}: expected "
            f"{'an object' if self.instances else 'a subclass'} of {wanted}, got "
            f"{'the class' if isinstance(thing, type) else 'an object of'} {got.__module__}.{got.__qualname__}"
        )

    # Reading it like a table.
    def __getitem__(self, name: str) -> Thing:
        return self.get(name)

    def __contains__(self, name: object) -> bool:
        return name in self.names()

    def __iter__(self) -> Iterator[str]:
        return iter(self.own)

    def __len__(self) -> int:
        return len(self.own)

    def keys(self) -> KeysView[str]:
        return self.own.keys()

    def values(self) -> ValuesView[Thing]:
        return {name: self.get(name) for name in self.own}.values()

    def items(self) -> ItemsView[str, Thing]:
        return {name: self.get(name) for name in self.own}.items()
