"""Cleaning: each step alone, all steps together, their counts, and references that stay whole."""

import dataclasses
import unicodedata
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusionjax.config import schema
from fusionjax.data.clean import Effect, clean, minimum_counts, nfkc, render_effects, squeeze, strip_html
from fusionjax.data.shop import UNASSIGNED, Events, Products, Queries, Shop, Triples, Users, text_column
from fusionjax.errors import UserError

OFF: dict[str, Any] = {"nfkc": False, "html": False, "whitespace": False, "deduplicate_events": False}


def make_events(*rows: tuple[int, int, int, int]) -> Events:
    """Events from (user, product, kind, time)."""
    user, product, kind, time = np.array(rows, np.int64).reshape(-1, 4).T
    n = len(user)
    return Events(
        kinds=("view", "purchase"),
        user=user.astype(np.int32),
        product=product.astype(np.int32),
        kind=kind.astype(np.int8),
        time=time,
        query=np.arange(n, dtype=np.int32),  # tells rows apart
        split=np.full(n, UNASSIGNED, np.int8),
    )


def titled(*titles: str) -> Shop:
    return Shop("s", products=Products.of([f"P{n}" for n in range(len(titles))], title=titles))


# ---------------------------------------------------------------------------------------------------------------- texts
def test_nfkc() -> None:
    assert nfkc("ＡＢＣ１２３　Ｔ恤") == "ABC123 T恤"
    assert nfkc("ﬁt ½ ™") == "fit 1⁄2 TM"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a < b and c > d", "a < b and c > d"),
        ("1<2, x <y> z, <3", "1<2, x <y> z, <3"),
        ("AT&T & R&D", "AT&T & R&D"),
        ("Tom &amp; Jerry &#x4E2D;&#25991; &quot;q&quot;", 'Tom & Jerry 中文 "q"'),
        ("<b>so</b>ft", "soft"),
        ("<p>one</p><p class='x'>two</p>", " one  two "),
        ("one<br/>two<BR />three<br>", "one two three "),
        ("<ul><li>a</li><li>b</li></ul>", "  a  b  "),
        ("x<!-- hidden > --><script>if (a < b) {}</script>y<style media=a>p{}</style>", "x  y "),
        ('<a href="http://x.y/?a=1&amp;b=2">link</a>', "link"),
        ("&lt;b&gt;bold&lt;/b&gt; a &lt; b", "bold a < b"),
        ("&amp;amp;lt;", "<"),
        ("<<b>b>x", "x"),
        ("<bold>", "<bold>"),
        ("", ""),
    ],
)
def test_html(text: str, expected: str) -> None:
    assert strip_html(text) == expected


def test_whitespace() -> None:
    assert squeeze("  a\t\n b\r\n\x00c\x7fd\xa0e　f ") == "a b c d e f"
    assert squeeze("ze\u200bro\ufeff so\xadft") == "zero soft"
    assert squeeze("می\u200cخواهم 👩\u200d🚀") == "می\u200cخواهم 👩\u200d🚀"  # joiners carry meaning


def test_order_nfkc_before_html_before_whitespace_before_case() -> None:
    shop, _ = clean(titled("＜ｂ＞Ｔ恤＜/ｂ＞　&nbsp;<br>&frac12; &#xFF21;"), schema.Clean(case="lower"))
    assert shop.products.title.tolist() == ["t恤 1⁄2 a"]


def test_every_text_and_no_id() -> None:
    dirty = "  <b>Ａ</b>&amp; "
    shop = Shop(
        "s",
        products=Products.of(
            [dirty, "P2"],
            title=[dirty, ""],
            description=[dirty, "x"],
            brand=[dirty, "x"],
            category=["Ｈｏｍｅ &amp; Co > <b>B</b> >  C ", "A"],
            attributes={" ｋ ": [dirty, "x"]},
        ),
        triples=Triples.of([dirty], [dirty], [dirty]),
        users=Users(text_column([dirty]), {"country": text_column([dirty])}),
        queries=Queries(text_column([dirty]), text_column([dirty])),
    )
    cleaned, _ = clean(shop, schema.Clean(case="lower"))
    products = cleaned.products
    for column in (products.title, products.description, products.brand, products.attributes[" ｋ "], cleaned.queries.text):
        assert column[0] == "a&"
    assert products.category.tolist() == ["home & co > b > c", "a"]
    assert products.id.tolist() == [dirty, "P2"] and cleaned.queries.id.tolist() == [dirty]
    assert cleaned.triples is shop.triples and cleaned.users is shop.users


def test_category_levels_that_vanish() -> None:
    products = Products.of(["P1", "P2", "P3"], category=["A > <br> > C", "A &gt; B > C", "<br>"])
    shop, _ = clean(Shop("s", products=products), schema.Clean())
    assert shop.products.category.tolist() == ["A > C", "A > B > C", ""]


