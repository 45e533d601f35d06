"""What `import fusionjax` offers, and all that the command line calls.

    import fusionjax as fj

    shop = fj.Shop.from_folder("myshop")                      # or Shop.from_tables(products=…, events=…)
    run = fj.train("quickstart", shop=shop, overrides={"train.steps": 200})
    run.results["test"]; run.report; run.model.search("mug")
    fj.load(run.run_dir).recommend("anna")                     # any time later, anywhere, without the data

Imports stand inside the functions: neither `import fusionjax` nor `fusionjax --help` waits for JAX.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fusionjax.errors import UserError, nearest

if TYPE_CHECKING:
    from fusionjax.config import schema
    from fusionjax.data.prepare import Description, Prepared
    from fusionjax.data.shop import Shop
    from fusionjax.serving.model import Model

Config = str | Path | Mapping[str, Any]
"""A file, the name of a config that comes with the package (`shipped_configs()`), or nested keys and values."""
Overrides = Sequence[str] | Mapping[str, Any]
"""`"KEY=VALUE"` each, as on the command line, or dotted keys with their values."""
Say = Callable[[str], None]


# ------------------------------------------------------------------------------------------------------------ configs
def shipped_configs() -> dict[str, Path]:
    """Name → file of the configs that come with the package: `quickstart`, `kge/umls_complex`, …"""
    package = Path(__file__).parent
    # In a wheel they lie in the package, in a checkout beside it.
    home = next((path for path in (package / "configs", package.parent / "configs") if path.is_dir()), None)
    files = sorted(home.rglob("*.yaml")) if home is not None else []
    return {file.relative_to(home).with_suffix("").as_posix(): file for file in files if home is not None}


def config_file(config: str | Path) -> Path:
    """The file that `config`, a path or the name of a shipped config, means.

    Raises:
      UserError: a name that no shipped config has.
    """
    path = Path(config)
    if path.is_file() or path.suffix in (".yaml", ".yml"):
        return path
    shipped, name = shipped_configs(), path.as_posix()
    if name not in shipped:
        raise UserError(f"no config '{name}': neither a file nor one that comes with fusionjax{nearest(name, shipped)}")
    return shipped[name]


def load_config(
    config: Config | None = None,
    overrides: Overrides = (),
    shop: "Shop | None" = None,
    renamed: dict[str, str] | None = None,
) -> "schema.Run":
    """Resolves a config: defaults, then the file or mapping (whose `extends` may name another), the shop, the overrides.

    Args:
      shop: one that was made by `Shop.from_folder` or `Shop.from_tables`; it takes the place of the config's data set.
      renamed: gets yesterday's keys that were read, each with today's name of it.

    Raises:
      UserError: no such config, a key or value it cannot have, a shop of another kind.
    """
    from fusionjax.config.load import layer, load_run

    path, layers = None, []
    if isinstance(config, Mapping):
        values = dict(config)
        if (base := values.pop("extends", None)) is not None:
            path = config_file(base)
        layers.append(layer(values, "config"))
    elif config is not None:
        path = config_file(config)
    words: Sequence[str] = ()
    if isinstance(overrides, Mapping):
        last = [layer(overrides, "overrides")]
    else:
        last, words = [], _words(overrides)
    found = load_run(path, words, [*layers, *last], renamed, dotted=True)
    if shop is None:
        return found
    if shop.origin is None:
        raise UserError("shop: expected one made by Shop.from_folder or Shop.from_tables, which a run can read again")
    from fusionjax.data.prepare import cache_root

    named = layer(shop.origin.settings(cache_root(found.data)), "shop")
    return load_run(path, words, [*layers, named, *last], renamed, dotted=True)


def _words(overrides: Sequence[str]) -> list[str]:
    if isinstance(overrides, str) or not all(isinstance(each, str) for each in overrides):
        raise UserError(f"overrides: expected a list of 'KEY=VALUE' or a mapping, got {overrides!r}")
    return list(overrides)


def say_renamed(config: Config, renamed: Mapping[str, str], say: Say) -> None:
    """One line about keys of an earlier version, if there are any (`load_config`)."""
    if not renamed:
        return
    shown = ", ".join(list(renamed)[:8]) + (f" and {len(renamed) - 8} more" if len(renamed) > 8 else "")
    hint = "" if isinstance(config, Mapping) else f"; in today's keys: fusionjax config upgrade {config_file(config)}"
    say(f"keys of an earlier version: {shown}{hint}")


def upgrade_config(file: str | Path) -> str:
    """The text of a config file in today's keys, its comments kept.

    Raises:
      UserError: no such file, or what stands in it cannot be said in today's keys.
    """
    from fusionjax.config.rewrite import rewrite

    return rewrite(Path(file))


def dump_config(config: "schema.Run") -> str:
    """A resolved config as YAML, itself a valid config."""
    from fusionjax.config import dump_run

    return dump_run(config)


def config_schema() -> dict[str, Any]:
    """JSON Schema of config files, for editors."""
    from fusionjax.config import json_schema

    return json_schema()


# --------------------------------------------------------------------------------------------------------------- runs
@dataclasses.dataclass(frozen=True)
class Run:
    """A run that was trained and measured; stands for its folder wherever a path is expected."""

    run_dir: Path

    def __fspath__(self) -> str:
        return str(self.run_dir)

    @property
    def config(self) -> "schema.Run":
        return self._folder.config()

    @property
    def results(self) -> dict[str, Any]:
        """What results.json holds: metrics on validation and test, by task, beside the baselines."""
        return self._folder.results()

    @property
    def report(self) -> Path | None:
        """The page about it; a run of several seeds or settings has one a run folder, and none itself."""
        page = self.run_dir / "report.html"
        return page if page.exists() else None

    @functools.cached_property
    def model(self) -> "Model":
        """`fusionjax.load(run_dir)`."""
        return load(self.run_dir)

    @property
    def _folder(self) -> Any:
        from fusionjax.runs import RunFolder

        return RunFolder(self.run_dir)


def train(
    config: Config,
    shop: "Shop | None" = None,
    overrides: Overrides = (),
    run_dir: str | Path | None = None,
    say: Say = print,
) -> Run:
    """Trains a config, measures it, writes its run folder; the same call goes on where an earlier one was stopped.

    Args:
      config: a path, the name of a shipped config such as "quickstart", or a mapping.
      shop: instead of the config's data set, see `load_config`.
      overrides: what is changed in the config; wins over everything else.
      run_dir: default `runs/NAME-DIGEST`.
      say: told what happens, a line each.

    Raises:
      UserError: a mistake in config, data or folder.
      NonFiniteLoss, Interrupted: from training (`fusionjax.errors`).
    """
    renamed: dict[str, str] = {}
    resolved = load_config(config, overrides, shop, renamed)
    say_renamed(config, renamed, say)
    from fusionjax import pipeline
    from fusionjax.seeds import run_seeds
    from fusionjax.settings import run_settings

    name = "run" if isinstance(config, Mapping) else config_file(config).stem
    run = run_settings if resolved.settings else run_seeds if resolved.seeds else pipeline.run
    return Run(run(resolved, None if run_dir is None else Path(run_dir), name, say=say).path)


def evaluate(run: "str | Path | Run", tasks: Sequence[str] | None = None, say: Say = print) -> dict[str, Any]:
    """Measures a run's best checkpoint again; needs its data. Returns what results.json holds.

    Args:
      tasks: only these; then nothing is written. None: all, and results and report are written anew.

    Raises:
      UserError: no run there, one of several seeds, its data changed, or a task it is not measured on.
    """
    from fusionjax import pipeline

    return pipeline.evaluate(Path(run), say, tasks)[0]


def load(run: "str | Path | Run") -> "Model":
    """Opens a trained run, which answers from its index and best parameters; see `fusionjax.serving.model.load`."""
    from fusionjax.serving import model

    return model.load(Path(run))


def export(run: "str | Path | Run", folder: str | Path) -> Any:
    """Writes a run's text encoder as a checkpoint folder for other libraries; returns the `hub.Checkpoint`.

    Raises:
      UserError: the run has no text encoder; the folder holds something else.
    """
    from fusionjax.export import export as write

    return write(load(run), Path(folder))


def save_vectors(run: "str | Path | Run", out: str | Path, of: str | None = None) -> tuple[int, int]:
    """Writes ids and vectors: `.parquet` holds both, columns `id` and `vector`; beside `.npy` lies `NAME.ids.txt`, one a line.

    Args:
      of: products, entities or relations; None: products if the run has any, else entities.

    Returns:
      (rows, width).

    Raises:
      UserError: the run has no such vectors; another ending; an id with a line break in it (`.npy`).
    """
    from fusionjax.serving.vectors import write_vectors

    return write_vectors(load(run), Path(out), of)


# --------------------------------------------------------------------------------------------------------------- data
def data_sources() -> list[tuple[str, str]]:
    """Name and one-line description of every data set."""
    from fusionjax.data.prepare import list_sources

    return list_sources()


def prepare_data(config: "schema.Data", say: Say = print) -> "Prepared":
    """Builds a data set into the cache if it is not there; reads, cleans and splits it."""
    from fusionjax.data.prepare import prepare

    return prepare(config, log=say)


def describe_data(prepared: "Prepared", config: "schema.Data") -> "Description":
    """What a shop holds, as plain data."""
    from fusionjax.data.prepare import describe_prepared

    return describe_prepared(prepared, config)


def cleaning_effects(prepared: "Prepared") -> str:
    """What each step of cleaning changed, a line each."""
    from fusionjax.data.clean import render_effects

    return render_effects(prepared.cleaning)


def plot_long_tail(prepared: "Prepared", file: Path) -> None:
    """Draws how events are spread over products and users, a PNG."""
    from fusionjax.data.prepare import plot_long_tail as draw

    draw(prepared.shop, file)


# ---------------------------------------------------------------------------------------------------------------- texts
def encode_texts(
    texts: Path,
    checkpoint: str,
    out: Path,
    *,
    prompt: str | None = None,
    on_invalid: str = "error",
    precision: str = "float32",
    started: Callable[[int, int], None] = lambda total, done: None,
    progress: Callable[[int], None] | None = None,
) -> tuple[int, int]:
    """Writes vectors of a file of texts, one a line, by a pretrained encoder; see `fusionjax.encode.encode_file`.

    Returns:
      (lines, width of a vector).
    """
    from fusionjax.encode import Lines, encode_file
    from fusionjax.hub import fingerprint, locate
    from fusionjax.text_encoder import TextEncoder

    folder = locate(checkpoint)
    encoder = TextEncoder.from_pretrained(folder, precision)  # pyright: ignore[reportArgumentType]
    encoder.tokens([], prompt)  # an unknown prompt is said before a long file is read
    lines = Lines(texts, on_invalid)  # pyright: ignore[reportArgumentType]
    told: dict[str, Any] = {"started": started, "progress": progress}
    return encode_file(encoder, lines, out, fingerprint(folder), prompt=prompt, **told), encoder.width


# -------------------------------------------------------------------------------------------------------------- studies
def study(folder: str | Path, places: Sequence[str] = ()) -> Any:
    """A study's folder: `.plan()`, `.run(workers=1)`, `.report()`, `.verify()`.

    Args:
      folder: of the study, or its study.yaml.
      places: where data lie on this machine, `data.source_dir=FOLDER`.
    """
    from fusionjax.studying import Study

    return Study(Path(folder), tuple(places))
