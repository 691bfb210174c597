"""The part of a chunk in which an operation of a program is done."""

from __future__ import annotations

from typing import Any

from longlag.kernels.program import Constant, Operation, Piece, Program, Value
from longlag.kernels.tables import EARLY, LATE, STEP

__all__ = ["assign_parts"]


def assign_parts(program: Program) -> tuple[dict[Operation, int], dict[Value, Value]]:
    """The part of a chunk in which each operation is done.

    A sum of products of which some wait for no step is cut in two, in place.

    Returns:
        The parts, and for each sum that was cut, the value that its early part makes.
    """
    made_by = {each.out: each for each in program.operations}
    given = {*program.given, *program.before}
    for operation in program.operations:
        if all(_is_given(piece, given) for piece in operation.reads()):
            given.add(operation.out)
    lies_where = _cut_early(program, given, made_by)
    early = {
        each
        for each in program.operations
        if each.products and all(_is_given(piece, given) for piece in each.reads())
    }
    _reach(early, made_by, early)
    parts = dict.fromkeys(early, EARLY)
    leading: set[Operation] = set()
    for pieces in [*program.new_carry, *program.row_sums]:
        leading.update(made_by[p.source] for p in pieces if p.source in made_by)  # type: ignore[index]
    _reach({*leading}, made_by, leading)
    for operation in program.operations:
        if operation in parts:
            continue
        sources = [made_by.get(p.source) for p in operation.reads()]  # type: ignore[arg-type]
        late = operation.products or any(parts.get(s) == LATE for s in sources if s)
        parts[operation] = LATE if late and operation not in leading else STEP
    return parts, lies_where


def _cut_early(
    program: Program, given: set[Value], made_by: dict[Value, Operation]
) -> dict[Value, Value]:
    operations, lies_where = [], {}
    for operation in program.operations:
        early = [each for each in operation.products if _is_given(each[0], given)]
        if early and len(early) < len(operation.products):
            ready = [
                piece
                for piece in operation.inputs
                if isinstance(piece.source, Constant)
                or (_is_given(piece, given) and not _is_elementwise(piece, made_by))
            ]
            first = Operation("affine", Value(operation.out.width), ready, early)
            operations.append(first)
            given.add(first.out)
            made_by[first.out] = first
            rest = [piece for piece in operation.inputs if piece not in ready]
            operation.inputs = [Piece(first.out, 0, first.out.width), *rest]
            operation.products = [x for x in operation.products if x not in early]
            lies_where[operation.out] = first.out
        operations.append(operation)
    program.operations = operations
    return lies_where


def _reach(seeds: set[Operation], made_by: dict[Any, Operation], into: set[Operation]) -> None:
    """Adds all operations that lead to the seeds."""
    waiting = [*seeds]
    while waiting:
        for piece in waiting.pop().reads():
            source = made_by.get(piece.source)
            if source is not None and source not in into:
                into.add(source)
                waiting.append(source)


def _is_given(piece: Piece, given: set[Value]) -> bool:
    return isinstance(piece.source, Constant) or piece.source in given


def _is_elementwise(piece: Piece, made_by: dict[Value, Operation]) -> bool:
    source = made_by.get(piece.source)  # type: ignore[arg-type]
    return source is not None and not source.products
