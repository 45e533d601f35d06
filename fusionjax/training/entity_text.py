"""Vectors of the entities' texts for `model.entity.text`: encoded once by a pretrained encoder, and kept in the cache."""

import dataclasses
import hashlib
import io
from collections.abc import Callable

import numpy as np

from fusionjax import hub
from fusionjax.config import schema
from fusionjax.data.entities import entity_words
from fusionjax.data.inputs import Inputs
from fusionjax.data.prepare import cache_root
from fusionjax.errors import UserError
from fusionjax.files import write_whole
from fusionjax.text_encoder import TextEncoder


def with_entity_text(inputs: Inputs, config: schema.Run, say: Callable[[str], None]) -> Inputs:
    """The inputs with `entity_text`, where `model.entity.text.use` asks for it.

    Raises:
      UserError: no entity has a text; the checkpoint cannot be read.
    """
    text = config.model.entity.text
    if text.use == "none" or inputs.entity_text is not None:
        return inputs
    assert text.checkpoint is not None
    texts = entity_words(inputs.shop, inputs.graph)[1]
    if texts is None:
        raise UserError(f"model.entity.text.use: {text.use}: the data set has no text about its entities")
    folder = hub.locate(text.checkpoint)
    digest = hashlib.sha256(f"{hub.fingerprint(folder)}\n".encode())
    for each in texts:
        digest.update(each.encode() + b"\x1f")
    file = cache_root(config.data) / "text-vectors" / f"{digest.hexdigest()[:24]}.npy"
    if file.exists():
        return dataclasses.replace(inputs, entity_text=np.load(file, allow_pickle=False))
    say(f"encoding the texts of {len(texts):,} entities")
    vectors = _unit_vectors(TextEncoder.from_pretrained(folder), texts)
    held = io.BytesIO()
    np.save(held, vectors, allow_pickle=False)
    write_whole(file, held.getvalue())
    return dataclasses.replace(inputs, entity_text=vectors)


def _unit_vectors(encoder: TextEncoder, texts: list[str]) -> np.ndarray:
    """float32 [n, q]; of no text a zero vector."""
    vectors = encoder.encode(texts)
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors = (vectors / np.maximum(length, 1e-12)).astype(np.float32)
    vectors[[not each for each in texts]] = 0.0
    return vectors
