"""The sections of graph sources: what they take."""

import pytest

from fusionjax.config import config_digest, load_run
from fusionjax.errors import UserError


def test_a_changed_key_changes_the_digest() -> None:
    assert config_digest(load_run(None, ["data.triples.header=true"])) != config_digest(load_run(None))
    assert config_digest(load_run(None, ["data.wikidata5m.variant=inductive"])) != config_digest(load_run(None))


def test_columns_of_triples_stand_each_once() -> None:
    columns = ("tail", "head", "relation")
    assert load_run(None, [f"data.triples.columns=[{', '.join(columns)}]"]).data.triples.columns == columns
    for wrong in ("[head, tail]", "[head, head, tail]", "[head, relation, tail, head]"):
        with pytest.raises(UserError, match=r"data\.triples.*are not head, relation and tail in some order"):
            load_run(None, [f"data.triples.columns={wrong}"])
