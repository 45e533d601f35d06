"""Files of one graph's splits → one table of triples: repeats, triples in two splits, names that training never sees."""

import dataclasses
from collections.abc import Mapping
from typing import Literal

import numpy as np

from fusionjax.data.graph import triple_keys
from fusionjax.data.shop import SPLITS, TEST, TRAIN, UNASSIGNED, VALID, Triples, text_column
from fusionjax.data.sources.graphs.read import TriplesFile, Vocabulary
from fusionjax.errors import UserError

OnDuplicate = Literal["drop", "error", "keep"]
OnUnseen = Literal["keep", "drop", "error"]


@dataclasses.dataclass
class _Rows:
    """All rows of all files, the files in the order training, validation, test."""

    files: list[TriplesFile]
    triples: np.ndarray
    file: np.ndarray
    row: np.ndarray

    def take(self, keep: np.ndarray) -> "_Rows":
        return _Rows(self.files, self.triples[keep], self.file[keep], self.row[keep])

    def place(self, at: int) -> str:
        return self.files[self.file[at]].place(int(self.row[at]))

    def line(self, at: int) -> int:
        return self.files[self.file[at]].line(int(self.row[at]))


def join(
    files: Mapping[int, TriplesFile],
    vocabulary: Vocabulary,
    *,
    on_duplicate: OnDuplicate,
    on_unseen: OnUnseen,
) -> tuple[Triples, list[str]]:
    """One table of the splits' triples.

    Args:
      files: by split code; training alone leaves the split open, for `data.split` to draw.
      vocabulary: what the files were read with.
      on_duplicate: what of a triple that stands twice; dropped, the first stays, training before validation before test.
      on_unseen: what of a validation or test triple with an entity or relation that no training triple has.

    Returns:
      The table, entities and relations in order of first appearance, and what to say of what was kept or dropped.

    Raises:
      UserError: the choices are `error` and there is such a triple; or they leave a split empty.
    """
    ordered = [files[split] for split in sorted(files)]
    sizes = [len(file.triples) for file in ordered]
    rows = _Rows(
        files=ordered,
        triples=np.concatenate([file.triples for file in ordered]),
        file=np.repeat(np.arange(len(ordered), dtype=np.int8), sizes),
        row=np.concatenate([np.arange(size) for size in sizes]),
    )
    notes = [note for file in ordered for note in file.notes]
    rows = _repeats(rows, on_duplicate, notes)
    rows = _unseen(rows, vocabulary, on_unseen, notes)
    split = np.array(sorted(files), np.int8)[rows.file]
    if len(files) == 1:
        split = np.full(len(split), UNASSIGNED, np.int8)
    for code in sorted(files):
        if len(files) > 1 and not (split == code).any():
            raise UserError(f"{files[code].name}: no triple of it is left to be {SPLITS[code]}")
    return _table(rows.triples, split, vocabulary), notes


def _repeats(rows: _Rows, choice: OnDuplicate, notes: list[str]) -> _Rows:
    triples = rows.triples
    key = triple_keys(triples, int(triples[:, [0, 2]].max()) + 1, int(triples[:, 1].max()) + 1)
    _, first, inverse = np.unique(key, return_index=True, return_inverse=True)
    if len(first) == len(key):
        return rows
    first = first[inverse.reshape(-1)]
    repeated = np.flatnonzero(first != np.arange(len(first)))
    if choice == "error":
        at = int(repeated[0])
        raise UserError(
            f"{rows.place(at)}: this triple stands at {rows.place(int(first[at]))} already "
            f"({len(repeated):,} such lines; data.triples.on_duplicate=drop keeps the first of each)"
        )
    done = "dropped" if choice == "drop" else "kept as published"
    for here, file in enumerate(rows.files):
        for there, other in enumerate(rows.files[: here + 1]):
            at = repeated[(rows.file[repeated] == here) & (rows.file[first[repeated]] == there)]
            if len(at):
                what = "an earlier line of it has too" if here == there else f"{other.name} has too"
                notes.append(f"{file.name}: triples that {what}: {len(at):,}, {done} (line {rows.line(int(at[0]))} first)")
    if choice == "keep":
        return rows
    keep = np.ones(len(key), bool)
    keep[repeated] = False
    return rows.take(keep)


