"""How each family writes its config and names its tensors. Adding one is one `Family` and one line in `FAMILIES`.

Tensors are given as templates: ours (a path in the parameter tree) and theirs, `{}` being the layer's number. Linear weights
are [out, in] there and [in, out] here, and turned on the way.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from fusionjax.errors import UserError, nearest
from fusionjax.models.bert import BertConfig
from fusionjax.models.encoder import EncoderConfig
from fusionjax.models.layers import ACTIVATIONS
from fusionjax.models.modernbert import ModernBertConfig

Path = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Family:
    prefix: str
    """Before every tensor name of the encoder where a head stands beside it."""
    architecture: str
    """Class prefix in `architectures`: BertModel, BertForMaskedLM."""
    read: Callable[[Mapping[str, Any]], EncoderConfig]
    embeddings: Mapping[str, str]
    layer: Mapping[str, str]
    end: Mapping[str, str]
    head: Mapping[str, str]
    """The masked-words head; its names carry no prefix."""
    decoder: str
    """The head's product with the vocabulary: a copy of the word embeddings where it is stored at all."""


def _linear(ours: str, theirs: str) -> dict[str, str]:
    return {f"{ours}/dense/kernel": f"{theirs}.weight", f"{ours}/dense/bias": f"{theirs}.bias"}


def _norm(ours: str, theirs: str) -> dict[str, str]:
    return {f"{ours}/scale": f"{theirs}.weight", f"{ours}/bias": f"{theirs}.bias"}


def _bert_embeddings(*kinds: str) -> dict[str, str]:
    names = {f"embeddings/{kind}/embedding": f"embeddings.{kind}.weight" for kind in kinds}
    return {**names, **_norm("embeddings/layer_norm", "embeddings.LayerNorm")}


_BERT_LAYER = {
    **_linear("query", "encoder.layer.{}.attention.self.query"),
    **_linear("key", "encoder.layer.{}.attention.self.key"),
    **_linear("value", "encoder.layer.{}.attention.self.value"),
    **_linear("attention_output", "encoder.layer.{}.attention.output.dense"),
    **_norm("attention_norm", "encoder.layer.{}.attention.output.LayerNorm"),
    **_linear("intermediate", "encoder.layer.{}.intermediate.dense"),
    **_linear("output", "encoder.layer.{}.output.dense"),
    **_norm("output_norm", "encoder.layer.{}.output.LayerNorm"),
}
_DISTILBERT_LAYER = {
    **_linear("query", "transformer.layer.{}.attention.q_lin"),
    **_linear("key", "transformer.layer.{}.attention.k_lin"),
    **_linear("value", "transformer.layer.{}.attention.v_lin"),
    **_linear("attention_output", "transformer.layer.{}.attention.out_lin"),
    **_norm("attention_norm", "transformer.layer.{}.sa_layer_norm"),
    **_linear("intermediate", "transformer.layer.{}.ffn.lin1"),
    **_linear("output", "transformer.layer.{}.ffn.lin2"),
    **_norm("output_norm", "transformer.layer.{}.output_layer_norm"),
}
_MODERNBERT_LAYER = {
    **_norm("attention_norm", "layers.{}.attn_norm"),
    **_linear("qkv", "layers.{}.attn.Wqkv"),
    **_linear("attention_output", "layers.{}.attn.Wo"),
    **_norm("output_norm", "layers.{}.mlp_norm"),
    **_linear("intermediate", "layers.{}.mlp.Wi"),
    **_linear("output", "layers.{}.mlp.Wo"),
}


def _bert(c: Mapping[str, Any], *, offset: int = 0, types: int = 2, eps: float = 1e-12) -> BertConfig:
    if c.get("position_embedding_type", "absolute") != "absolute":
        raise UserError(f"config.json: position_embedding_type '{c['position_embedding_type']}' is not built: only absolute")
    if c.get("is_decoder"):
        raise UserError("config.json: is_decoder: a decoder reads only to the left; this is an encoder")
    return BertConfig(
        vocab_size=c["vocab_size"],
        width=c.get("hidden_size", 768),
        layers=c.get("num_hidden_layers", 12),
        heads=c.get("num_attention_heads", 12),
        feed_forward=c.get("intermediate_size", 3072),
        max_positions=c.get("max_position_embeddings", 512),
        token_types=c.get("type_vocab_size", types),
        dropout=c.get("hidden_dropout_prob", 0.1),
        layer_norm_eps=c.get("layer_norm_eps", eps),
        initializer_range=c.get("initializer_range", 0.02),
        position_offset=offset,
        activation=_activation(c.get("hidden_act", "gelu")),
    )


def _roberta(c: Mapping[str, Any]) -> BertConfig:
    pad = c.get("pad_token_id", 1)
    return dataclasses.replace(_bert(c, offset=(1 if pad is None else pad) + 1), head_activation="gelu")


def _distilbert(c: Mapping[str, Any]) -> BertConfig:
    return BertConfig(
        vocab_size=c["vocab_size"],
        width=c.get("dim", 768),
        layers=c.get("n_layers", 6),
        heads=c.get("n_heads", 12),
        feed_forward=c.get("hidden_dim", 3072),
        max_positions=c.get("max_position_embeddings", 512),
        token_types=0,
        dropout=c.get("dropout", 0.1),
        initializer_range=c.get("initializer_range", 0.02),
        activation=_activation(c.get("activation", "gelu")),
    )


