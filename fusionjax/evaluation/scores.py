"""What was asked, and what each method got on every example: ranks of targets, or plain values.

Every evaluation ends in two things: `Examples`, what was asked, and the values of each method on them. Values are one
realistic rank (`ranking`) a target, `float64 [t]`, or, where the examples name `measures`, one number an example and measure,
`float64 [n, m]`: whether an answer is correct, a log loss, a squared error, money. Metrics and those of any segment are
computed from these alone (`metrics.per_example`), so that a stored file can still answer what nobody thought of when the model
was measured.

| task | example | targets | grade | values |
| --- | --- | --- | --- | --- |
| recommendation | a user | the products to be found | none (binary) | ranks |
| search | a query | its judged products | of the judgment | ranks |
| link_prediction | a triple | two: the tail, then the head | none | ranks |
| triple_classification | a triple | one: whether it is true, 0 or 1 | the same | correct |

A study's examples are stored without the targets' names (`save_examples`), a run's with them (`save_scores`).
Files are zip archives of NumPy arrays (`.npz`) without pickle. The same content gives the same bytes: no times, fixed order.
Ranks are stored doubled, as integers: a realistic rank is a multiple of one half. Files of ranks alone have format 1, those
with plain values format 2; both are read.
"""

import dataclasses
import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

import numpy as np

from fusionjax.errors import UserError, nearest
from fusionjax.evaluation.ragged import Ragged
from fusionjax.files import write_whole

if TYPE_CHECKING:  # metrics computes from what stands here
    from fusionjax.evaluation.metrics import Result

DIRECTIONS = ("tail", "head")
_RANKS, _PLAIN = 1, 2
"""Formats: ranks alone; plain values too."""
_COLUMNS = ("example", "offsets", "target", "grade")
_Read = TypeVar("_Read")


@dataclasses.dataclass(frozen=True, eq=False)
class Segment:
    """A partition: `labels[codes[i]]` is the group of example or target i, code −1 means none."""

    labels: tuple[str, ...]
    codes: np.ndarray
    of: Literal["example", "target"]

    def __post_init__(self) -> None:
        if self.of not in ("example", "target"):
            raise ValueError(f"a segment is of 'example' or 'target', not '{self.of}'")
        if len(self.codes) and not -1 <= self.codes.min() <= self.codes.max() < len(self.labels):
            raise ValueError(f"segment codes from {self.codes.min()} to {self.codes.max()} for {len(self.labels)} labels")


@dataclasses.dataclass(frozen=True)
class Measure:
    """A plain value of an example."""

    name: str
    """`correct` (0 or 1) gives accuracy and, with labels, F1; any other is a metric by its own name."""
    higher_is_better: bool = True
    unit: str = ""
    """Such as `nats`, `EUR`; none: a pure number."""


CORRECT = Measure("correct")


@dataclasses.dataclass(frozen=True, eq=False)
class Examples:
    """What was asked: example i has the targets `offsets[i]:offsets[i + 1]`."""

    task: str
    example: np.ndarray
    """int64 [n]: row of the user or query, position of the triple among those of its split."""
    offsets: np.ndarray
    """int64 [n + 1]."""
    target: np.ndarray
    """int64 [t]: row of the product, or entity; −1 where the examples are blind."""
    grade: np.ndarray | None = None
    """float64 [t] ≥ 0."""
    segments: dict[str, Segment] = dataclasses.field(default_factory=dict)
    blind: str | None = None
    """Digest of the examples whose targets are not told: data that may not be passed on name no held-out product."""
    candidates: np.ndarray | None = None
    """int64 [t]: among how many each target is ranked, itself included; None: not known."""
    measures: tuple[Measure, ...] = ()
    """What is measured of each example, one target each; none: ranks of the targets."""

    def __post_init__(self) -> None:
        n, t = len(self.example), len(self.target)
        if self.measures and not np.array_equal(self.offsets, np.arange(n + 1)):
            raise ValueError(f"{self.task}: plain values need one target an example")
        if self.candidates is not None and len(self.candidates) != t:
            raise ValueError(f"{self.task}: {len(self.candidates)} numbers of candidates for {t} targets")
        if len(self.offsets) != n + 1:
            raise ValueError(f"{self.task}: {len(self.offsets)} offsets for {n} examples")
        if self.grade is not None and len(self.grade) != t:
            raise ValueError(f"{self.task}: {len(self.grade)} grades for {t} targets")
        if self.task == "link_prediction" and not np.array_equal(self.offsets, np.arange(n + 1) * 2):
            raise ValueError("link_prediction: every triple has two targets, its tail and its head")
        _ = self.ragged()  # checks the offsets
        for name, segment in self.segments.items():
            if len(segment.codes) != (expected := n if segment.of == "example" else t):
                raise ValueError(f"segment '{name}' has {len(segment.codes)} codes for {expected} {segment.of}s")

    def __len__(self) -> int:
        return len(self.example)

    def ragged(self) -> Ragged:
        return Ragged(self.offsets, self.target)

    def check(self, values: np.ndarray, whose: str = "") -> None:
        """Raises `ValueError` if these are not values of these examples."""
        whose = whose or self.task
        if self.measures:
            if values.shape != (len(self), len(self.measures)):
                expected = f"[{len(self)}, {len(self.measures)}]"
                raise ValueError(f"{whose}: values of shape {list(values.shape)}, expected {expected} (examples, measures)")
        elif len(values) != len(self.target):
            raise ValueError(f"{whose}: {len(values)} ranks for {len(self.target)} targets")

    def inside(self, segment: str, label: str) -> np.ndarray:
        """bool [t]: the target, or its example, has that label.

        Raises:
            ValueError: no such segment or label.
        """
        if segment not in self.segments:
            raise ValueError(f"{self.task} has no segment '{segment}'{nearest(segment, self.segments)}")
        found = self.segments[segment]
        if label not in found.labels:
            raise ValueError(f"segment '{segment}' has no label '{label}'{nearest(label, found.labels)}")
        here = found.codes == found.labels.index(label)
        return here[self.ragged().rows()] if found.of == "example" else here

    def digest(self) -> str:
        """SHA-256 over all but the segments: ranks may be compared where the digests are equal."""
        if self.blind is not None:
            return self.blind
        found = hashlib.sha256(f"{self.task}\n".encode())
        for name in _COLUMNS:
            column = getattr(self, name)
            if column is not None:
                found.update(f"{name} {len(column)}\n".encode())
                found.update(np.ascontiguousarray(column, "<f8" if name == "grade" else "<i8").tobytes())
        return found.hexdigest()


