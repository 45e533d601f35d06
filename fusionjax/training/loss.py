"""The joint loss: towers → objectives → weighted sum. Pure; written as if there were one device."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from fusionjax import objectives
from fusionjax.config import schema
from fusionjax.models.joint import JointModel
from fusionjax.objectives import normalise
from fusionjax.training.state import Catalogue

Losses = dict[str, Float[Array, ""]]


class _Step:
    """One evaluation of the joint loss: binds model, parameters and randomness, so that objectives read like formulas."""

    def __init__(
        self, model: JointModel, params: Any, bank: Array, key: Array, catalogue: Catalogue, config: schema.Run
    ) -> None:
        self.model, self.params, self.bank, self.catalogue, self.config = model, params, bank, catalogue, config
        self.key, self.drawn = key, 0

    def next_key(self) -> Array:
        self.drawn += 1
        return jax.random.fold_in(self.key, self.drawn)

    def apply(self, method: str, *args: Any, dropout: bool = False, params: Any = None) -> Any:
        rngs = {"dropout": self.next_key()} if dropout else None
        extra = {"deterministic": False} if dropout else {}
        return self.model.apply({"params": params or self.params}, *args, method=method, rngs=rngs, **extra)

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
            objectives.link_prediction(
                positive, against_tail, negative_row[None] == tail_row[:, None], settings.self_adversarial
            )
            + objectives.link_prediction(
                positive, against_head, negative_row[None] == head_row[:, None], settings.self_adversarial
            )
        )
        if settings.l2:
            loss += settings.l2 * sum((x * x).sum(-1).mean() for x in (head, relation, tail)) / 3
        return loss

    def alignment(self, batch: dict[str, Array]) -> Float[Array, ""]:
        rows = batch["product"]
        text, entity = self.apply("text_side", self.bank[rows]), self.apply("entity_side", rows)
        same = rows[:, None] == rows[None, :]
        return objectives.info_nce(text, entity, self.apply("scale", "alignment"), same, jnp.ones(rows.shape, bool))

    def query_product(self, batch: dict[str, Array]) -> Float[Array, ""]:
        query = self.apply("queries", self.apply("encode", batch["tokens"], dropout=True))
        product = self.products(batch["product"])
        valid = jnp.ones(batch["product"].shape, bool)
        return objectives.info_nce(query, product, self.apply("scale", "query_product"), batch["known"], valid)

    def next_product(self, batch: dict[str, Array]) -> Float[Array, ""]:
        settings = self.config.objectives.next_product
        n_products = self.model.layout.n_products
        target = batch["target"].reshape(-1)
        valid = target >= 0
        scale = self.apply("scale", "next_product")
        if settings.softmax == "full":
            everything = self.products(jnp.arange(n_products, dtype=jnp.int32))
            user = self._users(batch, everything[batch["product"]])
            logits = jnp.where(self.catalogue.sold[None], scale * user @ normalise(everything).T, objectives.NEGATIVE)
            return objectives.softmax_over_catalogue(logits, target, valid)
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

        return objectives.sampled_softmax(
            scale * (user * chosen).sum(-1), scale * user @ vectors.T, target, candidate, log_q(target), log_q(candidate), valid
        )

    def _users(self, batch: dict[str, Array], history: Float[Array, "b h p"]) -> Float[Array, "x p"]:
        profile = batch["profile"][:, : len(self.model.layout.profile_sizes)]
        user = self.apply("users", history, batch["kind"], batch["time"], batch["valid"], profile, dropout=True)
        return normalise(user.reshape(-1, user.shape[-1]))


def joint_loss(
    params: Any,
    bank: Array,
    batch: dict[str, dict[str, Array]],
    key: Array,
    catalogue: Catalogue,
    model: JointModel,
    config: schema.Run,
) -> tuple[Float[Array, ""], tuple[Losses, Array]]:
    """Weighted sum of the objectives present in `batch`.

    Args:
      bank: float32 [n_products, d], the text vectors as last encoded. The rows named in `batch["live"]` are encoded anew, with
        gradient, and every objective reads them; the others are constants.
      key: randomness of this step.

    Returns:
      (loss, (each objective's unweighted loss, the bank with its live rows renewed)).
    """
    step = _Step(model, params, jax.lax.stop_gradient(bank), key, catalogue, config)
    if "live" in batch:
        fresh = step.apply("encode", batch["live"]["tokens"], dropout=True)
        step.bank = step.bank.at[batch["live"]["rows"]].set(fresh, mode="drop")
    losses = {name: getattr(step, name)(entry) for name, entry in batch.items() if name != "live"}
    total = sum((getattr(config.objectives, name).weight * loss for name, loss in losses.items()), start=jnp.zeros(()))
    return total, (losses, jax.lax.stop_gradient(step.bank))
