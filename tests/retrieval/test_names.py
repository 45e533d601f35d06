"""Strings by row and rows by string, from memory and from disk; the best of many scores."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusionjax.retrieval import names as module
from fusionjax.retrieval.names import Names
from fusionjax.retrieval.nearest import best_rows

WORDS = ["T1", "", "纯棉T恤", "a b\nc", "T1", "M2", "é"]


def test_rows_and_strings(tmp_path: Path) -> None:
    names = Names.of(WORDS)
    names.save(tmp_path, "ids")
    for each in (names, Names.load(tmp_path, "ids")):
        assert list(each) == WORDS and len(each) == 7 and each[-1] == "é" and each[2:4] == WORDS[2:4]
        assert [each.row(word) for word in WORDS] == [0, 1, 2, 3, 0, 5, 6]  # of equal ones the first
        assert each.row("T") is None and each.row("zz") is None and each.row("a") is None
        with pytest.raises(IndexError):
            _ = each[7]


def test_no_strings_at_all(tmp_path: Path) -> None:
    Names.of([]).save(tmp_path, "ids")
    empty = Names.load(tmp_path, "ids")
    assert len(empty) == 0 and list(empty) == [] and empty.row("x") is None and empty.hint("x") == "; valid: "


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=4), max_size=30), st.text(max_size=3))
def test_a_name_is_found_where_a_list_finds_it(values: list[str], other: str) -> None:
    names = Names.of(values)
    for word in (*values, other):
        assert names.row(word) == (values.index(word) if word in values else None)


def test_hints_name_the_nearest_few(monkeypatch: pytest.MonkeyPatch) -> None:
    names = Names.of([f"P{number:06d}" for number in range(3000)])
    assert names.nearest("p000123")[0] == "P000123"
    assert names.hint("zzz").startswith("; valid: P000000, P000001") and names.hint("zzz").endswith(", …")
    assert Names.of(["anna", "bo", "chen"]).hint("cheng") == "; did you mean 'chen'?"
    assert Names.of(["anna", "anne", "bo"]).hint("ann") == "; did you mean 'anne' or 'anna'?"
    # Of many names only those near in the order, and those a letter away, are compared.
    monkeypatch.setattr(module, "_FEW", 10)
    for typed in ("P000124x", "p000124", "P00124", "P0001243", "P000142"):
        assert names.nearest(typed), typed
    assert len(near := names.nearest("P0001244")) == 3 and all(names.row(each) is not None for each in near)


@pytest.mark.parametrize("k", [1, 3, 7, 50])
def test_the_best_rows_are_those_of_a_full_sort(k: int) -> None:
    for seed in range(20):
        random = np.random.Generator(np.random.Philox(seed))
        scores = random.integers(0, 6, 50).astype(np.float32)  # many ties
        scores[random.random(50) < 0.3] = -np.inf
        wanted = [row for row in np.argsort(-scores, kind="stable")[:k] if scores[row] > -np.inf]
        assert best_rows(scores, k).tolist() == wanted
    assert best_rows(np.full(4, -np.inf, np.float32), 2).tolist() == []
