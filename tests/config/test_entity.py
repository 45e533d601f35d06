"""The scorers of a shop's graph: which a run may name, and the widths that fit them."""

from typing import get_args

import pytest
from pydantic import ValidationError

from fusionjax.config.schema import PARTS, Entity
from fusionjax.models.scorers import SCORERS

NAMES = get_args(Entity.model_fields["scorer"].annotation)


def test_every_scorer_may_be_named() -> None:
    assert set(NAMES) == set(SCORERS)


def test_the_config_refuses_the_widths_that_the_scorers_refuse() -> None:
    assert {name: SCORERS[name].parts for name in NAMES if SCORERS[name].parts > 1} == PARTS


@pytest.mark.parametrize(("name", "dim", "parts"), [("complex", 7, 2), ("rotate", 9, 2), ("quate", 6, 4)])
def test_a_width_that_cannot_be_cut(name: str, dim: int, parts: int) -> None:
    with pytest.raises(ValidationError, match=f"dim: {name} needs a multiple of {parts}, got {dim}"):
        Entity.model_validate({"scorer": name, "dim": dim})
    Entity.model_validate({"scorer": name, "dim": dim // parts * parts})
