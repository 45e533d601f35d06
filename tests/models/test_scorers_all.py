"""One against all entities, queries from the relation table, dropout inside scorers, and first parameters."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fusionjax.models.scorers import Dropout, Init, Sizes, base, make_scorer
from fusionjax.models.scorers.layers import dropout
from fusionjax.models.scorers.matrices import grouped_times
from tests.models.scorer_loops import CASES, normal, parameters

PRODUCTS = [case for case, (scorer, _) in CASES.items() if scorer.product]
BROADCAST = [case for case, (scorer, _) in CASES.items() if not scorer.product]


def both_sides(case: str) -> tuple[Any, Any]:
    """Scores of all entities (tails, heads), first the broadcast ones; heads only of scorers that can be asked for them."""
    scorer = CASES[case][0]
    anchor, relation, entity, shared = parameters(scorer, n_entities=7)
    every, one = [scorer.score(anchor[:, None], relation[:, None], entity[None], shared)], []
    one.append(jax.jit(scorer.score_tails)(anchor, relation, entity, shared))
    if scorer.facts.two_sided:
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


# ------------------------------------------------------------------------------------------------ queries from a table
@pytest.mark.parametrize("case", PRODUCTS)
@pytest.mark.parametrize("n_relations", [4, 60])
def test_queries_from_the_relation_table(case: str, n_relations: int) -> None:
    """40 pairs of few relations (one of them never, one mostly) and of many."""
    scorer = CASES[case][0]
    anchor, relations, _, shared = parameters(scorer, 60)
    relations = relations[:n_relations]
    number = jnp.asarray(np.random.Generator(np.random.Philox(5)).permutation([0, 2] * 4 + [n_relations - 1] * 32))
    found = jax.jit(scorer.tail_queries)(anchor[:40], number, relations, shared)
    assert np.allclose(found, scorer.tail_query(anchor[:40], relations[number], shared), rtol=1e-4, atol=1e-4)
    if scorer.facts.two_sided:
        found = jax.jit(scorer.head_queries)(number, anchor[:40], relations, shared)
        assert np.allclose(found, scorer.head_query(relations[number], anchor[:40], shared), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("counts", [[0, 100, 0], [33, 34, 33], [1, 1, 98], [16, 32, 52], [0, 0, 100], [100, 0, 0]])
def test_grouped_products(counts: list[int]) -> None:
    """Relations with no pair, with exactly full groups, and with all pairs; and the gradients."""
    number = jnp.asarray(np.random.Generator(np.random.Philox(5)).permutation(np.repeat(np.arange(3), counts)))
    rows, matrices = jnp.asarray(normal(100, 6)), jnp.asarray(normal(3, 6, 6, seed=1))
    weight = jnp.asarray(normal(100, 6, seed=2))

    def plain(rows: Any, matrices: Any) -> Any:
        return (jnp.einsum("bi,bij->bj", rows, matrices[number]) * weight).sum()

    def grouped(rows: Any, matrices: Any) -> Any:
        return (grouped_times(rows, number, matrices) * weight).sum()

    expected, found = (jax.jit(jax.value_and_grad(each, argnums=(0, 1)))(rows, matrices) for each in (plain, grouped))
    for one, other in zip(jax.tree.leaves(expected), jax.tree.leaves(found), strict=True):
        assert np.allclose(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("case", ["rescal", "tucker"])
def test_queries_from_a_table_make_no_matrix_for_each_pair(case: str) -> None:
    scorer = CASES[case][0]
    anchor, relations, _, shared = parameters(scorer, 512)
    number = jnp.zeros(512, jnp.int32)

    def total(*arguments: Any) -> Any:
        return (scorer.tail_queries(arguments[0], number, *arguments[1:]) ** 2).sum()

    made = largest(jax.make_jaxpr(jax.grad(total, argnums=(0, 1, 2)))(anchor, relations[:5], shared).jaxpr)
    assert made <= 512 * 8 * 8 / 5


# -------------------------------------------------------------------------------------------------------------- dropout
def test_dropout_layer() -> None:
    ones, key = jnp.ones((200, 50)), jax.random.key(0)
    assert dropout(ones, 0.3, None) is ones and dropout(ones, 0.0, key) is ones
    found = np.asarray(dropout(ones, 0.2, key))
    assert set(np.unique(found)) == {0.0, 1.25} and (found == 0).mean() == pytest.approx(0.2, abs=0.02)
    rows = np.asarray(dropout(ones, 0.5, key, (200, 1)))
    assert ((rows == rows[:, :1]).all()) and (rows[:, 0] == 0).mean() == pytest.approx(0.5, abs=0.15)


@pytest.mark.parametrize("name", ["tucker", "conve"])
@pytest.mark.parametrize("place", ["input", "feature_map", "hidden"])
def test_each_dropout_is_used_with_a_key_only(name: str, place: str) -> None:
    sizes = Sizes(8, height=4, filters=3, kernel=2)
    plain, scorer = (make_scorer(name, dataclasses.replace(sizes, dropout=Dropout(**{place: rate}))) for rate in (0.0, 0.5))
    anchor, relation, _, shared = parameters(scorer, 20)
    query, undropped = jax.jit(scorer.tail_query), jax.jit(plain.tail_query)
    without = undropped(anchor, relation, shared, jax.random.key(0))
    assert np.allclose(query(anchor, relation, shared), without, rtol=1e-5, atol=1e-6)
    one, same, other = (query(anchor, relation, shared, jax.random.key(seed)) for seed in (1, 1, 2))
    assert np.array_equal(one, same) and not np.allclose(one, other) and not np.allclose(one, without)
    by_table = jax.jit(scorer.tail_queries)(anchor, jnp.zeros(20, jnp.int32), relation[:1], shared, jax.random.key(1))
    assert not np.allclose(by_table, undropped(anchor, jnp.repeat(relation[:1], 20, 0), shared))


def test_tucker_is_its_mean_over_masks() -> None:
    """It is linear in what is dropped."""
    sizes = Sizes(8, relation_dim=5, dropout=Dropout(0.3, 0.2, 0.4))
    scorer = make_scorer("tucker", sizes)
    anchor, relation, _, shared = parameters(scorer, 1)
    keys = jax.random.split(jax.random.key(3), 4000)
    mean = jax.vmap(lambda key: scorer.tail_query(anchor[0], relation[0], shared, key))(keys).mean(0)
    whole = scorer.tail_query(anchor[0], relation[0], shared)
    assert np.allclose(mean, whole, atol=0.15 * float(jnp.abs(whole).max()))


# ------------------------------------------------------------------------------------------------------ first parameters
N_ENTITIES, N_RELATIONS = 400, 300


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("how", ["xavier_uniform", "paper"])
def test_shapes(case: str, how: Any) -> None:
    scorer = CASES[case][0]
    found = jax.jit(lambda key: scorer.init(key, 5, 3, Init(how)))(jax.random.key(0))
    assert found["entities"].shape == (5, scorer.entity_width) and found["relations"].shape == (3, scorer.relation_width)
    assert {name: each.shape for name, each in found["shared"].items()} == scorer.shared_shapes
    assert all(each.dtype == jnp.float32 for each in jax.tree.leaves(found))
    assert scorer.score(found["entities"][:3], found["relations"], found["entities"][2:], found["shared"]).shape == (3,)


def test_widths() -> None:
    found = {case: (scorer.entity_width, scorer.relation_width) for case, (scorer, _) in CASES.items()}
    others = {"rotate": (8, 4), "rotate_l2": (8, 4), "rescal": (8, 64), "pairre": (8, 16), "tucker": (8, 5), "conve": (9, 8)}
    assert found == {case: others.get(case, (8, 8)) for case in CASES}
    assert make_scorer("tucker", Sizes(6)).relation_width == 6
    # The paper's own: 200 numbers are an image of 20 × 10; 32 filters of 3 × 3 have 38 × 8 places.
    assert make_scorer("conve", Sizes(200)).shared_shapes["dense"] == (38 * 8 * 32, 200)


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
    scorer = make_scorer(name, Sizes(**sizes))
    found = jax.jit(lambda key: scorer.init(key, N_ENTITIES, N_RELATIONS))(jax.random.key(2))
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
    core = np.asarray(make_scorer("tucker", Sizes(20)).init(jax.random.key(2), 5, 3)["shared"]["core"])
    assert 0.999 < np.abs(core).max() <= 1 and core.std() == pytest.approx(3**-0.5, rel=0.03)
    found = make_scorer("conve", Sizes(100)).init(jax.random.key(2), 400, 3, Init("normal"))
    assert not found["entities"][:, -1].any() and float(found["entities"][:, :-1].std()) == pytest.approx(1, rel=0.03)
    dense = np.asarray(found["shared"]["dense"])  # 18 × 8 places × 32 filters
    assert 0.99 * 4608**-0.5 < np.abs(dense).max() <= 4608**-0.5


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
