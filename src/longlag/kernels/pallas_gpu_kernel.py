"""The program of a step on a GPU: the kernel, in which a block takes one row through all steps.

Columns go in vectors of 128 numbers, one of each thread. What lies beyond the width of a value may
be anything, and no result has a part in it: products and row reductions read numbers one by one. A
value of width 1 is the same number in every thread.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from longlag.kernels.pallas_kernel import Layout, elementwise
from longlag.kernels.program import Constant, Kernel, Operation, Piece, Value
from longlag.kernels.tables import LATE, STEP

__all__ = ["LANES", "Plan", "is_in_vectors", "pad", "run_row", "substitute", "vectors_of"]

LANES = 128
# Vectors of a matrix that a thread asks for before it needs the first, and sums that it makes of
# them at once.
MOST_LOADS, MOST_SUMS = 64, 32
COMBINE = {"row_sum": lax.add, "row_max": lax.max, "row_min": lax.min}


class Plan:
    """What the kernel reads, holds and makes.

    Attributes:
        layout: of the program.
        batch: B.
        dtype: of all numbers.
        operations: of the step.
        carry: values before the step.
        given: ranges that come from outside.
        kernels: of the products.
        products: for each range, the kernels that it meets, so many as are summed at once.
        made: values that are read after the kernel.
        memory: values that lie in shared memory, and for how many numbers there is room. All but
            the carry are there because a thread reads of them what another has made.
    """

    def __init__(self, layout: Layout) -> None:
        program = layout.schedule.program
        self.layout, self.batch, self.dtype = layout, layout.schedule.batch, program.dtype
        self.operations, self.carry = layout.operations[STEP], layout.carry
        inside = {*self.carry, *(each.out for each in self.operations)}
        moved = [*itertools.chain(*layout.new_carry)]
        plain = [
            piece for each in self.operations if each.name not in COMBINE for piece in each.inputs
        ]
        by_number = [
            piece for each in self.operations if each.name in COMBINE for piece in each.inputs
        ]
        met: dict[Piece, dict[Kernel, None]] = {}
        for each in self.operations:
            for piece, kernel in each.products:
                met.setdefault(piece, {})[kernel] = None
        self.products = {piece: _group([*kernels]) for piece, kernels in met.items()}
        self.kernels = [*dict.fromkeys(itertools.chain(*met.values()))]
        reads = dict.fromkeys([*plain, *by_number, *met, *moved])
        self.given = [p for p in reads if p.source not in inside and literal_of(p) is None]
        after = [
            *itertools.chain(*layout.outputs, *layout.row_sums),
            *itertools.chain(*(term.reads() for term in program.terms)),
            *itertools.chain(*(each.reads() for each in layout.operations[LATE])),
        ]
        sources = dict.fromkeys(layout.source_of(piece) for piece in after)
        self.made = [source for source in sources if source in inside]
        shared = {piece.source for piece in [*by_number, *met]}
        shared |= {piece.source for piece in [*plain, *moved] if not is_in_vectors(piece)}
        shared |= {e.out for e in self.operations if e.name in COMBINE and e.out.width > 1}
        self.memory = {
            value: vectors_of(value.width) * LANES + LANES
            for value in [*self.carry, *(each.out for each in self.operations)]
            if value in shared or value in self.carry
        }


def run_row(plan: Plan, steps: int, reverse: bool, interpret: bool, row: Any, *refs: Any) -> None:
    """The kernel: all steps of one row."""
    remaining = iter(refs)

    def take(keys: Sequence[Any]) -> dict[Any, Any]:
        return {key: next(remaining) for key in keys}

    given, kernels, starts = take(plan.given), take(plan.kernels), take(plan.carry)
    last, made = take(plan.carry), take(plan.made)

    def run(*shared: Any) -> None:
        memory = dict(zip(plan.memory, shared, strict=True))
        for value, start in starts.items():
            for at in _places(value.width):
                memory[value][at] = start[row, at]

        def step(i: Any, _: None) -> None:
            time = steps - 1 - i if reverse else i
            _Step(plan, given, kernels, memory, (time, row), interpret=interpret).run(made)

        lax.fori_loop(0, steps, step, None)
        for value, end in last.items():
            for at in _places(value.width):
                end[row, at] = memory[value][at]

    pl.run_scoped(run, *(plgpu.SMEM((size,), plan.dtype) for size in plan.memory.values()))


class _Step:
    """One step of one row, as it is traced."""

    def __init__(
        self,
        plan: Plan,
        given: dict[Piece, Any],
        kernels: dict[Kernel, Any],
        memory: dict[Value, Any],
        here: tuple[Any, Any],
        *,
        interpret: bool,
    ) -> None:
        self._plan, self._given, self._kernels, self._memory = plan, given, kernels, memory
        self._here, self._interpret = here, interpret
        # What the step has made so far, and read of memory.
        self._vectors: dict[Value | Constant, list[Any]] = {}
        self._reads: dict[Piece, list[Any]] = {}
        self._products: dict[tuple[Piece, Kernel], list[Any]] = {}

    def run(self, made: dict[Value, Any]) -> None:
        """Runs the step, and writes what is read after the kernel."""
        plan = self._plan
        for piece in plan.given:  # It is asked for before it is needed.
            self.read(piece)
        for value, ref in made.items():
            if value in plan.carry:
                self._write(ref, self.read(Piece(value, 0, value.width)), self._here)
        for each in plan.operations:
            out = each.out
            if each.name in COMBINE:
                self._reduce(each)
            elif each.name == "affine":
                self._vectors[out] = self._add(each)
            else:
                inputs = [self.read(piece) for piece in each.inputs]
                operate = functools.partial(substitute, each.name, interpret=self._interpret)
                self._vectors[out] = [*map(operate, *inputs)]
            if out in self._memory and out in self._vectors:
                self._write(self._memory[out], self._vectors[out])
            if out in made:
                self._write(made[out], self.read(Piece(out, 0, out.width)), self._here)
        # All is read before the carry changes.
        after = [[(piece.size, self.read(piece)) for piece in x] for x in plan.layout.new_carry]
        for value, parts in zip(plan.carry, after):
            start = 0
            for size, vectors in parts:  # The next part overwrites what is beyond this one.
                self._write(self._memory[value], vectors, start=start)
                start += size

    def read(self, piece: Piece) -> list[Any]:
        """The vectors of a range."""
        if piece not in self._reads:
            self._reads[piece] = self._read(piece)
        return self._reads[piece]

    def _read(self, piece: Piece) -> list[Any]:
        count = vectors_of(piece.size)
        if piece.source in self._vectors and is_in_vectors(piece):
            vectors, first = self._vectors[piece.source], piece.start // LANES
            return vectors * count if len(vectors) < count else vectors[first : first + count]
        is_one = piece.narrow or piece.size == 1 or literal_of(piece) is not None
        if is_one or self._is_column(piece):
            return [_spread(self._read_number(piece, 0))] * count
        ref, where = self._place_of(piece, 0)
        vectors = [ref[(*where[:-1], pl.ds(where[-1] + j * LANES, LANES))] for j in range(count)]
        return [vector.astype(self._plan.dtype) for vector in vectors]

    def _is_column(self, piece: Piece) -> bool:
        return piece.source not in self._memory and self._given[piece].shape[-1] == 1

    def _place_of(self, piece: Piece, column: Any) -> tuple[Any, tuple[Any, ...]]:
        """Where a number of a range lies: an array and a place in it."""
        if piece.source in self._memory:
            return self._memory[piece.source], (piece.start + (0 if piece.narrow else column),)
        ref = self._given[piece]
        row = self._here[1] if ref.shape[-2] > 1 else 0
        where = (self._here[0], row) if len(ref.shape) == 3 else (row,)
        return ref, (*where, 0 if ref.shape[-1] == 1 else column)

    def _read_number(self, piece: Piece, column: Any) -> Any:
        if (literal := literal_of(piece)) is not None:
            return self._plan.dtype.type(literal)
        ref, where = self._place_of(piece, column)
        return ref[where].astype(self._plan.dtype)

    def _write(
        self, ref: Any, vectors: Sequence[Any], where: tuple[Any, ...] = (), start: int = 0
    ) -> None:
        for j, vector in enumerate(vectors):
            ref[(*where, pl.ds(start + j * LANES, LANES))] = vector

    def _add(self, operation: Operation) -> list[Any]:
        """The sum of inputs and products."""
        parts = [self.read(piece) for piece in operation.inputs]
        for piece, kernel in operation.products:
            if (piece, kernel) not in self._products:
                self._multiply(piece, kernel)
            parts.append(self._products[piece, kernel])
        return [functools.reduce(lax.add, columns) for columns in zip(*parts, strict=True)]

    def _multiply(self, piece: Piece, kernel: Kernel) -> None:
        """The products of a range with a kernel, and with others that it meets."""
        [group] = [group for group in self._plan.products[piece] if kernel in group]
        columns = [(each, at) for each in group for at in _places(each.columns)]
        unroll = max(1, min(8, MOST_LOADS // len(columns)))

        def multiply(k: Any) -> list[Any]:
            x = _spread(self._read_number(piece, k))
            return [x * self._kernels[each][k, at] for each, at in columns]

        def add(i: Any, sums: list[Any]) -> list[Any]:
            for k in range(unroll):
                sums = [*map(lax.add, sums, multiply(first + i * unroll + k))]
            return sums

        # What is no whole turn comes first.
        turns = (piece.size - 1) // unroll
        first = piece.size - turns * unroll
        sums = multiply(0)
        for k in range(1, first):
            sums = [*map(lax.add, sums, multiply(k))]
        sums = lax.fori_loop(0, turns, add, sums)
        for each in group:
            self._products[piece, each] = [
                y for y, (other, _) in zip(sums, columns) if other is each
            ]

    def _reduce(self, operation: Operation) -> None:
        """A reduction of groups of columns, number by number."""
        [piece], out, combine = operation.inputs, operation.out, COMBINE[operation.name]
        size = piece.size // out.width
        for i in range(out.width):

            def take(k: Any, number: Any, first: int = i * size) -> Any:
                return combine(number, self._read_number(piece, first + k))

            number = lax.fori_loop(1, size, take, self._read_number(piece, i * size))
            if out.width == 1:
                self._vectors[out] = [_spread(number)]
            else:
                self._memory[out][i] = number


def substitute(name: str, x: Any, *others: Any, interpret: bool) -> Any:
    """An elementwise operation, by others if Mosaic GPU has it not."""
    if name == "sqrt":
        return jnp.where((x == 0) | (x == jnp.inf), x, x * lax.rsqrt(x))
    if name == "tan":
        return jnp.sin(x) / jnp.cos(x)
    if name in ("floor", "ceil"):
        near = lax.round(x, lax.RoundingMethod.TO_NEAREST_EVEN)
        is_beyond = near > x if name == "floor" else near < x
        return near + jnp.where(is_beyond, -1.0 if name == "floor" else 1.0, 0.0)
    if name == "log1p":
        # What rounding has taken from 1 + x is made good by the quotient.
        more = 1 + x
        log = jnp.log(more)
        made_good = jnp.where(more - 1 == x, log, log * (x / (more - 1)))
        return jnp.where(more == 1, x, made_good)
    if name == "is_finite":
        return (jnp.abs(x) < jnp.inf).astype(x.dtype)
    return elementwise(name, x, *others, interpret=interpret)


def literal_of(piece: Piece) -> float | None:
    """The number that a range consists of, if it stands in the program."""
    source = piece.source
    if isinstance(source, Constant) and source.form == "number":
        literal = source.known.literal
        return float(literal) if literal is not None and np.size(literal) == 1 else None
    return None


def is_in_vectors(piece: Piece) -> bool:
    """Whether a range can be read from the vectors of its source, number for number."""
    whole = not piece.narrow and piece.size > 1 and piece.start % LANES == 0
    return whole or (isinstance(piece.source, Value) and piece.source.width == 1)


def vectors_of(width: int) -> int:
    """How many vectors have room for so many columns."""
    return -(-width // LANES)


def pad(array: jax.Array) -> jax.Array:
    """An array in whole vectors."""
    beyond = vectors_of(array.shape[-1]) * LANES - array.shape[-1]
    return jnp.pad(array, [(0, 0)] * (array.ndim - 1) + [(0, beyond)])


def _spread(number: Any) -> Any:
    return jnp.broadcast_to(number, (LANES,))


def _places(width: int) -> list[Any]:
    return [pl.ds(j * LANES, LANES) for j in range(vectors_of(width))]


def _group(kernels: Sequence[Kernel]) -> list[list[Kernel]]:
    """Kernels that a thread can sum at once."""
    groups: list[list[Kernel]] = []
    count = MOST_SUMS
    for kernel in kernels:
        count += vectors_of(kernel.columns)
        if count > MOST_SUMS:
            groups.append([])
            count = vectors_of(kernel.columns)
        groups[-1].append(kernel)
    return groups
