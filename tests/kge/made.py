"""A small graph with structure in it, and graph-embedding configs, models and passes over it."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fusionjax.config import load_run, schema
from fusionjax.config.kge import Kge
from fusionjax.training.epochs import Examples, build_epoch, init_state
from fusionjax.objectives.link_prediction.graph import TrainGraph, train_graph
from fusionjax.models.entities import Features, EntityModel, graph_model
from fusionjax.objectives.link_prediction.loss import hyper_of
from fusionjax.objectives.link_prediction.strategies import Strategy, strategy_of

ENTITIES, RELATIONS = 21, 4
SCORERS = ("transe", "distmult", "complex", "simple", "rotate", "rotate_l2", "rescal", "tucker", "conve", "quate", "pairre")
SMALL = ("dim=8", "batch_size=16", "convolution={filters: 2, kernel: 2}", "init={name: normal, scale: 0.5}")
LOSSES = ("softmax", "bce", "margin", "self_adversarial")


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.Generator(np.random.Philox(seed)).normal(size=shape).astype(np.float32)


def triples() -> np.ndarray:
    """int32 [63, 3]: a circle, its inverse, one of four groups for each, and the double. No multiple of any batch here."""
    e = np.arange(ENTITIES)
    parts = [(e, 0, (e + 1) % ENTITIES), ((e + 1) % ENTITIES, 1, e), (e[4:], 2, e[4:] % 4), (e[:4], 3, 2 * e[:4])]
    rows = [np.stack([head, np.full_like(head, relation), tail], 1) for head, relation, tail in parts]
    return np.concatenate(rows).astype(np.int32)


def run_of(*overrides: str) -> schema.Run:
    """A whole run's config; overrides of `kge` are written without it, others begin with a slash."""
    chosen = [each[1:] if each.startswith("/") else f"kge.{each}" for each in (*SMALL, *overrides)]
    return load_run(None, chosen)


def kge(*overrides: str) -> Kge:
    return run_of(*overrides).kge


def no_features(n: int = ENTITIES) -> Features:
    return Features(jnp.zeros((n, 0)), jnp.zeros((n, 0)), jnp.ones(n))


@dataclasses.dataclass(frozen=True)
class Made:
    """What a pass over the graph needs."""

    config: Kge
    model: EntityModel
    graph: TrainGraph
    features: Features
    train: np.ndarray

    @functools.cached_property
    def hyper(self) -> dict[str, jax.Array]:
        numbers = {**hyper_of(self.config), "learning_rate": self.config.optimiser.learning_rate}
        return {name: jnp.float32(value) for name, value in numbers.items()}

    @property
    def strategy(self) -> Strategy:
        return strategy_of(self.model, self.config, self.graph)

    def state(self, seed: int = 0) -> dict[str, Any]:
        return init_state(self.model, self.config, seed)  # not compiled: its operations are, and shared by all

    def passes(
        self, epochs: int = 1, strategy: Strategy | None = None, seed: int = 0, state: Any = None, chosen: np.ndarray | None = None
    ) -> tuple[Any, list[dict[str, float]]]:
        """(state, means over the steps) after that many passes, or after passes over `chosen`."""
        run = jax.jit(build_epoch(self.model, self.config, strategy or self.strategy))
        state, found = self.state(seed) if state is None else state, []
        for epoch in range(epochs):
            rows = Examples.of(self.config, self.graph).order(seed, epoch) if chosen is None else chosen
            state, sums = run(state, self.graph, self.features, self.hyper, rows, jax.random.key(seed))
            found.append({name: float(value) / len(rows) for name, value in sums.items()})
        return state, found


def made(
    *overrides: str, train: np.ndarray | None = None, features: Features | None = None, n_relations: int = RELATIONS
) -> Made:
    config = kge(*overrides)
    train = triples() if train is None else train
    features = no_features() if features is None else features
    n = len(features.seen)
    return Made(
        config, graph_model(config, n, n_relations, features), train_graph(train, n, n_relations, config), features, train
    )


def assert_close(a: Any, b: Any, rtol: float = 2e-4, atol: float = 2e-5) -> None:
    """Two trees of arrays, leaf by leaf."""
    ours, theirs = jax.tree_util.tree_leaves_with_path(a), jax.tree.leaves(b)
    for (path, left), right in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(left, right, rtol=rtol, atol=atol, err_msg=jax.tree_util.keystr(path))
