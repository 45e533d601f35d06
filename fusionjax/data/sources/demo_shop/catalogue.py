"""Products of the demo shop: latent attributes first, then what a seller writes about them."""

import dataclasses

import numpy as np

from fusionjax.data.shop import Products, text_column
from fusionjax.data.sources.demo_shop import lexicon
from fusionjax.data.sources.demo_shop.lexicon import ProductType, Word

LANGUAGES = ("zh", "en", "mixed")
LANGUAGE_SHARES = (0.4, 0.4, 0.2)
TASTE_DIM = 6
"""Width of the latent space in which brands please users."""
TIERS = np.array([0.6, 1.0, 1.9])
"""Price factor of budget, middle and premium brands."""


def _vocabulary(families: dict[str, tuple[Word, ...]]) -> tuple[Word, ...]:
    return tuple({word.en: word for words in families.values() for word in words}.values())


VALUES: dict[str, tuple[Word, ...]] = {
    "colour": lexicon.COLOURS,
    "material": _vocabulary(lexicon.MATERIALS),
    "size": _vocabulary(lexicon.SIZES),
    "style": lexicon.STYLES,
    "season": lexicon.SEASONS,
    "gender": lexicon.GENDERS,
    "country": lexicon.COUNTRIES,
}
"""Attribute → its values; codes index them, −1 = does not apply."""


@dataclasses.dataclass(frozen=True)
class Brands:
    """One row a brand."""

    en: np.ndarray
    zh: np.ndarray
    country: np.ndarray
    tier: np.ndarray
    style: np.ndarray
    popularity: np.ndarray
    department: np.ndarray
    second_department: np.ndarray
    vector: np.ndarray
    """float32 [brands, TASTE_DIM]."""


@dataclasses.dataclass(frozen=True)
class Catalogue:
    """Latent truth about the products; what the shop shows of it is `products()`."""

    types: tuple[ProductType, ...]
    departments: tuple[str, ...]
    type_department: np.ndarray
    type_category: np.ndarray
    complements: np.ndarray
    """int16 [types, c]: complementary types, −1 = none."""
    type_popularity: np.ndarray
    brands: Brands
    type: np.ndarray
    brand: np.ndarray
    attributes: dict[str, np.ndarray]
    price: np.ndarray
    language: np.ndarray
    cold: np.ndarray
    popularity: np.ndarray
    """Weight with which shoppers come across a product of its type; 0 for cold products."""
    by_type: np.ndarray
    """Product rows sorted by type; those of type t are `by_type[start[t]:start[t + 1]]`."""
    start: np.ndarray

    def __len__(self) -> int:
        return len(self.type)

    def of_type(self, row: int) -> np.ndarray:
        return self.by_type[self.start[row] : self.start[row + 1]]


