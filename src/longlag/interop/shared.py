"""What the converters share: which cell is meant, which weights fit it, parts of fused arrays.

What is expected of the other framework's weights is what our own converter makes of parameters of
the same cell. So names and shapes are written once, and are checked in both directions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from jax.core import Tracer

from longlag.cells import GRU, LSTM, Elman
from longlag.core.cell import Cell
from longlag.core.checks import check_like
from longlag.core.ops import Params

__all__ = [
    "Weights",
    "as_weight",
    "check_fit",
    "check_no_candidate_bias",
    "check_params",
    "join_gates",
    "kind_of",
    "length_of",
    "make_params",
    "reorder_gates",
    "shapes_of",
    "split_gates",
    "weights_of",
]

Weights = dict[str, Any]


def weights_of(
    theirs: Any,
    anchors: tuple[str, ...],
    separator: str,
    prefix: str | None,
    fits: Callable[[tuple[int, ...]], bool] = lambda shape: True,
) -> Weights:
    """The weights of one module, of a whole model perhaps, by their names within it.

    Names of more parts than the anchors belong to other modules, and are left alone.

    Args:
        theirs: nested mappings or modules of arrays of any package: jax, NumPy, torch (also with
            gradients, on another device, or in bfloat16), keras, or variables that hold one.
        anchors: names of which every such module has one, and others have none.
        separator: between the parts of a name.
        prefix: the module, or None: the only one that has an anchor.
        fits: whether the shape of an anchor may be that of this cell, where there are several.

    Raises:
        ValueError: an anchor is nowhere, or at several places and no prefix was given, or an entry
            is no array of real floating numbers.
    """
    paths, _ = jax.tree_util.tree_flatten_with_path(theirs, is_leaf=_holds_array)
    named = {
        jax.tree_util.keystr(path, simple=True, separator=separator): leaf for path, leaf in paths
    }
    places = {
        name.removesuffix(anchor): np.shape(leaf)
        for name, leaf in named.items()
        for anchor in anchors
        if name == anchor or name.endswith(separator + anchor)
    }
    if len(places) > 1 and prefix is None:
        places = {place: shape for place, shape in places.items() if fits(shape)} or places
    several = ", ".join(repr(place.removesuffix(separator)) for place in sorted(places))
    expected = " or ".join(map(repr, anchors))
    if prefix is not None:
        place = prefix.removesuffix(separator) + separator if prefix else ""
        if place not in places:
            raise ValueError(
                f"prefix: expected a module with {expected}, one of {several or 'none'}; got "
                f"{prefix!r}, among the names {_describe(named)}"
            )
    elif len(places) == 1:
        (place,) = places
    else:
        raise ValueError(
            f"theirs: expected {expected} of one module, or a prefix that names the module; got "
            + (f"it of {several}" if places else f"the names {_describe(named)}")
        )
    parts = 1 + max(anchor.count(separator) for anchor in anchors)
    within = {name[len(place) :]: leaf for name, leaf in named.items() if name.startswith(place)}
    return {
        name: as_weight(name, leaf)
        for name, leaf in within.items()
        if len(name.split(separator)) <= parts
    }


def _holds_array(leaf: Any) -> bool:
    """Whether this is an array, or a variable of flax or keras, which may be a tree itself."""
    return hasattr(leaf, "shape") and hasattr(leaf, "dtype")


def as_weight(name: str, leaf: Any) -> Any:
    """One array, of NumPy or jax, of what another framework has for an array.

    Raises:
        ValueError: it is no array of real floating numbers.
    """
    array = leaf
    try:
        if hasattr(leaf, "detach"):  # torch
            tensor, half = leaf.detach().cpu(), str(leaf.dtype) == "torch.bfloat16"
            array = (tensor.float() if half else tensor).numpy()
            array = array.astype(ml_dtypes.bfloat16) if half else array
        elif not isinstance(leaf, jax.Array | np.ndarray):
            if hasattr(leaf, "get_value"):  # a variable of nnx
                return as_weight(name, leaf.get_value())
            value = getattr(leaf, "value", None)  # of keras, or a box of linen
            if value is not None and not callable(value):
                return as_weight(name, value)
            array = np.asarray(leaf)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{name}: expected an array, got {type(leaf).__name__}; {error}") from None
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise ValueError(
            f"{name}: expected an array of floating numbers, got {type(leaf).__name__} of "
            f"{array.dtype} and shape {np.shape(array)}"
        )
    return array


def check_fit(expected: Any, theirs: Weights, separator: str, whose: Cell) -> None:
    """Raises `ValueError` unless weights have the names and the shapes that are expected.

    Args:
        expected: a tree of arrays or shapes.
        theirs: by name.
        separator: between the parts of a name.
        whose: the cell, for the message.
    """
    paths, _ = jax.tree_util.tree_flatten_with_path(expected)
    shapes = {
        jax.tree_util.keystr(path, simple=True, separator=separator): tuple(leaf.shape)
        for path, leaf in paths
    }
    if shapes != {name: np.shape(array) for name, array in theirs.items()}:
        missing = [name for name in shapes if name not in theirs]
        others = [name for name in theirs if name not in shapes]
        raise ValueError(
            f"theirs: expected {_describe(shapes)} (those of {whose}); got {_describe(theirs)}"
            + (f"; missing: {', '.join(missing)}" if missing else "")
            + (f"; left over: {', '.join(others)}" if others else "")
        )


def _describe(named: Mapping[str, Any]) -> str:
    """Names with shapes."""
    entries = [
        f"{name} {shape if isinstance(shape, tuple) else np.shape(shape)}"
        for name, shape in named.items()
    ]
    more = f" and {len(entries) - 20} more" if len(entries) > 20 else ""
    return ", ".join(entries[:20]) + more or "none"


def shapes_of(cell: Cell, in_features: int, convert: Callable[[Cell, Params], Any]) -> Any:
    """The shapes that a converter gives for a cell of D = `in_features`."""
    shapes = jax.eval_shape(lambda: cell.init(jax.random.key(0), max(in_features, 1)))
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    return jax.eval_shape(lambda: convert(cell, params))


def length_of(arrays: Weights, name: str, axis: int) -> int:
    """The length of an axis of a kernel; 1 where there is no such kernel, which is then refused."""
    kernel = arrays.get(name)
    return np.shape(kernel)[axis] if kernel is not None and np.ndim(kernel) == 2 else 1


def check_params(cell: Cell, params: Params) -> None:
    """Raises `ValueError` unless parameters are like those that the cell draws."""
    inputs = params.get("input") if isinstance(params, Mapping) else None
    kernel = inputs.get("kernel") if isinstance(inputs, Mapping) else None
    features = length_of({"kernel": kernel}, "kernel", 0)
    like = jax.eval_shape(lambda: cell.init(jax.random.key(0), features))
    check_like("params", params, like, f"those of {cell}, D = {features}")


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


def split_gates(array: Any, count: int) -> list[jax.Array]:
    """The parts of a fused kernel `[.., count * H]` or bias, gate by gate."""
    return jnp.split(jnp.asarray(array), count, axis=-1)


def join_gates(arrays: Any) -> jax.Array:
    """Gates side by side."""
    return jnp.concatenate([jnp.asarray(array) for array in arrays], axis=-1)


def reorder_gates(array: Any, order: tuple[int, ...]) -> jax.Array:
    """The gates of a fused array in another order."""
    gates = split_gates(array, len(order))
    return join_gates(gates[i] for i in order)


def make_params(kind: str, kernel: Any, recurrent: Any, bias: Any, candidate: Any = None) -> Params:
    """A longlag `params` of an Elman, LSTM or GRU, gates in our order."""
    params: Params = {
        "input": {"kernel": jnp.asarray(kernel), "bias": jnp.asarray(bias)},
        "recurrent": {"kernel": jnp.asarray(recurrent)},
    }
    if kind == "gru" and candidate is not None:
        params["recurrent"]["bias"] = jnp.asarray(candidate)
    return params


def check_no_candidate_bias(params: Params, framework: str) -> None:
    """Raises `ValueError` unless a GRU's own bias at the candidate's product is zero."""
    bias = params["recurrent"]["bias"]
    # By numpy, since inside `jax.jit` what jax makes of a constant is traced too.
    if isinstance(bias, Tracer) or np.any(np.asarray(bias)):
        raise ValueError(
            f"recurrent.bias: expected zeros, since the GRU of {framework} has no such bias; got "
            f"{'a traced array' if isinstance(bias, Tracer) else 'others'}"
        )
