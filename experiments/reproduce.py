"""Put a published protocol to our cells, and set our numbers beside theirs.

    python -m experiments.reproduce --list
    python -m experiments.reproduce chomsky                     (cpu: 20 minutes on two cores)
    python -m experiments.reproduce zoology-64x4 --preset smoke (seconds: does it run?)
    python -m experiments.reproduce cpustudy-selcopy --arms "4 items, GRU"

A protocol is a frozen specification: task, sizes, data, lengths, budget, optimiser, seeds, metric.
"paper" is the paper's own and wants a GPU; "cpu" keeps what makes the task hard and says what it
shrank; "smoke" takes a few steps of that. A published number stands beside ours by the paper's own
rule (often the best seed), with our median and range and the share of seeds in the columns after
it. Finished arms are kept, and the same command goes on where it was stopped.

Leaves runs/reproduce-PROTOCOL-PRESET: results.json, and a run folder for each arm.
"""

from __future__ import annotations

import dataclasses
import statistics
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import tyro
from rich.table import Table

from experiments import questions
from experiments.questions import Question, ask, by_arm, tested
from longlag import GRU, LSTM, Elman, MinGRU
from longlag.cell import Cell
from longlag.command_line import console, plain_errors
from longlag.experiment import Architecture, Experiment
from longlag.spec import choose
from longlag.tasks import (
    CycleNavigation,
    EvenPairs,
    ModularArithmetic,
    Parity,
    Recall,
    SelectiveCopy,
    Task,
)
from longlag.training import Training

Preset = Literal["smoke", "cpu", "paper"]


@dataclasses.dataclass(frozen=True)
class Protocol:
    """What somebody measured, and how.

    Attributes:
        source: who, where.
        rule: how the published number is made of the runs.
        metric: "accuracy" (of the scored positions) or "exact_match" (of the sequences).
        published: their numbers, in per cent, by the name of our arm.
        shrunk: what the preset "cpu" leaves out.
        departures: where "paper", too, is not the paper.
        question: the arms of a preset.
    """

    source: str
    rule: str
    metric: Literal["accuracy", "exact_match"]
    published: Mapping[str, float]
    shrunk: str
    departures: str
    question: Callable[[Literal["cpu", "paper"]], Question]


CHOMSKY: dict[str, Task] = {
    "even pairs": EvenPairs(1, 40),
    "parity": Parity(1, 40),
    "cycle navigation": CycleNavigation(1, 40),
    "modular arithmetic": ModularArithmetic(1, 40),
}
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
        training = Training(
            steps=3000 if small else 1_000_000,
            batch_size=64 if small else 128,
            learning_rate=rate,
            dispatch=50 if small else 1000,
            stop_when_solved=False,
        )
        for task, of_task in CHOMSKY.items():
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
    """A gate that sees the state, beside one that does not."""
    steps = 600 if preset == "cpu" else 2000
    training = Training(steps=steps, batch_size=32, learning_rate=3e-3, stop_when_solved=False)
    arms = {}
    for items in (4, 8):
        for cell in (GRU(128), MinGRU(128)):
            task = SelectiveCopy(length=32, items=items, vocab=8)
            layers = Architecture(width=128, depth=1)
            arms[f"{items} items, {type(cell).__name__}"] = Experiment(
                task, cell, layers, training, 5 if preset == "cpu" else 10, (32,)
            )
    return Question("Does a gate need to see the state to copy selectively?", arms, 0.99)


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
        shrunk="3,000 steps of 64 in place of 1M of 128, width 64 for 256, 2 attention blocks for "
        "5, 5 seeds, one learning rate; lengths to 255",
        departures="6 lengths are tested, not all of 41 to 500 (8 of them in `paper`); rotary "
        "positions for the best of 5 kinds; a learned embedding and a norm around the cell",
        question=chomsky,
    ),
    "zoology-64x4": Protocol(
        source="Arora et al. 2023, arXiv 2312.04927, figure 2: attention solves it; the number is "
        "of a rerun in the issues of its code (secondary)",
        rule="one seed of one of 4 learning rates",
        metric="accuracy",
        published={"attention only": 99.2},
        shrunk="1,024 tokens in place of 8,192, at most 4,000 steps of 64; a seed stops when it "
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
        departures="the note's learning rate and width are not known (about 60,000 parameters): "
        "3e-3 and 128 here; a norm and a head of our own around the cell",
        question=selective_copy,
    ),
}

