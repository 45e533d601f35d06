"""Losses: pure functions of tower outputs, each the mean over its examples."""

from fusionjax.losses.behaviour import sampled_softmax, softmax_over_catalogue
from fusionjax.losses.common import NEGATIVE, mean_of_valid, normalise
from fusionjax.losses.contrastive import info_nce, matryoshka, siglip, triplet
from fusionjax.losses.distillation import cosine_distillation, kl_distillation
from fusionjax.losses.graph import link_prediction
from fusionjax.losses.masked_words import masked_words

__all__ = [
    "NEGATIVE",
    "cosine_distillation",
    "info_nce",
    "kl_distillation",
    "link_prediction",
    "masked_words",
    "matryoshka",
    "mean_of_valid",
    "normalise",
    "sampled_softmax",
    "siglip",
    "softmax_over_catalogue",
    "triplet",
]
