"""Memorization against a book that is written from one batch and read in another."""

import numpy as np
import pytest

from longlag.tasks import Memorization


def book(batch, facts):
    """What the value of each key was, which must be the same wherever it was asked."""
    found = {}
    for tokens, said in zip(batch.inputs.tolist(), batch.targets.tolist()):
        for key, ask, value in zip(tokens[::2], tokens[1::2], said[1::2]):
            assert ask == facts
            assert found.setdefault(key, value) == value
    return found


@pytest.mark.parametrize("task", [Memorization(10, 6), Memorization(2, 2), Memorization()], ids=str)
def test_every_batch_tells_the_same_facts(task, draw):
    batch = draw(task)
    first, second = book(draw(task, 4096, seed=1), task.facts), book(batch, task.facts)
    assert sorted(first) == sorted(first.values()) == list(range(task.facts))
    assert second.items() <= first.items()
    assert not batch.targets[:, ::2].any() and batch.mask is None
    np.testing.assert_array_equal(batch.scored, np.tile(np.arange(task.length) % 2 == 1, (64, 1)))
    np.testing.assert_array_equal(batch.weights, batch.scored.astype(np.float32))


def test_another_seed_is_another_map_of_the_same_keys(draw):
    one, other = (draw(Memorization(10, 6, map_seed)) for map_seed in (0, 1))
    np.testing.assert_array_equal(one.inputs, other.inputs)
    assert book(one, 6) != book(other, 6)


def test_keys_are_uniform_and_independent(draw, even):
    keys = draw(Memorization(6, 4), 16384).inputs[:, ::2]
    even(np.bincount(keys @ [16, 4, 1], minlength=64))
