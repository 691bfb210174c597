"""From the jaxpr of a step to its program.

The jaxpr is walked once, inner jaxprs too. A variable stands for one of two things: a `Known`,
which no step changes, or `Rows`, ranges of columns of values of the step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal

from longlag.kernels.columns import (
    Rows,
    cut_in_step,
    join_columns,
    move_columns,
    spread,
)
from longlag.kernels.known import Constants, follow_sum
from longlag.kernels.products import contract
from longlag.kernels.program import (
    Constant,
    Kernel,
    Known,
    Operation,
    Piece,
    Program,
    SumTerm,
    Unsupported,
    Value,
)
from longlag.kernels.reductions import REDUCTIONS, reduce_axes
from longlag.kernels.tidying import tidy

__all__ = ["Reader", "normalise"]

UNARY = {
    "neg", "exp", "tanh", "logistic", "log", "log1p", "expm1", "sqrt", "rsqrt", "abs", "sign",
    "square", "sin", "cos", "tan", "erf", "floor", "ceil", "is_finite", "not", "cbrt",
}  # fmt: skip
BINARY = {
    "add": "add", "add_any": "add", "sub": "sub", "mul": "mul", "div": "div", "max": "max",
    "min": "min", "pow": "pow", "atan2": "atan2", "eq": "eq", "ne": "ne", "lt": "lt", "le": "le",
    "gt": "gt", "ge": "ge", "and": "min", "or": "max", "xor": "ne",
}  # fmt: skip
# They keep every number. Explicit axes of a mesh were refused before (`looping.py`).
SAME = {"copy", "copy_p", "pvary", "reshard", "optimization_barrier", "stop_gradient"}
INNER = {
    "jit": "jaxpr", "pjit": "jaxpr", "closed_call": "call_jaxpr", "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr", "remat2": "jaxpr", "checkpoint": "jaxpr",
}  # fmt: skip
# They make no number that bfloat16 cannot hold from numbers that it can.
EXACT = {
    "neg",
    "abs",
    "max",
    "min",
    "select_n",
    "sign",
    "floor",
    "ceil",
    "reduce_max",
    "reduce_min",
}
LARGEST_POWER = 16


def normalise(
    closed: Any, batch: int, *, carry: int, given: int, before: int, outputs: int
) -> tuple[Program, list[Known]]:
    """The program of a step.

    Args:
        closed: the closed jaxpr of `(constants, carry, given, before) -> (carry, outputs, sums)`,
            flat. All but constants and sums begin with the axis of the batch.
        batch: B.
        carry: number of leaves of the carry.
        given: number of inputs of the step.
        before: number of leaves of `before`.
        outputs: number of outputs of the step.

    Returns:
        The program, and the constants as `Known`.

    Raises:
        Unsupported: what the program cannot express.
    """
    first = len(closed.jaxpr.invars) - carry - given - before
    reader = Reader(batch, _dtype_of(closed))
    arguments = [Known(tuple(v.aval.shape)) for v in closed.jaxpr.invars[:first]]
    rows = [reader.argument(v) for v in closed.jaxpr.invars[first:]]
    outs = reader.walk(closed.jaxpr, closed.consts, [*arguments, *rows])
    leaving = [reader.leaving(out) for out in outs[: carry + outputs]]
    row_sums, results = [], []
    for out in outs[carry + outputs :]:
        if isinstance(out, Known):
            if not (out.summed or out.zero):
                raise Unsupported("a sum over steps of what no step changes")
            results.append(out)
        else:
            results.append(len(row_sums))
            row_sums.append(reader.leaving(out))
    values: list[Any] = [value.pieces[0].source if value.pieces else Value(0) for value in rows]
    program = Program(
        dtype=reader.dtype,
        carry=values[:carry],
        given=values[carry : carry + given],
        before=values[carry + given :],
        operations=reader.operations,
        new_carry=leaving[:carry],
        outputs=leaving[carry:],
        totals=reader.totals,
        terms=reader.terms,
        row_sums=row_sums,
        results=results,
    )
    return tidy(program), arguments


def _dtype_of(closed: Any) -> np.dtype:
    """The one type in which all of the step can be computed."""
    avals = [v.aval for v in [*closed.jaxpr.invars, *closed.jaxpr.outvars]]
    kinds = {
        np.dtype(np.float32) if aval.dtype == jnp.bfloat16 else np.dtype(aval.dtype)
        for aval in avals
        if jnp.issubdtype(aval.dtype, jnp.floating)
    }
    if len(kinds) != 1 or not kinds <= {np.dtype(np.float32), np.dtype(np.float64)}:
        names = " and ".join(sorted(map(str, kinds))) or "no floating type"
        raise Unsupported(f"numbers in {names}, where float32 (with bfloat16) or float64 will do")
    return kinds.pop()


class Reader:
    """Walks over equations and gathers operations.

    Attributes:
        batch: B.
        dtype: in which all of the step is computed.
        constants: makes operands of known arrays.
        operations: so far.
        totals: shapes of the sums over rows and steps.
        terms: what a step adds to them.
    """

    def __init__(self, batch: int, dtype: np.dtype) -> None:
        self.batch, self.dtype = batch, dtype
        self.constants = Constants(batch)
        self.operations: list[Operation] = []
        self.totals: list[tuple[int, ...]] = []
        self.terms: list[SumTerm] = []
        self._made: dict[Any, Value] = {}

    def argument(self, var: Any) -> Rows:
        """An argument that begins with the axis of the batch."""
        self._check_dtype(var.aval, "an argument")
        shape = tuple(var.aval.shape)
        if not shape or shape[0] != self.batch:
            raise Unsupported(f"an argument of shape {shape} without the batch in front")
        width = math.prod(shape[1:])
        pieces = (Piece(Value(width), 0, width),) if width else ()
        return Rows(pieces, 0, shape[1:])

    def walk(
        self, jaxpr: Any, consts: Sequence[Any], inputs: Sequence[Rows | Known]
    ) -> list[Rows | Known]:
        """What the results of a jaxpr stand for, from what its arguments do."""
        names: dict[Any, Rows | Known] = dict(zip(jaxpr.invars, inputs, strict=True))
        names.update({v: self.constants.array(c) for v, c in zip(jaxpr.constvars, consts)})

        def look_up(var: Any) -> Rows | Known:
            return self.constants.literal(var) if isinstance(var, Literal) else names[var]

        for equation in jaxpr.eqns:
            outs = self._read(equation, [look_up(var) for var in equation.invars])
            names.update(zip(equation.outvars, outs, strict=True))
        return [look_up(var) for var in jaxpr.outvars]

    def leaving(self, out: Rows | Known) -> list[Piece]:
        """The ranges of a result that has rows."""
        if isinstance(out, Known):
            if not out.shape or out.shape[0] != self.batch:
                raise Unsupported(f"a result of shape {out.shape} without the batch in front")
            out = self.constants.as_rows(out, 0, Rows((), 0, out.shape[1:]))
        if out.axis != 0:
            raise Unsupported("a result without the batch in front")
        return list(out.pieces)

    def emit(
        self,
        name: str,
        width: int,
        inputs: Sequence[Piece],
        products: Sequence[tuple[Piece, Kernel]] = (),
    ) -> Value:
        """The value that an operation makes. The same operation is not done twice."""
        key = (name, width, tuple(inputs), tuple(products))
        if key not in self._made:
            self._made[key] = Value(width)
            operation = Operation(name, self._made[key], list(inputs), list(products))
            self.operations.append(operation)
        return self._made[key]

    def as_operand(self, piece: Piece) -> Piece:
        """A range that a product can read: side by side in a value of the step."""
        if isinstance(piece.source, Constant) or piece.narrow:
            return Piece(self.emit("copy", piece.size, [piece]), 0, piece.size)
        return piece

    def add_total(self, shape: tuple[int, ...]) -> Known:
        """A new sum over rows and steps."""
        self.totals.append(shape)
        return Known(shape, total=len(self.totals) - 1, summed=True)

    def elementwise(self, name: str, inputs: Sequence[Rows | Known]) -> Rows:
        """The same operation on each range of columns in which every input is one range."""
        given = [each for each in inputs if isinstance(each, Rows)]
        if any(x.axis != given[0].axis or len(x.dims) != len(given[0].dims) for x in given):
            raise Unsupported(f"{name} of columns in another order")
        dims = np.broadcast_shapes(*(x.dims for x in given), *map(self._dims_of(given[0]), inputs))
        like = Rows((), given[0].axis, dims)
        rows = [
            spread(each, dims)
            if isinstance(each, Rows)
            else self.constants.as_rows(each, like.axis, like)
            for each in inputs
        ]
        made = []
        for parts in cut_in_step([each.pieces for each in rows]):
            size = parts[0].size
            narrow = size > 1 and all(part.narrow for part in parts)
            out = self.emit(
                name, 1 if narrow else size, [p.cut(0, 1) for p in parts] if narrow else parts
            )
            made.append(Piece(out, 0, size, narrow))
        return Rows(tuple(made), like.axis, like.dims)

    def _dims_of(self, like: Rows) -> Callable[[Any], tuple[int, ...]]:
        """The other axes of an operand beside `like`; none for a number."""
        return lambda x: _dims_beside(x.shape, like.axis) if isinstance(x, Known) else x.dims

    # -- equations --------------------------------------------------------------------------------

    def _read(self, equation: Any, ins: list[Rows | Known]) -> list[Rows | Known]:
        name = equation.primitive.name
        if name in INNER:
            inner = equation.params[INNER[name]]
            # Some are closed over their constants, others have none.
            return self.walk(getattr(inner, "jaxpr", inner), getattr(inner, "consts", ()), ins)
        known = [each for each in ins if isinstance(each, Known)]
        if any(each.summed for each in known):
            if len(known) < len(ins):
                raise Unsupported("a sum over the batch meets the step's own values")
            return list(follow_sum(equation, known))
        if len(known) == len(ins):
            return list(self.constants.fold(equation, known))
        for var in equation.outvars:
            self._check_dtype(var.aval, name)
        results = self._step(name, equation, ins)
        if results is None:
            operands = ", ".join(f"{v.aval.dtype}{list(v.aval.shape)}" for v in equation.invars)
            raise Unsupported(f"{name} of {operands}")
        return results

    def _step(self, name: str, equation: Any, ins: list[Any]) -> list[Rows | Known] | None:
        """An equation of which something changes from step to step, or None."""
        params, aval = equation.params, equation.outvars[0].aval
        if name in SAME and len(ins) == 1:
            return ins
        if name in ("concatenate", "pad", "stack"):
            return self._join(name, params, ins, equation)
        if len(ins) == 1:
            moved = move_columns(name, params, ins[0], [v.aval.shape for v in equation.outvars])
            if moved is not None:
                return list(moved)
        if name in ("add", "add_any") and any(_is_zero(each) for each in ins):
            # The zero that `vjp` makes of a cotangent that is none.
            return [ins[0] if _is_zero(ins[1]) else ins[1]]
        if name in BINARY or name in UNARY:
            result = self.elementwise(BINARY.get(name, name), ins)
        elif name == "select_n" and len(ins) == 3:
            result = self.elementwise("select", ins)
        elif name == "one_minus_square":  # of jax 0.12, in the derivative of tanh
            square = self.elementwise("square", ins)
            result = self.elementwise("sub", [self.constants.number(1.0), square])
        elif name == "clamp":
            result = self.elementwise("min", [self.elementwise("max", ins[1::-1]), ins[2]])
        elif name == "integer_pow" and 0 < abs(params["y"]) <= LARGEST_POWER:
            result = self._power(ins[0], params["y"])
        elif name == "convert_element_type":
            return [self._convert(ins[0], equation.invars[0].aval.dtype, aval.dtype)]
        elif name in REDUCTIONS:
            result = reduce_axes(self, name, ins[0], params["axes"])
        elif name == "dot_general":
            result = contract(self, params["dimension_numbers"], *ins)
        else:
            return None
        if isinstance(result, Rows) and aval.dtype == jnp.bfloat16 and name not in EXACT:
            result = self.elementwise("round_to_bfloat16", [result])
        return None if result is None else [result]

    def _join(self, name: str, params: Any, ins: list[Any], equation: Any) -> list[Any] | None:
        """A concatenation along columns; a padding is one."""
        axis = next(each.axis for each in ins if isinstance(each, Rows))
        if name == "stack":
            new, shape = params["axis"], equation.outvars[0].aval.shape
            axis += new <= axis
            dims = _dims_beside([1 if a == new else size for a, size in enumerate(shape)], axis)
            rows = [self._spread(each, axis, dims) for each in ins]
            return [join_columns([Rows(each.pieces, axis, dims) for each in rows], new)]
        if name == "concatenate":
            if params["dimension"] == axis:
                return None
            dims = [_dims_beside(v.aval.shape, axis) for v in equation.invars]
            rows = [self._spread(each, axis, size) for each, size in zip(ins, dims)]
            return [join_columns(rows, params["dimension"])]
        x, value = ins
        edges = params["padding_config"]
        if edges[axis] != (0, 0, 0) or not isinstance(x, Rows) or not isinstance(value, Known):
            return None
        for a, (low, high, interior) in enumerate(edges):
            if interior or low < 0 or high < 0:
                return None
            parts = []
            for size in (low, high):
                dims = [*x.dims]
                if a != axis:
                    dims[x.column_axis(a)] = int(size)
                parts.append(self._spread(value, axis, tuple(dims)) if size else None)
            if low or high:
                x = join_columns([part for part in (parts[0], x, parts[1]) if part], a)
        return [x]

    def _spread(self, x: Rows | Known, axis: int, dims: tuple[int, ...]) -> Rows:
        return x if isinstance(x, Rows) else self.constants.as_rows(x, axis, Rows((), axis, dims))

    def _power(self, x: Rows, exponent: int) -> Rows:
        power = x
        for bit in bin(abs(exponent))[3:]:
            power = self.elementwise("square", [power])
            power = self.elementwise("mul", [power, x]) if bit == "1" else power
        if exponent > 0:
            return power
        return self.elementwise("div", [self.constants.number(1.0), power])

    def _convert(self, x: Rows, old: Any, new: Any) -> Rows:
        if new == jnp.bool_ and old != jnp.bool_:
            return self.elementwise("ne", [x, self.constants.number(0.0)])
        if new == jnp.bfloat16 and old not in (jnp.bfloat16, jnp.bool_):
            return self.elementwise("round_to_bfloat16", [x])
        return x

    def _check_dtype(self, aval: Any, what: str) -> None:
        allowed = {self.dtype, np.dtype(bool)}
        if self.dtype == np.float32:
            allowed.add(np.dtype(jnp.bfloat16))
        if aval.dtype not in allowed:
            raise Unsupported(f"{what} of {aval.dtype}")


def _dims_beside(shape: Sequence[int], axis: int) -> tuple[int, ...]:
    return tuple(int(size) for a, size in enumerate(shape) if a != axis)


def _is_zero(x: Rows | Known) -> bool:
    return isinstance(x, Known) and x.zero
