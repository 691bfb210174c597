"""First input against its words: the answer is the token that is no noise."""

import numpy as np
import pytest

from longlag.tasks import FirstInput

TASKS = [FirstInput(7, 5), FirstInput(1, 2), FirstInput(50), FirstInput(7, 2, dense=False)]


@pytest.mark.parametrize("task", TASKS, ids=str)
def test_the_one_token_that_is_no_noise_is_the_answer_and_scored_at_the_last_step(task, draw):
    batch = draw(task)
    assert batch.inputs.shape[1] == task.lag + 1
    for inputs, targets in zip(batch.inputs, batch.targets):
        (symbol,) = [token for token in inputs if token < task.symbols]
        assert symbol == inputs[0]
        assert (targets[-1:] == symbol).all()
        assert (targets[:-1] == (symbol if task.dense else 0)).all()
    assert np.flatnonzero(batch.scored.any(axis=0)).tolist() == [task.lag]
    np.testing.assert_array_equal(batch.weights, batch.scored | task.dense)


def test_symbols_and_noise_are_uniform(draw, even):
    batch = draw(FirstInput(lag=8, symbols=4), 8192)
    even(np.bincount(batch.inputs[:, 0], minlength=4))
    even(np.bincount(batch.inputs[:, 1:].ravel() - 4, minlength=4))


def test_impossible_dials_are_refused():
    with pytest.raises(ValueError, match="expected lag >= 1"):
        FirstInput(lag=0)
    with pytest.raises(ValueError, match="expected symbols >= 2"):
        FirstInput(symbols=1)
