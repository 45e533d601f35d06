"""Graph-embedding scorers, one class a paper: shapes, first parameters, score, queries of one against all.

A new scorer is one class (see `base.Scorer`) and one line in `SCORERS`.
"""

from fusionjax.models.scorers.base import Dropout, Scorer, Shared, Sizes
from fusionjax.models.scorers.bilinear import ComplEx, DistMult, QuatE, SimplE
from fusionjax.models.scorers.conve import ConvE
from fusionjax.models.scorers.distances import PairRE, RotatE, RotatEL2, TransE
from fusionjax.models.scorers.initialise import Init
from fusionjax.models.scorers.matrices import Rescal
from fusionjax.models.scorers.tucker import TuckER

__all__ = ["SCORERS", "Dropout", "Init", "Scorer", "Shared", "Sizes", "make_scorer"]

_ALL = (TransE, DistMult, ComplEx, SimplE, RotatE, RotatEL2, Rescal, QuatE, PairRE, TuckER, ConvE)
SCORERS: dict[str, type[Scorer]] = {scorer.name: scorer for scorer in _ALL}


def make_scorer(name: str, sizes: Sizes) -> Scorer:
    """The scorer of that name.

    Raises:
      ValueError: no such scorer, or the sizes do not fit it.
    """
    if name not in SCORERS:
        raise ValueError(f"no scorer '{name}'; valid: {', '.join(SCORERS)}")
    return SCORERS[name](sizes)
