"""Plots: what the pictures show, that equal numbers give equal bytes, and that matplotlib's state is left as it was."""

import math
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.image import imread

from fusionjax.reporting import figure, plots

CURVES: list[dict[str, Any]] = [
    *(
        {"step": s, "kind": "train", "loss": 5.0 / s, "loss/next_product": 4.0 / s, "loss/alignment": 1.0 / s}
        for s in range(1, 90, 9)
    ),
    {
        "step": 30,
        "kind": "valid",
        "selected": 0.2,
        "best": True,
        "search/ndcg@10": 0.2,
        "search/mrr": 0.9,
        "recommendation/ndcg@10": None,
    },
    {"step": 60, "kind": "valid", "selected": 0.3, "best": True, "search/ndcg@10": 0.3, "recommendation/ndcg@10": 0.1},
    {"step": 90, "kind": "valid", "selected": 0.1, "best": False, "search/ndcg@10": 0.1, "recommendation/ndcg@10": math.nan},
]
RESULTS: dict[str, Any] = {
    "test": {"search": {"ndcg@10": 0.5}, "recommendation": {"ndcg@10": 0.1, "recall@10/head": 0.3, "users/head": 12.0}},
    "baselines": {
        "search": {"bm25": {"ndcg@10": 0.25}, "$odd$_^": {}},
        "recommendation": {"popularity": {"recall@10/head": 0.1}},
    },
}


def area(path: Path, colour: str) -> int:
    """Number of pixels of exactly this colour."""
    image = np.round(imread(path)[..., :3] * 255).astype(int)
    return int((image == [int(colour[at : at + 2], 16) for at in (1, 3, 5)]).all(-1).sum())


