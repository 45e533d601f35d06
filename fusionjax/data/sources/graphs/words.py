"""Names and descriptions of entities and relations: files of `id TAB text …`, a line each."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from fusionjax.data.shop import Entities, Relations, text_column
from fusionjax.errors import UserError


def lines(path: Path, header: bool = False) -> Iterator[tuple[int, str]]:
    """(number, text without its end) of each line that is not blank; CRLF and a byte order mark are accepted.

    Raises:
      UserError: no such file; not UTF-8, with the line.
    """
    try:
        with path.open("rb") as stream:
            for number, line in enumerate(stream, 1):
                try:
                    text = line.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError as error:
                    strange = line[error.start : error.start + 4].hex(" ")
                    raise UserError(f"{path.name}, line {number}: not UTF-8, bytes {strange}") from None
                text = text.rstrip("\r\n")
                if text.strip() and not (header and number == 1):
                    yield number, text
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None


def columns(path: Path, names: tuple[str, ...], least: int, header: bool = False) -> Iterator[tuple[int, list[str]]]:
    """(line, fields) of a file of tab-separated columns; those beyond the first `least` may be missing, and are '' then.

    Raises:
      UserError: too few or too many fields, an empty first one; file and line.
    """
    for number, text in lines(path, header):
        fields = [field.strip() for field in text.split("\t")]
        if not least <= len(fields) <= len(names) or not fields[0]:
            wanted = f"{len(names)}" if least == len(names) else f"{least} to {len(names)}"
            raise UserError(
                f"{path.name}, line {number}: expected {wanted} columns ({', '.join(names)}) separated by tabs, "
                f"got {len(fields)}: {text[:80]!r}"
            )
        yield number, fields + [""] * (len(names) - len(fields))


def pairs(path: Path, header: bool = False) -> dict[str, str]:
    """Id → text, of a file of two columns.

    Raises:
      UserError: as `columns`; or an id stands twice.
    """
    found: dict[str, str] = {}
    for number, (id, text) in columns(path, ("id", "text"), 2, header):
        if id in found:
            raise UserError(f"{path.name}, line {number}: '{id}' stands further up already")
        found[id] = text
    return found


def entities(ids: np.ndarray, names: Mapping[str, str], descriptions: Mapping[str, str] | None = None) -> Entities | None:
    """The table of those ids that have a name or description, in the order of `ids`; None if none has."""
    descriptions = descriptions or {}
    known = [id for id in ids if names.get(id) or descriptions.get(id)]
    if not known:
        return None
    return Entities(
        id=text_column(known),
        name=text_column(names.get(id, "") for id in known),
        description=text_column(descriptions.get(id, "") for id in known),
    )


def relations(ids: np.ndarray, names: Mapping[str, str]) -> Relations | None:
    """The table of those ids that have a name, in the order of `ids`; None if none has."""
    known = [id for id in ids if names.get(id)]
    return Relations(text_column(known), text_column(names[id] for id in known)) if known else None


def split_name(texts: Mapping[str, str], separator: str) -> tuple[dict[str, str], dict[str, str]]:
    """Names and descriptions of texts written `name separator description`; a text without it is a name."""
    names: dict[str, str] = {}
    descriptions: dict[str, str] = {}
    for id, text in texts.items():
        names[id], _, descriptions[id] = text.partition(separator)
    return names, descriptions
