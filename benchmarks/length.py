"""Times one training step through ever longer sequences, up to a million steps.

    python -m benchmarks.length --quick       (to 16,000 steps, within a minute)
    python -m benchmarks.length               (to 1,024,000 steps: three minutes)

A model of one LSTM learns the copy task, whose lag fills the length; a step is drawing the data,
value, gradient and Adam. Time is cut into chunks of about √T steps, so memory should hardly grow;
time should grow by 4 with a length that grows by 4. Where it grows by 6 or more, this version of
jaxlib is not fit for scans (jax-ml/jax#40101), and the exit code is 1. Each length has a process of
its own. The last line printed is one JSON object with everything.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tyro
from rich.progress import Progress

from benchmarks.record import Record, source, table
from longlag.cli.arguments import plain_errors
from longlag.report.rows import markdown
from longlag.system.console import console

# Time of a length that is four times as long: 4, and not as much more as a quadratic part makes.
AT_MOST = 6.0
# Short steps are repeated until so much time has passed.
SECONDS = 1.0


@dataclasses.dataclass(frozen=True)
class Options:
    """Times one training step at several lengths.

    Attributes:
        lengths: T, in steps.
        batch: sequences.
        width: H of the LSTM.
        quick: only the first three lengths.
        record: keep the results in benchmarks/results; refused while other processes are busy.
    """

    lengths: tuple[int, ...] = (1_000, 4_000, 16_000, 64_000, 256_000, 1_024_000)
    batch: int = 1
    width: int = 128
    quick: bool = False
    record: bool = False


def main(argv: Sequence[str]) -> int:
    """Runs the command line; returns the exit code."""
    default = Options(lengths=Options.lengths[:3], quick=True) if "--quick" in argv else Options()
    prog = "python -m benchmarks.length"
    options = tyro.cli(Options, prog=prog, description=__doc__, args=list(argv), default=default)
    for name, value, least in (
        ("--lengths", min(options.lengths, default=0), 21),
        ("--batch", options.batch, 1),
        ("--width", options.width, 1),
    ):
        if value < least:
            raise ValueError(f"{name}: expected at least {least}, got {value}")
    record, rows = Record("length", options.record), []
    with Progress(console=console) as progress:
        for length in progress.track(options.lengths, description="lengths"):
            rows.append(record.measure_quietly(measure, length, options.batch, options.width))
    for before, row in itertools.pairwise(rows):
        growth = row["length"] / before["length"]
        # As if the length had grown by 4: time / length grows by a fourth of this.
        row["ratio_4"] = round(4 * row["seconds"] / before["seconds"] / growth, 3)
    console.print(table("one training step", COLUMNS, map(_line, rows), left=0))
    results = record.finish(rows, section)
    return check(results)


def check(results: dict[str, Any]) -> int:
    """Names the version of jaxlib where time grows faster than the length; returns 1 then."""
    slow = [row for row in results["rows"] if row.get("ratio_4", 0.0) >= AT_MOST]
    for row in slow:
        print(  # not on stdout, whose last line is the JSON object
            f"T = {row['length']:,}: four times the length takes {row['ratio_4']:.1f} times as "
            f"long; jaxlib {results['versions']['jaxlib']} rewrites whole buffers in loops "
            "(jax-ml/jax#40101)",
            file=sys.stderr,
        )
    return 1 if slow else 0


def one_step(length: int, batch: int, width: int) -> dict[str, Any]:
    """Times one training step in this process.

    Returns:
        `length, batch, width, parameters`, `seconds` (the least), `us_per_step`, `compile_s`, and
        `peak_mb`, the greatest memory of the process, in 10^6 bytes.
    """
    import jax
    import jax.numpy as jnp

    from longlag import LSTM
    from longlag.models.sequence import SequenceModel
    from longlag.nn.recurrent import Recurrent
    from longlag.tasks import CopyMemory
    from longlag.training.config import Training
    from longlag.training.step import compiled_dispatch, init_states

    items = 10
    task = CopyMemory(lag=length - 2 * items, items=items)
    model = SequenceModel(
        "tokens", task.in_features, width, (Recurrent(LSTM(width)),), task.out_features
    )
    training = Training(steps=1, dispatch=1, batch_size=batch, time_chunk="sqrt")
    began = time.perf_counter()
    states = init_states(model, training, 1)
    arguments = (model, task, training, states, jnp.ones(1, bool))
    program = compiled_dispatch.lower(*arguments).compile()
    compiled = time.perf_counter()
    seconds: list[float] = []
    while not seconds or sum(seconds) < SECONDS:
        states = init_states(model, training, 1)  # those of the last step were donated
        jax.block_until_ready(states)
        start = time.perf_counter()
        _, loss = jax.block_until_ready(program(states, jnp.ones(1, bool)))
        seconds.append(time.perf_counter() - start)
        assert bool(jnp.isfinite(loss).all())
    unit = 1 if sys.platform == "darwin" else 1024
    return {
        "length": length,
        "batch": batch,
        "width": width,
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(states.params)),
        "seconds": round(min(seconds), 5),
        "us_per_step": round(min(seconds) / length * 1e6, 3),
        "compile_s": round(compiled - began, 2),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6, 1),
    }


def measure(length: int, batch: int, width: int) -> dict[str, Any]:
    """The row of one length, from a process of its own, whose peak of memory is its alone."""
    code = "import json; from benchmarks.length import one_step; "
    code += f"print(json.dumps(one_step({length}, {batch}, {width})))"
    root = Path(__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"length {length}:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


COLUMNS = ("T", "seconds", "µs per step", "4 T / T", "peak memory, MB", "compile, s")


def _line(row: dict[str, Any]) -> tuple[str, ...]:
    ratio = f"{row['ratio_4']:.2f}" if "ratio_4" in row else ""
    return (
        f"{row['length']:,}",
        f"{row['seconds']:.3f}",
        f"{row['us_per_step']:.1f}",
        ratio,
        f"{row['peak_mb']:,.0f}",
        f"{row['compile_s']:.1f}",
    )


def section(results: dict[str, Any]) -> str:
    """The table for benchmarks/README.md from a recorded JSON object."""
    row = results["rows"][0]
    what = f"LSTM, batch {row['batch']}, H = {row['width']}, {row['parameters']:,} parameters; "
    lines = [_line(row) for row in results["rows"]]
    return "\n".join([markdown(COLUMNS, lines), "", what + source(results)])


if __name__ == "__main__":
    with plain_errors():
        sys.exit(main(sys.argv[1:]))
