"""What is written of studies of graph embedding is true of every row: methods, model card, limits, the report's settings."""

import dataclasses
import inspect
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

import pytest

from fusionjax import names
from fusionjax.config import load_run, schema
from fusionjax.data.sources import SOURCES
from fusionjax.studies import facts, graph_settings, methods_graph
from fusionjax.studies.analysis import Analysis, analyse
from fusionjax.studies.card import model_card
from fusionjax.studies.collect import Collected
from fusionjax.studies.methods import cited, entries, write_methods
from tests.studies.made import made

REFERENCE, OTHER = "complex", "transe"
GRAPH_ALONE = Path(__file__).parents[2] / "configs" / "kge" / "base.yaml"
JOINT = "joint"
NOT_OURS = ("BERT", "SASRec", "tower", "users", "product", "shop", "next product", "steps", "Flax", "@flax", "AdamW", "events")


@cache
def _made(segments: tuple[str, ...] = ()) -> Collected:
    return made(
        triples=40,
        strength={REFERENCE: 0.5, OTHER: 0.0},
        baselines={"popularity": -1.0},
        reference=REFERENCE,
        tasks={"link_prediction": ("mrr", "hits@10")},
        segments=segments,
    )


@cache
def _analysis(segments: tuple[str, ...] = ()) -> Analysis:
    return analyse(_made(segments))


def study(
    first: Sequence[str], second: Sequence[str] | None = None, segments: tuple[str, ...] = (), **changes: Any
) -> Collected:
    """A finished study of two rows with these overrides; `model.entity.scorer=complex` comes before them."""
    collected = _made(segments)
    rows = {REFERENCE: first, OTHER: first if second is None else second}
    configs = {row: _config(chosen) for row, chosen in rows.items()}
    records = {(row, seed): {**record, "config": configs.get(row, {})} for (row, seed), record in collected.records.items()}
    return dataclasses.replace(collected, records=records, **changes)


def _config(chosen: Sequence[str]) -> dict[str, Any]:
    if JOINT in chosen:
        return load_run(None, [each for each in chosen if each != JOINT]).model_dump(mode="json")
    return load_run(GRAPH_ALONE, ["model.entity.scorer=complex", *chosen]).model_dump(mode="json")


def methods(first: Sequence[str], second: Sequence[str] | None = None) -> str:
    """methods.md; the bibliography is checked on the way."""
    text, references = write_methods(study(first, second), _analysis())
    assert re.findall(r"(?m)^@\w+\{(\w+),", references) == sorted(cited(text))
    return text


def card(first: Sequence[str], second: Sequence[str] | None = None, segments: tuple[str, ...] = ()) -> str:
    return model_card(study(first, second, segments), _analysis(segments), "made")


# ------------------------------------------------------------------------------------------------------------------ alike
def test_nothing_of_the_joint_model_is_said() -> None:
    text = methods(["data.name=codex_s"])
    assert not [word for word in NOT_OURS if word in text]
    for part in (
        "the knowledge graph CoDEx-S [@safavi2020codex]",
        "ComplEx [@trouillon2016complex]",
        "128 real numbers (for ComplEx half as many complex numbers)",
        "inverse relation with a vector of its own [@lacroix2018n3]",
        "1-vs-all [@lacroix2018n3]",
        "softmax cross-entropy",
        "Adagrad [@duchi2011adagrad], whose sum of squares starts at 0 as in PyTorch",
        "Learning rates: 0.1.",
        "100 epochs and validated every 5 epochs",
        "best filtered MRR on validation are tested once",
        "share one compiled program",
        "Simple baselines on the same examples: popularity",
    ):
        assert part in text, part
    assert "report.md" not in text.lower()
    assert "Row **" not in text and "penalty" not in text and "Dropout" not in text and "held out" not in text


