"""Symbolic lengths of `jax.export`, unknown while a program is traced.

Nothing may be decided by such a length, and no tree of its depth built. What is parallel in time
for a known length then goes one step after another.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax.export import is_symbolic_dim

from longlag.core.placement import zeros_like
from longlag.core.selection import select

__all__ = ["associative_scan", "is_known"]

Tree = TypeVar("Tree")


def is_known(length: Any) -> bool:
    """Whether a length is a number."""
    return not is_symbolic_dim(length)


def associative_scan(
    combine: Callable[[Any, Any], Any], elements: Tree, *, reverse: bool = False, axis: int = 0
) -> Tree:
    """`jax.lax.associative_scan`, which takes any length here.

    Args:
        combine: an associative function of two trees.
        elements: a tree of arrays of one length.
        reverse: from the last element to the first.
        axis: the axis that is scanned.
    """
    if is_known(jax.tree.leaves(elements)[0].shape[axis]):
        return jax.lax.associative_scan(combine, elements, reverse=reverse, axis=axis)
    elements = jax.tree.map(lambda x: jnp.moveaxis(x, axis, 0), elements)

    def take_step(state: tuple[jax.Array, Any], element: Any) -> tuple[Any, Any]:
        # Whether there was an element before, a bool, and the total of those before.
        begun, total = state
        total = select(begun, combine(total, element), element)
        return (jnp.ones_like(begun), total), total

    nothing = jax.tree.map(lambda x: zeros_like(x[0]), elements)
    _, totals = jax.lax.scan(take_step, (jnp.zeros((), bool), nothing), elements, reverse=reverse)
    return jax.tree.map(lambda x: jnp.moveaxis(x, 0, axis), totals)
