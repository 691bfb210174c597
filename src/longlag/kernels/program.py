"""The program of a step: what the body of a loop over time is in its normal form.

A program is gate by gate. Every value of a step is `[B, width]`, rows of the batch, and is made by
one `Operation`. A value is read by `Piece`s, ranges of its columns, so that splits, concatenations,
reshapes and broadcasts are no operations at all. Products are sums of products with constant
kernels, one for each gate. What depends on constants alone is a `Known`, computed once outside of
the loop, and what is added up over rows and steps, such as the gradient of a kernel, is a `Known`
too: the loop fills its leaves, and whatever follows is linear and is computed once after it.

Programs know nothing of cells, and nothing of the machine that will run them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

__all__ = [
    "Constant",
    "Kernel",
    "Known",
    "Operation",
    "Piece",
    "Program",
    "SumTerm",
    "Unsupported",
    "Value",
    "describe",
    "evaluate",
    "results_of",
]


class Unsupported(Exception):  # noqa: N818 - it says what a step is, and is no fault
    """A step has something that no program can express; the text says what, and why."""


@dataclasses.dataclass(eq=False)
class Value:
    """What a step computes or is given: `[B, width]`, in the floating type of the program.

    Bools are 0 and 1.

    Attributes:
        width: number of columns.
    """

    width: int


@dataclasses.dataclass(eq=False)
class Known:
    """An array outside of the loop: an argument, a literal, or what an equation makes of others.

    Attributes:
        shape: of the array.
        equation: the equation of a jaxpr that makes it, or None for an argument or a literal.
        inputs: what the equation takes.
        output: which of the equation's results it is.
        literal: its value, if it is one.
        uniform: the axes along which all its numbers are equal.
        zero: all its numbers are zero.
        total: number of the sum over rows and steps that the loop makes, for a leaf of those.
        summed: a sum over rows and steps, or linear in one.
    """

    shape: tuple[int, ...]
    equation: Any = None
    inputs: tuple[Known, ...] = ()
    output: int = 0
    literal: Any = None
    uniform: frozenset[int] = frozenset()
    zero: bool = False
    total: int | None = None
    summed: bool = False


@dataclasses.dataclass(eq=False)
class Constant:
    """A known array as an elementwise operation reads it.

    Attributes:
        known: the array.
        form: "number" (the same everywhere), "row" (`[width]`, the same in each row), "column"
            (`[B]`, the same in each column) or "full" (`[B, width]`).
        axis: the axis of the array that is the batch.
        shape: of the array, after axes of size 1 have been spread.
    """

    known: Known
    form: str
    axis: int
    shape: tuple[int, ...]

    def read(self, array: jax.Array, dtype: Any) -> jax.Array:
        """The array in this form."""
        if self.form == "number":
            return array.reshape(-1)[:1].astype(dtype)
        array = jax.numpy.broadcast_to(array, self.shape).astype(dtype)
        rows = jax.numpy.moveaxis(array, self.axis, 0).reshape(self.shape[self.axis], -1)
        if self.form == "row":
            return rows[0]
        return rows[:, 0] if self.form == "column" else rows.reshape(-1)


@dataclasses.dataclass(frozen=True)
class Piece:
    """A range of columns.

    Attributes:
        source: what is read.
        start: the first column.
        size: how many columns.
        narrow: all of them are the one column `start`.
    """

    source: Value | Constant
    start: int
    size: int
    narrow: bool = False

    def cut(self, start: int, size: int) -> Piece:
        """A range of this range."""
        return Piece(self.source, self.start + (0 if self.narrow else start), size, self.narrow)


@dataclasses.dataclass(frozen=True)
class Kernel:
    """A matrix `[rows, columns]` in a known array, by its strides.

    Attributes:
        known: the array.
        offset: the place of its first number.
        row_stride: from one row to the next.
        column_stride: from one column to the next.
        rows: what is summed over.
        columns: the width of the product.
    """

    known: Known
    offset: int
    row_stride: int
    column_stride: int
    rows: int
    columns: int

    def cut_rows(self, start: int, size: int) -> Kernel:
        """Some of the rows."""
        offset = self.offset + start * self.row_stride
        return dataclasses.replace(self, offset=offset, rows=size)

    def cut_columns(self, start: int, size: int) -> Kernel:
        """Some of the columns."""
        offset = self.offset + start * self.column_stride
        return dataclasses.replace(self, offset=offset, columns=size)


@dataclasses.dataclass(eq=False)
class Operation:
    """One operation of a step.

    Attributes:
        name: the field's name, such as "tanh", "select" or "row_sum"; "affine" is
            `sum(products) + sum(inputs)`.
        out: what it makes.
        inputs: what it reads, each as wide as `out`. A row reduction reads `groups` parts of one
            range, and `out` has a column for each.
        products: of an "affine", ranges and the kernels that they meet.
    """

    name: str
    out: Value
    inputs: list[Piece]
    products: list[tuple[Piece, Kernel]] = dataclasses.field(default_factory=list)

    def reads(self) -> Iterator[Piece]:
        """Every range that it reads."""
        yield from self.inputs
        yield from (piece for piece, _ in self.products)


@dataclasses.dataclass(eq=False)
class SumTerm:
    """What a step adds to a sum over rows and steps: `leftᵀ right`, or the rows of `left` added up.

    Attributes:
        total: number of the sum.
        left: a range `[B, M]`.
        right: a range `[B, N]`, or None.
        offset: where in the sum its first number is added.
        stride: from one row of the product to the next.
    """

    total: int
    left: Piece
    right: Piece | None
    offset: int
    stride: int

    def reads(self) -> Iterator[Piece]:
        """Every range that it reads."""
        yield self.left
        if self.right is not None:
            yield self.right


@dataclasses.dataclass(eq=False)
class Program:
    """A step.

    Attributes:
        dtype: float32 or float64, in which all of it is computed.
        carry: values before the step.
        given: inputs of the step.
        before: what the step sees of another array one step further on, see `looping.loop`.
        operations: in an order in which they can be run.
        new_carry: ranges that make the carry after the step.
        outputs: ranges that make the outputs of the step.
        totals: shapes of the sums over rows and steps.
        terms: what the step adds to them.
        row_sums: for each result that is a sum over steps of rows, its ranges.
        results: what the sums make, in the order of the body: a `Known`, or the number of a row
            sum.
    """

    dtype: np.dtype
    carry: list[Value]
    given: list[Value]
    before: list[Value]
    operations: list[Operation]
    new_carry: list[list[Piece]]
    outputs: list[list[Piece]]
    totals: list[tuple[int, ...]]
    terms: list[SumTerm]
    row_sums: list[list[Piece]]
    results: list[Known | int]

    def roots(self) -> Iterator[Piece]:
        """Every range that leaves the step."""
        for group in (self.new_carry, self.outputs, self.row_sums):
            for pieces in group:
                yield from pieces
        for term in self.terms:
            yield from term.reads()


def describe(program: Program) -> str:
    """A program in lines that can be read, with a name for every value."""
    names: dict[Any, str] = {}
    groups = (("c", program.carry), ("x", program.given), ("before", program.before))
    for letter, values in groups:
        names.update({value: f"{letter}{i}" for i, value in enumerate(values)})
    kernels: dict[Known, str] = {}

    def read(piece: Piece) -> str:
        source = piece.source
        if isinstance(source, Constant):
            literal = source.known.literal
            shown = f"{float(literal):g}" if np.ndim(literal) == 0 and literal is not None else ""
            name = shown or names.setdefault(source, f"k{len(names)}")
            wide = source.form in ("row", "full")
            return f"{name}[{piece.start}:{piece.start + piece.size}]" if wide else name
        name = names.setdefault(source, f"v{len(names)}")
        if piece.narrow:
            return f"{name}[:, {piece.start}, None]"
        whole = piece.start == 0 and piece.size == source.width
        return name if whole else f"{name}[:, {piece.start}:{piece.start + piece.size}]"

    def multiply(piece: Piece, kernel: Kernel) -> str:
        name = kernels.setdefault(kernel.known, f"W{len(kernels)}")
        return f"{read(piece)} @ {name}[{kernel.rows}, {kernel.columns} from {kernel.offset}]"

    lines = []
    for operation in program.operations:
        inputs = [read(piece) for piece in operation.inputs]
        terms = [multiply(piece, kernel) for piece, kernel in operation.products]
        made = names.setdefault(operation.out, f"v{len(names)}")
        text = " + ".join([*terms, *inputs]) if terms else f"{operation.name}({', '.join(inputs)})"
        lines.append(f"{made} = {text}")
    for i, pieces in enumerate(program.new_carry):
        lines.append(f"c{i} <- {', '.join(map(read, pieces))}")
    for i, pieces in enumerate(program.outputs):
        lines.append(f"y{i} <- {', '.join(map(read, pieces))}")
    for term in program.terms:
        right = f"T {read(term.right)}" if term.right is not None else " over rows"
        lines.append(f"sum{term.total}[{term.offset}:] += {read(term.left)}{right}")
    return "\n".join(lines)


def evaluate(
    known: Known, arguments: dict[Known, Any], totals: Sequence[Any], memo: dict[Known, Any]
) -> Any:
    """The array of a `Known`.

    Args:
        known: what to compute.
        arguments: arrays of those that are arguments.
        totals: the sums that the loop made.
        memo: what is computed already.
    """
    if known in memo:
        return memo[known]
    if known.equation is None:
        if known.total is not None:
            value = totals[known.total]
        elif known in arguments:
            value = arguments[known]
        else:
            value = known.literal
        memo[known] = value
        return value
    inputs = [evaluate(each, arguments, totals, memo) for each in known.inputs]
    made = known.equation.primitive.bind(*inputs, **known.equation.params)
    memo[known] = made[known.output] if known.equation.primitive.multiple_results else made
    return memo[known]


def results_of(
    program: Program,
    last: Sequence[jax.Array],
    row_sums: Sequence[jax.Array],
    every: Sequence[jax.Array],
    totals: Sequence[jax.Array],
    types: Sequence[Any],
    known: dict[Known, Any],
) -> list[jax.Array]:
    """What the body of a loop returns after all steps, from what ran the program.

    Args:
        program: the step.
        last: the last carry.
        row_sums: sums over the steps, of each row.
        every: the outputs of every step.
        totals: sums over rows and steps, of any shape.
        types: shapes and dtypes of the results: of the carry, the outputs, and the sums.
        known: arrays of the constants.
    """
    shaped = [total.reshape(shape) for total, shape in zip(totals, program.totals)]
    memo: dict[Known, Any] = {}
    sums = [
        row_sums[result] if isinstance(result, int) else evaluate(result, known, shaped, memo)
        for result in program.results
    ]
    return [
        jax.numpy.asarray(array).reshape(type_.shape).astype(type_.dtype)
        for array, type_ in zip([*last, *every, *sums], types, strict=True)
    ]
