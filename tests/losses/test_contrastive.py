"""Losses of matching pairs against loops and values worked by hand; by blocks, on several devices, against differences."""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from tests.losses.loops import (
    LN2,
    agree_with_differences,
    cosine,
    info_nce_loop,
    mean,
    normal,
    objectives,
    pairs_loop,
    siglip_loop,
    triplet_loop,
)

B, P, N = 8, 5, 4
LEFT, RIGHT, NEGATIVES = normal(B, P), normal(B, P, seed=1), normal(N, P, seed=2)
POSITIVES, HIDDEN = normal(B, B, seed=3) > 0.8, normal(B, N, seed=4) > 0.3
VALID, YES = np.array([True, True, False, True, True, False, True, True]), np.ones(B, bool)
SCALE, BIAS, MARGIN = 5.0, -1.5, 0.4
NUMBERS = np.array([SCALE, BIAS, MARGIN], np.float32)

LOSSES: dict[str, Callable[..., Any]] = {
    "info_nce": objectives.info_nce,
    "info_nce forth": functools.partial(objectives.info_nce, directions="forth"),
    "siglip": objectives.siglip,
    "triplet": objectives.triplet,
    "triplet hardest": functools.partial(objectives.triplet, hardest=True),
}
# The loop of each as (numbers, left, right, positives, valid, negatives, hidden_negatives).
LOOPS_AT: dict[str, Callable[..., float]] = {
    "info_nce": lambda at, left, right, *rest: info_nce_loop(left, right, at[0], *rest),
    "info_nce forth": lambda at, left, right, *rest: info_nce_loop(left, right, at[0], *rest, directions="forth"),
    "siglip": lambda at, left, right, *rest: siglip_loop(left, right, at[0], at[1], *rest),
    "triplet": lambda at, left, right, known, valid, *rest: triplet_loop(left, right, known, valid, at[2], *rest),
    "triplet hardest": lambda at, left, right, known, valid, *rest: triplet_loop(
        left, right, known, valid, at[2], *rest, hardest=True
    ),
}
LOOPS = {name: functools.partial(loop, (SCALE, BIAS, MARGIN)) for name, loop in LOOPS_AT.items()}
every_loss = pytest.mark.parametrize("name", LOSSES)


def loss_of(
    name: str,
    left: Any = LEFT,
    right: Any = RIGHT,
    numbers: Any = NUMBERS,
    negatives: Any = None,
    positives: Any = None,
    valid: Any = YES,
    hidden_negatives: Any = None,
    block: int = 0,
) -> Any:
    """Any of the losses, called alike."""
    more: dict[str, Any] = {"margin": numbers[2]} if name.startswith("triplet") else {"scale": numbers[0]}
    if name == "siglip":
        more["bias"] = numbers[1]
    masks = {"positives": positives, "valid": valid, "hidden_negatives": hidden_negatives}
    return LOSSES[name](left, right, negatives=negatives, block=block, **masks, **more)


# Compiled once for all tests that mask alike, and compiling is most of what they cost.
@functools.partial(jax.jit, static_argnames=("name", "block"))
def _step(name: str, vectors: Any, masks: Any, block: int) -> Any:
    return jax.value_and_grad(lambda vectors: loss_of(name, **vectors, **masks, block=block))(vectors)


