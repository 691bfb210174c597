"""Selective copying against a filter over the inputs."""

import itertools
import math

import numpy as np
import pytest

from longlag.tasks import SelectiveCopy


def answers(tokens, vocab):
    """Keeps what is neither noise nor output token; says it, one per output token."""
    kept = iter([token for token in tokens if 0 < token < vocab])
    said = [next(kept) if token == vocab else 0 for token in tokens]
    assert next(kept, None) is None
    return said


TASKS = [SelectiveCopy(9, 3, 6), SelectiveCopy(9, 3, 4), SelectiveCopy(4, 4, 3)]
TASKS += [SelectiveCopy(256, 16, 16)]


@pytest.mark.parametrize("task", TASKS, ids=str)
def test_targets_are_the_data_tokens_in_their_order(task, draw):
    batch = draw(task)
    said = [answers(row, task.vocab) for row in batch.inputs]
    np.testing.assert_array_equal(batch.targets, said)
    assert np.all(batch.inputs[:, task.length :] == task.vocab)
    assert np.all(batch.inputs[:, : task.length] < task.vocab)
    np.testing.assert_array_equal(batch.scored, batch.inputs == task.vocab)
    np.testing.assert_array_equal(batch.weights, batch.scored.astype(np.float32))
    assert batch.mask is None and batch.inputs.shape[1] == task.length + task.items


def test_every_set_of_places_is_as_likely(draw, even):
    # MAD's generator always puts the last data token next to the output.
    stream = draw(SelectiveCopy(length=7, items=3, vocab=5), 16384).inputs[:, :7]
    code = (stream > 0) @ (2 ** np.arange(7))
    sets = [sum(2**i for i in places) for places in itertools.combinations(range(7), 3)]
    counts = np.bincount(code, minlength=128)
    assert counts.sum() == counts[sets].sum()
    even(counts[sets])


def test_data_are_uniform_and_independent_of_order_and_place(draw, even):
    batch = draw(SelectiveCopy(length=7, items=3, vocab=5), 16384)
    data = batch.targets[:, 7:] - 1
    even(np.bincount(data @ [16, 4, 1], minlength=64))
    for place in range(7):
        here = batch.inputs[:, place]
        even(np.bincount(here[here > 0] - 1, minlength=4))


def test_floor_is_reached_by_any_data_token(draw):
    task = SelectiveCopy(length=7, items=3, vocab=5)
    batch, floor = draw(task, 16384), task.floor()
    said = np.array([1e-30] + [1 / 4] * 4)[batch.targets[batch.scored]]
    assert -np.log(said).mean() == pytest.approx(floor.loss, rel=1e-6)
    assert floor.loss == pytest.approx(math.log(4))
    assert (batch.targets == 2)[batch.scored].mean() == pytest.approx(floor.accuracy, abs=0.01)
    assert SelectiveCopy(vocab=16).floor().accuracy == 1 / 15
