"""The program of a step on a GPU: its steps in one kernel of Mosaic GPU, the loop over time within.

A block of 128 threads takes one row of the batch through all steps. The carry lies in the shared
memory of the block, and what an operation makes in its registers. Blocks share nothing.

The kernel does the STEP part of `schedule.py`. What waits for no step is done for all steps at once
by XLA, before the kernel and after it: large products, and the sums over rows and steps.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from longlag.kernels.pallas_ends import Inputs, finish, take_in
from longlag.kernels.pallas_gpu_kernel import LANES, Plan, pad, run_row, vectors_of
from longlag.kernels.pallas_kernel import (
    Layout,
    cut_columns,
    longer_stride_first,
    multiply,
    operate,
)
from longlag.kernels.program import Kernel, Known, Piece, Unsupported
from longlag.kernels.schedule import Schedule
from longlag.kernels.tables import EARLY, LATE, STEP

__all__ = ["run"]

# Bytes of shared memory that a block may have, of the 227 KiB of an H100.
ROOM = 200 * 2**10
MISSING_ON_GPU = {"cbrt", "pow"}
# With the other one, `Warpgroup`, jax infers layouts, which takes jax 0.10 half a minute.
SEMANTICS = plgpu.LoweringSemantics.Lane
# jax 0.10.0 has another name for the types of the results.
OUT_TYPE = "out_type" if "out_type" in inspect.signature(plgpu.kernel).parameters else "out_shape"


def run(
    schedule: Schedule,
    constants: Sequence[Known],
    arrays: Sequence[jax.Array],
    carry: Sequence[jax.Array],
    given: Sequence[jax.Array],
    before: Sequence[jax.Array],
    entry: Sequence[jax.Array],
    types: Sequence[Any],
    *,
    steps: int,
    reverse: bool,
    interpret: Any = False,
) -> list[jax.Array]:
    """Runs a program over all steps; arguments and results are those of `pallas.run`.

    Args:
        schedule: the step.
        constants: what stands for `arrays` in it.
        arrays: the constants.
        carry: before the first step, `[B, ...]`.
        given: inputs, `[T, B, ...]`.
        before: arrays of which a step sees what is one step further on, `[T, B, ...]`.
        entry: what it sees at the last step, `[B, ...]`.
        types: shapes and dtypes of the results.
        steps: T.
        reverse: from the last step to the first; "one step further on" is then the step before.
        interpret: run the kernel as operations of XLA, on any platform; or how to simulate a GPU,
            `InterpretGPUParams` of jax.

    Raises:
        Unsupported: a GPU has not the operation or not the room.
    """
    program, batch = schedule.program, schedule.batch
    layout = Layout(schedule)
    plan = Plan(layout)
    if not interpret:
        _check(plan)
    groups = arrays, carry, given, before, entry
    taken = take_in(layout, constants, *groups, steps=steps, reverse=reverse)
    values: dict[Any, jax.Array] = {**taken.constants, **taken.streams}

    def read(piece: Piece) -> jax.Array:
        """A range of all steps, `[T, B, size]`."""
        array = values[layout.source_of(piece)].astype(program.dtype)
        return cut_columns(array, piece, (steps, batch))

    def run_part(part: int) -> None:
        for each in layout.operations[part]:
            values[each.out] = operate(each, read, taken.kernels, interpret=True)

    run_part(EARLY)
    last, made = taken.starts, [jnp.zeros((0, batch, v.width), program.dtype) for v in plan.made]
    if not plan.carry:
        run_part(STEP)  # since no step waits for another
    else:
        if steps:
            last, made = _call(plan, taken, values, steps, reverse=reverse, interpret=interpret)
        values.update(zip(plan.made, made, strict=True))
    run_part(LATE)

    def join(pieces: Sequence[Piece]) -> jax.Array:
        return jnp.concatenate([*map(read, pieces)], -1)

    def add_up(left: Piece, right: Piece | None) -> jax.Array:
        rows = read(left).reshape(-1, left.size)
        if right is None:
            return rows.sum(0, keepdims=True)
        return multiply(rows, read(right).reshape(-1, right.size), 0, 0)

    ends = [
        *last,
        *(join(pieces).sum(0) for pieces in layout.row_sums),
        *map(join, layout.outputs),
        *(add_up(term.left, term.right) for term in program.terms),
    ]
    return finish(layout, iter(ends), types, taken.known)


def _check(plan: Plan) -> None:
    if plan.dtype.itemsize > 4:
        raise Unsupported("float64 on a GPU")
    for operation in plan.operations:
        if operation.name in MISSING_ON_GPU:
            raise Unsupported(f"{operation.name} on a GPU")
    if (room := 4 * sum(plan.memory.values())) > ROOM:
        raise Unsupported(f"{room} bytes of a row on a GPU")


def _call(
    plan: Plan,
    taken: Inputs,
    values: dict[Any, jax.Array],
    steps: int,
    *,
    reverse: bool,
    interpret: Any,
) -> tuple[list[jax.Array], list[jax.Array]]:
    """The last carry `[B, width]`, and what the steps make of `plan.made`, `[T, B, width]`."""
    batch, dtype = plan.batch, plan.dtype
    inputs = [
        *(_widen(values[piece.source], piece) for piece in plan.given),
        *(_pack(taken.kernels, kernel) for kernel in plan.kernels),
        *(pad(start) for start in taken.starts),
    ]
    results = [
        *(jax.ShapeDtypeStruct((batch, vectors_of(v.width) * LANES), dtype) for v in plan.carry),
        *(
            jax.ShapeDtypeStruct((steps, batch, vectors_of(v.width) * LANES), dtype)
            for v in plan.made
        ),
    ]
    kernel = functools.partial(run_row, plan, steps, reverse, bool(interpret))
    if interpret is True:

        def interpreted(*refs: Any) -> None:
            kernel(pl.program_id(0), *refs)

        call = pl.pallas_call(interpreted, results, grid=(batch,), interpret=True)
    else:

        def compiled(*refs: Any) -> None:
            kernel(lax.axis_index("row"), *refs)

        out_type: dict[str, Any] = {OUT_TYPE: results}
        call = plgpu.kernel(
            compiled,
            **out_type,
            grid=(batch,),
            grid_names=("row",),
            compiler_params=plgpu.CompilerParams(lowering_semantics=SEMANTICS),
            interpret=interpret or None,
        )
    ends = [end[..., : value.width] for end, value in zip(call(*inputs), [*plan.carry, *plan.made])]
    return ends[: len(plan.carry)], ends[len(plan.carry) :]


def _widen(array: jax.Array, piece: Piece) -> jax.Array:
    """A range of an array, alone and in whole vectors; a single column stays one."""
    if array.shape[-1] > 1:
        array = array[..., piece.start : piece.start + (1 if piece.narrow else piece.size)]
    return array if array.shape[-1] == 1 else pad(array)


def _pack(kernels: dict[Kernel, jax.Array], kernel: Kernel) -> jax.Array:
    """A matrix in whole vectors. A single column fills a vector, as a value of width 1 does."""
    matrix, is_transpose = longer_stride_first(kernel)
    array = kernels[matrix].T if is_transpose else kernels[matrix]
    return jnp.broadcast_to(array, (kernel.rows, LANES)) if kernel.columns == 1 else pad(array)
