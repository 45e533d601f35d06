"""The joint loss: towers → objectives → weighted sum. Pure; written as if there were one device."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Int

from fusionjax import losses
from fusionjax.config import schema
from fusionjax.losses import normalise
from fusionjax.models.joint import JointModel
from fusionjax.training.parallel import AXIS
from fusionjax.training.state import Catalogue
from fusionjax.training.tuning import held

Losses = dict[str, Float[Array, ""]]


class _Step:
    """One evaluation of the joint loss: binds model, parameters and randomness, so that objectives read like formulas."""

    def __init__(
        self,
        model: JointModel,
        params: Any,
        bank: Array,
        key: Array,
        catalogue: Catalogue,
        config: schema.Run,
        mesh: Mesh | None = None,
    ) -> None:
        self.model, self.params, self.bank, self.catalogue, self.config = model, params, bank, catalogue, config
        self.mesh = mesh if mesh is not None and mesh.size > 1 else None
        self.key, self.drawn = key, 0

    def next_key(self) -> Array:
        self.drawn += 1
        return jax.random.fold_in(self.key, self.drawn)

    def apply(self, method: str, *args: Any, dropout: bool = False, params: Any = None) -> Any:
        rngs = {"dropout": self.next_key()} if dropout else None
        extra = {"deterministic": False} if dropout else {}
        return self.model.apply({"params": params or self.params}, *args, method=method, rngs=rngs, **extra)

    def encode(self, entry: dict[str, Array], n: int) -> Float[Array, "n d"]:
        """Pooled text vectors of a batch entry's n texts, whether its token rows are packed or not."""
        if "text" not in entry:
            return self._encode_rows(entry["tokens"])
        rows = (entry[name] for name in ("tokens", "text", "position"))
        return self.apply("encode_packed", *rows, n, dropout=self.config.text.tune != "frozen")

    def _encode_rows(self, tokens: Int[Array, "b l"]) -> Float[Array, "b d"]:
        """Pooled text vectors, with dropout where the encoder learns; `text.chunk` rows at a time, each chunk encoded again in
        the backward pass, so that activations of one chunk alone are held (gradient caching)."""
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

        def rows_of_a_device(params: Any, tokens: Array, key: Array) -> Array:
            return own(params, tokens, jax.random.fold_in(key, jax.lax.axis_index(AXIS)))

        spread = PartitionSpec(AXIS)
        return jax.shard_map(
            rows_of_a_device, mesh=self.mesh, in_specs=(PartitionSpec(), spread, PartitionSpec()), out_specs=spread
        )(self.params, tokens, key)

    def products(self, rows: Int[Array, "b"]) -> Float[Array, "b p"]:
        """Product vectors from the bank (whose live rows carry gradient) and the entity table; sources are hidden at random."""
        has_text, has_entity = self.catalogue.has_text[rows], self.catalogue.has_entity[rows]
        rate = self.config.model.product.source_dropout
        if rate and len(self.model.layout.sources) == 2:
            draw = jax.random.uniform(self.next_key(), rows.shape)
            both = has_text & has_entity
            has_text &= ~(both & (draw < rate / 2))
            has_entity &= ~(both & (draw > 1.0 - rate / 2))
        text = self.bank[rows] if "text" in self.model.layout.sources else None
        params = self.params
        if not self.config.model.entity.behaviour and "entities" in params:
            # Next products and queries, the only readers of product vectors, teach the towers around the table, not the table.
            params = {**params, "entities": jax.lax.stop_gradient(params["entities"])}
        return self.apply("products", rows, text, has_text, has_entity, params=params)

    # ------------------------------------------------------------------------------------------------------ objectives
    def link_prediction(self, batch: dict[str, Array]) -> Float[Array, ""]:
        settings = self.config.objectives.link_prediction
        head_row, tail_row = batch["head"], batch["tail"]
        negative_row = jax.random.randint(self.next_key(), (settings.negatives,), 0, self.model.layout.n_entities)
        head, tail, negative = (self.apply("entity_vectors", rows) for rows in (head_row, tail_row, negative_row))
        relation = self.apply("relation_vectors", batch["relation"])
        positive = self.apply("score", head, relation, tail)
        against_tail = self.apply("score", head[:, None], relation[:, None], negative[None])
        against_head = self.apply("score", negative[None], relation[:, None], tail[:, None])
        loss = 0.5 * (
            losses.link_prediction(positive, against_tail, negative_row[None] == tail_row[:, None], settings.self_adversarial)
            + losses.link_prediction(positive, against_head, negative_row[None] == head_row[:, None], settings.self_adversarial)
        )
        if settings.l2:
            loss += settings.l2 * sum((x * x).sum(-1).mean() for x in (head, relation, tail)) / 3
        return loss

    def alignment(self, batch: dict[str, Array]) -> Float[Array, ""]:
        rows = batch["product"]
        text, entity = self.apply("text_side", self.bank[rows]), self.apply("entity_side", rows)
        same = rows[:, None] == rows[None, :]
        return losses.info_nce(text, entity, self.apply("scale", "alignment"), same, jnp.ones(rows.shape, bool))

    def query_product(self, batch: dict[str, Array]) -> Float[Array, ""]:
        settings, block = self.config.objectives.query_product, self.config.text.chunk
        query = self.apply("queries", self.encode(batch, len(batch["product"])))
        product = self.products(batch["product"])
        negatives, hidden = self._negatives(batch, query, product)
        known = batch["known"]
        if block and self.mesh is not None:
            # Every device compares all rows, for the reason given in `encode`; it is little beside the encoding of its own.
            everywhere = NamedSharding(self.mesh, PartitionSpec())
            query, product, known, negatives, hidden = jax.tree.map(
                lambda x: jax.lax.with_sharding_constraint(x, everywhere), (query, product, known, negatives, hidden)
            )
        common: dict[str, Any] = {"positives": known, "valid": jnp.ones(batch["product"].shape, bool), "block": block}
        if negatives is not None:
            common["hidden_negatives"] = hidden
        if settings.loss == "triplet":
            more = {"margin": settings.triplet_margin, "hardest": settings.triplet_hardest}
            loss = functools.partial(losses.triplet, **more, **common)
        elif settings.loss == "siglip":
            scale, bias = self.apply("scale", "query_product"), self.apply("bias")
            loss = functools.partial(losses.siglip, scale=scale, bias=bias, **common)
        else:
            scale = self.apply("scale", "query_product")
            loss = functools.partial(losses.info_nce, scale=scale, directions=settings.directions, **common)
        if settings.matryoshka:
            return losses.matryoshka(loss, query, product, settings.matryoshka, negatives)
        return loss(query, product) if negatives is None else loss(query, product, negatives=negatives)

    def _negatives(
        self, batch: dict[str, Array], query: Float[Array, "b p"], product: Float[Array, "b p"]
    ) -> tuple[Float[Array, "n p"] | None, Bool[Array, "b n"] | None]:
        """(vectors of the hard negatives, those each query must not see), from the file and mined; (None, None) without any."""
        found: list[tuple[Array, Array]] = []
        if "negative" in batch:
            rows = batch["negative"].reshape(-1)
            found.append((self.products(jnp.maximum(rows, 0)), batch["known_negative"] | (rows < 0)[None]))
        if "positive" in batch:
            found.append(self._mined(batch, query, product))
        if not found:
            return None, None
        return jnp.concatenate([vectors for vectors, _ in found]), jnp.concatenate([hidden for _, hidden in found], axis=1)

    def _mined(
        self, batch: dict[str, Array], query: Float[Array, "b p"], product: Float[Array, "b p"]
    ) -> tuple[Float[Array, "n p"], Bool[Array, "b n"]]:
        """The nearest products of each query that are neither known to match nor, by the margin, likely to.

        All queries see all of them, save those that the same two rules hide from a query.
        """
        settings, n_products = self.config.objectives.query_product.hard_negatives, self.model.layout.n_products
        rows = jnp.arange(n_products, dtype=jnp.int32)
        if settings.mine_from < n_products:
            rows = jax.random.randint(self.next_key(), (settings.mine_from,), 0, n_products)
        candidates = jax.lax.stop_gradient(normalise(self.products(rows)))
        asked = jax.lax.stop_gradient(normalise(query))
        bar = (asked * jax.lax.stop_gradient(normalise(product))).sum(-1, keepdims=True) - settings.margin
        cosine = asked @ candidates.T
        wrong = self.catalogue.has_text[rows][None] & (cosine < bar) & ~_any_equal(batch["positive"], rows)
        score, best = jax.lax.top_k(jnp.where(wrong, cosine, losses.NEGATIVE), min(settings.mined, len(rows)))
        best, none = best.reshape(-1), score.reshape(-1) <= losses.NEGATIVE / 2
        hidden = none[None] | (asked @ candidates[best].T >= bar) | _any_equal(batch["positive"], rows[best])
        return self.products(rows[best]), hidden

    def masked_words(self, batch: dict[str, Array]) -> Float[Array, ""]:
        hidden = self.apply("hidden", batch["tokens"], dropout=True)
        asked = jnp.take_along_axis(hidden, batch["place"][:, :, None], axis=1)
        return losses.masked_words(self.apply("word_logits", asked), batch["target"])

    def distillation(self, batch: dict[str, Array]) -> Float[Array, ""]:
        settings = self.config.objectives.distillation
        student, teacher = self.encode(batch, len(batch["teacher"])), batch["teacher"]
        valid = jnp.ones(len(student), bool)

        def cosine(student: Array, teacher: Array) -> Array:
            return losses.cosine_distillation(student, teacher, valid)

        def kl(student: Array, _: Array) -> Array:
            scale = jnp.asarray(1.0 / self.config.objectives.temperature)
            return losses.kl_distillation(student, student, teacher, teacher, scale, scale, valid)

        loss = cosine if settings.loss == "cosine" else kl
        if settings.matryoshka:
            # Only the student's prefixes are compared in kl, always with the whole of the teacher.
            return losses.matryoshka(loss, student, teacher if settings.loss == "cosine" else student, settings.matryoshka)
        return loss(student, teacher)

    def next_product(self, batch: dict[str, Array]) -> Float[Array, ""]:
        settings = self.config.objectives.next_product
        n_products = self.model.layout.n_products
        target = batch["target"].reshape(-1)
        valid = target >= 0
        scale = self.apply("scale", "next_product")
        if settings.softmax == "full":
            everything = self.products(jnp.arange(n_products, dtype=jnp.int32))
            user = self._users(batch, everything[batch["product"]])
            logits = jnp.where(self.catalogue.sold[None], scale * user @ normalise(everything).T, losses.NEGATIVE)
            return losses.softmax_over_catalogue(logits, target, valid)
        history = self.products(batch["product"].reshape(-1)).reshape(*batch["product"].shape, -1)
        user = self._users(batch, history)
        drawn = jax.random.randint(self.next_key(), (settings.negatives,), 0, n_products)
        chosen = normalise(self.products(jnp.maximum(target, 0)))
        candidate = jnp.concatenate([target, jnp.where(self.catalogue.sold[drawn], drawn, -1)])
        vectors = jnp.concatenate([chosen, normalise(self.products(drawn))])
        # Expected draws of a product: as some row's target, and uniformly.
        uniform = settings.negatives / n_products

        def log_q(rows: Array) -> Array:
            frequency = jnp.exp(self.catalogue.log_frequency[jnp.maximum(rows, 0)])
            return jnp.log(valid.sum() * frequency + uniform)

        return losses.sampled_softmax(
            scale * (user * chosen).sum(-1), scale * user @ vectors.T, target, candidate, log_q(target), log_q(candidate), valid
        )

    def _users(self, batch: dict[str, Array], history: Float[Array, "b h p"]) -> Float[Array, "x p"]:
        profile = batch["profile"][:, : len(self.model.layout.profile_sizes)]
        user = self.apply("users", history, batch["kind"], batch["time"], batch["valid"], profile, dropout=True)
        return normalise(user.reshape(-1, user.shape[-1]))


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


