"""Tables of a study: what is marked, what is said, and files that are the same bytes each time."""

import csv
import dataclasses
import io
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from rich.console import Console

from fusionjax.studies.analysis import Analysis, Comparison, Entry, Estimate, Table, analyse
from fusionjax.studies.grids import Cell, contrasts_grid, differences_grid, results_grid, segment_differences_grid, segment_grid
from fusionjax.studies.tables import grids, markdown, p_value, print_tables, seeds_csv, signed, slug, write_tables
from tests.studies.made import BASELINES, REFERENCE, STRENGTH, made

CONTRASTS = (("text + graph", "text + shuffled_graph"),)
SETTINGS = {"alpha": 0.05, "correction": "holm", "resamples": 200, "seed": 0, "seeds": [0, 1, 2], "power": 0.8}


@pytest.fixture(scope="module")
def analysis() -> Analysis:
    return analyse(made(contrasts=CONTRASTS))


def by_hand(
    means: dict[str, float], significant: tuple[str, ...] = (), detectable: float | None = None, metric: str = "mrr"
) -> Analysis:
    """One table with the reference first and no baselines."""
    reference, *_ = means
    entries = {}
    for row, mean in means.items():
        difference = mean - means[reference]
        compared = Comparison(difference, difference - 0.01, difference + 0.01, 0.0004, 0.0004, 0.5, row in significant, 3)
        entries[row] = Entry(Estimate(mean, 0.001, mean - 0.01, mean + 0.01, 3, 50), None if row == reference else compared)
    table = Table("search", metric, None, entries, detectable, 50)
    return Analysis(reference, tuple(means), (), (table,), SETTINGS)


def cells(analysis: Analysis, task: str = "search", column: int = 0) -> dict[str, Cell]:
    return {name: row[column] for block in results_grid(analysis, task).blocks for name, row in block.rows}


def test_marks_follow_the_comparison_and_never_stand_at_the_reference(analysis: Analysis) -> None:
    for table in (found for found in analysis.tables if found.segment is None):
        column = analysis.tasks()[table.task].index(table.metric)
        shown = cells(analysis, table.task, column)
        assert not shown[f"{REFERENCE} (reference)"].marked
        for name, entry in table.entries.items():
            if name != REFERENCE:
                assert entry.comparison is not None and shown[name].marked == entry.comparison.significant
    # Even a reference better than all others: the others are marked, not it.
    shown = cells(by_hand({"best": 0.9, "a": 0.2, "b": 0.3}, significant=("a", "b")))
    assert [cell.marked for cell in shown.values()] == [False, True, True]


def test_best_is_bold_and_second_underlined_as_printed() -> None:
    shown = cells(by_hand({"a": 0.12341, "b": 0.12344, "c": 0.11, "d": 0.1}))
    assert [cell.place for cell in shown.values()] == [1, 1, 2, 0]
    assert [cell.place for cell in cells(by_hand({"a": 0.1, "b": 0.2})).values()] == [0, 1]  # of two there is no second
    assert [cell.place for cell in cells(by_hand({"a": 0.1, "b": 0.1})).values()] == [0, 0]
    assert [cell.place for cell in cells(by_hand({"a": 0.1, "b": 0.2, "c": 0.3}, metric="coverage@10")).values()] == [0, 0, 0]


def test_a_table_without_a_finding_says_what_it_could_have_found() -> None:
    line = "no difference is significant; this design detects differences of at least 0.0123 with 80 % power."
    nothing = by_hand({"a": 0.1, "b": 0.1}, detectable=0.0123)
    for grid in grids(nothing):
        assert line in grid.notes and "†" not in markdown(grid)
    something = by_hand({"a": 0.1, "b": 0.3}, significant=("b",))
    for grid in grids(something):
        assert not any("no difference" in note for note in grid.notes)
        assert any(note.startswith("† differs from a: p < 0.05 after Holm correction over 1 comparison") for note in grid.notes)

    # A simple method far below does not hide that the models are equal.
    notes = results_grid(analyse(made(strength={"text": 0.0, "graph": 0.0}, segments=())), "recommendation").notes
    assert sum("no difference between models is significant; this design detects" in note for note in notes) == 3
    assert any(note.startswith("NDCG@10: no difference") for note in notes)


