"""One against all entities, and first parameters."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fusionjax.models.scorers import Init, Sizes, base, make_scorer
from tests.models.scorer_loops import CASES, parameters

PRODUCTS = [case for case, (scorer, _) in CASES.items() if scorer.product]
BROADCAST = [case for case, (scorer, _) in CASES.items() if not scorer.product]
SHAPES = {name: Sizes(8) for name in ("transe", "distmult", "complex", "simple", "rotate", "rescal", "quate", "pairre")}


def both_sides(case: str) -> tuple[Any, Any]:
    """Scores of all entities (tails, heads), first the broadcast ones; heads only of scorers that can be asked for them."""
    scorer = CASES[case][0]
    anchor, relation, entity, shared = parameters(scorer, n_entities=7)
    every, one = [scorer.score(anchor[:, None], relation[:, None], entity[None], shared)], []
    one.append(jax.jit(scorer.score_tails)(anchor, relation, entity, shared))
    if scorer.two_sided:
        every.append(scorer.score(entity[None], relation[:, None], anchor[:, None], shared))
        one.append(jax.jit(scorer.score_heads)(relation, anchor, entity, shared))
    return every, one


@pytest.mark.parametrize("case", CASES)
def test_one_against_all_is_the_scorer(case: str) -> None:
    for expected, found in zip(*both_sides(case), strict=True):
        assert found.shape == (3, 7) and np.allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", BROADCAST)
def test_blocks_change_nothing(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of two entities, the last one half empty; also in the gradients."""
    scorer = CASES[case][0]
    arguments = parameters(scorer, n_entities=7)[:3]

    def total(anchor: Any, relation: Any, entity: Any) -> Any:
        tails, heads = scorer.score_tails(anchor, relation, entity), scorer.score_heads(relation, anchor, entity)
        return (tails**2).sum() + (heads**3).sum()

    whole = jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2)))(*arguments)
    monkeypatch.setattr(base, "BLOCK_FLOATS", 2 * 3 * 8)
    jax.clear_caches()  # the bound is read when a function is traced
    for expected, found in zip(*both_sides(case), strict=True):
        assert np.allclose(found, expected, rtol=1e-5, atol=1e-5)
    parts = jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2)))(*arguments)
    for expected, found in zip(jax.tree.leaves(whole), jax.tree.leaves(parts), strict=True):
        assert np.allclose(found, expected, rtol=1e-4, atol=1e-4)


def largest(jaxpr: Any) -> int:
    """Numbers in the largest array that a program makes, loops included."""
    sizes = [0]
    for equation in jaxpr.eqns:
        sizes += [variable.aval.size for variable in equation.outvars]
        for value in equation.params.values():
            for inner in value if isinstance(value, tuple) else (value,):
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    sizes.append(largest(inner))
    return max(sizes)


