"""Reductions over columns, and sums over the rows of the batch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from longlag.kernels.columns import Rows, take_columns
from longlag.kernels.program import Known, Piece, SumTerm

if TYPE_CHECKING:
    from longlag.kernels.normal_form import Reader

__all__ = ["REDUCTIONS", "reduce_axes", "reduce_groups"]

# What joins two parts of a reduction.
REDUCTIONS = {
    "reduce_sum": ("row_sum", "add"),
    "reduce_max": ("row_max", "max"),
    "reduce_min": ("row_min", "min"),
    "reduce_and": ("row_min", "min"),
    "reduce_or": ("row_max", "max"),
}


def reduce_axes(reader: Reader, name: str, x: Rows, axes: Sequence[int]) -> Rows | Known | None:
    """A reduction over some axes, which may be the batch's in a sum; None if there is none."""
    along = [x.column_axis(a) for a in axes if a != x.axis]
    kept = [a for a in range(len(x.dims)) if a not in along]
    order = x.numbers().transpose(*kept, *along)
    dims = tuple(x.dims[a] for a in kept)
    groups = order.reshape(math.prod(dims), -1)
    if groups.size == 0:
        return None
    if x.axis in axes:
        if name != "reduce_sum":
            return None
        if groups.shape[1] > 1:
            column = reduce_groups(reader, "row_sum", "add", x, groups)
        else:
            column = take_columns(x.pieces, groups)
        total = reader.add_total(dims)
        at = 0
        for piece in column:
            piece = reader.as_operand(piece)
            reader.terms.append(SumTerm(len(reader.totals) - 1, piece, None, at, 0))
            at += piece.size
        return total
    axis = x.axis - sum(a < x.axis for a in axes)
    if groups.shape[1] == 1:
        return Rows(take_columns(x.pieces, groups), axis, dims)
    return Rows(reduce_groups(reader, *REDUCTIONS[name], x, groups), axis, dims)


def reduce_groups(
    reader: Reader, name: str, join: str, x: Rows, groups: np.ndarray
) -> tuple[Piece, ...]:
    """A reduction of each group of columns, `[groups, columns of each]`, into one column."""
    parts = [take_columns(x.pieces, group) for group in groups]
    whole = take_columns(x.pieces, groups)
    if len(whole) == 1 and not whole[0].narrow:
        return (Piece(reader.emit(name, len(groups), whole), 0, len(groups)),)
    made = []
    for group in parts:
        columns = [_reduce_range(reader, name, piece) for piece in group]
        joined = columns[0]
        for column in columns[1:]:
            joined = Piece(reader.emit(join, 1, [joined, column]), 0, 1)
        made.append(joined)
    return tuple(made)


def _reduce_range(reader: Reader, name: str, piece: Piece) -> Piece:
    column = piece.cut(0, 1)
    if piece.narrow and name == "row_sum":
        number = reader.constants.number(float(piece.size))
        times = reader.constants.as_rows(number, 0, Rows((), 0, (1,))).pieces[0]
        return Piece(reader.emit("mul", 1, [column, times]), 0, 1)
    return column if piece.size == 1 or piece.narrow else Piece(reader.emit(name, 1, [piece]), 0, 1)
