"""Graph embedding on a GPU (or whatever JAX finds) beside what it can do and DGL-KE's published rates.

    python -m benchmarks.kge.accelerator [--scale 1.0] [--out kge_accelerator]

Writes benchmarks/results/OUT.json, anew after each row, so that a run cut short leaves what it found. The graph is drawn at
random with FB15k's counts, on which DGL-KE published its rates: what a step costs does not depend on which triples they are.
Settings are DGL-KE's: 400 numbers an entity, 200 negatives, Adagrad; shared within chunks of 200 triples as there, or each
triple's own. Bytes and operations are those XLA counts of the compiled step: what goes into and comes out of each of its
kernels. Ceilings are measured in the same process: a copy of an array much larger than any cache, and a product of two large
matrices (in the precision JAX multiplies with, and in full float32).
"""

import argparse
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import record
from benchmarks.kge import graph as graphs
from benchmarks.kge.ours import ALONE, LINKS, OPTIMISER, Program
from fusionjax.config import load_run, schema
from fusionjax.evaluation.link_prediction import KnownTrue, RankingPlan

FB15K = (14_951, 1_345, 592_213)
"""Entities, relations, triples (483,142 of them for training)."""
SHARED = (f"{LINKS}.negatives.shared=200", f"{LINKS}.negatives.number=100")
"""A chunk's draw is held against its tails' queries and its heads' alike."""
OWN = (f"{LINKS}.negatives.queries=one", f"{LINKS}.negatives.number=200")
PUBLISHED = {"transe": 144_000, "complex": 140_000, "rotate": 29_000, "evaluation": 430}
"""DGL-KE on one V100: triples a second in training; filtered queries a second with ComplEx (Zheng et al. 2020)."""
DGL_KE = (
    f"{LINKS}.reciprocal=false",
    f"{OPTIMISER}.learning_rate.tables=0.1",
    f"{LINKS}.training=negatives",
    f"{LINKS}.loss.name=self_adversarial",
    "model.entity.margin=12",
)


class Ceilings(NamedTuple):
    """bytes/s (read and written); float operations/s."""

    copy: float
    product: float
    product_float32: float


def seconds(call: Callable[[], Any], repeats: int = 10) -> float:
    """Median time of a call, whatever it leaves on the device waited for; after one that compiles."""
    jax.block_until_ready(call())
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        jax.block_until_ready(call())
        times.append(time.perf_counter() - started)
    return float(np.median(times))


def ceilings(scale: float) -> Ceilings:
    floats, side = int(scale * (1 << 29)), max(256, int(scale * 8192))
    array = jax.random.normal(jax.random.key(0), (floats,))
    copy = jax.jit(lambda x: x + 1.0)
    copied = 2 * array.nbytes / seconds(lambda: copy(array))
    del array
    one, other = (jax.random.normal(jax.random.key(seed), (side, side)) for seed in (1, 2))
    flops = 2 * side**3
    default = jax.jit(lambda x, y: x @ y)
    full = jax.jit(lambda x, y: jnp.matmul(x, y, precision="highest"))
    return Ceilings(copied, flops / seconds(lambda: default(one, other)), flops / seconds(lambda: full(one, other)))


def train(graph: graphs.Graph, config: schema.Run, limits: Ceilings, passes: int) -> dict[str, Any]:
    program = Program(config, graph)
    first = program.run(0)
    taken = float(np.median([program.run(1 + number) for number in range(passes)]))
    steps = program.examples.steps
    chosen = program.examples.order(0, 0)[:1]
    lowered = program.epoch.lower(program.state, program.graph, program.features, program.numbers, chosen, program.keys)
    cost: Any = lowered.compile().cost_analysis()
    step, bytes_, flops = taken / steps, cost["bytes accessed"], cost["flops"]
    return {
        "strategy": [program.strategy.against, "rows" if program.strategy.rows else "table"],
        "triples_per_second": len(graph.train) / taken,
        "step_ms": 1e3 * step,
        "first_pass_s": first,
        "bytes_of_a_step": bytes_,
        "flops_of_a_step": flops,
        "bytes_per_second": bytes_ / step,
        "flops_per_second": flops / step,
        "share_of_copy": bytes_ / step / limits.copy,
        "share_of_product": flops / step / limits.product,
    }


