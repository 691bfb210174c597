"""The published protocols: what somebody measured, and how, frozen.

A protocol is a specification: task, sizes, data, lengths, budget, optimiser, seeds, metric. "paper"
is the paper's own and wants a GPU; "cpu" keeps what makes the task hard and says what it shrank.
`experiments.published.reproduce` puts one to our cells.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

from experiments.harness.questions import Question
from longlag import GRU, LSTM, Elman, MinGRU
from longlag.core.cell import Cell
from longlag.runs import Architecture, Experiment
from longlag.tasks import (
    Adding,
    CycleNavigation,
    EvenPairs,
    ModularArithmetic,
    Parity,
    Recall,
    SelectiveCopy,
    Task,
)
from longlag.training import Training

__all__ = ["CHOMSKY", "METRICS", "PROTOCOLS", "Metric", "Protocol"]


@dataclasses.dataclass(frozen=True)
class Metric:
    """How a result is measured.

    Attributes:
        unit: what it is, for the sentence under the table.
        of: its value in a row of results.
        floor: what the best fixed answer has, of a row and its results; None: not known.
        best: of the seeds, max or min.
        form: how it is written.
    """

    unit: str
    of: Callable[[Mapping[str, Any]], float]
    floor: Callable[[Mapping[str, Any], Mapping[str, Any]], float | None]
    best: Callable[..., Any]
    form: str


METRICS = {
    "accuracy": Metric(
        "Accuracy in per cent, the floor's at the trained lengths",
        lambda row: 100 * (row["accuracy"] or 0),
        lambda row, results: 100 * row["floor"],
        max,
        ".1f",
    ),
    "exact_match": Metric(
        "Exact match in per cent",
        lambda row: 100 * (row["exact_match"] or 0),
        lambda row, results: None,
        max,
        ".1f",
    ),
    "error": Metric(
        "Mean squared error",
        lambda row: math.inf if row["loss"] is None else row["loss"],
        lambda row, results: results["floor"],
        min,
        ".1e",
    ),
}


@dataclasses.dataclass(frozen=True)
class Protocol:
    """What somebody measured, and how.

    Attributes:
        source: who, where.
        rule: how the published number is made of the runs.
        metric: of `METRICS`.
        published: their numbers, in the unit of the metric, by the name of our arm.
        shrunk: what the preset "cpu" leaves out.
        departures: where "paper", too, is not the paper.
        question: the arms of a preset.
        at_most: a seed has done it with a metric so small; None: by the question's threshold.
    """

    source: str
    rule: str
    metric: Literal["accuracy", "exact_match", "error"]
    published: Mapping[str, float]
    shrunk: str
    departures: str
    question: Callable[[Literal["cpu", "paper"]], Question]
    at_most: float | None = None


CHOMSKY: dict[str, Task] = {
    "even pairs": EvenPairs(1, 40),
    "parity": Parity(1, 40),
    "cycle navigation": CycleNavigation(1, 40),
    "modular arithmetic": ModularArithmetic(1, 40),
}
# Of the preset "cpu". Half of the GRUs find the cycle within 2,850 steps, and are sure of it later.
SMALL_STEPS = {"cycle navigation": 9000}
# Delétang et al. test every length; these are a part of them.
BEYOND = (41, 65, 97, 129, 193, 255)


def chomsky(preset: Literal["cpu", "paper"]) -> Question:
    """Elman, LSTM and GRU on the regular languages, and attention alone."""
    small = preset == "cpu"
    width = 64 if small else 256
    cells: dict[str, Cell | None] = {
        "Elman": Elman(width),
        "LSTM": LSTM(width),
        "GRU": GRU(width),
        "attention only": None,
    }
    arms = {}
    for rate in (1e-3,) if small else (1e-4, 3e-4, 5e-4):
        for task, of_task in CHOMSKY.items():
            training = Training(
                steps=SMALL_STEPS.get(task, 3000) if small else 1_000_000,
                batch_size=64 if small else 128,
                learning_rate=rate,
                dispatch=50 if small else 1000,
                stop_when_solved=False,
            )
            for name, cell in cells.items():
                layers = Architecture(width=width, depth=1)
                if cell is None:
                    depth = 2 if small else 5
                    layers = Architecture("full", width=64, depth=depth, mlp=128 if small else 256)
                arm = f"{task}, {name}" + ("" if small else f", {rate:g}")
                arms[arm] = Experiment(
                    of_task, cell, layers, training, 5 if small else 10, _lengths(of_task, small)
                )
    return Question("Which regular languages go on beyond the trained lengths?", arms, 0.99)


def _lengths(task: Task, small: bool) -> tuple[int, ...]:
    return tuple(n for n in BEYOND if not isinstance(task, ModularArithmetic) or n % 2) + (
        () if small else (385, 499)
    )


def zoology(preset: Literal["cpu", "paper"]) -> Question:
    """64 tokens, 4 pairs; a recurrence without and with one attention, and attention alone."""
    small = preset == "cpu"
    task = Recall(length=64, pairs=4, vocab=1024 if small else 8192)
    arms = {}
    for rate in (3e-3,) if small else (1e-4, 4.6e-4, 2.2e-3, 1e-2):
        training = Training(
            steps=4000 if small else 12_500,
            batch_size=64 if small else 512,
            learning_rate=rate,
            optimizer="adam" if small else "adamw",
            schedule="constant" if small else "cosine",
            dispatch=50,
        )
        cells: dict[str, tuple[Cell | None, Any]] = {
            "LSTM": (LSTM(64), "none"),
            "LSTM + full": (LSTM(64), "full"),
            "GRU + full": (GRU(64), "full"),
            "attention only": (None, "full"),
        }
        for name, (cell, attention) in cells.items():
            arm = name if small else f"{name}, {rate:g}"
            arms[arm] = Experiment(
                task, cell, Architecture(attention, width=64, depth=2), training, 5, (64,)
            )
    return Question("Who recalls 4 of 4 pairs among 64 tokens?", arms, 0.99)


def selective_copy(preset: Literal["cpu", "paper"]) -> Question:
    """A gate that sees the state, beside one that does not: small enough to be run as it is."""
    del preset
    training = Training(steps=600, batch_size=32, learning_rate=3e-3, stop_when_solved=False)
    arms = {}
    for items in (4, 8):
        for cell in (GRU(128), MinGRU(128)):
            task = SelectiveCopy(length=32, items=items, vocab=8)
            layers = Architecture(width=128, depth=1)
            arms[f"{items} items, {type(cell).__name__}"] = Experiment(
                task, cell, layers, training, 5, (32,)
            )
    return Question("Does a gate need to see the state to copy selectively?", arms, 0.99)


def adding(preset: Literal["cpu", "paper"]) -> Question:
    """An LSTM that has to add two numbers 200 steps apart, and one that reads its past."""
    small = preset == "cpu"
    training = Training(
        steps=6_000 if small else 60_000, batch_size=32, learning_rate=1e-3, dispatch=250
    )
    layers = {"LSTM": Architecture("none", width=64, depth=1)}
    if not small:  # on two cores the scores of 400 by 400 steps take hours
        layers["LSTM + full"] = Architecture("full", width=64, depth=2)
    arms = {
        name: Experiment(Adding(400), LSTM(64), of_arm, training, 5, (400,))
        for name, of_arm in layers.items()
    }
    return Question("Who adds two of 400 numbers?", arms, 0.99)


PROTOCOLS: dict[str, Protocol] = {
    "chomsky": Protocol(
        source="Delétang et al. 2023, arXiv 2207.02098, table 2 (recalled)",
        rule="the best of 10 seeds and 3 learning rates, mean accuracy over the lengths 41 to 500",
        metric="accuracy",
        published={
            **{f"{task}, Elman": 100.0 for task in CHOMSKY},
            **{f"{task}, LSTM": 100.0 for task in CHOMSKY},
            "even pairs, attention only": 96.4,
            "parity, attention only": 52.0,
            "cycle navigation, attention only": 61.9,
            "modular arithmetic, attention only": 24.2,
        },
        shrunk="3,000 steps of 64 (cycle navigation: 9,000) in place of 1M of 128, width 64 for "
        "256, 2 attention blocks for 5, 5 seeds, one learning rate, lengths to 255",
        departures="6 lengths are tested, not all of 41 to 500 (8 of them in `paper`). The "
        "positions are rotary, not the best of 5 kinds. A learned embedding and a norm are around "
        "the cell",
        question=chomsky,
    ),
    "zoology-64x4": Protocol(
        source="Arora et al. 2023, arXiv 2312.04927, figure 2: attention solves it. The number is "
        "of a rerun in the issues of its code (secondary)",
        rule="one seed of one of 4 learning rates",
        metric="accuracy",
        published={"attention only": 99.2},
        shrunk="1,024 tokens in place of 8,192, at most 4,000 steps of 64. A seed stops when it "
        "has solved the task",
        departures="fresh data for 100,000 fixed sequences, rotary positions for learned ones",
        question=zoology,
    ),
    "cpustudy-selcopy": Protocol(
        source="a public repository note, 2 seeds (secondary)",
        rule="exact match, mean of the seeds",
        metric="exact_match",
        published={
            "4 items, GRU": 100.0,
            "4 items, MinGRU": 38.9,
            "8 items, GRU": 38.2,
            "8 items, MinGRU": 0.1,
        },
        shrunk="nothing (32 steps, vocabulary 8, one layer, 600 training steps of 32 sequences)",
        departures="the note's learning rate and width are not known (about 60,000 parameters). "
        "Here they are 3e-3 and 128. The cell has a norm and a head of our own around it",
        question=selective_copy,
    ),
    "adding-400": Protocol(
        source="Arjovsky et al. 2016, arXiv 1511.06464, from its figures (recalled). There an "
        "LSTM solves it up to 750 steps, and an RNN fails at 100 to 750. In Keller et al. 2023 an "
        "iRNN reaches 1e-4 in 30,000 iterations",
        rule="one run",
        metric="error",
        published={},
        shrunk="no arm with attention, at most 6,000 steps of 32. A seed stops when 99% of its "
        "answers are within 0.04",
        departures="64 units, Adam at 1e-3, gradients clipped by their norm. The cell has a norm "
        "and a head of our own around it",
        question=adding,
        at_most=1e-2,
    ),
}
