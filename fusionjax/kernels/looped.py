"""Products of queries with their own candidates, on a CPU: of so few of all pairs that a matrix product is wasted on them.

XLA would look the candidates up into [q, n, w] numbers, or multiply every query with every entity. The loops of `loops` read a
row where it lies and keep nothing: q · n · w multiplications forwards, and twice as many backwards.
"""

import functools
from types import ModuleType

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def available() -> bool:
    """Whether numba is there, and JAX computes on a CPU."""
    return jax.default_backend() == "cpu" and _loops() is not None


@functools.cache
def _loops() -> ModuleType | None:
    """`loops`, imported where they are needed: numba takes half a second."""
    try:
        from fusionjax.kernels import loops
    except ImportError:  # numba is an optional dependency, and a jaxlib to come may differ: the other ways do, slower
        return None
    return loops


@jax.custom_vjp
def looped_products(
    query: Float[Array, "q w"], entities: Float[Array, "e w"], numbers: Int[Array, "q n"]
) -> Float[Array, "q n"]:
    """⟨query, entity⟩ of each query and the entities with its numbers, in full float32.

    Args:
      numbers: from 0 to e − 1; nothing checks them.
    """
    return _call("products", numbers.shape, query, entities, numbers)


def _forwards(query: Array, entities: Array, numbers: Array) -> tuple[Array, tuple[Array, Array, Array]]:
    return looped_products(query, entities, numbers), (query, entities, numbers)


def _backwards(kept: tuple[Array, Array, Array], gradient: Array) -> tuple[Array, Array, None]:
    query, entities, numbers = kept
    of_query = _call("of_queries", query.shape, entities, numbers, gradient)
    return of_query, _call("of_entities", entities.shape, query, numbers, gradient), None


looped_products.defvjp(_forwards, _backwards)


def _call(name: str, shape: tuple[int, ...], *arguments: Array) -> Array:
    loops = _loops()
    assert loops is not None
    loops.register()
    given = [x.astype(jnp.int32 if jnp.issubdtype(x.dtype, jnp.integer) else jnp.float32) for x in arguments]
    # vmap: one after the other, each on all cores.
    call = jax.ffi.ffi_call(f"fusionjax_{name}", jax.ShapeDtypeStruct(shape, jnp.float32), vmap_method="sequential")
    return call(*given)
