"""keras: `SimpleRNN` of any activation, `LSTM` and `GRU`, reset after and before.

`layer.get_weights()` is kernel, recurrent kernel and bias; an LSTM has its gates in our order, a
GRU in the order z, r, n, and with reset_after=True a second row of biases, of which the
candidate's is its own.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from longlag.cells import GRU
from longlag.core.cell import Cell
from longlag.core.ops import Params
from longlag.interop.shared import (
    as_weight,
    check_fit,
    check_params,
    kind_of,
    length_of,
    make_params,
    reorder_gates,
    shapes_of,
    split_gates,
)

__all__ = ["from_keras", "to_keras"]

SWAP = (1, 0, 2)  # r, z, n to z, r, n, and back


def to_keras(cell: Cell, params: Params) -> list[Any]:
    """The weights of the keras layer, for `layer.set_weights`.

    Raises:
        ValueError: a cell that keras has not, or parameters that are not the cell's.
    """
    kind = kind_of(cell, "keras", None, activation=None)
    check_params(cell, params)
    W, b, U = params["input"]["kernel"], params["input"]["bias"], params["recurrent"]["kernel"]
    if kind != "gru":
        return [jnp.asarray(W), jnp.asarray(U), jnp.asarray(b)]
    if not _after(cell):
        return [reorder_gates(W, SWAP), reorder_gates(U, SWAP), reorder_gates(b, SWAP)]
    candidate = jnp.asarray(params["recurrent"]["bias"])
    second = jnp.concatenate([jnp.zeros(2 * len(candidate), candidate.dtype), candidate])
    return [
        reorder_gates(W, SWAP),
        reorder_gates(U, SWAP),
        jnp.stack([reorder_gates(b, SWAP), second]),
    ]


def from_keras(cell: Cell, theirs: Any) -> Params:
    """The longlag parameters from `layer.get_weights()`, or from the layer or its cell.

    Without a bias (`use_bias=False`) it has two arrays, and the bias is zero.

    Raises:
        ValueError: a cell that keras has not, or another number of arrays or shapes.
    """
    kind = kind_of(cell, "keras", None, activation=None)
    weights = theirs.get_weights() if hasattr(theirs, "get_weights") else theirs
    if not isinstance(weights, list | tuple) or len(weights) not in (2, 3):
        count = len(weights) if isinstance(weights, list | tuple) else type(theirs).__name__
        raise ValueError(
            "theirs: expected a list of kernel, recurrent kernel and, unless use_bias=False, bias, "
            f"from `layer.get_weights()`; got {count}"
        )
    names = ("kernel", "recurrent_kernel", "bias")
    arrays = {name: as_weight(name, array) for name, array in zip(names, weights)}
    kernel, recurrent, after = arrays["kernel"], arrays["recurrent_kernel"], _after(cell)
    width = np.shape(recurrent)[-1:]
    bias = arrays.setdefault("bias", np.zeros((2, *width) if after else width, kernel.dtype))
    if kind == "gru" and bias.ndim != 1 + after:
        raise ValueError(
            f"theirs: expected a bias of shape {'[2, 3H]' if after else '[3H]'}, from a GRU with "
            f"reset_after={after}; got {bias.shape}"
        )
    D = length_of(arrays, "kernel", 0)
    expected = shapes_of(cell, D, lambda cell, zeros: dict(zip(names, to_keras(cell, zeros))))
    check_fit(expected, arrays, ".", cell)
    if kind != "gru":
        return make_params(kind, kernel, recurrent, bias)
    if not after:
        return make_params(
            kind, *(reorder_gates(array, SWAP) for array in (kernel, recurrent, bias))
        )
    first, second = (split_gates(reorder_gates(row, SWAP), 3) for row in bias)
    added = jnp.concatenate([first[0] + second[0], first[1] + second[1], first[2]])
    return make_params(
        kind, reorder_gates(kernel, SWAP), reorder_gates(recurrent, SWAP), added, second[2]
    )


def _after(cell: Cell) -> bool:
    return isinstance(cell, GRU) and cell.reset == "after"
