"""Entities and relations as every run has them: tables, first values, vectors."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fusionjax.models.entities import EntityModel, Features
from fusionjax.models.scorers import SCORERS, Init, Sizes, make_scorer

HOW = Init("normal", 0.1)
NOTHING = Features(jnp.zeros((6, 0)), jnp.zeros((6, 0)), jnp.ones(6))


def entities_of(name: str, **changes: Any) -> EntityModel:
    return EntityModel(make_scorer(name, Sizes(16, height=4)), 6, 3, reciprocal=False, how=HOW, **changes)


@pytest.mark.parametrize("name", SCORERS)
def test_tables_have_the_width_of_their_scorer(name: str) -> None:
    model = entities_of(name)
    params = model.init(jax.random.key(0))
    assert params["entities"].shape == (6, model.scorer.entity_width)
    assert params["relations"].shape == (3, model.scorer.relation_width)
    assert ("shared" in params) == (name in ("tucker", "conve"))
    found = model.rows(params, NOTHING, jnp.array([4, 1]))
    assert np.array_equal(found, params["entities"][jnp.array([4, 1])])


def test_a_table_that_only_towers_read_has_no_relations() -> None:
    assert set(dataclasses.replace(entities_of("distmult"), n_relations=0).init(jax.random.key(0))) == {"entities"}


def test_first_values_are_normal_with_a_tenth() -> None:
    model = dataclasses.replace(entities_of("transe"), n_entities=5000)
    table = np.asarray(model.init(jax.random.key(0))["entities"])
    assert abs(table.std() - 0.1) < 0.002 and abs(table.mean()) < 0.002
