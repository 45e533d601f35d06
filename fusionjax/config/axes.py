"""Ready-made axes of a study: axis → value → the dotted overrides that make it. `{}` means as in the base config.

The first value of each is the base's. A row that takes a source away also takes away the objectives that have nothing left to
learn from, so that no row is compared while training on noise.
"""

import copy
from typing import Any

from fusionjax.errors import UserError, nearest

_NO_LINK = {"objectives.link_prediction.weight": 0}
_NO_ALIGNMENT = {"objectives.alignment.weight": 0}
_GRAPH_ONLY_TABLE = {"model.entity.behaviour": False}
_TEXT, _ENTITY, _BOTH = ({"model.product.sources": names} for names in (["text"], ["entity"], ["text", "entity"]))


def _switch(objective: str) -> dict[str, dict[str, Any]]:
    return {"on": {}, "off": {f"objectives.{objective}.weight": 0}}


def _each(names: tuple[str, ...], **settings: float) -> dict[str, Any]:
    return {f"objectives.{name}.{key}": value for name in names for key, value in settings.items()}


_ABOUT_GRAPH, _ABOUT_BEHAVIOUR = ("link_prediction",), ("query_product", "next_product")

READY: dict[str, dict[str, dict[str, Any]]] = {
    "graph": {
        "real": {},
        **{name: {"data.controls.graph": name} for name in ("relations_shuffled", "tails_shuffled", "random_same_degree")},
        "none": {"data.controls.graph": "none", **_NO_LINK},
        # Room for the words of eight edges.
        "as_text": {"data.controls.graph": "as_text", **_NO_LINK, "text.max_length": 96},
    },
    "text": {
        "real": {},
        "shuffled": {"data.controls.text": "shuffled"},
        "title_only": {"data.controls.text": "title_only"},
        "none": {"data.controls.text": "none", **_ENTITY, **_NO_ALIGNMENT},
    },
    "alignment": _switch("alignment"),
    "link_prediction": _switch("link_prediction"),
    "next_product": _switch("next_product"),
    "query_product": _switch("query_product"),
    # All in every step; graph and alignment in one step, behaviour in the next; one in the first half of the run, the others
    # in the second. Beside joint training the others make fewer updates of each objective in as many steps.
    "order": {
        "joint": {},
        "alternating": {
            **_each((*_ABOUT_GRAPH, "alignment"), every=2, offset=0),
            **_each(_ABOUT_BEHAVIOUR, every=2, offset=1),
        },
        "graph_first": {
            **_each(_ABOUT_GRAPH, begin=0.0, end=0.5),
            **_each((*_ABOUT_BEHAVIOUR, "alignment"), begin=0.5, end=1.0),
        },
        "behaviour_first": {
            **_each(_ABOUT_BEHAVIOUR, begin=0.0, end=0.5),
            **_each((*_ABOUT_GRAPH, "alignment"), begin=0.5, end=1.0),
        },
    },
    "graph_share": {
        "100": {},
        **{str(share): {"data.controls.graph_share": share / 100} for share in (50, 25, 10)},
        "0": {"data.controls.graph_share": 0.0, **_NO_LINK},
    },
    "events_share": {"100": {}, **{str(share): {"data.controls.events_share": share / 100} for share in (50, 25, 10)}},
    # What a product vector is made of. Next products and queries are learnt in every row; "graph" and "behaviour" say who
    # teaches the entity table.
    "sources": {
        "all": {},
        "text": {**_TEXT, **_NO_LINK, **_NO_ALIGNMENT},
        "graph": {**_ENTITY, **_GRAPH_ONLY_TABLE, **_NO_ALIGNMENT},
        "behaviour": {**_ENTITY, **_NO_LINK, **_NO_ALIGNMENT},
        "text_graph": {**_BOTH, **_GRAPH_ONLY_TABLE},
        "text_behaviour": {**_BOTH, **_NO_LINK},
        "graph_behaviour": {**_ENTITY, **_NO_ALIGNMENT},
    },
}


def ready(name: str) -> dict[str, dict[str, Any]]:
    """The values of a ready-made axis: value → dotted overrides; the caller's own copy.

    Raises:
      UserError: no such axis.
    """
    if name not in READY:
        raise UserError(f"axes: no ready-made axis '{name}'{nearest(name, READY)}")
    return copy.deepcopy(READY[name])
