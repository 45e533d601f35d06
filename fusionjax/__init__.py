"""FusionJAX: joint text, product-graph and behaviour models of a shop.

`fusionjax.train` trains a config, `fusionjax.load` opens a trained run for search, recommendation and link prediction,
`fusionjax.evaluate` measures it again, `fusionjax.study` runs a study; `fusionjax.Shop` holds a shop's tables and
`fusionjax.TextEncoder` reads BERT-family checkpoints (see `fusionjax.api`). Importing the package imports nothing else: the
names are resolved when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fusionjax.api import evaluate, study, train
    from fusionjax.data.shop import Shop
    from fusionjax.serving.model import load
    from fusionjax.text_encoder import TextEncoder

__version__ = "0.1.0"
__all__ = ["Shop", "TextEncoder", "__version__", "evaluate", "load", "study", "train"]

_HOMES = {
    "Shop": "fusionjax.data.shop",
    "TextEncoder": "fusionjax.text_encoder",
    "evaluate": "fusionjax.api",
    "load": "fusionjax.serving.model",
    "study": "fusionjax.api",
    "train": "fusionjax.api",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'fusionjax' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
