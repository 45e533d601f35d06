"""Contrastive training of a sentence encoder: ours beside sentence-transformers, and memory with gradient caching.

    python benchmarks/text_training.py step PAIRS.tsv --checkpoint FOLDER [--peer PYTHON] [--batch 64] [--repeats 3]
    python benchmarks/text_training.py memory PAIRS.tsv --checkpoint FOLDER

PAIRS.tsv: a query, a tab, a matching title, one pair a line (`python benchmarks/text_training.py pairs DATA_CONFIG.yaml
[KEY=VALUE …] > PAIRS.tsv` writes those of a data set).

`step`: the multiple negatives ranking loss with AdamW, in float32, on the same pairs in batches of the same size; each side in
fresh processes, taking turns. Ours is the step of a run (`model.heads: none`, `text.pack`), its batches made by threads as in
training; the peer's is its model, its loss, its collation and torch's AdamW. Before the clock starts each side does one step
for each shape it compiles, and both print the loss of one fixed batch without dropout: these must agree.

`memory`: peak resident memory of a process that does one step: of 256 pairs at once, of 256 and of 8,192 chunk by chunk
(`text.chunk`).
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, cast

import numpy as np

_PEER = """
import json, sys, time
import numpy as np, torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.losses import MultipleNegativesRankingLoss

checkpoint, pairs, batch, steps, length = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:6])
rows = [line.rstrip("\\n").split("\\t") for line in open(pairs, encoding="utf-8")]
model = SentenceTransformer(checkpoint, device="cpu")
model.max_seq_length = length
loss = MultipleNegativesRankingLoss(model, scale=20.0)

def features(part):
    return [model.preprocess(list(column)) for column in zip(*part)]

model.eval()
with torch.no_grad():
    fixed = float(loss(features(rows[:batch]), None))
model.train()
optimiser = torch.optim.AdamW(model.parameters(), lr=2e-5)
order = np.random.default_rng(0).permutation(len(rows))

def step(number):
    part = [rows[row] for row in order[number * batch : (number + 1) * batch]]
    value = loss(features(part), None)
    optimiser.zero_grad()
    value.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimiser.step()
    return float(value)

step(0)
started = time.perf_counter()
for number in range(1, steps + 1):
    step(number)
print(json.dumps({"seconds": (time.perf_counter() - started) / steps, "fixed_loss": fixed, "threads": torch.get_num_threads()}))
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    modes = parser.add_subparsers(dest="mode", required=True)
    for name in ("step", "memory", "worker"):
        mode = modes.add_parser(name)
        mode.add_argument("pairs", type=Path)
        mode.add_argument("--checkpoint", required=True)
        mode.add_argument("--peer", default=".venv-peer/bin/python")
        mode.add_argument("--batch", type=int, default=64)
        mode.add_argument("--chunk", type=int, default=0)
        mode.add_argument("--steps", type=int, default=20)
        mode.add_argument("--repeats", type=int, default=3)
        mode.add_argument("--length", type=int, default=64, help="tokens a text is cut to")
    pairs = modes.add_parser("pairs")
    pairs.add_argument("config", type=Path)
    pairs.add_argument("overrides", nargs="*")
    arguments = parser.parse_args()
    return {"step": compare, "memory": memory, "worker": worker, "pairs": write_pairs}[arguments.mode](arguments)


def compare(arguments: argparse.Namespace) -> int:
    peer = [arguments.peer, "-c", _PEER, arguments.checkpoint, str(arguments.pairs)]
    peer += [str(each) for each in (arguments.batch, arguments.steps, arguments.length)]
    ours, theirs = [], []
    for repeat in range(arguments.repeats):
        for found, command in ((theirs, peer), (ours, _worker(arguments, arguments.batch, 0, arguments.steps))):
            found.append(_json_of(command))
        a, b = ours[-1], theirs[-1]
        print(
            f"repeat {repeat + 1}: ours {a['seconds']:.3f} s a step, sentence-transformers {b['seconds']:.3f}; loss of one "
            f"fixed batch {a['fixed_loss']:.5f} and {b['fixed_loss']:.5f}; "
            f"ours compiled {a['shapes']} shapes in {a['compile_seconds']:.1f} s",
            flush=True,
        )
    medians = [statistics.median(row["seconds"] for row in rows) for rows in (ours, theirs)]
    print(
        f"median: ours {medians[0]:.3f} s, sentence-transformers {medians[1]:.3f} s a step of {arguments.batch} pairs: ", end=""
    )
    print(f"{medians[1] / medians[0]:.2f} ×")
    return 0


