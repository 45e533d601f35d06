"""No validation or test row reaches training: not through edges, counts, vocabulary, batches or what evaluation calls history.

Each test changes what is held out and demands the very same bytes of all that training reads.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fusionjax.config import schema
from fusionjax.data.graph import build_graph
from fusionjax.data.inputs import Inputs, build_inputs
from fusionjax.data.shop import TEST, TRAIN, UNASSIGNED, VALID, Events, Judgments, Products, Queries, Shop, Triples, Users
from fusionjax.data.shop import text_column as texts
from fusionjax.data.split import assign_splits
from fusionjax.objectives.link_prediction.objective import LinkPrediction
from fusionjax.objectives.towers import catalogue
from fusionjax.tasks.recommendation import recommendation_cases
from fusionjax.training.stream import StepSource, steps_of
from tests.shops import ON

N_PRODUCTS, N_COLD, N_USERS, N_QUERIES = 40, 6, 30, 24
COLD = np.arange(N_PRODUCTS - N_COLD, N_PRODUCTS)
"""Products without any event, until a test puts them into held-out events."""
STEPS = 7
SPLITS = ("leave_one_out", "temporal")


def run_config(events: str = "leave_one_out", **query_product: object) -> schema.Run:
    return schema.Run.model_validate(
        {
            "seed": 3,
            "data": {
                "split": {"events": events, "valid_share": 0.2, "test_share": 0.2},
                "graph": {"co_view": 1, "co_purchase": 1, "co_window": 3},
            },
            "text": {"vocab_size": 200, "max_length": 12, "live": 16, "width": 8, "heads": 2},
            "model": {"dim": 8, "user": {"history": 6}},
            "objectives": {
                "link_prediction": {"batch_size": 16},
                "alignment": {"batch_size": 8},
                "query_product": {"batch_size": 8, **query_product},
                "next_product": {"batch_size": 8},
                "masked_words": {"batch_size": 8, "weight": 1.0},
            },
            "train": {"epochs": 2},
        }
    )


def make_shop(events: str = "leave_one_out") -> Shop:
    """A small shop with everything in it and splits assigned. Every query stands in training events too."""
    draw = np.random.default_rng(0)
    words = ("red", "blue", "tee", "mug", "pot", "lamp", "恤", "杯", "wool", "glass")
    n_events = 0
    columns: dict[str, list[int]] = {"user": [], "product": [], "kind": [], "time": [], "query": []}
    for user in range(N_USERS):
        for product in draw.choice(N_PRODUCTS - N_COLD, draw.integers(2, 9), replace=False):
            columns["user"].append(user)
            columns["product"].append(int(product))
            columns["kind"].append(int(draw.integers(0, 2)))
            columns["time"].append(int(draw.integers(0, 1000)) * 10)
            columns["query"].append(n_events % (N_QUERIES + 4) if n_events % (N_QUERIES + 4) < N_QUERIES else -1)
            n_events += 1
    judged = [(query, int(product)) for query in range(N_QUERIES) for product in draw.choice(N_PRODUCTS, 3, replace=False)]
    pairs = [tuple(map(int, draw.choice(N_PRODUCTS, 2, replace=False))) for _ in range(60)]
    shop = Shop(
        name="small",
        products=Products.of(
            [f"p{row}" for row in range(N_PRODUCTS)],
            title=[" ".join(draw.choice(words, 3)) + f" {row}" for row in range(N_PRODUCTS)],
            brand=[f"brand {row % 5}" for row in range(N_PRODUCTS)],
            category=[f"shop > shelf {row % 4}" for row in range(N_PRODUCTS)],
            attributes={"colour": [words[row % 2] for row in range(N_PRODUCTS)]},
        ),
        triples=Triples.of([f"p{head}" for head, _ in pairs], ["goes_with"] * len(pairs), [f"p{tail}" for _, tail in pairs]),
        users=Users(
            texts(f"u{row}" for row in range(N_USERS)), {"land": texts("DE" if row % 2 else "CN" for row in range(N_USERS))}
        ),
        events=Events(
            kinds=("view", "purchase"),
            user=np.array(columns["user"], np.int32),
            product=np.array(columns["product"], np.int32),
            kind=np.array(columns["kind"], np.int8),
            time=np.array(columns["time"], np.int64),
            query=np.array(columns["query"], np.int32),
            split=np.full(n_events, UNASSIGNED, np.int8),
        ),
        queries=Queries(
            texts(f"q{row}" for row in range(N_QUERIES)), texts(f"{words[row % 10]} query{row}" for row in range(N_QUERIES))
        ),
        judgments=Judgments(
            query=np.array([query for query, _ in judged], np.int32),
            product=np.array([product for _, product in judged], np.int32),
            grade=draw.integers(0, 4, len(judged)).astype(np.float32),
            split=np.full(len(judged), UNASSIGNED, np.int8),
        ),
    )
    return assign_splits(shop, run_config(events).data.split)


def held_out_queries(shop: Shop) -> np.ndarray:
    return np.unique(shop.judgments.query[shop.judgments.split != TRAIN])


def with_events(shop: Shop, **columns: np.ndarray) -> Shop:
    assert shop.events is not None
    return dataclasses.replace(shop, events=dataclasses.replace(shop.events, **columns))


# ---------------------------------------------------------------------------------------- what may happen to held-out rows
def other_events(shop: Shop) -> Shop:
    """Every held-out event is on another product, a cold one, by another kind and after another query."""
    events, rows = shop.events, np.flatnonzero(shop.events.split != TRAIN)
    product, kind, query = events.product.copy(), events.kind.copy(), events.query.copy()
    product[rows], kind[rows], query[rows] = COLD[np.arange(len(rows)) % N_COLD], 1 - kind[rows], (query[rows] + 5) % N_QUERIES
    return with_events(shop, product=product, kind=kind, query=query)


def no_events(shop: Shop) -> Shop:
    return dataclasses.replace(shop, events=shop.events.take(shop.events.split == TRAIN))


def later_events(shop: Shop) -> Shop:
    """Held-out events happen at other times, in another order."""
    time = shop.events.time.copy()
    rows = np.flatnonzero(shop.events.split != TRAIN)
    time[rows] = 50_000 - time[rows]
    return with_events(shop, time=time)


def other_judgments(shop: Shop) -> Shop:
    judgments, rows = shop.judgments, shop.judgments.split != TRAIN
    assert judgments is not None
    product, grade = judgments.product.copy(), judgments.grade.copy()
    product[rows], grade[rows] = (product[rows] + 7) % N_PRODUCTS, 3 - grade[rows]
    return dataclasses.replace(shop, judgments=dataclasses.replace(judgments, product=product, grade=grade))


def few_judgments(shop: Shop) -> Shop:
    """One judgment is left of each held-out query, so that it is still known to be held out."""
    judgments = shop.judgments
    _, first = np.unique(judgments.query, return_index=True)
    keep = judgments.split == TRAIN
    keep[first] = True
    return dataclasses.replace(shop, judgments=judgments.take(keep))


def other_query_texts(shop: Shop) -> Shop:
    text = shop.queries.text.copy()
    text[held_out_queries(shop)] = [f"zyzzyva {row}" for row in held_out_queries(shop)]
    return dataclasses.replace(shop, queries=Queries(shop.queries.id, text))


def nothing_held_out(shop: Shop) -> Shop:
    return few_judgments(no_events(shop))


CHANGES = (other_events, no_events, later_events, other_judgments, few_judgments, other_query_texts, nothing_held_out)


def seen_by_training(inputs: Inputs, config: schema.Run) -> dict[str, bytes]:
    """All that training reads, as bytes."""
    source = StepSource(inputs, config, steps=1000)
    assert inputs.tokenizer is not None
    facts = catalogue(inputs)
    seen = {
        "edges": inputs.graph.triples(TRAIN).tobytes(),
        "entities": "\n".join(inputs.graph.entities).encode(),
        "train_counts": inputs.train_counts.tobytes(),
        "has_entity": inputs.has_entity.tobytes(),
        "positives": inputs.positives.tobytes(),
        "vocabulary": inputs.tokenizer.inner.to_str().encode(),
        "product_tokens": np.asarray(inputs.product_tokens).tobytes(),
        "profile": inputs.profile.tobytes(),
        "log_frequency": np.asarray(facts.log_frequency).tobytes(),
        "steps": str(steps_of(config, source.epoch)).encode(),
    }
    for step in range(STEPS):
        for name, entry in source[step].items():
            seen |= {f"step {step} {name}.{field}": array.tobytes() for field, array in entry.items()}
    assert all(f"step 0 {name}." in " ".join(seen) for name in (*ON, "masked_words", "live"))
    return seen


@pytest.mark.parametrize("split", SPLITS)
def test_training_reads_the_same_bytes_whatever_is_held_out(split: str, tmp_path: Path) -> None:
    config, shop = run_config(split), make_shop(split)
    assert {TRAIN, VALID, TEST} == set(shop.events.split) == set(shop.judgments.split)
    expected = seen_by_training(build_inputs(shop, config, tmp_path / "as it is"), config)
    for change in CHANGES:
        changed = change(shop)
        assert changed.fingerprint() != shop.fingerprint()
        found = seen_by_training(build_inputs(changed, config, tmp_path / change.__name__), config)
        assert found.keys() == expected.keys()
        assert [name for name in expected if found[name] != expected[name]] == [], change.__name__


@pytest.mark.parametrize("split", SPLITS)
def test_held_out_judgments_may_vanish_altogether(split: str, tmp_path: Path) -> None:
    """Where queries are not learnt from events; else it must be known which of them are held out."""
    config, shop = run_config(split, from_events=False), make_shop(split)
    gone = dataclasses.replace(shop, judgments=shop.judgments.take(shop.judgments.split == TRAIN))
    expected = seen_by_training(build_inputs(shop, config, tmp_path / "a"), config)
    assert seen_by_training(build_inputs(gone, config, tmp_path / "b"), config) == expected


def test_a_change_of_training_rows_is_noticed(tmp_path: Path) -> None:
    """The comparison above can fail."""
    config, shop = run_config(), make_shop()
    product = shop.events.product.copy()
    row = np.flatnonzero(shop.events.split == TRAIN)[0]
    product[row] = COLD[0]
    changed = with_events(shop, product=product)
    expected = seen_by_training(build_inputs(shop, config, tmp_path / "a"), config)
    found = seen_by_training(build_inputs(changed, config, tmp_path / "b"), config)
    differing = {name for name in expected if found.get(name) != expected[name]}
    assert {"edges", "train_counts", "positives", "log_frequency"} <= differing
    assert any(name.endswith("next_product.target") for name in differing)


# ---------------------------------------------------------------------------------------------------------------- edges
@pytest.mark.parametrize("kind", ["view", "purchase"])
@pytest.mark.parametrize("split", SPLITS)
def test_no_edge_from_products_that_meet_only_in_test(split: str, kind: str) -> None:
    """Ten users end with products 4 then 5; all begin with 0, 1, 2."""
    journeys = [(user, product, time) for user in range(10) for time, product in enumerate((0, 1, 2, 4, 5))]
    user, product, time = (np.array(column) for column in zip(*journeys, strict=True))
    shop = Shop(
        "planted",
        products=Products.of([f"p{row}" for row in range(6)]),
        users=Users(texts(f"u{row}" for row in range(10))),
        events=Events(
            (kind,),
            user.astype(np.int32),
            product.astype(np.int32),
            np.zeros(50, np.int8),
            time.astype(np.int64),
            np.full(50, -1, np.int32),
            np.full(50, UNASSIGNED, np.int8),
        ),
    )
    config = schema.Graph(co_view=1, co_purchase=1, co_window=5)
    # The last two fifths of the time: validation (product 4) and test (product 5) in both protocols.
    shares = schema.Split.model_validate({"events": split, "valid_share": 0.2, "test_share": 0.2})
    assigned = assign_splits(shop, shares)
    assert assigned.events.split.reshape(10, 5).tolist() == [[TRAIN, TRAIN, TRAIN, VALID, TEST]] * 10
    graph = build_graph(assigned, config, shares)
    assert set(map(tuple, graph.triples()[:, [0, 2]].tolist())) == {(0, 1), (1, 0), (0, 2), (2, 0), (1, 2), (2, 1)}
    assert (graph.split == TRAIN).all()

    leaky = with_events(assigned, split=np.zeros(50, np.int8))
    everything = build_graph(leaky, config, shares).triples()
    assert (4, 5) in set(map(tuple, everything[:, [0, 2]].tolist()))  # the trap was there


# -------------------------------------------------------------------------------------------------------------- batches
def epochs(inputs: Inputs, config: schema.Run, name: str) -> list[dict[str, np.ndarray]]:
    """Two epochs of one objective's batches."""
    objective = StepSource(inputs, config, steps=1000).objectives[name]
    return [objective.batch(index) for index in range(2 * objective.steps_per_epoch)]


