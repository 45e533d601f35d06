"""The committed studies: every record keeps the name it was given, and every plan finds all its cells by today's rule."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from fusionjax.config import load_run, load_values
from fusionjax.config.naming import NAMING, cell_digest, digest_by_its_rule, first_digest
from fusionjax.config.search import Search
from fusionjax.config.study import data_set_folders
from fusionjax.errors import UserError
from fusionjax.studies.folder import StudyFolder
from fusionjax.studies.plan import make_plan
from fusionjax.studies.runner import check
from fusionjax.studies.trace import Record, Trace, check_same, make_header, read_trace, trace_file, write_trace

STUDIES = [
    folder
    for file in sorted((Path(__file__).parents[2] / "experiments").glob("*/study.yaml"))
    for folder in data_set_folders(file.parent) or [file.parent]
]


@pytest.mark.parametrize("home", STUDIES, ids=lambda home: home.name)
def test_every_planned_cell_is_found_and_no_record_is_left(home: Path) -> None:
    plan, folder = make_plan(home), StudyFolder(home)
    found = {cell.digest: folder.record_file(cell.digest) for cell in plan.distinct()}
    assert all(file.exists() for file in found.values())
    assert set(found.values()) == set(folder.cells.glob("*.json"))
    assert check(plan, folder) == []
    for cell in plan.cells:
        assert folder.record(cell.digest)["config"] == cell.config.model_dump(mode="json", exclude={"track"})


@pytest.mark.parametrize("home", STUDIES, ids=lambda home: home.name)
def test_every_record_is_named_by_the_rule_it_says(home: Path) -> None:
    for file in sorted((home / "scores" / "cells").glob("*.json")):
        record = json.loads(file.read_text(encoding="utf-8"))
        assert digest_by_its_rule(record, str(file)) == record["digest"] and file.stem == record["digest"][:16], file
        load_values(record["config"], str(file))


def _records(number: int | None = 2) -> list[dict[str, Any]]:
    home = next(home for home in STUDIES if home.name == "text_in_graphs")
    files = sorted((home / "scores" / "cells").glob("*.json"))[:number]
    return [json.loads(file.read_text(encoding="utf-8")) for file in files]


def test_the_first_rule_is_frozen() -> None:
    """It knows nothing of today's schema: a key that was not there when it was frozen counts as it stands."""
    first, second = (record["config"] for record in _records())
    assert first_digest(first) != first_digest(second)
    assert first_digest(first | {"track": {"wandb": True}}) == first_digest(first)
    assert first_digest(first | {"data": {**first["data"], "cache_dir": "elsewhere"}}) == first_digest(first)
    later = {key: value for key, value in first["kge"].items() if key not in ("average",)}
    assert first_digest(first | {"kge": later | {"average": None}}) == first_digest(first | {"kge": later})
    assert first_digest(first | {"seed": 99}) != first_digest(first)


def test_the_second_rule_counts_what_differs_from_the_defaults() -> None:
    usual = load_run(None)
    assert cell_digest(usual) == "732322c128ed67841ef5aa42c7cd04ffcd74a61b2d17d710cd502b713d62930d"
    same = ["train.steps=1000", "data.source_dir=a", "data.cache_dir=b", "track.wandb=true"]
    assert cell_digest(load_run(None, same)) == cell_digest(usual)
    assert len({cell_digest(load_run(None, [change])) for change in ("seed=1", "seed=2", "data.name=umls")}) == 3


def test_a_record_of_a_newer_program_is_refused() -> None:
    record = _records()[0] | {"naming": NAMING + 1}
    with pytest.raises(UserError, match=r"cells/x\.json: naming: 3 is newer"):
        digest_by_its_rule(record, "cells/x.json")


def test_a_trace_of_yesterday_is_read_in_todays_keys(tmp_path: Path) -> None:
    home = next(home for home in STUDIES if home.name == "text_in_graphs")
    config = make_plan(home).cell("complex / table", 0).config
    record = next(one for one in _records(None) if (one["row"], one["seed"]) == ("complex / table", 0))
    stored = {key: value for key, value in record["config"].items() if key != "seed"}
    stored["data"] = {key: value for key, value in stored["data"].items() if key not in ("source_dir", "cache_dir")}
    search = Search.model_validate({"space": {"model.entity.dim": {"choices": (16, 32)}}, "trials": 1})
    now = make_header("a", search, config, "f")
    old = now | {"config": stored, "search": now["search"] | {"space": {"kge.dim": {"log": False, "choices": [16, 32]}}}}
    trial = Record(0, "failed", {"kge.dim": 16}, None, (), 1.0, "error")
    write_trace(tmp_path, Trace(old, (trial,)))
    found = read_trace(tmp_path, "a")
    assert found is not None and found.records[0].params == {"model.entity.dim": 16}
    check_same(found.header, json.loads(json.dumps(now)), trace_file(tmp_path, "a"))


def test_new_records_stand_beside_old_ones(tmp_path: Path) -> None:
    home = next(home for home in STUDIES if home.name == "demo_shop")
    shutil.copytree(home, tmp_path / "study")
    plan, folder = make_plan(tmp_path / "study"), StudyFolder(tmp_path / "study")
    cell = plan.cells[0]
    old = folder.record_file(cell.digest)
    record, ranks = folder.stored(cell.digest), folder.values(cell.digest)
    old.unlink()
    assert not folder.has(cell.digest) and folder.record_file(cell.digest).stem == cell.digest[:16]
    again = record | {"naming": NAMING, "digest": cell.digest, "config": cell.config.model_dump(mode="json")}
    folder.save_cell(cell.digest, again, ranks)
    assert folder.has(cell.digest) and not old.exists() and check(plan, folder) == []
    assert digest_by_its_rule(folder.stored(cell.digest), "x") == cell.digest
    fresh = StudyFolder(tmp_path / "study")
    assert all(fresh.has(each.digest) for each in plan.cells)
