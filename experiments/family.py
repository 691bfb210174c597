"""Ask every cell whether it holds, every attention whether it looks up, and who tracks a state.

    python -m experiments.family hold         (the first input through 50 steps: 5 minutes)
    python -m experiments.family recall       (one pair: 2 minutes)
    python -m experiments.family parity       (trained to length 40, tested at 256: 50 minutes)
    python -m experiments.family parity --arms LSTM MinGRU --seeds 2

Every cell of the library, alone in its model, on the simplest task of its axis, five seeds; and
every attention over a cell that remembers nothing. Finished arms are kept, and the same command
goes on where it was stopped. The times are those of two cores.

Leaves runs/family-QUESTION: results.json, and a run folder for each arm.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import tyro
from rich.table import Table

from longlag import GRU, LSTM, Elman, MinGRU, cells
from longlag.catalogue import kind
from longlag.cell import Cell
from longlag.command_line import console, plain_errors
from longlag.disk import replace_file, writing
from longlag.environment import environment
from longlag.experiment import Architecture, Experiment
from longlag.spec import choose
from longlag.sweep import sweep
from longlag.tasks import FirstInput, Parity, Recall, Task
from longlag.training import Training

WIDTH = 32
HELD = 0.95  # accuracy from which a seed counts as one that holds


def arms() -> dict[str, Cell]:
    """Every cell, and its variants that are other recurrences."""
    built: list[Cell] = [
        Elman(WIDTH),
        Elman(WIDTH, activation="relu", recurrent_init="identity"),
        cells.IndRNN(WIDTH, longest_lag=50),
        LSTM(WIDTH),
        cells.PeepholeLSTM(WIDTH),
        cells.LayerNormLSTM(WIDTH),
        cells.ProjectedLSTM(WIDTH),
        GRU(WIDTH),
        GRU(WIDTH, reset="before"),
        cells.MGU(WIDTH),
        cells.CoRNN(WIDTH),
        cells.LEM(WIDTH),
        cells.SLSTM(WIDTH),
        cells.StackRNN(WIDTH),
        MinGRU(WIDTH),
        MinGRU(WIDTH, negative_eigenvalues=True),
        cells.MinLSTM(WIDTH),
        cells.MinLSTM(WIDTH, negative_eigenvalues=True),
        cells.RGLRU(WIDTH),
        cells.RGLRU(WIDTH, negative_eigenvalues=True),
        cells.S6(WIDTH),
        cells.S6(WIDTH, negative_eigenvalues=True),
        cells.GSA(WIDTH),
        cells.S5(WIDTH),
        cells.LRU(WIDTH),
        cells.LinearAttention(WIDTH),
        cells.Retention(WIDTH),
        cells.GLA(WIDTH),
        cells.MLSTM(WIDTH),
        cells.DeltaNet(WIDTH),
        cells.DeltaNet(WIDTH, negative_eigenvalues=True),
        cells.GatedDeltaNet(WIDTH),
        cells.GatedDeltaNet(WIDTH, negative_eigenvalues=True),
        cells.FeedForward(WIDTH),
    ]
    return {name(cell): cell for cell in built}


def name(cell: Cell) -> str:
    """The cell and what makes it another recurrence: "S6, negative"."""
    words = {
        "recurrent_init": lambda v: "IRNN" if v == "identity" else None,
        "reset": lambda v: f"reset {v}",
        "negative_eigenvalues": lambda v: "negative" if v else None,
    }
    said = [word(getattr(cell, field)) for field, word in words.items() if hasattr(cell, field)]
    return ", ".join([type(cell).__name__, *filter(None, said)])


@dataclasses.dataclass(frozen=True)
class Question:
    """What is asked of every arm.

    Attributes:
        title: the question.
        task: trained on.
        test_lag: tested at too, or None.
        depth: blocks.
        steps: at most.
        learning_rate: of Adam.
        to_the_end: train on when the task is solved. What is learned in the first 50 steps need not
            hold at six times the length yet.
    """

    title: str
    task: Task
    test_lag: int | None
    depth: int
    steps: int
    learning_rate: float = 3e-3
    to_the_end: bool = False


QUESTIONS = {
    "hold": Question(
        "Does every cell remember the first input for 50 steps?", FirstInput(lag=50), None, 1, 3000
    ),
    "recall": Question(
        "Does every attention recall one pair?", Recall(length=16, pairs=1, vocab=34), None, 2, 2000
    ),
    "parity": Question(
        "Which cells track parity beyond the trained length?",
        Parity(1, 40),
        256,
        2,
        2000,
        to_the_end=True,
    ),
}
# Without attention nothing here remembers: the control.
ATTENTIONS = ("additive", "multiplicative", "window", "full", "none")


def experiments(question: str, seeds: int) -> dict[str, Experiment]:
    """The arms of a question by their name."""
    asked = QUESTIONS[question]
    lags = {"test_lags": (asked.test_lag,)} if asked.test_lag else {"test_lags": (asked.task.lag,)}
    training = Training(
        steps=asked.steps,
        learning_rate=asked.learning_rate,
        batch_size=32,
        dispatch=50,
        eval_size=512,
        stop_when_solved=not asked.to_the_end,
    )

    def arm(cell: Cell, attention: Any) -> Experiment:
        architecture = Architecture(attention=attention, width=WIDTH, depth=asked.depth)
        return Experiment(asked.task, cell, architecture, training, seeds, **lags)

    if question == "recall":
        return {attention: arm(cells.FeedForward(WIDTH), attention) for attention in ATTENTIONS}
    return {name: arm(cell, "none") for name, cell in arms().items()}


def main(
    question: tyro.conf.Positional[Literal["hold", "recall", "parity"]],
    arms: tuple[str, ...] = (),
    seeds: int = 5,
    steps: int | None = None,
    out: Path | None = None,
    workers: int = 0,
) -> int:
    """Runs one question.

    Args:
        question: which.
        arms: some of the arms; none means all.
        seeds: seeds 0 .. seeds - 1 of every arm.
        steps: optimiser steps at most, in place of those of the question.
        out: the folder; runs/family-QUESTION if none is given.
        workers: processes, each pinned to one core; 0 means one per core.
    """
    began = time.perf_counter()
    jobs = experiments(question, seeds)
    for arm in arms:
        choose(arm, jobs, "arm")
    jobs = {arm: job for arm, job in jobs.items() if not arms or arm in arms}
    if steps is not None:
        jobs = {
            arm: dataclasses.replace(job, training=dataclasses.replace(job.training, steps=steps))
            for arm, job in jobs.items()
        }
    out = Path("runs") / f"family-{question}" if out is None else out
    found = sweep({folder(arm): job for arm, job in jobs.items()}, out, workers)
    rows = []
    for arm, job in jobs.items():
        for row in found[folder(arm)]["rows"]:
            kept = {k: v for k, v in row.items() if k != "by_position"}
            rows.append(kept | {"arm": arm, "kind": _kind(question, job)})
    env = environment()
    task = QUESTIONS[question].task
    results = {
        "rows": rows,
        "floor": task.floor().accuracy,
        "threshold": HELD,
        "meta": {
            "command": f"python -m experiments.family {question}",
            "commit": env["commit"],
            "device": f"{env['cpu']}, {env['cpu_count']} cores",
            "versions": {k: env["versions"][k] for k in ("jax", "jaxlib", "longlag")},
            "wall_seconds": round(time.perf_counter() - began, 1),
            "core_hours": round(sum(row["seconds"] for row in _trained(rows)) / 3600, 3),
        },
    }
    with writing("the results", out):
        replace_file(out / "results.json", json.dumps(results, indent=1) + "\n")
    table = Table(*COLUMNS, title=QUESTIONS[question].title, title_justify="left")
    for line in lines(results):
        table.add_row(*line)
    console.print(table)
    console.print(f"results {out / 'results.json'}", highlight=False, soft_wrap=True)
    return 0


def folder(arm: str) -> str:
    """The name of an arm's run folder."""
    return arm.replace(", ", "-").replace(" ", "-").lower()


