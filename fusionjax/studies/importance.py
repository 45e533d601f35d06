"""What a study's search found, for the report: the importance of each key, the best value by trial, and what was chosen.

All of it is recomputed from the committed traces (`search/ROW.jsonl`); nothing is trained.
"""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import optuna
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.trial import TrialState, create_trial

from fusionjax.config.search import Search
from fusionjax.studies import diagrams
from fusionjax.studies.search import distribution, encode
from fusionjax.studies.trace import Trace, choose, read_trace, searched_rows

if TYPE_CHECKING:
    from fusionjax.studies.collect import Collected

FEWEST = 4
"""Complete trials below which no importance is computed: a forest of trees learns nothing from fewer."""


def read_traces(collected: "Collected") -> dict[str, Trace]:
    """Row → its trace, of the searched rows that have one; none where the study has no search."""
    search = collected.study.search
    if search is None:
        return {}
    found = {row: read_trace(collected.folder.path, row) for row in searched_rows(search, collected.rows)}
    return {row: trace for row, trace in found.items() if trace is not None}


def importances(trace: Trace, search: Search) -> dict[str, float]:
    """Share of the validation metric's variance that each key explains over the space, by fANOVA (Hutter et al., ICML 2014).

    Returns:
      Dotted key → share, the largest first; together 1. Empty with fewer than `FEWEST` complete trials, or where all of them
      validate alike.
    """
    done = [record for record in trace.records if record.state == "complete" and record.value is not None]
    if len(done) < FEWEST or len({record.value for record in done}) == 1:
        return {}
    study = optuna.create_study(direction="maximize")
    for record in done:
        trial = create_trial(
            state=TrialState.COMPLETE,
            value=record.value,
            params={key: encode(search.space[key], value) for key, value in record.params.items()},
            distributions={key: distribution(key, search.space[key]) for key in record.params},
        )
        study.add_trial(trial)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        found = get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=search.seed))
    # A key that no tree splits on is left out by some evaluators: it explains nothing.
    return {key: float(found.get(key, 0.0)) for key in sorted(search.space, key=lambda key: -found.get(key, 0.0))}


def draw_importances(collected: "Collected", traces: Mapping[str, Trace], path: Path) -> bool:
    """A panel a row of the study."""
    search = collected.study.search
    found = {row: importances(trace, search) for row, trace in traces.items()} if search is not None else {}
    return diagrams.importances({row: shares for row, shares in found.items() if shares}, path)


def draw_history(traces: Mapping[str, Trace], path: Path) -> bool:
    """The best validation value so far by trial, a line a row."""
    lines: dict[str, list[float | None]] = {}
    for row, trace in traces.items():
        best: float | None = None
        values: list[float | None] = []
        for record in trace.records:
            if record.state == "complete" and record.value is not None:
                best = record.value if best is None else max(best, record.value)
            values.append(best)
        lines[row] = values
    label = next((str(trace.header["search"]["metric"]) for trace in traces.values()), "")
    return diagrams.search_history(lines, f"best {label} on validation", path)


def chosen_lines(traces: Mapping[str, Trace]) -> list[tuple[str, str, str, str]]:
    """(row, trials, best validation value, chosen settings) of each searched row."""
    lines = []
    for row, trace in traces.items():
        counts = {state: sum(record.state == state for record in trace.records) for state in ("complete", "pruned", "failed")}
        others = ", ".join(f"{count} {state}" for state, count in counts.items() if count and state != "complete")
        trials = f"{len(trace.records)} of {trace.trials}" + (f" ({others})" if others else "")
        if not counts["complete"]:
            lines.append((row, trials, "none", "none"))
            continue
        best = choose(trace)
        settings = ", ".join(f"{key} = {_short(value)}" for key, value in best.params.items())
        lines.append((row, trials, f"{best.value:.4f}", settings))
    return lines


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
