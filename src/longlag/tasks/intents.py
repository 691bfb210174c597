"""Intent recognition: which of some forty things an utterance asks for."""

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
from longlag.data import intents as data
from longlag.tasks.task import Floor, Task

__all__ = ["Corpus", "Intents", "corpus", "shuffle_words"]


@dataclasses.dataclass(frozen=True, eq=False)
class Corpus:
    """The utterances as numbers.

    Attributes:
        utterances: all of them.
        parts: the indices of those to learn from and of those to score.
        vocabulary: of the words to learn from.
        length: T, words of the longest utterance.
        tokens: `[N, T]` int32.
        mask: `[N, T]` bool.
    """

    utterances: data.Utterances
    parts: data.TemplateSplits
    vocabulary: data.Vocabulary
    length: int
    tokens: np.ndarray
    mask: np.ndarray


_load = functools.cache(data.load)


@functools.cache
def corpus(language: str, per_template: int, fold: int, folds: int) -> Corpus:
    """Loads, divides and encodes, once per process; arguments as the fields of `Intents`."""
    utterances = _load(language, per_template)
    if fold < 0:
        every = np.arange(len(utterances))
        parts = data.TemplateSplits(every, every, every[:0])
    else:
        utterances = data.keep_divisible(utterances)
        parts = data.split(utterances, data.folds(utterances, folds), fold)
    vocabulary = data.Vocabulary.build(utterances.texts[i] for i in parts.train)
    length = max(len(data.tokenize(text)) for text in utterances.texts)
    tokens, mask = vocabulary.encode(utterances.texts, length)
    return Corpus(utterances, parts, vocabulary, length, tokens, mask)


class Intents(Task):
    """Intent recognition: classify real utterances, read word by word, at the last word.

    An intent is drawn uniformly, then one of its training utterances, so that every intent counts
    alike although some have thousands of utterances and some nine. With word_dropout=0:

        inputs  what time is it
        targets  .    .   . HassGetCurrentTime

    Whole templates are held out, one fold of a cross-validation, over the intents with at least
    three. With fold=-1 all templates of all intents are learned from, and nothing is held out: the
    test is then of what was learned, and says nothing about sentences of another form.

    Floor: any intent, ln K and 1/K for K intents; the floors that matter (majority, bag of words)
    are fitted by `longlag.data.intents.floors`.

    Attributes:
        language: a code of the package, such as en or de.
        per_template: the most utterances of one template.
        fold: which fold is held out; -1: none.
        folds: how many there are.
        shuffled: the words of every utterance come in an order of chance, another one each time it
            is drawn, which leaves a recurrence what a bag of words has.
        word_dropout: probability that a word is replaced by the unknown word, so that no single
            word is relied upon.
        part: what is drawn from: "train", or "held", the held-out templates, with every word.

    Reference: home-assistant-intents, see docs/data.md.
    """

    language: str = "en"
    per_template: int = 60
    fold: int = 0
    folds: int = 5
    shuffled: bool = False
    word_dropout: float = 0.1
    part: Literal["train", "held"] = "train"

    lag_field = "length"

    def __post_init__(self) -> None:
        self.require(self.per_template >= 1, "per_template >= 1")
        self.require(0 <= self.word_dropout < 1, "0 <= word_dropout < 1")
        self.require(self.folds >= 2, "folds >= 2")
        self.require(-1 <= self.fold < self.folds, "-1 <= fold < folds")
        choose(self.part, ("train", "held"), "Intents.part")

    @property
    def corpus(self) -> Corpus:
        """The utterances."""
        return corpus(self.language, self.per_template, self.fold, self.folds)

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

    @property
    def weighted_steps(self) -> int:
        """The last word."""
        return 1

    @property
    def rows(self) -> np.ndarray:
        """Indices of the utterances of the part."""
        return self.corpus.parts.train if self.part == "train" else self.corpus.parts.held

    def evaluation_task(self, purpose: Literal["validation", "test"]) -> Intents:
        """The held-out templates at the end, with every word."""
        return (
            self
            if purpose == "validation"
            else dataclasses.replace(self, part="held", word_dropout=0.0)
        )

    def sample(self, key: PRNGKey, batch_size: int) -> Batch:
        """Draws inputs and targets `[B, T]` int32, asked at the last word."""
        rows = self.rows
        labels = self.corpus.utterances.labels[rows]
        order = np.argsort(labels, kind="stable")
        present, first, count = np.unique(labels[order], return_index=True, return_counts=True)
        of_intent, of_utterance, of_words, of_order = jax.random.split(key, 4)
        intent = jax.random.randint(of_intent, (batch_size,), 0, len(present), jnp.int32)
        count = jnp.asarray(count, jnp.int32)[intent]
        place = jax.random.randint(of_utterance, (batch_size,), 0, count, jnp.int32)
        chosen = jnp.asarray(order, jnp.int32)[jnp.asarray(first, jnp.int32)[intent] + place]
        tokens = jnp.asarray(self.corpus.tokens[rows])[chosen]
        mask = jnp.asarray(self.corpus.mask[rows])[chosen]
        if self.shuffled:
            tokens = shuffle_words(of_order, tokens, mask)
        chance = jax.random.uniform(of_words, tokens.shape, jnp.float32)
        dropped = (chance < self.word_dropout) & mask
        last = jnp.arange(tokens.shape[1])[None] == mask.sum(1, keepdims=True) - 1
        target = jnp.asarray(present, jnp.int32)[intent][:, None]
        return Batch(
            inputs=jnp.where(dropped, data.UNKNOWN, tokens),
            targets=jnp.where(last, target, 0),
            weights=last.astype(jnp.float32),
            scored=last,
            mask=mask,
        )

    def full_utterances(self) -> tuple[np.ndarray, np.ndarray]:
        """The part's utterances with every word, in their order.

        Returns:
            tokens `[N, T]` int32 and mask `[N, T]` bool; if `shuffled`, the words of each in one
            order of chance, the same at every call.
        """
        tokens, mask = self.corpus.tokens[self.rows], self.corpus.mask[self.rows]
        if self.shuffled:
            key = jax.random.key(0)
            tokens = np.asarray(shuffle_words(key, jnp.asarray(tokens), jnp.asarray(mask)))
        return tokens, mask

    def floor(self) -> Floor:
        """Every intent alike."""
        return Floor(math.log(self.out_features), 1 / self.out_features, "any intent")

    def picture(self) -> str:
        """The text's own example."""
        return "inputs  what time is it\ntargets  .    .   . HassGetCurrentTime"


def shuffle_words(key: jax.Array, tokens: jax.Array, mask: jax.Array) -> jax.Array:
    """Puts the words of each row into an order of chance, all orders alike; padding stays behind.

    Args:
        key: source of the orders.
        tokens: `[B, T]` int32.
        mask: `[B, T]` bool, true at the words, which come first.

    Returns:
        `[B, T]` int32.
    """
    place = jnp.where(mask, jax.random.uniform(key, mask.shape, jnp.float32), jnp.inf)
    return jnp.take_along_axis(tokens, place.argsort(axis=1), axis=1)
