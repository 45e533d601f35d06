"""A run's vectors as a file for other programs: ids beside them, nothing else needed to read it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fusionjax.errors import UserError, nearest
from fusionjax.files import whole, write_whole
from fusionjax.serving.model import Model

WHICH = ("products", "entities", "relations")


def vectors_of(model: Model, of: str | None) -> tuple[Sequence[str], np.ndarray]:
    """(ids, float32 [n, w]): unit vectors of products, or vectors of entities or relations as triples are scored with.

    Args:
      of: one of `WHICH`; None: products if the run has any, else entities.
    """
    if of is None:
        of = "products" if model.index.products is not None else "entities"
    if of == "products":
        return model.product_ids, model.unit
    if of == "entities":
        return model.entity_ids, model.entity_vectors()
    if of == "relations":
        return model.relation_ids, model.relation_vectors()
    raise UserError(f"vectors of '{of}'{nearest(of, WHICH)}")


def write_vectors(model: Model, out: Path, of: str | None) -> tuple[int, int]:
    """See `fusionjax.api.save_vectors`."""
    ids, vectors = vectors_of(model, of)
    if out.suffix not in (".npy", ".parquet"):
        raise UserError(f"{out}: expected a name that ends in .npy or .parquet")
    if not out.parent.is_dir():
        raise UserError(f"{out}: cannot write there: there is no folder {out.parent}")
    try:
        if out.suffix == ".parquet":
            _write_parquet(out, ids, vectors)
        else:
            _write_npy(out, ids, vectors)
    except OSError as error:
        raise UserError(f"{out}: cannot write there: {error.strerror}") from error
    return len(ids), vectors.shape[1]


def _write_npy(out: Path, ids: Sequence[str], vectors: np.ndarray) -> None:
    lines = list(ids)
    if broken := next((id for id in lines if "\n" in id or "\r" in id), None):
        raise UserError(f"{out}: the id {broken!r} has a line break in it; write .parquet instead")
    write_whole(out.with_suffix(".ids.txt"), "".join(f"{id}\n" for id in lines))
    with whole(out) as temporary, temporary.open("wb") as file:
        np.save(file, vectors, allow_pickle=False)


def _write_parquet(out: Path, ids: Sequence[str], vectors: np.ndarray) -> None:
    import pyarrow
    import pyarrow.parquet

    flat: Any = pyarrow.array(np.ascontiguousarray(vectors).reshape(-1))
    rows = pyarrow.FixedSizeListArray.from_arrays(flat, vectors.shape[1])
    with whole(out) as temporary:
        pyarrow.parquet.write_table(
            pyarrow.table({"id": pyarrow.array(list(ids), pyarrow.string()), "vector": rows}), temporary
        )
