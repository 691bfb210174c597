"""Programs in whose steps no column meets another: a few columns can go through all steps."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from longlag.kernels.program import Constant, Operation, Piece, Program, Value
from longlag.kernels.tables import STEP

__all__ = ["are_streamed", "is_columnwise"]

# From so many bytes on, outputs are written past the caches.
STREAM_FROM = 16 << 20


def is_columnwise(program: Program, parts: dict[Operation, int]) -> bool:
    """Whether each column of a step reads and writes itself alone.

    What is done for a whole chunk, before its steps or after them, does not count.

    Args:
        program: the step.
        parts: the part of a chunk in which each operation is done.
    """
    operations = [each for each in program.operations if parts[each] == STEP]
    inside: set[Value | Constant] = {*program.carry, *(each.out for each in operations)}
    widths = {value.width for value in program.carry} | {each.out.width for each in operations}

    def fits(pieces: Iterable[Piece]) -> bool:
        """Whether they are whole values of the step, or ranges as wide of what it is given."""
        return all(
            piece.size in widths
            and (piece.source not in inside or (piece.start == 0 and not piece.narrow))
            for piece in pieces
        )

    return (
        bool(operations)
        and len(widths) == 1
        and 0 not in widths
        and all(len(pieces) == 1 for pieces in program.row_sums)
        and not any(each.products or each.name.startswith("row_") for each in operations)
        and all(fits(each.inputs) for each in operations)
        and all(map(fits, (*program.new_carry, *program.outputs, *program.row_sums)))
    )


def are_streamed(program: Program, parts: dict[Operation, int], rows: int) -> bool:
    """Whether the outputs of a columnwise step are more than a cache would keep.

    It is never so if something beside the steps reads them.

    Args:
        program: the step.
        parts: the part of a chunk in which each operation is done.
        rows: steps times batch.
    """
    numbers = sum(piece.size for pieces in program.outputs for piece in pieces)
    size = rows * numbers * np.dtype(program.dtype).itemsize
    alone = not program.terms and all(part == STEP for part in parts.values())
    return alone and size >= STREAM_FROM
