"""Times generation, one token after another: each step's input is the output of the one before.

    python -m benchmarks.decode --quick                 (within a minute)
    python -m benchmarks.decode                         (batches 1 and 32: 3 minutes)
    python -m benchmarks.decode --batch 8 --width 256 --tokens 512
    python -m benchmarks.decode --record                (keeps the results in benchmarks/results)

Two things are timed, each as one call from Python per token, so that the price of the call is
inside:

- a cell: `longlag.unroll` with one step at a time, beside a cell of flax linen (compiled, as ours
  is) and of torch; D = H, and what comes out goes in;
- a model: `SequenceModel.apply` with its state, two blocks, a table of 256 tokens, the likeliest
  token goes in next. With "full" attention the cache has room for all tokens of a run and is read
  whole at every step; "window" reads 16.

The state is donated, so that a compiled step may write where it read. Each framework has a process
of its own; in every round each runs for a third of a second, one after the other. A ratio is that
of the minima of one round, what counts is their median over the rounds; below 1 longlag is faster.
The last line printed is one JSON object with everything.
"""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Callable, Sequence
from typing import Any

import tyro
from rich.progress import Progress

from benchmarks.frameworks import Run, longlag_cell
from benchmarks.record import Record, Results, Row, source, table
from benchmarks.rounds import Contestants, median_ratio
from longlag.cli.arguments import plain_errors
from longlag.report.rows import markdown
from longlag.system.console import console

OURS = "longlag"
PACKAGES = ("torch",)
TOKENS = 256  # classes of a model's tokens
CELLS = ("lstm", "gru")
# Cell and attention of each model.
MODELS = (
    ("lstm", "none"),
    ("gru", "none"),
    ("min_gru", "none"),
    ("lstm", "window"),
    ("lstm", "full"),
)


@dataclasses.dataclass(frozen=True)
class Stepping:
    """What is stepped.

    Attributes:
        cell: "lstm", "gru" or "min_gru".
        attention: of a model, as in `models.build`; None: the cell alone.
        batch: sequences side by side.
        width: H, and D.
        tokens: steps of one run.
    """

    cell: str
    attention: str | None
    batch: int
    width: int
    tokens: int


@dataclasses.dataclass(frozen=True)
class Options:
    """Times cells and models one token at a time.

    Attributes:
        batch: sequences side by side; several may be given.
        width: hidden features.
        tokens: per run.
        rounds: rounds of timing; an odd number has a median of its own.
        quick: one sequence and three rounds, unless they are given.
        record: keep the results in benchmarks/results; refused while other processes are busy.
    """

    batch: tuple[int, ...] = (1, 32)
    width: int = 128
    tokens: int = 256
    rounds: int = 7
    quick: bool = False
    record: bool = False


QUICK = Options(batch=(1,), rounds=3, quick=True)


def main(argv: Sequence[str]) -> int:
    """Runs the command line; returns the exit code."""
    default = QUICK if "--quick" in argv else Options()
    prog = "python -m benchmarks.decode"
    options = tyro.cli(Options, prog=prog, description=__doc__, args=list(argv), default=default)
    for name in ("width", "tokens", "rounds"):
        if getattr(options, name) < 1:
            raise ValueError(f"--{name}: expected at least 1, got {getattr(options, name)}")
    if any(batch < 1 for batch in options.batch):
        raise ValueError(f"--batch: expected at least 1, got {options.batch}")
    record = Record("decode", options.record, PACKAGES)
    todo = [
        Stepping(cell, attention, batch, options.width, options.tokens)
        for cell, attention in (*((cell, None) for cell in CELLS), *MODELS)
        for batch in options.batch
    ]
    rows = []
    with Contestants(FRAMEWORKS) as contestants, Progress(console=console) as progress:
        bar = progress.add_task("", total=len(todo) * options.rounds)
        for stepping in todo:
            progress.update(bar, description=f"{stepping.cell} {stepping.attention or 'cell'}")
            advance = functools.partial(progress.advance, bar)
            rows.append(
                record.measure_quietly(measure, contestants, stepping, options.rounds, advance)
            )
    title = "one token at a time; longlag's time as a share of the others'"
    console.print(table(title, COLUMNS, _lines(rows)))
    record.finish(rows, section, rounds=options.rounds, tokens=options.tokens)
    return 0


def measure(
    contestants: Contestants, stepping: Stepping, rounds: int, advance: Callable[[], Any]
) -> Row:
    """Times one cell or model; peers step cells alone.

    Returns:
        A row: `cell, attention` (None: the cell alone), `batch, width`; `us` (name -> microseconds
        per step, the least of all rounds), `tokens_per_s` (of longlag, all sequences together),
        `ratios` (peer -> median of the rounds' ratios of minima) and `spread` (peer -> least and
        greatest of these).
    """
    names = tuple(FRAMEWORKS) if stepping.attention is None else (OURS,)
    for name in names:
        contestants.prepare(name, stepping)
    minima = contestants.minima(names, rounds, advance)
    us = {name: min(ms) * 1e3 / stepping.tokens for name, ms in minima.items()}
    ratios = {name: median_ratio(minima[OURS], minima[name]) for name in names if name != OURS}
    return {
        "cell": stepping.cell,
        "attention": stepping.attention,
        "batch": stepping.batch,
        "width": stepping.width,
        "us": {name: round(value, 2) for name, value in us.items()},
        "tokens_per_s": round(stepping.batch * 1e6 / us[OURS]),
        "ratios": {name: round(ratio[0], 3) for name, ratio in ratios.items()},
        "spread": {name: [round(r, 3) for r in ratio[1:]] for name, ratio in ratios.items()},
    }


