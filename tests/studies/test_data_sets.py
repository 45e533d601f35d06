"""Studies of several data sets: how a file says them, one study a data set, and the table that joins them."""

import csv
import json
import shutil
import textwrap
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from fusionjax import cli
from fusionjax.config.study import Study, data_set_folders, load_study
from fusionjax.errors import UserError
from fusionjax.studies.analysis import Analysis, Entry, analyse
from fusionjax.studies.comparisons import Estimate
from fusionjax.studies.data_sets import join
from fusionjax.studies.folder import StudyFolder
from fusionjax.studies.grids import data_sets_grid
from fusionjax.studies.plan import make_plan
from tests.studies import small
from tests.studies.made import made

STUDY = """
    question: Which is better?
    base: base.yaml
    data_sets:
      UMLS: {data.name: umls}
      Kinship: {data.name: kinship, train.steps: 7}
    rows:
      narrow: {base: {UMLS: base.yaml, Kinship: other.yaml}}
      wide:
        set: {model.entity.dim: 32}
        data_sets: {Kinship: {model.entity.dim: 16, objectives.link_prediction.batch_size: 9}}
    reference: narrow
    seeds: [0]
    tasks: {link_prediction: [mrr]}
"""
BASE = """
    train: {steps: 5}
    objectives: {alignment: {weight: 0}, query_product: {weight: 0}, next_product: {weight: 0}}
"""


def write(folder: Path, study: str = STUDY) -> Path:
    for name, text in (("base.yaml", BASE), ("other.yaml", BASE + "    seed: 3\n    model: {entity: {dim: 64}}\n")):
        (folder / name).write_text(textwrap.dedent(text), encoding="utf-8")
    (folder / "study.yaml").write_text(textwrap.dedent(study), encoding="utf-8")
    return folder


