"""More pictures of a study: the grid of two axes, mean ranks with their critical difference, and what a search found."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib import ticker
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from fusionjax.reporting.figure import ACCENT, MARKERS, PALETTE, QUIET, dress, nothing, save
from fusionjax.studies.plots import INK, NAME, WIDTH, names_down

# ------------------------------------------------------------------------------------------------------------------ grid
_SHADES = LinearSegmentedColormap.from_list("quality", ["#F4F4F8", "#B8B0DC", ACCENT])


def heat_map(
    values: Mapping[tuple[str, str], tuple[float | None, float | None]],
    names: tuple[str, str],
    label: str,
    path: Path,
) -> bool:
    """A grid of two axes, each cell with its mean and, below it, ± std.

    Args:
      values: (value of the first axis, of the second) → (mean, std); a cell that is missing stays empty.
      names: of the two axes; the first runs down.
      label: of the metric.
      path: the PNG.
    """
    down, across = (list(dict.fromkeys(key[side] for key in values)) for side in (0, 1))
    table = np.array([[values.get((one, two), (None, None))[0] for two in across] for one in down], float)
    if not np.isfinite(table).any():
        return nothing(path)
    least, most = float(np.nanmin(table)), float(np.nanmax(table))

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        axes.set_facecolor("#FFFFFF")
        drawn = axes.imshow(np.ma.masked_invalid(table), cmap=_SHADES, vmin=least, vmax=most or 1.0, aspect="auto")
        for row, one in enumerate(down):
            for column, two in enumerate(across):
                mean, std = values.get((one, two), (None, None))
                if mean is None:
                    axes.text(column, row, "not\nmeasured", ha="center", va="center", fontsize=8, color=QUIET, style="italic")
                    continue
                dark = most > least and (mean - least) / (most - least) > 0.6
                text = f"{mean:.4f}" + (f"\n± {std:.4f}" if std is not None else "")
                axes.text(column, row, text, ha="center", va="center", fontsize=9, color="white" if dark else INK)
        turned = max(len(name) for name in across) * len(across) > 60
        axes.set_xticks(range(len(across)), [""] * len(across))
        for place, name in enumerate(across):
            side, angle = ("right", 25) if turned else ("center", 0)
            text = axes.text(
                *(place + 0.15 * turned, -0.02, name),
                transform=axes.get_xaxis_transform(),
                **{"ha": side, "va": "top", "rotation": angle, "rotation_mode": "anchor" if turned else "default"},
            )
            dress(text, 24)
        names_down(axes, down)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        dress(axes.set_title(f"{names[0]} (down) × {names[1]} (across)"), 80)
        figure.colorbar(drawn, ax=axes, label=label, shrink=0.9, pad=0.02)

    return save(draw, path, (max(4.5, min(WIDTH, 3.4 + 1.15 * len(across))), 1.4 + 0.55 * len(down)))


# ----------------------------------------------------------------------------------------------------------------- ranks
def critical_difference(
    ranks: Mapping[str, float], groups: Sequence[Sequence[str]], distance: float | None, label: str, path: Path
) -> bool:
    """Mean ranks on a line, best to the left; a bar joins methods that do not differ (Demšar 2006).

    Args:
      ranks: name → mean rank, 1 the best.
      groups: sets of names that do not differ significantly.
      distance: the critical difference, drawn to scale; `None` for none.
      label: above the axis.
      path: the PNG.
    """
    if len(ranks) < 2:
        return nothing(path)
    names = sorted(ranks, key=lambda name: (ranks[name], name))
    low, high = ranks[names[0]], ranks[names[-1]]
    width = max(high - low, distance or 0.0) or 1.0
    left = names[: math.ceil(len(names) / 2)]
    right = names[len(left) :][::-1]
    spans = sorted((min(ranks[n] for n in group), max(ranks[n] for n in group)) for group in groups if len(group) > 1)
    levels: list[float] = []
    floors: list[int] = []
    for start, end in spans:  # bars that overlap go on levels of their own
        level = next((at for at, used in enumerate(levels) if used < start - 0.01 * width), len(levels))
        levels[level : level + 1] = [end]
        floors.append(level)
    first = 0.7 + 0.32 * len(levels)
    bottom = first + 0.5 * len(left)

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        axes.set(xlim=(low - 0.75 * width, high + 0.75 * width), ylim=(bottom, -1.6 if distance else -0.9))
        axes.axis("off")
        axes.plot([low - 0.02 * width, high + 0.02 * width], [0, 0], color=INK, lw=1.2)
        for tick in ticker.MaxNLocator(7).tick_values(low, high):
            if low - 0.02 * width <= tick <= high + 0.02 * width:
                axes.plot([tick, tick], [0, -0.15], color=INK, lw=1)
                axes.text(tick, -0.22, f"{tick:g}", ha="center", va="bottom", fontsize=9)
        for side, listed in ((-1, left), (1, right)):
            for place, name in enumerate(listed):
                y, rank = first + 0.5 * place, ranks[name]
                end = low - 0.06 * width if side < 0 else high + 0.06 * width
                axes.plot([rank, rank, end], [0, y, y], color="#777777", lw=0.9)
                text = axes.text(
                    end + side * 0.02 * width, y, name, ha="right" if side < 0 else "left", va="center", fontsize=9
                )
                dress(text, NAME - 8)
                text.set_text(f"{text.get_text()}  {rank:.2f}" if side < 0 else f"{rank:.2f}  {text.get_text()}")
        for (start, end), level in zip(spans, floors, strict=True):
            y = 0.35 + 0.32 * level
            axes.plot([start - 0.006 * width, end + 0.006 * width], [y, y], color=ACCENT, lw=4, solid_capstyle="butt")
        if distance:
            axes.plot([low, low + distance], [-1.15, -1.15], color=INK, lw=1.4, marker="|", ms=7)
            axes.text(low + distance / 2, -1.25, f"critical difference {distance:.3g}", ha="center", va="bottom", fontsize=9)
        figure.supxlabel(label, fontsize=9.5)

    return save(draw, path, (WIDTH, 0.5 + 0.36 * (bottom + 1.6)))


# ---------------------------------------------------------------------------------------------------------------- search
def importances(panels: Mapping[str, Mapping[str, float]], path: Path) -> bool:
    """Bars of how much of the validation metric's variance each searched key explains; a panel a row of the study.

    Args:
      panels: row → key → share between 0 and 1.
      path: the PNG.
    """
    if not panels:
        return nothing(path)
    keys = sorted({key for shares in panels.values() for key in shares}, key=lambda key: -_most(panels, key))
    columns = min(4, len(panels))
    lines = math.ceil(len(panels) / columns)

    def draw(figure: Figure) -> None:
        for place, (row, shares) in enumerate(panels.items()):
            axes = figure.add_subplot(lines, columns, place + 1)
            for height, key in enumerate(keys):
                share = shares.get(key)
                if share is None:
                    axes.text(0.02, height, "not searched", va="center", fontsize=8, color=QUIET, style="italic")
                    continue
                axes.barh(height, share, height=0.68, color=ACCENT)
                axes.text(share + 0.02, height, f"{share:.2f}", va="center", fontsize=8, color=INK)
            names_down(axes, keys if place % columns == 0 else [""] * len(keys))
            axes.set_xlim(0, 1.18)
            axes.xaxis.set_major_locator(ticker.FixedLocator([0.0, 0.5, 1.0]))
            dress(axes.set_title(row, fontsize=9.5), 34)
        figure.supxlabel("share of the variance on validation", fontsize=10)

    return save(draw, path, (WIDTH, lines * (0.75 + 0.3 * len(keys)) + 0.5))


def _most(panels: Mapping[str, Mapping[str, float]], key: str) -> float:
    return max(shares.get(key, 0.0) for shares in panels.values())


def search_history(rows: Mapping[str, Sequence[float | None]], label: str, path: Path) -> bool:
    """The best validation value so far by number of trials, a line a row.

    Args:
      rows: row → best value after each trial; `None` before the first that came to its end.
      label: of the axis.
      path: the PNG.
    """
    rows = {row: values for row, values in rows.items() if any(value is not None for value in values)}
    if not rows:
        return nothing(path)

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        for place, (_, values) in enumerate(rows.items()):
            points = [(trial + 1, value) for trial, value in enumerate(values) if value is not None]
            x, y = zip(*points, strict=True)
            line = ("-", "--", ":")[place // 10 % 3]
            axes.plot(
                x, y, drawstyle="steps-post", marker=MARKERS[place % len(MARKERS)], ms=4, color=PALETTE[place % 10], ls=line
            )
        axes.set(xlabel="trials", ylabel=label)
        axes.xaxis.set_major_locator(ticker.MaxNLocator(8, integer=True))
        axes.grid(True, axis="y")
        axes.set_axisbelow(True)
        box = figure.legend(axes.get_lines(), list(rows), loc="outside right upper", fontsize=9)
        for text in box.get_texts():
            dress(text, NAME)

    return save(draw, path, (WIDTH, max(3.4, 0.5 + 0.2 * len(rows))))
