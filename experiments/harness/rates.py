"""The learning rate of every arm, chosen from one grid by one rule.

Two seeds that no table uses train a third of the steps, or of the budget of operations, at every
rate of the grid. The greatest validation accuracy wins; with a curriculum, the most lags solved.
Among rates that are within `TIED` of it, the least validation loss wins.
Where the best rate lies at an end of the grid, and is no tie (`MARGIN`), the grid is extended until
it does not.

The grid of an arm is one run, whose states are all pairs of a rate and a seed. So an arm compiles
once, and a mesh shares out all pairs. A sweep runs arms side by side and no rates. With fewer arms
than cores, some cores are idle. Each rate beyond the grid is a further run of that rate alone.

The loss alone misleads where an arm must learn to be sure: additive attention that had begun to
look up had a greater loss than the same at ten times the rate, which went on guessing.
"""

from __future__ import annotations

import dataclasses
import math
import re
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from longlag.runs import Experiment, Workers, sweep
from longlag.training import Training

__all__ = ["GRID", "LADDER", "TRIAL_SEEDS", "choose_rates"]

GRID = (3e-4, 1e-3, 3e-3, 1e-2)
# What a grid may be extended to.
LADDER = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
TRIAL_SEEDS = 2
# Accuracies as far apart as this tell two seeds nothing; the loss does.
TIED = 0.03
# Of rates tied in accuracy, an end of the grid is the optimum only if it beats its neighbour by
# this part of the floor's loss: else both have solved the task, or neither has learned anything.
MARGIN = 0.01

Trial = dict[str, Any]


def choose_rates(
    arms: Mapping[str, Experiment], grid: Sequence[float], out: Path, workers: Workers
) -> tuple[dict[str, Experiment], list[Trial]]:
    """Every arm at its best rate, with seeds that follow those of the trials.

    Args:
        arms: experiments by name.
        grid: the rates that every arm is tried at, of `LADDER`.
        out: the folder; trials are in `out / "rates"`.
        workers: of the sweep.

    Returns:
        The arms, and what was found: `arm, rate, loss` (the mean of the seeds' last validation
        losses; None if one diverged), `accuracy`, `seconds` and `chosen`.
    """
    trials: dict[str, dict[float, Trial]] = {arm: {} for arm in arms}
    wanted = {arm: [*grid] for arm in arms}
    while any(wanted.values()):
        names = {
            arm: "-".join([folder(arm), "rates", *(f"{rate:g}" for rate in rates)])
            for arm, rates in wanted.items()
            if rates
        }
        jobs = {name: trial(arms[arm], wanted[arm]) for arm, name in names.items()}
        results = sweep(jobs, out / "rates", workers)
        for arm, name in names.items():
            for rate in wanted[arm]:
                trials[arm][rate] = _summarise_trial(arm, rate, results[name])
        wanted = {
            arm: _next_rates(trials[arm], job.task.floor().loss) if wanted[arm] else []
            for arm, job in arms.items()
        }
    chosen = {arm: best_rate(of_arm) for arm, of_arm in trials.items()}
    at_rate = {
        arm: dataclasses.replace(
            job,
            training=dataclasses.replace(job.training, learning_rate=chosen[arm]),
            first_seed=job.first_seed + TRIAL_SEEDS,
        )
        for arm, job in arms.items()
    }
    listed = [
        outcome | {"chosen": rate == chosen[arm]}
        for arm, of_arm in trials.items()
        for rate, outcome in sorted(of_arm.items())
    ]
    return at_rate, listed


def trial(job: Experiment, rates: Sequence[float]) -> Experiment:
    """The trial of some rates: a third of the steps or of the budget, tested at one lag alone."""
    budget = job.training.budget
    share = {"budget": budget / 3} if budget else {"steps": max(job.training.steps // 3, 1)}
    training = dataclasses.replace(
        job.training, learning_rate=Training.learning_rate, stop_when_solved=False, **share
    )
    lag = training.curriculum or job.task.lag
    return dataclasses.replace(
        job, training=training, seeds=TRIAL_SEEDS, test_lags=(lag,), rates=tuple(rates)
    )


def best_rate(trials: Mapping[float, Trial]) -> float:
    """The rate of the greatest accuracy; of those tied with it the least loss, then the smaller."""
    highest = max(_accuracy(trial) for trial in trials.values())
    tied = [rate for rate in sorted(trials) if _accuracy(trials[rate]) >= highest - TIED]
    return min(tied, key=lambda rate: _loss(trials[rate]))


def folder(arm: str) -> str:
    """The name of an arm's run folder."""
    return re.sub(r"[^a-z0-9.]+", "-", arm.lower()).strip("-")


def _summarise_trial(arm: str, rate: float, results: Mapping[str, Any]) -> Trial:
    curves = [curve for curve in results["curves"] if curve["rate"] == rate]
    # A seed counts once, however many lags it was tested at.
    rows = [
        row
        for row in results["rows"]
        if row["rate"] == rate and row.get("lag") == row.get("train_lag")
    ]
    last = [curve["validation_loss"][-1] for curve in curves]
    # A seed that failed keeps the parameters of the step before, whose loss may be finite.
    whole = all(row["accuracy"] is not None for row in rows)
    whole = whole and all(loss is not None and math.isfinite(loss) for loss in last)
    return {
        "arm": arm,
        "rate": rate,
        "loss": statistics.fmean(last) if whole else None,
        "accuracy": statistics.fmean(map(_last_accuracy, curves)),
        "seconds": round(sum(row["seconds"] for row in rows), 2),
        **({"spent": sum(row["spent"] for row in rows)} if "spent" in rows[0] else {}),
    }


def _last_accuracy(curve: Mapping[str, Any]) -> float:
    """With a curriculum, how many lags were solved is added."""
    return (curve["accuracy"][-1] or 0.0) + (curve["reached"][-1] if "reached" in curve else 0)


def _next_rates(trials: Mapping[float, Trial], floor: float) -> list[float]:
    """The next rate of the ladder if the best one tried is at an end and no tie."""
    rates = sorted(trials)
    at = rates.index(best_rate(trials))
    for end, neighbour, step in ((0, 1, -1), (len(rates) - 1, len(rates) - 2, 1)):
        if at == end and len(rates) > 1:
            here, inside = trials[rates[end]], trials[rates[neighbour]]
            more = _accuracy(here) - _accuracy(inside) > TIED
            less = _loss(inside) - _loss(here) > MARGIN * floor
            there = LADDER.index(rates[end]) + step
            if (more or less) and 0 <= there < len(LADDER):
                return [LADDER[there]]
    return []


def _loss(trial: Trial) -> float:
    return math.inf if trial["loss"] is None else trial["loss"]


def _accuracy(trial: Trial) -> float:
    return -math.inf if trial["loss"] is None else trial["accuracy"]
