"""Estimates and comparisons of a study, against values computed another way."""

import dataclasses
import json
import math
from typing import Any

import numpy as np
import pytest

from fusionjax.errors import UserError
from fusionjax.evaluation.metrics import per_example
from fusionjax.studies.analysis import Analysis, Comparison, Estimate, Table, analyse, from_json, to_json
from fusionjax.studies.findings import best_row, findings
from fusionjax.studies.grids import differences_grid, results_grid
from tests.studies.made import BASELINES, REFERENCE, SEEDS, STRENGTH, made

MAIN = ("recommendation", "ndcg@10")


@pytest.fixture(scope="module")
def analysis() -> Analysis:
    return analyse(made(contrasts=(("text + graph", "text + shuffled_graph"), ("text + graph", "graph"))))


def compared(table: Table, row: str) -> Comparison:
    found = table.entries[row].comparison
    assert found is not None
    return found


def estimated(table: Table, row: str) -> Estimate:
    found = table.entries[row].estimate
    assert found is not None
    return found


def test_tables_are_every_metric_and_the_main_metric_of_every_label(analysis: Analysis) -> None:
    names = [(table.task, table.metric, table.segment) for table in analysis.tables]
    popularity = [("popularity", label) for label in ("head", "middle", "tail", "cold")]
    history = [("history", label) for label in ("1-4", "5-9", "10+")]
    assert names == [
        *(("recommendation", metric, None) for metric in ("ndcg@10", "recall@10", "mrr")),
        *(("recommendation", "ndcg@10", segment) for segment in popularity + history),
        *(("link_prediction", metric, None) for metric in ("mrr", "hits@10")),
        *(("link_prediction", "mrr", ("direction", label)) for label in ("tail", "head")),
    ]
    assert analysis.tasks() == {"recommendation": ["ndcg@10", "recall@10", "mrr"], "link_prediction": ["mrr", "hits@10"]}
    assert list(analysis.segments("recommendation")) == ["popularity", "history"]
    assert all(list(table.entries) == [*STRENGTH, *BASELINES] for table in analysis.tables)


@pytest.mark.parametrize("segment", [None, ("popularity", "tail")])
def test_estimates_and_differences_are_means_of_the_examples(analysis: Analysis, segment: tuple[str, str] | None) -> None:
    collected = made()
    examples = collected.examples["recommendation"]
    table = analysis.table(*MAIN, segment)

    def values(row: str, seed: int | None) -> np.ndarray:
        return per_example(examples, collected.values[row, seed]["recommendation"], segment)["ndcg@10"]

    reference = np.array([np.nanmean(values(REFERENCE, seed)) for seed in SEEDS])
    means = np.array([np.nanmean(values("graph", seed)) for seed in SEEDS])
    graph = estimated(table, "graph")
    assert (graph.mean, graph.std) == (pytest.approx(means.mean()), pytest.approx(means.std(ddof=1)))
    assert (graph.seeds, graph.examples) == (3, np.sum(~np.isnan(values("graph", 0)))) == (3, table.examples)
    assert graph.low is not None and graph.high is not None and graph.low < graph.mean < graph.high
    assert compared(table, "graph").difference == pytest.approx((means - reference).mean())
    assert table.values["graph"] == {str(seed): pytest.approx(mean) for seed, mean in zip(SEEDS, means, strict=True)}

    popularity = estimated(table, "popularity")  # the same numbers against every seed of the reference
    assert (popularity.std, popularity.seeds) == (None, 1)
    assert compared(table, "popularity").difference == pytest.approx(popularity.mean - reference.mean())
    assert compared(table, "popularity").seeds == 3


def test_what_differs_is_found_in_its_direction_and_what_does_not_is_not(analysis: Analysis) -> None:
    for task, metric in (MAIN, ("link_prediction", "mrr")):
        table = analysis.table(task, metric)
        better, worse, same = (compared(table, row) for row in ("text + graph", "graph", "text + shuffled_graph"))
        assert better.significant and better.low > 0 and (better.effect_size or 0) > 0
        assert worse.significant and worse.high < 0 and (worse.effect_size or 0) < 0
        assert not same.significant and same.low < 0 < same.high
        assert table.entries[REFERENCE].comparison is None


