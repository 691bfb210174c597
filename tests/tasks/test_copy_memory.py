"""Copy memory against a machine that reads one symbol at a time."""

import math

import numpy as np
import pytest

from longlag.tasks import CopyMemory


def copy_machine(tokens, symbols):
    """Queues symbols as they come; after the marker, says one per step."""
    queue, speaking, answers = [], False, []
    for token in tokens:
        answers.append(queue.pop(0) if speaking else 0)
        if token == symbols + 1:
            speaking = True
        elif token > 0:
            queue.append(token)
    assert not queue
    return answers


@pytest.mark.parametrize(
    "task", [CopyMemory(1, 2, 1), CopyMemory(5, 6, 3), CopyMemory(5, 4, 3)], ids=str
)
def test_targets_are_what_the_machine_says(task, draw):
    batch = draw(task)
    said = [copy_machine(row, task.symbols) for row in batch.inputs]
    np.testing.assert_array_equal(batch.targets, said)
    np.testing.assert_array_equal(batch.scored, batch.targets > 0)
    np.testing.assert_array_equal(batch.scored.sum(axis=1), task.items)
    assert batch.mask is None and np.all(batch.weights == 1)


def test_the_layout_is_that_of_the_paper(draw):
    # T of the paper is `lag`: T + 20 steps, the marker at T + 9, ten symbols held for T + 10 steps.
    task = CopyMemory(lag=30)
    inputs = draw(task).inputs
    assert inputs.shape[1] == task.time_steps == 50
    assert task.in_features == 10 and task.out_features == 9
    assert np.all((inputs[:, :10] >= 1) & (inputs[:, :10] <= 8))
    assert np.all(inputs[:, 39] == 9)
    assert not inputs[:, 10:39].any() and not inputs[:, 40:].any()


def test_symbols_are_uniform_and_independent(draw, even):
    symbols = draw(CopyMemory(lag=6, symbols=4, items=3), 16384).inputs[:, :3]
    code = (symbols - 1) @ [16, 4, 1]
    even(np.bincount(code, minlength=64))


def test_floor_is_reached_by_any_symbol_and_known_from_the_paper(draw):
    task = CopyMemory(lag=6, symbols=4, items=3)
    batch, floor = draw(task, 16384), task.floor()
    chance = np.full((task.time_steps, task.out_features), 1e-30)
    chance[: -task.items, 0] = 1
    chance[-task.items :, 1:] = 1 / task.symbols
    said = chance[np.arange(task.time_steps), batch.targets]
    loss = (batch.weights * -np.log(said)).sum() / batch.weights.sum()
    assert loss == pytest.approx(floor.loss, rel=1e-6)
    assert (batch.targets == 3)[batch.scored].mean() == pytest.approx(floor.accuracy, abs=0.02)
    published = {30: 0.4159, 80: 0.2079, 100: 0.1733, 500: 0.0400, 1000: 0.0204, 2000: 0.0103}
    for lag, loss in published.items():
        assert round(CopyMemory(lag).floor().loss, 4) == loss
    assert CopyMemory().floor().accuracy == 1 / 8
    assert math.isclose(CopyMemory().floor().loss, 10 * math.log(8) / 50)