COLUMNS = (
    "arm",
    "published",
    "by their rule",
    "median",
    "held",
    "floor",
    "steps",
    "params",
    "time",
)


def lines(name: str, results: dict[str, Any]) -> list[tuple[str, ...]]:
    """A line of `COLUMNS` for every arm, numbers in per cent over the lengths tested."""
    protocol = PROTOCOLS[name]
    plain = {line[0]: dict(zip(questions.COLUMNS, line)) for line in questions.lines(results)}
    found = []
    for arm, rows in by_arm(results).items():
        seeds: dict[int, list[float]] = {}
        for row in tested(rows):
            seeds.setdefault(row["seed"], []).append(100 * (row[protocol.metric] or 0))
        means = [statistics.fmean(of_seed) for of_seed in seeds.values()]
        by_rule = statistics.fmean(means) if "mean of the seeds" in protocol.rule else max(means)
        published = protocol.published.get(arm)
        line = plain[arm]
        found.append(
            (
                arm,
                "" if published is None else f"{published:.1f}",
                f"{by_rule:.1f}",
                f"{statistics.median(means):.1f} ({min(means):.1f}–{max(means):.1f})",
                *(line[column] for column in ("held", "floor", "steps", "params", "time")),
            )
        )
    return found


def verdict(name: str, results: dict[str, Any]) -> str:
    """What stands under the table."""
    protocol = PROTOCOLS[name]
    metric = protocol.metric.replace("_", " ").capitalize()
    return (
        f"Published: {protocol.source}; {protocol.rule}. {metric} in per cent. "
        f"Preset {results['preset']}: {protocol.shrunk}. Departures: {protocol.departures}. "
        f"{questions.verdict(results)}"
    )


def main(
    protocol: tyro.conf.Positional[str | None] = None,
    list: bool = False,
    preset: Preset = "cpu",
    arms: tuple[str, ...] = (),
    out: Path | None = None,
    workers: int = 0,
) -> int:
    """Runs one protocol.

    Args:
        protocol: which.
        list: say which there are.
        preset: smoke, cpu or paper.
        arms: some of the arms; none means all.
        out: the folder; runs/reproduce-PROTOCOL-PRESET if none is given.
        workers: processes, each pinned to one core; 0 means one per core.
    """
    if list or protocol is None:
        table = Table("protocol", "source", "arms", "cpu leaves out")
        for name, known in PROTOCOLS.items():
            table.add_row(name, known.source, str(len(known.question("cpu").arms)), known.shrunk)
        console.print(table)
        return 0
    choose(protocol, PROTOCOLS, "protocol")
    asked = PROTOCOLS[protocol].question("paper" if preset == "paper" else "cpu")
    asked = asked.restricted(arms)
    if preset == "smoke":
        asked = asked.smoke()
    out = Path("runs") / f"reproduce-{protocol}-{preset}" if out is None else out
    command = f"python -m experiments.reproduce {protocol}"
    command += "" if preset == "cpu" else f" --preset {preset}"
    ask(
        asked,
        command,
        out,
        workers,
        also={"preset": preset},
        columns=COLUMNS,
        lines_of=lambda results: lines(protocol, results),
        verdict_of=lambda results: verdict(protocol, results),
    )
    return 0


if __name__ == "__main__":
    with plain_errors():
        sys.exit(tyro.cli(main, prog="python -m experiments.reproduce", description=__doc__))
