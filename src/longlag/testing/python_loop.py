"""The semantics of a cell over a sequence, as plain as Python has it: the oracle of `unroll`.

One row and one step at a time, with Python's own `if` for masks and resets; the gradient is the one
that jax takes of just that. It knows nothing of `unroll`.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from longlag.core.cell import Cell
from longlag.core.ops import Params


class Flags(NamedTuple):
    """Mask and resets, `[B, T]` bool."""

    mask: np.ndarray
    resets: np.ndarray


@functools.partial(jax.jit, static_argnums=0)
def one_step(cell: Cell, params: Params, carry: Any, x: jax.Array) -> tuple[Any, Any]:
    """A step from an input as it comes."""
    return cell.step(params, carry, cell.project(params, x))


@functools.partial(jax.jit, static_argnums=0)
def first_carry(cell: Cell, params: Params) -> Any:
    """Of one row."""
    return cell.initial_carry(params)


def loop(cell: Cell, flags: Flags, params: Params, xs: jax.Array, carry: Any) -> tuple[Any, Any]:
    """All carries and outputs, `[B, T, ...]`, by the words of the contract."""
    rows, steps = flags.mask.shape
    each_x = iter(jnp.unstack(xs.reshape(rows * steps, *xs.shape[2:])))
    done = []
    for row in range(rows):
        state = jax.tree.map(lambda leaf, row=row: leaf[row], carry)
        for step in range(steps):
            x = next(each_x)
            if flags.resets[row, step]:
                state = first_carry(cell, params)
            if flags.mask[row, step]:
                state, y = one_step(cell, params, state, x)
            else:
                _, y = jax.eval_shape(functools.partial(one_step, cell), params, state, x)
                y = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), y)
            done.append((state, y))

    def stack(*leaves: jax.Array) -> jax.Array:
        return jnp.stack(leaves).reshape(rows, steps, *leaves[0].shape)

    return jax.tree.map(stack, *done)