def vectors(n: int, groups: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.Generator(np.random.Philox(seed))
    group = np.arange(n) % groups
    centres = np.linalg.qr(random.normal(size=(16, 16)))[0][:groups] * 4
    return (centres[group] + random.normal(size=(n, 16)) * 0.4).astype(np.float32), group


def test_learning_curves_mark_the_best_step(tmp_path: Path) -> None:
    assert plots.learning_curves(CURVES, tmp_path / "a.png")
    assert area(tmp_path / "a.png", plots.PALETTE[4]) > 50
    unmarked = [{key: value for key, value in row.items() if key != "best"} for row in CURVES]
    assert plots.learning_curves(unmarked, tmp_path / "b.png")
    assert area(tmp_path / "b.png", plots.PALETTE[4]) == 0


@pytest.mark.parametrize(
    "rows",
    [
        CURVES[:1],
        [row for row in CURVES if row["kind"] == "valid"],
        [row for row in CURVES if row["kind"] == "train"],
        [{"step": 1, "kind": "train", "loss": math.inf, "loss/link_prediction": None}],
        [{"step": 1, "kind": "train", "loss": 0.0}, {"step": 2, "kind": "valid", "best": True, "tagging/f1": 0.5}],
    ],
)
def test_curves_of_odd_runs(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    assert plots.learning_curves(rows, tmp_path / "plots" / "curves.png")
    assert imread(tmp_path / "plots" / "curves.png").shape[1] > 400
    assert [path.name for path in (tmp_path / "plots").iterdir()] == ["curves.png"]


def test_nothing_to_draw_leaves_no_file(tmp_path: Path) -> None:
    for draw, rows in (
        (plots.learning_curves, []),
        (plots.baseline_bars, {}),
        (plots.segment_bars, {"test": {"search": {"mrr": 0.1}}}),
    ):
        path = tmp_path / "old.png"
        path.write_bytes(b"of an earlier run")
        assert not draw(rows, path)  # pyright: ignore[reportArgumentType]
        assert not path.exists()


def test_bars_are_as_long_as_their_values(tmp_path: Path) -> None:
    results = {"test": {"search": {"ndcg@10": 0.5}}, "baselines": {"search": {"bm25": {"ndcg@10": 0.25}, "none": {}}}}
    assert plots.baseline_bars(results, tmp_path / "bars.png")
    ratio = area(tmp_path / "bars.png", plots.ACCENT) / area(tmp_path / "bars.png", plots.QUIET)
    assert ratio == pytest.approx(2.0, rel=0.03)


def test_segments_share_one_scale(tmp_path: Path) -> None:
    results = {
        "test": {"recommendation": {"recall@10/head": 0.3, "recall@10/tail": 0.1, "users/head": 12.0}},
        "baselines": {"recommendation": {"popularity": {"recall@10/head": 0.2, "recall@10/tail": 0.0}}},
    }
    assert plots.segment_bars(results, tmp_path / "segments.png")
    ratio = area(tmp_path / "segments.png", plots.ACCENT) / area(tmp_path / "segments.png", plots.QUIET)
    assert ratio == pytest.approx(0.4 / 0.2, rel=0.05)


def test_map_keeps_neighbours_and_only_directions_count() -> None:
    found, group = vectors(120)
    lengths = np.linspace(0.01, 100, 120, dtype=np.float32)[:, None]
    for given in (found, found * lengths):
        points = plots.project(given)
        apart = np.linalg.norm(points[:, None] - points[None], axis=-1) + np.eye(120) * 1e9
        nearest = np.argsort(apart, axis=1)[:, :5]
        assert (group[nearest] == group[:, None]).mean() > 0.95


def test_map_counts_all_products_and_draws_a_sample(tmp_path: Path) -> None:
    found, group = vectors(300, groups=14)
    labels = [["", *(f"category {n}" for n in range(1, 14))][code] for code in group]
    labels[1] = "category 2"  # the most common one
    legend = plots.product_map(found, labels, tmp_path / "map.png", most=60)
    assert len(legend) == 11
    assert legend[0] == ("C1", "category 2", 23, plots.PALETTE[0])
    assert legend[-1][:2] == (plots.REST_CODE, "other") and legend[-1][3] == plots.REST
    assert sum(entry[2] for entry in legend) == 300
    assert area(tmp_path / "map.png", plots.REST) > 0


def test_equal_numbers_give_equal_bytes_and_leave_no_trace(tmp_path: Path) -> None:
    before = dict(matplotlib.rcParams)
    found, group = vectors(50)
    labels = [f"c{code}" for code in group]
    written = []
    for name in ("a", "b"):
        legend = plots.write_plots(tmp_path / name, curves=CURVES, results=RESULTS, vectors=found, labels=labels)
        assert len(legend) == 3
        written.append({path.name: path.read_bytes() for path in sorted((tmp_path / name).iterdir())})
    assert list(written[0]) == ["baseline_bars.png", "learning_curves.png", "product_map.png", "segment_bars.png"]
    assert written[0] == written[1]
    assert dict(matplotlib.rcParams) == before


def test_write_plots_without_products(tmp_path: Path) -> None:
    assert plots.write_plots(tmp_path, curves=CURVES, results={}) == []
    assert [path.name for path in tmp_path.iterdir()] == ["learning_curves.png"]


@pytest.mark.parametrize("n", [1, 2, 3, 11])
@pytest.mark.parametrize("kind", ["different", "equal", "zero"])
def test_small_and_degenerate_maps(tmp_path: Path, n: int, kind: str) -> None:
    found = vectors(n)[0] if kind == "different" else np.full((n, 4), kind == "equal", np.float32)
    assert plots.product_map(found, ["only"] * n, tmp_path / "map.png") == [("C1", "only", n, plots.PALETTE[0])]


def test_refused_vectors(tmp_path: Path) -> None:
    broken = np.ones((3, 4), np.float32)
    broken[1, 2] = np.nan
    with pytest.raises(ValueError, match="1 of 3 vectors are not finite"):
        plots.product_map(broken, ["a"] * 3, tmp_path / "map.png")
    with pytest.raises(ValueError, match=r"shape \(3, 4\) and 2 labels"):
        plots.product_map(np.ones((3, 4), np.float32), ["a"] * 2, tmp_path / "map.png")
    with pytest.raises(ValueError, match="0 labels"):
        plots.product_map(np.ones((0, 4), np.float32), [], tmp_path / "map.png")


# A glyph no font has is a warning, and a warning is an error here.
@pytest.mark.parametrize("label", ["服装 Clothing", "🎧", "\U0010fffd", "$x^$ _", "_hidden", "a\nb", "x" * 300])
def test_every_label_can_be_drawn_or_is_replaced_by_its_code(tmp_path: Path, label: str) -> None:
    legend = plots.product_map(vectors(9)[0], [label] * 8 + [""], tmp_path / "map.png")
    assert legend == [("C1", label, 8, plots.PALETTE[0]), (plots.REST_CODE, "no category", 1, plots.REST)]


def test_without_a_chinese_font_codes_are_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figure, "_CJK_FAMILIES", ())
    assert figure.font_for(["Clothing", "Ünïcode"]) is not None
    assert figure.font_for(["Clothing", "服装"]) is None
    assert plots.product_map(vectors(9)[0], ["服装"] * 9, tmp_path / "map.png")[0][1] == "服装"
