"""What a training step carries: parameters, optimiser, text bank, step number. All else is a function of config and data."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

from fusionjax.config import schema
from fusionjax.data.inputs import Inputs, entities_needed
from fusionjax.models.bert import BertConfig
from fusionjax.models.encoder import EncoderConfig
from fusionjax.models.joint import JointModel, Layout
from fusionjax.models.layers import Lora

Params = Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    step: jax.Array
    """int32 []: steps done."""
    params: Params
    opt_state: optax.OptState
    bank: jax.Array
    """float32 [n_products, d]: every product's pooled text vector as last encoded; [1, 1] where no tower reads it."""


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
        n_entities=len(inputs.graph.entities),
        n_relations=len(inputs.graph.relations) if objectives.link_prediction.weight > 0 else 0,
        encoder=encoder,
        pooling=pooling,
        max_length=text.max_length,
        entity_dim=model.entity.dim if entities_needed(config) else 0,
        scorer=model.entity.scorer,
        norm=model.entity.norm,
        margin=model.entity.margin,
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
    )


def create(model: JointModel, optimiser: optax.GradientTransformation, seed: int) -> TrainState:
    """A fresh state; the bank is zeros until `refresh` encodes it."""
    params = model.init(jax.random.key(seed))["params"]
    bank = jnp.zeros(bank_shape(model), jnp.float32)
    return TrainState(step=jnp.zeros((), jnp.int32), params=params, opt_state=optimiser.init(params), bank=bank)


def bank_shape(model: JointModel) -> tuple[int, int]:
    """(n_products, d); (1, 1) where no tower reads products' text (Orbax saves no empty array)."""
    at = model.layout
    if not at.uses_bank or at.encoder is None:
        return 1, 1
    return at.n_products, at.encoder.width * len(at.pooling.split("+"))


def best_shapes(model: JointModel) -> tuple[Params, tuple[int, int]]:
    """What a best checkpoint of this model holds: shapes of the parameters and of the bank (`Checkpoints.load_best`)."""
    return jax.eval_shape(lambda: model.init(jax.random.key(0))["params"]), bank_shape(model)
