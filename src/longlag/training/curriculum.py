"""A curriculum over the lag of a task, and what training at each lag costs.

The lags are those of `lags_of`: the shortest, its doubles, and the task's own. Each dispatch of a
seed has one lag. Half of them are at the frontier, the shortest lag that is not yet solved. The
others are at a lag before it, each equally likely. The frontier moves on when one validation at it
reaches `Training.solved`. Optimiser and parameters go on as they are. So there is one program for
each lag, and a task without a curriculum is one of a single lag.

The frontier is a function of the validation sets alone. No test set is drawn before the end.

Reference: the frontier is that of Zaremba and Sutskever 2014, "Learning to Execute", arXiv
1410.4615, whose combined strategy also mixes in shorter problems.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from longlag.models.model import Model
from longlag.models.sequence import SequenceModel
from longlag.tasks import Batch, Task
from longlag.training.config import Training
from longlag.training.evaluation import (
    SOLVED_STREAK,
    Evaluation,
    evaluate,
    evaluation_batch,
    note_evaluation,
)
from longlag.training.meshes import fetch, place
from longlag.training.step import LAGS, TrainState, dispatch

__all__ = [
    "Plan",
    "Stage",
    "Turn",
    "frontier",
    "lags_of",
    "plan",
    "spent",
    "stages_of",
    "step_operations",
    "take_turn",
    "without_weights",
]

# An optimiser step takes the operations of its forward pass three times: once for the answers, and
# twice for the gradients of the inputs and of the parameters of each product.
PASSES = 3


class Stage:
    """One lag of a training. What it needs is made when a seed comes to it.

    Args:
        model: the model.
        task: at this lag.
        training: the configuration.
        mesh: where its validation set is placed, from `choose_mesh`; None: on one device.
    """

    def __init__(
        self, model: Model, task: Task, training: Training, mesh: Mesh | None = None
    ) -> None:
        self.task = task
        self._model, self._training, self._mesh = model, training, mesh

    @functools.cached_property
    def validation(self) -> Batch:
        """The frozen set."""
        batch = evaluation_batch(self.task, self._training.eval_size, "validation")
        return place(self._mesh, batch)

    @functools.cached_property
    def operations(self) -> int:
        """Those of one optimiser step (`step_operations`)."""
        return step_operations(self._model, self.task, self._training)


class Plan(NamedTuple):
    """What every seed does next.

    Attributes:
        at: `[S]` int, the stage whose batches it draws.
        until: `[S]` int32, the step at which it ends; its own step if it has ended.
        active: `[S]` bool, whether it has not ended.
    """

    at: np.ndarray
    until: np.ndarray
    active: np.ndarray


class Turn(NamedTuple):
    """What a dispatch of every seed left.

    Attributes:
        states: of all seeds.
        now: the same on the host, without weights.
        loss: `[S]`, means over the steps taken.
        measured: at the frontier of each seed; without counts of single steps.
    """

    states: TrainState
    now: TrainState
    loss: np.ndarray
    measured: Evaluation


def lags_of(task: Task, training: Training) -> tuple[int, ...]:
    """The lags of a training, from the shortest to the task's own.

    Raises:
        ValueError: the curriculum begins beyond the task's own lag.
    """
    lag, last = training.curriculum, task.lag
    if not lag:
        return (last,)
    if lag > last:
        raise ValueError(f"curriculum: expected at most {last}, the lag of the task; got {lag}")
    lags = []
    while lag < last:
        lags.append(lag)
        lag *= 2
    return (*lags, last)


def step_operations(model: Model, task: Task, training: Training) -> int:
    """Operations of one optimiser step, three times those of reading its batch.

    Those of reading are what `Model.cost` counts for one token, times all tokens. They leave out
    what the optimiser does, and what a backward pass computes again to save memory.

    Raises:
        ValueError: the model is an encoder with a decoder, whose steps are not all alike.
    """
    if not isinstance(model, SequenceModel):
        raise ValueError(
            "budget: expected a model of one sequence, whose operations a token are known; got a "
            f"{type(model).__name__}"
        )
    tokens = training.batch_size * task.time_steps
    return PASSES * tokens * model.cost(task.time_steps).flops_per_token


def stages_of(
    model: Model, task: Task, training: Training, mesh: Mesh | None = None
) -> list[Stage]:
    """The stages of a training, one for each of `lags_of`."""
    lags = lags_of(task, training)
    return [Stage(model, task.at_lag(lag), training, mesh) for lag in lags]


def without_weights(states: TrainState) -> TrainState:
    """The states without parameters and what else is as large."""
    return states.replace(params=None, opt_state=None, carry=None)  # type: ignore[attr-defined]


def frontier(now: TrainState, stages: int) -> np.ndarray:
    """`[S]` int, the stage at which each seed is validated."""
    if now.curriculum is None:
        return np.full(np.shape(now.step), stages - 1)
    return np.minimum(np.asarray(now.curriculum.reached), stages - 1)


def spent(now: TrainState, stages: Sequence[Stage]) -> np.ndarray:
    """`[S]` float64, the operations that each seed has taken."""
    if now.curriculum is None:
        return np.asarray(now.step, np.float64) * stages[-1].operations
    steps = np.asarray(now.curriculum.steps, np.float64)
    used = np.flatnonzero(steps.any(axis=0))
    return sum((steps[:, k] * stages[k].operations for k in map(int, used)), np.zeros(len(steps)))


def plan(now: TrainState, stages: list[Stage], training: Training) -> Plan:
    """What every seed does next: a function of the seed and of its steps alone.

    Args:
        now: the states on the host.
        stages: of the training.
        training: the configuration.
    """
    step = np.asarray(now.step)
    at = frontier(now, len(stages))
    if len(stages) > 1:
        at = np.asarray(_draw(now.seed, now.step, at))
    until = np.full(step.shape, training.last_step, np.int64)
    if training.budget:
        operations = np.asarray([stages[k].operations for k in map(int, at)], np.float64)
        until = np.minimum(until, step + (training.budget - spent(now, stages)) // operations)
    ended = np.asarray(now.failed)
    if training.stop_when_solved:
        ended = ended | (np.asarray(now.streak) >= SOLVED_STREAK)
    until = np.where(ended, step, np.maximum(until, step)).astype(np.int32)
    return Plan(at, until, until > step)


@jax.jit
def _draw(seed: jax.Array, step: jax.Array, frontier: jax.Array) -> jax.Array:
    """`[S]` int32, the stage of the next batches, up to the frontier."""

    def of_seed(seed: jax.Array, step: jax.Array, frontier: jax.Array) -> jax.Array:
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), LAGS), step)
        here, before = jax.random.split(key)
        earlier = jax.random.randint(before, (), 0, jnp.maximum(frontier, 1), jnp.int32)
        stays = jax.random.bits(here, (), jnp.uint32) % 2 == 0
        return jnp.where(stays | (frontier == 0), frontier, earlier)

    return jax.vmap(of_seed)(seed, step, jnp.asarray(frontier, jnp.int32))


def take_turn(
    model: Model,
    stages: list[Stage],
    training: Training,
    states: TrainState,
    now: TrainState,
    plan: Plan,
    mesh: Mesh | None = None,
) -> Turn:
    """Takes one dispatch with every seed that goes on, and evaluates it at its frontier.

    Args:
        model: the model.
        stages: of the training, on the same mesh.
        training: how.
        states: of all seeds; the argument is donated.
        now: the same on the host, without weights.
        plan: from `plan`.
        mesh: where, from `choose_mesh`; None: on one device.
    """
    before, active, losses = now, plan.active, {}
    for k in np.unique(plan.at[active]):
        until = np.where(active & (plan.at == k), plan.until, 0).astype(np.int32)
        here = place(mesh, jnp.asarray(until), "seeds")
        states, losses[k] = dispatch(model, stages[k].task, training, states, here, mesh)
    at_frontier, scores = frontier(before, len(stages)), {}
    for k in np.unique(at_frontier[active]):
        here = place(mesh, jnp.asarray(active & (at_frontier == k)), "seeds")
        task, validation = stages[-1].task, stages[k].validation
        measured = evaluate(model, task, training, states.params, validation, mesh, here)
        scores[k] = measured.replace(hits=None, scored=None)  # type: ignore[attr-defined]
    now, losses, scores = fetch((without_weights(states), losses, scores))
    loss = np.zeros(active.shape, np.result_type(*losses.values()))
    for k, of_lag in losses.items():
        loss = np.where(active & (plan.at == k), of_lag, loss)
    measured = next(iter(scores.values()))
    for k, of_lag in scores.items():
        pick = functools.partial(np.where, at_frontier == k)
        measured = jax.tree.map(pick, of_lag, measured)
    counts = _note(now, before, plan.at, measured.accuracy, active, len(stages), training.solved)
    now = now.replace(**fetch(counts))  # type: ignore[attr-defined]  # apart: states are donated
    states = states.replace(**place(mesh, counts, "seeds"))  # type: ignore[attr-defined]
    return Turn(states, now, loss, measured)


def _note(
    now: TrainState,
    before: TrainState,
    at: np.ndarray,
    accuracy: np.ndarray,
    active: np.ndarray,
    stages: int,
    solved: float,
) -> dict[str, object]:
    """The counts of the states after a dispatch: seeds that had ended keep theirs."""
    at_frontier = frontier(now, stages)
    noted = note_evaluation(now, jnp.where(at_frontier == stages - 1, accuracy, 0.0), solved)
    counts: dict[str, object] = {
        "streak": jnp.where(active, noted.streak, now.streak),
        "solved_at": jnp.where(active, noted.solved_at, now.solved_at),
    }
    if now.curriculum is not None:
        steps = np.array(now.curriculum.steps)
        steps[np.arange(len(at)), at] += np.asarray(now.step) - np.asarray(before.step)
        # The last lag is solved once it is solved; a later lapse takes nothing back.
        more = active & (accuracy >= solved) & (np.asarray(now.curriculum.reached) < stages)
        counts["curriculum"] = now.curriculum.replace(  # type: ignore[attr-defined]
            reached=jnp.asarray(now.curriculum.reached + more, jnp.int32),
            steps=jnp.asarray(steps),
        )
    return counts
