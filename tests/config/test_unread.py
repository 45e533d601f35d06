"""What a run does not read, though somebody set it, is named."""

from pathlib import Path

import pytest

from fusionjax.config import load_run
from fusionjax.config.unread import unread

CONFIGS = [
    file
    for file in sorted((Path(__file__).parents[2] / "configs").rglob("*.yaml"))
    if file.parent.name == "kge" or "extends:" not in file.read_text(encoding="utf-8")
]
"""A joint config that takes sources away from another one sets, by the other one, what it does not read."""
LINKS = "objectives.link_prediction"
ALONE = [f"objectives.{name}.weight=0" for name in ("alignment", "query_product", "next_product")]


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ((), []),
        (("seed=4", "data.name=umls", "evaluation.batch_size=8", "model.entity.dim=64", "train.epochs=3"), []),
        (("text.checkpoint=x", "model.dim=8"), ["text.checkpoint", "model.dim"]),
        (("train.optimiser.learning_rate.heads=0.5",), ["train.optimiser.learning_rate.heads"]),
        ((f"{LINKS}.loss.margin=2",), [f"{LINKS}.loss.margin"]),
        ((f"{LINKS}.loss={{name: margin, margin: 2}}",), []),
        ((f"{LINKS}.loss.label_smoothing=0.1",), [f"{LINKS}.loss.label_smoothing"]),
        ((f"{LINKS}.training=k_vs_all", f"{LINKS}.negatives.number=9"), [f"{LINKS}.negatives.number"]),
        ((f"{LINKS}.negatives.number=9",), []),
        (
            (f"{LINKS}.penalty={{entity: 0.1, weighted: false}}",),
            [f"{LINKS}.penalty.entity", f"{LINKS}.penalty.weighted"],
        ),
        ((f"{LINKS}.penalty={{name: n3, entity: 0.1, weighted: false}}",), []),
        (
            ("model.entity.dropout.hidden=0.1", "model.entity.margin=3", "train.optimiser.factor=0.5"),
            ["model.entity.margin", "model.entity.dropout.hidden", "train.optimiser.factor"],
        ),
        (("train.validate_every=5", "train.validate_every_epochs=2"), ["train.validate_every"]),
        (("train.optimiser={name: adam, weight_decay: 0.1}",), ["train.optimiser.weight_decay"]),
        (("train.optimiser={name: adam, weight_decay: 0.1, rules: {heads: adamw}}",), ["train.optimiser.rules.heads"]),
        (
            (f"settings=[{{{LINKS}.loss.margin: 1}}, {{{LINKS}.loss.margin: 2, {LINKS}.penalty.entity: 0.1}}]",),
            [f"settings: {LINKS}.loss.margin", f"settings: {LINKS}.penalty.entity"],
        ),
    ],
)
def test_keys_of_a_graph_alone_without_a_meaning_are_named(overrides: tuple[str, ...], expected: list[str]) -> None:
    assert unread(load_run(None, ["model.entity.scorer=distmult", *ALONE, *overrides])) == expected


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ((), []),
        (("objectives.next_product={weight: 0, batch_size: 8}",), ["objectives.next_product.batch_size"]),
        (("objectives.link_prediction.weight=0", "model.entity.margin=1"), ["model.entity.margin"]),
        (
            (
                "model.product.sources=[text]",
                "objectives.alignment.weight=0",
                "objectives.link_prediction.weight=0",
                "model.entity.dim=8",
            ),
            ["model.entity.dim"],
        ),
        (
            (
                "model.product.sources=[entity]",
                "objectives.alignment.weight=0",
                "objectives.query_product.weight=0",
                "text.width=64",
            ),
            ["text.width"],
        ),
    ],
)
def test_keys_of_a_joint_run_without_a_meaning_are_named(overrides: tuple[str, ...], expected: list[str]) -> None:
    assert unread(load_run(None, list(overrides))) == expected


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.stem)
def test_configs_set_nothing_in_vain(file: Path) -> None:
    assert unread(load_run(file)) == []
