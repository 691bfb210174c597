"""Selective copying against a filter over the inputs."""

import itertools
import math

import numpy as np
import pytest

from longlag.tasks import SelectiveCopy


def answers(tokens, vocab, once):
    """Keeps what is neither noise nor output token; says it, one per output token or after it."""
    kept = iter([token for token in tokens if 0 < token < vocab])
    seen = [list(tokens[:i]).count(vocab) for i in range(len(tokens))]
    asked = np.array(seen) == 1 if once else tokens == vocab
    said = [next(kept) if ask else 0 for ask in asked]
    assert next(kept, None) is None
    return said


TASKS = [SelectiveCopy(9, 3, 6), SelectiveCopy(9, 3, 4), SelectiveCopy(4, 4, 3)]
TASKS += [SelectiveCopy(256, 16, 16), SelectiveCopy(9, 3, 6, True), SelectiveCopy(4, 4, 3, True)]


@pytest.mark.parametrize("task", TASKS, ids=str)
def test_targets_are_the_data_tokens_in_their_order(task, draw):
    batch = draw(task)
    said = [answers(row, task.vocab, task.marker_once) for row in batch.inputs]
    np.testing.assert_array_equal(batch.targets, said)
    slots = [task.vocab] * task.items
    if task.marker_once:
        slots = [task.vocab] + [0] * task.items
    assert np.all(batch.inputs[:, task.length :] == slots)
    assert np.all(batch.inputs[:, : task.length] < task.vocab)
    np.testing.assert_array_equal(batch.scored, batch.targets > 0)
    np.testing.assert_array_equal(batch.weights, batch.scored.astype(np.float32))
    assert batch.mask is None and batch.inputs.shape[1] == task.length + len(slots)


def test_the_marker_changes_nothing_but_itself(draw):
    each, once = draw(SelectiveCopy(9, 3, 6)), draw(SelectiveCopy(9, 3, 6, marker_once=True))
    np.testing.assert_array_equal(each.inputs[:, :9], once.inputs[:, :9])
    np.testing.assert_array_equal(each.targets[:, 9:], once.targets[:, 10:])


def test_the_dials_of_mad_make_its_lengths_and_its_vocabulary():
    task = SelectiveCopy(length=239, items=16, vocab=15, marker_once=True)
    assert (task.time_steps, task.in_features) == (256, 16)


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
