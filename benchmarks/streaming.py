"""Does a token cost the same however many came before? Generation through 100,000 tokens.

    python -m benchmarks.streaming --quick               (within a minute)
    python -m benchmarks.streaming                       (two minutes)
    python -m benchmarks.streaming --record              (keeps the results in benchmarks/results)

Every hybrid preset whose attention has a window, and the recurrence alone, token by token: the
state after 1,000 tokens and that after 100,000 are each gone on from, in turn, for 200 tokens a
round, one call from Python per token. The ratio is that of the minima of a round, what counts is
the median over the rounds; 1 is flat. The last line printed is one JSON object with everything.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Sequence
from typing import Any

import tyro
from rich.progress import Progress

from benchmarks.frameworks import longlag_cell
from benchmarks.record import Record, Results, Row, source, table
from benchmarks.rounds import median_ratio
from longlag.cli.arguments import plain_errors
from longlag.report.rows import markdown
from longlag.system.console import console

# Cell (or none), attention, pattern.
PRESETS = (
    ("lstm", "none", "middle"),
    ("lstm", "window", "middle"),
    ("gru", "window", "middle"),
    ("min_gru", "window", "middle"),
    ("lstm", "window", "interleaved"),
    ("min_gru", "window", "interleaved"),
    ("none", "window", "middle"),
)
TOKENS = 64  # classes
STRETCH = 200


@dataclasses.dataclass(frozen=True)
class Options:
    """Times single tokens early and late in one stream.

    Attributes:
        early: tokens before the first measurement.
        late: tokens before the second.
        depth: blocks.
        width: of all blocks.
        rounds: of 200 tokens early and 200 late.
        quick: late after 3,000 tokens, three rounds, unless they are given.
        record: keep the results in benchmarks/results; refused while other processes are busy.
    """

    early: int = 1000
    late: int = 100_000
    depth: int = 4
    width: int = 64
    rounds: int = 9
    quick: bool = False
    record: bool = False


QUICK = Options(late=3000, rounds=3, quick=True)


def main(argv: Sequence[str]) -> int:
    """Runs the command line; returns the exit code."""
    default = QUICK if "--quick" in argv else Options()
    prog = "python -m benchmarks.streaming"
    options = tyro.cli(Options, prog=prog, description=__doc__, args=list(argv), default=default)
    if not 0 < options.early <= options.late or options.rounds < 1:
        raise ValueError(
            f"expected 0 < --early <= --late and --rounds >= 1; got {options.early}, "
            f"{options.late} and {options.rounds}"
        )
    record = Record("streaming", options.record)
    rows = []
    with Progress(console=console) as progress:
        bar = progress.add_task("", total=len(PRESETS))
        for preset in PRESETS:
            progress.update(bar, description=name(*preset))
            rows.append(record.measure_quietly(measure, preset, options))
            progress.advance(bar)
    console.print(table("microseconds per token", COLUMNS, map(_line, rows)))
    record.finish(rows, section, rounds=options.rounds, depth=options.depth, width=options.width)
    return 0


def measure(preset: tuple[str, str, str], options: Options) -> Row:
    """One preset.

    Returns:
        A row: `preset`, `early` and `late` (tokens before), `us_early` and `us_late` (the least),
        `ratio` (median over rounds of late to early) and its `spread`, `state_bytes`.
    """
    import jax
    import jax.numpy as jnp

    from longlag.models.building import build

    cell, attention, pattern = preset
    model = build(
        inputs="tokens",
        in_features=TOKENS,
        out_features=TOKENS,
        cell=None if cell == "none" else longlag_cell(cell, options.width),
        attention=attention,
        pattern=pattern,  # type: ignore[arg-type]
        depth=options.depth,
        width=options.width,
    )
    params = model.init(jax.random.key(0))

    @jax.jit
    def step(params: Any, state: Any, tokens: jax.Array) -> tuple[Any, jax.Array]:
        state, answers = model.apply(params, tokens, state)
        return state, answers.argmax(-1).astype(jnp.int32)

    def stream(state: Any, tokens: jax.Array, count: int) -> tuple[Any, jax.Array, float]:
        best = float("inf")
        for begin in range(0, count, STRETCH // 4):
            stretch = min(STRETCH // 4, count - begin)
            began = time.perf_counter()
            for _ in range(stretch):
                state, tokens = step(params, state, tokens)
            jax.block_until_ready(tokens)
            best = min(best, (time.perf_counter() - began) / stretch)
        return state, tokens, best

    state, tokens = model.init_state(params, 1, 1), jnp.zeros((1, 1), jnp.int32)
    early = stream(state, tokens, options.early)[:2]
    late = stream(*early, options.late - options.early)[:2]
    times: dict[str, list[float]] = {"early": [], "late": []}
    for _ in range(options.rounds):
        for when, begin in (("early", early), ("late", late)):
            times[when].append(stream(*begin, STRETCH)[2])
    ratio, *spread = median_ratio(times["late"], times["early"])
    return {
        "preset": name(*preset),
        "early": options.early,
        "late": options.late,
        "us_early": round(min(times["early"]) * 1e6, 1),
        "us_late": round(min(times["late"]) * 1e6, 1),
        "ratio": round(ratio, 3),
        "spread": [round(x, 3) for x in spread],
        "state_bytes": sum(leaf.nbytes for leaf in jax.tree.leaves(state)),
    }


def name(cell: str, attention: str, pattern: str) -> str:
    """A preset in words: "lstm + window, interleaved"."""
    parts = [word for word in (cell, attention) if word != "none"]
    return " + ".join(parts) + (", interleaved" if pattern == "interleaved" else "")


COLUMNS = ("preset", "state", "early, µs", "late, µs", "late / early", "least", "greatest")


def _line(row: Row) -> tuple[str, ...]:
    return (
        row["preset"],
        f"{row['state_bytes']:,} B",
        f"{row['us_early']:.1f}",
        f"{row['us_late']:.1f}",
        f"{row['ratio']:.2f}",
        *(f"{x:.2f}" for x in row["spread"]),
    )


def section(results: Results) -> str:
    """The table of benchmarks/README.md, with its source."""
    rows = results["rows"]
    words = (
        f"After {rows[0]['early']:,} and after {rows[0]['late']:,} tokens, batch 1, "
        f"{results['depth']} blocks of width {results['width']}, a window of 16."
    )
    return "\n".join([markdown(COLUMNS, [*map(_line, rows)]), "", words, "", source(results)])


if __name__ == "__main__":
    with plain_errors():
        sys.exit(main(sys.argv[1:]))
