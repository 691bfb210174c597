"""Associative recall with one query against a dictionary."""

import numpy as np
import pytest

from longlag.tasks import AssociativeRecall


def answer(tokens, task):
    """Reads pairs into a dictionary up to the query token; looks up what comes after it."""
    book, tokens = {}, iter(tokens)
    for key in tokens:
        if key == task.values + task.keys:
            return book.get(next(tokens), task.values), list(tokens)
        value = next(tokens)
        assert value < task.values <= key
        assert book.setdefault(key, value) == value
    raise AssertionError("no query")


TASKS = [AssociativeRecall(4, 3, 5), AssociativeRecall(1, 2, 2), AssociativeRecall()]


@pytest.mark.parametrize("task", TASKS, ids=str)
def test_the_target_is_what_the_dictionary_says(task, draw):
    batch = draw(task)
    for inputs, targets in zip(batch.inputs.tolist(), batch.targets):
        said, after = answer(inputs, task)
        assert after == [] and targets[-1] == said
    assert not batch.targets[:, :-1].any() and batch.mask is None
    assert {0, task.values} <= set(batch.targets[:, -1])  # both kinds of answer
    last = np.arange(task.time_steps) == 2 * task.pairs + 1
    np.testing.assert_array_equal(batch.scored, np.tile(last, (64, 1)))
    np.testing.assert_array_equal(batch.weights, batch.scored.astype(np.float32))


def test_keys_and_values_are_uniform_and_independent(draw, even):
    inputs = draw(AssociativeRecall(pairs=2, keys=3, values=4), 16384).inputs
    keys, values = inputs[:, [0, 2, 5]] - 4, inputs[:, [1, 3]]
    even(np.bincount(keys @ [9, 3, 1], minlength=27))
    apart = keys[:, 0] != keys[:, 1]
    even(np.bincount(values[apart] @ [4, 1], minlength=16))


@pytest.mark.parametrize(("pairs", "note"), [(1, '"no"'), (2, '"no"'), (9, "any value")])
def test_the_floor_is_how_often_keys_are_new(pairs, note, draw):
    """Three keys: counted over all sequences of keys that there are."""
    task = AssociativeRecall(pairs, keys=3, values=4)
    keys = np.indices((3,) * (pairs + 1)).reshape(pairs + 1, -1)
    new = np.all(keys[:-1] != keys[-1], axis=0).mean()
    chances = np.array([new] + [(1 - new) / 4] * 4)
    floor = task.floor()
    assert floor.accuracy == pytest.approx(max(chances)) and floor.note == note
    assert floor.loss == pytest.approx(-(chances * np.log(chances)).sum())
    answers = draw(task, 16384).targets[:, -1]
    assert (answers == 4).mean() == pytest.approx(new, abs=0.02)
