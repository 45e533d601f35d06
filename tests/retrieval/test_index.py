"""The index on disk, the known triples in it, and sizes of a model as plain values."""

import json
from pathlib import Path

import numpy as np
import pytest

from fusionjax.models.bert import BertConfig
from fusionjax.models.layers import Lora
from fusionjax.models.modernbert import ModernBertConfig
from fusionjax.retrieval import index as module
from fusionjax.retrieval.index import Index, ProductPart, load_index, readable_size, save_index
from fusionjax.retrieval.known import Known
from fusionjax.retrieval.names import Names
from fusionjax.retrieval.plain import from_plain, to_plain


def small(step: int = 3) -> Index:
    unit = np.eye(3, dtype=np.float32)
    products = ProductPart(Names.of(["a", "b", "c"]), Names.of(["A", "", "C"]), unit, np.array([1, 2, 3], np.float32))
    return Index(shop="s", step=step, data="d", products=products)


def test_written_whole_and_read_back(tmp_path: Path) -> None:
    assert load_index(tmp_path / "index") is None
    size = save_index(tmp_path / "index", small())
    assert size == sum(file.stat().st_size for file in (tmp_path / "index").glob("*.npy"))
    found = load_index(tmp_path / "index")
    assert found is not None and (found.shop, found.step, found.data, found.users, found.graph) == ("s", 3, "d", None, None)
    np.testing.assert_array_equal(found.products.raw([2, 0]), [[0, 0, 3], [1, 0, 0]])
    save_index(tmp_path / "index", small(step=4))  # takes the place of the other
    assert np.asarray(found.products.unit).sum() == 3, "who has the former open keeps it"
    assert load_index(tmp_path / "index").step == 4
    assert [path.name for path in tmp_path.iterdir()] == ["index"], "nothing is left beside it"


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_index(tmp_path / "index", small())
    monkeypatch.setattr(module, "write_json", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        save_index(tmp_path / "index", small(step=9))
    assert load_index(tmp_path / "index").step == 3 and [path.name for path in tmp_path.iterdir()] == ["index"]


def test_another_format_is_no_index(tmp_path: Path) -> None:
    save_index(tmp_path / "index", small())
    file = tmp_path / "index" / "index.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"format": module.FORMAT + 1}))
    assert load_index(tmp_path / "index") is None


def test_pickles_are_refused(tmp_path: Path) -> None:
    save_index(tmp_path / "index", small())
    np.save(tmp_path / "index" / "products.unit.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="Python objects"):
        load_index(tmp_path / "index")


def test_known_triples_are_those_a_set_holds(tmp_path: Path) -> None:
    triples = np.random.Generator(np.random.Philox(0)).integers(0, 6, (60, 3)).astype(np.int32)
    Known.of(triples).save(tmp_path, "known")
    known, held = Known.load(tmp_path, "known"), {tuple(row) for row in triples.tolist()}
    for first in range(7):
        for relation in range(7):
            assert set(known.tails(first, relation).tolist()) == {t for h, r, t in held if (h, r) == (first, relation)}
            assert set(known.heads(relation, first).tolist()) == {h for h, r, t in held if (r, t) == (relation, first)}
    assert all(known.has(*row) for row in held) and not known.has(6, 0, 0)
    assert len(Known.of(np.empty((0, 3), np.int32)).tails(0, 0)) == 0


def test_sizes_of_a_model_as_plain_values() -> None:
    for sizes in (
        BertConfig(vocab_size=30, lora=Lora(2, 4.0, ("query",))),
        ModernBertConfig(30, 8, 2, 2, 16, local=(True, False)),
    ):
        assert from_plain(json.loads(json.dumps(to_plain(sizes)))) == sizes
    with pytest.raises(TypeError, match="unexpected keyword"):
        from_plain({"is": "Lora", "rank": 2, "alpha": 1.0, "colour": 3})


@pytest.mark.parametrize(("size", "said"), [(0, "0 B"), (999, "999 B"), (12_345_678, "12.3 MB"), (2_500_000_000, "2.5 GB")])
def test_sizes_for_people(size: int, said: str) -> None:
    assert readable_size(size) == said
