"""Times `longlag.unroll` beside the recurrent layers of other frameworks.

    python -m benchmarks.unroll --quick                 (within a minute)
    python -m benchmarks.unroll                         (eight shapes, both passes: 15 minutes)
    python -m benchmarks.unroll --shape 8,200,32,64 --cells lstm --frameworks longlag torch
    python -m benchmarks.unroll --record                (keeps the results in benchmarks/results)

Each framework has a process of its own. In every round each of them runs for a third of a second,
one after the other; a ratio is that of the minima of one round, and what counts is the median over
the rounds. Below 1 longlag is faster. The last line printed is one JSON object with everything.
"""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import tyro
from rich.progress import Progress

from benchmarks.frameworks import FRAMEWORKS, GATES, JAX_PEERS, MATMUL, Layer
from benchmarks.record import Record, source, table
from benchmarks.rounds import Contestants, median_ratio
from longlag.cli.arguments import plain_errors
from longlag.core.spec import choose
from longlag.report.rows import markdown
from longlag.system.console import console

OURS = "longlag"
# A usual one, narrow and long, a single sequence, two large, and three of memory tasks.
SHAPES = (
    "32,512,64,128",
    "16,1024,16,64",
    "1,1024,64,128",
    "64,256,256,256",
    "32,128,512,512",
    "32,40,48,48",
    "32,64,32,32",
    "64,200,32,64",
)


@dataclasses.dataclass(frozen=True)
class Options:
    """Times one layer in several frameworks.

    Attributes:
        shape: B,T,D,H: batch, steps, input features, hidden features. Several may be given.
        cells: which recurrences; equinox has no elman.
        passes: "forward" is the value alone, "train" value and gradient in the parameters.
        frameworks: whom to compare; longlag is always there.
        rounds: rounds of timing; an odd number has a median of its own.
        quick: one shape, one cell, three rounds, unless they are given.
        record: keep the results in benchmarks/results; refused while other processes are busy.
    """

    shape: tuple[str, ...] = SHAPES
    cells: tuple[Literal["lstm", "gru", "elman"], ...] = ("lstm", "gru")
    passes: tuple[Literal["forward", "train"], ...] = ("forward", "train")
    frameworks: tuple[str, ...] = tuple(n for n in FRAMEWORKS if n not in (OURS, "matmul"))
    rounds: int = 7
    quick: bool = False
    record: bool = False


QUICK = Options(
    shape=SHAPES[1:2], cells=("lstm",), rounds=3, frameworks=("flax linen", "torch"), quick=True
)


def main(argv: Sequence[str]) -> int:
    """Runs the command line; returns the exit code."""
    default = QUICK if "--quick" in argv else Options()
    prog = "python -m benchmarks.unroll"
    options = tyro.cli(Options, prog=prog, description=__doc__, args=list(argv), default=default)
    layers = [
        Layer(cell, read_shape(shape), training=what == "train")
        for cell in options.cells
        for shape in options.shape
        for what in options.passes
    ]
    for name in options.frameworks:
        choose(name, tuple(FRAMEWORKS), "--frameworks")
    if options.rounds < 1:
        raise ValueError(f"--rounds: expected at least 1, got {options.rounds}")
    record = Record("unroll", options.record, PACKAGES)
    names = (OURS, *(name for name in options.frameworks if name != OURS))
    makers = {name: FRAMEWORKS[name] for name in (*names, "matmul")}
    rows = []
    with Contestants(makers) as contestants, Progress(console=console) as progress:
        bar = progress.add_task("", total=len(layers) * options.rounds)
        contestants.prepare("matmul", layers[0])
        for layer in layers:
            progress.update(bar, description=describe(layer))
            advance = functools.partial(progress.advance, bar)
            rows.append(
                record.measure_quietly(measure, contestants, layer, names, options.rounds, advance)
            )
            progress.console.print(", ".join(f"{k} {v}" for k, v in summary(rows[-1]).items()))
    peers = names[1:]
    lines = [(_name(row), *_times(row), *_shares(row, peers)) for row in rows]
    title = "longlag's time as a share of the others'"
    console.print(table(title, ("layer", "ms", "floor", *peers), lines))
    record.finish(rows, section, rounds=options.rounds)
    return 0


