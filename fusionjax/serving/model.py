"""A trained run, answering: search, rank, recommend, similar where it has towers; link prediction where it has a graph.

Answers come from the index saved with the run and its best parameters alone; the data may be gone. Scores of products are
cosines in the shared space, those of triples are the scorer's.
"""

import functools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np

from fusionjax.config import schema
from fusionjax.data.clean import clean_text
from fusionjax.data.inputs import Inputs, product_rows, query_rows, text_start
from fusionjax.data.text import Tokenizer
from fusionjax.errors import UserError
from fusionjax.hub import Checkpoint
from fusionjax.inference import Encoder
from fusionjax.models.joint import JointModel, Layout
from fusionjax.retrieval.index import Index, ProductPart, UserPart
from fusionjax.retrieval.nearest import best_rows
from fusionjax.retrieval.plain import from_plain
from fusionjax.runs import RunFolder
from fusionjax.serving.folder import chosen_run, open_index
from fusionjax.serving.parameters import best_parameters, tower_parameters
from fusionjax.serving.rows import Hit, Prediction
from fusionjax.serving.triples import KnownAnswers, Triples
from fusionjax.training.state import layout

__all__ = ["Hit", "Model", "Prediction", "from_checkpoint", "load"]


def load(run: str | os.PathLike[str]) -> "Model":
    """Opens a run folder; of several seeds or settings the one best on validation, which the log and `run_dir` name.

    Its index is memory-mapped, its parameters are read when an answer first needs them. An older run without an index gets one,
    made from its data.

    Raises:
      UserError: no run there, not trained yet; or without an index, and its data are gone or have changed.
    """
    home = chosen_run(RunFolder(Path(run)))
    config = home.config()
    return Model(config, open_index(home, config), home)


def from_checkpoint(config: schema.Run, inputs: Inputs, folder: RunFolder) -> "Model":
    """The best checkpoint of a run whose inputs are already in memory; its index is made, not read."""
    from fusionjax.serving.build import build_index

    if not folder.checkpoints.exists():
        raise UserError(f"{folder.path}: not trained yet (no checkpoints)")
    model = JointModel(layout(config, inputs))
    step, params, bank = best_parameters(folder, model)
    encoder = Encoder(model, params, config.evaluation.batch_size)
    index = build_index(config, inputs, encoder, bank, step)
    return Model(config, index, folder, encoder, np.asarray(bank))


