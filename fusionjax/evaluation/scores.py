"""The rank of every target, and all metrics from it.

Every evaluation ends in two things: `Examples`, what was asked, and one realistic rank (`ranking`) a target. Metrics, their
values for each example and those of any segment are computed from these alone (`per_example`), so that a stored file of ranks
can still answer what nobody thought of when the model was measured.

| task | example | targets | grade |
| --- | --- | --- | --- |
| recommendation | a user | the products to be found | none (binary) |
| search | a query | its judged products | of the judgment |
| link_prediction | a triple | two: the tail, then the head | none |

A study's examples are stored without the targets' names (`save_examples`), a run's with them (`save_scores`).
Files are zip archives of NumPy arrays (`.npz`) without pickle. The same content gives the same bytes: no times, fixed order.
Ranks are stored doubled, as integers: a realistic rank is a multiple of one half.
"""

import dataclasses
import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np

from fusionjax.errors import UserError, nearest
from fusionjax.evaluation.metrics import Result, hits, mean, ndcg, recall, reciprocal_rank
from fusionjax.evaluation.ranking import Ragged
from fusionjax.files import write_whole

HITS_AT = (1, 3, 10)
"""Cut-offs of link prediction."""
KS = (10, 20)
"""Cut-offs of recommendation."""
DIRECTIONS = ("tail", "head")
_FORMAT = 1
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

    def __post_init__(self) -> None:
        n, t = len(self.example), len(self.target)
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
    """Examples of one task and, for the model and each baseline, the rank of every target, `float64 [t]`."""

    examples: Examples
    ranks: dict[str, np.ndarray]


def scores_of(found: Mapping[str, Result]) -> Scores:
    """Of what several methods got on the same examples, by method name."""
    examples = None
    ranks: dict[str, np.ndarray] = {}
    for name, result in found.items():
        if result.examples is None or result.ranks is None:
            raise ValueError(f"{name}: the result keeps no ranks")
        examples = examples or result.examples
        if result.examples.digest() != examples.digest():
            raise ValueError(f"{examples.task}: {name} was measured on other examples than {next(iter(found))}")
        ranks[name] = result.ranks
    if examples is None:
        raise ValueError("no method was measured")
    return Scores(examples, ranks)


# --------------------------------------------------------------------------------------------------------------- metrics
def per_example(
    examples: Examples,
    ranks: np.ndarray,
    segment: tuple[str, str] | None = None,
    *,
    ks: tuple[int, ...] = KS,
    relevant_grade: float = 1.0,
) -> dict[str, np.ndarray]:
    """Every metric of every example.

    Args:
        examples: what was asked.
        ranks: `float64 [t]`, realistic rank of each target among all candidates.
        segment: (name of a segment, label): only the targets, or only the examples, in it count. Their ranks stay those
            among all candidates.
        ks: cut-offs of recommendation.
        relevant_grade: search: grade from which a product counts as relevant, for all but NDCG.

    Returns:
        Metric → `float64 [n]`, NaN where it is undefined (nothing relevant, nothing in the segment). Recommendation: `mrr`,
        `recall@k`, `ndcg@k` (binary). Search: `ndcg@10` (linear gain), `ndcg_exp@10`, `mrr`, `hits@1`, `recall@10`,
        `recall@100`. Link prediction: `mrr`, `hits@1`, `hits@3`, `hits@10`, the mean of the directions that count.

    Raises:
        ValueError: unknown task, segment or label; ranks that do not fit the examples.
    """
    ranks = np.asarray(ranks, np.float64)
    if len(ranks) != len(examples.target):
        raise ValueError(f"{examples.task}: {len(ranks)} ranks for {len(examples.target)} targets")
    targets, grades = examples.ragged(), examples.grade
    if segment is not None:
        inside = _inside(examples, *segment)
        targets, ranks, grades = _only(targets, inside), ranks[inside], None if grades is None else grades[inside]
    if examples.task == "recommendation":
        found = {"mrr": reciprocal_rank(targets, ranks)}
        for k in ks:
            found |= {f"recall@{k}": recall(targets, ranks, k), f"ndcg@{k}": ndcg(targets, ranks, k)}
        return found
    if examples.task == "search":
        relevant = np.ones(len(ranks), bool) if grades is None else grades >= relevant_grade
        positives, first = _only(targets, relevant), ranks[relevant]
        return {
            "ndcg@10": ndcg(targets, ranks, 10, grades),
            "ndcg_exp@10": ndcg(targets, ranks, 10, grades, exponential=True),
            "mrr": reciprocal_rank(positives, first),
            "hits@1": hits(positives, first, 1),
            "recall@10": recall(positives, first, 10),
            "recall@100": recall(positives, first, 100),
        }
    if examples.task == "link_prediction":
        # Each direction is a question of its own with one answer; a triple counts with the mean of its questions.
        single = Ragged(np.arange(len(ranks) + 1), targets.values)
        asked, rows = targets.lengths(), targets.rows()

        def mean_of(values: np.ndarray) -> np.ndarray:
            total = np.bincount(rows, weights=values, minlength=len(targets))
            return np.divide(total, asked, out=np.full(len(targets), np.nan), where=asked > 0)

        return {"mrr": mean_of(reciprocal_rank(single, ranks))} | {
            f"hits@{k}": mean_of(hits(single, ranks, k)) for k in HITS_AT
        }
    raise ValueError(f"no metrics are known for task '{examples.task}'")


