"""Parity against a two-state machine."""

import numpy as np
import pytest

from longlag.tasks import Parity


def parity(bits):
    odd = False
    for bit in bits:
        odd ^= bit == 1
    return int(odd)


TASKS = [Parity(2, 9), Parity(5, 9), Parity(1, 1), Parity(160, 160)]


@pytest.mark.parametrize("task", TASKS, ids=str)
def test_target_at_the_last_bit_is_the_parity_of_the_real_ones(task, draw):
    batch = draw(task)
    for row in range(64):
        length = int(batch.mask[row].sum())
        assert task.min_length <= length <= task.max_length
        assert batch.mask[row, :length].all()
        assert batch.targets[row, length - 1] == parity(batch.inputs[row, :length])
        assert np.flatnonzero(batch.scored[row]).tolist() == [length - 1]
    np.testing.assert_array_equal(batch.weights, batch.scored.astype(np.float32))


def test_another_lag_is_that_length_alone():
    assert Parity(1, 40).at_lag(160) == Parity(160, 160)
    assert Parity(160, 160).at_lag(80) == Parity(80, 80)


def test_lengths_are_uniform_ends_included(draw, even):
    lengths = draw(Parity(1, 6), 65536).mask.sum(axis=1)
    counts = np.bincount(lengths)
    assert len(counts) == 7 and counts[0] == 0
    even(counts[1:])


def test_bits_are_uniform_and_independent_at_every_length(draw, even):
    batch = draw(Parity(1, 6), 65536)
    lengths = batch.mask.sum(axis=1)
    for length in range(1, 7):
        bits = batch.inputs[lengths == length, :length]
        even(np.bincount(bits @ (2 ** np.arange(length)), minlength=2**length))


def test_neither_length_nor_last_bit_gives_the_answer_away(draw, even):
    batch = draw(Parity(1, 6), 65536)
    lengths = batch.mask.sum(axis=1)
    last, odd = batch.inputs[batch.scored], batch.targets[batch.scored]
    for length in range(2, 7):
        here = lengths == length
        even(np.bincount(2 * last[here] + odd[here], minlength=4))


def test_floor_is_reached_by_a_coin_and_by_either_constant(draw):
    task = Parity(1, 6)
    batch, floor = draw(task, 65536), task.floor()
    odd = batch.targets[batch.scored]
    for answer in range(2):
        assert (odd == answer).mean() == pytest.approx(floor.accuracy, abs=0.01)
    p = odd.mean()
    entropy = -p * np.log(p) - (1 - p) * np.log(1 - p)  # the best constant chances, fitted here
    assert entropy == pytest.approx(floor.loss, abs=1e-3)
    repeated = batch.inputs[batch.scored] == odd  # right at length 1, a coin toss beyond
    assert repeated.mean() == pytest.approx((1 + 1 / 6) / 2, abs=0.01)
