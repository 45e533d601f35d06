"""Queries of the demo shop: an intent (type and wanted attributes), words for it, and exactly graded relevance."""

import dataclasses

import numpy as np

from fusionjax.data.shop import TEST, TRAIN, VALID, Judgments, Queries, text_column
from fusionjax.data.sources.demo_shop import lexicon
from fusionjax.data.sources.demo_shop.catalogue import LANGUAGE_SHARES, VALUES, Catalogue
from fusionjax.errors import UserError

WANTED = ("brand", "colour", "material", "style", "season", "gender", "size")
"""What a query may ask for beside the type, in the order in which it is said."""
_CHANCES = (0.2, 0.35, 0.25, 0.25, 0.15, 0.25, 0.1)
_SPLIT_SHARES = (0.7, 0.1, 0.2)
_MOST_RELEVANT, _MOST_OTHERS = 100, 20
"""Judged products of a query: up to 100 of grade 3, up to 20 of each lower grade."""


@dataclasses.dataclass(frozen=True)
class QueryIntents:
    """What each query means; one row a query."""

    type: np.ndarray
    wanted: np.ndarray
    """int32 [queries, len(WANTED)]: the value asked for, −1 = any."""
    language: np.ndarray
    misspelt: np.ndarray
    split: np.ndarray

    def __len__(self) -> int:
        return len(self.type)

    def satisfied(self, catalogue: Catalogue, query: np.ndarray, product: np.ndarray) -> np.ndarray:
        """bool [..., len(WANTED)]: True where the product has what is asked for, or nothing is asked. Rows broadcast."""
        wanted = self.wanted[query]
        return np.stack(
            [
                (wanted[..., place] < 0) | (wanted[..., place] == _column(catalogue, name)[product])
                for place, name in enumerate(WANTED)
            ],
            axis=-1,
        )

    def relevance(self, catalogue: Catalogue, query: np.ndarray, product: np.ndarray) -> np.ndarray:
        """Exact grade, float32: 3 = the type and all that is asked for, 2 = the type and some of it, 1 = the type and none of
        it, or another type of the same category, 0 = anything else. From the latent attributes, whether or not they are
        written anywhere."""
        kind, sought = catalogue.type[product], self.type[query]
        satisfied = self.satisfied(catalogue, query, product)
        asked = self.wanted[query] >= 0
        some = (satisfied & asked).any(-1)
        grade = np.where(satisfied.all(-1), 3, np.where(some, 2, 1))
        near = catalogue.type_category[kind] == catalogue.type_category[sought]
        return np.where(kind == sought, grade, np.where(near, 1, 0)).astype(np.float32)


def _column(catalogue: Catalogue, name: str) -> np.ndarray:
    return catalogue.brand if name == "brand" else catalogue.attributes[name]


def draw_queries(n: int, misspelt_share: float, catalogue: Catalogue, rng: np.random.Generator) -> tuple[Queries, QueryIntents]:
    """Draws `n` queries that differ in text. Each describes at least one product; a share of them is misspelt.

    Raises `UserError` if the shop is too small for that many different queries.
    """
    spoilt = np.zeros(n, bool)
    spoilt[rng.choice(n, round(misspelt_share * n), replace=False)] = True
    weight = np.sqrt(catalogue.popularity + catalogue.popularity.mean())
    weight /= weight.sum()
    texts: dict[str, None] = {}
    kinds, wants, languages = [], [], []
    size = before = 0
    # A round that yields hardly anything new says that the words are used up.
    while len(texts) < n and (len(texts) - before) * 100 >= size:
        before = len(texts)
        size = 2 * (n - before) + 50
        product = rng.choice(len(catalogue), size, p=weight)
        language = rng.choice(3, size, p=LANGUAGE_SHARES)
        wanted = np.stack([_column(catalogue, name)[product] for name in WANTED], axis=1).astype(np.int32)
        wanted[rng.random(wanted.shape) >= np.array(_CHANCES)] = -1
        # Nobody types more than three wishes.
        wanted[np.cumsum(wanted >= 0, axis=1) > 3] = -1
        for row in range(size):
            text = _phrase(catalogue, int(catalogue.type[product[row]]), wanted[row], int(language[row]), rng)
            if spoilt[len(texts)]:
                text = _misspell(text, rng)
            if text is None or text.lower() in texts:
                continue
            texts[text.lower()] = None
            kinds.append(catalogue.type[product[row]])
            wants.append(wanted[row])
            languages.append(language[row])
            if len(texts) == n:
                break
    if len(texts) < n:
        raise UserError(
            f"data.demo_shop.queries: {n} different queries do not exist in this shop, found {len(texts)}; ask for fewer"
        )
    width = len(str(n - 1))
    intents = QueryIntents(
        type=np.array(kinds, np.int16),
        wanted=np.stack(wants),
        language=np.array(languages, np.int8),
        misspelt=spoilt,
        split=_draw_split(n, rng),
    )
    return Queries(id=text_column(f"q{row:0{width}d}" for row in range(n)), text=text_column(texts)), intents


