"""Induction heads against a reader that remembers one token."""

import numpy as np
import pytest

from longlag.tasks import InductionHeads


def after_trigger(tokens, trigger):
    """What followed the trigger, said when it comes again, and how often it came."""
    said, followed, count = None, None, 0
    for before, token in zip([None, *tokens], tokens):
        if before == trigger and followed is None:
            followed = token
        if token == trigger:
            count += 1
            said = followed
    return said, count


@pytest.mark.parametrize(
    ("task", "size"),
    [(InductionHeads(9, 6), 8192), (InductionHeads(3, 3), 64), (InductionHeads(256), 64)],
)
def test_the_answer_is_what_followed_the_trigger(task, size, draw):
    batch = draw(task, size)
    trigger, T = task.vocab - 1, task.length
    for row in range(64):
        tokens = batch.inputs[row].tolist()
        said, count = after_trigger(tokens, trigger)
        assert count == 2 and tokens[-1] == trigger
        assert batch.targets[row, -1] == said < task.out_features
    np.testing.assert_array_equal(batch.scored, np.tile(np.arange(T) == T - 1, (size, 1)))
    np.testing.assert_array_equal(batch.weights, batch.scored.astype(np.float32))
    assert batch.mask is None


def test_the_trigger_lies_anywhere_and_all_else_is_uniform(draw, even):
    batch = draw(InductionHeads(9, 6), 8192)
    triggers = batch.inputs == 5
    even(triggers[:, :-2].sum(axis=0))
    assert not triggers[:, -2].any()  # the last token but one is what follows at the latest
    even(np.bincount(batch.inputs[~triggers], minlength=5))
    even(np.bincount(5 * batch.inputs[:, 7] + batch.targets[:, -1], minlength=25)[[1, 2, 3, 4]])
