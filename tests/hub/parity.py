"""What this framework makes of a checkpoint folder, beside what transformers and sentence-transformers made of it.

Keys are those of benchmarks/parity/theirs.py, which computes the expected values.
"""

import functools
import json
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fusionjax.embedding import PACKABLE
from fusionjax.hub import Checkpoint, families, read_checkpoint
from fusionjax.models.encoder import EncoderConfig, MaskedWords, build, pool, words_of
from fusionjax.text_encoder import TextEncoder

OPTIONS = None if os.environ.get("PARITY_COMPILE_AS_USERS_DO") else {"xla_backend_optimization_level": 0}
"""Tests compile many small programs, which takes half as long so; `make parity` compares what users run."""

Values = Mapping[str, np.ndarray]
KINDS = {
    "ids": "tokens",
    "hidden": "hidden",
    "vectors": "vectors",
    "pooling": "vectors",
    "logits": "logits",
    "gradient": "gradients",
}


def kind_of(key: str) -> str | None:
    """What a key's values are: `tokens`, `hidden`, `vectors`, `logits`, `gradients`; None: an input."""
    first, _, rest = key.partition("/")
    return KINDS.get(rest.partition("/")[0] if first in ("alone", "batch") else first)


def error(found: np.ndarray, expected: np.ndarray) -> float:
    """Largest difference; relative to the largest expected value where that is above 1."""
    assert found.shape == expected.shape, f"{found.shape} and {expected.shape}"
    return float(np.abs(found - expected).max(initial=0.0) / max(1.0, np.abs(expected).max(initial=0.0)))


def gradient_error(found: np.ndarray, expected: np.ndarray, largest: float) -> float:
    """Largest difference, relative to the largest gradient of its tensor.

    A tensor whose gradients are next to nothing (biases of keys, which softmax cancels) is measured by a twentieth of the
    largest gradient of all.
    """
    assert found.shape == expected.shape, f"{found.shape} and {expected.shape}"
    return float(np.abs(found - expected).max() / max(np.abs(expected).max(), 0.05 * largest))


def errors(found: Values, expected: Values) -> dict[str, float]:
    """Of each key of `found`. Tokens: how many differ."""
    largest = {loss: _largest(expected, f"gradient/{loss}/") for loss in ("vectors", "masked")}
    out: dict[str, float] = {}
    for key, values in found.items():
        if key.startswith("ids/"):
            same = values.shape == expected[key].shape and np.array_equal(values, expected[key])
            out[key] = 0.0 if same else 1.0
        elif key.startswith("gradient/"):
            out[key] = gradient_error(values, expected[key], largest[key.split("/")[1]])
        else:
            out[key] = error(values, expected[key])
    return out


def _largest(values: Values, start: str) -> float:
    return max((float(np.abs(value).max()) for key, value in values.items() if key.startswith(start)), default=0.0)


# ------------------------------------------------------------------------------------------------------------------- ours
def padded(rows: list[np.ndarray]) -> np.ndarray:
    """Rows [l, …] of many lengths as [b, l, …], −1 behind them."""
    out = np.full((len(rows), max(map(len, rows)), *rows[0].shape[1:]), -1, rows[0].dtype)
    for place, row in enumerate(rows):
        out[place, : len(row)] = row
    return out


def texts_of(folder: Path) -> list[str]:
    return list(json.loads((folder / "texts.json").read_text(encoding="utf-8")).values())


def names_of(expected: Values) -> list[str]:
    """Texts, and `one` behind them, which is no text."""
    return [key.removeprefix("ids/") for key in expected if key.startswith("ids/")]


@functools.partial(jax.jit, static_argnames=("config", "dtype"), compiler_options=OPTIONS)
def states(params: Any, tokens: jax.Array, *, config: EncoderConfig, dtype: Any = jnp.float32) -> Any:
    return build(config, dtype).apply({"params": params}, tokens)


@functools.partial(jax.jit, static_argnames=("config", "dtype"), compiler_options=OPTIONS)
def scores(params: Any, head: Any, hidden: jax.Array, *, config: EncoderConfig, dtype: Any = jnp.float32) -> Any:
    return MaskedWords(config, dtype).apply({"params": head}, hidden, words_of(params))


def vectors_of(hidden: jax.Array, tokens: jax.Array, pooling: str, normalise: bool) -> jax.Array:
    pooled = pool(hidden, tokens, pooling)
    return pooled / jnp.maximum(jnp.linalg.norm(pooled, axis=1, keepdims=True), 1e-12) if normalise else pooled


@functools.partial(jax.jit, static_argnames=("pooling", "normalise", "more"), compiler_options=OPTIONS)
def pooled_all(hidden: jax.Array, tokens: jax.Array, *, pooling: str, normalise: bool, more: tuple[str, ...] = ()) -> Any:
    """(vectors, further poolings)."""
    return vectors_of(hidden, tokens, pooling, normalise), {how: pool(hidden, tokens, how) for how in more}


@functools.partial(jax.jit, static_argnames=("config", "pooling", "normalise"), compiler_options=OPTIONS)
def vectors_gradient(
    params: Any, tokens: jax.Array, direction: jax.Array, *, config: EncoderConfig, pooling: str, normalise: bool
) -> Any:
    """Of sum(vectors · direction)."""

    def loss(params: Any) -> jax.Array:
        hidden: Any = build(config).apply({"params": params}, tokens)
        return (vectors_of(hidden, tokens, pooling, normalise) * direction).sum()

    return jax.grad(loss)(params)


