"""How much recall does a byte of state buy: wide LSTMs, matrix states, windows of attention.

    python -m experiments.memory.recall_capacity                      (1.4 core-hours)
    python -m experiments.memory.recall_capacity --arms "LSTM, 128 features" "window of 32"
    python -m experiments.memory.recall_capacity --preset smoke

Multi-query recall of eight pairs. A causal recurrence needs as many bits as there are to hold
(Arora et al. 2024, arXiv 2402.18668, theorem 3.1): the arms of a family differ in their state and
are otherwise alike, two blocks of one width with a short convolution, so that accuracy stands
against exact bytes. Every arm has the learning rate that is best for it; seeds train to the end.

Finished arms are kept, and the same command goes on where it was stopped.

Leaves runs/recall-capacity: results.json, and a run folder for each arm.
"""

from __future__ import annotations

from typing import Any

from experiments.harness.questions import Question, Size, script
from experiments.harness.rates import GRID
from experiments.harness.recorded import Plot, Recorded
from longlag import LSTM
from longlag.cells import DeltaNet, FeedForward
from longlag.core.cell import Cell
from longlag.runs import Architecture, Experiment
from longlag.tasks import Recall
from longlag.training import Training

DID = 0.95


def question(size: Size) -> Question:
    """Three families, over their state."""
    small = size == "cpu"
    width, scale = (32, 1) if small else (128, 4)
    # Of 256 tokens over 64 steps no LSTM and no window got beyond .11 in trials of 667 steps.
    task = Recall(length=32, pairs=8, vocab=64) if small else Recall(512, 64, 8192)
    length = task.length
    training = Training(
        steps=4000 if small else 50_000,
        batch_size=32 if small else 128,
        dispatch=100,
        solved=DID,
        stop_when_solved=False,
    )
    arms: dict[str, tuple[Cell, Any, dict[str, Any]]] = {}
    for features in (16 * scale, 64 * scale, 128 * scale):
        arms[f"LSTM, {features} features"] = LSTM(features), "none", {}
    for keys in (4 * scale, 8 * scale, 16 * scale):
        cell = DeltaNet(width, heads=2, key_features=keys, negative_eigenvalues=True)
        arms[f"DeltaNet negative, keys of {keys}"] = cell, "none", {}
    for window in (length // 8, length // 4, length // 2, length):
        arms[f"window of {window}"] = FeedForward(width), "window", {"window": window}
    layers = {"width": width, "depth": 2, "mlp": 2 * width, "convolution": 4}
    return Question(
        "How much recall does a byte of state buy?",
        {
            name: Experiment(
                task,
                cell,
                Architecture(attention, **layers, **more),
                training,
                seeds=5,
                test_lags=(length,),
            )
            for name, (cell, attention, more) in arms.items()
        },
        DID,
        GRID,
    )


def figure(results: dict[str, Any]) -> Plot:
    """Recall against the bytes of state."""
    return Plot("state", {"rows": results["rows"]})


QUESTIONS = {"": question}
RECORDED = (
    Recorded("recall-capacity", "How much recall does a byte of state buy?", 100, figure=figure),
)


if __name__ == "__main__":
    script("recall-capacity", __doc__, QUESTIONS)
