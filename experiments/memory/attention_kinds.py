"""Which attention over one recurrence: kinds on a lookup, and what each costs.

    python -m experiments.memory.attention_kinds                       (half a core-hour)
    python -m experiments.memory.attention_kinds --arms "additive" "full, rotary"
    python -m experiments.memory.attention_kinds --preset smoke

A GRU in the first of two blocks, an attention in the second: additive, multiplicative, over a
window, over everything with rotary, ALiBi and no positions; and attention alone with each of them.
Multi-query recall, tested at two and four times the length too. Every arm has the learning rate
that is best for it; seeds train to the end of the budget. Then all are timed, one after the other,
reading at once and token by token (`experiments.harness.costs`): leave the machine alone then.

Finished arms are kept, and the same command goes on where it was stopped.

Leaves runs/attention-kinds: results.json, and a run folder for each arm.
"""

from __future__ import annotations

from typing import Any

from experiments.harness import costs
from experiments.harness.questions import Question, Size, script
from experiments.harness.rates import GRID
from experiments.harness.recorded import Recorded
from longlag import GRU
from longlag.core.cell import Cell
from longlag.runs import Architecture, Experiment
from longlag.tasks import Recall
from longlag.training import Training

DID = 0.95


def question(size: Size) -> Question:
    """Every kind over a GRU, and dot products alone."""
    small = size == "cpu"
    width = 32 if small else 128
    task = Recall(32, 4, 256) if small else Recall(512, 64, 8192)
    training = Training(
        steps=2000 if small else 50_000,
        batch_size=32 if small else 128,
        dispatch=100,
        solved=DID,
        stop_when_solved=False,
    )
    cell: Cell = GRU(width)
    arms: dict[str, tuple[Cell | None, dict[str, Any]]] = {
        "none": (cell, {}),
        "additive": (cell, {"attention": "additive"}),
        "multiplicative": (cell, {"attention": "multiplicative"}),
    }
    for positions in ("rotary", "alibi", "none"):
        named = "no positions" if positions == "none" else positions
        half = {"attention": "window", "window": task.length // 2, "positions": positions}
        full = {"attention": "full", "positions": positions}
        arms[f"window of {task.length // 2}, {named}"] = cell, half
        arms[f"full, {named}"] = cell, full
        arms[f"attention only, {named}"] = None, full
    return Question(
        "Which attention looks up best, and at what cost?",
        {
            name: Experiment(
                task,
                of,
                Architecture(width=width, depth=2, mlp=2 * width, **options),
                training,
                seeds=5,
                test_lags=(2 * task.lag, 4 * task.lag),
            )
            for name, (of, options) in arms.items()
        },
        DID,
        GRID,
    )


QUESTIONS = {"": question}
RECORDED = (Recorded("attention-kinds", "Which attention?", 130),)


if __name__ == "__main__":
    script(
        "attention-kinds", __doc__, QUESTIONS, ask_options=lambda _: {"also": costs.measure_costs}
    )
