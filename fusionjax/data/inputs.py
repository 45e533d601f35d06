"""What training and evaluation read: a shop turned into index arrays, once, on the host.

`Inputs` is a pure function of shop, config and tokeniser. Only training rows enter what objectives see; the test of that is
`tests/data/test_leakage.py`.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fusionjax.config import schema
from fusionjax.data.controls import control_graph, control_texts, kept_events
from fusionjax.data.entities import false_triples, literals, standardised
from fusionjax.data.graph import Graph, build_graph
from fusionjax.data.graph_samples import besides_links, part_of
from fusionjax.data.pairs import read_pairs
from fusionjax.data.shop import TEST, TRAIN, VALID, Shop
from fusionjax.data.split import user_ranges
from fusionjax.data.text import Tokenizer, learn_or_load
from fusionjax.errors import UserError
from fusionjax.hub import Checkpoint, locate, read_checkpoint, write_without_weights

KIND_STRENGTH = {"view": 1, "click": 2, "cart": 3, "purchase": 4}


@dataclasses.dataclass(frozen=True)
class Sequences:
    """Users' events in one flat, ordered list: user u owns rows `offsets[u]:offsets[u + 1]`.

    Successive events of one user on one product are merged into one, of the strongest kind.
    """

    offsets: np.ndarray
    product: np.ndarray
    kind: np.ndarray
    time: np.ndarray
    split: np.ndarray


@dataclasses.dataclass(frozen=True)
class Real:
    """What results are measured against: the shop before `data.controls`, so that every control has the same examples."""

    graph: Graph
    """Its triples, of every split, are what a filtered rank leaves out."""
    sequences: Sequences | None
    """All events: who has a target, and what a user has seen."""
    train_counts: np.ndarray
    """int64 [n_products]: training events on the product; defines head, middle, tail and cold."""


@dataclasses.dataclass(frozen=True)
class Inputs:
    """What a run reads, `data.controls` applied; `shop` and `real` are as the source has them."""

    shop: Shop
    real: Real
    graph: Graph
    written: np.ndarray
    """int32 [n, 3]: training edges that stand in texts instead of the graph (`data.controls.graph: as_text`)."""
    tokenizer: Tokenizer | None
    product_tokens: np.ndarray | None
    """int32 [n_products, l]."""
    query_tokens: np.ndarray | None
    """int32 [n_queries, l]."""
    has_text: np.ndarray
    """bool [n_products]: the product has at least one token besides [CLS] and [SEP]."""
    has_entity: np.ndarray
    """bool [n_products]: training triples, events or queries touch the product, so that its entity row is learnt (triples only
    where `model.entity.behaviour` is false)."""
    train_counts: np.ndarray
    """int64 [n_products]: training events on the product."""
    sequences: Sequences | None
    profile: np.ndarray
    """int32 [n_users, f]; 0 = unknown."""
    profile_values: tuple[tuple[str, tuple[str, ...]], ...]
    """Field name and its values (row 0 = unknown), for each profile column."""
    positives: np.ndarray
    """int64 [n, 2] sorted, unique: (query, product) pairs that training may know to match."""
    seen: np.ndarray
    """bool [n_entities]: a training triple names the entity."""
    literals: np.ndarray
    """float32 [n_entities, 2 m]: numbers about entities and marks of those known (`entities.standardised`);
    m = 0 unless `model.entity.literals` asks for them."""
    false_triples: Mapping[int, np.ndarray]
    """VALID and TEST → int32 [n, 3]: triples known to be false; empty without any, and where no objective predicts links."""
    entity_text: np.ndarray | None = None
    """float32 [n_entities, q]: unit vectors of the entities' texts, 0 of no text; `training.entity_text` adds it."""
    pretrained: Checkpoint | None = None
    """What `text.checkpoint` says besides its weights."""
    teacher: np.ndarray | None = None
    """float32 [n_products, q]: vectors of the product texts by the teacher of `objectives.distillation`; training adds it."""
    hard_negatives: np.ndarray | None = None
    """int64 [n, 2] sorted, unique: (query, product) pairs of `objectives.query_product.hard_negatives.file`."""

    @property
    def n_products(self) -> int:
        return len(self.shop.products) if self.shop.products is not None else 0

    @property
    def unseen(self) -> np.ndarray:
        """int32, ascending: entities without any training triple."""
        return np.flatnonzero(~self.seen).astype(np.int32)

    def uncontrolled(self) -> "Inputs":
        """The same with the real graph, events and counts: for segments, which must not differ between controls."""
        real = self.real
        return dataclasses.replace(self, graph=real.graph, sequences=real.sequences, train_counts=real.train_counts)


