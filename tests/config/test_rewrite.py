"""`fusionjax config upgrade`: the printed file is the same run, in today's keys, with its comments."""

from pathlib import Path

import pytest

from fusionjax import cli
from fusionjax.config import load_run
from fusionjax.config.rewrite import rewrite

GRAPH = """# A graph.
# fusionjax train x.yaml
data: {name: umls}
kge:
  scorer: complex
  dim: 64                           # small
  # a fifth
  unseen: 0.2
  text: {use: add, checkpoint: a/b}
  epochs: 30
train: {select: "link_prediction/mrr"}
"""


def again(file: Path) -> Path:
    """The printed file, beside the first."""
    new = file.with_name(f"new-{file.name}")
    new.write_text(rewrite(file), encoding="utf-8")
    return new


@pytest.mark.parametrize(
    "text",
    [
        GRAPH,
        "kge: {scorer: rotate, training: negatives, settings: [{loss.margin: 1}, {loss.margin: 2.5}]}\n",
        "objectives:\n  link_prediction: {negatives: 8, self_adversarial: 0.5, l2: 0.3}\n",
        "kge: {scorer: transe}\nmodel: {dim: 3}\ntrain: {steps: 9}\n",
        "data: {source_dir: 'a, b: c', name: '1e-3'}\nkge: {scorer: conve, average: 0.9}\n",
    ],
)
def test_the_printed_file_is_the_same_run(tmp_path: Path, text: str) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(text, encoding="utf-8")
    renamed: dict[str, str] = {}
    assert load_run(again(file), renamed=renamed) == load_run(file) and not renamed
    assert rewrite(again(file)) == again(file).read_text(encoding="utf-8")


def test_comments_stay_with_their_keys(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(GRAPH, encoding="utf-8")
    lines = rewrite(file).splitlines()
    assert lines[:3] == ["# A graph.", "# fusionjax train x.yaml", "version: 2"]
    assert [line.split("#")[0].strip() for line in lines if line.endswith("  # small")] == ["dim: 64"]
    assert "unseen_entities: 0.2" in lines[lines.index("# a fifth") + 1]
    assert "  select: link_prediction/mrr" in lines


def test_a_file_and_what_it_extends_may_be_upgraded_in_any_order(tmp_path: Path) -> None:
    base, mine = tmp_path / "base.yaml", tmp_path / "mine.yaml"
    base.write_text(GRAPH, encoding="utf-8")
    mine.write_text("extends: base.yaml\nkge: {dim: 32}\n", encoding="utf-8")
    run = load_run(mine)
    before = rewrite(mine)
    assert before.startswith("version: 2\nextends: base.yaml\n") or before.startswith("extends: base.yaml\nversion: 2\n")
    base.write_text(rewrite(base), encoding="utf-8")
    assert load_run(mine) == run
    mine.write_text(before, encoding="utf-8")
    assert load_run(mine) == run


def test_a_file_in_todays_keys_is_printed_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "x.yaml"
    file.write_text("# said\ntrain:  {steps: 3}   # three\n", encoding="utf-8")
    assert cli.main(["config", "upgrade", str(file)]) == 0
    assert capsys.readouterr().out == file.read_text(encoding="utf-8")


def test_old_keys_are_said_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "x.yaml"
    file.write_text("kge: {scorer: complex, dim: 64}\n", encoding="utf-8")
    assert cli.main(["config", "show", str(file)]) == 0
    said = capsys.readouterr().err
    assert said == f"keys of an earlier version: kge.scorer, kge.dim; in today's keys: fusionjax config upgrade {file}\n"
