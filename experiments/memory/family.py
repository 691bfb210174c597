"""Ask every cell whether it holds, every attention whether it looks up, and who tracks a state.

    python -m experiments.memory.family hold         (the first input through 50 steps: 5 minutes)
    python -m experiments.memory.family recall       (one pair: 2 minutes)
    python -m experiments.memory.family parity     (trained to length 40, tested at 256: 50 minutes)
    python -m experiments.memory.family parity --arms LSTM MinGRU --seeds 2

Every cell of the library, alone in its model, on the simplest task of its axis, five seeds; and
every attention over a cell that remembers nothing. Finished arms are kept, and the same command
goes on where it was stopped. The times are those of two cores.

Leaves runs/family-QUESTION: results.json, and a run folder for each arm.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any, Literal

import tyro

from experiments.harness.questions import Question, ask
from experiments.harness.recorded import Recorded
from longlag import GRU, LSTM, Elman, MinGRU, cells
from longlag.cli.arguments import plain_errors
from longlag.cli.workers import WorkersOption
from longlag.core.cell import Cell
from longlag.runs import Architecture, Experiment, cell_names
from longlag.tasks import FirstInput, Parity, Recall
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
    # A cell without a line above is asked by its defaults.
    built += [kind(WIDTH) for kind in cell_names().values() if kind not in {*map(type, built)}]  # type: ignore[call-arg]
    return {name(cell): cell for cell in built}


def name(cell: Cell) -> str:
    """The cell and what makes it another recurrence: "S6, negative"."""
    words = {
        "recurrent_init": lambda v: "IRNN" if v == "identity" else None,
        "reset": lambda v: f"reset {v}",
        "negative_eigenvalues": lambda v: "negative" if v else None,
    }
    variants = [word(getattr(cell, field)) for field, word in words.items() if hasattr(cell, field)]
    return ", ".join([type(cell).__name__, *filter(None, variants)])


TRAINING = Training(learning_rate=3e-3, batch_size=32, dispatch=50, eval_size=512)
# Without attention nothing there remembers: the control.
ARM_ATTENTIONS: tuple[Any, ...] = ("additive", "multiplicative", "window", "full", "none")


def hold() -> Question:
    """Every cell, alone in its model."""
    task = FirstInput(lag=50)
    alone = Architecture(width=WIDTH, depth=1)
    training = dataclasses.replace(TRAINING, steps=3000)
    return Question(
        "Does every cell remember the first input for 50 steps?",
        {n: Experiment(task, cell, alone, training, 5, (50,)) for n, cell in arms().items()},
        HELD,
    )


def recall() -> Question:
    """Every attention, over a cell that sees its present input alone."""
    task = Recall(length=16, pairs=1, vocab=34)
    cell = cells.FeedForward(WIDTH)
    training = dataclasses.replace(TRAINING, steps=2000)
    return Question(
        "Does every attention recall one pair?",
        {
            attention: Experiment(
                task, cell, Architecture(attention, width=WIDTH), training, 5, (16,)
            )
            for attention in ARM_ATTENTIONS
        },
        HELD,
    )


def parity() -> Question:
    """Every cell, alone in a model of two blocks.

    It is trained to the end also when it solves the trained lengths: what is learned in the first
    50 steps need not hold at six times the length yet.
    """
    task = Parity(1, 40)
    alone = Architecture(width=WIDTH, depth=2)
    training = dataclasses.replace(TRAINING, steps=2000, stop_when_solved=False)
    return Question(
        "Which cells track parity beyond the trained length?",
        {n: Experiment(task, cell, alone, training, 5, (256,)) for n, cell in arms().items()},
        HELD,
    )


QUESTIONS = {"hold": hold, "recall": recall, "parity": parity}


def main(
    question: tyro.conf.Positional[Literal["hold", "recall", "parity"]],
    arms: tuple[str, ...] = (),
    seeds: int | None = None,
    steps: int | None = None,
    out: Path | None = None,
    workers: WorkersOption = 0,
) -> int:
    """Runs one question.

    Args:
        question: which.
        arms: some of the arms; none means all.
        seeds: of every arm, in place of the question's own.
        steps: optimiser steps at most, in place of those of the question.
        out: the folder; runs/family-QUESTION if none is given.
        workers: processes here, 0 for one per core or accelerator; or a scheduler of Dask.
    """
    narrowed = QUESTIONS[question]().restrict(arms, seeds, steps)
    out = Path("runs") / f"family-{question}" if out is None else out
    ask(narrowed, f"python -m experiments.memory.family {question}", out, workers)
    return 0


RECORDED = (
    Recorded("family-hold", "Which cells hold?", 50),
    Recorded("family-recall", "Which attentions look up?", 50),
    Recorded("family-parity", "Which cells track parity?", 50),
)
# A new cell is asked in whole; the first question takes five minutes.
SMOKE = False


if __name__ == "__main__":
    with plain_errors():
        sys.exit(tyro.cli(main, prog="python -m experiments.memory.family", description=__doc__))
