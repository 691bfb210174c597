"""How many iterations `longlag.newton` takes on trained cells, and its time beside `unroll`.

    python -m benchmarks.newton --quick         (within a minute: two cells, T up to 1,000, forward)
    python -m benchmarks.newton                 (T up to 10,000, with gradients: 10 minutes or more)
    python -m benchmarks.newton --train         (trains the cells anew first: about half a minute)
    python -m benchmarks.newton --record        (keeps the results in benchmarks/results)

The cells have 16 features and were trained on copy memory: episodes of 10 steps (2 symbols out of
4, a gap of 6), four in a row without a reset, so that a cell learns to clear its state by itself. A
sequence of length T is such episodes back to back. Weights and accuracies are in
benchmarks/results/newton-weights.npz. The last line printed is one JSON object with everything.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro

from benchmarks.record import RESULTS, Record, Results, Row, source, table
from longlag.cells import GRU, LSTM, Elman
from longlag.cli.arguments import plain_errors
from longlag.contrib.newton_method import newton
from longlag.contrib.newton_solver import NewtonInfo
from longlag.core.cell import Cell
from longlag.core.unrolling import unroll
from longlag.models import likeliest_class
from longlag.report.rows import markdown
from longlag.system.console import console
from longlag.tasks import CopyMemory

FEATURES, BATCH = 16, 4
CELLS: dict[str, Cell] = {
    "elman": Elman(FEATURES),
    "gru": GRU(FEATURES),
    "lstm": LSTM(FEATURES),
}
TASK = CopyMemory(lag=6, symbols=4, items=2)
WEIGHTS = RESULTS / "newton-weights.npz"
STEPS, EPISODES, TRAIN_BATCH, LEARNING_RATE = 3000, 4, 32, 1e-2
MODES: tuple[Literal["dense", "diagonal"], ...] = ("dense", "diagonal")


@dataclasses.dataclass(frozen=True)
class Options:
    """Runs `newton` beside `unroll`.

    Attributes:
        cells: which.
        lengths: T.
        passes: "forward" is the value alone, "train" value and gradient in the parameters.
        rounds: rounds of timing; an odd number has a median of its own.
        train: train the cells and write their weights first.
        quick: two cells, short sequences, the value alone, one round, unless they are given.
        record: keep the results in benchmarks/results; refused while other processes are busy.
    """

    cells: tuple[Literal["elman", "gru", "lstm"], ...] = ("elman", "gru", "lstm")
    lengths: tuple[int, ...] = (100, 1000, 10_000)
    passes: tuple[Literal["forward", "train"], ...] = ("forward", "train")
    rounds: int = 3
    train: bool = False
    quick: bool = False
    record: bool = False


QUICK = Options(
    cells=("elman", "gru"), lengths=(100, 1000), passes=("forward",), rounds=1, quick=True
)


def main(argv: Sequence[str]) -> int:
    """Runs the command line; returns the exit code."""
    default = QUICK if "--quick" in argv else Options()
    prog = "python -m benchmarks.newton"
    options = tyro.cli(Options, prog=prog, description=__doc__, args=list(argv), default=default)
    if options.rounds < 1 or min(options.lengths, default=1) < 1:
        raise ValueError(
            f"--rounds, --lengths: expected at least 1, got {options.rounds} and {options.lengths}"
        )
    record = Record("newton", options.record)
    if options.train:
        train_all(options.cells)
    rows = []
    for name in options.cells:
        for length in options.lengths:
            for mode in MODES:
                rows.append(
                    record.measure_quietly(
                        measure, name, length, mode, options.passes, options.rounds
                    )
                )
                console.print(", ".join(f"{k} {v}" for k, v in rows[-1].items()), highlight=False)
    title = "newton beside unroll; a ratio above 1: slower"
    console.print(table(title, _columns(rows), map(_line, rows)))
    accuracy = {name: round(float(weights(name)["accuracy"]), 4) for name in options.cells}
    record.finish(rows, section, rounds=options.rounds, accuracy=accuracy)
    return 0


def train_all(names: Sequence[str]) -> None:
    """Trains the named cells and writes their weights beside those of the others."""
    kept = dict(np.load(WEIGHTS)) if WEIGHTS.exists() else {}
    for name in names:
        params, loss, accuracy = train(CELLS[name])
        learned = {"cell": params, "loss": loss, "accuracy": accuracy}
        for path, leaf in jax.tree_util.tree_leaves_with_path(learned):
            kept[".".join([name, *(str(key.key) for key in path)])] = np.asarray(leaf)
        console.print(f"{name}: loss {loss:.4f}, accuracy {accuracy:.3f}", highlight=False)
    WEIGHTS.parent.mkdir(exist_ok=True)
    np.savez_compressed(WEIGHTS, **kept)  # pyright: ignore[reportArgumentType]


def train(cell: Cell, steps: int = STEPS) -> tuple[Any, float, float]:
    """Trains a cell with an affine head on episodes of copy memory, the same at every call.

    Returns:
        The cell's parameters, and loss and accuracy of the recall over the last fiftieth.
    """
    fresh = {
        "cell": cell.init(jax.random.key(0), TASK.in_features),
        "kernel": jnp.zeros((FEATURES, TASK.out_features)),
        "bias": jnp.zeros(TASK.out_features),
    }
    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adam(optax.cosine_decay_schedule(LEARNING_RATE, steps)),
    )

    def loss(params: Any, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        drawn = TASK.sample(key, TRAIN_BATCH * EPISODES)
        inputs, targets, scored = (
            x.reshape(TRAIN_BATCH, -1) for x in (drawn.inputs, drawn.targets, drawn.scored)
        )
        _, ys = unroll(cell, params["cell"], jax.nn.one_hot(inputs, TASK.in_features))
        logits = ys @ params["kernel"] + params["bias"]
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
        right = (likeliest_class(logits) == targets) & scored
        return losses.mean(), right.sum() / scored.sum()

    @jax.jit
    def run(params: Any) -> tuple[Any, tuple[jax.Array, jax.Array]]:
        def body(state: Any, key: jax.Array) -> tuple[Any, tuple[jax.Array, jax.Array]]:
            params, memory = state
            scores, gradient = jax.value_and_grad(loss, has_aux=True)(params, key)
            change, memory = optimizer.update(gradient, memory)
            return (optax.apply_updates(params, change), memory), scores

        keys = jax.random.split(jax.random.key(1), steps)
        last: Any = jax.lax.scan(body, (params, optimizer.init(params)), keys)
        (params, _), scores = last
        return params["cell"], scores

    trained: Any = run(fresh)
    params, (losses, accuracies) = trained
    last = max(steps // 50, 1)
    return params, float(np.mean(losses[-last:])), float(np.mean(accuracies[-last:]))


def weights(name: str) -> dict[str, Any]:
    """What the training of a cell left: `cell`, its parameters; `loss` and `accuracy`.

    Raises:
        ValueError: the file is not there, or the cell is not in it.
    """
    tree: dict[str, Any] = {}
    kept = dict(np.load(WEIGHTS)) if WEIGHTS.exists() else {}
    for path, leaf in kept.items():
        first, *path = path.split(".")
        if first == name:
            inner: Any = tree
            for key in path[:-1]:
                inner = inner.setdefault(key, {})
            inner[path[-1]] = leaf
    if not tree:
        raise ValueError(f"expected weights of {name} in {WEIGHTS}; run with --train first")
    return tree


def sequences(length: int) -> jax.Array:
    """Episodes back to back, cut at `length`: `[T, B, D]`, time first."""
    count = -(-length // TASK.time_steps)
    tokens = TASK.sample(jax.random.key(2), BATCH * count).inputs.reshape(BATCH, -1)
    return jax.nn.one_hot(tokens[:, :length].T, TASK.in_features)


def measure(name: str, length: int, mode: Any, passes: Sequence[str], rounds: int) -> Row:
    """Runs one cell at one length with one kind of Jacobian.

    Returns:
        A row: `cell, steps, jacobian, iterations, converged, fell_back, residual`; `error`, the
        largest difference of the states to those of `unroll`, as a share of the largest state; for
        each pass `newton_ms` and `unroll_ms`, the least of all rounds, and `ratio`, the median of
        the rounds'.
    """
    cell, xs = CELLS[name], sequences(length)
    params = jax.tree.map(jnp.asarray, weights(name)["cell"])

    def run_newton(params: Any, carries: Any = "last") -> Any:
        return newton(
            cell,
            params,
            xs,
            jacobian=mode,
            carries=carries,
            time_major=True,
        )

    def run_unroll(params: Any, carries: Any = "last") -> Any:
        return unroll(cell, params, xs, carries=carries, time_major=True)

    @jax.jit
    def compare(params: Any) -> tuple[NewtonInfo, jax.Array]:
        solved, _, info = run_newton(params, "all")
        expected, _ = run_unroll(params, "all")
        pairs = zip(jax.tree.leaves(solved), jax.tree.leaves(expected))
        errors = [jnp.abs(g - e).max() / jnp.abs(e).max() for g, e in pairs]
        return info, jnp.stack(errors).max()

    info, error = compare(params)
    row: Row = {
        "cell": name,
        "steps": length,
        "jacobian": mode,
        "iterations": int(info.iterations),
        "converged": bool(info.converged),
        "fell_back": bool(info.fell_back),
        "residual": float(f"{float(info.residual):.2g}"),
        "error": float(f"{float(error):.2g}"),
    }
    for what in passes:

        def program(run: Callable[..., Any], what: str = what) -> Callable[[], Any]:
            def value(params: Any) -> jax.Array:
                return jnp.mean(jnp.square(run(params)[1]))

            made = jax.jit(jax.value_and_grad(value) if what == "train" else lambda p: run(p)[:2])
            return lambda: jax.block_until_ready(made(params))

        ours, theirs = compete([program(run_newton), program(run_unroll)], rounds)
        row[what] = {
            "newton_ms": round(min(ours), 3),
            "unroll_ms": round(min(theirs), 3),
            "ratio": round(float(np.median(np.divide(ours, theirs))), 2),
        }
    return row


def compete(programs: Sequence[Callable[[], Any]], rounds: int) -> list[list[float]]:
    """Milliseconds of each program in every round, one after the other; compiled before."""
    for program in programs:
        program()
    times: list[list[float]] = [[] for _ in programs]
    for _ in range(rounds):
        for program, ms in zip(programs, times):
            began = time.perf_counter()
            program()
            ms.append((time.perf_counter() - began) * 1e3)
    return times


COLUMNS = ("cell", "T", "Jacobian", "iterations", "converged", "fell back", "error")


def _columns(rows: Sequence[Row]) -> list[str]:
    passes = [what for what in ("forward", "train") if what in rows[0]]
    return [*COLUMNS, *(f"{what}, {x}" for what in passes for x in ("ms", "unroll ms", "ratio"))]


def _line(row: Row) -> list[str]:
    cells = [row["cell"], f"{row['steps']:,}", row["jacobian"], str(row["iterations"])]
    cells += ["yes" if row[key] else "no" for key in ("converged", "fell_back")]
    cells += [f"{row['error']:.1e}"]
    for what in ("forward", "train"):
        if what in row:
            times = row[what]
            cells += [f"{times['newton_ms']:.1f}", f"{times['unroll_ms']:.1f}"]
            cells += [f"{times['ratio']:.0f}"]
    return cells


def section(results: Results) -> str:
    """The table for benchmarks/README.md from a recorded JSON object."""
    rows = results["rows"]
    learned = ", ".join(f"{name} {share:.1%}" for name, share in results["accuracy"].items())
    lines = [markdown(_columns(rows), [_line(row) for row in rows]), ""]
    return "\n".join(
        [*lines, f"Recalled symbols right in training: {learned}.", "", source(results)]
    )


if __name__ == "__main__":
    with plain_errors():
        sys.exit(main(sys.argv[1:]))
