"""Graph embedding's section: what does not go together is told in one line that names the key and where it stands."""

from pathlib import Path

import pytest

from fusionjax.config import load_run
from fusionjax.errors import UserError

NEGATIVES = "training: negatives, "
MISTAKES = {
    "margin against all": (
        "scorer: transe, loss: {name: margin}",
        "loss.name: margin needs training: negatives, got one_vs_all",
    ),
    "self-adversarial against all answers": (
        "scorer: rotate, training: k_vs_all, loss: {name: self_adversarial}",
        "loss.name: self_adversarial needs training: negatives, got k_vs_all",
    ),
    "heads of conve": ("scorer: conve, reciprocal: false", "scorer: conve answers for tails only: it needs reciprocal: true"),
    "blocks against negatives": (
        f"scorer: distmult, block: 100, {NEGATIVES}",
        "block: needs training: one_vs_all with loss.name: softmax",
    ),
    "blocks of judgments alone": (
        "scorer: distmult, block: 100, loss: {name: bce}",
        "block: needs training: one_vs_all with loss.name: softmax",
    ),
    "foretelling a rotation": (
        "scorer: rotate, relation_prediction: 0.1",
        "relation_prediction: not for rotate, whose score is no product with the relation",
    ),
    "dura of a distance": (
        "scorer: transe, penalty: {name: dura, entity: 0.1}",
        "penalty.name: dura is for distmult, complex, simple and rescal, got transe",
    ),
    "aligned biases": (
        "scorer: conve, text: {use: align, checkpoint: x}",
        "text.use: align: not for conve, whose entity rows hold a bias",
    ),
    "chunks of one side": (
        f"scorer: distmult, reciprocal: false, {NEGATIVES} negatives: {{shared: 4, questions: one}}",
        "negatives.shared: needs negatives.questions: both",
    ),
    "chunks of one relation's candidates": (
        f"scorer: distmult, {NEGATIVES} negatives: {{shared: 4, sampler: typed}}",
        "negatives.shared: not with negatives.sampler: typed, whose candidates are of one relation",
    ),
    "one side of triples that ask both in turn": (
        f"scorer: distmult, {NEGATIVES} negatives: {{questions: bernoulli}}",
        "negatives.questions: bernoulli needs reciprocal: false",
    ),
    "half a complex number": ("scorer: complex, dim: 7", "dim: complex needs a multiple of 2, got 7"),
    "images with a part of a row": (
        "scorer: conve, dim: 30, convolution: {height: 4}",
        "convolution.height: 4 does not divide dim 30",
    ),
    "logq of another loss": (
        f"scorer: distmult, {NEGATIVES} negatives: {{logq: true}}, loss: {{name: bce}}",
        "negatives.logq: needs loss.name: softmax with negatives.sampler: uniform, got bce with uniform",
    ),
    "logq of another sampler": (
        f"scorer: distmult, {NEGATIVES} negatives: {{logq: true, sampler: degree}}",
        "negatives.logq: needs loss.name: softmax with negatives.sampler: uniform, got softmax with degree",
    ),
    "triples that weigh": (
        "scorer: distmult, training: negatives, loss: {answers: 1}",
        "loss.answers: needs training: one_vs_all or k_vs_all, with loss.name: softmax, got negatives with softmax",
    ),
    "triples asked together of both ends": (
        "scorer: distmult, reciprocal: false, loss: {answers: 4}",
        "loss.answers: needs reciprocal: true with training: one_vs_all",
    ),
    "dura of triples asked together": (
        "scorer: distmult, loss: {answers: 4}, penalty: {name: dura, entity: 0.1}",
        "penalty.name: dura holds each triple's answer: not with loss.answers and one_vs_all",
    ),
    "chunks that do not divide": (
        f"scorer: distmult, batch_size: 30, {NEGATIVES} negatives: {{shared: 4}}",
        "negatives.shared: 4 does not divide batch_size 30",
    ),
    "text of no encoder": ("scorer: distmult, text: {use: replace}", "text: checkpoint: name an encoder"),
}


@pytest.mark.parametrize(("section", "told"), MISTAKES.values(), ids=MISTAKES)
def test_what_does_not_go_together_is_told_in_one_line(tmp_path: Path, section: str, told: str) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(f"seed: 3\nkge: {{{section}}}\n", encoding="utf-8")
    with pytest.raises(UserError) as caught:
        load_run(file)
    message = str(caught.value)
    assert message.startswith(f"{file}:2: kge") and told in message and "\n" not in message


@pytest.mark.parametrize(("key", "told"), [
    ("scorer=transd", "command line: kge.scorer: expected one of 'transe', 'distmult', "),
    ("dim=1", "command line: kge.dim: expected an integer ≥ 2, got 1"),
    ("loss.label_smoothing=1", "command line: kge.loss.label_smoothing: expected a number ≥ 0 and < 1, got 1"),
    ("optimiser.learning_rate=0", "command line: kge.optimiser.learning_rate: expected a number > 0, got 0"),
    ("optimiser.factor=1", "command line: kge.optimiser.factor: expected a number > 0 and < 1, got 1"),
    ("negatives.number=0", "command line: kge.negatives.number: expected an integer ≥ 1, got 0"),
    ("penalty.name=n4", "command line: kge.penalty.name: expected one of 'none', 'l2', 'n3', 'dura', got 'n4'"),
    ("unseen=1.5", "command line: kge.unseen: expected a number ≥ 0 and ≤ 1, got 1.5"),
    ("negatives.shard=4", "command line: kge.negatives.shard: unknown key; did you mean 'shared'?"),
])  # fmt: skip
def test_values_out_of_range(key: str, told: str) -> None:
    with pytest.raises(UserError) as caught:
        load_run(None, [f"kge.{key}"])
    assert told in str(caught.value)


def test_what_goes_together_is_taken() -> None:
    load_run(None, ["kge={scorer: conve, text: {use: add, checkpoint: x}, training: k_vs_all, loss: {name: bce}}"])
    load_run(None, ["kge={scorer: complex, penalty: {name: dura, entity: 0.1}, block: 50, relation_prediction: 0.5}"])
    load_run(None, ["kge={scorer: rotate, training: negatives, loss: {name: self_adversarial}, negatives: {shared: 8}}"])


def test_without_a_scorer_nothing_need_fit() -> None:
    """The joint model reads none of it."""
    assert load_run(None, ["kge={block: 3, training: k_vs_all}"]).kge.scorer is None
