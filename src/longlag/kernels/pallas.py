"""The program of a step in one Pallas kernel, the loop over time within: what is around the kernel.

The grid is tiles of the batch by chunks of time, and runs in order. Carry, kernels and sums stay in
the memory of the core.

Tiles need not divide the batch, nor chunks the time, and nothing is padded. The last tile has rows
that do not exist: their results are dropped, and no sum includes them. The last chunk has fewer
steps.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from longlag.kernels.pallas_ends import finish, stored, take_in
from longlag.kernels.pallas_kernel import Layout, Tile, run_tile, width_of
from longlag.kernels.program import Known, Unsupported
from longlag.kernels.schedule import Schedule

__all__ = ["run"]

# Bytes that tiles may fill, and that a kernel may have, of the 128 MiB in the core of a TPU v5e.
ROOM, LIMIT = 64 * 2**20, 96 * 2**20
MOST_ROWS, MOST_STEPS = 128, 64
# A TPU lays out a matrix in blocks of this many rows and columns.
SUBLANES, LANES = 8, 128
MISSING_ON_TPU = {"cbrt"}
PRECISIONS = {None, "default", "fastest", "bfloat16", "highest", "float32"}


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
    rows: int | None = None,
    chunk: int | None = None,
    interpret: bool | pltpu.InterpretParams = False,
) -> list[jax.Array]:
    """Runs a program over all steps, in one kernel.

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
        rows: of a tile of the batch, a multiple of 8 unless interpreted. None: what has room.
        chunk: steps of a chunk. None: what has room.
        interpret: run the kernel as operations of XLA, on any platform; or how to simulate a TPU,
            `pltpu.InterpretParams`.

    Returns:
        The last carry, the outputs, and the sums, in the order of the body.

    Raises:
        Unsupported: a TPU has not the operation or not the room.
    """
    program, batch, dtype = schedule.program, schedule.batch, schedule.program.dtype
    layout = Layout(schedule)
    groups = arrays, carry, given, before, entry
    taken = take_in(layout, constants, *groups, steps=steps, reverse=reverse)
    inputs = [
        *taken.constants.values(),
        *taken.kernels.values(),
        *taken.starts,
        *taken.streams.values(),
    ]
    by_row = [(batch, width_of(pieces)) for pieces in [*layout.new_carry, *layout.row_sums]]
    every = types[len(carry) : len(carry) + len(program.outputs)]
    every = [
        stored(type_, dtype) for pieces, type_ in zip(program.outputs, every) if width_of(pieces)
    ]
    results = [
        *(jax.ShapeDtypeStruct(shape, dtype) for shape in by_row),
        *(
            jax.ShapeDtypeStruct((steps, batch, width_of(pieces)), each)
            for pieces, each in zip(layout.outputs, every)
        ),
        *(jax.ShapeDtypeStruct(shape, dtype) for shape in layout.term_shapes),
    ]
    if steps:
        tile = _choose_tile(layout, steps, rows, chunk, interpret=interpret)
        made = _call(layout, tile, inputs, results, reverse=reverse)
    else:
        zeros = [jnp.zeros(each.shape, each.dtype) for each in results]
        made = [*taken.starts, *zeros[len(taken.starts) :]]
    return finish(layout, iter(made), types, taken.known)


def _call(
    layout: Layout,
    tile: Tile,
    inputs: Sequence[jax.Array],
    results: Sequence[jax.ShapeDtypeStruct],
    *,
    reverse: bool,
) -> Sequence[jax.Array]:
    rows, chunk, chunks = tile.rows, tile.chunk, tile.grid[1]

    def spec(shape: tuple[int, ...], *, by_row: bool, is_input: bool) -> pl.BlockSpec:
        if not by_row:
            once = pl.Buffered(1) if is_input else None
            return pl.BlockSpec(shape, lambda b, t: (0, 0), pipeline_mode=once)
        if len(shape) == 2:
            return pl.BlockSpec((rows, shape[1]), lambda b, t: (b, 0))
        at = (lambda t: chunks - 1 - t) if reverse else (lambda t: t)
        return pl.BlockSpec((chunk, rows, shape[2]), lambda b, t: (at(t), b, 0))

    of_inputs = [each.form in ("column", "full") for each in layout.constants]
    of_inputs += [False] * len(layout.kernels)
    of_inputs += [True] * (len(inputs) - len(of_inputs))
    of_results = [i < len(results) - len(layout.term_shapes) for i in range(len(results))]
    dtype = layout.schedule.program.dtype
    return pl.pallas_call(
        functools.partial(run_tile, layout, tile, reverse),
        grid=tile.grid,
        in_specs=[spec(x.shape, by_row=flag, is_input=True) for x, flag in zip(inputs, of_inputs)],
        out_specs=[
            spec(x.shape, by_row=flag, is_input=False) for x, flag in zip(results, of_results)
        ],
        out_shape=results,
        scratch_shapes=[pltpu.VMEM((chunk, rows, value.width), dtype) for value in layout.kept],
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("arbitrary", "arbitrary"), vmem_limit_bytes=LIMIT
        ),
        interpret=tile.interpret,
    )(*inputs)


def _choose_tile(
    layout: Layout,
    steps: int,
    rows: int | None,
    chunk: int | None,
    *,
    interpret: bool | pltpu.InterpretParams,
) -> Tile:
    """The largest tile that has room on a TPU. The chunk is halved first, then the rows."""
    batch, program = layout.schedule.batch, layout.schedule.program
    if interpret:
        return Tile(min(rows or batch, batch), min(chunk or steps, steps), batch, steps, interpret)
    if program.dtype.itemsize > 4:
        raise Unsupported("float64 on a TPU")
    for operation in program.operations:
        if operation.name in MISSING_ON_TPU:
            raise Unsupported(f"{operation.name} on a TPU")
    precision = jax.config.jax_default_matmul_precision  # type: ignore[attr-defined]
    if precision not in PRECISIONS:
        raise Unsupported(f"products in precision {precision!r} on a TPU")
    rows_now = rows or min(MOST_ROWS, pl.cdiv(batch, SUBLANES) * SUBLANES)
    chunk_now = min(chunk or MOST_STEPS, steps)
    # Kernels stay. What comes and goes is there twice, since it is moved while others are used.
    fixed = sum(_room(kernel.rows, kernel.columns) for kernel in layout.kernels)
    fixed += sum(2 * _room(*shape) for shape in layout.term_shapes)
    widths = [value.width for value in layout.streams] + [*map(width_of, layout.outputs)]
    widths = 2 * widths + [value.width for value in layout.kept]
    while fixed + chunk_now * sum(_room(rows_now, width) for width in widths) > ROOM:
        if chunk is None and chunk_now > SUBLANES:
            chunk_now = pl.cdiv(chunk_now, 2)
        elif rows is None and rows_now > SUBLANES:
            rows_now = pl.cdiv(rows_now // 2, SUBLANES) * SUBLANES
        else:
            raise Unsupported(f"a kernel with {fixed} bytes of matrices on a TPU")
    return Tile(rows_now, chunk_now, batch, steps, False)


def _room(rows: int, columns: int) -> int:
    """Bytes of a matrix, as a TPU lays it out."""
    return 4 * pl.cdiv(rows, SUBLANES) * SUBLANES * pl.cdiv(columns, LANES) * LANES