def evaluate(graph: graphs.Graph, config: schema.Run, queries: int) -> dict[str, Any]:
    program = Program(config, graph)
    known = KnownTrue.of(graph.train, graph.valid, graph.test)
    plan = RankingPlan.of(graph.test, known, graph.n_entities, batch_size=queries)
    taken = seconds(lambda: program.rank(plan), 5)
    return {"queries_per_second": 2 * len(graph.test) / taken}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="of every size, to try it on a small machine")
    parser.add_argument("--passes", type=int, default=3)
    parser.add_argument("--out", default="kge_accelerator")
    arguments = parser.parse_args()
    limits = ceilings(arguments.scale)
    device = jax.devices()[0].device_kind
    print(
        f"{device}: copies {limits.copy / 1e9:,.0f} GB/s, multiplies {limits.product / 1e12:.2f} TFLOP/s, in full float32 "
        f"{limits.product_float32 / 1e12:.2f}",
        flush=True,
    )
    entities, relations, triples = (max(50, int(arguments.scale * count)) for count in FB15K)
    held_out = max(100, int(arguments.scale * 54_535))
    graph = graphs.zipf(entities, relations, triples, held_out=held_out)
    found: dict[str, Any] = {"device": device, "ceilings": limits._asdict(), "published": PUBLISHED, "training": {}}
    for model in ("transe", "complex", "rotate"):
        for what, negatives, batch in (
            ("shared", SHARED, 1000),
            ("shared", SHARED, 16_000),
            ("own", OWN, 1000),
            ("own", OWN, 8000),
        ):
            if model == "rotate" and batch > 1000:  # no product: a vector for every query and negative
                continue
            given = [*ALONE, f"model.entity={{scorer: {model}, dim: 400}}", f"{LINKS}.batch_size={batch}", *negatives, *DGL_KE]
            row = train(graph, load_run(None, given), limits, arguments.passes)
            found["training"][f"{model}, {what}, batch {batch}"] = row
            record.write(arguments.out, found)
            print(
                f"{model:8} {what:6} negatives, batch {batch:6,}: {row['triples_per_second']:12,.0f} triples/s "
                f"({row['triples_per_second'] / PUBLISHED[model]:.1f}× DGL-KE on a V100), {row['step_ms']:.2f} ms a step, "
                f"{row['bytes_per_second'] / 1e9:,.0f} GB/s ({100 * row['share_of_copy']:.0f} % of a copy), "
                f"{row['strategy'][0]}",
                flush=True,
            )
    given = [
        *ALONE,
        "model.entity={scorer: complex, dim: 2000}",
        f"{LINKS}={{batch_size: 1000, penalty: {{name: n3, entity: 0.05}}}}",
    ]
    row = found["against all"] = train(graph, load_run(None, given), limits, arguments.passes)
    print(
        f"complex, 2,000 numbers, against all entities: {row['triples_per_second']:,.0f} triples/s, {row['step_ms']:.2f} ms a "
        f"step, {row['flops_per_second'] / 1e12:.1f} TFLOP/s ({100 * row['share_of_product']:.0f} % of a product)",
        flush=True,
    )
    found["evaluation"] = evaluate(graph, load_run(None, [*ALONE, "model.entity={scorer: complex, dim: 400}"]), 1024)
    rate = found["evaluation"]["queries_per_second"]
    print(f"filtered evaluation, complex, 400 numbers: {rate:,.0f} queries/s ({rate / PUBLISHED['evaluation']:,.0f}× DGL-KE)")
    print(record.write(arguments.out, found))


if __name__ == "__main__":
    main()
