"""Files of public data sets, each pinned to a commit: found in a folder or downloaded, and checked.

A checksums file beside this module has TFDS's format: address, size in bytes, SHA-256, file name. Where the SHA-256 of a file
could not be learnt (the file was never in reach), its git object id stands in: SHA-1 over size and content, fixed by the
commit. TFDS downloads only what has a SHA-256, so such a file must be brought in `data.source_dir`.
"""

import contextlib
import dataclasses
import hashlib
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import requests
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download import downloader

from fusionjax.config import schema
from fusionjax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Pin:
    """A file of a commit. Either size and SHA-256 are known, or the git object id is."""

    url: str
    size: int = 0
    sha256: str = ""
    git_id: str = ""

    @property
    def checksum(self) -> str:
        return self.sha256 or f"git:{self.git_id}"

    def check(self, path: Path) -> None:
        """Raises `UserError` unless the file at `path` is the pinned one."""
        if self.sha256:
            verify(path, self.size, self.sha256)
            return
        if not path.is_file():
            raise UserError(f"{path}: no such file (get it from {self.url})")
        found = git_object_id(path.read_bytes())
        if found != self.git_id:
            raise UserError(f"{path}: git object id {found}, expected {self.git_id} ({self.url})")


def verify(path: Path, size: int, sha256: str) -> None:
    """Raises `UserError` naming the file and what was expected, unless it is there with this size and SHA-256."""
    if not path.is_file():
        raise UserError(f"{path}: no such file (expected {size:,} bytes, SHA-256 {sha256})")
    if path.stat().st_size != size:
        raise UserError(f"{path}: {path.stat().st_size:,} bytes, expected {size:,} (SHA-256 {sha256})")
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != sha256:
        raise UserError(f"{path}: SHA-256 {found}, expected {sha256}")


def git_object_id(data: bytes) -> str:
    """What git names a file of this content."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def checksums_file(data_set: str) -> Path:
    return Path(__file__).with_name(f"{data_set}_checksums.tsv")


def pins(data_set: str) -> dict[str, Pin]:
    """File name → pin, of a data set's checksums file."""
    found: dict[str, Pin] = {}
    for line in checksums_file(data_set).read_text(encoding="utf-8").splitlines():
        url, size, sha256, name = line.split("\t")
        found[name] = Pin(url, int(size), sha256)
    return found


def url_infos(data_set: str) -> Any:
    """What TFDS needs to know to download them."""
    return tfds.download.checksums.load_url_infos(checksums_file(data_set))  # pyright: ignore


def source_dir(config: schema.Data, why: str) -> Path:
    """The folder `data.source_dir`; `why` says what it must hold, for the `UserError` where there is none."""
    if config.source_dir is None:
        raise UserError(f"data.source_dir: {why}")
    folder = Path(config.source_dir).expanduser()
    if not folder.is_dir():
        raise UserError(f"data.source_dir: no folder {folder}")
    return folder


def locate(
    data_set: str, files: Mapping[str, Pin], config: schema.Data, dl_manager: tfds.download.DownloadManager
) -> dict[str, Path]:
    """Where each file lies, in `data.source_dir` or downloaded; all checked.

    Raises:
      UserError: a file that is not there, cannot be downloaded, or is not the pinned one.
    """
    unknown = [name for name, pin in files.items() if not pin.sha256]
    if config.source_dir is not None or unknown:
        lacking = ", ".join(f"{name} ({files[name].url})" for name in unknown)
        folder = source_dir(
            config, f"{data_set} cannot be downloaded, the SHA-256 of {lacking} being unknown: bring {', '.join(files)}"
        )
        paths = {name: folder / name for name in files}
    else:
        paths = _download(data_set, {name: pin.url for name, pin in files.items()}, dl_manager)
    for name, pin in files.items():
        pin.check(paths[name])
    return paths


def _download(data_set: str, urls: dict[str, str], dl_manager: tfds.download.DownloadManager) -> dict[str, Path]:
    try:
        with _few_retries():
            found: Any = dl_manager.download(urls)
    except Exception as error:  # requests, urllib3, TFDS and promise each raise their own
        reason = "no connection"
        if not isinstance(error, requests.exceptions.ConnectionError):
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        hosts = sorted({url.split("/")[2] for url in urls.values()})
        raise UserError(
            f"{data_set}: cannot download from {', '.join(hosts)} ({reason}); without a network, put the files "
            f"{', '.join(urls)} into a folder and pass data.source_dir=FOLDER"
        ) from error
    return {name: Path(path) for name, path in found.items()}


@contextlib.contextmanager
def _few_retries() -> Iterator[None]:
    """Without a network TFDS would try for minutes, warning each time, before saying so."""
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # for good: its threads outlive this call
    retries = downloader.MAX_RETRIES
    downloader.MAX_RETRIES = 2
    try:
        yield
    finally:
        downloader.MAX_RETRIES = retries
