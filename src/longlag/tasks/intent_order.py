"""Intent order: which of two devices a command acts on first, which its words alone do not say."""

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
from longlag.data import intent_order as data
from longlag.data.intents import Vocabulary, tokenize
from longlag.tasks.task import Floor, Task

__all__ = ["Corpus", "IntentOrder", "corpus"]


@dataclasses.dataclass(frozen=True, eq=False)
class Corpus:
    """The commands as numbers.

    Attributes:
        commands: all of them.
        vocabulary: of the training part.
        tokens: `[N, T]` int32.
        mask: `[N, T]` bool.
    """

    commands: data.Commands
    vocabulary: Vocabulary
    tokens: np.ndarray
    mask: np.ndarray


@functools.cache
def corpus(per_frame: int, fold: int, folds: int) -> Corpus:
    """Loads and encodes, once per process; arguments as the fields of `IntentOrder`."""
    commands = data.load(per_frame, fold, folds)
    vocabulary = Vocabulary.build(commands.texts[i] for i in commands.parts["train"])
    length = max(len(tokenize(text)) for text in commands.texts)
    return Corpus(commands, vocabulary, *vocabulary.encode(commands.texts, length))


class IntentOrder(Task):
    """Commands about two devices: read word by word, answered at the last word.

    The class is the kind of the device that the command acts on first. A device that is excluded
    ("not the kettle", "instead of the kettle") is not acted on. For example:

        inputs  open the curtains after you turn off the kettle
        targets  .    .      .      .    .   .    .   .  switch

    Every command has a partner with the same words and the other device as its answer. The test is
    of combinations: a frame such as "{other} after you {first}", with two names that it never had
    in training. The part "frames" is of frames that training never had.

    Floor: any function of the bag of words gives both partners one answer. So it is right in at
    most one of two, and its loss is at least ln 2. One that names either device reaches 1/2.

    Attributes:
        per_frame: training pairs of a frame.
        fold: which frames are held out.
        folds: how many folds of frames there are.
        part: what is drawn from: "train"; "validation", further commands of the same frames and
            names; "combinations" or "frames", which are held out.

    Reference: home-assistant-intents, and frames of our own, see docs/data.md.
    """

    per_frame: int = 600
    fold: int = 0
    folds: int = 4
    part: Literal["train", "validation", "combinations", "frames"] = "train"

    lag_field = "length"

    def __post_init__(self) -> None:
        self.require(self.per_frame >= 1, "per_frame >= 1")
        self.require(self.folds >= 2, "folds >= 2")
        self.require(0 <= self.fold < self.folds, "0 <= fold < folds")
        choose(self.part, data.PARTS, "IntentOrder.part")

    @property
    def corpus(self) -> Corpus:
        """The commands."""
        return corpus(self.per_frame, self.fold, self.folds)

    @property
    def rows(self) -> np.ndarray:
        """Indices of the commands of the part; partners follow each other."""
        return self.corpus.commands.parts[self.part]

    @property
    def length(self) -> int:
        """T, words of the longest command; it is the data's and no dial."""
        return self.corpus.tokens.shape[1]

    @property
    def time_steps(self) -> int:
        """T."""
        return self.length

    @property
    def in_features(self) -> int:
        """The words of the training part, padding and the unknown word."""
        return len(self.corpus.vocabulary)

    @property
    def out_features(self) -> int:
        """The kinds of device."""
        return len(data.KINDS)

    @property
    def weighted_steps(self) -> int:
        """The last word."""
        return 1

    def evaluation_task(self, purpose: Literal["validation", "test"]) -> IntentOrder:
        """Of a training part: further commands like it, and held-out combinations at the end."""
        if self.part != "train":
            return self
        part = "validation" if purpose == "validation" else "combinations"
        return dataclasses.replace(self, part=part)

    def sample(self, key: PRNGKey, batch_size: int) -> Batch:
        """Draws inputs and targets `[B, T]` int32, asked at the last word; all commands alike."""
        rows = self.rows
        chosen = jax.random.randint(key, (batch_size,), 0, len(rows), jnp.int32)
        mask = jnp.asarray(self.corpus.mask[rows])[chosen]
        target = jnp.asarray(self.corpus.commands.labels[rows])[chosen]
        last = jnp.arange(mask.shape[1])[None] == mask.sum(1, keepdims=True) - 1
        return Batch(
            inputs=jnp.asarray(self.corpus.tokens[rows])[chosen],
            targets=jnp.where(last, target[:, None], 0),
            weights=last.astype(jnp.float32),
            scored=last,
            mask=mask,
        )

    def floor(self) -> Floor:
        """Either of the two devices, which is the best that a bag of words can do."""
        return Floor(math.log(2), 0.5, "any function of the bag of words")

    def picture(self) -> str:
        """A command of the part "train" in fold 0."""
        return (
            "inputs  open the curtains after you turn off the kettle\n"
            "targets  .    .      .      .    .   .    .   .  switch"
        )
