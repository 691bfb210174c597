"""Columns: what a variable of a step stands for, and the equations that only move columns about.

A split, a reshape or a broadcast is done here on the numbers of the columns, by NumPy, once, while
the program is made. In the loop it costs nothing.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from longlag.kernels.program import Piece, Unsupported

__all__ = [
    "MOST_PIECES",
    "Rows",
    "cut_in_step",
    "join_columns",
    "move_columns",
    "spread",
    "take_columns",
]

# More ranges than this would make a program of copies.
MOST_PIECES = 64


@dataclasses.dataclass(eq=False)
class Rows:
    """What a variable of a step stands for.

    Attributes:
        pieces: its columns, in order.
        axis: the axis of the batch.
        dims: the other axes. Columns are in their order, the last one fastest.
    """

    pieces: tuple[Piece, ...]
    axis: int
    dims: tuple[int, ...]

    @property
    def width(self) -> int:
        """Number of columns."""
        return math.prod(self.dims)

    def column_axis(self, axis: int) -> int:
        """Which of `dims` an axis of the array is."""
        return axis - (axis > self.axis)

    def numbers(self) -> np.ndarray:
        """The numbers of the columns, an array of the shape `dims`."""
        return np.arange(self.width).reshape(self.dims)


def take_columns(pieces: Sequence[Piece], columns: np.ndarray) -> tuple[Piece, ...]:
    """Columns of several ranges side by side, in the order asked for, as few ranges as can be."""
    columns = np.asarray(columns).ravel()
    if not len(columns):
        return ()
    sizes = [piece.size for piece in pieces]
    owner = np.repeat(np.arange(len(pieces)), sizes)[columns]
    first = np.cumsum([0, *sizes])[:-1]
    places = {id(piece.source): i for i, piece in reversed([*enumerate(pieces)])}
    source = np.array([places[id(piece.source)] for piece in pieces])[owner]
    start = np.array([piece.start for piece in pieces])[owner]
    moves = np.array([not piece.narrow for piece in pieces])[owner]
    column = start + np.where(moves, columns - first[owner], 0)
    same = source[1:] == source[:-1]
    step = np.where(same, np.diff(column), -1)
    made, at, end = [], 0, len(columns)
    while at < end:
        if len(made) == MOST_PIECES:
            raise Unsupported(f"columns in more than {MOST_PIECES} ranges")
        stop = at + 1
        if stop < end and step[at] in (0, 1):
            others = np.flatnonzero(step[at:] != step[at])
            stop = at + 1 + (int(others[0]) if len(others) else end - 1 - at)
        narrow = stop - at > 1 and step[at] == 0
        made.append(Piece(pieces[source[at]].source, int(column[at]), stop - at, bool(narrow)))
        at = stop
    return tuple(made)


def cut_in_step(inputs: Sequence[Sequence[Piece]]) -> list[tuple[Piece, ...]]:
    """Cuts several lists of ranges of one width at the borders of each of them."""
    ends = [np.cumsum([piece.size for piece in pieces]).tolist() for pieces in inputs]
    borders = sorted({0, *(end for each in ends for end in each)})
    at = [0] * len(inputs)
    cut = []
    for start, stop in itertools.pairwise(borders):
        parts = []
        for i, pieces in enumerate(inputs):
            while ends[i][at[i]] <= start:
                at[i] += 1
            piece = pieces[at[i]]
            parts.append(piece.cut(start - (ends[i][at[i]] - piece.size), stop - start))
        cut.append(tuple(parts))
    return cut


def move_columns(
    name: str, params: dict[str, Any], x: Rows, shapes: Sequence[tuple[int, ...]]
) -> list[Rows] | None:
    """The results of an equation with one input that moves columns about, or None for any other.

    Args:
        name: of the primitive.
        params: of the equation.
        x: its input.
        shapes: of its results.
    """
    axis, numbers, shape = x.axis, x.numbers(), shapes[0]
    if name in ("reshape", "squeeze", "expand_dims"):
        if params.get("dimensions") is not None and name == "reshape":
            return None
        axis = _axis_after_reshape(x, shape)
        if axis is None:
            return None
    elif name == "transpose":
        order = params["permutation"]
        axis = order.index(x.axis)
        numbers = numbers.transpose([x.column_axis(a) for a in order if a != x.axis])
    elif name == "broadcast_in_dim":
        where = params["broadcast_dimensions"]
        axis = int(where[x.axis])
        dims = [1] * (len(shape) - 1)
        for old, new in enumerate(where):
            if old != x.axis:
                dims[new - (new > axis)] = x.dims[x.column_axis(old)]
        numbers = np.broadcast_to(numbers.reshape(dims), _without(shape, axis))
    elif name == "slice":
        strides = params["strides"] or (1,) * len(params["start_indices"])
        cuts = [*map(slice, params["start_indices"], params["limit_indices"], strides)]
        if cuts[axis].start != 0 or cuts[axis].step != 1:
            return None
        numbers = numbers[tuple(cut for a, cut in enumerate(cuts) if a != axis)]
    elif name == "rev" and axis not in params["dimensions"]:
        numbers = np.flip(numbers, tuple(x.column_axis(a) for a in params["dimensions"]))
    elif name == "split" and params["axis"] != axis:
        ends = np.cumsum(params["sizes"])[:-1]
        parts = np.split(numbers, ends, x.column_axis(params["axis"]))
        return [Rows(take_columns(x.pieces, part), axis, part.shape) for part in parts]
    elif name == "unstack" and params["axis"] != axis:
        along = x.column_axis(params["axis"])
        parts = np.moveaxis(numbers, along, 0)
        axis -= params["axis"] < axis
        return [Rows(take_columns(x.pieces, part), axis, part.shape) for part in parts]
    else:
        return None
    return [Rows(take_columns(x.pieces, numbers), axis, _without(shape, axis))]


def spread(x: Rows, dims: tuple[int, ...]) -> Rows:
    """Columns of which axes of size 1 stand for many."""
    if x.dims == dims:
        return x
    return Rows(take_columns(x.pieces, np.broadcast_to(x.numbers(), dims)), x.axis, dims)


def join_columns(parts: Sequence[Rows], axis: int) -> Rows:
    """`parts` side by side along an axis of the array which is not the batch."""
    column_axis = parts[0].column_axis(axis)
    ends = np.cumsum([0, *(part.width for part in parts)])
    numbers = [part.numbers() + end for part, end in zip(parts, ends)]
    joined = np.concatenate(numbers, column_axis)
    pieces = [piece for part in parts for piece in part.pieces]
    return Rows(take_columns(pieces, joined), parts[0].axis, joined.shape)


def _without(shape: Sequence[int], axis: int) -> tuple[int, ...]:
    return tuple(int(size) for a, size in enumerate(shape) if a != axis)


def _axis_after_reshape(x: Rows, shape: Sequence[int]) -> int | None:
    """The axis of the batch in a new shape: as much stands before it, and as much after it."""
    ahead, behind = math.prod(x.dims[: x.axis]), math.prod(x.dims[x.axis :])
    for axis in range(len(shape)):
        if math.prod(shape[:axis]) == ahead and math.prod(shape[axis + 1 :]) == behind:
            return axis
    return None
