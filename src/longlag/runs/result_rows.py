"""What a finished run found, as rows of the table and lines of the plots."""

from __future__ import annotations

from typing import Any

import numpy as np
from jax.sharding import Mesh

from longlag.runs.experiment import Experiment
from longlag.runs.folder import RunFolder
from longlag.system.hosts import on_first
from longlag.training.evaluation import SOLVED_STREAK, Evaluation, evaluate, evaluation_batch
from longlag.training.meshes import fetch, place
from longlag.training.step import TrainState

__all__ = ["floor_rows", "nan_share", "results", "without_weights"]


def without_weights(states: TrainState) -> TrainState:
    """The states without parameters and what else is as large."""
    return states.replace(params=None, opt_state=None, carry=None)  # type: ignore[attr-defined]


def nan_share(measured: Evaluation, i: int) -> dict[str, float]:
    """The share of a seed's answers that are NaN, for a row, which names it only if there are."""
    share = float(measured.nan[i])
    return {"nan": share} if share else {}


def results(
    experiment: Experiment, folder: RunFolder, states: TrainState, mesh: Mesh | None = None
) -> dict[str, Any]:
    """What a finished run found: `rows`, `curves` and `by_lag`, as `longlag.report` takes them.

    The test set of every lag is read once, here. The states are on the devices of `mesh`.
    """
    model, task, training = experiment.model, experiment.task, experiment.training
    tasks = [task.at_lag(lag) for lag in experiment.lags]
    # Where there is one length there is nothing to pad; a picture could not be.
    longest = max(t.time_steps for t in tasks) if len(tasks) > 1 else None
    metrics, now = on_first(folder.metrics), fetch(without_weights(states))
    task_name, arm = experiment.task_title, experiment.arm
    rows = []
    for tested in tasks:
        batch = place(mesh, evaluation_batch(tested, training.eval_size, "test", longest))
        measured = fetch(evaluate(model, task, training, states.params, batch, mesh))
        costs = model.cost(tested.time_steps)
        for i, seed in enumerate(now.seed.tolist()):
            failed, solved_at = bool(now.failed[i]), int(now.solved_at[i])
            solved = int(now.streak[i]) >= SOLVED_STREAK
            rows.append(
                {
                    "task": task_name,
                    "arm": arm,
                    "seed": seed,
                    "accuracy": None if failed else float(measured.accuracy[i]),
                    "exact_match": None if failed else float(measured.exact_match[i]),
                    # JSON knows no infinity, which a longer sequence may reach.
                    "loss": float(measured.loss[i])
                    if not failed and np.isfinite(measured.loss[i])
                    else None,
                    "length": tested.time_steps,
                    "train_length": task.time_steps,
                    "lag": tested.lag,
                    "train_lag": task.lag,
                    "steps": int(now.step[i]),
                    "budget": training.steps,
                    "solved_at": solved_at if solved else None,
                    "parameters": costs.parameters,
                    "state_bytes": costs.state_bytes,
                    "cache_bytes": costs.cache_bytes,
                    "flops_per_token": costs.flops_per_token,
                    "seconds": round(sum(m["seconds"] for m in metrics if m["seed"] == seed), 2),
                    "by_position": [
                        None if np.isnan(x) else round(float(x), 4)
                        for x in measured.by_position[i][: tested.time_steps]
                    ],
                }
                | ({} if failed else nan_share(measured, i))
            )
    kept = ("task", "arm", "seed", "lag", "train_lag", "accuracy", "nan")
    by_lag = [{key: row[key] for key in kept if key in row} for row in rows]
    curves = []
    for seed in experiment.seed_numbers:
        of_seed = [m for m in metrics if m["seed"] == seed]
        curves.append(
            {
                "task": task_name,
                "arm": arm,
                "seed": seed,
                "steps": [m["step"] for m in of_seed],
                "loss": [m["loss"] for m in of_seed],
                "validation_loss": [m["validation_loss"] for m in of_seed],
                "accuracy": [m["accuracy"] for m in of_seed],
            }
        )
    return {"rows": rows, "by_lag": by_lag, "curves": curves, "threshold": training.solved}


def floor_rows(experiment: Experiment) -> list[dict[str, Any]]:
    """The task's floors as rows of the table, one of each per test length."""
    task_name = experiment.task_title
    rows = []
    for lag in experiment.lags:
        tested = experiment.task.at_lag(lag)
        rows += [
            {
                "task": task_name,
                "arm": f"floor: {floor.note}",
                "seed": None,
                "accuracy": floor.accuracy,
                "exact_match": None,
                "loss": floor.loss,
                "length": tested.time_steps,
                "train_length": experiment.task.time_steps,
                "lag": lag,
                "train_lag": experiment.task.lag,
                "steps": 0,
                "parameters": None,
                "state_bytes": None,
                "seconds": None,
            }
            for floor in tested.floors()
        ]
    return rows
