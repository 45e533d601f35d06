"""The pictures of a run, as PNG files: learning curves, this run against baselines, segments, a map of the products.

Style, colours and saving are in `figure.py`. Each function returns whether there was anything to draw; if not, no file is left.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import font_manager, patheffects, ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from threadpoolctl import threadpool_limits

from fusionjax.reporting.figure import ACCENT, MARKERS, PALETTE, QUIET, REST, font_for, nothing, save, short
from fusionjax.reporting.tables import (
    SEGMENTS,
    THIS_RUN,
    main_metric,
    metric_label,
    number,
    rows_of,
    task_label,
    tasks_in,
    value_of,
)

LegendEntry = tuple[str, str, int, str]
"""(code, label, number of products, colour as #rrggbb)"""
REST_CODE = "–"


def write_plots(
    folder: Path,
    *,
    curves: Sequence[Mapping[str, Any]],
    results: Mapping[str, Any],
    vectors: np.ndarray | None = None,
    labels: Sequence[str] | None = None,
) -> list[LegendEntry]:
    """Writes every plot that the report shows, under the names it looks for; returns the legend of the map (or `[]`)."""
    learning_curves(curves, folder / "learning_curves.png")
    baseline_bars(results, folder / "baseline_bars.png")
    segment_bars(results, folder / "segment_bars.png")
    if vectors is None or labels is None or not len(vectors):
        return []
    return product_map(vectors, labels, folder / "product_map.png")


# ------------------------------------------------------------------------------------------------------- learning curves
def learning_curves(rows: Sequence[Mapping[str, Any]], path: Path) -> bool:
    """Training losses by objective, and a panel a task with its main validation metric; the best step is marked.

    Args:
      rows: of metrics.jsonl: `{"step", "kind": "train", "loss", "loss/OBJECTIVE", …}`, `{"step", "kind": "valid", "selected",
        "best", "TASK/METRIC", …}`.
      path: the PNG.
    """
    train = [row for row in rows if row.get("kind") == "train"]
    valid = [row for row in rows if row.get("kind") == "valid"]
    objectives = sorted({key for row in train for key in row if key.startswith("loss/")})
    tasks = list(dict.fromkeys(key.partition("/")[0] for row in valid for key in row if "/" in key))
    best = next((row["step"] for row in reversed(valid) if row.get("best")), None)

    def losses(axes: Axes) -> None:
        for place, key in enumerate(objectives):
            steps, values = _series(train, key)
            look = {"color": PALETTE[place % 10], "marker": MARKERS[place % 10], "markevery": max(1, len(steps) // 8)}
            axes.plot(steps, values, lw=1.4, ms=4, label=key.removeprefix("loss/").replace("_", " "), **look)
        if len(objectives) != 1:
            axes.plot(*_series(train, "loss"), color=QUIET, lw=1.2, ls="--", label="weighted sum")
        drawn = np.concatenate([line.get_ydata() for line in axes.lines]).astype(float)
        drawn = drawn[np.isfinite(drawn)]
        if len(drawn) and drawn.min() > 0 and drawn.max() > 20 * drawn.min():
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1.0, 2.0, 5.0)))
            axes.yaxis.set_major_formatter(ticker.StrMethodFormatter("{x:g}"))
            axes.yaxis.set_minor_locator(ticker.NullLocator())
        axes.set(xlabel="step", ylabel="loss (nats)")
        lines = math.ceil(len(axes.lines) / 5)
        axes.legend(loc="lower left", bbox_to_anchor=(-0.01, 1.0), ncols=5, fontsize=9, columnspacing=1.4, borderaxespad=0.2)
        axes.set_title("Training losses", pad=8 + 15 * lines)

    def metric(task: str) -> Callable[[Axes], None]:
        def draw(axes: Axes) -> None:
            names = [key.partition("/")[2] for row in valid for key in row if key.startswith(f"{task}/")]
            name = main_metric({"valid": {task: dict.fromkeys(names, 0.0)}}, task, "valid")
            steps, values = _series(valid, f"{task}/{name}")
            axes.plot(steps, values, color=ACCENT, marker="o", ms=4, lw=1.4)
            title = f"{task_label(task).capitalize()}, validation"
            axes.set(xlabel="step", ylabel=metric_label(name))
            if best is not None:
                axes.axvline(best, color=QUIET, lw=1, ls=":")
                at = [value for step, value in zip(steps, values, strict=True) if step == best and math.isfinite(value)]
                if at:
                    axes.plot([best], at[-1:], marker="*", ms=13, color=PALETTE[4], mec="white", ls="none")
                title += f"\n★ {number(at[-1] if at else None)}, step {best:,}"
            axes.set_title(title)

        return draw

    def draw(figure: Figure) -> None:
        grid = figure.add_gridspec(bool(train) + bool(tasks), max(1, len(tasks)))
        places = [(losses, grid[0, :])] if train else []
        places += [(metric(task), grid[-1, column]) for column, task in enumerate(tasks)]
        for panel, place in places:
            axes = figure.add_subplot(place)
            axes.grid(True, axis="y")
            axes.set_axisbelow(True)
            axes.xaxis.set_major_locator(ticker.MaxNLocator(8 if panel is losses else 4, integer=True, steps=[1, 2, 5, 10]))
            panel(axes)

    if not train and not tasks:
        return nothing(path)
    return save(draw, path, (9.2, 2.9 * (bool(train) + bool(tasks)) + 0.3))


