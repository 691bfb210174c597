"""Intent recognition: which of 42 things an utterance asks for."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from longlag.data import intents as data
from longlag.spec import choose
from longlag.tasks.task import Batch, Floor, Task

__all__ = ["Corpus", "Intents", "corpus"]


@dataclasses.dataclass(frozen=True, eq=False)
class Corpus:
    """The utterances as numbers.

    Attributes:
        utterances: all of them.
        split: which are for training and which for the test, by template.
        train: `[...]`, indices of the utterances to learn from.
        held: `[...]`, indices of those to score: the test part, or validation templates.
        vocabulary: of `train`.
        length: T, words of the longest utterance.
        tokens: `[N, T]` int32.
        mask: `[N, T]` bool.
    """

    utterances: data.Utterances
    split: data.Split
    train: np.ndarray
    held: np.ndarray
    vocabulary: data.Vocabulary
    length: int
    tokens: np.ndarray
    mask: np.ndarray


@functools.cache
def corpus(language: str, per_template: int, split_seed: int, validation: bool) -> Corpus:
    """Loads, splits and encodes, once per process; arguments as the fields of `Intents`."""
    utterances = data.load(language, per_template)
    split = data.split(utterances, split_seed)
    train, held = split.train, split.test
    if validation:
        # The same split once more, within the training part: the test part stays unseen.
        inner = data.split(_part(utterances, train), split_seed + 1)
        train, held = train[inner.train], train[inner.test]
    vocabulary = data.Vocabulary.build(utterances.texts[i] for i in train)
    length = max(len(data.tokenize(text)) for text in utterances.texts)
    tokens, mask = vocabulary.encode(utterances.texts, length)
    return Corpus(utterances, split, train, held, vocabulary, length, tokens, mask)


class Intents(Task):
    """Intent recognition on real utterances: read word by word, answered at the last word.

    An intent is drawn uniformly, then one of its training utterances, so that every intent counts
    alike although some have thousands of utterances and some nine. With word_dropout=0:

        inputs  what time is it
        targets  .    .   . HassGetCurrentTime

    Floor: any intent, ln 42 and 1/42 in English; the floors that matter (majority, bag of words)
    are fitted by `longlag.data.intents.floors`.

    Attributes:
        language: a code of the package, such as en or de.
        per_template: the most utterances of one template.
        split_seed: which templates are held out.
        validation: hold out templates of the training part, to choose hyperparameters by.
        word_dropout: probability that a word is replaced by the unknown word, so that no single
            word is relied upon.
        part: what is drawn from: "train", or "held", the held-out templates, with every word.

    Reference: home-assistant-intents, see docs/data.md.
    """

    language: str = "en"
    per_template: int = 60
    split_seed: int = 0
    validation: bool = False
    word_dropout: float = 0.1
    part: Literal["train", "held"] = "train"

    lag_field = "length"

    def __post_init__(self) -> None:
        self.require(self.per_template >= 1, "per_template >= 1")
        self.require(0 <= self.word_dropout < 1, "0 <= word_dropout < 1")
        choose(self.part, ("train", "held"), "Intents.part")

    @property
    def corpus(self) -> Corpus:
        """The utterances."""
        return corpus(self.language, self.per_template, self.split_seed, self.validation)

    @property
    def length(self) -> int:
        """T, words of the longest utterance; it is the data's and no dial."""
        return self.corpus.length

    @property
    def time_steps(self) -> int:
        """T."""
        return self.corpus.length

    @property
    def in_features(self) -> int:
        """The words of the training part, padding and the unknown word."""
        return len(self.corpus.vocabulary)

    @property
    def out_features(self) -> int:
        """The intents."""
        return len(self.corpus.utterances.intents)

    def evaluated(self, purpose: Literal["validation", "test"]) -> Intents:
        """The held-out templates at the end, with every word."""
        return (
            self
            if purpose == "validation"
            else dataclasses.replace(self, part="held", word_dropout=0.0)
        )

    def sample(self, key: jax.Array, batch_size: int) -> Batch:
        """Draws inputs and targets `[B, T]` int32, asked at the last word."""
        rows = self.corpus.train if self.part == "train" else self.corpus.held
        labels = self.corpus.utterances.labels[rows]
        order = np.argsort(labels, kind="stable")
        present, first, count = np.unique(labels[order], return_index=True, return_counts=True)
        of_intent, of_utterance, of_words = jax.random.split(key, 3)
        intent = jax.random.randint(of_intent, (batch_size,), 0, len(present), jnp.int32)
        count = jnp.asarray(count, jnp.int32)[intent]
        place = jax.random.randint(of_utterance, (batch_size,), 0, count, jnp.int32)
        chosen = jnp.asarray(order, jnp.int32)[jnp.asarray(first, jnp.int32)[intent] + place]
        tokens = jnp.asarray(self.corpus.tokens[rows])[chosen]
        mask = jnp.asarray(self.corpus.mask[rows])[chosen]
        lost = jax.random.bernoulli(of_words, self.word_dropout, tokens.shape) & mask
        asked = jnp.arange(tokens.shape[1]) == mask.sum(1, keepdims=True) - 1
        target = jnp.asarray(present, jnp.int32)[intent][:, None]
        return Batch(
            inputs=jnp.where(lost, data.UNKNOWN, tokens),
            targets=jnp.where(asked, target, 0),
            weights=asked.astype(jnp.float32),
            scored=asked,
            mask=mask,
        )

    def floor(self) -> Floor:
        """Every intent alike."""
        return Floor(math.log(self.out_features), 1 / self.out_features, "any intent")

    def picture(self) -> str:
        """The text's own example."""
        return "inputs  what time is it\ntargets  .    .   . HassGetCurrentTime"


def _part(utterances: data.Utterances, index: np.ndarray) -> data.Utterances:
    place = {int(old): new for new, old in enumerate(index)}
    return dataclasses.replace(
        utterances,
        texts=tuple(utterances.texts[i] for i in index),
        labels=utterances.labels[index],
        templates=utterances.templates[index],
        shared={place[i]: own for i, own in utterances.shared.items() if i in place},
    )
