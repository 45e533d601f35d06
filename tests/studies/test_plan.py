"""From a study file to cells, and every mistake a study file can hold."""

import dataclasses
import textwrap
from pathlib import Path

import numpy as np
import pytest

from fusionjax.config.naming import cell_digest
from fusionjax.config.study import dump_study, load_study
from fusionjax.errors import UserError
from fusionjax.evaluation.scores import Examples
from fusionjax.studies.folder import StudyFolder
from fusionjax.studies.plan import make_plan, slug

STUDY = """
    question: Does it help?
    base: base.yaml
    axes:
      alignment: [on, off]
      width:
        narrow: {}
        wide: {model.dim: 32, model.entity.dim: 32}
    design: grid
    reference: on / narrow
    seeds: [0, 1]
    tasks: {link_prediction: [mrr, hits@10]}
"""


def write(folder: Path, study: str = STUDY, base: str = "train: {steps: 5}\n") -> Path:
    (folder / "base.yaml").write_text(base, encoding="utf-8")
    (folder / "study.yaml").write_text(textwrap.dedent(study), encoding="utf-8")
    return folder


def test_a_grid_has_every_combination_the_reference_first(tmp_path: Path) -> None:
    plan = make_plan(write(tmp_path, STUDY.replace("reference: on / narrow", "reference: off / wide")))
    assert plan.rows == ("on / narrow", "on / wide", "off / narrow", "off / wide")
    assert [(cell.row, cell.seed) for cell in plan.cells][:4] == [
        ("off / wide", 0),
        ("on / narrow", 0),
        ("on / wide", 0),
        ("off / narrow", 0),
    ]
    wide = plan.cell("off / wide", 1).config
    assert (wide.seed, wide.model.dim, wide.objectives.alignment.weight, wide.train.steps) == (1, 32, 0.0, 5)
    assert plan.cell("on / narrow", 0).config.model.dim == 64
    assert len({cell.digest for cell in plan.cells}) == 8


def test_one_at_a_time_changes_one_axis(tmp_path: Path) -> None:
    study = STUDY.replace("design: grid", "design: one_at_a_time").replace("reference: on / narrow", "reference: base")
    plan = make_plan(write(tmp_path, study))
    assert plan.rows == ("base", "alignment: off", "width: wide")
    assert plan.values["width: wide"] == {"alignment": "on", "width": "wide"}


def test_listed_rows_keep_first_values_and_may_set_keys(tmp_path: Path) -> None:
    study = STUDY.replace("design: grid", "rows: {a: {}, b: {width: wide, set: {train.steps: 7}}, c: {alignment: on}}").replace(
        "on / narrow", "a"
    )
    plan = make_plan(write(tmp_path, study))
    assert plan.cell("b", 0).config.train.steps == 7 and plan.cell("b", 0).config.model.dim == 32
    assert plan.cell("a", 0).digest == plan.cell("c", 0).digest
    assert len(plan.cells) == 6 and len(plan.distinct()) == 4


def test_what_was_chosen_by_search_becomes_part_of_a_row(tmp_path: Path) -> None:
    plan = make_plan(write(tmp_path), chosen={"on / wide": {"model.user.dropout": 0.5}})
    assert plan.cell("on / wide", 0).config.model.user.dropout == 0.5
    assert plan.cell("on / narrow", 0).config.model.user.dropout == 0.2


