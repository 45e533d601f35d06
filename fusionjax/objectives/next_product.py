"""Next product: a user's history points at the next product, at every position."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from fusionjax import losses
from fusionjax.config import schema
from fusionjax.data.batches import bucket, history_columns, train_rows
from fusionjax.data.inputs import Inputs
from fusionjax.errors import UserError
from fusionjax.losses import normalise
from fusionjax.objectives.base import Entry, Objective
from fusionjax.objectives.sampling import Shuffle
from fusionjax.objectives.towers import Towers


class NextProduct(Objective):
    """Windows of at most history + 1 training events; every event is predicted from those before it in its window.

    A batch is `product`, `kind`, `time`: int32 [b, h] and `valid`: bool [b, h], the history; `target`: int32 [b, h + 1], the
    product after none, one, … of its events (−1: none); `profile`: int32 [b, f].
    """

    name = "next_product"

    def __init__(self, inputs: Inputs, config: schema.Run) -> None:
        assert inputs.sequences is not None  # require_parts has checked that there are events
        self.history = config.model.user.history
        self.one_width = config.train.accumulate > 1  # micro-batches are stacked, so they need one shape
        self.sequences, self.profile = train_rows(inputs.sequences), inputs.profile
        self.user, self.start, self.stop = _windows(self.sequences.offsets, self.history + 1)
        if not len(self.user):
            raise UserError("objectives.next_product: no user has a training event")
        length = self.stop - self.start
        self.shuffle = Shuffle(len(length), config.objectives.next_product.batch_size, config.seed, self.name, length)

    def batch(self, index: int) -> Entry:
        rows = self.shuffle.rows(index)
        start, length = self.start[rows], self.stop[rows] - self.start[rows]
        width = self.history if self.one_width else bucket(int(length.max()) - 1, self.history)
        place = np.arange(width + 1)
        taken = np.minimum(start[:, None] + place[None, :], len(self.sequences.product) - 1)
        target = np.where(place[None, :] < length[:, None], self.sequences.product[taken], -1).astype(np.int32)
        # Only in a user's first window may an event be predicted from the profile alone.
        target[:, 0] = np.where(start == self.sequences.offsets[self.user[rows]], target[:, 0], -1)
        valid = place[None, :width] < length[:, None] - 1
        return {
            **history_columns(self.sequences, taken[:, :width], valid),
            "target": target,
            "profile": self.profile[self.user[rows]],
        }

    @staticmethod
    def loss(towers: Towers, batch: dict[str, Array]) -> Float[Array, ""]:
        """Softmax over the catalogue, or over drawn products, with a learned temperature."""
        target = batch["target"].reshape(-1)
        valid, scale = target >= 0, towers.apply("scale", "next_product")
        if towers.config.objectives.next_product.softmax == "full":
            everything = towers.products(jnp.arange(towers.model.layout.n_products, dtype=jnp.int32))
            user = _users(towers, batch, everything[batch["product"]])
            cosine = scale * user @ normalise(everything).T
            logits = jnp.where(towers.catalogue.sold[None], cosine, losses.NEGATIVE)
            return losses.softmax_over_catalogue(logits, target, valid)
        history = towers.products(batch["product"].reshape(-1)).reshape(*batch["product"].shape, -1)
        return _sampled(towers, _users(towers, batch, history), target, valid, scale)


def _sampled(
    towers: Towers,
    user: Float[Array, "x p"],
    target: Int[Array, "x"],
    valid: Bool[Array, "x"],
    scale: Float[Array, ""],
) -> Float[Array, ""]:
    """Softmax over the targets of the batch and uniformly drawn products, with logQ correction."""
    settings, n_products = towers.config.objectives.next_product, towers.model.layout.n_products
    drawn = jax.random.randint(towers.next_key(), (settings.negatives,), 0, n_products)
    chosen = normalise(towers.products(jnp.maximum(target, 0)))
    candidate = jnp.concatenate([target, jnp.where(towers.catalogue.sold[drawn], drawn, -1)])
    vectors = jnp.concatenate([chosen, normalise(towers.products(drawn))])
    # Expected draws of a product: as some row's target, and uniformly.
    uniform = settings.negatives / n_products

    def log_q(rows: Array) -> Array:
        frequency = jnp.exp(towers.catalogue.log_frequency[jnp.maximum(rows, 0)])
        return jnp.log(valid.sum() * frequency + uniform)

    own, others = scale * (user * chosen).sum(-1), scale * user @ vectors.T
    return losses.sampled_softmax(own, others, target, candidate, log_q(target), log_q(candidate), valid)


def _users(towers: Towers, batch: dict[str, Array], history: Float[Array, "b h p"]) -> Float[Array, "x p"]:
    """Unit user vectors after none, one, … of the events, rows and positions on one axis: x = b · (h + 1)."""
    profile = batch["profile"][:, : len(towers.model.layout.profile_sizes)]
    user = towers.apply("users", history, batch["kind"], batch["time"], batch["valid"], profile, dropout=True)
    return normalise(user.reshape(-1, user.shape[-1]))


def _windows(offsets: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cuts every user's rows into windows of at most `size`, full ones at the end; a user with one event has one window."""
    length = np.diff(offsets)
    count = -(-length // size)
    user = np.repeat(np.arange(len(length)), count)
    nth = np.arange(len(user)) - np.repeat(np.cumsum(count) - count, count)
    stop = offsets[1:][user] - nth * size
    return user, np.maximum(stop - size, offsets[:-1][user]), stop
