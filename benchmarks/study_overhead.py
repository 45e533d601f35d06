"""What the machinery of a study costs a run: `fusionjax study run` beside the same runs by `fusionjax train`, in turn.

    python benchmarks/study_overhead.py [--seeds 4] [--repeats 3]

A study of one row on a demo shop of 80 products, each seed one cell. Both ways do whole runs (data, training, test, report) in
one fresh process a run, with the same prepared data and compiled programs. Prints seconds a run of either way, medians over the
repeats, and their difference: planning, claims, starting, watching and storing of a cell.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BASE = """
data: {demo_shop: {products: 80, users: 60, queries: 40}}
model: {dim: 16, entity: {dim: 16}, product: {sources: [entity]}, user: {history: 8, layers: 1, heads: 2}}
objectives:
  link_prediction: {batch_size: 16, negatives: {number: 8}}
  alignment: {weight: 0}
  query_product: {weight: 0}
  next_product: {batch_size: 16}
train: {steps: 50}
evaluation: {batch_size: 64, baselines: false}
"""
STUDY = """
question: What does a study cost?
base: base.yaml
rows: {only: {}}
reference: only
seeds: SEEDS
tasks: {recommendation: [ndcg@10], link_prediction: [mrr]}
baselines: false
"""


def command(*words: str) -> float:
    """Seconds that `fusionjax WORDS` takes."""
    started = time.monotonic()
    subprocess.run([sys.executable, "-m", "fusionjax.cli", *words], check=True, capture_output=True, env=os.environ)
    return time.monotonic() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    seeds = list(range(arguments.seeds))
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["FUSIONJAX_CACHE"] = f"{scratch}/cache"
        base = Path(scratch, "base.yaml")
        base.write_text(BASE, encoding="utf-8")
        command("train", str(base), "--run-dir", f"{scratch}/warm")  # data prepared, programs compiled
        ways: dict[str, list[float]] = {"fusionjax train": [], "fusionjax study run": []}
        for repeat in range(arguments.repeats):
            alone = [command("train", str(base), "--run-dir", f"{scratch}/{repeat}-{seed}", f"seed={seed}") for seed in seeds]
            study = Path(scratch, f"study-{repeat}")
            study.mkdir()
            (study / "base.yaml").write_text(BASE, encoding="utf-8")
            (study / "study.yaml").write_text(STUDY.replace("SEEDS", str(seeds)), encoding="utf-8")
            ways["fusionjax train"].append(sum(alone) / len(seeds))
            ways["fusionjax study run"].append(command("study", "run", str(study)) / len(seeds))
        for name, seconds in ways.items():
            print(f"{name:<20} {statistics.median(seconds):6.2f} s a run  ({', '.join(f'{each:.2f}' for each in seconds)})")
        one, other = (statistics.median(seconds) for seconds in ways.values())
        print(f"overhead of a study  {other - one:6.2f} s a run  ({other / one:.2f} ×)")


if __name__ == "__main__":
    main()
