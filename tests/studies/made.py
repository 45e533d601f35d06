"""A finished study that no run has made: rows, seeds, baselines, two tasks and segments, with differences of known size.

`made()` is quick (milliseconds) and the same on every machine. Ranks come from a latent strength: a row's own, plus one
for each user (shared by all rows, so that comparisons are paired), plus one for each seed, plus noise.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import ndtr

from fusionjax.config.study import Study
from fusionjax.evaluation.scores import Examples, Segment
from fusionjax.studies.collect import CellKey, Collected
from fusionjax.studies.folder import StudyFolder

REFERENCE = "text"
STRENGTH: Mapping[str, float] = {"text": 0.0, "graph": -0.6, "text + graph": 0.8, "text + shuffled_graph": 0.02}
"""Model rows → latent strength: `text + graph` is clearly better, `text + shuffled_graph` all but equal to the reference."""
BASELINES: Mapping[str, float] = {"popularity": -1.2, "item-kNN": 0.3}
SEEDS = (0, 1, 2)
TASKS: Mapping[str, tuple[str, ...]] = {
    "recommendation": ("ndcg@10", "recall@10", "mrr"),
    "link_prediction": ("mrr", "hits@10"),
}
PRODUCTS, ENTITIES = 400, 300


def made(
    *,
    question: str = "Does the graph help?",
    folder: Path = Path("experiments/made"),
    users: int = 300,
    triples: int = 200,
    strength: Mapping[str, float] = STRENGTH,
    baselines: Mapping[str, float] = BASELINES,
    reference: str = REFERENCE,
    seeds: tuple[int, ...] = SEEDS,
    tasks: Mapping[str, tuple[str, ...]] = TASKS,
    segments: tuple[str, ...] = ("popularity", "history", "direction"),
    contrasts: tuple[tuple[str, str], ...] = (),
    missing: tuple[tuple[str, int], ...] = (),
    failures: Mapping[tuple[str, int], str] | None = None,
    statistics: Mapping[str, Any] | None = None,
) -> Collected:
    """A collected study.

    Args:
      folder: of the study; nothing is written there.
      users, triples: examples of recommendation and link prediction.
      strength: model row → latent strength (1 is one standard deviation of the noise).
      missing: cells that have not run; those of `failures` count too.
      statistics: settings other than the defaults.
    """
    examples = {"recommendation": _users(users), "link_prediction": _triples(triples)}
    absent = [*missing, *(failures or {})]
    ranks: dict[CellKey, dict[str, np.ndarray]] = {}
    for place, (row, latent) in enumerate(strength.items()):
        for seed in seeds:
            if (row, seed) not in absent:
                ranks[row, seed] = {task: _ranks(examples[task], task, latent, 100 * place + seed, 0.05) for task in tasks}
    for place, (row, latent) in enumerate(baselines.items()):
        ranks[row, None] = {task: _ranks(examples[task], task, latent, 10_000 + place, 0.0) for task in tasks}
    records = {key: _record(*key, ranks[key], place, tasks) for place, key in enumerate(ranks)}
    study = Study.model_validate(
        {
            "question": question,
            "base": "base.yaml",
            "axes": {"graph": {"real": {}, "shuffled": {"model.dim": 16}}},
            "rows": {row: {"graph": _graph(row)} for row in strength},
            "reference": reference,
            "seeds": seeds,
            "tasks": dict(tasks),
            "segments": segments,
            "contrasts": contrasts,
            "statistics": {"resamples": 300, **(statistics or {})},
        }
    )
    return Collected(
        study=study,
        folder=StudyFolder(folder),
        rows=tuple(strength),
        baselines=tuple(baselines),
        axis_values={row: {"sources": row.replace("shuffled_", ""), "graph": _graph(row)} for row in strength},
        records=records,
        values=ranks,
        examples={task: examples[task] for task in tasks},
        missing=tuple((row, seed) for row in strength for seed in seeds if (row, seed) in absent),
        failures={key: error for key, error in (failures or {}).items()},
    )


def _graph(row: str) -> str:
    return "shuffled" if "shuffled" in row else "real"


def _generator(key: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key))


def _users(users: int) -> Examples:
    """One to three wanted products a user; popularity (of a target) and history length (of a user)."""
    draw = _generator(1)
    offsets = np.concatenate([[0], np.cumsum(draw.integers(1, 4, users))]).astype(np.int64)
    target = draw.integers(0, PRODUCTS, offsets[-1]).astype(np.int32)
    popularity = np.searchsorted([20, 100, 380], target, side="right").astype(np.int8)
    return Examples(
        "recommendation",
        np.arange(users, dtype=np.int64),
        offsets,
        target,
        None,
        {
            "popularity": Segment(("head", "middle", "tail", "cold"), popularity, "target"),
            "history": Segment(("1-4", "5-9", "10+"), draw.integers(0, 3, users).astype(np.int8), "example"),
        },
    )


def _triples(triples: int) -> Examples:
    """Two answers a triple: first the tail, then the head."""
    draw = _generator(2)
    return Examples(
        "link_prediction",
        np.arange(triples, dtype=np.int64),
        np.arange(0, 2 * triples + 1, 2, dtype=np.int64),
        draw.integers(0, ENTITIES, 2 * triples).astype(np.int32),
        None,
        {"direction": Segment(("tail", "head"), np.tile(np.array([0, 1], np.int8), triples), "target")},
    )


def _ranks(examples: Examples, task: str, latent: float, key: int, spread: float) -> np.ndarray:
    size = PRODUCTS if task == "recommendation" else ENTITIES
    shared = _generator(3).normal(size=len(examples.target))  # how hard a target is, whoever ranks
    draw = _generator(1000 + key + (0 if task == "recommendation" else 500_000))
    seed_effect = draw.normal() * spread
    chance = ndtr(1.5 + latent + seed_effect + shared + 0.3 * draw.normal(size=len(shared)))
    return np.maximum(np.round(2 * size * (1.0 - chance)) / 2, 1.0)  # half ranks, as ties give


def _record(
    row: str, seed: int | None, ranks: Mapping[str, np.ndarray], place: int, tasks: Mapping[str, tuple[str, ...]]
) -> dict[str, Any]:
    test = {
        task: {metric: float(np.mean((1.0 / found) if metric == "mrr" else (found <= 10))) for metric in tasks[task]}
        for task, found in ranks.items()
    }
    curve = [
        {
            "step": step,
            "selected": 0.01 * step,
            **{f"{task}/{tasks[task][0]}": test[task][tasks[task][0]] * step / 30 for task in test},
        }
        for step in (10, 20, 30)
    ]
    digest = f"{place:04d}" * 16
    return {
        "row": row,
        "seed": seed,
        "values": {"graph": _graph(row)},
        "digest": digest,
        "config": {"seed": seed, "model": {"dim": 16}, "train": {"steps": 30}},
        "fingerprint": "0123456789abcdef",
        "commit": "c" * 40,
        "dirty": False,
        "versions": {"python": "3.11.9", "jax": "0.10.2", "numpy": "2.3.0"},
        "devices": ["cpu:cpu"],
        "platform": "Linux x86_64, 2 cores",
        "started": "2026-01-01T00:00:00+00:00",
        "finished": "2026-01-01T00:01:00+00:00",
        "seconds": 60.0 + place,
        "cpu_seconds": 110.0 + place,
        "peak_memory_bytes": 400_000_000 + 10_000_000 * place,
        "parameters": 10_000 * (1 + place),
        "steps": 30,
        "best_step": 20,
        "valid": test,
        "test": test,
        "curve": curve,
        "run": f"runs/{place:02d}",
    }
