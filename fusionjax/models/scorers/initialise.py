"""First values of entity and relation tables."""

import dataclasses
from typing import Literal, get_args

import jax
from jaxtyping import Array, Float

InitName = Literal["xavier_normal", "xavier_uniform", "normal", "uniform", "paper"]


@dataclasses.dataclass(frozen=True)
class Init:
    """How a table starts; `scale` multiplies what the name says.

    `xavier_normal`, `xavier_uniform` (Glorot and Bengio 2010): the table [n, d] is read as a matrix of n inputs and d outputs,
    as PyTorch and LibKGE do, so the standard deviation √(2 / (n + d)) shrinks with the number of entities. `normal`: standard
    deviation 1. `uniform`: from −1 to 1. `paper`: the scorer's own, see its class.

    Raises:
      ValueError: no such name.
    """

    name: InitName = "paper"
    scale: float = 1.0

    def __post_init__(self) -> None:
        if self.name not in get_args(InitName):
            raise ValueError(f"no initialiser '{self.name}'; valid: {', '.join(get_args(InitName))}")


def draw(key: Array, shape: tuple[int, int], how: Init) -> Float[Array, "n d"]:
    """A table of any initialiser but `paper`."""
    n, d = shape
    match how.name:
        case "xavier_normal":
            return jax.random.normal(key, shape) * (how.scale * (2 / (n + d)) ** 0.5)
        case "normal":
            return jax.random.normal(key, shape) * how.scale
        case "xavier_uniform":
            bound = how.scale * (6 / (n + d)) ** 0.5
        case "uniform":
            bound = how.scale
        case "paper":
            raise ValueError("'paper' is the scorer's own: ask its init")
    return jax.random.uniform(key, shape, minval=-bound, maxval=bound)


def uniform(key: Array, shape: tuple[int, int], bound: float) -> Float[Array, "n d"]:
    """Between −bound and bound."""
    return jax.random.uniform(key, shape, minval=-bound, maxval=bound)