def text_needed(config: schema.Run) -> bool:
    """Whether any tower of this run reads text."""
    used = config.objectives.used().values()
    return "text" in config.model.product.sources or any(each.reads_text for each in used)


def product_text_needed(config: schema.Run) -> bool:
    """Whether product vectors, or an objective besides them, read products' text vectors from the bank."""
    used = config.objectives.used().values()
    return "text" in config.model.product.sources or any(each.reads_product_text for each in used)


def entities_needed(config: schema.Run) -> bool:
    """Whether any part of this run reads the entity table."""
    used = config.objectives.used().values()
    return "entity" in config.model.product.sources or any(each.reads_entities for each in used)


def build_inputs(shop: Shop, config: schema.Run, tokenizer_dir: Path, log: Callable[[str], None] = print) -> Inputs:
    """Turns a cleaned, split shop into the arrays of a run.

    Args:
      tokenizer_dir: where the run's tokeniser is, or will be written.

    Raises:
      UserError: an objective with a weight asks for a part the shop lacks; a part of the graph is asked for where products or
        users are learnt too.
    """
    require_parts(shop, config)
    real_shop, controls = shop, config.data.controls
    if shop.events is not None and controls.events_share < 1.0:
        keep = kept_events(shop.events, config)
        log(f"control: {controls.events_share:g} of the training events, {np.sum(shop.events.split[keep] == TRAIN):,}, kept")
        shop = dataclasses.replace(shop, events=shop.events.take(keep))
    real_graph, graph, written = _graphs(real_shop, shop, config, log)
    seen = _seen(graph)
    log(
        f"graph: {len(seen):,} entities, {len(graph.relations)} relations, {np.sum(graph.split == TRAIN):,} training, "
        f"{np.sum(graph.split == VALID):,} validation, {np.sum(graph.split == TEST):,} test triples; "
        f"{np.sum(~seen):,} entities without a training triple"
    )
    positives = _positives(shop, config.objectives.query_product)
    sequences = build_sequences(shop) if shop.has("products", "events") else None
    counts = _train_counts(shop)
    real = Real(real_graph, sequences, counts)
    if shop is not real_shop and sequences is not None:
        real = Real(real_graph, build_sequences(real_shop), _train_counts(real_shop))
    profile, values = _profile(shop)
    return Inputs(
        shop=real_shop,
        real=real,
        graph=graph,
        written=written,
        **_texts(shop, graph, written, positives, config, tokenizer_dir),
        has_entity=_has_entity(graph, seen, counts, positives, config),
        train_counts=counts,
        sequences=sequences,
        profile=profile,
        profile_values=values,
        positives=positives,
        seen=seen,
        literals=_literals(shop, graph, config),
        false_triples=_false_triples(shop, real_graph, config),
        hard_negatives=_hard_negatives(shop, config.objectives.query_product, positives),
    )


def _texts(
    shop: Shop, graph: Graph, written: np.ndarray, positives: np.ndarray, config: schema.Run, tokenizer_dir: Path
) -> dict[str, Any]:
    """The fields of `Inputs` that come from texts."""
    found: dict[str, Any] = dict.fromkeys(("tokenizer", "product_tokens", "query_tokens", "pretrained"))
    found["has_text"] = np.zeros(0 if shop.products is None else len(shop.products), bool)
    if not text_needed(config) or shop.products is None:  # a graph alone has no text, whatever `sources` says
        return found
    texts = control_texts(shop.products, graph, written, config)
    if config.data.controls.text == "none" and product_text_needed(config) and not any(texts):
        raise UserError(
            "data.controls.text: none leaves no product text, but model.product.sources or objectives.alignment reads it; "
            "set model.product.sources to [entity] and objectives.alignment.weight to 0"
        )
    queries = list(shop.queries.text) if shop.has("queries") else []
    train_queries = [queries[row] for row in np.unique(positives[:, 0])]
    if config.text.checkpoint is not None:
        found["pretrained"] = text_start(config.text, tokenizer_dir)
        tokenizer = Tokenizer(found["pretrained"].tokenizer)
    else:
        tokenizer = learn_or_load(config.text, tokenizer_dir, texts + train_queries)
    tokens = product_rows(tokenizer, config.text, texts)
    bare = len(tokenizer.inner.encode(config.text.product_prompt).ids)
    found |= {"tokenizer": tokenizer, "product_tokens": tokens, "has_text": (tokens >= 0).sum(1) > bare}
    found["query_tokens"] = query_rows(tokenizer, config.text, queries) if queries else None
    return found


