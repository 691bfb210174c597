"""Times how long a train step takes to compile, from nothing.

    python -m benchmarks.compile_time --quick           (within a minute)
    python -m benchmarks.compile_time                   (layers and stacks, seven rounds: 8 minutes)
    python -m benchmarks.compile_time --shape 8,200,32,64 --cells lstm --rounds 5
    python -m benchmarks.compile_time --cells lstm-stack griffin-stack
    python -m benchmarks.compile_time --record          (keeps the results in benchmarks/results)

Compilation is met at every change of a model, so it is a price of its own. A step is the value and
the gradient of the mean square of all outputs in the parameters. Every sample has a fresh process
without a compilation cache, which imports, draws parameters, and only then starts the clock:
"trace" is from Python to StableHLO (`jit(...).lower`), "compile" is XLA's part (`.compile()`). In
every round each framework has one sample, one after the other; what counts is the ratio of the
medians of both together. Below 1 longlag is faster.

flax linen runs its plain cells, `RNN(LSTMCell)` and `RNN(GRUCell)`; "flax linen, fused" is
`RNN(OptimizedLSTMCell)`, which has fewer and larger products, as longlag has.

A stack is longlag's model of twelve blocks beside one of its pattern once, of width H: "lstm-stack"
has blocks of an LSTM and an MLP, "griffin-stack" turns of two recurrent blocks and one of local
attention. Equal blocks are one program in a loop, so the share should be at most 2.
The last line printed is one JSON object with everything.
"""

from __future__ import annotations

import dataclasses
import functools
import multiprocessing
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any, Literal

import numpy as np
import tyro
from rich.progress import Progress

from benchmarks.frameworks import Layer, longlag_cell
from benchmarks.record import Record, Results, Row, source, table
from benchmarks.rounds import median_ratio
from benchmarks.unroll import read_shape
from longlag.cli.arguments import plain_errors
from longlag.report.rows import markdown
from longlag.system.console import console

STACK = 12  # blocks
PATTERN = {"lstm-stack": 1, "griffin-stack": 3}  # blocks of a pattern


@dataclasses.dataclass(frozen=True)
class Options:
    """Times the compilation of the train step of a layer or a stack.

    Attributes:
        shape: B,T,D,H: batch, steps, input features, hidden features. Several may be given.
        cells: which recurrences, and which stacks.
        rounds: fresh processes of each framework for each layer; an odd number has a median of its
            own.
        quick: one cell, three rounds, unless they are given.
        record: keep the results in benchmarks/results; refused while other processes are busy.
    """

    shape: tuple[str, ...] = ("32,512,64,128",)
    cells: tuple[Literal["lstm", "gru", "lstm-stack", "griffin-stack"], ...] = (
        *("lstm", "gru", "lstm-stack", "griffin-stack"),
    )
    rounds: int = 7
    quick: bool = False
    record: bool = False


QUICK = Options(cells=("lstm",), rounds=3, quick=True)


def main(argv: Sequence[str]) -> int:
    """Runs the command line; returns the exit code."""
    default = QUICK if "--quick" in argv else Options()
    prog = "python -m benchmarks.compile_time"
    options = tyro.cli(Options, prog=prog, description=__doc__, args=list(argv), default=default)
    layers = [
        Layer(cell, read_shape(shape), training=True)
        for cell in options.cells
        for shape in options.shape
    ]
    if options.rounds < 1:
        raise ValueError(f"--rounds: expected at least 1, got {options.rounds}")
    record = Record("compile_time", options.record)
    rows = []
    with Progress(console=console) as progress:
        total = sum(len(contestants(layer)) for layer in layers) * options.rounds
        bar = progress.add_task("", total=total)
        for layer in layers:
            progress.update(bar, description=" ".join(_name(layer.cell, layer.shape)))
            rows.append(
                record.measure_quietly(
                    measure, layer, options.rounds, lambda: progress.advance(bar)
                )
            )
    title = "seconds to a compiled train step; share: the first line's by this one's"
    console.print(table(title, COLUMNS, _lines(rows), left=3))
    record.finish(rows, section, rounds=options.rounds)
    return 0


