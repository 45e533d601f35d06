"""Objectives may alternate, but no step may be left without one."""

import pytest

from fusionjax.config import load_run
from fusionjax.errors import UserError

ONLY_TWO = ["objectives.alignment.weight=0", "objectives.query_product.weight=0"]


def alternate(every: int, offset: int) -> list[str]:
    return [*ONLY_TWO, "objectives.link_prediction.every=2", f"objectives.next_product={{every: {every}, offset: {offset}}}"]


def test_two_objectives_may_take_turns() -> None:
    assert load_run(None, alternate(2, 1)).objectives.next_product.offset == 1


def test_a_step_without_an_objective_is_refused() -> None:
    with pytest.raises(UserError, match="no objective takes part in step 3"):
        load_run(None, alternate(3, 1))


def test_weights_of_zero_are_left_to_the_run_to_refuse() -> None:
    zero = [f"objectives.{name}.weight=0" for name in ("link_prediction", "alignment", "query_product", "next_product")]
    assert load_run(None, zero).objectives.alignment.weight == 0