# --------------------------------------------------------------------------------------------------------------- the graph
def _graphs(shop: Shop, kept: Shop, config: schema.Run, log: Callable[[str], None]) -> tuple[Graph, Graph, np.ndarray]:
    """(the graph that is measured, the one that training reads, training edges that stand in texts).

    Args:
      kept: the shop with the events that `data.controls.events_share` leaves.
    """
    settings, supported = config.data.graph, None
    real = part_of(build_graph(shop, settings, config.data.split), shop, config, log)
    if kept is not shop and (settings.co_view or settings.co_purchase):
        if settings.sample:
            raise UserError("data.graph.sample: not with data.controls.events_share below 1 and edges made of events")
        supported = build_graph(kept, settings, config.data.split)
    graph, written = control_graph(real, supported, config)
    for note in graph.notes:
        log(f"graph: {note}")
    return real, graph, written


def _seen(graph: Graph) -> np.ndarray:
    seen = np.zeros(len(graph.entities), bool)
    seen[graph.triples(TRAIN)[:, [0, 2]].reshape(-1)] = True
    return seen


def _literals(shop: Shop, graph: Graph, config: schema.Run) -> np.ndarray:
    if not config.model.entity.literals:
        return np.zeros((len(graph.entities), 0), np.float32)
    values, names = literals(shop, graph)
    if not names:
        raise UserError("model.entity.literals: the data set has no numbers about its entities")
    return standardised(values)


def _false_triples(shop: Shop, graph: Graph, config: schema.Run) -> dict[int, np.ndarray]:
    # A joint run may well leave the given triples out, and what is false about them with them.
    if config.objectives.link_prediction.weight <= 0 or (not config.data.graph.given and besides_links(config)):
        return {}
    found = {split: false_triples(shop, graph, split) for split in (VALID, TEST)}
    return {split: triples for split, triples in found.items() if triples is not None}


# ---------------------------------------------------------------------------------------------------- texts and events
def product_rows(tokenizer: Tokenizer, text: schema.Text, texts: Sequence[str]) -> np.ndarray:
    """Token rows of product texts or titles, the prompt before them."""
    return tokenizer.rows([text.product_prompt + each for each in texts] if text.product_prompt else texts, text.max_length)


def query_rows(tokenizer: Tokenizer, text: schema.Text, queries: Sequence[str]) -> np.ndarray:
    """Token rows of queries, the prompt before them."""
    return tokenizer.rows([text.query_prompt + each for each in queries] if text.query_prompt else queries, text.max_length)


def text_start(text: schema.Text, folder: Path) -> Checkpoint:
    """What `text.checkpoint` says besides its weights: from the run's folder if a run already wrote it there, else from the
    checkpoint, and written. So a trained run is loaded without the checkpoint.

    Raises:
      UserError: the checkpoint cannot be read; `text.max_length` is more than it has positions for.
    """
    assert text.checkpoint is not None
    if (folder / "config.json").exists():
        return read_checkpoint(folder, weights=False)
    found = read_checkpoint(locate(text.checkpoint), weights=False)
    if text.max_length > found.config.max_length:
        raise UserError(f"text.max_length: {text.max_length} is more than the checkpoint's {found.config.max_length} positions")
    write_without_weights(folder, found)
    return found


def texts_read(inputs: Inputs, config: schema.Run) -> list[str]:
    """The product texts of a run, controlled, one a product: what its tokens are made of and what BM25 searches."""
    assert inputs.shop.products is not None
    return control_texts(inputs.shop.products, inputs.graph, inputs.written, config)


def _train_counts(shop: Shop) -> np.ndarray:
    n_products = len(shop.products) if shop.products is not None else 0
    if not shop.has("products", "events"):
        return np.zeros(n_products, np.int64)
    return np.bincount(shop.events.product[shop.events.split == TRAIN], minlength=n_products)


def require_parts(shop: Shop, config: schema.Run) -> None:
    """Raises `UserError` if an objective with a weight, or a named task, asks for a part the shop lacks."""
    for name, objective in config.objectives.used().items():
        needed = [(part,) if isinstance(part, str) else part for part in objective.shop_parts]
        # Of those of which one is enough, the first stands for all: `Shop.require` says which of them the shop lacks.
        parts = (next((part for part in any_of if shop.has(part)), any_of[0]) for any_of in needed)
        shop.require(*parts, purpose=f"objectives.{name}")
    needs = {
        "search": ("products", "queries", "judgments"),
        "recommendation": ("products", "users", "events"),
        "link_prediction": (),
    }
    for task in config.evaluation.tasks or ():
        shop.require(*needs.get(task, ()), purpose=f"evaluation.tasks: {task}")


