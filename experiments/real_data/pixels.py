"""Read a picture pixel by pixel: 784 steps, in order or permuted, with and without attention.

    python -m experiments.real_data.pixels ordered          (one order: 3 core-hours)
    python -m experiments.real_data.pixels permuted --arms LSTM "LSTM + attention"
    python -m experiments.real_data.pixels --preset smoke   (does it run?)

The pictures are those of Fashion-MNIST (docs/data.md). A model reads one pixel a step, and names
the picture at the last. "permuted" has one fixed order of the pixels, the same for all pictures, so
that what belongs together is far apart. Mixers have equal parameters within 5%. A seed ends when
its budget of operations is spent, so an arm whose step costs more takes fewer steps. Each arm has
the learning rate that is best after a third of the budget. The standard test part is read once, at
the end.

The floors are one answer for all, and the ten mean pictures: the picture is named after the
nearest one. Both orders have the same floors.

Finished arms are kept. The same command resumes.

Leaves runs/pixels-ORDER: results.json, and a run folder for each arm.
"""

from __future__ import annotations

import functools
import statistics
from typing import Any, Literal

import numpy as np

from experiments.harness.questions import Question, Size, script
from experiments.harness.recorded import Recorded
from experiments.harness.tables import Results, rows_by_arm, spread, time_of
from longlag import GRU, LRU, LSTM, MinGRU
from longlag.core.cell import Cell
from longlag.data import fashion_mnist
from longlag.runs import Architecture, Experiment
from longlag.tasks import SequentialImages
from longlag.training import Training

THRESHOLD = 0.8
GRID = (1e-3, 3e-3, 1e-2)
ORDERS = {
    "ordered": ("Is a picture read pixel by pixel?", 0),
    "permuted": ("Is a picture read whose pixels come in any order?", 1),
}
# Operations of a seed: on a CPU core, two to five minutes.
BUDGETS: dict[Size, float] = {"cpu": 4e12, "gpu": 4e15}
STEPS = 784


def question(order: str, size: Size) -> Question:
    """The arms on one order of the pixels."""
    title, permutation = ORDERS[order]
    width = 32 if size == "cpu" else 256
    cells: dict[str, Cell] = {
        "LSTM": LSTM(width, chrono=STEPS),
        "GRU": GRU(width),
        "minGRU": MinGRU(width),
        "LRU": LRU(width),
    }
    arms: dict[str, tuple[Cell | None, Literal["none", "full"]]] = {}
    for name, cell in cells.items():
        arms |= {name: (cell, "none"), f"{name} + attention": (cell, "full")}
    arms["attention only"] = (None, "full")
    training = Training(
        batch_size=16 if size == "cpu" else 64,
        dispatch=50,
        eval_size=512 if size == "cpu" else 2048,
        solved=THRESHOLD,
        stop_when_solved=False,
        budget=BUDGETS[size],
    )
    experiments = {
        arm: Experiment(
            SequentialImages("pixels", permutation),
            cell,
            Architecture(
                attention,
                width=width,
                depth=2,
                mlp=2 * width,
                mixer_parameters=8 * width * width,
            ),
            training,
            seeds=5,
        )
        for arm, (cell, attention) in arms.items()
    }
    return Question(title, experiments, THRESHOLD, GRID)


def nearest_mean() -> float:
    """The share of the test part whose nearest mean picture is that of its class."""
    images = fashion_mnist.load()
    train, test = (
        pictures.reshape(len(pictures), -1).astype(np.float32) / 255
        for pictures in (images.train, images.test)
    )
    classes = range(len(fashion_mnist.CLASSES))
    means = np.stack([train[images.train_labels == k].mean(0) for k in classes])
    # The square of the picture is the same for every mean.
    distances = (means**2).sum(1) - 2 * test @ means.T
    return float((distances.argmin(1) == images.test_labels).mean())


def measure_floor(*run: Any) -> Results:
    """What `results.json` has beside the rows: the floors."""
    del run
    chance = 1 / len(fashion_mnist.CLASSES)
    return {"floors": {"any class": chance, "nearest mean picture": nearest_mean()}}


COLUMNS = ("arm", "test accuracy", "steps", "rate", "params", "state", "time")


def lines(results: Results) -> list[tuple[str, ...]]:
    """A line of `COLUMNS` for every arm and floor: medians over the seeds, ranges in brackets."""
    table = [
        (
            arm,
            spread(rows, digits=3),
            f"{statistics.median(row['steps'] for row in rows):,.0f}",
            f"{rows[0]['rate']:g}",
            f"{rows[0]['parameters']:,}",
            f"{rows[0]['state_bytes']:,} B",
            time_of(rows),
        )
        for arm, rows in rows_by_arm(results).items()
    ]
    rest = ("",) * (len(COLUMNS) - 2)
    return [
        *table,
        *((f"floor: {name}", f"{x:.3f}", *rest) for name, x in results["floors"].items()),
    ]


def verdict(results: Results) -> str:
    """What stands under the table."""
    budget = max(row.get("spent", 0) for row in results["rows"])
    trials = sum(trial.get("spent", 0) for trial in results.get("trials", ()))
    return (
        "The standard test part, of which each seed has seen nothing before. Every seed has "
        f"{budget:.1e} operations; the trials of learning rates took {trials:.1e} in all. "
        f"{results['meta']['core_hours']:.2f} core-hours."
    )


QUESTIONS = {order: functools.partial(question, order) for order in ORDERS}
RECORDED = tuple(
    Recorded(f"pixels-{order}", title, 13, columns=COLUMNS, lines=lines, verdict=verdict)
    for order, (title, _) in ORDERS.items()
)


if __name__ == "__main__":
    script(
        "pixels",
        __doc__,
        QUESTIONS,
        lambda part: {
            "also": measure_floor,
            "columns": COLUMNS,
            "lines_of": lines,
            "verdict_of": verdict,
        },
    )
