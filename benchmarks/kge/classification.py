"""Triple classification of a study's stored cells, as a table: true triples told from the data's false ones.

    python -m benchmarks.kge.classification experiments/kge_benchmark

Mean ± standard deviation over seeds of what every cell's record holds: accuracy and F1 by a threshold for each relation, chosen
on validation, and by one logistic regression on the score (CoDEx's way), beside baselines and the figures of CoDEx's README.
"""

import argparse
import json
import statistics
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

TASK = "triple_classification"
METRICS = {
    "accuracy": "accuracy",
    "f1": "F1",
    "accuracy/logistic": "accuracy, logistic",
    "f1/logistic": "F1, logistic",
}
CODEX = {
    "codex_s": {
        "RESCAL": (0.805, 0.803),
        "TransE": (0.662, 0.640),
        "ComplEx": (0.814, 0.809),
        "ConvE": (0.731, 0.728),
    },
    "codex_m": {
        "RESCAL": (0.756, 0.735),
        "TransE": (0.651, 0.558),
        "ComplEx": (0.765, 0.751),
        "ConvE": (0.766, 0.742),
    },
}
"""Data set → row → accuracy, F1 (tsafavi/codex, README.md: by logistic regression, scripts/tc.py)."""


def table(study: Path) -> list[str]:
    """The lines of a Markdown table, the best accuracy first."""
    rows: dict[str, list[dict[str, float]]] = defaultdict(list)
    records = [json.loads(file.read_text(encoding="utf-8")) for file in sorted((study / "scores" / "cells").glob("*.json"))]
    for record in records:
        if TASK in record["test"]:
            rows[record["row"]].append(record["test"][TASK])
    if not rows:
        raise SystemExit(f"{study}: no cell has {TASK}: the data need false triples (CoDEx-S, CoDEx-M)")
    published = CODEX.get(records[0]["config"]["data"]["name"], {})
    lines = [f"| | {' | '.join(METRICS.values())} | CoDEx, accuracy / F1 |", "| --- |" + " --- |" * (len(METRICS) + 1)]
    for row, runs in sorted(rows.items(), key=lambda item: -statistics.fmean(run["accuracy"] for run in item[1])):
        cells = [_shown([run[name] for run in runs]) for name in METRICS]
        theirs = " / ".join(f"{value:.3f}".lstrip("0") for value in published.get(row, ()))
        lines.append(f"| {row} | {' | '.join(cells)} | {theirs} |")
    baselines = json.loads((study / "scores" / "baselines.json").read_text(encoding="utf-8"))["baselines"]
    for name, found in baselines.get(TASK, {}).items():
        cells = [_shown([found[metric]]) if metric in found else "" for metric in METRICS]
        lines.append(f"| {name.replace('_', ' ')} | {' | '.join(cells)} |  |")
    return lines


def _shown(values: Sequence[float]) -> str:
    spread = f" ± {statistics.stdev(values):.3f}".replace("0.", ".") if len(values) > 1 else ""
    return f"{statistics.fmean(values):.3f}".lstrip("0") + spread


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path)
    print("\n".join(table(parser.parse_args().study)))
