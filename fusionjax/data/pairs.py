"""Pairs of query and product from a file: hard negatives."""

from pathlib import Path

import numpy as np

from fusionjax.data.shop import Shop
from fusionjax.data.sources.files.problems import Problems
from fusionjax.data.sources.files.read import SUFFIXES, read_table
from fusionjax.errors import UserError, nearest

COLUMNS = ("query", "product")


def read_pairs(file: Path, shop: Shop) -> np.ndarray:
    """int64 [n, 2], sorted, unique: rows of queries and products of the shop, named by their ids in the columns `COLUMNS`.

    Raises:
      UserError: no such file; a column is missing; ids the shop lacks, or malformed rows: all of them, by reason, with file,
        line and count.
    """
    if not file.exists():
        raise UserError(f"{file}: no such file")
    if not file.name.lower().endswith(SUFFIXES):
        raise UserError(f"{file}: expected a table ({', '.join(SUFFIXES)})")
    problems = Problems(skip=False)
    table = read_table(file, "utf-8", problems)
    for name in COLUMNS:
        if name not in table.columns:
            raise UserError(f"{file}: no column '{name}'{nearest(name, table.columns)}")
    rows_of = (_rows(shop.queries.id), _rows(shop.products.id))
    columns: list[list[int]] = [[], []]
    for name, known, column in zip(COLUMNS, rows_of, columns, strict=True):
        for row, value in enumerate(table.text(name)):
            if value not in known:
                problems.add(table.place(row), f"shop '{shop.name}' has no {name} of this id", f"'{value}'")
            column.append(known.get(value, -1))
    problems.finish(file.parent, print)
    return np.unique(np.array(columns, np.int64).T.reshape(-1, 2), axis=0)


def _rows(ids: np.ndarray) -> dict[str, int]:
    return {name: row for row, name in enumerate(ids)}
