"""Texts encoded a second: `TextEncoder` beside sentence-transformers, on a CPU in float32. (Training: text_training.py.)

    python -m benchmarks.text_encoder titles DATA_CONFIG.yaml [KEY=VALUE …] > TITLES.txt
    python -m benchmarks.text_encoder encode TITLES.txt --checkpoint FOLDER [--peer PYTHON] [--repeats 5]

Two jobs: every line of the file; and 2,000 long texts: text n is the lines n, n + 1, … of the file, 4 to 20 of them in turn,
joined. Ways: ours by its default plan (mixed), in packed rows alone, in length-sorted buckets alone, and the peer's `encode`.
Each way runs in fresh processes that take turns. Before the clock starts ours does one batch of each shape (its compile time,
with an empty cache), the peer 512 texts. Tokenisation is part of the time on all sides.

Prints medians, ratios, the largest difference between the vectors, and each way's use of the machine: floating-point operations
of the texts' own tokens (padding earns nothing) beside the fastest matrix product of this encoder's shapes that NumPy, XLA or
torch reached in the same processes. Writes results/text_encoder.json.
"""

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

LONG = 2000
_CEILING = """
def ceiling(product):
    '''GFLOP/s of the best of 30 times 20 products of [1024, 384] and [384, 1536].'''
    product()
    best = 0.0
    for _ in range(30):
        started = time.perf_counter()
        for _ in range(20):
            product()
        best = max(best, 20 * 2 * 1024 * 384 * 1536 / (time.perf_counter() - started) / 1e9)
    return best
"""
_PEER = (
    "import json, sys, time\nimport numpy as np, torch\nfrom sentence_transformers import SentenceTransformer\n"
    + _CEILING
    + """
checkpoint, texts, out = sys.argv[1:4]
texts = json.load(open(texts, encoding="utf-8"))
model = SentenceTransformer(checkpoint, device="cpu")

def encode():
    started = time.perf_counter()
    vectors = model.encode(texts, batch_size=32, show_progress_bar=False)
    return time.perf_counter() - started, vectors

model.encode(texts[:512], batch_size=32, show_progress_bar=False)
seconds, vectors = encode()
np.save(out, vectors)
a, b = torch.ones(1024, 384), torch.ones(384, 1536)
print(json.dumps({"seconds": seconds, "gflops": {"torch": ceiling(lambda: a @ b)}}))
"""
)
_OURS = (
    "import json, sys, time\nimport numpy as np\nimport jax\nfrom fusionjax import TextEncoder, embedding\n"
    + _CEILING
    + """
checkpoint, texts, out, plan = sys.argv[1:5]
texts = json.load(open(texts, encoding="utf-8"))
encoder = TextEncoder.from_pretrained(checkpoint)

def encode():
    started = time.perf_counter()
    vectors = encoder.encode(texts, plan=plan)
    return time.perf_counter() - started, vectors

config, sentence = encoder.config, encoder.settings
settings = {"config": config, "dtype": encoder.dtype, "pooling": sentence.pooling, "normalise": sentence.normalise}
ragged = encoder.tokens(texts)
lengths = ragged.lengths.astype(float)
planned = embedding.batches(ragged, config, sentence.pooling, plan)
shapes = {(batch.tokens.shape, batch.places): batch for batch in planned}
started = time.perf_counter()
for batch in shapes.values():
    embedding.answer(batch, encoder.params, **settings).block_until_ready()
compiled = time.perf_counter() - started
seconds, vectors = encode()
np.save(out, vectors)
matrices = config.layers * 2 * (4 * config.width**2 + 2 * config.width * config.feed_forward)
attention = config.layers * 4 * config.width
a, b = np.ones((1024, 384), np.float32), np.ones((384, 1536), np.float32)
on_device, dot = (jax.device_put(a), jax.device_put(b)), jax.jit(lambda a, b: a @ b)
print(json.dumps({
    "compile_seconds": compiled,
    "shapes": len(shapes),
    "seconds": seconds,
    "gflop": float((lengths * matrices + lengths**2 * attention).sum() / 1e9),
    "tokens": lengths.mean(),
    "gflops": {"numpy": ceiling(lambda: a @ b), "xla": ceiling(lambda: dot(*on_device).block_until_ready())},
}))
"""
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    modes = parser.add_subparsers(dest="mode", required=True)
    titles = modes.add_parser("titles")
    titles.add_argument("config", type=Path)
    titles.add_argument("overrides", nargs="*")
    encode = modes.add_parser("encode")
    encode.add_argument("titles", type=Path)
    encode.add_argument("--checkpoint", required=True)
    encode.add_argument("--peer", default=".venv-peer/bin/python")
    encode.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    return {"titles": write_titles, "encode": compare}[arguments.mode](arguments)


def compare(arguments: argparse.Namespace) -> int:
    from benchmarks import record
    from fusionjax.hub import fingerprint

    titles = arguments.titles.read_text(encoding="utf-8").splitlines()
    jobs = {"titles": titles, "long": long_texts(titles)}
    found: dict[str, Any] = {name: measure(name, texts, arguments) for name, texts in jobs.items()}
    found["text_sha256"] = hashlib.sha256(arguments.titles.read_bytes()).hexdigest()
    found["checkpoint"] = fingerprint(Path(arguments.checkpoint))
    print(record.write("text_encoder", found, arguments.peer, ("torch", "transformers", "sentence-transformers")))
    return 0


def long_texts(titles: list[str]) -> list[str]:
    return ["; ".join((titles * 2)[n % len(titles) :][: 4 + n % 17]) for n in range(LONG)]


def measure(name: str, texts: list[str], arguments: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch, "texts.json")
        file.write_text(json.dumps(texts), encoding="utf-8")
        words = [arguments.checkpoint, str(file)]
        ways: dict[str, Callable[[str], list[str]]] = {
            "peer": lambda out: [arguments.peer, "-c", _PEER, *words, out],
            "mixed": lambda out: [sys.executable, "-c", _OURS, *words, out, "mixed"],
            "packed": lambda out: [sys.executable, "-c", _OURS, *words, out, "packed"],
            "buckets": lambda out: [sys.executable, "-c", _OURS, *words, out, "buckets"],
        }
        rows: dict[str, list[dict[str, Any]]] = {way: [] for way in ways}
        vectors: dict[str, np.ndarray] = {}
        for repeat in range(arguments.repeats):
            for way, command in ways.items():
                with tempfile.TemporaryDirectory() as cache:
                    rows[way].append(_run(command(f"{scratch}/{way}.npy"), cache))
                vectors[way] = np.load(f"{scratch}/{way}.npy")
            said = ", ".join(f"{way} {len(texts) / rows[way][-1]['seconds']:.0f}" for way in ways)
            print(f"{name}, repeat {repeat + 1}: texts/s {said}", flush=True)
    gflop = rows["packed"][0]["gflop"]
    ceiling = max(speed for found in rows.values() for row in found for speed in row["gflops"].values())
    print(f"{name}: {len(texts):,} texts of {rows['packed'][0]['tokens']:.1f} tokens; ceiling {ceiling:.0f} GFLOP/s")
    print(f"{'':8}{'texts/s':>9}{'ratio':>8}{'compile s':>11}{'GFLOP/s':>9}{'of ceiling':>12}{'difference':>12}")
    summary: dict[str, Any] = {"texts": len(texts), "tokens": rows["packed"][0]["tokens"], "ceiling_gflops": ceiling}
    peer = statistics.median(row["seconds"] for row in rows["peer"])
    for way, found in rows.items():
        seconds = statistics.median(row["seconds"] for row in found)
        compile_seconds = 0.0 if way == "peer" else statistics.median(row["compile_seconds"] for row in found)
        summary[way] = {
            "texts_per_second": len(texts) / seconds,
            "ratio": peer / seconds,
            "compile_seconds": compile_seconds,
            "shapes": found[0].get("shapes"),
            "gflops": gflop / seconds,
            "largest_difference": float(np.abs(vectors[way] - vectors["peer"]).max()),
            "seconds": [row["seconds"] for row in found],
            "ceilings": [row["gflops"] for row in found],
        }
        print(
            f"{way:8}{len(texts) / seconds:9.0f}{peer / seconds:8.2f}{compile_seconds:11.1f}{gflop / seconds:9.0f}"
            f"{gflop / seconds / ceiling:12.0%}{summary[way]['largest_difference']:12.1e}",
            flush=True,
        )
    return summary


def _run(command: list[str], cache: str) -> dict[str, Any]:
    environment = {**os.environ, "FUSIONJAX_CACHE": cache}
    started = time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    return {**json.loads(done.stdout.strip().splitlines()[-1]), "process_seconds": time.perf_counter() - started}


def write_titles(arguments: argparse.Namespace) -> int:
    """The products' titles, one a line."""
    from fusionjax.config import load_run
    from fusionjax.data.prepare import prepare

    shop = prepare(load_run(arguments.config, arguments.overrides).data, log=lambda _: None).shop
    assert shop.products is not None
    for title in shop.products.title:
        print(" ".join(str(title).split()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
