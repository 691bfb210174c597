"""Does a curriculum help, at equal cost: the same arms with and without, within one budget.

    python -m experiments.memory.curriculum           (both tasks: about an hour of two cores)
    python -m experiments.memory.curriculum copy
    python -m experiments.memory.curriculum copy --preset smoke

With a curriculum, the first batches are short, and the frontier doubles when it is solved.
Without, every batch has the full lag. A seed ends when its operations are spent, so the arm with a
curriculum takes more steps, of shorter sequences. Both are tested at the full lag. Each arm has the
learning rate that is best after a third of the budget.

Leaves runs/curriculum-TASK: results.json, and a run folder for each arm.
"""

from __future__ import annotations

import dataclasses
import functools
import statistics
from typing import Any

from experiments.harness.questions import Question, Size, script
from experiments.harness.recorded import Recorded
from experiments.harness.tables import Results, count_solved, rows_by_arm, spread, time_of
from longlag import GRU, LSTM, MinGRU
from longlag.core.cell import Cell
from longlag.runs import Architecture, Experiment
from longlag.tasks import CopyMemory, Parity, Task
from longlag.training import Training

SOLVED = 0.95
GRID = (1e-3, 3e-3, 1e-2)
# Without a short start, the longest lag is far beyond what these budgets reach.
TASKS: dict[str, tuple[str, Task, int]] = {
    "copy": ("Does a curriculum help to hold ten symbols?", CopyMemory(lag=64), 4),
    "parity": ("Does a curriculum help to track parity?", Parity(1, 256), 8),
}
BUDGETS: dict[Size, float] = {"cpu": 2e11, "gpu": 1e15}


def question(name: str, size: Size) -> Question:
    """The arms on one task, each with and without a curriculum."""
    title, task, first = TASKS[name]
    width = 32 if size == "cpu" else 256
    arms: dict[str, tuple[Cell, Any]] = {
        "GRU": (GRU(width), "none"),
        "minGRU": (MinGRU(width), "none"),
        "LSTM": (LSTM(width), "none"),
        "LSTM + attention": (LSTM(width), "full"),
    }
    plain = Training(
        batch_size=16,
        dispatch=20,
        eval_size=128,
        solved=SOLVED,
        stop_when_solved=False,
        budget=BUDGETS[size],
    )
    experiments = {}
    for arm, (cell, attention) in arms.items():
        layers = Architecture(attention, width=width, depth=2, mlp=2 * width)
        for start, words in ((0, ""), (first, ", curriculum")):
            training = dataclasses.replace(plain, curriculum=start)
            experiments[arm + words] = Experiment(
                task, cell, layers, training, seeds=5, test_lags=(task.lag,)
            )
    return Question(title, experiments, SOLVED, GRID)


COLUMNS = ("arm", "at the full lag", "solved", "horizon", "steps", "rate", "params", "time")


def lines(results: Results) -> list[tuple[str, ...]]:
    """A line of `COLUMNS` for every arm: medians over the seeds, their range in brackets."""
    full = max(row["lag"] for row in results["rows"])
    table = []
    for arm, rows in rows_by_arm(results).items():
        at_full = [row | {"train_lag": full} for row in rows if row["lag"] == full]
        table.append(
            (
                arm,
                spread(at_full),
                "{}/{}".format(*count_solved(at_full, results["threshold"])),
                spread(at_full, "horizon", 0),
                f"{statistics.median(row['steps'] for row in at_full):,.0f}",
                f"{at_full[0]['rate']:g}",
                f"{at_full[0]['parameters']:,}",
                time_of(at_full),
            )
        )
    return table


def verdict(results: Results) -> str:
    """What stands under the table."""
    full = max(row["lag"] for row in results["rows"])
    budget = max(row.get("spent", 0) for row in results["rows"])
    return (
        f"Accuracy of the test set at lag {full}, and the seeds with at least {SOLVED:.2f} there. "
        f"Every seed has {budget:.1e} operations. The horizon is the longest lag that a curriculum "
        f"solved in validation. {results['meta']['core_hours']:.2f} core-hours."
    )


QUESTIONS = {name: functools.partial(question, name) for name in TASKS}
RECORDED = tuple(
    Recorded(f"curriculum-{name}", title, 14, columns=COLUMNS, lines=lines, verdict=verdict)
    for name, (title, *_) in TASKS.items()
)


if __name__ == "__main__":
    script(
        "curriculum",
        __doc__,
        QUESTIONS,
        lambda part: {"columns": COLUMNS, "lines_of": lines, "verdict_of": verdict},
    )
