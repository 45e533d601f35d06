"""A shop and a run small enough to train inside a test: 80 products, towers 16 wide, every objective on."""

import dataclasses
import tempfile
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from fusionjax.config import config_digest, load_run, schema
from fusionjax.data.inputs import Inputs, build_inputs
from fusionjax.data.prepare import prepare
from fusionjax.training.loop import build_model
from fusionjax.training.optimiser import build_optimiser
from fusionjax.training.state import TrainState, create

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


def fresh_state(config: schema.Run, inputs: Inputs, steps: int = 100) -> TrainState:
    """Parameters, optimiser state and a bank of noise, so that towers see something before the first refresh."""
    state = create(build_model(config, inputs), build_optimiser(config.train.optimiser, steps), config.seed)
    noise = np.random.Generator(np.random.Philox(1)).normal(size=state.bank.shape)
    return dataclasses.replace(state, bank=jnp.asarray(noise, jnp.float32))