def memory(arguments: argparse.Namespace) -> int:
    rows = []
    for batch, chunk in ((256, 0), (256, 64), (8192, 64)):
        found = _json_of(_worker(arguments, batch, chunk, 0))
        rows.append(found["peak_gib"])
        print(
            f"batch {batch:>5}, {f'chunks of {chunk}' if chunk else 'at once':<12}: peak {found['peak_gib']:.2f} GiB, "
            f"{found['compile_seconds']:.0f} s with compilation, loss {found['loss']:.4f}",
            flush=True,
        )
    print(f"8,192 in chunks beside 256 at once: {rows[2] / rows[0]:.2f} ×; beside 256 in chunks: {rows[2] / rows[1]:.2f} ×")
    return 0


def _worker(arguments: argparse.Namespace, batch: int, chunk: int, steps: int) -> list[str]:
    settings = {"--batch": batch, "--chunk": chunk, "--steps": steps, "--length": arguments.length}
    words = [str(word) for pair in settings.items() for word in pair]
    return [sys.executable, __file__, "worker", str(arguments.pairs), "--checkpoint", arguments.checkpoint, *words]


def _json_of(command: list[str]) -> dict[str, Any]:
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def worker(arguments: argparse.Namespace) -> int:
    """Ours: the pairs as a shop of files, then the very steps of a run."""
    import jax

    from fusionjax.config import load_run
    from fusionjax.data.inputs import build_inputs
    from fusionjax.data.prepare import prepare
    from fusionjax.losses import info_nce
    from fusionjax.models.joint import JointModel
    from fusionjax.objectives.towers import catalogue
    from fusionjax.training import parallel
    from fusionjax.training.optimiser import optimiser_of
    from fusionjax.training.state import create, layout
    from fusionjax.training.steps import build_step, numbers_of
    from fusionjax.training.stream import StepSource, stream
    from fusionjax.training.tuning import pretrained

    with tempfile.TemporaryDirectory() as folder:
        write_shop(Path(folder), arguments.pairs)
        overrides = {
            "data": f"{{name: files, source_dir: '{folder}', cache_dir: '{folder}/cache'}}",
            "data.clean": "{nfkc: false, html: false, whitespace: false}",
            "data.split": "{valid_share: 0, test_share: 0}",
            "text": f"{{fields: [title], checkpoint: '{arguments.checkpoint}', max_length: {arguments.length}, pack: true}}",
            "text.live": str(arguments.batch),
            "text.chunk": str(arguments.chunk),
            "model": "{heads: none, product: {sources: [text]}}",
            "objectives.link_prediction.weight": "0",
            "objectives.alignment.weight": "0",
            "objectives.next_product.weight": "0",
            "objectives.query_product": f"{{batch_size: {arguments.batch}, from_titles: 0, directions: forth}}",
            "objectives.temperature": "0.05",
            "train.optimiser": "{schedule: constant, warmup_share: 0, learning_rate: {encoder: 2e-5}}",
        }
        config = load_run(None, [f"{key}={value}" for key, value in overrides.items()])
        inputs = build_inputs(prepare(config.data, log=lambda _: None).shop, config, Path(folder) / "run", log=lambda _: None)
    mesh = parallel.build_mesh()
    model = JointModel(layout(config, inputs))
    assert model.layout.encoder is not None
    optimiser = optimiser_of(config, model.layout.encoder.layers, 1000)
    state = parallel.replicate(create(model, optimiser, False, 0), mesh)
    params = pretrained(state.params, config.text)
    state = type(state)(state.step, params, state.opt_state, state.bank)
    numbers = numbers_of(config, optimiser.base_rates())
    places = parallel.replicate(catalogue(inputs), mesh)
    key = parallel.replicate(jax.random.key(0), mesh)
    step = build_step(model, optimiser, config, None, 1, mesh)
    source = StepSource(inputs, config, 10_000)

    assert inputs.query_tokens is not None and inputs.product_tokens is not None
    row = min(arguments.batch, 256)  # the first pairs: row i of the queries and of the titles
    fixed = float(
        jax.jit(
            lambda params, left, right: info_nce(
                cast(Any, model.apply({"params": params}, left, method="encode")),
                cast(Any, model.apply({"params": params}, right, method="encode")),
                jax.numpy.asarray(20.0),
                None,
                jax.numpy.ones(row, bool),
                directions="forth",
            )
        )(params, inputs.query_tokens[:row], inputs.product_tokens[:row])
    )

    def shapes(batch: Any) -> tuple[int, ...]:
        return tuple(size for entry in batch.values() for size in entry["tokens"].shape)

    started, compiled, loss = time.perf_counter(), set(), 0.0
    for number in range(arguments.steps + 1):
        if shapes(source[number]) not in compiled:
            compiled.add(shapes(source[number]))
            state, metrics = step(state, parallel.shard_batch(source[number], mesh), places, key, numbers)
            loss = float(metrics["loss"])
    compile_seconds = time.perf_counter() - started
    batches = stream(source) if arguments.steps else iter(())
    next(batches, None)
    started = time.perf_counter()
    for _ in range(arguments.steps):
        state, metrics = step(state, parallel.shard_batch(next(batches), mesh), places, key, numbers)
        del metrics  # not read: that would stop the device
    jax.block_until_ready(state.params)
    unit = 1 if sys.platform == "darwin" else 1024
    print(
        json.dumps(
            {
                "seconds": (time.perf_counter() - started) / max(arguments.steps, 1),
                "fixed_loss": fixed,
                "loss": loss,
                "shapes": len(compiled),
                "compile_seconds": compile_seconds,
                "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30,
                "cores": os.cpu_count(),
            }
        )
    )
    return 0


