"""Link prediction and its entities: what does not go together is told in one line that names the key and where it stands."""

from pathlib import Path

import pytest

from fusionjax.config import load_run
from fusionjax.errors import UserError

LINKS, ENTITY = "objectives: {link_prediction: {%s}}", "model: {entity: {%s}}"
BOTH = f"{ENTITY}\n{LINKS}"
ALL = "training: one_vs_all"
OWN = "negatives: {shared: 0, %s}"
MISTAKES = {
    "margin against all": (
        LINKS % f"{ALL}, loss: {{name: margin}}",
        "loss.name: margin needs training: negatives, got one_vs_all",
    ),
    "self-adversarial against all targets": (
        LINKS % "training: k_vs_all, loss: {name: self_adversarial}",
        "loss.name: self_adversarial needs training: negatives, got k_vs_all",
    ),
    "heads of conve": (
        ENTITY % "scorer: conve",
        "model.entity.scorer: conve predicts tails only: it needs objectives.link_prediction.reciprocal: true",
    ),
    "blocks against negatives": (LINKS % "block: 100", "block: needs training: one_vs_all with loss.name: softmax"),
    "blocks of judgments alone": (
        LINKS % f"{ALL}, block: 100, loss: {{name: bce}}",
        "block: needs training: one_vs_all with loss.name: softmax",
    ),
    "predicting the relation of a rotation": (
        BOTH % ("scorer: rotate", "relation_prediction: 0.1"),
        "objectives.link_prediction.relation_prediction: not with model.entity.scorer: rotate, whose score is no product",
    ),
    "dura of a distance": (
        LINKS % "penalty: {name: dura, entity: 0.1}",
        "objectives.link_prediction.penalty.name: dura is for distmult, complex, simple, rescal, "
        "got model.entity.scorer: transe",
    ),
    "aligned biases": (
        ENTITY % "scorer: conve, text: {use: align, checkpoint: x}",
        "text.use: align: not for conve, whose entity rows hold a bias",
    ),
    "negatives of one side shared": (
        LINKS % "negatives: {shared: 4, queries: one}",
        "negatives.shared: 4 needs negatives.queries: both, got one",
    ),
    "negatives of one side shared by the batch": (
        LINKS % "negatives: {queries: one}",
        "negatives.shared: batch needs negatives.queries: both, got one",
    ),
    "shared candidates of one relation": (
        LINKS % "negatives: {shared: 4, sampler: typed}",
        "negatives.shared: not with negatives.sampler: typed, whose candidates are of one relation",
    ),
    "one side of triples that ask both in turn": (
        LINKS % f"reciprocal: true, {OWN % 'queries: bernoulli'}",
        "negatives.queries: bernoulli needs reciprocal: false",
    ),
    "half a complex number": (ENTITY % "scorer: complex, dim: 7", "dim: complex needs a multiple of 2, got 7"),
    "images with a part of a row": (
        ENTITY % "scorer: conve, dim: 30, convolution: {height: 4}",
        "convolution.height: 4 does not divide dim 30",
    ),
    "logq of another loss": (
        LINKS % "negatives: {logq: true}, loss: {name: bce}",
        "negatives.logq: needs loss.name: softmax with negatives.sampler: uniform, got bce with uniform",
    ),
    "logq of another sampler": (
        LINKS % "negatives: {logq: true, sampler: degree}",
        "negatives.logq: needs loss.name: softmax with negatives.sampler: uniform, got softmax with degree",
    ),
    "triples that weigh": (
        LINKS % "loss: {targets: 1}",
        "loss.targets: needs training: one_vs_all or k_vs_all, with loss.name: softmax, got negatives with softmax",
    ),
    "triples scored together of both ends": (
        LINKS % f"{ALL}, loss: {{targets: 4}}",
        "loss.targets: needs reciprocal: true with training: one_vs_all",
    ),
    "dura of triples scored together": (
        LINKS % f"{ALL}, reciprocal: true, loss: {{targets: 4}}, penalty: {{name: dura, entity: 0.1}}",
        "penalty.name: dura holds each triple's target: not with loss.targets and one_vs_all",
    ),
    "chunks that do not divide": (
        LINKS % "batch_size: 30, negatives: {shared: 4}",
        "negatives.shared: 4 does not divide batch_size 30",
    ),
    "text of no encoder": (ENTITY % "text: {use: replace}", "text: checkpoint: name an encoder"),
}


