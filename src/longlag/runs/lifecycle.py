"""Runs: an experiment carried out in a run folder, interrupted, resumed, and loaded again."""

from __future__ import annotations

import dataclasses
import functools
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from longlag.runs.checkpoint import checkpoints
from longlag.runs.experiment import Experiment
from longlag.runs.folder import RunFolder, run_name
from longlag.runs.registry import own_sources
from longlag.runs.result_rows import results
from longlag.system.atomic_files import replace_file, writing
from longlag.system.hosts import any_process, on_first
from longlag.system.interrupt import Interruption
from longlag.tasks.batch_checks import check_shapes, check_values
from longlag.training.curriculum import (
    Stage,
    plan,
    stages_of,
    take_turn,
    without_weights,
)
from longlag.training.grids import describe_label
from longlag.training.loop import metric_lines
from longlag.training.meshes import MeshSizes, choose_mesh, fetch, place
from longlag.training.parts import in_parts
from longlag.training.step import TrainState, dispatch, init_states

__all__ = ["Progress", "carry_out", "create", "devices_of", "extend", "reopen"]


CHECKPOINT_SECONDS = 10.0
# What a run may be given more of.
LIMITS = ("steps", "budget")


@dataclasses.dataclass(frozen=True)
class Progress:
    """Where a run stands after a dispatch.

    Attributes:
        step: steps taken by the seeds that still train.
        lines: what was put down in `metrics.jsonl`, one mapping per state that trained.
        messages: what the user should read now.
    """

    step: int
    lines: list[dict[str, Any]]
    messages: tuple[str, ...] = ()


def create(
    experiment: Experiment,
    path: str | Path | None = None,
    root: str | Path = "runs",
    name: str | None = None,
) -> RunFolder:
    """Makes the folder of a new run, with copies of a cell and a task of the user's own in it.

    Args:
        experiment: what will be run.
        path: the folder, or None for a new one in `root`.
        root: where folders without a path of their own are made.
        name: the name of a new folder there; a number is added if it is taken. None: the time,
            the task and the arm (`run_name`).

    Raises:
        ValueError: the path exists.
        DiskError: the disk refused.
    """
    config = experiment.config()
    decay = experiment.weight_decay
    notes = None if decay is None else {"weight_decay": decay}
    if path is not None:
        folder = RunFolder.create(Path(path), config, notes)
    else:
        name = run_name(experiment.task_title, experiment.arm) if name is None else name
        folder = RunFolder.create_named(Path(root), name, config, notes)
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
    for limit in LIMITS:
        stored["training"][limit] = getattr(experiment.training, limit)  # `extend` checks them
    folder.require_same(experiment.config(), stored)
    return extend(experiment, folder)


def extend(experiment: Experiment, folder: RunFolder) -> RunFolder:
    """Gives a run the steps or the budget of an experiment, if these are more than it has.

    `config.json` gets the new number, and results that stand for fewer steps are removed. What
    was measured stays. `carry_out` then trains on from the newest checkpoint. Seeds that failed,
    or stopped because they solved the task, stay as they are. Evaluations follow each other at
    the distance of `Training.dispatch` from the last step on.

    Args:
        experiment: what the run is to be; all but `training.steps` and `training.budget` is as in
            the folder.
        folder: the run.

    Returns:
        The folder with its new configuration.

    Raises:
        ValueError: the learning rate depends on the number of steps, or there are fewer than the
            run has taken.
        DiskError: the disk refused.
    """
    training, had = experiment.training, folder.config["training"]
    steps, stored = training.steps, had["steps"]
    budget = had.get("budget", 0.0)  # runs of earlier versions have none
    if steps == stored and training.budget == budget:
        return folder
    if training.budget < budget or (training.budget and not budget):
        expected = f"{budget:g} or more" if budget else "0"
        raise ValueError(
            f"budget: expected {expected}, since {folder.path} has {budget:g}; got "
            f"{training.budget:g}"
        )
    if training.depends_on_steps:
        raise ValueError(
            f"steps: expected {stored}, those of {folder.path}, since the learning rate of "
            f"schedule {training.schedule!r} depends on the last step; got {steps}"
        )
    taken = max(checkpoints(folder.checkpoints), default=0)
    if not training.budget and steps < taken:
        raise ValueError(
            f"steps: expected at least {taken}, which {folder.path} has taken; got {steps}"
        )
    # Results first: without them, a run that is cut here writes them again.
    for name in ("results.json", "report.html"):
        with writing("the removal of old results", folder.path):
            (folder.path / name).unlink(missing_ok=True)
    more = {limit: getattr(training, limit) for limit in LIMITS}
    return folder.replace_config(folder.config | {"training": had | more})


def devices_of(experiment: Experiment, mesh: str | MeshSizes) -> Mesh | None:
    """The mesh of an experiment, see `longlag.training.choose_mesh`. Nothing is compiled.

    Args:
        experiment: what to run.
        mesh: sizes, their text, "auto" or "none".

    Raises:
        ValueError: the mesh is impossible, or cuts time and the model or the training cannot.
    """
    model, task, training = experiment.model, experiment.task, experiment.training
    count = len(experiment.labels)
    devices = choose_mesh(mesh, training, count)
    if in_parts(devices):
        # The layers themselves refuse, when they are traced.
        states = jax.eval_shape(lambda: init_states(model, training, count))
        step = functools.partial(dispatch, model, task, training, mesh=devices)
        jax.eval_shape(step, states, jax.ShapeDtypeStruct((count,), "int32"))
    return devices


