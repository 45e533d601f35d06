"""Bring your own shop: a folder of `products`, `triples`, `events`, `users`, `queries`, `judgments`, each one file as CSV, TSV,
JSON Lines (`.jsonl`), the three also gzipped, or Parquet.

`read.py` knows formats, `validate.py` checks columns, `folder.py` finds the files and joins the tables, `problems.py` gathers
malformed rows. Here is only what makes it a data set.
"""

import hashlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from fusionjax.config import schema
from fusionjax.data.shop import Shop
from fusionjax.data.sources.files.folder import find_tables, read_folder
from fusionjax.data.tables import ShopBuilder
from fusionjax.errors import UserError

__all__ = ["FilesBuilder", "read_folder"]


class FilesBuilder(ShopBuilder):
    """The folder `data.source_dir` as a data set; `data.files` says how to read it."""

    name = "files"
    SUMMARY = "Your own shop: a folder of tables as CSV, TSV, JSON Lines or Parquet (data.source_dir)."
    VERSION = tfds.core.Version("1.0.0")
    log: Callable[[str], Any]
    """Takes what reading has to say (rows dropped, columns ignored). Default: standard error, as TFDS keeps standard output."""

    def __init__(self, **arguments: Any) -> None:
        self.log = _to_stderr
        super().__init__(**arguments)

    @classmethod
    def key(cls, config: schema.Data) -> dict[str, Any]:
        """Names and SHA-256 of the files, and how they are read."""
        paths = find_tables(_folder(config), log=_silent)
        checksums: dict[str, str] = {}
        for path in paths.values():
            try:
                with path.open("rb") as file:
                    checksums[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
            except OSError as error:
                raise UserError(f"{path.name}: cannot be read: {error}") from error
        return {"files": checksums, **config.files.model_dump(mode="json")}

    def read(self, dl_manager: tfds.download.DownloadManager) -> Shop:
        """See `read_folder`."""
        del dl_manager  # nothing is downloaded
        return read_folder(_folder(self.source), self.source.files, log=self.log, name=self.name)


def _folder(config: schema.Data) -> Path:
    if not config.source_dir:
        raise UserError("data.source_dir: data set 'files' needs the folder that holds your tables")
    return Path(config.source_dir).expanduser()


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr)


def _silent(line: str) -> None:
    """What `find_tables` has to say is printed when the tables are read."""
