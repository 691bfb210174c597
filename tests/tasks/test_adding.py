"""Adding against a loop over the steps."""

import numpy as np
import pytest

from longlag.tasks import Adding


def total(steps):
    """Adds, in float64, what is marked."""
    return sum(float(number) for number, marker in steps if marker == 1)


@pytest.mark.parametrize("task", [Adding(2), Adding(9), Adding(100)], ids=str)
def test_targets_are_the_sum_of_what_is_marked(task, draw):
    batch = draw(task)
    sums = [total(row) for row in batch.inputs]
    np.testing.assert_allclose(batch.targets[:, -1, 0], sums, rtol=0, atol=2e-7)
    last = np.arange(task.length) == task.length - 1
    np.testing.assert_array_equal(batch.scored, np.tile(last, (64, 1)))
    np.testing.assert_array_equal(batch.weights, batch.scored.astype(np.float32))
    assert batch.mask is None and not batch.targets[:, :-1].any()


def test_one_marker_in_each_half_uniform_and_independent(draw, even):
    markers = draw(Adding(10), 65536).inputs[:, :, 1]
    assert set(np.unique(markers)) == {0, 1} and np.all(markers.sum(axis=1) == 2)
    assert np.all(markers[:, :5].sum(axis=1) == 1)
    first, second = markers[:, :5].argmax(axis=1), markers[:, 5:].argmax(axis=1)
    even(np.bincount(first * 5 + second, minlength=25))


def test_the_half_of_an_odd_length_is_rounded_down(draw):
    markers = draw(Adding(9)).inputs[:, :, 1]
    assert np.all(markers[:, :4].sum(axis=1) == 1) and np.all(markers[:, 4:].sum(axis=1) == 1)
    assert markers.any(axis=0).all()


def test_numbers_are_uniform_and_the_marked_ones_no_others(draw, even):
    batch = draw(Adding(10), 65536)
    numbers, marked = batch.inputs[:, :, 0], batch.inputs[:, :, 1] == 1
    assert numbers.min() >= 0 and numbers.max() < 1
    for some in (numbers[marked], numbers[~marked], numbers[:, 0]):
        even(np.histogram(some, bins=20, range=(0, 1))[0])
    first, second = numbers[:, :5][marked[:, :5]], numbers[:, 5:][marked[:, 5:]]
    assert abs(np.corrcoef(first, second)[0, 1]) < 5 / np.sqrt(65536)


def test_floor_is_reached_by_always_answering_one(draw):
    task = Adding(10)
    sums, floor = draw(task, 65536).targets[:, -1, 0], task.floor()
    assert np.mean((sums - 1) ** 2) == pytest.approx(floor.loss, rel=0.02) and floor.loss == 1 / 6
    right = np.abs(sums - 1) <= task.tolerance
    assert right.mean() == pytest.approx(floor.accuracy, abs=0.005)
    assert floor.accuracy == pytest.approx(0.0784)
    for other in (0.9, 1.1):  # and no other constant does better
        assert np.mean((sums - other) ** 2) > np.mean((sums - 1) ** 2)
