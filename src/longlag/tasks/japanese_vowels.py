"""Japanese vowels: nine men say the same two vowels, and the last step names the speaker."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from longlag.core.array_types import PRNGKey
from longlag.core.batch import Batch
from longlag.core.spec import choose
from longlag.data import japanese_vowels as data
from longlag.tasks.task import Floor, Task

__all__ = ["JapaneseVowels"]

OF_EACH = 30  # training utterances of each speaker


class JapaneseVowels(Task):
    """Speaker identification: name the speaker of a recorded utterance at its last step.

    Twelve LPC cepstrum coefficients a step, 7 to 29 steps. All say /ae/, so no word or vowel is
    recognised:

        inputs  20 steps of 12 coefficients, then padding
        targets . . . . . . . . . . . . . . . . . . . speaker 3 - - - - - - - - -

    The inputs have mean 0 and deviation 1 in what is trained on, coefficient by coefficient.

    Training draws with replacement. What is held out is read in order instead, every utterance
    once, so that an evaluation set (`Training.eval_size`) of its size or larger is all of it; the
    rows beyond have no weight. A smaller one is spread over it evenly.

    With a `fold`, the training part alone is divided: a run learns from the other folds, and is
    validated and tested on this one. The standard test part is then out of reach.

    Floor: any speaker, ln 9 and 1/9; how many of each the test part has is nobody's to know.

    Attributes:
        fold: -1, the standard split; or which fold of the training part is held out.
        folds: into how many it is divided; every speaker has as many utterances in each, or one
            more, which follow each other in the file.
        part: what is drawn from: "train"; or what is held out, "fold" or "test".

    Raises:
        ValueError: an impossible fold, or a part that the split does not have.
        FileNotFoundError: the data are not there; the message says how to get them.

    Reference: Kudo, Toyama and Shimbo 1999, "Multidimensional curve classification using
    passing-through regions".
    """

    fold: int = -1
    folds: int = 5
    part: Literal["train", "fold", "test"] = "train"

    inputs_kind = "features"
    lag_field = "length"

    def __post_init__(self) -> None:
        choose(self.part, ("train", "fold", "test"), "JapaneseVowels.part")
        self.require(2 <= self.folds <= OF_EACH, f"2 <= folds <= {OF_EACH}")
        self.require(-1 <= self.fold < self.folds, "-1 <= fold < folds")
        # A run that chooses by a fold must not see the test.
        other = "test" if self.fold >= 0 else "fold"
        self.require(self.part != other, f"no part {other!r} with fold = {self.fold}")

    @property
    def length(self) -> int:
        """T: that of the longest utterance; it is the data's and no dial."""
        return data.LONGEST

    @property
    def time_steps(self) -> int:
        """T."""
        return data.LONGEST

    @property
    def in_features(self) -> int:
        """The coefficients."""
        return data.CEPSTRA

    @property
    def out_features(self) -> int:
        """The speakers."""
        return data.SPEAKERS

    def evaluation_task(self, purpose: Literal["validation", "test"]) -> JapaneseVowels:
        """What is held out: the fold; without one the test part, at the end alone."""
        if self.fold >= 0:
            return dataclasses.replace(self, part="fold")
        return self if purpose == "validation" else dataclasses.replace(self, part="test")

    @property
    def weighted_steps(self) -> int:
        """The last step of the utterance."""
        return 1

    @property
    def utterances(self) -> data.VowelUtterances:
        """The utterances of the part, standardised by what is trained on."""
        return _standardise(self.fold, self.folds, self.part)

    def sample(self, key: PRNGKey, batch_size: int) -> Batch:
        """Draws inputs `[B, 29, 12]` float32 and targets `[B, 29]` int32; see above."""
        utterances = self.utterances
        count = len(utterances)
        whole = jnp.ones(batch_size, bool)
        if self.part == "train":
            chosen = jax.random.randint(key, (batch_size,), 0, count, jnp.int32)
        elif batch_size < count:
            chosen = jnp.arange(batch_size) * count // batch_size
        else:
            whole = jnp.arange(batch_size) < count
            chosen = jnp.where(whole, jnp.arange(batch_size), 0)
        mask = jnp.asarray(utterances.mask)[chosen]
        last = jnp.arange(self.length)[None] == jnp.asarray(utterances.lengths)[chosen][:, None] - 1
        last &= whole[:, None]
        return Batch(
            inputs=jnp.asarray(utterances.cepstra)[chosen],
            targets=jnp.where(last, jnp.asarray(utterances.speakers)[chosen][:, None], 0),
            weights=last.astype(jnp.float32),
            scored=last,
            mask=mask,
        )

    def floor(self) -> Floor:
        """Every speaker alike."""
        return Floor(math.log(self.out_features), 1 / self.out_features, "any speaker")

    def picture(self) -> str:
        """Steps, and what is asked."""
        targets = " ".join([*"." * 19, "speaker 3", *"-" * 9])
        return f"inputs  20 steps of 12 coefficients, then padding\ntargets {targets}"


@functools.cache
def _standardise(fold: int, folds: int, part: str) -> data.VowelUtterances:
    """The utterances of a part; arguments as the fields of `JapaneseVowels`."""
    loaded = data.load()
    # Utterances that follow each other may be of one session: a fold of neighbours is held out
    # more honestly than every fifth.
    within = np.tile(np.arange(OF_EACH), data.SPEAKERS)
    held = within * folds // OF_EACH == fold
    trained = loaded.train[~held]
    steps = trained.cepstra[trained.mask]
    mean, deviation = steps.mean(axis=0), steps.std(axis=0)
    utterances = {"train": trained, "fold": loaded.train[held], "test": loaded.test}[part]
    cepstra = np.where(utterances.mask[..., None], (utterances.cepstra - mean) / deviation, 0)
    return dataclasses.replace(utterances, cepstra=cepstra.astype(np.float32))