@pytest.mark.parametrize("split", SPLITS)
def test_held_out_events_are_neither_history_nor_target(split: str, tmp_path: Path) -> None:
    config, shop = run_config(split), other_events(make_shop(split))
    inputs = build_inputs(shop, config, tmp_path)
    assert np.isin(COLD, shop.events.product[shop.events.split != TRAIN]).all()
    for batch in epochs(inputs, config, "next_product"):
        assert not np.isin(batch["target"], COLD).any()
        assert not np.isin(batch["product"][batch["valid"]], COLD).any()
    assert not inputs.train_counts[COLD].any()
    by_hand = [int(((shop.events.product == row) & (shop.events.split == TRAIN)).sum()) for row in range(N_PRODUCTS)]
    assert inputs.train_counts.tolist() == by_hand
    expected = np.log(np.maximum(by_hand, 1) / np.maximum(by_hand, 1).sum())
    np.testing.assert_allclose(catalogue(inputs).log_frequency, expected, rtol=1e-6)


@pytest.mark.parametrize("split", SPLITS)
def test_queries_held_out_for_search_teach_nothing(split: str, tmp_path: Path) -> None:
    config, shop = run_config(split, from_titles=0.0), make_shop(split)
    held_out = held_out_queries(shop)
    training = shop.events.split == TRAIN
    assert np.isin(shop.events.query[training], held_out).any()  # the trap: training events that carry such queries
    inputs = build_inputs(shop, config, tmp_path)
    assert len(inputs.positives) and not np.isin(inputs.positives[:, 0], held_out).any()
    assert inputs.query_tokens is not None
    width = inputs.query_tokens.shape[1]
    forbidden = {row.tobytes() for row in inputs.query_tokens[held_out]}
    rows = [row.tobytes() for batch in epochs(inputs, config, "query_product") for row in batch["tokens"][:, :width]]
    assert rows and not forbidden & set(rows)
    assert set(rows) == {row.tobytes() for row in inputs.query_tokens[np.unique(inputs.positives[:, 0])]}


