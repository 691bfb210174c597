"""Selective copy by the recurrences that "Were RNNs All We Needed?" left out: GRU and LSTM.

    python -m experiments.memory.selective_copy                       (1.5 core-hours)
    python -m experiments.memory.selective_copy --arms "4 items, 1 block, GRU"
    python -m experiments.memory.selective_copy --preset smoke

Feng et al. 2024 (arXiv 2410.01201) put minGRU and minLSTM beside S4, Hyena and S6 on this task, and
stack three of them. Here the gated networks that they simplify stand beside them: over the number
of items, the number of blocks, and a learning rate that is best for each, with mixers of equal
parameters. Seeds train to the end of the budget.

Finished arms are kept, and the same command goes on where it was stopped.

Leaves runs/selective-copy: results.json, and a run folder for each arm.
"""

from __future__ import annotations

from typing import Any

from experiments.harness.questions import Question, Size, script
from experiments.harness.rates import GRID
from experiments.harness.recorded import Plot, Recorded
from longlag import GRU, LSTM, MinGRU
from longlag.cells import MinLSTM
from longlag.core.cell import Cell
from longlag.runs import Architecture, Experiment
from longlag.tasks import SelectiveCopy
from longlag.training import Training

DID = 0.95
# Items, blocks: by size.
ITEMS: dict[Size, tuple[int, ...]] = {"cpu": (4, 8), "gpu": (16,)}
DEPTHS = (1, 2, 3)


def question(size: Size) -> Question:
    """Four cells, over items and blocks."""
    small = size == "cpu"
    width, length, vocab = (32, 32, 8) if small else (64, 4096, 16)
    cells: dict[str, Cell] = {
        "GRU": GRU(width),
        "LSTM": LSTM(width),
        "minGRU": MinGRU(width),
        "minLSTM": MinLSTM(width),
    }
    training = Training(
        steps=2000 if small else 400_000,
        batch_size=32 if small else 64,
        dispatch=100 if small else 1000,
        solved=DID,
        stop_when_solved=False,
    )
    arms = {}
    for items in ITEMS[size]:
        for depth in DEPTHS:
            layers = Architecture(
                width=width, depth=depth, mlp=2 * width, mixer_parameters=8 * width * width
            )
            for name, cell in cells.items():
                blocks = "1 block" if depth == 1 else f"{depth} blocks"
                task = SelectiveCopy(length=length, items=items, vocab=vocab)
                arms[f"{items} items, {blocks}, {name}"] = Experiment(
                    task, cell, layers, training, seeds=5, test_lags=(length,)
                )
    title = "Does a gate need to see the state to keep symbols in their order?"
    return Question(title, arms, DID, GRID)


QUESTIONS = {"": question}


def figure(results: dict[str, Any]) -> Plot:
    """Accuracy of the four cells, a panel for each number of items and blocks."""
    rows = []
    for row in results["rows"]:
        size, _, cell = row["arm"].rpartition(", ")
        rows.append(row | {"task": size, "arm": cell})
    return Plot("accuracy", {"rows": rows})


RECORDED = (Recorded("selective-copy", "Does a gate need to see the state?", 80, figure=figure),)


if __name__ == "__main__":
    script("selective-copy", __doc__, QUESTIONS)