def _series(rows: Sequence[Mapping[str, Any]], key: str) -> tuple[list[int], list[float]]:
    """Steps and values of the rows that have the key; what is no finite number leaves a gap in the line."""
    found = [(int(row["step"]), value_of(row, key)) for row in rows if key in row]
    return [step for step, _ in found], [math.nan if value is None else value for _, value in found]


# ------------------------------------------------------------------------------------------------------------------ bars
def baseline_bars(results: Mapping[str, Any], path: Path) -> bool:
    """The main test metric of each task: this run against its baselines."""
    tasks = tasks_in(results)
    panels = [
        (
            f"{task_label(task)}\n{metric_label(main_metric(results, task))}",
            [(name, value_of(row, main_metric(results, task))) for name, row in rows_of(results, task)],
        )
        for task in tasks
    ]
    return _bars(panels, path, shared=False)


def segment_bars(results: Mapping[str, Any], path: Path) -> bool:
    """Test recall@10 of recommendation for targets in the head, middle and tail of popularity, and for cold products."""
    rows = rows_of(results, "recommendation") if "recommendation" in tasks_in(results) else []
    panels = []
    for segment in SEGMENTS:
        bars = [(name, value_of(row, f"recall@10/{segment}")) for name, row in rows]
        users = value_of(rows[0][1], f"users/{segment}") if rows else None
        if any(value is not None for _, value in bars):
            panels.append((f"{segment}\n" + ("" if users is None else f"{users:,.0f} users"), bars))
    return _bars(panels, path, shared=True, label="Recall@10")


Panel = tuple[str, list[tuple[str, float | None]]]


