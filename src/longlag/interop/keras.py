"""keras: `SimpleRNN` of any activation, `LSTM` and `GRU`, reset after and before.

`layer.get_weights()` is kernel, recurrent kernel and bias; an LSTM has its gates in our order, a
GRU in the order z, r, n, and with reset_after=True a second row of biases, of which the
candidate's is its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from longlag.cell import Cell, Params
from longlag.cells import GRU
from longlag.interop.shared import kind_of, like, parts, reorder

__all__ = ["from_keras", "to_keras"]

SWAP = (1, 0, 2)  # r, z, n to z, r, n, and back


def to_keras(cell: Cell, params: Params) -> list[Any]:
    """The weights of the keras layer, for `layer.set_weights`."""
    kind = kind_of(cell, "keras", None, activation=None)
    W, b, U = params["input"]["kernel"], params["input"]["bias"], params["recurrent"]["kernel"]
    if kind != "gru":
        return [jnp.asarray(W), jnp.asarray(U), jnp.asarray(b)]
    if not _after(cell):
        return [reorder(W, SWAP), reorder(U, SWAP), reorder(b, SWAP)]
    candidate = jnp.asarray(params["recurrent"]["bias"])
    second = jnp.concatenate([jnp.zeros(2 * len(candidate), candidate.dtype), candidate])
    return [reorder(W, SWAP), reorder(U, SWAP), jnp.stack([reorder(b, SWAP), second])]


def from_keras(cell: Cell, theirs: Sequence[Any]) -> Params:
    """The longlag parameters from `layer.get_weights()`."""
    kind = kind_of(cell, "keras", None, activation=None)
    kernel, recurrent, bias = map(np.asarray, theirs)
    if kind != "gru":
        return like(kind, kernel, recurrent, bias)
    after = _after(cell)
    if bias.ndim != 1 + after:
        raise ValueError(
            f"theirs: expected a bias of shape {'[2, 3H]' if after else '[3H]'}, from a GRU with "
            f"reset_after={after}; got {bias.shape}"
        )
    if not after:
        return like(kind, *(reorder(array, SWAP) for array in (kernel, recurrent, bias)))
    first, second = (parts(reorder(row, SWAP), 3) for row in bias)
    added = jnp.concatenate([first[0] + second[0], first[1] + second[1], first[2]])
    return like(kind, reorder(kernel, SWAP), reorder(recurrent, SWAP), added, second[2])


def _after(cell: Cell) -> bool:
    return isinstance(cell, GRU) and cell.reset == "after"
