"""From `data.name` to a shop ready to train on: build once into the cache, read, clean, split; and describe what it holds.

The cache holds raw tables under `<root>/<name>-<12 hex digits>`, the digits hashing all that determines them. A folder appears
there complete or not at all: it is built beside its place and renamed, so a killed run leaves only a folder that the next run
removes, and of two runs that prepare the same shop at once the later one discards its copy.
"""

import dataclasses
import errno
import hashlib
import json
import os
import shutil
import socket
import uuid
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from fusionjax.config import schema
from fusionjax.data import clean, graph, split, tables
from fusionjax.data.shop import PARTS, SPLITS, Shop
from fusionjax.data.sources import builder_class, list_sources
from fusionjax.data.text import LANGUAGES, language
from fusionjax.errors import UserError
from fusionjax.files import whole

__all__ = [
    "Description",
    "Prepared",
    "cache_root",
    "describe",
    "describe_prepared",
    "list_sources",
    "plot_long_tail",
    "prepare",
]

Log = Callable[[str], Any]


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A shop, cleaned and split, and where it comes from."""

    shop: Shop
    fingerprint: str
    """Of `shop` as it is here."""
    cleaning: list[Any]
    """`clean.Effect`s, in the order of the steps."""
    source: dict[str, Any]
    """JSON: data set, version, key (parameters, file checksums), fingerprint of the raw shop."""


def cache_root(config: schema.Data) -> Path:
    """`data.cache_dir`, else `$FUSIONJAX_CACHE`, else `~/.cache/fusionjax`."""
    chosen = config.cache_dir or os.environ.get("FUSIONJAX_CACHE") or Path.home() / ".cache" / "fusionjax"
    return Path(chosen).expanduser().absolute()


def prepare(config: schema.Data, *, seed: int = 0, log: Log = print) -> Prepared:
    """Builds the shop `config.name` if the cache lacks it, reads, cleans and splits it.

    Args:
      config: the `data` section.
      seed: of the splits. It belongs to the data: do not pass the run's seed, or runs cannot be compared.
      log: told one line at a time what happens.

    Raises:
      UserError: unknown data set, unreadable or malformed source.
    """
    raw, source = _raw_shop(config, log)
    cleaned, effects = clean.clean(raw, config.clean)
    shop = split.assign_splits(cleaned, config.split, seed)
    return Prepared(shop=shop, fingerprint=shop.fingerprint(), cleaning=effects, source=source)


def _raw_shop(config: schema.Data, log: Log) -> tuple[Shop, dict[str, Any]]:
    builder = builder_class(config.name)
    key = {"name": config.name, "version": str(builder.VERSION), **builder.key(config)}
    digest = hashlib.sha256(json.dumps(key, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
    root = cache_root(config)
    folder = root / f"{config.name}-{digest[:12]}"
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{root}: cannot make the cache there ({error.strerror}); set data.cache_dir or FUSIONJAX_CACHE"
        ) from error
    _remove_abandoned(root)
    manifest = tables.read_manifest(folder)
    if manifest is not None:
        for note in manifest.get("notes", ()):
            log(f"{config.name}: {note}")
        return tables.shop_from_tables(folder), {**key, "raw_fingerprint": manifest["fingerprint"]}
    log(f"preparing data set {config.name} in {folder}")
    partial = root / f".partial-{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    try:
        shop = tables.build_tables(builder, config, partial, download_dir=root / "downloads", extra={"key": key}, log=log)
        for note in (tables.read_manifest(partial) or {}).get("notes", ()):
            log(f"{config.name}: {note}")
        _move_into_place(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return shop, {**key, "raw_fingerprint": shop.fingerprint()}


def _move_into_place(partial: Path, folder: Path) -> None:
    """Renames `partial` to `folder`; junk there gives way, a finished folder (another process was faster) stays."""
    for _ in range(3):
        try:
            os.rename(partial, folder)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise
        if tables.read_manifest(folder) is not None:
            return
        junk = partial.with_name(f"{partial.name}-junk")
        os.rename(folder, junk)
        shutil.rmtree(junk) if junk.is_dir() else junk.unlink()
    raise OSError(f"cannot move {partial} to {folder}: it keeps coming back")


def _remove_abandoned(root: Path) -> None:
    """Removes what killed processes of this machine left half built."""
    for path in sorted(root.glob(".partial-*")):
        host, pid = path.name.removeprefix(".partial-").rsplit("-", 2)[:2] if path.name.count("-") >= 3 else ("", "")
        if host == socket.gethostname() and pid.isdigit() and not process_exists(int(pid)):
            shutil.rmtree(path, ignore_errors=True)


def process_exists(pid: int) -> bool:
    """Whether a process of this machine has that number now."""
    if os.name != "posix":  # elsewhere signal 0 is not a mere question
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


# ---------------------------------------------------------------------------------------------------------- describe
@dataclasses.dataclass(frozen=True)
class Description:
    """What a shop holds, as plain data."""

    name: str
    summary: str
    fingerprint: str
    source: dict[str, Any]
    counts: dict[str, int]
    """Rows of each part."""
    cleaning: list[Any]
    popularity: dict[str, float]
    """Share of all events on the most popular 1, 10, 50 % of products (`top_1%`, …), share of products without any event
    (`untouched`); empty without events."""
    events_per_user: dict[str, float]
    """`min`, `25%`, `median`, `75%`, `95%`, `max`, `mean`; empty without events."""
    kinds: dict[str, int]
    splits: dict[str, dict[str, int]]
    """Rows by split of each part that has splits."""
    relations: dict[str, dict[str, int]]
    """Edges by split of each relation of the graph built from this shop, by its readable name where there is one."""
    languages: dict[str, int]
    """Products by language of the title: `zh`, `en`, `mixed`, `none`."""
    samples: dict[str, list[dict[str, str]]]
    """A few rows of each part, references resolved to names."""
    graph: dict[str, int] = dataclasses.field(default_factory=dict)
    """Number of entities and of relations of that graph; empty without one."""


def describe(config: schema.Data, *, log: Log = print, samples: int = 3) -> Description:
    """Prepares the shop and describes it."""
    return describe_prepared(prepare(config, log=log), config, samples=samples)


def describe_prepared(prepared: Prepared, config: schema.Data, *, samples: int = 3) -> Description:
    """Describes a prepared shop; `samples` rows of each part are shown."""
    shop = prepared.shop
    products, events = shop.products, shop.events
    popularity: dict[str, float] = {}
    per_user: dict[str, float] = {}
    if events is not None and len(events):
        touched = np.bincount(events.product, minlength=len(products) if products is not None else 0)
        counts = np.sort(touched)[::-1]
        for percent in (1, 10, 50):
            top = max(1, round(len(counts) * percent / 100))
            popularity[f"top_{percent}%"] = float(counts[:top].sum() / counts.sum())
        popularity["untouched"] = float(np.mean(counts == 0))
        per_user = _quantiles(_per_user(shop))
    built = graph.build_graph(shop, config.graph, config.split) if shop.has("products") or shop.has("triples") else None
    return Description(
        name=shop.name,
        summary=builder_class(config.name).SUMMARY,
        fingerprint=prepared.fingerprint,
        source=prepared.source,
        counts=shop.counts(),
        cleaning=prepared.cleaning,
        popularity=popularity,
        events_per_user=per_user,
        kinds={kind: int(np.sum(events.kind == code)) for code, kind in enumerate(events.kinds)} if events is not None else {},
        splits={
            part: _splits(getattr(shop, part).split)
            for part in ("triples", "events", "judgments", "negatives")
            if shop.has(part)
        },
        relations=_named_relations(shop, built.relation_counts()) if built is not None else {},
        languages=_languages(products.title) if products is not None else {},
        samples={part: _samples(shop, part, samples) for part in PARTS if shop.has(part)},
        graph={"entities": len(built.entities), "relations": len(built.relations)} if built is not None else {},
    )


def _per_user(shop: Shop) -> np.ndarray:
    """Events of each user who has any."""
    events: Any = shop.events
    counts = np.bincount(events.user)
    return counts[counts > 0]


def _quantiles(values: np.ndarray) -> dict[str, float]:
    points = {"min": 0.0, "25%": 0.25, "median": 0.5, "75%": 0.75, "95%": 0.95, "max": 1.0}
    found = {name: float(np.quantile(values, point)) for name, point in points.items()}
    return {**found, "mean": float(values.mean())}


def _splits(codes: np.ndarray) -> dict[str, int]:
    found = {name: int(np.sum(codes == code)) for code, name in enumerate(SPLITS)}
    unassigned = len(codes) - sum(found.values())
    return {**found, "unassigned": unassigned} if unassigned else found


def _languages(titles: np.ndarray) -> dict[str, int]:
    found = Counter(map(language, titles))
    return {name: found[name] for name in LANGUAGES}


def _named_relations(shop: Shop, counts: dict[str, dict[str, int]]) -> dict[str, dict[str, int]]:
    """By name; two of one name keep their ids beside it."""
    names = {name: _names(shop.relations).get(name, name) for name in counts}
    bearers = Counter(names.values())
    return {
        names[name] if bearers[names[name]] == 1 else f"{names[name]} ({name})": by_split for name, by_split in counts.items()
    }


def _names(table: Any, only: Iterable[str] | None = None) -> dict[str, str]:
    """Id → name of entities or relations that have one."""
    if table is None:
        return {}
    wanted = None if only is None else set(only)
    pairs = zip(table.id, table.name, strict=True)
    return {id: name for id, name in pairs if name and (wanted is None or id in wanted)}


def _samples(shop: Shop, part: str, n: int) -> list[dict[str, str]]:
    """Rows spread evenly over the table."""
    table: Any = getattr(shop, part)
    rows = np.unique(np.linspace(0, len(table) - 1, min(n, len(table))).astype(np.int64))
    if part in ("triples", "negatives", "literals"):
        return _graph_samples(shop, part, rows)
    columns = table.columns()
    if part == "events":
        columns["kind"] = np.array(table.kinds, dtype=object)[table.kind]
    for name, target in (("user", "users"), ("product", "products"), ("query", "queries")):
        named: Any = getattr(shop, target)
        if name in columns and named is not None:
            names = named.text if target == "queries" else named.id
            columns[name] = np.array([names[row] if row >= 0 else "" for row in columns[name][rows]], dtype=object)
        elif name in columns:
            columns[name] = columns[name][rows]
    resolved = {"user", "product", "query"}
    found: list[dict[str, str]] = []
    for place, row in enumerate(rows):
        cells = {name: column[place] if name in resolved else column[row] for name, column in columns.items()}
        if "split" in cells:
            cells["split"] = SPLITS[cells["split"]] if cells["split"] >= 0 else ""
        found.append({name: str(cell) for name, cell in cells.items()})
    return found


def _graph_samples(shop: Shop, part: str, rows: np.ndarray) -> list[dict[str, str]]:
    """Triples or literals, entities and relations by name where they have one."""
    table = getattr(shop, part).take(rows)  # few: a graph may have millions
    columns = (
        {"entity": table.entity}
        if part == "literals"
        else {
            "head": table.entities[table.head],
            "relation": table.relations[table.relation],
            "tail": table.entities[table.tail],
        }
    )
    ids = {id for name, column in columns.items() if name != "relation" for id in column}
    entities, relations = _names(shop.entities, ids), _names(shop.relations)
    for name, column in columns.items():
        named = relations if name == "relation" else entities
        columns[name] = [named.get(id, id) for id in column]
    if part == "literals":
        columns |= {"attribute": table.attribute, "value": table.value}
    else:
        columns["split"] = [SPLITS[code] if code >= 0 else "" for code in table.split]
    return [dict(zip(columns, map(str, row), strict=True)) for row in zip(*columns.values(), strict=True)]


def plot_long_tail(shop: Shop, path: Path | str) -> None:
    """Writes a PNG: events of each product against its rank (both logarithmic), and how many events users have.

    Raises `UserError` if the shop has no events or `path` cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shop.require("events", purpose="the long-tail plot")
    events: Any = shop.events
    counts = np.sort(np.bincount(events.product))[::-1]
    counts = counts[counts > 0]
    per_user = _per_user(shop)
    figure = Figure(figsize=(10, 4), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    left.loglog(np.arange(1, len(counts) + 1), counts)
    left.set(xlabel="product, by popularity", ylabel="events", title=f"{shop.name}: popularity of {len(counts):,} products")
    edges = np.unique(np.geomspace(per_user.min(), per_user.max() + 1, 40).astype(np.int64))
    right.hist(per_user, bins=edges if len(edges) > 1 else 1)
    right.set(xlabel="events", ylabel="users", xscale="log", title=f"events of {len(per_user):,} users")
    path = Path(path)
    if not path.parent.is_dir():  # more likely a slip than a wish for a new folder
        raise UserError(f"{path}: cannot write there: there is no folder {path.parent}")
    try:
        with whole(path) as temporary:
            figure.savefig(temporary, format="png", dpi=120)
    except OSError as error:
        raise UserError(f"{path}: cannot write there: {error.strerror}") from error