def _split(arguments: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What can learn, and what cannot."""
    vectors = {"left": LEFT, "right": RIGHT, "numbers": NUMBERS, "negatives": None} | arguments
    masks = {key: vectors.pop(key, None) for key in ("positives", "hidden_negatives")}
    return vectors, masks | {"valid": vectors.pop("valid", YES)}


def step(name: str, block: int = 0, **arguments: Any) -> tuple[float, dict[str, np.ndarray]]:
    """Value, and gradient by argument."""
    loss, gradient = _step(name, *_split(arguments), block)
    return float(loss), {key: np.asarray(of) for key, of in gradient.items() if of is not None}


def value(name: str, block: int = 0, **arguments: Any) -> float:
    return step(name, block, **arguments)[0]


def close(a: Any, b: Any, relative: float = 1e-5) -> bool:
    """Arrays, tree by tree, whose largest difference is small beside the largest entry."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(np.abs(np.asarray(x) - np.asarray(y)).max() <= relative * np.abs(np.asarray(y)).max() for x, y in pairs)


# ------------------------------------------------------------------------------------------------------------- every loss
@every_loss
def test_every_loss_is_its_loop_whatever_is_masked(name: str) -> None:
    none, shown = np.zeros((B, B), bool), np.zeros((B, N), bool)
    situations = [
        (None, YES, None, None),
        (None, VALID, None, None),
        (None, YES, NEGATIVES, None),
        (POSITIVES, YES, NEGATIVES, ~shown),
        (none, YES, NEGATIVES, HIDDEN),
        (POSITIVES, VALID, NEGATIVES, HIDDEN),
    ]
    losses = []
    for positives, valid, negatives, hidden in situations:
        loop = LOOPS[name](LEFT, RIGHT, positives, valid, negatives, hidden)
        losses.append(value(name, positives=positives, valid=valid, negatives=negatives, hidden_negatives=hidden))
        assert losses[-1] == pytest.approx(loop, rel=1e-5)
    # No mask is without effect on these numbers; the hardest negative may stay the hardest.
    assert name == "triplet hardest" or np.diff(sorted(losses)).min() > 1e-3
    assert len({round(loss, 4) for loss in losses}) > 3


@every_loss
def test_no_mask_is_one_of_nothing_and_the_diagonal_of_positives_is_not_looked_at(name: str) -> None:
    without, hidden = value(name, valid=VALID, negatives=NEGATIVES), np.zeros((B, N), bool)
    for positives in (np.zeros((B, B), bool), np.eye(B, dtype=bool)):
        masked = value(name, positives=positives, valid=VALID, negatives=NEGATIVES, hidden_negatives=hidden)
        assert masked == pytest.approx(without, rel=1e-6)


@every_loss
def test_invalid_rows_neither_count_nor_learn(name: str) -> None:
    further = {"negatives": NEGATIVES, "hidden_negatives": HIDDEN}
    loss, gradient = step(name, positives=POSITIVES, valid=VALID, **further)
    for side in ("left", "right"):
        assert np.all(gradient[side][~VALID] == 0)
        assert np.any(gradient[side][VALID] != 0)
    invalid = ~VALID[:, None]
    moved = {"left": np.where(invalid, LEFT + 3, LEFT), "right": np.where(invalid, RIGHT + 3, RIGHT)}
    known = np.where(invalid | invalid.T, ~POSITIVES, POSITIVES)
    assert step(name, **moved, positives=known, valid=VALID, **further)[0] == loss
    loss, gradient = step(name, positives=POSITIVES, valid=~YES, **further)
    assert loss == 0.0
    assert not any(np.any(of) for of in gradient.values())


@every_loss
def test_lengths_do_not_matter(name: str) -> None:
    masks = {"positives": POSITIVES, "valid": VALID, "hidden_negatives": HIDDEN}
    longer = value(name, left=LEFT * 7, right=RIGHT * np.float32(0.1), negatives=NEGATIVES * 3, **masks)
    assert longer == pytest.approx(value(name, negatives=NEGATIVES, **masks), rel=1e-5)


@every_loss
def test_a_negative_hidden_from_every_row_might_as_well_not_be_there(name: str) -> None:
    """All hidden but number 1; then all."""
    hidden = np.tile([True, False, True, True], (B, 1))
    loss, gradient = step(name, positives=POSITIVES, valid=VALID, negatives=NEGATIVES, hidden_negatives=hidden)
    assert loss == pytest.approx(LOOPS[name](LEFT, RIGHT, POSITIVES, VALID, NEGATIVES[1:2]), rel=1e-5)
    assert [bool(np.any(row)) for row in gradient["negatives"]] == [False, True, False, False]
    loss = value(name, positives=POSITIVES, valid=VALID, negatives=NEGATIVES, hidden_negatives=np.ones((B, N), bool))
    assert loss == pytest.approx(LOOPS[name](LEFT, RIGHT, POSITIVES, VALID), rel=1e-5)


@every_loss
def test_hidden_negatives_without_negatives_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="hidden_negatives without negatives"):
        value(name, hidden_negatives=HIDDEN)


