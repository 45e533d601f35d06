"""Pooled vectors of token lists by an encoder of any family: batched, compiled for few shapes, the device kept busy."""

import collections
import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from fusionjax import packing
from fusionjax.models.encoder import EncoderConfig, build, pool, pool_packed
from fusionjax.packing import Batch, Ragged

Plan = Literal["auto", "packed", "buckets", "mixed"]
_PLANS = {"packed": packing.packed, "buckets": packing.buckets, "mixed": packing.mixed}
PACKABLE = ("mean", "cls")
"""Poolings that packed rows have."""
_AHEAD = 2
"""Batches the device has before the answer of the first is read."""


def default_budget() -> int:
    """Tokens in a batch: what keeps a layer's activations in a CPU's cache; what fills an accelerator."""
    return 1024 if jax.default_backend() == "cpu" else 32_768


@functools.partial(jax.jit, static_argnames=("config", "dtype", "pooling", "normalise"))
def padded_vectors(params: Any, tokens: jax.Array, *, config: EncoderConfig, dtype: Any, pooling: str, normalise: bool) -> Any:
    """float32 [b, d] of token rows int32 [b, l]."""
    hidden = build(config, dtype).apply({"params": params}, tokens)
    return _finished(pool(hidden, tokens, pooling), normalise)  # pyright: ignore[reportArgumentType]


@functools.partial(jax.jit, static_argnames=("places", "config", "dtype", "pooling", "normalise"))
def packed_vectors(
    params: Any,
    tokens: jax.Array,
    text: jax.Array,
    position: jax.Array,
    *,
    places: int,
    config: EncoderConfig,
    dtype: Any,
    pooling: str,
    normalise: bool,
) -> Any:
    """float32 [places, d] of packed rows (`packing.packed`)."""
    hidden = build(config, dtype).apply({"params": params}, tokens, text=text, position=position)
    return _finished(pool_packed(hidden, text, position, places, pooling), normalise)  # pyright: ignore[reportArgumentType]


def _finished(vectors: jax.Array, normalise: bool) -> jax.Array:
    """As torch normalises: a vector of zeros stays one."""
    return vectors / jnp.maximum(jnp.linalg.norm(vectors, axis=1, keepdims=True), 1e-12) if normalise else vectors


def embed(
    texts: Ragged,
    params: Any,
    config: EncoderConfig,
    *,
    pooling: str,
    normalise: bool = False,
    dtype: Any = jnp.float32,
    plan: Plan = "auto",
    budget: int | None = None,
    out: np.ndarray | None = None,
    progress: Callable[[int], None] | None = None,
) -> np.ndarray:
    """Vectors float32 [n, d] in the order of `texts`.

    Args:
      texts: token lists, none longer than the encoder has positions for.
      pooling, normalise: `models.bert.pool`; vectors of length 1.
      plan: packed, buckets or mixed (`packing.py`); auto: mixed on a CPU, where packed rows have the pooling, else buckets (on
        a GPU these run cuDNN's attention).
      budget: tokens in a batch; default: `default_budget()`.
      out: where to write instead of a new array.
      progress: told how many texts are done, again and again.
    """
    width = config.width * len(pooling.split("+"))
    vectors = np.zeros((len(texts), width), np.float32) if out is None else out
    settings: dict[str, Any] = {"config": config, "dtype": dtype, "pooling": pooling, "normalise": normalise}

    for batch, found in _ahead(batches(texts, config, pooling, plan, budget), lambda batch: answer(batch, params, **settings)):
        vectors[batch.texts] = np.asarray(found)[: len(batch.texts)]
        if progress is not None:
            progress(len(batch.texts))
    return vectors


def batches(texts: Ragged, config: EncoderConfig, pooling: str, plan: Plan, budget: int | None = None) -> Iterator[Batch]:
    """What `embed` calls the encoder on, in that order; arguments as there."""
    if plan == "auto":
        plan = "mixed" if jax.default_backend() == "cpu" and pooling in PACKABLE else "buckets"
    return _PLANS[plan](texts, budget or default_budget(), config.max_length)


def answer(batch: Batch, params: Any, **settings: Any) -> jax.Array:
    """Vectors float32 [b or places, d] of a batch, on the device and maybe not computed yet; settings as the two above."""
    if batch.text is None or batch.position is None:
        return padded_vectors(params, jnp.asarray(batch.tokens), **settings)
    arrays = (jnp.asarray(each) for each in (batch.tokens, batch.text, batch.position))
    return packed_vectors(params, *arrays, places=batch.places, **settings)


def _ahead(planned: Iterable[Batch], call: Callable[[Batch], jax.Array]) -> Iterable[tuple[Batch, jax.Array]]:
    """Batches with their answers, `_AHEAD` of them under way: the device need not wait for the host."""
    pending: collections.deque[tuple[Batch, jax.Array]] = collections.deque()
    for batch in planned:
        pending.append((batch, call(batch)))
        if len(pending) > _AHEAD:
            yield pending.popleft()
    yield from pending