def test_p_values_are_corrected_over_all_comparisons_of_a_table(analysis: Analysis) -> None:
    for table in analysis.tables:
        found = [entry.comparison for entry in table.entries.values() if entry.comparison is not None]
        assert len(found) == 5
        running, p = 0.0, sorted(comparison.p for comparison in found)
        for place, value in enumerate(p):
            running = max(running, min(1.0, value * (5 - place)))
            assert running == pytest.approx(sorted(comparison.p_adjusted for comparison in found)[place], abs=1e-9)
        assert all(comparison.significant == (comparison.p_adjusted < 0.05) for comparison in found)

    fewer = analyse(made(statistics={"correction": "benjamini_hochberg"}))
    holm, stepped = analysis.table(*MAIN), fewer.table(*MAIN)
    assert any(compared(stepped, row).p_adjusted < compared(holm, row).p_adjusted for row in BASELINES)


def test_contrasts_are_a_family_of_their_own(analysis: Analysis) -> None:
    assert [(found.task, found.metric) for found in analysis.contrasts] == [
        (table.task, table.metric) for table in analysis.tables if table.segment is None for _ in range(2)
    ]
    table, first = analysis.table(*MAIN), analysis.contrasts[0]
    assert first.comparison is not None and analysis.contrasts[1].comparison is not None
    expected = estimated(table, first.first).mean - estimated(table, first.second).mean
    assert first.comparison.difference == pytest.approx(expected, abs=1e-9)
    pair = sorted(
        ((found := contrast.comparison).p, found.p_adjusted) for contrast in analysis.contrasts[:2] if contrast.comparison
    )
    assert pair[0][1] == pytest.approx(min(1.0, 2 * pair[0][0]), abs=1e-9)


def test_where_no_model_differs_the_detectable_difference_is_told() -> None:
    equal = {"text": 0.0, "graph": 0.0, "sum": 0.01}
    few = analyse(made(strength=equal, users=60, baselines={}, segments=())).table(*MAIN)
    many = analyse(made(strength=equal, users=1000, baselines={}, segments=())).table(*MAIN)
    assert few.minimum_detectable is not None and many.minimum_detectable is not None
    assert few.minimum_detectable > many.minimum_detectable > 0
    assert all(abs(compared(few, row).difference) < few.minimum_detectable for row in ("graph", "sum"))
    # A simple method far below does not make models differ.
    with_baseline = analyse(made(strength=equal, segments=())).table(*MAIN)
    assert compared(with_baseline, "popularity").significant and with_baseline.minimum_detectable is not None
    assert analyse(made(segments=())).table(*MAIN).minimum_detectable is None


def test_a_row_without_some_seeds_is_compared_on_those_it_has() -> None:
    whole, part = made(segments=()), made(segments=(), missing=(("graph", 1), ("text + graph", 0), ("text + graph", 2)))
    table, full = analyse(part).table(*MAIN), analyse(whole).table(*MAIN)
    assert (estimated(table, "graph").seeds, compared(table, "graph").seeds) == (2, 2)
    kept = [full.values["graph"][seed] - full.values[REFERENCE][seed] for seed in ("0", "2")]
    assert compared(table, "graph").difference == pytest.approx(np.mean(kept), abs=1e-9)
    single = estimated(table, "text + graph")
    assert (single.seeds, single.std, compared(table, "text + graph").seeds) == (1, None, 1)
    assert table.entries["text + shuffled_graph"].estimate == full.entries["text + shuffled_graph"].estimate


def test_what_was_not_measured_is_said_to_be() -> None:
    gone = tuple(("graph", seed) for seed in SEEDS)
    table = analyse(made(segments=(), missing=gone)).table(*MAIN)
    assert table.entries["graph"].estimate is None and table.entries["graph"].comparison is None
    assert compared(table, "popularity").seeds == 3

    unknown = analyse(made(segments=(), missing=tuple((REFERENCE, seed) for seed in SEEDS))).table(*MAIN)
    assert all(entry.comparison is None for entry in unknown.entries.values())
    assert estimated(unknown, "graph").seeds == 3 and unknown.minimum_detectable is None

    # A row trained for one task only, and seeds that no two rows share.
    collected = made(segments=())
    for seed in SEEDS:
        del collected.values["graph", seed]["link_prediction"]
    assert analyse(collected).table("link_prediction", "mrr").entries["graph"].estimate is None
    apart = analyse(made(segments=(), missing=(("graph", 0), ("graph", 1), (REFERENCE, 2)))).table(*MAIN)
    assert estimated(apart, "graph").seeds == 1 and apart.entries["graph"].comparison is None


