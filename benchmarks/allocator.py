"""Times a train step with freed memory kept by the process, and given back to the system.

    python -m benchmarks.allocator --quick              (within a minute)
    python -m benchmarks.allocator                      (three shapes, three frameworks)
    python -m benchmarks.allocator --record             (keeps the results in benchmarks/results)

The commands of longlag keep it (`longlag.system.allocator`); here every framework does, and every
framework does not, in processes of their own. A ratio is that of the minima of one round, and what
counts is the median over the rounds. Below 1, keeping is faster. "peak" is the most memory that the
process ever had, with the framework itself. The last line printed is one JSON object.
"""

from __future__ import annotations

import dataclasses
import functools
import resource
import sys
from collections.abc import Callable, Sequence
from typing import Any

import tyro
from rich.progress import Progress

from benchmarks.frameworks import FRAMEWORKS, Layer
from benchmarks.record import Record, source, table
from benchmarks.rounds import Contestants, median_ratio
from benchmarks.unroll import describe, read_shape
from longlag.cli.arguments import plain_errors
from longlag.core.spec import choose
from longlag.report.rows import markdown
from longlag.system.allocator import VARIABLE
from longlag.system.console import console

SHAPES = ("16,1024,16,64", "32,512,64,128", "64,256,256,256")
SETTINGS = ("keep", "system")
COLUMNS = ("LSTM, train", "framework", "kept, ms", "system, ms", "kept / system", "peak, MB", "MB")


@dataclasses.dataclass(frozen=True)
class Options:
    """Times the train step of an LSTM with freed memory kept, and not.

    Attributes:
        shape: B,T,D,H: batch, steps, input features, hidden features. Several may be given.
        frameworks: whose layers.
        rounds: rounds of timing; an odd number has a median of its own.
        quick: one shape, three rounds, unless they are given.
        record: keep the results in benchmarks/results; refused while other processes are busy.
    """

    shape: tuple[str, ...] = SHAPES
    frameworks: tuple[str, ...] = ("longlag", "flax nnx", "torch")
    rounds: int = 7
    quick: bool = False
    record: bool = False


QUICK = Options(shape=SHAPES[:1], rounds=3, quick=True)


def main(argv: Sequence[str]) -> int:
    """Runs the command line; returns the exit code."""
    default = QUICK if "--quick" in argv else Options()
    prog = "python -m benchmarks.allocator"
    options = tyro.cli(Options, prog=prog, description=__doc__, args=list(argv), default=default)
    for name in options.frameworks:
        choose(name, tuple(FRAMEWORKS), "--frameworks")
    if options.rounds < 1:
        raise ValueError(f"--rounds: expected at least 1, got {options.rounds}")
    layers = [Layer("lstm", read_shape(shape), training=True) for shape in options.shape]
    record = Record("allocator", options.record, ("torch",))
    rows: list[dict[str, Any]] = []
    with Progress(console=console) as progress:
        bar = progress.add_task("", total=len(layers) * options.rounds)
        advance = functools.partial(progress.advance, bar)
        for layer in layers:
            progress.update(bar, description=describe(layer))
            rows += record.measure_quietly(
                measure, layer, options.frameworks, options.rounds, advance
            )
    console.print(table("freed memory kept", COLUMNS, map(_cells, rows), left=2))
    record.finish(rows, section, rounds=options.rounds)
    return 0


def contestant(framework: str, layer: Layer) -> Callable[[], None]:
    """What one process times; its `note()` has the most memory that the process had, in MB."""
    timed = FRAMEWORKS[framework](layer)

    def run() -> None:
        timed()

    def note() -> dict[str, float]:
        return {"peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}

    run.note = note  # type: ignore[attr-defined]
    return run


def measure(
    layer: Layer, frameworks: Sequence[str], rounds: int, advance: Callable[[], Any]
) -> list[dict[str, Any]]:
    """Times one shape, in processes that nothing was measured in before.

    Returns:
        A row for each framework: `shape, framework, ms` (setting -> the least of all rounds),
        `ratio` (the median of the rounds' ratios, kept to given back), `spread` (least and greatest
        of these) and `peak_mb` (setting -> MB).
    """
    pairs = [(framework, setting) for framework in frameworks for setting in SETTINGS]
    names = {pair: " ".join(pair) for pair in pairs}
    makers = {name: functools.partial(contestant, pair[0]) for pair, name in names.items()}
    settings = {name: {VARIABLE: setting} for (_, setting), name in names.items()}
    with Contestants(makers, settings) as contestants:
        for name in makers:
            contestants.prepare(name, layer)
        minima = contestants.minima(makers, rounds, advance)
        peaks = {name: contestants.note(name)["peak_mb"] for name in makers}
    rows = []
    for framework in frameworks:
        kept, system = (names[framework, setting] for setting in SETTINGS)
        ratio, *spread = median_ratio(minima[kept], minima[system])
        rows.append(
            {
                "shape": list(layer.shape),
                "framework": framework,
                "ms": {s: round(min(minima[names[framework, s]]), 3) for s in SETTINGS},
                "ratio": round(ratio, 3),
                "spread": [round(each, 3) for each in spread],
                "peak_mb": {s: round(peaks[names[framework, s]]) for s in SETTINGS},
            }
        )
    return rows


def section(results: dict[str, Any]) -> str:
    """The table for benchmarks/README.md from a recorded JSON object."""
    return "\n".join([markdown(COLUMNS, [*map(_cells, results["rows"])]), "", source(results)])


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    ms, peak = row["ms"], row["peak_mb"]
    return (
        ",".join(map(str, row["shape"])),
        row["framework"],
        *(f"{ms[setting]:.1f}" for setting in SETTINGS),
        f"{row['ratio']:.2f}",
        *(str(peak[setting]) for setting in SETTINGS),
    )


if __name__ == "__main__":
    with plain_errors():
        sys.exit(main(sys.argv[1:]))
