"""From one row per seed to one entry per task and arm: medians, successes, intervals, costs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["FAR", "FLOOR", "Entry", "Spread", "flaws", "summarise", "wilson"]

FLOOR = "floor: "
"""How the arm of a row begins when it is a floor and not a trained model."""

FAR = 4
"""The far test has this many times the lag, or the length, of the training sequences."""

REQUIRED = (
    *("task", "arm", "seed", "length", "accuracy", "exact_match", "loss"),
    *("steps", "parameters", "state_bytes", "seconds"),
)


@dataclass(frozen=True)
class Spread:
    """What several seeds reached. All fields are NaN if every one of them diverged.

    Attributes:
        median: the middle seed.
        quartiles: the 25th and the 75th percentile, linearly interpolated.
        range: the lowest and the highest seed.
    """

    median: float
    quartiles: tuple[float, float]
    range: tuple[float, float]

    @classmethod
    def of(cls, values: Iterable[float | None]) -> Spread:
        """The spread of the finite ones among `values`; JSON has None where we have NaN."""
        finite = [value for value in values if value is not None and math.isfinite(value)]
        if not finite:
            return cls(math.nan, (math.nan, math.nan), (math.nan, math.nan))
        low, q1, median, q3, high = (float(q) for q in np.percentile(finite, [0, 25, 50, 75, 100]))
        return cls(median, (q1, q3), (low, high))


@dataclass(frozen=True)
class Entry:
    """One arm on one task, over its seeds.

    Attributes:
        task: name of the task.
        arm: name of the arm; a floor without its prefix.
        is_floor: whether this is a predictor that was not trained.
        threshold: the accuracy from which a seed counts as having solved the task.
        length: T, the length trained at, in steps.
        accuracy: accuracy at `length`, in [0, 1].
        far_length: T of the far test, in steps; None where there was none.
        far_accuracy: accuracy at `far_length`.
        exact_match: median share of sequences with every answer right, at `length`.
        loss: median loss at `length`, in the units of the task.
        seeds: how many were trained.
        diverged: how many of them ended in a loss that was not finite.
        flaws: the seeds at `length` whose numbers are not all finite, from `flaws`.
        far_flaws: the same at `far_length`.
        solved: how many reached the threshold at `length`.
        far_solved: how many reached it at `far_length`.
        steps: optimiser steps until solved, over the seeds that know them; None if none does.
        budget: the optimiser steps that a seed was given.
        parameters: how many numbers are trained.
        state_bytes: bytes of state after `length` steps, for one sequence.
        far_state_bytes: the same after `far_length` steps.
        seconds: median time of training, in seconds.
    """

    task: str
    arm: str
    is_floor: bool
    threshold: float
    length: int
    accuracy: Spread
    far_length: int | None
    far_accuracy: Spread | None
    exact_match: float
    loss: float
    seeds: int
    diverged: int
    flaws: tuple[str, ...]
    far_flaws: tuple[str, ...]
    solved: int
    far_solved: int
    steps: Spread | None
    budget: int
    parameters: int
    state_bytes: int
    far_state_bytes: int | None
    seconds: float

    @property
    def solves(self) -> bool:
        """Whether more than half of the seeds did; a seed that diverged did not."""
        return 2 * self.solved > self.seeds

    @property
    def extrapolates(self) -> bool | None:
        """Whether what was solved at the training lengths still is, `FAR` times further on.

        None where the question does not arise: not tested, or not solved in the first place.
        """
        if self.far_accuracy is None or not self.solves:
            return None
        return 2 * self.far_solved > self.seeds

    @property
    def success_interval(self) -> tuple[float, float]:
        """Wilson's 95% interval for the rate at which seeds solve the task."""
        return wilson(self.solved, self.seeds)


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """Wilson's 95% score interval for a rate; unlike the normal one it is honest about 3 of 3.

    Args:
        successes: between 0 and `trials`.
        trials: at least 1.

    Returns:
        lower and upper bound in [0, 1].
    """
    if not 0 <= successes <= trials or trials < 1:
        raise ValueError(
            f"wilson: expected 0 <= successes <= trials, trials >= 1; got {successes} of {trials}"
        )
    from scipy.stats import binomtest  # takes a second

    low, high = binomtest(successes, trials).proportion_ci(0.95, "wilson")
    return float(low), float(high)


