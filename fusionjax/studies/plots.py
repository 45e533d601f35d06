"""The pictures of a study, as PNG files: bars, differences by segment, learning curves, cost (grids and ranks: `diagrams.py`).

Each function takes plain numbers, draws names as they are (any script, no mathematics in `$`), and returns whether there was
anything to draw; if not, no file of an earlier state is left. `studies/pictures.py` takes the numbers out of a study.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from fusionjax.reporting.figure import ACCENT, PALETTE, QUIET, REST, dress, nothing, save

REFERENCE, BETTER, WORSE, INK = "#117733", "#117733", "#AA3377", "#333333"
NAME = 40
"""Characters of a name that are drawn."""
WIDTH = 9.2
"""Inches."""


@dataclasses.dataclass(frozen=True)
class Bar:
    """A row or baseline: its mean, the interval around it, and what the comparison with the reference says."""

    name: str
    value: float | None
    low: float | None = None
    high: float | None = None
    kind: str = "row"
    """`row`, `reference` or `baseline`."""
    mark: str = ""
    """`▲` significantly better than the reference, `▼` significantly worse."""


@dataclasses.dataclass(frozen=True)
class Difference:
    """Row − reference with its interval; `significant` after correction."""

    value: float | None
    low: float | None = None
    high: float | None = None
    significant: bool = False


@dataclasses.dataclass(frozen=True)
class Curve:
    """Mean of a metric over seeds at each step, and the lowest and highest seed."""

    name: str
    steps: Sequence[int]
    mean: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]


@dataclasses.dataclass(frozen=True)
class Cost:
    """Quality and what it costs; an unknown cost is `None`."""

    name: str
    quality: float
    time: float | None
    memory: float | None


# ------------------------------------------------------------------------------------------------------------------ bars
def bars(bars: Sequence[Bar], label: str, path: Path) -> bool:
    """Horizontal bars from zero with their intervals; baselines in grey; a dashed line at the reference.

    Args:
      bars: from top to bottom.
      label: of the metric.
      path: the PNG.
    """
    if not any(bar.value is not None for bar in bars):
        return nothing(path)
    colours = {"row": ACCENT, "reference": REFERENCE, "baseline": QUIET}
    top = max(max(bar.value or 0.0, bar.high or 0.0) for bar in bars) or 1.0

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        for place, bar in enumerate(bars):
            if bar.value is None:
                axes.text(0.01 * top, place, "not measured", va="center", fontsize=9, color=QUIET, style="italic")
                continue
            axes.barh(place, bar.value, height=0.68, color=colours[bar.kind])
            end = bar.value
            if bar.low is not None and bar.high is not None:
                axes.plot([bar.low, bar.high], [place, place], color="#111111", lw=1.3, solid_capstyle="butt")
                axes.plot([bar.low, bar.high], [place, place], color="#111111", ls="none", marker="|", ms=7)
                end = max(end, bar.high)
            text = f"{bar.value:.4f}" + (f" {bar.mark}" if bar.mark else "")
            clear = {"facecolor": "white", "edgecolor": "none", "pad": 1.0}  # of the reference's line
            axes.text(end + 0.015 * top, place, text, va="center", fontsize=9, color=INK, bbox=clear)
        reference = next((bar.value for bar in bars if bar.kind == "reference"), None)
        if reference is not None:
            axes.axvline(reference, color=REFERENCE, lw=1, ls="--", zorder=0)
        names_down(axes, [bar.name for bar in bars])
        axes.set_xlim(0, 1.16 * top)
        axes.set_xlabel(label)
        axes.xaxis.set_major_locator(ticker.MaxNLocator(6))

    return save(draw, path, (WIDTH, 0.9 + 0.29 * len(bars)))


# ----------------------------------------------------------------------------------------------------------- differences
def differences(
    rows: Sequence[str],
    panels: Mapping[str, Sequence[Difference]],
    label: str,
    path: Path,
    higher_is_better: bool = True,
) -> bool:
    """A panel a segment, each with its own scale, with each row's difference from the reference as a point with its interval.

    Args:
      rows: names, top to bottom.
      panels: title → a difference for each row; more than five panels go on further lines.
      label: of the axis.
      path: the PNG.
    """
    found = [each for panel in panels.values() for each in panel if each.value is not None]
    if not rows or not found:
        return nothing(path)
    columns = min(5, len(panels))
    lines = math.ceil(len(panels) / columns)

    def draw(figure: Figure) -> None:
        for place, (title, panel) in enumerate(panels.items()):
            axes = figure.add_subplot(lines, columns, place + 1)
            axes.axvline(0, color="#555555", lw=1, zorder=0)
            for row, each in enumerate(panel):
                if each.value is None:
                    axes.text(0, row, " no value", va="center", fontsize=7.5, color=QUIET, style="italic")
                    continue
                colour = (BETTER if (each.value > 0) == higher_is_better else WORSE) if each.significant else QUIET
                if each.low is not None and each.high is not None:
                    axes.plot([each.low, each.high], [row, row], color=colour, lw=1.6)
                axes.plot([each.value], [row], color=colour, marker="o" if each.significant else "d", ms=5, ls="none")
            names_down(axes, list(rows) if place % columns == 0 else [""] * len(rows))
            # A scale of its own: what is much for rare products is nothing beside popular ones.
            ends = [end for each in panel for end in (each.value, each.low, each.high) if end is not None]
            low, high = min([0.0, *ends]), max([0.0, *ends])
            room = 0.08 * ((high - low) or 1.0)
            axes.set_xlim(low - room, high + room)
            axes.xaxis.set_major_locator(ticker.MaxNLocator(6 if columns == 1 else 2, steps=[1, 2, 5, 10]))
            axes.xaxis.set_major_formatter(_signed)
            axes.tick_params(axis="x", labelsize=8)
            axes.grid(True, axis="y")
            axes.set_axisbelow(True)
            dress(axes.set_title(title, fontsize=9.5), 34)
        figure.supxlabel(label, fontsize=10)

    return save(draw, path, (WIDTH, lines * (0.75 + 0.27 * len(rows)) + 0.4))


def _signed(value: float, _: float = 0.0) -> str:
    return "0" if abs(value) < 1e-12 else f"{value:+g}".replace("-", "−")


# ------------------------------------------------------------------------------------------------------- learning curves
def learning_curves(panels: Mapping[str, Sequence[Curve]], reference: str, path: Path) -> bool:
    """A panel a task: the main validation metric by step, mean over seeds, a band from the lowest to the highest seed.

    Args:
      panels: label of the metric → a curve for each row.
      reference: the row drawn in black.
      path: the PNG.
    """
    panels = {title: curves for title, curves in panels.items() if any(len(curve.steps) for curve in curves)}
    if not panels:
        return nothing(path)
    names = list(dict.fromkeys(curve.name for curves in panels.values() for curve in curves))
    others = [name for name in names if name != reference]
    styles = {
        name: {"color": PALETTE[place % 10], "ls": ("-", "--", ":")[place // 10 % 3], "lw": 1.5}
        for place, name in enumerate(others)
    }
    styles[reference] = {"color": "#000000", "ls": "-", "lw": 2.4}

    def draw(figure: Figure) -> None:
        for place, (title, curves) in enumerate(panels.items()):
            axes = figure.add_subplot(len(panels), 1, place + 1)
            for curve in curves:
                look = styles[curve.name]
                axes.fill_between(curve.steps, curve.low, curve.high, color=look["color"], alpha=0.15, lw=0)
                dot = "." if len(curve.steps) == 1 else None
                axes.plot(curve.steps, curve.mean, marker=dot, zorder=3 if curve.name == reference else 2, **look)
            axes.grid(True, axis="y")
            axes.set_axisbelow(True)
            axes.set(xlabel="step", ylabel=title)
            axes.xaxis.set_major_locator(ticker.MaxNLocator(8, integer=True, steps=[1, 2, 5, 10]))
            axes.margins(x=0.02)
        box = figure.legend(
            [Line2D([], [], **styles[name]) for name in names],
            names,
            loc="outside right upper",
            fontsize=9,
            handlelength=2.6,
        )
        for text in box.get_texts():
            dress(text, NAME)

    return save(draw, path, (WIDTH, max(3.4 * len(panels), 0.5 + 0.2 * len(names))))


# ------------------------------------------------------------------------------------------------------------------ cost
def pareto(points: Sequence[Cost], label: str, time: str, path: Path, higher_is_better: bool = True) -> bool:
    """Quality against time and against peak memory; a line joins the rows that nothing else beats on both.

    Args:
      points: rows.
      label: of the metric.
      time: label of the time axis with its unit.
      path: the PNG. Memory is in GiB.
    """
    sides = [
        (title, [(place, getattr(point, key)) for place, point in enumerate(points) if getattr(point, key) is not None])
        for title, key in ((time, "time"), ("peak memory (GiB)", "memory"))
    ]
    sides = [(title, found) for title, found in sides if found]
    if not sides:
        return nothing(path)

    def draw(figure: Figure) -> None:
        panels: list[tuple[Axes, list[float], list[float], list[str]]] = []
        for place, (title, found) in enumerate(sides):
            axes = figure.add_subplot(1, len(sides), place + 1)
            x = [cost for _, cost in found]
            y = [points[row].quality for row, _ in found]
            best = frontier(x, y if higher_is_better else [-value for value in y])
            axes.plot([x[at] for at in best], [y[at] for at in best], color=REFERENCE, lw=1.2, drawstyle="steps-post", zorder=1)
            shade = [REFERENCE if at in best else REST for at in range(len(found))]
            axes.scatter(x, y, s=34, c=shade, zorder=2, linewidths=0)
            axes.margins(0.13)
            axes.set_xlim(left=0)
            axes.set(xlabel=title, ylabel=label if not place else "")
            axes.xaxis.set_major_locator(ticker.MaxNLocator(5))
            axes.grid(True)
            axes.set_axisbelow(True)
            panels.append((axes, x, y, [str(row + 1) for row, _ in found]))
        handles = [Line2D([], [], ls="none") for _ in points]
        box = figure.legend(
            handles,
            [f"{place + 1}  {point.name}" for place, point in enumerate(points)],
            loc="outside right upper",
            fontsize=9,
            handlelength=0,
            handletextpad=0,
        )
        for text in box.get_texts():
            dress(text, NAME)
        figure.canvas.draw()  # which label covers which is known only where the layout stands
        for panel in panels:
            _number_points(*panel)

    return save(draw, path, (WIDTH, max(3.6, 0.5 + 0.2 * len(points))))


def frontier(cost: Sequence[float], quality: Sequence[float]) -> list[int]:
    """Positions of the points that no other beats: cheapest first, each better than all cheaper ones."""
    best: list[int] = []
    for at in sorted(range(len(cost)), key=lambda at: (cost[at], -quality[at])):
        if not best or quality[at] > quality[best[-1]]:
            best.append(at)
    return best


def _number_points(axes: Axes, x: Sequence[float], y: Sequence[float], labels: Sequence[str]) -> None:
    """Writes each label beside its point, at the first of sixteen places where it covers no point and no other label."""
    spots = axes.transData.transform(np.column_stack([x, y]))
    scale = axes.figure.dpi / 72.0
    taken = [(float(px), float(py), 4.0 * scale, 4.0 * scale) for px, py in spots]
    for (px, py), at_x, at_y, label in zip(spots.tolist(), x, y, labels, strict=True):
        half_width, half_height = (2.8 * len(label) + 0.5) * scale, 4.4 * scale
        around = [
            (reach * math.cos(angle) * scale, reach * math.sin(angle) * scale)
            for reach in (10.0, 18.0, 26.0)
            for angle in (0.8, 2.3, 5.5, 3.9, 1.57, 4.71, 0.0, 3.14)
        ]

        def cover(
            offset: tuple[float, float], px: float = px, py: float = py, w: float = half_width, h: float = half_height
        ) -> int:
            ax, ay = px + offset[0], py + offset[1]
            return sum(abs(ax - qx) < w + qw and abs(ay - qy) < h + qh for qx, qy, qw, qh in taken)

        dx, dy = min(around, key=lambda offset: (cover(offset), math.hypot(*offset)))
        taken.append((px + dx, py + dy, half_width, half_height))
        arrow = {"arrowstyle": "-", "color": QUIET, "lw": 0.6} if math.hypot(dx, dy) > 12 * scale else None
        axes.annotate(
            label,
            (at_x, at_y),
            (dx / scale, dy / scale),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=8,
            color=INK,
            arrowprops=arrow,
            annotation_clip=False,
        ).set_in_layout(False)


def names_down(axes: Axes, names: Sequence[str]) -> None:
    """Names down the vertical axis, the first on top. Not tick labels: their text and font are matplotlib's to change."""
    axes.set_yticks(range(len(names)), [""] * len(names))
    axes.tick_params(axis="y", length=0)
    for place, name in enumerate(names):
        text = axes.annotate(
            name,
            (0, place),
            (-5, 0),
            xycoords=axes.get_yaxis_transform(),
            textcoords="offset points",
            ha="right",
            va="center",
            fontsize=10,
        )
        dress(text, NAME)
    axes.set_ylim(len(names) - 0.4, -0.6)
