"""The native loop, called through XLA.

`LONGLAG_KERNELS=0` turns it off. Without a compiler everything works as it does without the native
loop, and one line says so once.
"""

from __future__ import annotations

import ctypes
import dataclasses
import functools
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from longlag.kernels.compiling import libraries
from longlag.kernels.program import Constant, Known, evaluate, results_of
from longlag.kernels.schedule import Schedule

__all__ = ["describe", "is_available", "run"]

TARGET = "longlag_loop"


def is_available() -> bool:
    """Whether programs can run natively here; builds and loads the library when first asked."""
    return _missing() is None


def describe() -> str:
    """What runs the loops here: "native", or why it is jax.lax.scan."""
    reason = _missing()
    return "native" if reason is None else f"jax.lax.scan: {reason}"


@functools.cache
def _missing() -> str | None:
    """Why programs cannot run natively, or None if they can."""
    if os.environ.get("LONGLAG_KERNELS", "1") == "0":
        return "LONGLAG_KERNELS=0"
    reason: Exception | None = None
    try:
        for path in libraries():
            try:
                library = ctypes.CDLL(str(path))
                handler = jax.ffi.pycapsule(library.longlag_loop)
                jax.ffi.register_ffi_target(TARGET, handler, platform="cpu")
            except (OSError, RuntimeError) as error:  # built for another XLA: the next may do
                reason = error
            else:
                return None
    except (OSError, subprocess.SubprocessError) as error:
        reason = error
    print(f"longlag: no native loops, jax.lax.scan runs instead: {reason}", file=sys.stderr)
    return str(reason)


def run(
    schedule: Schedule,
    constants: Sequence[Known],
    arrays: Sequence[jax.Array],
    carry: Sequence[jax.Array],
    given: Sequence[jax.Array],
    before: Sequence[jax.Array],
    entry: Sequence[jax.Array],
    types: Sequence[jax.ShapeDtypeStruct],
    *,
    steps: int,
    reverse: bool,
) -> list[jax.Array]:
    """Runs a program over all steps, in one call.

    Args:
        schedule: the step.
        constants: what stands for `arrays` in it.
        arrays: the constants.
        carry: before the first step, `[B, ...]`.
        given: inputs, `[T, B, ...]`.
        before: arrays of which a step sees what is one step further on, `[T, B, ...]`.
        entry: what it sees at the last step, `[B, ...]`.
        types: shapes and dtypes of the results.
        steps: T.
        reverse: from the last step to the first; "one step further on" is then the step before.

    Returns:
        The last carry, the outputs, and the sums, in the order of the body.
    """
    program, batch = schedule.program, schedule.batch
    known = dict(zip(constants, arrays))
    memo: dict[Known, Any] = {}
    sources = {"carry": carry, "given": given, "before": before, "entry": entry}

    def argument(what: Any) -> jax.Array:
        if isinstance(what, Constant):
            array = jax.numpy.asarray(evaluate(what.known, known, (), memo))
            return what.read(array, program.dtype)
        if isinstance(what, Known):
            return (
                jax.numpy.asarray(evaluate(what, known, (), memo)).reshape(-1).astype(program.dtype)
            )
        kind, number = what
        return sources[kind][number].reshape(-1).astype(program.dtype)

    sizes = {"last": batch, "every": steps * batch, "total": 1}
    shapes = [
        jax.ShapeDtypeStruct((sizes[kind] * width,), program.dtype)
        for kind, width in schedule.results
    ]
    double = int(program.dtype == np.float64)
    header = [steps, batch, schedule.scratch, schedule.chunk, int(reverse)]
    header += [int(schedule.columnwise), double]
    tables = {
        "header": [header],
        "instructions": map(dataclasses.astuple, schedule.instructions),
        "slots": map(dataclasses.astuple, schedule.slots),
        "kernels": schedule.kernels,
        "carries": schedule.carries,
        "totals": schedule.totals,
    }
    attributes = {
        name: np.array([number for row in rows for number in row], np.int64)
        for name, rows in tables.items()
    }
    made = jax.ffi.ffi_call(TARGET, shapes)(*map(argument, schedule.arguments), **attributes)
    last = made[: len(carry)]
    row_sums = made[len(carry) : len(carry) + len(program.row_sums)]
    rest = made[len(carry) + len(program.row_sums) :]
    every, totals = rest[: len(program.outputs)], rest[len(program.outputs) :]
    return results_of(program, last, row_sums, every, totals, types, known)
