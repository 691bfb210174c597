"""Values that are made where another lies that nobody reads any more."""

from __future__ import annotations

from longlag.kernels.program import Operation, Piece, Program, Value
from longlag.kernels.tables import STEP

__all__ = ["carries_in_place", "may_write_where_it_reads"]


def may_write_where_it_reads(operation: Operation, value: Value) -> bool:
    """Whether it is elementwise and reads of the value just the columns that it makes."""
    return (
        not operation.products
        and not operation.name.startswith("row_")
        and all(
            piece.start == 0 and piece.size == value.width and not piece.narrow
            for piece in operation.reads()
            if piece.source is value
        )
    )


def carries_in_place(program: Program, parts: dict[Operation, int]) -> dict[Value, Value]:
    """From new carries that can be made in the place of the old one to that.

    Args:
        program: the step.
        parts: the part of a chunk in which each operation is done. What is done after the steps,
            and sums, read a copy of the old carry.
    """
    order = [each for each in program.operations if parts[each] == STEP]
    places = {each.out: i for i, each in enumerate(order)}
    leaving = [*program.outputs, *program.row_sums, *program.new_carry]
    roots = {piece.source for pieces in leaving for piece in pieces}
    made: dict[Value, Value] = {}
    for old, pieces in zip(program.carry, program.new_carry):
        new = pieces[0].source if len(pieces) == 1 else None
        if not isinstance(new, Value) or new not in places or new in made or old in roots:
            continue
        whole = pieces == [Piece(new, 0, old.width)] and new.width == old.width
        readers = [each for each in order if any(p.source is old for p in each.reads())]
        last = max((places[each.out] for each in readers), default=-1)
        maker = order[places[new]]
        may_meet = maker not in readers or may_write_where_it_reads(maker, old)
        if whole and may_meet and last <= places[new]:
            made[new] = old
    return made
