"""What an objective is: batches made on the host, and a loss on the towers.

A batch is a pure function of (seed, number of the batch), so a resumed run goes on with the batches of one that never
stopped. What an objective needs of the data (parts of the shop, texts, entities) stands in its section of the config
(`config.schema.Objective`), where `data/` can read it too.

A new objective is a section in `config/objectives.py`, a file here, and a line in the table of `objectives/__init__.py`. One
from outside the package brings its `section`, and its keys stand under `objectives.plugins.NAME` (`docs/plugins.md`).
"""

import abc
from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from jaxtyping import Array, Float

from fusionjax.config import schema
from fusionjax.data.inputs import Inputs
from fusionjax.objectives.sampling import Shuffle
from fusionjax.objectives.towers import Towers

Entry = dict[str, np.ndarray]
"""The arrays of one objective's batch; the first axis of each is the example's."""


class Objective(abc.ABC):
    """An objective of one run: made of its inputs and its config, it gives batch after batch."""

    name: ClassVar[str]
    """Its section in `objectives` of a config, its entry in a step's batch, and its loss in the metrics."""
    section: ClassVar[type[schema.Objective] | None] = None
    """A plug-in's: the class of its section in `objectives.plugins`."""
    owns_text: ClassVar[bool] = False
    """Reads texts of its own and no product vectors: a step of such objectives alone encodes no live rows."""
    packs_tokens: ClassVar[bool] = False
    """Reads `tokens` by `Towers.encode` alone, so that `text.pack` may pack them; else it asks for rows and columns of them."""
    shuffle: Shuffle
    """The order of its training examples, made by the constructor."""

    @abc.abstractmethod
    def __init__(self, inputs: Inputs, config: schema.Run) -> None:
        """Prepares what its batches are made of.

        Raises:
          UserError: there is nothing to train on.
        """

    @property
    def steps_per_epoch(self) -> int:
        """Batches after which each training example has been in one."""
        return self.shuffle.per_epoch

    @abc.abstractmethod
    def batch(self, index: int) -> Entry:
        """Batch number `index`, of arrays `[batch_size, …]`; the same whatever was asked for before."""

    @staticmethod
    def live_products(batch: Entry) -> Mapping[int, np.ndarray]:
        """Products (int [n]) whose text a step should encode with gradient, by turn: if not all fit, lower turns come first.

        Products that are positive and negative alike may be named here. Those that are positive only must not: among product
        vectors read from the bank the ones encoded just now stand out, and the loss would reward freshness.
        """
        return {}

    @staticmethod
    @abc.abstractmethod
    def loss(towers: Towers, batch: dict[str, Array]) -> Float[Array, ""]:
        """Mean loss over the batch, unweighted. Pure: all randomness comes from `towers.next_key`."""
