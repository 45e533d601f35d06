"""One config with several seeds (`seeds: [0, 1, 2]`): a run folder each, and what they found together.

Seeds of graphs alone are trained in one program, others one after the other. The folder of the whole holds `config.yaml`, a
run folder `seed-N` for each, and `results.json`: means in the places of a single run's numbers, so that the same tables show
them, with `spread` (standard deviation, n − 1) and `seeds` (each seed's own numbers) beside.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fusionjax import pipeline, runs
from fusionjax.config import schema
from fusionjax.errors import UserError
from fusionjax.files import write_json
from fusionjax.runs import RunFolder
from fusionjax.training.loop import cannot_share

Metrics = Mapping[str, Mapping[str, float | None]]


def run_seeds(config: schema.Run, folder: Path | None, name: str, say: Callable[[str], None] = print) -> RunFolder:
    """Does what of the seeds' runs is not yet done, and returns the folder of the whole.

    Raises:
      UserError: as `pipeline.run`; a seed stands twice; a seed diverged (the others are kept).
    """
    seeds = config.seeds
    if len(set(seeds)) != len(seeds):
        raise UserError(f"seeds: {list(seeds)}: one stands twice")
    home = runs.open_run(config, folder, name)
    one = config.model_copy(update={"seeds": ()})
    folders = [home.path / f"seed-{seed}" for seed in seeds]
    if len(seeds) > 1 and cannot_share(one) is None:
        found = pipeline.run_together(one, seeds, folders, name, say)
    else:
        each = zip(seeds, folders, strict=True)
        found = [pipeline.run(one.model_copy(update={"seed": seed}), place, name, say) for seed, place in each]
    failed = [seed for seed, run in zip(seeds, found, strict=True) if not run.results_file.exists()]
    if failed:
        raise UserError(f"{home.path}: no results of seeds {', '.join(map(str, failed))} (see their provenance.json)")
    write_json(home.results_file, together(seeds, [run.results() for run in found]))
    return home


def together(seeds: Sequence[int], results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Means over the seeds, their spread, and each seed's own numbers. What is undefined for a seed is so for all."""
    splits = [split for split in ("valid", "test") if split in results[0]]
    found: dict[str, Any] = {split: _over(statistics.fmean, [one[split] for one in results]) for split in splits}
    found |= {key: value for key, value in results[0].items() if key not in (*found, "intervals")}  # baselines, of every seed
    if len(results) > 1:
        found["spread"] = {split: _over(statistics.stdev, [one[split] for one in results]) for split in splits}
    own = (*splits, "intervals")  # an interval is that of a seed's own number
    found["seeds"] = {str(seed): {key: one[key] for key in own if key in one} for seed, one in zip(seeds, results, strict=True)}
    return found


def _over(of: Callable[[list[float]], float], rows: Sequence[Metrics]) -> dict[str, dict[str, float | None]]:
    def one(values: list[float | None]) -> float | None:
        there = [value for value in values if value is not None]
        return of(there) if len(there) == len(values) else None

    return {task: {name: one([row[task].get(name) for row in rows]) for name in metrics} for task, metrics in rows[0].items()}
