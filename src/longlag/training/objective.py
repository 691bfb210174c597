"""Losses and accuracy of answers."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from longlag.core.array_types import Answers, Losses, Right
from longlag.core.checks import is_zero
from longlag.core.ops import Params
from longlag.core.placement import use_mesh
from longlag.core.promotion import add, allow_promotion, promote, widen
from longlag.models.answers import is_nan, likeliest_class
from longlag.models.model import Model
from longlag.tasks import Batch, Task
from longlag.tasks.batch_checks import check_answers, least_steps
from longlag.training.parts import add_parts

__all__ = ["answer_batch", "losses", "mean_loss", "nan_answers", "transcript"]


@use_mesh
def losses(task: Task, answers: Answers, batch: Batch) -> tuple[Losses, Right]:
    """Computes the loss of every position, and whether its answer is right.

    Args:
        task: says whether answers are classes, values or transcripts.
        answers: `[B, T, K]`.
        batch: targets and weights.

    Returns:
        Losses `[B, T]` float32, zero where the weight is, and rightness `[B, T]` bool; of
        transcripts both `[B, L]`. A transcript has one loss, of which each of its classes has an
        equal part; its last class is right only if nothing is written after it. A transcript of no
        classes, a blank with a weight, has the loss of blanks alone, and is right if nothing is
        written. A transcript that its steps cannot hold, classes and a blank between equal ones
        counted, has probability 0: its loss is infinite, and its gradient zero.
        An answer that is NaN is never right, and its loss is NaN (`nan_answers`).

    Raises:
        ValueError: answers, targets or weights of shapes or dtypes that do not fit.
    """
    check_answers(task, answers, batch)
    answers = widen(answers)
    if task.targets_kind == "transcripts":
        return _transcript_losses(task, answers, batch)
    # Selected, not only weighted: what is not asked must not reach the gradient either.
    weighted = batch.weights[..., None] > 0
    if task.targets_kind == "classes":
        logits = jnp.where(weighted, answers, 0.0)
        of_positions = optax.softmax_cross_entropy_with_integer_labels(logits, batch.targets)
        right = likeliest_class(answers) == batch.targets
    else:
        error = jnp.where(weighted, add(answers, -batch.targets), 0.0)
        of_positions = (error * error).mean(-1)
        right = (jnp.abs(error) < task.tolerance).all(-1)
    return jnp.where(batch.weights > 0, of_positions, 0.0), right


def nan_answers(task: Task, answers: jax.Array, batch: Batch) -> jax.Array:
    """Marks the answers of `losses` that are NaN.

    Returns:
        `[B, T]` bool; of transcripts `[B, L]`: all classes of a row with a NaN at any step that is
        heard.
    """
    nan = is_nan(answers)
    if task.targets_kind != "transcripts":
        return nan
    return jnp.broadcast_to(
        (nan & _real_steps(answers, batch)).any(1, keepdims=True), batch.scored.shape
    )


def _real_steps(answers: jax.Array, batch: Batch) -> jax.Array:
    """`[B, T]` bool, the real steps of a batch of transcripts."""
    return jnp.ones(answers.shape[:2], bool) if batch.mask is None else batch.mask


def _transcript_losses(task: Task, answers: jax.Array, batch: Batch) -> tuple[jax.Array, jax.Array]:
    """`losses` of transcripts."""
    weighted = batch.weights > 0
    L, mask = weighted.shape[1], _real_steps(answers, batch)
    nan = nan_answers(task, answers, batch)
    if is_zero(mask.shape[1]):  # optax needs a step: one of padding is like none
        answers, mask = (
            jnp.pad(x, [(0, 0), (0, 1)] + [(0, 0)] * (x.ndim - 2)) for x in (answers, mask)
        )
    classes = weighted & (batch.targets > 0)
    # What optax calls paddings are steps without sound, and places without a class.
    silent, over = (1.0 - flag.astype(answers.dtype) for flag in (mask, classes))
    with allow_promotion():
        whole = optax.ctc_loss(answers, silent, batch.targets, over)[:, None].astype(answers.dtype)
    # optax has a large number for what cannot be.
    possible = least_steps(batch.targets, classes) <= mask.sum(axis=1)
    whole = jnp.where(possible[:, None], whole, jnp.inf)
    count = weighted.sum(axis=1, keepdims=True)
    written = _pad_places(transcript(answers, mask), L)
    ended = (written != 0).sum(axis=1, keepdims=True) == classes.sum(axis=1, keepdims=True)
    last = jnp.arange(L)[None] == count - 1
    right = (written[:, :L] == batch.targets) & (ended | ~last)
    right &= ~nan
    return jnp.where(weighted, whole / jnp.maximum(count, 1).astype(whole.dtype), 0.0), right


def _pad_places(written: jax.Array, places: int) -> jax.Array:
    """At least so many places: there may be fewer steps than a transcript has classes."""
    return jnp.pad(written, ((0, 0), (0, max(places - written.shape[1], 0))))


def transcript(answers: jax.Array, mask: jax.Array) -> jax.Array:
    """Decodes a transcript greedily: the likeliest classes, without repeats and blanks.

    Args:
        answers: `[B, T, K]`, class 0 is the blank.
        mask: `[B, T]` bool, the real steps.

    Returns:
        `[B, T]` int32, zero after the end. Steps whose answer is NaN write `answers.NO_CLASS`.
    """
    classes = jnp.where(mask, likeliest_class(answers), 0)
    before = jnp.pad(classes[:, :-1], ((0, 0), (1, 0)))
    new = (classes != 0) & (classes != before)
    order = jnp.argsort(~new, axis=1, stable=True)
    return jnp.take_along_axis(jnp.where(new, classes, 0), order, axis=1)


def answer_batch(
    model: Model, task: Task, params: Params, batch: Batch, key: jax.Array | None = None
) -> tuple[jax.Array, Batch, jax.Array | None]:
    """Computes answers `[B, K, ...]` at the weighted steps, with the batch cut to these."""
    answered, at = batch, None
    if task.weighted_steps is not None:
        # Of ties, top-k takes the earlier, so that the steps stay in order.
        most = min(task.weighted_steps, batch.weights.shape[1])  # of a device's own steps
        at = jax.lax.top_k((batch.weights > 0).astype(jnp.float32), most)[1]
        pick = functools.partial(jnp.take_along_axis, indices=at, axis=1)
        targets = jax.vmap(lambda row, steps: row[steps])(batch.targets, at)
        answered = batch.replace(  # type: ignore[attr-defined]
            targets=targets, weights=pick(batch.weights), scored=pick(batch.scored)
        )
    return model.answer(params, batch, key, at), answered, at


def mean_loss(of_positions: jax.Array, weights: jax.Array, mesh: Mesh | None = None) -> jax.Array:
    """Weighted mean of the losses of all positions, or the contribution of a part of a batch.

    Args:
        of_positions: `[B, T]`.
        weights: `[B, T]`.
        mesh: one that cuts sequences, if these are the positions of one device.
    """
    of_positions, weights = promote(of_positions, weights)
    return (of_positions * weights).sum() / add_parts(mesh, weights.sum())
