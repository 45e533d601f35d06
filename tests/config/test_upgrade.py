"""Yesterday's keys mean today what they meant, wherever they stand, and an error still names the line they stand on."""

from pathlib import Path
from typing import Any

import pytest

from fusionjax.config import dump_run, load_run, load_values
from fusionjax.config.load import layer
from fusionjax.config.search import with_params
from fusionjax.config.study import load_study
from fusionjax.config.unread import flat
from fusionjax.config.upgrade import GRAPH_PROFILE, RENAMED, upgrade_params
from fusionjax.errors import UserError

LINKS = "objectives.link_prediction"
GRAPH = """
data: {name: umls}
kge:
  scorer: rotate
  dim: 64
  training: negatives
  negatives: {number: 16, questions: both, shared: 4}
  loss: {name: self_adversarial, temperature: 0.5}
  optimiser: {name: adam, learning_rate: 0.01, rows: on, schedule: plateau}
  epochs: 30
  validate_every: 3
  unseen: 0.1
  sample: 200
  settings: [{optimiser.learning_rate: 0.2, loss.temperature: 2}]
"""


def write(file: Path, text: str) -> Path:
    file.write_text(text, encoding="utf-8")
    return file


def value(run: Any, key: str) -> Any:
    for part in key.split("."):
        run = getattr(run, part)
    return run


# ----------------------------------------------------------------------------------------------------------------- graphs
def test_a_graph_of_yesterday_is_the_same_run_today(tmp_path: Path) -> None:
    run = load_run(write(tmp_path / "x.yaml", GRAPH))
    expected = {
        "model.entity.scorer": "rotate",
        "model.entity.dim": 64,
        "model.entity.margin": 0.0,
        "model.entity.init.name": "xavier_normal",
        "model.product.sources": ("entity",),
        f"{LINKS}.training": "negatives",
        f"{LINKS}.reciprocal": True,
        f"{LINKS}.negatives.number": 16,
        f"{LINKS}.negatives.queries": "both",
        f"{LINKS}.negatives.shared": 4,
        f"{LINKS}.loss.temperature": 0.5,
        "train.steps": None,
        "train.epochs": 30.0,
        "train.validate_every_epochs": 3,
        "train.optimiser.name": "adam",
        "train.optimiser.learning_rate.tables": 0.01,
        "train.optimiser.rows": "sparse",
        "train.optimiser.schedule": "plateau",
        "train.optimiser.warmup_share": 0.0,
        "data.split.unseen_entities": 0.1,
        "data.graph.sample": 200,
        "settings": ({"train.optimiser.learning_rate.tables": 0.2, f"{LINKS}.loss.temperature": 2.0},),
    }
    assert {key: value(run, key) for key in expected} == expected
    assert run.only_objective == "link_prediction" and run.version == 2


def test_every_renamed_key_exists(tmp_path: Path) -> None:
    run = load_run(None)
    for key in RENAMED.values():
        value(run, key)
    for key, _ in flat(GRAPH_PROFILE):
        value(run, key)


def test_defaults_of_graphs_lie_beneath_every_layer(tmp_path: Path) -> None:
    """So does what a file below says that a graph alone did not read; what is said above it counts."""
    joint = write(tmp_path / "joint.yaml", "seed: 4\nmodel: {dim: 8, entity: {dim: 16}}\ntrain: {steps: 7, select: mean}\n")
    write(tmp_path / "graph.yaml", "extends: joint.yaml\nkge: {scorer: complex}\n")
    write(tmp_path / "longer.yaml", "extends: graph.yaml\ntrain: {epochs: 3}\n")
    alone = load_run(None, ["kge.scorer=complex", "seed=4"])
    assert load_run(tmp_path / "graph.yaml") == alone == load_run(joint, ["kge.scorer=complex"])
    assert load_run(tmp_path / "longer.yaml").train.epochs == 3.0
    assert load_run(tmp_path / "graph.yaml", ["train.epochs=3"]) == load_run(tmp_path / "longer.yaml")
    assert load_run(tmp_path / "graph.yaml", ["kge.scorer=null"]) == load_run(joint)
    assert load_run(None, ["seed=4"], [layer({"kge.scorer": "complex"}, "row")]) == alone