def test_nor_under_another_id_with_the_same_text(tmp_path: Path) -> None:
    config, shop = run_config(), make_shop()
    held_out = held_out_queries(shop)
    twin = next(row for row in range(N_QUERIES) if row not in held_out)
    before = build_inputs(shop, config, tmp_path / "a").positives
    assert (before[:, 0] == twin).any()
    text = shop.queries.text.copy()
    text[twin] = str(text[held_out[0]]).upper()  # read alike by a tokeniser that lowers case
    same_text = dataclasses.replace(shop, queries=Queries(shop.queries.id, text))
    after = build_inputs(same_text, config, tmp_path / "b").positives
    np.testing.assert_array_equal(after, before[before[:, 0] != twin])


@pytest.mark.parametrize("split", SPLITS)
def test_held_out_triples_are_in_no_batch(split: str, tmp_path: Path) -> None:
    config, shop = run_config(split), make_shop(split)
    inputs = build_inputs(shop, config, tmp_path)
    graph = inputs.graph
    batches = epochs(inputs, config, "link_prediction")
    objective = StepSource(inputs, config, steps=1000).objectives["link_prediction"]
    assert isinstance(objective, LinkPrediction)
    chosen = np.concatenate([batch["chosen"] for batch in batches])
    trained = {tuple(row) for row in np.asarray(objective.graph.triples)[chosen[chosen >= 0]].tolist()}
    held_out = {tuple(row) for code in (VALID, TEST) for row in graph.triples(code).tolist()}
    assert len(held_out) > 10 and not trained & held_out
    assert trained == {tuple(row) for row in graph.triples(TRAIN).tolist()}
    pairs = {frozenset((head, tail)) for head, _, tail in trained}
    assert not pairs & {frozenset((head, tail)) for head, _, tail in held_out}  # nor their reverse, nor another relation


