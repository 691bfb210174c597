"""Measures what the library gains from knowing that a cell is dense.

    python -m benchmarks.kinds --quick
    python -m benchmarks.kinds --record

A `DenseCell` tells its products (`mix`) from the rest (`update`), so that the backward may store
what the products made. The same equations as a plain `Cell`, which has a `step` alone, are taken
again, all of them. One train step of either, each in a process of its own, the median of rounds'
ratios of minima; below 1 the dense kind is faster. The last line printed is one JSON object.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Sequence
from typing import Any, Literal

import tyro
from rich.progress import Progress

from benchmarks.frameworks import Layer, longlag, longlag_plain
from benchmarks.record import Record, source, table
from benchmarks.rounds import Contestants, median_ratio
from benchmarks.unroll import SHAPES, describe, read_shape
from longlag.cli.arguments import plain_errors
from longlag.report.rows import markdown
from longlag.system.console import console

KINDS: dict[str, Callable[[Layer], Callable[[], None]]] = {"dense": longlag, "plain": longlag_plain}


@dataclasses.dataclass(frozen=True)
class Options:
    """Times train steps of dense cells and of the same as plain cells.

    Attributes:
        shape: B,T,D,H: batch, steps, input features, hidden features. Several may be given.
        cells: which recurrences.
        rounds: rounds of timing; an odd number has a median of its own.
        quick: one shape, one cell, three rounds, unless they are given.
        record: keep the results in benchmarks/results; refused while other processes are busy.
    """

    shape: tuple[str, ...] = SHAPES
    cells: tuple[Literal["lstm", "gru", "elman"], ...] = ("lstm", "gru")
    rounds: int = 7
    quick: bool = False
    record: bool = False


QUICK = Options(shape=SHAPES[1:2], cells=("lstm",), rounds=3, quick=True)


def main(argv: Sequence[str]) -> int:
    """Runs the command line; returns the exit code."""
    default = QUICK if "--quick" in argv else Options()
    prog = "python -m benchmarks.kinds"
    options = tyro.cli(Options, prog=prog, description=__doc__, args=list(argv), default=default)
    if options.rounds < 1:
        raise ValueError(f"--rounds: expected at least 1, got {options.rounds}")
    layers = [
        Layer(cell, read_shape(shape), training=True)
        for cell in options.cells
        for shape in options.shape
    ]
    record, rows = Record("kinds", options.record), []
    with Contestants(KINDS) as contestants, Progress(console=console) as progress:
        for layer in progress.track(layers, description="kinds"):
            rows.append(record.measure_quietly(measure, contestants, layer, options.rounds))
    console.print(
        table("a train step of a dense cell and of a plain one", COLUMNS, map(_line, rows))
    )
    record.finish(rows, section, rounds=options.rounds)
    return 0


def measure(contestants: Contestants, layer: Layer, rounds: int) -> dict[str, Any]:
    """Times both kinds: `cell, shape`, `ms` by kind, `ratio` and `spread` of dense to plain."""
    for kind in KINDS:
        contestants.prepare(kind, layer)
    minima = contestants.minima(KINDS, rounds)
    ratio, least, greatest = median_ratio(minima["dense"], minima["plain"])
    return {
        "cell": layer.cell,
        "shape": list(layer.shape),
        "ms": {kind: round(min(ms), 3) for kind, ms in minima.items()},
        "ratio": round(ratio, 3),
        "spread": [round(least, 3), round(greatest, 3)],
    }


COLUMNS = ("layer", "dense, ms", "plain, ms", "dense / plain", "least", "greatest")


def _line(row: dict[str, Any]) -> tuple[str, ...]:
    layer = Layer(row["cell"], tuple(row["shape"]), training=True)
    times = [f"{row['ms'][kind]:.1f}" for kind in KINDS]
    ratios = (row["ratio"], *row["spread"])
    return describe(layer), *times, *(f"{ratio:.2f}" for ratio in ratios)


def section(results: dict[str, Any]) -> str:
    """The table for benchmarks/README.md from a recorded JSON object."""
    lines = [_line(row) for row in results["rows"]]
    return "\n".join([markdown(COLUMNS, lines), "", source(results)])


if __name__ == "__main__":
    with plain_errors():
        sys.exit(main(sys.argv[1:]))
