"""Vectors of a file of texts, one a line: streamed in bounded memory, resumable, written whole or not at all."""

import dataclasses
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import numpy as np

from fusionjax.errors import UserError
from fusionjax.files import write_json
from fusionjax.text_encoder import TextEncoder

BLOCK = 16_384
"""Lines encoded at a time: enough that their lengths are alike, and what is lost at most when the process is killed."""
OnInvalid = Literal["error", "replace"]


@dataclasses.dataclass(frozen=True)
class Lines:
    """A text file. A line ends with a line feed (one carriage return before it is dropped); the last one may lack it."""

    file: Path
    on_invalid: OnInvalid = "error"
    """Bytes that are not UTF-8: an error with file and line, or U+FFFD for each."""

    def count(self) -> int:
        """Number of lines, all of them checked.

        Raises:
          UserError: not there; bytes that are not UTF-8, with their line.
        """
        count = 0
        for number, _ in enumerate(self._decoded(), 1):
            count = number
        return count

    def blocks(self, first: int = 0) -> Iterator[list[str]]:
        """The texts of `BLOCK` lines at a time, from line `first` (counted from 0) on."""
        block: list[str] = []
        for number, text in enumerate(self._decoded()):
            if number < first:
                continue
            block.append(text)
            if len(block) == BLOCK:
                yield block
                block = []
        if block:
            yield block

    def _decoded(self) -> Iterator[str]:
        try:
            with self.file.open("rb") as opened:
                for number, line in enumerate(opened, 1):
                    raw = line.removesuffix(b"\n").removesuffix(b"\r")
                    mark = 3 if number == 1 and raw.startswith(b"\xef\xbb\xbf") else 0
                    raw = raw[mark:]
                    try:
                        yield raw.decode("utf-8", "replace" if self.on_invalid == "replace" else "strict")
                    except UnicodeDecodeError as error:
                        raise UserError(
                            f"{self.file}: line {number}: not UTF-8 (byte {mark + error.start + 1} of the line is "
                            f"0x{raw[error.start]:02x}); convert the file, or pass --on-invalid replace"
                        ) from None
        except OSError as error:
            raise UserError(f"{self.file}: cannot be read: {error.strerror}") from None


def encode_file(
    encoder: TextEncoder,
    lines: Lines,
    out: Path,
    identity: str,
    *,
    prompt: str | None = None,
    started: Callable[[int, int], None] = lambda total, done: None,
    progress: Callable[[int], None] | None = None,
) -> int:
    """Writes float32 [lines, d] to `out` (.npy), row i the vector of line i + 1; returns the number of rows.

    Rows go to `out`.part; a run that was killed goes on where its last block ended, of the same task.

    Args:
      identity: what tells the checkpoint from others (`hub.fingerprint`).
      started: told the number of lines, and of those done by an earlier process.
      progress: told how many more texts are done.

    Raises:
      UserError: `out` is no .npy or cannot be written; the file is empty or cannot be read; see `Lines`.
    """
    if out.suffix != ".npy":
        raise UserError(f"{out}: expected a name that ends in .npy")
    if out.is_dir():
        raise UserError(f"{out}: a folder; expected a file to write")
    total = lines.count()
    if not total:
        raise UserError(f"{lines.file}: no line in it")
    part, memory = out.with_name(out.name + ".part"), out.with_name(out.name + ".part.json")
    source = lines.file.stat()
    same = {
        "source": [str(lines.file.resolve()), source.st_size, source.st_mtime_ns],
        "checkpoint": identity,
        "prompt": prompt,
        "on_invalid": lines.on_invalid,
        "shape": [total, encoder.width],
        "dtype": str(np.dtype(encoder.dtype)),
    }
    done = _done(part, memory, same)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{out}: cannot write there: {error.strerror}") from None
    if not done:
        memory.unlink(missing_ok=True)  # of another task, or of one that ended: it must not vouch for the new rows
        np.lib.format.open_memmap(part, "w+", np.float32, (total, encoder.width)).flush()
    started(total, done)
    for block in lines.blocks(done):
        # Opened for each block: pages of a mapping that is kept count as memory of the process.
        rows = np.lib.format.open_memmap(part, "r+")
        encoder.encode(block, prompt=prompt, progress=progress, out=rows[done : done + len(block)])
        rows.flush()
        del rows
        done += len(block)
        write_json(memory, {**same, "done": done})
    os.replace(part, out)
    memory.unlink(missing_ok=True)
    return total


def _done(part: Path, memory: Path, same: dict[str, object]) -> int:
    """Rows an earlier process finished of the very same task."""
    if not (part.exists() and memory.exists()):
        return 0
    try:
        found = json.loads(memory.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        return 0
    done = found.pop("done", 0) if isinstance(found, dict) else 0
    return int(done) if found == same else 0
