"""Graph-embedding scorers, one class a paper: shapes, first parameters, score, queries of one against all.

A new scorer is one class (see `base.Scorer`) and one line in `SCORERS`; or, outside the package, an entry point in the group
`fusionjax.scorers`.
"""

from fusionjax.models.scorers.base import Dropout, Scorer, Shared, Sizes
from fusionjax.models.scorers.bilinear import ComplEx, DistMult, QuatE, SimplE
from fusionjax.models.scorers.conve import ConvE
from fusionjax.models.scorers.distances import PairRE, RotatE, RotatEL2, TransE
from fusionjax.models.scorers.initialise import Init
from fusionjax.models.scorers.matrices import Rescal
from fusionjax.models.scorers.tucker import TuckER
from fusionjax.registry import Registry

__all__ = ["SCORERS", "Dropout", "Init", "Scorer", "Shared", "Sizes", "make_scorer"]

_ALL = (TransE, DistMult, ComplEx, SimplE, RotatE, RotatEL2, Rescal, QuatE, PairRE, TuckER, ConvE)
SCORERS: Registry[type[Scorer]] = Registry("fusionjax.scorers", Scorer, {scorer.name: scorer for scorer in _ALL})


def make_scorer(name: str, sizes: Sizes) -> Scorer:
    """The scorer of that name.

    Raises:
      UserError: no such scorer, or it cannot be imported.
      ValueError: the sizes do not fit it.
    """
    return SCORERS[name](sizes)