COLUMNS = ("arm", "kind", "trained at", "tested at", "held", "steps", "params", "state", "time")


def lines(results: dict[str, Any]) -> list[tuple[str, ...]]:
    """A line of `COLUMNS` for every arm: medians over the seeds, their range in brackets."""
    found: list[tuple[str, ...]] = []
    by_arm: dict[str, list[dict[str, Any]]] = {}
    for row in results["rows"]:
        by_arm.setdefault(row["arm"], []).append(row)
    for arm, rows in by_arm.items():
        near = _trained(rows)
        far = [row for row in rows if row["lag"] != row["train_lag"]]
        held = sum((row["accuracy"] or 0) >= results["threshold"] for row in far or near)
        solved = [row["solved_at"] for row in near if row["solved_at"] is not None]
        found.append(
            (
                arm,
                rows[0]["kind"],
                f"{near[0]['train_lag']}: {_spread(near)}",
                f"{far[0]['lag']}: {_spread(far)}" if far else "",
                f"{held}/{len(near)}",
                f"{statistics.median(solved):,.0f}"
                if solved
                else f"not within {near[0]['budget']:,}",
                f"{near[0]['parameters']:,}",
                f"{near[0]['state_bytes']:,} B",
                f"{sum(row['seconds'] for row in near):.0f} s",
            )
        )
    return found


def verdict(results: dict[str, Any]) -> str:
    """What stands under the table."""
    counts = [line[4].split("/") for line in lines(results)]
    every = sum(held == of for held, of in counts)
    some = sum(held != "0" for held, _ in counts)
    return (
        f'"held": seeds with at least {results["threshold"]:.2f} at the length tested. In every '
        f"seed: {every} of {len(counts)} arms; in at least one: {some}. Floor "
        f"{results['floor']:.2f}; {results['meta']['core_hours']:.2f} core-hours."
    )


def _kind(question: str, job: Experiment) -> str:
    return "attention" if question == "recall" or job.cell is None else kind(type(job.cell))


def _trained(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row for row in rows if row["lag"] == row["train_lag"]]


def _spread(rows: Sequence[dict[str, Any]]) -> str:
    values = [row["accuracy"] for row in rows if row["accuracy"] is not None]
    if not values:
        return "diverged"
    low, mid, high = min(values), statistics.median(values), max(values)
    return f"{mid:.2f}" if f"{low:.2f}" == f"{high:.2f}" else f"{mid:.2f} ({low:.2f}–{high:.2f})"


if __name__ == "__main__":
    with plain_errors():
        sys.exit(tyro.cli(main, prog="python -m experiments.family", description=__doc__))
