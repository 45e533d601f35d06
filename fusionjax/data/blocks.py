"""Tables about a graph on disk: an example is a block of thousands of rows, since a graph may have millions.

A block holds the next rows of every column, and of triples the next names of both vocabularies too, so that rows are numbers.
Columns may differ in length: the later blocks of a shorter one are empty.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_pb2

from fusionjax.data.shop import Entities, Literals, Relations, Triples, text_column

TEXT = np.object_
_TRIPLES = {"head": np.int32, "relation": np.int32, "tail": np.int32, "split": np.int8, "entities": TEXT, "relations": TEXT}
COLUMNS: dict[str, dict[str, type[np.generic]]] = {
    "triples": _TRIPLES,
    "entities": {"id": TEXT, "name": TEXT, "description": TEXT},
    "relations": {"id": TEXT, "name": TEXT},
    "negatives": _TRIPLES,
    "literals": {"entity": TEXT, "attribute": TEXT, "value": np.float32},
}
"""Columns of each table as stored."""

_TABLES: dict[str, type] = {
    "triples": Triples,
    "entities": Entities,
    "relations": Relations,
    "negatives": Triples,
    "literals": Literals,
}
_ROWS = 16_384


def features(part: str) -> dict[str, Any]:
    """TFDS's description of a block."""
    return {name: tfds.features.Tensor(shape=(None,), dtype=dtype) for name, dtype in COLUMNS[part].items()}


def examples(part: str, table: Any) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """The blocks of a table, numbered. Raises `ValueError` for a column of another dtype: it would not come back as it went."""
    columns = {name: getattr(table, name) for name in COLUMNS[part]}
    for name, dtype in COLUMNS[part].items():
        if columns[name].dtype != dtype:
            raise ValueError(f"{part}.{name} has dtype {columns[name].dtype}, expected {np.dtype(dtype)}")
    for block, start in enumerate(range(0, max(map(len, columns.values())), _ROWS)):
        yield block, {name: column[start : start + _ROWS] for name, column in columns.items()}


def read(part: str, builder: Any, rows: str) -> Any:
    """The table that `examples` gave, from TFDS split `rows`."""
    data = builder.as_data_source(rows, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES)
    found: dict[str, list[Any]] = {name: [] for name in COLUMNS[part]}
    for place in range(len(data)):
        example = tf_example_pb2.Example.FromString(data[place])  # pyright: ignore[reportAttributeAccessIssue]
        for name, dtype in COLUMNS[part].items():
            value = example.features.feature[name]
            if dtype is TEXT:
                found[name] += [text.decode() for text in value.bytes_list.value]
            else:
                numbers = value.float_list if np.issubdtype(dtype, np.floating) else value.int64_list
                found[name].append(np.array(numbers.value, dtype))
    return _TABLES[part](
        **{
            name: text_column(found[name]) if dtype is TEXT else np.concatenate(found[name])
            for name, dtype in COLUMNS[part].items()
        }
    )