@every_loss
def test_gradients_are_finite_at_zero_vectors(name: str) -> None:
    for left, right in ((LEFT * 0, RIGHT * 0), (LEFT * 0, RIGHT)):
        loss, gradient = step(name, left=left, right=right)
        assert np.isfinite(loss)
        assert all(np.all(np.isfinite(of)) for of in gradient.values())


def test_normalise() -> None:
    assert np.allclose(objectives.normalise(jnp.array([[3.0, 4.0], [0.0, 0.0]])), [[0.6, 0.8], [0.0, 0.0]], atol=1e-6)


# --------------------------------------------------------------------------------------------------------------- InfoNCE
# Two orthogonal pairs, and a further negative on left 0 that no row sees yet.
EYE, NOBODY = np.array([[2.0, 0.0], [0.0, 0.5]], np.float32), np.zeros((2, 2), bool)
BY_HAND: dict[str, Any] = {"left": EYE, "right": EYE, "positives": NOBODY, "valid": np.ones(2, bool)} | {
    "negatives": np.array([[5.0, 0.0]], np.float32),
    "hidden_negatives": np.ones((2, 1), bool),
}
ONE_WAY = np.array([[False, True], [False, False]])
ONE = np.array([1.0, 0.0, 0.0], np.float32)


def test_info_nce_by_hand() -> None:
    """Orthogonal pairs at scale 1: each row's own cosine is 1, the other's 0, so the loss is log(1 + e⁻¹)."""
    loss = functools.partial(value, "info_nce", **BY_HAND, numbers=ONE)
    assert loss() == pytest.approx(math.log1p(math.exp(-1.0)), rel=1e-6)
    # The other row is known to match too: no negative is left.
    assert loss(positives=~NOBODY) == 0.0
    # Known one way only, left 0 with right 1: forth 0 loses nothing, back 1 loses nothing.
    assert loss(positives=ONE_WAY) == pytest.approx(math.log1p(math.exp(-1.0)) / 2, rel=1e-6)


def test_info_nce_sees_further_negatives_from_left_to_right_only() -> None:
    """The further negative lies on left 0: row 0 must tell two cosines of 1 apart, row 1 gets one more of 0."""
    back = math.log1p(math.exp(-1.0))
    for hidden, forth in (
        ([[False], [False]], (math.log(2 * math.e + 1) + math.log(math.e + 2)) / 2 - 1),
        ([[True], [False]], (back + math.log(math.e + 2) - 1) / 2),
    ):
        everything = BY_HAND | {"numbers": ONE, "hidden_negatives": np.array(hidden)}
        assert value("info_nce forth", **everything) == pytest.approx(forth, rel=1e-6)
        assert value("info_nce", **everything) == pytest.approx((forth + back) / 2, rel=1e-6)


@pytest.mark.parametrize("scale", [1.0, 20.0])
def test_info_nce_is_the_loop_at_any_scale(scale: float) -> None:
    numbers = np.array([scale, 0.0, 0.0], np.float32)
    for positives, valid in ((np.zeros((B, B), bool), YES), (POSITIVES, YES), (POSITIVES, VALID)):
        masks = {"positives": positives, "valid": valid, "hidden_negatives": HIDDEN}
        loop = info_nce_loop(LEFT, RIGHT, scale, positives, valid, NEGATIVES, HIDDEN)
        assert value("info_nce", numbers=numbers, negatives=NEGATIVES, **masks) == pytest.approx(loop, rel=1e-4)


def test_info_nce_forth_and_back_are_half_each() -> None:
    further = {"valid": VALID, "negatives": NEGATIVES, "hidden_negatives": np.ones((B, N), bool)}
    forth = value("info_nce forth", positives=POSITIVES, **further)
    back = value("info_nce forth", left=RIGHT, right=LEFT, positives=POSITIVES.T, **further)
    assert abs(forth - back) > 1e-2
    assert value("info_nce", positives=POSITIVES, **further) == pytest.approx((forth + back) / 2, rel=1e-6)