class Model:
    """What `fusionjax.load(RUN)` returns.

    Args:
      config: of the run.
      index: see `retrieval.index`.
      folder: where parameters and tokeniser are read from when they are needed.
      encoder, bank: where they are in memory already.
    """

    def __init__(
        self, config: schema.Run, index: Index, folder: RunFolder, encoder: Encoder | None = None, bank: Any = None
    ) -> None:
        self.config, self.index, self.folder, self.bank = config, index, folder, bank
        if encoder is not None:
            self.encoder = encoder

    @property
    def run_dir(self) -> Path:
        """The run that answers: of a folder of several, the one that was chosen."""
        return self.folder.path

    @property
    def step(self) -> int:
        """Of the best checkpoint."""
        return self.index.step

    # -------------------------------------------------------------------------------------------------- search and ranking
    def search(self, query: str, k: int = 10, user: str | None = None, user_weight: float = 0.2) -> list[Hit]:
        """The k products nearest to a query.

        Args:
          user: id of a known user; adds `user_weight` × cosine(user, product) to each product's score.

        Raises:
          UserError: the run has no query tower; the query is blank; the user is unknown.
        """
        vector = self.query_vector(query)
        if user is not None:
            vector = vector + user_weight * self.user_vector(user)
        return self._best(self.unit @ vector, k)

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
        assert self.tokenizer is not None
        cleaned = [clean_text(title, self.config.data.clean) for title in titles]
        vectors = self.encoder.titles(product_rows(self.tokenizer, self.config.text, cleaned)).copy()
        for place, title in enumerate(cleaned):
            row = self._products("rank").titles.row(title) if title else None
            if row is not None:
                vectors[place] = self.unit[row]
        scores = vectors @ vector
        return [(titles[int(place)], float(scores[place])) for place in np.argsort(-scores, kind="stable")]

    def query_vector(self, query: str) -> np.ndarray:
        """float32 [p]: unit vector of a query."""
        if not self.layout.query or self.index.products is None:
            raise UserError("this run has no query tower: it was trained with objectives.query_product.weight 0")
        query = clean_text(query, self.config.data.clean)
        if not query.strip():
            raise UserError("the query is blank")
        assert self.tokenizer is not None
        return self.encoder.queries(query_rows(self.tokenizer, self.config.text, [query]))[0]

    # ------------------------------------------------------------------------------------------- recommendation, similarity
    def recommend(self, user: str, k: int = 10) -> list[Hit]:
        """The k products next for a user, given all the user's events; products already seen left out as in the evaluation.

        Raises:
          UserError: the run has no user tower, its index no users, or the user is unknown.
        """
        scores = self.scores(user)
        if self.config.evaluation.exclude_seen:
            scores[self.history(user)] = -np.inf
        return self._best(scores, k)

    def scores(self, user: str) -> np.ndarray:
        """float32 [n_products]: cosines of the user with every product, in the order of `product_ids`, nothing left out.

        Raises:
          UserError: as `recommend`.
        """
        vector = self.user_vector(user)  # says first what a run without a user tower lacks
        return self.unit @ vector

    def similar(self, product: str, k: int = 10) -> list[Hit]:
        """The k products nearest to a product of the shop, itself left out.

        Raises:
          UserError: the run has no products, or the product is unknown.
        """
        row = self.product_row(product)
        scores = self.unit @ self.unit[row]
        scores[row] = -np.inf
        return self._best(scores, k)

    def user_vector(self, user: str) -> np.ndarray:
        """float32 [p]: unit vector of a known user after all its events."""
        row, users = self._user(user), self._users()
        events, history = users.events(row), self.layout.history
        events = slice(max(events.start, events.stop - history), events.stop)
        products = self._products("recommend").raw(users.product[events])
        return self.encoder.user(products, users.kind[events], users.time[events], users.profile[row])

    def history(self, user: str) -> np.ndarray:
        """Product rows of the user's events, oldest first."""
        row = self._user(user)
        return np.asarray(self._users().product[self._users().events(row)])

    # ----------------------------------------------------------------------------------------------------- link prediction
    def predict_tail(self, head: str, relation: str, k: int = 10, known: KnownAnswers = "drop") -> list[Prediction]:
        """The k entities that best complete (head, relation, ?).

        Args:
          head, relation: ids.
          known: what is done with triples that stand in the data, of whichever split: "drop" leaves them out, "mark" keeps
            them and says which they are, "keep" keeps them and does not look.

        Raises:
          UserError: the run has no graph, or scores no triples; an id is unknown.
        """
        return self._named(self._triples().tails(head, relation, k, known))

    def predict_head(self, relation: str, tail: str, k: int = 10, known: KnownAnswers = "drop") -> list[Prediction]:
        """The k entities that best complete (?, relation, tail); otherwise as `predict_tail`."""
        return self._named(self._triples().heads(relation, tail, k, known))

    @overload
    def score(self, head: str, relation: str, tail: str) -> float: ...
    @overload
    def score(self, head: Sequence[tuple[str, str, str]]) -> np.ndarray: ...
    def score(self, head: Any, relation: str | None = None, tail: str | None = None) -> Any:
        """The score of a triple, or float32 [n] of a list of triples; higher is more plausible.

        Raises:
          UserError: the run has no graph, or scores no triples; an id is unknown.
        """
        if relation is None and tail is None:
            return self._triples().score(head)
        if not (isinstance(head, str) and isinstance(relation, str) and isinstance(tail, str)):
            raise UserError("score: expected ids of head, relation and tail, or one list of such triples")
        return float(self._triples().score([(head, relation, tail)])[0])

    def entity_vectors(self, ids: Sequence[str] | None = None) -> np.ndarray:
        """float32 [n, w]: vectors of these entities, or of all in the order of `entity_ids`; as triples are scored with.

        Raises:
          UserError: the run has no entities, or an id is unknown.
        """
        return self._triples().vectors(ids)

    def relation_vectors(self) -> np.ndarray:
        """float32 [r, k]: vectors of the relations, in the order of `relation_ids`, without inverses."""
        part = self._triples().part
        return np.asarray(part.relation_vectors[: len(part.relations)])

    def _named(self, found: list[Prediction]) -> list[Prediction]:
        """Entities that are products bear their titles."""
        products = self.index.products
        if products is None:
            return found
        named = []
        for each in found:
            row = products.ids.row(each.id) if not each.name else None
            name = each.name if row is None else products.titles[row] or each.id
            named.append(Prediction(each.id, name, each.score, each.known))
        return named

    # -------------------------------------------------------------------------------------------------------- what it holds
    @property
    def product_ids(self) -> Sequence[str]:
        """In the order of `unit` and `scores`; read from the index as they are asked for."""
        return self._products("product_ids").ids

    @property
    def user_ids(self) -> Sequence[str]:
        return self._users().ids

    @property
    def entity_ids(self) -> Sequence[str]:
        return self._triples().part.entities

    @property
    def relation_ids(self) -> Sequence[str]:
        return self._triples().part.relations

    @property
    def unit(self) -> np.ndarray:
        """float32 [n_products, p]: product vectors of length 1."""
        return self._products("product vectors").unit

    @functools.cached_property
    def raw(self) -> np.ndarray:
        """float32 [n_products, p]: product vectors as the user tower reads them."""
        return self._products("product vectors").raw()

    @functools.cached_property
    def layout(self) -> Layout:
        """Sizes of the model."""
        return from_plain(self.index.layout)

    @functools.cached_property
    def encoder(self) -> Encoder:
        """The towers with the best parameters."""
        params = tower_parameters(self.folder, self.index, self.layout.entities)
        return Encoder(JointModel(self.layout), params, self.config.evaluation.batch_size)

    @functools.cached_property
    def pretrained(self) -> Checkpoint | None:
        """What the checkpoint the text encoder began with says besides its weights."""
        if self.layout.encoder is None or self.config.text.checkpoint is None:
            return None
        return text_start(self.config.text, self.folder.tokenizer)

    @functools.cached_property
    def tokenizer(self) -> Tokenizer | None:
        if self.layout.encoder is None:
            return None
        return Tokenizer(self.pretrained.tokenizer) if self.pretrained is not None else Tokenizer.load(self.folder.tokenizer)

    def product_row(self, id: str) -> int:
        """Row of a product in `unit`. Raises `UserError` for an unknown id."""
        ids = self._products("similar").ids
        row = ids.row(id)
        if row is None:
            raise UserError(f"no product '{id}' in shop '{self.index.shop}'{ids.hint(id)}")
        return row

    def _products(self, purpose: str) -> ProductPart:
        if self.index.products is None:
            if self.layout.n_products:
                raise UserError(
                    f"this run has no product vectors, which {purpose} needs: none of objectives.alignment, query_product and "
                    "next_product has a weight"
                )
            raise UserError(f"shop '{self.index.shop}' has no products, which {purpose} needs")
        return self.index.products

    def _users(self) -> UserPart:
        if not self.layout.user:
            raise UserError("this run has no user tower: it was trained with objectives.next_product.weight 0")
        if self.index.users is None:
            why = "data.keep_users was false" if self.index.users_left_out else "the shop has none"
            raise UserError(f"this run's index holds no users: {why}")
        return self.index.users

    def _user(self, user: str) -> int:
        ids = self._users().ids
        row = ids.row(user)
        if row is None:
            raise UserError(f"no user '{user}' in shop '{self.index.shop}'{ids.hint(user)}")
        return row

    def _triples(self) -> Triples:
        if self._graph is None:
            raise UserError(
                "this run has no entities: it was trained with objectives.link_prediction.weight 0 and without 'entity' in "
                "model.product.sources"
            )
        return self._graph

    @functools.cached_property
    def _graph(self) -> Triples | None:
        return None if self.index.graph is None else Triples(self.index.graph, self.index.shop)

    def _best(self, scores: np.ndarray, k: int) -> list[Hit]:
        if k < 1:
            raise UserError(f"k must be at least 1, got {k}")
        products = self._products("answers")
        return [Hit(products.ids[row], products.titles[row], float(scores[row])) for row in best_rows(scores, k)]
