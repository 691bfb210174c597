"""Shows where the time of a recurrent layer goes, operation by operation.

    python -m benchmarks.profile --quick
    python -m benchmarks.profile --shape 32,512,64,128 --cells lstm --passes train
    python -m benchmarks.profile --frameworks longlag "flax linen" --record

XLA:CPU runs a compiled program as a list of operations, each of which jax's profiler times. How
often an operation ran says where it stands: in the loop over steps, in the loop over chunks of
steps, or outside. A product is an operation in whose program a `dot` stands. The times are means of
three traced runs, which tracing makes a little longer. "gaps" is when no timed operation runs, the
work of large products in other threads among it. The last line printed is one JSON object with
everything, the ten longest operations of each layer too.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Sequence
from typing import Any, Literal

import tyro

from benchmarks.frameworks import FRAMEWORKS, Layer
from benchmarks.record import Record, source, table
from benchmarks.rounds import Contestants
from benchmarks.trace import trace
from benchmarks.unroll import SHAPES, describe, read_shape
from longlag.cli.arguments import plain_errors
from longlag.core.spec import choose
from longlag.report.rows import markdown
from longlag.system.console import console

LONGEST = 10
JAX_FRAMEWORKS = tuple(name for name in FRAMEWORKS if name not in ("torch", "matmul"))


@dataclasses.dataclass(frozen=True)
class Options:
    """Profiles one layer in some frameworks, each in a process of its own.

    Attributes:
        shape: B,T,D,H: batch, steps, input features, hidden features. Several may be given.
        cells: which recurrences.
        passes: "forward" is the value alone, "train" value and gradient in the parameters.
        frameworks: any that runs on jax.
        quick: one shape, one cell, one pass, unless they are given.
        record: keep the results in benchmarks/results; refused while other processes are busy.
    """

    shape: tuple[str, ...] = SHAPES
    cells: tuple[Literal["lstm", "gru", "elman"], ...] = ("lstm", "gru")
    passes: tuple[Literal["forward", "train"], ...] = ("forward", "train")
    frameworks: tuple[str, ...] = ("longlag", "equinox")
    quick: bool = False
    record: bool = False


QUICK = Options(shape=SHAPES[1:2], cells=("lstm",), passes=("train",), quick=True)


def main(argv: Sequence[str]) -> int:
    """Runs the command line; returns the exit code."""
    default = QUICK if "--quick" in argv else Options()
    prog = "python -m benchmarks.profile"
    options = tyro.cli(Options, prog=prog, description=__doc__, args=list(argv), default=default)
    for name in options.frameworks:
        choose(name, JAX_FRAMEWORKS, "--frameworks")
    layers = [
        Layer(cell, read_shape(shape), training=what == "train")
        for cell in options.cells
        for shape in options.shape
        for what in options.passes
    ]
    record, rows = Record("profile", options.record, ("equinox", "dm-haiku")), []
    with Contestants(dict.fromkeys(options.frameworks, profile_layer)) as contestants:
        for layer in layers:
            for name in options.frameworks:
                rows.append(record.measure_quietly(measure, contestants, name, layer))
                console.print(f"{describe(layer)}: {name} {rows[-1]['ms']:.1f} ms")
    console.print(table("milliseconds", _columns(rows), map(_line, rows), left=2))
    record.finish(rows, section)
    return 0


def measure(contestants: Contestants, name: str, layer: Layer) -> dict[str, Any]:
    """The row of one layer in one framework, from its process."""
    contestants.prepare(name, (name, layer))
    return contestants.note(name)


def profile_layer(description: tuple[str, Layer]) -> Any:
    """Profiles one layer in this process; a function that does nothing, with the row as `note`.

    The row: `framework, cell, shape, pass`, `ms` (the least of some runs that are not traced),
    `traced_ms`, the parts of `PARTS` in ms of the traced runs, and `longest`: name, runs, ms, and
    the shape of the result, for each of the longest operations.
    """
    name, layer = description
    run: Any = FRAMEWORKS[name](layer)
    untraced = []
    for _ in range(10):
        start = time.perf_counter()
        run()
        untraced.append((time.perf_counter() - start) * 1e3)
    timing = trace(run, run.note()["program"])
    steps = layer.shape[1]
    parts: dict[str, float] = dict.fromkeys(PARTS, 0.0)
    for operation in timing.operations:
        kind = "products" if operation.product else "rest"
        where = "once" if operation.runs < 2 else f"steps: {kind}"
        where = "loops" if operation.name.startswith("ffi_call") else where
        where = f"chunks: {kind}" if 2 <= operation.runs < steps / 2 else where
        parts[where] += operation.ms
    parts["gaps"] = timing.gaps
    row = {
        "framework": name,
        "cell": layer.cell,
        "shape": list(layer.shape),
        "pass": "train" if layer.training else "forward",
        "ms": round(min(untraced), 3),
        "traced_ms": round(timing.ms, 3),
        "parts": {part: round(ms, 3) for part, ms in parts.items()},
        "longest": [operation.as_row() for operation in timing.operations[:LONGEST]],
    }

    def do_nothing() -> None:
        pass

    do_nothing.note = lambda: row  # type: ignore[attr-defined]
    return do_nothing


# Where an operation stands and what it is: in the loop over steps, in that over chunks, a native
# loop over time, outside.
PARTS = (
    "steps: products",
    "steps: rest",
    "chunks: products",
    "chunks: rest",
    "loops",
    "once",
    "gaps",
)


def _columns(rows: Sequence[dict[str, Any]]) -> list[str]:
    """What a table of these rows has: results from before native loops lack their part."""
    return ["layer", "framework", "ms", *(part for part in PARTS if part in rows[0]["parts"])]


def _line(row: dict[str, Any]) -> tuple[str, ...]:
    layer = Layer(row["cell"], tuple(row["shape"]), row["pass"] == "train")
    parts = [f"{row['parts'][part]:.1f}" for part in PARTS if part in row["parts"]]
    return describe(layer), row["framework"], f"{row['ms']:.1f}", *parts


def section(results: dict[str, Any]) -> str:
    """The table for benchmarks/README.md from a recorded JSON object."""
    lines = [_line(row) for row in results["rows"]]
    return "\n".join([markdown(_columns(results["rows"]), lines), "", source(results)])


if __name__ == "__main__":
    with plain_errors():
        sys.exit(main(sys.argv[1:]))
