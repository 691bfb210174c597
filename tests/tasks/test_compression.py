"""Compression against a list with an index."""

import itertools

import numpy as np
import pytest

from longlag.tasks import Compression


def answers(tokens, symbols):
    """Writes symbols down until another token comes; then opens the list at each place named."""
    written, said = [], []
    for token in tokens:
        if token < symbols:
            assert set(said) <= {None}
            written.append(token)
        said.append(written[token - symbols - 1] if token > symbols else None)
    return said


TASKS = [Compression(2, 4, 5), Compression(1, 2, 1), Compression(5, 3, 4), Compression()]


@pytest.mark.parametrize("task", TASKS, ids=str)
def test_targets_are_what_the_list_says(task, draw):
    batch = draw(task)
    said = [answers(row, task.symbols) for row in batch.inputs.tolist()]
    np.testing.assert_array_equal(batch.scored, [[s is not None for s in row] for row in said])
    np.testing.assert_array_equal(batch.targets, [[s or 0 for s in row] for row in said])
    np.testing.assert_array_equal(batch.weights, batch.scored.astype(np.float32))
    assert np.all(batch.scored.sum(axis=1) == task.items)
    gap = batch.inputs[:, task.items : task.items + task.lag]
    assert np.all(gap == task.symbols) and batch.mask is None


def test_every_order_of_the_places_and_every_string_are_as_likely(draw, even):
    inputs = draw(Compression(lag=1, symbols=3, items=3), 16384).inputs
    even(np.bincount(inputs[:, :3] @ [9, 3, 1], minlength=27))
    orders = [inputs[:, 4:] - 4 == order for order in itertools.permutations(range(3))]
    counts = [order.all(axis=1).sum() for order in orders]
    assert sum(counts) == 16384  # each place once
    even(counts)
