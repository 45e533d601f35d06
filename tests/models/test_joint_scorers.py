"""The product graph's scorers in the joint model: tables, first values, scores."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fusionjax.models.joint import JointModel, Layout
from fusionjax.models.scorers import SCORERS

GRAPH = Layout(
    dim=8,
    sources=(),
    n_products=0,
    n_entities=6,
    n_relations=3,
    encoder=None,
    pooling="mean",
    max_length=8,
    entity_dim=8,
    scorer="transe",
    norm=2,
    margin=9.0,
    align=False,
    query=False,
    user=False,
    history=1,
    user_layers=1,
    user_heads=1,
    user_dropout=0.0,
    n_kinds=0,
    profile_sizes=(),
    recency=False,
    temperature=0.05,
)


@pytest.mark.parametrize("name", [name for name in SCORERS if name not in ("tucker", "conve")])
def test_relations_have_the_width_of_their_scorer(name: str) -> None:
    model = JointModel(dataclasses.replace(GRAPH, scorer=name))
    variables: Any = model.init(jax.random.key(0))
    entities, relations = (variables["params"][table]["embedding"] for table in ("entities", "relations"))
    scorer = model.layout.triples
    assert entities.shape == (6, 8) and relations.shape == (3, scorer.relation_width)
    found: Any = model.apply(variables, entities[:3], relations, entities[3:], method="score")
    assert np.allclose(found, scorer.score(entities[:3], relations, entities[3:]))


def test_first_values_are_normal_with_a_tenth() -> None:
    class Table(nn.Module):
        @nn.compact
        def __call__(self) -> None:
            nn.Embed(6, 8, embedding_init=nn.initializers.normal(0.1), name="entities")(jnp.zeros(1, jnp.int32))

    models: list[Any] = [JointModel(GRAPH), Table()]
    found, expected = (model.init(jax.random.key(0))["params"]["entities"]["embedding"] for model in models)
    assert np.array_equal(found, expected)
