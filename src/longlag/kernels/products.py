"""Products of a step: with constant kernels, and over the rows of the batch."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from longlag.kernels.columns import MOST_PIECES, Rows, take_columns
from longlag.kernels.program import Kernel, Known, Piece, SumTerm, Unsupported
from longlag.kernels.reductions import reduce_groups

if TYPE_CHECKING:
    from longlag.kernels.normal_form import Reader

__all__ = ["contract"]


def contract(reader: Reader, numbers: Any, left: Rows | Known, right: Rows | Known) -> Rows | Known:
    """`dot_general` of which at least one side changes from step to step.

    Args:
        reader: gathers the operations.
        numbers: the dimension numbers.
        left: the first operand.
        right: the second.
    """
    (contracted, batched) = numbers
    sides = ((left, contracted[0], batched[0]), (right, contracted[1], batched[1]))
    over_rows = [isinstance(x, Rows) and x.axis in axes for x, axes, _ in sides]
    if any(over_rows):
        position = next(
            axes.index(x.axis) for x, axes, _ in sides if isinstance(x, Rows) and x.axis in axes
        )
        both = []
        for x, axes, _ in sides:
            axis = axes[position]
            if isinstance(x, Known):
                dims = tuple(size for a, size in enumerate(x.shape) if a != axis)
                x = reader.constants.as_rows(x, axis, Rows((), axis, dims))
            if x.axis != axis:
                raise Unsupported("a product of the batch with another axis")
            both.append(x)
        return _sum_over_rows(reader, both, contracted, batched)
    if isinstance(left, Rows) and isinstance(right, Rows):
        return _row_by_row(reader, left, right, contracted, batched)
    if isinstance(left, Rows):
        return _with_kernel(reader, left, right, contracted, batched, rows_first=True)
    assert isinstance(right, Rows)
    return _with_kernel(reader, right, left, contracted[::-1], batched[::-1], rows_first=False)


def _arranged(x: Rows, batched: Any, contracted: Any) -> np.ndarray:
    """The numbers of the columns, `[batch axes, free axes, contracted axes]`."""
    batch = [x.column_axis(a) for a in batched if a != x.axis]
    inner = [x.column_axis(a) for a in contracted if a != x.axis]
    free = [a for a in range(len(x.dims)) if a not in batch and a not in inner]
    sizes = [math.prod(x.dims[a] for a in axes) for axes in (batch, free, inner)]
    return x.numbers().transpose(*batch, *free, *inner).reshape(sizes)


def _with_kernel(
    reader: Reader, x: Rows, kernel: Any, contracted: Any, batched: Any, *, rows_first: bool
) -> Rows:
    """A product with a kernel for each free range of columns and each kernel of a batch."""
    if x.axis in batched[0] or not isinstance(kernel, Known):
        raise Unsupported("a product with a kernel of each row")
    columns = _arranged(x, batched[0], contracted[0])
    batch, free, inner = columns.shape
    strides = _strides(kernel.shape)
    free_axes = [
        a for a in range(len(kernel.shape)) if a not in contracted[1] and a not in batched[1]
    ]
    width, column_stride = _one_axis(kernel.shape, strides, free_axes)
    _, row_stride = _one_axis(kernel.shape, strides, contracted[1])
    places = [np.arange(kernel.shape[a]) * strides[a] for a in batched[1]]
    offsets = np.zeros(1, int)
    for place in places:
        offsets = (offsets[:, None] + place).ravel()
    if batch * free > MOST_PIECES or inner == 0 or width == 0:
        raise Unsupported("a product for each of many columns")
    if not rows_first and free > 1:
        raise Unsupported("a product whose free columns are in another order")
    made = []
    for b in range(batch):
        whole = Kernel(kernel, int(offsets[b]), row_stride, column_stride, inner, width)
        for f in range(free):
            terms, at = [], 0
            for piece in take_columns(x.pieces, columns[b, f]):
                terms.append((reader.as_operand(piece), whole.cut_rows(at, piece.size)))
                at += piece.size
            out = reader.emit("affine", width, [], terms)
            made.append(Piece(out, 0, width))
    kernel_dims = [kernel.shape[a] for a in free_axes]
    batch_dims = [x.dims[x.column_axis(a)] for a in batched[0]]
    others = [a for a in range(len(x.dims) + 1) if a not in contracted[0] and a not in batched[0]]
    free_dims = [x.dims[x.column_axis(a)] for a in others if a != x.axis]
    ahead = others.index(x.axis)
    if rows_first:
        axis, dims = len(batch_dims) + ahead, [*batch_dims, *free_dims, *kernel_dims]
    else:
        axis = len(batch_dims) + len(kernel_dims) + ahead
        dims = [*batch_dims, *kernel_dims, *free_dims]
    return Rows(tuple(made), axis, tuple(dims))


def _sum_over_rows(reader: Reader, both: list[Rows], contracted: Any, batched: Any) -> Known:
    """What the gradient of a kernel is: a sum over the rows of products of columns."""
    left, right = both
    columns = [_arranged(x, batched[i], contracted[i]) for i, x in enumerate(both)]
    batch, lefts, inner = columns[0].shape
    rights = columns[1].shape[1]
    shape = [left.dims[left.column_axis(a)] for a in batched[0]]
    for i, x in enumerate(both):
        used = {*contracted[i], *batched[i]}
        shape += [x.dims[x.column_axis(a)] for a in range(len(x.dims) + 1) if a not in used]
    if batch * inner > MOST_PIECES:
        raise Unsupported("a sum over the rows of products of many columns")
    total = reader.add_total(tuple(shape))
    number = total.total if total.total is not None else 0
    for b in range(batch):
        for c in range(inner):
            row = b * lefts
            for one in take_columns(left.pieces, columns[0][b, :, c]):
                column = 0
                for other in take_columns(right.pieces, columns[1][b, :, c]):
                    pieces = reader.as_operand(one), reader.as_operand(other)
                    offset = row * rights + column
                    reader.terms.append(SumTerm(number, *pieces, offset, rights))
                    column += other.size
                row += one.size
    return total


def _row_by_row(reader: Reader, left: Rows, right: Rows, contracted: Any, batched: Any) -> Rows:
    """An inner product in each row: a product of columns, then a sum of groups of them."""
    if left.axis not in batched[0] or right.axis not in batched[1]:
        raise Unsupported("a product of each row with every other")
    if batched[0].index(left.axis) != batched[1].index(right.axis):
        raise Unsupported("a product of the batch with another axis")
    columns = [_arranged(x, batched[i], contracted[i]) for i, x in enumerate((left, right))]
    batch, lefts, inner = columns[0].shape
    rights = columns[1].shape[1]
    first = np.broadcast_to(columns[0][:, :, None], (batch, lefts, rights, inner))
    second = np.broadcast_to(columns[1][:, None], (batch, lefts, rights, inner))
    operands = [
        Rows(take_columns(x.pieces, chosen), 0, (batch * lefts * rights, inner))
        for x, chosen in ((left, first), (right, second))
    ]
    product = reader.elementwise("mul", operands)
    added = reduce_groups(
        reader, "row_sum", "add", product, np.arange(product.width).reshape(-1, inner)
    )
    dims = [left.dims[left.column_axis(a)] for a in batched[0] if a != left.axis]
    for i, x in enumerate((left, right)):
        used = {*contracted[i], *batched[i]}
        dims += [x.dims[x.column_axis(a)] for a in range(len(x.dims) + 1) if a not in used]
    return Rows(added, batched[0].index(left.axis), tuple(dims))


def _strides(shape: tuple[int, ...]) -> list[int]:
    return [math.prod(shape[a + 1 :]) for a in range(len(shape))]


def _one_axis(shape: tuple[int, ...], strides: list[int], axes: Any) -> tuple[int, int]:
    """Size and stride of several axes as one."""
    real = [a for a in axes if shape[a] != 1]
    for a, b in itertools.pairwise(real):
        if strides[a] != strides[b] * shape[b]:
            raise Unsupported("a kernel whose axes do not lie side by side")
    return math.prod(shape[a] for a in axes), strides[real[-1]] if real else 1