def _draw_split(n: int, rng: np.random.Generator) -> np.ndarray:
    n_valid, n_test = (max(round(share * n), int(n >= 3)) for share in _SPLIT_SHARES[1:])
    codes = np.full(n, TRAIN, np.int8)
    codes[:n_test] = TEST
    codes[n_test : n_test + n_valid] = VALID
    return rng.permutation(codes)


def _phrase(catalogue: Catalogue, kind: int, wanted: np.ndarray, language: int, rng: np.random.Generator) -> str:
    """Words for an intent. Mixed queries take each word in either language."""
    found = catalogue.types[kind]

    def chinese() -> bool:
        return bool(rng.random() < 0.5) if language == 2 else language == 0

    words: list[tuple[str, bool]] = []
    for place, name in enumerate(WANTED):
        if wanted[place] >= 0:
            zh = chinese()
            if name == "brand":
                words.append((str((catalogue.brands.zh if zh else catalogue.brands.en)[wanted[place]]), zh))
            else:
                word = VALUES[name][wanted[place]]
                words.append((word.zh if zh else word.en, zh))
    zh = chinese()
    synonyms = found.zh if zh else found.en
    words.append((synonyms[rng.integers(len(synonyms))], zh))
    text = ""
    before = True
    for word, zh in words:
        text += word if not text or (zh and before and rng.random() < 0.7) else f" {word}"
        before = zh
    return text.lower()


def _misspell(text: str, rng: np.random.Generator) -> str | None:
    """One error: a Chinese character becomes one that sounds alike, or its pinyin; two letters of an English word change
    places, one is dropped or doubled. `None` where nothing can be misspelt."""
    places = [place for place, letter in enumerate(text) if letter in lexicon.HOMOPHONES]
    letters = [
        place for place in range(1, len(text) - 1) if all("a" <= letter <= "z" for letter in text[place - 1 : place + 2])
    ]
    if not places and not letters:
        return None
    if places and (not letters or rng.random() < 0.5):
        place = places[rng.integers(len(places))]
        alike, pinyin = lexicon.HOMOPHONES[text[place]]
        return text[:place] + (alike if rng.random() < 0.6 else pinyin) + text[place + 1 :]
    place = letters[rng.integers(len(letters))]
    how = rng.integers(3)
    if how == 0 and text[place] != text[place + 1]:
        return text[:place] + text[place + 1] + text[place] + text[place + 2 :]
    return text[:place] + text[place + 1 :] if how == 1 else text[:place] + text[place] + text[place:]


def judge(catalogue: Catalogue, intents: QueryIntents, rng: np.random.Generator) -> Judgments:
    """Judges products of every grade for every query, whatever language their titles are in."""
    columns: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    by_category = [np.flatnonzero(catalogue.type_category == row) for row in range(catalogue.type_category.max() + 1)]
    for query in range(len(intents)):
        sought = int(intents.type[query])
        near = [catalogue.of_type(kind) for kind in by_category[catalogue.type_category[sought]]]
        far = rng.choice(len(catalogue), min(2 * _MOST_OTHERS, len(catalogue)), replace=len(catalogue) > 10_000)
        products = np.unique(np.concatenate([*near, far]))
        grades = intents.relevance(catalogue, np.array(query), products)
        order = rng.permutation(len(products))
        products, grades = products[order], grades[order]
        keep = [products[grades == 3][:_MOST_RELEVANT]] + [products[grades == grade][:_MOST_OTHERS] for grade in (2, 1, 0)]
        chosen = np.concatenate(keep)
        columns.append((np.full(len(chosen), query), chosen, np.repeat([3, 2, 1, 0], [len(rows) for rows in keep])))
    query, product, grade = (np.concatenate(parts) for parts in zip(*columns, strict=True))
    return Judgments(
        query=query.astype(np.int32),
        product=product.astype(np.int32),
        grade=grade.astype(np.float32),
        split=intents.split[query],
    )
