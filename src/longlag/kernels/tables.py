"""The tables that a native loop reads: parts of a chunk, places of values, and instructions."""

from __future__ import annotations

import dataclasses

__all__ = [
    "ARGUMENT",
    "BEFORE",
    "CARRY",
    "CHUNK",
    "CODES",
    "EARLY",
    "LATE",
    "NAMES",
    "RESULT",
    "SCRATCH",
    "STEP",
    "SUM",
    "Instruction",
    "Slot",
]

# The part of a chunk in which an instruction is done, see `schedule.py`.
EARLY, STEP, LATE, SUM, CARRY = range(5)
# Where a value lies. The numbers are those of `native/loop.h`.
SCRATCH, CHUNK, ARGUMENT, RESULT, BEFORE = range(5)
NAMES = (
    *("copy", "neg", "exp", "tanh", "logistic", "log", "log1p", "expm1", "sqrt", "rsqrt", "abs"),
    *("sign", "square", "sin", "cos", "tan", "erf", "floor", "ceil", "is_finite", "not", "cbrt"),
    *("round_to_bfloat16", "add", "sub", "mul", "div", "max", "min", "pow", "atan2", "eq", "ne"),
    *("lt", "le", "gt", "ge", "select", "row_sum", "row_max", "row_min", "product", "outer"),
    *("columns", "stream"),
)
CODES = {name: code for code, name in enumerate(NAMES)}


@dataclasses.dataclass(frozen=True)
class Slot:
    """Where a value lies, see `Slot` in `native/loop.h`, whose fields are these."""

    kind: int
    index: int
    entry: int
    row: int
    column: int
    step: int
    shift: int


@dataclasses.dataclass(frozen=True)
class Instruction:
    """An operation in numbers, see `Instruction` in `native/loop.h`, whose fields are these."""

    code: int
    part: int
    width: int
    to: int
    a: int
    b: int = 0
    c: int = 0
    inner: int = 0
    kernel: int = 0
    stride: int = 0
    adds: int = 0
