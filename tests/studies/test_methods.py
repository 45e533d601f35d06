"""Methods paragraphs follow from the configs that were run, and cite what they name and nothing else."""

import dataclasses
import inspect
import re
from functools import cache
from typing import Any

import pytest

from fusionjax.config import schema
from fusionjax.studies import methods
from fusionjax.studies.analysis import Analysis, analyse
from fusionjax.studies.collect import Collected
from fusionjax.studies.methods import bibliography, cited, entries, write_methods
from tests.studies.made import made


@cache
def _made() -> tuple[Collected, Analysis]:
    collected = made(users=60, triples=40, segments=())
    return collected, analyse(collected)


def with_config(**sections: Any) -> str:
    """methods.md of a study all of whose cells have this config; the bibliography is checked on the way."""
    collected, analysis = _made()
    config = schema.Run.model_validate(sections).model_dump(mode="json")
    records = {key: {**record, "config": config} for key, record in collected.records.items()}
    text, references = write_methods(dataclasses.replace(collected, records=records), analysis)
    keys = re.findall(r"(?m)^@\w+\{(\w+),", references)
    assert keys == sorted(cited(text))
    return text


def test_what_is_used_is_named_and_cited() -> None:
    text = with_config(data={"name": "amazon_beauty"})
    for part in (
        "TransE [@bordes2013transe]",
        "BERT encoder [@devlin2019bert]",
        "SASRec [@kang2018sasrec]",
        "AdamW",
        "InfoNCE",
    ):
        assert part in text
    assert "Amazon Beauty" in text and "@mcauley2015amazon" in text
    assert "item-kNN [@deshpande2004itemknn]" in text and "bm25" not in text.lower()
    assert "@holm1979" in text and "@benjamini1995fdr" not in text and "Optuna" not in text


@pytest.mark.parametrize(
    ("config", "there", "absent"),
    [
        ({"model": {"entity": {"scorer": "complex"}}}, "@trouillon2016complex", "transe [@"),
        ({"train": {"steps": 10, "optimiser": {"name": "adagrad_optax"}}}, "@duchi2011adagrad", "AdamW"),
        ({"objectives": {"next_product": {"softmax": "sampled"}}}, "logQ", "over the whole catalogue"),
        ({"objectives": {"next_product": {"weight": 0}}}, "InfoNCE", "SASRec"),
        (
            {"data": {"controls": {"graph": "tails_shuffled"}}},
            "tails of training edges permuted within each relation",
            "as_text",
        ),
        ({"data": {"name": "demo_shop"}}, "synthetic shop", "Amazon"),
    ],
)
def test_other_configs_give_other_methods(config: dict[str, Any], there: str, absent: str) -> None:
    text = with_config(**config)
    assert there in text and absent not in text


def test_a_run_without_text_cites_no_text_encoder() -> None:
    text = with_config(
        model={"product": {"sources": ["entity"]}}, objectives={"alignment": {"weight": 0}, "query_product": {"weight": 0}}
    )
    assert "BERT" not in text and "InfoNCE" not in text and "gated" not in text


def test_entries_are_whole() -> None:
    for key, entry in entries().items():
        assert entry.count("{") == entry.count("}"), key
        assert {"author", "title", "year"} <= set(re.findall(r"(?m)^  (\w+) = ", entry)), key
    with pytest.raises(KeyError):
        bibliography(["nobody2000"])


def test_one_seed_is_said() -> None:
    collected = made(users=60, triples=40, segments=(), seeds=(4,))
    text, _ = write_methods(collected, analyse(collected))
    assert "(one seed)" in text and "Student" not in text


def test_every_entry_can_be_cited_and_every_citation_has_one() -> None:
    known = entries()
    assert [cited(f"as in [@{key}; @jax]")[0] for key in known] == list(known)
    source = inspect.getsource(methods)
    assert set(re.findall(r"@([a-z]+[0-9]{4}[a-z0-9]*)", source)) | set(methods._BASELINE_CITATIONS.values()) <= set(known)


def test_bm25_is_cited() -> None:
    collected = made(users=60, triples=40, segments=(), baselines={"bm25": 0.1})
    text, references = write_methods(collected, analyse(collected))
    assert "bm25 [@robertson2009bm25]" in text and "@article{robertson2009bm25," in references


def test_the_numbers_of_resamples_and_flips_are_those_that_were_used() -> None:
    collected = made(statistics={"resamples": 400})
    text, _ = write_methods(collected, analyse(collected))
    assert "10000 random sign flips" in text and "400 resamples" in text