@pytest.mark.parametrize(
    ("overrides", "there", "absent"),
    [
        (["data.name=umls"], "UMLS [@kemp2006irm] in the split of Dettmers et al. [@dettmers2018conve]", "authors' own"),
        (["data.name=wikidata5m", "data.wikidata5m.variant=inductive"], "@wang2021kepler] (inductive splits)", "transductive"),
        (["data.name=triples"], "the authors' own graph, given as triples", "tables"),
        (["data.name=demo_shop"], "Graph embedding reads the graph of these data and nothing else", "Events"),
        (["data.graph.sample=500"], "at most 500 entities by snowball sampling [@goodman1961snowball]", "held out"),
        (
            ["data.split.unseen_entities=0.2"],
            "20 % of the entities, drawn at random, are taken out",
            "best filtered MRR on validation are",
        ),
        (
            ["data.split.unseen_entities=0.2"],
            "of the questions whose answer training has not seen, are tested once",
            "snowball",
        ),
        (["model.entity.scorer=transe", "model.entity.norm=1"], "TransE's distance is L1", "complex numbers"),
        (["model.entity.scorer=rotate_l2"], "RotatE with an L2 distance [@sun2019rotate]", "ComplEx"),
        (["train.average=0.9"], "0.9 of it what was there before [@polyak1992averaging]", "the parameters themselves"),
        (["model.entity.scorer=quate"], "for QuatE a quarter as many quaternions", "ComplEx"),
        (["model.entity.scorer=tucker", "model.entity.relation_dim=16"], "Relations have 16 real numbers.", "Row **"),
        (["model.entity.scorer=conve", "model.entity.convolution.filters=8"], "8 filters of 3 × 3", "ComplEx"),
        (["objectives.link_prediction.reciprocal=false"], "with the relation's own vector", "inverse"),
        (
            ["objectives.link_prediction.training=k_vs_all", "objectives.link_prediction.loss.name=bce"],
            "(k-vs-all [@dettmers2018conve])",
            "1-vs-all",
        ),
        (["objectives.link_prediction.training=k_vs_all"], "A batch has 512 questions", "512 triples"),
        (
            ["objectives.link_prediction.training=k_vs_all", "objectives.link_prediction.loss.targets=8"],
            "counting once for each of its answers and asked once for every 8",
            "1-vs-all",
        ),
        (
            ["objectives.link_prediction.loss.targets=4"],
            "(1-vs-all [@lacroix2018n3]), up to 4 triples that ask the same together",
            "counting once",
        ),
        (["objectives.link_prediction.loss.targets=4"], "A batch has 512 questions", "512 triples"),
        (["objectives.link_prediction.training=k_vs_all"], "in which all answers share the target", "counting once"),
        (
            [
                "objectives.link_prediction.training=negatives",
                "objectives.link_prediction.negatives={number: 16, sampler: degree, shared: 8, filtered: true}",
            ],
            "16 corruptions drawn in proportion to the degree to the power of 0.75, each draw shared by 8 questions, true "
            "triples of training left out",
            "vs-all",
        ),
        (
            ["objectives.link_prediction.training=negatives", "objectives.link_prediction.negatives.logq=true"],
            "stood for (logQ [@bengio2008sampling])",
            "degree",
        ),
        (
            [
                "objectives.link_prediction.training=negatives",
                "objectives.link_prediction.negatives.queries=bernoulli",
                "objectives.link_prediction.reciprocal=false",
            ],
            "@wang2014transh",
            "drawn evenly",
        ),
        (["objectives.link_prediction.training=negatives"], "for its tail and for its head", "@wang2014transh"),
        (
            ["objectives.link_prediction.training=negatives", "objectives.link_prediction.loss={name: margin, margin: 2}"],
            "with margin 2 [@bordes2013transe]",
            "softmax",
        ),
        (
            [
                "objectives.link_prediction.training=negatives",
                "objectives.link_prediction.loss={name: self_adversarial, temperature: 0.5}",
            ],
            "self-adversarially with temperature 0.5 [@sun2019rotate]",
            "softmax",
        ),
        (["objectives.link_prediction.loss.label_smoothing=0.1"], "labels smoothed by 0.1 [@szegedy2016inception]", "Row **"),
        (
            ["objectives.link_prediction.training=negatives", "objectives.link_prediction.loss.label_smoothing=0.1"],
            "64 corruptions",
            "smoothed",
        ),
        (
            ["objectives.link_prediction.relation_prediction=0.25"],
            "with weight 0.25 [@chen2021relation]",
            "no relation prediction",
        ),
        (["objectives.link_prediction.penalty={name: n3, entity: 0.01}"], "the N3 penalty [@lacroix2018n3]", "@zhang2020dura"),
        (["objectives.link_prediction.penalty={name: n3}"], "1-vs-all", "N3"),
        (["objectives.link_prediction.penalty={name: dura, entity: 0.05}"], "DURA [@zhang2020dura]", "N3"),
        (
            ["objectives.link_prediction.penalty={name: l2, entity: 0.05, weighted: false}"],
            "of whole tables, once a batch, are held by their squares",
            "N3",
        ),
        (["model.entity.dropout={entity: 0.2, hidden: 0.4}"], "is of the given entity's vector 0.2.", "the query"),
        (["model.entity.scorer=conve", "model.entity.dropout.hidden=0.4"], "is of the query 0.4.", "given entity"),
        (["train.optimiser.name=adagrad_optax"], "starts at 0.1 as in Optax", "PyTorch"),
        (["train.optimiser.name=adam"], "Adam [@kingma2015adam].", "lazily"),
        (
            ["train.optimiser={name: adam, rows: sparse}", "objectives.link_prediction.training=negatives"],
            "lazily: moments of entities",
            "where it is cheaper",
        ),
        (
            ["train.optimiser={schedule: plateau, factor: 0.5, wait: 3}"],
            "multiplied by 0.5 after more than 3 validations without a better one",
            "constant",
        ),
        (["train.patience=4"], "at most 100 epochs", "for 100 epochs"),
        (["model.entity.literals=true"], "A learned projection of the entities' numbers", "no numbers"),
        (
            ["model.entity.text={use: align, checkpoint: a/b_c, align: 0.3}"],
            "the frozen encoder `a/b_c` gives its text by InfoNCE in both directions within the batch [@oord2018infonce; "
            "@radford2021clip] (weight 0.3, temperature 0.05)",
            "alone",
        ),
        (["model.entity.text={use: replace, checkpoint: a/b, hidden: 32}"], "(with one hidden layer of 32)", "InfoNCE"),
        (["model.entity.text={use: none, checkpoint: a/b}"], "Entities and relations", "encoder"),
        (["model.entity.init.name=paper"], "as the scorer's authors have it", "Xavier"),
        (["data.controls.graph=tails_shuffled"], "train on a changed graph", "share one compiled program"),
        (["data.controls.text=shuffled"], "1-vs-all", "Control rows"),
    ],
)
def test_settings_are_named_and_cited(overrides: list[str], there: str, absent: str) -> None:
    text = methods(overrides)
    assert there in text and absent not in text


