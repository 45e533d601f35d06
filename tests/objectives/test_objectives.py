"""The table of objectives, and what holds for each."""

import dataclasses

import numpy as np
import pytest

from fusionjax.config import schema
from fusionjax.errors import UserError
from fusionjax.objectives import OBJECTIVES
from fusionjax.objectives.alignment import Alignment
from fusionjax.training.stream import StepSource
from tests.shops import tiny_inputs, tiny_run


def test_the_table_has_the_sections_of_the_config_in_their_order() -> None:
    sections = [name for name, each in schema.Objectives() if isinstance(each, schema.Objective)]
    assert list(OBJECTIVES) == sections
    assert all(objective.name == name for name, objective in OBJECTIVES.items())


def test_what_an_objective_needs_is_no_key_of_a_config() -> None:
    facts = {"shop_parts", "reads_text", "reads_product_text", "reads_entities", "reads_products", "trains_products_of"}
    for name, section in schema.Objectives():
        if isinstance(section, schema.Objective):
            assert not facts & set(section.model_dump()), name
    with pytest.raises(ValueError, match="shop_parts"):
        schema.Alignment.model_validate({"shop_parts": ["users"]})


def test_the_stream_takes_the_table_it_is_handed() -> None:
    class FromZero(Alignment):
        def batch(self, index: int) -> dict[str, np.ndarray]:
            return {"product": np.full(16, index, np.int32)}

        @staticmethod
        def live_products(batch: dict[str, np.ndarray]) -> dict[int, np.ndarray]:
            return {-1: batch["product"]}

    config = tiny_run()
    source = StepSource(tiny_inputs(config), config, 10, table={**OBJECTIVES, "alignment": FromZero})
    for step in range(3):
        assert (source[step]["alignment"]["product"] == step).all()
        assert source[step]["live"]["rows"][0] == step  # the lowest turn comes first


def test_nothing_to_train_on_is_said() -> None:
    config = tiny_run()
    inputs = tiny_inputs(config)
    assert inputs.sequences is not None
    no_edges = dataclasses.replace(inputs.graph, split=np.full(len(inputs.graph), 2, np.int8))
    nobody = dataclasses.replace(inputs.sequences, split=np.full(len(inputs.sequences.split), 2, np.int8))
    for name, change, said in (
        ("link_prediction", {"graph": no_edges}, "the graph has no training triple"),
        ("alignment", {"has_text": np.zeros_like(inputs.has_text)}, "no product has both a text and an edge or event"),
        ("query_product", {"positives": np.zeros((0, 2), np.int64)}, "no training judgment of grade ≥ 1 and no training event"),
        ("next_product", {"sequences": nobody}, "no user has a training event"),
    ):
        with pytest.raises(UserError, match=rf"objectives\.{name}: {said}"):
            OBJECTIVES[name](dataclasses.replace(inputs, **change), config)
