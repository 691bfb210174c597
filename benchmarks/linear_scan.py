"""Times `longlag.linear_scan` beside one pass over memory and beside what JAX has itself.

    python -m benchmarks.linear_scan --quick              (within a minute)
    python -m benchmarks.linear_scan                      (three shapes, forward and train)
    python -m benchmarks.linear_scan --shape 4096,4096 --rounds 5
    python -m benchmarks.linear_scan --record             (keeps the results in benchmarks/results)

The recurrence is real, float32 and without resets. "forward" is all states; "train" is the sum of
all states with fixed weights, and its gradient in `(a, b, h0)`, all written out. The yardstick is
one elementwise pass `a + b`, which reads two arrays `[T, N]` and writes one; a forward must do as
much, and a train step reads and writes eight at least. `lax.scan` and `associative_scan` are
written as anybody would, under autodiff.

Each contestant has a process of its own. In every round each of them runs for a third of a second,
one after the other; a ratio is that of the minima of one round, and what counts is the median over
the rounds. Beside it stands the self-test of the compiler: how much longer one takes whose sequence
is four times as long; and the operations of which longlag's run consists, beside that of `a + b`,
by jax's profiler. The last line printed is one JSON object with everything.
"""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import tyro
from rich.progress import Progress

from benchmarks.record import Record, source, table
from benchmarks.rounds import Contestants, median_ratio
from benchmarks.trace import trace
from longlag import linear_scan
from longlag.cli.arguments import plain_errors
from longlag.core.scans.linear import AUTO, FUSED_FROM, METHODS
from longlag.report.rows import markdown
from longlag.system.console import console

PASS = "a + b"
OURS = METHODS[1:]
PEERS = ("lax.scan", "associative_scan")
SHAPES = ("4096,1024", "4096,4096", "65536,256")
# Lengths of the self-test, and the width of its states: small slices are where a compiler went
# quadratic (jax-ml/jax#40101); wider states of a million steps leave the cache, which shows too.
LENGTHS = (1_000, 4_000, 16_000, 64_000, 256_000, 1_024_000)
WIDTH = 1
# Operations that are kept of a program, and of these a line of the second table has those that
# take at least this part of the run.
LONGEST = 6
PART = 0.02


@dataclasses.dataclass(frozen=True)
class Options:
    """Times the linear recurrence.

    Attributes:
        shape: T,N: steps and width of the state. Several may be given.
        passes: "forward" is the states alone, "train" value and gradient.
        lengths: steps of the self-test, each about four times the one before; none leaves it out.
        rounds: rounds of timing; an odd number has a median of its own.
        quick: the smallest shape, three rounds and four lengths, unless they are given.
        record: keep the results in benchmarks/results; refused while other processes are busy.
    """

    shape: tuple[str, ...] = SHAPES
    passes: tuple[Literal["forward", "train"], ...] = ("forward", "train")
    lengths: tuple[int, ...] = LENGTHS
    rounds: int = 7
    quick: bool = False
    record: bool = False


QUICK = Options(shape=SHAPES[:1], lengths=LENGTHS[:4], rounds=3, quick=True)


@dataclasses.dataclass(frozen=True)
class Problem:
    """What every contestant is given.

    Attributes:
        shape: T, N.
        training: value and gradient, not the states alone.
    """

    shape: tuple[int, int]
    training: bool


def main(argv: Sequence[str]) -> int:
    """Runs the command line; returns the exit code."""
    default = QUICK if "--quick" in argv else Options()
    prog = "python -m benchmarks.linear_scan"
    options = tyro.cli(Options, prog=prog, description=__doc__, args=list(argv), default=default)
    problems = [
        Problem(read_shape(shape), what == "train")
        for shape in options.shape
        for what in options.passes
    ]
    if options.rounds < 1:
        raise ValueError(f"--rounds: expected at least 1, got {options.rounds}")
    if any(length < 1 for length in options.lengths):
        raise ValueError(f"--lengths: expected positive numbers, got {options.lengths}")
    record = Record("linear_scan", options.record)
    makers = {name: functools.partial(contestant, name) for name in (PASS, *OURS, *PEERS)}
    rows = []
    with Contestants(makers) as contestants, Progress(console=console) as progress:
        bar = progress.add_task("", total=(len(problems) + 1) * options.rounds)
        advance = functools.partial(progress.advance, bar)
        for problem in problems:
            progress.update(bar, description=f"{problem.shape} {_pass(problem)}")
            rows.append(
                record.measure_quietly(measure, contestants, problem, options.rounds, advance)
            )
        progress.update(bar, description="lengths")
        lengths = record.measure_quietly(
            measure_lengths, contestants, options.lengths, options.rounds, advance
        )
    title = f"time as a multiple of one pass {PASS}"
    console.print(table(title, _columns(rows), map(_cells, rows), left=2))
    console.print(_lengths_line(lengths), highlight=False)
    record.finish(rows, section, rounds=options.rounds, lengths=lengths)
    return 0