def _unseen(rows: _Rows, vocabulary: Vocabulary, choice: OnUnseen, notes: list[str]) -> _Rows:
    if len(rows.files) == 1:
        return rows
    train = rows.triples[rows.file == 0]
    seen_entity = np.zeros(len(vocabulary.entity), bool)
    seen_relation = np.zeros(len(vocabulary.relation), bool)
    seen_entity[train[:, 0]] = seen_entity[train[:, 2]] = True
    seen_relation[train[:, 1]] = True
    new_entity = ~(seen_entity[rows.triples[:, 0]] & seen_entity[rows.triples[:, 2]])
    new_relation = ~seen_relation[rows.triples[:, 1]]
    unseen = new_entity | new_relation
    if not unseen.any():
        return rows
    if choice == "error":
        at = int(np.argmax(unseen))
        what, number = _first_unseen(rows.triples[at], seen_entity, seen_relation)
        names = vocabulary.entities() if what == "entity" else vocabulary.relations()
        raise UserError(
            f"{rows.place(at)}: {what} '{names[number]}' stands in no training triple ({int(unseen.sum()):,} such lines; "
            "data.triples.on_unseen=keep or drop accepts them)"
        )
    done = "dropped" if choice == "drop" else "kept (ranked, but right only by luck)"
    for here, file in enumerate(rows.files):
        mine = rows.file == here
        if count := int(np.sum(mine & unseen)):
            entity, relation = int(np.sum(mine & new_entity)), int(np.sum(mine & new_relation))
            line = rows.line(int(np.argmax(mine & unseen)))
            notes.append(
                f"{file.name}: triples with an entity ({entity:,}) or a relation ({relation:,}) that no training triple has: "
                f"{count:,} of {int(mine.sum()):,}, {done} (line {line} first)"
            )
    return rows.take(~unseen) if choice == "drop" else rows


def _first_unseen(triple: np.ndarray, seen_entity: np.ndarray, seen_relation: np.ndarray) -> tuple[str, int]:
    head, relation, tail = triple.tolist()
    for number in (head, tail):
        if not seen_entity[number]:
            return "entity", number
    return "relation", relation


def _table(triples: np.ndarray, split: np.ndarray, vocabulary: Vocabulary) -> Triples:
    """The vocabularies without names that only dropped triples had; the rest keep their order."""
    entity, entities = _compact(triples[:, [0, 2]], vocabulary.entities())
    relation, relations = _compact(triples[:, 1], vocabulary.relations())
    return Triples(
        entities=entities,
        relations=relations,
        head=np.ascontiguousarray(entity[:, 0]),
        relation=relation,
        tail=np.ascontiguousarray(entity[:, 1]),
        split=split,
    )


def _compact(numbers: np.ndarray, names: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    used = np.zeros(len(names), bool)
    used[numbers] = True
    if used.all():
        return np.ascontiguousarray(numbers), names
    new = (np.cumsum(used) - 1).astype(np.int32)
    return new[numbers], text_column(names[used])


def negatives(
    files: Mapping[int, TriplesFile], vocabulary: Vocabulary, known: tuple[int, int], triples: Triples
) -> tuple[Triples | None, list[str]]:
    """The table of triples known to be false, by split code (validation, test).

    Args:
      files: read with the vocabulary after all files of true triples.
      vocabulary: of true and false triples.
      known: how many entities and relations it had before.
      triples: the true ones.

    Returns:
      The table (None without files), its names those of `triples`, and what to say.

    Raises:
      UserError: a name that stands in no true triple; a triple that is true; file and line.
    """
    if not files:
        return None, []
    notes: list[str] = []
    entities, relations = vocabulary.entities(), vocabulary.relations()
    entity_row = {name: row for row, name in enumerate(triples.entities)}
    relation_row = {name: row for row, name in enumerate(triples.relations)}
    new_entity = np.fromiter((entity_row.get(name, -1) for name in entities), np.int32, len(entities))
    new_relation = np.fromiter((relation_row.get(name, -1) for name in relations), np.int32, len(relations))
    size = len(triples.entities), len(triples.relations)
    true = triple_keys(np.stack([triples.head, triples.relation, triples.tail], 1), *size)
    found: list[np.ndarray] = []
    splits: list[np.ndarray] = []
    for split, file in sorted(files.items()):
        assert split in (VALID, TEST) and split != TRAIN
        notes += file.notes
        for what, column, limit, names in (
            ("entity", file.triples[:, [0, 2]].max(axis=1), known[0], entities),
            ("relation", file.triples[:, 1], known[1], relations),
        ):
            if (column >= limit).any():
                at = int(np.argmax(column >= limit))
                raise UserError(f"{file.place(at)}: {what} '{names[column[at]]}' stands in no true triple")
        head, relation, tail = new_entity[file.triples[:, 0]], new_relation[file.triples[:, 1]], new_entity[file.triples[:, 2]]
        rows = np.stack([head, relation, tail], axis=1)
        gone = (rows < 0).any(axis=1)
        if gone.any():
            notes.append(f"{file.name}: false triples about what on_unseen dropped: {int(gone.sum()):,}, dropped too")
        kept = np.flatnonzero(~gone)
        if (wrong := np.isin(triple_keys(rows[kept], *size), true)).any():
            at = int(kept[np.argmax(wrong)])
            raise UserError(f"{file.place(at)}: this triple is a true one too, expected one that is false")
        found.append(rows[kept])
        splits.append(np.full(len(kept), split, np.int8))
    rows = np.concatenate(found)
    if not len(rows):
        return None, notes
    table = Triples.of(
        triples.entities[rows[:, 0]], triples.relations[rows[:, 1]], triples.entities[rows[:, 2]], np.concatenate(splits)
    )
    return table, notes
