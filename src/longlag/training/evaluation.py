"""Evaluation on fixed sets that share no data with training."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Literal

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from longlag.core.array_types import SeedCounts, SeedFlags, SeedNumbers
from longlag.core.checks import is_zero
from longlag.core.ops import Params
from longlag.core.over_devices import time_axis
from longlag.core.spec import choose
from longlag.models.model import Model
from longlag.models.sequence import SequenceModel, WholeSequenceModel
from longlag.tasks import Batch, Task, pad
from longlag.tasks.batch_checks import check_batch
from longlag.training.config import Training
from longlag.training.meshes import cut_rows
from longlag.training.objective import answer_batch, losses, mean_loss, nan_answers
from longlag.training.parts import in_parts, map_over_parts
from longlag.training.step import TEST, VALIDATION, TrainState, map_over_seeds

__all__ = ["Evaluation", "evaluate", "evaluation_batch", "nan_share", "note_evaluation"]

EVALUATION_SEED = 2**32 - 1
# A task counts as solved after so many evaluations in a row over the threshold.
SOLVED_STREAK = 3
# Tokens that are evaluated at once: an attention over T steps makes T² numbers of each row.
TOKENS = 2**15
# A longer sequence is read in parts of so many steps, if the model streams.
AT_ONCE, PART = 2**13, 2**10


@flax.struct.dataclass
class Evaluation:
    """Scores of a model on an evaluation set, with a leading axis S for several seeds.

    Attributes:
        loss: mean loss over the weighted positions.
        accuracy: share of the scored positions answered right. An answer that is NaN is wrong.
        exact_match: share of the sequences with a scored position that have all of them right.
        nan: share of the scored positions whose answer is NaN.
        hits: `[T]`, how many answers at each position are right.
        scored: `[T]`, how many answers at each position are scored.
    """

    loss: SeedNumbers
    accuracy: SeedNumbers
    exact_match: SeedNumbers
    nan: SeedNumbers
    hits: SeedCounts
    scored: SeedCounts

    @property
    def by_position(self) -> np.ndarray:
        """`[T]` float32, accuracy by position; NaN where nothing is scored.

        It is not part of the compiled evaluation, which has no NaN of its own.
        """
        hits, scored = (np.asarray(x, np.float32) for x in (self.hits, self.scored))
        return np.where(scored > 0, hits / np.maximum(scored, 1), np.float32(np.nan))


def nan_share(measured: Evaluation, i: int) -> dict[str, float]:
    """The share of a seed's answers that are NaN, as an entry of its row, if there are any."""
    share = float(measured.nan[i])
    return {"nan": share} if share else {}


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 5))
def evaluate(
    model: Model,
    task: Task,
    training: Training,
    params: Params,
    batch: Batch,
    mesh: Mesh | None = None,
    active: SeedFlags | None = None,
) -> Evaluation:
    """Evaluates S seeds on one batch.

    Args:
        model: the model.
        task: says what an answer is; the same at every lag, so that one program serves all lags
            if their batches are padded to one length.
        training: says how seeds are run.
        params: parameters with a leading axis S.
        batch: from `evaluation_batch`.
        mesh: where, from `choose_mesh`; None: on one device.
        active: `[S]` bool, the seeds to evaluate; zeros come out for the others. None: all.

    Returns:
        An `Evaluation` with leading axis S.

    Raises:
        ValueError: a batch that is none, or without sequences or steps, of which there is no mean,
            or targets that do not fit the answers.
    """
    check_batch(batch)
    if any(map(is_zero, batch.inputs.shape[:2])):
        raise ValueError(
            f"batch: expected at least one sequence of one step, got {batch.inputs.shape}"
        )

    def evaluate_seed(params: Params, batch: Batch) -> Evaluation:
        score = functools.partial(_score_all_steps, model, task, params)
        of_positions, right, nan = _map_over_rows(map_over_parts(mesh, score), batch, mesh)
        hits, scored = (right & batch.scored).sum(0), batch.scored.sum(0)
        count = jnp.maximum(scored.sum(), 1)
        # A sequence without a scored step fills a batch up, and is no match.
        exact, has_scored = (right | ~batch.scored).all(1), batch.scored.any(1)
        return Evaluation(
            loss=mean_loss(of_positions, batch.weights),
            accuracy=hits.sum() / count,
            exact_match=(exact & has_scored).sum() / jnp.maximum(has_scored.sum(), 1),
            nan=(nan & batch.scored).sum() / count,
            hits=hits,
            scored=scored,
        )

    def if_active(inputs: tuple[Params, jax.Array], batch: Batch) -> Evaluation:
        params, active = inputs
        if in_parts(mesh):  # every device comes to every exchange
            return evaluate_seed(params, batch)
        like = jax.eval_shape(evaluate_seed, params, batch)
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), like)
        return jax.lax.cond(active, lambda: evaluate_seed(params, batch), lambda: zeros)

    if active is None:
        return map_over_seeds(training, evaluate_seed, params, mesh, (batch,))
    return map_over_seeds(training, if_active, (params, active), mesh, (batch,))


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def evaluation_batch(
    task: Task, size: int, purpose: Literal["validation", "test"], padded_to: int | None = None
) -> Batch:
    """Draws the fixed evaluation set of a task. It is the same for every run and seed.

    Args:
        task: draws it.
        size: number of sequences.
        purpose: "validation" is looked at while training, "test" once at the end.
        padded_to: pad the sequences to this length.
    """
    choose(purpose, ("validation", "test"), "purpose")
    stream = VALIDATION if purpose == "validation" else TEST
    batch = task.evaluation_task(purpose).sample(
        jax.random.fold_in(jax.random.key(EVALUATION_SEED), stream), size
    )
    return batch if padded_to is None else pad(batch, padded_to)