# -------------------------------------------------------------------------------------------------------------- history
@pytest.mark.parametrize("split", SPLITS)
def test_history_of_a_test_case_ends_before_it(split: str, tmp_path: Path) -> None:
    """For validation the test events may be anything; for test all that is not test is known."""
    config = run_config(split)
    inputs = build_inputs(make_shop(split), config, tmp_path / "a")
    changes: tuple[Callable[[Shop], Shop], ...] = (no_test_events, other_test_events)
    expected = recommendation_cases(inputs, VALID, config.evaluation)
    assert len(expected.user) > 3
    for change in changes:
        changed = build_inputs(change(make_shop(split)), config, tmp_path / change.__name__)
        found = recommendation_cases(changed, VALID, config.evaluation)
        np.testing.assert_array_equal(found.user, expected.user)
        for place, user in enumerate(found.user):
            assert found.history[place].tolist() == expected.history[place].tolist()
            assert found.targets[place].tolist() == expected.targets[place].tolist()
            assert read_before(changed, found.before[place], user) == read_before(inputs, expected.before[place], user)


def read_before(inputs: Inputs, before: int, user: int) -> list[int]:
    """The products that the user tower reads for a case."""
    assert inputs.sequences is not None
    rows = slice(inputs.sequences.offsets[user], before)
    assert (inputs.sequences.split[rows] == TRAIN).all()
    return inputs.sequences.product[rows].tolist()


def no_test_events(shop: Shop) -> Shop:
    return dataclasses.replace(shop, events=shop.events.take(shop.events.split != TEST))


def other_test_events(shop: Shop) -> Shop:
    product, rows = shop.events.product.copy(), np.flatnonzero(shop.events.split == TEST)
    product[rows] = COLD[np.arange(len(rows)) % N_COLD]
    return with_events(shop, product=product)


def test_splits_given_against_time_leak_nothing_into_histories(tmp_path: Path) -> None:
    """A source may hold out an event that stands before training events; no history holds it."""
    shop = make_shop()
    split = np.random.default_rng(5).integers(0, 3, shop.counts()["events"]).astype(np.int8)
    shop = with_events(shop, split=split)
    config = run_config()
    inputs = build_inputs(shop, config, tmp_path)
    cases = recommendation_cases(inputs, VALID, config.evaluation)
    for place, user in enumerate(cases.user):
        read_before(inputs, cases.before[place], user)  # asserts that all is training
    mine = (shop.events.user == cases.user[0]) & (split == TRAIN)
    assert sorted(cases.history[0].tolist()) == sorted(shop.events.product[mine].tolist())
