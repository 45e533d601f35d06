"""What a study will cost: per step, or per epoch where rows count epochs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from fusionjax.config import load_run, schema
from fusionjax.runs import RunFolder
from fusionjax.studies import estimate, live
from fusionjax.studies.estimate import from_records
from fusionjax.studies.plan import Cell, make_plan

GRAPH_ALONE = Path(__file__).parents[2] / "configs" / "kge" / "base.yaml"


def cell(row: str, *overrides: str, seed: int = 0) -> Cell:
    """Of a graph alone where a scorer is among the overrides."""
    base = GRAPH_ALONE if any("scorer" in one for one in overrides) else None
    return Cell(row, seed, load_run(base, list(overrides)), f"{row}{seed}" * 8)


def record(of: Cell, seconds: float, steps: int, curve: Sequence[int] = ()) -> dict[str, Any]:
    return {
        "row": of.row,
        "config": of.config.model_dump(mode="json"),
        "seconds": seconds,
        "steps": steps,
        "peak_memory_bytes": 5,
        "curve": [{"step": step} for step in curve],
    }


def test_rows_that_train_longer_cost_more() -> None:
    done = record(cell("a", "train.steps=100"), 50.0, 100)
    found = from_records([cell("a", "train.steps=100", seed=1), cell("b", "train.steps=300")], [done])
    assert found is not None and found.seconds == pytest.approx(50.0 + 150.0)


def test_a_graph_row_costs_what_its_seeds_cost() -> None:
    a = cell("a", "model.entity.scorer=transe", "train.epochs=50")
    # It stopped early: planned passes would say five times as much.
    done = record(a, 20.0, 40, curve=(20, 40))
    found = from_records([cell("a", "model.entity.scorer=transe", "train.epochs=50", seed=1)], [done])
    assert found is not None and (found.seconds, found.peak_memory_bytes) == (20.0, 5)


def test_another_graph_row_costs_by_its_epochs_whatever_its_batch() -> None:
    a = cell("a", "model.entity.scorer=transe", "train.epochs=50", "train.validate_every_epochs=5")
    done = record(a, 20.0, 40, curve=(20, 40))  # ten passes of four steps
    found = from_records(
        [cell("b", "model.entity.scorer=complex", "train.epochs=30", "objectives.link_prediction.batch_size=64")], [done]
    )
    assert found is not None and found.seconds == pytest.approx(2.0 * 30)


def test_validated_at_the_end_alone() -> None:
    a = cell("a", "model.entity.scorer=transe", "train.epochs=3", "train.validate_every_epochs=5")
    found = from_records([cell("b", "model.entity.scorer=complex", "train.epochs=6")], [record(a, 9.0, 12, curve=(12,))])
    assert found is not None and found.seconds == pytest.approx(18.0)


def test_steps_of_graph_rows_are_no_guess_for_joint_ones() -> None:
    graph, joint = cell("a", "model.entity.scorer=transe"), cell("b", "train={epochs: 2, steps: null}")
    records = [record(graph, 10.0, 100_000, curve=(5_000,)), record(joint, 30.0, 60)]
    found = from_records([cell("b", "train={epochs: 2, steps: null}", seed=1)], records)
    assert found is not None and found.seconds == pytest.approx(30.0)


def test_a_probe_of_a_graph_row_trains_few_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "base.yaml").write_text("train: {epochs: 200, validate_every_epochs: 10, patience: 3}\n", encoding="utf-8")
    (tmp_path / "study.yaml").write_text(
        "{question: q, base: base.yaml, rows: {a: {}, b: {set: {train.epochs: 100}}}, reference: a, seeds: [0], "
        "tasks: {link_prediction: [mrr]}}",
        encoding="utf-8",
    )
    tried: list[tuple[int, int, int]] = []

    def cost(config: schema.Run, *_: Any) -> dict[str, Any]:
        train, epochs = config.train, int(config.train.epochs or 0)
        tried.append((epochs, train.validate_every_epochs, train.patience))
        seconds = 10.0 + 0.5 * epochs + 0.25 * -(-epochs // train.validate_every_epochs)
        return {"seconds": seconds, "peak_memory_bytes": 7}

    monkeypatch.setattr(estimate, "_cost_of", cost)
    plan = make_plan(tmp_path)
    found = estimate.estimate(plan, plan.distinct(), [])
    assert tried == [(1, 1, 0), (1, 1, 0), (20, 20, 0), (20, 1, 0)]
    assert found is not None and found.peak_memory_bytes == 7
    assert found.seconds == pytest.approx(2 * 10.0 + 0.5 * 300 + 0.25 * 30) and "20 epochs" in found.basis


def test_progress_of_a_graph_row_is_in_epochs(tmp_path: Path) -> None:
    of = cell("a", "model.entity.scorer=complex", "train.epochs=40")

    class Runner:
        class folder:
            runs = tmp_path

    home = RunFolder(tmp_path / of.name)
    home.path.mkdir()
    home.metrics_file.write_text(
        '{"step": 5000, "kind": "train", "epoch": 10}\n{"step": 5000, "kind": "valid", "selected": 0.1}\n', encoding="utf-8"
    )
    assert live._progress(Runner, of) == "25 %"  # pyright: ignore[reportArgumentType]
