"""TransE and ComplEx against loops, by hand, and in their gradients."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from fusionjax.models import scorers as module

scorers: Any = module  # NumPy arrays do as well as the JAX arrays of the annotations
scorer, transe, complex_ = scorers.scorer, scorers.transe, scorers.complex_


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.Generator(np.random.Philox(seed)).normal(size=shape).astype(np.float32)


def test_transe_by_hand() -> None:
    head, relation, tail = jnp.array([1.0, 2.0]), jnp.array([3.0, -1.0]), jnp.array([1.0, 5.0])  # h + r − t = (3, −4)
    assert float(transe(head, relation, tail, norm=1)) == -7.0
    assert float(transe(head, relation, tail, norm=2)) == -5.0
    assert float(transe(head, relation, tail, norm=2, margin=9.0)) == 4.0
    assert float(transe(head, relation, head + relation, norm=1, margin=9.0)) == 9.0
    assert float(transe(head, relation, head + relation, norm=2, margin=9.0)) == pytest.approx(9.0, abs=1e-5)


def test_complex_by_hand() -> None:
    # (1 + 2i)(3 − i) = 5 + 5i; times conj(2 + 4i) = (5 + 5i)(2 − 4i) = 30 − 10i.
    score = complex_(jnp.array([1.0, 2.0]), jnp.array([3.0, -1.0]), jnp.array([2.0, 4.0]))
    assert float(score) == 30.0
    # The first half is real, the second imaginary: (1 + 3i)·1·conj(1 + 3i) + (2 + 0i)·1·conj(2 + 0i) = 10 + 4.
    vector, one = jnp.array([1.0, 2.0, 3.0, 0.0]), jnp.array([1.0, 1.0, 0.0, 0.0])
    assert float(complex_(vector, one, vector)) == 14.0


def test_complex_tells_directions_apart_and_a_real_relation_does_not() -> None:
    head, relation, tail = normal(8), normal(8, seed=1), normal(8, seed=2)
    assert abs(float(complex_(head, relation, tail) - complex_(tail, relation, head))) > 0.1
    relation[4:] = 0
    assert float(complex_(head, relation, tail)) == pytest.approx(float(complex_(tail, relation, head)), abs=1e-5)


def loop_transe(h: np.ndarray, r: np.ndarray, t: np.ndarray, norm: int, margin: float) -> float:
    return margin - float(sum(abs(float(a + b - c)) ** norm for a, b, c in zip(h, r, t, strict=True)) ** (1 / norm))


def loop_complex(h: np.ndarray, r: np.ndarray, t: np.ndarray) -> float:
    total, half = 0j, len(h) // 2
    for i in range(half):
        a, b, c = (complex(v[i], v[half + i]) for v in (h, r, t))
        total += a * b * c.conjugate()
    return total.real


@pytest.mark.parametrize(("name", "norm"), [("transe", 1), ("transe", 2), ("complex", 2)])
def test_scorers_are_their_loops_and_broadcast(name: str, norm: int) -> None:
    score = scorer(name, norm=norm, margin=3.0)
    head, relation, entity = normal(3, 8), normal(3, 8, seed=1), normal(5, 8, seed=2)

    def loop(h: np.ndarray, r: np.ndarray, t: np.ndarray) -> float:
        return loop_transe(h, r, t, norm, 3.0) if name == "transe" else loop_complex(h, r, t)

    tails = np.array([[loop(h, r, t) for t in entity] for h, r in zip(head, relation, strict=True)])
    heads = np.array([[loop(e, r, t) for e in entity] for t, r in zip(head, relation, strict=True)])
    assert np.allclose(score(head[:, None], relation[:, None], entity[None]), tails, rtol=1e-5, atol=1e-5)
    assert np.allclose(score(entity[None], relation[:, None], head[:, None]), heads, rtol=1e-5, atol=1e-5)
    assert np.allclose(score(head, relation, entity[:3]), np.diagonal(tails[:, :3]), rtol=1e-5, atol=1e-5)
    assert score(head[0], relation[0], entity[0]).shape == ()
    assert score(head[:, None, None], relation[None, :, None], entity[None, None]).shape == (3, 3, 5)


@pytest.mark.parametrize(("name", "norm"), [("transe", 1), ("transe", 2), ("complex", 2)])
def test_gradients(name: str, norm: int) -> None:
    score = scorer(name, norm=norm, margin=3.0)
    arguments = tuple(jnp.asarray(normal(2, 8, seed=seed)) for seed in range(3))
    check_grads(jax.jit(score), arguments, order=1, modes=("rev",), atol=1e-2, rtol=1e-2)


def test_gradient_of_transe_exists_where_the_distance_is_zero() -> None:
    zero = jnp.zeros(4)
    for norm in (1, 2):
        gradient = jax.grad(lambda h, norm=norm: transe(h, zero, zero, norm=norm))(zero)
        assert np.all(np.isfinite(gradient))


def test_unknown_scorer() -> None:
    with pytest.raises(ValueError, match="no scorer 'transh'; valid: transe, complex"):
        scorer("transh")
