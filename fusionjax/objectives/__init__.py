"""Objectives: what a run trains its towers on. One file each: its batches and its loss (formulas: `losses/`).

One from outside the package is an entry point in the group `fusionjax.objectives`.
"""

from fusionjax.objectives.alignment import Alignment
from fusionjax.objectives.base import Objective
from fusionjax.objectives.distillation import Distillation
from fusionjax.objectives.link_prediction.objective import LinkPrediction
from fusionjax.objectives.masked_lm import MaskedLM
from fusionjax.objectives.next_product import NextProduct
from fusionjax.objectives.query_product import QueryProduct
from fusionjax.registry import Registry

# Name → class, in the order of their sections in the config (`schema.Objectives`).
_OWN: dict[str, type[Objective]] = {
    "link_prediction": LinkPrediction,
    "alignment": Alignment,
    "query_product": QueryProduct,
    "next_product": NextProduct,
    "masked_words": MaskedLM,
    "distillation": Distillation,
}
OBJECTIVES: Registry[type[Objective]] = Registry("fusionjax.objectives", Objective, _OWN)

__all__ = ["OBJECTIVES", "Objective"]
