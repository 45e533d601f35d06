"""`TextEncoder`: a BERT-family checkpoint, ready to encode, fill masks, and be saved for other libraries."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fusionjax import embedding, runs
from fusionjax.embedding import Plan
from fusionjax.errors import UserError, nearest
from fusionjax.hub import Checkpoint, locate, read_checkpoint, write_checkpoint
from fusionjax.models.encoder import MaskedWords, build, words_of
from fusionjax.packing import Ragged

_BLOCK = 16_384
"""Texts tokenised at a time: the tokeniser's own objects are large."""


@dataclasses.dataclass(frozen=True)
class Word:
    """One answer of `fill_mask`."""

    word: str
    probability: float


class TextEncoder:
    """An encoder with its tokeniser and the settings sentence-transformers keeps beside it.

    `checkpoint` holds everything; its arrays are on the host. Vectors are float32 whatever `dtype` the layers compute in
    (softmax and norms always float32).
    """

    def __init__(self, checkpoint: Checkpoint, dtype: Any = jnp.float32) -> None:
        runs.keep_compiled_programs()
        self.checkpoint, self.dtype = checkpoint, jnp.dtype(dtype)
        self.config, self.settings = checkpoint.config, checkpoint.sentence
        self.params = jax.device_put(checkpoint.params)
        self.tokenizer = checkpoint.tokenizer
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()

    @classmethod
    def from_pretrained(cls, place: str | Path, dtype: Any = jnp.float32) -> "TextEncoder":
        """Reads a folder, or a hub id (`ORG/NAME`, downloaded once), of transformers or sentence-transformers.

        Raises:
          UserError: not there, damaged, pickled, or of a kind that is not built; says what and where.
        """
        return cls(read_checkpoint(locate(place)), dtype)

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes a folder that transformers, sentence-transformers and `from_pretrained` load, with equal outputs."""
        write_checkpoint(Path(folder), self.checkpoint)

    @property
    def width(self) -> int:
        """Length of the vectors."""
        return self.config.width * len(self.settings.pooling.split("+"))

    @property
    def max_length(self) -> int:
        """Tokens a text is cut to."""
        return self.settings.max_length or self.config.max_length

    def tokens(self, texts: Sequence[str], prompt: str | None = None) -> Ragged:
        """Token numbers of texts, special tokens included, cut to `max_length`.

        Args:
          prompt: name of one of the checkpoint's prompts, put before each text; None: its default one, if it has one; "": none.

        Raises:
          UserError: no such prompt; `texts` is one string.
        """
        if isinstance(texts, str):
            raise UserError("encode takes a list of texts, not one string")
        before = self._prompt(prompt)
        if before:
            texts = [before + text for text in texts]
        self.tokenizer.enable_truncation(self.max_length)
        lists: list[list[int]] = []
        for start in range(0, len(texts), _BLOCK):
            lists += [encoding.ids for encoding in self.tokenizer.encode_batch_fast(texts[start : start + _BLOCK])]
        return Ragged.of_lists(lists)

    def encode(
        self,
        texts: Sequence[str],
        *,
        prompt: str | None = None,
        plan: Plan = "auto",
        budget: int | None = None,
        out: np.ndarray | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> np.ndarray:
        """Vectors of texts, float32 [n, d], pooled and normalised as the checkpoint says.

        A text of no characters is its special tokens; one that is too long is cut to `max_length` tokens.

        Args:
          prompt: as for `tokens`.
          plan, budget, out, progress: as for `embedding.embed`.

        Raises:
          UserError: as `tokens`.
        """
        ragged = self.tokens(texts, prompt)
        return self.embed(ragged, plan=plan, budget=budget, out=out, progress=progress)

    def embed(self, tokens: Ragged, **settings: Any) -> np.ndarray:
        """`encode` of texts that are tokens already."""
        return embedding.embed(
            tokens,
            self.params,
            self.config,
            pooling=self.settings.pooling,
            normalise=self.settings.normalise,
            dtype=self.dtype,
            **settings,
        )

    def hidden(self, texts: Sequence[str], prompt: str | None = None) -> list[np.ndarray]:
        """Last hidden state of each text, float32 [l, d], a row a token."""
        ragged = self.tokens(texts, prompt)
        found: list[np.ndarray] = []
        for _, rows in self._padded(ragged):
            states = np.asarray(_hidden(self.params, rows, config=self.config, dtype=self.dtype), np.float32)
            found += [state[: int(here)] for state, here in zip(states, (rows >= 0).sum(1), strict=True)]
        return found

    def fill_mask(self, texts: Sequence[str], k: int = 5) -> list[list[list[Word]]]:
        """For each text, for each mask token in it (`[MASK]`, `<mask>`), the k likeliest words, best first.

        Raises:
          UserError: the checkpoint has no masked-words head; a text has no mask token within `max_length`.
        """
        if self.checkpoint.head is None:
            raise UserError("this checkpoint has no masked-words head (it was saved without one); fill_mask needs it")
        mask = self.mask_token
        number, ragged = self.tokenizer.token_to_id(mask), self.tokens(texts, "")
        answers: list[list[list[Word]]] = []
        for first, rows in self._padded(ragged):
            logits = np.asarray(self.masked_logits(rows))
            for place, (row, row_logits) in enumerate(zip(rows, logits, strict=True)):
                at = np.flatnonzero(row == number)
                if not len(at):
                    raise UserError(f"text {first + place + 1} has no {mask} within {self.max_length} tokens")
                answers.append([self._likeliest(row_logits[column], k) for column in at])
        return answers

    def masked_logits(self, rows: np.ndarray) -> jax.Array:
        """Scores of every word at every place, float32 [b, l, v], of token rows int32 [b, l] (−1 = padding)."""
        return _logits(self.params, self.checkpoint.head, rows, config=self.config, dtype=self.dtype)

    @property
    def mask_token(self) -> str:
        for name in ("[MASK]", "<mask>"):
            if self.tokenizer.token_to_id(name) is not None:
                return name
        raise UserError("this checkpoint's tokeniser has no mask token")

    def _likeliest(self, logits: np.ndarray, k: int) -> list[Word]:
        shares = np.exp(logits - logits.max())
        shares /= shares.sum()
        best = np.argsort(-shares, kind="stable")[:k]
        return [Word(self.tokenizer.decode([int(word)]).strip(), float(shares[word])) for word in best]

    def _padded(self, ragged: Ragged, size: int = 32) -> Iterator[tuple[int, np.ndarray]]:
        """(number of the first text, token rows), in the order of the texts; widths are powers of two."""
        for start in range(0, len(ragged), size):
            rows = np.arange(start, min(start + size, len(ragged)))
            longest = int(ragged.lengths[rows].max(initial=1))
            width = min(1 << max(3, (longest - 1).bit_length()), self.config.max_length)
            yield start, ragged.padded(rows, width, len(rows))

    def _prompt(self, name: str | None) -> str:
        prompts = self.settings.prompts
        if name is None:
            name = self.settings.default_prompt
        if not name:
            return ""
        if name not in prompts:
            raise UserError(f"no prompt '{name}' in this checkpoint{nearest(name, prompts) if prompts else ': it has none'}")
        return prompts[name]


@jax.jit(static_argnames=("config", "dtype"))
def _hidden(params: Any, rows: Any, *, config: Any, dtype: Any) -> Any:
    return build(config, dtype).apply({"params": params}, rows)


@jax.jit(static_argnames=("config", "dtype"))
def _logits(params: Any, head: Any, rows: Any, *, config: Any, dtype: Any) -> Any:
    hidden: Any = build(config, dtype).apply({"params": params}, rows)
    return MaskedWords(config, dtype).apply({"params": head}, hidden, words_of(params))
