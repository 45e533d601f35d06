"""FusionJAX: joint text, product-graph and behaviour models of a shop.

`fusionjax.load(RUN)` opens a trained run for search, ranking, recommendation and similar products; `fusionjax.TextEncoder`
reads BERT-family checkpoints; `fusionjax.Shop` holds a shop's tables. Importing the package imports nothing else: the names are
resolved when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fusionjax.data.shop import Shop
    from fusionjax.serving.model import load
    from fusionjax.text_encoder import TextEncoder

__version__ = "0.1.0"
__all__ = ["Shop", "TextEncoder", "__version__", "load"]

_HOMES = {"load": "fusionjax.serving.model", "Shop": "fusionjax.data.shop", "TextEncoder": "fusionjax.text_encoder"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'fusionjax' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