def test_above_a_config_of_today_old_keys_are_other_names(tmp_path: Path) -> None:
    today = write(tmp_path / "x.yaml", dump_run(load_run(write(tmp_path / "old.yaml", GRAPH))))
    for overrides in (["kge.dim=32"], ["kge.scorer=pairre", "kge.dim=32"]):
        new = [key.replace("kge.", "model.entity.") for key in overrides]
        assert load_run(today, overrides) == load_run(today, new)
    assert with_params(load_run(today), {"kge.dim": 32}).model.entity.dim == 32
    write(tmp_path / "over.yaml", "extends: x.yaml\nkge: {dim: 32}\n")
    assert load_run(tmp_path / "over.yaml").model.entity.dim == 32


def test_what_no_scorer_was_named_for_is_left_out_and_said() -> None:
    renamed: dict[str, str] = {}
    assert load_run(None, ["kge.dim=64", "kge.block=3"], renamed=renamed) == load_run(None)
    assert set(renamed) == {"kge.dim", "kge.block"} and all("no scorer" in why for why in renamed.values())


# ------------------------------------------------------------------------------------------------------------------ joint
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("negatives: 8", "negatives: {number: 8}"),
        ("self_adversarial: 0", "loss: {name: softmax}"),
        ("self_adversarial: 0.5", "loss: {name: self_adversarial, temperature: 0.5}"),
        ("l2: 0", "penalty: {name: none}"),
        ("l2: 0.75", "penalty: {name: l2, entity: 0.25, relation: 0.25}"),
    ],
)
def test_a_joint_run_of_yesterday_is_the_same_run_today(tmp_path: Path, old: str, new: str) -> None:
    one, two = (
        load_run(write(tmp_path / "x.yaml", f"objectives: {{link_prediction: {{weight: 0.5, {text}}}}}\n"))
        for text in (old, new)
    )
    assert one == two
    key, equals = old.split(": ")
    assert load_run(None, [f"{LINKS}.weight=0.5", f"{LINKS}.{key}={equals}"]) == two


def test_adagrad_was_that_of_optax() -> None:
    assert load_run(None, ["train.optimiser.name=adagrad"]).train.optimiser.name == "adagrad_optax"


def test_a_whole_stored_config_is_read() -> None:
    joint = {"seed": 3, "data": {}, "text": {}, "model": {"entity": {"dim": 32}}, "train": {"steps": 5, "epochs": None}}
    joint |= {"objectives": {"link_prediction": {"negatives": 8, "self_adversarial": 0.0, "l2": 0.0}}, "evaluation": {}}
    kge = {"scorer": None, "dim": 16, "epochs": 9, "negatives": {"number": 4}}
    run = load_values(joint | {"kge": kge}, "config.yaml")
    assert run == load_values(joint, "config.yaml")
    assert (run.model.entity.dim, run.objectives.link_prediction.negatives.number, run.train.steps) == (32, 8, 5)
    graph = load_values(joint | {"kge": {**kge, "scorer": "distmult"}}, "config.yaml")
    assert graph == load_run(None, ["seed=3", "kge={scorer: distmult, dim: 16, epochs: 9, negatives: {number: 4}}"])


