"""The tables of a study in LaTeX, as they go into a paper: booktabs, one `table` environment a file.

A file needs the packages booktabs and graphicx and any LaTeX engine, no font or encoding package: what is not ASCII is written
in commands every engine knows (accents, Greek, ±), so that the text encoding of the paper does not matter. Other scripts are
written `\\studytext{中文}{U+4E2D U+6587}`: XeLaTeX and LuaLaTeX set the first, in the paper's own fonts, pdfLaTeX, which has no
letters for it, the second. A paper may define `\\studytext` itself, say with the CJK* environment of CJKutf8 around `#1`.
"""

import re
import unicodedata
from collections.abc import Sequence

from fusionjax.studies.grids import MARK, Block, Cell, Grid

WRITTEN = "% Written by `fusionjax study report`"
"""How every file begins."""
_FIT = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}"
"""Makes a table smaller that is wider than the text, and no other."""

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "%": r"\%",
    "#": r"\#",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\ensuremath{<}",
    ">": r"\ensuremath{>}",
    "|": r"\ensuremath{|}",
    '"': "{''}",  # \textquotedbl is not in every encoding
    "`": r"\textasciigrave{}",
}
_KNOWN = {
    **{"±": r"\ensuremath{\pm}", "×": r"\ensuremath{\times}", "−": r"\ensuremath{-}", "·": r"\ensuremath{\cdot}"},
    **{"→": r"\ensuremath{\rightarrow}", "←": r"\ensuremath{\leftarrow}", "↔": r"\ensuremath{\leftrightarrow}"},
    **{"≤": r"\ensuremath{\le}", "≥": r"\ensuremath{\ge}", "≠": r"\ensuremath{\ne}", "≈": r"\ensuremath{\approx}"},
    **{"⊕": r"\ensuremath{\oplus}", "⊗": r"\ensuremath{\otimes}", "∞": r"\ensuremath{\infty}", "∅": r"\ensuremath{\emptyset}"},
    **{"†": r"\ensuremath{\dagger}", "‡": r"\ensuremath{\ddagger}", "°": r"\ensuremath{^\circ}", "µ": r"\ensuremath{\mu}"},
    **{"–": "--", "—": "---", "…": r"\ldots{}", "‘": "`", "’": "'", "“": "``", "”": "''", "\u00a0": "~", "\u200b": ""},
    **{"¿": "?`", "¡": "!`"},
    **{"ß": r"\ss{}", "ø": r"\o{}", "Ø": r"\O{}", "æ": r"\ae{}", "Æ": r"\AE{}", "œ": r"\oe{}", "Œ": r"\OE{}"},
    **{"ł": r"\l{}", "Ł": r"\L{}", "ı": r"\i{}", "å": r"\aa{}", "Å": r"\AA{}", "§": r"\S{}", "©": r"\copyright{}"},
    **{letter: rf"\ensuremath{{\{name}}}" for letter, name in zip("αβγδεζηθικλμνξπρστυφχψω", (
        *("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda", "mu", "nu", "xi"),
        *("pi", "rho", "sigma", "tau", "upsilon", "phi", "chi", "psi", "omega"),
    ), strict=True)},
    **{letter: rf"\ensuremath{{\{name}}}" for letter, name in zip("ΓΔΘΛΞΠΣΦΨΩ", (
        *("Gamma", "Delta", "Theta", "Lambda", "Xi", "Pi", "Sigma", "Phi", "Psi", "Omega"),
    ), strict=True)},
}  # fmt: skip
_ACCENTS = {
    **{"\u0300": "`", "\u0301": "'", "\u0302": "^", "\u0303": "~", "\u0304": "=", "\u0306": "u", "\u0307": ".", "\u0308": '"'},
    **{"\u030a": "r", "\u030b": "H", "\u030c": "v", "\u0323": "d", "\u0327": "c", "\u0331": "b"},
}
"""Combining mark → the accent command that every text encoding has."""
_STUDYTEXT = r"""\ifdefined\studytext\else
  \DeclareRobustCommand\studytext[2]{\ifdefined\XeTeXversion#1\else\ifdefined\directlua#1\else#2\fi\fi}
\fi"""
"""Robust, since captions are written to files."""


def escape(text: str) -> str:
    """Any text as LaTeX that shows it, in ASCII but for the first argument of `\\studytext`. Line breaks become spaces."""
    text = unicodedata.normalize("NFC", re.sub(r"\s+", " ", text))
    pieces: list[tuple[str, bool]] = []
    for character in text:
        if (known := _character(character)) is not None:
            pieces.append((known, True))
        elif pieces and not pieces[-1][1]:
            pieces[-1] = (pieces[-1][0] + character, False)
        else:
            pieces.append((character, False))
    return "".join(piece if known else _foreign(piece) for piece, known in pieces)


