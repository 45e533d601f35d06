"""Scorers against loops, by hand, in their gradients, and as matrix products."""

from collections.abc import Callable
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


def test_distmult_by_hand() -> None:
    assert float(scorers.distmult(jnp.array([1.0, 2.0]), jnp.array([3.0, -1.0]), jnp.array([2.0, 4.0]))) == -2.0


def test_simple_by_hand() -> None:
    # Halves: h = (2 | 3), r = (5 | 7), t = (11 | 13); ½ (2·5·13 + 11·7·3).
    score = scorers.simple(jnp.array([2.0, 3.0]), jnp.array([5.0, 7.0]), jnp.array([11.0, 13.0]))
    assert float(score) == (130 + 231) / 2


def test_rotate_by_hand() -> None:
    # (1 + 0i) turned by 90° is i; from there to 3 + 5i it is |3 + 4i| = 5.
    score = scorers.rotate(jnp.array([1.0, 0.0]), jnp.array([np.pi / 2]), jnp.array([3.0, 5.0]), margin=6.0)
    assert float(score) == pytest.approx(1.0, abs=1e-5)


def test_rescal_by_hand() -> None:
    # (1 2) · [[1 2] [3 4]] = (7 10); · (5 6) = 95.
    assert float(scorers.rescal(jnp.array([1.0, 2.0]), jnp.array([1.0, 2.0, 3.0, 4.0]), jnp.array([5.0, 6.0]))) == 95.0


def test_quate_by_hand() -> None:
    # i ⊗ j = k, whatever the length of j.
    i, j, k = (jnp.eye(4)[axis] for axis in (1, 2, 3))
    assert float(scorers.quate(i, 3 * j, 5 * k)) == pytest.approx(5.0)
    assert float(scorers.quate(j, 3 * i, 5 * k)) == pytest.approx(-5.0)


def test_pairre_by_hand() -> None:
    # Entities on the unit sphere: (.6 .8), (1 0); |.6·1 − 1·2| + |.8·5 − 0·7| = 1.4 + 4.
    score = scorers.pairre(jnp.array([3.0, 4.0]), jnp.array([1.0, 5.0, 2.0, 7.0]), jnp.array([9.0, 0.0]), margin=6.0)
    assert float(score) == pytest.approx(0.6, abs=1e-5)


def loop_simple(h: np.ndarray, r: np.ndarray, t: np.ndarray) -> float:
    half = len(h) // 2
    return sum(float(h[i] * r[i] * t[half + i] + t[i] * r[half + i] * h[half + i]) for i in range(half)) / 2


def loop_rotate(h: np.ndarray, r: np.ndarray, t: np.ndarray) -> float:
    half = len(r)
    turned = [complex(h[i], h[half + i]) * np.exp(1j * r[i]) - complex(t[i], t[half + i]) for i in range(half)]
    return 3.0 - sum(abs(each) for each in turned)


def loop_rescal(h: np.ndarray, r: np.ndarray, t: np.ndarray) -> float:
    return sum(float(h[i] * r[i * len(h) + j] * t[j]) for i in range(len(h)) for j in range(len(h)))


def loop_quate(h: np.ndarray, r: np.ndarray, t: np.ndarray) -> float:
    """Quaternions as complex 2 × 2 matrices, whose product is the Hamilton product."""
    total, quarter = 0.0, len(h) // 4

    def matrix(v: np.ndarray, place: int) -> np.ndarray:
        a, b, c, d = (float(v[part * quarter + place]) for part in range(4))
        return np.array([[a + b * 1j, c + d * 1j], [-c + d * 1j, a - b * 1j]])

    for place in range(quarter):
        turn = matrix(r, place)
        turned = matrix(h, place) @ (turn / np.sqrt(np.linalg.det(turn).real))
        total += float((turned * matrix(t, place).conj()).sum().real) / 2
    return total


def loop_pairre(h: np.ndarray, r: np.ndarray, t: np.ndarray) -> float:
    h, t = h / np.linalg.norm(h), t / np.linalg.norm(t)
    return 3.0 - sum(abs(float(h[i] * r[i] - t[i] * r[len(h) + i])) for i in range(len(h)))


Loop = Callable[[np.ndarray, np.ndarray, np.ndarray], float]
LOOPS: dict[tuple[str, int], Loop] = {
    ("transe", 1): lambda h, r, t: loop_transe(h, r, t, 1, 3.0),
    ("transe", 2): lambda h, r, t: loop_transe(h, r, t, 2, 3.0),
    ("distmult", 2): lambda h, r, t: sum(float(a * b * c) for a, b, c in zip(h, r, t, strict=True)),
    ("complex", 2): loop_complex,
    ("simple", 2): loop_simple,
    ("rotate", 2): loop_rotate,
    ("rescal", 2): loop_rescal,
    ("quate", 2): loop_quate,
    ("pairre", 2): loop_pairre,
}


