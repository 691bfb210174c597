"""haiku: `VanillaRNN`, `LSTM` and `GRU`.

An LSTM has one product of input and state side by side, gates in the order i, g, f, o, and adds one
to the forget gate. A GRU resets before the product, gates in the order z, r, n, and its z is our
1 - z, so that the signs of that gate's weights turn. The plain network has a relu.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from longlag.core.cell import Cell
from longlag.core.ops import Params
from longlag.interop.shared import (
    check_fit,
    check_params,
    join_gates,
    kind_of,
    length_of,
    make_params,
    shapes_of,
    split_gates,
    weights_of,
)

__all__ = ["from_haiku", "to_haiku"]

Weights = Mapping[str, Mapping[str, Any]]


def to_haiku(cell: Cell, params: Params, module: str | None = None) -> dict[str, dict[str, Any]]:
    """The parameters of the haiku core, by module name.

    Args:
        cell: an Elman with a relu, an LSTM, or a GRU(reset="before").
        params: its parameters.
        module: the name of the core; by default haiku's own, "vanilla_rnn", "lstm" or "gru".

    Raises:
        ValueError: a cell that haiku has not, or parameters that are not the cell's.
    """
    kind = kind_of(cell, "haiku", "before", "relu")
    check_params(cell, params)
    W, b, U = params["input"]["kernel"], params["input"]["bias"], params["recurrent"]["kernel"]
    name = module or {"elman": "vanilla_rnn"}.get(kind, kind)
    if kind == "elman":
        zero = jnp.zeros_like(jnp.asarray(b))
        return {
            f"{name}/linear": {"w": jnp.asarray(W), "b": jnp.asarray(b)},
            f"{name}/linear_1": {"w": jnp.asarray(U), "b": zero},
        }
    if kind == "lstm":
        i, f, g, o = split_gates(b, 4)
        both = jnp.concatenate([jnp.asarray(W), jnp.asarray(U)])
        w_i, w_f, w_g, w_o = split_gates(both, 4)
        w, b = join_gates([w_i, w_g, w_f, w_o]), join_gates([i, g, f - 1, o])
        return {f"{name}/linear": {"w": w, "b": b}}
    return {name: {"w_i": _turn(W), "w_h": _turn(U), "b": _turn(b)}}


def from_haiku(cell: Cell, theirs: Weights, module: str | None = None) -> Params:
    """The longlag parameters from those of a haiku core, or of a whole model that has it.

    Args:
        cell: as in `to_haiku`.
        theirs: by module name.
        module: the name of the core ("encoder/lstm"); None: the only one there, whatever its name.

    Raises:
        ValueError: a cell that haiku has not, several cores, or weights that are missing, left over
            or of another shape.
    """
    kind = kind_of(cell, "haiku", "before", "relu")
    H = cell.features  # type: ignore[attr-defined]
    anchor, fits = {
        "elman": ("linear_1/w", lambda shape: shape == (H, H)),
        "lstm": ("linear/w", lambda shape: shape[1:] == (4 * H,) and shape[0] > H),
        "gru": ("w_h", lambda shape: shape == (H, 3 * H)),
    }[kind]
    arrays = weights_of(theirs, (anchor,), "/", module, fits)
    if kind == "elman" and "linear_1/b" not in arrays:  # double_bias=False
        w = arrays[anchor]
        arrays["linear_1/b"] = np.zeros(np.shape(w)[1:], w.dtype)
    input_name = {"elman": "linear/w", "lstm": "linear/w", "gru": "w_i"}[kind]
    rows = length_of(arrays, input_name, 0)
    check_fit(
        shapes_of(cell, rows - H if kind == "lstm" else rows, _strip_module), arrays, "/", cell
    )
    if kind == "elman":
        bias = jnp.asarray(arrays["linear/b"]) + jnp.asarray(arrays["linear_1/b"])
        return make_params(kind, arrays["linear/w"], arrays["linear_1/w"], bias)
    if kind == "gru":
        return make_params(kind, *(_turn(arrays[name], back=True) for name in ("w_i", "w_h", "b")))
    (w_i, w_g, w_f, w_o) = split_gates(arrays["linear/w"], 4)
    (i, g, f, o) = split_gates(arrays["linear/b"], 4)
    both = join_gates([w_i, w_f, w_g, w_o])
    return make_params(kind, both[:-H], both[-H:], join_gates([i, f + 1, g, o]))


def _strip_module(cell: Cell, params: Params) -> dict[str, Any]:
    """The parameters of a core by their names within it."""
    modules = to_haiku(cell, params, module="core")
    return {
        f"{module}/{name}".removeprefix("core/"): array
        for module, weights in modules.items()
        for name, array in weights.items()
    }


def _turn(array: Any, back: bool = False) -> Any:
    """Gates r, z, n as z, r, n with the sign of z turned, and back."""
    first, second, n = split_gates(array, 3)
    return join_gates([second, -first, n]) if back else join_gates([-second, first, n])
