"""The training graph as arrays on the device: what an epoch draws its batches, negatives and labels from.

With reciprocal relations (r + R is the inverse of r) every query is one for a tail; otherwise heads are asked for as well.
A *query* is (source, relation, direction): the entity and relation given, and which end is asked for.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from fusionjax.config.schema import LinkPrediction
from fusionjax.evaluation.ranking import Ragged

_MOST_LABEL_BYTES = 1 << 30
"""Label bits of k-vs-all kept on the device at most."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainGraph:
    """Arrays one program reads and never changes. Unused ones have no rows."""

    triples: jax.Array
    """int32 [n, 3]: head, relation, tail; with reciprocal relations each triple stands twice, the second time inverted."""
    head_share: jax.Array
    """float32 [R]: chance that a triple of the relation asks for its head (`negatives.queries: bernoulli`)."""
    alias: jax.Array
    """float32 [e]: Walker's alias method: chance that a cell keeps its own entity …"""
    alias_other: jax.Array
    """int32 [e]: … and the one it gives otherwise."""
    typed_offsets: jax.Array
    """int32 [2 R + 1]: of the entities each relation has as tails (rows 0 … R − 1) and as heads (the others)."""
    typed: jax.Array
    """int32 [·]."""
    known_row: jax.Array
    """int32 [n, 2]: row in the known-true index of the triple's query for its tail and for its head."""
    known_offsets: jax.Array
    """int32 [queries + 1]."""
    known: jax.Array
    """int32 [·]: true targets of each query in training, sorted."""
    queries: jax.Array
    """int32 [queries, 3]: source, relation, 0 (asks for the tail) or 1 (k-vs-all)."""
    labels: jax.Array
    """uint8 [queries, ⌈e / 8⌉]: bit i of byte j says that entity 8 j + i is an target (k-vs-all)."""
    query_of: jax.Array
    """int32 [·]: the query of each turn of a pass (k-vs-all with `loss.targets`: one with many targets has several), or of
    each triple (one-vs-all with it)."""
    targets: jax.Array
    """float32 [queries]: how many of its targets a query stands for in each of its turns."""