@pytest.mark.parametrize("case", CASES)
def test_no_vector_for_each_pair(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 64 anchors and 500 entities of 8 numbers, nothing of 64 × 500 × 8 numbers is made, forward or backward."""
    monkeypatch.setattr(base, "BLOCK_FLOATS", 10_000)
    scorer = CASES[case][0]
    anchor, relation, entity, shared = parameters(scorer, 64, 500)

    def total(head: Any, relation: Any, entities: Any) -> Any:
        return (scorer.score_tails(head, relation, entities, shared) ** 2).sum()

    assert largest(jax.make_jaxpr(jax.grad(total, argnums=(0, 1, 2)))(anchor, relation, entity).jaxpr) <= 64 * 500 + 64 * 64


# ------------------------------------------------------------------------------------------------------ first parameters
N_ENTITIES, N_RELATIONS = 400, 300


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("how", ["xavier_normal", "xavier_uniform", "normal", "uniform", "paper"])
def test_shapes(case: str, how: Any) -> None:
    scorer = CASES[case][0]
    found = scorer.init(jax.random.key(0), 5, 3, Init(how))
    assert found["entities"].shape == (5, scorer.entity_width) and found["relations"].shape == (3, scorer.relation_width)
    assert {name: each.shape for name, each in found["shared"].items()} == scorer.shared_shapes
    assert all(each.dtype == jnp.float32 for each in jax.tree.leaves(found))
    assert scorer.score(found["entities"][:3], found["relations"], found["entities"][2:], found["shared"]).shape == (3,)


def test_widths() -> None:
    found = {name: make_scorer(name, sizes).relation_width for name, sizes in SHAPES.items()}
    assert found == {
        "transe": 8,
        "distmult": 8,
        "complex": 8,
        "simple": 8,
        "rotate": 4,
        "rescal": 64,
        "quate": 8,
        "pairre": 16,
    }


@pytest.mark.parametrize(
    ("how", "deviation"),
    [
        (Init("normal", 0.1), 0.1),
        (Init("uniform", 0.3), 0.3 / 3**0.5),
        (Init("xavier_normal"), (2 / (N_ENTITIES + 60)) ** 0.5),
        (Init("xavier_uniform", 2.0), 2 * (2 / (N_ENTITIES + 60)) ** 0.5),
    ],
)
def test_initialisers(how: Init, deviation: float) -> None:
    """The standard deviation of 24,000 numbers, known to half a per cent; bounds where they are uniform."""
    table = make_scorer("distmult", Sizes(60)).init(jax.random.key(1), N_ENTITIES, 3, how)["entities"]
    assert float(table.std()) == pytest.approx(deviation, rel=0.03) and abs(float(table.mean())) < 4 * deviation / 24_000**0.5
    if "uniform" in how.name:
        assert float(jnp.abs(table).max()) <= deviation * 3**0.5 < 1.01 * float(jnp.abs(table).max())


def paper(name: str, **sizes: Any) -> tuple[np.ndarray, np.ndarray]:
    found = make_scorer(name, Sizes(**sizes)).init(jax.random.key(2), N_ENTITIES, N_RELATIONS)
    return np.asarray(found["entities"]), np.asarray(found["relations"])


def test_what_the_papers_say() -> None:
    entities, relations = paper("complex", dim=40)
    assert entities.std() == pytest.approx(1e-3, rel=0.03) and relations.std() == pytest.approx(1e-3, rel=0.03)
    entities, relations = paper("rotate", dim=40, margin=6.0)  # (6 + 2) / 20
    assert 0.398 < np.abs(entities).max() <= 0.4 and 3.13 < np.abs(relations).max() <= 3.1416
    entities, relations = paper("transe", dim=40)
    assert np.allclose(np.linalg.norm(entities, axis=1), 1, atol=1e-5)
    assert np.allclose(np.linalg.norm(relations, axis=1), 1, atol=1e-5)
    entities, relations = paper("simple", dim=8)  # 6 / √4
    assert 2.98 < np.abs(entities).max() <= 3 and 2.98 < np.abs(relations).max() <= 3
    entities, relations = paper("pairre", dim=40, margin=6.0)  # 8 / 40
    assert 0.199 < np.abs(entities).max() <= 0.2 and 0.199 < np.abs(relations).max() <= 0.2
    entities, _ = paper("quate", dim=8)  # moduli within 1 / √4
    moduli = np.linalg.norm(entities.reshape(-1, 4, 2), axis=1)
    assert 0.49 < moduli.max() <= 0.5 + 1e-6 and moduli.mean() == pytest.approx(0.25, rel=0.05)
    entities, _ = paper("distmult", dim=100)  # √(2 / (400 + 100))
    assert entities.std() == pytest.approx(0.0632, rel=0.03)


def test_angles_are_all_directions_whatever_the_initialiser() -> None:
    scorer = make_scorer("rotate", Sizes(40))
    assert float(scorer.init_relations(jax.random.key(0), 300, Init("normal", 0.01)).std()) == pytest.approx(1.81, rel=0.03)


def test_scale_multiplies_the_papers_own() -> None:
    scorer, key = make_scorer("simple", Sizes(8)), jax.random.key(3)
    once, twice = (scorer.init(key, 6, 5, Init("paper", scale)) for scale in (1.0, 2.0))
    assert np.allclose(2 * once["entities"], twice["entities"]) and np.allclose(2 * once["relations"], twice["relations"])


def test_unknown_initialiser() -> None:
    name: Any = "kaiming"
    with pytest.raises(ValueError, match="no initialiser 'kaiming'; valid: xavier_normal, xavier_uniform"):
        Init(name)
