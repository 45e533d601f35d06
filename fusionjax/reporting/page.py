"""What every page shares: its style, and pictures inside it, so that it loads nothing."""

import base64
import struct
from importlib import resources
from pathlib import Path

from markupsafe import Markup


def style() -> Markup:
    """The style sheet, for a `<style>` element."""
    return Markup(resources.files("fusionjax.reporting").joinpath("style.css").read_text(encoding="utf-8"))


def image(path: Path, alt: str) -> Markup:
    """An `<img>` that holds the PNG itself."""
    data = path.read_bytes()
    width, height = struct.unpack(">II", data[16:24])  # of the IHDR chunk: the page does not jump while it loads
    source = base64.b64encode(data).decode("ascii")
    return Markup('<img alt="{}" width="{}" height="{}" src="data:image/png;base64,{}">').format(alt, width, height, source)