@pytest.mark.parametrize("directions", ["back", "", None])
def test_info_nce_refuses_other_directions(directions: Any) -> None:
    with pytest.raises(ValueError, match=r"directions: .*; must be 'both' or 'forth'"):
        objectives.info_nce(LEFT, RIGHT, jnp.float32(SCALE), None, YES, directions=directions)


# ---------------------------------------------------------------------------------------------------------------- SigLIP
def test_siglip_by_hand() -> None:
    """Orthogonal pairs at scale 3, bias −1: the own logit is 2, the other −1."""
    loss = functools.partial(value, "siglip", **BY_HAND, numbers=np.array([3.0, -1.0, 0.0], np.float32))
    pull, push = math.log1p(math.exp(-2.0)), math.log1p(math.exp(-1.0))
    assert loss() == pytest.approx(pull + push, rel=1e-6)
    # Left 0 is known to match right 1 too: that pair alone is left out, and the mean stays over both rows.
    assert loss(positives=ONE_WAY) == pytest.approx(pull + push / 2, rel=1e-6)
    assert loss(valid=np.array([True, False])) == pytest.approx(pull, rel=1e-6)
    # The further negative has logit 2 for row 0, −1 for row 1.
    further = (math.log1p(math.exp(2.0)) + push) / 2
    assert loss(hidden_negatives=np.zeros((2, 1), bool)) == pytest.approx(pull + push + further, rel=1e-6)


def test_siglip_neither_pulls_nor_pushes_known_positives() -> None:
    """With every pair known to match, values and gradients are those of each pair on its own."""
    known = {"positives": np.ones((B, B), bool), "negatives": NEGATIVES, "hidden_negatives": np.ones((B, N), bool)}

    def alone(left: Any, right: Any) -> Any:
        own = (objectives.normalise(left) * objectives.normalise(right)).sum(-1)
        return -jax.nn.log_sigmoid(SCALE * own + BIAS).mean()

    loss, gradient = step("siglip", **known)
    assert close((loss, (gradient["left"], gradient["right"])), jax.jit(jax.value_and_grad(alone, argnums=(0, 1)))(LEFT, RIGHT))


def test_siglip_bias_stands_for_the_share_of_own_pairs() -> None:
    """At scale 0 all is bias: each row has one pair at −log σ(bias) and B − 1 at −log σ(−bias), so 1 : B − 1 is the best."""

    def of(bias: float) -> tuple[float, float]:
        loss, gradient = step("siglip", numbers=np.array([0.0, bias, 0.0], np.float32))
        return loss, float(gradient["numbers"][1])

    assert of(0.0) == pytest.approx((B * LN2, (B - 2) / 2), rel=1e-6)
    assert of(-10.0)[0] == pytest.approx(10 + B * math.log1p(math.exp(-10.0)), rel=1e-6)
    assert of(-math.log(B - 1))[1] == pytest.approx(0.0, abs=1e-6)


# --------------------------------------------------------------------------------------------------------------- triplets
def test_triplet_by_hand() -> None:
    """Row 0: own cosine 1, negative 0.6; row 1: own 0.8, negative 0, which is far enough."""
    further = {"right": np.array([[3.0, 0.0], [6.0, 8.0]], np.float32), "negatives": np.array([[0.0, -7.0]], np.float32)}

    def loss(name: str, margin: float, **more: Any) -> float:
        everything: dict[str, Any] = BY_HAND | further | {"numbers": np.array([0.0, 0.0, margin], np.float32)} | more
        return value(name, **everything)

    assert loss("triplet", 0.5) == pytest.approx(0.1 / 2, rel=1e-5)
    assert loss("triplet", 1.0) == pytest.approx((0.6 + 0.2) / 2, rel=1e-5)
    # The further negative is opposite to left 1: row 0 sees it at 0, which is far enough too.
    shown = np.zeros((2, 1), bool)
    assert loss("triplet", 0.5, hidden_negatives=shown) == pytest.approx(0.1 / 2 / 2, rel=1e-5)
    assert loss("triplet hardest", 0.5, hidden_negatives=shown) == pytest.approx(0.1 / 2, rel=1e-5)
    # Hidden from row 0, it leaves the mean over that row's negatives as well.
    assert loss("triplet", 0.5, hidden_negatives=np.array([[True], [False]])) == pytest.approx(0.1 / 2, rel=1e-5)


