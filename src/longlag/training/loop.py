"""The training of a model in memory, from the first step to the last."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from longlag.models.model import Model
from longlag.tasks import Task
from longlag.tasks.batch_checks import check_shapes, check_values
from longlag.training.config import Training
from longlag.training.curriculum import (
    Stage,
    Turn,
    frontier,
    plan,
    spent,
    stages_of,
    take_turn,
    without_weights,
)
from longlag.training.evaluation import nan_share
from longlag.training.grids import check_rates, label_states
from longlag.training.meshes import MeshSizes, choose_mesh, fetch, place
from longlag.training.step import TrainState, init_states

__all__ = ["metric_lines", "train"]


def train(
    model: Model,
    task: Task,
    training: Training,
    *,
    seeds: int = 1,
    first_seed: int = 0,
    rates: Sequence[float] = (),
    mesh: str | MeshSizes = "auto",
    on_line: Callable[[dict[str, Any]], None] = lambda line: None,
) -> tuple[TrainState, list[dict[str, Any]]]:
    """Trains a model for each seed, and writes nothing. `carry_out` does the same in a run folder.

    Args:
        model: the model.
        task: draws the data.
        training: how. After every `training.dispatch` steps the model is evaluated on the
            validation set.
        seeds: how many.
        first_seed: the seeds are first_seed .. first_seed + seeds - 1.
        rates: a grid of learning rates, in place of `training.learning_rate`. Every seed then
            trains at every rate, in one program. `label_states` has the order of the pairs.
        mesh: the devices that share the work, see `choose_mesh`.
        on_line: called with every line as it comes.

    Returns:
        The states after the last step, with the parameters of all seeds in `states.params`
        (leading axis S), and the lines of `metric_lines` in order.

    Raises:
        ValueError: the task does not draw what it declares, the mesh or a rate is impossible, or
            time cannot be cut as `training` asks.
    """
    check_rates(rates, training)
    labels = label_states(range(first_seed, first_seed + seeds), rates)
    devices = choose_mesh(mesh, training, len(labels))
    check_shapes(task)
    stages = stages_of(model, task, training, devices)
    check_values(stages[0].task.evaluation_task("validation"), stages[0].validation)
    states = init_states(model, training, seeds, first_seed, len(stages), rates)
    now = fetch(without_weights(states))
    states = place(devices, states, "seeds")
    ahead, lines, done = plan(now, stages, training), [], 0
    while ahead.active.any():
        turn = take_turn(model, stages, training, states, now, ahead, devices)
        states, now = turn.states, turn.now
        done = min(done + training.dispatch, training.last_step)
        for line in metric_lines(turn, stages, training, ahead.active, done, labels):
            lines.append(line)
            on_line(line)
        ahead = plan(now, stages, training)
    return states, lines


def metric_lines(
    turn: Turn,
    stages: list[Stage],
    training: Training,
    active: np.ndarray,
    done: int,
    labels: Sequence[Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """A line of the metrics for every seed that trained in a dispatch.

    Args:
        turn: what the dispatch left.
        stages: of the training.
        training: the configuration.
        active: `[S]` bool, the seeds that trained.
        done: the step of the run after it.
        labels: of the states, from `label_states`.

    Returns:
        Mappings of `step`, the label, `loss` (the mean over the steps), `grad_norm,
        validation_loss, accuracy, exact_match`. Where they apply, `nan` (the share of such
        answers), `spent` (operations), `reached, frontier` (of a curriculum), and `failed_at` (a
        step).
    """
    states, loss, measured = turn.now, np.asarray(turn.loss), turn.measured
    at_frontier = frontier(states, len(stages))
    operations = spent(states, stages) if training.budget else None
    lines = []
    for i in map(int, np.flatnonzero(active)):
        line: dict[str, Any] = {
            "step": done,
            **labels[i],
            "loss": float(loss[i]),
            "grad_norm": float(states.norm[i]),
            "validation_loss": float(measured.loss[i]),
            "accuracy": float(measured.accuracy[i]),
            "exact_match": float(measured.exact_match[i]),
        }
        line |= nan_share(measured, i)
        if operations is not None:
            line["spent"] = float(operations[i])
        if states.curriculum is not None:
            line["reached"] = int(states.curriculum.reached[i])
            line["frontier"] = stages[at_frontier[i]].task.lag
        if states.failed[i]:
            line["failed_at"] = int(states.step[i])
        lines.append(line)
    return lines
