"""The native loop: built where there is a compiler, kept in the cache, and called through XLA.

`LONGLAG_KERNELS=0` turns it off. Without a compiler everything works as it does without the native
loop, and one line says so once.
"""

from __future__ import annotations

import ctypes
import dataclasses
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from longlag.kernels.program import Constant, Known, evaluate
from longlag.kernels.schedule import Schedule

__all__ = ["describe", "is_available", "run"]

SOURCE = Path(__file__).parent / "native"
TARGET = "longlag_loop"
FLAGS = ("-std=c++17", "-O3", "-fno-math-errno", "-shared", "-fPIC", "-Wno-psabi")


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
    try:
        path = _build()
        library = ctypes.CDLL(str(path))
        handler = jax.ffi.pycapsule(library.longlag_loop)
        jax.ffi.register_ffi_target(TARGET, handler, platform="cpu")
    except (OSError, subprocess.SubprocessError) as error:
        print(f"longlag: no native loops, jax.lax.scan runs instead: {error}", file=sys.stderr)
        return str(error)
    return None


def _build() -> Path:
    """The path of the library, compiled if the cache has none of these sources for this machine."""
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        raise OSError("found no C++ compiler (g++, clang++ or $CXX)")
    include = jax.ffi.include_dir()
    flags = (*FLAGS, *_machine_flags(), *os.environ.get("CXXFLAGS", "").split())
    sources = sorted(SOURCE.glob("*.cc"))
    content = [p.read_bytes() for p in sorted(SOURCE.iterdir()) if p.suffix in (".cc", ".h")]
    # A home may be shared by machines that know other instructions.
    settings = [compiler, jax.__version__, *flags, _instructions()]
    digest = hashlib.sha256(b"\0".join([*content, *(text.encode() for text in settings)]))
    path = _cache() / f"loop-{digest.hexdigest()[:16]}.so"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            made = Path(folder) / path.name
            command = [compiler, *flags, "-isystem", include, *map(str, sources), "-o", str(made)]
            outcome = subprocess.run(command, capture_output=True, text=True)
            if outcome.returncode:
                raise OSError(f"{compiler} failed: {outcome.stderr.strip()[-500:]}")
            made.replace(path)
    return path


def _machine_flags() -> tuple[str, ...]:
    """The instructions of this very machine, since the library is built where it runs."""
    if platform.machine() in ("x86_64", "AMD64"):
        return ("-march=native", "-mprefer-vector-width=512")
    return ("-mcpu=native",) if platform.machine() in ("aarch64", "arm64") else ()


def _instructions() -> str:
    """What the processor knows, as Linux tells it, or else its kind."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    return next(
        (line for line in lines if line.startswith(("flags", "Features"))), platform.machine()
    )


def _cache() -> Path:
    folder = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(folder) / "longlag" / "kernels"


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
    header = [steps, batch, schedule.scratch, schedule.chunk, int(reverse), double]
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
    totals = [total.reshape(shape) for total, shape in zip(totals, program.totals)]
    memo = {}
    sums = [
        row_sums[result] if isinstance(result, int) else evaluate(result, known, totals, memo)
        for result in program.results
    ]
    return [
        jax.numpy.asarray(array).reshape(type_.shape).astype(type_.dtype)
        for array, type_ in zip([*last, *every, *sums], types, strict=True)
    ]