@functools.partial(jax.jit, static_argnames=("config",), compiler_options=OPTIONS)
def masked_gradient(params: Any, head: Any, tokens: jax.Array, labels: jax.Array, *, config: EncoderConfig) -> Any:
    """Of the mean cross-entropy of the labelled words: (the encoder's, the head's)."""

    def loss(params: Any, head: Any) -> jax.Array:
        hidden: Any = build(config).apply({"params": params}, tokens)
        logits: Any = MaskedWords(config).apply({"params": head}, hidden, words_of(params))
        each = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.maximum(labels, 0))
        return jnp.where(labels >= 0, each, 0.0).sum() / (labels >= 0).sum()

    return jax.grad(loss, argnums=(0, 1))(params, head)


def theirs_by_name(checkpoint: Checkpoint, params: Any, head: Any = None) -> dict[str, np.ndarray]:
    """Trees of the encoder's and the head's shape, as tensors under the names, and turned the way, transformers has them."""
    family = checkpoint.family
    trees = [(params, families.encoder_names(family, checkpoint.config.layers))]
    trees += [] if head is None else [(head, families.head_names(family))]
    out: dict[str, np.ndarray] = {}
    for tree, names in trees:
        for path, name in names:
            leaf: Any = tree
            for step in path:
                leaf = leaf.get(step) if leaf is not None else None
            if leaf is not None:
                out[name] = np.asarray(leaf).T if families.turned(path) else np.asarray(leaf)
    return out


def gradients(checkpoint: Checkpoint, expected: Values, config: EncoderConfig | None = None) -> dict[str, np.ndarray]:
    """Those of both losses that are expected."""
    config, settings = config or checkpoint.config, checkpoint.sentence
    short = padded([expected[f"ids/{name}"] for name in names_of(expected) if name not in ("long", "one")])
    found = {
        "vectors": theirs_by_name(
            checkpoint,
            vectors_gradient(
                checkpoint.params,
                short,
                expected["direction"],
                config=config,
                pooling=settings.pooling,
                normalise=settings.normalise,
            ),
        )
    }
    if "masked/tokens" in expected:
        both = masked_gradient(
            checkpoint.params, checkpoint.head, expected["masked/tokens"], expected["masked/labels"], config=config
        )
        found["masked"] = theirs_by_name(checkpoint, *both)
    out: dict[str, np.ndarray] = {}
    for key in expected:
        if key.startswith("gradient/"):
            _, loss, name = key.split("/")
            out[key] = found[loss][name][expected[f"kept/{name}"]]
    return out


def _states_of(checkpoint: Checkpoint, rows: list[np.ndarray]) -> list[np.ndarray]:
    """Last hidden state of each of the token rows, read as one padded batch."""
    found = np.asarray(states(checkpoint.params, padded(rows), config=checkpoint.config))
    return [state[: len(row)] for state, row in zip(found, rows, strict=True)]


def outputs(
    checkpoint: Checkpoint, folder: Path, expected: Values, alone: Collection[str] | None = None
) -> dict[str, np.ndarray]:
    """All but the gradients.

    Args:
      alone: texts that are also read alone, which compiles a program for each length; None: all. Where given, the long text is
        only read alone, and not by the encoder of many texts.
    """
    config, settings, params = checkpoint.config, checkpoint.sentence, checkpoint.params
    texts = texts_of(folder)
    encoder = TextEncoder(checkpoint)
    ragged = encoder.tokens(texts, "")
    names = names_of(expected)
    out = {f"ids/{name}": ragged.tokens[slice(*ragged.offsets[row : row + 2])] for row, name in enumerate(names[: len(texts)])}
    batch = names if alone is None else [name for name in names if name != "long"]
    hidden = {
        (way, name): state
        for way, batches in (("batch", [batch]), ("alone", [[name] for name in (names if alone is None else alone)]))
        for each in batches
        for name, state in zip(each, _states_of(checkpoint, [expected[f"ids/{name}"] for name in each]), strict=True)
    }
    out |= {f"{way}/hidden/{name}": state[expected[f"rows/{name}"]] for (way, name), state in hidden.items()}
    if checkpoint.head is not None:
        kept = {name: state[expected[f"word_rows/{name}"]] for (_, name), state in hidden.items()}  # alone, where there is both
        logits = np.asarray(scores(params, checkpoint.head, np.concatenate(list(kept.values())), config=config))
        parts = np.split(logits, np.cumsum([len(rows) for rows in kept.values()])[:-1])
        out |= {f"alone/logits/{name}": part for name, part in zip(kept, parts, strict=True)}
    together = padded([hidden.get(("batch", name), hidden["alone", "long"]) for name in names])
    tokens = padded([expected[f"ids/{name}"] for name in names])
    more = tuple(key.removeprefix("pooling/") for key in expected if key.startswith("pooling/"))
    vectors, pooled = pooled_all(together, tokens, pooling=settings.pooling, normalise=settings.normalise, more=more)
    out["batch/vectors"] = np.asarray(vectors)[: len(texts)]
    out |= {f"pooling/{how}": np.asarray(each) for how, each in pooled.items()}
    if alone is None:
        out["alone/vectors"] = encoder.encode(texts, prompt="")
    elif settings.pooling in PACKABLE:  # else a program for each length
        out["alone/vectors"] = out["batch/vectors"].copy()
        short = [row for row, name in enumerate(names[: len(texts)]) if name != "long"]
        out["alone/vectors"][short] = encoder.encode([texts[row] for row in short], prompt="")
    return out


def load(folder: Path) -> tuple[Checkpoint, dict[str, np.ndarray]]:
    with np.load(folder / "expected.npz") as opened:
        return read_checkpoint(folder), {key: opened[key] for key in opened.files}