def test_effects_count_characters_and_texts() -> None:
    shop, effects = clean(titled("ﬁ", "ﬁ", "a  b", "<b>x</b>"), schema.Clean(deduplicate_events=True))
    assert effects == [
        Effect("nfkc", "characters", 14, 16, 2),
        Effect("html", "characters", 16, 9, 1),
        Effect("whitespace", "characters", 9, 8, 1),
    ]
    assert shop.products.title.tolist() == ["fi", "fi", "a b", "x"]
    assert clean(titled("ﬁ  <b>"), schema.Clean(**OFF))[1] == []


@settings(max_examples=200, deadline=None)
@given(text=st.text(st.sampled_from("aA<>b/&;amplt ½Ａ＜＞＆\n\x00\u200b中&#x;123"), max_size=30))
def test_cleaning_again_changes_nothing(text: str) -> None:
    once, _ = clean(titled(text), schema.Clean(case="lower"))
    twice, effects = clean(once, schema.Clean(case="lower"))
    assert twice.fingerprint() == once.fingerprint()
    assert all(effect.changed == 0 for effect in effects)
    title = once.products.title[0]
    assert title == unicodedata.normalize("NFKC", title) == " ".join(title.split()) == title.lower()


# --------------------------------------------------------------------------------------------------------------- events
def test_deduplicate_keeps_the_first_and_the_order() -> None:
    events = make_events(
        (1, 5, 0, 10), (0, 5, 0, 10), (1, 5, 0, 10), (1, 5, 1, 10), (1, 5, 0, 11), (0, 5, 0, 10), (1, 4, 0, 10)
    )
    shop, effects = clean(Shop("s", events=events), schema.Clean())
    assert shop.events.query.tolist() == [0, 1, 3, 4, 6]
    assert effects == [Effect("deduplicate_events", "events", 7, 5, 2)]


def test_minimum_counts_are_repeated_until_stable() -> None:
    # user 2 has two events, but one is on product 2, which has only one: dropping it leaves user 2 too few.
    rows = [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 2)]
    events = make_events(*((user, product, 0, time) for time, (user, product) in enumerate(rows)))
    config = schema.Clean(**OFF, min_user_events=2, min_product_events=2)
    shop, effects = clean(Shop("s", events=events), config)
    assert shop.events.query.tolist() == [0, 1, 2, 3]
    assert effects == [Effect("minimum_counts", "events", 6, 4, 2)]
    one_pass = minimum_counts(events, 2, 0)
    assert len(one_pass) == 6


@settings(max_examples=60, deadline=None)
@given(
    pairs=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=40),
    min_user=st.integers(0, 4),
    min_product=st.integers(0, 4),
)
def test_minimum_counts_is_the_largest_core(pairs: list[tuple[int, int]], min_user: int, min_product: int) -> None:
    events = make_events(*((user, product, 0, 0) for user, product in pairs))
    kept = minimum_counts(events, min_user, min_product).query.tolist()
    # Dropping one offending event at a time, in any order, ends at the same set.
    alive = list(range(len(pairs)))
    while True:
        users, products = [pairs[row][0] for row in alive], [pairs[row][1] for row in alive]
        bad = [row for row in alive if users.count(pairs[row][0]) < min_user or products.count(pairs[row][1]) < min_product]
        if not bad:
            break
        alive.remove(bad[-1])
    assert kept == alive


def test_minimum_counts_that_leave_nothing() -> None:
    events = make_events((0, 0, 0, 0), (1, 1, 0, 1))
    with pytest.raises(UserError, match=r"min_user_events 3 .* leave none of the 2 events of shop 's'"):
        clean(Shop("s", events=events), schema.Clean(min_user_events=3))


def test_references_stay_whole() -> None:
    shop = Shop(
        "s",
        products=Products.of(["P1", "P2"]),
        users=Users(text_column(["u1", "u2"])),
        events=make_events((0, 0, 0, 1), (0, 0, 0, 1), (0, 1, 0, 2), (1, 1, 0, 3)),
    )
    cleaned, _ = clean(shop, schema.Clean(min_user_events=2))
    assert cleaned.counts() == {"products": 2, "users": 2, "events": 2}
    assert cleaned.users.id[cleaned.events.user].tolist() == ["u1", "u1"]
    assert cleaned.products.id[cleaned.events.product].tolist() == ["P1", "P2"]


def test_parts_that_are_absent() -> None:
    graph = Shop("s", triples=Triples.of(["a"], ["r"], ["b"]))
    shop, effects = clean(graph, schema.Clean(min_user_events=5))
    assert shop.fingerprint() == graph.fingerprint() and effects == []
    assert dataclasses.replace(shop, name="t").counts() == {"triples": 1}


def test_render_effects() -> None:
    text = render_effects([Effect("nfkc", "characters", 1234567, 999, 4321), Effect("deduplicate_events", "events", 20, 5, 15)])
    assert text.splitlines() == [
        "nfkc                1,234,567 → 999 characters (4,321 texts changed)",
        "deduplicate_events         20 →   5 events (15 dropped)",
    ]
    assert render_effects([]) == "no cleaning"
