"""What a search found, for the report: importance of each key, the best value by trial, what was chosen."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fusionjax.config.search import Params, Search
from fusionjax.errors import UserError
from fusionjax.studies import diagrams
from fusionjax.studies.collect import Collected
from fusionjax.studies.importance import FEWEST, chosen_lines, draw_history, draw_importances, importances, read_traces
from fusionjax.studies.trace import Record, State, Trace, Training, write_trace
from tests.studies.made import made

RATE, DROPOUT, SOURCES = "train.optimiser.learning_rate.tables", "model.user.dropout", "model.product.sources"
SEARCH = Search.model_validate(
    {
        "space": {
            RATE: {"low": 1e-4, "high": 1e-1, "log": True},
            DROPOUT: {"low": 0, "high": 0.5, "step": 0.1},
            SOURCES: {"choices": [["text"], ["entity"], ["text", "entity"]]},
        },
        "trials": 40,
    }
)


def record(trial: int, params: Params, value: float | None, state: State = "complete") -> Record:
    trainings = () if value is None else (Training(0, {2: value}, 2, value),)
    return Record(trial, state, params, value, trainings, 1.0, "diverged" if state == "failed" else None)


def trace(value: Callable[[Params], float], trials: int = 40, row: str = "text") -> Trace:
    draw = np.random.Generator(np.random.Philox(0))
    records = []
    for trial in range(trials):
        sources = (["text"], ["entity"], ["text", "entity"])[draw.integers(3)]
        params: Params = {RATE: float(10 ** draw.uniform(-4, -1)), DROPOUT: int(draw.integers(6)) / 10, SOURCES: sources}
        records.append(record(trial, params, value(params)))
    return Trace({"row": row, "trials": trials, "search": {"metric": "recommendation/ndcg@10"}}, tuple(records))


def collected(home: Path, search: Search | None = SEARCH) -> Collected:
    found = made(folder=home)
    return dataclasses.replace(found, study=found.study.model_copy(update={"search": search}))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (RATE, lambda params: -abs(np.log10(params[RATE]) + 2)),
        (DROPOUT, lambda params: params[DROPOUT] ** 2),
        (SOURCES, lambda params: float(len(params[SOURCES]))),
    ],
)
def test_a_key_that_decides_the_value_gets_nearly_all_of_it(key: str, value: Callable[[Params], float]) -> None:
    found = importances(trace(value), SEARCH)
    assert next(iter(found)) == key and found[key] > 0.9
    assert set(found) == set(SEARCH.space) and sum(found.values()) == pytest.approx(1.0)
    assert list(found.values()) == sorted(found.values(), reverse=True)
    assert found == importances(trace(value), SEARCH), "another number for the same trace"


def test_two_keys_share_as_their_variances_do() -> None:
    found = importances(trace(lambda params: params[DROPOUT] + 0.4 * (params[SOURCES] == ["text"]), 120), SEARCH)
    # Variances: of 0, 0.1, …, 0.5 it is 0.0292; of 0.4 with a chance of a third 0.0356.
    assert found[SOURCES] == pytest.approx(0.55, abs=0.12) and found[DROPOUT] == pytest.approx(0.45, abs=0.12)


def test_constant_values_and_few_trials_give_nothing() -> None:
    decided = trace(lambda params: params[DROPOUT])
    assert importances(trace(lambda _: 0.3), SEARCH) == {}
    assert len({one.value for one in decided.records[:FEWEST]}) > 1
    assert importances(dataclasses.replace(decided, records=decided.records[: FEWEST - 1]), SEARCH) == {}
    assert importances(dataclasses.replace(decided, records=decided.records[:FEWEST]), SEARCH) != {}


def test_pruned_and_failed_trials_tell_no_importance() -> None:
    whole = trace(lambda params: params[DROPOUT])
    misleading = [
        dataclasses.replace(one, trial=40 + one.trial, state=state, value=value)
        for one, state, value in zip(whole.records, ("pruned", "failed") * 20, (9.0, None) * 20, strict=True)
    ]
    mixed = dataclasses.replace(whole, records=(*whole.records, *misleading))
    assert importances(mixed, SEARCH) == importances(whole, SEARCH) != {}


def test_traces_are_read_for_the_searched_rows_that_have_one(tmp_path: Path) -> None:
    found = trace(lambda params: params[DROPOUT], 5, row="text + graph")
    header = found.header | {"fingerprint": "0" * 64, "config": {"version": 2}}
    write_trace(tmp_path, Trace(header, found.records))
    assert read_traces(collected(tmp_path)) == {"text + graph": Trace(header, found.records)}
    assert read_traces(collected(tmp_path, None)) == {}
    assert read_traces(collected(tmp_path, SEARCH.model_copy(update={"rows": ("graph",)}))) == {}
    with pytest.raises(UserError, match=r"search.rows: no row 'grahp'; did you mean 'graph'"):
        read_traces(collected(tmp_path, SEARCH.model_copy(update={"rows": ("grahp",)})))


def test_pictures_are_drawn_where_there_is_something_to_see(tmp_path: Path) -> None:
    plots = {"text": trace(lambda params: params[DROPOUT], 8)}
    assert draw_importances(collected(tmp_path), plots, tmp_path / "importance.png")
    assert draw_history(plots, tmp_path / "history.png")
    sizes = [(tmp_path / name).stat().st_size for name in ("importance.png", "history.png")]
    assert min(sizes) > 5000
    alike, failed = trace(lambda _: 0.1, 8), Trace(plots["text"].header, (record(0, {}, None, "failed"),))
    assert not draw_importances(collected(tmp_path), {"text": alike}, tmp_path / "none.png")
    assert not draw_importances(collected(tmp_path, None), {}, tmp_path / "none.png")
    assert not draw_history({"text": failed}, tmp_path / "none.png") and not (tmp_path / "none.png").exists()


def test_the_history_is_the_best_complete_value_so_far(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr(diagrams, "search_history", lambda *found: drawn.append(found) or True)
    states: list[tuple[float | None, State]] = [(None, "failed"), (0.2, "complete"), (0.9, "pruned"), (0.1, "complete")]
    records = [record(trial, {DROPOUT: 0.1}, value, state) for trial, (value, state) in enumerate(states)]
    header = {"row": "text", "trials": 5, "search": {"metric": "mean"}}
    draw_history({"text": Trace(header, (*records, record(4, {DROPOUT: 0.1}, 0.3)))}, tmp_path / "history.png")
    assert drawn == [({"text": [None, 0.2, 0.2, 0.2, 0.3]}, "best mean on validation", tmp_path / "history.png")]


def test_the_table_says_what_was_tried_and_chosen() -> None:
    header = {"row": "text", "trials": 6}
    params: Params = {RATE: 0.012345678, DROPOUT: 0.1, SOURCES: ["text"]}
    records = (
        record(0, params | {DROPOUT: 0.2}, 0.25),
        record(1, params, 0.5),
        record(2, params, 0.9, "pruned"),
        record(3, params, None, "failed"),
        record(4, params, None, "failed"),
    )
    assert chosen_lines({"text": Trace(header, records), "graph": Trace(header, records[3:])}) == [
        ("text", "5 of 6 (1 pruned, 2 failed)", "0.5000", f"{RATE} = 0.01235, {DROPOUT} = 0.1, {SOURCES} = ['text']"),
        ("graph", "2 of 6 (2 failed)", "none", "none"),
    ]
    assert chosen_lines({"text": Trace(header, records[:1])})[0][1] == "1 of 6"
