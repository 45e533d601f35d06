"""A pass as one program: what fills up its last batch counts for nothing, every scorer learns, nothing compiles twice."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fusionjax.training.epochs import Examples, build_epoch, init_state
from fusionjax.models.entities import Features
from tests.kge.made import ENTITIES, LOSSES, SCORERS, Made, assert_close, made, normal, triples


# --------------------------------------------------------------------------------------------------------------- order
@pytest.mark.parametrize(("n", "size"), [(63, 16), (64, 16), (5, 8), (1, 1)])
def test_order_is_a_permutation(n: int, size: int) -> None:
    found = Examples(n, size).order(3, 1)
    assert found.shape == (-(-n // size), size) and found.dtype == np.int32
    flat = found.reshape(-1)
    assert sorted(flat[:n].tolist()) == list(range(n)) and np.all(flat[n:] == -1)


def test_order_is_another_for_each_epoch_and_seed() -> None:
    found = [Examples(63, 16).order(seed, epoch).tolist() for seed, epoch in ((0, 0), (0, 1), (1, 0), (1, 1))]
    assert all(found[i] != found[j] for i in range(4) for j in range(i))
    assert Examples(63, 16).order(0, 1).tolist() == found[1]


@pytest.mark.parametrize(("together", "size"), [(1, 4), (2, 5), (3, 64), (99, 2)])
def test_triples_of_a_question_are_asked_together(together: int, size: int) -> None:
    """Queries of 7, 1, 0, 4 and 3 triples: each triple once, none with another query's, only its last row not full."""
    query = np.array([0, 3, 0, 0, 4, 3, 0, 1, 3, 0, 4, 0, 3, 4, 0])
    examples = Examples(len(query), size, query, together)
    assert examples.rows == sum(-(-n // together) for n in (7, 1, 4, 3))
    first, second = (examples.order(0, epoch).reshape(-1, together) for epoch in (0, 1))
    assert not np.array_equal(first, second)
    for rows in (first, second):
        assert len(rows) == examples.steps * size
        assert sorted(rows[rows >= 0].tolist()) == list(range(len(query)))
        asked = [row[row >= 0] for row in rows if (row >= 0).any()]
        assert len(asked) == examples.rows and np.all(rows[examples.rows :] == -1)
        assert all(len(set(query[row])) == 1 for row in asked)
        for number in set(query):
            sizes = sorted((len(row) for row in asked if query[row[0]] == number), reverse=True)
            assert all(size == together for size in sizes[:-1])


# ---------------------------------------------------------------------------------------------- what fills up a batch
FILLED = np.concatenate([np.arange(1, 13), np.full(4, -1)])[None].astype(np.int32)
EXTRAS = ("penalty={name: n3, entity: 0.1, relation: 0.1}", "relation_prediction=0.3")


@pytest.mark.parametrize(
    "how", [("training=one_vs_all", *EXTRAS), ("training=k_vs_all", "loss.name=bce"), ("reciprocal=false",)]
)
def test_a_batch_filled_up_is_a_smaller_batch(how: tuple[str, ...]) -> None:
    """One step of SGD, so that parameters differ by the gradient."""
    filled = made("scorer=distmult", "optimiser={name: sgd, learning_rate: 1.0}", *how)
    smaller = made("scorer=distmult", "optimiser={name: sgd, learning_rate: 1.0}", *how, "batch_size=12")
    (ours, losses), (theirs, others) = filled.passes(chosen=FILLED), smaller.passes(chosen=FILLED[:, :12])
    assert losses[0] == pytest.approx(others[0], rel=1e-5)
    assert_close(ours["params"], theirs["params"])
    assert np.abs(np.asarray(ours["params"]["entities"] - filled.state()["params"]["entities"])).max() > 1e-3


TEXT = Features(jnp.asarray(normal(ENTITIES, 5)), jnp.zeros((ENTITIES, 0)), jnp.ones(ENTITIES))


@pytest.mark.parametrize(
    ("how", "features"),
    [
        (("training=negatives", "negatives.number=4", "reciprocal=false", *EXTRAS), None),
        (("training=negatives", "negatives.number=4", "optimiser.rows=on", *EXTRAS), None),
        (("text={use: align, checkpoint: x, align: 1.0}",), TEXT),
    ],
)
def test_which_triple_fills_up_makes_no_difference(how: tuple[str, ...], features: Features | None) -> None:
    """It is the first; two graphs differ in that one alone."""
    other = triples()
    other[0] = [9, 3, 17]
    found = [
        made("scorer=distmult", "optimiser={name: sgd, learning_rate: 1.0}", *how, train=train, features=features)
        for train in (triples(), other)
    ]
    (ours, losses), (theirs, others) = (at.passes(chosen=FILLED) for at in found)
    assert losses == others
    for a, b in zip(jax.tree.leaves(ours["params"]), jax.tree.leaves(theirs["params"]), strict=True):
        assert np.array_equal(a, b)


@pytest.mark.parametrize(
    ("targets", "how"), [(99, ()), (2, ("reciprocal=false",)), (2, ("penalty.name=l2", "loss.label_smoothing=0.2"))]
)
def test_questions_that_count_for_each_answer_are_one_vs_all(targets: int, how: tuple[str, ...]) -> None:
    """One step of SGD over the whole graph, so that parameters differ by the gradient."""
    sgd, n3 = "optimiser={name: sgd, learning_rate: 1.0}", "penalty={name: n3, entity: 0.1, relation: 0.1}"
    common = ("scorer=complex", sgd, n3, *how)
    once = made(*common, "training=k_vs_all", f"loss.targets={targets}")
    n = Examples.of(once.config, once.graph).number
    assert n == (113 if targets == 99 else 118)  # of 126 triples
    chosen = np.concatenate([np.arange(n), np.full(3, -1)])[None].astype(np.int32)  # three fill up the batch
    (ours, losses), (theirs, others) = once.passes(chosen=chosen), made(*common, "batch_size=126").passes()
    assert losses[0] == pytest.approx(others[0], rel=1e-5)
    assert_close(ours["params"], theirs["params"])


@pytest.mark.parametrize("how", ["block=0", "block=5", "penalty={name: l2, entity: 0.1, weighted: false}"])
def test_triples_asked_together_are_one_vs_all(how: str) -> None:
    common = ("scorer=complex", "optimiser={name: sgd, learning_rate: 1.0}", "penalty={name: n3, entity: 0.1, relation: 0.1}")
    common = (*common, "relation_prediction=0.3", "loss.label_smoothing=0.2", "batch_size=126", how)
    together, alone = made(*common, "loss.targets=3"), made(*common)
    assert Examples.of(together.config, together.graph).rows == 117
    (ours, losses), (theirs, others) = together.passes(), alone.passes()
    assert losses[0] == pytest.approx(others[0], rel=1e-5)
    assert_close(ours["params"], theirs["params"])


@pytest.mark.parametrize("reciprocal", ["true", "false"])
def test_questions_foretell_the_relations_of_triples_drawn(reciprocal: str) -> None:
    """With parameters that stand still, the mean over many draws is that over all triples."""
    common = ("scorer=distmult", f"reciprocal={reciprocal}", "relation_prediction=1", "optimiser.learning_rate=1e-9")
    _, (expected,) = made(*common, "batch_size=126").passes()
    at = made(*common, "training=k_vs_all", "batch_size=64")
    _, (found,) = at.passes(chosen=np.tile(np.arange(64, dtype=np.int32), (200, 1)))
    assert found["relation_prediction"] == pytest.approx(expected["relation_prediction"], rel=0.02)


# ------------------------------------------------------------------------------------------------------------ learning
def cases() -> list[tuple[str, str, str]]:
    """Every scorer; trainings and losses take turns. Negatives of other scorers: the ways of a batch."""
    found = []
    for place, scorer in enumerate(SCORERS):
        training = ("negatives", "one_vs_all", "k_vs_all")[place % 3]
        found.append((scorer, training, LOSSES[place % (4 if training == "negatives" else 2)]))
    more = ("conve", "negatives", "self_adversarial"), ("rotate", "k_vs_all", "bce"), ("tucker", "negatives", "bce")
    return [*found, *more]


@pytest.mark.parametrize(("scorer", "training", "loss"), cases())
def test_twenty_steps_lower_the_loss(scorer: str, training: str, loss: str) -> None:
    at = made(f"scorer={scorer}", f"training={training}", f"loss.name={loss}", "negatives.number=8", "margin=4")
    batch = np.tile(np.arange(16, dtype=np.int32), (5, 1))
    _, losses = at.passes(4, chosen=batch)
    assert losses[-1]["loss"] < 0.9 * losses[0]["loss"] and np.isfinite(losses[-1]["loss"])


@pytest.mark.parametrize("sampler", ["degree", "typed"])
def test_other_samplers_learn(sampler: str) -> None:
    at = made("scorer=distmult", "training=negatives", f"negatives={{sampler: {sampler}, number: 8, filtered: true}}")
    _, losses = at.passes(4)
    assert losses[-1]["loss"] < 0.9 * losses[0]["loss"]


def test_the_sums_are_the_parts_and_their_total() -> None:
    at = made("scorer=distmult", "penalty={name: n3, entity: 0.1}", "relation_prediction=0.3")
    _, (row,) = at.passes()
    assert row.keys() == {"loss", "link_prediction", "penalty", "relation_prediction"}
    assert row["loss"] == pytest.approx(sum(value for name, value in row.items() if name != "loss"), rel=1e-5)


# ----------------------------------------------------------------------------------------------------- compiled once
def test_passes_are_compiled_once_and_steps_are_counted() -> None:
    at = made("scorer=distmult", "training=negatives", "negatives.number=4", "optimiser={name: adam, rows: on}")
    run: Any = jax.jit(build_epoch(at.model, at.config, at.strategy))
    state = jax.jit(lambda seed: init_state(at.model, at.config, seed))(jnp.int32(0))
    for epoch in range(3):
        state, _ = run(state, at.graph, at.features, at.hyper, Examples(126, 16).order(0, epoch), jax.random.key(0))
    assert run._cache_size() == 1
    assert int(state["step"]) == 24


def test_a_pass_in_pieces_is_the_whole_pass() -> None:
    """What is random follows from the number of the step."""
    at: Made = made("scorer=distmult", "training=negatives", "negatives.number=4", "dropout.entity=0.2")
    chosen = Examples(126, 16).order(0, 0)
    whole, _ = at.passes(chosen=chosen)
    first, _ = at.passes(chosen=chosen[:4])
    both, _ = at.passes(chosen=chosen[4:], state=first)
    for a, b in zip(jax.tree.leaves(both), jax.tree.leaves(whole), strict=True):
        assert np.array_equal(a, b)
