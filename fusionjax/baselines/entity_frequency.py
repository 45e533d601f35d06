"""Link prediction by counting: the entities that a relation has most often."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fusionjax.baselines.base import Baseline, TrainTriples


def _of_relation(queries: jax.Array, candidates: jax.Array) -> jax.Array:
    return candidates[:, queries].T


class FrequencyScorer:
    """How often each entity is the answer to a relation in the training triples; rows are positions in `relation`.

    Holds one `int32` an entity and distinct relation of `relation`.
    """

    score = staticmethod(_of_relation)

    def __init__(self, train_relation: np.ndarray, train_answer: np.ndarray, relation: np.ndarray, n_entities: int) -> None:
        asked, self._column = np.unique(relation, return_inverse=True)
        inside = np.isin(train_relation, asked)
        table = np.zeros((n_entities, max(len(asked), 1)), np.int32)
        np.add.at(table, (train_answer[inside], np.searchsorted(asked, train_relation[inside])), 1)
        self.candidates = jnp.asarray(table)

    def batch(self, rows: np.ndarray) -> jax.Array:
        return jnp.asarray(self._column[rows], jnp.int32)


class EntityFrequency(Baseline[TrainTriples]):
    """Ranks entities by how often they are the tail (head) of the relation in the training triples."""

    def scorer(self, examples: Any) -> tuple[FrequencyScorer, FrequencyScorer]:
        """`examples.triples`: int [n, 3], those to rank."""
        (head, relation, tail), n = self.known.triples.T, self.known.n_entities
        asked = examples.triples[:, 1]
        return FrequencyScorer(relation, tail, asked, n), FrequencyScorer(relation, head, asked, n)