@pytest.mark.parametrize("name", ["triplet", "triplet hardest"])
@pytest.mark.parametrize("block", [0, 3])
def test_a_row_without_negatives_loses_nothing(name: str, block: int) -> None:
    """Row 0 knows all to match; the margin is above every difference of cosines, so any negative would count."""
    positives, hidden, wide = np.zeros((B, B), bool), np.zeros((B, N), bool), np.array([0.0, 0.0, 2.5], np.float32)
    positives[0], hidden[0] = True, True
    everything = {"numbers": wide, "positives": positives, "negatives": NEGATIVES, "hidden_negatives": hidden}
    loss, gradient = step(name, block, **everything)
    assert np.all(gradient["left"][0] == 0)
    assert np.all(np.any(gradient["left"][1:] != 0, axis=1))
    loop = triplet_loop(LEFT, RIGHT, positives, YES, 2.5, NEGATIVES, hidden, hardest=name == "triplet hardest")
    assert loss == pytest.approx(loop, rel=1e-5)
    assert step(name, block, valid=np.arange(B) == 0, **everything)[0] == 0.0


def test_the_hardest_negative_alone_counts() -> None:
    """No partner is a negative, and the margin is above every difference of cosines: those nearest to two rows learn."""
    masks = {"positives": np.ones((B, B), bool), "valid": np.arange(B) < 2, "hidden_negatives": np.zeros((B, N), bool)}
    wide = np.array([0.0, 0.0, 2.5], np.float32)
    _, gradient = step("triplet hardest", numbers=wide, negatives=NEGATIVES, **masks)
    nearest = {int(np.argmax([cosine(row, negative) for negative in NEGATIVES])) for row in LEFT[:2]}
    assert {k for k in range(N) if np.any(gradient["negatives"][k])} == nearest


# ------------------------------------------------------------------------------------------------------------- matryoshka
@pytest.mark.parametrize(("name", "block"), [("info_nce", 3), ("siglip", 0), ("triplet", 0)])
def test_matryoshka_is_the_mean_of_the_losses_of_prefixes(name: str, block: int) -> None:
    widths = (4, 1, P)  # in any order
    masks: dict[str, Any] = {"positives": POSITIVES, "valid": VALID, "hidden_negatives": HIDDEN, "block": block}
    loss = functools.partial(loss_of, name, numbers=NUMBERS, **masks)
    got = jax.jit(lambda *vectors: objectives.matryoshka(loss, *vectors[:2], widths, vectors[2]))(LEFT, RIGHT, NEGATIVES)
    loop = [LOOPS[name](LEFT[:, :w], RIGHT[:, :w], POSITIVES, VALID, NEGATIVES[:, :w], HIDDEN) for w in widths]
    assert float(got) == pytest.approx(mean(loop), rel=1e-5)


def test_matryoshka_of_a_loss_that_knows_no_negatives() -> None:
    loss = functools.partial(objectives.cosine_distillation, valid=VALID)
    rows = np.flatnonzero(VALID)
    loop = mean([1 - cosine(LEFT[i, :w], RIGHT[i, :w]) for w in (2, 3) for i in rows])
    assert float(objectives.matryoshka(loss, LEFT, RIGHT, [2, 3])) == pytest.approx(loop, rel=1e-5)
    # Vectors of different widths: a prefix must be one of both.
    assert float(objectives.matryoshka(loss, LEFT, RIGHT[:, :3], [2, 3])) == pytest.approx(loop, rel=1e-5)


@pytest.mark.parametrize(
    ("widths", "says"),
    [
        ([], "no widths; name at least one from 1 to 5"),
        ([2, 0], "width 0 of vectors of 5; must be from 1 to 5"),
        ([-1], "width -1 of vectors of 5; must be from 1 to 5"),
        ([6, 2], "width 6 of vectors of 5; must be from 1 to 5"),
        ([2, 3, 2], "width 2 of vectors of 5 is named twice"),
    ],
)
def test_matryoshka_refuses_widths(widths: list[int], says: str) -> None:
    with pytest.raises(ValueError, match=f"^matryoshka: {says}$"):
        objectives.matryoshka(lambda left, right: jnp.float32(0.0), LEFT, RIGHT, widths)