# ----------------------------------------------------------------------------------------------------------------- errors
@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("kge:\n  scorer: complex\n  dim: 7\n", "x.yaml:2: model.entity: dim: complex needs a multiple of 2, got 7"),
        (
            "seed: 1\nkge:\n  dim: 8\n  reciprocal: false\n  scorer: conve\n",
            "x.yaml:5: model.entity.scorer: conve predicts tails",
        ),
        ("kge:\n  scorer: complex\n  batch_size: 0\n", f"x.yaml:3: {LINKS}.batch_size: expected an integer ≥ 1, got 0"),
        ("kge:\n  scorer: complex\n  negatives: {numbr: 3}\n", f"x.yaml:3: {LINKS}.negatives.numbr: unknown key"),
        (
            "kge:\n  scorer: complex\n  dimm: 8\n",
            "x.yaml:3: kge.dimm: unknown key; did you mean 'kge.dim'? (today model.entity",
        ),
        ("seed: 1\nkge: {dimm: 8}\n", "x.yaml:2: kge.dimm: unknown key; did you mean 'kge.dim'?"),
        (
            "kge:\n  scorer: complex\nmodel:\n  entity:\n    dim: 8\n    scorer: transe\n",
            "x.yaml:2: kge.scorer: is model.entity.scorer today, which is set too (x.yaml:6): keep one of the two",
        ),
        (
            "objectives:\n  link_prediction:\n    l2: 0.1\n    penalty: {name: n3}\n",
            f"x.yaml:3: {LINKS}.l2: is {LINKS}.penalty.name today, which is set too (x.yaml:4): keep one of the two",
        ),
        ("objectives:\n  link_prediction:\n    negatives: many\n", f"x.yaml:3: {LINKS}.negatives.number: expected an integer"),
        ("seed: 1\nversion: 3\n", "x.yaml:2: version: 3 is newer than this program, which knows versions up to 2"),
        ("version: two\n", "x.yaml:1: version: expected 2, got 'two'"),
        ("version: 2\nkge: {dim: 8}\n", "x.yaml:2: kge.dim: of version 1; in version 2 it is model.entity.dim"),
    ],
)
def test_an_error_names_the_line_of_the_old_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, told: str) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path("x.yaml"), text)
    with pytest.raises(UserError) as caught:
        load_run("x.yaml")
    assert told in str(caught.value), caught.value


def test_a_file_may_say_that_it_is_of_version_1(tmp_path: Path) -> None:
    old = write(tmp_path / "x.yaml", f"version: 1\n{GRAPH}")
    assert load_run(old) == load_run(write(tmp_path / "y.yaml", GRAPH))


# --------------------------------------------------------------------------------------------------------------- searches
STUDY = """
question: q
base: base.yaml
rows: {a: {}}
reference: a
seeds: [0]
tasks: {link_prediction: [mrr]}
search:
  trials: 3
  space:
"""


def test_a_search_of_yesterday_searches_todays_keys(tmp_path: Path) -> None:
    space = "    kge.dim: {choices: [16, 32]}\n    objectives.link_prediction.negatives: {low: 4, high: 64}\n"
    space += '    kge.optimiser.rows: {choices: ["on", auto]}\n'
    study, tree = load_study(write(tmp_path / "study.yaml", STUDY + space))
    assert study.search is not None
    assert list(study.search.space) == ["model.entity.dim", f"{LINKS}.negatives.number", "train.optimiser.rows"]
    assert study.search.space["train.optimiser.rows"].choices == ("sparse", "auto")
    assert tree.origin(("search", "space", "model.entity.dim")).endswith("study.yaml:11")


@pytest.mark.parametrize(
    ("space", "told"),
    [
        (
            "    kge.dim: {low: 1, high: 2}\n    model.entity.dim: {low: 1, high: 2}\n",
            "study.yaml:11: search.space: kge.dim: is mod",
        ),
        (
            "    objectives.link_prediction.l2: {low: 0, high: 1}\n",
            f"study.yaml:11: search.space: {LINKS}.l2: is {LINKS}.penalty.",
        ),
        ("    kge.norm: {low: a, high: 2}\n", "study.yaml:11: search.space.model.entity.norm"),
    ],
)
def test_a_space_that_cannot_be_renamed_is_refused(tmp_path: Path, space: str, told: str) -> None:
    with pytest.raises(UserError) as caught:
        load_study(write(tmp_path / "study.yaml", STUDY + space))
    assert told in str(caught.value), caught.value


def test_what_a_search_chose_is_read() -> None:
    chosen = {"kge.dim": 8, f"{LINKS}.l2": 0.3, "train.steps": 5}
    found = upgrade_params(chosen)
    assert list(found) == [
        "model.entity.dim",
        *(f"{LINKS}.penalty.{key}" for key in ("name", "entity", "relation")),
        "train.steps",
    ]