@pytest.mark.parametrize("scorer", names.SCORERS)
def test_every_scorer_is_cited_and_has_a_sentence(scorer: str) -> None:
    text = methods([f"model.entity.scorer={scorer}"])
    assert f"embedded with {graph_settings.SCORERS[scorer]}." in text


@pytest.mark.parametrize("name", [name for name, place in SOURCES.own.items() if ".graphs." in place])
def test_every_graph_is_named(name: str) -> None:
    assert name in graph_settings.GRAPHS or name == "triples"
    assert "authors' own tables" not in methods([f"data.name={name}"])


def test_every_choice_has_its_words() -> None:
    """A value added to the config and forgotten here would stop a report."""
    links, optimiser = "objectives.link_prediction", "train.optimiser"
    choices = {
        f"{links}.training": schema.LinkPrediction,
        f"{links}.loss.name": schema.Loss,
        f"{links}.penalty.name": schema.Penalty,
        f"{links}.negatives.sampler": schema.Negatives,
        f"{links}.negatives.queries": schema.Negatives,
        f"{optimiser}.name": schema.Optimiser,
        f"{optimiser}.schedule": schema.Optimiser,
        "model.entity.init.name": schema.Init,
        "model.entity.text.use": schema.EntityText,
    }
    usual = [f"{links}.reciprocal=false", f"{links}.penalty.entity=0.1", "model.entity.text.checkpoint=a/b"]
    for key, section in choices.items():
        field = section.model_fields[key.rsplit(".", 1)[1]].annotation
        values = names.SAMPLERS if key.endswith("sampler") else get_args(field)
        assert values and (key.endswith("sampler") or field == Literal[values])
        for value in values:
            more = [f"{links}.training=negatives"] if key.startswith((f"{links}.loss", f"{links}.negatives")) else []
            methods([*more, *usual, f"{key}={value}"])


