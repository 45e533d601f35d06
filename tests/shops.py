"""A shop and a run small enough to train inside a test: 80 products, towers 16 wide, every objective on."""

import dataclasses
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from fusionjax.config import config_digest, load_run, schema
from fusionjax.data.inputs import Inputs, build_inputs
from fusionjax.data.prepare import prepare
from fusionjax.models.joint import JointModel
from fusionjax.objectives.link_prediction.objective import LinkPrediction
from fusionjax.objectives.link_prediction.strategies import Strategy, strategy_of
from fusionjax.objectives.towers import Catalogue, catalogue
from fusionjax.runs import RunFolder
from fusionjax.tasks.evaluator import Validation
from fusionjax.training.journal import OnValidation, Trained
from fusionjax.training.loop import train
from fusionjax.training.optimiser import Optimiser, optimiser_of
from fusionjax.training.state import TrainState, create, layout
from fusionjax.training.steps import Step, build_step, numbers_of
from fusionjax.training.trackers import Trackers

TINY = (
    "data.demo_shop={products: 80, users: 60, queries: 40}",
    "text={fields: [title], vocab_size: 300, max_length: 12, layers: 1, width: 16, heads: 2, feed_forward: 32, live: 16}",
    "text.refresh_every=3",
    "model={dim: 16, entity: {dim: 16}, user: {history: 8, layers: 1, heads: 2}}",
    "objectives.link_prediction={batch_size: 16, negatives: {number: 8}}",
    "objectives.alignment={batch_size: 16}",
    "objectives.query_product={batch_size: 16}",
    "objectives.next_product={batch_size: 16}",
    "train={steps: 6, log_every: 1, validate_every: 3, checkpoint_every: 2}",
    "evaluation={batch_size: 64, baselines: false}",
)
ON = ("link_prediction", "alignment", "query_product", "next_product")
"""The objectives of a tiny run."""
MASKED = "objectives.masked_words={weight: 1, batch_size: 16}"
"""Override that adds another."""
ONLY_GRAPH = (
    "model.product.sources=[entity]",
    "objectives.alignment.weight=0",
    "objectives.query_product.weight=0",
    "objectives.next_product.weight=0",
)
"""Overrides that leave link prediction alone: compiles in a second."""
ONLY_USERS = (
    "model.product.sources=[entity]",
    "objectives.alignment.weight=0",
    "objectives.query_product.weight=0",
    "objectives.link_prediction.weight=0",
)
CALM = ("text.dropout=0", "model.user.dropout=0", "model.product.source_dropout=0")
"""Overrides without dropout, whose draws hide small differences."""


def tiny_run(*overrides: str) -> schema.Run:
    return load_run(None, [*TINY, *overrides])


_CACHE: dict[str, Inputs] = {}


def tiny_inputs(config: schema.Run) -> Inputs:
    """The inputs of a tiny run, built once."""
    digest = config_digest(config)
    if digest not in _CACHE:
        _CACHE[digest] = _build(config)
    return _CACHE[digest]


def _build(config: schema.Run) -> Inputs:
    shop = prepare(config.data, log=lambda _: None).shop
    with tempfile.TemporaryDirectory() as folder:
        return build_inputs(shop, config, Path(folder), log=lambda _: None)


def model_of(config: schema.Run, inputs: Inputs) -> JointModel:
    return JointModel(layout(config, inputs))


def run_optimiser(config: schema.Run, model: JointModel, steps: int = 100) -> Optimiser:
    """The optimiser of a run of so many steps."""
    encoder = model.layout.encoder
    return optimiser_of(config, encoder.layers if encoder is not None else 0, steps)


def fresh_state(config: schema.Run, inputs: Inputs, steps: int = 100) -> TrainState:
    """Parameters, optimiser state and a bank of noise, so that towers see something before the first refresh."""
    model = model_of(config, inputs)
    state = create(model, run_optimiser(config, model, steps), config.train.average is not None, config.seed)
    noise = np.random.Generator(np.random.Philox(1)).normal(size=state.bank.shape)
    return dataclasses.replace(state, bank=jnp.asarray(noise, jnp.float32))


def constants_of(config: schema.Run, inputs: Inputs) -> Catalogue:
    """What the steps of a run read, its training graph too."""
    links = config.objectives.link_prediction.weight > 0
    return catalogue(inputs, LinkPrediction(inputs, config).graph if links else None)


def strategy_for(config: schema.Run, inputs: Inputs) -> Strategy | None:
    """How link prediction computes a batch of the run; None: it is no objective of it."""
    entities, constants = model_of(config, inputs).layout.entities, constants_of(config, inputs)
    if entities is None or constants.graph is None:
        return None
    return strategy_of(entities, config.objectives.link_prediction, constants.graph, config.train.optimiser.rows)


def numbers_for(config: schema.Run) -> dict[str, Any]:
    """The numbers a compiled step takes as arguments."""
    rate = config.train.optimiser.learning_rate
    rates = {group: getattr(rate, group) for group in ("encoder", "tables", "heads")}
    return {name: _floats(value) for name, value in numbers_of(config, rates).items()}


def _floats(value: Any) -> Any:
    return {name: np.float32(each) for name, each in value.items()} if isinstance(value, dict) else np.float32(value)


def step_of(config: schema.Run, inputs: Inputs, epoch: int = 1) -> Step:
    """The compiled step of a run of 100 steps on one device."""
    model = model_of(config, inputs)
    return build_step(model, run_optimiser(config, model), config, strategy_for(config, inputs), epoch)


def train_alone(
    config: schema.Run,
    folder: Path,
    say: Callable[[str], None] = lambda _: None,
    trackers: Trackers | None = None,
    on_validation: OnValidation | None = None,
) -> Trained:
    """One run, trained into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    tracked = [] if trackers is None else [trackers]
    (done,) = train([config], [tiny_inputs(config)], [RunFolder(folder)], Validation, say, tracked, on_validation)
    assert isinstance(done, Trained)
    return done
