"""The program of a step in one Pallas kernel, the loop over time within: the kernel.

A turn of the grid does a chunk of steps of some rows, in the parts of `schedule.py`: products that
no step waits for are one product for the whole chunk, and so are the sums over rows and steps.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl

from longlag.kernels.program import Constant, Kernel, Operation, Piece
from longlag.kernels.schedule import Schedule
from longlag.kernels.tables import EARLY, LATE, STEP

__all__ = ["Layout", "Tile", "run_tile", "width_of"]

COMPARISONS = {"eq", "ne", "lt", "le", "gt", "ge", "is_finite"}
REDUCTIONS = {"row_sum": jnp.sum, "row_max": jnp.max, "row_min": jnp.min}


@dataclasses.dataclass(frozen=True)
class Tile:
    """What one turn of the grid does.

    Attributes:
        rows: of the batch.
        chunk: steps.
        batch: B.
        steps: T.
        interpret: whether, or how, the kernel runs as operations of XLA.
    """

    rows: int
    chunk: int
    batch: int
    steps: int
    interpret: Any

    @property
    def grid(self) -> tuple[int, int]:
        """Tiles of the batch, and chunks of time."""
        return pl.cdiv(self.batch, self.rows), pl.cdiv(self.steps, self.chunk)

    @property
    def is_ragged(self) -> bool:
        """Whether the last tile or chunk has rows or steps that do not exist."""
        return bool(self.batch % self.rows or self.steps % self.chunk)


class Layout:
    """What the kernel holds, and what it does in each part.

    Groups of ranges that are empty are left out.

    Attributes:
        schedule: of the program.
        operations: of each part.
        carry: values before the step.
        new_carry: ranges that make them after it.
        row_sums: ranges that are added up over the steps.
        outputs: ranges that make the outputs.
        term_shapes: of the matrices that are added up over rows and steps.
        constants: what elementwise operations read of constants.
        kernels: matrices, the longer stride first.
        streams: values that are given for each step.
        kept: values that one part makes for all steps of a chunk, and another reads.
    """

    def __init__(self, schedule: Schedule) -> None:
        self.schedule, program = schedule, schedule.program
        parts = schedule.parts
        self._part_of = {operation.out: part for operation, part in parts.items()}
        self._carry_of = {value: carry for carry, value in schedule.kept.items()}
        self.operations: dict[int, list[Operation]] = {EARLY: [], STEP: [], LATE: []}
        for operation in program.operations:
            self.operations[parts[operation]].append(operation)
        self.carry = [value for value in program.carry if value.width]
        self.new_carry, self.row_sums, self.outputs = (
            [[piece for piece in pieces if piece.size] for pieces in group if width_of(pieces)]
            for group in (program.new_carry, program.row_sums, program.outputs)
        )
        self.term_shapes = [
            (1, term.left.size) if term.right is None else (term.left.size, term.right.size)
            for term in program.terms
        ]
        pieces = {
            part: [*_flat(each.reads() for each in operations)]
            for part, operations in self.operations.items()
        }
        pieces[STEP] += _flat([*self.new_carry, *self.row_sums])
        pieces[LATE] += _flat(term.reads() for term in program.terms)
        for piece in _flat(self.outputs):
            pieces[self.part_of(piece.source)].append(piece)
        read = {part: [self.source_of(each) for each in pieces[part]] for part in pieces}
        sources = dict.fromkeys(_flat(read.values()))
        products = _flat(each.products for each in program.operations)
        given = {*program.given, *program.before}
        self.constants = [each for each in sources if isinstance(each, Constant)]
        self.kernels = [*dict.fromkeys(longer_stride_first(kernel)[0] for _, kernel in products)]
        self.streams = [each for each in sources if each in given]
        early = [each for each in read[STEP] + read[LATE] if self._part_of.get(each) == EARLY]
        stepwise = {*program.carry, *(v for v, part in self._part_of.items() if part == STEP)}
        self.kept = [*dict.fromkeys(early + [each for each in read[LATE] if each in stepwise])]

    def source_of(self, piece: Piece) -> Any:
        """What a range is a range of."""
        return self._carry_of.get(piece.source, piece.source)  # type: ignore[arg-type]

    def part_of(self, source: Any) -> int:
        """The part that makes a value. What it does not make is at hand in every step."""
        return self._part_of.get(source, STEP)


def run_tile(layout: Layout, tile: Tile, reverse: bool, *refs: Any) -> None:
    """The kernel: one turn of the grid."""
    program = layout.schedule.program
    dtype, rows, chunk = program.dtype, tile.rows, tile.chunk
    remaining = iter(refs)

    def take(keys: Sequence[Any]) -> dict[Any, Any]:
        return {key: next(remaining) for key in keys}

    constants, kernels = take(layout.constants), take(layout.kernels)
    starts, in_time = take(layout.carry), take(layout.streams)
    last = take(layout.carry)
    sums, outputs, terms = (
        [next(remaining) for _ in group]
        for group in (layout.row_sums, layout.outputs, layout.term_shapes)
    )
    in_time |= take(layout.kept)
    number, turn = pl.program_id(0), pl.program_id(1)
    count: Any = chunk
    if tile.steps % chunk:
        first = (tile.grid[1] - 1 - turn if reverse else turn) * chunk
        count = jnp.minimum(chunk, tile.steps - first)

    @pl.when(turn == 0)
    def _() -> None:
        for value, ref in last.items():
            ref[...] = starts[value][...]
        for ref in sums:
            ref[...] = jnp.zeros(ref.shape, dtype)

    @pl.when((turn == 0) & (number == 0))
    def _() -> None:
        for ref in terms:
            ref[...] = jnp.zeros(ref.shape, dtype)

    def run_part(part: int, values: dict[Any, Any], at: Any = None) -> Callable[[Piece], Any]:
        """Runs a part, of the step `at` or of all steps at once; returns what reads a range."""
        shape = (chunk, rows) if at is None else (rows,)
        here = (slice(None), slice(None)) if at is None else (at, slice(None))

        def read(piece: Piece) -> Any:
            source = layout.source_of(piece)
            if source not in values:
                is_constant = isinstance(source, Constant)
                values[source] = constants[source][...] if is_constant else in_time[source][here]
            return cut_columns(values[source].astype(dtype), piece, shape)

        for each in layout.operations[part]:
            values[each.out] = operate(each, read, kernels, interpret=bool(tile.interpret))
        for value in layout.kept:
            if layout.part_of(value) == part:
                in_time[value][here] = values[value]
        for ref, pieces in zip(outputs, layout.outputs):
            for place, piece in _places(pieces):
                if layout.part_of(piece.source) == part:
                    ref[(*here, place)] = read(piece).astype(ref.dtype)
        return read

    def step(i: Any, _: None) -> None:
        values = {value: ref[...] for value, ref in last.items()}
        read = run_part(STEP, values, count - 1 - i if reverse else i)
        # All is read before the carry changes.
        after = [[*map(read, pieces)] for pieces in layout.new_carry]
        for ref, pieces in zip(sums, layout.row_sums):
            for place, piece in _places(pieces):
                ref[:, place] += read(piece)
        for ref, pieces, arrays in zip(last.values(), layout.new_carry, after):
            for (place, _piece), array in zip(_places(pieces), arrays):
                ref[:, place] = array

    run_part(EARLY, {})
    lax.fori_loop(0, count, step, None)
    read = run_part(LATE, {})

    @functools.cache
    def all_rows(piece: Piece) -> Any:
        """A range of all steps, `[chunk * rows, size]`, with zeros where there is no such row."""
        array = read(piece)
        if tile.is_ragged:
            time, row = (lax.broadcasted_iota(jnp.int32, array.shape, axis) for axis in (0, 1))
            exists = (time < count) & (row < tile.batch - number * rows)
            array = jnp.where(exists, array, jnp.zeros_like(array))
        return array.reshape(chunk * rows, piece.size)

    for ref, term in zip(terms, program.terms):
        if term.right is None:
            ref[...] += all_rows(term.left).sum(0, keepdims=True)
        else:
            ref[...] += multiply(all_rows(term.left), all_rows(term.right), 0, 0)


def cut_columns(array: Any, piece: Piece, shape: tuple[int, ...]) -> Any:
    """A range of an array, `[*shape, size]`, of which an axis of size 1 stands for all."""
    width = 1 if piece.narrow else piece.size
    if array.shape[-1] not in (1, width):
        array = array[..., piece.start : piece.start + width]
    return jnp.broadcast_to(array, (*shape, piece.size))


def operate(
    operation: Operation,
    read: Callable[[Piece], Any],
    kernels: dict[Kernel, Any],
    *,
    interpret: bool,
) -> Any:
    """The result of an operation, `[..., rows, width]`."""
    name, width = operation.name, operation.out.width
    inputs = [read(piece) for piece in operation.inputs]
    if name == "affine":
        for piece, kernel in operation.products:
            x, (matrix, is_transpose) = read(piece), longer_stride_first(kernel)
            product = multiply(
                x.reshape(-1, piece.size), kernels[matrix][...], 1, int(is_transpose)
            )
            inputs.append(product.reshape(*x.shape[:-1], width))
        return functools.reduce(lax.add, inputs)
    if name in REDUCTIONS:
        size = inputs[0].shape[-1] // width
        groups = [inputs[0][..., i * size : (i + 1) * size] for i in range(width)]
        columns = [REDUCTIONS[name](group, -1, keepdims=True) for group in groups]
        return columns[0] if width == 1 else jnp.concatenate(columns, -1)
    return elementwise(name, *inputs, interpret=interpret)


def elementwise(name: str, x: Any, *others: Any, interpret: bool) -> Any:
    if name == "copy":
        return x
    if name == "select":
        return jnp.where(x != 0, others[1], others[0])
    if name == "not":
        return 1 - x
    if name == "round_to_bfloat16":
        # XLA would leave out a conversion there and back, and Mosaic knows no other rounding.
        rounded = x.astype(jnp.bfloat16).astype(x.dtype)
        return lax.reduce_precision(x, 8, 7) if interpret else rounded
    if name == "expm1" and not interpret:
        # Mosaic has none. Near zero tanh is exact enough, and elsewhere exp.
        half = jnp.tanh(x / 2)
        return jnp.where(jnp.abs(x) < 0.5, 2 * half / (1 - half), jnp.exp(x) - 1)
    if name == "sign" and not interpret:
        # That of Mosaic asks which TPU this machine has.
        return jnp.where(x > 0, jnp.ones_like(x), jnp.where(x < 0, -jnp.ones_like(x), x))
    made = getattr(lax, name)(x, *others)
    return made.astype(x.dtype) if name in COMPARISONS else made


def multiply(left: Any, right: Any, left_axis: int, right_axis: int) -> Any:
    numbers = (((left_axis,), (right_axis,)), ((), ()))
    return lax.dot_general(left, right, numbers, preferred_element_type=left.dtype)


def longer_stride_first(kernel: Kernel) -> tuple[Kernel, bool]:
    """A matrix whose rows have the longer stride, and whether it is the kernel's transpose."""
    if min(kernel.rows, kernel.columns) == 1 or kernel.row_stride > kernel.column_stride:
        return kernel, False
    strides, shape = (kernel.column_stride, kernel.row_stride), (kernel.columns, kernel.rows)
    return Kernel(kernel.known, kernel.offset, *strides, *shape), True


def width_of(pieces: Iterable[Piece]) -> int:
    """The width of ranges side by side."""
    return sum(piece.size for piece in pieces)


def _places(pieces: Sequence[Piece]) -> Iterator[tuple[slice, Piece]]:
    """Ranges side by side, each with the columns that it makes."""
    ends = itertools.accumulate(piece.size for piece in pieces)
    return ((slice(end - piece.size, end), piece) for end, piece in zip(ends, pieces))


def _flat(groups: Iterable[Iterable[Any]]) -> Iterator[Any]:
    return itertools.chain.from_iterable(groups)
