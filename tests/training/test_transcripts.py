"""Losses of transcripts, against torch; what is written, and when it is right."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from longlag.models import NO_CLASS
from longlag.tasks import Batch, SpokenDigits
from longlag.tasks.batch_checks import check_values
from longlag.training import losses, mean_loss, nan_answers, transcript

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


def test_a_transcript_with_a_nan_is_never_right():
    batch = batch_of([[4, 4, 2], [4]], [6, 2], 8)
    answers = np.array(jax.nn.one_hot([[4, 0, 4, 0, 2, 0, 0, 0], [4] + [0] * 7], 11))
    for row, step, right in ((0, 1, False), (0, 5, False), (0, 6, True), (1, 1, False)):
        spoilt = answers.copy()
        spoilt[row, step] = np.nan  # steps 1 and 5 are blank, and step 6 is not heard
        _, found = losses(TASK, jnp.asarray(spoilt), batch)
        asked = np.asarray(batch.scored[row])
        assert found[row, asked].tolist() == [right] * asked.sum()
        nan = nan_answers(TASK, jnp.asarray(spoilt), batch)
        assert nan[row].tolist() == [not right] * 3 and not nan[1 - row].any()
        rows = np.asarray(transcript(jnp.asarray(spoilt), batch.mask))
        assert (rows == NO_CLASS).sum() == (not right)


def test_what_is_not_asked_has_no_loss():
    batch = batch_of([[1, 2, 3], []], [8, 8], 8)
    each, _ = losses(TASK, jnp.zeros((2, 8, 11)), batch)
    assert (each[0] > 0).all() and np.ptp(np.asarray(each[0])) == 0 and not each[1].any()


def enumerated(log_probs: np.ndarray, target: list[int]) -> float:
    """The oracle: -log of the sum over all paths that are written so."""
    steps, classes = log_probs.shape
    paths = [p for p in itertools.product(range(classes), repeat=steps) if plain([*p]) == target]
    scores = [sum(log_probs[t, c] for t, c in enumerate(path)) for path in paths]
    return -np.logaddexp.reduce(scores) if scores else np.inf


def test_losses_of_empty_and_impossible_transcripts_are_those_of_all_paths(x64, rng):
    """Steps without sound lie between others, and the loss of a row is the sum of its places."""
    targets = [[], [1], [1, 1], [1, 1], [1, 2], [1, 2, 1], [2, 2, 2], []]
    lengths = [3, 1, 3, 2, 2, 2, 4, 0]
    mask = np.array([rng.permutation(np.arange(4) < n) for n in lengths])
    batch = batch_of(targets, lengths, 4)
    weights = np.asarray(batch.weights) + 0.0
    weights[[0, 7], 0] = 1.0  # a blank with a weight: nothing is to be written
    batch = batch.replace(weights=jnp.asarray(weights), mask=jnp.asarray(mask))
    answers = rng.normal(size=(8, 4, 3))
    logs = np.asarray(jax.nn.log_softmax(answers))
    expected = [enumerated(row[live], t) for row, live, t in zip(logs, mask, targets)]
    assert np.isinf(expected).tolist() == [False] * 3 + [True, False, True, True, False]

    def whole(answers):
        each, _ = losses(TASK, answers, batch)
        return jnp.where(jnp.isinf(each), 0.0, each).sum(), each

    (_, each), gradient = jax.jit(jax.value_and_grad(whole, has_aux=True))(answers)
    np.testing.assert_allclose(each.sum(axis=1), expected, rtol=1e-9, atol=1e-12)
    assert np.isfinite(gradient).all() and not np.asarray(gradient)[np.isinf(expected)].any()
    heard = [np.pad(row[live], ((0, 4 - live.sum()), (0, 0))) for row, live in zip(logs, mask)]
    theirs = torch.tensor(np.stack(heard))
    flat = torch.tensor([c for row in targets for c in row])
    sizes = torch.tensor([len(row) for row in targets])
    peer = torch.nn.functional.ctc_loss(
        theirs.transpose(0, 1), flat, torch.tensor(lengths), sizes, reduction="none"
    )
    np.testing.assert_allclose(each.sum(axis=1), peer.numpy(), rtol=1e-9, atol=1e-12)


def test_an_empty_transcript_is_right_if_nothing_is_written():
    batch = batch_of([[], []], [4, 4], 4)
    batch = batch.replace(weights=batch.weights.at[:, 0].set(1.0))
    said = jax.nn.one_hot(jnp.array([[0, 0, 0, 0], [0, 4, 0, 0]]), 11)
    _, found = jax.jit(lambda answers: losses(TASK, answers, batch))(said)
    assert found[:, 0].tolist() == [True, False]


@pytest.mark.parametrize(
    ("targets", "steps", "message"),
    [
        ([[3, 3, 5]], 3, r"transcripts that their steps can hold; got longer ones in \[0\]"),
        ([[3, 0, 5]], 9, r"the classes of a transcript first, or one blank alone"),
        ([[0, 0]], 9, r"the classes of a transcript first, or one blank alone"),
    ],
)
def test_transcripts_that_cannot_be_are_refused_where_they_are_known(targets, steps, message):
    check_values(TASK, batch_of([[3, 3, 5], [0]], [4, 4], 4))
    batch = batch_of(targets, [steps] * len(targets), steps)
    with pytest.raises(ValueError, match=message):
        check_values(TASK, batch)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"targets": [[1]]}, "batch.targets: expected an array, got list"),
        ({"targets": jnp.ones((1, 3))}, "expected transcripts as targets .*; got targets float32"),
        ({"targets": jnp.ones((1, 2), int)}, r"got targets int32 of shape \(1, 2\) and weights"),
        ({"targets": jnp.full((1, 3), 11)}, r"targets: expected tokens of 0 .. 10, got 11 .. 11"),
        ({"answers": jnp.ones((1, 11))}, r"answers: expected floats of shape \[B, T, K\]"),
        ({"answers": jnp.ones((1, 8, 11), complex)}, "answers: expected floats .* got complex64"),
        ({"answers": jnp.ones((2, 8, 11))}, r"for answers of shape \(2, 8, 11\); got targets"),
        ({"batch": {}}, "batch: expected a Batch, got dict"),
    ],
    ids=str,
)
def test_answers_and_targets_that_do_not_fit_are_refused(change, message):
    batch, answers = batch_of([[1, 2, 3]], [8], 8), change.pop("answers", jnp.ones((1, 8, 11)))
    batch = change.pop("batch", None) if "batch" in change else batch.replace(**change)
    with pytest.raises(ValueError, match=message):
        losses(TASK, answers, batch)
