"""What every picture shares: matplotlib's style, colours, a font that can draw the names, and saving.

Figures are drawn on Agg without pyplot, in matplotlib's default style whatever the person's own matplotlibrc says, and the same
numbers give the same bytes.
"""

import functools
import io
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib import font_manager
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.text import Text

from fusionjax.files import write_whole

PALETTE = ("#332288", "#88CCEE", "#117733", "#DDCC77", "#CC6677", "#44AA99", "#882255", "#999933", "#AA4499", "#661100")
"""Paul Tol's ten colours that people with any colour vision can tell apart."""
MARKERS = "os^DvP*X<>"
ACCENT, QUIET, REST = "#332288", "#9A9AA0", "#C8C8CC"
_CJK_FAMILIES = (
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Source Han Sans SC", "Source Han Sans CN", "PingFang SC"),
    *("Hiragino Sans GB", "Heiti SC", "Microsoft YaHei", "SimHei", "WenQuanYi Zen Hei", "WenQuanYi Micro Hei"),
    *("Droid Sans Fallback", "Arial Unicode MS", "AR PL UMing CN", "SimSun"),
)
_STYLE: dict[Any, Any] = {
    "font.family": ["DejaVu Sans"],
    "font.size": 10.0,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#555555",
    "axes.grid": False,
    "grid.color": "#E4E4E8",
    "legend.frameon": False,
    "axes.unicode_minus": True,
}
_DPI = 144


def short(label: str, most: int = 26) -> str:
    """The label, cut at `most` characters."""
    return label if len(label) <= most else label[: most - 1] + "…"


# ----------------------------------------------------------------------------------------------------------------- fonts
def font_for(labels: Sequence[str]) -> str | None:
    """File of the first installed font that holds every character of the labels; `None` if there is none.

    DejaVu Sans, which matplotlib brings, is tried first, then the usual Chinese, Japanese and Korean families. Emoji and rarer
    scripts end in `None`.
    """
    letters = {ord(letter) for label in labels for letter in f"{label}…–"}
    installed = {entry.name: entry.fname for entry in reversed(font_manager.fontManager.ttflist)}
    for file in (installed[name] for name in ("DejaVu Sans", *_CJK_FAMILIES) if name in installed):
        if letters <= _letters(file):
            return file
    return None


def dress(text: Text, most: int = 0) -> None:
    """Makes a text show exactly its letters: no mathematics between dollars, and a font that holds them.

    Args:
      text: whose string is a name that people chose. Letters that no font of this machine holds are written as escapes.
      most: characters to keep; 0: all.
    """
    text.set_parse_math(False)
    wanted = short(text.get_text(), most) if most else text.get_text()
    families = families_for(wanted.replace("\n", ""))
    text.set_text(wanted if families else ascii(wanted)[1:-1])
    text.set_fontfamily(families or ["DejaVu Sans"])


def families_for(label: str) -> list[str]:
    """Installed families that together hold every character, DejaVu Sans first; `[]` if there are none.

    Matplotlib takes each letter from the first family that has it: most Chinese fonts lack some of the Latin script.
    """
    installed = {entry.name: entry.fname for entry in reversed(font_manager.fontManager.ttflist)}
    missing = {ord(letter) for letter in label} - _letters(installed["DejaVu Sans"])
    if not missing:
        return ["DejaVu Sans"]
    return next((["DejaVu Sans", name] for name in _CJK_FAMILIES if missing <= _letters(installed.get(name, ""))), [])


@functools.lru_cache(maxsize=32)
def _letters(file: str) -> frozenset[int]:
    return frozenset(FT2Font(file).get_charmap()) if file and os.path.exists(file) else frozenset()


# ---------------------------------------------------------------------------------------------------------------- saving
def save(draw: Callable[[Figure], None], path: Path, size: tuple[float, float]) -> bool:
    """Writes what `draw` puts on a figure of `size` inches as a PNG; returns `True`."""
    buffer = io.BytesIO()
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        figure = Figure(figsize=size, dpi=_DPI, layout=ConstrainedLayoutEngine(h_pad=0.06, w_pad=0.1))
        FigureCanvasAgg(figure)
        draw(figure)
        figure.savefig(buffer, format="png", dpi=_DPI, facecolor="white", metadata={"Software": None})
    write_whole(Path(path), buffer.getvalue())
    return True


def nothing(path: Path) -> bool:
    """Removes the picture of an earlier state, so that none is left behind; returns `False`."""
    Path(path).unlink(missing_ok=True)
    return False