def test_baselines_stand_in_their_own_block_above(analysis: Analysis) -> None:
    first, second = results_grid(analysis, "recommendation").blocks
    assert [name for name, _ in first.rows] == list(BASELINES)
    assert [name for name, _ in second.rows] == [f"{row} (reference)" if row == REFERENCE else row for row in STRENGTH]
    assert all(cell.spread == "" for _, row in first.rows for cell in row)
    assert all(cell.spread for _, row in second.rows for cell in row)


def test_differences_leave_the_reference_out_and_agree_with_the_analysis(analysis: Analysis) -> None:
    rows = {name: row for block in differences_grid(analysis, "link_prediction", "mrr").blocks for name, row in block.rows}
    assert list(rows) == [*BASELINES, *(row for row in STRENGTH if row != REFERENCE)]
    comparison = analysis.table("link_prediction", "mrr").entries["graph"].comparison
    assert comparison is not None
    assert [cell.text for cell in rows["graph"]] == [
        f"{comparison.difference:+.4f}",
        f"[{comparison.low:+.4f}, {comparison.high:+.4f}]",
        f"{comparison.p_adjusted:.3f}",
        f"{comparison.effect_size:+.2f}",
    ]
    name, row = contrasts_grid(analysis, "recommendation").blocks[0].rows[0]
    assert name == "text + graph vs. text + shuffled_graph" and row[0].text.startswith("+") and row[0].marked


def test_numbers_are_written_as_people_read_them() -> None:
    assert [signed(-0.00001), signed(0.00001), signed(-0.01), signed(None)] == ["+0.0000", "+0.0000", "-0.0100", "—"]
    assert [p_value(0.0004), p_value(0.0312), p_value(1.0)] == ["<0.001", "0.031", "1.000"]
    assert [slug("ndcg@10"), slug("图"), slug("A b/c")] == ["ndcg-10", "x", "a-b-c"]


def test_missing_seeds_and_rows_are_said() -> None:
    gone = (("graph", 1), *(("text + graph", seed) for seed in (0, 1, 2)))
    shown = cells(analyse(made(missing=gone, segments=())), "recommendation")
    assert "graph (2 of 3 seeds)" in shown and shown["text + graph"] == Cell("—")
    single = results_grid(analyse(made(seeds=(5,), segments=())), "recommendation")
    assert single.notes[0] == "One seed, so no spread is known; 300 users."
    assert any("(for this seed alone)" in note for note in single.notes)
    assert "hold for that seed alone" in differences_grid(analyse(made(seeds=(5,))), "recommendation", "mrr").notes[0]


def test_segments_show_their_largest_labels(analysis: Analysis) -> None:
    grid = segment_grid(analysis, "recommendation", "popularity")
    counts = [table.examples for table in analysis.tables if table.segment and table.segment[0] == "popularity"]
    assert [column.split(" (")[0] for column in grid.columns] == ["head", "middle", "tail", "cold"]
    assert [f"(n = {count})" in column for count, column in zip(counts, grid.columns, strict=True)] == [True] * 4
    assert not segment_grid(analysis, "recommendation", "history").notes[-1].startswith("The 6 largest")

    table = analysis.table("link_prediction", "mrr", ("direction", "tail"))
    many = [dataclasses.replace(table, segment=("relation", f"r{place}"), examples=place % 8) for place in range(8)]
    wide = dataclasses.replace(analysis, tables=(*analysis.tables, *many))
    for found in (
        segment_grid(wide, "link_prediction", "relation"),
        segment_differences_grid(wide, "link_prediction", "relation"),
    ):
        assert [column.split(" (")[0] for column in found.columns] == [f"r{place}" for place in range(2, 8)]
        assert found.notes[-1] == "The 6 largest of 8 groups; results.csv has all."


