"""Shoppers of the demo shop: tastes, then sessions of events that follow from them.

A session has an intent: a product type, taken from the user's taste or, after a purchase, often a type that complements the
last one. The shopper comes across products of the type by popularity, and picks by taste, by likeness to the first product of
the session and, after a purchase, by likeness to what was bought. Hence popularity, text and attributes, the graph and the
order of events all tell something about the next product, and none tells everything.
"""

import dataclasses

import numpy as np

from fusionjax.data.shop import UNASSIGNED, Events
from fusionjax.data.sources.demo_shop import lexicon
from fusionjax.data.sources.demo_shop.catalogue import TASTE_DIM, VALUES, Catalogue
from fusionjax.data.sources.demo_shop.search import QueryIntents

KINDS = ("view", "click", "cart", "purchase")
VIEW, CLICK, CART, PURCHASE = range(4)
AGES = ("18-24", "25-34", "35-44", "45+")
USER_LANGUAGES = ("zh", "en", "both")

END_TIME = 1_735_689_600
"""Last second of the log: 2025-01-01 00:00 UTC."""
NEW_SHARE = 0.1
"""Cold products are launched when this share of all events is still to come."""
_DAY = 86_400
_CANDIDATES = 12
_LONGEST = 8
_BLOCK = 50_000


@dataclasses.dataclass(frozen=True)
class Tastes:
    """What moves each user; one row a user."""

    country: np.ndarray
    age: np.ndarray
    gender: np.ndarray
    language: np.ndarray
    type: np.ndarray
    """float32 [users, types]: chance that a session not led by the one before looks for the type."""
    style: np.ndarray
    colour: np.ndarray
    tier: np.ndarray
    brand: np.ndarray
    """float32 [users, TASTE_DIM], beside `Brands.vector`."""

    def __len__(self) -> int:
        return len(self.country)

    def match(self, catalogue: Catalogue, user: np.ndarray, product: np.ndarray) -> np.ndarray:
        """How well products please users (rows, broadcast together), apart from their type. float32."""
        brand = catalogue.brand[product]
        found = 1.2 * self.style[user, catalogue.attributes["style"][product]]
        found += 0.8 * self.colour[user, catalogue.attributes["colour"][product]]
        found += np.einsum("...d,...d->...", self.brand[user], catalogue.brands.vector[brand]) / np.float32(TASTE_DIM**0.5)
        found -= 1.0 * np.abs(self.tier[user] - catalogue.brands.tier[brand])
        gender = catalogue.attributes["gender"][product]
        found -= 2.0 * ((gender >= 0) & (gender < 2) & (gender != self.gender[user]))
        return found.astype(np.float32)


def draw_tastes(n: int, catalogue: Catalogue, rng: np.random.Generator) -> Tastes:
    """Draws users: the profile (country, age, gender) shifts every taste, the rest is their own."""
    country = rng.choice(len(lexicon.COUNTRIES), n, p=_falling(len(lexicon.COUNTRIES))).astype(np.int16)
    age, gender = rng.integers(len(AGES), size=n), rng.integers(2, size=n)
    # Chinese speakers live mostly in China, English speakers elsewhere.
    chinese = np.where(country == 0, 0.8, 0.25)
    language = np.where(rng.random(n) < 0.2, 2, np.where(rng.random(n) < chinese, 0, 1))

    def preference(width: int, *groups: np.ndarray) -> np.ndarray:
        own = rng.normal(0.0, 0.8, (n, width))
        for group in groups:
            own += rng.normal(0.0, 0.8, (int(group.max(initial=0)) + 1, width))[group]
        return own.astype(np.float32)

    department = preference(len(catalogue.departments), age, gender)
    score = 1.5 * department[:, catalogue.type_department] + 1.5 * rng.standard_normal((n, len(catalogue.types)), np.float32)
    score += np.log(catalogue.type_popularity).astype(np.float32)
    weight = np.exp(score - score.max(1, keepdims=True))
    return Tastes(
        country=country,
        age=age.astype(np.int8),
        gender=gender.astype(np.int8),
        language=language.astype(np.int8),
        type=(weight / weight.sum(1, keepdims=True)).astype(np.float32),
        style=_with_none(preference(len(VALUES["style"]), age)),
        colour=_with_none(preference(len(VALUES["colour"]), gender)),
        tier=np.clip(rng.normal(1.0, 0.8, n) + 0.3 * (age >= 2), 0, 2).astype(np.float32),
        brand=preference(TASTE_DIM, country),
    )


