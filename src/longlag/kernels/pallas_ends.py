"""What is around a Pallas kernel: its inputs, from those of the loop, and the loop's results."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from longlag.kernels.pallas_kernel import Layout, width_of
from longlag.kernels.program import Constant, Kernel, Known, evaluate, results_of

__all__ = ["Inputs", "finish", "stored", "take_in"]


@dataclasses.dataclass(frozen=True)
class Inputs:
    """What a kernel is given, in the order of the layout.

    Attributes:
        known: the arrays that the loop is given for its constants.
        constants: of elementwise operations, `[B or 1, width or 1]`.
        kernels: matrices, the longer stride first.
        starts: the carry before the first step, `[B, width]`.
        streams: what each step is given, `[T, B, width]`.
    """

    known: dict[Known, jax.Array]
    constants: dict[Constant, jax.Array]
    kernels: dict[Kernel, jax.Array]
    starts: list[jax.Array]
    streams: dict[Any, jax.Array]


def take_in(
    layout: Layout,
    constants: Sequence[Known],
    arrays: Sequence[jax.Array],
    carry: Sequence[jax.Array],
    given: Sequence[jax.Array],
    before: Sequence[jax.Array],
    entry: Sequence[jax.Array],
    *,
    steps: int,
    reverse: bool,
) -> Inputs:
    """The inputs of a kernel; arguments as those of `pallas.run`."""
    program, batch = layout.schedule.program, layout.schedule.batch
    dtype = program.dtype
    known = dict(zip(constants, arrays))
    memo: dict[Known, Any] = {}

    def array_of(what: Known) -> jax.Array:
        return jnp.asarray(evaluate(what, known, (), memo)).astype(dtype)

    shifted = [_shift(array, last, reverse) for array, last in zip(before, entry, strict=True)]
    streams = dict(zip([*program.given, *program.before], [*given, *shifted], strict=True))
    return Inputs(
        known,
        {x: _as_matrix(x, x.read(array_of(x.known), dtype)) for x in layout.constants},
        {x: _cut_matrix(array_of(x.known).reshape(-1), x) for x in layout.kernels},
        [x.reshape(batch, -1).astype(dtype) for x in carry if x.size],
        {
            v: streams[v].astype(stored(streams[v], dtype)).reshape(steps, batch, v.width)
            for v in layout.streams
        },
    )


def stored(type_: Any, dtype: Any) -> Any:
    """The type in which a kernel reads or writes an array."""
    return jnp.bfloat16 if type_.dtype == jnp.bfloat16 else dtype


def finish(
    layout: Layout, made: Iterator[jax.Array], types: Sequence[Any], known: dict[Known, Any]
) -> list[jax.Array]:
    """The results of the body, from those of the kernel."""
    program = layout.schedule.program
    nothing = jnp.zeros(0, program.dtype)
    last, row_sums, every = (
        [next(made) if width_of(pieces) else nothing for pieces in group]
        for group in (program.new_carry, program.row_sums, program.outputs)
    )
    totals = [jnp.zeros(math.prod(shape), program.dtype) for shape in program.totals]
    for term in program.terms:
        # A matrix has a place in the sum: a range of rows and of columns.
        array, total = next(made), totals[term.total]
        columns = term.stride or total.size
        row, column = divmod(term.offset, columns)
        below = total.size // columns - row - array.shape[0]
        edges = [(row, below, 0), (column, columns - column - array.shape[1], 0)]
        totals[term.total] += lax.pad(array, jnp.zeros((), array.dtype), edges).reshape(-1)
    return results_of(program, last, row_sums, every, totals, types, known)


def _cut_matrix(flat: jax.Array, kernel: Kernel) -> jax.Array:
    """The matrix of a kernel, whose rows have the longer stride, from an array that lies flat."""
    inner = kernel.column_stride if kernel.columns > 1 else 1
    outer = kernel.row_stride if kernel.rows > 1 else kernel.columns * inner
    size = (kernel.rows - 1) * outer + (kernel.columns - 1) * inner + 1
    part = lax.slice(flat, [kernel.offset], [kernel.offset + size])
    part = jnp.pad(part, (0, kernel.rows * outer - size)).reshape(kernel.rows, outer)
    return part[:, : (kernel.columns - 1) * inner + 1 : inner]


def _as_matrix(constant: Constant, array: jax.Array) -> jax.Array:
    """A constant with two axes, of which one of size 1 stands for all rows or columns."""
    if constant.form == "column":
        return array[:, None]
    return array.reshape(constant.shape[constant.axis] if constant.form == "full" else 1, -1)


def _shift(array: jax.Array, entry: jax.Array, reverse: bool) -> jax.Array:
    """What each step sees of an array: what is one step further on, and `entry` at the last."""
    parts = (entry[None], array[:-1]) if reverse else (array[1:], entry[None])
    return jnp.concatenate(parts)[: array.shape[0]]
