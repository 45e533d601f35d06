"""The sections of graph sources: what they take, and that configs from before they came keep their digest."""

import pytest

from fusionjax.config import config_digest, load_run
from fusionjax.errors import UserError


def test_configs_keep_the_digest_they_had() -> None:
    assert config_digest(load_run(None)) == "72bc9725d61ed4edc7c53084b2a893bdd228daa0be759d60dfd48daf63f173a2"
    assert config_digest(load_run(None, ["data.triples.header=true"])) != config_digest(load_run(None))
    assert config_digest(load_run(None, ["data.wikidata5m.variant=inductive"])) != config_digest(load_run(None))


def test_columns_of_triples_stand_each_once() -> None:
    columns = ("tail", "head", "relation")
    assert load_run(None, [f"data.triples.columns=[{', '.join(columns)}]"]).data.triples.columns == columns
    for wrong in ("[head, tail]", "[head, head, tail]", "[head, relation, tail, head]"):
        with pytest.raises(UserError, match=r"data\.triples.*are not head, relation and tail in some order"):
            load_run(None, [f"data.triples.columns={wrong}"])
