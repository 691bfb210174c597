"""equinox: `nn.LSTMCell` and `nn.GRUCell`.

Kernels are `[out, in]`, gates in our order; the bias of a GRU's candidate is `bias_n`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from longlag.cell import Cell, Params
from longlag.interop.shared import kind_of, like

__all__ = ["from_equinox", "to_equinox"]


def to_equinox(cell: Cell, params: Params) -> dict[str, Any]:
    """The arrays of the equinox cell by attribute, for `equinox.tree_at`."""
    kind = _kind(cell)
    found = {
        "weight_ih": jnp.asarray(params["input"]["kernel"]).T,
        "weight_hh": jnp.asarray(params["recurrent"]["kernel"]).T,
        "bias": jnp.asarray(params["input"]["bias"]),
    }
    return found | ({"bias_n": params["recurrent"]["bias"]} if kind == "gru" else {})


def from_equinox(cell: Cell, theirs: Any) -> Params:
    """The longlag parameters from an equinox cell, or from a mapping of its arrays."""
    kind = _kind(cell)
    get = theirs.get if isinstance(theirs, Mapping) else lambda name: getattr(theirs, name, None)
    kernel, recurrent = jnp.asarray(get("weight_ih")).T, jnp.asarray(get("weight_hh")).T
    bias, candidate = get("bias"), get("bias_n") if kind == "gru" else None
    bias = jnp.zeros(kernel.shape[1], kernel.dtype) if bias is None else bias  # use_bias=False
    if kind == "gru" and candidate is None:
        candidate = jnp.zeros(kernel.shape[1] // 3, kernel.dtype)
    return like(kind, kernel, recurrent, bias, candidate)


def _kind(cell: Cell) -> str:
    kind = kind_of(cell, "equinox", "after")
    if kind == "elman":
        raise ValueError(f"expected a cell that equinox has too, LSTM or GRU; got {cell}")
    return kind
