"""report.html: complete, escaped, self-contained, honest, and whole or not at all."""

import base64
import html
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fusionjax.data.clean import Effect
from fusionjax.reporting import plots, report
from fusionjax.reporting.report import Examples, QueryExample, UserExample, verdict
from fusionjax.tasks.base import Shown

NASTY = "<script>alert('x')</script> & \"T恤\" <b>男</b>"
RESULTS: dict[str, Any] = {
    "valid": {"search": {"ndcg@10": 0.6}},
    "test": {
        "search": {"ndcg@10": 0.5123, "ndcg_exp@10": 0.4, "mrr": 0.61, "recall@100": math.nan},
        "recommendation": {
            "recall@10": 0.1,
            "ndcg@10": 0.06,
            "recall@10/head": 0.2,
            "recall@10/cold": math.nan,
            "users/head": 7.0,
        },
    },
    "baselines": {
        "search": {"bm25": {"ndcg@10": 0.55, "mrr": 0.5}, NASTY: {"ndcg@10": 0.01}},
        "recommendation": {"popularity": {"recall@10": 0.05, "ndcg@10": 0.02}},
    },
}
CURVES: list[dict[str, Any]] = [
    {"step": 20, "kind": "train", "loss": 2.0, "loss/next_product": 2.0},
    {"step": 40, "kind": "valid", "best": True, "search/ndcg@10": 0.6, "recommendation/ndcg@10": None},
    {"step": 60, "kind": "valid", "best": False, "search/ndcg@10": 0.5, "recommendation/ndcg@10": 0.1},
]
PROVENANCE: dict[str, Any] = {
    **{
        "commit": "0123456789abcdef",
        "dirty": True,
        "command": "fusionjax train x.yaml",
        "seed": 3,
        "steps": 60,
        "best_step": 40,
    },
    **{
        "versions": {"jax": "0.10.2"},
        "devices": ["cpu:cpu"] * 4,
        "fingerprint": "f00d",
        "seconds": 252.4,
        "parameters": 1234567,
    },
    **{
        "started": "2026-01-01T00:00:00+00:00",
        "finished": "2026-01-01T00:04:12+00:00",
        "data": {"name": "demo_shop", "note": NASTY},
    },
}
EXAMPLES = Examples(
    queries=[QueryExample("纯棉 T恤", [Shown(NASTY, 0.9, "grade 3"), Shown("袜子", 0.5)]), QueryExample(NASTY, [])],
    users=[UserExample("u<1>", ["手机壳", NASTY], [Shown("数据线", 0.7), Shown("充电器", 0.6, "cold")], ["充电器", "耳机"])],
)


