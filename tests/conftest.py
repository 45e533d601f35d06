"""What every test runs under: four CPU devices, no silent broadcasting over ranks, no network, no cache of the person's own."""

import os
import shutil
import signal
import socket
import tempfile
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from tests.session import QUICK_COMPILATION

# All of this must stand before jax is imported, and child processes inherit it.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4" + QUICK_COMPILATION
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
os.environ["MPLBACKEND"] = "Agg"
# Programs here are large and run a few times: compiling them without optimisation saves more than it costs.
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
# A folder of the session, in which each of xdist's workers (they inherit its name) has one of its own.
_IS_OWNER = "FUSIONJAX_TESTS" not in os.environ
_SESSION = Path(os.environ.get("FUSIONJAX_TESTS") or tempfile.mkdtemp(prefix="fusionjax-tests-"))
os.environ["FUSIONJAX_TESTS"] = str(_SESSION)
_SCRATCH = _SESSION / os.environ.get("PYTEST_XDIST_WORKER", "alone")
os.environ["FUSIONJAX_CACHE"] = str(_SCRATCH / "data")
# Commands that tests start, whichever worker does, read back what one of them compiled (`runs.keep_compiled_programs`).
(_SESSION / "xla").mkdir(exist_ok=True)
(_SCRATCH / "data").mkdir(parents=True)
(_SCRATCH / "data" / "xla").symlink_to(_SESSION / "xla")

import jax

from fusionjax.cli import main
from tests.trained import Cli

jax.config.update("jax_numpy_rank_promotion", "raise")
# Tests build the same small programs again and again; a compiled one is read back instead. Nobody else writes into that folder:
# a process killed in the middle of a write leaves a broken entry behind, and JAX's warning of it would be an error here.
jax.config.update("jax_compilation_cache_dir", str(_SCRATCH / "compiled"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)

# The same examples on every run; a slow machine is no failure.
settings.register_profile("fusionjax", derandomize=True, deadline=None)
settings.load_profile("fusionjax")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The slow folders first: workers that take whole files would else end with one of them busy alone."""
    slow = Path(__file__).parent / "studies", Path(__file__).parent / "training"
    items.sort(key=lambda item: not any(folder in item.path.parents for folder in slow))


def pytest_unconfigure() -> None:
    shutil.rmtree(_SESSION if _IS_OWNER else _SCRATCH, ignore_errors=True)


def _require_local(host: Any) -> None:
    name = host.decode() if isinstance(host, bytes) else host
    if name in (None, "", "localhost"):
        return
    try:
        local = ip_address(str(name).split("%")[0]).is_loopback
    except ValueError:
        local = False
    if not local:
        raise RuntimeError(f"a test reached for the network: {name!r}")


@pytest.fixture(scope="session", autouse=True)
def _no_network() -> Iterator[None]:
    """Connecting to, or looking up, anything but this machine is an error."""
    connect, connect_ex, getaddrinfo = socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo

    def local_connect(self: socket.socket, address: Any) -> None:
        if isinstance(address, tuple):
            _require_local(address[0])
        return connect(self, address)

    def local_connect_ex(self: socket.socket, address: Any) -> int:
        if isinstance(address, tuple):
            _require_local(address[0])
        return connect_ex(self, address)

    def local_getaddrinfo(host: Any, *args: Any, **kwargs: Any) -> Any:
        _require_local(host)
        return getaddrinfo(host, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", local_connect)
        patch.setattr(socket.socket, "connect_ex", local_connect_ex)
        patch.setattr(socket, "getaddrinfo", local_getaddrinfo)
        yield


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Cli]:
    """Runs a command in this process → (exit code, standard output, standard error)."""
    handler = signal.getsignal(signal.SIGTERM)
    settings = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in settings}
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "true")

    def run(*words: str) -> tuple[int, str, str]:
        capfd.readouterr()
        code = main(words)
        printed = capfd.readouterr()
        return code, printed.out, printed.err

    yield run
    signal.signal(signal.SIGTERM, handler)
    for name, value in before.items():
        jax.config.update(name, value)
