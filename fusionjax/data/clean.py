"""Cleaning and normalisation: explicit steps in a fixed order, each with its effect as counts before and after.

    nfkc                 Unicode NFKC: full-width letters, digits and signs, ligatures, … become their usual forms
    html                 tags and comments removed (block tags leave a space), entities resolved, until none is left
    whitespace           white space and control characters become one space, invisible marks nothing, ends trimmed
    case                 lower case, where the config says so
    deduplicate_events   of events equal in user, product, kind and time, the first in source order stays
    minimum_counts       events of users or on products with too few events, repeated until all have enough (k-core)

The first four change every text of products (title, description, brand, category level by level, attribute values), queries,
entities (name, description) and relations (name), never an id. The last two drop events; products and users stay, so no
reference breaks.
"""

import dataclasses
import html
import re
import unicodedata
from collections import Counter
from collections.abc import Callable

import numpy as np

from fusionjax.config import schema
from fusionjax.data.shop import Events, Shop, text_column
from fusionjax.errors import UserError

Step = Callable[[str], str]

_BLOCK = (
    "address article aside blockquote br button canvas caption center col colgroup dd details dialog dir div dl dt "
    "fieldset figcaption figure footer form frame frameset h1 h2 h3 h4 h5 h6 header hr iframe img input legend li "
    "main menu nav noscript object ol optgroup option p picture pre section select source summary svg table tbody "
    "td template textarea tfoot th thead tr ul video audio"
)
_INLINE = (
    "a abbr acronym area b base basefont bdi bdo big body cite code data datalist del dfn em embed font head html i "
    "ins kbd label link map mark meta meter nobr output param progress q rp rt ruby s samp small span strike strong "
    "sub sup time title track tt u var wbr"
)
# Only names of HTML elements make a tag: `a < b`, `<3` and `x <y> z` are text.
_HIDDEN = re.compile(r"<!--.*?-->|<!doctype[^<>]*>|<(script|style)\b[^<>]*>.*?</\1\s*>", re.IGNORECASE | re.DOTALL)
_TAG = re.compile(rf"</?(?:({'|'.join(_BLOCK.split())})|{'|'.join(_INLINE.split())})(?:\s[^<>]*)?/?>", re.IGNORECASE)

_UNPRINTABLE = {code: " " for code in (*range(0x20), *range(0x7F, 0xA0))}
_UNPRINTABLE |= dict.fromkeys((0xAD, 0x200B, 0x200E, 0x200F, 0x2060, 0xFEFF), "")
_LEVEL = " > "


@dataclasses.dataclass(frozen=True)
class Effect:
    """What a step did: `before` and `after` count `unit` (characters, events), `changed` texts altered or events dropped."""

    step: str
    unit: str
    before: int
    after: int
    changed: int


def clean(shop: Shop, config: schema.Clean) -> tuple[Shop, list[Effect]]:
    """Cleans a shop: the steps of the module docstring that `config` asks for and the shop has data for.

    Args:
      shop: as read from its source.
      config: which steps.

    Returns:
      The cleaned shop, and one `Effect` a step, in order.

    Errors:
      UserError: the minimum counts leave no event.
    """
    shop, effects = _clean_texts(shop, config)
    events = shop.events
    if events is not None and config.deduplicate_events:
        before, events = len(events), deduplicate(events)
        effects.append(Effect("deduplicate_events", "events", before, len(events), before - len(events)))
    if events is not None and (config.min_user_events > 1 or config.min_product_events > 1):
        before, events = len(events), minimum_counts(events, config.min_user_events, config.min_product_events)
        if before and not len(events):
            raise UserError(
                f"data.clean: min_user_events {config.min_user_events} and min_product_events {config.min_product_events} "
                f"leave none of the {before} events of shop '{shop.name}'"
            )
        effects.append(Effect("minimum_counts", "events", before, len(events), before - len(events)))
    return dataclasses.replace(shop, events=events), effects


def render_effects(effects: list[Effect]) -> str:
    """Aligned lines `step  before → after unit (n texts changed | n dropped)`."""
    if not effects:
        return "no cleaning"
    names = max(len(effect.step) for effect in effects)
    befores, afters = (
        max(len(f"{value:,}") for value in column) for column in zip(*((e.before, e.after) for e in effects), strict=True)
    )
    return "\n".join(
        f"{effect.step:<{names}}  {effect.before:>{befores},} → {effect.after:>{afters},} {effect.unit} "
        f"({effect.changed:,} {'dropped' if effect.unit == 'events' else 'texts changed'})"
        for effect in effects
    )


# ---------------------------------------------------------------------------------------------------------------- text
def nfkc(text: str) -> str:
    """Unicode normalisation form KC (Unicode Standard Annex 15)."""
    return text if text.isascii() else unicodedata.normalize("NFKC", text)


