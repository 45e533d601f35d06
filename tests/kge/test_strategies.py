"""The ways to compute a batch give the same losses and parameters, and the cheapest is chosen where it is right."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from fusionjax.kge import looped, ways
from fusionjax.models.entities import Features
from fusionjax.objectives.link_prediction.strategies import Strategy
from tests.kge.made import ENTITIES, Made, assert_close, made, normal

NEGATIVES = ("training=negatives", "optimiser={name: adagrad_optax, learning_rate: 0.2}")
SMALL = "negatives={number: 6, filtered: true}"
BOTH = ("reciprocal=false", *NEGATIVES, SMALL)


def text_of(literals: int = 2) -> Features:
    seen = jnp.ones(ENTITIES).at[20].set(0.0)
    return Features(jnp.asarray(normal(ENTITIES, 5)), jnp.asarray(normal(ENTITIES, literals, seed=1)), seen)


CASES: dict[str, tuple[Made, list[tuple[str, bool]]]] = {
    "product, both sides": (
        made("scorer=complex", *BOTH, "penalty={name: n3, entity: 0.01, relation: 0.01}", "relation_prediction=0.3"),
        [("picked", False), ("looped", False), ("looped", True), ("scanned", False), ("scanned", True), ("gathered", True)],
    ),
    "distance, reciprocal": (
        made("scorer=transe", "margin=3", *NEGATIVES, SMALL, "loss.name=self_adversarial"),
        [("picked", False), ("looped", False), ("looped", True), ("scanned", True)],
    ),
    "no query, both sides": (
        made("scorer=rotate", "margin=3", *BOTH, "loss.name=margin", "dropout.entity=0.3"),
        [("scanned", False), ("scanned", True), ("gathered", False)],
    ),
    "chunks": (
        made("scorer=distmult", *BOTH, "negatives={number: 6, shared: 4}"),
        [("gathered", False), ("gathered", True)],
    ),
    "text and numbers": (
        made("scorer=distmult", *BOTH, "text={use: add, checkpoint: x}", "loss.name=bce", features=text_of()),
        [("picked", False), ("looped", False), ("looped", True), ("gathered", False), ("gathered", True)],
    ),
    "aligned": (
        made("scorer=distmult", *BOTH, "text={use: align, checkpoint: x}", features=text_of(literals=0)),
        [("picked", False), ("looped", True), ("scanned", True), ("gathered", True)],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_every_way_gives_the_same(case: str) -> None:
    """Two passes over the triples; the last batch of each is not full. Adagrad on rows is what it is on the table.

    The first looks targets up by themselves; the others not where they are the sources of the other half.
    """
    at, how = CASES[case]
    both = at.model.reciprocal is False
    assert at.strategy.both == both
    how = [how[0], *(how if both else how[1:])]
    every: list[Any] = [Strategy(*one, at.strategy.longest, both and place > 0) for place, one in enumerate(how)]  # pyright: ignore
    results = [at.passes(2, strategy) for strategy in every]
    (state, losses), others = results[0], results[1:]
    start = at.state()["params"]
    assert np.all(np.any(np.asarray(state["params"]["relations"] != start["relations"]), 1))
    for (against, rows), (other, told) in zip(how[1:], others, strict=True):
        assert [row.keys() for row in told] == [row.keys() for row in losses]
        for ours, theirs in zip(told, losses, strict=True):
            assert ours == pytest.approx(theirs, rel=1e-4), (against, rows)
        assert_close(other, state, rtol=1e-3, atol=1e-4)
    assert losses[1]["loss"] < losses[0]["loss"]


def test_the_cheapest_way_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    few = ("batch_size=1", "negatives.number=2")  # touches 6 entities of 21 a step, 4 with reciprocal relations

    def chosen(*overrides: str, features: Features | None = None) -> tuple[str, bool]:
        strategy = made("scorer=distmult", *NEGATIVES, *overrides, features=features).strategy
        return strategy.against, strategy.rows

    assert chosen("training=one_vs_all") == chosen("training=k_vs_all") == ("all", False)
    assert chosen() == chosen("negatives.number=3") == ("picked", False)
    assert chosen(*few) == ("looped", False)
    monkeypatch.setattr(looped, "available", lambda: False)  # as without numba
    assert chosen(*few) == ("picked", False)
    assert chosen("optimiser.rows=on") == ("scanned", True)
    assert chosen("scorer=rotate") == ("scanned", False) and chosen("scorer=rotate", *few) == ("scanned", True)
    assert chosen("scorer=rotate", *few, "optimiser.rows=off") == ("scanned", False)
    assert chosen("negatives.shared=4", "optimiser.rows=on") == ("gathered", True)
    assert chosen("negatives.shared=4") == ("gathered", False)  # 2 · 16 + 16 / 4 · 64 rows are more than there are
    monkeypatch.setattr(ways, "DENSE_ENTITIES", 1)
    assert chosen(*few) == ("scanned", True)
    monkeypatch.setattr(looped, "available", lambda: True)
    assert chosen(*few) == ("looped", True) and chosen(*few, "optimiser.rows=off") == ("looped", False)
    # A penalty on the whole table has a gradient for every row.
    assert chosen(*few, "optimiser.rows=on", "penalty={name: l2, entity: 1, weighted: false}") == ("looped", False)
    features = text_of()
    assert chosen(*few, "text={use: replace, checkpoint: x}", features=features) == ("gathered", False)
    assert chosen(*few, "text={use: add, checkpoint: x}", features=features) == ("looped", True)
    monkeypatch.setattr(looped, "available", lambda: False)
    assert chosen(*few, "text={use: add, checkpoint: x}", features=features) == ("gathered", True)
    # Aligned texts have no part in the scores, numbers have.
    aligned = "text={use: align, checkpoint: x}"
    assert chosen(*few, aligned, features=features) == ("gathered", True)
    assert chosen(*few, aligned, features=text_of(literals=0)) == ("scanned", True)
    monkeypatch.setattr(ways.jax, "default_backend", lambda: "gpu")
    assert chosen("scorer=rotate") == ("gathered", False)


def test_longest_row_of_the_known_index() -> None:
    """Relation 2 leads from entities 4, 8, …, 20 to 0: five heads for that tail; without filtering there is no index."""
    plain: Any = dataclasses.asdict(made("scorer=distmult", *NEGATIVES).strategy)
    assert plain["longest"] == 0
    assert made("scorer=distmult", *BOTH).strategy.longest == 5
