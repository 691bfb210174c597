"""`explain`: which way a cell's loop goes, and why."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from longlag.core.cell import Cell
from longlag.core.unrolling import unroll
from longlag.kernels.looping import outcomes

__all__ = ["explain"]


def explain(cell: Cell, in_features: int = 8) -> str:
    """Says whether the loops of a cell have a normal form, and so run as one native call on a CPU.

    Nothing is run or compiled: the cell is traced.

    Args:
        cell: the cell.
        in_features: D.

    Returns:
        A line for the forward and one for the backward, such as
        "forward: one native call (4 products, 12 other operations)" or
        "backward: jax.lax.scan, since there is no normal form for sort of float32[2, 8]".
    """
    batch, steps = 2, 3
    params = jax.eval_shape(lambda: cell.init(jax.random.key(0), in_features))
    xs = jax.ShapeDtypeStruct((batch, steps, in_features), jnp.float32)

    def total(params: Any, xs: Any) -> Any:
        _, ys = unroll(cell, params, xs, method="fused")
        return sum(jnp.sum(leaf) for leaf in jax.tree.leaves(ys))

    with outcomes() as seen:
        jax.eval_shape(jax.grad(total), params, xs)
    if not seen:
        return "no loop of single steps: the cell is parallel in time"
    return "\n".join(f"{name}: {outcome}" for name, outcome in zip(("forward", "backward"), seen))
