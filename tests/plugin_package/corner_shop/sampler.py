"""A sampler of negatives: entities whose numbers are at most a hundred above a random one, wrapped around."""

import jax
from jaxtyping import Array, Int

from fusionjax.objectives.link_prediction.negatives import Drawn


def nearby(key: Array, asked: Drawn) -> Int[Array, "c n"]:
    rows, columns = asked.shape
    first = jax.random.randint(key, (rows, 1), 0, asked.n_entities)
    return (first + jax.random.randint(jax.random.fold_in(key, 1), (rows, columns), 0, 100)) % asked.n_entities
