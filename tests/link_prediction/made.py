"""A small graph with structure in it, and configs, inputs, models and epochs of runs on it alone."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fusionjax.config import load_run, schema
from fusionjax.data.graph import Graph
from fusionjax.data.inputs import Inputs, Real
from fusionjax.data.shop import TRAIN, VALID, Shop, text_column
from fusionjax.models.entities import GRAPH, EntityModel, Features
from fusionjax.models.joint import JointModel
from fusionjax.objectives.link_prediction.examples import Examples
from fusionjax.objectives.link_prediction.graph import TrainGraph, train_graph
from fusionjax.objectives.link_prediction.loss import hyper_of
from fusionjax.objectives.link_prediction.strategies import Strategy, strategy_of
from fusionjax.training.epochs import build_epoch
from fusionjax.training.optimiser import Optimiser, optimiser_of
from fusionjax.training.state import TrainState, create, entity_model, layout

ENTITIES, RELATIONS = 21, 4
SCORERS = ("transe", "distmult", "complex", "simple", "rotate", "rotate_l2", "rescal", "tucker", "conve", "quate", "pairre")
ALONE = (
    "model.product.sources=[entity]",
    *(f"objectives.{name}.weight=0" for name in ("alignment", "query_product", "next_product")),
)
"""Overrides of a run on a graph alone."""
SMALL = (
    *("dim=8", "batch_size=16", "convolution={filters: 2, kernel: 2}", "init={name: normal, scale: 0.5}", "margin=0"),
    *("training=one_vs_all", "reciprocal=true", "negatives={number: 64, shared: 0}"),
    *("epochs=100", "validate_every_epochs=5"),
    "optimiser={name: adagrad_torch, learning_rate: {tables: 0.1}, rows: auto}",
    "optimiser={schedule: constant, warmup_share: 0, clip_norm: 0}",
)
LOSSES = ("softmax", "bce", "margin", "self_adversarial")
_SECTIONS = {
    "model.entity": schema.Entity.model_fields,
    "objectives.link_prediction": schema.LinkPrediction.model_fields,
    "train": schema.Train.model_fields,
}


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.Generator(np.random.Philox(seed)).normal(size=shape).astype(np.float32)


def triples() -> np.ndarray:
    """int32 [63, 3]: a circle, its inverse, one of four groups for each, and the double. No multiple of any batch here."""
    e = np.arange(ENTITIES)
    parts = [(e, 0, (e + 1) % ENTITIES), ((e + 1) % ENTITIES, 1, e), (e[4:], 2, e[4:] % 4), (e[:4], 3, 2 * e[:4])]
    rows = [np.stack([head, np.full_like(head, relation), tail], 1) for head, relation, tail in parts]
    return np.concatenate(rows).astype(np.int32)


def whole_key(override: str) -> str:
    """An override whose key may leave out `model.entity.`, `objectives.link_prediction.` or `train.`; else it has a slash."""
    if override.startswith("/"):
        return override[1:]
    first = override.partition("=")[0].partition(".")[0]
    (section,) = [name for name, fields in _SECTIONS.items() if first in fields]
    return f"{section}.{override}"


def run_of(*overrides: str) -> schema.Run:
    """The config of a run on a graph alone; overrides as `whole_key` takes them."""
    return load_run(None, [*ALONE, *map(whole_key, (*SMALL, *overrides))])


def links_of(*overrides: str) -> schema.LinkPrediction:
    return run_of(*overrides).objectives.link_prediction


def no_features(n: int = ENTITIES) -> Features:
    return Features(jnp.zeros((n, 0)), jnp.zeros((n, 0)), jnp.ones(n))


def inputs_of(
    train: np.ndarray, valid: np.ndarray | None = None, features: Features | None = None, n_relations: int = RELATIONS
) -> Inputs:
    """What a run reads of a graph alone, with these training and validation triples."""
    features = no_features() if features is None else features
    n = len(features.seen)
    rows = np.concatenate([train, train[:0] if valid is None else valid]).astype(np.int32)
    graph = Graph(
        entities=text_column(f"e{number}" for number in range(n)),
        relations=tuple(f"r{number}" for number in range(n_relations)),
        n_products=0,
        head=rows[:, 0],
        relation=rows[:, 1],
        tail=rows[:, 2],
        split=np.where(np.arange(len(rows)) < len(train), TRAIN, VALID).astype(np.int8),
    )
    nobody, counts = np.zeros(0, bool), np.zeros(0, np.int64)
    return Inputs(
        shop=Shop("made"),
        real=Real(graph, None, counts),
        graph=graph,
        written=train[:0],
        tokenizer=None,
        product_tokens=None,
        query_tokens=None,
        has_text=nobody,
        has_entity=nobody,
        train_counts=counts,
        sequences=None,
        profile=np.zeros((0, 0), np.int32),
        profile_values=(),
        positives=np.zeros((0, 2), np.int64),
        seen=np.asarray(features.seen) > 0,
        literals=np.asarray(features.literals),
        false_triples={},
        entity_text=np.asarray(features.text) if features.text.shape[1] else None,
    )


@dataclasses.dataclass(frozen=True)
class Made:
    """What an epoch over the graph needs."""

    config: schema.Run
    inputs: Inputs
    model: EntityModel
    graph: TrainGraph
    features: Features

    @property
    def links(self) -> schema.LinkPrediction:
        return self.config.objectives.link_prediction

    @functools.cached_property
    def hyper(self) -> dict[str, jax.Array]:
        return {name: jnp.float32(value) for name, value in hyper_of(self.links, self.config.model.entity).items()}

    @property
    def numbers(self) -> dict[str, Any]:
        """What a compiled epoch takes of the config."""
        return {"rates": jax.tree.map(jnp.float32, self.optimiser.base_rates()), **self.hyper}

    @property
    def strategy(self) -> Strategy:
        return strategy_of(self.model, self.links, self.graph, self.config.train.optimiser.rows)

    @property
    def optimiser(self) -> Optimiser:
        return optimiser_of(self.config, 0, 100)

    @property
    def joint(self) -> JointModel:
        return JointModel(layout(self.config, self.inputs))

    def state(self, seed: int = 0) -> TrainState:
        return create(self.joint, self.optimiser, False, seed)  # not compiled: its operations are, and shared by all

    def params(self, seed: int = 0) -> dict[str, Any]:
        """Of entities and relations, as training starts."""
        return self.state(seed).params[GRAPH]

    def epochs(
        self,
        times: int = 1,
        strategy: Strategy | None = None,
        seed: int = 0,
        state: Any = None,
        chosen: np.ndarray | None = None,
    ) -> tuple[TrainState, list[dict[str, float]]]:
        """(state, means over the steps) after that many epochs, or after as many turns over `chosen`."""
        run = jax.jit(build_epoch(self.model, self.links, strategy or self.strategy, self.optimiser))
        state, found = self.state(seed) if state is None else state, []
        for epoch in range(times):
            rows = Examples.of(self.links, self.graph).order(seed, epoch) if chosen is None else chosen
            state, sums = run(state, self.graph, self.features, self.numbers, rows, jax.random.key(seed))
            found.append({name: float(value) / len(rows) for name, value in sums.items()})
        return state, found


def made(
    *overrides: str, train: np.ndarray | None = None, features: Features | None = None, n_relations: int = RELATIONS
) -> Made:
    config = run_of(*overrides)
    train = triples() if train is None else train
    features = no_features() if features is None else features
    inputs = inputs_of(train, None, features, n_relations)
    links = config.objectives.link_prediction
    return Made(
        config, inputs, entity_model(config, inputs), train_graph(train, len(features.seen), n_relations, links), features
    )


def assert_close(a: Any, b: Any, rtol: float = 2e-4, atol: float = 2e-5) -> None:
    """Two trees of arrays, leaf by leaf."""
    ours, theirs = jax.tree_util.tree_leaves_with_path(a), jax.tree.leaves(b)
    for (path, left), right in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(left, right, rtol=rtol, atol=atol, err_msg=jax.tree_util.keystr(path))