class Page(HTMLParser):
    """Checks that elements close in order and collects what a test asks for."""

    VOID = ("meta", "img", "br", "link", "input", "hr")

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
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", "".join(self.words))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def write(folder: Path, **changes: Any) -> Page:
    values: dict[str, Any] = {
        "title": f"run {NASTY}",
        "config_yaml": f"seed: 3\nname: {NASTY}</pre>\n",
        "results": RESULTS,
        "provenance": PROVENANCE,
        "curves": CURVES,
        "legend": [("C1", "服装 & <i>", 20, "#332288"), ("–", "other", 1, "#C8C8CC")],
        "examples": EXAMPLES,
        "cleaning": [
            Effect("nfkc", "characters", 1000, 990, 5),
            {"step": "s", "unit": "events", "before": 9, "after": 8, "changed": 1},
        ],
        "counts": {"products": 1000, "events": 20900},
        "graph_counts": {"brand": {"train": 900, "valid": 50, "test": 50}, NASTY: {"train": 1, "valid": 0, "test": 0}},
    }
    path = report.write_report(folder, **(values | changes))
    assert path == folder / "report.html"
    assert not list(folder.glob(".report*"))
    return Page(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("run")
    points = np.random.Generator(np.random.Philox(0)).normal(size=(8, 4)).astype(np.float32)
    plots.write_plots(home / "plots", curves=CURVES, results=RESULTS, vectors=points, labels=["服装"] * 8)
    (home / "plots" / "z_other.png").write_bytes((home / "plots" / "product_map.png").read_bytes())
    return home


def test_everything_is_in_it(folder: Path) -> None:
    page = write(folder)
    for part in (
        *("demo_shop", "0123456789abcdef with uncommitted changes", "f00d", "4 min 12 s", "4 × cpu:cpu", "1,234,567", "0.10.2"),
        *(
            "0.5123",
            "0.5500",
            "0.0600",
            "fusionjax train x.yaml",
            "git checkout 0123456789abcdef",
            "20,900",
            "1,000",
            "seed: 3",
        ),
        *("纯棉 T恤", "mixed", "袜子", "grade 3", "0.900", "u<1>", "手机壳", "服装 & <i>", "nfkc", "990", "brand", "900"),
        *("bm25 beats this run: NDCG@10 0.5500 against 0.5123", "this run beats popularity", "for 60 steps", "step 40"),
    ):
        assert part in page.text, part
    assert (
        page.text.count("✓ taken next") == 1
        and page.text.count("✓ recommended") == 1
        and page.text.count("not among these") == 1
    )
    assert page.all("html")[0]["lang"] == "en"
    assert any(attributes.get("lang") == "zh" for _, attributes in page.tags)


def test_pictures_are_inside_and_described(folder: Path) -> None:
    page = write(folder)
    images = page.all("img")
    inside = {base64.b64decode(str(image["src"]).removeprefix("data:image/png;base64,")) for image in images}
    assert inside == {path.read_bytes() for path in (folder / "plots").glob("*.png")}
    assert len(images) == 5  # z_other.png among them
    assert all(image["alt"] and int(image["width"] or 0) > 400 for image in images)


def test_it_asks_the_network_for_nothing(folder: Path) -> None:
    page = write(folder)
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object", "embed", "base", "form", "audio", "video"}
    for tag, attributes in page.tags:
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name in ("src", "href", "srcset", "action", "data", "poster", "background"):
                assert str(value).startswith(("data:image/png;base64,", "#")), (tag, name, value)
    assert not re.search(r"url\(|@import|https?:", text.split("</style>")[0])
    policy = next(str(tag["content"]) for tag in page.all("meta") if tag.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'") and "script" not in policy


def test_what_people_wrote_is_only_text(folder: Path) -> None:
    page = write(folder)
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert "<script" not in text and "<b>男" not in text
    assert text.count("</pre>") == len(page.all("pre"))
    # Page title, heading, baseline (row and sentence), relation, query, product, history, source of the data, config.
    assert page.text.count(NASTY) >= 9
    assert html.escape(NASTY, quote=True).split("&#x27;")[0] in text


def test_links_lead_to_sections(folder: Path) -> None:
    page = write(folder)
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {str(link["href"])[1:] for link in page.all("a")} <= set(ids)
    assert {str(section["aria-labelledby"]) for section in page.all("section") if "aria-labelledby" in section} <= set(ids)


def test_best_cells_are_marked(folder: Path) -> None:
    write(folder)
    text = (folder / "report.html").read_text(encoding="utf-8")
    marked = re.findall(r'<td class="best">([^<]+)</td>', text)
    assert marked.count("0.5500") == 1 and "0.6100" in marked and "0.5123" not in marked and "—" not in marked


def test_a_run_that_knows_almost_nothing(tmp_path: Path) -> None:
    page = write(
        tmp_path,
        **{"results": {}, "provenance": {}, "curves": [], "legend": [], "examples": Examples(), "cleaning": [], "counts": {}},
        graph_counts={},
    )
    assert "Nothing was measured." in page.text and "No curves were recorded." in page.text
    assert "unknown: not run from a checkout" in page.text and "Examples" not in page.text and not page.all("img")


def test_missing_tasks_and_many_relations(tmp_path: Path) -> None:
    relations = {f"r{n:03}": {"train": n, "test": 1} for n in range(50)} | {"flat": 7}
    page = write(tmp_path, results={"test": {"link_prediction": {"mrr": 0.3}}, "baselines": {}}, graph_counts=relations)
    assert "Link prediction: MRR 0.3000; there is no baseline to compare with." in page.text
    assert "Search" not in page.text and "… 21 more" in page.text and "r049" in page.text and "r001" not in page.text


def test_written_whole_or_not_at_all(tmp_path: Path) -> None:
    write(tmp_path, title="first")
    before = (tmp_path / "report.html").read_bytes()
    with pytest.raises(TypeError):
        write(tmp_path, title="second", examples=Examples([QueryExample("q", [Shown("t", "no number")])]))  # pyright: ignore
    assert (tmp_path / "report.html").read_bytes() == before
    assert write(tmp_path, title="lone \ud800 surrogate").all("title")
    write(tmp_path, title="first")
    assert (tmp_path / "report.html").read_bytes() == before  # same input, same bytes


def both(mine: dict[str, float], **baselines: dict[str, float]) -> dict[str, Any]:
    return {"test": {"search": mine}, "baselines": {"search": baselines}}


@pytest.mark.parametrize(
    ("results", "expected"),
    [
        (
            both({"ndcg@10": 0.6}, bm25={"ndcg@10": 0.5}, random={"ndcg@10": 0.1}),
            "Search: this run beats every baseline: NDCG@10 0.6000 against 0.5000 of the best, bm25 (20.0% higher).",
        ),
        (both({"ndcg@10": 0.6}, bm25={"ndcg@10": 0.0}), "Search: this run beats bm25: NDCG@10 0.6000 against 0.0000."),
        (
            both({"ndcg@10": 0.6}, a={"ndcg@10": 0.1}),
            "Search: this run beats a: NDCG@10 0.6000 against 0.1000 (6.0 times as high).",
        ),
        (
            both({"ndcg@10": 0.4}, bm25={"ndcg@10": 0.5}, random={"ndcg@10": 0.1}),
            "Search: bm25 beats this run: NDCG@10 0.5000 against 0.4000 (20.0% lower). This run is still ahead of random.",
        ),
        (
            both({"ndcg@10": 0.4}, a={"ndcg@10": 0.5}, b={"ndcg@10": 0.5}),
            "Search: a and b beat this run: NDCG@10 0.5000 against 0.4000 (20.0% lower). This run is ahead of no baseline.",
        ),
        (both({"ndcg@10": 0.50001}, a={"ndcg@10": 0.5}), "Search: this run is level with a: both have NDCG@10 0.5000."),
        (both({"ndcg@10": math.nan}, a={"ndcg@10": 0.5}), "Search: this run has no NDCG@10, so nothing can be compared."),
        (both({"ndcg@10": 0.5}, a={"mrr": 0.5}), "Search: NDCG@10 0.5000; there is no baseline to compare with."),
        (
            both({"ndcg@10": 0.6, "mrr": 0.1, "recall@100": 0.2}, a={"ndcg@10": 0.5, "mrr": 0.3, "recall@100": 0.3}),
            "Search: this run beats a: NDCG@10 0.6000 against 0.5000 (20.0% higher). But a leads on MRR and Recall@100.",
        ),
        (
            both({"ndcg@10": 0.4, "mrr": 0.9, "coverage@10": 1.0}, a={"ndcg@10": 0.5, "mrr": 0.3, "coverage@10": 0.1}),
            "Search: a beats this run: NDCG@10 0.5000 against 0.4000 (20.0% lower). This run is ahead of no baseline. "
            "But this run leads on MRR.",
        ),
    ],
)
def test_verdicts_say_who_wins(results: dict[str, Any], expected: str) -> None:
    assert verdict(results, "search") == expected
    assert verdict(json.loads(json.dumps(results)), "search") == expected


@pytest.mark.parametrize(
    ("seconds", "text"), [(3.21, "3.2 s"), (59.6, "1 min 0 s"), (252.4, "4 min 12 s"), (7384, "2 h 3 min"), (0, "0.0 s")]
)
def test_durations(seconds: float, text: str) -> None:
    assert report.duration(seconds) == text
