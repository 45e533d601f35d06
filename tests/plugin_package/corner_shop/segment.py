"""A segment: whether the product to be found is cheaper than most."""

import numpy as np

from fusionjax.data.inputs import Inputs
from fusionjax.evaluation.scores import Examples, Segment


def price(examples: Examples, inputs: Inputs, split: int) -> Segment | None:
    prices = inputs.shop.products.price
    if np.isnan(prices).all():
        return None
    codes = (prices >= np.nanmedian(prices)).astype(np.int8)[examples.target]
    return Segment(("cheap", "dear"), codes, of="target")
