"""Speed and memory of graph embedding beside PyKEEN, in one run on the same graph; writes benchmarks/results/kge_speed.json.

    python -m benchmarks.kge FOLDER [--peer .venv-peer/bin/python] [--repeats 2]

FOLDER has train.txt, valid.txt and test.txt (CoDEx-S in the README's table). Every figure comes from a process of its own; the
two sides take turns, and the best of the repeats counts for both. Then ours alone: several seeds in one program, and a step on
synthetic graphs of 10,000 and of 1,000,000 entities.
"""

import argparse
import json
import os
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
# PyTorch asks for its large intermediates anew in each step. With glibc told to keep freed pages and to ask for huge ones,
# PyKEEN is about three times as fast: measured is what a user gets, and what each side can do.
TUNED = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "20000000000", "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
ENVIRONMENTS = {"as installed": {}, "glibc tuned": TUNED}


def line(python: str, module: str, *words: str, environment: dict[str, str] | None = None) -> dict[str, Any]:
    command = [python, "-W", "ignore", "-m", f"benchmarks.kge.{module}", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | (environment or {}))
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def _turns(
    arguments: argparse.Namespace, file: Path, model: str, mode: str, ours: dict[str, tuple[str, ...]], what: str, unit: str
) -> dict[str, dict[str, dict[str, Any]]]:
    """The best of the repeats of each side, which take turns, in each environment; printed side by side."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    rate = f"{unit}_per_second"
    # A pass takes PyKEEN ten seconds, us tenths of one: the median of more of them.
    epochs, our_epochs = (("--epochs", "2"), ("--epochs", "12")) if mode == "train" else ((), ())
    for name, environment in ENVIRONMENTS.items():
        rows: dict[str, list[dict[str, Any]]] = {}
        words = [mode, str(file), "--model", model]
        for _ in range(arguments.repeats):
            rows.setdefault("pykeen", []).append(line(arguments.peer, "peer", *words, *epochs, environment=environment))
            for side, more in ours.items():
                rows.setdefault(side, []).append(
                    line(sys.executable, "ours", *words, *our_epochs, *more, environment=environment)
                )
        best = {side: max(given, key=lambda row: row[rate]) for side, given in rows.items()}
        found[name], theirs = best, best["pykeen"]
        for side in ours:
            print(
                f"{model:8} {what}, {name}: PyKEEN {theirs[rate]:,.0f} {unit}/s ({theirs['peak_mib']:,.0f} MiB), {side} "
                f"{best[side][rate]:,.0f} ({best[side]['peak_mib']:,.0f} MiB): {best[side][rate] / theirs[rate]:.1f}×",
                flush=True,
            )
    return found


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
            sides = {"ours": (), "ours, shared in a chunk": ("--shared", str(SHARED))}
            found["training"][model] = _turns(arguments, file, model, "train", sides, "training, 64 negatives", "triples")
        for model in MODELS:
            found["evaluation"][model] = _turns(
                arguments, file, model, "evaluate", {"ours": ()}, "filtered evaluation", "queries"
            )
        for shared, dim in ((shared, dim) for shared in (0, SHARED) for dim in ("32", "200")):
            words = ["seeds", str(file), "--model", "transe", "--shared", str(shared), "--dim", dim, "--epochs", "10"]
            # Each in a process of its own: what is compiled for one would be there for five.
            one, five = (line(sys.executable, "ours", *words, "--seeds", count)[f"{count} seeds"] for count in ("1", "5"))
            found["seeds"].setdefault(str(shared), {})[dim] = {"1 seed": one, "5 seeds": five}
            passes = five["epoch_s"] / one["epoch_s"]
            whole = [side["first_epoch_s"] + 9 * side["epoch_s"] for side in (five, one)]
            print(
                f"transe, {'shared' if shared else 'own'} negatives, {dim} numbers: a pass of 5 seeds takes {passes:.2f}× "
                f"that of one, 10 epochs with compilation {whole[0] / whole[1]:.2f}×",
                flush=True,
            )
        files = {entities: Path(scratch) / f"{entities}.npz" for entities in LARGE}
        for entities, large in files.items():
            graphs.save(large, graphs.zipf(entities, 50, 1_000_000))
        for shared in (0, SHARED):
            words = ["--model", "complex", "--steps", "60", "--shared", str(shared), "--set", "train.optimiser.rows=sparse"]
            for name, environment in ENVIRONMENTS.items():
                steps = {
                    entities: line(sys.executable, "ours", "train", str(large), *words, environment=environment)
                    for entities, large in files.items()
                }
                found["entities"].setdefault(name, {})[str(shared)] = steps
                few, many = (steps[entities]["step_ms"] for entities in LARGE)
                print(
                    f"complex, {'shared' if shared else 'own'} negatives, {name}: a step takes {few:.1f} ms at 10,000 "
                    f"entities, {many:.1f} at 1,000,000: {many / few:.2f}× ({steps[LARGE[1]]['peak_mib']:,.0f} MiB)",
                    flush=True,
                )
    print(record.write("kge_speed", found, arguments.peer, ("pykeen", "torch")))


if __name__ == "__main__":
    main()