def test_matryoshka_refuses_a_width_that_only_the_negatives_lack() -> None:
    with pytest.raises(ValueError, match="width 5 of vectors of 4"):
        objectives.matryoshka(lambda left, right, negatives: jnp.float32(0.0), LEFT, RIGHT, [5], NEGATIVES[:, :4])


# ----------------------------------------------------------------------------------------------------------------- blocks
@every_loss
def test_blocks_change_neither_values_nor_gradients(name: str) -> None:
    everything = {"positives": POSITIVES, "valid": VALID, "negatives": NEGATIVES, "hidden_negatives": HIDDEN}
    whole = step(name, **everything)
    assert [key for key, of in whole[1].items() if np.any(of)] == ["left", "negatives", "numbers", "right"]
    # Rows go through blocks alike whichever way a loss is set.
    for block in (1, 3, B, B + 5) if " " not in name else (3,):
        assert close(step(name, block, **everything), whole), block


@every_loss
def test_a_negative_block_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="block: -1; must not be negative"):
        value(name, block=-1)


@pytest.mark.parametrize("name", ["info_nce", "siglip", "triplet"])
def test_blocks_save_memory_and_need_neither_positives_nor_negatives(name: str) -> None:
    rows = 2048
    arguments = _split({"left": normal(rows, 8), "right": normal(rows, 8, seed=1), "valid": np.arange(rows) % 9 != 4})
    whole, blocks = (_step.lower(name, *arguments, block).compile() for block in (0, 64))
    held = [program.memory_analysis().temp_size_in_bytes for program in (whole, blocks)]
    assert held[0] >= 4 * rows * rows  # all similarities at once, or the measure says nothing
    assert held[1] < held[0] / 4
    # A gradient is a sum over all rows, in an order that differs between the two, and between processors: 1.3e-5 on one.
    assert close(blocks(*arguments), whole(*arguments), relative=rows * float(np.finfo(np.float32).eps) / 4)


# ---------------------------------------------------------------------------------------------------------------- devices
@pytest.mark.parametrize("name", ["info_nce", "siglip", "triplet"])
def test_four_devices_that_hold_a_quarter_of_the_batch_each_find_what_one_finds(name: str) -> None:
    vectors, masks = _split({"positives": POSITIVES, "valid": VALID, "negatives": NEGATIVES, "hidden_negatives": HIDDEN})
    numbers = vectors.pop("numbers")
    mesh = jax.make_mesh((4,), ("batch",), axis_types=(AxisType.Auto,), devices=jax.devices()[:4])
    spread = NamedSharding(mesh, PartitionSpec("batch"))
    everywhere = NamedSharding(mesh, PartitionSpec())
    placed = jax.device_put(vectors, spread) | {"numbers": jax.device_put(numbers, everywhere)}
    shared = _step(name, placed, jax.device_put(masks, spread), 0)
    assert close(shared, _step(name, vectors | {"numbers": numbers}, masks, 0))
    assert {len(of.sharding.device_set) for of in shared[1].values()} == {4}


# -------------------------------------------------------------------------------------------------------------- gradients
@every_loss
def test_gradients_agree_with_differences_of_the_loop(name: str) -> None:
    pairs = pairs_loop(LEFT, RIGHT, POSITIVES, VALID, NEGATIVES, HIDDEN)
    # A smooth point: no hinge at its kink, no two negatives equally hard.
    assert min(abs(MARGIN - own + other) for own, others in pairs for other in others) > 1e-3
    assert min(np.diff(sorted(others))[-1] for _, others in pairs if len(others) > 1) > 1e-3
    vectors, masks = _split({"positives": POSITIVES, "valid": VALID, "negatives": NEGATIVES, "hidden_negatives": HIDDEN})
    _, gradient = step(name, **vectors, **masks)

    def loop(at: dict[str, np.ndarray]) -> float:
        return LOOPS_AT[name](at["numbers"], at["left"], at["right"], POSITIVES, VALID, at["negatives"], HIDDEN)

    agree_with_differences(loop, vectors, gradient)
