"""What each tower may and may not look at."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fusionjax.models.towers import ProductTower, QueryTower, UserTower

DIM, LENGTH = 8, 6


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.Generator(np.random.Philox(seed)).normal(size=shape).astype(np.float32)


def randomised(params: Any, scale: float = 0.5) -> Any:
    """The same tree full of noise: initial zeros hide what a part does."""
    generator = np.random.Generator(np.random.Philox(9))
    return jax.tree.map(lambda leaf: scale * generator.normal(size=leaf.shape).astype(np.float32), params)


# --------------------------------------------------------------------------------------------------------------- product
TEXT, ENTITY, YES, NO = normal(4, 5), normal(4, 3, seed=1), np.ones(4, bool), np.zeros(4, bool)


@pytest.fixture(scope="module")
def fusion() -> tuple[ProductTower, Any]:
    tower = ProductTower(DIM, ("entity", "text"), align=True)
    return tower, randomised(tower.init(jax.random.key(0), TEXT, ENTITY, YES, YES)["params"])


def sides(tower: ProductTower, params: Any) -> tuple[np.ndarray, np.ndarray]:
    text = tower.apply({"params": params}, "text", TEXT, YES, method="side")
    entity = tower.apply({"params": params}, "entity", ENTITY, YES, method="side")
    return np.asarray(text), np.asarray(entity)


def test_the_gate_lies_between_text_and_entity(fusion: tuple[ProductTower, Any]) -> None:
    tower, params = fusion
    text, entity = sides(tower, params)
    both = np.asarray(tower.apply({"params": params}, TEXT, ENTITY, YES, YES))
    share = (both - entity) / (text - entity)
    assert np.all((share > 0) & (share < 1))
    assert share.std() > 0.05  # not one number for all
    # By hand: the gate reads both sides and both flags.
    kernel, bias = (np.asarray(params["gate"][name]) for name in ("kernel", "bias"))
    logits = np.concatenate([text, entity, np.ones((4, 2), np.float32)], axis=1) @ kernel + bias
    assert np.allclose(share, 1 / (1 + np.exp(-logits)), atol=1e-4)


def test_a_missing_source_is_a_learnt_vector(fusion: tuple[ProductTower, Any]) -> None:
    tower, params = fusion

    def run(text: np.ndarray, entity: np.ndarray, has_text: np.ndarray, has_entity: np.ndarray) -> np.ndarray:
        return np.asarray(tower.apply({"params": params}, text, entity, has_text, has_entity))

    other = normal(4, 5, seed=7)
    assert np.array_equal(run(TEXT, ENTITY, NO, YES), run(other, ENTITY, NO, YES))  # what is missing is not read …
    assert not np.allclose(run(TEXT, ENTITY, YES, YES), run(other, ENTITY, YES, YES))
    assert np.array_equal(run(TEXT, ENTITY, YES, NO), run(TEXT, normal(4, 3, seed=8), YES, NO))
    nothing = run(TEXT, ENTITY, NO, NO)
    assert np.allclose(nothing, nothing[:1])  # … and a product of which nothing is known is like any other such
    text, entity = (np.asarray(params[f"{name}_missing"]) for name in ("text", "entity"))
    low, high = np.minimum(text, entity), np.maximum(text, entity)
    assert np.all((nothing > low) & (nothing < high))
    part = np.asarray(tower.apply({"params": params}, "text", TEXT, np.array([True, False, True, False]), method="side"))
    assert np.array_equal(part[1], params["text_missing"]) and np.array_equal(part[3], params["text_missing"])
    # Row by row: one product's gap changes no other.
    mixed = run(TEXT, ENTITY, np.array([True, False, True, True]), YES)
    assert np.array_equal(mixed[[0, 2, 3]], run(TEXT, ENTITY, YES, YES)[[0, 2, 3]])


def test_a_tower_of_one_source_has_no_parts_of_the_other() -> None:
    tower = ProductTower(DIM, ("entity",), align=False)
    params = tower.init(jax.random.key(0), None, ENTITY, NO, YES)["params"]
    assert sorted(params) == ["entity_missing", "entity_norm", "entity_projection"]
    assert np.asarray(tower.apply({"params": params}, None, ENTITY, NO, YES)).shape == (4, DIM)
    with pytest.raises(ValueError, match="reads 'entity', and got none"):
        tower.apply({"params": params}, None, None, NO, YES)
    aligned = ProductTower(DIM, ("text",), align=True)
    names = aligned.init(jax.random.key(0), method=lambda m: (m.side("text", TEXT, YES), m.side("entity", ENTITY, YES)))[
        "params"
    ]
    assert {"text_projection", "entity_projection"} <= set(names) and "gate" not in names


# ----------------------------------------------------------------------------------------------------------------- query
def test_a_query_is_read_as_a_title_at_first() -> None:
    tower, title = QueryTower(DIM, shared=True), normal(4, DIM, seed=2)
    params = tower.init(jax.random.key(0), TEXT, title)["params"]
    assert np.array_equal(np.asarray(tower.apply({"params": params}, TEXT, title)), title)
    assert not np.allclose(np.asarray(tower.apply({"params": randomised(params)}, TEXT, title)), title)
    with pytest.raises(ValueError, match="needs the query read as a title"):
        tower.apply({"params": params}, TEXT, None)


def test_a_query_has_its_own_projection_where_products_have_no_text() -> None:
    tower = QueryTower(DIM, shared=False)
    params = tower.init(jax.random.key(0), TEXT, None)["params"]
    out = np.asarray(tower.apply({"params": params}, TEXT, None))
    assert np.allclose(out.mean(1), 0, atol=1e-5) and np.allclose(out.std(1), 1, atol=1e-2)


# ------------------------------------------------------------------------------------------------------------------ user
class Users:
    """A user tower with noise for parameters, and two users' histories: six events, three events."""

    def __init__(self, **changes: Any) -> None:
        sizes: dict[str, Any] = {"history": LENGTH, "layers": 2, "heads": 2, "dropout": 0.5, "n_kinds": 4}
        self.tower = UserTower(DIM, **{**sizes, "profile_sizes": (3, 2), "recency": True, **changes})
        self.events: dict[str, np.ndarray] = {
            "products": normal(2, LENGTH, DIM),
            "kind": np.array([[0, 1, 2, 3, 0, 1], [1, 1, 0, 0, 0, 0]], np.int32),
            "time": np.array([[0, 10, 500, 9000, 10**6, 10**6 + 5], [0, 3, 100, 0, 0, 0]], np.int32),
            "valid": np.array([[True] * 6, [True] * 3 + [False] * 3]),
            "profile": np.array([[1, 1], [0, 0]], np.int32),
        }
        self.params = randomised(jax.eval_shape(self.tower.init, jax.random.key(0), *self.events.values())["params"])
        self.apply = jax.jit(lambda params, *events: self.tower.apply({"params": params}, *events))

    def __call__(self, **changes: np.ndarray) -> np.ndarray:
        return np.asarray(self.apply(self.params, *{**self.events, **changes}.values()))

    def changed(self, name: str, place: int, value: Any) -> np.ndarray:
        """Outputs after one event of user 0 is changed."""
        column = self.events[name].copy()
        column[0, place] = value
        return self(**{name: column})


