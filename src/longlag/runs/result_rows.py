"""Results of a finished run, as rows of the table and lines of the plots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from longlag.runs.experiment import Experiment
from longlag.runs.folder import RunFolder
from longlag.system.hosts import on_first
from longlag.training.curriculum import Stage, spent, without_weights
from longlag.training.evaluation import SOLVED_STREAK, evaluate, evaluation_batch, nan_share
from longlag.training.meshes import fetch, place
from longlag.training.step import TrainState

__all__ = ["arm_at_rate", "floor_rows", "results"]


def results(
    experiment: Experiment,
    folder: RunFolder,
    states: TrainState,
    stages: Sequence[Stage],
    mesh: Mesh | None = None,
) -> dict[str, Any]:
    """Results of a finished run: `rows`, `curves` and `by_lag`, as `longlag.report` takes them.

    The test set of every lag is read once, here. The states are on the devices of `mesh`.
    """
    model, task, training = experiment.model, experiment.task, experiment.training
    metrics, now = on_first(folder.metrics), fetch(without_weights(states))
    labels = experiment.labels
    operations = spent(now, stages) if training.budget else None
    trained = _trained_lags(now, stages)
    wanted = _tested_lags(experiment, trained)
    # Where there is one length there is nothing to pad, and a picture could not be. Lags that are
    # far apart would cost too much at one length.
    padded = len(wanted) > 1 and now.curriculum is None
    longest = max(task.at_lag(lag).time_steps for lag in wanted) if padded else None
    rows = []
    for lag, members in wanted.items():
        tested = task.at_lag(lag)
        batch = place(mesh, evaluation_batch(tested, training.eval_size, "test", longest))
        active = place(mesh, jnp.asarray(members), "seeds")
        measured = fetch(evaluate(model, task, training, states.params, batch, mesh, active))
        costs = model.cost(tested.time_steps)
        for i in map(int, np.flatnonzero(members)):
            failed, solved_at = bool(now.failed[i]), int(now.solved_at[i])
            solved = int(now.streak[i]) >= SOLVED_STREAK
            row: dict[str, Any] = {
                "task": experiment.task_title,
                "arm": arm_at_rate(experiment.arm, labels[i]),
                **labels[i],
                "accuracy": None if failed else float(measured.accuracy[i]),
                "exact_match": None if failed else float(measured.exact_match[i]),
                # JSON knows no infinity, which a longer sequence may reach.
                "loss": float(measured.loss[i])
                if not failed and np.isfinite(measured.loss[i])
                else None,
                "length": tested.time_steps,
                "train_length": task.at_lag(trained[i]).time_steps,
                "lag": tested.lag,
                "train_lag": trained[i],
                "steps": int(now.step[i]),
                "budget": int(now.step[i]) if training.budget else training.steps,
                "solved_at": solved_at if solved else None,
                "parameters": costs.parameters,
                "state_bytes": costs.state_bytes,
                "cache_bytes": costs.cache_bytes,
                "flops_per_token": costs.flops_per_token,
                "seconds": round(sum(m["seconds"] for m in _lines_of(labels[i], metrics)), 2),
                "by_position": [
                    None if np.isnan(x) else round(float(x), 4)
                    for x in measured.by_position[i][: tested.time_steps]
                ],
            }
            if operations is not None:
                row["spent"] = float(operations[i])
            if now.curriculum is not None:
                row["horizon"] = trained[i] if now.curriculum.reached[i] else 0
            rows.append(row | ({} if failed else nan_share(measured, i)))
    kept = ("task", "arm", "seed", "rate", "lag", "train_lag", "accuracy", "nan")
    by_lag = [{key: row[key] for key in kept if key in row} for row in rows]
    curves = [_curve(experiment, label, metrics) for label in labels]
    return {"rows": rows, "by_lag": by_lag, "curves": curves, "threshold": training.solved}


def _trained_lags(now: TrainState, stages: Sequence[Stage]) -> list[int]:
    """The longest lag that each seed solved, or the shortest; without a curriculum the only one."""
    last = [len(stages) - 1] * len(now.seed)
    if now.curriculum is not None:
        last = np.maximum(now.curriculum.reached - 1, 0).tolist()
    return [stages[k].task.lag for k in last]


def _tested_lags(experiment: Experiment, trained: Sequence[int]) -> dict[int, np.ndarray]:
    """The lags to test at, and `[S]` bool for each: which seeds are tested there."""
    if not experiment.training.curriculum:
        return {lag: np.ones(len(trained), bool) for lag in experiment.lags}
    of_seeds = [experiment.lags_beyond(lag) for lag in trained]
    every = dict.fromkeys(lag for lags in of_seeds for lag in lags)
    return {lag: np.asarray([lag in lags for lags in of_seeds]) for lag in sorted(every)}


def arm_at_rate(arm: str, row: Mapping[str, Any]) -> str:
    """The arm of a row in a table: at each rate of a grid it is an arm of its own."""
    return f"{arm}, rate {row['rate']:g}" if "rate" in row else arm


def _lines_of(label: Mapping[str, Any], metrics: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [line for line in metrics if label.items() <= line.items()]


def _curve(
    experiment: Experiment, label: Mapping[str, Any], metrics: list[dict[str, Any]]
) -> dict[str, Any]:
    """What was measured of a seed while it trained."""
    of_seed = _lines_of(label, metrics)
    names = ["loss", "validation_loss", "accuracy"]
    names += [name for name in ("spent", "reached", "frontier") if of_seed and name in of_seed[0]]
    return {
        "task": experiment.task_title,
        "arm": arm_at_rate(experiment.arm, label),
        **label,
        "steps": [m["step"] for m in of_seed],
        **{name: [m[name] for m in of_seed] for name in names},
    }


def floor_rows(experiment: Experiment) -> list[dict[str, Any]]:
    """The floors of a task (scores of simple predictors) as rows of the table, by test length."""
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
