"""Speed and memory of graph embedding beside PyKEEN, in one run on the same graph; writes benchmarks/results/kge_speed.json.

    python -m benchmarks.kge.speed FOLDER [--peer .venv-peer/bin/python] [--repeats 2]

FOLDER has train.txt, valid.txt and test.txt (CoDEx-S in the README's table). Every figure comes from a process of its own; the
two sides take turns, and the best of the repeats counts for both. Then ours alone: several seeds in one program, and a step on
synthetic graphs of 10,000 and of 1,000,000 entities.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import record
from benchmarks.kge import graph as graphs

MODELS = ("transe", "complex")
SHARED = 256
LARGE = (10_000, 1_000_000)


def line(python: str, module: str, *words: str) -> dict[str, Any]:
    command = [python, "-W", "ignore", "-m", f"benchmarks.kge.{module}", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def best(rows: list[dict[str, Any]], key: str) -> dict[str, Any]:
    return max(rows, key=lambda row: row[key])


def _beside(what: str, unit: str, theirs: dict[str, Any], ours: dict[str, Any]) -> None:
    rates = [side[f"{unit}_per_second"] for side in (theirs, ours)]
    print(
        f"{what}: PyKEEN {rates[0]:,.0f} {unit}/s ({theirs['peak_mib']:,.0f} MiB), ours {rates[1]:,.0f} "
        f"({ours['peak_mib']:,.0f} MiB): {rates[1] / rates[0]:.1f}×",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--peer", default=".venv-peer/bin/python")
    parser.add_argument("--repeats", type=int, default=2)
    arguments = parser.parse_args()
    found: dict[str, Any] = {"training": {}, "evaluation": {}, "seeds": {}, "entities": {}}
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "graph.npz"
        graph = graphs.read(arguments.folder)
        graphs.save(file, graph)
        found["graph"] = {"triples": len(graph.train), "test": len(graph.test), "entities": graph.n_entities}
        for model in MODELS:
            sides: dict[str, list[dict[str, Any]]] = {"pykeen": [], "ours": [], "shared": []}
            for _ in range(arguments.repeats):
                sides["pykeen"].append(line(arguments.peer, "peer", "train", str(file), "--model", model, "--epochs", "2"))
                sides["ours"].append(line(sys.executable, "ours", "train", str(file), "--model", model))
                sides["shared"].append(
                    line(sys.executable, "ours", "train", str(file), "--model", model, "--shared", str(SHARED))
                )
            rows = {side: best(given, "triples_per_second") for side, given in sides.items()}
            found["training"][model] = rows
            for side, what in (("ours", "64 corruptions"), ("shared", "64 corruptions shared in a chunk")):
                _beside(f"{model:8} training, {what}", "triples", rows["pykeen"], rows[side])
        for model in MODELS:
            pairs = [
                (
                    line(arguments.peer, "peer", "evaluate", str(file), "--model", model),
                    line(sys.executable, "ours", "evaluate", str(file), "--model", model),
                )
                for _ in range(arguments.repeats)
            ]
            theirs, ours = (best([pair[side] for pair in pairs], "queries_per_second") for side in (0, 1))
            found["evaluation"][model] = {"pykeen": theirs, "ours": ours}
            _beside(f"{model:8} filtered evaluation", "queries", theirs, ours)
        for dim in ("32", "200"):
            row = line(sys.executable, "ours", "seeds", str(file), "--model", "transe", "--dim", dim, "--seeds", "1,5")
            found["seeds"][dim] = row
            one, five = row["1 seeds"], row["5 seeds"]
            passes = five["epoch_s"] / one["epoch_s"]
            whole = [side["first_epoch_s"] + 9 * side["epoch_s"] for side in (five, one)]
            print(
                f"transe, {dim} numbers: a pass of 5 seeds takes {passes:.2f}× that of one, 10 passes with compilation "
                f"{whole[0] / whole[1]:.2f}×",
                flush=True,
            )
        for shared in (0, SHARED):
            steps = {}
            for entities in LARGE:
                graphs.save(file, graphs.zipf(entities, 50, 1_000_000))
                words = ["--model", "complex", "--steps", "60", "--shared", str(shared), "--set", "kge.optimiser.rows=on"]
                steps[entities] = line(sys.executable, "ours", "train", str(file), *words)
            found["entities"][str(shared)] = steps
            small, large = (steps[entities]["step_ms"] for entities in LARGE)
            print(
                f"complex, {'shared' if shared else 'own'} corruptions: a step takes {small:.1f} ms at 10,000 entities, "
                f"{large:.1f} at 1,000,000: {large / small:.2f}× ({steps[LARGE[1]]['peak_mib']:,.0f} MiB)",
                flush=True,
            )
    print(record.write("kge_speed", found, arguments.peer, ("pykeen", "torch")))


if __name__ == "__main__":
    main()