@pytest.fixture(scope="module")
def users() -> Users:
    return Users()


def test_one_vector_before_and_after_every_event(users: Users) -> None:
    assert users().shape == (2, LENGTH + 1, DIM)


def test_no_event_changes_what_is_said_before_it(users: Users) -> None:
    before = users()
    for place in range(LENGTH):
        for after in (
            users.changed("products", place, 5.0),
            users.changed("kind", place, (users.events["kind"][0, place] + 1) % 4),
            # Times only grow: this event and all later ones come a day later.
            users(time=users.events["time"] + np.array([[86400], [0]]) * (np.arange(LENGTH) >= place)[None]),
        ):
            assert np.array_equal(after[0, : place + 1], before[0, : place + 1])
            assert np.array_equal(after[1], before[1])  # nor what is said of somebody else
        assert not np.allclose(users.changed("products", place, 5.0)[0, place + 1 :], before[0, place + 1 :])


def test_kind_and_recency_matter(users: Users) -> None:
    before = users()
    assert np.abs(users.changed("kind", 2, 0) - before)[0, 3:].max(axis=-1).min() > 1e-4
    later = users.events["time"] + np.array([[86400], [0]]) * (np.arange(LENGTH) >= 4)[None]
    assert np.abs(users(time=later) - before)[0, 5:].max(axis=-1).min() > 1e-4
    # Only gaps are read, not the calendar.
    assert np.array_equal(users(time=users.events["time"] + np.int32(12345)), before)


def test_kind_and_recency_can_be_switched_off() -> None:
    blind = Users(n_kinds=0, recency=False, profile_sizes=())
    before = blind()
    assert np.array_equal(blind.changed("kind", 2, 0), before)
    assert np.array_equal(blind(time=blind.events["time"] * 7), before)
    assert np.array_equal(blind(profile=np.zeros((2, 0), np.int32)), before)
    assert not {"kind", "recency", "profile_0"} & set(blind.params)


def test_invalid_positions_are_ignored(users: Users) -> None:
    """User 1 has three events: what stands behind them must not reach the output after them."""
    before = users()
    products = users.events["products"].copy()
    products[1, 3:] = 99.0
    kind, time = users.events["kind"].copy(), users.events["time"].copy()
    kind[1, 3:], time[1, 3:] = 3, 10**7
    assert np.array_equal(users(products=products, kind=kind, time=time)[1, :4], before[1, :4])
    # And the same history without the empty places behind it gives the same vectors.
    short = {name: column[1:, :3] for name, column in users.events.items() if name != "profile"}
    alone = users(**short, profile=users.events["profile"][1:])
    assert np.allclose(alone[0], before[1, :4], atol=1e-5)


def test_invalid_places_in_the_middle_are_not_attended_to(users: Users) -> None:
    valid = users.events["valid"].copy()
    valid[0, 1] = False
    products = users.events["products"].copy()
    products[0, 1] = -50.0
    assert np.array_equal(users(valid=valid, products=products)[0, 3:], users(valid=valid)[0, 3:])


def test_a_user_without_events_has_a_vector_of_the_profile(users: Users) -> None:
    nobody = users(valid=np.zeros((2, LENGTH), bool))
    assert np.all(np.isfinite(nobody))
    assert np.abs(nobody[0, 0] - nobody[1, 0]).max() > 1e-3  # profiles differ
    alike = users(valid=np.zeros((2, LENGTH), bool), profile=np.array([[2, 1], [2, 1]], np.int32))
    assert np.allclose(alike[0, 0], alike[1, 0], atol=1e-6)


def test_order_matters(users: Users) -> None:
    products = users.events["products"][:, ::-1]
    assert np.abs(users(products=products)[0, -1] - users()[0, -1]).max() > 1e-3


def test_gradients_are_finite(users: Users) -> None:
    def loss(params: Any) -> jax.Array:
        out = users.tower.apply({"params": params}, *(jnp.asarray(column) for column in users.events.values()))
        assert isinstance(out, jax.Array)
        return (out**2 * jnp.arange(DIM)[None, None]).sum()

    gradients = jax.jit(jax.grad(loss))(users.params)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(gradients))
    assert all(np.any(leaf) for leaf in jax.tree.leaves(gradients["layer_0"]["query"]))