def by_direction(
    examples: Examples, ranks: np.ndarray, segment: str = "relation_category"
) -> dict[str, dict[str, dict[str, float]]]:
    """Link prediction of each direction in each group of triples: if these are categories, the table of Bordes et al. 2013.

    Args:
        examples: with the segments `direction` and `segment`, one of examples.
        ranks: `float64 [t]`, or its optimistic or pessimistic likes.

    Returns:
        What is asked for (`head`, `tail`) → label (1-1, 1-N, N-1, N-N) → `mrr`, `hits@1`, `hits@3`, `hits@10` and `questions`.
        Metrics are NaN where there are no questions.

    Raises:
        ValueError: a segment is missing, or is of targets.
    """
    groups = examples.segments.get(segment)
    if examples.task != "link_prediction" or groups is None or groups.of != "example" or "direction" not in examples.segments:
        raise ValueError(f"{examples.task}: needs the segments 'direction' and '{segment}' (of examples)")
    found: dict[str, dict[str, dict[str, float]]] = {}
    for side in reversed(DIRECTIONS):
        metrics = per_example(examples, ranks, ("direction", side))  # one question a triple
        found[side] = {}
        for code, label in enumerate(groups.labels):
            inside = groups.codes == code
            found[side][label] = {name: mean(values[inside]) for name, values in metrics.items()}
            found[side][label]["questions"] = float(inside.sum())
    return found


def _inside(examples: Examples, name: str, label: str) -> np.ndarray:
    """bool [t]: the target, or its example, has that label."""
    if name not in examples.segments:
        raise ValueError(f"{examples.task} has no segment '{name}'{nearest(name, examples.segments)}")
    segment = examples.segments[name]
    if label not in segment.labels:
        raise ValueError(f"segment '{name}' has no label '{label}'{nearest(label, segment.labels)}")
    inside = segment.codes == segment.labels.index(label)
    return inside[examples.ragged().rows()] if segment.of == "example" else inside


def _only(targets: Ragged, keep: np.ndarray) -> Ragged:
    """The same rows with only some of their values."""
    return Ragged(np.concatenate([[0], np.cumsum(keep)])[targets.offsets], targets.values[keep])


