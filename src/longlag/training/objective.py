"""Losses, and which answers are right."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import optax

from longlag.core.array_types import Answers, Losses, Right
from longlag.core.checks import is_zero
from longlag.core.ops import Params
from longlag.core.promotion import add, allow_promotion, promote, widen
from longlag.models.answers import is_nan, likeliest_class
from longlag.models.model import Model
from longlag.tasks import Batch, Task
from longlag.tasks.batch_checks import check_answers, least_steps

__all__ = ["answered", "losses", "mean_loss", "nan_answers", "transcript"]


def losses(task: Task, answers: Answers, batch: Batch) -> tuple[Losses, Right]:
    """The loss of every position, and whether its answer is right.

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
        return _transcribed(task, answers, batch)
    # Selected, not only weighted: what is not asked must not reach the gradient either.
    asked = batch.weights[..., None] > 0
    if task.targets_kind == "classes":
        logits = jnp.where(asked, answers, 0.0)
        each = optax.softmax_cross_entropy_with_integer_labels(logits, batch.targets)
        right = likeliest_class(answers) == batch.targets
    else:
        error = jnp.where(asked, add(answers, -batch.targets), 0.0)
        each = (error * error).mean(-1)
        right = (jnp.abs(error) < task.tolerance).all(-1)
    return jnp.where(batch.weights > 0, each, 0.0), right


def nan_answers(task: Task, answers: jax.Array, batch: Batch) -> jax.Array:
    """Where the answers of `losses` are NaN.

    Returns:
        `[B, T]` bool; of transcripts `[B, L]`: all classes of a row with a NaN at any step that is
        heard.
    """
    nan = is_nan(answers)
    if task.targets_kind != "transcripts":
        return nan
    return jnp.broadcast_to(
        (nan & _heard(answers, batch)).any(1, keepdims=True), batch.scored.shape
    )


def _heard(answers: jax.Array, batch: Batch) -> jax.Array:
    """`[B, T]` bool, the real steps of a batch of transcripts."""
    return jnp.ones(answers.shape[:2], bool) if batch.mask is None else batch.mask


def _transcribed(task: Task, answers: jax.Array, batch: Batch) -> tuple[jax.Array, jax.Array]:
    """`losses` of transcripts."""
    asked = batch.weights > 0
    L, mask, is_nan = asked.shape[1], _heard(answers, batch), nan_answers(task, answers, batch)
    if is_zero(mask.shape[1]):  # optax needs a step: one of padding is like none
        answers, mask = (
            jnp.pad(x, [(0, 0), (0, 1)] + [(0, 0)] * (x.ndim - 2)) for x in (answers, mask)
        )
    classes = asked & (batch.targets > 0)
    # What optax calls paddings are steps without sound, and places without a class.
    silent, over = (1.0 - flag.astype(answers.dtype) for flag in (mask, classes))
    with allow_promotion():
        whole = optax.ctc_loss(answers, silent, batch.targets, over)[:, None].astype(answers.dtype)
    # optax has a large number for what cannot be.
    possible = least_steps(batch.targets, classes) <= mask.sum(axis=1)
    whole = jnp.where(possible[:, None], whole, jnp.inf)
    count = asked.sum(axis=1, keepdims=True)
    written = _padded_to(transcript(answers, mask), L)
    ended = (written != 0).sum(axis=1, keepdims=True) == classes.sum(axis=1, keepdims=True)
    last = jnp.arange(L)[None] == count - 1
    right = (written[:, :L] == batch.targets) & (ended | ~last)
    right &= ~is_nan
    return jnp.where(asked, whole / jnp.maximum(count, 1).astype(whole.dtype), 0.0), right


def _padded_to(written: jax.Array, places: int) -> jax.Array:
    """At least so many places: there may be fewer steps than a transcript has classes."""
    return jnp.pad(written, ((0, 0), (0, max(places - written.shape[1], 0))))


def transcript(answers: jax.Array, mask: jax.Array) -> jax.Array:
    """What is written by the likeliest class of every step: repeats once, no blanks, from step 0.

    Args:
        answers: `[B, T, K]`, class 0 is the blank.
        mask: `[B, T]` bool, the real steps.

    Returns:
        `[B, T]` int32, zero after the end. Steps whose answer is NaN write `answers.NO_CLASS`.
    """
    said = jnp.where(mask, likeliest_class(answers), 0)
    before = jnp.pad(said[:, :-1], ((0, 0), (1, 0)))
    new = (said != 0) & (said != before)
    order = jnp.argsort(~new, axis=1, stable=True)
    return jnp.take_along_axis(jnp.where(new, said, 0), order, axis=1)


def answered(
    model: Model, task: Task, params: Params, batch: Batch, key: jax.Array | None = None
) -> tuple[jax.Array, Batch, jax.Array | None]:
    """Answers `[B, K, ...]`, the batch cut down to what is asked, and where that is."""
    asked, at = batch, None
    if task.asked is not None:
        # Of ties, top-k takes the earlier, so that the steps stay in order.
        at = jax.lax.top_k((batch.weights > 0).astype(jnp.float32), task.asked)[1]
        pick = functools.partial(jnp.take_along_axis, indices=at, axis=1)
        targets = jax.vmap(lambda row, steps: row[steps])(batch.targets, at)
        asked = batch.replace(  # type: ignore[attr-defined]
            targets=targets, weights=pick(batch.weights), scored=pick(batch.scored)
        )
    return model.answer(params, batch, key, at), asked, at


def mean_loss(each: jax.Array, weights: jax.Array) -> jax.Array:
    """Weighted mean over all positions."""
    each, weights = promote(each, weights)
    return (each * weights).sum() / weights.sum()
