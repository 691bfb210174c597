"""torch: `nn.RNN`, `nn.LSTM` (projected too) and `nn.GRU`, any number of layers and directions.

torch keeps kernels as `[out, in]`, gates in our order, and two biases that are added; only the
candidate of a GRU has use for the second. The single cells (`nn.LSTMCell`) have the same arrays
under names without a layer.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from longlag.cells import ProjectedLSTM
from longlag.core.cell import Cell
from longlag.core.ops import Params
from longlag.interop.shared import (
    Weights,
    check_fit,
    check_params,
    kind_of,
    length_of,
    make_params,
    shapes_of,
    weights_of,
)
from longlag.nn.recurrent import Recurrent

__all__ = ["from_torch", "to_torch"]

LAYER = re.compile(r"(?:weight|bias)_[a-z]+_l(\d+)(_reverse)?")


def to_torch(
    cell: Cell,
    params: Params | Sequence[Params],
    *,
    bidirectional: bool = False,
    single_cell: bool = False,
) -> dict[str, Any]:
    """The `state_dict` of the torch module, as arrays: `{k: torch.tensor(np.asarray(v)) ...}`.

    Args:
        cell: of every layer.
        params: of one layer, or of all: the first layer first, and where both directions are
            there, forward before backward.
        bidirectional: whether there are two for each layer.
        single_cell: the names are those of `nn.LSTMCell`, `nn.GRUCell` or `nn.RNNCell`.

    Raises:
        ValueError: a cell that torch has not, or parameters that are not the cell's.
    """
    arrays = {}
    all_params = [params] if isinstance(params, Mapping) else list(params)
    if not all_params:
        raise ValueError("params: expected those of one layer at least, got none")
    kind = _kind(cell)
    for suffix, one in zip(_suffixes(len(all_params), bidirectional), all_params, strict=True):
        check_params(cell, one)
        bias = jnp.asarray(one["input"]["bias"])
        second = jnp.zeros_like(bias)
        if kind == "gru":
            second = second.at[-len(one["recurrent"]["bias"]) :].set(one["recurrent"]["bias"])
        arrays |= {
            f"weight_ih_{suffix}": jnp.asarray(one["input"]["kernel"]).T,
            f"weight_hh_{suffix}": jnp.asarray(one["recurrent"]["kernel"]).T,
            f"bias_ih_{suffix}": bias,
            f"bias_hh_{suffix}": second,
        }
        if kind == "projected":
            arrays[f"weight_hr_{suffix}"] = jnp.asarray(one["projection"]["kernel"]).T
    if not single_cell:
        return arrays
    if len(all_params) > 1 or kind == "projected":
        raise ValueError(
            f"single_cell: expected one layer without a projection, got {len(all_params)} of {cell}"
        )
    return {name.removesuffix("_l0"): value for name, value in arrays.items()}


def from_torch(cell: Cell, theirs: Any, *, prefix: str | None = None) -> list[Params]:
    """The longlag parameters from a `state_dict`: a list, the first layer first.

    Where both directions are there, forward comes before backward in each layer; which inputs a
    layer sees (a bidirectional one sees both directions of the one before) is the caller's.

    Args:
        cell: of every layer.
        theirs: the `state_dict` of the module, of its single cell, or of a whole model that has it,
            or the module itself. Tensors may require gradients, and may be in bfloat16.
        prefix: the name of the module in a whole model; None: the only one with recurrent weights.

    Raises:
        ValueError: a cell that torch has not, several modules with recurrent weights, or weights
            that are missing, left over or of another shape, with the names that were expected and
            those that came.
    """
    kind = _kind(cell)
    theirs = theirs.state_dict() if hasattr(theirs, "state_dict") else theirs
    if not isinstance(theirs, Mapping):
        raise ValueError(f"theirs: expected a state_dict, got {type(theirs).__name__}")
    arrays = weights_of(dict(theirs), ("weight_hh_l0", "weight_hh"), ".", prefix)
    layered = "weight_hh_l0" in arrays
    if not layered:
        arrays = {f"{name}_l0": value for name, value in arrays.items()}
    places = [place for name in arrays if (place := LAYER.fullmatch(name))]
    ways = 1 + any(place[2] is not None for place in places)
    layers = 1 + max(int(place[1]) for place in places)
    if not any(name.startswith("bias_") for name in arrays):  # bias=False
        kernels = [name for name in arrays if name.startswith("weight_ih_")]
        for name, side in ((name, side) for name in kernels for side in ("ih", "hh")):
            zero = np.zeros(np.shape(arrays[name])[:1], arrays[name].dtype)
            arrays[name.replace("weight_ih", f"bias_{side}")] = zero
    convert = functools.partial(to_torch, bidirectional=ways == 2)
    features, outputs = length_of(arrays, "weight_ih_l0", 1), getattr(cell, "features", 0)
    if isinstance(cell, ProjectedLSTM):
        outputs = Recurrent(cell).out_features(1)
    expected: Weights = {}
    for layer in range(layers):
        of_layer = shapes_of(cell, features, lambda cell, one: convert(cell, [one] * ways))
        expected |= {name.replace("_l0", f"_l{layer}"): leaf for name, leaf in of_layer.items()}
        features = ways * outputs
    expected, named = (
        tree if layered else {name.removesuffix("_l0"): leaf for name, leaf in tree.items()}
        for tree in (expected, arrays)
    )
    check_fit(expected, named, ".", cell)
    all_params = []
    for suffix in _suffixes(layers * ways, ways == 2):
        first, second = (arrays[f"bias_{side}_{suffix}"] for side in ("ih", "hh"))
        kernel, recurrent = (arrays[f"weight_{side}_{suffix}"].T for side in ("ih", "hh"))
        candidate = None
        if kind == "gru":
            width = len(second) // 3
            candidate = second[2 * width :]
            second = np.concatenate([second[: 2 * width], np.zeros_like(candidate)])
        params = make_params(kind, kernel, recurrent, first + second, candidate)
        if kind == "projected":
            params["projection"] = {"kernel": jnp.asarray(arrays[f"weight_hr_{suffix}"].T)}
        all_params.append(params)
    return all_params


def _kind(cell: Cell) -> str:
    projected = type(cell) is ProjectedLSTM and not cell.learned_carry
    return "projected" if projected else kind_of(cell, "torch", "after", activation=None)


def _suffixes(count: int, bidirectional: bool) -> list[str]:
    if not bidirectional:
        return [f"l{layer}" for layer in range(count)]
    if count % 2:
        raise ValueError(f"params: expected two for each bidirectional layer, got {count}")
    return [f"l{layer}{end}" for layer in range(count // 2) for end in ("", "_reverse")]
