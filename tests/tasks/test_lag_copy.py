"""Lag copy against a queue."""

import collections

import numpy as np
import pytest

from longlag.tasks import LagCopy


def queue(tokens, lag):
    """Lets a symbol in at every step, and one out as soon as more than `lag` are inside."""
    inside, said = collections.deque(), []
    for token in tokens:
        inside.append(token)
        said.append(inside.popleft() if len(inside) > lag else None)
    return said


TASKS = [LagCopy(3, 5, 6), LagCopy(1, 2, 1), LagCopy(6, 4, 3), LagCopy()]


@pytest.mark.parametrize("task", TASKS, ids=str)
def test_targets_are_what_leaves_the_queue(task, draw):
    batch = draw(task)
    said = [queue(row, task.lag) for row in batch.inputs.tolist()]
    np.testing.assert_array_equal(batch.scored, [[s is not None for s in row] for row in said])
    np.testing.assert_array_equal(batch.targets, [[s or 0 for s in row] for row in said])
    np.testing.assert_array_equal(batch.weights, batch.scored.astype(np.float32))
    assert batch.mask is None and batch.inputs.shape[1] == task.lag + task.items


def test_symbols_are_uniform_and_independent(draw, even):
    symbols = draw(LagCopy(lag=1, symbols=4, items=2), 16384).inputs
    even(np.bincount(symbols @ [16, 4, 1], minlength=64))
