"""Selection by a flag: how masks and resets act on whole trees."""

from __future__ import annotations

from typing import TypeVar

import jax
import jax.numpy as jnp

__all__ = ["select"]

Tree = TypeVar("Tree")


def select(flag: jax.Array, if_true: Tree, if_false: Tree) -> Tree:
    """Selects, leaf by leaf, where a flag of the leading axes is true.

    A selection, unlike a product with zero, keeps the NaN of the branch that is not taken out of
    values and gradients.

    Args:
        flag: bool, `[*leading]`.
        if_true: a tree whose leaves broadcast to `[*leading, ...]`: numbers of any dtype, bools,
            typed keys; None stays None.
        if_false: a tree of the same structure.
    """

    def pick(x, y):
        ndim = max(jnp.ndim(x), jnp.ndim(y))
        return jnp.where(flag.reshape(flag.shape + (1,) * (ndim - flag.ndim)), x, y)

    return jax.tree.map(pick, if_true, if_false)
