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

from longlag.cell import Cell, Params
from longlag.interop.shared import join, kind_of, like, parts

__all__ = ["from_haiku", "to_haiku"]

Weights = Mapping[str, Mapping[str, Any]]


def to_haiku(cell: Cell, params: Params, module: str | None = None) -> dict[str, dict[str, Any]]:
    """The parameters of the haiku core, by module name.

    Args:
        cell: an Elman with a relu, an LSTM, or a GRU(reset="before").
        params: its parameters.
        module: the name of the core; by default haiku's own, "vanilla_rnn", "lstm" or "gru".
    """
    kind = kind_of(cell, "haiku", "before", "relu")
    W, b, U = params["input"]["kernel"], params["input"]["bias"], params["recurrent"]["kernel"]
    name = module or {"elman": "vanilla_rnn"}.get(kind, kind)
    if kind == "elman":
        zero = jnp.zeros_like(jnp.asarray(b))
        return {
            f"{name}/linear": {"w": jnp.asarray(W), "b": jnp.asarray(b)},
            f"{name}/linear_1": {"w": jnp.asarray(U), "b": zero},
        }
    if kind == "lstm":
        i, f, g, o = parts(b, 4)
        both = jnp.concatenate([jnp.asarray(W), jnp.asarray(U)])
        w_i, w_f, w_g, w_o = parts(both, 4)
        return {f"{name}/linear": {"w": join([w_i, w_g, w_f, w_o]), "b": join([i, g, f - 1, o])}}
    return {name: {"w_i": _turn(W), "w_h": _turn(U), "b": _turn(b)}}


def from_haiku(cell: Cell, theirs: Weights) -> Params:
    """The longlag parameters from those of a haiku core, whatever its module is called."""
    kind = kind_of(cell, "haiku", "before", "relu")
    modules = [dict(theirs[name]) for name in sorted(theirs)]
    if kind == "elman":
        inputs, states = modules
        bias = np.asarray(inputs["b"]) + np.asarray(states.get("b", 0.0))
        return like(kind, inputs["w"], states["w"], bias)
    (core,) = modules
    if kind == "gru":
        return like(kind, *(_turn(core[name], back=True) for name in ("w_i", "w_h", "b")))
    (w_i, w_g, w_f, w_o), (i, g, f, o) = parts(core["w"], 4), parts(core["b"], 4)
    both = join([w_i, w_f, w_g, w_o])
    width = both.shape[1] // 4
    return like(kind, both[:-width], both[-width:], join([i, f + 1, g, o]))


def _turn(array: Any, back: bool = False) -> Any:
    """Gates r, z, n as z, r, n with the sign of z turned, and back."""
    first, second, n = parts(array, 3)
    return join([second, -first, n]) if back else join([-second, first, n])