def _bars(panels: Sequence[Panel], path: Path, *, shared: bool, label: str = "") -> bool:
    """Panels of horizontal bars side by side, their values at their ends; `shared`: one scale for all, names only left."""
    if not panels:
        return nothing(path)
    most = max(len(bars) for _, bars in panels)
    font = font_for([name for _, bars in panels for name, _ in bars])
    highest = max((value for _, bars in panels for _, value in bars if value is not None), default=0.0)

    def draw(figure: Figure) -> None:
        for place, (title, bars) in enumerate(panels):
            axes = figure.add_subplot(1, len(panels), place + 1)
            top = highest if shared else max((value for _, value in bars if value is not None), default=0.0)
            for row, (name, value) in enumerate(bars):
                colour = ACCENT if name == THIS_RUN else QUIET
                if value is not None:
                    axes.barh(row, value, height=0.66, color=colour)
                text = number(value)
                axes.text((value or 0.0) + 0.03 * (top or 1.0), row, text, va="center", fontsize=9, color="#333333")
            axes.set_yticks(
                range(len(bars)), ["" if shared and place else short(name if font else ascii(name)) for name, _ in bars]
            )
            for text in axes.get_yticklabels():
                text.set_parse_math(False)
                if font:
                    text.set_fontproperties(font_manager.FontProperties(fname=font, size=10))
            axes.set_ylim(most - 0.4, -0.6)
            axes.set_xlim(0, 1.42 * (top or 1.0))
            axes.set_xticks([])
            axes.tick_params(axis="y", length=0)
            axes.spines["bottom"].set_visible(False)
            axes.set_title(title)
        if label:
            figure.supxlabel(label, fontsize=10)

    return save(draw, path, (max(4.5, min(9.2, 3.1 * len(panels))), 1.0 + 0.34 * most))


# ------------------------------------------------------------------------------------------------------------------- map
def product_map(
    vectors: np.ndarray, labels: Sequence[str], path: Path, *, most: int = 1500, categories: int = 10, seed: int = 0
) -> list[LegendEntry]:
    """Draws products as points, near each other where their vectors have a high cosine, coloured by category.

    Args:
      vectors: float32 [n, p], product vectors of any norm.
      labels: n top-level categories, `""` for none.
      path: the PNG.
      most: products drawn: a fixed random sample if there are more.
      categories: that many of the most common get a colour, the rest is grey.
      seed: of the sample and the projection.

    Returns:
      The legend, most common category first, counted over all n products. Its codes (C1, C2, …) stand on the map; the labels do
      too if a font of this machine can draw them all, so show the legend beside the picture.

    Raises:
      ValueError: no products, a label missing, or a vector that is not finite.
    """
    vectors = np.asarray(vectors, np.float32)
    if vectors.ndim != 2 or len(vectors) != len(labels) or not len(vectors):
        raise ValueError(f"product map: vectors of shape {vectors.shape} and {len(labels)} labels")
    broken = int((~np.isfinite(vectors).all(axis=1)).sum())
    if broken:
        raise ValueError(f"product map: {broken} of {len(vectors)} vectors are not finite")
    counts = sorted(Counter(label for label in labels if label).items(), key=lambda item: (-item[1], item[0]))
    legend: list[LegendEntry] = [
        (f"C{place + 1}", label, count, PALETTE[place % 10]) for place, (label, count) in enumerate(counts[:categories])
    ]
    rest = len(labels) - sum(entry[2] for entry in legend)
    if rest:
        legend.append((REST_CODE, "no category" if len(counts) <= categories else "other", rest, REST))

    chosen = np.arange(len(vectors))
    if len(chosen) > most:
        chosen = np.sort(np.random.Generator(np.random.Philox(seed)).choice(len(vectors), most, replace=False))
    points = project(vectors[chosen], seed)
    width, height = np.ptp(points, axis=0).tolist()
    if height > width:  # lying maps need less room
        points, width, height = points[:, ::-1], height, width
    place_of: dict[str | None, int] = {label: place for place, (code, label, _, _) in enumerate(legend) if code != REST_CODE}
    category = np.array([place_of.get(labels[row] or None, -1) for row in chosen.tolist()])
    font = font_for([label for _, label, _, _ in legend])

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        size = float(np.clip(15000 / len(points), 10, 60))
        grey = points[category < 0]
        axes.scatter(grey[:, 0], grey[:, 1], s=0.7 * size, color=REST, linewidths=0)
        handles: list[Line2D] = []
        for place, (code, _, _, colour) in enumerate(legend):
            if code != REST_CODE:
                mine = points[category == place]
                axes.scatter(mine[:, 0], mine[:, 1], s=size, color=colour, marker=MARKERS[place % 10], alpha=0.85, linewidths=0)
            marker = "o" if code == REST_CODE else MARKERS[place % 10]
            handles.append(Line2D([], [], ls="none", marker=marker, ms=7, color=colour, mew=0))
        halo = [patheffects.withStroke(linewidth=3, foreground="white")]
        for place, (x, y) in _label_places(points, category).items():
            axes.text(x, y, legend[place][0], ha="center", va="center", weight="bold", fontsize=10, path_effects=halo)
        axes.set(xticks=[], yticks=[], aspect="equal")
        axes.margins(0.03)
        axes.spines[:].set_visible(False)
        drawn = f"{len(points):,} of {len(labels):,} products" if len(points) < len(labels) else f"{len(points):,} products"
        axes.set_title(drawn, color="#444444")
        box = axes.legend(
            handles, [code for code, *_ in legend], loc="center left", bbox_to_anchor=(1.0, 0.5), labelspacing=0.7
        )
        if font:
            for text, (code, label, count, _) in zip(box.get_texts(), legend, strict=True):
                text.set_fontproperties(font_manager.FontProperties(fname=font, size=10))
                text.set_parse_math(False)  # a `$` in a category's name is a dollar
                text.set_text(f"{code}  {short(label)} ({count:,})")

    save(draw, path, (9.2, float(np.clip(6.4 * height / (width or 1.0), 3.8, 6.4)) + 0.3))
    return legend


