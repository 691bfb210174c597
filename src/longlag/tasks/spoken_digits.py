"""Spoken digits: sounds step by step, and what was said, without a word of when."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Literal

import jax
import jax.numpy as jnp

from longlag.core.array_types import Features, Mask, PRNGKey, RowIntegers, TargetTokens
from longlag.core.batch import Batch
from longlag.core.spec import choose
from longlag.data import spoken_digits as data
from longlag.tasks.task import Floor, Task

__all__ = ["SpokenDigits"]

PAUSE = 7  # steps at most, before, between and after the digits
# What a channel adds, in logarithms of the power of a band: from nothing to what hides a whisper.
QUIETEST, LOUDEST = data.SILENCE, -10.0
MOST_SILENCED = 8  # bands at most that a channel silences
SOFTEST = 7.0  # so much below the mean is silence
SPREAD = 3.0  # about the deviation of the logarithms


class SpokenDigits(Task):
    """Spoken digits: transcribe the digits that a voice says in one of five languages.

    Nobody says when a digit begins or ends: the answers are a transcript, learned by connectionist
    temporal classification.

        inputs  50 steps of 32 mel bands in 3 frames of 10 ms, then padding: "quatre, sept"
        targets 4 7

    Training draws one to `digits` digits, each by one recording of the same synthetic voice, with
    pauses and a hiss of a strength drawn for the whole; validation draws other synthetic voices
    likewise. The test is of human voices, one a language. A test of single digits is read in order,
    every recording once (`Training.eval_size` of at least 50; the rows beyond have no weight);
    longer ones are always of `digits` digits, drawn, so that a recording is in many. Of every
    sequence the mean of its loud steps is taken away.

    Answers: class 0 is the blank, class d + 1 the digit d.

    Floor: any digit, by somebody who knows how many there are.

    Attributes:
        digits: at most in training, exactly in a test.
        part: what is drawn from: "train", "validation" or "test".

    Raises:
        ValueError: an impossible dial.
        ImportError, FileNotFoundError: the data are not there; the message says how to get them.

    Reference: Graves et al. 2006, "Connectionist temporal classification"; the data, docs/data.md.
    """

    digits: int = 2
    part: Literal["train", "validation", "test"] = "train"

    inputs_kind = "features"
    targets_kind = "transcripts"
    lag_field = "digits"

    def __post_init__(self) -> None:
        choose(self.part, ("train", "validation", "test"), "SpokenDigits.part")
        self.require(self.digits >= 1, "digits >= 1")

    @property
    def time_steps(self) -> int:
        """T, that of the slowest voices."""
        return data.LONGEST * self.digits

    @property
    def in_features(self) -> int:
        """The bands of three frames."""
        return data.FEATURES

    @property
    def out_features(self) -> int:
        """The digits, and the blank."""
        return 11

    def evaluation_task(self, purpose: Literal["validation", "test"]) -> SpokenDigits:
        """Synthetic voices of other timbres to choose by; human ones for the test."""
        return dataclasses.replace(self, part=purpose)

    @property
    def voices(self) -> data.DigitRecordings:
        """The voices of the part."""
        return getattr(data.load(), self.part)

    def sample(self, key: PRNGKey, batch_size: int) -> Batch:
        """Draws inputs `[B, T, 96]` float32 and targets `[B, digits]` int32; see above."""
        N = self.digits
        of_voice, of_digits, of_count, of_pauses, of_channel = jax.random.split(key, 5)
        count = jnp.full(batch_size, N)
        whole = jnp.ones(batch_size, bool)
        voices = len(self.voices)
        voice = jax.random.randint(of_voice, (batch_size,), 0, voices, jnp.int32)
        digits = jax.random.randint(of_digits, (batch_size, N), 0, 10, jnp.int32)
        if self.part != "test":
            count = jax.random.randint(of_count, (batch_size,), 1, N + 1, jnp.int32)
        elif N == 1 and batch_size >= 10 * voices:
            row = jnp.arange(batch_size, dtype=jnp.int32)
            whole = row < 10 * voices
            voice, digits = jnp.where(whole, row // 10, 0), (row % 10)[:, None]
        present = jnp.arange(N)[None] < count[:, None]
        pauses = jax.random.uniform(of_pauses, (batch_size, N + 1), jnp.float32)
        of_slowness, of_hiss, of_band, of_width = jax.random.split(of_channel, 4)
        slowness = jnp.ones(batch_size, jnp.float32)
        if self.part == "train":
            slowness = jax.random.uniform(of_slowness, (batch_size,), jnp.float32, 0.75, 1.5)
        sounds, mask = self._speak(voice, digits, present, pauses, slowness)
        if self.part == "train":
            level = jax.random.uniform(of_hiss, (batch_size, 1, 1), jnp.float32, QUIETEST, LOUDEST)
            sounds = jnp.logaddexp(sounds, level)
            lowest = jax.random.randint(of_band, (batch_size, 1), 0, data.BANDS, jnp.int32)
            width = jax.random.randint(of_width, (batch_size, 1), 0, MOST_SILENCED + 1)
            band = jnp.arange(data.FEATURES) % data.BANDS
            silenced = (band >= lowest) & (band < lowest + width)
            sounds = jnp.where(silenced[:, None], data.SILENCE, sounds)
        weighted = present & whole[:, None]
        return Batch(
            inputs=_centre(sounds, mask),
            targets=jnp.where(weighted, digits + 1, 0),
            weights=weighted.astype(jnp.float32),
            scored=weighted,
            mask=mask,
        )

    def utterances(self, voice: RowIntegers, digits: TargetTokens) -> tuple[Features, Mask]:
        """What certain voices of the part say, with pauses of half the usual length at most.

        Args:
            voice: `[B]` int32.
            digits: `[B, digits]` int32, 0 to 9.

        Returns:
            Inputs `[B, T, 96]` float32 and their mask `[B, T]` bool.
        """
        pauses = jnp.full((len(voice), self.digits + 1), 0.5)
        present, slowness = jnp.ones(digits.shape, bool), jnp.ones(len(voice))
        sounds, mask = self._speak(voice, digits, present, pauses, slowness)
        return _centre(sounds, mask), mask

    def _speak(
        self,
        voice: jax.Array,
        digits: jax.Array,
        present: jax.Array,
        pauses: jax.Array,
        slowness: jax.Array,
    ) -> tuple[jax.Array, jax.Array]:
        """One recording after another: logarithms `[B, T, 96]`, and where there is sound.

        Args:
            voice: `[B]`.
            digits: `[B, N]`.
            present: `[B, N]` bool, the digits that are spoken.
            pauses: `[B, N + 1]` in [0, 1), how much of the longest pause there is before each digit
                and at the end.
            slowness: `[B]`, what the steps of a recording are multiplied by, up to the longest
                there is.
        """
        T = self.time_steps
        recorded = jnp.asarray(self.voices.lengths)[voice[:, None], digits] * present
        lengths = jnp.minimum((recorded * slowness[:, None]).astype(jnp.int32), data.LONGEST)
        # Pauses are shorter where slow voices leave no room.
        room = (T - lengths.sum(axis=1, keepdims=True)) // (present.sum(axis=1, keepdims=True) + 1)
        pauses = (pauses * jnp.minimum(PAUSE, room)).astype(jnp.int32)
        before, last = pauses[:, :-1] * present, pauses[:, -1]
        begins = jnp.cumsum(before + lengths, axis=1) - lengths
        ends = (begins + lengths).max(axis=1) + last
        steps = jnp.arange(T)
        # The digit that began last, and how far it is spoken.
        began = (steps[None, :, None] >= begins[:, None]) & present[:, None]
        which = jnp.maximum(began.sum(axis=-1) - 1, 0)
        at_step = functools.partial(jnp.take_along_axis, indices=which, axis=1)
        length = at_step(lengths)
        since = steps - at_step(begins)
        spoken = (since >= 0) & (since < length)
        at = jnp.clip(since * at_step(recorded) // jnp.maximum(length, 1), 0)
        sounds = jnp.asarray(self.voices.features)[voice[:, None], at_step(digits), at]
        sounds = jnp.where(spoken[..., None], sounds.astype(jnp.float32), data.SILENCE)
        return sounds, steps < ends[:, None]

    def floor(self) -> Floor:
        """Every digit alike."""
        return Floor(math.log(10), 0.1, "any digit, told how many")

    def picture(self) -> str:
        """Steps, and what is asked."""
        steps = "50 steps of 32 mel bands in 3 frames of 10 ms, then padding"
        return f'inputs  {steps}: "quatre, sept"\ntargets 4 7'


def _centre(sounds: jax.Array, mask: jax.Array) -> jax.Array:
    """Every sequence less the mean of its loud steps, which is what its channel and its gain add.

    What is softer than `SOFTEST` below that is as good as silence: how silent it is is the room's.
    """
    loudness = jnp.where(mask, sounds.mean(axis=-1), -jnp.inf)
    loud = (loudness > loudness.max(axis=1, keepdims=True) - SOFTEST)[..., None]
    mean = (sounds * loud).sum(axis=1, keepdims=True) / loud.sum(axis=1, keepdims=True)
    return jnp.where(mask[..., None], jnp.maximum(sounds - mean, -SOFTEST) / SPREAD, 0.0)
