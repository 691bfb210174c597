"""How far back, for how many operations: the longest lag that each arm solves within one budget.

    python -m experiments.memory.horizon copy                      (one task; core-hours below)
    python -m experiments.memory.horizon parity --arms GRU "attention only, rotary"
    python -m experiments.memory.horizon copy --preset smoke

Every arm climbs by a curriculum: its frontier doubles when validation at it reaches .95. A seed
ends when its budget of operations is spent, whatever its arm. So an arm whose token costs more
takes fewer steps. Its horizon is the longest lag that it solved. Each seed is then tested at 1, 2,
4 and 16 times its horizon. Learning rates are chosen by a third of the budget.

Then each hybrid loses a part at its horizon, to see which it needs. At four times its horizon one
thing after another is put back to what it was in training, to see what fails there
(`longlag.analysis.interventions`).

The claims are in experiments/memory/horizon_claims.md. They were committed before the first run.

A seed has 1e12 operations, which take half a minute to four minutes of a core. All arms of a task
take 2 to 10 core-hours. Finished runs are kept: the same command goes on where it was stopped.

Leaves runs/horizon-TASK: results.json, and a run folder for each arm.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.harness.questions import Arms, Question, Size, script
from experiments.harness.rates import folder
from experiments.harness.recorded import Plot, Recorded, Table
from experiments.harness.tables import Results, Row, near_rows, rows_by_arm, spread, time_of
from longlag import (
    GRU,
    LRU,
    LSTM,
    MLSTM,
    RGLRU,
    S5,
    S6,
    SLSTM,
    DeltaNet,
    Elman,
    GatedDeltaNet,
    MinGRU,
)
from longlag.analysis.interventions import BEYOND, KNOCK_OUTS, beyond, knock_outs
from longlag.core.cell import Cell
from longlag.runs import Architecture, Experiment
from longlag.tasks import Adding, CopyMemory, GroupWord, Parity, Recall, SelectiveCopy, Task
from longlag.training import Training

SOLVED = 0.95
# Where it is asked what fails: far enough to fail, near enough to see why.
BEYOND_TIMES = 4
GRID = (1e-3, 3e-3, 1e-2)


@dataclasses.dataclass(frozen=True)
class Setting:
    """One task of the question.

    Attributes:
        title: the question, in words.
        task: at the longest lag that is trained at.
        first: the lag at which the curriculum begins.
        convolution: width of the short convolution before every mixer.
    """

    title: str
    task: Task
    first: int
    convolution: int = 0


SETTINGS = {
    "copy": Setting("How far back are ten symbols held?", CopyMemory(lag=4096), 8),
    "choose": Setting(
        "From how much noise are sixteen symbols chosen?", SelectiveCopy(4096, 16, 16), 32
    ),
    "add": Setting("Over how many steps are two marked numbers added?", Adding(4096), 16),
    "look-up": Setting(
        "Over how many steps are values looked up by 64 keys?",
        Recall(4096, 64, 8192),
        256,
        convolution=4,
    ),
    "parity": Setting("Over how many bits is parity tracked?", Parity(1, 4096), 8),
    "words": Setting("Over how many letters is a word of S3 tracked?", GroupWord(1, 4096, "s3"), 8),
}


@dataclasses.dataclass(frozen=True)
class Scale:
    """How large the models are, and what a seed may spend.

    Attributes:
        width: of the blocks.
        mixer: parameters of every mixer, within 5%.
        batch: sequences per step.
        budget: operations of a seed.
        times: the longest lag, as a multiple of that of `SETTINGS`.
    """

    width: int
    mixer: int
    batch: int
    budget: float
    times: int


SCALES: dict[Size, Scale] = {
    "cpu": Scale(32, 8_192, 16, 1e12, 1),
    "gpu": Scale(256, 524_288, 32, 1e16, 16),
}


def cells(width: int, longest: int) -> dict[str, Cell]:
    """The recurrences, by the name of their arm."""
    return {
        "Elman, orthogonal": Elman(width, recurrent_init="orthogonal"),
        "LSTM": LSTM(width),
        "LSTM, chrono": LSTM(width, chrono=longest),
        "GRU": GRU(width),
        "minGRU": MinGRU(width),
        "LRU": LRU(width),
        "S5": S5(width),
        "S6": S6(width),
        "RG-LRU": RGLRU(width),
        "DeltaNet": DeltaNet(width),
        "DeltaNet negative": DeltaNet(width, negative_eigenvalues=True),
        "gated DeltaNet": GatedDeltaNet(width),
        "sLSTM": SLSTM(width),
        "mLSTM": MLSTM(width),
    }


# The recurrences that are asked with attention too.
HYBRIDS = ("LSTM", "GRU", "minGRU", "DeltaNet", "LRU")


def arms(name: str, size: Size) -> dict[str, tuple[Cell | None, Architecture]]:
    """Every arm on one task: its cell, and the model around it."""
    setting, scale = SETTINGS[name], SCALES[size]
    plain = Architecture(
        width=scale.width,
        depth=2,
        mlp=2 * scale.width,
        mixer_parameters=scale.mixer,
        convolution=setting.convolution,
    )
    by_name = cells(scale.width, setting.task.lag * scale.times)
    full, window = (dataclasses.replace(plain, attention=kind) for kind in ("full", "window"))
    return {
        **{arm: (cell, plain) for arm, cell in by_name.items()},
        **{f"{arm} + attention": (by_name[arm], full) for arm in HYBRIDS},
        "attention only, rotary": (None, full),
        "attention only, no positions": (None, dataclasses.replace(full, positions="none")),
        "attention only, ALiBi": (None, dataclasses.replace(full, positions="alibi")),
        "attention only, window": (None, window),
    }


def experiment(name: str, size: Size, arm: str) -> Experiment:
    """One arm on one task."""
    setting, scale = SETTINGS[name], SCALES[size]
    task = setting.task
    if isinstance(task, Recall):  # it has more words than steps
        task = dataclasses.replace(task, vocab=task.vocab * scale.times)
    training = Training(
        batch_size=scale.batch,
        dispatch=20,
        eval_size=128,
        solved=SOLVED,
        stop_when_solved=False,
        budget=scale.budget,
        curriculum=setting.first,
    )
    cell, layers = arms(name, size)[arm]
    return Experiment(task.at_lag(task.lag * scale.times), cell, layers, training, seeds=5)


def question(name: str, size: Size) -> Question:
    """All arms on one task."""
    jobs = {arm: experiment(name, size, arm) for arm in arms(name, size)}
    return Question(SETTINGS[name].title, jobs, SOLVED, GRID)


def measure_more(jobs: Arms, rows: Sequence[Row], out: Path) -> dict[str, Any]:
    """What `results.json` has beside the rows.

    Returns:
        `frontiers`, when each seed solved each lag: `arm, seed, lag, spent` (operations until
        then). `interventions`, of the arms with attention: `arm, times` (of the horizon), and the
        entries of `longlag.analysis.interventions.knock_outs`.
    """
    return {"frontiers": _frontiers(jobs, out), "interventions": _intervene(jobs, rows, out)}


def _frontiers(jobs: Arms, out: Path) -> list[dict[str, Any]]:
    frontiers = []
    for arm in jobs:
        results = json.loads((out / folder(arm) / "results.json").read_text(encoding="utf-8"))
        for curve in results["curves"]:
            before = 0
            spending = curve.get("spent", curve["steps"])  # a smoke run has no budget
            for reached, frontier, spent in zip(curve["reached"], _fronts(curve), spending):
                if reached > before:
                    seed = curve["seed"]
                    frontiers.append({"arm": arm, "seed": seed, "lag": frontier, "spent": spent})
                before = reached
    return frontiers


def _intervene(jobs: Arms, rows: Sequence[Row], out: Path) -> list[dict[str, Any]]:
    """Knock-outs of hybrids at the horizon, and what is put back beyond it. Without one, none."""
    measured: list[dict[str, Any]] = []
    for arm, job in jobs.items():
        near = near_rows([row for row in rows if row["arm"] == arm])
        # A smoke run has no horizon in its rows.
        lags = {row["seed"]: row["horizon"] for row in near if row.get("horizon")}
        assert isinstance(job.architecture, Architecture)
        if not lags or job.architecture.attention == "none":
            continue
        run = out / folder(arm)
        by_times = {1: knock_outs(run, lags)} if job.cell is not None else {}
        by_times[BEYOND_TIMES] = beyond(run, lags, BEYOND_TIMES)
        for times, parts in by_times.items():
            measured += [{"arm": arm, "times": times} | part for part in parts]
    return measured


CHANGES = (*KNOCK_OUTS, *BEYOND)
INTERVENTION_COLUMNS = ("arm", "at", "whole", *CHANGES)


def intervention_lines(results: Results) -> list[tuple[str, ...]]:
    """A line of `INTERVENTION_COLUMNS` for every arm and place: medians over the seeds."""
    lines: list[tuple[str, ...]] = []
    by_place: dict[tuple[str, int], dict[str, list[Row]]] = {}
    for part in results.get("interventions", []):
        parts = by_place.setdefault((part["arm"], part["times"]), {})
        parts.setdefault(part["part"], []).append(part)
    for (arm, times), parts in by_place.items():
        cells = (spread(parts.get(change, [])) for change in ("none", *CHANGES))
        lines.append((arm, f"{times}×", *cells))
    return lines


def _fronts(curve: Mapping[str, Any]) -> list[int]:
    """The frontier at which each evaluation was made: the one before it."""
    return [curve["frontier"][0], *curve["frontier"][:-1]]


COLUMNS = (
    *("arm", "horizon", "solved at 1×", "2×", "4×", "16×", "operations to the horizon"),
    *("steps", "rate", "params", "state at the horizon", "time"),
)


def lines(results: Results) -> list[tuple[str, ...]]:
    """A line of `COLUMNS` for every arm: medians over the seeds, their range in brackets."""
    table = []
    for arm, rows in rows_by_arm(results).items():
        near = near_rows(rows)
        beyond = (
            spread([row for row in rows if row["lag"] == times * row["train_lag"]])
            for times in (1, 2, 4, 16)
        )
        table.append(
            (
                arm,
                spread(near, "horizon", 0),
                *beyond,
                _operations(results, arm, near),
                f"{statistics.median(row['steps'] for row in near):,.0f}",
                f"{near[0]['rate']:g}",
                f"{near[0]['parameters']:,}",
                f"{statistics.median(row['state_bytes'] for row in near):,.0f} B",
                time_of(near),
            )
        )
    return table


def intervention_table(results: Results) -> Table:
    """Accuracy of trained models with one thing changed."""
    caption = "Accuracy of the trained models with one thing changed, at the horizon and beyond."
    return Table(INTERVENTION_COLUMNS, intervention_lines(results), caption)


def _operations(results: Results, arm: str, near: Sequence[Row]) -> str:
    """The median of what the seeds spent until they solved their horizon."""
    horizons = {row["seed"]: row["horizon"] for row in near}
    spent = [
        point["spent"]
        for point in results["frontiers"]
        if point["arm"] == arm and point["lag"] == horizons.get(point["seed"])
    ]
    return f"{statistics.median(spent):.2g}" if spent else ""


def verdict(results: Results) -> str:
    """What stands under the table."""
    rows = results["rows"]
    budget = max(row.get("spent", 0) for row in rows)
    trials = sum(trial.get("spent", 0) for trial in results.get("trials", ()))
    trained = sum(row.get("spent", 0) for row in rows if row["lag"] == row["train_lag"])
    return (
        f"The horizon is the longest lag that a seed solved ({SOLVED:.2f} in validation) within "
        f"{budget:.1e} operations. 1× to 16×: accuracy of the test set at that many times the "
        "horizon, or the first lag where none was solved. Every seed has the same budget. The "
        f"trials of learning rates took {trials:.1e} operations beside the {trained:.1e} of the "
        f"table. {results['meta']['core_hours']:.2f} core-hours."
    )


def figure(results: Results) -> Plot:
    """The horizon against operations and against bytes of state."""
    return Plot("horizon", {key: results[key] for key in ("rows", "frontiers")})


QUESTIONS = {name: functools.partial(question, name) for name in SETTINGS}
RECORDED = tuple(
    Recorded(
        f"horizon-{name}",
        setting.title,
        15,
        columns=COLUMNS,
        lines=lines,
        verdict=verdict,
        figure=figure,
        further=intervention_table,
    )
    for name, setting in SETTINGS.items()
)


if __name__ == "__main__":
    script(
        "horizon",
        __doc__,
        QUESTIONS,
        lambda part: {
            "also": measure_more,
            "columns": COLUMNS,
            "lines_of": lines,
            "verdict_of": verdict,
        },
    )
