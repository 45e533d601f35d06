"""BERT against the architecture written out again, with loops, in NumPy."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fusionjax.models.bert import Bert, BertConfig, pool

CONFIG = BertConfig(vocab_size=50, width=12, layers=2, heads=3, feed_forward=20, max_positions=16, dropout=0.5)
TOKENS = np.array([[2, 7, 9, 11, 3, -1, -1], [2, 30, 41, 8, 8, 12, 3], [2, 3, -1, -1, -1, -1, -1]], np.int32)


@pytest.fixture(scope="module")
def params() -> Any:
    """Large random parameters everywhere, biases and norms too: nothing may hide behind a zero or a one."""
    tree = jax.eval_shape(Bert(CONFIG).init, jax.random.key(0), jnp.asarray(TOKENS))["params"]
    generator = np.random.Generator(np.random.Philox(1))
    return jax.tree.map(lambda leaf: 0.5 * generator.normal(size=leaf.shape).astype(np.float32), tree)


@jax.jit
def bert(params: Any, tokens: Any) -> Any:
    return Bert(CONFIG).apply({"params": params}, tokens)


# ------------------------------------------------------------------------------------------- the reference (float64, loops)
def dense(x: np.ndarray, p: Any) -> np.ndarray:
    p = p.get("dense", p)
    return x @ np.asarray(p["kernel"], np.float64) + np.asarray(p["bias"], np.float64)


def layer_norm(x: np.ndarray, p: Any) -> np.ndarray:
    out = np.empty_like(x)
    for i, row in enumerate(x):
        mean = row.mean()
        variance = ((row - mean) ** 2).mean()
        out[i] = (row - mean) / math.sqrt(variance + 1e-12) * np.asarray(p["scale"]) + np.asarray(p["bias"])
    return out


def gelu(x: np.ndarray) -> np.ndarray:
    return np.vectorize(lambda v: 0.5 * v * (1.0 + math.erf(v / math.sqrt(2.0))))(x)


def attention(x: np.ndarray, p: Any, keep: np.ndarray) -> np.ndarray:
    length, width = x.shape
    size = width // CONFIG.heads
    query, key, value = (dense(x, p[name]) for name in ("query", "key", "value"))
    out = np.zeros_like(x)
    for head in range(CONFIG.heads):
        part = slice(head * size, (head + 1) * size)
        for i in range(length):
            scores = {j: float(query[i, part] @ key[j, part]) / math.sqrt(size) for j in range(length) if keep[j]}
            total = sum(math.exp(score) for score in scores.values())
            for j, score in scores.items():
                out[i, part] += math.exp(score) / total * value[j, part]
    return dense(out, p["attention_output"])


def reference(params: Any, tokens: np.ndarray) -> np.ndarray:
    """Last hidden state of one row of tokens."""
    table = {name: np.asarray(params["embeddings"][name]["embedding"], np.float64) for name in TABLES}
    x = np.stack(
        [
            table["word_embeddings"][token] + table["position_embeddings"][place] + table["token_type_embeddings"][0]
            for place, token in enumerate(tokens)
        ]
    )
    x = layer_norm(x, params["embeddings"]["layer_norm"])
    for layer in range(CONFIG.layers):
        p = params[f"layer_{layer}"]
        x = layer_norm(x + attention(x, p, tokens >= 0), p["attention_norm"])
        x = layer_norm(x + dense(gelu(dense(x, p["intermediate"])), p["output"]), p["output_norm"])
    return x


TABLES = ("word_embeddings", "position_embeddings", "token_type_embeddings")


def test_bert_is_the_reference(params: Any) -> None:
    hidden = np.asarray(bert(params, TOKENS))
    for row, tokens in zip(hidden, TOKENS, strict=True):
        expected = reference(params, tokens)
        real = tokens >= 0
        assert np.abs(row - expected)[real].max() < 1e-5 * max(1.0, np.abs(expected).max())


def test_padding_changes_nothing(params: Any) -> None:
    for tokens in TOKENS[:2]:
        alone = tokens[tokens >= 0][None]
        padded = np.pad(alone, ((0, 0), (0, 6)), constant_values=-1)
        short, long = (np.asarray(bert(params, t)) for t in (alone, padded))
        assert np.abs(short - long[:, : alone.shape[1]]).max() < 1e-5
        for how in ("mean", "cls"):
            a, b = pool(jnp.asarray(short), jnp.asarray(alone), how), pool(jnp.asarray(long), jnp.asarray(padded), how)
            assert np.abs(a - b).max() < 1e-5


def test_pool() -> None:
    hidden = jnp.arange(12.0).reshape(2, 3, 2)
    tokens = jnp.array([[5, 6, -1], [-1, -1, -1]])
    assert np.array_equal(pool(hidden, tokens, "mean"), [[1.0, 2.0], [0.0, 0.0]])
    assert np.array_equal(pool(hidden, tokens, "cls"), [[0.0, 1.0], [6.0, 7.0]])
    assert pool(hidden.astype(jnp.bfloat16), tokens, "mean").dtype == jnp.float32


def test_dropout_is_random_in_training_only(params: Any) -> None:
    @jax.jit
    def dropped(seed: Any) -> Any:
        return Bert(CONFIG).apply({"params": params}, TOKENS, False, rngs={"dropout": jax.random.key(seed)})

    def run(seed: int) -> np.ndarray:
        return np.asarray(dropped(seed))

    assert np.array_equal(run(0), run(0))
    assert not np.allclose(run(0), run(1))
    assert np.array_equal(bert(params, TOKENS), bert(params, TOKENS))


def test_initialisation_is_berts() -> None:
    big = BertConfig(vocab_size=400, width=64, layers=1, heads=2, feed_forward=128)
    tree = jax.jit(Bert(big).init)(jax.random.key(0), jnp.ones((1, 4), jnp.int32))["params"]
    for leaf in (
        tree["embeddings"]["word_embeddings"]["embedding"],
        tree["layer_0"]["query"]["dense"]["kernel"],
        tree["layer_0"]["output"]["dense"]["kernel"],
    ):
        assert np.std(leaf) == pytest.approx(0.02, rel=0.05)
        assert abs(np.mean(leaf)) < 0.002
    assert not np.any(tree["layer_0"]["query"]["dense"]["bias"])


def test_bfloat16_computes_near_float32(params: Any) -> None:
    exact = np.asarray(bert(params, TOKENS))
    rough = Bert(CONFIG, jnp.bfloat16).apply({"params": params}, TOKENS)
    assert isinstance(rough, jax.Array) and rough.dtype == jnp.bfloat16
    real = TOKENS >= 0
    assert np.abs(np.asarray(rough, np.float32) - exact)[real].mean() < 0.05 * np.abs(exact[real]).mean()