def note_evaluation(state: TrainState, accuracy: jax.Array, solved: float) -> TrainState:
    """Counts the consecutive evaluations at which the task was solved.

    Args:
        state: S states.
        accuracy: `[S]`, validation accuracy at `state.step`.
        solved: the threshold.
    """
    streak = jnp.where(accuracy >= solved, state.streak + 1, 0)
    # At the third in a row the first one lies two evaluations back; its step was put down then.
    began = jnp.where(streak == 1, state.step, state.solved_at)
    keep = state.streak >= SOLVED_STREAK
    solved_at = jnp.where(keep, state.solved_at, jnp.where(streak > 0, began, -1))
    return state.replace(streak=jnp.where(keep, state.streak, streak), solved_at=solved_at)  # type: ignore[attr-defined]


def _score_all_steps(
    model: Model, task: Task, params: Params, batch: Batch
) -> tuple[jax.Array, ...]:
    """Losses, rightness and NaN, `[B, T]`; a step without a weight has none of them."""
    long = batch.inputs.shape[1] > AT_ONCE and task.targets_kind != "transcripts"
    if (
        long
        and time_axis() is None
        and isinstance(model, SequenceModel)
        and not isinstance(model, WholeSequenceModel)
    ):
        return _score_in_parts(model, task, params, batch)
    answers, answered, at = answer_batch(model, task, params, batch)
    scores = (*losses(task, answers, answered), nan_answers(task, answers, answered))
    if at is None:
        return scores
    fill = functools.partial(jnp.put_along_axis, indices=at, axis=1, inplace=False)
    return tuple(fill(jnp.zeros(batch.weights.shape, x.dtype), values=x) for x in scores)


def _score_in_parts(
    model: SequenceModel, task: Task, params: Params, batch: Batch
) -> tuple[jax.Array, ...]:
    """The same of a long sequence, a part at a time: the scores of attention are `[P, T]`."""
    rows, steps = batch.weights.shape
    padded = pad(batch, -(-steps // PART) * PART)

    def split(leaf: jax.Array) -> jax.Array:
        return jnp.moveaxis(leaf.reshape(rows, -1, PART, *leaf.shape[2:]), 1, 0)

    def join(leaf: jax.Array) -> jax.Array:
        return jnp.moveaxis(leaf, 0, 1).reshape(rows, -1)[:, :steps]

    def score(state: Any, part: Batch) -> tuple[Any, tuple[jax.Array, ...]]:
        state, answers = model.apply(params, part.inputs, state, mask=part.mask, resets=part.resets)
        return state, (*losses(task, answers, part), nan_answers(task, answers, part))

    state = model.init_state(params, rows, capacity=padded.weights.shape[1])
    return jax.tree.map(join, jax.lax.scan(score, state, jax.tree.map(split, padded))[1])


def _map_over_rows(function: Callable[[Batch], Any], batch: Batch, mesh: Mesh | None) -> Any:
    """What a function of a batch gives, row by row alike, a part of the rows at a time."""
    rows, steps = batch.inputs.shape[:2]
    devices = 1 if mesh is None else mesh.shape["data"]
    most = max(TOKENS // steps, 1) * devices
    sizes = (rows // n for n in range(1, rows + 1) if rows % (n * devices) == 0)
    size = next(size for size in sizes if size <= most)
    if size == rows:
        return function(cut_rows(mesh, batch))
    split = jax.tree.map(lambda x: x.reshape(rows // size, size, *x.shape[1:]), batch)
    results = jax.lax.map(function, cut_rows(mesh, split, 1))
    return jax.tree.map(lambda x: x.reshape(rows, *x.shape[2:]), results)
