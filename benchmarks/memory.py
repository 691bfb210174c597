"""Measures the memory that a gradient takes, and its time, in every way of taking it.

    python -m benchmarks.memory --quick                  (within a minute)
    python -m benchmarks.memory                          (through 100,000 steps: five minutes)
    python -m benchmarks.memory --shape 16,10000,16,64 --cell gru

One layer, float32, the loss is on the last output, the inputs are not differentiated. Memory is
what XLA reserves beside inputs and outputs, in bytes and in arrays `[T, B, H]`. Each way runs in a
process of its own; times are minima, ratios medians of the rounds. The last line printed is one
JSON object with everything.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Sequence
from typing import Any, Literal

import tyro
from rich.progress import Progress

from benchmarks.frameworks import Layer, jit_run, linen_rnn, longlag_cell
from benchmarks.record import Record, source, table
from benchmarks.rounds import Contestants, median_ratio
from benchmarks.unroll import read_shape
from longlag.cli.arguments import plain_errors
from longlag.report.rows import markdown
from longlag.system.console import console

AUTODIFF, PEER = "autodiff", "flax linen"
# What is given to `unroll` under each name.
WAYS: dict[str, dict[str, Any]] = {
    AUTODIFF: {"backward": "autodiff"},
    "auto": {},
    "recompute": {"backward": "recompute"},
    "store": {"backward": "store"},
    "remat sqrt": {"remat": "sqrt"},
}


@dataclasses.dataclass(frozen=True)
class Options:
    """Measures the gradient of one layer.

    Attributes:
        shape: B,T,D,H: batch, steps, input features, hidden features.
        cell: which recurrence.
        rounds: rounds of timing.
        quick: through 2,000 steps, two rounds, unless they are given.
        record: keep the results in benchmarks/results; refused while other processes are busy.
    """

    shape: str = "16,100000,16,64"
    cell: Literal["lstm", "gru", "elman"] = "lstm"
    rounds: int = 3
    quick: bool = False
    record: bool = False


QUICK = Options(shape="16,2000,16,64", rounds=2, quick=True)


def main(argv: Sequence[str]) -> int:
    """Runs the command line; returns the exit code."""
    default = QUICK if "--quick" in argv else Options()
    prog = "python -m benchmarks.memory"
    options = tyro.cli(Options, prog=prog, description=__doc__, args=list(argv), default=default)
    layer = Layer(options.cell, read_shape(options.shape), training=True)
    if options.rounds < 1:
        raise ValueError(f"--rounds: expected at least 1, got {options.rounds}")
    record = Record("memory", options.record)
    with Contestants(dict.fromkeys(WAYS, gradient) | {PEER: linen_gradient}) as contestants:
        rows = record.measure_quietly(measure, contestants, layer, options.rounds)
    console.print(table("memory and time of a gradient", COLUMNS, map(_line, rows)))
    record.finish(rows, section, rounds=options.rounds)
    return 0


def measure(contestants: Contestants, layer: Layer, rounds: int) -> list[dict[str, Any]]:
    """Memory and time of every way and of the peer.

    Returns:
        Rows of `cell, shape, way, temp_bytes`, `units` (arrays `[T, B, H]`), `ms` (the least),
        `to_autodiff` (median of the rounds' ratios of time) and its `spread`.
    """
    batch, steps, _, width = layer.shape
    names = (*WAYS, PEER)
    for name in names:
        contestants.prepare(name, (layer, name))
    with Progress(console=console) as progress:
        bar = progress.add_task(layer.cell, total=rounds)
        minima = contestants.minima(names, rounds, lambda: progress.advance(bar))
    rows = []
    for name, ms in minima.items():
        size = contestants.note(name)["temp_bytes"]
        ratio, least, greatest = median_ratio(ms, minima[AUTODIFF])
        rows.append(
            {
                "cell": layer.cell,
                "shape": list(layer.shape),
                "way": name,
                "temp_bytes": size,
                "units": round(size / (batch * steps * width * 4), 3),
                "ms": round(min(ms), 3),
                "to_autodiff": round(ratio, 3),
                "spread": [round(least, 3), round(greatest, 3)],
            }
        )
    return rows


COLUMNS = ("way", "MB", "arrays [T, B, H]", "ms", "time / autodiff")


def _line(row: dict[str, Any]) -> tuple[str, ...]:
    name = row["way"] if row["way"] == PEER else f"longlag, {row['way']}"
    megabytes, units = f"{row['temp_bytes'] / 1e6:,.1f}", f"{row['units']:.2f}"
    return name, megabytes, units, f"{row['ms']:,.0f}", f"{row['to_autodiff']:.2f}"


def section(results: dict[str, Any]) -> str:
    """The table for benchmarks/README.md from a recorded JSON object."""
    row = results["rows"][0]
    what = f"{row['cell']}, B,T,D,H = {','.join(map(str, row['shape']))}; "
    lines = [_line(row) for row in results["rows"]]
    return "\n".join([markdown(COLUMNS, lines), "", what + source(results)])


def gradient(description: tuple[Layer, str]) -> Callable[[], None]:
    """longlag's, in one of the ways."""
    import jax

    import longlag as ll

    layer, way = description
    cell = longlag_cell(layer.cell, layer.shape[-1])

    def last_state(params: Any, xs: jax.Array) -> jax.Array:
        return ll.unroll(cell, params, xs, time_major=True, **WAYS[way])[0].h

    return jit_run(layer, last_state, cell.init(jax.random.key(0), layer.shape[2]), time_major=True)


def linen_gradient(description: tuple[Layer, str]) -> Callable[[], None]:
    """That of flax linen, time-major too."""
    import jax

    layer, _ = description
    rnn = linen_rnn(layer, time_major=True)
    params = rnn.init(jax.random.key(0), layer.inputs[:, :1].swapaxes(0, 1))
    return jit_run(layer, lambda params, xs: rnn.apply(params, xs)[-1], params, time_major=True)


if __name__ == "__main__":
    with plain_errors():
        sys.exit(main(sys.argv[1:]))
