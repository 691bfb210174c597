"""Times training of several seeds in one program, one after another ("map") and at once ("vmap").

    python -m benchmarks.seeds --quick                  (within a minute)
    python -m benchmarks.seeds                          (1, 4 and 8 seeds: 3 minutes)
    python -m benchmarks.seeds --seeds 16 --cell gru --width 128
    python -m benchmarks.seeds --record                 (keeps the results in benchmarks/results)

What is timed is `longlag.training.dispatch` as an experiment calls it: five optimiser steps of a
model of one block on copy memory, data drawn inside. Numbers are milliseconds per seed; the ratio
is vmap's time to map's, so that below 1 vmap is faster. `Training(seeds_as="auto")` takes one of
the two by platform; the table says which, and which was the faster in every round. Each way has a
process of its own; in every round each runs for a third of a second (twice at least), one after the
other. A ratio is that of the minima of one round, and what counts is the median over the rounds.
The last line printed is one JSON object with everything.
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

from benchmarks.frameworks import Run, longlag_cell
from benchmarks.record import Record, Results, Row, source, table
from benchmarks.rounds import Contestants, median_ratio
from longlag.cli.arguments import plain_errors
from longlag.models import build
from longlag.report.rows import markdown
from longlag.system.console import console
from longlag.tasks.copy_memory import CopyMemory
from longlag.training import Training, compiled_dispatch, dispatch, init_states

WAYS = ("map", "vmap")
Way = Literal["map", "vmap", "auto"]


@dataclasses.dataclass(frozen=True)
class Case:
    """What is trained.

    Attributes:
        cell: "lstm" or "gru".
        width: of the model and the cell.
        lag: of copy memory; a sequence has lag + 20 steps.
        batch: sequences per optimiser step.
        steps: optimiser steps per dispatch.
        seeds: S.
    """

    cell: str
    width: int
    lag: int
    batch: int
    steps: int
    seeds: int


@dataclasses.dataclass(frozen=True)
class Options:
    """Times one dispatch of training.

    Attributes:
        seeds: how many side by side; several numbers may be given.
        cell: which recurrence.
        width: of the model and the cell.
        lag: of copy memory; a sequence has lag + 20 steps.
        batch: sequences per optimiser step.
        steps: optimiser steps per dispatch.
        rounds: rounds of timing; an odd number has a median of its own.
        quick: 4 seeds, two steps and three rounds, unless they are given.
        record: keep the results in benchmarks/results; refused while other processes are busy.
    """

    seeds: tuple[int, ...] = (1, 4, 8)
    cell: Literal["lstm", "gru"] = "lstm"
    width: int = 64
    lag: int = 30
    batch: int = 32
    steps: int = 5
    rounds: int = 7
    quick: bool = False
    record: bool = False


QUICK = Options(seeds=(4,), steps=2, rounds=3, quick=True)


def main(argv: Sequence[str]) -> int:
    """Runs the command line; returns the exit code."""
    default = QUICK if "--quick" in argv else Options()
    prog = "python -m benchmarks.seeds"
    options = tyro.cli(Options, prog=prog, description=__doc__, args=list(argv), default=default)
    if options.rounds < 1:
        raise ValueError(f"--rounds: expected at least 1, got {options.rounds}")
    if any(seeds < 1 for seeds in options.seeds):
        raise ValueError(f"--seeds: expected at least 1, got {options.seeds}")
    cases = [
        Case(options.cell, options.width, options.lag, options.batch, options.steps, seeds)
        for seeds in options.seeds
    ]
    record = Record("seeds", options.record)
    makers = {way: functools.partial(training, way) for way in WAYS}
    rows = []
    with Contestants(makers) as contestants, Progress(console=console) as progress:
        bar = progress.add_task("", total=len(cases) * options.rounds)
        for case in cases:
            progress.update(bar, description=f"{case.cell}, {case.seeds} seeds")
            advance = functools.partial(progress.advance, bar)
            rows.append(record.measure_quietly(measure, contestants, case, options.rounds, advance))
    title = "one dispatch of training, by seed"
    console.print(table(title, COLUMNS, _lines(rows)))
    record.finish(rows, section, rounds=options.rounds)
    return 0


def measure(contestants: Contestants, case: Case, rounds: int, advance: Callable[[], Any]) -> Row:
    """Times both ways of running the seeds of one case.

    Returns:
        A row: the fields of `Case`; `ms_per_seed` (way -> milliseconds of one dispatch by S, the
        least of all rounds), `compile_s` (way -> seconds until the first run is over), `ratio`
        (vmap to map, the median of the rounds' ratios of minima) and `spread` (the least and the
        greatest), `faster` ("map", "vmap", or "neither" if not all rounds agree), `auto` (what
        "auto" takes) and `auto_is_right` (the other one is not faster).
    """
    compile_s = {way: round(contestants.prepare(way, case), 3) for way in WAYS}
    minima = contestants.minima(WAYS, rounds, advance)
    ratio, *spread = median_ratio(minima["vmap"], minima["map"])
    low, high = spread
    faster = "vmap" if high < 1 else "map" if low > 1 else "neither"
    auto = way_of_auto(case)
    return {
        **dataclasses.asdict(case),
        "ms_per_seed": {way: round(min(ms) / case.seeds, 3) for way, ms in minima.items()},
        "compile_s": compile_s,
        "ratio": round(ratio, 3),
        "spread": [round(r, 3) for r in spread],
        "faster": faster,
        "auto": auto,
        "auto_is_right": faster in (auto, "neither"),
    }


def dispatch_arguments(way: Way, case: Case) -> tuple[Any, ...]:
    """The arguments of `dispatch`."""
    task = CopyMemory(lag=case.lag)
    model = build(
        inputs="tokens",
        in_features=task.in_features,
        out_features=task.out_features,
        cell=longlag_cell(case.cell, case.width),
        width=case.width,
        depth=1,
    )
    # More steps than any run takes: a seed that has them all would stand still.
    how = Training(
        steps=10**9, batch_size=case.batch, dispatch=case.steps, eval_size=1, seeds_as=way
    )
    return model, task, how, init_states(model, how, case.seeds), jnp.full(case.seeds, how.steps)


def training(way: Way, case: Case) -> Run:
    """One dispatch after another; states are handed on, as in an experiment."""
    model, task, how, states, until = dispatch_arguments(way, case)

    def run() -> None:
        nonlocal states
        states, loss = dispatch(model, task, how, states, until)
        jax.block_until_ready((states, loss))

    return run


def way_of_auto(case: Case, platform: str | None = None) -> str:
    """The way whose program has the loops of "auto", so that the rule is not written down twice.

    Args:
        case: what is trained.
        platform: "cpu", "cuda", "rocm" or "tpu"; None: the one that jax computes on.
    """
    platforms = None if platform is None else (platform,)

    def loops(way: Way) -> int:
        traced = compiled_dispatch.trace(*dispatch_arguments(way, case))
        return traced.lower(lowering_platforms=platforms).as_text().count("stablehlo.while")

    return "map" if loops("auto") == loops("map") else "vmap"


COLUMNS = (
    "cell",
    "seeds",
    "map, ms a seed",
    "vmap, ms a seed",
    "vmap / map",
    "faster",
    "auto takes",
)


def section(results: Results) -> str:
    """The table of benchmarks/README.md, with its source."""
    return "\n".join([markdown(COLUMNS, _lines(results["rows"])), "", source(results)])


def _lines(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    return [
        (
            row["cell"],
            str(row["seeds"]),
            *(f"{row['ms_per_seed'][way]:.1f}" for way in WAYS),
            f"{row['ratio']:.2f}",
            row["faster"],
            row["auto"],
        )
        for row in rows
    ]


if __name__ == "__main__":
    with plain_errors():
        sys.exit(main(sys.argv[1:]))
