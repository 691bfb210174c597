"""When an operation of a program is done, and where its value lies.

Time goes in chunks of a few steps. Of each chunk there are four parts:

    EARLY   products that no step waits for, and what leads to them, for all steps of the chunk
    STEP    what leads to the next carry, and cheap operations, one step after another
    LATE    products that no step waits for but that need the carry, for all steps of the chunk
    SUM     sums over rows and steps, for all steps of the chunk

A value that is made in one part and read in another is kept for the whole chunk. Others lie in
scratch memory of one step, which is used again and again and stays in the cache.
"""

from __future__ import annotations

import dataclasses
import math
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from longlag.kernels.columnwise import are_streamed, is_columnwise
from longlag.kernels.in_place import carries_in_place, may_write_where_it_reads
from longlag.kernels.parts import assign_parts
from longlag.kernels.program import Constant, Kernel, Operation, Piece, Program, Value
from longlag.kernels.tables import (
    ARGUMENT,
    BEFORE,
    CARRY,
    CHUNK,
    CODES,
    EARLY,
    LATE,
    RESULT,
    SCRATCH,
    STEP,
    SUM,
    Instruction,
    Slot,
)

__all__ = ["Schedule"]


class Schedule:
    """The tables that the native loop runs.

    Attributes:
        instructions: in order, part by part.
        slots: where values lie.
        kernels: `(argument, offset, row stride, column stride, rows, columns)`.
        carries: `(slot, argument or -1 for zeros, result, width)`.
        arguments: what each argument of the call is.
        results: widths of the results: `("last", w)`, `("every", w)`, `("total", size)`.
        scratch: columns of scratch memory of a step.
        chunk: columns that are kept for a chunk.
        totals: `(result, size)` of the sums over rows and steps.
        parts: the part of a chunk in which each operation is done.
        columnwise: no column of a step meets another.
        streams: outputs go past the caches.
        kept: from a carry to the value that keeps it after the step has changed it.
    """

    def __init__(self, program: Program, batch: int, steps: int = 1) -> None:
        self.program, self.batch = program, batch
        self.instructions: list[Instruction] = []
        self.slots: list[Slot] = []
        self.kernels: list[tuple[int, ...]] = []
        self.carries: list[tuple[int, ...]] = []
        self.arguments: list[Any] = []
        self.results: list[tuple[str, int]] = []
        self.totals: list[tuple[int, int]] = []
        self.kept: dict[Any, Value] = {}
        self.scratch = self.chunk = 0
        self._slot_numbers: dict[Slot, int] = {}
        self._argument_numbers: dict[Any, int] = {}
        self._kernel_numbers: dict[Kernel, int] = {}
        self._home: dict[Value, Slot] = {}
        self._free: dict[int, list[int]] = defaultdict(list)
        self._assign(steps)

    # -- places -----------------------------------------------------------------------------------

    def _assign(self, steps: int) -> None:
        program = self.program
        parts, self._home_of_early = assign_parts(program)
        self.parts = parts
        self.columnwise = is_columnwise(program, parts)
        self.streams = self.columnwise and are_streamed(program, parts, steps * self.batch)
        for i, value in enumerate(program.carry):
            slot = self._new_scratch(value.width)
            self._home[value] = slot
            argument = self._argument(("carry", i))
            self._add_carry(slot, argument, value.width)
        sums = []
        for pieces in program.row_sums:
            width = sum(piece.size for piece in pieces)
            slot = self._new_scratch(width)
            sums.append(slot)
            self._add_carry(slot, -1, width)
        for i, value in enumerate(program.given):
            row = value.width
            number = self._argument(("given", i))
            self._home[value] = Slot(ARGUMENT, number, 0, row, 1, self.batch * row, 0)
        for i, value in enumerate(program.before):
            row = value.width
            numbers = self._argument(("before", i)), self._argument(("entry", i))
            self._home[value] = Slot(BEFORE, *numbers, row, 1, self.batch * row, 0)
        copies = self._house_outputs(parts)
        self._house_chunk(parts)
        last_use = self._last_uses(parts)
        for new, old in carries_in_place(program, parts).items():
            self._home.setdefault(new, self._home[old])
        ordered = [
            each
            for part in (EARLY, STEP, LATE)
            for each in program.operations
            if parts[each] == part
        ]
        late = [operation for operation in ordered if parts[operation] == LATE]
        kept = self.kept
        for reader in [*late, *program.terms]:
            self._keep_carries(reader.reads())
        for operation in late:
            operation.inputs = [_kept(p, kept) for p in operation.inputs]
            operation.products = [(_kept(p, kept), k) for p, k in operation.products]
        for operation in ordered:
            part = parts[operation]
            self._place(operation, part, last_use)
            self._run(operation, part)
        for term in program.terms:
            term.left = _kept(term.left, kept)
            term.right = term.right and _kept(term.right, kept)
        for part, slot, piece in copies:
            source = self._slot_of(piece)
            name = "stream" if self.streams and source.column else "copy"
            self._emit(name, part, piece.size, slot, source)
        for slot, pieces in zip(sums, program.row_sums):
            self._add_rows(slot, pieces)
        self._add_terms()
        self._move_carries()

    def _add_carry(self, slot: Slot, argument: int, width: int) -> None:
        self.carries.append((self._number(slot), argument, len(self.results), width))
        self.results.append(("last", width))

    def _house_outputs(self, parts: dict[Operation, int]) -> list[tuple[int, Slot, Piece]]:
        """Lets values be made in the results that they belong to; returns what must be copied."""
        made_by = {each.out: each for each in self.program.operations}
        copies = []
        for pieces in self.program.outputs:
            width = sum(piece.size for piece in pieces)
            result, shift = len(self.results), 0
            self.results.append(("every", width))
            for piece in pieces:
                slot = Slot(RESULT, result, 0, width, 1, self.batch * width, shift)
                source = piece.source
                operation = made_by.get(source) if isinstance(source, Value) else None
                whole = operation and not piece.narrow and piece.size == operation.out.width
                here = whole and not self.streams
                if operation and here and operation.out not in self._home:
                    self._home[operation.out] = slot
                    early = self._home_of_early.get(operation.out)
                    if early is not None:
                        self._home[early] = slot
                else:
                    late = operation is not None and parts[operation] == LATE
                    copies.append((LATE if late else STEP, slot, piece))
                shift += piece.size
        return copies

    def _house_chunk(self, parts: dict[Operation, int]) -> None:
        """What is made in one part and read in another is kept for the chunk."""
        kept = {each.out for each, part in parts.items() if part != STEP}
        for operation, part in parts.items():
            if part == LATE:
                kept.update(p.source for p in operation.reads() if isinstance(p.source, Value))
        for term in self.program.terms:
            kept.update(p.source for p in term.reads() if isinstance(p.source, Value))
        for operation in self.program.operations:
            out, early = operation.out, self._home_of_early.get(operation.out)
            if early is not None and out not in self._home:
                self._home[out] = self._home[early]
            elif out in kept and out not in self._home:
                self._home[out] = self._new_chunk(out.width)

    def _last_uses(self, parts: dict[Operation, int]) -> dict[Value, Operation]:
        """The last operation of a step that reads a value; none for what leaves the step."""
        last: dict[Value, Operation] = {}
        for operation in self.program.operations:
            if parts[operation] == STEP:
                for piece in operation.reads():
                    if isinstance(piece.source, Value):
                        last[piece.source] = operation
        for piece in self.program.roots():
            if isinstance(piece.source, Value):
                last.pop(piece.source, None)
        return last

    def _place(self, operation: Operation, part: int, last_use: dict[Value, Operation]) -> None:
        out = operation.out
        dying = {
            piece.source
            for piece in operation.reads()
            if part == STEP
            and isinstance(piece.source, Value)
            and last_use.get(piece.source) is operation
        }
        first = {value for value in dying if may_write_where_it_reads(operation, value)}
        self._release(first)
        if out not in self._home:
            self._home[out] = self._new_scratch(out.width)
        self._release(dying - first)

    def _release(self, values: set[Value]) -> None:
        for value in sorted(values, key=lambda v: self._home[v].index):
            slot = self._home[value]
            if slot.kind == SCRATCH and value not in self.program.carry:
                self._free[value.width].append(slot.index)

    def _new_scratch(self, width: int) -> Slot:
        if self._free[width]:
            return Slot(SCRATCH, self._free[width].pop(), 0, width, 1, 0, 0)
        self.scratch += width
        return Slot(SCRATCH, self.scratch - width, 0, width, 1, 0, 0)

    def _new_chunk(self, width: int) -> Slot:
        self.chunk += width
        return Slot(CHUNK, self.chunk - width, 0, width, 1, self.batch * width, 0)

    def _keep_carries(self, reads: Iterable[Piece]) -> None:
        """Keeps a carry that is read after the step has changed it."""
        carries = dict.fromkeys(self.program.carry)
        for piece in reads:
            if piece.source in carries and piece.source not in self.kept:
                value = Value(piece.source.width)
                self.kept[piece.source] = value
                self._home[value] = self._new_chunk(value.width)
                whole = Piece(piece.source, 0, value.width)
                self._emit("copy", STEP, value.width, self._home[value], self._slot_of(whole))

    # -- instructions -----------------------------------------------------------------------------

    def _number(self, slot: Slot) -> int:
        if slot not in self._slot_numbers:
            self._slot_numbers[slot] = len(self.slots)
            self.slots.append(slot)
        return self._slot_numbers[slot]

    def _argument(self, what: Any) -> int:
        if what not in self._argument_numbers:
            self._argument_numbers[what] = len(self.arguments)
            self.arguments.append(what)
        return self._argument_numbers[what]

    def _slot_of(self, piece: Piece) -> Slot:
        if isinstance(piece.source, Constant):
            number = self._argument(piece.source)
            row, column = {
                "number": (0, 0),
                "row": (0, 1),
                "column": (1, 0),
                "full": (_width_of(piece.source), 1),
            }[piece.source.form]
            return Slot(ARGUMENT, number, 0, row, column, 0, piece.start * column)
        home = self._home[piece.source]
        column = 0 if piece.narrow else home.column
        return dataclasses.replace(home, column=column, shift=home.shift + piece.start)

    def _emit(
        self, name: str, part: int, width: int, to: Slot, a: Slot, *others: Slot, **more: int
    ) -> None:
        b, c = [*map(self._number, others), 0, 0][:2]
        self.instructions.append(
            Instruction(CODES[name], part, width, self._number(to), self._number(a), b, c, **more)
        )

    def _run(self, operation: Operation, part: int) -> None:
        to, width = self._home[operation.out], operation.out.width
        if operation.name != "affine":
            reads = [self._slot_of(piece) for piece in operation.inputs]
            inner = operation.inputs[0].size // width
            self._emit(operation.name, part, width, to, *reads, inner=inner)
            return
        adds = 0
        for piece in operation.inputs:
            slot = self._slot_of(piece)
            if adds:
                self._emit("add", part, width, to, to, slot)
            elif slot != to:
                self._emit("copy", part, width, to, slot)
            adds = 1
        for piece, kernel in operation.products:
            number = self._kernel(kernel)
            slot = self._slot_of(piece)
            self._emit("product", part, width, to, slot, inner=piece.size, kernel=number, adds=adds)
            adds = 1

    def _kernel(self, kernel: Kernel) -> int:
        if kernel not in self._kernel_numbers:
            self._kernel_numbers[kernel] = len(self.kernels)
            strides = kernel.row_stride, kernel.column_stride
            number = self._argument(kernel.known)
            shape = kernel.rows, kernel.columns
            self.kernels.append((number, kernel.offset, *strides, *shape))
        return self._kernel_numbers[kernel]

    def _add_rows(self, slot: Slot, pieces: list[Piece]) -> None:
        shift = 0
        for piece in pieces:
            to = dataclasses.replace(slot, shift=slot.shift + shift)
            self._emit("add", STEP, piece.size, to, to, self._slot_of(piece))
            shift += piece.size

    def _add_terms(self) -> None:
        first = len(self.results)
        for shape in self.program.totals:
            size = math.prod(shape)
            self.totals.append((len(self.results), size))
            self.results.append(("total", size))
        for term in self.program.terms:
            left, result = self._number(self._slot_of(term.left)), first + term.total
            code, width, right, inner = CODES["columns"], term.left.size, left, 1
            if term.right is not None:
                right = self._number(self._slot_of(term.right))
                code, width, inner = CODES["outer"], term.right.size, term.left.size
            places = {"inner": inner, "stride": term.stride, "adds": term.offset}
            self.instructions.append(
                Instruction(code, SUM, width, left, left, right, result, **places)
            )

    def _move_carries(self) -> None:
        """The new carry takes the place of the old one, when nobody reads that any more."""
        carries = {*self.program.carry}
        moves = []
        for value, pieces in zip(self.program.carry, self.program.new_carry):
            shift = 0
            for piece in pieces:
                home = self._home[value]
                to = dataclasses.replace(home, shift=home.shift + shift)
                slot = self._slot_of(piece)
                shift += piece.size
                if slot == to:
                    continue
                if piece.source in carries:
                    old, slot = slot, self._new_scratch(piece.size)
                    self._emit("copy", STEP, piece.size, slot, old)
                moves.append((to, slot, piece.size))
        for to, slot, size in moves:
            self._emit("copy", CARRY, size, to, slot)


def _width_of(constant: Constant) -> int:
    shape = constant.shape
    return math.prod(shape[: constant.axis] + shape[constant.axis + 1 :])


def _kept(piece: Piece, kept: dict[Value, Value]) -> Piece:
    value = kept.get(piece.source)  # type: ignore[arg-type]
    return dataclasses.replace(piece, source=value) if value is not None else piece