def measure(layer: Layer, rounds: int, advance: Callable[[], Any]) -> Row:
    """Compiles one layer's train step in every framework, or both stacks, in fresh processes.

    Returns:
        A row: `cell, shape`; `trace_s`, `compile_s` and `total_s` (name -> median seconds);
        `ratios` (peer -> median total of longlag, or of the deep stack, to the peer's) and `spread`
        (peer -> least and greatest ratio of one round).
    """
    names = contestants(layer)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for _ in range(rounds):
        for name, pairs in times.items():
            pairs.append(measure_in_fresh_process(name, layer))
            advance()
    totals = {name: [sum(pair) for pair in pairs] for name, pairs in times.items()}
    median = {name: float(np.median(pairs)) for name, pairs in totals.items()}
    ours, *peers = names
    return {
        "cell": layer.cell,
        "shape": list(layer.shape),
        "trace_s": {n: round(float(np.median([t for t, _ in times[n]])), 3) for n in names},
        "compile_s": {n: round(float(np.median([c for _, c in times[n]])), 3) for n in names},
        "total_s": {name: round(value, 3) for name, value in median.items()},
        "ratios": {name: round(median[ours] / median[name], 3) for name in peers},
        "spread": {
            name: [round(r, 3) for r in median_ratio(totals[ours], totals[name])[1:]]
            for name in peers
        },
    }


def measure_in_fresh_process(name: str, layer: Layer) -> tuple[float, float]:
    """`measure_seconds` in a new process, which ends with it. An error is passed on."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(measure_seconds, name, layer).result()


def measure_seconds(name: str, layer: Layer) -> tuple[float, float]:
    """Seconds to trace and to compile a train step, without any cache."""
    import jax

    jax.config.update("jax_enable_compilation_cache", False)
    apply, params = contestants(layer)[name](layer)
    xs = jax.device_put(layer.inputs)

    def loss(params: Any, xs: jax.Array) -> jax.Array:
        return (apply(params, xs) ** 2).mean()

    step = jax.jit(jax.value_and_grad(loss))
    jax.block_until_ready((params, xs))
    began = time.perf_counter()
    lowered = step.lower(params, xs)
    traced = time.perf_counter()
    lowered.compile()
    return traced - began, time.perf_counter() - traced


def contestants(layer: Layer) -> dict[str, Callable[[Layer], tuple[Any, Any]]]:
    """From a name to what returns `apply(params, xs) -> ys` and the parameters; ours first."""
    if layer.cell in PATTERN:
        depths = (STACK, PATTERN[layer.cell])
        return {
            f"longlag, {depth} block{'s' * (depth > 1)}": functools.partial(_stack, depth)
            for depth in depths
        }
    fused = {"flax linen, fused": _linen_fused} if layer.cell == "lstm" else {}
    return {"longlag": _longlag, "flax linen": _linen, **fused}


def _stack(depth: int, layer: Layer) -> tuple[Any, Any]:
    import jax

    from longlag import LSTM
    from longlag.contrib.blocks.griffin_blocks import griffin
    from longlag.models.building import build
    from longlag.models.sequence import SequenceModel

    D, H = layer.shape[2:]
    if layer.cell == "lstm-stack":
        model = build(
            inputs="features",
            in_features=D,
            out_features=H,
            cell=LSTM(H),
            width=H,
            depth=depth,
            mlp=2 * H,
        )
    else:
        layers = griffin(H, depth, heads=1, window=16, blocks=1)
        model = SequenceModel("features", D, H, layers, H)
    params = model.init(jax.random.key(0))
    return lambda params, xs: model.apply(params, xs)[1], params


def _longlag(layer: Layer) -> tuple[Any, Any]:
    import jax

    import longlag as ll

    cell = longlag_cell(layer.cell, layer.shape[-1])
    params = cell.init(jax.random.key(0), layer.shape[2])
    return lambda params, xs: ll.unroll(cell, params, xs)[1], params


def _linen(layer: Layer, fused: bool = False) -> tuple[Any, Any]:
    import flax.linen as nn
    import jax

    lstm = nn.OptimizedLSTMCell if fused else nn.LSTMCell
    kinds: dict[str, Any] = {"lstm": lstm, "gru": nn.GRUCell}
    rnn = nn.RNN(kinds[layer.cell](layer.shape[-1]))
    return rnn.apply, rnn.init(jax.random.key(0), layer.inputs)  # type: ignore[arg-type]


def _linen_fused(layer: Layer) -> tuple[Any, Any]:
    return _linen(layer, fused=True)


COLUMNS = ("cell", "B,T,D,H", "framework", "trace", "compile", "both", "share")


def section(results: Results) -> str:
    """The table of benchmarks/README.md, with its source."""
    return "\n".join([markdown(COLUMNS, _lines(results["rows"])), "", source(results)])


def _lines(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    return [
        (
            *_name(row["cell"], row["shape"]),
            name,
            *(f"{row[what][name]:.2f}" for what in ("trace_s", "compile_s", "total_s")),
            f"{row['ratios'][name]:.2f}" if name in row["ratios"] else "",
        )
        for row in rows
        for name in row["total_s"]
    ]


def _name(cell: str, shape: Sequence[int]) -> tuple[str, str]:
    return cell, ",".join(map(str, shape))


if __name__ == "__main__":
    with plain_errors():
        sys.exit(main(sys.argv[1:]))
