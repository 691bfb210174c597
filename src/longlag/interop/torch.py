"""torch: `nn.RNN`, `nn.LSTM` (projected too) and `nn.GRU`, any number of layers and directions.

torch keeps kernels as `[out, in]`, gates in our order, and two biases that are added; only the
candidate of a GRU has use for the second.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from longlag.cell import Cell, Params
from longlag.cells import ProjectedLSTM
from longlag.interop.shared import kind_of, like

__all__ = ["from_torch", "to_torch"]


def to_torch(
    cell: Cell, params: Params | Sequence[Params], *, bidirectional: bool = False
) -> dict[str, Any]:
    """The `state_dict` of the torch module, as arrays: `{k: torch.tensor(np.asarray(v)) ...}`.

    Args:
        cell: of every layer.
        params: of one layer, or of all: the first layer first, and where both directions are
            there, forward before backward.
        bidirectional: whether there are two for each layer.
    """
    found = {}
    several = [params] if isinstance(params, Mapping) else list(params)
    for suffix, one in zip(_suffixes(len(several), bidirectional), several, strict=True):
        kind = _kind(cell)
        bias = jnp.asarray(one["input"]["bias"])
        second = jnp.zeros_like(bias)
        if kind == "gru":
            second = second.at[-len(one["recurrent"]["bias"]) :].set(one["recurrent"]["bias"])
        found |= {
            f"weight_ih_{suffix}": jnp.asarray(one["input"]["kernel"]).T,
            f"weight_hh_{suffix}": jnp.asarray(one["recurrent"]["kernel"]).T,
            f"bias_ih_{suffix}": bias,
            f"bias_hh_{suffix}": second,
        }
        if kind == "projected":
            found[f"weight_hr_{suffix}"] = jnp.asarray(one["projection"]["kernel"]).T
    return found


def from_torch(cell: Cell, theirs: Mapping[str, Any]) -> list[Params]:
    """The longlag parameters from a `state_dict`: a list, the first layer first.

    Where both directions are there, forward comes before backward in each layer; which inputs a
    layer sees (a bidirectional one sees both directions of the one before) is the caller's.
    """
    arrays = {name: np.asarray(value) for name, value in theirs.items()}
    bidirectional = any(name.endswith("_reverse") for name in arrays)
    count = sum(name.startswith("weight_ih_") for name in arrays)
    kind, found = _kind(cell), []
    for suffix in _suffixes(count, bidirectional):
        first, second = (arrays.get(f"bias_{side}_{suffix}") for side in ("ih", "hh"))
        kernel, recurrent = (arrays[f"weight_{side}_{suffix}"].T for side in ("ih", "hh"))
        if first is None or second is None:  # bias=False
            first = second = np.zeros(kernel.shape[1], kernel.dtype)
        candidate = None
        if kind == "gru":
            width = len(second) // 3
            candidate = second[2 * width :]
            second = np.concatenate([second[: 2 * width], np.zeros_like(candidate)])
        params = like(kind, kernel, recurrent, first + second, candidate)
        if kind == "projected":
            params["projection"] = {"kernel": jnp.asarray(arrays[f"weight_hr_{suffix}"].T)}
        found.append(params)
    return found


def _kind(cell: Cell) -> str:
    projected = type(cell) is ProjectedLSTM and not cell.learned_carry
    return "projected" if projected else kind_of(cell, "torch", "after", activation=None)


def _suffixes(count: int, bidirectional: bool) -> list[str]:
    if not bidirectional:
        return [f"l{layer}" for layer in range(count)]
    if count % 2:
        raise ValueError(f"params: expected two for each bidirectional layer, got {count}")
    return [f"l{layer}{end}" for layer in range(count // 2) for end in ("", "_reverse")]
