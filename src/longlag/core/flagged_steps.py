"""Masks and resets around the steps of a cell: what `Cell.scan` runs, one step after another.

Letters: B batch, T time, C steps of a chunk of it. What `project` returned is `u`, and what the
`mix` of a dense cell returned is `z`, as in `core/scans/step.py`, which takes the three functions
that are made here. They are the `_prepare`, `_begin` and `_finish` of the cell, with flags.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import jax
import jax.numpy as jnp

from longlag.core.checks import check_like, check_rows
from longlag.core.ops import Params, keep_dtype
from longlag.core.options import ScanOptions
from longlag.core.promotion import at_least_float32
from longlag.core.scans.step import step_scan
from longlag.core.selection import select

if TYPE_CHECKING:
    from longlag.core.cell import Cell

__all__ = ["check_step", "scan_steps"]

# Where the loop is one native call. Nobody has measured it on a GPU or a TPU: no "auto" there.
FUSED: dict[str, Literal["no", "cpu", "anywhere"]] = {
    "auto": "cpu",
    "scan": "no",
    "fused": "anywhere",
}

# Parameters, and the carry after a reset.
Consts = tuple[Params, Any]
# xs or u, then mask and resets or None: leaves `[C, B, ...]` of a chunk, `[B, ...]` of a step.
Inputs = tuple[Any, jax.Array | None, jax.Array | None]


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
    if method not in FUSED:
        raise ValueError(
            f"method: expected 'auto', 'scan' or 'fused' for {type(cell).__name__}, which is not a "
            f"linear cell; got {method!r}"
        )
    rows = xs.shape[1]
    # Noise is drawn for the whole sequence, whatever the chunks.
    noisy = key is not None

    def prepare_chunk(consts: Consts, inputs: Inputs) -> Inputs:
        """From xs `[C, B, ...]` to u; with noise it is u already. Mask and resets are `[C, B]`."""
        xs, live, reset = inputs
        return (xs if noisy else cell._prepare(consts[0], xs, live)), live, reset

    def apply_flags(consts: Consts, carry: Any, inputs: Inputs) -> tuple[Any, Any]:
        """The carry before the step, after a reset, and the carry that the step is taken from.

        Leaves of both are `[B, ...]`, flags `[B]`.
        """
        _, live, reset = inputs
        narrow, first = carry, jax.tree.map(_widen_like, consts[1], carry)
        carry = jax.tree.map(_widen_like, carry, consts[1])
        if reset is not None:
            carry = select(reset, first, carry)
        # A masked step is computed and thrown away. It starts from a clean carry, since zero
        # times a NaN in the kept one would be a NaN in the gradient.
        start = carry if live is None else select(live, carry, first)
        return jax.tree.map(keep_dtype, carry, narrow), start

    def begin_step(consts: Consts, carry: Any, inputs: Inputs) -> Any:
        """z of a step, leaves `[B, ...]`."""
        _, start = apply_flags(consts, carry, inputs)
        return cell._begin(consts[0], start, inputs[0])

    def finish_step(consts: Consts, carry: Any, inputs: Inputs, z: Any) -> tuple[Any, Any]:
        """The new carry, leaves `[B, ...]` in the dtypes of the old one, and the output."""
        u, live, _ = inputs
        carry, start = apply_flags(consts, carry, inputs)
        new, y = check_step(cell, cell._finish(consts[0], start, u, z), start)
        check_rows("a step's output", y, (rows,), str(cell))
        new = jax.tree.map(keep_dtype, new, carry)
        if live is not None:
            new = select(live, new, carry)
            y = select(live, y, jax.tree.map(jnp.zeros_like, y))
        return new, y

    return step_scan(
        prepare_chunk,
        begin_step,
        finish_step,
        (params, first),
        carry,
        (cell._prepare(params, xs, mask, key) if noisy else xs, mask, resets),
        reverse=options.reverse,
        every_carry=options.every_carry,
        backward=cell._auto_backward() if backward == "auto" else backward,
        rows=rows,
        fused=FUSED[method],
    )


def check_step(cell: Cell, returned: Any, carry: Any) -> tuple[Any, Any]:
    """Returns what a step returned, if that is a carry like the one before, and an output."""
    if not (isinstance(returned, tuple) and len(returned) == 2):
        raise ValueError(
            f"{cell}: expected a step to return two things, the new carry and the output; got "
            f"{type(returned).__name__}"
        )
    check_like("a step's new carry", returned[0], carry, str(cell))
    return returned


def _widen_like(leaf: jax.Array, natural: jax.Array) -> jax.Array:
    """A leaf of a carry that a step can take: of at least the dtype that the cell's own has."""
    floating = jnp.issubdtype(leaf.dtype, jnp.floating)
    return leaf.astype(at_least_float32(leaf, natural)) if floating else leaf
