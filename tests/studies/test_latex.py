"""LaTeX tables: they compile as they are, alone and in a paper, whatever the rows are called."""

import dataclasses
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusionjax.studies.analysis import analyse
from fusionjax.studies.grids import results_grid
from fusionjax.studies.latex import escape, table
from fusionjax.studies.tables import grids, write_tables
from tests.studies.made import made

ODD = {
    "图谱 + 文本": 0.0,
    "a_b & 50% #1 {x} $y$ ~^\\z": 0.8,
    "é ü Ł ñ ő ş α⊕β → ≤ “q” 'x' `y` <a>|b \"q\" ¿¡ （ﬁ） 😀 Ж \x07": -0.6,
    "graph + behaviour, random graph of the same degree, no alignment": 0.02,
}
PAPER = r"""\documentclass{article}
\usepackage{booktabs,graphicx}
%s
\begin{document}
\listoftables
%s
\end{document}
"""

needs_latex = pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not on this machine")


def compile_latex(file: Path, *options: str, times: int = 1) -> str:
    """The log; fails with its last lines if LaTeX does."""
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", *options, file.name]
    for _ in range(times):
        done = subprocess.run(command, cwd=file.parent, capture_output=True, timeout=120, check=False)
        assert done.returncode == 0, done.stdout.decode("utf-8", "replace")[-2000:]
    return file.with_suffix(".log").read_text(encoding="utf-8", errors="replace")


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tables of a study with odd names."""
    folder = tmp_path_factory.mktemp("study")
    collected = made(strength=ODD, reference="图谱 + 文本", question="100 % 图谱? $a_b$", contrasts=(tuple(ODD)[:2],))  # type: ignore[arg-type]
    write_tables(collected, analyse(collected), folder)
    return folder / "tables"


@needs_latex
def test_all_tables_compile_in_their_folder(odd: Path) -> None:
    log = compile_latex(odd / "all.tex")
    assert "Overfull" not in log and (odd / "all.pdf").stat().st_size > 10_000
    tables = [file for file in odd.glob("*.tex") if file.name != "all.tex"]
    assert f"({len(tables)} pages" in log.replace("\n", "")


@needs_latex
@pytest.mark.parametrize("encoding", ["", r"\usepackage[T1]{fontenc}"])
def test_each_table_can_be_put_into_a_paper(odd: Path, tmp_path: Path, encoding: str) -> None:
    for file in odd.glob("*.tex"):
        shutil.copy(file, tmp_path / file.name)
    (tmp_path / "all.tex").unlink()
    names = sorted(file.stem for file in tmp_path.glob("*.tex"))
    body = "\n".join(rf"\input{{{name}}}\clearpage" for name in names)
    (tmp_path / "paper.tex").write_text(PAPER % (encoding, body), encoding="utf-8")
    # The second time reads captions from a file. Draft mode: without bitmap fonts, which T1 may have to make first.
    assert "undefined" not in compile_latex(tmp_path / "paper.tex", "-draftmode", times=2)
    assert "U+56FE" in (tmp_path / "paper.lot").read_text(encoding="utf-8")


@needs_latex
def test_a_paper_may_say_how_other_scripts_are_set(odd: Path, tmp_path: Path) -> None:
    shutil.copy(odd / "recommendation.tex", tmp_path / "recommendation.tex")
    own = r"\newcommand\studytext[2]{\typeout{SEEN \detokenize{#2}}X}"
    (tmp_path / "paper.tex").write_text(PAPER % (own, r"\input{recommendation}"), encoding="utf-8")
    assert "SEEN U+56FE U+8C31" in compile_latex(tmp_path / "paper.tex")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a_b & 50% #1", r"a\_b \& 50\% \#1"),
        ("{x}$^~\\", r"\{x\}\$\textasciicircum{}\textasciitilde{}\textbackslash{}"),
        ("é ï Ł ß", r"\'{e} \"{\i{}} \L{} \ss{}"),
        ("α ≤ β", r"\ensuremath{\alpha} \ensuremath{\le} \ensuremath{\beta}"),
        ("图谱 graph", r"\studytext{图谱}{U+56FE U+8C31} graph"),
        ("（ｆｕｌｌ）", "(full)"),
        ("two\nlines", "two lines"),
        ("e\u0301", r"\'{e}"),
    ],
)
def test_escape(text: str, expected: str) -> None:
    assert escape(text) == expected


@given(st.text(max_size=40))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_escaped_text_has_balanced_braces_and_no_bare_specials(text: str) -> None:
    found = escape(text).replace(r"\{", "").replace(r"\}", "")
    depth = 0
    for character in found:
        depth += (character == "{") - (character == "}")
        assert depth >= 0
    assert depth == 0 and "\n" not in found
    for special in "&%#_$":
        assert f"{special}" not in found.replace(f"\\{special}", "")


def test_marks_leave_their_place_and_the_reference_has_none() -> None:
    analysis = analyse(made(segments=()))
    lines = table(results_grid(analysis, "recommendation")).splitlines()
    reference = next(line for line in lines if "(reference)" in line)
    best = next(line for line in lines if line.strip().startswith("text + graph &"))
    assert r"^{\dagger}" not in reference and reference.count(r"\phantom{\dagger}") == 3
    assert best.count(r"\textbf{") == 3 and best.count(r"^{\dagger}") == 3
    assert [line.strip() for line in lines].count(r"\midrule") == 2  # below the heading, and between baselines and models


@needs_latex
def test_wide_tables_are_made_smaller_and_narrow_ones_stay(tmp_path: Path) -> None:
    narrow = results_grid(analyse(made(segments=(), tasks={"recommendation": ("mrr",)})), "recommendation")
    block = narrow.blocks[0]
    wide = dataclasses.replace(narrow, blocks=(dataclasses.replace(block, rows=(("x" * 200, block.rows[0][1]),)),))
    widths = {}
    for name, grid in (("narrow", narrow), ("wide", wide)):
        measured = (
            table(grid)
            .replace(r"\resizebox", r"\sbox0{\resizebox", 1)
            .replace(r"\end{tabular}}", r"\end{tabular}}}\typeout{WIDTH \the\dimexpr\wd0-\linewidth\relax}")
        )
        (tmp_path / f"{name}.tex").write_text(PAPER % ("", measured), encoding="utf-8")
        log = compile_latex(tmp_path / f"{name}.tex")
        widths[name] = float(log.split("WIDTH ")[1].split("pt")[0])
    assert widths["wide"] == pytest.approx(0.0, abs=0.1) and widths["narrow"] < -10


def test_negative_numbers_have_a_minus_sign() -> None:
    analysis = analyse(made(segments=()))
    texts = [table(grid) for grid in grids(analysis) if grid.name.endswith("differences")]
    assert any(r"\ensuremath{-}0." in text for text in texts)
    assert not any("[-" in text or "& -" in text for text in texts)