def _character(character: str) -> str | None:
    """LaTeX for one character; None if it needs a font of its own."""
    if character in _SPECIAL:
        return _SPECIAL[character]
    if character in _KNOWN:
        return _KNOWN[character]
    if character.isascii():
        return character if character.isprintable() else ""
    base, *marks = unicodedata.normalize("NFD", character)
    if base.isascii() and base.isalpha() and marks and all(mark in _ACCENTS for mark in marks):
        found = rf"\{base}{{}}" if base in "ij" and marks[0] not in "\u0323\u0327\u0331" else base
        for mark in marks:
            found = rf"\{_ACCENTS[mark]}{{{found}}}"
        return found
    if unicodedata.decomposition(character).startswith(("<wide>", "<compat>")):  # full-width forms, ligatures
        plain = unicodedata.normalize("NFKC", character)
        return escape(plain) if plain.isascii() else None
    return None


def _foreign(text: str) -> str:
    if not text.isprintable():  # control and private characters: nothing could show them
        text = "".join(character if character.isprintable() else "\ufffd" for character in text)
    return rf"\studytext{{{text}}}{{{' '.join(f'U+{ord(character):04X}' for character in text)}}}"


# ---------------------------------------------------------------------------------------------------------------- tables
def table(grid: Grid) -> str:
    r"""A complete `table` environment, for `\input`."""
    marked = [
        any(cells[column].marked for block in grid.blocks for _, cells in block.rows) for column in range(len(grid.columns))
    ]
    rows: list[str] = []
    for place, block in enumerate(grid.blocks):
        rows += [r"    \midrule"] if place else []
        rows += _block(block, marked, titled=len(grid.blocks) > 1)
    heading = " & ".join(["", *(rf"\multicolumn{{1}}{{r}}{{{escape(column)}}}" for column in grid.columns)])
    tabular = [
        rf"  {_FIT}{{%",
        rf"  \begin{{tabular}}{{l{'r' * len(grid.columns)}}}",
        r"    \toprule",
        rf"   {heading} \\",
        r"    \midrule",
        *rows,
        r"    \bottomrule",
        r"  \end{tabular}}",
    ]
    caption = escape(f"{grid.caption}.")
    body = [
        r"\begin{table}",
        r"  \centering\small",
        r"  \setlength{\abovecaptionskip}{0pt}\setlength{\belowcaptionskip}{6pt}% for a caption above its table",
        rf"  \caption{_short(caption)}{{{caption}}}",
        rf"  \label{{tab:{grid.name}}}",
        *tabular,
        *(
            [r"  \par\smallskip", rf"  \parbox{{\linewidth}}{{\footnotesize {escape(' '.join(grid.notes))}}}"]
            if grid.notes
            else []
        ),
        r"\end{table}",
    ]
    text = "\n".join(body)
    head = [f"{WRITTEN}: changes here are lost. Needs booktabs and graphicx."]
    if r"\studytext" in text:
        head.append(r"% \studytext{text}{code points}: the first with XeLaTeX and LuaLaTeX; define it before \input to choose.")
        head.append(_STUDYTEXT)
    return "\n".join([*head, text]) + "\n"


def _short(caption: str) -> str:
    r"""For the list of tables, which a paper prints before `\studytext` is known: the code points."""
    short = re.sub(r"\\studytext\{[^{}]*\}\{([^{}]*)\}", r"\1", caption)
    return f"[{{{short}}}]" if short != caption else ""


def _block(block: Block, marked: Sequence[bool], *, titled: bool) -> list[str]:
    lines = [rf"    \multicolumn{{{1 + len(marked)}}}{{l}}{{\emph{{{escape(block.title)}}}}} \\"] if titled else []
    for name, cells in block.rows:
        texts = [_cell(cell, room) for cell, room in zip(cells, marked, strict=True)]
        lines.append(f"    {' & '.join([escape(name), *texts])} \\\\")
    return lines


def _cell(cell: Cell, room: bool) -> str:
    """`room`: some cell of the column has a mark; the others leave its place empty, so that numbers align."""
    text = re.sub(r"(?<![\w.])-(?=\d)", r"\\ensuremath{-}", escape(cell.text))
    text = {0: text, 1: rf"\textbf{{{text}}}", 2: rf"\underline{{{text}}}"}[cell.place]
    text += rf" \ensuremath{{\pm}} {cell.spread}" if cell.spread else ""
    sign = _KNOWN[MARK].removeprefix(r"\ensuremath{").removesuffix("}")
    return text + (
        rf"\ensuremath{{^{{{sign}}}}}" if cell.marked else rf"\ensuremath{{^{{\phantom{{{sign}}}}}}}" if room else ""
    )


def document(names: Sequence[str], title: str) -> str:
    """A complete document that inputs the tables of these names, each on its page; any engine compiles it."""
    text = escape(title)
    return "\n".join(
        [
            f"{WRITTEN}: changes here are lost. Compile it in this folder.",
            r"\documentclass{article}",
            r"\usepackage[margin=25mm]{geometry}",
            r"\usepackage{booktabs}",
            r"\usepackage{graphicx}",
            r"\newcommand\studytext[2]{#2} % whatever fonts there are",
            r"\makeatletter\def\fps@table{ht}\makeatother",
            r"\begin{document}",
            rf"\section*{{{text}}}",
            *(rf"\input{{{name}}}\clearpage" for name in names),
            r"\end{document}",
            "",
        ]
    )