def test_each_data_set_is_a_study_of_its_own(tmp_path: Path) -> None:
    folders = data_set_folders(write(tmp_path))
    assert folders == [tmp_path / "UMLS", tmp_path / "Kinship"] and data_set_folders(folders[0]) == []
    umls, kinship = map(make_plan, folders)
    assert umls.folder == tmp_path / "UMLS" and StudyFolder(umls.folder).name == f"{tmp_path.name}/UMLS"
    one, other = umls.cell("wide", 0).config, kinship.cell("wide", 0).config
    assert (one.data.name, one.train.steps, one.model.entity.dim) == ("umls", 5, 32)
    assert (other.data.name, other.train.steps, other.model.entity.dim) == ("kinship", 7, 16)
    assert (one.objectives.link_prediction.batch_size, other.objectives.link_prediction.batch_size) != (9, 9)
    assert other.objectives.link_prediction.batch_size == 9
    assert [plan.cell("narrow", 0).config.model.entity.dim for plan in (umls, kinship)][1] == 64
    assert not {cell.digest for cell in umls.cells} & {cell.digest for cell in kinship.cells}
    with pytest.raises(UserError, match=r"several data sets; name the folder of one: .*UMLS, .*Kinship"):
        make_plan(tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("Kinship: other.yaml}", "Kinshp: other.yaml}", r":8: rows\.narrow\.base: no data set 'Kinshp'; did you mean"),
        (", Kinship: other.yaml}", "}", r"study\.yaml:8: rows\.narrow\.base: no config for the data set 'Kinship'"),
        ("data_sets: {Kinship: {m", "data_sets: {Umls: {m", r":11: rows\.wide\.data_sets: no data set 'Umls'"),
        ("sets: {Kinship: {model", "sets: {Kinship: 3, UMLS: {model", r":11: rows\.wide\.data_sets: expected data sets"),
        ("UMLS: {data.name", "a/b: {data.name", r"study\.yaml:5: data_sets\.a/b: it names a folder"),
        ("UMLS: {data.name", "scores: {data.name", r"study\.yaml:5: data_sets\.scores: it names a folder"),
        ("seeds: [0]", "seeds: [0]\n    published: {wide: []}", r"published: with data_sets it is not known"),
    ],
)  # fmt: skip
def test_mistakes_name_file_line_and_the_nearest(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in STUDY
    with pytest.raises(UserError, match=message):
        load_study(write(tmp_path, STUDY.replace(old, new)))


def test_a_wrong_key_or_data_set_is_said_at_plan(tmp_path: Path) -> None:
    write(tmp_path, STUDY.replace("data.name: umls", "data.nam: umls"))
    with pytest.raises(UserError, match=r"study\.yaml:5: data\.nam: unknown key; did you mean"):
        make_plan(tmp_path / "UMLS")
    with pytest.raises(UserError, match=r"no data set 'UML'; did you mean 'UMLS'"):
        make_plan(tmp_path / "UML")
    lines = STUDY.splitlines()
    one = "\n".join([*lines[:3], *lines[6:]])
    with pytest.raises(UserError, match=r"rows\.narrow\.base: expected the name of a config file"):
        make_plan(write(tmp_path, one))


def _with_means(analysis: Analysis, means: dict[str, float | None]) -> Analysis:
    """The first table alone, with these means."""
    entries = {
        row: Entry(None if mean is None else Estimate(mean, 0.0, mean, mean, 3, 10), None) for row, mean in means.items()
    }
    table = analysis.tables[0].__class__("link_prediction", "mrr", None, entries, None, 10)
    return Analysis(next(iter(means)), tuple(means), (), (table,), analysis.settings)


def test_ranks_and_the_friedman_test_take_a_data_set_as_a_block() -> None:
    base = analyse(made(users=30, triples=20, segments=()))
    values = [(0.9, 0.8, 0.8, 0.1), (0.5, 0.6, 0.4, 0.2), (0.7, 0.6, 0.9, 0.3)]
    analyses = {name: _with_means(base, dict(zip("abcd", line, strict=True))) for name, line in zip("XYZ", values, strict=True)}
    found = join(analyses, "link_prediction", "mrr")
    assert found.ranks["X"] == {"a": 1.0, "b": 2.5, "c": 2.5, "d": 4.0} and found.ranks["Y"] == {"a": 2, "b": 1, "c": 3, "d": 4}
    assert found.mean_ranks == pytest.approx({"a": 5 / 3, "b": 6.5 / 3, "c": 6.5 / 3, "d": 4.0})
    assert found.test is not None and found.test.blocks == 3
    assert found.test.statistic == pytest.approx(stats.friedmanchisquare(*np.transpose(values)).statistic)
    assert found.test.critical_difference == pytest.approx(2.569 * (4 * 5 / 18) ** 0.5, rel=1e-3)  # Demšar 2006, table 5a
    grid = data_sets_grid(analyses, "link_prediction", "mrr", found.mean_ranks, "note")
    assert grid.columns == ("X (n = 10)", "Y (n = 10)", "Z (n = 10)", "Mean rank")
    rows = dict(grid.blocks[0].rows)
    assert [cell.text for cell in rows["a (reference)"]] == ["0.9000", "0.5000", "0.7000", "1.67"]
    assert rows["a (reference)"][-1].place == 1 and rows["d"][-1].place == 0

    analyses["Y"] = _with_means(base, {"a": 0.5, "b": None, "c": 0.4, "d": 0.2})
    less = join(analyses, "link_prediction", "mrr")
    assert set(less.ranks) == {"X", "Z"} and less.test is not None and less.test.blocks == 2


def test_report_and_verify_join_the_data_sets(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = small.write(tmp_path / "both", small.STUDY + "    data_sets: {One: {}, Two: {data.name: demo_shop}}\n")
    for name in ("One", "Two"):
        shutil.copytree(finished / "scores", home / name / "scores")
    assert cli.main(["study", "report", str(home)]) == 0
    capsys.readouterr()
    assert cli.main(["study", "verify", str(home)]) == 0, capsys.readouterr().err
    lines = list(csv.DictReader((home / "tables" / "results.csv").read_text(encoding="utf-8").splitlines()))
    assert {(line["data_set"], line["row"]) for line in lines} == {
        (d, r) for d in ("One", "Two") for r in ("real", "tails_shuffled")
    }
    one = json.loads((home / "One" / "analysis.json").read_text(encoding="utf-8"))
    mean = one["tables"][0]["entries"]["real"]["estimate"]["mean"]
    assert float(next(line for line in lines if line["row"] == "real")["mean"]) == mean
    page = (home / "report.md").read_text(encoding="utf-8")
    assert "[One](One/report.md)" in page and "Friedman test" in page and "| One (n = " in page
    assert "study reproduce experiments/both/One --row real" in (home / "One" / "report.md").read_text(encoding="utf-8")
    file = home / "tables" / "results.csv"
    file.write_text(file.read_text(encoding="utf-8").replace("real", "reel"), encoding="utf-8")
    assert cli.main(["study", "verify", str(home)]) == 1
    assert "tables/results.csv: differs from what the scores give" in capsys.readouterr().err
    assert cli.main(["study", "reproduce", str(home), "--row", "real", "--seed", "0"]) != 0


@pytest.mark.parametrize("base", [None, "configs/kge/umls_complex.yaml"])
def test_a_template_can_be_planned(base: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home, root = tmp_path / "new", Path(__file__).parents[2]
    given = [] if base is None else ["--base", str(root / base)]
    assert cli.main(["study", "init", str(home), *given]) == 0
    assert cli.main(["study", "plan", str(home), "--no-probe"]) == 0
    assert "6 cells, 6 of them different" in capsys.readouterr().out
    assert cli.main(["study", "init", str(home)]) != 0 and "there is a study already" in capsys.readouterr().err
    plan = make_plan(home)
    assert plan.cell("base", 0).config.data.name == ("demo_shop" if base is None else "umls")


def test_the_schema_of_a_study_has_every_key(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["study", "schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert schema["$schema"].startswith("https://json-schema.org/") and schema["properties"].keys() == Study.model_fields.keys()
    assert set(schema["required"]) == {"question", "base", "reference", "seeds", "tasks"}
