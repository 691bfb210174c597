"""What a task draws is what it declares: shapes without drawing anything, numbers of one batch."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from longlag.core.batch import Batch
from longlag.core.checks import check_tokens
from longlag.tasks.pairs import PairTask
from longlag.tasks.task import Task

__all__ = [
    "answers_apart",
    "check_answers",
    "check_batch",
    "check_shapes",
    "check_values",
    "least_steps",
]

KINDS: dict[str, tuple[Any, str]] = {
    "integers": (jnp.integer, "int32"),
    "reals": (jnp.floating, "float32"),
    "flags": (jnp.bool, "bool"),
}


def check_shapes(task: Task) -> None:
    """Raises `ValueError` unless `sample` gives the shapes and kinds of number of `Batch`.

    Nothing is drawn or compiled.
    """
    rows, T = 2, task.time_steps
    batch = jax.eval_shape(lambda key: task.sample(key, rows), jax.random.key(0))
    if not isinstance(batch, Batch):
        raise ValueError(f"{task}: expected a Batch from sample, got {type(batch).__name__}")
    tokens, classes = task.inputs_kind == "tokens", task.targets_kind != "values"
    answers = (rows, T)
    if isinstance(task, PairTask):
        T = batch.inputs.shape[1]  # `time_steps` is that of what is said
    if answers_apart(task):
        answers = (rows, *batch.targets.shape[1:2])  # as many as there are to say
    expected = {
        "inputs": ("integers", (rows, T)) if tokens else ("reals", (rows, T, task.in_features)),
        "targets": ("integers", answers) if classes else ("reals", (*answers, task.out_features)),
        "weights": ("reals", answers),
        "scored": ("flags", answers),
        "mask": ("flags", (rows, T)),
        "resets": ("flags", (rows, T)),
    }
    for name, (kind, shape) in expected.items():
        array = getattr(batch, name)
        if array is None and name in ("mask", "resets"):
            continue
        of_kind, dtype = KINDS[kind]
        given = "None" if array is None else f"{array.dtype} of shape {array.shape}"
        if array is None or array.shape != shape or not jnp.issubdtype(array.dtype, of_kind):
            raise ValueError(
                f"{task}: expected of {rows} sequences of {T} steps (time_steps) {name} of dtype "
                f"{dtype} and shape {shape}; got {given}"
            )


def check_values(task: Task, batch: Batch) -> None:
    """Raises `ValueError` unless the numbers of a batch are what `Task` and `Batch` say of them.

    Args:
        task: drew it.
        batch: of shapes that `check_shapes` has looked at.
    """

    def refuse(expected: str, given: Any) -> None:
        raise ValueError(f"{task}: expected {expected}; got {given}")

    inputs, targets, weights, scored, mask = jax.device_get(
        (batch.inputs, batch.targets, batch.weights, batch.scored, batch.mask)
    )
    weighted = weights > 0
    if not (np.isfinite(weights).all() and (weights >= 0).all()):
        refuse("finite weights of at least 0", f"{weights.min():g} to {weights.max():g}")
    if not scored.any():
        refuse("a scored step in each sequence", "none in a whole batch")
    if (scored & ~weighted).any():
        refuse("a weight at every scored step", f"{(scored & ~weighted).sum()} scored without one")
    if mask is not None and not answers_apart(task) and (weighted & ~mask).any():
        refuse("weights at real steps alone", f"{(weighted & ~mask).sum()} where the mask is false")
    for name, numbers, of_classes, limited in (
        ("inputs", inputs, task.inputs_kind == "tokens", "in_features"),
        ("weighted targets", targets[weighted], task.targets_kind != "values", "out_features"),
    ):
        limit, finite = getattr(task, limited), np.isfinite(numbers)
        if of_classes and (numbers.min() < 0 or numbers.max() >= limit):
            given = f"{numbers.min()} to {numbers.max()}"
            refuse(f"{name} of 0 to {limit - 1} ({limited} - 1)", given)
        if not finite.all():
            refuse(f"finite {name}", f"{(~finite).sum()} that are not")
    counts = weighted.sum(axis=1)
    counts = counts[counts > 0]  # rows that fill an evaluation set up have no weight
    if task.weighted_steps is not None and (counts != task.weighted_steps).any():
        given = f"{counts.min()} to {counts.max()}"
        refuse(f"{task.weighted_steps} weighted steps in every sequence (weighted_steps)", given)
    if task.targets_kind == "transcripts":
        places = np.arange(weighted.shape[1]) < weighted.sum(axis=1, keepdims=True)
        classes = weighted & (targets > 0)
        blank = (weighted & ~classes).any(axis=1) & (weighted.sum(axis=1) > 1)
        if (weighted != places).any() or blank.any():
            wrong = np.flatnonzero((weighted != places).any(axis=1) | blank)
            refuse("the classes of a transcript first, or one blank alone", f"others in {wrong}")
        steps = np.full(len(inputs), inputs.shape[1]) if mask is None else mask.sum(axis=1)
        short = np.flatnonzero(least_steps(targets, classes) > steps)
        if short.size:
            refuse("transcripts that their steps can hold", f"longer ones in {short}")


def least_steps(targets: Any, classes: Any) -> Any:
    """The steps that a transcript needs: one for each class, and a blank between equal ones.

    Args:
        targets: `[B, L]` integers.
        classes: `[B, L]` bool, where there is a class, the first places of a row.

    Returns:
        `[B]` integers.
    """
    repeats = (targets[:, 1:] == targets[:, :-1]) & classes[:, 1:]
    return classes.sum(axis=1) + repeats.sum(axis=1)


def check_batch(batch: Any) -> None:
    """Raises `ValueError` unless this is a `Batch` of arrays."""
    if not isinstance(batch, Batch):
        raise ValueError(f"batch: expected a Batch, got {type(batch).__name__}")
    for name, leaf in vars(batch).items():
        if not hasattr(leaf, "shape") and (leaf is not None or name not in ("mask", "resets")):
            raise ValueError(f"batch.{name}: expected an array, got {type(leaf).__name__}")


def check_answers(task: Task, answers: Any, batch: Batch) -> None:
    """Raises `ValueError` unless answers, targets and weights fit each other.

    Args:
        task: says what an answer is.
        answers: of a model, `[B, T, K]`.
        batch: of which targets and weights are looked at, and the classes where they are known.
    """
    check_batch(batch)
    shape, dtype = jnp.shape(answers), getattr(answers, "dtype", type(answers).__name__)
    if len(shape) != 3 or not hasattr(answers, "dtype") or not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(
            f"answers: expected floats of shape [B, T, K], got {dtype} of shape {shape}"
        )
    kind, _ = KINDS["reals" if task.targets_kind == "values" else "integers"]
    rows = batch.weights.shape
    expected = (*rows, shape[2]) if task.targets_kind == "values" else rows
    fits = rows[:1] == shape[:1] if task.targets_kind == "transcripts" else rows == shape[:2]
    targets = batch.targets
    if not fits or targets.shape != expected or not jnp.issubdtype(targets.dtype, kind):
        raise ValueError(
            f"batch: expected {task.targets_kind} as targets and weights for answers of shape "
            f"{shape}; got targets {targets.dtype} of shape {targets.shape} and weights of shape "
            f"{rows}"
        )
    if task.targets_kind != "values":
        check_tokens("targets", targets, shape[2], batch.weights > 0)


def answers_apart(task: Task) -> bool:
    """Whether answers are not given at the steps of the input."""
    return task.targets_kind == "transcripts" or isinstance(task, PairTask)