# ----------------------------------------------------------------------------------------------------------------- files
def save_scores(file: Path, examples: Examples, ranks: Mapping[str, np.ndarray]) -> None:
    """Writes examples and the ranks of each method ("model", "item_knn", …) to one file, whole or not at all."""
    _write(file, "scores", _meta(examples) | {"ranks": list(ranks)}, _columns(examples) | _packed_ranks(ranks, examples))


def load_scores(file: Path) -> Scores:
    """What `save_scores` wrote.

    Raises:
        UserError: no such file, or not one of these, or damaged.
    """
    return _read(file, "scores", lambda meta, arrays: Scores(_examples(meta, arrays), _unpacked_ranks(meta, arrays)))


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


def save_ranks(file: Path, ranks: Mapping[str, np.ndarray]) -> None:
    """Writes the ranks of one method on several tasks: task → `float64 [t]`. Their examples are stored elsewhere, once."""
    _write(file, "ranks", {"ranks": list(ranks)}, _packed_ranks(ranks))


def load_ranks(file: Path) -> dict[str, np.ndarray]:
    """What `save_ranks` wrote. Raises `UserError` as `load_scores` does."""
    return _read(file, "ranks", _unpacked_ranks)


def _packed_ranks(ranks: Mapping[str, np.ndarray], examples: Examples | None = None) -> dict[str, np.ndarray]:
    packed = {}
    for name, values in ranks.items():
        if examples is not None and len(values) != len(examples.target):
            raise ValueError(f"{name}: {len(values)} ranks for {len(examples.target)} targets")
        doubled = np.asarray(values, np.float64) * 2.0
        if len(doubled) and not (doubled.min() >= 2.0 and np.array_equal(doubled, np.rint(doubled)) and doubled.max() < 2**32):
            raise ValueError(f"{name}: ranks must be multiples of 1/2 from 1 to 2**31, got {values[_first_wrong(doubled)]}")
        packed[f"rank.{name}"] = doubled.astype(np.uint32 if doubled.max(initial=0) > 0xFFFF else np.uint16)
    return packed


def _first_wrong(doubled: np.ndarray) -> int:
    return int(np.argmin((doubled >= 2.0) & (doubled == np.rint(doubled)) & (doubled < 2**32)))


def _unpacked_ranks(meta: dict[str, Any], arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    found = {name: arrays[f"rank.{name}"] / 2.0 for name in meta["ranks"]}
    lengths = {len(values) for values in found.values()}
    if "target" in arrays and lengths - {len(arrays["target"])}:
        raise ValueError(f"{lengths} ranks for {len(arrays['target'])} targets")
    return found


def _meta(examples: Examples) -> dict[str, Any]:
    segments = {name: {"labels": list(part.labels), "of": part.of} for name, part in examples.segments.items()}
    return {"task": examples.task, "segments": segments, "digest": examples.digest()}


def _columns(examples: Examples) -> dict[str, np.ndarray]:
    """Row numbers and offsets as differences, for they mostly ascend, and small numbers compress well."""
    columns = {
        "example": _smallest(np.diff(np.asarray(examples.example, np.int64), prepend=0)),
        "lengths": _smallest(np.diff(np.asarray(examples.offsets, np.int64))),
        "target": _smallest(examples.target),
    }
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
    )
    if found.digest() != meta["digest"]:
        raise ValueError("the examples do not have the digest that was written beside them")
    return found


def _write(file: Path, kind: str, meta: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    """One zip, made here rather than by `np.savez`, so that nothing of the machine or the day gets into its bytes."""
    text = json.dumps({"format": _FORMAT, "kind": kind} | meta, ensure_ascii=False)
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
        if (meta["format"], meta["kind"]) != (_FORMAT, kind):
            raise ValueError(f"holds {meta['kind']} in format {meta['format']}, expected {kind} in format {_FORMAT}")
        return build(meta, arrays)
    except Exception as error:  # a damaged zip may raise anything
        raise UserError(f"{file}: damaged, or no file of {kind}: {error or type(error).__name__}") from error
