"""The scorers of a shop's graph: which a run may name, and the widths that fit them."""

import pytest
from pydantic import ValidationError

from fusionjax import names
from fusionjax.config.schema import Entity
from fusionjax.evaluation.segments import SEGMENTS
from fusionjax.models.scorers import SCORERS
from fusionjax.objectives.link_prediction.negatives import SAMPLERS
from fusionjax.tasks import TASKS


def test_what_may_be_named_is_what_there_is() -> None:
    assert set(names.SCORERS) == set(SCORERS) and all(SCORERS[name].facts is each for name, each in names.SCORERS.items())
    assert tuple(TASKS) == names.TASKS and tuple(SAMPLERS) == names.SAMPLERS
    assert {name.partition("/")[2] for name in SEGMENTS} == set(names.SEGMENTS)


@pytest.mark.parametrize(("name", "dim", "parts"), [("complex", 7, 2), ("rotate", 9, 2), ("quate", 6, 4)])
def test_a_width_that_cannot_be_cut(name: str, dim: int, parts: int) -> None:
    with pytest.raises(ValidationError, match=f"dim: {name} needs a multiple of {parts}, got {dim}"):
        Entity.model_validate({"scorer": name, "dim": dim})
    Entity.model_validate({"scorer": name, "dim": dim // parts * parts})