def _with_none(preference: np.ndarray) -> np.ndarray:
    """Appends a column of zeros, which code −1 (does not apply) finds."""
    return np.concatenate([preference, np.zeros((len(preference), 1), np.float32)], axis=1)


def _falling(n: int) -> np.ndarray:
    weights = (np.arange(n) + 1.0) ** -1.2
    return weights / weights.sum()


def draw_counts(n: int, mean: float, n_products: int, rng: np.random.Generator) -> np.ndarray:
    """Events of each user: 3 plus a log-normal number; no user sees more than a third of the shop."""
    sigma = 0.8
    extra = rng.lognormal(np.log(max(mean - 3.0, 1e-9)) - sigma**2 / 2, sigma, n)
    return np.clip(3 + np.floor(extra + rng.random(n)), 3, max(3, n_products // 3)).astype(np.int64)


class Shelf:
    """Finds products of a type by popularity."""

    def __init__(self, catalogue: Catalogue) -> None:
        total = np.concatenate([[0.0], np.cumsum(catalogue.popularity[catalogue.by_type])])
        self.by_type, self.total = catalogue.by_type, total
        self.low, self.high = total[catalogue.start[:-1]], total[catalogue.start[1:]]

    def find(self, kind: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Draws `_CANDIDATES` products for each type in `kind` [n]; int32 [n, _CANDIDATES], with repetition."""
        low, high = self.low[kind][:, None], self.high[kind][:, None]
        point = low + rng.random((len(kind), _CANDIDATES)) * (high - low)
        place = np.searchsorted(self.total, point, side="right") - 1
        return self.by_type[np.minimum(place, len(self.by_type) - 1)]


def likeness(catalogue: Catalogue, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """How alike products (rows, broadcast together) are in brand, style, colour, material and price; 4 = the same, float64."""
    found = 1.5 * (catalogue.brand[first] == catalogue.brand[second])
    for name, weight in (("style", 1.2), ("colour", 0.8), ("material", 0.5)):
        codes = catalogue.attributes[name]
        found = found + weight * ((codes[first] == codes[second]) & (codes[first] >= 0))
    return found - 0.5 * np.abs(np.log(catalogue.price[first] / catalogue.price[second]))


def pick(candidates: np.ndarray, score: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One candidate a row, drawn with softmax(score)."""
    best = (score + rng.gumbel(size=score.shape)).argmax(1)
    return candidates[np.arange(len(candidates)), best]


@dataclasses.dataclass
class _Log:
    """Columns of events while they are drawn: `session` counts within a user, `place` within a session; `anchor` is the
    product the session began with, `searched` whether it began with a query."""

    user: np.ndarray
    session: np.ndarray
    place: np.ndarray
    product: np.ndarray
    kind: np.ndarray
    anchor: np.ndarray
    searched: np.ndarray

    def take(self, rows: np.ndarray) -> "_Log":
        return _Log(**{field.name: getattr(self, field.name)[rows] for field in dataclasses.fields(self)})


def draw_events(
    catalogue: Catalogue,
    tastes: Tastes,
    counts: np.ndarray,
    queries: QueryIntents,
    pairs: tuple[np.ndarray, np.ndarray],
    rng: np.random.Generator,
) -> Events:
    """Draws all events, oldest first.

    Args:
      counts: events of each user, at least 3.
      pairs: products (head, tail) that sellers say go together; some shoppers follow them.
    """
    shelf = Shelf(catalogue)
    partner = np.full(len(catalogue), -1, np.int32)
    partner[pairs[0]] = pairs[1]
    blocks: list[_Log] = []
    for start in range(0, len(tastes), _BLOCK):
        users = np.arange(start, min(start + _BLOCK, len(tastes)))
        log = _draw_sessions(catalogue, tastes, users, counts, shelf, partner, rng)
        blocks.append(_first_touch(log, users, counts, len(catalogue), shelf, rng))
    log = _Log(
        **{field.name: np.concatenate([getattr(block, field.name) for block in blocks]) for field in dataclasses.fields(_Log)}
    )
    time = _draw_times(log, rng)
    _launch_cold(catalogue, tastes, log, time, rng)
    query = _draw_queries(catalogue, tastes, log, queries, rng)
    order = np.argsort(time, kind="stable")
    return Events(
        kinds=KINDS,
        user=log.user[order].astype(np.int32),
        product=log.product[order].astype(np.int32),
        kind=log.kind[order].astype(np.int8),
        time=time[order],
        query=query[order].astype(np.int32),
        split=np.full(len(order), UNASSIGNED, np.int8),
    )


def _draw_sessions(
    catalogue: Catalogue,
    tastes: Tastes,
    users: np.ndarray,
    counts: np.ndarray,
    shelf: Shelf,
    partner: np.ndarray,
    rng: np.random.Generator,
) -> _Log:
    """More events than needed: repetitions are dropped afterwards."""
    wanted = np.ceil(counts[users] * 1.6).astype(np.int64) + 6
    taste = np.cumsum(tastes.type[users], axis=1)
    last = np.full(len(users), -1, np.int32)  # product bought in the session before, −1 = none
    drawn = np.zeros(len(users), np.int64)
    found: list[_Log] = []
    session = 0
    while len(active := np.flatnonzero(drawn < wanted)):
        user, n = users[active], len(active)
        bought = last[active]
        point = rng.random((n, 1)) * taste[active, -1:]
        kind = np.minimum((taste[active] <= point).sum(1), taste.shape[1] - 1)
        follow = catalogue.complements[catalogue.type[bought]]
        follow = np.where((follow[:, 1] >= 0) & (rng.random(n) < 0.4), follow[:, 1], follow[:, 0])
        led = (bought >= 0) & (rng.random(n) < 0.8)
        kind = np.where(led, follow, kind)

        candidates = shelf.find(kind, rng)
        score = tastes.match(catalogue, user[:, None], candidates)
        score = score + led[:, None] * likeness(catalogue, bought[:, None], candidates)
        anchor = pick(candidates, score, rng)
        told = led & (partner[bought] >= 0) & (rng.random(n) < 0.5)
        anchor = np.where(told, partner[bought], anchor)

        length = np.minimum(rng.geometric(0.3, n), _LONGEST)
        row = np.repeat(np.arange(n), length)
        place = np.arange(len(row)) - np.repeat(np.cumsum(length) - length, length)
        product = anchor[row]
        later = np.flatnonzero(place > 0)
        owner = row[later]
        near = _sibling(catalogue, catalogue.type[anchor[owner]], rng)
        candidates = shelf.find(near, rng)
        score = 0.6 * tastes.match(catalogue, user[owner][:, None], candidates)
        score = score + likeness(catalogue, anchor[owner][:, None], candidates)
        product[later] = pick(candidates, score, rng)

        converted = rng.random(n) < 0.65
        event = np.where(rng.random(len(row)) < 0.45, CLICK, VIEW)
        final = place == length[row] - 1
        event = np.where(final & converted[row], np.where(rng.random(len(row)) < 0.6, PURCHASE, CART), event)
        found.append(
            _Log(
                user=user[row],
                session=np.full(len(row), session),
                place=place,
                product=product,
                kind=event,
                anchor=anchor[row],
                searched=(rng.random(n) < 0.5)[row],
            )
        )
        last[active] = np.where(converted, product[final], -1)
        drawn[active] += length
        session += 1
    return _Log(
        **{field.name: np.concatenate([getattr(part, field.name) for part in found]) for field in dataclasses.fields(_Log)}
    )


def _sibling(catalogue: Catalogue, kind: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Mostly the same type, now and then another of its category."""
    order = np.argsort(catalogue.type_category, kind="stable")
    start = np.searchsorted(catalogue.type_category[order], np.arange(catalogue.type_category.max() + 2))
    category = catalogue.type_category[kind]
    width = start[category + 1] - start[category]
    other = order[start[category] + (rng.random(len(kind)) * width).astype(np.int64)]
    return np.where(rng.random(len(kind)) < 0.12, other, kind)


def _first_touch(
    log: _Log, users: np.ndarray, counts: np.ndarray, n_products: int, shelf: Shelf, rng: np.random.Generator
) -> _Log:
    """Keeps each user's first `counts` different products, in order, and tops up users who have fewer than 3."""
    for _ in range(100):
        log = log.take(np.lexsort((log.place, log.session, log.user)))
        _, first = np.unique(log.user.astype(np.int64) * n_products + log.product, return_index=True)
        log = log.take(np.sort(first))
        start = np.searchsorted(log.user, users)
        log = log.take(np.arange(len(log.user)) - start[log.user - users[0]] < counts[log.user])
        short = users[np.bincount(log.user - users[0], minlength=len(users)) < 3]
        if not len(short):
            return log
        warm = shelf.by_type[np.diff(shelf.total) > 0]
        product = rng.choice(warm, len(short))
        extra = _Log(
            user=short,
            session=np.full(len(short), np.iinfo(np.int64).max),
            place=rng.integers(1 << 40, size=len(short)),
            product=product,
            kind=np.full(len(short), VIEW),
            anchor=product,
            searched=np.zeros(len(short), bool),
        )
        log = _Log(
            **{
                field.name: np.concatenate([getattr(log, field.name), getattr(extra, field.name)])
                for field in dataclasses.fields(_Log)
            }
        )
    raise ValueError(f"cannot find 3 different products for every user among {n_products}")


def _draw_times(log: _Log, rng: np.random.Generator) -> np.ndarray:
    """Whole seconds, growing within a user: minutes within a session, days between; users leave at different times."""
    n = len(log.user)
    fresh = np.r_[True, log.user[1:] != log.user[:-1]]
    pause = fresh | np.r_[True, log.session[1:] != log.session[:-1]]
    gap = np.where(pause, 3600 + rng.exponential(6 * _DAY, n), 15 + rng.exponential(90, n)).astype(np.int64)
    total = np.cumsum(gap)
    user_last = np.r_[np.flatnonzero(fresh)[1:] - 1, n - 1]
    owner = np.cumsum(fresh) - 1
    end = END_TIME - rng.exponential(30 * _DAY, len(user_last)).astype(np.int64)
    return end[owner] - (total[user_last][owner] - total)


def _launch_cold(catalogue: Catalogue, tastes: Tastes, log: _Log, time: np.ndarray, rng: np.random.Generator) -> None:
    """Replaces some users' very last event, if late enough, by a cold product of the same type. Changes `log`.

    Cold products are new arrivals: nobody meets them before the launch, and nobody does anything after meeting one. So they
    are never in training, neither under leave-one-out nor under a temporal split that holds out at least `NEW_SHARE`.
    """
    cold = catalogue.by_type[catalogue.cold[catalogue.by_type]]
    if not len(cold):
        return
    low = np.searchsorted(catalogue.type[cold], np.arange(len(catalogue.types)))
    width = np.searchsorted(catalogue.type[cold], np.arange(len(catalogue.types)), side="right") - low
    last = np.r_[log.user[1:] != log.user[:-1], True]
    rows = np.flatnonzero(last & (time > np.quantile(time, 1 - NEW_SHARE)))
    rows = rows[(width[catalogue.type[log.product[rows]]] > 0) & (rng.random(len(rows)) < 0.4)]
    kind = catalogue.type[log.product[rows]]
    place = low[kind][:, None] + (rng.random((len(rows), _CANDIDATES)) * width[kind][:, None]).astype(np.int64)
    candidates = cold[place]
    score = tastes.match(catalogue, log.user[rows][:, None], candidates)
    score = score + likeness(catalogue, log.anchor[rows][:, None], candidates)
    log.product[rows] = pick(candidates, score, rng)


def _draw_queries(
    catalogue: Catalogue, tastes: Tastes, log: _Log, queries: QueryIntents, rng: np.random.Generator
) -> np.ndarray:
    """Row of the query a searching shopper typed, −1 = none. Only training queries: no event may leak a test query."""
    found = np.full(len(log.user), -1, np.int64)
    rows = np.flatnonzero(log.searched & (log.place == 0))
    known = np.flatnonzero(queries.split == 0)
    if not len(known) or not len(rows):
        return found
    known = known[np.argsort(queries.type[known], kind="stable")]
    low = np.searchsorted(queries.type[known], np.arange(len(catalogue.types)))
    width = np.searchsorted(queries.type[known], np.arange(len(catalogue.types)), side="right") - low
    rows = rows[width[catalogue.type[log.anchor[rows]]] > 0]
    kind = catalogue.type[log.anchor[rows]]
    tried = known[low[kind][:, None] + (rng.random((len(rows), _CANDIDATES)) * width[kind][:, None]).astype(np.int64)]
    fits = queries.satisfied(catalogue, tried, log.anchor[rows][:, None]).all(-1)
    speaks = tastes.language[log.user[rows]][:, None]
    fits &= (speaks == 2) | (queries.language[tried] == 2) | (queries.language[tried] == speaks)
    typed = np.where(fits.any(1), tried[np.arange(len(rows)), fits.argmax(1)], -1)
    # The first three products of the session, if of the type searched for, are what the search showed.
    session = np.cumsum(np.r_[True, (log.user[1:] != log.user[:-1]) | (log.session[1:] != log.session[:-1])]) - 1
    by_session = np.full(session[-1] + 1, -1, np.int64)
    by_session[session[rows]] = typed
    shown = (log.place < 3) & (catalogue.type[log.product] == catalogue.type[log.anchor])
    return np.where(shown, by_session[session], -1)
