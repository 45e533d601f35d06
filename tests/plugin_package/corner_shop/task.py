"""A task: the share of a product's five nearest products that are of its brand."""

import dataclasses

import numpy as np

from fusionjax.baselines import Catalogue, measure_baselines
from fusionjax.data.shop import TEST
from fusionjax.evaluation.metrics import Result, mean, per_example
from fusionjax.evaluation.scores import Examples, Measure
from fusionjax.tasks import Task
from fusionjax.tasks.base import Data, sample
from fusionjax.tasks.predictor import Predictor

K = 5


@dataclasses.dataclass(frozen=True)
class Branded:
    rows: np.ndarray
    brand: np.ndarray

    def measured(self, unit: np.ndarray) -> Result:
        """Of product vectors of length 1, float32 [n_products, p]."""
        scores = unit[self.rows] @ unit.T
        scores[np.arange(len(self.rows)), self.rows] = -np.inf
        near = np.argsort(-scores, axis=1, kind="stable")[:, :K]
        values = (self.brand[near] == self.brand[self.rows][:, None]).mean(1)[:, None]
        n = len(self.rows)
        asked = Examples(BrandNeighbours.name, self.rows, np.arange(n + 1), self.rows, measures=BrandNeighbours.measures)
        each = per_example(asked, values)
        return Result({name: mean(value) for name, value in each.items()}, each, examples=asked, values=values)


class BrandNeighbours(Task[Branded]):
    name = "brand_neighbours"
    objective = None
    main = "brand_share"
    parts = ("products",)
    segments = ()
    measures = (Measure("brand_share"),)
    protocol = "the share of a product's five nearest products that are of its brand"

    def count(self, data: Data, split: int) -> int:
        return len(self.examples(data, split).rows)

    def examples(self, data: Data, split: int) -> Branded:
        """Every second product with a brand is of the test split, the others are of validation."""
        brand = data.inputs.shop.products.brand
        rows = np.flatnonzero(brand != "")
        return Branded(sample(rows[rows % 2 == (split == TEST)], data.most(split)), brand)

    def measure(self, predictor: Predictor, examples: Branded) -> Result:
        return examples.measured(predictor.unit_products())

    def baselines(self, data: Data, test: Branded) -> dict[str, Result]:
        known = Catalogue(data.inputs.n_products)
        more = data.more_baselines(self.name)
        return measure_baselines(self.name, known, lambda unit, on: on.measured(unit), test, more=more)