class Scores(NamedTuple):
    """Examples of one task and the values of the model and of each baseline: ranks `float64 [t]`, or plain `[n, m]`."""

    examples: Examples
    values: dict[str, np.ndarray]


def scores_of(found: "Mapping[str, Result]") -> Scores:
    """Of what several methods got on the same examples, by method name."""
    examples = None
    values: dict[str, np.ndarray] = {}
    for name, result in found.items():
        own = result.ranks if result.values is None else result.values
        if result.examples is None or own is None:
            raise ValueError(f"{name}: the result keeps no ranks")
        examples = examples or result.examples
        if result.examples.digest() != examples.digest():
            raise ValueError(f"{examples.task}: {name} was measured on other examples than {next(iter(found))}")
        values[name] = own
    if examples is None:
        raise ValueError("no method was measured")
    return Scores(examples, values)


# ----------------------------------------------------------------------------------------------------------------- files
def save_scores(file: Path, examples: Examples, values: Mapping[str, np.ndarray]) -> None:
    """Writes examples and the values of each method ("model", "item_knn", …) to one file, whole or not at all."""
    for name, each in values.items():
        examples.check(each, name)
    _write(file, "scores", _meta(examples) | {"ranks": list(values)}, _columns(examples) | _packed(values))


def load_scores(file: Path) -> Scores:
    """What `save_scores` wrote.

    Raises:
        UserError: no such file, or not one of these, or damaged.
    """

    def build(meta: dict[str, Any], arrays: dict[str, np.ndarray]) -> Scores:
        examples, values = _examples(meta, arrays), _unpacked(meta, arrays)
        for name, each in values.items():
            examples.check(each, name)
        return Scores(examples, values)

    return _read(file, "scores", build)


def save_examples(file: Path, examples: Examples) -> None:
    """Writes examples alone, blind: how many targets each has, their grades and segments, but not which they are.

    Metrics need no more, and what is published beside a study must not hold the data set itself.
    """
    columns = _columns(examples)
    del columns["target"]
    _write(file, "examples", _meta(examples), columns)


def load_examples(file: Path) -> Examples:
    """What `save_examples` wrote. Raises `UserError` as `load_scores` does."""
    return _read(file, "examples", _examples)


def save_values(file: Path, values: Mapping[str, np.ndarray]) -> None:
    """Writes the values of one method on several tasks: task → ranks or plain values. Their examples are stored elsewhere."""
    _write(file, "ranks", {"ranks": list(values)}, _packed(values))


def load_values(file: Path) -> dict[str, np.ndarray]:
    """What `save_values` wrote. Raises `UserError` as `load_scores` does."""
    return _read(file, "ranks", _unpacked)


