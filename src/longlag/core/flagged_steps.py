"""Masks and resets around the steps of a cell: what `Cell.scan` runs, one step after another.

Letters: B batch, T time, C steps of a chunk of it. What `project` returned is `u`, and what the
`mix` of a dense cell returned is `z`, as in `core/scans/step.py`, which takes the three functions
that are made here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from longlag.core.checks import check_like, check_rows
from longlag.core.ops import Params, keep_dtype
from longlag.core.options import ScanOptions
from longlag.core.promotion import at_least_float32
from longlag.core.scans import step
from longlag.core.selection import select

if TYPE_CHECKING:
    from longlag.core.cell import Cell

__all__ = ["checked_step", "scan_steps"]


def scan_steps(
    cell: Cell,
    params: Params,
    carry: Any,
    xs: jax.Array,
    options: ScanOptions,
    *,
    first: Any,
    mask: jax.Array | None,
    resets: jax.Array | None,
    key: jax.Array | None,
) -> tuple[Any, jax.Array]:
    """`Cell.scan` of a cell whose steps wait for each other; arguments and results are its own."""
    method, backward = options.method, options.backward
    if method not in ("auto", "scan"):
        raise ValueError(
            f"method: expected 'auto' or 'scan' for {type(cell).__name__}, which is not a "
            f"linear cell; got {method!r}"
        )
    rows = xs.shape[1]
    # Noise is drawn for the whole sequence, whatever the chunks.
    noisy = key is not None

    def project_chunk(consts, inputs):
        """Of xs `[C, B, ...]` or, with noise, u; mask and resets are `[C, B]` or None."""
        xs, live, reset = inputs
        return (xs if noisy else cell._project(consts[0], xs, live)), live, reset

    def begin_step(consts, carry, inputs):
        """The carry before the step, and the carry, the u and the flag that the step is taken from.

        Leaves of carries and of u are `[B, ...]`, flags `[B]`.
        """
        u, live, reset = inputs
        given, first = carry, jax.tree.map(_as_wide, consts[1], carry)
        carry = jax.tree.map(_as_wide, carry, consts[1])
        if reset is not None:
            carry = select(reset, first, carry)
        # A masked step is computed and thrown away. It starts from a clean carry, since zero
        # times a NaN in the kept one would be a NaN in the gradient.
        start = carry if live is None else select(live, carry, first)
        return jax.tree.map(keep_dtype, carry, given), start, u, live

    def mix_step(consts, carry, inputs):
        """z of a step, leaves `[B, ...]`."""
        _, start, u, _ = begin_step(consts, carry, inputs)
        return cell._mix(consts[0], start, u)

    def update_step(consts, carry, inputs, z):
        """The new carry, leaves `[B, ...]` in the dtypes of the old one, and the output."""
        carry, start, u, live = begin_step(consts, carry, inputs)
        new, y = checked_step(cell, cell._update(consts[0], start, u, z), start)
        check_rows("a step's output", y, (rows,), str(cell))
        new = jax.tree.map(keep_dtype, new, carry)
        if live is not None:
            new = select(live, new, carry)
            y = select(live, y, jax.tree.map(jnp.zeros_like, y))
        return new, y

    return step.scan(
        project_chunk,
        mix_step,
        update_step,
        (params, first),
        carry,
        (cell._project(params, xs, mask, key) if noisy else xs, mask, resets),
        reverse=options.reverse,
        every_carry=options.every_carry,
        backward=cell._backward() if backward == "auto" else backward,
        rows=rows,
    )


def checked_step(cell: Cell, returned: Any, carry: Any) -> tuple[Any, Any]:
    """What a step returned, refused unless it is a carry like the one before, and an output."""
    if not (isinstance(returned, tuple) and len(returned) == 2):
        raise ValueError(
            f"{cell}: expected a step to return two things, the new carry and the output; got "
            f"{type(returned).__name__}"
        )
    check_like("a step's new carry", returned[0], carry, str(cell))
    return returned


def _as_wide(leaf: jax.Array, natural: jax.Array) -> jax.Array:
    """A leaf of a carry that a step can take: of at least the dtype that the cell's own has."""
    floating = jnp.issubdtype(leaf.dtype, jnp.floating)
    return leaf.astype(at_least_float32(leaf, natural)) if floating else leaf
