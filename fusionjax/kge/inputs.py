"""What a run of graph embedding reads: its graph, numbered; what is known of the entities; and the rows results are about."""

import dataclasses
import hashlib
import io
from collections.abc import Callable
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from fusionjax import hub
from fusionjax.config import schema
from fusionjax.data.controls import control_graph
from fusionjax.data.graph import Graph, build_graph
from fusionjax.data.graph_samples import hold_out_entities, subsample
from fusionjax.data.inputs import Inputs, Real
from fusionjax.data.knowledge_graph import KnowledgeGraph, knowledge_graph
from fusionjax.data.prepare import cache_root
from fusionjax.data.shop import TEST, TRAIN, VALID, Shop
from fusionjax.errors import UserError
from fusionjax.files import write_whole
from fusionjax.models.entities import Features
from fusionjax.text_encoder import TextEncoder

Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class GraphInputs:
    graph: KnowledgeGraph
    """What is measured: validation and test as they are, all that is true."""
    train: np.ndarray
    """int32 [n, 3]: what training reads, `data.controls` applied."""
    features: Features
    rows: Inputs
    """The same graph for segments and baselines, which know the joint model's inputs."""
    unseen: np.ndarray
    """int32: entities without any training triple."""


def graph_inputs(shop: Shop, config: schema.Run, say: Say = print) -> GraphInputs:
    """Turns a cleaned, split shop into what training and measuring read.

    Raises:
      UserError: the shop has no graph, or no text or numbers where the config asks for them; nothing is left to train on.
    """
    if not (shop.has("triples") or shop.has("products")):
        shop.require("triples", purpose="kge.scorer")
    kge = config.kge
    whole = build_graph(shop, config.data.graph, config.data.split)
    for note in whole.notes:
        say(f"graph: {note}")
    kg = knowledge_graph(shop, whole)
    if kge.sample:
        kg = subsample(kg, kge.sample)
        say(f"sub-graph: {len(kg.entities):,} of {len(whole.entities):,} entities, {len(kg.train):,} training triples")
    if kge.unseen:
        with_false = kg.test_negatives is not None
        kg, held_out = hold_out_entities(kg, kge.unseen)
        gone = "; false triples are left out: no triple classification" if with_false else ""
        say(f"inductive: {len(held_out):,} entities taken out of training, which keeps {len(kg.train):,} triples{gone}")
    real = _as_graph(kg, whole)
    controlled, _ = control_graph(real, None, config)
    for note in controlled.notes:
        if note not in whole.notes:
            say(f"graph: {note}")
    train = controlled.triples(TRAIN)
    seen = np.zeros(len(kg.entities), bool)
    seen[train[:, [0, 2]].reshape(-1)] = True
    features = Features(
        text=jnp.asarray(_text_vectors(kg, config, say)),
        literals=jnp.asarray(_literals(kg, kge.literals)),
        seen=jnp.asarray(seen, jnp.float32),
    )
    unseen = np.flatnonzero(~seen).astype(np.int32)
    say(
        f"graph: {len(kg.entities):,} entities, {len(kg.relations)} relations, {len(train):,} training, {len(kg.valid):,} "
        f"validation, {len(kg.test):,} test triples; {len(unseen):,} entities without a training triple"
    )
    return GraphInputs(kg, train, features, _rows(shop, real), unseen)


def _as_graph(kg: KnowledgeGraph, like: Graph) -> Graph:
    """The knowledge graph as the table of edges it came from."""
    parts = ((kg.train, TRAIN), (kg.valid, VALID), (kg.test, TEST))
    triples = np.concatenate([part for part, _ in parts]).astype(np.int32)
    return dataclasses.replace(
        like,
        entities=kg.entities,
        relations=kg.relations,
        n_products=like.n_products if len(kg.entities) == len(like.entities) else 0,
        head=triples[:, 0],
        relation=triples[:, 1],
        tail=triples[:, 2],
        split=np.concatenate([np.full(len(part), code, np.int8) for part, code in parts]),
    )


def _rows(shop: Shop, graph: Graph) -> Inputs:
    nothing = np.zeros(0, np.int64)
    return Inputs(
        shop=shop,
        real=Real(graph, None, nothing),
        graph=graph,
        written=np.empty((0, 3), np.int32),
        tokenizer=None,
        product_tokens=None,
        query_tokens=None,
        has_text=np.zeros(0, bool),
        has_entity=np.zeros(0, bool),
        train_counts=nothing,
        sequences=None,
        profile=np.zeros((0, 0), np.int32),
        profile_values=(),
        positives=np.empty((0, 2), np.int64),
    )


def _literals(kg: KnowledgeGraph, wanted: bool) -> np.ndarray:
    """float32 [e, 2 m]: standardised numbers, 0 where missing, then marks of those that are there."""
    if not wanted:
        return np.zeros((len(kg.entities), 0), np.float32)
    if kg.literals is None:
        raise UserError("kge.literals: the data set has no numbers about its entities")
    there = np.isfinite(kg.literals)
    numbers = np.where(there, kg.literals, 0.0).astype(np.float64)
    count = np.maximum(there.sum(0), 1)
    mean = numbers.sum(0) / count
    spread = np.sqrt(np.where(there, (numbers - mean) ** 2, 0.0).sum(0) / count)
    standard = np.where(there, (numbers - mean) / np.where(spread > 0, spread, 1.0), 0.0)
    return np.concatenate([standard, there], 1).astype(np.float32)


def _text_vectors(kg: KnowledgeGraph, config: schema.Run, say: Say) -> np.ndarray:
    """float32 [e, q]: unit vectors of the entities' texts, encoded once and kept in the cache; of no text a zero vector."""
    text = config.kge.text
    if text.use == "none":
        return np.zeros((len(kg.entities), 0), np.float32)
    if kg.entity_text is None:
        raise UserError(f"kge.text.use: {text.use}: the data set has no text about its entities")
    assert text.checkpoint is not None
    folder = hub.locate(text.checkpoint)
    digest = hashlib.sha256(f"{hub.fingerprint(folder)}\n".encode())
    for each in kg.entity_text:
        digest.update(each.encode() + b"\x1f")
    file = cache_root(config.data) / "text-vectors" / f"{digest.hexdigest()[:24]}.npy"
    if file.exists():
        return np.load(file, allow_pickle=False)
    say(f"encoding the texts of {len(kg.entity_text):,} entities")
    vectors = TextEncoder.from_pretrained(folder).encode(kg.entity_text)
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors = (vectors / np.maximum(length, 1e-12)).astype(np.float32)
    vectors[[not each for each in kg.entity_text]] = 0.0
    _keep(file, vectors)
    return vectors


def _keep(file: Path, vectors: np.ndarray) -> None:
    held = io.BytesIO()
    np.save(held, vectors, allow_pickle=False)
    write_whole(file, held.getvalue())
