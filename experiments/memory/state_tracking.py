"""Who tracks a state: parity, counting round a cycle, words over S3 and A5.

    python -m experiments.memory.state_tracking                        (all four: 3 core-hours)
    python -m experiments.memory.state_tracking s3 --arms "LSTM" "DeltaNet negative"
    python -m experiments.memory.state_tracking --preset smoke

Parity and the cycle are abelian; S3 is not, and is solvable; A5 is not even that, and no stack of
fixed depth of diagonal scans or attentions tracks it at every length unless TC0 = NC1 (Merrill,
Petty and Sabharwal 2024, arXiv 2404.08819). A scan whose decay is never negative cannot do parity
at unbounded length (Grazzi et al. 2025, arXiv 2411.12537). The state is asked for after every
token, that of the cycle after the last alone. Two blocks, every arm at the learning rate that is
best for it, tested at two and four times the length trained at; seeds train to the end.

Finished arms are kept, and the same command goes on where it was stopped.

Leaves runs/state-tracking-TASK: results.json, and a run folder for each arm.
"""

from __future__ import annotations

import functools
from typing import Any

from experiments.harness.questions import Question, Size, script
from experiments.harness.rates import GRID
from experiments.harness.recorded import Recorded
from longlag import GRU, LSTM, MinGRU
from longlag.cells import S6, SLSTM, DeltaNet, GatedDeltaNet
from longlag.core.cell import Cell
from longlag.runs import Architecture, Experiment
from longlag.tasks import CycleNavigation, GroupWord, ParityDense, Task
from longlag.training import Training

DID = 0.95
TASKS: dict[str, tuple[str, Task]] = {
    "parity": ("Who tracks parity?", ParityDense(1, 40)),
    "cycle": ("Who counts round a cycle of five?", CycleNavigation(1, 40)),
    "s3": ("Who multiplies permutations of three?", GroupWord(1, 16, group="s3")),
    "a5": ("Who multiplies even permutations of five?", GroupWord(1, 16, group="a5")),
}


def question(name: str, size: Size) -> Question:
    """Ten arms on one task."""
    title, task = TASKS[name]
    small = size == "cpu"
    width = 32 if small else 128
    training = Training(
        steps=3000 if small else 50_000,
        batch_size=32 if small else 128,
        dispatch=100,
        solved=DID,
        stop_when_solved=False,
    )
    cells: dict[str, Cell] = {
        "LSTM": LSTM(width),
        "GRU": GRU(width),
        "sLSTM": SLSTM(width),
        "minGRU": MinGRU(width),
        "minGRU negative": MinGRU(width, negative_eigenvalues=True),
        "S6 negative": S6(width, negative_eigenvalues=True),
        "DeltaNet": DeltaNet(width),
        "DeltaNet negative": DeltaNet(width, negative_eigenvalues=True),
        "gated DeltaNet negative": GatedDeltaNet(width, negative_eigenvalues=True),
    }
    layers: dict[str, Any] = {"width": width, "depth": 2, "mlp": 2 * width}
    lags = (2 * task.lag, 4 * task.lag)
    alone, attention = Architecture(**layers), Architecture("full", **layers)
    arms = {
        arm: Experiment(task, cell, alone, training, seeds=5, test_lags=lags)
        for arm, cell in cells.items()
    }
    arms["attention only"] = Experiment(task, None, attention, training, seeds=5, test_lags=lags)
    return Question(title, arms, DID, GRID)


QUESTIONS = {name: functools.partial(question, name) for name in TASKS}
# On the page of all questions.
TITLES = {
    "parity": "Who tracks parity?",
    "cycle": "Who counts round a cycle?",
    "s3": "Who multiplies permutations of three?",
    "a5": "Who multiplies even permutations of five?",
}
RECORDED = tuple(Recorded(f"state-tracking-{name}", title, 120) for name, title in TITLES.items())


if __name__ == "__main__":
    script("state-tracking", __doc__, QUESTIONS)
