"""Every encoder family against transformers and sentence-transformers: their values stand in golden/ (benchmarks/parity made
them; `make parity` makes them anew and compares live)."""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from fusionjax.hub import Checkpoint
from fusionjax.models.encoder import build, pool_packed
from fusionjax.models.layers import Dense, Lora
from tests.hub import parity

GOLDEN = Path(__file__).parent / "golden"
FAMILIES = sorted(folder.name for folder in GOLDEN.iterdir())
TOLERANCE = 1e-5


@dataclasses.dataclass
class Compared:
    folder: Path
    checkpoint: Checkpoint
    expected: dict[str, np.ndarray]
    errors: dict[str, float]

    def largest(self, kind: str) -> tuple[float, str]:
        return max((error, key) for key, error in self.errors.items() if parity.kind_of(key) == kind)

    @property
    def rows(self) -> np.ndarray:
        """All but the long text, padded."""
        names = [name for name in parity.names_of(self.expected) if name != "long"]
        return parity.padded([self.expected[f"ids/{name}"] for name in names])


@pytest.fixture(scope="module", params=FAMILIES)
def compared(request: pytest.FixtureRequest) -> Compared:
    folder = GOLDEN / request.param
    checkpoint, expected = parity.load(folder)
    found = parity.outputs(checkpoint, folder, expected, alone=("one", "long"))
    return Compared(folder, checkpoint, expected, parity.errors(found | parity.gradients(checkpoint, expected), expected))


def test_families_are_those_we_build() -> None:
    assert {name.split("-biases")[0] for name in FAMILIES} == {"bert", "roberta", "xlm-roberta", "distilbert", "modernbert"}


def test_the_texts_are_what_they_should_be(compared: Compared) -> None:
    lengths = {name: len(compared.expected[f"ids/{name}"]) for name in parity.names_of(compared.expected)}
    assert (lengths["one"], lengths["empty"], lengths["long"]) == (1, 2, 512)
    assert len({len(row[row >= 0]) for row in compared.rows}) > 3, "no padding"


def test_texts_become_the_same_tokens(compared: Compared) -> None:
    error, key = compared.largest("tokens")
    assert error == 0.0, key


@pytest.mark.parametrize("kind", ["hidden", "vectors", "logits", "gradients"])
def test_values_are_equal(compared: Compared, kind: str) -> None:
    error, key = compared.largest(kind)
    assert error <= TOLERANCE, key


# The families share two modules: what follows is asked of one of each, and of RoBERTa where positions matter.
@pytest.mark.parametrize("compared", ["bert", "modernbert-biases", "roberta"], indirect=True)
def test_packed_rows_are_read_as_padded_ones(compared: Compared) -> None:
    config, params, rows = compared.checkpoint.config, compared.checkpoint.params, compared.rows
    lengths = (rows >= 0).sum(1)
    # Three packed rows, texts dealt out in turn, with a stretch of padding between two of them.
    tokens = np.full((3, 5 + max(sum(lengths[row::3]) for row in range(3))), -1, np.int32)
    text, position = tokens.copy(), np.zeros_like(tokens)
    for row in range(3):
        start = 0
        for number in range(row, len(rows), 3):
            here = slice(start, start + lengths[number])
            tokens[row, here] = rows[number][: lengths[number]]
            text[row, here], position[row, here] = number, np.arange(lengths[number])
            start += lengths[number] + 5 * (number == row)

    @functools.partial(jax.jit, compiler_options=parity.OPTIONS)
    def packed(params: Any) -> Any:
        hidden: Any = build(config).apply({"params": params}, tokens, text=text, position=position)
        pooled = {how: pool_packed(hidden, jnp.asarray(text), jnp.asarray(position), len(rows), how) for how in ("mean", "cls")}
        return hidden, pooled

    hidden, pooled = packed(params)
    expected = np.asarray(parity.states(params, rows, config=config))
    for number, length in enumerate(lengths):
        assert parity.error(np.asarray(hidden)[text == number], expected[number, :length]) <= TOLERANCE
    _, in_rows = parity.pooled_all(expected, rows, pooling="mean", normalise=False, more=("mean", "cls"))
    for how, vectors in pooled.items():
        assert parity.error(np.asarray(vectors), np.asarray(in_rows[how])) <= TOLERANCE


@pytest.mark.parametrize("compared", ["bert", "modernbert-biases"], indirect=True)
def test_remat_gives_the_same_gradients(compared: Compared) -> None:
    config = dataclasses.replace(compared.checkpoint.config, remat=True)
    expected = {key: value for key, value in compared.expected.items() if not key.startswith(("masked/", "gradient/masked/"))}
    found = parity.gradients(compared.checkpoint, expected, config)
    assert max(parity.errors(found, expected).values()) <= TOLERANCE


@pytest.mark.parametrize("compared", ["bert", "modernbert-biases"], indirect=True)
def test_bfloat16_stays_near(compared: Compared) -> None:
    config, params = compared.checkpoint.config, compared.checkpoint.params
    exact = np.asarray(parity.states(params, compared.rows, config=config))
    rough = np.asarray(parity.states(params, compared.rows, config=config, dtype=jnp.bfloat16))
    assert rough.dtype == jnp.bfloat16
    off = np.abs(rough.astype(np.float32) - exact)[compared.rows >= 0]
    assert off.max() < 0.15 and 1e-4 < off.mean() < 0.02, (off.max(), off.mean())


@pytest.mark.parametrize("compared", ["bert", "modernbert-biases"], indirect=True)
def test_lora_starts_as_nothing(compared: Compared) -> None:
    layers = ("query", "key", "value", "qkv", "attention_output", "intermediate", "output")
    config = dataclasses.replace(compared.checkpoint.config, lora=Lora(rank=3, alpha=5.0, targets=layers))
    tree: Any = jax.eval_shape(build(config).init, jax.random.key(0), jnp.zeros((1, 4), jnp.int32))["params"]
    flat: dict[Any, Any] = traverse_util.flatten_dict(compared.checkpoint.params)
    generator = np.random.Generator(np.random.Philox(3))
    leaves: dict[Any, Any] = traverse_util.flatten_dict(tree)
    for path, leaf in leaves.items():
        if path[-1] == "lora_a":
            flat[path] = generator.normal(size=leaf.shape).astype(np.float32)
        elif path[-1] == "lora_b":
            flat[path] = np.zeros(leaf.shape, np.float32)  # as layers.Dense starts it
    assert len(flat) > len(traverse_util.flatten_dict(compared.checkpoint.params))
    found = parity.states(traverse_util.unflatten_dict(flat), compared.rows, config=config)
    expected = parity.states(compared.checkpoint.params, compared.rows, config=compared.checkpoint.config)
    assert parity.error(np.asarray(found), np.asarray(expected)) <= TOLERANCE


def test_a_lora_layer_starts_with_b_at_zero() -> None:
    layer = Dense(4, 0.02, jnp.dtype(jnp.float32), lora=Lora(2, 4.0, ("query",)), name="query")
    params: Any = jax.jit(layer.init)(jax.random.key(0), jnp.ones((1, 3)))["params"]
    assert np.any(params["lora_a"]) and not np.any(params["lora_b"])