def _modernbert(c: Mapping[str, Any]) -> ModernBertConfig:
    layers, every = c.get("num_hidden_layers", 22), c.get("global_attn_every_n_layers", 3)
    kinds = c.get("layer_types") or ["sliding_attention" if number % every else "full_attention" for number in range(layers)]
    rope = c.get("rope_parameters") or {}
    for name, settings in rope.items():
        if (settings or {}).get("rope_type", "default") != "default":
            raise UserError(f"config.json: rope_parameters.{name}: type '{settings['rope_type']}' is not built: only default")
    return ModernBertConfig(
        vocab_size=c["vocab_size"],
        width=c.get("hidden_size", 768),
        layers=layers,
        heads=c.get("num_attention_heads", 12),
        feed_forward=c.get("intermediate_size", 1152),
        local=tuple(kind == "sliding_attention" for kind in kinds),
        window=c.get("local_attention", 128) // 2,
        max_positions=c.get("max_position_embeddings", 8192),
        theta=(rope.get("full_attention") or {}).get("rope_theta", c.get("global_rope_theta", 160_000.0)),
        local_theta=(rope.get("sliding_attention") or {}).get("rope_theta", c.get("local_rope_theta") or 10_000.0),
        dropout=c.get("mlp_dropout", 0.0),
        layer_norm_eps=c.get("norm_eps", 1e-5),
        norm_bias=c.get("norm_bias", False),
        attention_bias=c.get("attention_bias", False),
        mlp_bias=c.get("mlp_bias", False),
        head_bias=c.get("classifier_bias", False),
        decoder_bias=c.get("decoder_bias", True),
        activation=_activation(c.get("hidden_activation", "gelu")),
        head_activation=_activation(c.get("classifier_activation", "gelu")),
        initializer_range=c.get("initializer_range", 0.02),
    )


def _activation(name: str) -> str:
    if name not in ACTIVATIONS:
        raise UserError(f"config.json: activation '{name}' is not built{nearest(name, ACTIVATIONS)}")
    return name


_BERT_HEAD = {
    **_linear("transform", "cls.predictions.transform.dense"),
    **_norm("norm", "cls.predictions.transform.LayerNorm"),
    "bias": "cls.predictions.bias",
}
_ROBERTA_HEAD = {**_linear("transform", "lm_head.dense"), **_norm("norm", "lm_head.layer_norm"), "bias": "lm_head.bias"}
_DISTILBERT_HEAD = {
    **_linear("transform", "vocab_transform"),
    **_norm("norm", "vocab_layer_norm"),
    "bias": "vocab_projector.bias",
}
_MODERNBERT_HEAD = {**_linear("transform", "head.dense"), **_norm("norm", "head.norm"), "bias": "decoder.bias"}
_THREE = ("word_embeddings", "position_embeddings", "token_type_embeddings")

FAMILIES = {
    "bert": Family("bert.", "Bert", _bert, _bert_embeddings(*_THREE), _BERT_LAYER, {}, _BERT_HEAD, "cls.predictions.decoder"),
    "roberta": Family(
        "roberta.", "Roberta", _roberta, _bert_embeddings(*_THREE), _BERT_LAYER, {}, _ROBERTA_HEAD, "lm_head.decoder"
    ),
    "xlm-roberta": Family(
        "roberta.", "XLMRoberta", _roberta, _bert_embeddings(*_THREE), _BERT_LAYER, {}, _ROBERTA_HEAD, "lm_head.decoder"
    ),
    "distilbert": Family(
        "distilbert.",
        "DistilBert",
        _distilbert,
        _bert_embeddings(*_THREE[:2]),
        _DISTILBERT_LAYER,
        {},
        _DISTILBERT_HEAD,
        "vocab_projector",
    ),
    "modernbert": Family(
        "model.",
        "ModernBert",
        _modernbert,
        {
            "word_embeddings/embedding": "embeddings.tok_embeddings.weight",
            **_norm("embedding_norm", "embeddings.norm"),
        },
        _MODERNBERT_LAYER,
        _norm("final_norm", "final_norm"),
        _MODERNBERT_HEAD,
        "decoder",
    ),
}
"""`model_type` of config.json → family."""


def family_of(config: Mapping[str, Any], where: str) -> Family:
    """Raises `UserError` with the nearest name if the family is not built."""
    name = str(config.get("model_type"))
    if name not in FAMILIES:
        raise UserError(f"{where}: model_type '{name}' is not built{nearest(name, FAMILIES)}; built: {', '.join(FAMILIES)}")
    return FAMILIES[name]


def encoder_names(family: Family, layers: int) -> Iterator[tuple[Path, str]]:
    """(path in the encoder's tree, tensor name without prefix) of everything the family may have."""
    for ours, theirs in {**family.embeddings, **family.end}.items():
        yield tuple(ours.split("/")), theirs
    for number in range(layers):
        for ours, theirs in family.layer.items():
            yield (f"layer_{number}", *ours.split("/")), theirs.format(number)


def head_names(family: Family) -> Iterator[tuple[Path, str]]:
    for ours, theirs in family.head.items():
        yield tuple(ours.split("/")), theirs


def turned(path: Path) -> bool:
    """Whether a tensor is transposed on the way."""
    return path[-1] == "kernel"


def bert_json(config: BertConfig) -> dict[str, Any]:
    """config.json of an encoder that was trained here from scratch."""
    return {
        "model_type": "bert",
        "vocab_size": config.vocab_size,
        "hidden_size": config.width,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "intermediate_size": config.feed_forward,
        "max_position_embeddings": config.max_positions,
        "type_vocab_size": config.token_types,
        "hidden_dropout_prob": config.dropout,
        "attention_probs_dropout_prob": 0.0,
        "layer_norm_eps": config.layer_norm_eps,
        "initializer_range": config.initializer_range,
        "hidden_act": config.activation,
        "pad_token_id": 0,
    }