def test_places_change_no_digest_and_other_overrides_are_refused(tmp_path: Path) -> None:
    write(tmp_path)
    here, there = make_plan(tmp_path), make_plan(tmp_path, ["data.source_dir=elsewhere"])
    assert there.cells[0].config.data.source_dir == "elsewhere"
    assert [cell.digest for cell in here.cells] == [cell.digest for cell in there.cells]
    assert cell_digest(there.cells[0].config) == there.cells[0].digest
    with pytest.raises(UserError, match=r"command line: train.steps: a study is what its file says"):
        make_plan(tmp_path, ["train.steps=3"])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("alignment: [on, off]", "alignmnet: [on, off]", r"study.yaml:5: axes.alignmnet: no ready-made axis .*'alignment'"),
        ("alignment: [on, off]", "alignment: [on, of]", r"study.yaml:5: axes.alignment: no value 'of'; did you mean 'off'"),
        ("model.dim: 32", "model.dmi: 32", r"row 'on / wide': .*study.yaml:8: model.dmi: unknown key; did you mean 'dim'"),
        ("model.dim: 32", "model.dim: wide", r"study.yaml:8: model.dim: expected an integer ≥ 1, got 'wide'"),
        ("reference: on / narrow", "reference: on / narow", r"reference: no row 'on / narow'; did you mean 'on / narrow'"),
        ("seeds: [0, 1]", "seeds: []", r"seeds is empty"),
        ("seeds: [0, 1]", "seeds: [0, 0]", r"one is given twice"),
        ("seeds: [0, 1]\n", "\n", r"seeds"),
        ("base: base.yaml", "base: bas.yaml", r"study.yaml:3: base: no such config file"),
        ("[mrr, hits@10]", "[mrr, hist@10]", r"tasks.link_prediction: no metric 'hist@10'; did you mean 'hits@10'"),
        ("[mrr, hits@10]", "[mrr, hits]", r"study.yaml:12: tasks.link_prediction: no metric 'hits': it needs a cut-off"),
        ("{link_prediction: [mrr,", "{triple_classification: [f2,", r"no metric 'f2'; did you mean 'f1'"),
        ("seeds: [0, 1]", "seeds: [0]\n    segments: [degree, history]", r"segments: no task of the study has 'history'"),
        ("link_prediction: [", "link_predicton: [", r"study.yaml:12: tasks.*link_prediction"),
        ("question:", "questoin:", r"study.yaml:2: questoin: unknown key; did you mean 'question'"),
        ("design: grid", "design: gird", r"design: expected one of .*did you mean 'grid'"),
        ("design: grid", "design: rows", r"no rows are listed"),
        ("design: grid", "rows: {'on / narrow': {widht: wide}}", r"rows.on / narrow: no axis 'widht'; did you mean 'width'"),
        ("design: grid", "rows: {'on / narrow': {width: wid}}", r"rows.on / narrow.width: no value 'wid'; did you mean 'wide'"),
        ("seeds: [0, 1]", "seeds: [0]\n    contrasts: [[on / wide, x]]", r"contrasts: no row 'x'"),
    ],
)
def test_a_mistake_says_where_and_what_was_meant(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in STUDY
    with pytest.raises(UserError, match=message):
        make_plan(write(tmp_path, STUDY.replace(old, new)))


def test_any_metric_of_stored_values_may_be_named(tmp_path: Path) -> None:
    plan = make_plan(write(tmp_path, STUDY.replace("[mrr, hits@10]", "[hits@5, map, amri, mr, recall@50]")))
    assert plan.study.tasks["link_prediction"][2] == "amri"
    older = Examples("link_prediction", np.arange(1), np.array([0, 2]), np.zeros(2, int))
    StudyFolder(tmp_path).save_examples(older)
    with pytest.raises(UserError, match=r"study.yaml:12: .*no metric 'amri': the scores stored here lack the number of cand"):
        make_plan(tmp_path)
    StudyFolder(tmp_path).save_examples(dataclasses.replace(older, candidates=np.array([5, 5])))
    make_plan(tmp_path)


def test_a_task_that_no_row_is_trained_for_is_refused(tmp_path: Path) -> None:
    base = "train: {steps: 5}\nobjectives: {link_prediction: {weight: 0}}\n"
    with pytest.raises(UserError, match=r"study.yaml:12: tasks.link_prediction: no row measures it: it needs objectives\.link"):
        make_plan(write(tmp_path, base=base))
    with pytest.raises(UserError, match=r"tasks.link_prediction: no row measures it"):
        make_plan(write(tmp_path, base="train: {steps: 5}\nevaluation: {tasks: [search]}\n"))


@pytest.mark.parametrize("change", ["data.name: amazon_beauty", "evaluation.max_test: 10"])
def test_rows_measured_on_different_examples_are_refused(tmp_path: Path, change: str) -> None:
    study = STUDY.replace("model.dim: 32, model.entity.dim: 32", change)
    with pytest.raises(UserError, match=rf"row 'on / wide' has {change.split(':')[0]} .* cannot stand in one table"):
        make_plan(write(tmp_path, study))


def test_a_mistake_of_the_base_is_said_once(tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        make_plan(write(tmp_path, base="train: {stesp: 5}\n"))
    assert "base.yaml:1" in str(error.value) and "row" not in str(error.value)


def test_a_study_that_is_not_there_names_its_neighbour(tmp_path: Path) -> None:
    (tmp_path / "fusion").mkdir()
    write(tmp_path / "fusion")
    with pytest.raises(UserError, match="did you mean 'fusion'"):
        load_study(tmp_path / "fusoin" / "study.yaml")


def test_a_study_round_trips(tmp_path: Path) -> None:
    study, _ = load_study(write(tmp_path))
    (tmp_path / "study.yaml").write_text(dump_study(study), encoding="utf-8")
    assert load_study(tmp_path)[0] == study


def test_names_of_run_folders_are_safe() -> None:
    assert slug("text + graph / ../x: 图") == "text_+_graph_.._x_图" and slug("///") == "row"
