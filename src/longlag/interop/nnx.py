"""flax nnx: `SimpleCell`, both LSTM cells, `GRUCell`, and a longlag cell as a module.

The layout is that of `nnx.to_pure_dict(nnx.state(cell, nnx.Param))`: `dense_i` for the input,
`dense_h` for the state, gates in our order; `LSTMCell` alone has a kernel for every gate. The GRU
has no bias at the candidate's product. A `SimpleCell` has the activation that its `activation_fn`
says.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from longlag.core.cell import Cell
from longlag.core.ops import Params
from longlag.core.unrolling import unroll
from longlag.interop.linen import from_names, to_linen
from longlag.interop.shared import (
    check_fit,
    check_no_candidate_bias,
    check_params,
    kind_of,
    length_of,
    make_params,
    shapes_of,
    weights_of,
)

__all__ = ["NNXRecurrent", "from_nnx", "to_nnx"]

# `LSTMCell` is laid out as linen's; "if" is no name for an attribute.
_NNX = {"if": "if_"}


def to_nnx(cell: Cell, params: Params, *, optimized: bool = True) -> dict[str, Any]:
    """The parameters of the nnx cell as a plain dict, for `nnx.replace_by_pure_dict`.

    Args:
        cell: an Elman, LSTM or GRU(reset="after").
        params: its parameters.
        optimized: those of an LSTM for `OptimizedLSTMCell`, rather than for `LSTMCell`.

    Raises:
        ValueError: a cell that flax has not, or parameters that are not the cell's.
    """
    kind = kind_of(cell, "flax nnx", "after", activation=None)
    check_params(cell, params)
    if kind == "lstm" and not optimized:
        return {_NNX.get(name, name): part for name, part in to_linen(cell, params).items()}
    W, b, U = params["input"]["kernel"], params["input"]["bias"], params["recurrent"]["kernel"]
    if kind == "lstm":
        return {"dense_i": {"kernel": W}, "dense_h": {"kernel": U, "bias": b}}
    if kind == "gru":
        check_no_candidate_bias(params, "flax nnx")
    return {"dense_i": {"kernel": W, "bias": b}, "dense_h": {"kernel": U}}


def from_nnx(cell: Cell, theirs: Any, *, prefix: str | None = None) -> Params:
    """The longlag parameters from those of the nnx cell.

    Args:
        cell: as in `to_nnx`.
        theirs: a dict or `nnx.State` of the parameters, the cell itself, or a whole model that has
            it.
        prefix: the path of the cell in a model ("encoder/cell"); None: the only one there.

    Raises:
        ValueError: a cell that flax has not, several cells, or weights that are missing, left over
            or of another shape.
    """
    kind = kind_of(cell, "flax nnx", "after", activation=None)
    if isinstance(theirs, nnx.Module):
        theirs = nnx.to_pure_dict(nnx.state(theirs, nnx.Param))
    anchors = ("dense_h/kernel", "hi/kernel") if kind == "lstm" else ("dense_h/kernel",)
    arrays = weights_of(theirs, anchors, "/", prefix)
    if "hi/kernel" in arrays:
        return from_names(
            cell, kind, {name.replace("if_/", "if/"): a for name, a in arrays.items()}
        )
    D = length_of(arrays, "dense_i/kernel", 0)
    check_fit(shapes_of(cell, D, to_nnx), arrays, "/", cell)
    side = "dense_h" if kind == "lstm" else "dense_i"
    bias = jnp.asarray(arrays[f"{side}/bias"])
    return make_params(
        kind,
        arrays["dense_i/kernel"],
        arrays["dense_h/kernel"],
        bias,
        jnp.zeros(len(bias) // 3, bias.dtype) if kind == "gru" else None,
    )


class NNXRecurrent(nnx.Module):
    """A longlag cell over a whole sequence as an nnx module.

    Attributes:
        cell: the cell.
        params: its parameters, a tree of `nnx.Param`.
    """

    def __init__(self, cell: Cell, in_features: int, *, rngs: nnx.Rngs):
        """Draws the cell's parameters from `rngs.params()`."""
        self.cell = cell
        params = cell.init(rngs.params(), in_features)
        self.params = nnx.data(jax.tree.map(nnx.Param, params))

    def __call__(self, xs: jax.Array, carry: Any = None, **options: Any) -> tuple[Any, jax.Array]:
        """`longlag.unroll` with the module's parameters; `options` are those of `unroll`."""
        params = jax.tree.map(
            lambda leaf: leaf[...], self.params, is_leaf=lambda leaf: isinstance(leaf, nnx.Param)
        )
        return unroll(self.cell, params, xs, carry, **options)
