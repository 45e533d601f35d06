"""Query-product: a query and a product judged relevant, or bought after it, find each other among the batch."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Int

from fusionjax import losses
from fusionjax.config import schema
from fusionjax.data.inputs import Inputs
from fusionjax.data.text import PAD
from fusionjax.errors import UserError
from fusionjax.losses import normalise
from fusionjax.objectives.base import Entry, Objective
from fusionjax.objectives.sampling import Pairs, Shuffle, cloze, generator_of
from fusionjax.objectives.towers import Towers

_MOST_KNOWN = 64
"""Known products of a query that mining leaves out, at most; a few queries of a log match thousands."""


class QueryProduct(Objective):
    """Pairs of a query and a product that matches it.

    A batch is `tokens`: int32 [b, l]; `product`: int32 [b]; `known`: bool [b, b] (query i matches product j). With hard
    negatives from a file also `negative`: int32 [b, n] (those of query i, −1 none) and `known_negative`: bool [b, b · n]; with
    mined ones also `positive`: int32 [b, m] (products known to match query i, −1 none).
    """

    name = "query_product"
    packs_tokens = True

    def __init__(self, inputs: Inputs, config: schema.Run) -> None:
        settings = config.objectives.query_product
        if not len(inputs.positives) or inputs.query_tokens is None:
            raise UserError(
                f"objectives.query_product: no training judgment of grade ≥ {settings.min_grade:g} "
                "and no training event with a query"
            )
        self.tokens, self.product_tokens = inputs.query_tokens, inputs.product_tokens
        self.with_text = np.flatnonzero(inputs.has_text) if inputs.product_tokens is not None else ()
        self.from_titles = settings.from_titles if len(self.with_text) else 0.0
        self.seed = config.seed
        self.positives = Pairs(inputs.positives, len(inputs.query_tokens))
        self.pairs = inputs.positives
        self.shuffle = Shuffle(len(self.pairs), settings.batch_size, config.seed, self.name)
        self.hard = settings.hard_negatives
        self.negatives = None
        if inputs.hard_negatives is not None:
            self.negatives = Pairs(inputs.hard_negatives, len(inputs.query_tokens))
        self.most = min(_MOST_KNOWN, int(self.positives.counts.max()))

    def batch(self, index: int) -> Entry:
        query, product = self.pairs[self.shuffle.rows(index)].T
        tokens, query, product = self.tokens[query], query.copy(), product.copy()
        n_titles = round(self.from_titles * len(product))
        if n_titles:
            tokens, product[:n_titles] = self._titles(tokens, n_titles, index)
        query[:n_titles] = -1  # a title, which matches its own product alone
        batch = {"tokens": tokens, "product": product.astype(np.int32), "known": self._known(query, product, product)}
        if self.negatives is not None:
            negative = self.negatives.sample(query, self.hard.from_file, generator_of(self.seed, "negatives", index))
            batch |= {"negative": negative, "known_negative": self._known(query, product, negative.ravel())}
        if self.hard.mined:
            positive = self.positives.first(query, self.most)
            positive[:n_titles, 0] = product[:n_titles]
            batch["positive"] = positive
        return batch

    def _titles(self, tokens: np.ndarray, n: int, index: int) -> tuple[np.ndarray, np.ndarray]:
        """(tokens with a random part of a product's text in each of the first n rows, those n products).

        The first rows will do: a batch is in random order. The rows widen if a title needs it.
        """
        assert self.product_tokens is not None
        generator = generator_of(self.seed, "titles", index)
        product = self.with_text[generator.integers(0, len(self.with_text), n)]
        parts = cloze(self.product_tokens[product], generator)
        width = max(tokens.shape[1], parts.shape[1])
        both = (parts, tokens[n:])
        padded = [np.pad(each, ((0, 0), (0, width - each.shape[1])), constant_values=PAD) for each in both]
        return np.concatenate(padded), product

    def _known(self, query: np.ndarray, product: np.ndarray, column: np.ndarray) -> np.ndarray:
        """bool [b, c]: which of the products `column` row i matches (−1: none); by lists, without looking up all b × c."""
        order = np.argsort(column, kind="stable")
        known = np.zeros((len(query), len(column)), bool)
        rows, wanted = self.positives.of(query)
        titles = np.flatnonzero(query < 0)
        rows, wanted = np.concatenate([rows, titles]), np.concatenate([wanted, product[titles]])
        first, stop = (np.searchsorted(column[order], wanted, side) for side in ("left", "right"))
        count = stop - first
        at = np.repeat(first - np.cumsum(count) + count, count) + np.arange(count.sum())
        known[np.repeat(rows, count), order[at]] = True
        return known

    @staticmethod
    def live_products(batch: Entry) -> dict[int, np.ndarray]:
        wanted = {0: batch["product"]}
        if "negative" in batch:
            wanted[2] = batch["negative"][batch["negative"] >= 0]
        return wanted

    @staticmethod
    def loss(towers: Towers, batch: dict[str, Array]) -> Float[Array, ""]:
        """InfoNCE, SigLIP or triplet loss against the products of the batch and the hard negatives."""
        settings, block = towers.config.objectives.query_product, towers.config.text.chunk
        query = towers.apply("queries", towers.encode(batch, len(batch["product"])))
        product = towers.products(batch["product"])
        negatives, hidden = _negatives(towers, batch, query, product)
        known = batch["known"]
        if block and towers.mesh is not None:
            # Every device compares all rows, for the reason given in `Towers.encode`; it is little beside the encoding.
            everywhere = NamedSharding(towers.mesh, PartitionSpec())
            query, product, known, negatives, hidden = jax.tree.map(
                lambda x: jax.lax.with_sharding_constraint(x, everywhere), (query, product, known, negatives, hidden)
            )
        common: dict[str, Any] = {"positives": known, "valid": jnp.ones(batch["product"].shape, bool), "block": block}
        if negatives is not None:
            common["hidden_negatives"] = hidden
        loss = functools.partial(_formula(towers), **common)
        if settings.matryoshka:
            return losses.matryoshka(loss, query, product, settings.matryoshka, negatives)
        return loss(query, product) if negatives is None else loss(query, product, negatives=negatives)


def _formula(towers: Towers) -> Callable[..., Float[Array, ""]]:
    """The loss that the config names, its own settings and learned numbers bound."""
    settings = towers.config.objectives.query_product
    if settings.loss == "triplet":
        return functools.partial(losses.triplet, margin=settings.triplet_margin, hardest=settings.triplet_hardest)
    scale = towers.apply("scale", "query_product")
    if settings.loss == "siglip":
        return functools.partial(losses.siglip, scale=scale, bias=towers.apply("bias"))
    return functools.partial(losses.info_nce, scale=scale, directions=settings.directions)


def _negatives(
    towers: Towers, batch: dict[str, Array], query: Float[Array, "b p"], product: Float[Array, "b p"]
) -> tuple[Float[Array, "n p"] | None, Bool[Array, "b n"] | None]:
    """(vectors of the hard negatives, those each query must not see), from the file and mined; (None, None) without any."""
    found: list[tuple[Array, Array]] = []
    if "negative" in batch:
        rows = batch["negative"].reshape(-1)
        found.append((towers.products(jnp.maximum(rows, 0)), batch["known_negative"] | (rows < 0)[None]))
    if "positive" in batch:
        found.append(_mined(towers, batch, query, product))
    if not found:
        return None, None
    return jnp.concatenate([vectors for vectors, _ in found]), jnp.concatenate([hidden for _, hidden in found], axis=1)


def _mined(
    towers: Towers, batch: dict[str, Array], query: Float[Array, "b p"], product: Float[Array, "b p"]
) -> tuple[Float[Array, "n p"], Bool[Array, "b n"]]:
    """The nearest products of each query that are neither known to match nor, by the margin, likely to.

    All queries see all of them, save those that the same two rules hide from a query.
    """
    settings, n_products = towers.config.objectives.query_product.hard_negatives, towers.model.layout.n_products
    rows = jnp.arange(n_products, dtype=jnp.int32)
    if settings.mine_from < n_products:
        rows = jax.random.randint(towers.next_key(), (settings.mine_from,), 0, n_products)
    candidates = jax.lax.stop_gradient(normalise(towers.products(rows)))
    asked = jax.lax.stop_gradient(normalise(query))
    bar = (asked * jax.lax.stop_gradient(normalise(product))).sum(-1, keepdims=True) - settings.margin
    cosine = asked @ candidates.T
    wrong = towers.catalogue.has_text[rows][None] & (cosine < bar) & ~_any_equal(batch["positive"], rows)
    score, best = jax.lax.top_k(jnp.where(wrong, cosine, losses.NEGATIVE), min(settings.mined, len(rows)))
    best, none = best.reshape(-1), score.reshape(-1) <= losses.NEGATIVE / 2
    hidden = none[None] | (asked @ candidates[best].T >= bar) | _any_equal(batch["positive"], rows[best])
    return towers.products(rows[best]), hidden


def _any_equal(of_row: Int[Array, "b m"], rows: Int[Array, "n"]) -> Bool[Array, "b n"]:
    """Whether column j's product is one of those of row i. One of the m at a time: b × m × n never exists."""

    def one(found: Array, column: Array) -> tuple[Array, None]:
        return found | (column[:, None] == rows[None, :]), None

    return jax.lax.scan(one, jnp.zeros((len(of_row), len(rows)), bool), of_row.T)[0]
