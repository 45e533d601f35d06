"""Seeds of one small graph run: all in one program, beside one process a seed.

    python benchmarks/seeds_together.py [CONFIG.yaml] [KEY=VALUE …] [--seeds 5] [--repeats 3]

Without a config: link prediction on the demo shop's graph of 300 products. Each way of running does whole runs (data, training,
test, report) in fresh processes: `one` is one seed, `alone` every seed in a process of its own, one after another, `together`
all in one. Prints the medians over the repeats of wall and CPU seconds (user and system, of all processes), of whole runs and
of training only (steps, validations and checkpoints), and their ratios. The prepared data is made before; programs are compiled
anew in each repeat, and the processes of a repeat share them as the cells of a study do.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SMALL_GRAPH = (
    "data.demo_shop={products: 300, users: 100, queries: 50}",
    "model.product.sources=[entity]",
    "model.entity.dim=64",
    "objectives.link_prediction={batch_size: 256, negatives: {number: 64}}",
    "objectives.alignment.weight=0",
    "objectives.query_product.weight=0",
    "objectives.next_product.weight=0",
    "train.steps=500",
)
WAYS = ("one", "alone", "together")
FIGURES = ("wall", "CPU", "wall, training", "CPU, training")


def child(folder: Path, config: str, overrides: list[str], seeds: list[int]) -> None:
    """Runs the seeds in this process, as the study's does; writes the time that training took."""
    from fusionjax import pipeline, runs
    from fusionjax.config import load_run

    runs.keep_compiled_programs()
    cost = {"wall": 0.0, "CPU": 0.0}

    def timed(train):
        def wrapped(*arguments, **keywords):
            wall, cpu = time.monotonic(), time.process_time()
            found = train(*arguments, **keywords)
            cost["wall"] += time.monotonic() - wall
            cost["CPU"] += time.process_time() - cpu
            return found

        return wrapped

    pipeline.train = timed(pipeline.train)
    run = load_run(Path(config) if config else None, overrides)
    places = [folder / f"seed-{seed}" for seed in seeds]
    if len(seeds) > 1:
        pipeline.run_together(run, seeds, places, "benchmark", say=lambda _: None)
    else:
        pipeline.run(run.model_copy(update={"seed": seeds[0]}), places[0], "benchmark", say=lambda _: None)
    (folder / f"cost-{seeds[0]}.json").write_text(json.dumps(cost), encoding="utf-8")


def measure(way: str, config: str, overrides: list[str], seeds: list[int]) -> dict[str, float]:
    """Seconds by figure; link prediction's test MRR of the first seed, to see that the ways agree."""
    groups = {"one": [seeds[:1]], "alone": [[seed] for seed in seeds], "together": [seeds]}[way]
    total: dict[str, float] = dict.fromkeys(FIGURES, 0.0)
    with tempfile.TemporaryDirectory() as scratch:
        for group in groups:
            command = [sys.executable, __file__, "--child", scratch, "--seed-list", *map(str, group), "--", config, *overrides]
            started = time.monotonic()
            process = subprocess.Popen(command, env={**os.environ, "JAX_COMPILATION_CACHE_DIR": f"{scratch}/xla"})
            _, status, usage = os.wait4(process.pid, 0)
            if status:
                raise SystemExit(os.waitstatus_to_exitcode(status))
            total["wall"] += time.monotonic() - started
            total["CPU"] += usage.ru_utime + usage.ru_stime
            cost = json.loads(Path(scratch, f"cost-{group[0]}.json").read_text(encoding="utf-8"))
            for name, seconds in cost.items():
                total[f"{name}, training"] += seconds
        results = json.loads(Path(scratch, f"seed-{seeds[0]}", "results.json").read_text(encoding="utf-8"))
        total["mrr"] = results["test"]["link_prediction"]["mrr"]
    return total


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--seed-list", type=int, nargs="+", help=argparse.SUPPRESS)
    parser.add_argument("words", nargs="*", metavar="CONFIG or KEY=VALUE")
    arguments = parser.parse_args()
    config = next((word for word in arguments.words if "=" not in word), "")
    overrides = [word for word in arguments.words if "=" in word]
    if arguments.child is not None:
        child(arguments.child, config, overrides, arguments.seed_list)
        return 0
    overrides = overrides if config else [*SMALL_GRAPH, *overrides]
    seeds = list(range(1, arguments.seeds + 1))
    measure("one", config, overrides, seeds)  # prepares the data
    found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for _ in range(arguments.repeats):
        for way in WAYS:  # by turns: what else the machine does meets all alike
            found[way].append(measure(way, config, overrides, seeds))
    median = {way: {name: statistics.median(row[name] for row in rows) for name in rows[0]} for way, rows in found.items()}
    print(f"{len(seeds)} seeds, medians of {arguments.repeats}; test MRR of seed {seeds[0]}: ", end="")
    print(", ".join(f"{way} {median[way]['mrr']:.4f}" for way in WAYS))
    print(f"{'seconds':<16}" + "".join(f"{way:>10}" for way in WAYS) + f"{'together/one':>14}{'alone/together':>16}")
    for name in FIGURES:
        one, alone, together = (median[way][name] for way in WAYS)
        print(f"{name:<16}{one:>10.1f}{alone:>10.1f}{together:>10.1f}{together / one:>14.2f}{alone / together:>16.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