def _packed(values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """`rank.NAME` of ranks, `value.NAME` of plain values, which have two axes."""
    packed = {}
    for name, each in values.items():
        each = np.asarray(each, np.float64)
        if each.ndim == 2:
            packed[f"value.{name}"] = _exact(each)
            continue
        doubled = each * 2.0
        if len(doubled) and not (doubled.min() >= 2.0 and np.array_equal(doubled, np.rint(doubled)) and doubled.max() < 2**32):
            wrong = int(np.argmin((doubled >= 2.0) & (doubled == np.rint(doubled)) & (doubled < 2**32)))
            raise ValueError(f"{name}: ranks must be multiples of 1/2 from 1 to 2**31, got {each[wrong]}")
        packed[f"rank.{name}"] = doubled.astype(np.uint32 if doubled.max(initial=0) > 0xFFFF else np.uint16)
    return packed


def _exact(values: np.ndarray) -> np.ndarray:
    """The same numbers in a smaller type where it holds them exactly."""
    for smaller in (np.uint8, np.float32):
        with np.errstate(invalid="ignore", over="ignore"):
            short = values.astype(smaller)
        if np.array_equal(short, values, equal_nan=True):
            return short
    return values


def _unpacked(meta: dict[str, Any], arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {
        name: arrays[f"rank.{name}"] / 2.0 if f"rank.{name}" in arrays else arrays[f"value.{name}"].astype(np.float64)
        for name in meta["ranks"]
    }


def _meta(examples: Examples) -> dict[str, Any]:
    segments = {name: {"labels": list(part.labels), "of": part.of} for name, part in examples.segments.items()}
    meta = {"task": examples.task, "segments": segments, "digest": examples.digest()}
    return meta | ({"measures": [dataclasses.asdict(one) for one in examples.measures]} if examples.measures else {})


def _columns(examples: Examples) -> dict[str, np.ndarray]:
    """Row numbers and offsets as differences, for they mostly ascend, and small numbers compress well."""
    columns = {
        "example": _smallest(np.diff(np.asarray(examples.example, np.int64), prepend=0)),
        "lengths": _smallest(np.diff(np.asarray(examples.offsets, np.int64))),
        "target": _smallest(examples.target),
    }
    if examples.candidates is not None:
        columns["candidates"] = _smallest(examples.candidates)
    if examples.grade is not None:
        exact, short = np.asarray(examples.grade, np.float64), np.asarray(examples.grade, np.float32)
        columns["grade"] = short if np.array_equal(short, exact) else exact
    return columns | {f"segment.{name}": _smallest(part.codes) for name, part in examples.segments.items()}


def _smallest(values: np.ndarray) -> np.ndarray:
    """The same numbers in the smallest integer type that holds them."""
    values = np.asarray(values, np.int64)
    low, high = values.min(initial=0), values.max(initial=0)
    return values.astype(np.result_type(np.min_scalar_type(low), np.min_scalar_type(high)))


def _examples(meta: dict[str, Any], arrays: dict[str, np.ndarray]) -> Examples:
    segments = {}
    for name, part in meta["segments"].items():
        codes = arrays[f"segment.{name}"]
        segments[name] = Segment(
            tuple(part["labels"]), codes.astype(np.int8 if len(part["labels"]) < 128 else np.int16), part["of"]
        )
    offsets = np.concatenate([[0], np.cumsum(arrays["lengths"], dtype=np.int64)])
    blind = "target" not in arrays
    found = Examples(
        meta["task"],
        np.cumsum(arrays["example"], dtype=np.int64),
        offsets,
        np.full(offsets[-1], -1) if blind else arrays["target"].astype(np.int64),
        arrays["grade"].astype(np.float64) if "grade" in arrays else None,
        segments,
        meta["digest"] if blind else None,
        arrays["candidates"].astype(np.int64) if "candidates" in arrays else None,
        tuple(Measure(**one) for one in meta.get("measures", ())),
    )
    if found.digest() != meta["digest"]:
        raise ValueError("the examples do not have the digest that was written beside them")
    return found


def _write(file: Path, kind: str, meta: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    """One zip, made here rather than by `np.savez`, so that nothing of the machine or the day gets into its bytes."""
    plain = "measures" in meta or any(name.startswith("value.") for name in arrays)
    text = json.dumps({"format": _PLAIN if plain else _RANKS, "kind": kind} | meta, ensure_ascii=False)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, values in {"meta": np.frombuffer(text.encode(), np.uint8), **arrays}.items():
            member = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            member.compress_type, member.create_system, member.external_attr = zipfile.ZIP_DEFLATED, 3, 0o644 << 16
            array = io.BytesIO()
            np.lib.format.write_array(array, values.astype(values.dtype.newbyteorder("<")), allow_pickle=False)
            archive.writestr(member, array.getvalue())
    write_whole(file, packed.getvalue())


def _read(file: Path, kind: str, build: Callable[[dict[str, Any], dict[str, np.ndarray]], _Read]) -> _Read:
    try:
        packed = file.read_bytes()
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror}") from error
    try:
        with zipfile.ZipFile(io.BytesIO(packed)) as archive:
            # Whole members, not np.load: reading to the end is what checks their checksums.
            arrays = {
                name.removesuffix(".npy"): np.lib.format.read_array(io.BytesIO(archive.read(name)), allow_pickle=False)
                for name in archive.namelist()
            }
        meta = json.loads(arrays.pop("meta").tobytes())
        if meta["format"] not in (_RANKS, _PLAIN) or meta["kind"] != kind:
            raise ValueError(f"holds {meta['kind']} in format {meta['format']}, expected {kind} in format {_RANKS} or {_PLAIN}")
        return build(meta, arrays)
    except Exception as error:  # a damaged zip may raise anything
        raise UserError(f"{file}: damaged, or no file of {kind}: {error or type(error).__name__}") from error
