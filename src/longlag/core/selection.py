"""Selection by a flag: how masks and resets act on whole trees."""

from __future__ import annotations

from typing import TypeVar

import jax
import jax.numpy as jnp

from longlag.core.promotion import match_rank

__all__ = ["poison", "select"]

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

    def pick(x: jax.Array, y: jax.Array) -> jax.Array:
        x, y = match_rank(x, y), match_rank(y, x)
        return jnp.where(flag.reshape(flag.shape + (1,) * (max(x.ndim, y.ndim) - flag.ndim)), x, y)

    return jax.tree.map(pick, if_true, if_false)


def poison(flag: jax.Array, tree: Tree) -> Tree:
    """Makes a tree NaN where a flag of the leading axes is true, with a gradient of zero there.

    The NaN is a quotient of zeros that exists only where the flag is true. So a program without one
    has no NaN in it, not even a constant, and `jax_debug_nans` may stay on.

    Args:
        flag: bool, `[*leading]`.
        tree: real arrays `[*leading, ...]`.
    """
    sound = jnp.logical_not(flag)
    nan = lambda x: jnp.expand_dims(  # noqa: E731
        jnp.zeros((), x.dtype) / sound.astype(x.dtype), range(flag.ndim, x.ndim)
    )
    return select(flag, jax.tree.map(nan, tree), tree)
