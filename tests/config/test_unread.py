"""What a run of graph embedding does not read, though somebody set it, is named."""

from pathlib import Path

import pytest

from fusionjax.config import load_run
from fusionjax.config.kge_unread import unread

CONFIGS = sorted((Path(__file__).parents[2] / "configs" / "kge").glob("*.yaml"))


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ((), []),
        (("seed=4", "data.name=umls", "evaluation.batch_size=8", "kge.dim=64"), []),
        (("train.epochs=3", "evaluation.tasks=[search]"), ["train.steps", "train.epochs", "evaluation.tasks"]),
        (("text.checkpoint=x", "model.dim=8"), ["text.checkpoint", "model.dim"]),
        (("kge.loss.margin=2",), ["kge.loss.margin"]),
        (("kge.training=negatives", "kge.loss={name: margin, margin: 2}"), []),
        (("kge.training=negatives", "kge.loss.label_smoothing=0.1"), ["kge.loss.label_smoothing"]),
        (("kge.negatives.number=9",), ["kge.negatives.number"]),
        (("kge.training=negatives", "kge.negatives.number=9"), []),
        (("kge.penalty={entity: 0.1, weighted: false}",), ["kge.penalty.entity", "kge.penalty.weighted"]),
        (("kge.penalty={name: n3, entity: 0.1, weighted: false}",), []),
        (
            ("kge.dropout.hidden=0.1", "kge.margin=3", "kge.optimiser.rows=on"),
            ["kge.margin", "kge.dropout.hidden", "kge.optimiser.rows"],
        ),
        (
            ("kge.settings=[{loss.margin: 1}, {loss.margin: 2, penalty.entity: 0.1}]",),
            ["kge.settings: loss.margin", "kge.settings: penalty.entity"],
        ),
    ],
)
def test_keys_without_a_meaning_here_are_named(overrides: tuple[str, ...], expected: list[str]) -> None:
    assert unread(load_run(None, ["kge.scorer=distmult", *overrides])) == expected


def test_without_a_scorer_all_of_graph_embedding_is_in_vain() -> None:
    assert unread(load_run(None, ["kge.dim=64", "kge.loss.margin=2", "model.dim=8"])) == ["kge.dim", "kge.loss.margin"]


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.stem)
def test_configs_set_nothing_in_vain(file: Path) -> None:
    assert unread(load_run(file)) == []