@pytest.mark.parametrize(
    ("overrides", "there"),
    [
        (["train={steps: 500, epochs: null}"], "models are trained for 500 steps and validated every 5 epochs"),
        (
            ["train={steps: 500, epochs: null, validate_every_epochs: 0, validate_every: 50}"],
            "trained for 500 steps and validated every 50 steps",
        ),
        (["train.validate_every_epochs=0"], "for 100 epochs and validated ten times"),
        (["train.optimiser.schedule=cosine"], "The learning rate falls to 0 over the training (cosine schedule)."),
        (
            ["objectives.link_prediction={training: negatives, negatives: {shared: batch}}"],
            "each draw shared by a batch",
        ),
    ],
)
def test_what_graphs_alone_have_from_joint_runs_is_said(overrides: list[str], there: str) -> None:
    assert there.lower() in methods(overrides).lower()


def test_joint_rows_say_how_their_triples_are_trained() -> None:
    usual = methods([JOINT])
    assert "*Link prediction* is a softmax over a true triple and its uniformly corrupted heads or tails." in usual
    other = [JOINT, "objectives.link_prediction={training: one_vs_all, penalty: {name: n3, entity: 0.1}}"]
    text = methods(other)
    assert "*Link prediction* learns from the graph's triples." in text and "the N3 penalty [@lacroix2018n3]" in text


def test_a_row_less_the_other_objectives_is_described_with_the_joint_ones() -> None:
    less = [f"objectives.{name}.weight=0" for name in ("alignment", "query_product", "next_product")]
    assert facts.graph_rows(study([JOINT], [JOINT, *less])) == ()
    assert facts.graph_rows(study([JOINT, *less])) == (REFERENCE, OTHER)


def test_citations_have_entries() -> None:
    source = inspect.getsource(methods_graph) + inspect.getsource(graph_settings)
    assert set(re.findall(r"@([a-z]+[0-9]{4}[a-z0-9]*)", source)) <= set(entries())


# ------------------------------------------------------------------------------------------------------------------ mixed
def test_where_rows_differ_each_is_told_apart() -> None:
    text = methods(
        [
            "objectives.link_prediction.penalty={name: n3, entity: 0.01, relation: 0.02}",
            "model.entity.dim=512",
            "train.optimiser.learning_rate.tables=0.5",
        ],
        [
            "model.entity.scorer=transe",
            "objectives.link_prediction.training=negatives",
            "objectives.link_prediction.loss={name: margin, margin: 2}",
            "objectives.link_prediction.reciprocal=false",
            "model.entity.dim=64",
            "train.optimiser={name: adam, learning_rate: {tables: 0.01}, schedule: plateau}",
            "train.epochs=30",
        ],
    )
    for part in (
        "ComplEx [@trouillon2016complex] and TransE [@bordes2013transe]",
        "An entity has 64 and 512 (by row) real numbers",
        "Row **complex**: heads are asked for as tails of an inverse relation",
        "row **transe**: heads are asked for with the relation's own vector",
        "Row **complex**: each training triple is scored against all entities",
        "row **transe**: each training triple is asked for its tail and for its head",
        "Row **complex**: vectors of a batch's triples are held by the N3 penalty [@lacroix2018n3]; row **transe**: no penalty",
        "Weights of the penalties: entities 0.01, relations 0.02.",
        "Learning rates: 0.01 and 0.5 (by row).",
        "row **transe**: the learning rate is multiplied by 0.95 after more than 1 validation without a better one",
        "A batch has 512 triples, inverse ones counted or 512 triples.",
        "row **transe**: models are trained for 30 epochs",
    ):
        assert part in text, part


def test_dropout_of_some_rows_is_said_of_these() -> None:
    text = methods(["model.entity.scorer=conve", "model.entity.dropout.hidden=0.4"], ["model.entity.dropout.hidden=0.4"])
    assert "Dropout [@srivastava2014dropout] (row **complex** alone) is of the query 0.4." in text
    assert "Report.md lists the settings in which rows differ" in text


def test_text_is_told_apart_by_row() -> None:
    text = methods(["model.entity.text.checkpoint=a/b"], ["model.entity.text={use: add, checkpoint: a/b}"])
    assert "Row **complex**: an entity's vector is a row of a table; row **transe**: an entity's vector is the sum of" in text


