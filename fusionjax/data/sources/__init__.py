"""Where shops come from. A data set is one module here with a `ShopBuilder`, and one line below."""

import importlib

from fusionjax.data.tables import ShopBuilder
from fusionjax.errors import UserError, nearest

SOURCES = {
    "demo_shop": "fusionjax.data.sources.demo_shop:DemoShopBuilder",
    "amazon_beauty": "fusionjax.data.sources.amazon_beauty:AmazonBeautyBuilder",
    "home_depot": "fusionjax.data.sources.home_depot:HomeDepotBuilder",
    "codex_s": "fusionjax.data.sources.graphs.codex:CodexSBuilder",
    "codex_m": "fusionjax.data.sources.graphs.codex:CodexMBuilder",
    "codex_l": "fusionjax.data.sources.graphs.codex:CodexLBuilder",
    "fb15k237": "fusionjax.data.sources.graphs.fb15k237:Fb15k237Builder",
    "wn18rr": "fusionjax.data.sources.graphs.wn18rr:Wn18rrBuilder",
    "yago3_10": "fusionjax.data.sources.graphs.yago3_10:Yago310Builder",
    "wikidata5m": "fusionjax.data.sources.graphs.wikidata5m:Wikidata5mBuilder",
    "umls": "fusionjax.data.sources.graphs.small:UmlsBuilder",
    "kinship": "fusionjax.data.sources.graphs.small:KinshipBuilder",
    "nations": "fusionjax.data.sources.graphs.small:NationsBuilder",
    "files": "fusionjax.data.sources.files:FilesBuilder",
    "triples": "fusionjax.data.sources.graphs.triples:TriplesBuilder",
}
"""`data.name` → module:class, imported when used."""


def builder_class(name: str) -> type[ShopBuilder]:
    """The builder of data set `name`; `UserError` with the nearest name if there is none."""
    if name not in SOURCES:
        raise UserError(f"data.name: no data set '{name}'{nearest(name, SOURCES)}")
    module, _, attribute = SOURCES[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def list_sources() -> list[tuple[str, str]]:
    """Name and one-line description of every data set."""
    return [(name, builder_class(name).SUMMARY) for name in SOURCES]
