"""The rooms of the house and who may enter whom: imports point one way, also those written inside functions."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import fusionjax
from fusionjax.data.shop import Shop

PACKAGE = Path(__file__).parents[1] / "fusionjax"

# Room → the rooms it may import. A room is a folder or a module right under fusionjax/.
ROOMS: dict[str, set[str]] = {
    "errors": set(),
    "names": set(),
    "registry": {"errors"},
    "files": set(),
    "losses": set(),
    "kernels": set(),
    "packing": set(),
    "config": {"errors", "names", "registry"},
    "models": {"kernels", "names", "registry"},
    "hub": {"errors", "files", "models"},
    "data": {"errors", "registry", "files", "config", "hub", "packing"},
    "runs": {"errors", "files", "config"},
    "retrieval": {"errors", "files", "models"},
    "embedding": {"packing", "models"},
    "text_encoder": {"errors", "hub", "models", "packing", "embedding", "runs"},
    "encode": {"errors", "files", "hub", "runs", "text_encoder"},
    "inference": {"errors", "config", "hub", "data", "models", "losses", "packing", "embedding"},
    "evaluation": {"errors", "registry", "files", "config", "hub", "data", "models", "losses", "inference"},
    "baselines": {"errors", "registry", "config", "data", "evaluation"},
    "objectives": {"errors", "registry", "config", "data", "models", "losses", "kernels", "inference", "evaluation"},
}
ROOMS["tasks"] = {"errors", "registry", "config", "data", "models", "losses", "inference", "evaluation", "baselines"}
ROOMS["training"] = {
    *("errors", "files", "config", "hub", "data", "models", "losses", "packing", "inference", "evaluation", "objectives"),
    *("runs", "text_encoder", "registry"),
}
ROOMS["reporting"] = {"errors", "files", "config", "data", "evaluation", "tasks", "inference", "runs"}
ROOMS["serving"] = {
    *("errors", "config", "hub", "data", "models", "losses", "evaluation", "inference", "runs", "training", "reporting"),
    *("files", "retrieval"),
}
ROOMS["export"] = {"errors", "data", "hub", "models", "serving"}
ROOMS["plugins"] = {
    *("registry", "config", "data", "models", "evaluation", "baselines", "objectives", "tasks", "training"),
}
ROOMS["pipeline"] = {*ROOMS}
ROOMS["seeds"] = ROOMS["settings"] = {*ROOMS}
ROOMS["studies"] = {*ROOMS}
ROOMS["studying"] = {"errors", "studies"}
ROOMS["api"] = {*ROOMS}
# A command calls `api`; besides, it only draws tables.
ROOMS["cli"] = {"api", "errors", "reporting", "runs", "studies"}
ROOMS["__main__"] = {"cli"}

PURE = ("models", "losses")
PURE_MAY_USE = {"jax", "flax", "jaxtyping", "numpy", *sys.stdlib_module_names}
"""Libraries of the pure rooms: mathematics on arrays, no files, no optimiser, no config."""


def imported(source: str, module: str) -> list[tuple[int, str]]:
    """Line and full dotted name of every import in `source`, the text of `module`, wherever it stands.

    `from a import b` gives `a.b`, since `b` may be a module.
    """
    found: list[tuple[int, str]] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parents = module.split(".")[: -node.level] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            found += [(node.lineno, f"{base}.{alias.name}") for alias in node.names]
    return found


def violations(source: str, module: str) -> list[str]:
    """Imports in `source` that the table above does not allow `module`, a dotted name under `fusionjax`."""
    room = module.split(".")[1]
    if room not in ROOMS:
        return [f"{module}: room '{room}' is not in the table of tests/test_layout.py"]
    wrong: list[str] = []
    for line, name in imported(source, module):
        top, _, rest = name.partition(".")
        other = rest.split(".")[0]
        if top == "fusionjax" and other not in ("", "__version__", room, *ROOMS[room]):
            wrong.append(f"{module}:{line} imports {name}: {room} may import {sorted(ROOMS[room]) or 'no other room'}")
        if room in PURE and top not in PURE_MAY_USE and top != "fusionjax":
            wrong.append(f"{module}:{line} imports {name}: {room} may use only jax, flax, jaxtyping and numpy")
    return wrong


def modules() -> list[tuple[str, Path]]:
    """Every module of the package but its root, by dotted name; `a/__init__.py` is `fusionjax.a.__init__`."""
    paths = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")
    return [(".".join(("fusionjax", *path.relative_to(PACKAGE).with_suffix("").parts)), path) for path in paths]


def test_imports_point_one_way() -> None:
    wrong = [line for module, path in modules() for line in violations(path.read_text(encoding="utf-8"), module)]
    assert not wrong, "\n".join(wrong)


def test_the_table_has_no_circle() -> None:
    done: set[str] = set()
    while len(done) < len(ROOMS):
        ready = {room for room, uses in ROOMS.items() if uses <= done} - done
        assert ready, f"these rooms need each other: {sorted(set(ROOMS) - done)}"
        done |= ready


@pytest.mark.parametrize(
    ("module", "source", "caught"),
    [
        ("fusionjax.models.towers", "import optax", True),
        ("fusionjax.models.towers", "import flax.linen as nn\nfrom fusionjax.models import bert", False),
        ("fusionjax.models.towers", "from fusionjax.config import schema", True),
        ("fusionjax.losses", "def f():\n    from fusionjax.data.shop import Shop", True),
        ("fusionjax.data.graph", "from fusionjax import models", True),
        ("fusionjax.data.inputs", "from fusionjax.objectives import OBJECTIVES", True),
        ("fusionjax.objectives.alignment", "from fusionjax.training.stream import stream", True),
        ("fusionjax.data.graph", "from fusionjax import __version__", False),
        ("fusionjax.data.graph", "from ..models import bert", True),
        ("fusionjax.data.graph", "from .shop import Shop", False),
        ("fusionjax.data.sources.files.__init__", "from .read import x\nfrom ...graph import y", False),
        ("fusionjax.tasks.base", "import fusionjax.training.loop", True),
        ("fusionjax.training.loop", "from fusionjax.tasks.evaluator import Evaluator", True),
        ("fusionjax.training.loop", "from fusionjax.cli import main", True),
        ("fusionjax.reporting.report", "from fusionjax.training import loop", True),
        ("fusionjax.cli.data", "from fusionjax.api import train", False),
        ("fusionjax.cli.data", "from fusionjax.data.prepare import prepare", True),
        ("fusionjax.attic", "import os", True),
    ],
)
def test_the_rule_catches_what_it_should(module: str, source: str, caught: bool) -> None:
    assert bool(violations(source, module)) == caught


def test_importing_the_package_imports_nothing_else() -> None:
    command = "import sys; before = set(sys.modules); import fusionjax; print(*sorted(set(sys.modules) - before))"
    printed = subprocess.run([sys.executable, "-c", command], cwd=PACKAGE.parent, capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in printed.stdout.split()}
    assert loaded - set(sys.stdlib_module_names) == {"fusionjax"}


def test_public_names() -> None:
    assert fusionjax.Shop is Shop
    assert fusionjax.load is importlib.import_module("fusionjax.serving.model").load
    assert {"load", "Shop", "__version__"} <= set(dir(fusionjax))
    with pytest.raises(AttributeError, match="module 'fusionjax' has no attribute 'shop'"):
        _ = fusionjax.shop  # pyright: ignore[reportAttributeAccessIssue]
