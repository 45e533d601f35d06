"""FusionJAX on a graph of `graph.py`: speed and memory of training and of evaluation; each mode prints one line of JSON.

    python -m benchmarks.kge.ours train GRAPH.npz --model transe [--shared 128] [--set kge.KEY=VALUE …]
    python -m benchmarks.kge.ours evaluate GRAPH.npz --model transe
    python -m benchmarks.kge.ours seeds GRAPH.npz --model transe --seeds 1,5

The same as `peer.py` measures of PyKEEN: batches of 1,024 triples, 64 negatives of each triple (half of them heads), 200 real
numbers an entity, self-adversarial loss, Adam. Without compilation, whose time is told apart.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from fusionjax.config.kge import Kge

from benchmarks.kge import graph as graphs
from fusionjax.config import load_run
from fusionjax.evaluation.link_prediction import KnownTrue
from fusionjax.evaluation.triples import Ranking
from fusionjax.models.entities import Features, graph_model
from fusionjax.objectives.link_prediction.graph import train_graph
from fusionjax.objectives.link_prediction.loss import hyper_of
from fusionjax.objectives.link_prediction.strategies import strategy_of
from fusionjax.training.epochs import Examples, build_epoch, init_state
from fusionjax.training.parallel import each_run

COMMON = (
    "kge.batch_size=1024",
    "kge.reciprocal=false",
    "kge.optimiser.name=adam",
    "kge.optimiser.learning_rate=0.001",
)
NEGATIVES = (
    "kge.training=negatives",
    "kge.negatives.number=64",
    "kge.negatives.queries=one",
    "kge.loss.name=self_adversarial",
    "kge.margin=9",
)


def peak_mib() -> float:
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def config_of(arguments: argparse.Namespace) -> Kge:
    given = [f"kge.scorer={arguments.model}", f"kge.dim={arguments.dim}", *COMMON]
    if arguments.loop == "negatives":
        given += NEGATIVES
    if arguments.shared:  # a chunk's draw is held against its heads' queries and its tails' alike: half as many of each
        given += ["kge.negatives.queries=both", f"kge.negatives.shared={arguments.shared}", "kge.negatives.number=32"]
    return load_run(None, [*given, *arguments.set]).kge


class Program:
    """A compiled epoch with its data on the device; S seeds at once where S > 1."""

    def __init__(self, kge: Kge, graph: graphs.Graph, seeds: int = 1) -> None:
        e, r = graph.n_entities, graph.n_relations
        self.features = Features(jnp.zeros((e, 0)), jnp.zeros((e, 0)), jnp.ones(e))
        self.kge, self.seeds = kge, seeds
        self.model = graph_model(kge, e, r, self.features)
        self.graph = train_graph(graph.train, e, r, kge)
        self.way = strategy_of(self.model, kge, self.graph)
        epoch: Any = build_epoch(self.model, kge, self.way)
        create: Any = lambda seed: init_state(self.model, kge, seed)  # noqa: E731
        hyper = {**hyper_of(kge), "learning_rate": kge.optimiser.learning_rate}
        self.hyper = {name: jnp.float32(value) for name, value in hyper.items()}
        keys = [jax.random.key(seed) for seed in range(seeds)]
        self.keys = keys[0]
        if seeds > 1:
            apart = jax.default_backend() == "cpu"
            epoch, create = each_run(epoch, (0, None, None, None, 0, 0), apart=apart), jax.vmap(create)
            self.keys = jnp.stack(keys)
        self.epoch = jax.jit(epoch, donate_argnums=0)
        self.state = jax.jit(create)(jnp.int32(0) if seeds == 1 else jnp.arange(seeds, dtype=jnp.int32))
        self.examples = Examples.of(kge, self.graph)

    def run(self, number: int, steps: int | None = None) -> float:
        """Seconds of one pass, or of so many of its steps."""
        each = [self.examples.order(seed, number)[:steps] for seed in range(self.seeds)]
        started = time.perf_counter()
        chosen = each[0] if self.seeds == 1 else np.stack(each)
        self.state, sums = self.epoch(self.state, self.graph, self.features, self.hyper, chosen, self.keys)
        jax.block_until_ready((self.state, sums))
        if not np.isfinite(np.asarray(sums["loss"])).all():
            raise RuntimeError("the loss is not finite")
        return time.perf_counter() - started


def train(graph: graphs.Graph, arguments: argparse.Namespace) -> dict[str, Any]:
    before = peak_mib()
    program = Program(config_of(arguments), graph)
    first = program.run(0, arguments.steps)
    times = [program.run(1 + number, arguments.steps) for number in range(arguments.epochs)]
    triples = len(graph.train) if arguments.steps is None else arguments.steps * program.kge.batch_size
    return {
        "way": [program.way.against, "rows" if program.way.rows else "table"],
        "triples_per_second": triples / float(np.median(times)),
        "step_ms": 1e3 * float(np.median(times)) / -(-triples // program.kge.batch_size),
        "epochs": [round(triples / seconds, 1) for seconds in times],
        "first_epoch_s": first,
        "mib_before": before,
    }


def evaluate(graph: graphs.Graph, arguments: argparse.Namespace) -> dict[str, Any]:
    before = peak_mib()
    program = Program(config_of(arguments), graph)
    known = KnownTrue.of(graph.train, graph.valid, graph.test)
    started = time.perf_counter()
    ranking = Ranking.of(graph.test, known, graph.train, graph.n_entities, arguments.queries, 65536)
    planned = time.perf_counter() - started
    times = []
    for _ in range(1 + arguments.repeats):
        started = time.perf_counter()
        ranking.result(program.model, program.state["params"], program.features)
        times.append(time.perf_counter() - started)
    queries = 2 * len(graph.test)
    return {
        "queries_per_second": queries / min(times[1:]),
        "each": [round(queries / seconds) for seconds in times[1:]],
        "plan_s": planned,
        "first_s": times[0],
        "mib_before": before,
    }


def seeds(graph: graphs.Graph, arguments: argparse.Namespace) -> dict[str, Any]:
    """Several seeds in one program beside one: compilation and passes, and passes alone."""
    found: dict[str, Any] = {}
    for count in arguments.seeds:
        program = Program(config_of(arguments), graph, count)
        first = program.run(0)
        times = [program.run(1 + number) for number in range(arguments.epochs)]
        found[f"{count} seeds"] = {"first_epoch_s": first, "epoch_s": float(np.median(times))}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mode", choices=("train", "evaluate", "seeds"))
    parser.add_argument("graph", type=Path)
    parser.add_argument("--model", required=True)
    parser.add_argument("--dim", type=int, default=200)
    parser.add_argument("--loop", choices=("negatives", "all"), default="negatives")
    parser.add_argument("--shared", type=int, default=0, help="queries that share their negatives")
    parser.add_argument("--epochs", type=int, default=3, help="timed ones, after the one that compiles")
    parser.add_argument("--steps", type=int, help="of each epoch; all")
    parser.add_argument("--queries", type=int, default=512, help="ranked at once")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seeds", type=lambda text: [int(count) for count in text.split(",")], default=[1, 5])
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of the config")
    arguments = parser.parse_args()
    graph = graphs.load(arguments.graph)
    found = {"train": train, "evaluate": evaluate, "seeds": seeds}[arguments.mode](graph, arguments)
    settings = {key: value for key, value in vars(arguments).items() if key != "graph"}
    print(json.dumps({**settings, **found, "peak_mib": peak_mib()}))


if __name__ == "__main__":
    main()