def summarise(
    rows: Sequence[Mapping[str, Any]], threshold: float = 0.95, arms: Iterable[str] = ()
) -> list[Entry]:
    """Gathers rows (one per task, arm, seed and test length) into entries, task by task.

    Args:
        rows: see `longlag.report` for their keys. Each task is trained at `train_length`, or
            where no row says so at its shortest length.
        threshold: the accuracy from which a seed counts as having solved the task.
        arms: the order of the arms; those not named follow as they appear, floors come last.

    Raises:
        ValueError: a row lacks a key, two rows of a task disagree on `train_length`, or an arm
            was not tested at it.
    """
    for row in rows:
        missing = [key for key in REQUIRED if key not in row]
        if missing:
            raise ValueError(
                f"row: expected keys {list(REQUIRED)}, got {sorted(row)}, lacks {missing}"
            )
    order = list(dict.fromkeys([*arms, *(row["arm"] for row in rows)]))
    order.sort(key=lambda arm: arm.startswith(FLOOR))
    entries = []
    for task in dict.fromkeys(row["task"] for row in rows):
        of_task = [row for row in rows if row["task"] == task]
        length = _trained_length(task, of_task)
        for arm in order:
            of_arm = [row for row in of_task if row["arm"] == arm]
            if of_arm:
                entries.append(_entry(of_arm, length, threshold))
    return entries


def _trained_length(task: str, rows: Sequence[Mapping[str, Any]]) -> int:
    lengths = {int(row["train_length"]) for row in rows if row.get("train_length")}
    if len(lengths) > 1:
        raise ValueError(f"{task}: expected one train_length, got {sorted(lengths)}")
    return lengths.pop() if lengths else min(row["length"] for row in rows)


def _entry(rows: Sequence[Mapping[str, Any]], length: int, threshold: float) -> Entry:
    near = [row for row in rows if row["length"] == length]
    far = [row for row in rows if _is_far(row, length)]
    task, arm = rows[0]["task"], rows[0]["arm"]
    if not near:
        lengths = sorted({row["length"] for row in rows})
        raise ValueError(f"{task}, {arm}: expected a row of length {length}, got {lengths}")
    accuracies = [_number(row["accuracy"]) for row in near]
    far_accuracies = [_number(row["accuracy"]) for row in far]
    steps = [row["solved_at"] for row in near if row.get("solved_at") is not None]
    return Entry(
        task=task,
        arm=arm.removeprefix(FLOOR),
        is_floor=arm.startswith(FLOOR),
        threshold=threshold,
        length=length,
        accuracy=Spread.of(accuracies),
        far_length=far[0]["length"] if far else None,
        far_accuracy=Spread.of(far_accuracies) if far else None,
        exact_match=Spread.of(row["exact_match"] for row in near).median,
        loss=Spread.of(row["loss"] for row in near).median,
        seeds=len(near),
        diverged=sum(not math.isfinite(value) for value in accuracies),
        flaws=flaws(near),
        far_flaws=flaws(far),
        solved=sum(value >= threshold for value in accuracies),
        far_solved=sum(value >= threshold for value in far_accuracies),
        steps=Spread.of(steps) if steps else None,
        budget=max(_number(row.get("budget") or row["steps"], 0) for row in near),
        parameters=_number(near[0]["parameters"], 0),
        state_bytes=_number(near[0]["state_bytes"], 0),
        far_state_bytes=_number(far[0]["state_bytes"], 0) if far else None,
        seconds=Spread.of(row["seconds"] for row in near).median,
    )


def flaws(rows: Iterable[Mapping[str, Any]], key: str = "accuracy") -> tuple[str, ...]:
    """In words, how many rows hold numbers that are not finite, by what is wrong with them.

    An answer that is NaN counts as wrong, so the accuracy of its row is a number. It is named here.

    Args:
        rows: of results, of trained arms.
        key: what the row of a seed that diverged has no number of.

    Returns:
        "2 diverged" (no number at all), "1 answered NaN" (a share of the answers, `nan`, is NaN)
        and "1 without a finite loss" (otherwise), those that there are.
    """
    counts = {"diverged": 0, "answered NaN": 0, "without a finite loss": 0}
    for row in rows:
        if row.get("nan"):
            counts["answered NaN"] += 1
        elif not math.isfinite(_number(row.get("accuracy", row.get(key)))):
            counts["diverged"] += 1
        elif not math.isfinite(_number(row.get("loss", 0.0))):
            counts["without a finite loss"] += 1
    return tuple(f"{count} {what}" for what, count in counts.items() if count)


def _is_far(row: Mapping[str, Any], length: int) -> bool:
    """By the lag where the row knows it: copy memory is longer than its lag by a constant."""
    if row.get("lag") and row.get("train_lag"):
        return row["lag"] == FAR * row["train_lag"]
    return row["length"] == FAR * length


def _number(value: Any, default: float = math.nan) -> Any:
    """JSON has no NaN: a seed that diverged, and a floor's missing costs, arrive as None."""
    return default if value is None else value
