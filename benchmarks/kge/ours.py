"""FusionJAX on a graph of `graph.py`: speed and memory of training and of evaluation; each mode prints one line of JSON.

    python -m benchmarks.kge.ours train GRAPH.npz --model transe [--shared 128] [--set KEY=VALUE …]
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

from benchmarks.kge import graph as graphs
from fusionjax.config import load_run, schema
from fusionjax.evaluation.link_prediction import KnownTrue, RankingPlan
from fusionjax.evaluation.triples import inductive_vectors, triple_scores
from fusionjax.models.entities import GRAPH, EntityModel, Features
from fusionjax.models.scorers import Init, Sizes, make_scorer
from fusionjax.objectives.link_prediction.examples import Examples
from fusionjax.objectives.link_prediction.graph import train_graph
from fusionjax.objectives.link_prediction.loss import hyper_of
from fusionjax.objectives.link_prediction.strategies import strategy_of
from fusionjax.training.epochs import build_epoch
from fusionjax.training.optimiser import optimiser_of
from fusionjax.training.parallel import each_run
from fusionjax.training.state import TrainState

LINKS, OPTIMISER = "objectives.link_prediction", "train.optimiser"
ALONE = (
    *(f"objectives.{name}.weight=0" for name in ("alignment", "query_product", "next_product")),
    "model.product.sources=[entity]",
    "model.entity.init={name: xavier_normal, scale: 1}",
    f"{LINKS}={{training: one_vs_all, reciprocal: true, negatives: {{number: 64, shared: 0}}}}",
    f"{OPTIMISER}={{name: adagrad_torch, learning_rate: {{tables: 0.1}}, rows: auto}}",
    f"{OPTIMISER}={{schedule: constant, warmup_share: 0, clip_norm: 0}}",
    "model.entity.margin=0",
)
"""Of a run on a graph alone: what the benchmarks' settings change."""
COMMON = (
    *ALONE,
    f"{LINKS}.batch_size=1024",
    f"{LINKS}.reciprocal=false",
    f"{OPTIMISER}.name=adam",
    f"{OPTIMISER}.learning_rate.tables=0.001",
)
NEGATIVES = (
    f"{LINKS}.training=negatives",
    f"{LINKS}.negatives.number=64",
    f"{LINKS}.negatives.queries=one",
    f"{LINKS}.loss.name=self_adversarial",
    "model.entity.margin=9",
)


def peak_mib() -> float:
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def config_of(arguments: argparse.Namespace) -> schema.Run:
    given = [f"model.entity.scorer={arguments.model}", f"model.entity.dim={arguments.dim}", *COMMON]
    if arguments.loop == "negatives":
        given += NEGATIVES
    if arguments.shared:  # a chunk's draw is held against its heads' queries and its tails' alike: half as many of each
        given.append(f"{LINKS}.negatives={{queries: both, shared: {arguments.shared}, number: 32}}")
    return load_run(None, [*given, *arguments.set])


class Program:
    """A compiled epoch with its data on the device; S seeds at once where S > 1."""

    def __init__(self, config: schema.Run, graph: graphs.Graph, seeds: int = 1) -> None:
        e, r = graph.n_entities, graph.n_relations
        links, entity = config.objectives.link_prediction, config.model.entity
        self.features = Features(jnp.zeros((e, 0)), jnp.zeros((e, 0)), jnp.ones(e))
        self.links, self.seeds = links, seeds
        sizes = Sizes(entity.dim, margin=entity.margin)
        how = Init(entity.init.name, entity.init.scale)
        rows = r * (2 if links.reciprocal else 1)
        self.model = EntityModel(make_scorer(entity.scorer, sizes), e, rows, links.reciprocal, how)
        self.graph = train_graph(graph.train, e, r, links)
        self.strategy = strategy_of(self.model, links, self.graph, config.train.optimiser.rows)
        optimiser = optimiser_of(config, 0, 1)
        epoch: Any = build_epoch(self.model, links, self.strategy, optimiser)

        def fresh(seed: Any) -> TrainState:
            params = {GRAPH: self.model.init(jax.random.key(seed))}
            return TrainState(jnp.zeros((), jnp.int32), params, optimiser.init(params), jnp.zeros((1, 1)))

        create: Any = fresh
        self.numbers = jax.tree.map(jnp.float32, {"rates": optimiser.base_rates(), **hyper_of(links, entity)})
        keys = [jax.random.key(seed) for seed in range(seeds)]
        self.keys = keys[0]
        if seeds > 1:
            apart = jax.default_backend() == "cpu"
            epoch, create = each_run(epoch, (0, None, None, None, 0, 0), apart=apart), jax.vmap(create)
            self.keys = jnp.stack(keys)
        self.epoch = jax.jit(epoch, donate_argnums=0)
        self.state = jax.jit(create)(jnp.int32(0) if seeds == 1 else jnp.arange(seeds, dtype=jnp.int32))
        self.examples = Examples.of(links, self.graph)

    def run(self, number: int, steps: int | None = None) -> float:
        """Seconds of an epoch, or of so many of its steps."""
        each = [self.examples.order(seed, number)[:steps] for seed in range(self.seeds)]
        started = time.perf_counter()
        chosen = each[0] if self.seeds == 1 else np.stack(each)
        self.state, sums = self.epoch(self.state, self.graph, self.features, self.numbers, chosen, self.keys)
        jax.block_until_ready((self.state, sums))
        if not np.isfinite(np.asarray(sums["loss"])).all():
            raise RuntimeError("the loss is not finite")
        return time.perf_counter() - started

    def rank(self, plan: RankingPlan) -> Any:
        """Filtered ranks of the plan's triples, as a run is measured."""
        params = self.state.params[GRAPH]
        with jax.default_matmul_precision("highest"):
            entities = inductive_vectors(self.model, params, self.features)
            given = {"entities": entities, "relations": params["relations"], "shared": params.get("shared", {})}
            return plan.evaluate(*triple_scores(self.model), given, entities, block=65536).ranks


def train(graph: graphs.Graph, arguments: argparse.Namespace) -> dict[str, Any]:
    before = peak_mib()
    program = Program(config_of(arguments), graph)
    first = program.run(0, arguments.steps)
    times = [program.run(1 + number, arguments.steps) for number in range(arguments.epochs)]
    triples = len(graph.train) if arguments.steps is None else arguments.steps * program.links.batch_size
    return {
        "strategy": [program.strategy.against, "rows" if program.strategy.rows else "table"],
        "triples_per_second": triples / float(np.median(times)),
        "step_ms": 1e3 * float(np.median(times)) / -(-triples // program.links.batch_size),
        "epochs": [round(triples / seconds, 1) for seconds in times],
        "first_epoch_s": first,
        "mib_before": before,
    }


def evaluate(graph: graphs.Graph, arguments: argparse.Namespace) -> dict[str, Any]:
    before = peak_mib()
    program = Program(config_of(arguments), graph)
    known = KnownTrue.of(graph.train, graph.valid, graph.test)
    started = time.perf_counter()
    plan = RankingPlan.of(graph.test, known, graph.n_entities, batch_size=arguments.queries)
    planned = time.perf_counter() - started
    times = []
    for _ in range(1 + arguments.repeats):
        started = time.perf_counter()
        program.rank(plan)
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
    """Several seeds in one program beside one: compilation and epochs, and epochs alone."""
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