def test_equal_rows_differ_by_exactly_nothing() -> None:
    collected = made(segments=())
    for seed in SEEDS:
        collected.values["graph", seed] = collected.values[REFERENCE, seed]
    found = compared(analyse(collected).table(*MAIN), "graph")
    assert (found.difference, found.low, found.high, found.p, found.effect_size) == (0.0, 0.0, 0.0, 1.0, None)
    assert not found.significant


def test_a_single_example_has_no_interval_and_all_numbers_are_finite() -> None:
    for analysis in (analyse(made(users=1, triples=1)), analyse(made(seeds=(7,), users=3, triples=2))):
        text = to_json(analysis)

        def check(value: Any) -> None:
            assert value is None or math.isfinite(value)

        json.loads(text, parse_constant=lambda name: pytest.fail(name), parse_float=lambda number: check(float(number)))
    lonely = analyse(made(users=1)).table(*MAIN).entries["graph"]
    assert lonely.estimate is not None and lonely.estimate.low is None and lonely.comparison is None


def test_the_same_ranks_give_the_same_text_however_they_are_batched(
    monkeypatch: pytest.MonkeyPatch, analysis: Analysis
) -> None:
    contrasts = (("text + graph", "text + shuffled_graph"), ("text + graph", "graph"))
    text = to_json(analysis)
    assert to_json(analyse(made(contrasts=contrasts))) == text
    monkeypatch.setattr("fusionjax.studies.analysis._NUMBERS", 1)
    assert to_json(analyse(made(contrasts=contrasts))) == text
    assert to_json(analyse(made(contrasts=contrasts, statistics={"seed": 1}))) != text


def test_json_gives_an_equal_analysis_back(analysis: Analysis) -> None:
    partial = analyse(made(missing=(("graph", 0), ("graph", 1), ("graph", 2)), contrasts=(("graph", "text"),)))
    for found in (analysis, partial):
        assert from_json(to_json(found)) == found
    with pytest.raises(UserError, match="not an analysis"):
        from_json('{"reference": "text"}')
    with pytest.raises(UserError, match="not an analysis"):
        from_json("[1")


def test_unknown_metrics_and_tables_are_named(analysis: Analysis) -> None:
    with pytest.raises(UserError, match=r"tasks.recommendation: no metric 'ndgc@10'; did you mean 'ndcg@10'"):
        analyse(made(tasks={"recommendation": ("ndgc@10",)}))
    with pytest.raises(UserError, match="no table recommendation × ndcg@20; did you mean 'recommendation × ndcg@10'"):
        analysis.table("recommendation", "ndcg@20")


def test_a_baseline_may_be_the_reference() -> None:
    collected = made(segments=(), reference="item-kNN")
    table = analyse(collected).table(*MAIN)
    expected = estimated(table, "graph").mean - estimated(table, "item-kNN").mean
    assert compared(table, "graph").difference == pytest.approx(expected, abs=1e-9)
    assert table.entries["item-kNN"].comparison is None and compared(table, "popularity").seeds == 1


def test_tasks_nobody_was_measured_on_are_left_out() -> None:
    collected = made()
    found = analyse(dataclasses.replace(collected, examples={"link_prediction": collected.examples["link_prediction"]}))
    assert list(found.tasks()) == ["link_prediction"]


def test_where_less_is_better_the_lowest_is_the_best() -> None:
    found = made(tasks={"recommendation": ("mr", "mrr")})
    less = analyse(found)
    table = less.table("recommendation", "mr")
    assert not table.higher_is_better and less.table("recommendation", "mrr").higher_is_better
    gain = table.entries["text + graph"].comparison
    assert gain is not None and gain.difference < 0 and gain.significant and table.gain(gain.difference) > 0
    assert best_row(less, table) == "text + graph"
    text = " ".join(" ".join(map(str, [each.headline, *each.sentences])) for each in findings(found, less))
    assert "lowest is **text + graph**" in text and "**better** than the reference" in text
    cells = {name: row[0] for block in results_grid(less, "recommendation").blocks for name, row in block.rows}
    assert cells["text + graph"].place == 1
    assert "Negative: better" in " ".join(differences_grid(less, "recommendation", "mr").notes)
    assert from_json(to_json(less)) == less and "higher_is_better" not in to_json(analyse(made()))
