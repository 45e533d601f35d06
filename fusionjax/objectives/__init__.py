"""Objectives: what a run trains its towers on. One file each: its batches and its loss (formulas: `losses/`)."""

from fusionjax.objectives.alignment import Alignment
from fusionjax.objectives.base import Objective
from fusionjax.objectives.distillation import Distillation
from fusionjax.objectives.link_prediction.objective import LinkPrediction
from fusionjax.objectives.masked_lm import MaskedLM
from fusionjax.objectives.next_product import NextProduct
from fusionjax.objectives.query_product import QueryProduct

# Name → class, in the order of their sections in the config (`schema.Objectives`).
OBJECTIVES: dict[str, type[Objective]] = {
    "link_prediction": LinkPrediction,
    "alignment": Alignment,
    "query_product": QueryProduct,
    "next_product": NextProduct,
    "masked_words": MaskedLM,
    "distillation": Distillation,
}

__all__ = ["OBJECTIVES", "Objective"]
