"""Vectors from a trained model, in batches of bounded memory: the text bank, products, queries, users.

Every function is compiled once for each padded shape (few: text lengths and history lengths come in buckets).
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from fusionjax.data.batches import bucket, history_columns
from fusionjax.data.inputs import Inputs, Sequences
from fusionjax.embedding import embed
from fusionjax.losses import normalise
from fusionjax.models.entities import GRAPH, EntityModel, Features
from fusionjax.models.joint import JointModel
from fusionjax.packing import Ragged


def features_of(inputs: Inputs) -> Features:
    """What is known of the entities in words and numbers, on the device."""
    text = inputs.entity_text if inputs.entity_text is not None else np.zeros((len(inputs.seen), 0), np.float32)
    return Features(jnp.asarray(text), jnp.asarray(inputs.literals), jnp.asarray(inputs.seen, jnp.float32))


@functools.partial(jax.jit, static_argnames="model")
def _products(model: JointModel, params: Any, entity: Any, text: Any, has_text: Any, has_entity: Any) -> jax.Array:
    return cast(jax.Array, model.apply({"params": params}, text, entity, has_text, has_entity, method="products"))


@functools.partial(jax.jit, static_argnames="entities")
def _entities(entities: EntityModel, params: Any, features: Features, rows: Any) -> jax.Array:
    return entities.rows(params, features, rows)


@functools.partial(jax.jit, static_argnames="model")
def _queries(model: JointModel, params: Any, text: jax.Array) -> jax.Array:
    return normalise(cast(jax.Array, model.apply({"params": params}, text, method="queries")))


@functools.partial(jax.jit, static_argnames="model")
def _users(model: JointModel, params: Any, products: jax.Array, columns: Any, profile: jax.Array) -> jax.Array:
    """The last output of each row: after all its valid events."""
    out: Any = model.apply(
        {"params": params},
        products[columns["product"]],
        columns["kind"],
        columns["time"],
        columns["valid"],
        profile,
        method="users",
    )
    last = columns["valid"].sum(1)
    return normalise(jnp.take_along_axis(out, last[:, None, None], axis=1)[:, 0])


@dataclasses.dataclass(frozen=True)
class Encoder:
    """A model with its parameters."""

    model: JointModel
    params: Any
    batch_size: int = 256

    def text(self, tokens: np.ndarray, progress: Callable[[int], None] | None = None) -> np.ndarray:
        """Pooled text vectors, float32 [n, d], of token rows int32 [n, l]; packed, so that little padding is computed."""
        at = self.model.layout
        assert at.encoder is not None
        return embed(
            Ragged.of_rows(tokens),
            self.params["encoder"],
            dataclasses.replace(at.encoder, remat=False),
            pooling=at.pooling,
            dtype=jnp.dtype(jnp.bfloat16 if at.bfloat16 else jnp.float32),
            progress=progress,
        )

    def products(self, bank: Any, inputs: Inputs) -> np.ndarray:
        """Raw (not normalised) product vectors, float32 [n, p]; normalise for cosines, as they are for the user tower."""
        n = inputs.n_products
        out = np.zeros((n, self.model.layout.dim), np.float32)
        size = max(self.batch_size, 4096)
        on_device, entities = jnp.asarray(bank), self.model.layout.entities
        features = None if entities is None else features_of(inputs)
        for rows, valid in _batches(np.arange(n), size):
            text = on_device[rows] if self.model.layout.uses_bank else None
            entity = None if entities is None else _entities(entities, self.params[GRAPH], features, rows)
            vectors = _products(self.model, self.params, entity, text, inputs.has_text[rows], inputs.has_entity[rows])
            out[rows[:valid]] = np.asarray(vectors)[:valid]
        return out

    def titles(self, tokens: np.ndarray) -> np.ndarray:
        """Unit vectors of texts as products nobody knows: no entity row (a title typed in, a product of another shop)."""
        text = self.text(tokens)
        entities = self.model.layout.entities
        entity = None if entities is None else np.zeros((len(text), entities.scorer.entity_width), np.float32)
        vectors = _products(self.model, self.params, entity, text, (tokens >= 0).sum(1) > 2, np.zeros(len(text), bool))
        return np.asarray(normalise(vectors))

    def queries(self, tokens: np.ndarray) -> np.ndarray:
        """Unit query vectors, float32 [n, p], of token rows."""
        text = self.text(tokens)
        out = [
            np.asarray(_queries(self.model, self.params, text[rows]))[:size]
            for rows, size in _batches(np.arange(len(text)), _one_or(self.batch_size, len(text)))
        ]
        return np.concatenate(out) if out else np.zeros((0, self.model.layout.dim), np.float32)

    def users(
        self, products: np.ndarray, sequences: Sequences, user: np.ndarray, before: np.ndarray, profile: np.ndarray
    ) -> np.ndarray:
        """Unit user vectors, float32 [n, p].

        Args:
          products: raw product vectors.
          sequences: all users' events.
          user: int [n].
          before: int [n], the first event row that is not read; the history ends just before it.
          profile: int32 [n_users, f].
        """
        history = self.model.layout.history
        first = np.maximum(sequences.offsets[user], before - history)
        length = before - first
        out = np.zeros((len(user), self.model.layout.dim), np.float32)
        on_device = jnp.asarray(products)
        for rows, size in _batches(np.argsort(length, kind="stable"), _one_or(self.batch_size, len(user))):
            place = np.arange(bucket(int(length[rows].max(initial=0)), history))
            taken = np.minimum(first[rows, None] + place[None, :], max(len(sequences.product) - 1, 0))
            columns = history_columns(sequences, taken, place[None, :] < length[rows, None])
            fields = profile[user[rows]][:, : len(self.model.layout.profile_sizes)]
            out[rows[:size]] = np.asarray(_users(self.model, self.params, on_device, columns, fields))[:size]
        return out

    def user(self, products: np.ndarray, kind: np.ndarray, time: np.ndarray, profile: np.ndarray) -> np.ndarray:
        """Unit vector, float32 [p], of one user; costs a batch of one and needs no table of products.

        Args:
          products: float32 [h, p], raw vectors of the products of the user's events, oldest first.
          kind, time: int [h], of these events.
          profile: int32 [f].
        """
        history = self.model.layout.history
        read = slice(max(0, len(kind) - history), None)
        length = len(kind[read])
        size = bucket(length, history)
        table = np.zeros((size, self.model.layout.dim), np.float32)
        table[:length] = products[read]
        events = np.zeros((2, size), np.int64)
        events[:, :length] = kind[read], time[read]
        place = np.arange(size, dtype=np.int32)
        own = Sequences(np.array([0, size]), place, events[0].astype(np.int32), events[1], np.zeros(size, np.int8))
        return self.users(table, own, np.zeros(1, np.int64), np.array([length]), profile[None])[0]


def _one_or(size: int, n: int) -> int:
    """Rows of a batch: one alone is not padded to a whole batch, which would cost as much as all of it."""
    return 1 if n == 1 else size


def _batches(rows: np.ndarray, size: int) -> Iterator[tuple[np.ndarray, int]]:
    """Cuts `rows` into batches of exactly `size` (the last repeats its first row) and says how many of each count."""
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        yield np.concatenate([part, np.repeat(part[:1], size - len(part))]), len(part)
