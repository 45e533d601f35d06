"""Scorers against loops, by hand, in their algebra and their gradients."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from fusionjax.models.scorers import SCORERS, Scorer, Sizes, make_scorer
from tests.models.scorer_loops import CASES, parameters


def value(name: str, head: list[float], relation: list[float], tail: list[float], **sizes: Any) -> float:
    """Score of one triple without shared parameters."""
    scorer = make_scorer(name, Sizes(len(head), **sizes))
    return float(scorer.score(jnp.array(head), jnp.array(relation), jnp.array(tail)))


# ------------------------------------------------------------------------------------------------------------- by hand
def test_transe_by_hand() -> None:
    # h + r − t = (3, −4)
    assert value("transe", [1, 2], [3, -1], [1, 5], norm=1) == -7.0
    assert value("transe", [1, 2], [3, -1], [1, 5], norm=2) == -5.0
    assert value("transe", [1, 2], [3, -1], [1, 5], norm=2, margin=9.0) == 4.0
    assert value("transe", [1, 2], [3, -1], [4, 1], norm=1, margin=9.0) == 9.0
    assert value("transe", [1, 2], [3, -1], [4, 1], norm=2, margin=9.0) == pytest.approx(9.0, abs=1e-5)


def test_distmult_by_hand() -> None:
    assert value("distmult", [1, 2], [3, -1], [2, 4]) == 6 - 8


def test_complex_by_hand() -> None:
    # (1 + 2i)(3 − i) = 5 + 5i; times conj(2 + 4i) = (5 + 5i)(2 − 4i) = 30 − 10i.
    assert value("complex", [1, 2], [3, -1], [2, 4]) == 30.0
    # The first half is real, the second imaginary: (1 + 3i)·1·conj(1 + 3i) + (2 + 0i)·1·conj(2 + 0i) = 10 + 4.
    assert value("complex", [1, 2, 3, 0], [1, 1, 0, 0], [1, 2, 3, 0]) == 14.0


def test_simple_by_hand() -> None:
    # Halves: h = (2 | 3), r = (5 | 7), t = (11 | 13); ½ (2·5·13 + 11·7·3).
    assert value("simple", [2, 3], [5, 7], [11, 13]) == (130 + 231) / 2


def test_rotate_by_hand() -> None:
    # (1 + 0i) turned by 90° is i; from there to 3 + 5i it is |3 + 4i| = 5.
    assert value("rotate", [1, 0], [np.pi / 2], [3, 5], margin=6.0) == pytest.approx(1.0, abs=1e-5)


def test_rotate_l2_by_hand() -> None:
    # The same beside (2 + 0i) turned by 180°, −2, which is 12 from 10: √(5² + 12²) = 13, where RotatE's sum is 17.
    triple: Any = [1, 2, 0, 0], [np.pi / 2, np.pi], [3, 10, 5, 0]
    assert value("rotate_l2", *triple, margin=14.0) == pytest.approx(1.0, abs=1e-5)
    assert value("rotate", *triple, margin=14.0) == pytest.approx(-3.0, abs=1e-5)


def test_rescal_by_hand() -> None:
    # (1 2) · [[1 2] [3 4]] = (7 10); · (5 6) = 95.
    assert value("rescal", [1, 2], [1, 2, 3, 4], [5, 6]) == 95.0


def test_quate_by_hand() -> None:
    # i ⊗ j = k, whatever the length of j.
    i, j, k = ([float(axis == place) for place in range(4)] for axis in (1, 2, 3))
    assert value("quate", i, [3 * each for each in j], [5 * each for each in k]) == pytest.approx(5.0)
    assert value("quate", j, [3 * each for each in i], [5 * each for each in k]) == pytest.approx(-5.0)


def test_pairre_by_hand() -> None:
    # Entities on the unit sphere: (.6 .8), (1 0); |.6·1 − 1·2| + |.8·5 − 0·7| = 1.4 + 4.
    assert value("pairre", [3, 4], [1, 5, 2, 7], [9, 0], margin=6.0) == pytest.approx(0.6, abs=1e-5)


def test_tucker_by_hand() -> None:
    # 2·[[1 2] [3 4]] + 1·[[0 1] [1 0]] = [[2 5] [7 8]]; (1 2) · that = (16 21); · (5 6) = 206.
    core = jnp.array([[[1.0, 2.0], [3.0, 4.0]], [[0.0, 1.0], [1.0, 0.0]]])
    head, relation, tail = jnp.array([1.0, 2.0]), jnp.array([2.0, 1.0]), jnp.array([5.0, 6.0])
    assert float(make_scorer("tucker", Sizes(2)).score(head, relation, tail, {"core": core})) == 206.0


def test_conve_by_hand() -> None:
    """Images of 1 × 2, one filter of one pixel, so four places."""
    scorer = make_scorer("conve", Sizes(2, height=1, filters=1, kernel=1))
    shared = scorer.init_shared(jax.random.key(0))
    # (1 1 | 3 3) → (−1 −1 1 1); times 2 and standard again, rectified: (0 0 1 1).
    shared["filters"] = jnp.array([[2.0]])
    # Third and fourth row: (1 4) + (2 5) = (3 9) → (−1 1); + (3 1) = (2 2).
    shared["dense"] = jnp.array([[7.0, 7.0], [8.0, 8.0], [1.0, 4.0], [2.0, 5.0]])
    shared["query_offset"] = jnp.array([3.0, 1.0])
    # (2 2) · (10 20) and the tail's bias 5; the head's own bias 99 plays no part.
    score = scorer.score(jnp.array([1.0, 1.0, 99.0]), jnp.array([3.0, 3.0]), jnp.array([10.0, 20.0, 5.0]), shared)
    assert float(score) == pytest.approx(65.0, rel=1e-4)


# --------------------------------------------------------------------------------------------------------------- loops
def test_every_scorer_has_a_loop() -> None:
    assert {scorer.name for scorer, _ in CASES.values()} == set(SCORERS)


@pytest.mark.parametrize("case", CASES)
def test_scorers_are_their_loops_and_broadcast(case: str) -> None:
    scorer, loop = CASES[case]
    arguments = parameters(scorer)
    anchor, relation, entity, shared = jax.tree.map(np.asarray, arguments)
    score = jax.jit(lambda head, relation, tail: scorer.score(head, relation, tail, arguments[3]))
    tails = np.array([[loop(h, r, t, shared) for t in entity] for h, r in zip(anchor, relation, strict=True)])
    heads = np.array([[loop(e, r, t, shared) for e in entity] for t, r in zip(anchor, relation, strict=True)])
    assert np.allclose(score(anchor[:, None], relation[:, None], entity[None]), tails, rtol=1e-5, atol=1e-5)
    assert np.allclose(score(entity[None], relation[:, None], anchor[:, None]), heads, rtol=1e-5, atol=1e-5)
    assert np.allclose(score(anchor, relation, entity[:3]), np.diagonal(tails[:, :3]), rtol=1e-5, atol=1e-5)
    assert score(anchor[0], relation[0], entity[0]).shape == ()
    assert score(anchor[:, None, None], relation[None, :, None], entity[None, None]).shape == (3, 3, 5)


# ------------------------------------------------------------------------------------------------------------- algebra
def swapped(case: str, change: Any = lambda relation: relation) -> tuple[np.ndarray, np.ndarray]:
    """Scores of some triples, and of them with the ends exchanged and the relation changed."""
    scorer = CASES[case][0]
    head, relation, tail, shared = parameters(scorer, 4, 4)
    return np.asarray(scorer.score(head, relation, tail, shared)), np.asarray(
        scorer.score(tail, change(relation), head, shared)
    )


def test_distmult_is_symmetric() -> None:
    assert np.allclose(*swapped("distmult"), atol=1e-5)


@pytest.mark.parametrize(
    ("case", "inverse"),
    [
        ("complex", lambda r: jnp.concatenate([r[:, :4], -r[:, 4:]], 1)),  # the conjugate
        ("simple", lambda r: jnp.concatenate([r[:, 4:], r[:, :4]], 1)),  # the other half
        ("rotate", lambda r: -r),
        ("rotate_l2", lambda r: -r),
        ("rescal", lambda r: r.reshape(-1, 8, 8).transpose(0, 2, 1).reshape(-1, 64)),
        ("quate", lambda r: jnp.concatenate([r[:, :2], -r[:, 2:]], 1)),  # the conjugate
        ("pairre", lambda r: jnp.concatenate([r[:, 8:], r[:, :8]], 1)),
        ("transe-1", lambda r: -r),
        ("transe-2", lambda r: -r),
    ],
)
def test_inverse_relations(case: str, inverse: Any) -> None:
    """Each of these tells the two directions apart, and has a relation that scores them the other way round."""
    there, back = swapped(case)
    assert np.abs(there - back).min() > 1e-3
    assert np.allclose(*swapped(case, inverse), rtol=1e-5, atol=1e-5)


def test_complex_with_a_real_relation_is_symmetric() -> None:
    scorer = CASES["complex"][0]
    head, relation, tail, _ = parameters(scorer, 4, 4)
    relation = relation.at[:, 4:].set(0)
    assert np.allclose(scorer.score(head, relation, tail), scorer.score(tail, relation, head), atol=1e-5)


def test_rotate_keeps_lengths_and_adds_angles() -> None:
    """A turn by θ and then by φ is a turn by θ + φ: h turned by both is where the score is the margin."""
    scorer = make_scorer("rotate", Sizes(8, margin=2.0))
    head, angle, *_ = parameters(scorer, 1)
    vector = (head[:, :4] + 1j * head[:, 4:]) * jnp.exp(1j * angle) * jnp.exp(0.7j)
    tail = jnp.concatenate([vector.real, vector.imag], 1)
    assert float(scorer.score(head, angle + 0.7, tail)[0]) == pytest.approx(2.0, abs=1e-5)


def test_rescal_with_a_diagonal_matrix_is_distmult() -> None:
    head, relation, tail, _ = parameters(CASES["distmult"][0], 3, 3)
    matrices = jnp.stack([jnp.diag(row).reshape(-1) for row in relation])
    by_matrix = CASES["rescal"][0].score(head, matrices, tail)
    assert np.allclose(by_matrix, CASES["distmult"][0].score(head, relation, tail), atol=1e-5)


def test_tucker_with_a_diagonal_core_is_distmult_and_with_its_matrices_rescal() -> None:
    head, relation, tail, _ = parameters(CASES["distmult"][0], 3, 3)
    place = jnp.arange(8)
    core = jnp.zeros((8, 8, 8)).at[place, place, place].set(1.0)
    found = make_scorer("tucker", Sizes(8)).score(head, relation, tail, {"core": core})
    assert np.allclose(found, CASES["distmult"][0].score(head, relation, tail), atol=1e-5)
    scorer = CASES["tucker"][0]
    head, relation, tail, shared = parameters(scorer, 3, 3)
    matrices = jnp.einsum("bk,kij->bij", relation, shared["core"]).reshape(3, 64)
    by_matrix = CASES["rescal"][0].score(head, matrices, tail)
    assert np.allclose(by_matrix, scorer.score(head, relation, tail, shared), atol=1e-4)


# ------------------------------------------------------------------------------------------------------------ gradients
@pytest.mark.parametrize("case", CASES)
def test_gradients(case: str) -> None:
    scorer = CASES[case][0]
    arguments = parameters(scorer, 2, 2)
    check_grads(jax.jit(scorer.score), arguments, order=1, modes=("rev",), atol=1e-2, rtol=1e-2)


@pytest.mark.parametrize("case", CASES)
def test_gradients_are_finite_at_zero_vectors(case: str) -> None:
    """Also where a distance is 0, and of what N3 penalises."""
    scorer = CASES[case][0]
    zero = jax.tree.map(jnp.zeros_like, parameters(scorer, 1, 1))

    def total(head: Any, relation: Any, tail: Any, shared: Any) -> Any:
        penalty = sum((each**3).sum() for each in scorer.factors(head, relation, tail))
        return scorer.score(head, relation, tail, shared).sum() + penalty

    gradients = jax.tree.leaves(jax.jit(jax.grad(total, argnums=(0, 1, 2, 3)))(*zero))
    assert all(np.all(np.isfinite(gradient)) for gradient in gradients)


# ------------------------------------------------------------------------------------------------------------ penalties
def test_factors_by_hand() -> None:
    # ComplEx: |3 + 4i| = 5, |5 + 12i| = 13, |8 + 15i| = 17.
    head, relation, tail = (jnp.array(each) for each in ([3.0, 4.0], [5.0, 12.0], [8.0, -15.0]))
    found = make_scorer("complex", Sizes(2)).factors(head, relation, tail)
    assert [each.tolist() for each in found] == [[5.0], [13.0], [17.0]]
    # RotatE: relations have modulus 1.
    found = make_scorer("rotate", Sizes(2)).factors(jnp.array([3.0, 4.0]), jnp.array([0.3]), jnp.array([-6.0, 8.0]))
    assert [each.tolist() for each in found] == [[5.0], [1.0], [10.0]]
    # QuatE: |1 + 1i + 1j + 1k| = 2.
    one, two = jnp.array([1.0, 1.0, 1.0, 1.0]), jnp.array([2.0, -2.0, 2.0, -2.0])
    assert [each.tolist() for each in make_scorer("quate", Sizes(4)).factors(one, two, one)] == [[2.0], [4.0], [2.0]]
    # RESCAL: ‖(3 4)‖ = 5, ‖[[1 1] [1 1]]‖ = 2.
    found = make_scorer("rescal", Sizes(2)).factors(jnp.array([3.0, 4.0]), jnp.ones(4), jnp.array([0.0, -1.0]))
    assert [each.tolist() for each in found] == [[5.0], [2.0], [1.0]]
    found = make_scorer("distmult", Sizes(1)).factors(jnp.array([-3.0]), jnp.array([2.0]), jnp.array([-1.0]))
    assert [each.tolist() for each in found] == [[3.0], [2.0], [1.0]]


# --------------------------------------------------------------------------------------------------------------- errors
def test_wrong_sizes_and_names() -> None:
    with pytest.raises(ValueError, match=r"no scorer 'transh'; did you mean 'transe'\?"):
        make_scorer("transh", Sizes(8))
    with pytest.raises(ValueError, match="quate: entities of 6 numbers; must be a multiple of 4"):
        make_scorer("quate", Sizes(6))
    with pytest.raises(ValueError, match="transe: norm 3; must be 1 or 2"):
        make_scorer("transe", Sizes(6, norm=3))
    with pytest.raises(ValueError, match="pairre has no query"):
        make_scorer("pairre", Sizes(6)).tail_query(jnp.ones(6), jnp.ones(12))
    with pytest.raises(ValueError, match="conve: entities of 10 numbers; must be a multiple of the 4 rows"):
        make_scorer("conve", Sizes(10, height=4))
    with pytest.raises(ValueError, match="conve: images of 8 × 2 numbers are smaller than filters of 3 × 3"):
        make_scorer("conve", Sizes(8, height=4))
    with pytest.raises(ValueError, match="conve scores tails only"):
        make_scorer("conve", Sizes(200)).head_query(jnp.ones(200), jnp.ones(201))
    with pytest.raises(ValueError, match="tucker: its shared parameters are missing: core"):
        make_scorer("tucker", Sizes(6)).score(jnp.ones(6), jnp.ones(6), jnp.ones(6))


def test_scorers_are_equal_if_their_sizes_are() -> None:
    """A scorer is static under jit: an equal one must not compile anew, another must not be taken for it."""
    one, same, other = (make_scorer("complex", Sizes(dim)) for dim in (8, 8, 16))
    assert one == same and hash(one) == hash(same) and one != other
    assert make_scorer("distmult", Sizes(8)) != one
    assert isinstance(one, Scorer)
