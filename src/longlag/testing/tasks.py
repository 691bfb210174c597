"""The contract of a task, as one function: `check_task(MyTask())` passes or says what is broken."""

from __future__ import annotations

import contextlib
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from longlag.tasks import Batch, Task
from longlag.tasks.batch_checks import answers_apart, check_shapes, check_values

__all__ = ["check_task"]

SEQUENCES = 64


def check_task(task: Task) -> None:
    """Raises unless the task keeps the contract of `longlag.tasks.Task`.

    Shapes and numbers are what `Task` and `Batch` say, at the task's lag and a longer one; one key
    is one batch, whether compiled or not, and another key another one; what is not asked, and what
    is padding, is zero; the floor is a loss and an accuracy.

    Args:
        task: of small dials; 64 sequences are drawn a few times.

    Raises:
        ValueError, AssertionError: with the clause that is broken, and what came.
    """
    for of_lag in (task, *longer_tasks(task)):
        check_shapes(of_lag)
        check_conventions(of_lag, draw_batch(of_lag, 0))
    check_keys(task)
    tolerant = task.targets_kind != "values" or task.tolerance > 0
    assert tolerant, f"{task}: expected a tolerance above 0, within which a value counts as right"
    floor = task.floor()
    assert math.isfinite(floor.loss) and 0 <= floor.accuracy <= 1, f"{task}: floor: got {floor}"
    assert task.picture().strip(), f"{task}: expected a picture, got an empty one"


def check_conventions(task: Task, batch: Batch) -> None:
    """A batch is in the numbers' usual dtypes, asks every sequence, and is zero where it may be."""
    check_values(task, batch)
    for leaf in jax.tree.leaves(batch):
        expected = (np.int32, np.float32, np.bool)
        assert leaf.dtype in expected, f"{task}: expected int32, float32 or bool, got {leaf.dtype}"
    unscored = (~batch.scored.any(axis=1)).sum()
    assert not unscored, f"{task}: expected a scored step in every sequence; {unscored} have none"
    left = batch.targets[batch.weights == 0].any()
    assert not left, f"{task}: expected targets of zero where the weight is zero"
    if batch.mask is not None and not answers_apart(task):
        left = batch.inputs[~batch.mask].any()
        assert not left, f"{task}: expected inputs of zero where the mask is false"


def check_keys(task: Task) -> None:
    """A batch is a function of its key, and of nothing else."""
    batch, other = draw_batch(task, 0), draw_batch(task, 1)
    assert same(batch, draw_batch(task, 0)), f"{task}: expected the same batch from the same key"
    different = not np.array_equal(batch.inputs, other.inputs)
    assert different, f"{task}: expected other inputs from another key"
    with jax.enable_x64(True):
        plain = task.sample(jax.random.key(0), SEQUENCES)
    fields = [name for name in vars(batch) if not same(vars(batch)[name], vars(plain)[name])]
    assert not fields, (
        f"{task}: expected the same batch without jit and with x64; {', '.join(fields)} differ. "
        "Give every draw its dtype, such as jax.random.uniform(key, shape, jnp.float32) < p in "
        "place of bernoulli"
    )


def longer_tasks(task: Task) -> list[Task]:
    """The task at twice its lag, or two beyond it where its other dials do not allow that."""
    for lag in (2 * task.lag, task.lag + 2):
        with contextlib.suppress(ValueError):
            return [task.at_lag(lag)]
    return []


@functools.partial(jax.jit, static_argnums=0)
def sample(task: Task, key: jax.Array) -> Batch:
    """64 sequences, in one program for all keys."""
    return task.sample(key, SEQUENCES)


def draw_batch(task: Task, seed: int) -> Any:
    """A batch, as NumPy arrays."""
    return jax.tree.map(np.asarray, sample(task, jax.random.key(seed)))


def same(one: Batch, other: Batch) -> bool:
    """Whether two batches agree in every number, and in its dtype."""
    leaves = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return all(a.dtype == b.dtype and bool(jnp.array_equal(a, b)) for a, b in leaves)