def _longlag(stepping: Stepping) -> Run:
    return _cell(stepping) if stepping.attention is None else _model(stepping)


def _cell(stepping: Stepping) -> Run:
    import jax
    import jax.numpy as jnp

    import longlag as ll

    cell = longlag_cell(stepping.cell, stepping.width)
    params = cell.init(jax.random.key(0), stepping.width)

    def begin(params: Any) -> tuple[Any, jax.Array]:
        carry = cell.initial_carry(params, (stepping.batch,))
        return carry, jnp.ones((stepping.batch, 1, stepping.width))

    return _loop(
        begin, lambda params, carry, x: ll.unroll(cell, params, x, carry), params, stepping
    )


def _model(stepping: Stepping) -> Run:
    import jax
    import jax.numpy as jnp

    from longlag.models.building import build

    model = build(
        inputs="tokens",
        in_features=TOKENS,
        out_features=TOKENS,
        cell=longlag_cell(stepping.cell, stepping.width),
        attention=stepping.attention or "none",
        width=stepping.width,
    )
    params = model.init(jax.random.key(0))

    def begin(params: Any) -> tuple[Any, jax.Array]:
        state = model.init_state(params, stepping.batch, stepping.tokens)
        return state, jnp.zeros((stepping.batch, 1), jnp.int32)

    def step(params: Any, state: Any, tokens: jax.Array) -> tuple[Any, jax.Array]:
        state, answers = model.apply(params, tokens, state)
        return state, answers.argmax(-1).astype(jnp.int32)

    return _loop(begin, step, params, stepping)


def _linen(stepping: Stepping) -> Run:
    import flax.linen as nn
    import jax
    import jax.numpy as jnp

    # Not `OptimizedLSTMCell`: it puts its kernels together in every call, which took up to twice as
    # long here.
    kinds: dict[str, Any] = {"lstm": nn.LSTMCell, "gru": nn.GRUCell}
    cell = kinds[stepping.cell](stepping.width)
    x = jnp.ones((stepping.batch, stepping.width))
    carry = cell.initialize_carry(jax.random.key(0), x.shape)
    params = cell.init(jax.random.key(0), carry, x)

    def begin(params: Any) -> tuple[Any, jax.Array]:
        del params
        return jax.tree.map(jnp.zeros_like, carry), jnp.ones_like(x)

    return _loop(begin, cell.apply, params, stepping)


def _loop(begin: Any, step: Any, params: Any, stepping: Stepping) -> Run:
    """Runs `state, x = step(params, state, x)`, compiled, from `begin(params)`."""
    import jax

    begin, step = jax.jit(begin), jax.jit(step, donate_argnums=1)

    def run() -> None:
        state, x = begin(params)
        for _ in range(stepping.tokens):
            state, x = step(params, state, x)
        jax.block_until_ready((state, x))

    return run


def _torch(stepping: Stepping) -> Run:
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    kinds = {"lstm": torch.nn.LSTMCell, "gru": torch.nn.GRUCell}
    cell = kinds[stepping.cell](stepping.width, stepping.width).to(device)
    ones = torch.ones(stepping.batch, stepping.width, device=device)

    def run() -> None:
        x, state = ones, None
        with torch.inference_mode():
            for _ in range(stepping.tokens):
                state = cell(x, state)
                x = state[0] if stepping.cell == "lstm" else state
        if device == "cuda":
            torch.cuda.synchronize()

    return run


FRAMEWORKS: dict[str, Callable[[Stepping], Run]] = {
    OURS: _longlag,
    "flax linen": _linen,
    "torch": _torch,
}
PEERS = tuple(name for name in FRAMEWORKS if name != OURS)
COLUMNS = ("what", "batch", "µs a step", "tokens a second", *PEERS)


def section(results: Results) -> str:
    """The table of benchmarks/README.md, with its source."""
    return "\n".join([markdown(COLUMNS, _lines(results["rows"])), "", source(results)])


def _lines(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    def label(row: Row) -> str:
        if row["attention"] is None:
            return f"{row['cell']}, cell"
        attention = "" if row["attention"] == "none" else f" + {row['attention']}"
        return f"{row['cell']}{attention}, model"

    return [
        (
            label(row),
            str(row["batch"]),
            f"{row['us'][OURS]:.1f}",
            f"{row['tokens_per_s']:,}",
            *(f"{row['ratios'][n]:.2f}" if n in row["ratios"] else "" for n in PEERS),
        )
        for row in rows
    ]


if __name__ == "__main__":
    with plain_errors():
        sys.exit(main(sys.argv[1:]))