@pytest.mark.parametrize(("sections", "told"), MISTAKES.values(), ids=MISTAKES)
def test_what_does_not_go_together_is_told_in_one_line(tmp_path: Path, sections: str, told: str) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(f"{sections}\n", encoding="utf-8")
    with pytest.raises(UserError) as caught:
        load_run(file)
    message = str(caught.value)
    assert message.startswith(f"{file}") and told in message and "\n" not in message


@pytest.mark.parametrize(("key", "told"), [
    ("model.entity.scorer=transd", "command line: model.entity.scorer: expected one of 'transe', 'distmult', "),
    ("model.entity.dim=1", "command line: model.entity.dim: expected an integer ≥ 2, got 1"),
    ("objectives.link_prediction.loss.label_smoothing=1",
     "command line: objectives.link_prediction.loss.label_smoothing: expected a number ≥ 0 and < 1, got 1"),
    ("train.optimiser.factor=1", "command line: train.optimiser.factor: expected a number > 0 and < 1, got 1"),
    ("train.optimiser.rules.tables=adagrad",
     "command line: train.optimiser.rules.tables: expected one of 'adamw', 'adam', 'adagrad_torch', 'adagrad_optax', 'sgd' or"),
    ("objectives.link_prediction.negatives.number=0",
     "command line: objectives.link_prediction.negatives.number: expected an integer ≥ 1, got 0"),
    ("objectives.link_prediction.negatives.shared=all",
     "command line: objectives.link_prediction.negatives.shared: expected an integer ≥ 0 or 'batch', got 'all'"),
    ("objectives.link_prediction.penalty.name=n4",
     "command line: objectives.link_prediction.penalty.name: expected one of 'none', 'l2', 'n3', 'dura', got 'n4'"),
    ("data.split.unseen_entities=1.5", "command line: data.split.unseen_entities: expected a number ≥ 0 and ≤ 1, got 1.5"),
    ("objectives.link_prediction.negatives.shard=4",
     "command line: objectives.link_prediction.negatives.shard: unknown key; did you mean 'shared'?"),
    ("settings=[{loss.margin: 1}]", "command line: settings[0].loss.margin: unknown key"),
])  # fmt: skip
def test_values_out_of_range(key: str, told: str) -> None:
    with pytest.raises(UserError) as caught:
        load_run(None, [key])
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("entity", "links"),
    [
        (
            "{scorer: conve, text: {use: add, checkpoint: x}}",
            "{reciprocal: true, training: k_vs_all, loss: {name: bce}}",
        ),
        (
            "{scorer: complex}",
            "{training: one_vs_all, penalty: {name: dura, entity: 0.1}, block: 50, relation_prediction: 0.5}",
        ),
        ("{scorer: rotate}", "{loss: {name: self_adversarial}, negatives: {shared: 8}}"),
        ("{scorer: distmult}", "{negatives: {shared: 0, queries: bernoulli, sampler: typed}}"),
        ("{scorer: conve}", "{weight: 0}"),
    ],
)
def test_what_goes_together_is_taken(entity: str, links: str) -> None:
    load_run(None, [f"model.entity={entity}", f"objectives.link_prediction={links}"])


def test_the_only_objective_has_a_name() -> None:
    others = [f"objectives.{name}.weight=0" for name in ("alignment", "query_product", "next_product")]
    assert load_run(None).only_objective is None
    assert load_run(None, others).only_objective == "link_prediction"
