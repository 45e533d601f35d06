"""Text for report.md: names written so that they are shown as they are, and sentences put together from them."""

import re
from collections.abc import Iterable
from typing import Any

import jinja2
from markdown_it import MarkdownIt
from markupsafe import Markup

_SPECIAL = re.compile(r"([\\`*_\[\]|~#<>$])")


def escape(value: Any) -> Markup:
    """The text as Markdown that shows exactly it; `Markup` is taken to be Markdown already. Line breaks become spaces."""
    if isinstance(value, Markup):
        return value
    text = re.sub(r"\s+", " ", str(value)).replace("&", "&amp;")
    # `www.` and `://` would become links on some sites.
    return Markup(_SPECIAL.sub(r"\\\1", text).replace("://", ":\u200b//"))


def bold(name: str) -> Markup:
    return Markup(f"**{escape(name.strip())}**") if name.strip() else Markup("(no name)")


def code(text: str) -> Markup:
    """A command: shown letter by letter, whatever it holds. Not for a cell of a table if it holds `|`."""
    line = re.sub(r"\s+", " ", text)
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", line)), default=0))
    pad = " " if "`" in line else ""
    return Markup(f"{fence}{pad}{line}{pad}{fence}")


def listed(parts: Iterable[str]) -> Markup:
    """`a, b and c` of Markdown parts."""
    parts = list(parts)
    return Markup(" and ".join(part for part in (", ".join(parts[:-1]), parts[-1] if parts else "") if part))


def environment() -> jinja2.Environment:
    """Templates of Markdown: whatever a template prints is escaped unless it is `Markup`."""
    return jinja2.Environment(
        autoescape=False, finalize=escape, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )


def anchor(text: str) -> str:
    """The id of a heading, as GitHub makes it of plain words."""
    return re.sub(r"[^\w\- ]+", "", text.lower()).replace(" ", "-")


def to_html(text: str, *, trusted: bool) -> str:
    """Markdown as HTML that loads nothing: pictures are left to the caller.

    Args:
      text: CommonMark with tables.
      trusted: whether HTML in it is kept (our own anchors and folds); otherwise it is shown as text, and pictures as links.
    """
    parser = MarkdownIt("commonmark", {"html": trusted}).enable("table")
    if not trusted:
        parser.disable("image")
    renderer: Any = parser.renderer
    rules: Any = renderer.rules
    rules["table_open"] = lambda *_: '<div class="scroll" tabindex="0" role="region" aria-label="Table">\n<table>\n'
    rules["table_close"] = lambda *_: "</table>\n</div>\n"

    def heading(tokens: Any, place: int, options: Any, env: Any) -> str:
        if trusted:
            tokens[place].attrSet("id", anchor(tokens[place + 1].content))
        return renderer.renderToken(tokens, place, options, env)

    rules["heading_open"] = heading
    return parser.render(text)