def test_a_study_of_both_kinds_has_the_paragraphs_of_both() -> None:
    text = methods(["model.entity.dim=32"], [JOINT])
    assert "**Model (row **transe**).** Texts" in text and "**Model (row **complex**).** Entities and relations" in text
    assert text.count("Every row is trained with the seeds") == 1 and "and Flax [@flax]" in text
    graph = text.split("**Training (row **complex**).**")[1].split("**Seeds.**")[0]
    assert "epochs" in graph and "AdamW" not in graph


def test_ranges_stand_for_many_values() -> None:
    rows = {str(place): {"dim": 2**place} for place in range(3, 8)}
    assert graph_settings.ranged(rows, "dim", whole=True) == "8 to 128 (by row)"
    assert graph_settings.ranged({"a": {"dim": 8}, "b": {}}, "dim") == "8"
    assert graph_settings.named([f"{place}" for place in range(6)]) == "rows **0**, **1**, **2**, **3** and 2 more"


def test_keys_that_are_not_read_do_not_count_as_differences() -> None:
    assert (
        graph_settings.differing(
            study(
                ["model.entity.norm=1"],
                [
                    "model.entity.norm=2",
                    "objectives.link_prediction.negatives.number=3",
                    "objectives.link_prediction.block=100",
                ],
            )
        )
        == {}
    )
    found = graph_settings.differing(study(["model.entity.dim=32"], ["model.entity.dim=64", "model.entity.scorer=transe"]))
    assert found[REFERENCE] == {"scorer": "complex", "dim": 32}
    assert found[OTHER] == {"scorer": "transe", "dim": 64, "norm": 2}


# ------------------------------------------------------------------------------------------------------- card and limits
def test_the_card_speaks_of_a_graph() -> None:
    text = card(["data.name=fb15k237", "data.split.unseen_entities=0.1"], ["data.name=fb15k237", "model.entity.scorer=transe"])
    assert "Graph embedding (all rows) with ComplEx, TransE; an entity has 128 real numbers." in text
    assert "Source: fb15k237, FB15k-237" in text and "Share of entities held out: 0.1" in text
    assert "facts of Freebase" in text and "differences between kinds of triples or entities" in text
    assert not [word for word in ("shop", "Product", "Objectives", "Split of events", "users") if word in text]


def test_the_card_of_a_joint_model_is_as_ever() -> None:
    text = card([JOINT])
    for part in ("Product vectors of the reference", "Split of events", "that shop's own data", "groups of users or products"):
        assert part in text


def test_unevenness_of_a_graph_is_no_question_of_ethics(monkeypatch: pytest.MonkeyPatch) -> None:
    collected, analysis = study(["data.name=wn18rr"], segments=("direction",)), _analysis(("direction",))
    monkeypatch.setattr("fusionjax.studies.card._factors", lambda _: ([], ["tail is harder"]))
    limits, ethics = model_card(collected, analysis, "made").split("## Ethical notes")
    assert "tail is harder" in limits and "tail is harder" not in ethics


def test_limits_of_samples_and_of_rows_that_cannot_know_an_entity() -> None:
    found = "\n".join(
        facts.limits(
            study(
                ["data.split.unseen_entities=0.2", "data.graph.sample=300"],
                ["data.split.unseen_entities=0.2", "model.entity.literals=true"],
            )
        )
    )
    assert "sample of at most 300 entities" in found and "('complex')" in found and "'transe'" not in found
    assert "Not all rows train" not in found


def test_budgets_are_epochs() -> None:
    said = "Not all rows train for the same number of steps or epochs."
    assert said in facts.limits(study(["train.epochs=10"], ["train.epochs=20"]))
    assert said not in facts.limits(study(["model.dim=16"], ["model.dim=32"]))
    assert said in facts.limits(study([JOINT, "train.steps=10"], [JOINT, "train.steps=20"]))


def test_rows_with_base_configs_of_their_own_are_not_said_to_share_one() -> None:
    collected = study(["model.entity.dim=32"])
    rows = {row: {"base": f"{row}.yaml"} for row in collected.rows}
    own = dataclasses.replace(collected, study=collected.study.model_copy(update={"rows": rows}))
    assert any("base configs of their own" in limit for limit in facts.limits(own))
    assert any("those of the base config" in limit for limit in facts.limits(collected))
