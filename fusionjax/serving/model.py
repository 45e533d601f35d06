"""A trained run in memory: search, rank, recommend, similar. All scores are cosines in the shared space."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from fusionjax.config import schema
from fusionjax.data.clean import clean_text
from fusionjax.data.inputs import Inputs, build_inputs, product_rows, query_rows
from fusionjax.data.prepare import prepare
from fusionjax.data.shop import Shop
from fusionjax.errors import UserError, nearest
from fusionjax.inference import Encoder
from fusionjax.losses import normalise
from fusionjax.models.joint import JointModel
from fusionjax.runs import RunFolder
from fusionjax.training.checkpoint import Checkpoints
from fusionjax.training.state import best_shapes, layout


@dataclasses.dataclass(frozen=True)
class Hit:
    """One product of an answer, best first in its list."""

    id: str
    title: str
    score: float


def load(run: str | Path) -> "Model":
    """Loads a run folder: its data (prepared again, from the cache if it is there) and its best parameters.

    Raises:
      UserError: no run there, not trained yet, or its data has changed since.
    """
    folder = RunFolder(Path(run))
    config = folder.config()
    recorded = folder.provenance().get("fingerprint")
    prepared = prepare(config.data, log=lambda _: None)
    if recorded is not None and recorded != prepared.fingerprint:
        raise UserError(
            f"{folder.path}: the data is not what the run was trained on "
            f"(fingerprint {prepared.fingerprint[:12]}, was {recorded[:12]})"
        )
    inputs = build_inputs(prepared.shop, config, folder.tokenizer, log=lambda _: None)
    return from_checkpoint(config, inputs, folder)


def from_checkpoint(config: schema.Run, inputs: Inputs, folder: RunFolder) -> "Model":
    """The best checkpoint of a run whose inputs are already in memory."""
    if not folder.checkpoints.exists():
        raise UserError(f"{folder.path}: not trained yet (no checkpoints)")
    checkpoints = Checkpoints(folder.checkpoints, writing=False)
    try:
        model = JointModel(layout(config, inputs))
        step, params, bank = checkpoints.load_best(*best_shapes(model))
    finally:
        checkpoints.close()
    return Model(
        config,
        inputs,
        Encoder(model, params, config.evaluation.batch_size),
        np.asarray(bank),
        step,
    )


class Model:
    """What `fusionjax.load(RUN)` returns."""

    def __init__(self, config: schema.Run, inputs: Inputs, encoder: Encoder, bank: np.ndarray, step: int) -> None:
        self.config, self.inputs, self.encoder, self.bank, self.step = config, inputs, encoder, bank, step
        self.shop: Shop = inputs.shop
        self.layout = encoder.model.layout
        if self.layout.has_products:
            self.raw = encoder.products(bank, inputs)
            self.unit = np.asarray(normalise(jnp.asarray(self.raw)))
            self.product_row = {name: row for row, name in enumerate(self.shop.products.id)}
        self.user_row = {name: row for row, name in enumerate(self.shop.users.id)} if self.shop.has("users") else {}

    def search(self, query: str, k: int = 10, user: str | None = None, user_weight: float = 0.2) -> list[Hit]:
        """The k products nearest to a query.

        Args:
          user: id of a known user; adds `user_weight` × cosine(user, product) to each product's score.

        Raises:
          UserError: the run has no query tower; the query is blank; the user is unknown.
        """
        vector = self.query_vector(query)  # before `unit`, which a run without products lacks
        scores = self.unit @ vector
        if user is not None:
            scores = scores + user_weight * (self.unit @ self.user_vector(user))
        return self._best(scores, k)

    def rank(self, query: str, titles: Sequence[str]) -> list[tuple[str, float]]:
        """Any titles, best first, with their scores; a title the shop has is scored as that product, others by text alone.

        Raises:
          UserError: the run has no query tower, or no text in its product tower.
        """
        if "text" not in self.layout.sources:
            raise UserError(
                "this run's products are made of entity vectors only (model.product.sources); it cannot rank titles"
            )
        vector = self.query_vector(query)
        if not titles:
            return []
        assert self.inputs.tokenizer is not None
        cleaned = [clean_text(title, self.config.data.clean) for title in titles]
        vectors = self.encoder.titles(product_rows(self.inputs.tokenizer, self.config.text, cleaned)).copy()
        known = {title: row for row, title in reversed(list(enumerate(self.shop.products.title))) if title}
        for place, title in enumerate(cleaned):
            if title in known:
                vectors[place] = self.unit[known[title]]
        scores = vectors @ vector
        return [(titles[int(place)], float(scores[place])) for place in np.argsort(-scores, kind="stable")]

    def recommend(self, user: str, k: int = 10) -> list[Hit]:
        """The k products next for a user, given all the user's events; products already seen left out as in the evaluation.

        Raises:
          UserError: the run has no user tower, or the user is unknown.
        """
        vector = self.user_vector(user)
        scores = self.unit @ vector
        if self.config.evaluation.exclude_seen:
            scores = scores.copy()
            scores[self.history(user)] = -np.inf
        return self._best(scores, k)

    def similar(self, product: str, k: int = 10) -> list[Hit]:
        """The k products nearest to a product of the shop, itself left out.

        Raises:
          UserError: the product is unknown.
        """
        if not self.inputs.n_products:
            self.shop.require("products", purpose="similar")
        if product not in self.product_row:
            raise UserError(f"no product '{product}' in shop '{self.shop.name}'{_hint(product, self.product_row)}")
        row = self.product_row[product]
        scores = self.unit @ self.unit[row]
        scores[row] = -np.inf
        return self._best(scores, k)

    def query_vector(self, query: str) -> np.ndarray:
        """Unit vector of a query."""
        if not self.layout.query or not self.inputs.n_products:
            raise UserError("this run has no query tower: it was trained with objectives.query_product.weight 0")
        query = clean_text(query, self.config.data.clean)
        if not query.strip():
            raise UserError("the query is blank")
        assert self.inputs.tokenizer is not None
        return self.encoder.queries(query_rows(self.inputs.tokenizer, self.config.text, [query]))[0]

    def user_vector(self, user: str) -> np.ndarray:
        """Unit vector of a known user after all its events."""
        row = self._user(user)
        assert self.inputs.sequences is not None
        after = self.inputs.sequences.offsets[[row + 1]]
        return self.encoder.users(self.raw, self.inputs.sequences, np.array([row]), after, self.inputs.profile)[0]

    def history(self, user: str) -> np.ndarray:
        """Product rows of the user's events, oldest first."""
        row = self._user(user)
        assert self.inputs.sequences is not None
        return self.inputs.sequences.product[self.inputs.sequences.offsets[row] : self.inputs.sequences.offsets[row + 1]]

    def _user(self, user: str) -> int:
        if not self.layout.user:
            raise UserError("this run has no user tower: it was trained with objectives.next_product.weight 0")
        if user not in self.user_row:
            raise UserError(f"no user '{user}' in shop '{self.shop.name}'{_hint(user, self.user_row)}")
        return self.user_row[user]

    def _best(self, scores: np.ndarray, k: int) -> list[Hit]:
        if k < 1:
            raise UserError(f"k must be at least 1, got {k}")
        rows = np.argsort(-scores, kind="stable")[:k]
        products = self.shop.products
        return [
            Hit(str(products.id[row]), str(products.title[row]), float(scores[row])) for row in rows if scores[row] > -np.inf
        ]


def _hint(name: str, known: dict[str, int]) -> str:
    """The nearest valid id; looked for among those of similar length only, for there may be millions."""
    similar = [other for other in known if abs(len(other) - len(name)) <= 2][:20_000]
    return nearest(name, similar) if similar and len(similar) <= 20_000 and len(known) > 12 else nearest(name, list(known)[:12])
