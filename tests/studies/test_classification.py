"""A task of plain values stands in a study beside a ranking one: cells, tables, verification, report."""

import json
from pathlib import Path

import numpy as np
import pytest

from fusionjax.evaluation.metrics import mean, per_example
from fusionjax.files import write_json
from fusionjax.runs import RunFolder
from fusionjax.studies.analysis import Analysis, analyse, from_json, to_json
from fusionjax.studies.collect import Collected, collect
from fusionjax.studies.folder import StudyFolder
from fusionjax.studies.plan import make_plan
from fusionjax.studies.report import write_report
from fusionjax.studies.tables import write_tables
from fusionjax.studies.verify import ANALYSIS, reproduce, verify
from tests.link_prediction.made import ENTITIES, triples
from tests.studies.small import run, write

BASE = """
    data: {{name: triples, source_dir: {folder}}}
    kge: {{scorer: distmult, dim: 8, epochs: 2, validate_every: 1, batch_size: 16}}
    evaluation: {{batch_size: 16}}
"""
STUDY = """
    question: Are true triples told from false ones?
    base: base.yaml
    axes:
      scorer: {distmult: {}, complex: {kge.scorer: complex}}
    design: grid
    reference: distmult
    seeds: [0, 1]
    tasks: {triple_classification: [accuracy, f1], link_prediction: [mrr, mr, hits@5]}
    segments: [relation, direction]
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study that has been run; false triples are the true ones with another tail."""
    folder = tmp_path_factory.mktemp("graph")
    rows = triples()
    false = rows + np.array([0, 0, 5])
    false[:, 2] %= ENTITIES
    places = np.arange(len(rows)) % 9
    for name, part, inside in (
        ("train", rows, (places != 4) & (places != 5)),
        ("valid", rows, places == 4),
        ("test", rows, places == 5),
        ("valid_negatives", false, places == 4),
        ("test_negatives", false, places == 5),
    ):
        lines = "".join(f"e{head}\tr{relation}\te{tail}\n" for head, relation, tail in part[inside])
        (folder / f"{name}.txt").write_text(lines, encoding="utf-8")
    home = write(tmp_path_factory.mktemp("studies") / "study", STUDY, BASE.format(folder=folder))
    run(home)
    return home


@pytest.fixture(scope="module")
def collected(home: Path) -> Collected:
    return collect(make_plan(home), StudyFolder(home))


@pytest.fixture(scope="module")
def analysis(collected: Collected) -> Analysis:
    return analyse(collected)


def test_both_tasks_have_tables_with_the_simple_methods(collected: Collected, analysis: Analysis) -> None:
    assert not collected.missing and not collected.failures
    assert analysis.tasks() == {"triple_classification": ["accuracy", "f1"], "link_prediction": ["mrr", "mr", "hits@5"]}
    table = analysis.table("triple_classification", "accuracy")
    assert set(table.entries) == {"distmult", "complex", *analysis.baselines}
    assert {"always_true", "popularity"} <= set(analysis.baselines)
    assert table.entries["always_true"].comparison is not None and table.entries["popularity"].estimate is None
    assert table.entries["always_true"].estimate is not None and table.entries["always_true"].estimate.mean == 0.5
    assert list(analysis.segments("triple_classification")) == ["relation"]
    assert not analysis.table("link_prediction", "mr").higher_is_better


def test_stored_values_give_the_metrics_of_the_runs(home: Path, collected: Collected, analysis: Analysis) -> None:
    for row in collected.rows:
        record = collected.records[row, 0]
        results = RunFolder(home / record["run"]).results()["test"]["triple_classification"]
        asked = collected.examples["triple_classification"]
        assert [one.name for one in asked.measures] == ["correct"] and (asked.target == -1).all()
        found = per_example(asked, collected.values[row, 0]["triple_classification"])
        assert {name: mean(values) for name, values in found.items()} == pytest.approx(
            {name: results[name] for name in found}, abs=1e-12
        )
        shown = analysis.table("triple_classification", "f1").values[row]["0"]
        assert shown == pytest.approx(results["f1"], abs=1e-9)


def test_the_study_verifies_reports_and_reproduces(home: Path, collected: Collected, analysis: Analysis) -> None:
    (home / ANALYSIS).write_text(to_json(analysis), encoding="utf-8")
    write_tables(collected, analysis, home)
    plan = make_plan(home)
    assert verify(plan, collected) == []
    assert from_json(to_json(analysis)) == analysis
    text = (home / "tables" / "results.csv").read_text(encoding="utf-8")
    assert "triple_classification,accuracy" in text and "link_prediction,hits@5" in text
    write_report(collected, analysis, home)
    page = (home / "report.md").read_text(encoding="utf-8")
    assert "Triple classification" in page and "Accuracy" in page and "F1" in page
    again = reproduce(plan, StudyFolder(home), "complex", 1, lambda _: None)
    assert again.equal_ranks["triple_classification"] == 1.0 and again.largest() < 1e-9
    record = StudyFolder(home).record_file(plan.cell("complex", 1).digest)
    wrong = json.loads(record.read_text(encoding="utf-8"))
    wrong["test"]["triple_classification"]["f1"] += 0.01
    write_json(record, wrong)
    assert any("triple_classification f1 is" in line for line in verify(plan, collect(plan, StudyFolder(home))))
