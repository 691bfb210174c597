"""equinox: `nn.LSTMCell` and `nn.GRUCell`.

Kernels are `[out, in]`, gates in our order; the bias of a GRU's candidate is `bias_n`.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from longlag.core.cell import Cell
from longlag.core.ops import Params
from longlag.interop.shared import (
    check_fit,
    check_params,
    kind_of,
    length_of,
    make_params,
    shapes_of,
    weights_of,
)

__all__ = ["from_equinox", "to_equinox"]


def to_equinox(cell: Cell, params: Params) -> dict[str, Any]:
    """The arrays of the equinox cell by attribute, for `equinox.tree_at`.

    Raises:
        ValueError: a cell that equinox has not, or parameters that are not the cell's.
    """
    kind = _kind(cell)
    check_params(cell, params)
    arrays = {
        "weight_ih": jnp.asarray(params["input"]["kernel"]).T,
        "weight_hh": jnp.asarray(params["recurrent"]["kernel"]).T,
        "bias": jnp.asarray(params["input"]["bias"]),
    }
    return arrays | ({"bias_n": params["recurrent"]["bias"]} if kind == "gru" else {})


def from_equinox(cell: Cell, theirs: Any, *, prefix: str | None = None) -> Params:
    """The longlag parameters from an equinox cell, or from a mapping of its arrays.

    Args:
        cell: an LSTM or GRU(reset="after").
        theirs: the cell, also one with `use_bias=False`, or a whole model that has it.
        prefix: the path of the cell in a model ("encoder.cell"); None: the only one there.

    Raises:
        ValueError: a cell that equinox has not, several cells, or weights that are missing, left
            over or of another shape.
    """
    kind = _kind(cell)
    arrays = weights_of(theirs, ("weight_hh",), ".", prefix)
    recurrent = arrays["weight_hh"]
    if "bias" not in arrays and "bias_n" not in arrays:  # use_bias=False
        arrays["bias"] = np.zeros(np.shape(recurrent)[:1], recurrent.dtype)
        if kind == "gru":
            arrays["bias_n"] = np.zeros(cell.features, recurrent.dtype)  # type: ignore[attr-defined]
    D = length_of(arrays, "weight_ih", 1)
    check_fit(shapes_of(cell, D, to_equinox), arrays, ".", cell)
    kernel, recurrent = jnp.asarray(arrays["weight_ih"]).T, jnp.asarray(recurrent).T
    return make_params(kind, kernel, recurrent, arrays["bias"], arrays.get("bias_n"))


def _kind(cell: Cell) -> str:
    kind = kind_of(cell, "equinox", "after")
    if kind == "elman":
        raise ValueError(f"expected a cell that equinox has too, LSTM or GRU; got {cell}")
    return kind
