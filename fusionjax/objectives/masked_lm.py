"""Masked language modelling (Devlin et al. 2019): the encoder predicts hidden tokens of product texts."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from fusionjax import losses
from fusionjax.config import schema
from fusionjax.data.inputs import Inputs
from fusionjax.errors import UserError
from fusionjax.objectives.base import Entry, Objective
from fusionjax.objectives.sampling import Shuffle, generator_of, inner_tokens
from fusionjax.objectives.towers import Towers


class MaskedLM(Objective):
    """Product texts with some tokens hidden.

    A batch is `tokens`: int32 [b, l], with the hidden ones replaced; `place`: int32 [b, m], their columns; `target`:
    int32 [b, m], what stood there (−1: none, a text with fewer hidden tokens).
    """

    name = "masked_words"
    owns_text = True

    def __init__(self, inputs: Inputs, config: schema.Run) -> None:
        settings = config.objectives.masked_words
        assert inputs.product_tokens is not None and inputs.tokenizer is not None
        self.tokens, self.rows = inputs.product_tokens, np.flatnonzero(inputs.has_text)
        if not len(self.rows):
            raise UserError("objectives.masked_words: no product has a text")
        self.seed, self.share = config.seed, settings.share
        self.mask, self.vocabulary = inputs.tokenizer.mask, inputs.tokenizer.vocab_size
        self.most = max(1, round(self.share * (self.tokens.shape[1] - 2)))
        self.shuffle = Shuffle(len(self.rows), settings.batch_size, config.seed, self.name)

    def batch(self, index: int) -> Entry:
        generator = generator_of(self.seed, "masks", index)
        tokens = self.tokens[self.rows[self.shuffle.rows(index)]].copy()
        inner = inner_tokens(tokens)
        asked = np.minimum(np.maximum(np.rint(self.share * inner.sum(1)), 1), inner.sum(1)).astype(int)
        place = np.argsort(np.where(inner, generator.random(tokens.shape), 2.0), axis=1)[:, : self.most]
        valid = np.arange(self.most) < asked[:, None]
        target = np.where(valid, np.take_along_axis(tokens, place, axis=1), -1)
        draw = generator.random(target.shape)
        other = generator.integers(0, self.vocabulary, draw.shape)
        shown = np.where(draw < 0.8, self.mask, np.where(draw < 0.9, other, target))
        np.put_along_axis(tokens, place, np.where(valid, shown, np.take_along_axis(tokens, place, axis=1)), axis=1)
        return {"tokens": tokens, "place": place.astype(np.int32), "target": target.astype(np.int32)}

    @staticmethod
    def loss(towers: Towers, batch: dict[str, Array]) -> Float[Array, ""]:
        """Cross-entropy of the hidden tokens over the vocabulary."""
        hidden = towers.apply("hidden", batch["tokens"], dropout=True)
        asked = jnp.take_along_axis(hidden, batch["place"][:, :, None], axis=1)
        return losses.masked_words(towers.apply("word_logits", asked), batch["target"])