def train_graph(train: np.ndarray, n_entities: int, n_relations: int, config: LinkPrediction) -> TrainGraph:
    """The arrays that training with this config needs.

    Args:
      train: int [n, 3], without inverses.

    Raises:
      ValueError: k-vs-all labels would take more than 1 GiB.
    """
    triples = np.asarray(train, np.int32).reshape(-1, 3)
    if config.reciprocal:
        inverse = np.stack([triples[:, 2], triples[:, 1] + n_relations, triples[:, 0]], 1)
        triples = np.concatenate([triples, inverse]).astype(np.int32)
        n_relations *= 2
    nothing = np.zeros(0, np.int32)
    parts: dict[str, np.ndarray] = {
        "triples": triples,
        "head_share": np.zeros(0, np.float32),
        "alias": np.zeros(0, np.float32),
        "alias_other": nothing,
        "typed_offsets": nothing,
        "typed": nothing,
        "known_row": np.zeros((0, 2), np.int32),
        "known_offsets": nothing,
        "known": nothing,
        "queries": np.zeros((0, 3), np.int32),
        "labels": np.zeros((0, 0), np.uint8),
        "query_of": nothing,
        "targets": np.zeros(0, np.float32),
    }
    negatives = config.negatives
    if config.training == "negatives":
        if negatives.queries == "bernoulli":
            parts["head_share"] = head_share(triples, n_relations)
        if negatives.sampler == "degree":
            degree = np.bincount(triples[:, [0, 2]].reshape(-1), minlength=n_entities).astype(np.float64)
            parts["alias"], parts["alias_other"] = alias_table(degree**negatives.power)
        if negatives.sampler == "typed":
            parts["typed_offsets"], parts["typed"] = _typed(triples, n_relations)
        if negatives.filtered:
            index, rows = known_index(triples, n_relations)
            parts |= {"known_row": rows, "known_offsets": index.offsets.astype(np.int32), "known": index.values}
    if config.training == "k_vs_all":
        parts["queries"], parts["labels"] = labels_of(triples, n_entities, n_relations, both=not config.reciprocal)
        if config.loss.targets:
            number = np.bitwise_count(parts["labels"]).sum(1, dtype=np.int64)
            turns = -(-number // config.loss.targets)
            parts["query_of"] = np.repeat(np.arange(len(number), dtype=np.int32), turns)
            parts["targets"] = (number / turns).astype(np.float32)
    if config.training == "one_vs_all" and config.loss.targets:
        parts["query_of"] = known_index(triples, n_relations)[1][:, 0]
    return TrainGraph(**{name: jnp.asarray(part) for name, part in parts.items()})


def head_share(triples: np.ndarray, n_relations: int) -> np.ndarray:
    """Tails a head over tails a head + heads a tail, of each relation (Wang et al. 2014): 1-N relations ask for heads."""
    head, relation, tail = triples.astype(np.int64).T
    heads, tails = (np.bincount(np.unique(relation << 32 | end) >> 32, minlength=n_relations) for end in (head, tail))
    # tails a head = triples / heads, heads a tail = triples / tails
    return np.where(heads + tails > 0, tails / np.maximum(heads + tails, 1), 0.5).astype(np.float32)


def alias_table(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Walker's alias method: one uniform cell and one uniform number draw from any distribution.

    Returns:
      (keep float32 [n]: chance to keep the cell's own number, other int32 [n]: the number it gives otherwise).
    """
    n = len(weights)
    share = np.asarray(weights, np.float64) * (n / weights.sum())
    keep, other = np.ones(n), np.arange(n)
    small, large = list(np.flatnonzero(share < 1)), list(np.flatnonzero(share >= 1))
    while small and large:
        low, high = small.pop(), large[-1]
        keep[low], other[low] = share[low], high
        share[high] -= 1 - share[low]
        if share[high] < 1:
            small.append(large.pop())
    return keep.astype(np.float32), other.astype(np.int32)


def _typed(triples: np.ndarray, n_relations: int) -> tuple[np.ndarray, np.ndarray]:
    """Distinct tails of each relation, then distinct heads of each."""
    head, relation, tail = triples.astype(np.int64).T
    row = np.concatenate([relation, relation + n_relations])
    pairs = Ragged.from_pairs(row, np.concatenate([tail, head]), 2 * n_relations).distinct()
    return pairs.offsets.astype(np.int32), pairs.values


def known_index(triples: np.ndarray, n_relations: int) -> tuple[Ragged, np.ndarray]:
    """(sorted targets of every query, int32 [n, 2]: the rows of each triple's two queries)."""
    head, relation, tail = triples.astype(np.int64).T
    key = np.concatenate([head * n_relations + relation, -(tail * n_relations + relation) - 1])
    _, row = np.unique(key, return_inverse=True)
    row = row.reshape(-1)
    index = Ragged.from_pairs(row, np.concatenate([tail, head]), int(row.max(initial=-1)) + 1).distinct()
    return index, row.reshape(2, -1).T.astype(np.int32)


def labels_of(triples: np.ndarray, n_entities: int, n_relations: int, both: bool) -> tuple[np.ndarray, np.ndarray]:
    """Every query of training once, and all its targets as bits; `both`: those for heads too."""
    index, rows = known_index(triples, n_relations)
    head, relation, tail = triples.T
    asked = [np.stack([head, relation, np.zeros_like(head)], 1), np.stack([tail, relation, np.ones_like(tail)], 1)]
    table = np.zeros((len(index), 3), np.int32)
    table[rows[:, 0]] = asked[0]
    table[rows[:, 1]] = asked[1]
    kept = np.arange(len(index)) if both else np.unique(rows[:, 0])
    width = -(-n_entities // 8)
    if len(kept) * width > _MOST_LABEL_BYTES:
        raise ValueError(
            f"training: k_vs_all: labels of {len(kept):,} queries over {n_entities:,} entities take "
            f"{len(kept) * width / 2**30:.1f} GiB (at most 1); use one_vs_all or negatives"
        )
    bits = np.zeros((len(kept), width), np.uint8)
    chosen = index.take(kept)
    np.bitwise_or.at(
        bits, (chosen.rows(), chosen.values >> 3), np.left_shift(np.uint8(1), (chosen.values & 7).astype(np.uint8))
    )
    return table[kept], bits
