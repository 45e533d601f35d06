"""A trained run's encoder as a checkpoint folder that transformers, sentence-transformers and `TextEncoder` load."""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tokenizers

from fusionjax.data.text import SPECIAL
from fusionjax.errors import UserError
from fusionjax.hub import Checkpoint, write_checkpoint
from fusionjax.hub.families import bert_json
from fusionjax.hub.sentence import Settings
from fusionjax.models.bert import BertConfig
from fusionjax.models.layers import Lora
from fusionjax.serving.model import Model


def export(model: Model, folder: Path) -> Checkpoint:
    """Writes the encoder of a run, adapters merged into the layers they stand beside, and the masked-words head if it has one.

    Vectors of the folder are the run's text vectors: with `model.heads: none` those of its products and queries, unit length;
    with learned heads what goes into these, which no folder of this kind can hold.

    Raises:
      UserError: the run has no text encoder; the folder holds something else.
    """
    at, text = model.layout, model.config.text
    if at.encoder is None or model.tokenizer is None:
        raise UserError("this run has no text encoder: nothing to export")
    if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not (folder / "modules.json").exists())):
        raise UserError(f"{folder} exists and is not a checkpoint folder; name another")
    params = jax.tree.map(np.asarray, model.encoder.params)
    given = model.pretrained
    if given is not None:
        raw, others, files, prompts = given.raw, given.others, given.tokenizer_files, dict(given.sentence.prompts)
        tokenizer = model.tokenizer.inner
    else:
        assert isinstance(at.encoder, BertConfig)  # what is trained from scratch
        raw, others, prompts = bert_json(at.encoder), {}, {}
        tokenizer, files = for_others(model.tokenizer.inner, text.max_length)
    for name, prompt in (("query", text.query_prompt), ("document", text.product_prompt)):
        if prompt:
            prompts[name] = prompt
    checkpoint = Checkpoint(
        raw=raw,
        config=at.encoder,
        params=merged(params["encoder"], at.encoder.lora),
        head=params.get("masked_words"),
        tokenizer=tokenizer,
        sentence=Settings(at.pooling, normalise=not at.heads, max_length=text.max_length, prompts=prompts),
        others=others,
        tokenizer_files=files,
    )
    write_checkpoint(folder, checkpoint)
    return checkpoint


def for_others(inner: tokenizers.Tokenizer, max_length: int) -> tuple[tokenizers.Tokenizer, dict[str, bytes]]:
    """A tokeniser learnt here as other libraries want it: special tokens are read in texts too; and the file naming them."""
    tokenizer = tokenizers.Tokenizer.from_str(inner.to_str())
    tokenizer.add_special_tokens([tokenizers.AddedToken(name, special=True) for name in SPECIAL])
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), SPECIAL, strict=True))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": max_length, **names}
    return tokenizer, {"tokenizer_config.json": json.dumps(config, indent=2).encode()}


def merged(params: dict[str, Any], lora: Lora | None) -> dict[str, Any]:
    """Encoder parameters with each adapter added to its kernel: W + (alpha / rank) A B."""
    if lora is None:
        return params
    out: dict[str, Any] = {}
    for name, value in params.items():
        if not isinstance(value, dict):
            out[name] = value
        elif "lora_a" in value:
            dense = dict(value["dense"])
            dense["kernel"] = dense["kernel"] + (lora.alpha / lora.rank) * (value["lora_a"] @ value["lora_b"])
            out[name] = {"dense": dense}
        else:
            out[name] = merged(value, lora)
    return out