def _label_places(points: np.ndarray, category: np.ndarray) -> dict[int, np.ndarray]:
    """Where each category's code goes: on its densest spot that is not yet taken by another's."""
    extent = float(np.ptp(points, axis=0).max()) or 1.0
    taken: dict[int, np.ndarray] = {}
    for place in range(int(category.max(initial=-1)) + 1):
        mine = points[category == place]
        if not len(mine):
            continue
        apart = np.linalg.norm(mine[:, None] - mine[None], axis=-1)
        order = np.argsort(-(apart < 0.08 * extent).sum(axis=1), kind="stable").tolist()
        free = (row for row in order if all(np.linalg.norm(mine[row] - other) > 0.05 * extent for other in taken.values()))
        taken[place] = mine[next(free, order[0])]
    return taken


def project(vectors: np.ndarray, seed: int = 0) -> np.ndarray:
    """Lays unit vectors out in the plane by t-SNE (van der Maaten and Hinton 2008), started from their principal components.

    Args:
      vectors: [n, p] of any norm; only their directions count, so that Euclidean neighbours are neighbours by cosine.
      seed: of t-SNE, and of the start where all vectors are equal.

    Returns:
      float32 [n, 2]. Fewer than 10 vectors are shown by their principal components.
    """
    # A second to import; and only a library already loaded can be limited to one thread.
    from sklearn.manifold import TSNE

    unit = np.asarray(vectors, np.float64)
    unit = unit / np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-12)
    # Sums over several threads would differ in their last bits from run to run, and t-SNE amplifies that.
    with threadpool_limits(limits=1):
        centred = unit - unit.mean(axis=0)
        left, scale, _ = np.linalg.svd(centred, full_matrices=False)
        start = np.zeros((len(unit), 2))
        kept = min(2, len(scale))
        start[:, :kept] = left[:, :kept] * scale[:kept] * np.sign(left[np.abs(left[:, :kept]).argmax(axis=0), range(kept)])
        spread = float(start[:, 0].std())
        if spread < 1e-9:
            start, spread = np.random.Generator(np.random.Philox(seed)).normal(size=start.shape), 1.0
        if len(unit) < 10:
            return start.astype(np.float32)
        model: Any = TSNE(
            init=(start / spread * 1e-4).astype(np.float32),  # pyright: ignore[reportArgumentType]
            perplexity=min(30.0, (len(unit) - 1) / 3),
            learning_rate="auto",
            max_iter=750,
            random_state=seed,
        )
        return np.asarray(model.fit_transform(unit.astype(np.float32)), np.float32)
