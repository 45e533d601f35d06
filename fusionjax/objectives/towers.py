"""The towers as an objective's loss reads them in one step, with parameters, text bank and randomness bound.

Nothing here knows an objective. Written as if there were one device; only `text.chunk` must know of several.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float, Int

from fusionjax.config import schema
from fusionjax.data.inputs import Inputs
from fusionjax.inference import features_of
from fusionjax.models.entities import GRAPH, Features
from fusionjax.models.joint import JointModel
from fusionjax.objectives.link_prediction.graph import TrainGraph
from fusionjax.objectives.link_prediction.strategies import Strategy


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Catalogue:
    """What the step reads and never changes: facts about products and entities, the training graph."""

    has_text: jax.Array
    """bool [n_products]: has a token of its own."""
    has_entity: jax.Array
    """bool [n_products]: has an entity row that something trains."""
    sold: jax.Array
    """bool [n_products]: has a training event. The others could never be the next product, so they are no negatives either:
    else a cold product would be taught to be unlikely."""
    log_frequency: jax.Array
    """float32 [n_products]: log share of training events, at least one event each (for logQ)."""
    features: Features
    graph: TrainGraph | None
    """What link prediction trains on."""


def catalogue(inputs: Inputs, graph: TrainGraph | None = None) -> Catalogue:
    """The facts of a run's data, on the device."""
    counts = np.maximum(inputs.train_counts, 1).astype(np.float64)
    return Catalogue(
        has_text=jnp.asarray(inputs.has_text),
        has_entity=jnp.asarray(inputs.has_entity),
        sold=jnp.asarray(inputs.train_counts > 0),
        log_frequency=jnp.asarray(np.log(counts / max(counts.sum(), 1.0)), jnp.float32),
        features=features_of(inputs),
        graph=graph,
    )


class Lookups:
    """Rows that a step looks up in the entity table, recorded, so that the step can update these alone.

    The table itself is a constant; what moves is added to the rows looked up, and the loss is differentiated by that: a
    gradient of [m, w] for m looked up rows instead of one of [e, w].
    """

    def __init__(self, moves: Sequence[Array] | None) -> None:
        """`moves`: for each lookup in turn float [m, w], zeros; None: only record."""
        self.moves, self.ids = moves, []
        self.whole = False
        """Something reads all rows at once."""

    def __call__(self, table: Float[Array, "e w"], ids: Int[Array, "..."]) -> Float[Array, "... w"]:
        place, flat = len(self.ids), ids.reshape(-1)
        self.ids.append(flat)
        # The barrier makes the rows an array of their own: fused into what reads them, each is looked up alone.
        rows = jax.lax.optimization_barrier(table.at[flat].get(mode="promise_in_bounds"))
        if self.moves is not None:
            rows = rows + self.moves[place]
        return rows.reshape(*ids.shape, table.shape[-1])


