"""The demo shop as a whole: one function of its config (bit-identical on one kind of machine and NumPy version)."""

import dataclasses

import numpy as np

from fusionjax.config import schema
from fusionjax.data.shop import UNASSIGNED, Shop, Triples, Users, text_column
from fusionjax.data.sources.demo_shop import behaviour, catalogue, lexicon, search

_STREAMS = ("catalogue", "listing", "pairs", "queries", "judgments", "tastes", "events")


@dataclasses.dataclass(frozen=True)
class GroundTruth:
    """What the shop's tables only hint at; for tests and for measuring how good a model could be."""

    catalogue: catalogue.Catalogue
    tastes: behaviour.Tastes
    queries: search.QueryIntents

    def relevance(self, query: np.ndarray, product: np.ndarray) -> np.ndarray:
        """Exact grade of products for queries (row numbers, broadcast together), 0 to 3."""
        return self.queries.relevance(self.catalogue, np.asarray(query), np.asarray(product))

    def preference(self, user: np.ndarray, product: np.ndarray) -> np.ndarray:
        """How much users like products (row numbers, broadcast together): log-chance of the type plus match of the rest."""
        user, product = np.asarray(user), np.asarray(product)
        match = self.tastes.match(self.catalogue, user, product)
        return np.log(self.tastes.type[user, self.catalogue.type[product]] + 1e-9) + match


def generate(config: schema.DemoShop) -> tuple[Shop, GroundTruth]:
    """Draws a shop of `config.products` products. The same config gives the same shop.

    Raises `UserError` if more different queries are asked for than the shop has words for.
    """
    # One stream a table: a shop with more users keeps its products and queries.
    rng = {name: np.random.Generator(np.random.Philox([config.seed % 2**63, place])) for place, name in enumerate(_STREAMS)}
    truth = catalogue.draw_catalogue(config.products, config.cold_share, rng["catalogue"])
    products = catalogue.products(truth, rng["listing"])
    queries, intents = search.draw_queries(config.queries, config.misspelt_share, truth, rng["queries"])
    judgments = search.judge(truth, intents, rng["judgments"])
    tastes = behaviour.draw_tastes(config.users, truth, rng["tastes"])
    counts = behaviour.draw_counts(config.users, config.events_per_user, config.products, rng["tastes"])
    pairs = _pairs(truth, rng["pairs"])
    events = behaviour.draw_events(truth, tastes, counts, intents, pairs, rng["events"])
    width = len(str(config.users - 1))
    users = Users(
        id=text_column(f"u{row:0{width}d}" for row in range(config.users)),
        profile={
            "country": text_column(word.en for word in lexicon.COUNTRIES)[tastes.country],
            "age_group": text_column(behaviour.AGES)[tastes.age],
            "gender": text_column(("women", "men"))[tastes.gender],
            "language": text_column(behaviour.USER_LANGUAGES)[tastes.language],
        },
    )
    shop = Shop(
        name="demo_shop",
        products=products,
        triples=_triples(truth, products.id, pairs),
        users=users,
        events=events,
        queries=queries,
        judgments=judgments,
    )
    return shop, GroundTruth(catalogue=truth, tastes=tastes, queries=intents)


def _pairs(truth: catalogue.Catalogue, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """For a quarter of the products, one of a complementary type that goes with it: alike in brand, style and colour."""
    head = np.flatnonzero((rng.random(len(truth)) < 0.25) & ~truth.cold)
    kind = truth.complements[truth.type[head], 0]
    shelf = behaviour.Shelf(truth)
    candidates = shelf.find(kind, rng)
    tail = behaviour.pick(candidates, 2.0 * behaviour.likeness(truth, head[:, None], candidates), rng)
    return head.astype(np.int32), tail.astype(np.int32)


def _triples(truth: catalogue.Catalogue, ids: np.ndarray, pairs: tuple[np.ndarray, np.ndarray]) -> Triples:
    """What the catalogue's columns do not say: types that complement each other, products that go together, brands' countries.

    Entities of types and brands are named as the graph builder names them, so that they are one.
    """
    types = text_column(f"category:{kind.path}" for kind in truth.types)
    brands = text_column(f"brand:{name}" for name in truth.brands.en)
    countries = text_column(f"country:{word.en}" for word in lexicon.COUNTRIES)
    used = np.unique(truth.brand)
    row, place = np.nonzero(truth.complements >= 0)
    names = np.concatenate([types, brands, countries, ids])
    n_types, n_brands, n_countries = len(types), len(brands), len(countries)
    products = n_types + n_brands + n_countries
    head = np.concatenate([row, n_types + used, products + pairs[0]])
    tail = np.concatenate([truth.complements[row, place], n_types + n_brands + truth.brands.country[used], products + pairs[1]])
    relation = np.repeat(np.arange(3, dtype=np.int32), [len(row), len(used), len(pairs[0])])
    # Entities in order of first appearance.
    rows, first, inverse = np.unique(np.stack([head, tail], axis=1).ravel(), return_index=True, return_inverse=True)
    order = np.argsort(first)
    place_of = np.empty(len(rows), np.int32)
    place_of[order] = np.arange(len(rows), dtype=np.int32)
    codes = place_of[inverse.ravel()].reshape(-1, 2)
    return Triples(
        entities=names[rows[order]],
        relations=text_column(("complements", "made_in", "goes_with")),
        head=np.ascontiguousarray(codes[:, 0]),
        relation=relation,
        tail=np.ascontiguousarray(codes[:, 1]),
        split=np.full(len(head), UNASSIGNED, np.int8),
    )