def read_shape(text: str) -> tuple[int, int]:
    """T, N from "T,N"."""
    parts = text.split(",")
    if len(parts) != 2 or not all(part.strip().isdigit() and int(part) > 0 for part in parts):
        raise ValueError(f"--shape: expected two positive numbers T,N; got {text!r}")
    steps, width = map(int, parts)
    return steps, width


def contestant(name: str, problem: Problem) -> Callable[[], None]:
    """What one process times.

    Its `note()` has the mean of traced runs in ms, the part of it in which no timed operation runs,
    and the longest operations.
    """
    a, b, weights, h0 = arrays(problem)
    if name == PASS:
        function, inputs = jnp.add, (a, b)
    elif problem.training:

        def loss(a: jax.Array, b: jax.Array, h0: jax.Array, weights: jax.Array) -> jax.Array:
            return (weights * recurrence(name)(a, b, h0)).sum()

        function = jax.value_and_grad(loss, argnums=(0, 1, 2))
        inputs = (a, b, h0, weights)
    else:
        function, inputs = recurrence(name), (a, b, h0)
    compiled = jax.jit(function).lower(*inputs).compile()

    def run() -> None:
        jax.block_until_ready(compiled(*inputs))

    def note() -> dict[str, Any]:
        traced = trace(run, compiled.as_text() or "")
        longest = [operation.as_row() for operation in traced.operations[:LONGEST]]
        return {"traced_ms": round(traced.ms, 3), "gaps": round(traced.gaps, 3), "longest": longest}

    run.note = note  # type: ignore[attr-defined]
    return run


def arrays(problem: Problem) -> tuple[jax.Array, ...]:
    """`a, b, weights` `[T, N]` and `h0` `[N]`, the same in every process."""
    key = jax.random.key(0)
    of_a, *others = jax.random.split(key, 4)
    a = jax.random.uniform(of_a, problem.shape, minval=0.5, maxval=1.0)
    b, weights = (jax.random.normal(key, problem.shape) for key in others[:2])
    return a, b, weights, jax.random.normal(others[2], problem.shape[1:])


def recurrence(name: str) -> Callable[[jax.Array, jax.Array, jax.Array], jax.Array]:
    """`h[t] = a[t] * h[t-1] + b[t]` from `(a, b, h0)` by a contestant's name."""
    if name in OURS:
        return functools.partial(linear_scan, method=name)  # type: ignore[return-value]
    return {"lax.scan": _lax_scan, "associative_scan": _associative_scan}[name]