def _any_equal(of_row: Int[Array, "b m"], rows: Int[Array, "n"]) -> Bool[Array, "b n"]:
    """Whether column j's product is one of those of row i. One of the m at a time: b × m × n never exists."""

    def one(found: Array, column: Array) -> tuple[Array, None]:
        return found | (column[:, None] == rows[None, :]), None

    return jax.lax.scan(one, jnp.zeros((len(of_row), len(rows)), bool), of_row.T)[0]


def joint_loss(
    params: Any,
    bank: Array,
    batch: dict[str, dict[str, Array]],
    key: Array,
    catalogue: Catalogue,
    model: JointModel,
    config: schema.Run,
    mesh: Mesh | None = None,
) -> tuple[Float[Array, ""], tuple[Losses, Array]]:
    """Weighted sum of the objectives present in `batch`.

    Args:
      bank: float32 [n_products, d], the text vectors as last encoded. The rows named in `batch["live"]` are encoded anew, with
        gradient, and every objective reads them; the others are constants.
      key: randomness of this step.
      mesh: devices over which the rows of `batch` are spread; only `text.chunk` must know.

    Returns:
      (loss, (each objective's unweighted loss, the bank with its live rows renewed)).
    """
    if model.layout.encoder is not None:
        params = held(params, config.text, model.layout.encoder.layers)
    step = _Step(model, params, jax.lax.stop_gradient(bank), key, catalogue, config, mesh)
    if "live" in batch:
        fresh = step.encode(batch["live"], len(batch["live"]["rows"]))
        step.bank = step.bank.at[batch["live"]["rows"]].set(fresh, mode="drop")
    each = {name: getattr(step, name)(entry) for name, entry in batch.items() if name != "live"}
    total = sum((getattr(config.objectives, name).weight * loss for name, loss in each.items()), start=jnp.zeros(()))
    return total, (each, jax.lax.stop_gradient(step.bank))