def test_markdown_is_one_table_whatever_the_names() -> None:
    names = {"text": 0.0, "a|b": 0.5, "*x* <b>_y_</b> [l](u)": -0.5}
    found = analyse(made(strength=names, baselines={}, segments=()))
    for grid in grids(found):
        text = markdown(grid)
        html = MarkdownIt("commonmark", {"html": False}).enable("table").render(text)
        body = html.split("<tbody>")[1].split("</tbody>")[0]
        assert html.count("<table>") == 1
        assert len({row.count("<td") for row in body.split("</tr>")[:-1]}) == 1  # no name adds a column
        assert ">a|b</td>" in body and "*x* &lt;b&gt;_y_&lt;/b&gt; [l](u)" in body


def test_the_terminal_shows_the_same_numbers(analysis: Analysis) -> None:
    console = Console(width=100, record=True, file=io.StringIO())
    print_tables(analysis, console)
    text = console.export_text()
    cell = cells(analysis, "recommendation")["text + graph"]
    assert f"{cell.text} ± {cell.spread}†" in text and "Link prediction: test results" in text
    assert "difference from" not in text
    print_tables(analysis, console, every=True)
    assert "difference from" in console.export_text()


def test_csv_holds_every_entry_and_every_seed(analysis: Analysis, tmp_path: Path) -> None:
    files = write_tables(made(contrasts=CONTRASTS), analysis, tmp_path)
    with (tmp_path / "tables" / "results.csv").open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == len(analysis.tables) * 6 and files[0].name == "results.csv"
    entries = [(table, row, entry) for table in analysis.tables for row, entry in table.entries.items()]
    for line, (table, row, entry) in zip(lines, entries, strict=True):
        estimate, comparison = entry.estimate, entry.comparison
        assert estimate is not None
        assert (line["task"], line["metric"], line["row"]) == (table.task, table.metric, row)
        assert (line["segment"], line["label"]) == (table.segment or ("", ""))
        assert (float(line["mean"]), line["std"]) == (estimate.mean, "" if estimate.std is None else str(estimate.std))
        assert line["diff_low"] == ("" if comparison is None else str(comparison.low))
        assert line["p_adjusted"] == ("" if comparison is None else str(comparison.p_adjusted))

    seeds = list(csv.DictReader(io.StringIO(seeds_csv(analysis))))
    assert len(seeds) == len(analysis.tables) * (4 * 3 + 2)
    means = [float(line["value"]) for line in seeds if line["row"] == "graph" and line["metric"] == "hits@10"]
    graph = analysis.table("link_prediction", "hits@10").entries["graph"].estimate
    assert graph is not None and sum(means) / 3 == pytest.approx(graph.mean, abs=1e-9)


def test_files_are_the_same_bytes_each_time_and_old_tables_go(analysis: Analysis, tmp_path: Path) -> None:
    first = write_tables(made(contrasts=CONTRASTS), analysis, tmp_path)
    before = {file: file.read_bytes() for file in first}
    (tmp_path / "tables" / "mine.tex").write_text("kept", encoding="utf-8")
    assert write_tables(made(contrasts=CONTRASTS), analyse(made(contrasts=CONTRASTS)), tmp_path) == first
    assert {file: file.read_bytes() for file in first} == before
    assert len({grid.name for grid in grids(analysis)}) == len(first) - 3

    fewer = made(segments=())
    second = write_tables(fewer, analyse(fewer), tmp_path)
    kept = {file.name for file in (tmp_path / "tables").iterdir()}
    assert kept == {"mine.tex", *(file.name for file in second)} and len(second) < len(first)


def test_tables_of_another_study_are_refused(analysis: Analysis, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="rows"):
        write_tables(made(strength={"text": 0.0}), analysis, tmp_path)
