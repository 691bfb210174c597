"""`explain`: which way a cell's loop goes, and why."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from longlag.core.cell import Cell
from longlag.core.matrix_cell import MatrixCell
from longlag.core.spec import take
from longlag.core.unrolling import unroll
from longlag.kernels import native
from longlag.kernels.looping import outcomes

__all__ = ["explain"]


def explain(cell: Cell, in_features: int = 8) -> str:
    """Says whether the loops of a cell have a normal form, and so run as one native call on a CPU.

    The cell is traced, and not run.

    Args:
        cell: the cell.
        in_features: D.

    Returns:
        A line for the forward and one for the backward, such as
        "forward: one native call (4 products, 12 other operations)" or
        "backward: jax.lax.scan, since there is no normal form for sort of float32[2, 8]". One more
        if this machine has no native loops, with the reason.

    Raises:
        ValueError: no cell.
    """
    if not isinstance(cell, Cell):
        raise ValueError(f"cell: expected a cell, such as LSTM(8); got {cell!r}")
    in_features = take("in_features", in_features, int)
    if isinstance(cell, MatrixCell):
        return "no loop of single steps: chunks of the sequence are products of matrices"
    batch, steps = 2, 3
    params = jax.eval_shape(lambda: cell.init(jax.random.key(0), in_features))
    xs = jax.ShapeDtypeStruct((batch, steps, in_features), jnp.float32)

    def total(params: Any, xs: Any) -> Any:
        _, ys = unroll(cell, params, xs, method="fused")
        return sum(jnp.sum(leaf) for leaf in jax.tree.leaves(ys))

    with outcomes() as seen:
        jax.eval_shape(jax.grad(total), params, xs)
    lines = [f"{name}: {outcome}" for name, outcome in zip(("forward", "backward"), seen)]
    if not native.is_available():
        lines.append(f"here: {native.describe()}")
    return "\n".join(lines)