def _lax_scan(a: jax.Array, b: jax.Array, h0: jax.Array) -> jax.Array:
    def body(h: jax.Array, inputs: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        a, b = inputs
        h = a * h + b
        return h, h

    return jax.lax.scan(body, h0, (a, b))[1]


def _associative_scan(a: jax.Array, b: jax.Array, h0: jax.Array) -> jax.Array:
    def combine(
        left: tuple[jax.Array, jax.Array], right: tuple[jax.Array, jax.Array]
    ) -> tuple[jax.Array, jax.Array]:
        return right[0] * left[0], right[0] * left[1] + right[1]

    a, b = jax.lax.associative_scan(combine, (a, b))
    return a * h0 + b


def measure(
    contestants: Contestants, problem: Problem, rounds: int, advance: Callable[[], Any]
) -> dict[str, Any]:
    """Times one shape and pass.

    Returns:
        A row: `shape, pass, auto` (the method that "auto" takes), `ms` (name -> the least of all
        rounds), `ratios` (name -> the median of the rounds' ratios to one pass `a + b`), `spread`
        (name -> least and greatest of these), `to_peers` (that of "auto" to the better of
        `lax.scan` and `associative_scan`, round by round), `compile_s` (name -> seconds until the
        first run is over) and `profile` (of one pass and of "auto", see `contestant`).
    """
    names = (PASS, *OURS, *PEERS)
    compile_s = {name: round(contestants.prepare(name, problem), 3) for name in names}
    minima = contestants.minima(names, rounds, advance)
    ratios = {name: median_ratio(minima[name], minima[PASS]) for name in (*OURS, *PEERS)}
    better_peer = [min(pair) for pair in zip(*(minima[name] for name in PEERS))]
    auto = _auto(problem.shape[1])
    return {
        "shape": list(problem.shape),
        "pass": _pass(problem),
        "auto": auto,
        "ms": {name: round(min(ms), 3) for name, ms in minima.items()},
        "ratios": {name: round(ratio[0], 3) for name, ratio in ratios.items()},
        "spread": {name: [round(r, 3) for r in ratio[1:]] for name, ratio in ratios.items()},
        "to_peers": round(median_ratio(minima[auto], better_peer)[0], 3),
        "compile_s": compile_s,
        "profile": {name: contestants.note(name) for name in (PASS, auto)},
    }


def measure_lengths(
    contestants: Contestants, lengths: Sequence[int], rounds: int, advance: Callable[[], Any]
) -> list[dict[str, Any]]:
    """Times the train pass of "auto" at states `WIDTH` wide, at one length after another.

    Returns:
        For each length `steps, ms`, the least of all rounds, and `ratio`, by how much longer that
        is than the length before; None for the first.
    """
    auto = _auto(WIDTH)
    rows: list[dict[str, Any]] = []
    for steps in lengths:
        contestants.prepare(auto, Problem((steps, WIDTH), training=True))
        ms = min(contestants.minima([auto], rounds)[auto])
        ratio = round(ms / rows[-1]["ms"], 3) if rows else None
        rows.append({"steps": steps, "ms": round(ms, 4), "ratio": ratio})
    for _ in range(rounds):
        advance()
    return rows


def section(results: dict[str, Any]) -> str:
    """The table for benchmarks/README.md from a recorded JSON object."""
    rows = results["rows"]
    times = markdown(_columns(rows), [_cells(row) for row in rows])
    operations = markdown(OPERATIONS, [line for row in rows for line in _operations(row)])
    return "\n\n".join([times, _lengths_line(results["lengths"]), operations, source(results)])


def _auto(width: int) -> str:
    """What "auto" is here for states of so many numbers."""
    if jax.default_backend() != "cpu":
        return AUTO[1]
    return "fused" if width >= FUSED_FROM else AUTO[0]


def _columns(rows: Sequence[dict[str, Any]]) -> list[str]:
    """What a table of these rows has: results from before native loops lack "fused"."""
    contestants = [name for name in (*OURS, *PEERS) if name in rows[0]["ratios"]]
    return ["T,N", "pass", f"{PASS}, ms", "auto, ms", *contestants, "auto / better peer"]


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    shape, ms, ratios = ",".join(map(str, row["shape"])), row["ms"], row["ratios"]
    shares = [f"{ratios[name]:.2f}" for name in (*OURS, *PEERS) if name in ratios]
    times = (f"{ms[PASS]:.1f}", f"{ms[row['auto']]:.1f}")
    return (shape, row["pass"], *times, *shares, f"{row['to_peers']:.2f}")


OPERATIONS = ("T,N", "pass", "contestant", "operation", "result", "runs", "ms")


def _operations(row: dict[str, Any]) -> list[tuple[str, ...]]:
    """What a run of one pass `a + b` and of "auto" consists of, and when none of it runs."""
    table = []
    shape = ",".join(map(str, row["shape"]))
    for name, profile in row["profile"].items():
        parts = [
            (one["operation"], one["result"], f"{one['runs']:,.0f}", f"{one['ms']:.1f}")
            for one in profile["longest"]
            if one["ms"] >= PART * profile["traced_ms"]
        ]
        parts.append(("gaps", "", "", f"{profile['gaps']:.1f}"))
        parts.append(("all, traced", "", "", f"{profile['traced_ms']:.1f}"))
        table += [(shape, row["pass"], name, *part) for part in parts]
    return table


def _lengths_line(lengths: Sequence[dict[str, Any]]) -> str:
    """One sentence about the self-test."""
    if not lengths:
        return "No lengths were timed."
    parts = [f"{lengths[0]['steps']:,} steps take {lengths[0]['ms']:.2f} ms"]
    parts += [f"{one['steps']:,} take {one['ratio']:.1f} times as long" for one in lengths[1:]]
    return f"Train, {WIDTH} wide, each length against the one before: " + "; ".join(parts) + "."


def _pass(problem: Problem) -> str:
    return "train" if problem.training else "forward"


if __name__ == "__main__":
    with plain_errors():
        sys.exit(main(sys.argv[1:]))
