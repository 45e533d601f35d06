"""Every scorer once more, number by number, from its paper: what the tests of scorers compare with."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from fusionjax.models.scorers import Scorer, Sizes, make_scorer

MARGIN = 3.0


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.Generator(np.random.Philox(seed)).normal(size=shape).astype(np.float32)


def transe(norm: int) -> "Loop":
    def loop(h: np.ndarray, r: np.ndarray, t: np.ndarray, shared: Any) -> float:
        return MARGIN - float(sum(abs(float(a + b - c)) ** norm for a, b, c in zip(h, r, t, strict=True)) ** (1 / norm))

    return loop


def distmult(h: np.ndarray, r: np.ndarray, t: np.ndarray, shared: Any) -> float:
    return sum(float(a * b * c) for a, b, c in zip(h, r, t, strict=True))


def complex_(h: np.ndarray, r: np.ndarray, t: np.ndarray, shared: Any) -> float:
    total, half = 0j, len(h) // 2
    for i in range(half):
        a, b, c = (complex(v[i], v[half + i]) for v in (h, r, t))
        total += a * b * c.conjugate()
    return total.real


def simple(h: np.ndarray, r: np.ndarray, t: np.ndarray, shared: Any) -> float:
    half = len(h) // 2
    return sum(float(h[i] * r[i] * t[half + i] + t[i] * r[half + i] * h[half + i]) for i in range(half)) / 2


def turned(h: np.ndarray, r: np.ndarray, t: np.ndarray) -> list[float]:
    """How far each complex number of the turned head is from the tail's."""
    half = len(r)
    return [abs(complex(h[i], h[half + i]) * np.exp(1j * r[i]) - complex(t[i], t[half + i])) for i in range(half)]


def rotate(h: np.ndarray, r: np.ndarray, t: np.ndarray, shared: Any) -> float:
    return MARGIN - sum(turned(h, r, t))


def rotate_l2(h: np.ndarray, r: np.ndarray, t: np.ndarray, shared: Any) -> float:
    return MARGIN - float(sum(each**2 for each in turned(h, r, t)) ** 0.5)


def rescal(h: np.ndarray, r: np.ndarray, t: np.ndarray, shared: Any) -> float:
    return sum(float(h[i] * r[i * len(h) + j] * t[j]) for i in range(len(h)) for j in range(len(h)))


def quate(h: np.ndarray, r: np.ndarray, t: np.ndarray, shared: Any) -> float:
    """Quaternions as complex 2 × 2 matrices, whose product is the Hamilton product."""
    total, quarter = 0.0, len(h) // 4

    def matrix(v: np.ndarray, place: int) -> np.ndarray:
        a, b, c, d = (float(v[part * quarter + place]) for part in range(4))
        return np.array([[a + b * 1j, c + d * 1j], [-c + d * 1j, a - b * 1j]])

    for place in range(quarter):
        turn = matrix(r, place)
        turned = matrix(h, place) @ (turn / np.sqrt(np.linalg.det(turn).real))
        total += float((turned * matrix(t, place).conj()).sum().real) / 2
    return total


def pairre(h: np.ndarray, r: np.ndarray, t: np.ndarray, shared: Any) -> float:
    h, t = h / np.linalg.norm(h), t / np.linalg.norm(t)
    return MARGIN - sum(abs(float(h[i] * r[i] - t[i] * r[len(h) + i])) for i in range(len(h)))


def tucker(h: np.ndarray, r: np.ndarray, t: np.ndarray, shared: Any) -> float:
    k, i, j = np.indices((len(r), len(h), len(t)))
    return float((np.asarray(shared["core"])[k, i, j] * r[k] * h[i] * t[j]).sum())


def conve(h: np.ndarray, r: np.ndarray, t: np.ndarray, shared: Any) -> float:
    """Images of 4 × 2, filters of 2 × 2: 7 × 1 places."""

    def standard(x: np.ndarray) -> np.ndarray:
        return (x - x.mean()) / np.sqrt(x.var() + 1e-5)

    part = {name: np.asarray(each, np.float64) for name, each in shared.items()}
    image = standard(np.concatenate([h[:8].reshape(4, 2), r.reshape(4, 2)]).astype(np.float64))
    image = image * part["image_scale"] + part["image_offset"]
    filters = part["filters"].reshape(2, 2, -1)
    maps = np.array([[(image[y : y + 2] * filters[..., f]).sum() for f in range(filters.shape[2])] for y in range(7)])
    maps = np.maximum(standard(maps) * part["maps_scale"] + part["maps_offset"], 0)
    query = standard(maps.reshape(-1) @ part["dense"]) * part["query_scale"] + part["query_offset"]
    return float(np.maximum(query, 0) @ t[:8] + t[8])


Loop = Callable[[np.ndarray, np.ndarray, np.ndarray, Any], float]
CASES: dict[str, tuple[Scorer, Loop]] = {
    "transe-1": (make_scorer("transe", Sizes(8, norm=1, margin=MARGIN)), transe(1)),
    "transe-2": (make_scorer("transe", Sizes(8, norm=2, margin=MARGIN)), transe(2)),
    "distmult": (make_scorer("distmult", Sizes(8)), distmult),
    "complex": (make_scorer("complex", Sizes(8)), complex_),
    "simple": (make_scorer("simple", Sizes(8)), simple),
    "rotate": (make_scorer("rotate", Sizes(8, margin=MARGIN)), rotate),
    "rotate_l2": (make_scorer("rotate_l2", Sizes(8, margin=MARGIN)), rotate_l2),
    "rescal": (make_scorer("rescal", Sizes(8)), rescal),
    "quate": (make_scorer("quate", Sizes(8)), quate),
    "pairre": (make_scorer("pairre", Sizes(8, margin=MARGIN)), pairre),
    "tucker": (make_scorer("tucker", Sizes(8, relation_dim=5)), tucker),
    "conve": (make_scorer("conve", Sizes(8, height=4, filters=3, kernel=2)), conve),
}
"""One or more of every scorer, entities of 8 numbers (and, in ConvE, a bias)."""


def parameters(scorer: Scorer, n_anchors: int = 3, n_entities: int = 5) -> tuple[Any, Any, Any, Any]:
    """Normal numbers: anchors (one end of a triple), a relation each, entities (the other end), shared parameters."""
    shared = {
        name: jnp.asarray(normal(*shape, seed=10 + place) / 2)
        for place, (name, shape) in enumerate(scorer.shared_shapes.items())
    }
    return (
        jnp.asarray(normal(n_anchors, scorer.entity_width)),
        jnp.asarray(normal(n_anchors, scorer.relation_width, seed=1)),
        jnp.asarray(normal(n_entities, scorer.entity_width, seed=2)),
        shared,
    )