def build_sequences(shop: Shop) -> Sequences:
    """Orders events by user, split and time and merges runs of events on one product."""
    events, users = shop.events, shop.users
    assert events is not None
    n_users = len(users) if users is not None else int(events.user.max(initial=-1)) + 1
    # By split before time: with splits given by the source an event held out may stand before one of training, and every
    # history must end before it. Where splits follow time, this is the order of time.
    rows = np.lexsort((events.time, events.split, events.user))
    user, product, split = events.user[rows], events.product[rows], events.split[rows]
    same = (user[1:] == user[:-1]) & (product[1:] == product[:-1]) & (split[1:] == split[:-1])
    starts = np.flatnonzero(np.concatenate([[True], ~same])) if len(rows) else np.empty(0, np.int64)
    strength = np.array([KIND_STRENGTH.get(name, 0) for name in events.kinds], np.int32) * 256 + np.arange(len(events.kinds))
    kind = np.maximum.reduceat(strength[events.kind[rows]], starts) % 256 if len(starts) else events.kind[:0]
    first = rows[starts]
    merged = events.take(first)
    offsets = user_ranges(merged, n_users)
    return Sequences(offsets=offsets, product=merged.product, kind=kind.astype(np.int32), time=merged.time, split=merged.split)


def _positives(shop: Shop, config: schema.QueryProduct) -> np.ndarray:
    """Training pairs of query and product: judged well enough, or an event that carries the query.

    A query held out for search teaches nothing: neither through events nor under another id with the same text.
    """
    pairs = [np.empty((0, 2), np.int64)]
    held_out = _held_out_queries(shop)
    if shop.has("queries", "judgments"):
        rows = (shop.judgments.split == TRAIN) & (shop.judgments.grade >= config.min_grade)
        rows &= ~held_out[shop.judgments.query]
        pairs.append(np.stack([shop.judgments.query[rows], shop.judgments.product[rows]], axis=1).astype(np.int64))
    if config.from_events and shop.has("queries", "events"):
        events = shop.events
        rows = (events.split == TRAIN) & (events.query >= 0)
        rows[rows] = ~held_out[events.query[rows]]
        pairs.append(np.stack([events.query[rows], events.product[rows]], axis=1).astype(np.int64))
    return np.unique(np.concatenate(pairs), axis=0)


def _hard_negatives(shop: Shop, config: schema.QueryProduct, positives: np.ndarray) -> np.ndarray | None:
    """Pairs of the file, without those of held-out queries and those known to match."""
    if config.hard_negatives.file is None or config.weight <= 0:
        return None
    pairs = read_pairs(Path(config.hard_negatives.file), shop)
    known = np.isin((pairs[:, 0] << 32) | pairs[:, 1], (positives[:, 0] << 32) | positives[:, 1])
    return pairs[~known & ~_held_out_queries(shop)[pairs[:, 0]]]


def _held_out_queries(shop: Shop) -> np.ndarray:
    """bool [n_queries]: the query's text, whatever its case, is that of a query with judgments held out."""
    if not shop.has("queries", "judgments"):
        return np.zeros(shop.counts().get("queries", 0), bool)
    texts = [text.casefold() for text in shop.queries.text]
    held_out = {texts[row] for row in np.unique(shop.judgments.query[shop.judgments.split != TRAIN])}
    return np.fromiter((text in held_out for text in texts), bool, len(texts))


def _has_entity(graph: Graph, seen: np.ndarray, counts: np.ndarray, positives: np.ndarray, config: schema.Run) -> np.ndarray:
    """bool [n_products]: the products whose entity row some objective of the run trains."""
    known = np.zeros(len(counts), bool)
    trained = {each.trains_products_of for each in config.objectives.used().values()}
    if not config.model.entity.behaviour:
        trained &= {"triples"}
    if "events" in trained:
        known |= counts > 0
    if "queries" in trained:
        known[positives[:, 1]] = True
    if "triples" in trained:
        known[: graph.n_products] |= seen[: graph.n_products]
    return known


def _profile(shop: Shop) -> tuple[np.ndarray, tuple[tuple[str, tuple[str, ...]], ...]]:
    """Profile fields as codes; one with more than 1,000 values (a name, an address) says nothing in common and is left out."""
    users = shop.users
    if users is None:
        return np.zeros((0, 0), np.int32), ()
    columns, values = [], []
    for name, column in users.profile.items():
        distinct = sorted(set(column) - {""})
        if distinct and len(distinct) <= 1000:
            code = {"": 0, **{value: row for row, value in enumerate(distinct, 1)}}
            columns.append(np.fromiter((code[value] for value in column), np.int32, len(column)))
            values.append((name, ("", *distinct)))
    return np.stack(columns, axis=1) if columns else np.zeros((len(users), 0), np.int32), tuple(values)
