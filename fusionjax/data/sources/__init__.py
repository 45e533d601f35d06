"""Where shops come from. A data set is one module here with a `ShopBuilder`, and one line below.

One from outside the package is an entry point in the group `fusionjax.sources`.
"""

from fusionjax.data.tables import ShopBuilder
from fusionjax.errors import UserError, nearest
from fusionjax.registry import Registry, is_dotted

_OWN = {
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
SOURCES: Registry[type[ShopBuilder]] = Registry("fusionjax.sources", ShopBuilder, _OWN)
"""`data.name` → builder, imported when used."""


def builder_class(name: str) -> type[ShopBuilder]:
    """The builder of data set `name`.

    Raises:
      UserError: there is none, with the nearest name; or it is a plug-in's that cannot be used.
    """
    if name not in SOURCES and not is_dotted(name):
        raise UserError(f"data.name: no data set '{name}'{nearest(name, SOURCES.names())}")
    return SOURCES[name]


def list_sources() -> list[tuple[str, str]]:
    """Name and one-line description of every data set; of a plug-in's the package, for it is not imported."""
    return [(name, SOURCES[name].SUMMARY if name in _OWN else f"of {SOURCES.origin(name)}") for name in SOURCES.names()]