def draw_catalogue(n: int, cold_share: float, rng: np.random.Generator) -> Catalogue:
    """Draws the latent truth of `n` products."""
    types = lexicon.TYPES[: int(np.clip(n // 20, 6, len(lexicon.TYPES)))]
    departments = tuple(dict.fromkeys(kind.department for kind in types))
    department = np.array([departments.index(kind.department) for kind in types])
    categories = list(dict.fromkeys((kind.department, kind.category) for kind in types))
    names = {kind.name: row for row, kind in enumerate(types)}
    complements = np.full((len(types), 2), -1, np.int16)
    for row, kind in enumerate(types):
        known = [names[name] for name in kind.complements if name in names]
        neighbours = np.flatnonzero((department == department[row]) & (np.arange(len(types)) != row))
        known = known or neighbours[:1].tolist() or [(row + 1) % len(types)]
        complements[row, : len(known[:2])] = known[:2]
    type_popularity = rng.permutation((np.arange(len(types)) + 4.0) ** -0.5)
    type_popularity /= type_popularity.sum()

    brands = _draw_brands(int(np.clip(n // 25, 12, 6000)), len(departments), rng)
    # Two products of each type at least, so that every type has one that is not cold.
    kinds = np.concatenate([np.tile(np.arange(len(types)), 2), rng.choice(len(types), n - 2 * len(types), p=type_popularity)])
    kinds = rng.permutation(kinds).astype(np.int16)
    brand = _draw_product_brands(department[kinds], brands, len(departments), rng)
    attributes = _draw_attributes(types, kinds, brands, brand, rng)
    base = np.array([kind.price for kind in types])[kinds]
    price = np.maximum(1, np.round(base * TIERS[brands.tier[brand]] * rng.lognormal(0.0, 0.3, n)))

    by_type = np.lexsort((rng.random(n), kinds)).astype(np.int32)
    start = np.searchsorted(kinds[by_type], np.arange(len(types) + 1)).astype(np.int64)
    rank = np.empty(n, np.int64)
    rank[by_type] = np.arange(n) - start[kinds[by_type]]
    popularity = (rank + 2.0) ** -1.0 * brands.popularity[brand] ** 0.5
    cold = np.zeros(n, bool)
    eligible = np.flatnonzero(rank > 0)  # the leader of each type stays warm
    cold[rng.choice(eligible, min(round(cold_share * n), len(eligible)), replace=False)] = True
    popularity[cold] = 0.0
    return Catalogue(
        types=types,
        departments=departments,
        type_department=department,
        type_category=np.array([categories.index((kind.department, kind.category)) for kind in types]),
        complements=complements,
        type_popularity=type_popularity,
        brands=brands,
        type=kinds,
        brand=brand,
        attributes=attributes,
        price=price.astype(np.float32),
        language=rng.choice(len(LANGUAGES), n, p=LANGUAGE_SHARES).astype(np.int8),
        cold=cold,
        popularity=popularity,
        by_type=by_type,
        start=start,
    )


def _draw_brands(n: int, n_departments: int, rng: np.random.Generator) -> Brands:
    shape = [len(part) for part in lexicon.BRAND_EN]
    places = np.unravel_index(rng.choice(int(np.prod(shape)), n, replace=False), shape)

    def names(syllables: tuple[tuple[str, ...], ...]) -> np.ndarray:
        return text_column(
            "".join(part[place] for part, place in zip(syllables, row, strict=True)) for row in zip(*places, strict=True)
        )

    return Brands(
        en=text_column(name.capitalize() for name in names(lexicon.BRAND_EN)),
        zh=names(lexicon.BRAND_ZH),
        country=rng.choice(len(lexicon.COUNTRIES), n, p=_falling(len(lexicon.COUNTRIES), 0.8)).astype(np.int16),
        tier=rng.choice(3, n, p=[0.35, 0.4, 0.25]).astype(np.int8),
        style=rng.integers(len(lexicon.STYLES), size=n).astype(np.int16),
        popularity=rng.permutation((np.arange(n) + 2.0) ** -0.7),
        department=rng.permutation(np.arange(n) % n_departments),
        second_department=rng.integers(n_departments, size=n),
        vector=rng.normal(size=(n, TASTE_DIM)).astype(np.float32),
    )


def _falling(n: int, exponent: float) -> np.ndarray:
    weights = (np.arange(n) + 1.0) ** -exponent
    return weights / weights.sum()


def _draw_product_brands(department: np.ndarray, brands: Brands, n_departments: int, rng: np.random.Generator) -> np.ndarray:
    brand = np.empty(len(department), np.int32)
    for row in range(n_departments):
        weight = brands.popularity * (1.0 * (brands.department == row) + 0.3 * (brands.second_department == row))
        rows = department == row
        brand[rows] = rng.choice(len(weight), int(rows.sum()), p=weight / weight.sum())
    return brand


def _draw_attributes(
    types: tuple[ProductType, ...], kinds: np.ndarray, brands: Brands, brand: np.ndarray, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Codes into `VALUES`. Each type leans to some values, each brand to a style: there is something to learn."""
    n = len(kinds)
    family = [kind.family for kind in types]

    def by_type(name: str, domains: list[tuple[Word, ...]], concentration: float) -> np.ndarray:
        place = {word.en: code for code, word in enumerate(VALUES[name])}
        codes = np.full(n, -1, np.int16)
        for row, domain in enumerate(domains):
            rows = np.flatnonzero(kinds == row)
            weights = rng.dirichlet(np.full(max(len(domain), 1), concentration))
            drawn = rng.choice(len(weights), len(rows), p=weights)
            if domain:
                codes[rows] = np.array([place[word.en] for word in domain], np.int16)[drawn]
        return codes

    style = np.where(rng.random(n) < 0.6, brands.style[brand], rng.integers(len(lexicon.STYLES), size=n)).astype(np.int16)
    style[np.isin(kinds, [row for row, name in enumerate(family) if name == "food"])] = -1
    return {
        "colour": by_type("colour", [() if name in lexicon.COLOURLESS else lexicon.COLOURS for name in family], 1.5),
        "material": by_type("material", [lexicon.MATERIALS[name] for name in family], 1.0),
        "size": by_type("size", [lexicon.SIZES[name] for name in family], 2.0),
        "style": style,
        "season": by_type("season", [lexicon.SEASONS if name in lexicon.SEASONAL else () for name in family], 0.7),
        "gender": by_type("gender", [lexicon.GENDERS if name in lexicon.GENDERED else () for name in family], 1.5),
        "country": brands.country[brand],
    }


# ------------------------------------------------------------------------------------------------- what sellers write
def products(catalogue: Catalogue, rng: np.random.Generator) -> Products:
    """The product table: titles and descriptions from a grammar, attribute cells of which some are left empty."""
    n = len(catalogue)
    shown = {name: codes.copy() for name, codes in catalogue.attributes.items()}
    for codes in shown.values():
        codes[rng.random(n) < 0.12] = -1
    paths = text_column(kind.path for kind in catalogue.types)
    width = len(str(n - 1))
    return Products(
        id=text_column(f"p{row:0{width}d}" for row in range(n)),
        title=_titles(catalogue, rng),
        description=_descriptions(catalogue, rng),
        brand=catalogue.brands.en[catalogue.brand],
        category=paths[catalogue.type],
        price=catalogue.price,
        attributes={
            name: np.where(codes >= 0, text_column(word.en for word in VALUES[name])[codes], "").astype(object)
            for name, codes in shown.items()
        },
    )


class _Writer:
    """Looks words up for all products at once; '' where a word is not to be said."""

    def __init__(self, catalogue: Catalogue, rng: np.random.Generator) -> None:
        self.catalogue, self.rng, self.n = catalogue, rng, len(catalogue)

    def said(self, chance: float) -> np.ndarray:
        return self.rng.random(self.n) < chance

    def attribute(self, name: str, language: str, said: np.ndarray, form: str = "{}") -> np.ndarray:
        codes = self.catalogue.attributes[name]
        words = text_column(form.format(getattr(word, language)) for word in VALUES[name])
        return np.where(said & (codes >= 0), words[codes], "").astype(object)

    def type(self, language: str, said: np.ndarray, which: np.ndarray, form: str = "{}") -> np.ndarray:
        """A synonym of the type: number `which` modulo how many there are."""
        synonyms = [getattr(kind, language) for kind in self.catalogue.types]
        table = np.full((len(synonyms), max(map(len, synonyms))), "", dtype=object)
        for row, words in enumerate(synonyms):
            table[row, : len(words)] = [form.format(word) for word in words]
        count = np.array([len(words) for words in synonyms])[self.catalogue.type]
        return np.where(said, table[self.catalogue.type, which % count], "").astype(object)


def _titles(catalogue: Catalogue, rng: np.random.Generator) -> np.ndarray:
    """A title says some of what is true, in Chinese, English or both; some repeat the type by a synonym, as sellers do."""
    writer = _Writer(catalogue, rng)
    everyone = np.ones(len(catalogue), bool)
    chances = {"colour": 0.75, "material": 0.65, "size": 0.5, "style": 0.5, "season": 0.5, "gender": 0.6}
    said = {name: writer.said(chance) for name, chance in chances.items()}
    named, doubled, praised = writer.said(0.85), writer.said(0.3), writer.said(0.4)
    which, praise = rng.integers(6, size=len(catalogue)), rng.integers(len(lexicon.ADJECTIVES), size=len(catalogue))

    def brand(language: str, end: str) -> np.ndarray:
        return np.where(named, (getattr(catalogue.brands, language) + end)[catalogue.brand], "").astype(object)

    def adjective(language: str, form: str) -> np.ndarray:
        words = text_column(form.format(getattr(word, language)) for word in lexicon.ADJECTIVES)
        return np.where(praised, words[praise], "").astype(object)

    def chinese() -> np.ndarray:
        parts = [brand("zh", " "), adjective("zh", "{}")]
        parts += [writer.attribute(name, "zh", said[name]) for name in ("season", "style", "gender", "colour", "material")]
        parts += [writer.type("zh", everyone, which), writer.type("zh", doubled, which + 1, " {}")]
        return _join([*parts, writer.attribute("size", "zh", said["size"], " {}")])

    def english() -> np.ndarray:
        parts = [brand("en", " "), adjective("en", "{} ")]
        parts += [
            writer.attribute(name, "en", said[name], "{} ") for name in ("style", "season", "gender", "colour", "material")
        ]
        parts += [writer.type("en", everyone, which, "{} "), writer.type("en", doubled, which + 1, "{} ")]
        return _join([*parts, writer.attribute("size", "en", said["size"])])

    def mixed() -> np.ndarray:
        parts = [brand("en", " "), adjective("zh", "{}"), writer.attribute("colour", "zh", said["colour"])]
        parts += [
            writer.attribute("style", "en", said["style"], " {}"),
            writer.attribute("material", "zh", said["material"], " {}"),
        ]
        parts += [writer.type("zh", everyone, which, "{} "), writer.type("en", everyone, which)]
        return _join([*parts, writer.attribute("size", "en", said["size"], " {}")])

    return np.select([catalogue.language == code for code in range(3)], [chinese(), english(), mixed()]).astype(object)


def _descriptions(catalogue: Catalogue, rng: np.random.Generator) -> np.ndarray:
    """Half of the products have one; it says more than the title."""
    writer = _Writer(catalogue, rng)
    which = rng.integers(6, size=len(catalogue))
    written = writer.said(0.5)
    zh, en = written & (catalogue.language == 0), written & (catalogue.language > 0)
    parts = [writer.attribute("style", "zh", zh), writer.type("zh", zh, which), writer.attribute("colour", "zh", zh, "，{}")]
    parts += [writer.attribute("material", "zh", zh, "，{}材质"), writer.attribute("season", "zh", zh, "，{}适用")]
    parts += [writer.attribute("country", "zh", zh, "，产自{}。")]
    parts += [writer.attribute("style", "en", en, "{} "), writer.type("en", en, which)]
    parts += [writer.attribute("colour", "en", en, " in {}"), writer.attribute("material", "en", en, ", {}")]
    parts += [writer.attribute("season", "en", en, ", for {}"), writer.attribute("country", "en", en, ", made in {}.")]
    return _join(parts)


def _join(parts: list[np.ndarray]) -> np.ndarray:
    whole = parts[0]
    for part in parts[1:]:
        whole = whole + part
    return text_column(" ".join(text.split()) for text in whole)
