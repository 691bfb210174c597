"""Dtypes and ranks of several arrays in one expression, promoted in so many words.

jax promotes both silently, but a user may have that refused, to find his own mistakes:
`jax_numpy_dtype_promotion="strict"` and `jax_numpy_rank_promotion="raise"`. So the library promotes
explicitly where arrays of different kinds meet. The compiled program is the same.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from longlag.core.placement import look_up as _take

__all__ = [
    "add",
    "allow_promotion",
    "at_least_float32",
    "contract",
    "look_up",
    "match_rank",
    "multiply",
    "promote",
    "through_float32",
    "widen",
]

Tree = TypeVar("Tree")


@contextlib.contextmanager
def allow_promotion() -> Iterator[None]:
    """Lets jax promote by itself, for the code of other libraries, which counts on it."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def at_least_float32(*xs: Any) -> Any:
    """The dtype of a sum of these arrays, dtypes or numbers, which is at least float32."""
    with jax.numpy_dtype_promotion("standard"):
        return jnp.result_type(jnp.float32, *xs)


def promote(*xs: Any) -> tuple[jax.Array, ...]:
    """Arrays in their common dtype, at least float32, and of one rank, so that they broadcast.

    A bias `[K]` beside `[T, B, K]` becomes `[1, 1, K]`.
    """
    dtype, rank = at_least_float32(*xs), max(map(jnp.ndim, xs))
    return tuple(_of_rank(jnp.asarray(x, dtype), rank) for x in xs)


def add(x: Any, y: Any) -> jax.Array:
    """`x + y` of arrays as `promote` makes them."""
    return jnp.add(*promote(x, y))


def multiply(x: Any, y: Any) -> jax.Array:
    """`x * y` of arrays as `promote` makes them."""
    return jnp.multiply(*promote(x, y))


def contract(subscripts: str, *xs: Any) -> jax.Array:
    """`jnp.einsum`, accumulated and returned in at least float32.

    Arrays of one dtype are multiplied in it, others in their common dtype.
    """
    with jax.numpy_dtype_promotion("standard"):
        dtype = jnp.result_type(*xs)
    xs = tuple(jnp.asarray(x, dtype) for x in xs)
    return jnp.einsum(subscripts, *xs, preferred_element_type=at_least_float32(dtype))


def look_up(table: Any, rows: jax.Array) -> jax.Array:
    """Rows of a table, NaN where it has no such row: -1 is not the last.

    Their gradients are added up in at least float32, however often a row is taken.

    Args:
        table: `[N, K]`.
        rows: `[...]` integers.

    Returns:
        `[..., K]` in the table's dtype.
    """
    table = jnp.asarray(table)
    return (_take if table.dtype == at_least_float32(table) else _take_half)(table, rows)


@jax.custom_jvp
def _take_half(table: jax.Array, rows: jax.Array) -> jax.Array:
    return _take(table, rows)


@_take_half.defjvp
def _(
    primals: tuple[jax.Array, jax.Array], tangents: tuple[jax.Array, Any]
) -> tuple[jax.Array, jax.Array]:
    # To take from a copy in float32 would copy all of the table for each look-up. The tangent alone
    # does, so that the transposed of it adds in float32.
    rows = _take_half(*primals)
    return rows, _take(widen(tangents[0]), primals[1]).astype(rows.dtype)


def match_rank(x: Any, like: Any) -> jax.Array:
    """`x` with axes of size one in front, as many axes as `like` has; a number stays a number."""
    return _of_rank(jnp.asarray(x), jnp.ndim(like))


def through_float32(tree: Tree) -> Callable[[], Tree]:
    """What gives a tree back, so that its gradients are added up in at least float32.

    For what the body of a scan closes over: the gradient of that is a sum over the steps.
    """
    wide = widen(tree)
    return lambda: jax.tree.map(lambda w, x: w if w is x else w.astype(x.dtype), wide, tree)


def widen(tree: Tree) -> Tree:
    """A tree whose floating leaves are in at least float32; the others stay as they are."""

    def widen_leaf(leaf: Any) -> Any:
        half = getattr(leaf, "dtype", None) in (jnp.bfloat16, jnp.float16)
        return jnp.asarray(leaf, jnp.float32) if half else leaf

    return jax.tree.map(widen_leaf, tree)


def _of_rank(x: jax.Array, rank: int) -> jax.Array:
    # A number broadcasts in every mode.
    return jnp.expand_dims(x, range(rank - x.ndim)) if 0 < x.ndim < rank else x
