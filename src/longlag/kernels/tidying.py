"""What makes a program smaller: gates apart, products joined in sums, nothing unused."""

from __future__ import annotations

import bisect
import itertools
from collections import Counter, defaultdict
from collections.abc import Callable

from longlag.kernels.program import Operation, Piece, Program, Value

__all__ = ["tidy"]


def tidy(program: Program) -> Program:
    """The same program gate by gate, see `_gate_by_gate` and `_join_sums`; changed in place."""
    _drop_unused(program)
    _gate_by_gate(program)
    _join_sums(program)
    _drop_unused(program)
    return program


def _drop_unused(program: Program) -> None:
    used = {piece.source for piece in program.roots()}
    kept = []
    for operation in reversed(program.operations):
        if operation.out in used:
            used.update(piece.source for piece in operation.reads())
            kept.append(operation)
    program.operations = kept[::-1]


def _gate_by_gate(program: Program) -> None:
    """Cuts operations whose results are only ever read in parts, from the last to the first.

    A product of all gates becomes a product for each gate, and what comes before it follows.
    """
    spans: dict[Value, set[tuple[int, int]]] = defaultdict(set)

    def note(piece: Piece) -> None:
        if isinstance(piece.source, Value):
            spans[piece.source].add(
                (piece.start, piece.start + (1 if piece.narrow else piece.size))
            )

    for piece in program.roots():
        note(piece)
    cuts: dict[Value, tuple[list[int], list[Value]]] = {}
    operations: list[Operation] = []
    for operation in reversed(program.operations):
        out, borders = operation.out, _borders(spans[operation.out], operation.out.width)
        parts = [operation]
        if len(borders) > 2 and not operation.name.startswith("row_"):
            parts = [
                Operation(
                    operation.name,
                    Value(stop - start),
                    [piece.cut(start, stop - start) for piece in operation.inputs],
                    [(p, k.cut_columns(start, stop - start)) for p, k in operation.products],
                )
                for start, stop in itertools.pairwise(borders)
            ]
            cuts[out] = (borders, [part.out for part in parts])
        for part in parts:
            for piece in part.reads():
                note(piece)
        operations.extend(reversed(parts))

    def follow(piece: Piece) -> Piece:
        if piece.source not in cuts:
            return piece
        borders, values = cuts[piece.source]  # type: ignore[index]
        part = bisect.bisect_right(borders, piece.start) - 1
        return Piece(values[part], piece.start - borders[part], piece.size, piece.narrow)

    program.operations = operations[::-1]
    _replace(program, follow)


def _borders(spans: set[tuple[int, int]], width: int) -> list[int]:
    """Where a value may be cut so that no range that is read is cut."""
    borders = {0, width, *(end for span in spans for end in span)}
    return sorted(b for b in borders if not any(start < b < stop for start, stop in spans))


def _join_sums(program: Program) -> None:
    """Makes `x + y` with a product in it, that nobody else reads, one sum of products."""
    reads = Counter(piece.source for piece in program.roots())
    for operation in program.operations:
        reads.update(piece.source for piece in operation.reads())
    made_by: dict[Value, Operation] = {}
    gone: set[Operation] = set()
    for operation in program.operations:
        made_by[operation.out] = operation
        if operation.name != "add":
            continue
        joined = []
        for piece in operation.inputs:
            source = made_by.get(piece.source) if isinstance(piece.source, Value) else None
            if source is None or source.name != "affine" or source in gone:
                continue
            whole = piece.size == operation.out.width == source.out.width and not piece.narrow
            if whole and reads[piece.source] == 1:
                joined.append((piece, source))
        if joined:
            gone.update(source for _, source in joined)
            absorbed = [piece for piece, _ in joined]
            operation.name = "affine"
            operation.inputs = [piece for piece in operation.inputs if piece not in absorbed]
            for _, source in joined:
                operation.inputs += source.inputs
                operation.products += source.products
    program.operations = [each for each in program.operations if each not in gone]


def _replace(program: Program, follow: Callable[[Piece], Piece]) -> None:
    for operation in program.operations:
        operation.inputs = [follow(piece) for piece in operation.inputs]
        operation.products = [(follow(piece), kernel) for piece, kernel in operation.products]
    for groups in (program.new_carry, program.outputs, program.row_sums):
        groups[:] = [[follow(piece) for piece in pieces] for pieces in groups]
    for term in program.terms:
        term.left = follow(term.left)
        term.right = term.right and follow(term.right)
