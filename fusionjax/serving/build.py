"""A run's index from its inputs and best parameters, while these are in memory: at the end of a run, or for an older run."""

import dataclasses
import hashlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fusionjax.config import schema
from fusionjax.data.entities import entity_words, relation_names
from fusionjax.data.inputs import Inputs
from fusionjax.evaluation.triples import inductive_vectors
from fusionjax.inference import Encoder, features_of
from fusionjax.losses import normalise
from fusionjax.models.entities import GRAPH, EntityModel
from fusionjax.retrieval.index import GraphPart, Index, ProductPart, UserPart
from fusionjax.retrieval.known import Known
from fusionjax.retrieval.names import Names
from fusionjax.retrieval.plain import to_plain


def build_index(config: schema.Run, inputs: Inputs, encoder: Encoder, bank: Any, step: int) -> Index:
    """The index of a run: products where anything compares them, users where a tower reads them, the graph where it is read.

    Args:
      bank: text vectors of all products, encoded with the encoder's parameters.
      step: of the parameters.
    """
    at = encoder.model.layout
    users = _users(inputs) if at.user and inputs.sequences is not None else None
    return Index(
        shop=inputs.shop.name,
        step=step,
        parameters=digest(encoder.params),
        layout=to_plain(at),
        products=_products(inputs, encoder.products(bank, inputs)) if at.has_products else None,
        users=users if config.data.keep_users else None,
        users_left_out=users is not None and not config.data.keep_users,
        graph=None if at.entities is None else _graph(inputs, at.entities, encoder.params[GRAPH], at.has_products),
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


def _graph(inputs: Inputs, model: EntityModel, params: Any, products: bool) -> GraphPart:
    """Entities with the vectors they are measured with, whatever these are made of, and what scores their triples, if any.

    Args:
      params: of the entities and relations.
      products: whether the index holds products, whose titles are then not written a second time.
    """
    graph, scores = inputs.graph, model.n_relations > 0
    with jax.default_matmul_precision("highest"):
        vectors = inductive_vectors(model, params, features_of(inputs))
    relations = params["relations"] if scores else np.zeros((0, model.scorer.relation_width))
    named_from = graph.n_products if products else 0
    return GraphPart(
        entities=Names.of(graph.entities),
        names=Names.of(entity_words(inputs.shop, graph)[0][named_from:]),
        named_from=named_from,
        relations=Names.of(graph.relations if scores else ()),
        relation_names=Names.of(relation_names(inputs.shop, graph) if scores else ()),
        vectors=np.asarray(vectors, np.float32),
        relation_vectors=np.asarray(relations, np.float32),
        shared={name: np.asarray(value) for name, value in params.get("shared", {}).items()},
        scorer=model.scorer.name,
        sizes=_sizes(model.scorer.sizes),
        reciprocal=model.reciprocal,
        known=Known.of(inputs.real.graph.triples()),
    )


def _sizes(sizes: Any) -> dict[str, Any]:
    """Without dropout, which answers do not know."""
    return {each.name: getattr(sizes, each.name) for each in dataclasses.fields(sizes) if each.name != "dropout"}


def digest(params: Any) -> str:
    """SHA-256 over the names, shapes and values of a tree of parameters."""
    found = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]:
        array = np.ascontiguousarray(leaf)
        found.update(f"{jax.tree_util.keystr(path)}:{array.dtype}:{array.shape};".encode())
        found.update(array.view(np.uint8).data if array.dtype.itemsize and array.size else b"")
    return found.hexdigest()
