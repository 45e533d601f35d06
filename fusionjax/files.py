"""Writing files whole or not at all: under a name of its own first, then renamed, so that no reader sees half a file."""

import contextlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def whole(file: Path) -> Iterator[Path]:
    """Gives a path in the folder of `file`, made if it is missing, to write to; it becomes `file` when the block ends well.

    Several threads, processes or machines may write the same file at once: the last to end wins.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    # No process number: threads share it, and so may machines that share the folder.
    temporary = file.with_name(f".{file.name}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        yield temporary
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)


def write_whole(file: Path, data: bytes | str) -> None:
    with whole(file) as temporary:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)


def write_json(file: Path, data: Any) -> None:
    write_whole(file, json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


@contextlib.contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Gives an empty folder beside `folder` to fill; it takes the place of `folder` when the block ends well.

    A process that reads `folder` meanwhile keeps the files it has opened. Several may write at once: the last to end wins.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    token = uuid.uuid4().hex[:12]
    temporary = folder.with_name(f".{folder.name}.{token}.tmp")
    old = folder.with_name(f".{folder.name}.{token}.old.tmp")
    temporary.mkdir()
    try:
        yield temporary
        try:
            os.rename(temporary, folder)
        except OSError:  # a folder that is not empty cannot be renamed over
            os.rename(folder, old)
            os.rename(temporary, folder)
    finally:
        for left in (temporary, old):
            shutil.rmtree(left, ignore_errors=True)
