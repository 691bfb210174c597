"""Is attention needed at all? Hold, choose, look up, track a state, and both of these at once.

    python -m experiments.memory.attention_vs_recurrence               (all five: 9 core-hours)
    python -m experiments.memory.attention_vs_recurrence look-up
    python -m experiments.memory.attention_vs_recurrence both --arms "LSTM" "LSTM + attention"
    python -m experiments.memory.attention_vs_recurrence --preset smoke   (does it run?)

One skeleton for all arms: three blocks of norm, mixer, residual, MLP. [R, R, R] is a recurrence
alone, in [R, A, R] attention takes the place of the middle one, [A, A, A] is attention alone, and
the control mixes nothing over time. Mixers have equal parameters within 5%. Every arm has the
learning rate that is best for it. Seeds train to the end of the budget. On `look-up` and `both`
every arm also runs with a short convolution before each mixer. Then, of every hybrid that did its
task, a part is taken away at the test (`longlag.analysis.interventions`).

The claim, named before anything was run: LSTM + attention and DeltaNet with negative eigenvalues
each do `look-up` in at least 9 of 10 seeds, and `track` at twice and four times the length too.

Finished arms are kept, and the same command goes on where it was stopped.

Leaves runs/attention-vs-recurrence-TASK: results.json, and a run folder for each arm.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from experiments.harness import tables
from experiments.harness.questions import Question, Size, script
from experiments.harness.rates import GRID, folder
from experiments.harness.recorded import HOW_TO_READ, Plot, Recorded, Table
from experiments.harness.tables import Results, count_solved, far_rows, near_rows, rows_by_arm
from longlag import GRU, LSTM, MinGRU
from longlag.analysis.interventions import knock_outs
from longlag.cells import DeltaNet, FeedForward
from longlag.core.cell import Cell
from longlag.report.summary import wilson
from longlag.runs import Architecture, Experiment
from longlag.tasks import CopyMemory, Parity, Recall, SelectiveCopy, StateRecall, Task
from longlag.training import Training

NAME = "attention-vs-recurrence"
DID = 0.95  # accuracy from which a seed has done its task
# Named before anything was run; ten seeds each, where the others have five.
CLAIMED = ("LSTM + attention", "DeltaNet negative")
CLAIMED_ON = ("look-up", "track")
CONVOLUTION = ", convolution"


@dataclasses.dataclass(frozen=True)
class Widths:
    """How large the models of a preset are.

    Attributes:
        width: of the blocks.
        mixer: parameters of every mixer, within 5%.
        batch: sequences per step.
        depth: blocks.
    """

    width: int
    mixer: int
    batch: int
    depth: int = 3


WIDTHS: dict[Size, Widths] = {"cpu": Widths(32, 8_192, 32), "gpu": Widths(128, 65_536, 128)}


@dataclasses.dataclass(frozen=True)
class Axis:
    """What one of the tasks asks for.

    Attributes:
        title: the question, in words.
        tasks: by preset.
        steps: optimiser steps by preset.
        batches: how many times the sequences per step of the preset.
        convolution: whether every arm is asked with a short convolution too.
        beyond: whether a seed has done it only if it has at the longer lags too.
        lags: tested besides the trained one, as multiples of it.
    """

    title: str
    tasks: Mapping[str, Task]
    steps: Mapping[str, int]
    batches: int = 1
    convolution: bool = False
    beyond: bool = False
    lags: tuple[int, ...] = (2, 4)


AXES = {
    "hold": Axis(
        "Who holds ten symbols over a gap?",
        {"cpu": CopyMemory(lag=30), "gpu": CopyMemory(lag=500)},
        {"cpu": 3000, "gpu": 50_000},
    ),
    "choose": Axis(
        "Who keeps eight symbols out of noise, in their order?",
        {
            "cpu": SelectiveCopy(length=32, items=8, vocab=8),
            "gpu": SelectiveCopy(length=1024, items=16, vocab=16),
        },
        {"cpu": 2000, "gpu": 50_000},
    ),
    "look-up": Axis(
        "Who looks values up by their keys?",
        {"cpu": Recall(length=32, pairs=4, vocab=256), "gpu": Recall(512, 64, 8192)},
        {"cpu": 1500, "gpu": 50_000},
        convolution=True,
    ),
    "track": Axis(
        "Who tracks a state beyond the trained length?",
        {"cpu": Parity(1, 40), "gpu": Parity(1, 256)},
        {"cpu": 2000, "gpu": 50_000},
        beyond=True,
    ),
    "both": Axis(
        "Who tracks a state and looks up what it selects?",
        {
            # Of words to 16 letters no arm got beyond a fifth in 3,000 steps of 32.
            "cpu": StateRecall(max_length=4, group="z5", pairs=5, values=16),
            "gpu": StateRecall(max_length=64, group="s3", pairs=6, values=64),
        },
        {"cpu": 6000, "gpu": 50_000},
        batches=2,
        convolution=True,
    ),
}


def question(axis: str, preset: Size) -> Question:
    """All arms on the task of one axis."""
    setting, size = AXES[axis], WIDTHS[preset]
    task, width = setting.tasks[preset], size.width
    training = Training(
        steps=setting.steps[preset],
        batch_size=setting.batches * size.batch,
        dispatch=100,
        solved=DID,
        stop_when_solved=False,
    )
    cells: dict[str, Cell] = {
        "LSTM": LSTM(width),
        "GRU": GRU(width),
        "minGRU": MinGRU(width),
        "DeltaNet negative": DeltaNet(width, negative_eigenvalues=True),
    }
    arms: dict[str, tuple[Cell | None, Literal["none", "full"]]] = {
        "feed-forward": (FeedForward(width), "none"),
        **{name: (cell, "none") for name, cell in cells.items()},
        **{f"{name} + attention": (cell, "full") for name, cell in cells.items()},
        "attention only": (None, "full"),
    }
    experiments = {}
    for convolution in (0, 4) if setting.convolution else (0,):
        for name, (cell, attention) in arms.items():
            layers = Architecture(
                attention,
                width=width,
                depth=size.depth,
                mlp=2 * width,
                mixer_parameters=size.mixer,
                convolution=convolution,
            )
            claimed = axis in CLAIMED_ON and name in CLAIMED and not convolution
            experiments[name + (CONVOLUTION if convolution else "")] = Experiment(
                task,
                cell,
                layers,
                training,
                seeds=10 if claimed else 5,
                test_lags=tuple(times * task.lag for times in setting.lags),
            )
    return Question(setting.title, experiments, DID, GRID)


KNOCK_OUT_COLUMNS = ("arm", "whole", "attention silent", "carry reset", "short window")


def knock_out_parts(
    arms: Mapping[str, Experiment], rows: Sequence[Any], out: Path
) -> dict[str, Any]:
    """Takes parts away from every hybrid that did its task at the trained length."""
    parts: list[dict[str, Any]] = []
    for arm, job in arms.items():
        hybrid = job.cell is not None and job.architecture.attention != "none"
        near = [row["accuracy"] or 0 for row in near_rows(rows) if row["arm"] == arm]
        if hybrid and sum(accuracy >= DID for accuracy in near) * 2 > len(near):
            parts += [{"arm": arm} | part for part in knock_outs(out / folder(arm))]
    return {"knock_outs": parts}


def knock_out_lines(results: dict[str, Any]) -> list[tuple[str, ...]]:
    """A line of `KNOCK_OUT_COLUMNS` for every hybrid that did its task."""
    parts_by_arm: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for part in results.get("knock_outs", []):
        parts_by_arm.setdefault(part["arm"], {}).setdefault(part["part"], []).append(part)
    return [
        (arm, *(tables.spread(parts[part]) for part in ("none", *KNOCK_OUT_COLUMNS[2:])))
        for arm, parts in parts_by_arm.items()
    ]


def knock_out_table(results: Results) -> Table:
    """What every hybrid does without a part."""
    caption = "Accuracy of the trained hybrids at the trained length, whole and without a part."
    return Table(KNOCK_OUT_COLUMNS, knock_out_lines(results), caption)


def count_solved_by_arm(axis: str, results: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """How many seeds of every arm have done the task, and of how many."""
    return {
        arm: count_solved(rows, DID, AXES[axis].beyond)
        for arm, rows in rows_by_arm(results).items()
    }


CONVOLVED = tuple(axis for axis, setting in AXES.items() if setting.convolution)
SUMMARY = ("arm", *AXES, *(f"{axis} with convolution" for axis in CONVOLVED))


def summary(by_axis: Mapping[str, dict[str, Any]]) -> list[tuple[str, ...]]:
    """A line of `SUMMARY` for every arm: seeds that did the task of each axis, of how many.

    Args:
        by_axis: what `results.json` holds, by axis; an axis that is not there is left empty.
    """
    counts = {axis: count_solved_by_arm(axis, results) for axis, results in by_axis.items()}
    arms = list(dict.fromkeys(arm for of in counts.values() for arm in of))
    plain = [arm for arm in arms if not arm.endswith(CONVOLUTION)]

    def cell(axis: str, arm: str) -> str:
        return "{}/{}".format(*counts[axis][arm]) if arm in counts.get(axis, {}) else ""

    return [
        (
            arm,
            *(cell(axis, arm) for axis in AXES),
            *(cell(axis, arm + CONVOLUTION) for axis in CONVOLVED),
        )
        for arm in plain
    ]


def summary_verdict(by_axis: Mapping[str, dict[str, Any]]) -> str:
    """What stands under the table of `summary`."""
    total = sum(results["meta"]["core_hours"] for results in by_axis.values())
    return (
        "The table counts the seeds that solved each task. Each task has a page of its own.\n"
        f"Cost: {total:.1f} core-hours."
    )


def figure(by_axis: Mapping[str, dict[str, Any]]) -> Plot:
    """A heat map of the arms against the axes: accuracy at the longest lag where an axis counts."""
    marks: list[dict[str, Any]] = []
    for axis, results in by_axis.items():
        for arm, rows in rows_by_arm(results).items():
            plain, _, convolution = arm.partition(", ")
            counted = far_rows(rows) if AXES[axis].beyond else near_rows(rows)
            longest = max(row["lag"] for row in counted)
            marks += [
                {
                    "task": f"{axis} with {convolution}" if convolution else axis,
                    "arm": plain,
                    **{key: row[key] for key in ("seed", "accuracy", "floor")},
                }
                for row in counted
                if row["lag"] == longest
            ]
    caption = (
        "Median accuracy of the seeds. The colour runs from the baseline of each task to 1. "
        "`track` is measured at four times the trained length."
    )
    return Plot("heat", {"rows": marks}, caption=caption)


def claim(axis: str, results: dict[str, Any]) -> str:
    """What became of the claim on one axis, and whose intervals are apart."""
    counts = count_solved_by_arm(axis, results)
    sentences = []
    for arm in CLAIMED if axis in CLAIMED_ON else ():
        if arm in counts:
            held, of = counts[arm]
            met = "met" if of >= 10 and 10 * held >= 9 * of else "not met"
            sentences.append(
                f"Claim for {arm}, made before the runs: at least 9 of 10 seeds. "
                f"Result: {held} of {of}, {met}."
            )
    for arm, (held, of) in counts.items():
        plain = arm.removesuffix(CONVOLUTION)
        other = f"{plain} + attention{arm.removeprefix(plain)}"
        if other in counts:
            mine, theirs = wilson(held, of), wilson(*counts[other])
            if mine[0] > theirs[1] or theirs[0] > mine[1]:
                word = "hurts" if mine[0] > theirs[1] else "helps"
                sentences.append(
                    f"Attention {word} {arm}: {held} of {of} seeds without it, {counts[other][0]} "
                    f"of {counts[other][1]} with it. The difference is significant."
                )
    return "\n".join(sentences)


def verdict(axis: str, results: dict[str, Any]) -> str:
    """What stands under the table."""
    under = tables.verdict(results, AXES[axis].beyond)
    return "\n".join(filter(None, (claim(axis, results), under)))


QUESTIONS = {axis: functools.partial(question, axis) for axis in AXES}


def ask_options(axis: str) -> dict[str, Any]:
    """What `ask` is told beside the question."""
    return {
        "also": knock_out_parts,
        "lines_of": functools.partial(tables.lines, beyond=AXES[axis].beyond),
        "verdict_of": functools.partial(verdict, axis),
    }


def _record(axis: str) -> Recorded:
    """One axis, and what its hybrids do without a part."""
    return Recorded(
        *(f"{NAME}-{axis}", AXES[axis].title, 70),
        lines=functools.partial(tables.lines, beyond=AXES[axis].beyond),
        verdict=functools.partial(verdict, axis),
        further=knock_out_table,
    )


RECORDED = (
    Recorded(
        *(NAME, "Is attention needed at all?", 70),
        columns=SUMMARY,
        lines=summary,
        verdict=summary_verdict,
        note=HOW_TO_READ,
        further=lambda _: None,
        figure=figure,
        combines={axis: f"{NAME}-{axis}" for axis in AXES},
    ),
    *map(_record, AXES),
)


if __name__ == "__main__":
    script(NAME, __doc__, QUESTIONS, ask_options=ask_options)
