"""Losses of transcripts, against torch; what is written, and when it is right."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from longlag.tasks import Batch, SpokenDigits
from longlag.training import losses, mean_loss, transcript

TASK = SpokenDigits(3)


def batch_of(targets: list[list[int]], lengths: list[int], steps: int) -> Batch:
    """Targets of several lengths, heard in so many steps."""
    asked = np.array([[n < len(row) for n in range(3)] for row in targets])
    filled = np.array([row + [0] * (3 - len(row)) for row in targets], np.int32)
    return Batch(
        inputs=jnp.zeros((len(targets), steps, 1)),
        targets=jnp.asarray(filled),
        weights=jnp.asarray(asked, jnp.float32),
        scored=jnp.asarray(asked),
        mask=jnp.arange(steps) < jnp.asarray(lengths)[:, None],
    )


def test_losses_and_gradients_are_those_of_torch(rng):
    targets, lengths = [[3, 3, 5], [7], [2, 9], [1, 2, 3]], [12, 4, 9, 7]
    batch = batch_of(targets, lengths, 12)
    answers = rng.normal(size=(4, 12, 11)).astype(np.float32)

    def whole(answers):
        return mean_loss(losses(TASK, answers, batch)[0], batch.weights)

    loss, gradient = jax.value_and_grad(whole)(answers)
    theirs = torch.tensor(answers, requires_grad=True)
    each = torch.nn.functional.ctc_loss(
        theirs.log_softmax(-1).transpose(0, 1),
        torch.tensor(np.asarray(batch.targets)),
        torch.tensor(lengths),
        torch.tensor([len(row) for row in targets]),
        reduction="none",
    )
    expected = each.sum() / 9  # nine digits in all
    expected.backward()
    np.testing.assert_allclose(loss, expected.item(), rtol=1e-5)
    np.testing.assert_allclose(gradient, theirs.grad.numpy(), atol=1e-5)
    assert not np.asarray(gradient)[1, 4:].any(), "what is not heard has no gradient"


def plain(said: list[int]) -> list[int]:
    """The oracle: repeats once, then no blanks."""
    return [c for c, _ in itertools.groupby(said) if c]


def test_what_is_written_is_the_likeliest_path_without_repeats_and_blanks(rng):
    said = rng.integers(0, 4, (50, 12)) * (rng.random((50, 12)) < 0.8)
    lengths = rng.integers(1, 13, 50)
    mask = np.arange(12) < lengths[:, None]
    rows = np.asarray(transcript(jax.nn.one_hot(said, 4), jnp.asarray(mask)))
    for row, path, length in zip(rows, said, lengths):
        expected = plain(path[:length].tolist())
        assert row.tolist() == expected + [0] * (12 - len(expected))


@pytest.mark.parametrize(
    ("said", "right"),
    [
        ([0, 4, 4, 0, 4, 0, 2, 2], [True, True, True]),
        ([4, 0, 4, 2, 0, 0, 0, 0], [True, True, True]),
        # Four classes: the third is right in its place, but more is written after it.
        ([4, 0, 4, 2, 0, 5, 0, 0], [True, True, False]),
        # Two: the repeat without a blank is one.
        ([4, 4, 2, 0, 0, 0, 0, 0], [True, False, False]),
        ([0, 0, 0, 0, 0, 0, 0, 0], [False, False, False]),
    ],
)
def test_a_transcript_is_right_in_its_places_and_at_its_end(said, right):
    batch = batch_of([[4, 4, 2]], [8], 8)
    _, found = losses(TASK, jax.nn.one_hot(jnp.array([said]), 11), batch)
    assert found[0].tolist() == right


def test_what_is_not_asked_has_no_loss():
    batch = batch_of([[1, 2, 3], []], [8, 8], 8)
    each, _ = losses(TASK, jnp.zeros((2, 8, 11)), batch)
    assert (each[0] > 0).all() and np.ptp(np.asarray(each[0])) == 0 and not each[1].any()
