"""The meaning of `unroll`, as a plain `jax.lax.scan`. Read this first.

Everything else in `core` computes the same with less memory or time, and refuses wrong arguments
before anything is compiled. `longlag.testing.check_cell` compares the two for every cell.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from longlag.core.array_types import Mask, Resets, Sequences
from longlag.core.cell import CarryT, Cell
from longlag.core.ops import Params
from longlag.core.selection import select

__all__ = ["scan_reference"]


def scan_reference(
    cell: Cell[CarryT],
    params: Params,
    xs: Sequences,
    carry: CarryT | None = None,
    *,
    mask: Mask | None = None,
    resets: Resets | None = None,
    reverse: bool = False,
) -> tuple[CarryT, Any]:
    """Runs a cell over a sequence as `unroll` does, for reading and for tests.

    Nothing is checked, and there is no noise.

    Args:
        cell: the cell.
        params: its parameters, from `cell.init`.
        xs: inputs `[B, T, ...]`.
        carry: the state to begin with, in the dtypes of `cell.initial_carry`, which None means.
        mask: `[B, T]` bool, false at padding; None means all true.
        resets: `[B, T]` bool, true where a new sequence begins; None means none.
        reverse: from the last step to the first.

    Returns:
        The carry after the last step, leaves `[B, ...]`, and the outputs `[B, T, ...]`.
    """
    first = cell.initial_carry(params, xs.shape[:1])
    mask = jnp.ones(xs.shape[:2], bool) if mask is None else jnp.asarray(mask)
    resets = jnp.zeros(xs.shape[:2], bool) if resets is None else jnp.asarray(resets)

    def take_step(carry: Any, inputs: list[jax.Array]) -> tuple[Any, Any]:
        x, live, reset = inputs  # [B, ...], [B] and [B]
        # The reset comes first, whatever the mask.
        carry = select(reset, first, carry)
        # A masked step is taken all the same, from a clean input and a clean carry: a NaN there
        # would reach the gradient, since 0 * NaN is NaN.
        u = cell.project(params, select(live, x, jnp.zeros_like(x)))
        new, y = cell.step(params, select(live, carry, first), u)
        # Then it is thrown away: the carry stays as it is, and the output is zero.
        return select(live, new, carry), select(live, y, jax.tree.map(jnp.zeros_like, y))

    # `jax.lax.scan` cuts the leading axis: [B, T, ...] to [T, B, ...].
    inputs = [jnp.swapaxes(array, 0, 1) for array in (xs, mask, resets)]
    start = first if carry is None else carry
    last, ys = jax.lax.scan(take_step, start, inputs, reverse=reverse)
    return last, jax.tree.map(lambda y: jnp.swapaxes(y, 0, 1), ys)