class Towers:
    """One evaluation of the towers: binds model, parameters and randomness, so that losses read like formulas.

    Each random draw takes the next key, so a loss draws the same numbers wherever it draws in the same order.
    """

    def __init__(
        self,
        model: JointModel,
        params: Any,
        bank: Array,
        key: Array,
        catalogue: Catalogue,
        config: schema.Run,
        numbers: Mapping[str, Any] | None = None,
        strategy: Strategy | None = None,
        lookups: Lookups | None = None,
        mesh: Mesh | None = None,
    ) -> None:
        """Binds what a step has.

        Args:
          bank: float32 [n_products, d], the text vectors of all products.
          numbers: settings that are arguments of the compiled step (`link_prediction.loss.hyper_of`).
          strategy: how link prediction computes a batch.
          lookups: records the rows of the entity table that are looked up, where the step updates these alone.
          mesh: devices over which the rows of a batch are spread along one axis.
        """
        self.model, self.params, self.bank, self.catalogue, self.config = model, params, bank, catalogue, config
        self.numbers, self.strategy, self.lookups = numbers or {}, strategy, lookups
        self.mesh = mesh if mesh is not None and mesh.size > 1 else None
        self.key, self.drawn = key, 0

    def next_key(self) -> Array:
        """A key that no earlier draw of this step has used."""
        self.drawn += 1
        return jax.random.fold_in(self.key, self.drawn)

    def apply(self, method: str, *args: Any, dropout: bool = False) -> Any:
        """What `method` of the joint model gives for `args`."""
        rngs = {"dropout": self.next_key()} if dropout else None
        extra = {"deterministic": False} if dropout else {}
        return self.model.apply({"params": self.params}, *args, method=method, rngs=rngs, **extra)

    def encode(self, entry: dict[str, Array], n: int) -> Float[Array, "n d"]:
        """Pooled text vectors of a batch entry's n texts, whether its token rows are packed or not."""
        if "text" not in entry:
            return self._encode_rows(entry["tokens"])
        rows = (entry[name] for name in ("tokens", "text", "position"))
        return self.apply("encode_packed", *rows, n, dropout=self.config.text.tune != "frozen")

    def _encode_rows(self, tokens: Int[Array, "b l"]) -> Float[Array, "b d"]:
        """Pooled text vectors, with dropout where the encoder learns.

        With `text.chunk`, that many rows at a time, each chunk encoded again in the backward pass, so that activations of one
        chunk alone are held (gradient caching).
        """
        text = self.config.text
        learns, key = text.tune != "frozen", self.next_key()

        def some(params: Any, tokens: Array, key: Array) -> Any:
            extra: dict[str, Any] = {"deterministic": False, "rngs": {"dropout": key}} if learns else {}
            return self.model.apply({"params": params}, tokens, method="encode", **extra)

        if not text.chunk or len(tokens) <= text.chunk:
            return some(self.params, tokens, key)
        if self.mesh is None:
            return _by_chunks(some, text.chunk)(self.params, tokens, key)
        # Each device goes through its own rows: a loop over a batch that is spread over the devices would add up gradients
        # between them in every round, and on several CPU devices two such loops can wait for each other for ever.
        own = _by_chunks(some, max(1, text.chunk // self.mesh.size))
        (axis,) = self.mesh.axis_names

        def rows_of_a_device(params: Any, tokens: Array, key: Array) -> Array:
            return own(params, tokens, jax.random.fold_in(key, jax.lax.axis_index(axis)))

        spread = PartitionSpec(axis)
        return jax.shard_map(
            rows_of_a_device, mesh=self.mesh, in_specs=(PartitionSpec(), spread, PartitionSpec()), out_specs=spread
        )(self.params, tokens, key)

    def products(self, rows: Int[Array, "b"]) -> Float[Array, "b p"]:
        """Product vectors, not normalised, from the bank (whose live rows carry gradient) and the entity table.

        With `model.product.source_dropout`, text or entity of a product that has both is hidden at random.
        """
        has_text, has_entity = self.catalogue.has_text[rows], self.catalogue.has_entity[rows]
        rate = self.config.model.product.source_dropout
        if rate and len(self.model.layout.sources) == 2:
            draw = jax.random.uniform(self.next_key(), rows.shape)
            both = has_text & has_entity
            has_text &= ~(both & (draw < rate / 2))
            has_entity &= ~(both & (draw > 1.0 - rate / 2))
        sources = self.model.layout.sources
        text = self.bank[rows] if "text" in sources else None
        entity = self.entities(rows) if "entity" in sources else None
        if entity is not None and not self.config.model.entity.behaviour:
            # Next products and queries, the only readers of product vectors, teach the towers around the table, not the table.
            entity = jax.lax.stop_gradient(entity)
        return self.apply("products", text, entity, has_text, has_entity)

    def entities(self, ids: Int[Array, "b"]) -> Float[Array, "b e"]:
        """Entity vectors."""
        entities, params = self.model.layout.entities, self.params[GRAPH]
        assert entities is not None
        if self.lookups is None or not entities.has_table:
            return entities.rows(params, self.catalogue.features, ids)
        return entities.compose(self.lookups(params["entities"], ids), params, self.catalogue.features, ids)


def _by_chunks(encode: Callable[[Any, Array, Array], Any], chunk: int) -> Callable[[Any, Array, Array], Float[Array, "b d"]]:
    """`encode(params, tokens, key)`, of at most `chunk` rows at a time and nothing kept for the backward pass but the rows."""

    def run(params: Any, tokens: Int[Array, "b l"], key: Array) -> Float[Array, "b d"]:
        chunks = -(-len(tokens) // chunk)
        size = -(-len(tokens) // chunks)  # as even as can be
        padded = jnp.pad(tokens, ((0, chunks * size - len(tokens)), (0, 0)), constant_values=-1)
        parts = padded.reshape(chunks, size, -1), jax.random.split(key, chunks)
        some = jax.checkpoint(lambda part: encode(params, *part), prevent_cse=False)
        return jax.lax.map(some, parts).reshape(chunks * size, -1)[: len(tokens)]

    return run
