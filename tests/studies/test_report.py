"""The report of a study: the answer points the right way, nothing is hidden, nothing is loaded, the same bytes each time."""

import dataclasses
import re
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from fusionjax.studies import facts
from fusionjax.studies.analysis import analyse
from fusionjax.studies.collect import Collected
from fusionjax.studies.findings import findings, percent
from fusionjax.studies.markdown import code, escape, to_html
from fusionjax.studies.report import write_report
from tests.studies.made import made

NASTY = "<b>&_% `x` |*y*| [z](http://example.com)"
REAL, SHUFFLED = "real graph", "shuffled graph"


class Page(HTMLParser):
    """Checks that elements close in order and collects tags and words."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br", "hr"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("meta", "img", "br", "hr"):
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", "".join(self.words)).replace("\u200b", "")  # the space that keeps `://` from being a link


def sentences(collected: Collected, task: str = "recommendation") -> str:
    found = next(each for each in findings(collected, analyse(collected)) if each.task == task)
    return "\n".join([found.headline, *found.sentences])


def study(strength: Mapping[str, float], **changes: Any) -> Collected:
    settings: dict[str, Any] = {"users": 250, "triples": 60, "segments": (), "baselines": {}, "reference": next(iter(strength))}
    return made(strength=strength, **{**settings, **changes})


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Page, str]:
    """A study with hostile names, a failed cell and notes."""
    folder = tmp_path_factory.mktemp("study")
    collected = study(
        {"text": 0.0, NASTY: 0.8, "弱 row": -0.6},
        users=80,
        segments=("popularity",),
        baselines={"item-kNN": 0.3},
        question=f"Is {NASTY} better?",
        failures={("弱 row", 2): "NonFiniteLoss: <i>step 3</i>"},
        contrasts=((NASTY, "text"),),
    )
    notes = "We *think* so. <script>alert(1)</script> ![x](http://example.com/x.png)"
    collected = dataclasses.replace(collected, study=collected.study.model_copy(update={"notes": notes}))
    write_report(collected, analyse(collected), folder)
    page = (folder / "report.html").read_text(encoding="utf-8")
    return folder, Page(page), (folder / "report.md").read_text(encoding="utf-8")


# ------------------------------------------------------------------------------------------------------------ the answer
def test_the_answer_names_the_direction_of_every_row() -> None:
    text = sentences(study({"text": 0.0, "good": 0.8, "bad": -0.8, "same": 0.01}))
    assert re.search(r"\*\*better\*\* than the reference[^:]*: \*\*good\*\* \(\+[\d.]+ %\)\.", text)
    assert re.search(r"\*\*worse\*\* than the reference: \*\*bad\*\* \(−[\d.]+ %\)\.", text)
    assert re.search(r"No significant difference\*\* from the reference: \*\*same\*\*", text)
    assert re.search(r"highest is \*\*good\*\* with 0\.\d{4} ± 0\.\d{4} \(95 % interval .*3 seeds, 250 users\)", text)


def test_a_real_graph_that_does_not_beat_a_shuffled_one_is_said_not_to() -> None:
    contrasts = ((REAL, SHUFFLED),)
    level = sentences(study({"text": 0.0, REAL: 0.5, SHUFFLED: 0.5}, contrasts=contrasts))
    assert f"**{REAL}** does **not** beat **{SHUFFLED}**" in level and "is not significant" in level
    lost = sentences(study({"text": 0.0, REAL: 0.1, SHUFFLED: 1.0}, contrasts=contrasts))
    assert f"**{REAL}** does **not** beat **{SHUFFLED}**" in lost and f"**{SHUFFLED}** is significantly **better**" in lost
    won = sentences(study({"text": 0.0, REAL: 1.0, SHUFFLED: 0.1}, contrasts=contrasts))
    assert f"**{REAL}** **beats** **{SHUFFLED}**" in won and "does **not** beat" not in won


def test_a_contrast_with_a_missing_row_is_said_to_be_none() -> None:
    absent = tuple((SHUFFLED, seed) for seed in (0, 1, 2))
    text = sentences(study({"text": 0.0, REAL: 0.5, SHUFFLED: 0.5}, contrasts=((REAL, SHUFFLED),), missing=absent))
    assert f"**{REAL}** against **{SHUFFLED}**: not comparable" in text and f"Not measured: **{SHUFFLED}**." in text


def test_nothing_significant_gives_the_detectable_difference() -> None:
    text = sentences(study({"text": 0.0, "same": 0.0}))
    assert "**No** row is significantly better" in text and "is no proof of equality" in text
    assert re.search(r"a true difference of 0\.\d{4} \([\d.]+ %\) would be found with 80 % probability", text)


def test_a_baseline_that_no_row_reaches_is_named() -> None:
    text = sentences(study({"text": -0.5, "other": -0.4}, baselines={"item-kNN": 0.8}))
    assert "**item-kNN** with" in text and "significantly above the reference" in text and "**no row reaches it**" in text
    text = sentences(study({"text": 0.0, "good": 1.5}, baselines={"item-kNN": 0.8, "popularity": -1.0}))
    assert re.search(r"the best row, \*\*good\*\*, is [\d.]+ % above it\. Rows that do not reach it: \*\*text\*\*\.", text)


def test_percent() -> None:
    assert [percent(0.1, 0.2), percent(-0.01, 0.2), percent(0.3, 0.1)] == ["+50.0 %", "−5.0 %", "+300 %"]
    assert percent(-0.5, 0.0) == "−0.5000" and percent(-1e-9, 1.0) == "+0.0 %"


# -------------------------------------------------------------------------------------------------------------- the page
def test_the_page_loads_nothing(written: tuple[Path, Page, str]) -> None:
    folder, page, _ = written
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object", "embed", "base", "form"}
    for tag, attributes in page.tags:
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name == "src":
                assert str(value).startswith("data:image/png;base64,")
            if name == "href" and "example.com" not in str(value):
                assert re.match(r"#|runs/|\w+\.(md|bib)$", str(value)), value
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(images) == len(list((folder / "plots").glob("*.png"))) >= 8
    assert all(image["alt"] for image in images)


def test_names_are_text(written: tuple[Path, Page, str]) -> None:
    _, page, markdown = written
    assert page.text.count(NASTY) >= 5
    assert "b" not in {tag for tag, _ in page.tags} and "i" not in {tag for tag, _ in page.tags}
    assert "<b>" not in re.sub(r"`+[^\n]*`+", "", markdown)
    assert "step 3" in page.text and "弱 row" in page.text


def test_links_lead_to_cells_and_runs(written: tuple[Path, Page, str]) -> None:
    _, page, _ = written
    ids = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    inner = {
        str(attributes["href"])[1:] for tag, attributes in page.tags if tag == "a" and str(attributes.get("href"))[:1] == "#"
    }
    assert inner <= ids and {"cells-1", "cells-4"} <= inner
    runs = {
        attributes["href"] for tag, attributes in page.tags if tag == "a" and str(attributes.get("href")).startswith("runs/")
    }
    assert len(runs) == 3 * 3 - 1 + 1  # a failed cell has none, a baseline has one


def test_gaps_notes_and_costs_are_shown(written: tuple[Path, Page, str]) -> None:
    _, page, markdown = written
    for part in (
        "1 of 9 cells are missing, 1 of them failed",
        "弱 row, seed 2: failed: NonFiniteLoss: <i>step 3</i>",
        "fusionjax study reproduce",
        "core-hours",
        "c" * 40,
        "0123456789abcdef",
        "Authors' notes",
        "We think so. <script>alert(1)</script>",
        "(2 of 3 seeds)",
    ):
        assert part in page.text, part
    assert markdown.index("## Answer") < markdown.index("## Authors' notes") < markdown.index("## Limits")


def test_every_file_is_there_and_names_what_exists(written: tuple[Path, Page, str]) -> None:
    folder, _, markdown = written
    for name in re.findall(r"\]\(((?:plots/)?[\w.-]+\.(?:png|md|bib))\)", markdown):
        assert (folder / name).exists(), name
    card = (folder / "model_card.md").read_text(encoding="utf-8")
    for heading in ("Intended use", "Data", "Metrics", "Factors", "Limits", "Ethical notes"):
        assert f"## {heading}" in card


def test_the_same_study_gives_the_same_bytes(tmp_path: Path) -> None:
    collected = study({"text": 0.0, "other": 0.4}, users=60, segments=("history",))
    analysis = analyse(collected)
    folders = [tmp_path / part / "same" for part in ("a", "b")]
    for folder in folders:
        folder.mkdir(parents=True)
        write_report(collected, analysis, folder)
    first, second = ({p.relative_to(f): p.read_bytes() for p in f.rglob("*") if p.is_file()} for f in folders)
    assert first == second and len(first) > 8
    assert str(tmp_path).encode() not in b"".join(first.values())


@pytest.mark.parametrize(
    ("strength", "changes"),
    [
        ({"alone": 0.0}, {}),
        ({"a": 0.0, "b": 0.3}, {"seeds": (7,)}),
        ({"a": 0.0, "b": 0.3}, {"missing": (("a", 0), ("a", 1), ("a", 2))}),
    ],
)
def test_small_and_broken_studies_have_a_report(tmp_path: Path, strength: dict[str, float], changes: dict[str, Any]) -> None:
    collected = study(strength, users=50, **changes)
    write_report(collected, analyse(collected), tmp_path)
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "## Answer" in text and "nan" not in text.lower().replace("finance", "")
    if changes.get("seeds"):
        assert "One seed:" in text
    if changes.get("missing"):
        assert "The reference **a** was not measured" in text


def test_a_grid_of_two_axes_gets_a_heat_map(tmp_path: Path) -> None:
    collected = study({"a": 0.0, "b": 0.3, "c": 0.1, "d": 0.5}, users=40)
    places = {row: {"graph": (row in "ab" and "real") or "none", "text": (row in "ac" and "on") or "off"} for row in "abcd"}
    write_report(dataclasses.replace(collected, axis_values=places), analyse(collected), tmp_path)
    assert (tmp_path / "plots" / "grid-recommendation.png").exists()
    places["d"] = places["c"]
    write_report(dataclasses.replace(collected, axis_values=places), analyse(collected), tmp_path)
    assert not (tmp_path / "plots" / "grid-recommendation.png").exists()


# ---------------------------------------------------------------------------------------------------------------- loudly
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"commit": "d" * 40}, "2 different commits"),
        ({"commit": None}, "commit of 1 of"),
        ({"dirty": True}, "1 of 9 runs came from a checkout with uncommitted changes"),
        (
            {"versions": {"python": "3.11.9", "jax": "0.11.0", "numpy": "2.3.0"}},
            "different versions of packages: jax 0.10.2, 0.11.0",
        ),
        ({"platform": "Linux x86_64, 64 cores"}, "different machines"),
    ],
)
def test_unlike_cells_are_said_loudly(change: dict[str, Any], said: str) -> None:
    collected = study({"a": 0.0, "b": 0.3, "c": 0.1}, users=40)
    assert facts.warnings(collected) == []
    records = {**collected.records, ("b", 1): {**collected.records["b", 1], **change}}
    assert said in " ".join(facts.warnings(dataclasses.replace(collected, records=records)))


def test_sampled_evaluation_and_twins_are_limits() -> None:
    collected = study({"a": 0.0, "b": 0.3}, users=40)
    config = {"evaluation": {"max_test": 1000}}
    records = {key: {**record, "config": config, "digest": f"seed {key[1]}"} for key, record in collected.records.items()}
    limits = " ".join(facts.limits(dataclasses.replace(collected, records=records)))
    assert "at most 1,000 examples" in limits and "'a' and 'b' are one and the same computation" in limits
    assert facts.cost(dataclasses.replace(collected, records=records)).runs == 3


# -------------------------------------------------------------------------------------------------------------- markdown
@pytest.mark.parametrize("name", [NASTY, "a_b_c", "*", "1. x", "https://example.com", "&amp;", "a\\b", "~~x~~", "``", "$x$"])
def test_escaped_names_are_shown_as_they_are(name: str) -> None:
    for text in (f"x **{escape(name)}** y", f"| a |\n| --- |\n| {escape(name)} |"):
        assert Page(to_html(text, trusted=True)).text.replace("\u200b", "").strip().replace("a ", "", 1).count(
            name
        ) or name in Page(to_html(text, trusted=True)).text.replace("\u200b", "")
    assert name in Page(to_html(f"x {code(name)} y", trusted=True)).text


def test_what_only_the_correction_hides_is_said_apart() -> None:
    collected = made(users=60, triples=40, segments=())
    analysis = analyse(collected)
    table = analysis.table("recommendation", "ndcg@10")
    entries = dict(table.entries)
    for row, (low, high) in {"graph": (-0.09, -0.01), "text + shuffled_graph": (-0.01, 0.02)}.items():
        found = entries[row].comparison
        assert found is not None
        changed = dataclasses.replace(found, low=low, high=high, significant=False)
        entries[row] = dataclasses.replace(entries[row], comparison=changed)
    tables = tuple(dataclasses.replace(each, entries=entries) if each is table else each for each in analysis.tables)
    (first, _) = findings(collected, dataclasses.replace(analysis, tables=tables))
    (hidden,) = [each for each in first.sentences if "leaves out zero" in each]
    (level,) = [each for each in first.sentences if "No significant difference" in each]
    assert "**graph**" in hidden and "shuffled" not in hidden and "shuffled" in level and "**graph**" not in level
