"""The index saved with a run, RUN/index: all that its answers need besides the run's best parameters, its config and tokeniser.

| part | holds |
| --- | --- |
| index.json | format, step and digest of the parameters, fingerprint of the data, sizes of the model, bytes |
| products.* | ids, titles, unit vectors and the lengths they had |
| users.* | ids, the events of each (product, kind, time), profile codes; absent with `data.keep_users: false` |
| graph.* | ids and names of entities and relations, their vectors, the scorer's other weights, the known triples |

Arrays are `.npy` without pickle, memory-mapped when the index is opened; nothing in it can execute.
"""

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fusionjax.errors import UserError
from fusionjax.files import whole_folder, write_json
from fusionjax.retrieval.known import Known
from fusionjax.retrieval.names import Names, load_array, save_array

FORMAT = 1
MANIFEST = "index.json"


def _save_arrays(folder: Path, stem: str, part: Any, *names: str) -> None:
    for name in names:
        save_array(folder / f"{stem}.{name}.npy", getattr(part, name))


def _load_arrays(folder: Path, stem: str, *names: str) -> dict[str, np.ndarray]:
    return {name: load_array(folder / f"{stem}.{name}.npy") for name in names}


@dataclasses.dataclass(frozen=True)
class ProductPart:
    ids: Names
    titles: Names
    unit: np.ndarray
    """float32 [n, p]: product vectors of length 1."""
    length: np.ndarray
    """float32 [n]: the lengths the vectors had, as the user tower reads them."""

    def raw(self, rows: Any = slice(None)) -> np.ndarray:
        """float32 [·, p]: vectors as they were."""
        return self.unit[rows] * self.length[rows][:, None]

    def save(self, folder: Path) -> None:
        self.ids.save(folder, "products.ids")
        self.titles.save(folder, "products.titles")
        _save_arrays(folder, "products", self, "unit", "length")

    @classmethod
    def load(cls, folder: Path) -> "ProductPart":
        ids, titles = Names.load(folder, "products.ids"), Names.load(folder, "products.titles")
        return cls(ids, titles, **_load_arrays(folder, "products", "unit", "length"))


@dataclasses.dataclass(frozen=True)
class UserPart:
    """Events of user u are rows `offsets[u]:offsets[u + 1]`, in the order in which the user tower reads them."""

    ids: Names
    offsets: np.ndarray
    product: np.ndarray
    kind: np.ndarray
    time: np.ndarray
    profile: np.ndarray
    """int32 [n, f]: codes of the profile fields; 0 = unknown."""

    def events(self, user: int) -> slice:
        return slice(int(self.offsets[user]), int(self.offsets[user + 1]))

    def save(self, folder: Path) -> None:
        self.ids.save(folder, "users.ids")
        _save_arrays(folder, "users", self, "offsets", "product", "kind", "time", "profile")

    @classmethod
    def load(cls, folder: Path) -> "UserPart":
        arrays = _load_arrays(folder, "users", "offsets", "product", "kind", "time", "profile")
        return cls(Names.load(folder, "users.ids"), **arrays)


@dataclasses.dataclass(frozen=True)
class GraphPart:
    """Entities and relations as triples are scored with: all a scorer needs, whatever its vectors were made of."""

    entities: Names
    names: Names
    """Of the entities from row `named_from` on; those before are products, whose titles are their names."""
    named_from: int
    relations: Names
    relation_names: Names
    vectors: np.ndarray
    """float32 [e, w]."""
    relation_vectors: np.ndarray
    """float32 [r, k]; with reciprocal relations [2 r, k], inverses behind."""
    shared: Mapping[str, np.ndarray]
    """The scorer's weights that belong to no entity and no relation."""
    scorer: str
    sizes: Mapping[str, Any]
    """The fields of `models.scorers.Sizes` but dropout."""
    reciprocal: bool
    known: Known

    def save(self, folder: Path) -> None:
        for stem in ("entities", "names", "relations", "relation_names"):
            getattr(self, stem).save(folder, f"graph.{stem}")
        _save_arrays(folder, "graph", self, "vectors", "relation_vectors")
        for name, array in self.shared.items():
            save_array(folder / f"graph.shared.{name}.npy", array)
        self.known.save(folder, "graph.known")
        facts = {
            "named_from": self.named_from,
            "shared": sorted(self.shared),
            "scorer": self.scorer,
            "sizes": dict(self.sizes),
            "reciprocal": self.reciprocal,
        }
        write_json(folder / "graph.json", facts)

    @classmethod
    def load(cls, folder: Path) -> "GraphPart":
        facts = json.loads((folder / "graph.json").read_text(encoding="utf-8"))
        shared = {name: load_array(folder / f"graph.shared.{name}.npy") for name in facts.pop("shared")}
        stems = ("entities", "names", "relations", "relation_names")
        return cls(
            **{stem: Names.load(folder, f"graph.{stem}") for stem in stems},
            **_load_arrays(folder, "graph", "vectors", "relation_vectors"),
            shared=shared,
            known=Known.load(folder, "graph.known"),
            **facts,
        )


@dataclasses.dataclass(frozen=True)
class Index:
    shop: str
    """Name of the data set."""
    step: int
    """Of the parameters the vectors were made with."""
    data: str = ""
    """Fingerprint of the shop, cleaned and split."""
    parameters: str = ""
    """SHA-256 of the best parameters."""
    layout: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """`models.joint.Layout` as plain values (`retrieval.plain`)."""
    products: ProductPart | None = None
    users: UserPart | None = None
    users_left_out: bool = False
    graph: GraphPart | None = None


_PARTS: dict[str, Any] = {"products": ProductPart, "users": UserPart, "graph": GraphPart}


def save_index(folder: Path, index: Index) -> int:
    """Writes `folder` whole or not at all; returns its size in bytes.

    Raises:
      UserError: it cannot be written there.
    """
    try:
        with whole_folder(folder) as temporary:
            held = [name for name in _PARTS if getattr(index, name) is not None]
            for name in held:
                getattr(index, name).save(temporary)
            size = sum(file.stat().st_size for file in temporary.iterdir())
            plain = {each.name: getattr(index, each.name) for each in dataclasses.fields(index) if each.name not in _PARTS}
            write_json(temporary / MANIFEST, {"format": FORMAT, **plain, "parts": held, "bytes": size})
    except OSError as error:
        raise UserError(f"{folder}: cannot write the index there: {error.strerror}") from error
    return size


def load_index(folder: Path) -> Index | None:
    """The index in `folder`, memory-mapped; None where there is none, or one of another format."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    if manifest.pop("format", None) != FORMAT:
        return None
    held = manifest.pop("parts")
    del manifest["bytes"]
    return Index(**manifest, **{name: _PARTS[name].load(folder) for name in held})


def readable_size(size: int) -> str:
    """12,345,678 → `12.3 MB`."""
    unit = min(3, int(math.log10(max(size, 1)) // 3))
    return f"{size / 1000**unit:.{1 if unit else 0}f} {('B', 'kB', 'MB', 'GB')[unit]}"
