"""Ready-made axes: every value makes a valid run of the demo's config, the first one the run itself."""

import json
from pathlib import Path

import pytest

from fusionjax.config import config_digest, load_run
from fusionjax.config.axes import READY, ready
from fusionjax.errors import UserError

QUICKSTART = Path(__file__).parents[2] / "configs" / "quickstart.yaml"
BASE = load_run(QUICKSTART)


def words(overrides: dict[str, object]) -> list[str]:
    return [f"{key}={json.dumps(value)}" for key, value in overrides.items()]


@pytest.mark.parametrize("axis", READY)
def test_every_value_of_an_axis_is_another_run(axis: str) -> None:
    runs = [load_run(QUICKSTART, words(overrides)) for overrides in READY[axis].values()]
    assert runs[0] == BASE
    assert len({config_digest(run) for run in runs}) == len(runs) > 1


def test_what_the_source_axis_takes_away() -> None:
    said = {}
    for name, overrides in ready("sources").items():
        run = load_run(QUICKSTART, words(overrides))
        objectives = run.objectives
        assert objectives.next_product.weight == objectives.query_product.weight == 1  # the tasks are learnt in every row
        said[name] = (
            "text" in run.model.product.sources,
            objectives.link_prediction.weight > 0,
            "entity" in run.model.product.sources and run.model.entity.behaviour,
        )
        assert objectives.alignment.weight == (1 if len(run.model.product.sources) == 2 else 0)
    assert said == {
        "all": (True, True, True),
        "text": (True, False, False),
        "graph": (False, True, False),
        "behaviour": (False, False, True),
        "text_graph": (True, True, False),
        "text_behaviour": (True, False, True),
        "graph_behaviour": (False, True, True),
    }


def test_an_axis_is_the_caller_s_own_and_a_wrong_name_is_told() -> None:
    ready("text")["none"]["model.product.sources"].append("text")
    assert ready("text")["none"]["model.product.sources"] == ["entity"]
    with pytest.raises(UserError, match="no ready-made axis 'graf'; did you mean 'graph'"):
        ready("graf")


# ------------------------------------------------------------------------------------------------------- begin and end
ONLY_TWO = ["objectives.alignment.weight=0", "objectives.query_product.weight=0"]


def in_turn(link: str, behaviour: str) -> list[str]:
    return [*ONLY_TWO, f"objectives.link_prediction={link}", f"objectives.next_product={behaviour}"]


def test_one_after_the_other() -> None:
    run = load_run(None, in_turn("{end: 0.3}", "{begin: 0.3}"))
    assert (run.objectives.link_prediction.end, run.objectives.next_product.begin) == (0.3, 0.3)


@pytest.mark.parametrize(
    ("link", "behaviour", "said"),
    [
        ("{end: 0.4}", "{begin: 0.5}", "no objective takes part between 0.4 and 0.5 of the run"),
        ("{end: 0.4999}", "{begin: 0.5}", "no objective takes part between 0.4999 and 0.5 of the run"),
        ("{begin: 0.1}", "{begin: 0.2}", "no objective takes part between 0 and 0.1 of the run"),
        ("{every: 2, end: 0.5}", "{begin: 0.5}", "no objective takes part in step 1 of 2 between 0 and 0.5 of the run"),
        ("{begin: 0.5, end: 0.5}", "{}", "begin 0.5 must be smaller than end 0.5"),
    ],
)
def test_a_stretch_without_an_objective_is_refused(link: str, behaviour: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        load_run(None, in_turn(link, behaviour))
