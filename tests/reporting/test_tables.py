"""Terminal tables: content, the best marked, folding, and names that look like markup."""

import io
import math
from typing import Any

import pytest
from rich.console import Console

from fusionjax.data.clean import Effect
from fusionjax.data.prepare import Description
from fusionjax.reporting import tables

RESULTS: dict[str, Any] = {
    "valid": {"search": {"ndcg@10": 0.61, "mrr": 0.5}},
    "test": {
        "recommendation": {
            **{"recall@10": 0.1, "ndcg@10": 0.05, "recall@20": 0.2, "ndcg@20": 0.07, "coverage@10": 0.7, "users": 900.0},
            **{"recall@10/head": 0.2, "recall@10/middle": 0.1, "recall@10/tail": 0.02, "recall@10/cold": math.nan},
        },
        "search": {"ndcg@10": 0.51234, "ndcg_exp@10": 0.49, "mrr": 0.6, "recall@100": 0.9, "queries": 40.0},
    },
    "baselines": {
        "search": {"bm25": {"ndcg@10": 0.55, "mrr": 0.6}, "random": {"ndcg@10": 0.01}},
        "recommendation": {
            "popularity": {"recall@10": 0.05, "coverage@10": 1.0},
            "item_knn": {"recall@10": 0.09, "ndcg@10": 0.06},
        },
    },
}


def printed(results: dict[str, Any], width: int = 80, styled: bool = False) -> str:
    file = io.StringIO()
    tables.print_results(results, Console(file=file, width=width, force_terminal=styled, highlight=False))
    return file.getvalue()


@pytest.mark.parametrize("width", [60, 80, 200])
def test_every_number_is_there_whatever_the_width(width: int) -> None:
    text = printed(RESULTS, width)
    assert all(len(line) <= width for line in text.splitlines())
    for number in ("0.5123", "0.4900", "0.9000", "0.5500", "0.1000", "0.0700", "0.7000", "0.0200"):
        assert number in text
    words = text.split()
    assert words.index("this") < words.index("bm25") < words.index("random")  # the run first, baselines best first
    assert text.index("search") < text.index("recommendation")
    assert "users" not in text and "queries" not in text  # counts are not metrics


def test_wide_terminals_get_one_table_a_task_and_narrow_ones_fold() -> None:
    assert "(continued)" not in printed(RESULTS, 200)
    assert printed(RESULTS, 80).count("(continued)") == 1  # the segments of recommendation
    first, second = printed(RESULTS, 80).split("(continued)")
    assert "coverage@10" in first and "head" not in first
    assert "cold" in second and second.count("item_knn") == 1


def test_missing_and_nan_are_dashes() -> None:
    table = tables.results_table(RESULTS, width=200)
    console = Console(width=200)
    with console.capture() as capture:
        console.print(table)
    line = next(line for line in capture.get().splitlines() if line.startswith("popularity"))
    assert line.split()[1:] == ["0.0500", "—", "—", "—", "1.0000", "—", "—", "—", "—"]
    own = [line for line in capture.get().splitlines() if line.startswith("this run")][1]
    assert own.split()[-1] == "—"


def test_the_best_is_bold() -> None:
    text = printed(RESULTS, 200, styled=True)
    search = text[text.index("search") : text.index("recommendation")]

    def bold(cell: str) -> bool:
        before = search[: search.index(cell)].rsplit("\n", 1)[-1].rstrip(" ")
        return before.endswith("\x1b[1m")

    assert bold("0.5500") and not bold("0.5123")
    assert not bold("0.6000")  # equal to BM25's: nobody is best


def test_best_rows() -> None:
    rows: list[tables.Row] = [
        ("this run", {"mrr": 0.50004, "coverage@10": 0.2}),
        ("a", {"mrr": 0.5, "coverage@10": 1.0}),
        ("b", {"mrr": 0.1}),
    ]
    assert tables.best_rows(rows, "mrr") == {"this run", "a"}  # equal as printed
    assert tables.best_rows(rows, "coverage@10") == set()
    assert tables.best_rows(rows[:1], "mrr") == set()
    assert tables.best_rows([*rows, ("c", {"mrr": math.nan})], "mrr") == {"this run", "a"}


def test_validation_has_no_baselines() -> None:
    assert [name for name, _ in tables.rows_of(RESULTS, "search", "valid")] == ["this run"]
    text = printed({"valid": RESULTS["valid"], "baselines": RESULTS["baselines"], "test": {}})
    assert "0.0100" in text  # the test split: baselines alone are shown, too
    assert "search · valid" in printed({"valid": RESULTS["valid"]})


def test_nothing_and_unknown_tasks() -> None:
    assert printed({}).strip() == "no results"
    assert printed({"test": {}, "valid": {}, "baselines": {"search": {}}}).strip() == "no results"
    text = printed({"test": {"tagging": {"f1": 0.5}, "search": {"mrr": 0.25}}})
    assert text.index("search · test") < text.index("tagging · test") and "0.5000" in text


def test_names_are_text_not_markup() -> None:
    text = printed({"test": {"search": {"mrr": 0.2}}, "baselines": {"search": {"[bold]x[/bold] [/]": {"mrr": 0.1}}}})
    assert "[bold]x[/bold] [/]" in text


def description(**changes: Any) -> Description:
    values: dict[str, Any] = {
        "name": "toy",
        "summary": "a [toy] shop",
        "fingerprint": "abc",
        "source": {},
        "counts": {"products": 1234, "events": 10},
        "cleaning": [Effect("nfkc", "characters", 100, 90, 3)],
        "popularity": {"top_1%": 0.25, "untouched": 0.5},
        "events_per_user": {"min": 3.0, "mean": 4.5},
        "kinds": {"view": 7, "purchase": 3},
        "splits": {"events": {"train": 8, "valid": 1, "test": 1}},
        "relations": {f"r{n}": {"train": n, "valid": 0} for n in range(40)} | {"品牌": {"train": 99, "valid": 1}},
        "languages": {"zh": 5},
        "samples": {"products": [{"id": "p1", "title": "纯棉 [T恤]" * 20, "brand": ""}]},
    }
    return Description(**(values | changes))


def test_description() -> None:
    console = Console(width=80, highlight=False)
    with console.capture() as capture:
        tables.print_description(description(), console)
    text = capture.get()
    for part in ("a [toy] shop", "1,234", "品牌", "25.0%", "view 7", "mean 4.5", "zh 5", "100 → 90 characters", "纯棉 [T恤]"):
        assert part in text
    assert "… 26 more" in text and sum(range(26)) == 325 and "325" in text
    assert "brand" not in text  # an empty cell of a sample
    assert all(len(line) <= 80 for line in text.splitlines())


def test_description_of_almost_nothing() -> None:
    bare = {name: {} for name in ("popularity", "events_per_user", "kinds", "splits", "relations", "languages", "samples")}
    console = Console(width=80)
    with console.capture() as capture:
        tables.print_description(description(**bare, cleaning=[]), console)
    assert "1,234" in capture.get() and "relation" not in capture.get()
