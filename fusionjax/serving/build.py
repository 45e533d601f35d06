"""A run's index from its inputs and best parameters, while these are in memory: at the end of a run, or for an older run."""

import dataclasses
import hashlib
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fusionjax.config import schema
from fusionjax.data.inputs import Inputs
from fusionjax.data.shop import Shop
from fusionjax.inference import Encoder
from fusionjax.kge.inputs import GraphInputs
from fusionjax.kge.run import Best
from fusionjax.losses import normalise
from fusionjax.models.joint import Layout
from fusionjax.retrieval.index import GraphPart, Index, ProductPart, UserPart
from fusionjax.retrieval.known import Known
from fusionjax.retrieval.names import Names
from fusionjax.retrieval.plain import to_plain


def towers_index(config: schema.Run, inputs: Inputs, encoder: Encoder, bank: Any, step: int) -> Index:
    """The index of a run with towers.

    Args:
      bank: text vectors of all products, encoded with the encoder's parameters.
      step: of the parameters.
    """
    at = encoder.model.layout
    products = _products(inputs, encoder.products(bank, inputs)) if inputs.n_products else None
    users = _users(inputs) if at.user and inputs.sequences is not None else None
    return Index(
        shop=inputs.shop.name,
        step=step,
        parameters=digest(encoder.params),
        layout=to_plain(at),
        products=products,
        users=users if config.data.keep_users else None,
        users_left_out=users is not None and not config.data.keep_users,
        graph=_joint_graph(inputs, at, encoder.params) if at.uses_entities else None,
    )


def _products(inputs: Inputs, raw: np.ndarray) -> ProductPart:
    products = inputs.shop.products
    assert products is not None
    return ProductPart(
        ids=Names.of(products.id),
        titles=Names.of(products.title),
        unit=np.asarray(normalise(jnp.asarray(raw))),
        length=np.linalg.norm(raw, axis=1).astype(np.float32),
    )


def _users(inputs: Inputs) -> UserPart | None:
    shop, sequences = inputs.shop, inputs.sequences
    assert sequences is not None
    ids = shop.users.id if shop.users is not None else ()
    return UserPart(
        ids=Names.of(ids),
        offsets=sequences.offsets.astype(np.int64),
        product=sequences.product.astype(np.int32),
        kind=sequences.kind.astype(np.int32),
        time=sequences.time.astype(np.int64),
        profile=inputs.profile.astype(np.int32),
    )


def _joint_graph(inputs: Inputs, at: Layout, params: Any) -> GraphPart:
    """The entity table the towers share, and with link prediction what scores its triples."""
    graph, scorer = inputs.graph, at.triples
    relations = np.zeros((0, scorer.relation_width), np.float32)
    if at.n_relations:
        relations = np.asarray(params["relations"]["embedding"], np.float32)
    shown = graph.relations if at.n_relations else ()
    return GraphPart(
        entities=Names.of(graph.entities),
        names=_named(inputs.shop, "entities", graph.entities[at.n_products :]),
        named_from=at.n_products,
        relations=Names.of(shown),
        relation_names=_named(inputs.shop, "relations", shown),
        vectors=np.asarray(params["entities"]["embedding"], np.float32),
        relation_vectors=relations,
        shared={},
        scorer=at.scorer,
        sizes=_sizes(scorer.sizes),
        reciprocal=False,
        known=Known.of(inputs.real.graph.triples()),
    )


def graph_index(best: Best, inputs: GraphInputs) -> Index:
    """The index of a run of graph embedding: vectors as triples are measured with, texts and numbers of entities included."""
    model, params, graph = best.model, best.params, inputs.graph
    with jax.default_matmul_precision("highest"):
        vectors = jax.jit(model.inductive)(params, inputs.features)
    return Index(
        shop=inputs.rows.shop.name,
        step=best.step,
        parameters=digest(params),
        graph=GraphPart(
            entities=Names.of(graph.entities),
            names=Names.of(graph.entity_names),
            named_from=0,
            relations=Names.of(graph.relations),
            relation_names=Names.of(graph.relation_names),
            vectors=np.asarray(vectors, np.float32),
            relation_vectors=np.asarray(params["relations"], np.float32),
            shared={name: np.asarray(value) for name, value in params.get("shared", {}).items()},
            scorer=model.scorer.name,
            sizes=_sizes(model.scorer.sizes),
            reciprocal=model.reciprocal,
            known=Known.of(graph.known),
        ),
    )


def _sizes(sizes: Any) -> dict[str, Any]:
    """Without dropout, which answers do not know."""
    return {each.name: getattr(sizes, each.name) for each in dataclasses.fields(sizes) if each.name != "dropout"}


def _named(shop: Shop, part: str, ids: Iterable[str]) -> Names:
    """Readable names of entities or relations; the id of one that has none."""
    table: Any = getattr(shop, part)
    given = {} if table is None else {str(id): str(name) for id, name in zip(table.id, table.name, strict=True) if name}
    return Names.of([given.get(id, id) for id in ids])


def digest(params: Any) -> str:
    """SHA-256 over the names, shapes and values of a tree of parameters."""
    found = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]:
        array = np.ascontiguousarray(leaf)
        found.update(f"{jax.tree_util.keystr(path)}:{array.dtype}:{array.shape};".encode())
        found.update(array.view(np.uint8).data if array.dtype.itemsize and array.size else b"")
    return found.hexdigest()
