"""Known arrays: what no step changes, and what is linear in the sums over all steps."""

from __future__ import annotations

from typing import Any

import numpy as np
from jax.core import Tracer

from longlag.kernels.columns import Rows
from longlag.kernels.program import Constant, Known, Piece, Unsupported

__all__ = ["Constants", "follow_sum"]

# Linear in any one input, if the others are known, or in all of them at once.
LINEAR_IN_ALL = {"add", "add_any", "sub", "concatenate", "pad", "select_n"}
LINEAR_IN_ONE = {"mul", "dot_general"}
LINEAR = {
    "reshape", "transpose", "squeeze", "expand_dims", "broadcast_in_dim", "slice", "split", "rev",
    "convert_element_type", "neg", "copy", "reduce_sum",
}  # fmt: skip
ELEMENTWISE = {"add", "add_any", "sub", "mul", "div", "convert_element_type", "neg", "exp", "max"}


class Constants:
    """Makes `Known`s of arguments, literals and equations, and operands of them."""

    def __init__(self, batch: int) -> None:
        self._batch = batch
        self._operands: dict[Any, Constant] = {}
        self._numbers: dict[float, Known] = {}

    def array(self, array: Any) -> Known:
        """An array that the jaxpr brings along."""
        shape = np.shape(array)
        zero = not isinstance(array, Tracer) and not np.any(np.asarray(array))
        return Known(
            shape, literal=array, zero=zero, uniform=frozenset(range(len(shape)) if zero else ())
        )

    def literal(self, var: Any) -> Known:
        """A literal of the jaxpr."""
        value = np.asarray(var.val, var.aval.dtype)
        return Known(value.shape, literal=value, zero=not value.any())

    def number(self, value: float) -> Known:
        """A number, in whatever type the program has."""
        if value not in self._numbers:
            self._numbers[value] = Known((), literal=value, zero=value == 0)
        return self._numbers[value]

    def fold(self, equation: Any, inputs: list[Known]) -> list[Known]:
        """The results of an equation that no step changes."""
        name, params = equation.primitive.name, equation.params
        made = []
        for i, var in enumerate(equation.outvars):
            shape = tuple(var.aval.shape)
            uniform, zero = frozenset(), False
            if name == "broadcast_in_dim":
                old, where = inputs[0], params["broadcast_dimensions"]
                kept = {
                    new: axis
                    for axis, new in enumerate(where)
                    if old.shape[axis] == shape[new] and axis not in old.uniform
                }
                uniform = frozenset(set(range(len(shape))) - set(kept))
                zero = old.zero
            elif name in ELEMENTWISE and all(x.shape in (shape, ()) for x in inputs):
                sets = [x.uniform for x in inputs if x.shape == shape and shape]
                uniform = frozenset.intersection(*sets) if sets else frozenset()
                zero = name in (
                    "add",
                    "add_any",
                    "sub",
                    "neg",
                    "convert_element_type",
                    "mul",
                ) and all(x.zero for x in inputs)
            elif name in ("reshape", "squeeze", "transpose", "slice", "expand_dims"):
                zero = inputs[0].zero
                if len(inputs[0].uniform) == len(inputs[0].shape):
                    uniform = frozenset(range(len(shape)))
            made.append(Known(shape, equation, tuple(inputs), i, uniform=uniform, zero=zero))
        return made

    def as_rows(self, known: Known, axis: int, like: Rows) -> Rows:
        """A known array as an operand beside `like`, in the smallest form that it has."""
        if known.summed:
            raise Unsupported("a sum over the batch meets the step's own values")
        shape = (*like.dims[:axis], self._batch, *like.dims[axis:])
        fits = len(known.shape) == len(shape) and all(
            own in (size, 1) for own, size in zip(known.shape, shape)
        )
        axes = {*range(len(known.shape))}
        uniform = known.uniform | {a for a in axes if known.shape[a] == 1}
        if known.shape != () and not fits:
            raise Unsupported(f"a constant of shape {known.shape} beside columns {like.dims}")
        if uniform >= axes:
            form = "number"
        elif axis in uniform:
            form = "row"
        elif uniform >= axes - {axis}:
            form = "column"
        else:
            form = "full"
        width = like.width
        key = (known, axis, form, shape if form in ("row", "full") else None)
        if key not in self._operands:
            self._operands[key] = Constant(known, form, axis, shape)
        narrow = form in ("number", "column")
        piece = Piece(self._operands[key], 0, width, narrow and width > 1)
        return Rows((piece,), axis, like.dims)


def follow_sum(equation: Any, inputs: list[Known]) -> list[Known]:
    """The results of an equation that is linear in a sum over steps, to be computed once.

    Raises:
        Unsupported: it is not linear, or not known to be.
    """
    name = equation.primitive.name
    summed = [x.summed for x in inputs]
    if name in LINEAR_IN_ALL:
        flags = inputs[1:] if name == "select_n" else inputs
        linear = all(x.summed or x.zero for x in flags) and (name != "select_n" or not summed[0])
    elif name in LINEAR_IN_ONE:
        linear = sum(summed) == 1
    elif name == "div":
        linear = summed == [True, False]
    else:
        linear = name in LINEAR
    if not linear:
        raise Unsupported(f"{name} of a sum over the batch")
    return [
        Known(tuple(var.aval.shape), equation, tuple(inputs), i, summed=True)
        for i, var in enumerate(equation.outvars)
    ]