def write_shop(folder: Path, pairs: Path) -> None:
    """Query i of the file is judged relevant to product i; numbered, so that rows keep their order."""
    rows = [line.rstrip("\n").split("\t") for line in pairs.read_text(encoding="utf-8").splitlines()]
    width = len(str(len(rows)))
    tables = {
        "products": [("id", "title"), *((f"p{n:0{width}}", title) for n, (_, title) in enumerate(rows))],
        "queries": [("id", "text"), *((f"q{n:0{width}}", query) for n, (query, _) in enumerate(rows))],
        "judgments": [
            ("query", "product", "grade", "split"),
            *((f"q{n:0{width}}", f"p{n:0{width}}", "1", "train") for n in range(len(rows))),
        ],
    }
    for name, table in tables.items():
        text = "".join("\t".join(row) + "\n" for row in table)
        (folder / f"{name}.tsv").write_text(text, encoding="utf-8")


def write_pairs(arguments: argparse.Namespace) -> int:
    """One pair a query: its best judged training product."""
    from fusionjax.config import load_run
    from fusionjax.data.prepare import prepare
    from fusionjax.data.shop import TRAIN

    shop = prepare(load_run(arguments.config, arguments.overrides).data, log=lambda _: None).shop
    judgments = shop.judgments
    assert judgments is not None and shop.queries is not None and shop.products is not None
    seen: set[int] = set()
    titles: set[str] = set()
    for row in np.lexsort((-judgments.grade, judgments.query)):
        query, title = int(judgments.query[row]), str(shop.products.title[judgments.product[row]])
        text = str(shop.queries.text[query])
        if (
            judgments.split[row] == TRAIN
            and judgments.grade[row] >= 1
            and query not in seen
            and title not in titles
            and text.strip()
        ):
            seen.add(query)
            titles.add(title)
            print(f"{text}\t{title}".replace('"', "”"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
