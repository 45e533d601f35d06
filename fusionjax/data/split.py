"""Train, validation and test: a split is a property of the data, fixed by it and the config, never by the run's seed."""

import dataclasses

import numpy as np

from fusionjax.config import schema
from fusionjax.data.shop import TEST, TRAIN, UNASSIGNED, VALID, Events, Judgments, Shop
from fusionjax.errors import UserError

_SEED = 20_240_601


def assign_splits(shop: Shop, config: schema.Split, seed: int = 0) -> Shop:
    """Gives every event and judgment whose source fixes no split one; splits of the source are left as they are.

    Events, `leave_one_out`: each user's last new product is test, the one before validation, the rest training; the events of
    users with fewer than three products are all training. A user's split depends on that user's events alone. Events,
    `temporal`: two global points in time; equal times fall on the same, earlier side, so the shares are upper bounds. Either
    way the order is by time, equal times in source order.

    Judgments: by query, all of a query's in one split, queries drawn at random with a fixed seed. Where a share is not 0 and
    there are three queries or more, it gets at least one.

    Triples are left untouched, `UNASSIGNED` ones too: edges are held out in `graph.py`, once all edges are merged.

    Args:
      shop: cleaned.
      config: how events are split, and the shares.
      seed: of the judgments' draw; part of the data set, not of the run.

    Errors:
      UserError: shares that leave nothing to train on; a table in which only some rows have a split.
    """
    if config.valid_share + config.test_share >= 1:
        raise UserError(
            f"data.split: valid_share {config.valid_share:g} + test_share {config.test_share:g} must be below 1, "
            "or nothing is left to train on"
        )
    changes = {}
    if shop.events is not None and _needs_split(shop.events.split, shop.name):
        split = leave_one_out(shop.events) if config.events == "leave_one_out" else temporal(shop.events, config)
        changes["events"] = dataclasses.replace(shop.events, split=split)
    if shop.judgments is not None:
        changes["judgments"] = dataclasses.replace(shop.judgments, split=_by_query(shop.judgments, config, seed))
    return dataclasses.replace(shop, **changes)


def _needs_split(split: np.ndarray, name: str) -> bool:
    """False where the source gave all; a mixture has no order that keeps training before test, so it is refused."""
    missing = int(np.sum(split == UNASSIGNED))
    if 0 < missing < len(split):
        raise UserError(f"shop '{name}': {missing} of {len(split)} events have no split and the others do; give all or none")
    return missing > 0


# -------------------------------------------------------------------------------------------------------------- events
def order_events(events: Events) -> np.ndarray:
    """int64 [n]: row numbers by (user, time, source order). Never by product: sorting equal times by it leaks the future."""
    return np.lexsort((events.time, events.user))


def user_ranges(events_sorted: Events, n_users: int) -> np.ndarray:
    """int64 [n_users + 1]: user u's events are rows `offsets[u]:offsets[u + 1]` of a table in `order_events` order."""
    return np.searchsorted(events_sorted.user, np.arange(n_users + 1)).astype(np.int64)


def leave_one_out(events: Events) -> np.ndarray:
    """int8 [n]: each user's last new product is test, the one before it validation; users with fewer than three only train.

    A product is new at its first event. From there on the user's events belong to the later split, those on older products too:
    a purchase that follows a view in training, or a second look at a known product, would be no test of foresight. Where every
    event of a user is on another product this is the usual protocol: the last event, and the one before.
    """
    split = np.full(len(events), TRAIN, np.int8)
    if not len(events):
        return split
    order = order_events(events)
    user, product = events.user[order].astype(np.int64), events.product[order].astype(np.int64)
    _, first = np.unique((user << 32) | product, return_index=True)
    new = np.zeros(len(order), np.int64)
    new[first] = 1
    last = np.flatnonzero(np.concatenate([user[1:] != user[:-1], [True]]))
    so_far = np.cumsum(new)
    total = np.diff(so_far[last], prepend=0)
    of = np.searchsorted(user[last], user)  # position of each row's user among the users who have events
    still_to_come = so_far[last][of] - so_far
    held_out = np.where(still_to_come == 0, TEST, np.where(still_to_come == 1, VALID, TRAIN))
    split[order] = np.where(total[of] >= 3, held_out, TRAIN)
    return split


def temporal(events: Events, config: schema.Split) -> np.ndarray:
    """int8 [n]: training up to a first point in time, validation up to a second, test after it."""
    times = np.sort(events.time)
    n_test, n_valid = _counts(len(times), config)
    train_end = len(times) - n_test - n_valid
    split = np.full(len(times), TRAIN, np.int8)
    if n_valid:
        split[events.time > times[train_end - 1]] = VALID
    if n_test:
        split[events.time > times[train_end + n_valid - 1]] = TEST
    return split


# ----------------------------------------------------------------------------------------------------------- judgments
def _by_query(judgments: Judgments, config: schema.Split, seed: int) -> np.ndarray:
    n_queries = int(judgments.query.max(initial=-1)) + 1
    split_of = np.full(n_queries, UNASSIGNED, np.int8)
    given = judgments.split != UNASSIGNED
    # A judgment without a split follows its query, should others of it have one.
    split_of[judgments.query[given]] = judgments.split[given]
    queries = np.unique(judgments.query)
    free = queries[split_of[queries] == UNASSIGNED]
    generator = np.random.Generator(np.random.Philox(key=[_SEED, seed]))
    drawn = free[generator.permutation(len(free))]
    n_test, n_valid = _counts(len(free), config)
    split_of[drawn] = TRAIN
    split_of[drawn[:n_test]] = TEST
    split_of[drawn[n_test : n_test + n_valid]] = VALID
    return np.where(given, judgments.split, split_of[judgments.query]).astype(np.int8)


def _counts(n: int, config: schema.Split) -> tuple[int, int]:
    """How many of n become test and validation: the nearest to the share, at least one where n ≥ 3 and the share is not 0."""
    least = 1 if n >= 3 else 0
    n_test, n_valid = (max(int(n * share + 0.5), least) if share else 0 for share in (config.test_share, config.valid_share))
    while n_test + n_valid >= n > 0:  # rounding must not eat the training part
        n_test, n_valid = (n_test - 1, n_valid) if n_test > n_valid else (n_test, n_valid - 1)
    return n_test, n_valid
