"""Runs: an experiment carried out in a run folder, interrupted, resumed, and loaded again."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from longlag.runs.checkpoint import checkpoints
from longlag.runs.experiment import Experiment
from longlag.runs.folder import RunFolder
from longlag.runs.registry import own_sources
from longlag.system.atomic_files import replace_file, writing
from longlag.system.interrupt import Interruption
from longlag.tasks.batch_checks import check_shapes, check_values
from longlag.training.evaluation import (
    SOLVED_STREAK,
    Evaluation,
    evaluate,
    evaluation_batch,
    note_evaluation,
)
from longlag.training.step import TrainState, dispatch, init_states

__all__ = ["Progress", "carry_out", "create", "extend", "floor_rows", "reopen", "results"]


CHECKPOINT_SECONDS = 10.0


@dataclasses.dataclass(frozen=True)
class Progress:
    """Where a run stands after a dispatch.

    Attributes:
        step: steps taken by the seeds that still train.
        lines: what was put down in `metrics.jsonl`, one mapping per seed that trained.
        messages: what the user should read now.
    """

    step: int
    lines: list[dict[str, Any]]
    messages: tuple[str, ...] = ()


def create(experiment: Experiment, path: Path | None, root: Path, name: str) -> RunFolder:
    """Makes the folder of a new run, with copies of a cell and a task of the user's own in it.

    Args:
        experiment: what will be run.
        path: the folder, or None for a new one in `root`.
        root: where folders without a path of their own are made.
        name: the name of a new folder there; a number is added if it is taken.

    Raises:
        ValueError: the path exists.
        DiskError: the disk refused.
    """
    config = experiment.config()
    decay = experiment.weight_decay
    notes = None if decay is None else {"weight_decay": decay}
    if path is not None:
        folder = RunFolder.create(path, config, notes)
    else:
        folder = RunFolder.create_named(root, name, config, notes)
    for what, source in own_sources(experiment.task, experiment.cell).items():
        with writing(f"the {what}", folder.path / f"{what}.py"):
            (folder.path / f"{what}.py").write_bytes(source.text)
    return folder


def reopen(experiment: Experiment, path: Path) -> RunFolder:
    """Opens the folder of a run that is to go on, perhaps with more steps (`extend`).

    Args:
        experiment: what is asked for.
        path: the folder.

    Raises:
        ValueError: it is no run folder, it was made with another configuration, or a cell or task
            of the user's own is not what it was.
        DiskError: the disk refused.
    """
    folder = RunFolder.open(path)
    stored = Experiment.from_config(folder.config, folder.path).config()
    for what, source in own_sources(experiment.task, experiment.cell).items():
        copy = folder.path / f"{what}.py"
        if copy.is_file() and copy.read_bytes() != source.text:
            raise ValueError(
                f"{folder.path} was made with another {source.path}: expected it as in {copy}; "
                "move the folder away to begin anew"
            )
        if stored[what] is not None:
            stored[what]["name"] = folder.config[what]["name"]  # the copy goes by it, too
    stored["training"]["steps"] = experiment.training.steps  # `extend` checks them
    folder.require_same(experiment.config(), stored)
    return extend(experiment, folder)


def extend(experiment: Experiment, folder: RunFolder) -> RunFolder:
    """Gives a run the steps of an experiment, more than it was made with; else changes nothing.

    `config.json` gets the new number, and results that stand for fewer steps are removed. What
    was measured stays. `carry_out` then trains on from the newest checkpoint. Seeds that failed,
    or stopped because they solved the task, stay as they are. Evaluations follow each other at
    the distance of `Training.dispatch` from the last step on.

    Args:
        experiment: what the run is to be; all but `training.steps` is as in the folder.
        folder: the run.

    Returns:
        The folder with its new configuration.

    Raises:
        ValueError: the learning rate depends on the number of steps, or there are fewer than the
            run has taken.
        DiskError: the disk refused.
    """
    steps, stored = experiment.training.steps, folder.config["training"]["steps"]
    if steps == stored:
        return folder
    if experiment.training.depends_on_steps:
        raise ValueError(
            f"steps: expected {stored}, those of {folder.path}, since the learning rate of "
            f"schedule {experiment.training.schedule!r} depends on the last step; got {steps}"
        )
    taken = max(checkpoints(folder.checkpoints), default=0)
    if steps < taken:
        raise ValueError(
            f"steps: expected at least {taken}, which {folder.path} has taken; got {steps}"
        )
    # Results first: without them, a run that is cut here writes them again.
    for name in ("results.json", "report.html"):
        with writing("the removal of old results", folder.path):
            (folder.path / name).unlink(missing_ok=True)
    training = folder.config["training"] | {"steps": steps}
    return folder.replace_config(folder.config | {"training": training})


def carry_out(
    experiment: Experiment,
    folder: RunFolder,
    *,
    stop: Interruption | None = None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> dict[str, Any] | None:
    """Trains, from the newest checkpoint if there is one, tests, and writes `results.json`.

    A run that was cut anywhere and resumed leaves the same metrics, but for times, as one that was
    not. A seed with a loss or gradient that is not finite ends there; the others go on.

    With more steps than `folder.config` has, the run goes on to those (`extend`).

    Args:
        experiment: what to run; `folder.config` is its configuration, but for the steps.
        folder: where.
        stop: looked at after every dispatch; once true, the run is saved and left.
        on_progress: told after every dispatch.

    Returns:
        The results (see `results`), or None if the run was stopped before its end.

    Raises:
        ValueError: the task does not draw what it declares; the steps cannot be changed; weight
            decay shrank other parameters until now.
        CheckpointError: there are checkpoints, and none is intact.
        DiskError: the disk refused.
    """
    model, task, training = experiment.model, experiment.task, experiment.training
    for lag in experiment.lags:
        check_shapes(task.at_lag(lag))
    validation = evaluation_batch(task, training.eval_size, "validation")
    check_values(task.evaluation_task("validation"), validation)
    folder = extend(experiment, folder)
    states = init_states(model, training, experiment.seeds, experiment.first_seed)
    done = 0
    if checkpoints(folder.checkpoints):
        restored = folder.resume(states)
        states, done = restored.tree, restored.step
        on_progress(Progress(done, [], tuple(restored.skipped)))
    else:
        folder.truncate(-1)
    active = _active_seeds(states, experiment)
    if done and active.any():
        _require_same_decay(experiment, folder)
    saved, saved_at = done, -CHECKPOINT_SECONDS
    while active.any() and not stop:
        began = time.perf_counter()
        states, loss = dispatch(model, task, training, states, jnp.asarray(active))
        measured = evaluate(model, task, training, states.params, validation)
        noted = note_evaluation(states, measured.accuracy, training.solved)
        # Seeds that had ended before this dispatch keep the count that they ended with.
        states = states.replace(  # type: ignore[attr-defined]
            streak=jnp.where(active, noted.streak, states.streak),
            solved_at=jnp.where(active, noted.solved_at, states.solved_at),
        )
        done = min(done + training.dispatch, training.steps)
        now, loss, measured = jax.device_get((states, loss, measured))
        seconds = (time.perf_counter() - began) / active.sum()
        lines, messages = _lines(now, loss, measured, active, done, seconds)
        folder.append(lines)
        active = _active_seeds(states, experiment)
        if time.perf_counter() - saved_at > CHECKPOINT_SECONDS:
            folder.save(done, states)
            saved, saved_at = done, time.perf_counter()
        on_progress(Progress(done, lines, messages))
    # After the loop: a signal may come at any line of it.
    if saved < done:
        folder.save(done, states)
    if active.any():
        return None
    outcome = results(experiment, folder, states)
    with writing("the results", folder.path):
        # A run that had ended before may be resumed too, and has results already.
        text = json.dumps(outcome, indent=1, allow_nan=False) + "\n"
        replace_file(folder.path / "results.json", text)
    return outcome


def _require_same_decay(experiment: Experiment, folder: RunFolder) -> None:
    """Refuses to go on with other weights decaying: the numbers would be of two optimisers."""
    expected, recorded = experiment.weight_decay, folder.env.get("weight_decay")
    if expected != recorded:
        until_now = "every parameter" if recorded is None else ", ".join(recorded["decays"])
        raise ValueError(
            f"{folder.path} was trained with weight decay of {until_now} until now; expected "
            f"{', '.join((expected or {'decays': ['none']})['decays'])}. Begin the run anew"
        )


def _active_seeds(states: TrainState, experiment: Experiment) -> np.ndarray:
    ended = np.asarray(states.failed) | (np.asarray(states.step) >= experiment.training.steps)
    if experiment.training.stop_when_solved:
        ended |= np.asarray(states.streak) >= SOLVED_STREAK
    return ~ended


def _lines(
    states: TrainState,
    loss: np.ndarray,
    measured: Evaluation,
    active: np.ndarray,
    done: int,
    seconds: float,
) -> tuple[list[dict[str, Any]], tuple[str, ...]]:
    """The lines of the metrics after a dispatch, `[S]` seeds, and the messages for the user."""
    lines, messages = [], []
    for i in np.flatnonzero(active):
        lines.append(
            {
                "step": done,
                "seed": int(states.seed[i]),
                "loss": float(loss[i]),
                "grad_norm": float(states.norm[i]),
                "validation_loss": float(measured.loss[i]),
                "accuracy": float(measured.accuracy[i]),
                "exact_match": float(measured.exact_match[i]),
                "seconds": round(float(seconds), 3),
            }
        )
        lines[-1] |= _nan_share(measured, int(i))
        if states.failed[i]:
            lines[-1]["failed_at"] = int(states.step[i])
            messages.append(
                f"seed {states.seed[i]} ended at step {states.step[i]}: the loss or its gradient "
                f"is not finite (mean loss {loss[i]:g}, gradient norm {states.norm[i]:g})."
            )
    return lines, tuple(messages)


def _nan_share(measured: Evaluation, i: int) -> dict[str, float]:
    """The share of a seed's answers that are NaN, for a row, which names it only if there are."""
    share = float(measured.nan[i])
    return {"nan": share} if share else {}


def results(experiment: Experiment, folder: RunFolder, states: TrainState) -> dict[str, Any]:
    """What a finished run found: `rows`, `curves` and `by_lag`, as `longlag.report` takes them.

    The test set of every lag is read once, here.
    """
    model, task, training = experiment.model, experiment.task, experiment.training
    tasks = [task.at_lag(lag) for lag in experiment.lags]
    # Where there is one length there is nothing to pad; a picture could not be.
    longest = max(t.time_steps for t in tasks) if len(tasks) > 1 else None
    metrics = folder.metrics()
    task_name, arm = experiment.task_title, experiment.arm
    rows = []
    for tested in tasks:
        batch = evaluation_batch(tested, training.eval_size, "test", longest)
        measured = jax.device_get(evaluate(model, task, training, states.params, batch))
        costs = model.cost(tested.time_steps)
        for i, seed in enumerate(np.asarray(states.seed).tolist()):
            failed, solved_at = bool(states.failed[i]), int(states.solved_at[i])
            solved = int(states.streak[i]) >= SOLVED_STREAK
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
                    "steps": int(states.step[i]),
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
                | ({} if failed else _nan_share(measured, i))
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