def test_every_scorer_has_a_loop() -> None:
    assert {name for name, _ in LOOPS} == set(scorers.SCORERS)


@pytest.mark.parametrize(("name", "norm"), LOOPS)
def test_scorers_are_their_loops_and_broadcast(name: str, norm: int) -> None:
    score, loop = scorer(name, norm=norm, margin=3.0), LOOPS[name, norm]
    head, entity = normal(3, 8), normal(5, 8, seed=2)
    relation = normal(3, scorers.relation_width(name, 8), seed=1)
    tails = np.array([[loop(h, r, t) for t in entity] for h, r in zip(head, relation, strict=True)])
    heads = np.array([[loop(e, r, t) for e in entity] for t, r in zip(head, relation, strict=True)])
    assert np.allclose(score(head[:, None], relation[:, None], entity[None]), tails, rtol=1e-5, atol=1e-5)
    assert np.allclose(score(entity[None], relation[:, None], head[:, None]), heads, rtol=1e-5, atol=1e-5)
    assert np.allclose(score(head, relation, entity[:3]), np.diagonal(tails[:, :3]), rtol=1e-5, atol=1e-5)
    assert score(head[0], relation[0], entity[0]).shape == ()
    assert score(head[:, None, None], relation[None, :, None], entity[None, None]).shape == (3, 3, 5)


@pytest.mark.parametrize(("name", "norm"), LOOPS)
def test_one_against_all_is_the_scorer(name: str, norm: int) -> None:
    anchor, entity = jnp.asarray(normal(3, 8)), jnp.asarray(normal(5, 8, seed=2))
    relation = jnp.asarray(normal(3, scorers.relation_width(name, 8), seed=1))
    score, settings = scorer(name, norm=norm, margin=3.0), {"norm": norm, "margin": 3.0}
    tails = score(anchor[:, None], relation[:, None], entity[None])
    heads = score(entity[None], relation[:, None], anchor[:, None])
    assert np.allclose(scorers.score_tails(name, anchor, relation, entity, **settings), tails, rtol=1e-5, atol=1e-5)
    assert np.allclose(scorers.score_heads(name, relation, anchor, entity, **settings), heads, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("name", "norm"), [key for key in LOOPS if key[0] in scorers.QUERIES and key != ("transe", 1)])
def test_products_hold_no_vector_for_each_pair(name: str, norm: int) -> None:
    """Of 64 anchors and 500 entities of 32 numbers, nothing of 64 × 500 × 32 numbers is made."""
    shapes = [jax.ShapeDtypeStruct((64, width), jnp.float32) for width in (32, scorers.relation_width(name, 32))]
    entities = jax.ShapeDtypeStruct((500, 32), jnp.float32)
    for call in (
        lambda h, r, e: scorers.score_tails(name, h, r, e, norm=norm),
        lambda h, r, e: scorers.score_heads(name, r, h, e, norm=norm),
    ):
        made = [var.aval.size for eqn in jax.make_jaxpr(call)(*shapes, entities).eqns for var in eqn.outvars]
        assert max(made) < 64 * 500 * 32 / 10


@pytest.mark.parametrize(("name", "norm"), LOOPS)
def test_gradients(name: str, norm: int) -> None:
    score = scorer(name, norm=norm, margin=3.0)
    relation = jnp.asarray(normal(2, scorers.relation_width(name, 8), seed=1))
    arguments = (jnp.asarray(normal(2, 8)), relation, jnp.asarray(normal(2, 8, seed=2)))
    check_grads(jax.jit(score), arguments, order=1, modes=("rev",), atol=1e-2, rtol=1e-2)


@pytest.mark.parametrize("name", scorers.SCORERS)
def test_gradients_are_finite_at_zero_vectors(name: str) -> None:
    zero = jnp.zeros((1, 8)), jnp.zeros((1, scorers.relation_width(name, 8))), jnp.zeros((1, 8))
    gradients = jax.grad(lambda *vectors: scorer(name)(*vectors).sum(), argnums=(0, 1, 2))(*zero)
    assert all(np.all(np.isfinite(gradient)) for gradient in gradients)


def test_widths_that_cannot_be_split() -> None:
    with pytest.raises(ValueError, match="quate: entities of 6 numbers; must be a multiple of 4"):
        scorers.relation_width("quate", 6)
    assert [scorers.relation_width(name, 8) for name in ("transe", "rotate", "rescal", "pairre")] == [8, 4, 64, 16]


def test_gradient_of_transe_exists_where_the_distance_is_zero() -> None:
    zero = jnp.zeros(4)
    for norm in (1, 2):
        gradient = jax.grad(lambda h, norm=norm: transe(h, zero, zero, norm=norm))(zero)
        assert np.all(np.isfinite(gradient))


def test_unknown_scorer() -> None:
    with pytest.raises(ValueError, match="no scorer 'transh'; valid: transe, distmult, complex"):
        scorer("transh")
