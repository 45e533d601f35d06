"""What answers are made of."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Hit:
    """One product of an answer, best first in its list."""

    id: str
    title: str
    score: float


@dataclasses.dataclass(frozen=True)
class Prediction:
    """One entity that may complete a triple, best first in its list."""

    id: str
    name: str
    score: float
    known: bool | None = None
    """Whether the completed triple stands in the data, of whichever split; None: not looked up (`known="keep"`)."""