def strip_html(text: str) -> str:
    """Removes tags, comments, scripts, styles and resolves entities until none is left (`&amp;lt;br&amp;gt;` is a space)."""
    while "<" in text or "&" in text:
        stripped = text
        if "<" in stripped:
            stripped = _HIDDEN.sub(" ", stripped)
            stripped = _TAG.sub(lambda tag: " " if tag[1] else "", stripped)
        if "&" in stripped:
            stripped = html.unescape(stripped)
        if stripped == text:
            break
        text = stripped
    return text


def squeeze(text: str) -> str:
    """Runs of white space and control characters become one space; soft hyphens and zero-width marks vanish; ends trimmed."""
    return " ".join((text if text.isprintable() else text.translate(_UNPRINTABLE)).split())


def _steps(config: schema.Clean) -> list[tuple[str, Step]]:
    steps: list[tuple[str, Step]] = []
    if config.nfkc:
        steps.append(("nfkc", nfkc))
    if config.html:
        steps.append(("html", _strip_html_nfkc if config.nfkc else strip_html))
    if config.whitespace:
        steps.append(("whitespace", squeeze))
    if config.case == "lower":
        steps.append(("case", str.lower))
    return steps


def clean_text(text: str, config: schema.Clean) -> str:
    """One text (a query typed in, a title) as the steps leave texts of the shop."""
    for _, step in _steps(config):
        text = step(text)
    return text


def _strip_html_nfkc(text: str) -> str:
    """What entities resolve to (`&frac12;`, `&#xFF21;`) is normalised like the rest, which may in turn complete a tag."""
    while (stripped := strip_html(text)) != text:
        text = nfkc(stripped)
    return text


def _by_level(step: Step) -> Step:
    """The step on each level of a category path."""
    return lambda path: _LEVEL.join(step(level) for level in path.split(_LEVEL))


def _path(text: str) -> str:
    """A category path after all steps: levels left empty vanish, a `>` that an entity held separates."""
    return _LEVEL.join(level.strip() for level in text.split(">") if level.strip())


def _clean_texts(shop: Shop, config: schema.Clean) -> tuple[Shop, list[Effect]]:
    names = [name for name, _ in _steps(config)]
    counts = {name: np.zeros(3, np.int64) for name in names}  # characters before, after; texts changed

    def cleaned(column: np.ndarray, by_level: bool = False) -> np.ndarray:
        # Brands, categories and attribute values repeat: each distinct text is cleaned once.
        repeats = Counter(column.tolist())
        final: dict[str, str] = {}
        steps = [(_by_level(step) if by_level else step, counts[name].tolist()) for name, step in _steps(config)]
        for original, times in repeats.items():
            text = original
            for step, count in steps:
                new = step(text)
                count[0] += times * len(text)
                count[1] += times * len(new)
                if new != text:
                    count[2] += times
                    text = new
            if text != original:
                final[original] = _path(text) if by_level else text
        for name, (_, count) in zip(names, steps, strict=True):
            counts[name][:] = count
        return text_column([final.get(text, text) for text in column.tolist()]) if final else column

    products, queries, entities, relations = shop.products, shop.queries, shop.entities, shop.relations
    if not names or not any(shop.has(part) for part in ("products", "queries", "entities", "relations")):
        return shop, []
    if products is not None:
        products = dataclasses.replace(
            products,
            title=cleaned(products.title),
            description=cleaned(products.description),
            brand=cleaned(products.brand),
            category=cleaned(products.category, by_level=True),
            attributes={name: cleaned(column) for name, column in products.attributes.items()},
        )
    if queries is not None:
        queries = dataclasses.replace(queries, text=cleaned(queries.text))
    if entities is not None:
        entities = dataclasses.replace(entities, name=cleaned(entities.name), description=cleaned(entities.description))
    if relations is not None:
        relations = dataclasses.replace(relations, name=cleaned(relations.name))
    effects = [Effect(name, "characters", *(int(value) for value in counts[name])) for name in names]
    changed = dataclasses.replace(shop, products=products, queries=queries, entities=entities, relations=relations)
    return changed, effects


# -------------------------------------------------------------------------------------------------------------- events
def deduplicate(events: Events) -> Events:
    """Of events equal in user, product, kind and time only the first; the order of the rest is kept."""
    keys = (events.time, events.kind, events.product, events.user)
    order = np.lexsort(keys)  # stable: the first of equals comes first
    repeated = np.zeros(len(order), bool)
    repeated[1:] = np.logical_and.reduce([key[order][1:] == key[order][:-1] for key in keys])
    keep = np.ones(len(order), bool)
    keep[order[repeated]] = False
    return events.take(keep)


def minimum_counts(events: Events, min_user: int, min_product: int) -> Events:
    """Drops events of users with fewer than `min_user` and on products with fewer than `min_product`, until none is left."""
    keep = np.ones(len(events), bool)
    while True:
        before = int(keep.sum())
        for column, least in ((events.user, min_user), (events.product, min_product)):
            if least > 1 and keep.any():
                keep &= np.bincount(column[keep], minlength=int(column.max()) + 1)[column] >= least
        if int(keep.sum()) == before:
            return events.take(keep)
