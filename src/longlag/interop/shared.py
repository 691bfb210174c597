"""What the converters share: which cell is meant, and the parts of fused arrays."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from longlag.cell import Cell, Params
from longlag.cells import GRU, LSTM, Elman

__all__ = ["join", "kind_of", "like", "no_candidate_bias", "parts", "reorder"]


def kind_of(cell: Cell, framework: str, reset: str | None, activation: str | None = "tanh") -> str:
    """ "elman", "lstm" or "gru", if this very cell is there on both sides.

    Args:
        cell: the cell.
        framework: whose counterpart is looked for, for the message.
        reset: the form of the GRU that the framework has; None: both.
        activation: the activation of its plain network; None: any.

    Raises:
        ValueError: another cell, or one with a learned first state.
    """  # noqa: D210
    if getattr(cell, "learned_carry", False):
        raise ValueError(f"{cell}: expected no learned first state, for which {framework} has none")
    if type(cell) is LSTM:
        return "lstm"
    if type(cell) is GRU and reset in (None, cell.reset):
        return "gru"
    if type(cell) is Elman and activation in (None, cell.activation):
        return "elman"
    plain = "Elman" if activation is None else f"Elman(activation={activation!r})"
    gru = "GRU" if reset is None else f"GRU(reset={reset!r})"
    raise ValueError(
        f"expected a cell that {framework} has too: {plain}, LSTM or {gru}; got {cell}"
    )


def parts(array: Any, count: int) -> list[jax.Array]:
    """The parts of a fused kernel `[.., count * H]` or bias, gate by gate."""
    return jnp.split(jnp.asarray(array), count, axis=-1)


def join(arrays: Any) -> jax.Array:
    """Gates side by side."""
    return jnp.concatenate([jnp.asarray(array) for array in arrays], axis=-1)


def reorder(array: Any, order: tuple[int, ...]) -> jax.Array:
    """The gates of a fused array in another order."""
    split = parts(array, len(order))
    return join(split[i] for i in order)


def like(kind: str, kernel: Any, recurrent: Any, bias: Any, candidate: Any = None) -> Params:
    """A longlag `params` of an Elman, LSTM or GRU, gates in our order."""
    params: Params = {
        "input": {"kernel": jnp.asarray(kernel), "bias": jnp.asarray(bias)},
        "recurrent": {"kernel": jnp.asarray(recurrent)},
    }
    if kind == "gru" and candidate is not None:
        params["recurrent"]["bias"] = jnp.asarray(candidate)
    return params


def no_candidate_bias(params: Params, framework: str) -> None:
    """Raises `ValueError` unless a GRU's own bias at the candidate's product is zero."""
    bias = params["recurrent"]["bias"]
    # By numpy, since inside `jax.jit` what jax makes of a constant is traced too.
    if isinstance(bias, Tracer) or np.any(np.asarray(bias)):
        raise ValueError(
            f"recurrent.bias: expected zeros, since the GRU of {framework} has no such bias; got "
            f"{'a traced array' if isinstance(bias, Tracer) else 'others'}"
        )
