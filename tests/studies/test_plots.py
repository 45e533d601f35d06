"""Plots of a study: what the pictures show, names in any script, edge cases, and that equal numbers give equal bytes."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from fusionjax.reporting.figure import ACCENT, QUIET
from fusionjax.studies import diagrams, plots
from fusionjax.studies.plots import Bar, Cost, Curve, Difference

NAMES = ["<b>&_% a", "$x^2$ dollars", "纯棉 T恤", "🎧", "x" * 90, "two\nlines"]


def area(path: Path, colour: str) -> int:
    """Number of pixels of exactly this colour."""
    image = np.round(imread(path)[..., :3] * 255).astype(int)
    return int((image == [int(colour[at : at + 2], 16) for at in (1, 3, 5)]).all(-1).sum())


def test_bars_tell_rows_reference_and_baselines_apart(tmp_path: Path) -> None:
    path = tmp_path / "bars.png"
    assert plots.bars([Bar("a", 0.2), Bar("r", 0.4, kind="reference"), Bar("b", 0.1, kind="baseline")], "MRR", path)
    row, reference, baseline = (area(path, colour) for colour in (ACCENT, plots.REFERENCE, QUIET))
    assert row == pytest.approx(2 * baseline, rel=0.05)
    assert reference == pytest.approx(2 * row, rel=0.1)  # and the dashed line
    assert plots.bars([Bar("a", 0.2), Bar("r", None, kind="reference")], "MRR", path)
    assert area(path, plots.REFERENCE) == 0


def test_only_significant_differences_are_coloured_by_direction(tmp_path: Path) -> None:
    path = tmp_path / "differences.png"

    def drawn(*each: Difference) -> tuple[int, int]:
        assert plots.differences([f"row {n}" for n in range(len(each))], {"all": each}, "NDCG@10", path)
        return area(path, plots.BETTER), area(path, plots.WORSE)

    better, worse = drawn(Difference(0.1, 0.05, 0.15, True), Difference(0.2, -0.1, 0.3, False))
    assert better > 50 and worse == 0
    better, worse = drawn(Difference(-0.1, -0.15, -0.05, True), Difference(None))
    assert better == 0 and worse > 50


def test_the_frontier_holds_what_nothing_beats() -> None:
    assert plots.frontier([3, 1, 2, 2], [0.3, 0.1, 0.05, 0.2]) == [1, 3, 0]
    assert plots.frontier([1, 1, 2], [0.2, 0.3, 0.3]) == [1]
    assert plots.frontier([], []) == []


# A letter that no font has is a warning, and a warning is an error here.
def test_names_are_drawn_as_they_are_or_escaped(tmp_path: Path) -> None:
    path = tmp_path / "plot.png"
    assert plots.bars([Bar(name, 0.1) for name in NAMES], "MRR", path)
    assert plots.differences(NAMES, {NAMES[0]: [Difference(0.1)] * len(NAMES)}, NAMES[4], path)
    assert plots.learning_curves({"MRR": [Curve(name, [1], [0.1], [0.1], [0.1]) for name in NAMES]}, NAMES[0], path)
    assert plots.pareto([Cost(name, 0.1, 1.0, 1.0) for name in NAMES], "MRR", "minutes", path)
    assert diagrams.heat_map({(one, two): (0.1, None) for one in NAMES for two in NAMES}, ("$a_b$", "轴"), "MRR", path)
    ranks = {name: float(place) for place, name in enumerate(NAMES)}
    assert diagrams.critical_difference(ranks, [NAMES[:3], NAMES[2:5]], 2.0, "mean rank", path)


def test_edge_cases_are_drawn(tmp_path: Path) -> None:
    path = tmp_path / "plot.png"
    assert plots.bars([Bar("alone", 0.0)], "MRR", path)
    assert plots.differences(["a"], {"all": [Difference(0.0)]}, "MRR", path)
    assert plots.differences(["a"], {f"label {n}": [Difference(0.1)] for n in range(10)}, "MRR", path)
    assert plots.learning_curves({"MRR": [Curve("a", [5, 9], [0.1, 0.2], [0.1, 0.2], [0.1, 0.2])], "empty": []}, "r", path)
    assert plots.pareto([Cost("a", 0.1, 3.0, None)], "MRR", "minutes", path)
    assert plots.pareto([Cost(str(n), 0.1, 3.0, 1.0) for n in range(30)], "MRR", "minutes", path)
    assert diagrams.heat_map({("a", "x"): (0.1, 0.01), ("b", "y"): (None, None)}, ("one", "two"), "MRR", path)
    assert diagrams.critical_difference({"a": 1.5, "b": 1.5}, [["a", "b"]], None, "rank", path)


def test_nothing_to_draw_leaves_no_file(tmp_path: Path) -> None:
    path = tmp_path / "old.png"
    for draw in (
        lambda: plots.bars([Bar("a", None)], "MRR", path),
        lambda: plots.differences([], {"all": []}, "MRR", path),
        lambda: plots.differences(["a"], {"all": [Difference(None)]}, "MRR", path),
        lambda: plots.learning_curves({"MRR": [Curve("a", [], [], [], [])]}, "a", path),
        lambda: plots.pareto([Cost("a", 0.1, None, None)], "MRR", "minutes", path),
        lambda: diagrams.heat_map({("a", "b"): (None, None)}, ("x", "y"), "MRR", path),
        lambda: diagrams.critical_difference({"a": 1.0}, [], 1.0, "rank", path),
    ):
        path.write_bytes(b"of an earlier report")
        assert not draw()
        assert not path.exists()


def test_twenty_long_names_fit(tmp_path: Path) -> None:
    path = tmp_path / "bars.png"
    assert plots.bars([Bar(f"a rather long name of a row, number {n}", 0.5, 0.45, 0.55) for n in range(20)], "MRR", path)
    image = np.asarray(imread(path))[..., :3]
    ink: np.ndarray = np.less(image.min(axis=-1), 0.99)
    assert not ink[0].any() and not ink[-1].any() and not ink[:, 0].any() and not ink[:, -1].any()  # nothing is cut off
    assert image.shape[0] > 20 * 30


def test_equal_numbers_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        points = [Cost(str(n), 0.1 * n, 3.0 + n % 4, 1.0) for n in range(12)]
        assert plots.pareto(points, "MRR", "minutes", tmp_path / f"{name}.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
