"""Ranks and scores of a model against loops over single triples."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fusionjax.data.shop import TRAIN
from fusionjax.evaluation.link_prediction import KnownTrue, RankingPlan
from fusionjax.evaluation.metrics import Result
from fusionjax.evaluation.triples import score_triples, triple_scores
from fusionjax.inference import Encoder
from fusionjax.models.entities import GRAPH, EntityModel
from fusionjax.tasks.link_prediction import LinkPrediction, TriplesToRank
from fusionjax.tasks.predictor import RunPredictor
from tests.link_prediction.made import ENTITIES, RELATIONS, Made, made, triples

ASKED = triples()[::6]


def ranked(at: Made, params: Any) -> Result:
    """What the task says of the triples asked."""
    plan = RankingPlan.of(ASKED, KnownTrue.of(triples()), ENTITIES, batch_size=4)
    asked = TriplesToRank(
        ASKED, np.arange(len(ASKED)), plan, 8, at.inputs.graph.triples(TRAIN), LinkPrediction().names(at.config)
    )
    predictor = RunPredictor(Encoder(at.joint, {GRAPH: params}, 4), np.zeros((1, 1)), at.inputs)
    return LinkPrediction().measure(predictor, asked)


def loop_scores(at: Made) -> np.ndarray:
    """float [2, e, r, e]: of every triple, as a query for its tail and as one for its head."""
    params = at.params(seed=3)
    shared, entities, relations = params.get("shared"), params["entities"], params["relations"]
    score = at.model.scorer.score
    every = score(entities[:, None, None], relations[None, :, None], entities[None, None], shared)
    if not at.links.reciprocal:
        return np.stack([every, every])
    assert every.shape[1] == 2 * RELATIONS
    return np.stack([every[:, :RELATIONS], np.asarray(every[:, RELATIONS:]).transpose(2, 1, 0)])


@pytest.mark.parametrize(
    "how",
    [
        *(("scorer=complex",), ("scorer=transe", "reciprocal=false")),
        *(("scorer=rotate", "margin=3"), ("scorer=rotate", "reciprocal=false")),
    ],
)
def test_ranks_and_scores_are_the_loops(how: tuple[str, ...]) -> None:
    at = made(*how)
    every, params = loop_scores(at), at.params(seed=3)
    result = ranked(at, params)
    true = {tuple(row) for row in triples().tolist()}
    ranks = []
    for head, relation, tail in ASKED.tolist():
        tails = [e for e in range(ENTITIES) if (head, relation, e) not in true]
        heads = [e for e in range(ENTITIES) if (e, relation, tail) not in true]
        for others, own in (
            (every[0, head, relation, tails], every[0, head, relation, tail]),
            (every[1, heads, relation, tail], every[1, head, relation, tail]),
        ):
            ranks.append(1 + int((others > own).sum()) + int((others == own).sum()) / 2)
    assert result.ranks is not None and result.ranks.reshape(-1).tolist() == ranks
    assert result.metrics["mrr"] == pytest.approx(float(np.mean(1 / np.array(ranks))))

    head, relation, tail = triples().T
    expected = every[:, head, relation, tail].mean(0)
    found = score_triples(at.model, params, at.features, triples(), batch_size=10)
    assert found.dtype == np.float32 and found == pytest.approx(expected, rel=1e-4, abs=1e-5)
    assert len(score_triples(at.model, params, at.features, triples()[:0])) == 0


def test_a_gpu_would_rank_in_full_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever JAX multiplies with elsewhere: close scores would change places."""
    at, seen = made("scorer=complex"), []

    def score_all(*_: object, **__: object) -> None:
        seen.append(getattr(jax.config, "jax_default_matmul_precision", None))
        raise InterruptedError

    monkeypatch.setattr(EntityModel, "score_all", score_all)
    triple_scores.cache_clear()
    with pytest.raises(InterruptedError):
        ranked(at, at.params())
    assert seen == ["highest"]


@pytest.mark.parametrize(("scorer", "expected"), [("transe", True), ("complex", False)])
def test_distances_are_picked_in_full_float32(scorer: str, expected: bool) -> None:
    at = made(f"scorer={scorer}")
    width = at.model.scorer.entity_width
    program = jax.make_jaxpr(at.model.pick)(jnp.ones((2, width)), jnp.ones((ENTITIES, width)), jnp.zeros((2, 3), jnp.int32))
    assert ("HIGHEST" in str(program)) == expected
