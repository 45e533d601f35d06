"""Names that a config may use and what is known of them without importing JAX: our own scorers, tasks, samplers.

Both sides read this: the config, which checks what fits together, and the classes, which do the work. Of a plug-in's scorer the
same facts stand in its class (`Scorer.facts`).
"""

import dataclasses
from typing import Literal

ENTITY_KEYS = ("norm", "margin", "relation_dim", "convolution", "dropout")
"""Keys of `model.entity` that not every scorer reads; `dropout`: the rates inside a scorer."""
_COMPLEX, _QUATERNIONS = "half as many complex numbers", "a quarter as many quaternions"


@dataclasses.dataclass(frozen=True)
class ScorerFacts:
    """What is true of a scorer besides its formula."""

    title: str = ""
    """As papers write it."""
    citation: str = ""
    """Ours: a key of the bibliography; a plug-in's: words, such as `Smith et al. 2026`."""
    parts: int = 1
    """An entity's numbers are cut into that many equal parts."""
    kind: Literal["bilinear", "distance"] | None = None
    """Linear in head and in tail; a margin minus a distance; neither."""
    two_sided: bool = True
    """Whether heads can be asked for; else only by reciprocal relations (a tail query of the inverse relation)."""
    dura: bool = False
    """Whether the DURA penalty is defined for it."""
    predicts_relations: bool = False
    """Whether its score is a product with the relation, so that relations can be predicted."""
    reads: tuple[str, ...] = ()
    """Those of `ENTITY_KEYS` that it reads."""
    numbers: str = ""
    """What an entity's `dim` real numbers are read as, where they are no vector: `half as many complex numbers`."""


SCORERS: dict[str, ScorerFacts] = {
    "transe": ScorerFacts("TransE", "bordes2013transe", kind="distance", predicts_relations=True, reads=("norm", "margin")),
    "distmult": ScorerFacts("DistMult", "yang2015distmult", kind="bilinear", dura=True, predicts_relations=True),
    "complex": ScorerFacts(
        "ComplEx", "trouillon2016complex", 2, "bilinear", dura=True, predicts_relations=True, numbers=_COMPLEX
    ),
    "simple": ScorerFacts("SimplE", "kazemi2018simple", 2, "bilinear", dura=True, predicts_relations=True),
    "rotate": ScorerFacts("RotatE", "sun2019rotate", 2, "distance", reads=("margin",), numbers=_COMPLEX),
    "rotate_l2": ScorerFacts("RotatE with an L2 distance", "sun2019rotate", 2, "distance", reads=("margin",), numbers=_COMPLEX),
    "rescal": ScorerFacts(
        "RESCAL", "nickel2011rescal", kind="bilinear", dura=True, predicts_relations=True, reads=("dropout",)
    ),
    "tucker": ScorerFacts(
        "TuckER", "balazevic2019tucker", kind="bilinear", predicts_relations=True, reads=("relation_dim", "dropout")
    ),
    "conve": ScorerFacts("ConvE", "dettmers2018conve", two_sided=False, reads=("convolution", "dropout")),
    "quate": ScorerFacts("QuatE", "zhang2019quate", 4, "bilinear", numbers=_QUATERNIONS),
    "pairre": ScorerFacts("PairRE", "chao2021pairre", kind="distance", reads=("margin",)),
}

TASKS = ("link_prediction", "triple_classification", "search", "recommendation")
SAMPLERS = ("uniform", "degree", "typed")
SEGMENTS = (
    *("popularity", "degree", "history", "language", "query_length", "query_frequency"),
    *("seen", "direction", "relation", "relation_category"),
)
"""Of examples and targets, whatever the task."""
