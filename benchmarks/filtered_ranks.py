"""Queries a second of filtered evaluation: every test triple of a graph, both directions, all entities ranked.

    python -m benchmarks.filtered_ranks FOLDER [--dim 200] [--batch 512] [--write]

FOLDER holds train.txt, valid.txt and test.txt (CoDEx: head, relation, tail between tabs). The scorer is ComplEx with random
vectors: a query is made of anchor and relation and multiplied with all entities. Compilation is not counted. `first` makes the
plan too, as a single evaluation does; `again` is each further one, as at validations. `matmul` is the score product alone.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import record
from fusionjax.evaluation.link_prediction import KnownTrue, RankingPlan


def _times(a: jax.Array, b: jax.Array) -> jax.Array:
    ar, ai = jnp.split(a, 2, -1)
    br, bi = jnp.split(b, 2, -1)
    return jnp.concatenate([ar * br - ai * bi, ar * bi + ai * br], -1)


def _tails(params: Any, head: jax.Array, relation: jax.Array, candidates: jax.Array) -> jax.Array:
    return _times(params["entities"][head], params["relations"][relation]) @ candidates.T


def _heads(params: Any, tail: jax.Array, relation: jax.Array, candidates: jax.Array) -> jax.Array:
    real, imaginary = jnp.split(params["relations"][relation], 2, -1)
    return _times(jnp.concatenate([real, -imaginary], -1), params["entities"][tail]) @ candidates.T


def _seconds(run: Callable[[], Any], times: int = 15) -> dict[str, float]:
    """Of wall clock and of all cores together: the machine may be busy with other work."""
    run()
    found = []
    for _ in range(times):
        wall, cores = time.perf_counter(), time.process_time()
        jax.block_until_ready(run())
        found.append((time.perf_counter() - wall, time.process_time() - cores))
    wall, cores = (sorted(column) for column in zip(*found, strict=True))
    return {"median": wall[times // 2], "least": wall[0], "least_of_cores": cores[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--dim", type=int, default=200)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--write", action="store_true", help="keep the figures in benchmarks/results")
    arguments = parser.parse_args()

    names = [
        np.array([line.split("\t") for line in (arguments.folder / f"{split}.txt").read_text(encoding="utf-8").splitlines()])
        for split in ("train", "valid", "test")
    ]
    every = np.concatenate(names)
    entities, ends = np.unique(every[:, [0, 2]], return_inverse=True)
    relations, of = np.unique(every[:, 1], return_inverse=True)
    ends = ends.reshape(-1, 2)
    triples = np.stack([ends[:, 0], of, ends[:, 1]], axis=1)
    test, n, known = triples[-len(names[2]) :], len(entities), KnownTrue.of(triples)

    random = np.random.default_rng(0)
    tables = {"entities": n, "relations": len(relations)}
    params = {name: jnp.asarray(random.normal(size=(rows, arguments.dim)), jnp.float32) for name, rows in tables.items()}
    plan = RankingPlan.of(test, known, n, batch_size=arguments.batch)
    rows = sum(len(batch.positions) for side in plan.sides for batch in side.plan.batches)
    product = jax.jit(lambda queries, entities: queries @ entities.T)
    queries = jnp.asarray(random.normal(size=(arguments.batch, arguments.dim)), jnp.float32)

    def first() -> Any:
        return RankingPlan.of(test, known, n, batch_size=arguments.batch).evaluate(_tails, _heads, params, params["entities"])

    took = {
        "first": _seconds(lambda: first().ranks),
        "again": _seconds(lambda: plan.evaluate(_tails, _heads, params, params["entities"]).ranks),
        "matmul": _seconds(lambda: [product(queries, params["entities"]) for _ in range(-(-rows // arguments.batch))]),
    }
    asked = 2 * len(test)
    print(f"{n:,} entities, {asked:,} queries of which {rows:,} are scored, dim {arguments.dim}, batch {arguments.batch}")
    for name, seconds in took.items():
        rate = f"{asked / seconds['median']:,.0f} queries/s (best {asked / seconds['least']:,.0f})" if name != "matmul" else ""
        print(f"{name:>7}: {seconds['median'] * 1e3:.1f} ms, {seconds['least_of_cores'] * 1e3:.1f} ms of cores  {rate}")
    if arguments.write:
        found = {"entities": n, "queries": asked, "rows": rows, "dim": arguments.dim, "batch": arguments.batch, "seconds": took}
        print(record.write("filtered_ranks", found))


if __name__ == "__main__":
    main()
