"""Digits one after another: what is heard is what is to be written."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from longlag.data.spoken_digits import SILENCE
from longlag.tasks import SpokenDigits, pad
from longlag.tasks.spoken_digits import PAUSE, SOFTEST, SPREAD
from longlag.training import evaluation_batch


def centred(sounds: np.ndarray) -> np.ndarray:
    """The oracle of one sequence, in float64."""
    loudness = sounds.mean(axis=1)
    mean = sounds[loudness > loudness.max() - SOFTEST].mean(axis=0)
    return np.maximum(sounds - mean, -SOFTEST) / SPREAD


def test_recordings_follow_each_other_with_pauses(few_voices):
    task = SpokenDigits(3, part="validation")
    voice = np.array([4, 1], np.int32)
    digits = np.array([[3, 3, 8], [0, 9, 1]], np.int32)
    inputs, mask = jax.jit(task.utterances)(voice, digits)
    part = few_voices.validation
    pause = np.full((int(PAUSE * 0.5), 96), SILENCE)
    for row in range(2):
        sounds = [pause]
        for digit in digits[row]:
            length = part.lengths[voice[row], digit]
            sounds += [part.features[voice[row], digit, :length].astype(np.float64), pause]
        whole = np.concatenate(sounds)
        assert np.asarray(mask[row]).nonzero()[0].tolist() == [*range(len(whole))]
        np.testing.assert_allclose(inputs[row, : len(whole)], centred(whole), atol=1e-5)
        assert not inputs[row, len(whole) :].any()


@pytest.mark.parametrize("slowness", [0.75, 1.5, 9.0])
def test_a_slower_voice_has_more_steps_and_shorter_pauses_where_there_is_no_room(
    few_voices, slowness
):
    task, part = SpokenDigits(2, part="validation"), few_voices.validation
    voice, digits = np.array([2], np.int32), np.array([[6, 1]], np.int32)
    said, late = np.ones((1, 2), bool), np.full((1, 3), 0.999)
    sounds, mask = jax.jit(task._speak)(voice, digits, said, late, np.array([slowness]))
    recorded = [int(part.lengths[2, digit]) for digit in digits[0]]
    lengths = [min(int(np.float32(n * slowness)), 43) for n in recorded]
    pause = int(0.999 * min(PAUSE, (86 - sum(lengths)) // 3))
    expected = [np.full((pause, 96), SILENCE)]
    for digit, n, length in zip(digits[0], recorded, lengths):
        steps = [i * n // length for i in range(length)]
        expected += [part.features[2, digit, steps].astype(np.float32), expected[0]]
    whole = np.concatenate(expected)
    assert np.asarray(mask[0]).sum() == len(whole) and (slowness < 9 or len(whole) == 86)
    np.testing.assert_allclose(sounds[0, : len(whole)], whole, rtol=1e-6)


def test_training_draws_strings_of_every_length_with_a_voice_of_their_own(few_voices, draw):
    batch = draw(SpokenDigits(3), 600)
    count = batch.scored.sum(axis=1)
    assert abs(np.bincount(count)[1:] - 200).max() < 50 and count.min() == 1
    assert (batch.scored == (np.arange(3) < count[:, None])).all()
    assert (batch.targets[~batch.scored] == 0).all()
    digits = np.bincount(batch.targets[batch.scored], minlength=11)
    assert digits[0] == 0 and abs(digits[1:] - batch.scored.sum() / 10).max() < 45
    assert batch.inputs.shape == (600, 129, 96) and not batch.inputs[~batch.mask].any()
    steps = batch.mask.sum(axis=1)
    assert (batch.mask == (np.arange(129) < steps[:, None])).all()
    # Between .75 and 1.5 times as slow, with two pauses of 0 to 6 steps beside.
    slower = (steps[count == 1].mean() - 6) / few_voices.train.lengths.mean()
    assert slower == pytest.approx(1.125, abs=0.05)
    # Slower voices are longer, and no recording is longer than the longest.
    assert steps[count == 1].max() <= 43 + 2 * PAUSE
    assert steps[count == 3].mean() > 2 * steps[count == 1].mean()


def test_a_channel_loses_bands_and_hisses_in_training_alone(few_voices, draw):
    def lost(task):
        """The share of sequences with a band that is the same at all early steps."""
        heard = draw(task, 64).inputs[:, 2:8].reshape(64, 6, 3, 32)
        return (np.ptp(heard, axis=(1, 2)) == 0).any(axis=1).mean()

    assert lost(SpokenDigits(1)) > 0.5 and lost(SpokenDigits(1, part="validation")) < 0.3


def test_the_test_of_single_digits_hears_every_recording_once(few_voices):
    batch = evaluation_batch(SpokenDigits(1), 64, "test")
    assert batch.scored[:50].all() and not batch.scored[50:].any()
    assert batch.targets[:50, 0].tolist() == [*range(1, 11)] * 5
    assert len({row.tobytes() for row in np.asarray(batch.inputs[:50])}) == 50
    two = evaluation_batch(SpokenDigits(2), 64, "test")
    assert two.scored.all() and two.targets.min() == 1


def test_a_batch_is_padded_in_time_and_not_in_what_is_written(few_voices, draw):
    batch = draw(SpokenDigits(1), 4)
    padded = pad(batch, 86)
    assert padded.inputs.shape == (4, 86, 96) and padded.mask.shape == (4, 86)
    assert padded.targets.shape == padded.weights.shape == padded.scored.shape == (4, 1)
    assert not padded.mask[:, 43:].any()


def test_impossible_dials_are_refused():
    with pytest.raises(ValueError, match="digits >= 1"):
        SpokenDigits(0)
    with pytest.raises(ValueError, match=r"SpokenDigits\.part"):
        SpokenDigits(part="dev")  # type: ignore[arg-type]


def test_the_floor_knows_how_many_digits_there_are():
    floor = SpokenDigits().floor()
    assert floor.accuracy == 0.1 and floor.loss == pytest.approx(np.log(10))
    assert "quatre, sept" in SpokenDigits().picture() and SpokenDigits().at_lag(4).time_steps == 172