PACKAGES = ("torch", "dm-haiku", "equinox", "keras")


def read_shape(text: str) -> tuple[int, int, int, int]:
    """B, T, D, H from "B,T,D,H"."""
    parts = text.split(",")
    if len(parts) != 4 or not all(part.strip().isdigit() and int(part) > 0 for part in parts):
        raise ValueError(f"--shape: expected four positive numbers B,T,D,H; got {text!r}")
    batch, steps, features, width = map(int, parts)
    return batch, steps, features, width


def describe(layer: Layer) -> str:
    """One line for the progress bar."""
    what = "train" if layer.training else "forward"
    return f"{layer.cell} {','.join(map(str, layer.shape))} {what}"


def measure(
    contestants: Contestants, layer: Layer, names: Sequence[str], rounds: int, advance: Any
) -> dict[str, Any]:
    """Times one layer in every framework that has it.

    Returns:
        A row: `cell, shape, pass, ours_ms`, `peers` (name -> ms, the least of all rounds),
        `medians` (name -> ms), `ratios` (name -> median of the rounds' ratios of minima; "jax" is
        that to the fastest JAX peer), `spread` (name -> least and greatest of these ratios),
        `compile_s` (name -> seconds until the first run is over) and `floor_ms`.
    """
    taking_part = [n for n in names if not (n == "equinox" and layer.cell == "elman")]
    compile_s = {name: round(contestants.prepare(name, layer), 3) for name in taking_part}
    times = contestants.rounds((*taking_part, "matmul"), rounds, advance)
    minima = {name: [min(one) for one in runs] for name, runs in times.items()}
    theirs = {name: minima[name] for name in taking_part if name != OURS}
    jax_peers = [theirs[name] for name in JAX_PEERS if name in theirs]
    if jax_peers:
        theirs["jax"] = [min(one) for one in zip(*jax_peers)]
    ratios = {name: median_ratio(minima[OURS], ms) for name, ms in theirs.items()}
    batch, steps, features, width = layer.shape
    products = 2 * batch * steps * GATES[layer.cell] * width * (features + width)
    seconds_per_operation = min(minima["matmul"]) / 1e3 / (2 * MATMUL**3)
    return {
        "cell": layer.cell,
        "shape": list(layer.shape),
        "pass": "train" if layer.training else "forward",
        "ours_ms": round(min(minima[OURS]), 3),
        "peers": {n: round(min(minima[n]), 3) for n in taking_part if n != OURS},
        "medians": {n: round(float(np.median(np.concatenate(times[n]))), 3) for n in taking_part},
        "ratios": {name: round(ratio[0], 3) for name, ratio in ratios.items()},
        "spread": {name: [round(r, 3) for r in ratio[1:]] for name, ratio in ratios.items()},
        "compile_s": compile_s,
        "floor_ms": round(products * (3 if layer.training else 1) * seconds_per_operation * 1e3, 6),
    }


def section(results: dict[str, Any]) -> str:
    """The table for benchmarks/README.md from a recorded JSON object."""
    rows = results["rows"]
    peers = list(dict.fromkeys(name for row in rows for name in row["peers"]))
    columns = ["cell", "B,T,D,H", "pass", "ms", "floor", "fastest of JAX", *peers]
    lines = [(*_name(row).split(" "), *_times(row), *_shares(row, ("jax", *peers))) for row in rows]
    return "\n".join([markdown(columns, lines), "", source(results)])


def _name(row: dict[str, Any]) -> str:
    return f"{row['cell']} {','.join(map(str, row['shape']))} {row['pass']}"


def _times(row: dict[str, Any]) -> tuple[str, str]:
    return f"{row['ours_ms']:.1f}", f"{row['floor_ms']:.1f}"


def _shares(row: dict[str, Any], peers: Sequence[str]) -> list[str]:
    return [f"{row['ratios'][n]:.2f}" if n in row["ratios"] else "" for n in peers]


def summary(row: dict[str, Any]) -> dict[str, Any]:
    """What a row says, for the line that is printed when it is done."""
    return {_name(row): f"{row['ours_ms']:.1f} ms"} | row["ratios"]


if __name__ == "__main__":
    with plain_errors():
        sys.exit(main(sys.argv[1:]))
