"""What a training step carries: parameters, optimiser, text bank, step number. All else is a function of config and data."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from fusionjax.config import schema
from fusionjax.data.inputs import Inputs, entities_needed
from fusionjax.errors import UserError
from fusionjax.models.bert import BertConfig
from fusionjax.models.encoder import EncoderConfig
from fusionjax.models.entities import GRAPH, EntityModel
from fusionjax.models.joint import JointModel, Layout
from fusionjax.models.layers import Lora
from fusionjax.models.scorers import Dropout, Init, Sizes, make_scorer
from fusionjax.training.optimiser import Optimiser

Params = Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    step: jax.Array
    """int32 []: steps done."""
    params: Params
    opt_state: Any
    bank: jax.Array
    """float32 [n_products, d]: every product's pooled text vector as last encoded; [1, 1] where no tower reads it."""
    average: Params = None
    """Moving average of the parameters (`train.average`), which is validated and kept in their place; None: there is none."""


def layout(config: schema.Run, inputs: Inputs) -> Layout:
    """Sizes and switches of the joint model for this run's data."""
    text, model, objectives = config.text, config.model, config.objectives
    user = objectives.next_product.weight > 0
    encoder: EncoderConfig | None = None
    pooling = text.pooling
    if inputs.pretrained is not None:
        encoder = dataclasses.replace(inputs.pretrained.config, dropout=text.dropout)
        pooling = inputs.pretrained.sentence.pooling
    elif inputs.tokenizer is not None:
        encoder = BertConfig(
            vocab_size=inputs.tokenizer.vocab_size,
            width=text.width,
            layers=text.layers,
            heads=text.heads,
            feed_forward=text.feed_forward,
            max_positions=max(text.max_length, 64),
            dropout=text.dropout,
        )
    if encoder is not None:
        lora = Lora(text.lora.rank, text.lora.alpha, text.lora.targets) if text.tune == "lora" else None
        encoder = dataclasses.replace(encoder, remat=text.remat, lora=lora)
    dim = model.dim
    if model.heads == "none" and encoder is not None:
        dim = encoder.width * len(pooling.split("+"))
    return Layout(
        dim=dim,
        sources=tuple(sorted(model.product.sources)),
        n_products=inputs.n_products,
        entities=entity_model(config, inputs) if entities_needed(config) else None,
        encoder=encoder,
        pooling=pooling,
        max_length=text.max_length,
        align=objectives.alignment.weight > 0,
        query=objectives.query_product.weight > 0,
        user=user,
        history=model.user.history,
        user_layers=model.user.layers,
        user_heads=model.user.heads,
        user_dropout=model.user.dropout,
        n_kinds=len(inputs.shop.events.kinds) if user and model.user.kind else 0,
        profile_sizes=tuple(len(values) for _, values in inputs.profile_values) if user and model.user.profile else (),
        recency=model.user.recency,
        temperature=objectives.temperature,
        bfloat16=config.train.precision == "bfloat16",
        heads=model.heads == "learned",
        siglip=objectives.query_product.weight > 0 and objectives.query_product.loss == "siglip",
        masked_words=objectives.masked_words.weight > 0,
        reads_products=any(each.reads_products for each in objectives.used().values()),
    )


def entity_model(config: schema.Run, inputs: Inputs) -> EntityModel:
    """Entities and relations of this run's graph.

    Raises:
      UserError: sizes that do not fit the scorer.
    """
    entity, links = config.model.entity, config.objectives.link_prediction
    n_relations = len(inputs.graph.relations) if links.weight > 0 else 0
    sizes = Sizes(
        dim=entity.dim,
        relation_dim=entity.relation_dim,
        norm=entity.norm,
        margin=entity.margin,
        height=entity.convolution.height,
        filters=entity.convolution.filters,
        kernel=entity.convolution.kernel,
        dropout=Dropout(entity.dropout.input, entity.dropout.feature, entity.dropout.hidden),
    )
    try:
        scorer = make_scorer(entity.scorer, sizes)
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"model.entity: {error}") from None
    try:
        schema.check_scorer(entity.scorer, scorer.facts, links)
    except ValueError as error:
        raise UserError(str(error)) from None
    return EntityModel(
        scorer=scorer,
        n_entities=len(inputs.graph.entities),
        n_relations=n_relations * (2 if links.reciprocal else 1),
        reciprocal=links.reciprocal,
        how=Init(entity.init.name, entity.init.scale),
        text=entity.text.use,
        text_width=0 if inputs.entity_text is None else inputs.entity_text.shape[1],
        hidden=entity.text.hidden,
        literal_width=inputs.literals.shape[1],
        dropout=(entity.dropout.entity, entity.dropout.relation),
    )


def init_params(model: JointModel, seed: Any) -> Params:
    """First parameters of every part; `seed` may be traced."""
    key, entities = jax.random.key(seed), model.layout.entities
    towers: Params = model.init(key).get("params", {})
    return towers if entities is None else {**towers, GRAPH: entities.init(key)}


def create(model: JointModel, optimiser: Optimiser, averaged: bool, seed: Any) -> TrainState:
    """A fresh state; the bank is zeros until `refresh` encodes it. `seed` may be traced."""
    params = init_params(model, seed)
    bank = jnp.zeros(bank_shape(model), jnp.float32)
    average = jax.tree.map(jnp.copy, params) if averaged else None
    return TrainState(jnp.zeros((), jnp.int32), params, optimiser.init(params), bank, average)


def bank_shape(model: JointModel) -> tuple[int, int]:
    """(n_products, d); (1, 1) where no tower reads products' text (Orbax saves no empty array)."""
    at = model.layout
    if not at.uses_bank or at.encoder is None:
        return 1, 1
    return at.n_products, at.encoder.width * len(at.pooling.split("+"))


def best_shapes(model: JointModel) -> tuple[Params, tuple[int, int]]:
    """What a best checkpoint of this model holds: shapes of the parameters and of the bank (`Checkpoints.load_best`)."""
    return jax.eval_shape(lambda: init_params(model, 0)), bank_shape(model)