def carry_out(
    experiment: Experiment,
    folder: RunFolder,
    *,
    mesh: str | MeshSizes = "auto",
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
        mesh: the devices that share the work, see `devices_of`. It is noted in `env.json`. A run
            may be resumed on another mesh.
        stop: looked at after every dispatch; once true, the run is saved and left.
        on_progress: told after every dispatch.

    Returns:
        The results (see `results`), or None if the run was stopped before its end.

    Raises:
        ValueError: the mesh is impossible; the task does not draw what it declares; the steps
            cannot be changed; weight decay shrank other parameters until now.
        CheckpointError: there are checkpoints, and none is intact.
        DiskError: the disk refused.
    """
    model, task, training = experiment.model, experiment.task, experiment.training
    devices = devices_of(experiment, mesh)
    for lag in experiment.lags:
        check_shapes(task.at_lag(lag))
    stages = stages_of(model, task, training, devices)
    first = stages[0]
    check_values(first.task.evaluation_task("validation"), first.validation)
    labels = experiment.labels
    seeds, first_seed = experiment.seeds, experiment.first_seed
    states = init_states(model, training, seeds, first_seed, len(stages), experiment.rates)
    folder, states, done, skipped = on_first(
        lambda: _open_at_newest(experiment, folder, states, stages, devices)
    )
    if done:
        on_progress(Progress(done, [], skipped))
    now = fetch(without_weights(states))
    states = place(devices, states, "seeds")
    ahead = plan(now, stages, training)
    saved, saved_at = done, -CHECKPOINT_SECONDS
    while ahead.active.any() and not any_process(bool(stop)):
        began = time.perf_counter()
        turn = take_turn(model, stages, training, states, now, ahead, devices)
        states, now = turn.states, turn.now
        done = min(done + training.dispatch, training.last_step)
        seconds = round(float((time.perf_counter() - began) / ahead.active.sum()), 3)
        lines = metric_lines(turn, stages, training, ahead.active, done, labels)
        lines = [line | {"seconds": seconds} for line in lines]
        on_first(functools.partial(folder.append, lines))
        ahead = plan(now, stages, training)
        if any_process(time.perf_counter() - saved_at > CHECKPOINT_SECONDS):
            _save(folder, done, states)
            saved, saved_at = done, time.perf_counter()
        on_progress(Progress(done, lines, _failures(lines)))
    # After the loop: a signal may come at any line of it.
    if saved < done:
        _save(folder, done, states)
    if ahead.active.any():
        return None
    outcome = results(experiment, folder, states, stages, devices)
    on_first(lambda: _write_results(folder, outcome))
    return outcome


def _open_at_newest(
    experiment: Experiment,
    folder: RunFolder,
    states: TrainState,
    stages: list[Stage],
    mesh: Mesh | None,
) -> tuple[RunFolder, TrainState, int, tuple[str, ...]]:
    """A folder that is ready to go on, the states there, their step and what was passed over."""
    folder = extend(experiment, folder)
    done, skipped = 0, ()
    if checkpoints(folder.checkpoints):
        done, states, skipped = folder.resume(states)
    else:
        folder.truncate(-1)
    if plan(without_weights(states), stages, experiment.training).active.any():
        if done:
            _require_same_decay(experiment, folder)
        sizes = None if mesh is None else dict(mesh.shape)
        folder.note_mesh(done, sizes, jax.process_count())
    return folder, states, done, skipped


def _save(folder: RunFolder, step: int, states: TrainState) -> None:
    states = fetch(states)
    on_first(lambda: folder.save(step, states))


def _write_results(folder: RunFolder, outcome: dict[str, Any]) -> None:
    with writing("the results", folder.path):
        # A run that had ended before may be resumed too, and has results already.
        text = json.dumps(outcome, indent=1, allow_nan=False) + "\n"
        replace_file(folder.path / "results.json", text)


def _require_same_decay(experiment: Experiment, folder: RunFolder) -> None:
    """Refuses to go on with other weights decaying: the numbers would be of two optimisers."""
    expected, recorded = experiment.weight_decay, folder.env.get("weight_decay")
    if expected != recorded:
        until_now = "every parameter" if recorded is None else ", ".join(recorded["decays"])
        raise ValueError(
            f"{folder.path} was trained with weight decay of {until_now} until now; expected "
            f"{', '.join((expected or {'decays': ['none']})['decays'])}. Begin the run anew"
        )


def _failures(lines: list[dict[str, Any]]) -> tuple[str, ...]:
    """What the user should read of the seeds that ended in a dispatch, by its lines."""
    return tuple(
        f"{describe_label(line)} ended at step {line['failed_at']}: the loss or its gradient is "
        f"not finite (mean loss {line['loss']:g}, gradient norm {line['grad_norm']:g})."
        for line in lines
        if "failed_at" in line
    )
